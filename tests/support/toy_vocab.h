/*
 * tests/support/toy_vocab.h - small byte-level vocabularies made on the spot.
 *
 * Ids 0..255 are the bytes themselves, 256 + i is what merge i makes, and the extra tokens follow.
 */
#ifndef TSR_TESTS_SUPPORT_TOY_VOCAB_H
#define TSR_TESTS_SUPPORT_TOY_VOCAB_H

#include "tests/support/gguf_writer.h"

typedef struct toy_token {
    const char *text;
    int32_t type; /* as tokenizer.ggml.token_type numbers it: 1 normal, 3 control, 4 user-defined */
} toy_token;

typedef struct toy_vocab {
    const char *pre;
    size_t n_merges;
    const char *const *merges; /* "left right" in the letters of byte-level vocabularies */
    size_t n_extra;
    const toy_token *extra;
    const char *without; /* bytes whose tokens are called "[GONE_n]" instead */
} toy_vocab;

/* Write tokenizer.ggml.model, pre, tokens, token_type and merges. */
void toy_vocab_write(gguf_writer *w, const toy_vocab *vocab);

#endif
