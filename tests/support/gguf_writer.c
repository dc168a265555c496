#include "tests/support/gguf_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void put(gguf_bytes *to, const void *bytes, size_t n_bytes)
{
    if (n_bytes > to->room_bytes - to->n_bytes) {
        to->room_bytes = 2 * to->room_bytes + n_bytes + 256;
        to->at = realloc(to->at, to->room_bytes);
        assert_non_null(to->at);
    }
    if (n_bytes > 0) {
        memcpy(to->at + to->n_bytes, bytes, n_bytes);
        to->n_bytes += n_bytes;
    }
}

static void put_u32(gguf_bytes *to, uint32_t value)
{
    put(to, &value, sizeof(value));
}

static void put_u64(gguf_bytes *to, uint64_t value)
{
    put(to, &value, sizeof(value));
}

static void put_text(gguf_bytes *to, const void *bytes, size_t n_bytes)
{
    put_u64(to, n_bytes);
    put(to, bytes, n_bytes);
}

static void pad(gguf_bytes *to, size_t alignment)
{
    while (alignment > 0 && to->n_bytes % alignment != 0) {
        put(to, "", 1);
    }
}

static void discard(gguf_bytes *bytes)
{
    free(bytes->at);
    *bytes = (gguf_bytes){0};
}

static size_t kind_bytes(gguf_kind kind)
{
    static const size_t n_bytes[GGUF_KIND_COUNT] = {
        [GGUF_KIND_U8] = 1,  [GGUF_KIND_I8] = 1,  [GGUF_KIND_BOOL] = 1, [GGUF_KIND_U16] = 2,
        [GGUF_KIND_I16] = 2, [GGUF_KIND_U32] = 4, [GGUF_KIND_I32] = 4,  [GGUF_KIND_F32] = 4,
        [GGUF_KIND_U64] = 8, [GGUF_KIND_I64] = 8, [GGUF_KIND_F64] = 8,
    };

    assert_true((unsigned)kind < GGUF_KIND_COUNT && n_bytes[kind] > 0);
    return n_bytes[kind];
}

void gguf_writer_init(gguf_writer *w)
{
    *w = (gguf_writer){.version = 3, .alignment = 32};
}

void gguf_writer_clear(gguf_writer *w)
{
    free(w->tensors);
    discard(&w->meta);
    discard(&w->data);
    discard(&w->file);
    gguf_writer_init(w);
}

void gguf_writer_key(gguf_writer *w, const char *key, uint32_t kind)
{
    put_text(&w->meta, key, strlen(key));
    put_u32(&w->meta, kind);
    w->n_keys++;
}

void gguf_writer_raw(gguf_writer *w, const void *bytes, size_t n_bytes)
{
    put(&w->meta, bytes, n_bytes);
}

void gguf_writer_raw_u32(gguf_writer *w, uint32_t value)
{
    put_u32(&w->meta, value);
}

void gguf_writer_raw_u64(gguf_writer *w, uint64_t value)
{
    put_u64(&w->meta, value);
}

void gguf_writer_text(gguf_writer *w, const char *key, const void *bytes, size_t n_bytes)
{
    gguf_writer_key(w, key, GGUF_KIND_STRING);
    put_text(&w->meta, bytes, n_bytes);
}

void gguf_writer_string(gguf_writer *w, const char *key, const char *text)
{
    gguf_writer_text(w, key, text, strlen(text));
}

void gguf_writer_scalar(gguf_writer *w, const char *key, gguf_kind kind, const void *value)
{
    gguf_writer_key(w, key, kind);
    put(&w->meta, value, kind_bytes(kind));
}

void gguf_writer_u32(gguf_writer *w, const char *key, uint32_t value)
{
    gguf_writer_scalar(w, key, GGUF_KIND_U32, &value);
}

void gguf_writer_i32(gguf_writer *w, const char *key, int32_t value)
{
    gguf_writer_scalar(w, key, GGUF_KIND_I32, &value);
}

void gguf_writer_u64(gguf_writer *w, const char *key, uint64_t value)
{
    gguf_writer_scalar(w, key, GGUF_KIND_U64, &value);
}

void gguf_writer_f32(gguf_writer *w, const char *key, float value)
{
    gguf_writer_scalar(w, key, GGUF_KIND_F32, &value);
}

void gguf_writer_bool(gguf_writer *w, const char *key, bool value)
{
    const uint8_t byte = value ? 1 : 0;

    gguf_writer_scalar(w, key, GGUF_KIND_BOOL, &byte);
}

static void array_head(gguf_writer *w, const char *key, gguf_kind kind, size_t n)
{
    gguf_writer_key(w, key, GGUF_KIND_ARRAY);
    put_u32(&w->meta, kind);
    put_u64(&w->meta, n);
}

void gguf_writer_array(gguf_writer *w, const char *key, gguf_kind kind, size_t n,
                       const void *values)
{
    array_head(w, key, kind, n);
    put(&w->meta, values, n * kind_bytes(kind));
}

void gguf_writer_i32s(gguf_writer *w, const char *key, size_t n, const int32_t *values)
{
    gguf_writer_array(w, key, GGUF_KIND_I32, n, values);
}

void gguf_writer_f32s(gguf_writer *w, const char *key, size_t n, const float *values)
{
    gguf_writer_array(w, key, GGUF_KIND_F32, n, values);
}

void gguf_writer_strings(gguf_writer *w, const char *key, size_t n, const char *const *texts)
{
    array_head(w, key, GGUF_KIND_STRING, n);
    for (size_t i = 0; i < n; i++) {
        put_text(&w->meta, texts[i], strlen(texts[i]));
    }
}

void gguf_writer_align(gguf_writer *w, uint32_t alignment)
{
    assert_true(w->n_entries == 0);
    w->alignment = alignment;
    gguf_writer_u32(w, "general.alignment", alignment);
}

uint32_t gguf_writer_type(tsr_encoding encoding)
{
    static const uint32_t types[TSR_ENCODING_COUNT] = {
        [TSR_ENCODING_F32] = 0,      [TSR_ENCODING_F16] = 1,      [TSR_ENCODING_BF16] = 30,
        [TSR_ENCODING_Q4_0] = 2,     [TSR_ENCODING_Q4_1] = 3,     [TSR_ENCODING_Q5_0] = 6,
        [TSR_ENCODING_Q5_1] = 7,     [TSR_ENCODING_Q8_0] = 8,     [TSR_ENCODING_Q2_K] = 10,
        [TSR_ENCODING_Q3_K] = 11,    [TSR_ENCODING_Q4_K] = 12,    [TSR_ENCODING_Q5_K] = 13,
        [TSR_ENCODING_Q6_K] = 14,    [TSR_ENCODING_IQ2_XXS] = 16, [TSR_ENCODING_IQ2_XS] = 17,
        [TSR_ENCODING_IQ3_XXS] = 18, [TSR_ENCODING_IQ1_S] = 19,   [TSR_ENCODING_IQ4_NL] = 20,
        [TSR_ENCODING_IQ3_S] = 21,   [TSR_ENCODING_IQ2_S] = 22,   [TSR_ENCODING_IQ4_XS] = 23,
        [TSR_ENCODING_IQ1_M] = 29,   [TSR_ENCODING_TQ1_0] = 34,   [TSR_ENCODING_TQ2_0] = 35,
        [TSR_ENCODING_MXFP4] = 39,   [TSR_ENCODING_NVFP4] = 40,
    };

    assert_true((unsigned)encoding < TSR_ENCODING_COUNT);
    return types[encoding];
}

void gguf_writer_tensor(gguf_writer *w, const char *name, tsr_encoding encoding, int n_dims,
                        const int64_t *shape, const void *bytes, size_t n_bytes)
{
    gguf_writer_entry *entry;

    assert_true(n_dims >= 1 && n_dims <= 8 && strlen(name) < sizeof(entry->name));
    w->tensors = realloc(w->tensors, (w->n_entries + 1) * sizeof(*w->tensors));
    assert_non_null(w->tensors);
    entry = &w->tensors[w->n_entries++];
    *entry = (gguf_writer_entry){.n_dims = (uint32_t)n_dims, .type = gguf_writer_type(encoding)};
    memcpy(entry->name, name, strlen(name));
    for (int i = 0; i < n_dims; i++) {
        entry->dims[i] = (uint64_t)shape[i];
    }
    entry->offset = w->data.n_bytes;
    w->n_tensors++;
    put(&w->data, bytes, n_bytes);
    pad(&w->data, w->alignment);
}

void gguf_writer_tensor_f32(gguf_writer *w, const char *name, int n_dims, const int64_t *shape,
                            const float *values)
{
    size_t n_elems = 1;

    for (int i = 0; i < n_dims; i++) {
        n_elems *= (size_t)shape[i];
    }
    gguf_writer_tensor(w, name, TSR_ENCODING_F32, n_dims, shape, values, n_elems * sizeof(*values));
}

uint8_t *gguf_writer_finish(gguf_writer *w, size_t *n_bytes)
{
    gguf_bytes *file = &w->file;

    file->n_bytes = 0;
    put(file, "GGUF", 4);
    put_u32(file, w->version);
    put_u64(file, w->n_tensors);
    put_u64(file, w->n_keys);
    put(file, w->meta.at, w->meta.n_bytes);
    for (size_t i = 0; i < w->n_entries; i++) {
        const gguf_writer_entry *entry = &w->tensors[i];

        put_text(file, entry->name, strlen(entry->name));
        put_u32(file, entry->n_dims);
        for (uint32_t d = 0; d < entry->n_dims && d < 8; d++) {
            put_u64(file, entry->dims[d]);
        }
        put_u32(file, entry->type);
        put_u64(file, entry->offset);
    }
    pad(file, w->alignment);
    put(file, w->data.at, w->data.n_bytes);
    *n_bytes = file->n_bytes;
    return file->at;
}

void gguf_writer_save(gguf_writer *w, const char *path)
{
    size_t n_bytes;
    const uint8_t *bytes = gguf_writer_finish(w, &n_bytes);
    FILE *to = fopen(path, "wb");

    assert_non_null(to);
    assert_int_equal(fwrite(bytes, 1, n_bytes, to), n_bytes);
    assert_int_equal(fclose(to), 0);
}
