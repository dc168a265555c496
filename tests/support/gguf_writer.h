/*
 * tests/support/gguf_writer.h - GGUF files made on the spot: tiny models, and hostile ones.
 *
 *     gguf_writer w;
 *
 *     gguf_writer_init(&w);
 *     gguf_writer_string(&w, "general.architecture", "llama");
 *     gguf_writer_u32(&w, "llama.block_count", 2);
 *     gguf_writer_f32s(&w, "tokenizer.ggml.scores", 3, scores);
 *     gguf_writer_tensor_f32(&w, "output_norm.weight", 1, (int64_t[]){64}, norm);
 *     gguf_writer_save(&w, path);       or: bytes = gguf_writer_finish(&w, &n_bytes);
 *     gguf_writer_clear(&w);
 *
 * Nothing returns a status: whatever goes wrong fails the running test. Memory comes from the C
 * library and not from base/alloc.h, so that torture() and tsr_alloc_live() see only the code that
 * is being tested.
 *
 * Hostile files: everything the file will claim lies open in the struct (version, counts,
 * alignment, each tensor's type, dims and offset) and may be changed any time before finish; the
 * bytes that finish returns may be changed too.
 */
#ifndef TSR_TESTS_SUPPORT_GGUF_WRITER_H
#define TSR_TESTS_SUPPORT_GGUF_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/encoding.h"

/* Kinds of metadata values, as the file numbers them. */
typedef enum gguf_kind {
    GGUF_KIND_U8,
    GGUF_KIND_I8,
    GGUF_KIND_U16,
    GGUF_KIND_I16,
    GGUF_KIND_U32,
    GGUF_KIND_I32,
    GGUF_KIND_F32,
    GGUF_KIND_BOOL,
    GGUF_KIND_STRING,
    GGUF_KIND_ARRAY,
    GGUF_KIND_U64,
    GGUF_KIND_I64,
    GGUF_KIND_F64,
    GGUF_KIND_COUNT
} gguf_kind;

typedef struct gguf_bytes {
    uint8_t *at;
    size_t n_bytes;
    size_t room_bytes;
} gguf_bytes;

typedef struct gguf_writer_entry { /* one tensor, as the file will claim it */
    char name[256];
    uint32_t n_dims;
    uint64_t dims[8];
    uint32_t type;   /* the file's number */
    uint64_t offset; /* from the start of the data */
} gguf_writer_entry;

typedef struct gguf_writer {
    uint32_t version;   /* 3 */
    uint64_t n_keys;    /* what the header claims; each key added counts one up */
    uint64_t n_tensors; /* the same for tensors */
    uint32_t alignment; /* 32; gguf_writer_align() changes it and writes the key */
    gguf_writer_entry *tensors;
    size_t n_entries;
    gguf_bytes meta; /* the keys and values */
    gguf_bytes data; /* the tensors, each padded to the alignment */
    gguf_bytes file; /* what finish made */
} gguf_writer;

void gguf_writer_init(gguf_writer *w);
void gguf_writer_clear(gguf_writer *w);

/* ---- metadata ----------------------------------------------------------------------------------
 */

void gguf_writer_string(gguf_writer *w, const char *key, const char *text);
void gguf_writer_u32(gguf_writer *w, const char *key, uint32_t value);
void gguf_writer_i32(gguf_writer *w, const char *key, int32_t value);
void gguf_writer_u64(gguf_writer *w, const char *key, uint64_t value);
void gguf_writer_f32(gguf_writer *w, const char *key, float value);
void gguf_writer_bool(gguf_writer *w, const char *key, bool value);

void gguf_writer_strings(gguf_writer *w, const char *key, size_t n, const char *const *texts);
void gguf_writer_i32s(gguf_writer *w, const char *key, size_t n, const int32_t *values);
void gguf_writer_f32s(gguf_writer *w, const char *key, size_t n, const float *values);

/* Every other kind: the value, or n elements, of a kind with a fixed size, as they lie in memory.
 */
void gguf_writer_scalar(gguf_writer *w, const char *key, gguf_kind kind, const void *value);
void gguf_writer_array(gguf_writer *w, const char *key, gguf_kind kind, size_t n,
                       const void *values);

/* Bytes that may hold anything, zeros included. */
void gguf_writer_text(gguf_writer *w, const char *key, const void *bytes, size_t n_bytes);

/* Any alignment, sound or not, and its key. Before the first tensor. */
void gguf_writer_align(gguf_writer *w, uint32_t alignment);

/* By hand: the name and kind of a value whose bytes follow by gguf_writer_raw(). */
void gguf_writer_key(gguf_writer *w, const char *key, uint32_t kind);
void gguf_writer_raw(gguf_writer *w, const void *bytes, size_t n_bytes);
void gguf_writer_raw_u32(gguf_writer *w, uint32_t value);
void gguf_writer_raw_u64(gguf_writer *w, uint64_t value);

/* ---- tensors -----------------------------------------------------------------------------------
 */

/* shape[0] is the run of a row, as in the file. n_bytes is taken as it is, right or wrong. */
void gguf_writer_tensor(gguf_writer *w, const char *name, tsr_encoding encoding, int n_dims,
                        const int64_t *shape, const void *bytes, size_t n_bytes);

/* The same from f32 values, as many as the shape has. */
void gguf_writer_tensor_f32(gguf_writer *w, const char *name, int n_dims, const int64_t *shape,
                            const float *values);

/* The number by which the file knows an encoding. */
uint32_t gguf_writer_type(tsr_encoding encoding);

/* ---- the file ----------------------------------------------------------------------------------
 */

/* The whole file. The bytes belong to the writer until the next finish or clear. */
uint8_t *gguf_writer_finish(gguf_writer *w, size_t *n_bytes);

void gguf_writer_save(gguf_writer *w, const char *path);

#endif
