/*
 * engine/text/tokenizer_model.h - the "model" and the "added_tokens" of a tokenizer.json: its
 * vocabulary, and how the pieces of a text become tokens.
 */
#ifndef TSR_ENGINE_TEXT_TOKENIZER_MODEL_H
#define TSR_ENGINE_TEXT_TOKENIZER_MODEL_H

#include <jansson.h>

#include "engine/text/tokenizer_parts.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Make tok->vocab and the special tokens; tok->normalizer is there. config: tokenizer_config.json,
 * whose added_tokens_decoder has the last word on how an added token is found; or NULL.
 * Errors: FORMAT, UNSUPPORTED, NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_tokenizer_read_vocab(tsr_tokenizer *tok, const json_t *json,
                                                   const json_t *config);

/* Make tok->bpe or tok->unigram; tok->vocab, tok->normalizer and tok->pre are there. Errors: as
 * above. */
TSR_MUST_CHECK tsr_status tsr_tokenizer_read_model(tsr_tokenizer *tok, const json_t *model);

#ifdef __cplusplus
}
#endif

#endif
