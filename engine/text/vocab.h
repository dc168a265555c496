/*
 * engine/text/vocab.h - the tokens of a model: their texts, their kinds, and the way from text to
 * id.
 *
 * A token's text is what the file says: ordinary tokens are written in the letters of
 * engine/text/byte_alphabet.h, control and user-defined ones as they are.
 *
 * Threads: read-only after create.
 */
#ifndef TSR_ENGINE_TEXT_VOCAB_H
#define TSR_ENGINE_TEXT_VOCAB_H

#include "engine/gguf.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_vocab tsr_vocab;

/* tokenizer.ggml.token_type, github.com/ggml-org/ggml, docs/gguf.md. Other numbers count as normal.
 */
typedef enum tsr_token_kind {
    TSR_TOKEN_KIND_NORMAL = 1,
    TSR_TOKEN_KIND_UNKNOWN = 2,
    TSR_TOKEN_KIND_CONTROL = 3,
    TSR_TOKEN_KIND_USER_DEFINED = 4,
    TSR_TOKEN_KIND_UNUSED = 5,
    TSR_TOKEN_KIND_BYTE = 6,
    TSR_TOKEN_KIND_COUNT
} tsr_token_kind;

/*
 * Copies what it needs; gguf is borrowed only during the call. Without token types all are normal.
 * Errors: FORMAT (no tokens; another number of types; two tokens with one text), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_vocab_create(tsr_vocab **out, const tsr_gguf *gguf);
void tsr_vocab_destroy(tsr_vocab *vocab);

int32_t tsr_vocab_n_tokens(const tsr_vocab *vocab);

/* id must be in [0, n_tokens). The text is good until the vocabulary is destroyed. */
tsr_gguf_text tsr_vocab_text(const tsr_vocab *vocab, int32_t id);
tsr_token_kind tsr_vocab_kind(const tsr_vocab *vocab, int32_t id);

/* Control or unknown: a sign of the model's own, which ordinary text can never become. */
bool tsr_vocab_is_control(const tsr_vocab *vocab, int32_t id);

/* The token with this text, which is given in two parts; -1 if there is none. */
int32_t tsr_vocab_find(const tsr_vocab *vocab, tsr_gguf_text head, tsr_gguf_text tail);

size_t tsr_vocab_longest(const tsr_vocab *vocab); /* bytes of the longest text */

#ifdef __cplusplus
}
#endif

#endif
