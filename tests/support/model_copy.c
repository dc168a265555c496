#include "tests/support/model_copy.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/stat.h>

#include <cmocka.h>

#include "engine/model.h"
#include "tests/support/scratch.h"

enum {
    PATH_BYTES = 512
};

static char folder[PATH_BYTES];

const char *model_copy_path(const char *name)
{
    static char path[2 * PATH_BYTES];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

char *model_copy_read(const char *path, size_t *n_bytes)
{
    FILE *from = fopen(path, "rb");
    char *bytes;
    long size;

    assert_non_null(from);
    assert_int_equal(fseek(from, 0, SEEK_END), 0);
    size = ftell(from);
    bytes = calloc((size_t)size + 1, 1);
    assert_non_null(bytes);
    rewind(from);
    assert_int_equal(fread(bytes, 1, (size_t)size, from), size);
    assert_int_equal(fclose(from), 0);
    *n_bytes = (size_t)size;
    return bytes;
}

void model_copy_write(const char *name, const char *bytes, size_t n_bytes)
{
    FILE *to = fopen(model_copy_path(name), "wb");

    assert_non_null(to);
    assert_int_equal(fwrite(bytes, 1, n_bytes, to), n_bytes);
    assert_int_equal(fclose(to), 0);
}

void model_copy_remove(void)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    if (dir == NULL) {
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            assert_int_equal(unlink(model_copy_path(entry->d_name)), 0);
        }
    }
    (void)closedir(dir);
    assert_int_equal(rmdir(folder), 0);
}

/* Lists on one line, as the changes below expect them. */
static void flatten(char *json)
{
    char *to = json;

    for (const char *at = json; *at != '\0'; at++) {
        if (*at == '\n') {
            at += strspn(at + 1, " ");
            if (to > json && to[-1] == ',') {
                *to++ = ' ';
            }
        } else {
            *to++ = *at;
        }
    }
    *to = '\0';
}

void model_copy_make(const char *name)
{
    char from[PATH_BYTES];
    char path[2 * PATH_BYTES];
    const struct dirent *entry;
    DIR *dir;

    (void)snprintf(folder, sizeof(folder), "%s", scratch_path("model"));
    model_copy_remove();
    assert_int_equal(mkdir(folder, 0700), 0);
    (void)snprintf(from, sizeof(from), "%s/models/%s", TSR_TEST_DATA, name);
    dir = opendir(from);
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, "model", 5) == 0 || strcmp(entry->d_name, "config.json") == 0) {
            size_t n_bytes;
            char *bytes;

            (void)snprintf(path, sizeof(path), "%s/%s", from, entry->d_name);
            bytes = model_copy_read(path, &n_bytes);
            if (strcmp(entry->d_name, "config.json") == 0) {
                flatten(bytes);
                n_bytes = strlen(bytes);
            }
            model_copy_write(entry->d_name, bytes, n_bytes);
            free(bytes);
        }
    }
    (void)closedir(dir);
}

void model_copy_change(const char *name, const char *was, const char *is)
{
    size_t n_bytes;
    char *bytes = model_copy_read(model_copy_path(name), &n_bytes);
    char *changed = calloc(n_bytes + strlen(is) + 1, 1);
    const size_t n = strlen(was);
    size_t at = 0;

    while (at + n <= n_bytes && memcmp(bytes + at, was, n) != 0) {
        at++;
    }
    assert_true(at + n <= n_bytes);
    memcpy(changed, bytes, at);
    memcpy(changed + at, is, strlen(is));
    memcpy(changed + at + strlen(is), bytes + at + n, n_bytes - at - n);
    model_copy_write(name, changed, n_bytes - n + strlen(is));
    free(changed);
    free(bytes);
}

tsr_status model_copy_load(tsr_weights *weights, int rank, int n_ranks, tsr_format as)
{
    static tsr_device *dev;
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    tsr_model *model = NULL;
    tsr_weights loaded = {0};
    tsr_status st = tsr_model_open_mute(&model, folder);

    if (st == TSR_OK) {
        const tsr_config *config = tsr_model_config(model);
        const tsr_shard shard = tsr_shard_of(&config->shape, rank, n_ranks);

        if (dev == NULL) {
            assert_int_equal(tsr_device_open(&dev, &options), TSR_OK); // stays for all tests
        }
        st = tsr_weights_load(&loaded, dev, tsr_model_checkpoint(model), config, &shard, as);
    }
    tsr_model_close(model);
    if (weights != NULL) {
        *weights = loaded;
    } else {
        tsr_weights_clear(&loaded);
    }
    return st;
}
