#include "engine/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

enum {
    NAME_BYTES = 256,
    WIDEST_GROUP = 256,
    MAX_ELEMS = 200 // of an array that are read one by one
};

static void require(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

/* Copied, so that a sanitizer sees text that leaves the file. */
static void touch(tsr_gguf_text text)
{
    char *copy = malloc(text.n_bytes + 1);

    require(copy != NULL, "a text fits into memory");
    free(memcpy(copy, text.bytes, text.n_bytes));
}

/* Every accessor for one key, of whatever kind it is. */
static void read_key(const tsr_gguf *gguf, const char *key)
{
    const int64_t n_elems = tsr_gguf_array_count(gguf, key);
    tsr_gguf_text text;
    int64_t whole;
    double number;
    bool truth;

    (void)tsr_gguf_int(gguf, key, &whole);
    (void)tsr_gguf_float(gguf, key, &number);
    (void)tsr_gguf_bool(gguf, key, &truth);
    if (tsr_gguf_string(gguf, key, &text)) {
        touch(text);
    }
    for (int64_t i = -1; i <= n_elems; i++) {
        if (i == MAX_ELEMS / 2 && n_elems > MAX_ELEMS) {
            i = n_elems - MAX_ELEMS / 2; // the first and the last of many
        }
        if (tsr_gguf_array_string(gguf, key, i, &text)) {
            touch(text);
        }
        (void)tsr_gguf_array_int(gguf, key, i, &whole);
        (void)tsr_gguf_array_float(gguf, key, i, &number);
    }
}

static void read_keys(const tsr_gguf *gguf)
{
    for (int i = 0; i < tsr_gguf_key_count(gguf); i++) {
        const tsr_gguf_text name = tsr_gguf_key_name(gguf, i);
        char shown[100];
        char key[NAME_BYTES];

        for (size_t n = 1; n <= sizeof(shown); n += 33) {
            tsr_gguf_key_value(gguf, i, shown, n);
            require(strlen(shown) < n, "words fit where they are put");
        }
        if (name.n_bytes < sizeof(key)) {
            memcpy(key, name.bytes, name.n_bytes);
            key[name.n_bytes] = '\0';
            read_key(gguf, key);
        }
    }
}

static void read_tensors(const tsr_gguf *gguf)
{
    for (int i = 0; i < tsr_gguf_tensor_count(gguf); i++) {
        const tsr_gguf_tensor *tensor = tsr_gguf_tensor_at(gguf, i);
        const int n = tsr_encoding_describe(tensor->encoding)->group_elems;
        const size_t row_bytes = tsr_encoding_row_bytes(tensor->encoding, tensor->shape[0]);
        const char *last_row = (const char *)tensor->data + tensor->n_bytes - row_bytes;
        char name[NAME_BYTES];
        float out[WIDEST_GROUP];

        tsr_encoding_decode(tensor->encoding, out, tensor->data, 0, n);
        tsr_encoding_decode(tensor->encoding, out, last_row, tensor->shape[0] - n, n);
        if (tensor->name.n_bytes < sizeof(name) &&
            memchr(tensor->name.bytes, 0, tensor->name.n_bytes) == NULL) {
            memcpy(name, tensor->name.bytes, tensor->name.n_bytes);
            name[tensor->name.n_bytes] = '\0';
            require(tsr_gguf_find(gguf, name) == tensor, "a tensor is found by its name");
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    tsr_gguf *gguf = NULL;

    tsr_log_set_level(TSR_LOG_ERROR);
    if (tsr_gguf_open_bytes(&gguf, bytes, n_bytes) != TSR_OK) {
        require(gguf == NULL, "a failed open gives nothing");
        require(strlen(tsr_status_message()) > 10, "a failed open says why");
        return 0;
    }
    require(tsr_gguf_file_bytes(gguf) == n_bytes, "the file has all its bytes");
    read_keys(gguf);
    read_tensors(gguf);
    tsr_gguf_release_pages(gguf);
    tsr_gguf_close(gguf);
    return 0;
}
