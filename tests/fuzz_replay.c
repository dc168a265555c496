/*
 * tests/fuzz_replay.c - feed every file of a corpus folder to a fuzz entry, without a fuzzer.
 *
 *     replay_gguf tests/data/fuzz/gguf
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

/* One file in a block of just its size, so that a sanitizer sees a read past its end. */
static int replay(const char *path, size_t n_bytes)
{
    FILE *from = fopen(path, "rb");
    uint8_t *bytes = malloc(n_bytes);
    int rc = EXIT_FAILURE;

    if (from != NULL && (bytes != NULL || n_bytes == 0) &&
        (n_bytes == 0 || fread(bytes, 1, n_bytes, from) == n_bytes)) {
        (void)LLVMFuzzerTestOneInput(bytes, n_bytes);
        rc = EXIT_SUCCESS;
    } else {
        (void)fprintf(stderr, "%s cannot be read\n", path);
    }
    free(bytes);
    if (from != NULL) {
        (void)fclose(from);
    }
    return rc;
}

int main(int argc, char **argv)
{
    const struct dirent *entry;
    int n_replayed = 0;
    DIR *folder;

    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s <folder>\n", argv[0]);
        return EXIT_FAILURE;
    }
    folder = opendir(argv[1]);
    if (folder == NULL) {
        (void)fprintf(stderr, "%s is no folder that can be read\n", argv[1]);
        return EXIT_FAILURE;
    }
    while ((entry = readdir(folder)) != NULL) {
        char path[4096];
        struct stat facts;

        (void)snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
        if (stat(path, &facts) != 0 || !S_ISREG(facts.st_mode)) {
            continue;
        }
        if (replay(path, (size_t)facts.st_size) != EXIT_SUCCESS) {
            (void)closedir(folder);
            return EXIT_FAILURE;
        }
        n_replayed++;
    }
    (void)closedir(folder);
    (void)printf("%d files of %s replayed\n", n_replayed, argv[1]);
    return n_replayed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
