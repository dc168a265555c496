/*
 * kernels/matmul_large.cuh - products of many rows, for devices that need not give the CPU's bits.
 * Private to CUDA files.
 */
#ifndef TSR_KERNELS_MATMUL_LARGE_CUH
#define TSR_KERNELS_MATMUL_LARGE_CUH

#include "kernels/backend.h"

/* Can it take this weight over these activations? */
bool tsr_matmul_large_can(tsr_format format, tsr_activations activations);

/* As tsr_matmul, with such weights only. */
tsr_matmul_fn tsr_matmul_large;

size_t tsr_matmul_large_scratch(int64_t n_rows, int64_t n_cols);

#endif
