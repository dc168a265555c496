#include "tests/support/toy_vocab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    TEXT_BYTES = 128
};

/* The letter of a byte, written here a second time and in another way: the tables of
 * bytes_to_unicode() in github.com/openai/gpt-2, src/encoder.py, counted out. */
static void write_letter(char *letter, int byte)
{
    int n_unprintable = 0;
    int code = byte;

    for (int b = 0; b <= byte; b++) {
        const int printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;

        if (b == byte && !printable) {
            code = 256 + n_unprintable;
        }
        n_unprintable += !printable;
    }
    if (code < 128) {
        (void)snprintf(letter, TEXT_BYTES, "%c", code);
    } else {
        (void)snprintf(letter, TEXT_BYTES, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 63));
    }
}

void toy_vocab_write(gguf_writer *w, const toy_vocab *vocab)
{
    const size_t n = 256 + vocab->n_merges + vocab->n_extra;
    char(*texts)[TEXT_BYTES] = calloc(n, sizeof(*texts));
    const char **tokens = calloc(n, sizeof(*tokens));
    int32_t *types = calloc(n, sizeof(*types));

    assert_true(texts != NULL && tokens != NULL && types != NULL);
    for (size_t i = 0; i < n; i++) {
        tokens[i] = texts[i];
        types[i] = 1;
        if (i < 256) {
            write_letter(texts[i], (int)i);
            if (i > 0 && vocab->without != NULL && strchr(vocab->without, (char)i) != NULL) {
                (void)snprintf(texts[i], TEXT_BYTES, "[GONE_%zu]", i);
            }
        } else if (i < 256 + vocab->n_merges) {
            const char *merge = vocab->merges[i - 256];
            const size_t space = strcspn(merge, " ");

            (void)snprintf(texts[i], TEXT_BYTES, "%.*s%s", (int)space, merge, merge + space + 1);
        } else {
            (void)snprintf(texts[i], TEXT_BYTES, "%s",
                           vocab->extra[i - 256 - vocab->n_merges].text);
            types[i] = vocab->extra[i - 256 - vocab->n_merges].type;
        }
    }
    gguf_writer_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_writer_string(w, "tokenizer.ggml.pre", vocab->pre);
    gguf_writer_strings(w, "tokenizer.ggml.tokens", n, tokens);
    gguf_writer_i32s(w, "tokenizer.ggml.token_type", n, types);
    gguf_writer_strings(w, "tokenizer.ggml.merges", vocab->n_merges, vocab->merges);
    free(types);
    free(tokens);
    free(texts);
}
