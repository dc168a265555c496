/*
 * tests/tiny_gguf.c - writes a tiny model for tests that are not written in C.
 *
 *     tiny_gguf --list
 *     tiny_gguf PRESET SEED PATH [ENCODING]     encoding of all matrices, as in Q4_K
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/tiny_model.h"

static void list(void)
{
    int n_presets;
    const tiny_model *presets = tiny_model_presets(&n_presets);

    for (int i = 0; i < n_presets; i++) {
        printf("%s\n", presets[i].name);
    }
}

static bool find_encoding(tsr_encoding *out, const char *name)
{
    for (int e = 0; e < TSR_ENCODING_COUNT; e++) {
        if (strcmp(tsr_encoding_describe((tsr_encoding)e)->name, name) == 0) {
            *out = (tsr_encoding)e;
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    const tiny_model *preset = argc > 1 ? tiny_model_preset(argv[1]) : NULL;
    tiny_model model;
    uint64_t seed;
    char *end;

    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        list();
        return 0;
    }
    if (argc < 4 || argc > 5) {
        fprintf(stderr, "usage: tiny_gguf PRESET SEED PATH [ENCODING] | tiny_gguf --list\n");
        return 2;
    }
    if (preset == NULL) {
        fprintf(stderr, "tiny_gguf: no preset \"%s\" (see tiny_gguf --list)\n", argv[1]);
        return 2;
    }
    errno = 0;
    seed = strtoull(argv[2], &end, 10);
    if (end == argv[2] || *end != '\0' || errno != 0) {
        fprintf(stderr, "tiny_gguf: \"%s\" is no seed: a whole number is\n", argv[2]);
        return 2;
    }
    model = *preset;
    if (argc == 5) {
        if (!find_encoding(&model.encoding, argv[4])) {
            fprintf(stderr, "tiny_gguf: no encoding \"%s\"\n", argv[4]);
            return 2;
        }
        model.down_encoding = model.encoding;
        model.head_encoding = model.encoding;
    }
    tiny_model_save(&model, seed, argv[3]);
    return 0;
}
