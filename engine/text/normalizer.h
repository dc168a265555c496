/*
 * engine/text/normalizer.h - rewrites text before it is cut: Unicode's normal forms, small letters,
 * spaces as another sign, and what else a tokenizer.json asks for.
 *
 * A row of steps, each of which takes what the one before it made.
 *
 * Threads: read-only after create; a tsr_normalizer_work belongs to one at a time.
 */
#ifndef TSR_ENGINE_TEXT_NORMALIZER_H
#define TSR_ENGINE_TEXT_NORMALIZER_H

#include <jansson.h>

#include "engine/text/regex.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_normalizer tsr_normalizer;

/* The normalizer of a tokenizer.json; *out is NULL where it has none. Errors: FORMAT, UNSUPPORTED
 * (a step of a kind that is not known, or a pattern), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_normalizer_create_json(tsr_normalizer **out, const json_t *json);

/* What SentencePiece does: spaces become U+2581, and one goes before a text if it is wanted.
 * Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_normalizer_create_spm(tsr_normalizer **out, bool adds_space);

void tsr_normalizer_destroy(tsr_normalizer *normalizer);

/* Room to rewrite in. Start with {0}; clear when done. */
typedef struct tsr_normalizer_work {
    tsr_regex_work regex;
    tsr_text texts[2];
    int32_t *code_points;
    size_t capacity;
} tsr_normalizer_work;

void tsr_normalizer_work_clear(tsr_normalizer_work *work);

/*
 * What becomes of a text. It lies in `work`, or is the text itself, and is good until the next
 * call.
 *
 *   text    valid UTF-8
 *   begins  may something be put before it? Not when it goes on behind a byte that is no character
 *   lost    characters at its beginning are left out, not only rewritten
 *
 * Errors: UNSUPPORTED (a pattern that goes astray), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_normalizer_apply(const tsr_normalizer *normalizer,
                                               tsr_normalizer_work *work, tsr_text_view *out,
                                               tsr_text_view text, bool begins, bool *lost);

#ifdef __cplusplus
}
#endif

#endif
