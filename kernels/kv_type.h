/*
 * kernels/kv_type.h - what an element of the cache is kept as.
 */
#ifndef TSR_KERNELS_KV_TYPE_H
#define TSR_KERNELS_KV_TYPE_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_kv_type {
    TSR_KV_TYPE_F32,
    TSR_KV_TYPE_F16,
    TSR_KV_TYPE_BF16,
    TSR_KV_TYPE_FP8, /* e4m3 */
    TSR_KV_TYPE_INT8,
    TSR_KV_TYPE_INT4,
    TSR_KV_TYPE_INT2,
    TSR_KV_TYPE_COUNT
} tsr_kv_type;

#define TSR_KV_TYPE_NAMES "f32, f16, bf16, fp8, int8, int4 and int2"

/* Of an element, scales not counted. */
int tsr_kv_type_bits(tsr_kv_type type);

const char *tsr_kv_type_name(tsr_kv_type type); /* "f32" ... */

/* Finds a type by its name; false if there is none. */
bool tsr_kv_type_parse(tsr_kv_type *out, const char *name);

/* Codes under a scale of the token, or numbers as they are? */
static inline bool tsr_kv_type_is_coded(tsr_kv_type type)
{
    return type >= TSR_KV_TYPE_FP8;
}

/* Vectors that are turned before they are rounded (kernels/kv_code.h)? */
static inline bool tsr_kv_type_is_turned(tsr_kv_type type)
{
    return type >= TSR_KV_TYPE_INT8;
}

/* Codes that are levels, as strings of bits; keys with a mean taken off? */
static inline bool tsr_kv_type_has_levels(tsr_kv_type type)
{
    return type >= TSR_KV_TYPE_INT4;
}

#ifdef __cplusplus
}
#endif

#endif
