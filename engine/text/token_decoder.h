/*
 * engine/text/token_decoder.h - the text of a token.
 *
 * What a token is in the middle of a text is worked out once, when the decoder is made; what is
 * otherwise at a text's beginning or end is kept in the stream.
 *
 * Bytes that tokens stand for come out as they are, also where they are no UTF-8: what becomes of
 * those is up to whoever shows them.
 *
 * Threads: read-only after create.
 */
#ifndef TSR_ENGINE_TEXT_TOKEN_DECODER_H
#define TSR_ENGINE_TEXT_TOKEN_DECODER_H

#include <jansson.h>

#include "engine/text/token_stream.h"
#include "engine/text/vocab.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_token_decoder tsr_token_decoder;

/* All three: the vocabulary is borrowed and must outlive the decoder. Errors: NOMEM. */

/* Letters of engine/text/byte_alphabet.h are the bytes they stand for; control and user-defined
 * tokens are as they are. */
TSR_MUST_CHECK tsr_status tsr_token_decoder_create_bytes(tsr_token_decoder **out,
                                                         const tsr_vocab *vocab);

/* U+2581 is a space, "<0x0A>" a byte. strips: a space at the beginning of a text is left out. */
TSR_MUST_CHECK tsr_status tsr_token_decoder_create_spm(tsr_token_decoder **out,
                                                       const tsr_vocab *vocab, bool strips);

/* The decoder of a tokenizer.json; null puts spaces between tokens. Errors: also FORMAT,
 * UNSUPPORTED (a step of a kind that is not known, or a pattern). */
TSR_MUST_CHECK tsr_status tsr_token_decoder_create_json(tsr_token_decoder **out,
                                                        const tsr_vocab *vocab, const json_t *json);

void tsr_token_decoder_destroy(tsr_token_decoder *decoder);

/* Append the text of a token, which must exist. stream NULL: as in the middle of a text. Errors:
 * NOMEM; the text and the stream are then as they were. */
TSR_MUST_CHECK tsr_status tsr_token_decoder_append(const tsr_token_decoder *decoder,
                                                   tsr_token_stream *stream, tsr_text *out,
                                                   int32_t id);

#ifdef __cplusplus
}
#endif

#endif
