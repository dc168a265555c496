/*
 * engine/gguf_value.h - one metadata value of a GGUF file: numbers, bools, texts and arrays of
 * them. Private to the engine/gguf files; engine/gguf_part.c makes values from checked bytes.
 */
#ifndef TSR_ENGINE_GGUF_VALUE_H
#define TSR_ENGINE_GGUF_VALUE_H

#include "engine/gguf.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_gguf_kind { /* as the file numbers them */
    TSR_GGUF_KIND_U8,
    TSR_GGUF_KIND_I8,
    TSR_GGUF_KIND_U16,
    TSR_GGUF_KIND_I16,
    TSR_GGUF_KIND_U32,
    TSR_GGUF_KIND_I32,
    TSR_GGUF_KIND_F32,
    TSR_GGUF_KIND_BOOL,
    TSR_GGUF_KIND_STRING,
    TSR_GGUF_KIND_ARRAY,
    TSR_GGUF_KIND_U64,
    TSR_GGUF_KIND_I64,
    TSR_GGUF_KIND_F64,
    TSR_GGUF_KIND_COUNT
} tsr_gguf_kind;

typedef struct tsr_gguf_value {
    tsr_gguf_kind kind;
    const uint8_t *bytes;    /* in the file; of an array its first element. At any address */
    tsr_gguf_kind elem_kind; /* of an array */
    uint64_t n_elems;        /* of an array */
    uint64_t *string_at; /* [n_elems], owned: where from `bytes` each element of an array of strings
                            lies; NULL for every other value */
} tsr_gguf_value;

/* Bytes of a value of a kind that has a fixed size; 0 for strings and arrays. */
size_t tsr_gguf_value_bytes(tsr_gguf_kind kind);

const char *tsr_gguf_value_kind_name(tsr_gguf_kind kind); /* "u32", "string" ... */

/* Little-endian numbers at any address. */
uint32_t tsr_gguf_value_load_u32(const uint8_t *bytes);
uint64_t tsr_gguf_value_load_u64(const uint8_t *bytes);

/* The value as an int, a float, a bool or a text; false when it is of another kind. */
bool tsr_gguf_value_int(const tsr_gguf_value *value, int64_t *out);
bool tsr_gguf_value_float(const tsr_gguf_value *value, double *out);
bool tsr_gguf_value_bool(const tsr_gguf_value *value, bool *out);
bool tsr_gguf_value_string(const tsr_gguf_value *value, tsr_gguf_text *out);

/* Element i of an array as a value of its own; false when it is no array, has no element i, or is
 * an array of arrays. */
bool tsr_gguf_value_elem(const tsr_gguf_value *array, int64_t i, tsr_gguf_value *out);

/* The value in words, cut to fit. */
void tsr_gguf_value_describe(const tsr_gguf_value *value, char *text, size_t text_bytes);

/* "like this", with escapes for what does not print, cut to fit. */
void tsr_gguf_value_quote(tsr_gguf_text quoted, char *text, size_t text_bytes);

#ifdef __cplusplus
}
#endif

#endif
