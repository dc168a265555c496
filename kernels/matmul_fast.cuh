/*
 * kernels/matmul_fast.cuh - products of few rows, for devices that need not give the CPU's bits.
 * Private to CUDA files.
 */
#ifndef TSR_KERNELS_MATMUL_FAST_CUH
#define TSR_KERNELS_MATMUL_FAST_CUH

#include "kernels/codes.cuh"

/*
 * Which rows of x a block multiplies: blockIdx.z counts slices of so many of them, blockIdx.y
 * experts, whose rows these are.
 */
struct tsr_slices {
    const int32_t *start; /* of experts: each has the rows from its start to the next one's; NULL:
                             one has all */
    int64_t n_experts;
    int64_t n_rows;    /* of x */
    int64_t most_rows; /* of an expert */

#ifdef __CUDACC__
    dim3 grid(unsigned n_blocks, int64_t most) const
    {
        return dim3(n_blocks, (unsigned)n_experts, (unsigned)((most_rows + most - 1) / most));
    }
    __device__ __forceinline__ int64_t first(int most) const
    {
        return (start != NULL ? start[blockIdx.y] : 0) + (int64_t)blockIdx.z * most;
    }
    /* None of an expert that has fewer than others, or of a list that is not one. */
    __device__ __forceinline__ int count(int most) const
    {
        const int64_t end = start != NULL ? start[blockIdx.y + 1] : n_rows;
        const int64_t left = (end < n_rows ? end : n_rows) - first(most);

        return left < 0 ? 0 : left < most ? (int)left : most;
    }
#endif
};

/* Can it take this weight over these activations? */
bool tsr_matmul_fast_can(tsr_format format, tsr_activations activations);

/* As tsr_matmul_experts, with such weights only. codes: x in codes, where it is there; NULL: it is
 * rounded in scratch. */
tsr_status tsr_matmul_fast(tsr_device *dev, const tsr_expert_product *products, int n_products,
                           tsr_tensor x, const tsr_codes_rows *codes, const tsr_slices &slices);

/* Scratch for it, with up to so many rows. */
size_t tsr_matmul_fast_scratch(int64_t n_rows, int64_t n_cols);

#endif
