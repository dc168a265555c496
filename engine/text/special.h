/*
 * engine/text/special.h - finds tokens that stand for themselves in a text: control tokens such as
 * <|im_end|>, and the ones a model's makers added by hand (user-defined).
 *
 * The leftmost is found first, and of those that begin at one place the longest.
 *
 * A token may take the spaces beside it with it, or be one only as a word of its own. Most are
 * sought in the text as it is given; *normalized* ones in what the normalizer makes of the text
 * between those.
 *
 * Threads: read-only after create.
 */
#ifndef TSR_ENGINE_TEXT_SPECIAL_H
#define TSR_ENGINE_TEXT_SPECIAL_H

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_special tsr_special;

/* What a token is; TSR_SPECIAL_CONTROL or TSR_SPECIAL_DEFINED is always among it. */
enum {
    TSR_SPECIAL_CONTROL = 1,
    TSR_SPECIAL_DEFINED = 2,
    TSR_SPECIAL_NORMALIZED = 4, /* sought after normalizing */
    TSR_SPECIAL_TAKES_LEFT = 8, /* the spaces before it belong to it */
    TSR_SPECIAL_TAKES_RIGHT = 16,
    TSR_SPECIAL_WORD = 32 /* only where no letter, mark or digit touches it */
};

typedef struct tsr_special_token {
    tsr_text_view text; /* an empty one is never found */
    int32_t id;
    uint32_t marks;
} tsr_special_token;

/* tokens [n_tokens] and their texts are copied. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_special_create(tsr_special **out, const tsr_special_token *tokens,
                                             int n_tokens);
void tsr_special_destroy(tsr_special *special);

typedef struct tsr_special_match {
    size_t start; /* in bytes, with the spaces that the token takes; n_bytes of the text when there
                     is no match */
    size_t end;   /* likewise */
    size_t at;    /* where the token itself begins */
    size_t next;  /* where the search goes on: behind the token itself */
    int32_t id;   /* -1: no match */
    bool takes_left;
} tsr_special_match;

/* Which tokens are sought. A set of three bits and what they allow. */
typedef struct tsr_special_filter {
    bool control;            /* control tokens, beside the user-defined ones */
    bool normalized;         /* those that are sought after normalizing, too */
    bool normalized_control; /* of these, the control tokens */
} tsr_special_filter;

/*
 * The first match in text[from, limit). What lies behind `limit` is looked at only to learn what
 * stands beside a token.
 */
tsr_special_match tsr_special_find(const tsr_special *special, const char *text, size_t n_bytes,
                                   size_t from, size_t limit, tsr_special_filter filter);

#ifdef __cplusplus
}
#endif

#endif
