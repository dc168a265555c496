/*
 * kernels/blas_cuda.h - large products of 16-bit matrices by cuBLASLt. Private to CUDA files.
 */
#ifndef TSR_KERNELS_BLAS_CUDA_H
#define TSR_KERNELS_BLAS_CUDA_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_BLAS_WORKSPACE_BYTES = 32 << 20 /* what cuBLAS recommends for the newest GPUs */
};

typedef struct tsr_blas_product {
    float *out;    /* [n_rows, m], row after row */
    const void *w; /* [m, n_cols] of f16, or of bf16 */
    const void *x; /* [n_rows, n_cols] likewise */
    int64_t m;     /* multiple of 16 */
    int64_t n_rows;
    int64_t n_cols; /* multiple of 8 */
    bool is_bf16;
    void *workspace; /* [TSR_BLAS_WORKSPACE_BYTES] */
} tsr_blas_product;

/* out = x w^T, summed in f32 in an order of cuBLAS's choice. All on the device, at addresses that
 * are multiples of 16. Errors: DEVICE, NOMEM, UNSUPPORTED (cuBLAS has no algorithm for it). */
TSR_MUST_CHECK tsr_status tsr_blas_multiply(tsr_device *dev, const tsr_blas_product *product);

void tsr_blas_close(tsr_device *dev);

#ifdef __cplusplus
}
#endif

#endif
