/*
 * engine/text/charsmap.h - SentencePiece's own way to normalize: a table from byte sequences to
 * texts.
 *
 * The table is a double-array trie, 32-bit units behind their number of bytes, then the texts, each
 * ended by a zero (github.com/google/sentencepiece, src/normalizer.cc;
 * github.com/s-yata/darts-clone). It comes in base64.
 *
 * Threads: read-only after create.
 */
#ifndef TSR_ENGINE_TEXT_CHARSMAP_H
#define TSR_ENGINE_TEXT_CHARSMAP_H

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_charsmap tsr_charsmap;

/* Errors: FORMAT (no base64, or no such table), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_charsmap_create(tsr_charsmap **out, tsr_text_view base64);
void tsr_charsmap_destroy(tsr_charsmap *charsmap);

/* Append what becomes of a text (valid UTF-8), a grapheme at a time. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_charsmap_apply(const tsr_charsmap *charsmap, tsr_text *out,
                                             tsr_text_view text);

#ifdef __cplusplus
}
#endif

#endif
