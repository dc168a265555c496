/* Keys and values in 8 bits, with the CPU's bits: the same sums and roundings, a dimension a
 * thread. */
#include "kernels/kv_codes.cuh"

#include <cuda_bf16.h>

#include "kernels/batch.cuh"
#include "kernels/kv_code.h"

enum {
    THREADS = 128,
    MOST_DIM = TSR_KV_LAYOUT_MOST_DIM
};

/* x [dim] = H x in shared memory (tsr_kv_code_turn). Begins and ends with a barrier. */
static __device__ void turn(float *x, int dim, int unit)
{
    const float norm = 1.0F / sqrtf((float)unit);

    __syncthreads();
    for (int half = 1; half < unit; half *= 2) {
        for (int i = threadIdx.x; i < dim / 2; i += THREADS) {
            const int k = i / half * 2 * half + i % half;
            const float a = x[k];
            const float b = x[k + half];

            x[k] = a + b;
            x[k + half] = a - b;
        }
        __syncthreads();
    }
    for (int d = threadIdx.x; d < dim; d += THREADS) {
        x[d] *= norm;
    }
    __syncthreads();
}

/* Bits shifted to the right, to nearest, ties to even. */
static __device__ __forceinline__ uint32_t shift_rounded(uint32_t bits, int by)
{
    const uint32_t half = (1U << (by - 1)) - 1 + (bits >> by & 1);

    return (bits + half) >> by;
}

/* tsr_dtype_to_fp8() */
static __device__ uint8_t to_e4m3(float value)
{
    const uint32_t bits = __float_as_uint(value);
    const uint32_t sign = bits >> 24 & 0x80U;
    const uint32_t magnitude = bits & 0x7FFFFFFFU;
    const int exponent = (int)(magnitude >> 23) - 120;

    if (magnitude > 0x7F800000U) {
        return (uint8_t)(sign | 0x7FU);
    }
    if (magnitude >= 0x43E00000U) {
        return (uint8_t)(sign | 0x7EU); // 448 and above
    }
    if (exponent < -4) {
        return (uint8_t)sign;
    }
    return (uint8_t)(sign | (exponent <= 0
                                 ? shift_rounded((magnitude & 0x7FFFFFU) | 0x800000U, 21 - exponent)
                                 : shift_rounded(magnitude - (120U << 23), 20)));
}

/* absmax / levels as bf16, up to the next one where that is needed. */
static __device__ __forceinline__ uint32_t scale_up(float absmax, float levels)
{
    uint32_t scale = __bfloat16_as_ushort(__float2bfloat16_rn(absmax / levels));

    if (__uint_as_float(scale << 16) * levels < absmax) {
        scale++;
    }
    return scale & 0xFFFFU;
}

/* One vector in shared memory: codes stride bytes apart, and its scale. */
static __device__ void put(char *codes, int stride, uint16_t *scale_at, float *x, int dim, int unit,
                           bool is_int)
{
    float most = 0.0F;
    float spoilt = 0.0F;

    if (is_int) {
        turn(x, dim, unit);
    } else {
        __syncthreads();
    }
    for (int d = threadIdx.x; d < dim; d += THREADS) {
        spoilt = isfinite(x[d]) ? spoilt : 1.0F;
        most = fmaxf(most, fabsf(x[d]));
    }
    most = tsr_block_largest<THREADS>(most);
    if (tsr_block_largest<THREADS>(spoilt) > 0.0F) { // the first that is not finite decides
        for (int d = 0; d < dim; d++) {
            if (!isfinite(x[d])) {
                most = fabsf(x[d]);
                break;
            }
        }
    }
    const uint32_t bits = scale_up(most, is_int ? 127.0F : 448.0F);
    const float scale = __uint_as_float(bits << 16);
    const float over = scale > 0.0F ? 1.0F / scale : 0.0F;
    const float inverse = over < INFINITY ? over : 0.0F;

    for (int d = threadIdx.x; d < dim; d += THREADS) {
        const float z = x[d] * inverse;

        codes[d * stride] =
            is_int ? (char)(int)rintf(fmaxf(-127.0F, fminf(z, 127.0F))) : (char)to_e4m3(z);
    }
    if (threadIdx.x == 0) {
        *scale_at = (uint16_t)bits;
    }
}

/* A block a row and KV head. */
static __global__ void __launch_bounds__(THREADS)
    write_codes(tsr_kv_place kv, tsr_rows<const float> k, tsr_rows<const float> v,
                tsr_batch_rows batch, int key_unit, int value_unit, bool is_int)
{
    __shared__ float x[MOST_DIM];
    const int64_t row = blockIdx.x;
    const int head = (int)blockIdx.y;

    if (!batch.has(row)) { // the same for the whole block
        return;
    }
    const int64_t position = batch.position_of(row);
    char *keys = (char *)kv.keys(batch.slot_of(row, position, kv.block_tokens), head);
    char *values = keys + kv.key_bytes;
    const int at = (int)(position % kv.block_tokens);

    for (int d = threadIdx.x; d < kv.key_dim; d += THREADS) {
        x[d] = k[row][head * kv.key_dim + d];
    }
    put(keys + at, kv.block_tokens, (uint16_t *)(keys + kv.key_dim * kv.block_tokens) + at, x,
        kv.key_dim, key_unit, is_int);
    __syncthreads();
    for (int d = kv.value_dim + (int)threadIdx.x; d < kv.padded_dim; d += THREADS) {
        values[at * kv.padded_dim + d] = 0;
    }
    for (int d = threadIdx.x; d < kv.value_dim; d += THREADS) {
        x[d] = v[row][head * kv.value_dim + d];
    }
    put(values + at * kv.padded_dim, 1, (uint16_t *)(values + kv.padded_dim * kv.block_tokens) + at,
        x, kv.value_dim, value_unit, is_int);
}

/* A block a row and head. */
static __global__ void __launch_bounds__(THREADS)
    turn_rows(tsr_rows<float> to, tsr_rows<const float> from, int dim, int unit)
{
    __shared__ float x[MOST_DIM];
    const int64_t row = blockIdx.x;
    const int first = (int)blockIdx.y * dim;

    for (int d = threadIdx.x; d < dim; d += THREADS) {
        x[d] = from[row][first + d];
    }
    turn(x, dim, unit);
    for (int d = threadIdx.x; d < dim; d += THREADS) {
        to[row][first + d] = x[d];
    }
}

tsr_status tsr_kv_codes_turn(tsr_device *dev, tsr_tensor to, tsr_tensor from, int n_heads, int dim,
                             int unit)
{
    turn_rows<<<dim3((unsigned)from.n_rows, (unsigned)n_heads), THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(to), tsr_rows_of<const float>(from), dim, unit);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

tsr_status tsr_kv_codes_write(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor k, tsr_tensor v,
                              const tsr_batch *batch)
{
    const dim3 grid((unsigned)k.n_rows, (unsigned)kv->layout->n_kv_heads);

    write_codes<<<grid, THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_kv_place_of(kv), tsr_rows_of<const float>(k), tsr_rows_of<const float>(v),
        tsr_batch_rows_of(batch), tsr_kv_code_key_unit(kv->layout),
        tsr_kv_code_value_unit(kv->layout), kv->layout->type == TSR_KV_TYPE_INT8);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}
