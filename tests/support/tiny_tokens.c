#include "tests/support/tiny_tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    N_SPECIAL = 3,
    TEXT_BYTES = 24 /* room for a token's text, and for "left right" */
};

#define SPACE "\xC4\xA0" /* U+0120, the space's character */

typedef struct vocabulary {
    char (*texts)[TEXT_BYTES];  /* [n_vocab] */
    char (*merges)[TEXT_BYTES]; /* [n_vocab], the first n_merges used */
    int n_tokens;
    int n_merges;
    int n_vocab;
} vocabulary;

/*
 * Each byte has a printable character in the texts of a byte-level BPE: bytes that are visible in
 * Latin-1 stand for themselves, the others, in order, for U+0100 and up (Radford et al., 2019).
 */
static void byte_text(char out[TEXT_BYTES], int byte)
{
    int code = 0x100;

    for (int b = 0; b <= byte; b++) {
        const bool visible = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);

        if (b == byte && visible) {
            code = b;
        } else if (b < byte && !visible) {
            code++;
        }
    }
    if (code < 0x80) {
        (void)snprintf(out, TEXT_BYTES, "%c", code);
    } else {
        (void)snprintf(out, TEXT_BYTES, "%c%c", 0xC0 | code >> 6, 0x80 | (code & 0x3F));
    }
}

static bool has(const vocabulary *v, const char *text)
{
    for (int i = 0; i < v->n_tokens; i++) {
        if (strcmp(v->texts[i], text) == 0) {
            return true;
        }
    }
    return false;
}

/* One more token, unless there is no room or it is there already: the pair of two that exist. */
static void merge(vocabulary *v, const char *left, const char *right)
{
    char pair[2 * TEXT_BYTES];

    assert_true(has(v, left) && has(v, right));
    assert_true(strlen(left) + strlen(right) + 1 < TEXT_BYTES);
    (void)snprintf(pair, sizeof(pair), "%s%s", left, right);
    if (v->n_tokens == v->n_vocab || has(v, pair)) {
        return;
    }
    memcpy(v->texts[v->n_tokens++], pair, strlen(pair) + 1);
    (void)snprintf(pair, sizeof(pair), "%s %s", left, right);
    memcpy(v->merges[v->n_merges++], pair, strlen(pair) + 1);
}

static void make(vocabulary *v)
{
    // Some merges need an earlier one's result, and some
    // texts can be reached in two ways, so that the order of merging shows.
    static const char *const common[][2] = {
        {"t", "h"},
        {SPACE, "t"},
        {"h", "e"},
        {"i", "n"},
        {"e", "r"},
        {"a", "n"},
        {SPACE, "a"},
        {"o", "n"},
        {"r", "e"},
        {SPACE "t", "he"},
        {"e", "n"},
        {SPACE, "s"},
        {"o", "u"},
        {"in", "g"},
        {"an", "d"},
        {"e", "s"},
        {SPACE, "w"},
        {"o", "r"},
        {"i", "s"},
        {SPACE, "c"},
        {"i", "t"},
        {SPACE, "o"},
        {SPACE "o", "f"},
        {"e", "d"},
        {"a", "t"},
        {"a", "l"},
        {SPACE, SPACE},
        {SPACE "a", "nd"},
        {"th", "er"},
        {SPACE "t", "o"},
        {"\xC3\x83", "\xC2\xA9"} /* the two bytes of e with acute accent */,
    };
    char left[TEXT_BYTES];
    char right[TEXT_BYTES];

    (void)snprintf(v->texts[0], TEXT_BYTES, "<|endoftext|>");
    (void)snprintf(v->texts[1], TEXT_BYTES, "<|im_start|>");
    (void)snprintf(v->texts[2], TEXT_BYTES, "<|im_end|>");
    for (int b = 0; b < 256; b++) {
        byte_text(v->texts[N_SPECIAL + b], b);
    }
    v->n_tokens = N_SPECIAL + 256;
    for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++) {
        if (has(v, common[i][0]) && has(v, common[i][1])) {
            merge(v, common[i][0], common[i][1]);
        }
    }
    for (int a = 'a'; a <= 'z'; a++) {
        for (int b = 'a'; b <= 'z'; b++) {
            byte_text(left, a);
            byte_text(right, b);
            merge(v, left, right);
        }
    }
    assert_int_equal(v->n_tokens, v->n_vocab); // 930 or so is the most
}

void tiny_tokens_write(gguf_writer *w, const char *pre, int n_vocab)
{
    vocabulary v = {.n_vocab = n_vocab};
    const char **texts = calloc((size_t)n_vocab, sizeof(*texts));
    const char **merges = calloc((size_t)n_vocab, sizeof(*merges));
    int32_t *types = calloc((size_t)n_vocab, sizeof(*types));

    assert_true(n_vocab >= TINY_TOKENS_LEAST);
    v.texts = calloc((size_t)n_vocab, sizeof(*v.texts));
    v.merges = calloc((size_t)n_vocab, sizeof(*v.merges));
    assert_true(v.texts != NULL && v.merges != NULL && texts != NULL && merges != NULL &&
                types != NULL);
    make(&v);
    for (int i = 0; i < n_vocab; i++) {
        texts[i] = v.texts[i];
        merges[i] = v.merges[i];
        types[i] = i < N_SPECIAL ? 3 : 1; // control, normal
    }
    gguf_writer_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_writer_string(w, "tokenizer.ggml.pre", pre);
    gguf_writer_strings(w, "tokenizer.ggml.tokens", (size_t)n_vocab, texts);
    gguf_writer_i32s(w, "tokenizer.ggml.token_type", (size_t)n_vocab, types);
    gguf_writer_strings(w, "tokenizer.ggml.merges", (size_t)v.n_merges, merges);
    gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", 1);
    gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 2);
    gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", false);
    gguf_writer_string(w, "tokenizer.chat_template",
                       "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' "
                       "+ message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
                       "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
    free(v.texts);
    free(v.merges);
    free(texts);
    free(merges);
    free(types);
}
