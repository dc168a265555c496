/*
 * engine/text/special.h - finds tokens that stand for themselves in a text: control tokens such as
 * <|im_end|>, and the ones a model's makers added by hand (user-defined).
 *
 * The leftmost is found first, and of those that begin at one place the longest. Thousands of them
 * that begin alike cost no more than a few: they are kept in order and narrowed down byte by byte.
 *
 * Threads: read-only after create.
 */
#ifndef TSR_ENGINE_TEXT_SPECIAL_H
#define TSR_ENGINE_TEXT_SPECIAL_H

#include "engine/text/vocab.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_special tsr_special;

/* vocab is borrowed and must outlive it. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_special_create(tsr_special **out, const tsr_vocab *vocab);
void tsr_special_destroy(tsr_special *special);

typedef struct tsr_special_match {
    size_t start; /* in bytes; n_bytes of the text when there is no match */
    size_t n_bytes;
    int32_t id; /* -1: no match */
} tsr_special_match;

/* The first match at or after `from`. Control tokens only when match_control; user-defined always.
 */
tsr_special_match tsr_special_find(const tsr_special *special, const char *text, size_t n_bytes,
                                   size_t from, bool match_control);

#ifdef __cplusplus
}
#endif

#endif
