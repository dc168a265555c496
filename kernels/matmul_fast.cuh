/*
 * kernels/matmul_fast.cuh - products of few rows, for devices that need not give the CPU's bits.
 * Private to CUDA files.
 */
#ifndef TSR_KERNELS_MATMUL_FAST_CUH
#define TSR_KERNELS_MATMUL_FAST_CUH

#include "kernels/backend.h"

enum {
    TSR_MATMUL_FAST_ROWS = 16 /* of x, at most */
};

/* Can it take this weight over these activations? */
bool tsr_matmul_fast_can(tsr_format format, tsr_activations activations);

/* As tsr_matmul, with 1 to TSR_MATMUL_FAST_ROWS rows and such weights only. */
tsr_matmul_fn tsr_matmul_fast;

/* Scratch for it, with any number of rows that it takes. */
size_t tsr_matmul_fast_scratch(int64_t n_cols);

#endif
