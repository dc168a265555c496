/* Positions: the turns of a step, turned heads, and keys and values put into the cache. */
#include "kernels/cuda.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/batch.cuh"
#include "kernels/kv_codes.cuh"

enum {
    THREADS = 128
};

/*
 * cos and sin of angles up to 2^31 in double. The library's own reduction of large angles needs
 * local memory; here the multiple of 2 pi is taken off in three parts (Cody and Waite), the first
 * two of 24 bits each, so that their products with k < 2^29 are exact.
 */
static __device__ __forceinline__ void turn_of(double angle, double *sine, double *cosine)
{
    const double high = 0x1.921FB4p+2; // of 2 pi
    const double middle = 0x1.4442Dp-22;
    const double low = 0x1.8469898CC517p-46;
    const double k = rint(angle * 0x1.45F306DC9C883p-3); // 1 / (2 pi)
    double rest = angle - k * high;

    rest = rest - k * middle;
    rest = fma(-k, low, rest);
    sincospi(rest * 0x1.45F306DC9C883p-2, sine, cosine); // 1 / pi
}

static __global__ void angles_of(tsr_rows<float> angles, const int32_t *positions,
                                 const double *frequencies, int64_t half, float scale)
{
    for (int64_t i = threadIdx.x; i < half; i += THREADS) {
        double sine;
        double cosine;

        turn_of((double)positions[blockIdx.x] * frequencies[i], &sine, &cosine);
        angles[blockIdx.x][i] = (float)(cosine * (double)scale);
        angles[blockIdx.x][half + i] = (float)(sine * (double)scale);
    }
}

extern "C" tsr_status tsr_rope_angles_cuda(tsr_device *dev, tsr_tensor angles, tsr_tensor positions,
                                           tsr_tensor frequencies, float scale)
{
    angles_of<<<(unsigned)angles.n_rows, THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(angles), (const int32_t *)positions.data,
        (const double *)frequencies.data, angles.n_cols / 2, scale);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* Pair i of a head's dimensions that turn, which `at` is the first of. */
static __device__ __forceinline__ void turn_pair(float *at, const float *angles, int i, int half,
                                                 bool halves)
{
    float *first = at + (halves ? i : 2 * i);
    float *second = at + (halves ? half + i : 2 * i + 1);
    const float cosine = angles[i];
    const float sine = angles[half + i];
    const float a = *first;
    const float b = *second;

    *first = a * cosine - b * sine;
    *second = a * sine + b * cosine;
}

/* A thread a pair. */
static __global__ void turn_heads(tsr_rows<float> x, tsr_rows<const float> angles, int64_t n_heads,
                                  int head_dim, int at, int half, bool halves)
{
    const int64_t pair = (int64_t)blockIdx.y * THREADS + threadIdx.x;

    if (pair < n_heads * half) {
        turn_pair(x[blockIdx.x] + pair / half * head_dim + at, angles[blockIdx.x],
                  (int)(pair % half), half, halves);
    }
}

extern "C" tsr_status tsr_rope_cuda(tsr_device *dev, tsr_tensor x, tsr_tensor angles, int head_dim,
                                    int first, tsr_rope_pairs pairs)
{
    const int half = (int)(angles.n_cols / 2);
    const int64_t n_heads = x.n_cols / head_dim;
    const dim3 grid((unsigned)x.n_rows, tsr_blocks(n_heads * half, THREADS));

    turn_heads<<<grid, THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), tsr_rows_of<const float>(angles), n_heads, head_dim, first, half,
        pairs == TSR_ROPE_HALVES);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* ---- the cache
 * ----------------------------------------------------------------------------------- */

static __device__ __forceinline__ void put(float *to, float x)
{
    *to = x;
}
static __device__ __forceinline__ void put(__half *to, float x)
{
    *to = __float2half_rn(x);
}
static __device__ __forceinline__ void put(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16_rn(x);
}

/* One head of a row, by a block. */
template <typename T>
static __device__ __forceinline__ void write_head(const tsr_kv_place &kv, const float *key,
                                                  const float *value, const tsr_batch_rows &batch,
                                                  int64_t row, int head)
{
    if (!batch.has(row)) { // the same for the whole block
        return;
    }
    const int64_t position = batch.position_of(row);
    T *keys = (T *)kv.own_keys(batch.slot_of(row, position, kv.block_tokens), head);
    T *values = keys + (size_t)kv.key_dim * kv.block_tokens;
    const int at = (int)(position % kv.block_tokens);

    for (int d = threadIdx.x; d < kv.key_dim; d += THREADS) {
        put(&keys[d * kv.dim_step + at * kv.token_step], key[d]);
    }
    for (int d = threadIdx.x; d < (kv.is_latent ? 0 : kv.padded_dim); d += THREADS) {
        put(&values[at * kv.padded_dim + d], d < kv.value_dim ? value[d] : 0.0F);
    }
}

/* A block a row and KV head. */
template <typename T>
static __global__ void write_rows(tsr_kv_place kv, tsr_rows<const float> k, tsr_rows<const float> v,
                                  tsr_batch_rows batch)
{
    const int head = (int)blockIdx.y;

    write_head<T>(kv, k[blockIdx.x] + head * kv.key_dim, v[blockIdx.x] + head * kv.value_dim, batch,
                  blockIdx.x, head);
}

/* A block a row and head: query heads turn, KV heads turn and go into the cache. */
template <typename T>
static __global__ void turn_and_write(tsr_kv_place kv, tsr_rows<float> q, tsr_rows<float> k,
                                      tsr_rows<const float> v, tsr_rows<const float> angles,
                                      tsr_batch_rows batch, int n_heads, int first, int half,
                                      bool halves)
{
    const int64_t row = blockIdx.x;
    const bool is_query = (int)blockIdx.y < n_heads;
    const int head = (int)blockIdx.y - (is_query ? 0 : n_heads);
    float *x = (is_query ? q[row] : k[row]) + head * kv.key_dim;

    for (int i = threadIdx.x; i < half; i += THREADS) {
        turn_pair(x + first, angles[row], i, half, halves);
    }
    __syncthreads();
    if (!is_query) {
        write_head<T>(kv, x, v[row] + head * kv.value_dim, batch, row, head);
    }
}

extern "C" tsr_status tsr_kv_write_cuda(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor k,
                                        tsr_tensor v, const tsr_batch *batch)
{
    const tsr_kv_place place = tsr_kv_place_of(kv);
    const tsr_batch_rows rows = tsr_batch_rows_of(batch);
    const dim3 grid((unsigned)k.n_rows, (unsigned)kv->layout->n_kv_heads);
    const cudaStream_t queue = tsr_cuda_queue(dev);

    if (tsr_kv_type_is_coded(kv->layout->type)) {
        return tsr_kv_codes_write(dev, kv, k, v, batch);
    }
    switch (kv->layout->type) {
    case TSR_KV_TYPE_F32:
        write_rows<float><<<grid, THREADS, 0, queue>>>(place, tsr_rows_of<const float>(k),
                                                       tsr_rows_of<const float>(v), rows);
        break;
    case TSR_KV_TYPE_F16:
        write_rows<__half><<<grid, THREADS, 0, queue>>>(place, tsr_rows_of<const float>(k),
                                                        tsr_rows_of<const float>(v), rows);
        break;
    default:
        write_rows<__nv_bfloat16><<<grid, THREADS, 0, queue>>>(place, tsr_rows_of<const float>(k),
                                                               tsr_rows_of<const float>(v), rows);
        break;
    }
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

extern "C" tsr_status tsr_rope_write_cuda(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor q,
                                          tsr_tensor k, tsr_tensor v, tsr_tensor angles, int first,
                                          tsr_rope_pairs pairs, const tsr_batch *batch)
{
    const tsr_kv_layout *layout = kv->layout;
    const int n_heads = (int)(q.n_cols / layout->key_dim);
    const dim3 grid((unsigned)k.n_rows, (unsigned)(n_heads + layout->n_kv_heads));

    if (tsr_kv_type_is_coded(kv->layout->type)) {
        TSR_TRY(tsr_rope_cuda(dev, q, angles, layout->key_dim, first, pairs));
        TSR_TRY(tsr_rope_cuda(dev, k, angles, layout->key_dim, first, pairs));
        return tsr_kv_codes_write(dev, kv, k, v, batch);
    }
#define TURN_AND_WRITE(type)                                                                     \
    turn_and_write<type><<<grid, THREADS, 0, tsr_cuda_queue(dev)>>>(                             \
        tsr_kv_place_of(kv), tsr_rows_of<float>(q), tsr_rows_of<float>(k),                       \
        tsr_rows_of<const float>(v), tsr_rows_of<const float>(angles), tsr_batch_rows_of(batch), \
        n_heads, first, (int)(angles.n_cols / 2), pairs == TSR_ROPE_HALVES)
    if (layout->type == TSR_KV_TYPE_F32) {
        TURN_AND_WRITE(float);
    } else if (layout->type == TSR_KV_TYPE_F16) {
        TURN_AND_WRITE(__half);
    } else {
        TURN_AND_WRITE(__nv_bfloat16);
    }
#undef TURN_AND_WRITE
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}
