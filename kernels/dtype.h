/*
 * kernels/dtype.h - element types of tensors and how they convert on the host.
 */
#ifndef TSR_KERNELS_DTYPE_H
#define TSR_KERNELS_DTYPE_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_dtype {
    TSR_DTYPE_F32,
    TSR_DTYPE_F16,  /* IEEE 754 half */
    TSR_DTYPE_BF16, /* the upper half of an f32 */
    TSR_DTYPE_F64,
    TSR_DTYPE_I32,
    TSR_DTYPE_COUNT
} tsr_dtype;

size_t tsr_dtype_bytes(tsr_dtype dtype);
const char *tsr_dtype_name(tsr_dtype dtype); /* "f32" ... */

/* Exact; subnormals, infinities and NaN included. */
float tsr_dtype_from_f16(uint16_t half);
float tsr_dtype_from_bf16(uint16_t bits);
float tsr_dtype_from_fp8(uint8_t bits); /* e4m3: no infinities, NaN is 0x7F */

/* Round to nearest, ties to even; overflow to infinity; NaN stays NaN. */
uint16_t tsr_dtype_to_f16(float value);
uint16_t tsr_dtype_to_bf16(float value);

/* Likewise, but what is beyond 448 becomes 448. */
uint8_t tsr_dtype_to_fp8(float value);

#ifdef __cplusplus
}
#endif

#endif
