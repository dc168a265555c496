/*
 * engine/text/vocab.h - the tokens of a model: their texts, their kinds, and the way from text to
 * id.
 *
 * A token's text is what the file says: those of a byte-level model are written in the letters of
 * engine/text/byte_alphabet.h, control and user-defined ones as they are.
 *
 * Threads: read-only after create.
 */
#ifndef TSR_ENGINE_TEXT_VOCAB_H
#define TSR_ENGINE_TEXT_VOCAB_H

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_vocab tsr_vocab;

/* As tokenizer.ggml.token_type numbers them (github.com/ggml-org/ggml, docs/gguf.md), but for the
 * last. */
typedef enum tsr_token_kind {
    TSR_TOKEN_KIND_NORMAL = 1,
    TSR_TOKEN_KIND_UNKNOWN = 2,
    TSR_TOKEN_KIND_CONTROL = 3,
    TSR_TOKEN_KIND_USER_DEFINED = 4,
    TSR_TOKEN_KIND_UNUSED = 5,
    TSR_TOKEN_KIND_BYTE = 6,
    TSR_TOKEN_KIND_ADDED = 7, /* user-defined, and none of the model's own: ordinary text becomes it
                                 only where it is found as a special token */
    TSR_TOKEN_KIND_COUNT
} tsr_token_kind;

typedef struct tsr_vocab_token {
    tsr_text_view text; /* empty: it can only be given by its number */
    tsr_token_kind kind;
} tsr_vocab_token;

enum {
    TSR_VOCAB_MOST_TOKENS = 1 << 26 /* more than any model has */
};

/*
 * Copies what it needs.
 *
 *   tokens  [n_tokens]
 *
 * Errors: FORMAT (none or too many; two tokens with one text), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_vocab_create(tsr_vocab **out, const tsr_vocab_token *tokens,
                                           int64_t n_tokens);
void tsr_vocab_destroy(tsr_vocab *vocab);

int32_t tsr_vocab_n_tokens(const tsr_vocab *vocab);

/* id must be in [0, n_tokens). The text is good until the vocabulary is destroyed. */
tsr_text_view tsr_vocab_text(const tsr_vocab *vocab, int32_t id);
tsr_token_kind tsr_vocab_kind(const tsr_vocab *vocab, int32_t id);

/* Control or unknown: a sign of the model's own, which ordinary text can never become. */
bool tsr_vocab_is_control(const tsr_vocab *vocab, int32_t id);

/* The token with this text, which is given in two parts; -1 if there is none. */
int32_t tsr_vocab_find(const tsr_vocab *vocab, tsr_text_view head, tsr_text_view tail);

/* The same for one part, and for a token that ordinary text may become. */
int32_t tsr_vocab_find_plain(const tsr_vocab *vocab, const char *text, size_t n_bytes);

/* The token of a byte as byte fallback writes it, "<0x0A>"; -1 if there is none. */
int32_t tsr_vocab_find_byte(const tsr_vocab *vocab, uint8_t byte);

#ifdef __cplusplus
}
#endif

#endif
