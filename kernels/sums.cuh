/*
 * kernels/sums.cuh - sums over ranks' parts, and along a row as the CPU takes them. Private to CUDA
 * files.
 */
#ifndef TSR_KERNELS_SUMS_CUH
#define TSR_KERNELS_SUMS_CUH

#include "kernels/cuda.cuh"

struct tsr_sum_parts {
    tsr_rows<const double> of[TSR_MAX_PARTS];
    int n;

    /* Exact in any order; from zero, so that it is never a negative zero, which would tell the
     * number of ranks. */
    __device__ __forceinline__ double total(int64_t row, int64_t c) const
    {
        double sum = 0.0;

#pragma unroll
        for (int i = 0; i < TSR_MAX_PARTS; i++) {
            if (i < n) {
                sum += of[i][row][c];
            }
        }
        return sum;
    }
};

static inline tsr_sum_parts tsr_sum_parts_of(const tsr_tensor *tensors, int n)
{
    tsr_sum_parts p = {};

    p.n = n;
    for (int i = 0; i < n; i++) {
        p.of[i] = tsr_rows_of<const double>(tensors[i]);
    }
    return p;
}

/* The sum over c of f(row[c]) as the CPU takes it, in sixteen lanes; by the first warp of a block.
 */
template <typename F>
static __device__ __forceinline__ float tsr_lane_sum(const float *row, int64_t n, F add)
{
    float sum = 0.0F;

#pragma unroll 8
    for (int64_t c = threadIdx.x % TSR_SUM_LANES; c < n; c += TSR_SUM_LANES) {
        sum = add(row[c], sum);
    }
    return tsr_sum_of_lanes(sum);
}

/* What a norm needs to know of a row. */
struct tsr_norm_of_row {
    float mean; // 0 of an RMS norm
    float scale;

    __device__ __forceinline__ float apply(float v, const float *weight, const float *bias,
                                           int64_t c) const
    {
        const float normed = (v - mean) * scale;

        return bias != NULL ? fmaf(normed, weight[c], bias[c]) : normed * weight[c];
    }
};

/* By a whole block, all of which have written the row. */
static __device__ __forceinline__ tsr_norm_of_row tsr_norm_of(const float *row, int64_t n,
                                                              bool is_layernorm, float eps)
{
    __shared__ float mean;
    __shared__ float total;

    __syncthreads();
    if (threadIdx.x < TSR_WARP) {
        float m = 0.0F;

        if (is_layernorm) {
            m = tsr_lane_sum(row, n, [](float v, float sum) { return sum + v; }) / (float)n;
        }
        const float sum =
            tsr_lane_sum(row, n, [m](float v, float acc) { return fmaf(v - m, v - m, acc); });

        if (threadIdx.x == 0) {
            mean = m;
            total = sum;
        }
    }
    __syncthreads();
    return tsr_norm_of_row{mean, 1.0F / sqrtf(total / (float)n + eps)};
}

#endif
