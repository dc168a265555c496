/*
 * kernels/cuda.cuh - what the kernels share: sums over lanes, rows of tensors, launches. Private to
 * CUDA files.
 *
 * Every op gives the bits that its CPU twin gives: the same roundings in the same order, and no
 * function whose last bit is the hardware's own. That is why a token depends on neither the kind
 * nor the number of devices, and it is what the tests hold the twins to.
 */
#ifndef TSR_KERNELS_CUDA_CUH
#define TSR_KERNELS_CUDA_CUH

#include <math.h>

#include "kernels/cuda_check.h"
#include "kernels/exp_constants.h"
#include "kernels/ptx.cuh"

/* A window as kernels take it. */
template <typename T> struct tsr_rows {
    T *data;
    int64_t stride;

    __device__ T *operator[](int64_t row) const
    {
        return data + row * stride;
    }
};

template <typename T> static inline tsr_rows<T> tsr_rows_of(tsr_tensor t)
{
    return tsr_rows<T>{(T *)t.data, t.stride};
}

static inline unsigned tsr_blocks(int64_t n, int64_t n_a_block)
{
    return (unsigned)((n + n_a_block - 1) / n_a_block);
}

/* Ops that go along rows: blocks of so many threads, four columns a thread. */
enum {
    TSR_ROW_THREADS = 256
};

/* A block's share of a row, so that one long row keeps many blocks busy. */
static inline dim3 tsr_grid_of(int64_t n_rows, int64_t n_cols)
{
    return dim3((unsigned)n_rows, tsr_blocks(n_cols, 4 * TSR_ROW_THREADS));
}

#define TSR_EACH_COLUMN(c, n_cols)                                            \
    for (int64_t c = (int64_t)blockIdx.y * 4 * TSR_ROW_THREADS + threadIdx.x, \
                 end_ = c + 4 * TSR_ROW_THREADS;                              \
         c < end_ && c < (n_cols); c += TSR_ROW_THREADS)

/* Over the lanes of a warp; every lane gets the result. */
static __device__ __forceinline__ float tsr_warp_largest(float x)
{
    for (int step = TSR_WARP / 2; step > 0; step /= 2) {
        x = fmaxf(x, __shfl_xor_sync(TSR_WHOLE_WARP, x, step));
    }
    return x;
}

/* Over N threads, a multiple of 32. Every thread gets the result. Ends with a barrier, so that it
 * can be called again. */
template <int N> static __device__ __forceinline__ float tsr_block_largest(float x)
{
    __shared__ float parts[N / TSR_WARP];

    x = tsr_warp_largest(x);
    if (threadIdx.x % TSR_WARP == 0) {
        parts[threadIdx.x / TSR_WARP] = x;
    }
    __syncthreads();
    x = parts[0];
    for (int w = 1; w < N / TSR_WARP; w++) {
        x = fmaxf(x, parts[w]);
    }
    __syncthreads();
    return x;
}

/* The lanes of the CPU's vectors: sums along a row are taken in so many (kernels/simd.h). */
enum {
    TSR_SUM_LANES = 16
};

/* Over sixteen neighbouring lanes of a warp, as v16_sum() does: lanes 8 apart, then 4, 2, 1. */
static __device__ __forceinline__ float tsr_sum_of_lanes(float x)
{
    for (int step = TSR_SUM_LANES / 2; step > 0; step /= 2) {
        x += __shfl_xor_sync(TSR_WHOLE_WARP, x, step);
    }
    return x;
}

/* e^x as v16_exp() takes it, bit for bit; x <= 88. */
static __device__ __forceinline__ float tsr_exp(float x)
{
    const float bounded = fmaxf(x, TSR_EXP_LEAST);
    const float whole = rintf(bounded * TSR_LOG2_E);
    float r = fmaf(whole, -TSR_LN2_HIGH, bounded);
    float p = 1.0F / 720;

    r = fmaf(whole, -TSR_LN2_LOW, r);
    p = fmaf(p, r, 1.0F / 120);
    p = fmaf(p, r, 1.0F / 24);
    p = fmaf(p, r, 1.0F / 6);
    p = fmaf(p, r, 0.5F);
    p = fmaf(p, r, 1.0F);
    p = fmaf(p, r, 1.0F);
    return p * __int_as_float(((int)whole + 127) << 23);
}

#endif
