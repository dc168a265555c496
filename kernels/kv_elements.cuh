/*
 * kernels/kv_elements.cuh - single elements of a head's keys and values (kernels/kv_layout.h), and
 * what codes stand for. Private to CUDA files.
 */
#ifndef TSR_KERNELS_KV_ELEMENTS_CUH
#define TSR_KERNELS_KV_ELEMENTS_CUH

#include "kernels/batch.cuh"
#include "kernels/kv_code.h"
#include "kernels/tiles.cuh"

enum {
    TSR_KV_LEVELS = 16 // of any code of less than 8 bits (tsr_kv_code_levels)
};

/* Levels as kernels take them. */
struct tsr_kv_levels {
    float value[TSR_KV_LEVELS];

    /* Into shared memory, where a lane may look up its own. */
    __device__ void store(float *shared) const
    {
#pragma unroll
        for (int i = 0; i < TSR_KV_LEVELS; i++) {
            if ((int)threadIdx.x == i) {
                shared[i] = value[i];
            }
        }
    }
};

static inline tsr_kv_levels tsr_kv_levels_of(tsr_kv_type type)
{
    const float *from = tsr_kv_code_levels(type);
    tsr_kv_levels levels;

    for (int i = 0; i < TSR_KV_LEVELS; i++) {
        levels.value[i] = from[i];
    }
    return levels;
}

static constexpr __host__ __device__ int tsr_kv_bits(tsr_kv_type type)
{
    return type == TSR_KV_TYPE_F32                               ? 32
           : type == TSR_KV_TYPE_F16 || type == TSR_KV_TYPE_BF16 ? 16
           : type == TSR_KV_TYPE_FP8 || type == TSR_KV_TYPE_INT8 ? 8
           : type == TSR_KV_TYPE_INT4                            ? 4
                                                                 : 2;
}

/* The i-th of elements that lie one behind the other; codes of less than 8 bits have rows of
 * bytes `step` apart, all bits of dimension i in one byte. */
template <tsr_kv_type KV>
static __device__ __forceinline__ float tsr_kv_element(const char *from, int d, int step,
                                                       const float *levels)
{
    constexpr int BITS = tsr_kv_bits(KV);

    if constexpr (KV == TSR_KV_TYPE_F32) {
        return *(const float *)(from + (size_t)d * step * 4);
    } else if constexpr (KV == TSR_KV_TYPE_F16) {
        return __half2float(*(const __half *)(from + (size_t)d * step * 2));
    } else if constexpr (KV == TSR_KV_TYPE_BF16) {
        return __bfloat162float(*(const __nv_bfloat16 *)(from + (size_t)d * step * 2));
    } else if constexpr (KV == TSR_KV_TYPE_FP8) {
        return tsr_e4m3((uint8_t)from[(size_t)d * step]);
    } else if constexpr (KV == TSR_KV_TYPE_INT8) {
        return (float)(int8_t)from[(size_t)d * step];
    } else {
        const uint32_t byte = (uint8_t)from[(size_t)(d * BITS / 8) * step];

        return levels[byte >> d * BITS % 8 & (TSR_KV_LEVELS - 1)];
    }
}

/* Dimension d of token `at` of a head's keys. */
template <tsr_kv_type KV>
static __device__ __forceinline__ float tsr_kv_key(const tsr_kv_place &kv, const char *keys, int at,
                                                   int d, const float *levels)
{
    constexpr int BYTES = (tsr_kv_bits(KV) + 7) / 8;

    return tsr_kv_element<KV>(keys + at * kv.token_step * BYTES, d, kv.dim_step, levels);
}

/* Dimension d of its value, likewise by the head's keys. */
template <tsr_kv_type KV>
static __device__ __forceinline__ float tsr_kv_value(const tsr_kv_place &kv, const char *keys,
                                                     int at, int d, const float *levels)
{
    return kv.is_latent ? tsr_kv_key<KV>(kv, keys, at, d, levels)
                        : tsr_kv_element<KV>(keys + kv.key_bytes +
                                                 (size_t)at * kv.padded_dim * tsr_kv_bits(KV) / 8,
                                             d, 1, levels);
}

/* The scales of a block's tokens: bf16; of keys the sign says whether the mean was taken off. */
static __device__ __forceinline__ const uint16_t *tsr_kv_key_scales(const tsr_kv_place &kv,
                                                                    const char *keys)
{
    return (const uint16_t *)(keys + kv.key_codes);
}
static __device__ __forceinline__ const uint16_t *tsr_kv_value_scales(const tsr_kv_place &kv,
                                                                      const char *keys)
{
    return kv.is_latent ? tsr_kv_key_scales(kv, keys)
                        : (const uint16_t *)(keys + kv.key_bytes + kv.value_codes);
}
static __device__ __forceinline__ float tsr_kv_scale(uint16_t bits)
{
    return __uint_as_float((uint32_t)(bits & 0x7FFFU) << 16);
}

/* The mean of the group of token `at`: its scale, as bf16, and behind it the codes, split. */
static __device__ __forceinline__ char *tsr_kv_mean(const tsr_kv_place &kv, const char *keys,
                                                    int at)
{
    return (char *)keys + kv.key_codes + kv.block_tokens * sizeof(uint16_t) +
           at / TSR_KV_LAYOUT_GROUP * kv.mean_bytes;
}

/* Calls `call(TYPE)` for a type that is known only when running. */
#define TSR_FOR_KV_TYPE(type, call) \
    do {                            \
        switch (type) {             \
        case TSR_KV_TYPE_F32:       \
            call(TSR_KV_TYPE_F32);  \
            break;                  \
        case TSR_KV_TYPE_F16:       \
            call(TSR_KV_TYPE_F16);  \
            break;                  \
        case TSR_KV_TYPE_BF16:      \
            call(TSR_KV_TYPE_BF16); \
            break;                  \
        case TSR_KV_TYPE_FP8:       \
            call(TSR_KV_TYPE_FP8);  \
            break;                  \
        case TSR_KV_TYPE_INT8:      \
            call(TSR_KV_TYPE_INT8); \
            break;                  \
        case TSR_KV_TYPE_INT4:      \
            call(TSR_KV_TYPE_INT4); \
            break;                  \
        default:                    \
            call(TSR_KV_TYPE_INT2); \
            break;                  \
        }                           \
    } while (0)

#endif
