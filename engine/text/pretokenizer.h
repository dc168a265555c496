/*
 * engine/text/pretokenizer.h - cuts text into the pieces within which tokens may form.
 *
 * A model was trained with one rule, which its file names (tokenizer.ggml.pre) or spells out
 * (tokenizer.json). A rule is a list of steps: the first takes the text, each further one the
 * pieces of the one before it. Most cut; some rewrite (a space at the front, letters for bytes).
 *
 * Text need not be valid UTF-8: a byte that belongs to no character is a piece of its own, and the
 * text before and behind it is cut as if it ended and began there.
 *
 * Time grows with the length of the text and no faster, whatever the text is, with the rules that
 * have a name; a tokenizer.json may bring patterns of its own, which are stopped when they go
 * astray.
 *
 * Threads: read-only after create.
 */
#ifndef TSR_ENGINE_TEXT_PRETOKENIZER_H
#define TSR_ENGINE_TEXT_PRETOKENIZER_H

#include <jansson.h>

#include "engine/text/regex.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_pretokenizer tsr_pretokenizer;

/* The rule of a GGUF file. Errors: UNSUPPORTED (no rule of this name; the message lists those there
 * are), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_pretokenizer_create(tsr_pretokenizer **out, const char *name,
                                                  size_t n_bytes);

/* The rule of a tokenizer.json; null is one piece. Errors: FORMAT, UNSUPPORTED (a step of a kind
 * that is not known, or a pattern), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_pretokenizer_create_json(tsr_pretokenizer **out, const json_t *json);

void tsr_pretokenizer_destroy(tsr_pretokenizer *pretokenizer);

/* Is a piece that is a token as a whole taken at once, whatever the merges would make of it? */
bool tsr_pretokenizer_keeps_whole(const tsr_pretokenizer *pretokenizer);

/* Do models of this rule want BOS before a text when their file does not say? */
bool tsr_pretokenizer_wants_bos(const tsr_pretokenizer *pretokenizer);

/* Are the bytes of a piece to be written in the letters of engine/text/byte_alphabet.h last of all?
 * A model of bytes need not have it done. */
bool tsr_pretokenizer_ends_in_letters(const tsr_pretokenizer *pretokenizer);
void tsr_pretokenizer_leave_bytes(tsr_pretokenizer *pretokenizer);

/* Receives one piece (never empty; good during the call). What it returns other than OK ends the
 * cutting. */
typedef tsr_status tsr_pretokenizer_piece(void *state, const char *piece, size_t n_bytes);

/* Where the text that is cut stands in what is encoded. */
typedef enum tsr_pretokenizer_place {
    TSR_PRETOKENIZER_PLACE_FIRST,  /* at its very beginning */
    TSR_PRETOKENIZER_PLACE_BEHIND, /* behind a special token */
    TSR_PRETOKENIZER_PLACE_WITHIN /* behind a byte that is no character: nothing is put before it */
} tsr_pretokenizer_place;

/* Room to cut in. Start with {0}; clear when done. */
typedef struct tsr_pretokenizer_work {
    tsr_regex_work regex;
    tsr_text *rewritten; /* [n_steps] what each step makes of its piece */
    int n_rewritten;
} tsr_pretokenizer_work;

void tsr_pretokenizer_work_clear(tsr_pretokenizer_work *work);

/* Hand the pieces of a text to `take`, from left to right. Errors: NOMEM, UNSUPPORTED (a pattern
 * that goes astray), and what `take` returns. */
TSR_MUST_CHECK tsr_status tsr_pretokenizer_split(const tsr_pretokenizer *pretokenizer,
                                                 tsr_pretokenizer_work *work,
                                                 tsr_pretokenizer_place place, const char *text,
                                                 size_t n_bytes, tsr_pretokenizer_piece *take,
                                                 void *state);

#ifdef __cplusplus
}
#endif

#endif
