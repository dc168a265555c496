#include "launch/api_embedding.h"

#include <string.h>

#include "base/alloc.h"

static const char LETTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Byte i of the numbers, whatever this machine's order. */
static unsigned byte_at(const float *vector, size_t i)
{
    uint32_t bits;

    memcpy(&bits, &vector[i / 4], sizeof(bits));
    return bits >> 8 * (i % 4) & 0xFF;
}

static json_t *as_base64(const float *vector, size_t dim)
{
    const size_t n_bytes = dim * sizeof(float);
    const size_t n = (n_bytes + 2) / 3 * 4;
    char *text = tsr_alloc(n + 1, 1);
    json_t *value;

    if (text == NULL) {
        return NULL;
    }
    for (size_t i = 0, at = 0; i < n_bytes; i += 3, at += 4) {
        unsigned bits = byte_at(vector, i) << 16;

        bits |= i + 1 < n_bytes ? byte_at(vector, i + 1) << 8 : 0;
        bits |= i + 2 < n_bytes ? byte_at(vector, i + 2) : 0;
        text[at] = LETTERS[bits >> 18];
        text[at + 1] = LETTERS[bits >> 12 & 63];
        text[at + 2] = i + 1 < n_bytes ? LETTERS[bits >> 6 & 63] : '=';
        text[at + 3] = i + 2 < n_bytes ? LETTERS[bits & 63] : '=';
    }
    value = json_stringn(text, n);
    tsr_free(text);
    return value;
}

json_t *tsr_api_embedding_numbers(const float *vector, int64_t dim, bool base64)
{
    json_t *list;

    if (base64) {
        return as_base64(vector, (size_t)dim);
    }
    list = json_array();
    for (int64_t i = 0; i < dim; i++) {
        if (json_array_append_new(list, json_real((double)vector[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}
