/*
 * kernels/encoding.h - how model files encode the elements of a weight.
 *
 * These are the file's types (the names and bit layouts are those of the GGUF format); what the
 * kernels compute with is another matter: kernels/weight.h. A quantised encoding stores a row in
 * groups of group_elems elements, group_bytes each; a row is a whole number of groups.
 */
#ifndef TSR_KERNELS_ENCODING_H
#define TSR_KERNELS_ENCODING_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_encoding {
    TSR_ENCODING_F32,
    TSR_ENCODING_F16,
    TSR_ENCODING_BF16,
    TSR_ENCODING_Q4_0,
    TSR_ENCODING_Q4_1,
    TSR_ENCODING_Q5_0,
    TSR_ENCODING_Q5_1,
    TSR_ENCODING_Q8_0,
    TSR_ENCODING_Q2_K,
    TSR_ENCODING_Q3_K,
    TSR_ENCODING_Q4_K,
    TSR_ENCODING_Q5_K,
    TSR_ENCODING_Q6_K,
    TSR_ENCODING_IQ1_S,
    TSR_ENCODING_IQ1_M,
    TSR_ENCODING_IQ2_XXS,
    TSR_ENCODING_IQ2_XS,
    TSR_ENCODING_IQ2_S,
    TSR_ENCODING_IQ3_XXS,
    TSR_ENCODING_IQ3_S,
    TSR_ENCODING_IQ4_NL,
    TSR_ENCODING_IQ4_XS,
    TSR_ENCODING_TQ1_0,
    TSR_ENCODING_TQ2_0,
    TSR_ENCODING_MXFP4,
    TSR_ENCODING_NVFP4,
    TSR_ENCODING_COUNT
} tsr_encoding;

typedef struct tsr_encoding_traits {
    const char *name; /* as GGUF tools print it, "Q4_K" */
    int group_elems;  /* elements a group; 1 for plain types */
    int group_bytes;
} tsr_encoding_traits;

const tsr_encoding_traits *tsr_encoding_describe(tsr_encoding encoding);

/* Bytes of a row of n_elems elements; n_elems must be a multiple of group_elems. */
size_t tsr_encoding_row_bytes(tsr_encoding encoding, int64_t n_elems);

/*
 * The exact values of n_elems elements that start at element `first` of the row at `row`.
 * first and n_elems must be multiples of group_elems. Each value is what the format defines,
 * computed in f32 as scale * q (+ minimum) with one rounding a product or sum.
 */
void tsr_encoding_decode(tsr_encoding encoding, float *out, const void *row, int64_t first,
                         int64_t n_elems);

/* ---- runs --------------------------------------------------------------------------------------
 */

enum {
    TSR_RUN_ELEMS = 32
};

/* 32 elements of a row: element i is d[i / 16] * q[i] + m[i / 16], d * q exact in f32. */
typedef struct tsr_encoding_run {
    int8_t q[TSR_RUN_ELEMS];
    float d[2];
    float m[2];
} tsr_encoding_run;

#ifdef __cplusplus
}
#endif

#endif
