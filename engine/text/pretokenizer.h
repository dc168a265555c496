/*
 * engine/text/pretokenizer.h - cuts text into the pieces within which tokens may merge.
 *
 * A model was trained with one rule, which its file names (tokenizer.ggml.pre). A rule is a list of
 * patterns: the first cuts the text, each further one cuts the pieces of the one before it. What a
 * pattern matches is a piece, and so is what lies between two matches.
 *
 * Text need not be valid UTF-8: a byte that belongs to no character is a piece of its own, and the
 * text before and behind it is cut as if it ended and began there.
 *
 * Time grows with the length of the text and no faster, whatever the text is.
 *
 * Threads: read-only after create.
 */
#ifndef TSR_ENGINE_TEXT_PRETOKENIZER_H
#define TSR_ENGINE_TEXT_PRETOKENIZER_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_pretokenizer tsr_pretokenizer;

/* Errors: UNSUPPORTED (no rule of this name; the message lists those there are), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_pretokenizer_create(tsr_pretokenizer **out, const char *name,
                                                  size_t n_bytes);
void tsr_pretokenizer_destroy(tsr_pretokenizer *pretokenizer);

/* Is a piece that is a token as a whole taken at once, whatever the merges would make of it? */
bool tsr_pretokenizer_keeps_whole(const tsr_pretokenizer *pretokenizer);

/* Do models of this rule want BOS before a text when their file does not say? */
bool tsr_pretokenizer_wants_bos(const tsr_pretokenizer *pretokenizer);

/* Receives one piece (never empty, a window of the text). What it returns other than OK ends the
 * cutting. */
typedef tsr_status tsr_pretokenizer_piece(void *state, const char *piece, size_t n_bytes);

/* Hand the pieces of a text to `take`, from left to right. Errors: NOMEM, and what `take` returns.
 */
TSR_MUST_CHECK tsr_status tsr_pretokenizer_split(const tsr_pretokenizer *pretokenizer,
                                                 const char *text, size_t n_bytes,
                                                 tsr_pretokenizer_piece *take, void *state);

#ifdef __cplusplus
}
#endif

#endif
