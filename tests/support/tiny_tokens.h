/*
 * tests/support/tiny_tokens.h - the vocabulary of a tiny model: a byte-level BPE of any size.
 */
#ifndef TSR_TESTS_SUPPORT_TINY_TOKENS_H
#define TSR_TESTS_SUPPORT_TINY_TOKENS_H

#include "tests/support/gguf_writer.h"

enum {
    TINY_TOKENS_LEAST = 3 + 256 /* the special tokens and the bytes */
};

/* The tokenizer.ggml.* keys of a vocabulary of n_vocab tokens, TINY_TOKENS_LEAST or more: beyond
 * these, each is the result of one merge. pre: the name of the pre-tokenizer. */
void tiny_tokens_write(gguf_writer *w, const char *pre, int n_vocab);

#endif
