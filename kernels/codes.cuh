/*
 * kernels/codes.cuh - x in int8: groups of 32 columns, each with its scale, as the CPU has them
 * (quantise_loops.c). Private to CUDA files.
 */
#ifndef TSR_KERNELS_CODES_CUH
#define TSR_KERNELS_CODES_CUH

#include "kernels/tiles.cuh"

enum {
    TSR_CODES_BEHIND = 16,     // rows that kernels may read behind the last (tsr_ops_codes_bytes)
    TSR_CODES_GROUP_FLOATS = 4 // scale, scale times sum, and that of either half
};

/* tsr_codes as kernels take them: codes [n, 32 n_groups], floats [n, 4 n_groups]. */
struct tsr_codes_rows {
    int8_t *codes; // NULL: nowhere
    float *floats;
    int64_t n_groups;
};

static inline tsr_codes_rows tsr_codes_in(void *memory, int64_t n_rows, int64_t n_cols)
{
    const int64_t n_groups = (n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS;
    int8_t *codes = (int8_t *)memory;

    return tsr_codes_rows{
        codes, (float *)(codes + (n_rows + TSR_CODES_BEHIND) * n_groups * TSR_TILE_COLS), n_groups};
}

/* Rows of x into codes (matmul_cuda.cu). */
tsr_status tsr_codes_round(tsr_device *dev, const tsr_codes_rows &to, tsr_tensor x);

/* The codes [32] and floats of the group-th group of all, by a whole warp; its lane's value. */
static __device__ __forceinline__ void tsr_codes_write(int8_t *codes, float *floats, int64_t group,
                                                       float value)
{
    const int lane = (int)threadIdx.x % TSR_WARP;
    const bool is_sound = __all_sync(TSR_WHOLE_WARP, isfinite(value)) != 0;
    const float largest = tsr_warp_largest(fabsf(value));
    // Below 2^-120 the group counts as nothing: 127 / largest would overflow.
    const float to_codes = is_sound && largest >= 0x1p-120F ? 127.0F / largest : 0.0F;
    const int code = is_sound ? (int)rintf(value * to_codes) : 0;
    const float d = is_sound ? largest / 127.0F : NAN;
    int sum = code;

    for (int step = 8; step > 0; step /= 2) {
        sum += __shfl_xor_sync(TSR_WHOLE_WARP, sum, step);
    }
    const int other = __shfl_xor_sync(TSR_WHOLE_WARP, sum, 16);

    codes[group * TSR_TILE_COLS + lane] = (int8_t)code;
    if (lane == 0) {
        float *to = floats + group * TSR_CODES_GROUP_FLOATS;

        to[0] = d;
        to[1] = d * (float)(sum + other);
        to[2] = d * (float)sum;
        to[3] = d * (float)other;
    }
}

#endif
