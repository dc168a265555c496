/*
 * tests/bench_tokenizer.c - how fast a tokenizer reads a text, on one core.
 *
 *     bench_tokenizer <model.gguf or tokenizer.json> <text file>
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/tokenizer.h"

enum {
    N_ROUNDS = 5
};

static char *read_whole(const char *path, size_t *n_bytes)
{
    FILE *from = fopen(path, "rb");
    char *bytes = malloc(1 << 28);

    *n_bytes = from != NULL && bytes != NULL ? fread(bytes, 1, 1 << 28, from) : 0;
    if (from != NULL) {
        (void)fclose(from);
    }
    return bytes;
}

static tsr_status make(tsr_tokenizer **out, const char *path, const char *bytes, size_t n_bytes)
{
    tsr_gguf *gguf;
    tsr_status st;

    if (n_bytes > 0 && bytes[0] == '{') {
        return tsr_tokenizer_open_json(out, bytes, n_bytes, NULL, 0);
    }
    TSR_TRY(tsr_gguf_open(&gguf, path));
    st = tsr_tokenizer_create(out, gguf);
    tsr_gguf_close(gguf);
    return st;
}

static double seconds_since(int64_t start_ns)
{
    return (double)(tsr_clock_ns() - start_ns) / 1e9;
}

int main(int argc, char **argv)
{
    size_t n_model = 0;
    size_t n_text = 0;
    char *model = argc == 3 ? read_whole(argv[1], &n_model) : NULL;
    char *text = argc == 3 ? read_whole(argv[2], &n_text) : NULL;
    int64_t start = tsr_clock_ns();
    tsr_tokenizer *tok = NULL;

    if (model == NULL || text == NULL || make(&tok, argv[1], model, n_model) != TSR_OK) {
        (void)fprintf(stderr, "usage: bench_tokenizer <model> <text file> (%s)\n",
                      tsr_status_message());
        return EXIT_FAILURE;
    }
    (void)printf("made in %.3f s\n", seconds_since(start));
    for (int round = 0; round < N_ROUNDS; round++) {
        tsr_token_stream stream = {0};
        tsr_text back = {0};
        tsr_ids ids = {0};
        double encoding;

        start = tsr_clock_ns();
        if (tsr_tokenizer_encode(tok, &ids, text, n_text, true) != TSR_OK) {
            (void)fprintf(stderr, "%s\n", tsr_status_message());
            return EXIT_FAILURE;
        }
        encoding = seconds_since(start);
        start = tsr_clock_ns();
        for (int64_t i = 0; i < ids.n_ids; i++) {
            if (tsr_tokenizer_decode(tok, &stream, &back, ids.ids[i], true) != TSR_OK) {
                return EXIT_FAILURE;
            }
        }
        (void)printf("%zu bytes, %lld tokens: encode %.1f MB/s, decode %.1f MB/s, %s\n", n_text,
                     (long long)ids.n_ids, (double)n_text / encoding / 1e6,
                     (double)n_text / seconds_since(start) / 1e6,
                     back.n_bytes == n_text && memcmp(back.bytes, text, n_text) == 0
                         ? "the same text"
                         : "another text");
        tsr_ids_clear(&ids);
        tsr_text_clear(&back);
    }
    tsr_tokenizer_destroy(tok);
    free(model);
    free(text);
    return EXIT_SUCCESS;
}
