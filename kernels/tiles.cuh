/*
 * kernels/tiles.cuh - elements of weight tiles (kernels/weight.h). Private to CUDA files.
 */
#ifndef TSR_KERNELS_TILES_CUH
#define TSR_KERNELS_TILES_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda.cuh"

static constexpr __host__ __device__ int tsr_tile_bytes(tsr_format format)
{
    return format == TSR_FORMAT_F32                                ? 2048
           : format == TSR_FORMAT_F16 || format == TSR_FORMAT_BF16 ? 1024
           : format == TSR_FORMAT_FP8                              ? 576
           : format == TSR_FORMAT_Q4_WIDE                          ? 384
           : format == TSR_FORMAT_Q8                               ? 544
           : format == TSR_FORMAT_Q8_WIDE                          ? 768
                                                                   : 320;
}

static __device__ __forceinline__ float tsr_half_at(const char *at)
{
    return __half2float(*(const __half *)at);
}
static __device__ __forceinline__ float tsr_float_at(const char *at)
{
    return *(const float *)at;
}

/* e4m3 without a table: sign, exponent and mantissa stand a few bits from where f16 has them. */
static __device__ __forceinline__ float tsr_e4m3(uint32_t bits)
{
    const float scaled =
        __half2float(__ushort_as_half((unsigned short)((bits & 0x80) << 8 | (bits & 0x7F) << 7)));

    return (bits & 0x7F) == 0x7F ? NAN : scaled * 256.0F; // exponents are biased by 7, not 15
}

/* tsr_mma_f16() or tsr_mma_bf16(), by the type of an element. */
static __device__ __forceinline__ void tsr_multiply_halves(float d[4], const uint32_t a[4],
                                                           const uint32_t b[2], __half)
{
    tsr_mma_f16(d, a, b);
}
static __device__ __forceinline__ void tsr_multiply_halves(float d[4], const uint32_t a[4],
                                                           const uint32_t b[2], __nv_bfloat16)
{
    tsr_mma_bf16(d, a, b);
}

/* Two e4m3 codes as halves, 256 times smaller; what is NaN stays so. */
static __device__ __forceinline__ uint32_t tsr_two_e4m3(uint32_t low, uint32_t high)
{
    const uint32_t both = low | high << 16;
    const uint32_t is_nan = ((both & 0x007F007FU) + 0x00010001U) & 0x00800080U;

    return (both & 0x00800080U) << 8 | (both & 0x007F007FU) << 7 | is_nan << 7;
}

/* The sixteen values of IQ4_NL, and those of doubled e2m1, a byte each. */
static __device__ __forceinline__ int tsr_code_value(tsr_format format, uint32_t q)
{
    // Lowest first: -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113
    const uint32_t nl4 = q < 4    ? 0xBFAD9881U
                         : q < 8  ? 0xF6EADDCFU
                         : q < 12 ? 0x26190D01U
                                  : 0x71594535U;
    // 0 1 2 3, 4 6 8 12 and their negatives
    const uint32_t fp4 = (q & 4) == 0 ? 0x03020100U : 0x0C080604U;
    const uint32_t byte = (format == TSR_FORMAT_NL4 ? nl4 : fp4) >> (8 * (q & 3)) & 0xFF;

    if (format == TSR_FORMAT_NL4) {
        return (int)(int8_t)byte;
    }
    return (q & 8) != 0 ? -(int)byte : (int)byte;
}

/* Element (r, c) of a tile, exactly as tsr_weight_unpack_row() has it. */
template <tsr_format F>
static __device__ __forceinline__ float tsr_tile_element(const char *tile, int r, int c)
{
    if (F == TSR_FORMAT_F32) {
        return tsr_float_at(tile + 4 * (16 * c + r));
    }
    if (F == TSR_FORMAT_F16) {
        return tsr_half_at(tile + 2 * (16 * c + r));
    }
    if (F == TSR_FORMAT_BF16) {
        return __bfloat162float(*(const __nv_bfloat16 *)(tile + 2 * (16 * c + r)));
    }
    if (F == TSR_FORMAT_FP8) {
        return tsr_e4m3((uint8_t)tile[16 * c + r]) * tsr_float_at(tile + 512 + 4 * r);
    }
    if (F == TSR_FORMAT_Q8) {
        return (float)(int8_t)tile[64 * (c / 4) + 4 * r + c % 4] * tsr_half_at(tile + 512 + 2 * r);
    }
    if (F == TSR_FORMAT_Q8_WIDE) {
        const char *scales = tile + 512 + 128 * (c / 16) + 4 * r;

        return tsr_float_at(scales) * (float)(int8_t)tile[64 * (c / 4) + 4 * r + c % 4] +
               tsr_float_at(scales + 64);
    }
    const uint32_t byte = (uint8_t)tile[64 * (c % 16 / 4) + 4 * r + c % 4];
    const uint32_t q = c < 16 ? byte & 15 : byte >> 4;

    if (F == TSR_FORMAT_Q4) {
        return tsr_half_at(tile + 256 + 2 * r) * (float)q + tsr_half_at(tile + 288 + 2 * r);
    }
    if (F == TSR_FORMAT_Q4_WIDE) {
        return tsr_float_at(tile + 256 + 4 * r) * (float)q + tsr_float_at(tile + 320 + 4 * r);
    }
    return tsr_float_at(tile + 256 + 4 * r) * (float)tsr_code_value(F, q);
}

/* Four entries of a table of sixteen bytes, by the low halves of q's bytes. */
static __device__ __forceinline__ uint32_t tsr_look_up(const uint32_t table[4], uint32_t q)
{
    const uint32_t by_pairs = (q | q >> 4) & 0x00FF00FFU;
    const uint32_t selectors = (by_pairs | by_pairs >> 8) & 0x7777U;
    const uint32_t is_upper = (q >> 3 & 0x01010101U) * 0xFFU;
    const uint32_t lower = __byte_perm(table[0], table[1], selectors);
    const uint32_t upper = __byte_perm(table[2], table[3], selectors);

    return (lower & ~is_upper) | (upper & is_upper);
}

/* What four codes of four bits mean, a signed byte each; d and m aside. */
template <tsr_format F> static __device__ __forceinline__ uint32_t tsr_nibble_codes(uint32_t q)
{
    if (F == TSR_FORMAT_NL4) {
        const uint32_t nl4[4] = {0xBFAD9881U, 0xF6EADDCFU, 0x26190D01U, 0x71594535U};

        return tsr_look_up(nl4, q);
    }
    if (F == TSR_FORMAT_FP4) {
        const uint32_t fp4[4] = {0x03020100U, 0x0C080604U, 0xFDFEFF00U, 0xF4F8FAFCU};

        return tsr_look_up(fp4, q);
    }
    return q;
}

/* Calls `call<FORMAT>` for a format that is known only when running. */
#define TSR_FOR_FORMAT(format, call)  \
    do {                              \
        switch (format) {             \
        case TSR_FORMAT_F32:          \
            call(TSR_FORMAT_F32);     \
            break;                    \
        case TSR_FORMAT_F16:          \
            call(TSR_FORMAT_F16);     \
            break;                    \
        case TSR_FORMAT_BF16:         \
            call(TSR_FORMAT_BF16);    \
            break;                    \
        case TSR_FORMAT_FP8:          \
            call(TSR_FORMAT_FP8);     \
            break;                    \
        case TSR_FORMAT_Q4:           \
            call(TSR_FORMAT_Q4);      \
            break;                    \
        case TSR_FORMAT_Q4_WIDE:      \
            call(TSR_FORMAT_Q4_WIDE); \
            break;                    \
        case TSR_FORMAT_NL4:          \
            call(TSR_FORMAT_NL4);     \
            break;                    \
        case TSR_FORMAT_FP4:          \
            call(TSR_FORMAT_FP4);     \
            break;                    \
        case TSR_FORMAT_Q8:           \
            call(TSR_FORMAT_Q8);      \
            break;                    \
        default:                      \
            call(TSR_FORMAT_Q8_WIDE); \
            break;                    \
        }                             \
    } while (0)

#endif
