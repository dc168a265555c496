/*
 * tests/emulator/ptx_values.h - what translated kernels compute with: PTX's operations on values
 * that C has no operator for. Included by what ptx_to_c.py writes, and by nothing else.
 */
#ifndef TSR_TESTS_EMULATOR_PTX_VALUES_H
#define TSR_TESTS_EMULATOR_PTX_VALUES_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/dtype.h"
#include "tests/emulator/simt.h"

static inline float ptx_f32(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}
static inline double ptx_f64(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}
static inline uint32_t ptx_bits_f32(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}
static inline uint64_t ptx_bits_f64(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

#define ptx_to_f16(value) tsr_dtype_to_f16(value)
#define ptx_to_bf16(value) tsr_dtype_to_bf16(value)
#define ptx_from_f16(bits) tsr_dtype_from_f16(bits)
#define ptx_from_bf16(bits) tsr_dtype_from_bf16(bits)

/* .ftz: subnormal numbers count as zero. */
static inline float ptx_flush(float value)
{
    return fabsf(value) < FLT_MIN ? copysignf(0.0F, value) : value;
}

static inline float ptx_saturate(float value)
{
    return value > 0.0F ? (value < 1.0F ? value : 1.0F) : 0.0F; // NaN becomes 0
}

/* fma.rm: a b + c rounded towards minus infinity. */
static inline float ptx_fma_down(float a, float b, float c)
{
    const double product = (double)a * (double)b; // exact
    const double sum = product + (double)c;
    const double other = sum - product;
    const double error = (product - (sum - other)) + ((double)c - other);
    const float nearest = fmaf(a, b, c);

    if ((double)nearest > sum || ((double)nearest == sum && error < 0)) {
        return nextafterf(nearest, -INFINITY);
    }
    return nearest;
}

/* cvt to an integer: what does not fit is clamped, NaN is 0 (in 64 bits: the sign bit alone). */
#define PTX_ROUND_TO(name, type, least, largest)                     \
    static inline type ptx_round_to_##name(double value)             \
    {                                                                \
        if (isnan(value)) {                                          \
            return 0;                                                \
        }                                                            \
        if (value <= (double)(least)) {                              \
            return (least);                                          \
        }                                                            \
        return value >= (double)(largest) ? (largest) : (type)value; \
    }
PTX_ROUND_TO(s8, int8_t, INT8_MIN, INT8_MAX)
PTX_ROUND_TO(u8, uint8_t, 0, UINT8_MAX)
PTX_ROUND_TO(s16, int16_t, INT16_MIN, INT16_MAX)
PTX_ROUND_TO(u16, uint16_t, 0, UINT16_MAX)
PTX_ROUND_TO(s32, int32_t, INT32_MIN, INT32_MAX)
PTX_ROUND_TO(u32, uint32_t, 0, UINT32_MAX)
PTX_ROUND_TO(s64, int64_t, INT64_MIN, INT64_MAX)
PTX_ROUND_TO(u64, uint64_t, 0, UINT64_MAX)

/* bfe: n bits from bit `first` on; signed ones are extended from the topmost bit taken. */
static inline uint64_t ptx_field(uint64_t value, uint32_t first, uint32_t n, uint32_t n_bits,
                                 bool is_signed)
{
    uint64_t out = 0;
    uint64_t sign = 0;

    first &= 255;
    n &= 255;
    if (is_signed && n > 0) {
        const uint32_t top = first + n - 1 < n_bits ? first + n - 1 : n_bits - 1;

        sign = value >> top & 1;
    }
    for (uint32_t i = 0; i < n_bits; i++) {
        const uint64_t bit = i < n && first + i < n_bits ? value >> (first + i) & 1 : sign;

        out |= bit << i;
    }
    return out;
}
static inline uint32_t ptx_field_u32(uint32_t value, uint32_t first, uint32_t n)
{
    return (uint32_t)ptx_field(value, first, n, 32, false);
}
static inline int32_t ptx_field_s32(int32_t value, uint32_t first, uint32_t n)
{
    return (int32_t)ptx_field((uint32_t)value, first, n, 32, true);
}
static inline uint64_t ptx_field_u64(uint64_t value, uint32_t first, uint32_t n)
{
    return ptx_field(value, first, n, 64, false);
}
static inline int64_t ptx_field_s64(int64_t value, uint32_t first, uint32_t n)
{
    return (int64_t)ptx_field((uint64_t)value, first, n, 64, true);
}

/* bfi: `into` with n bits of `field` put in from bit `first` on. */
static inline uint64_t ptx_insert_u64(uint64_t field, uint64_t into, uint32_t first, uint32_t n)
{
    first &= 255;
    n &= 255;
    for (uint32_t i = 0; i < n && first + i < 64; i++) {
        into = (into & ~(UINT64_C(1) << (first + i))) | (field >> i & 1) << (first + i);
    }
    return into;
}
static inline uint32_t ptx_insert_u32(uint32_t field, uint32_t into, uint32_t first, uint32_t n)
{
    return (uint32_t)ptx_insert_u64(field, into, first, n);
}

/* lop3: bit i of `table` is the result for the bits (a, b, c) of i. */
static inline uint32_t ptx_lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table)
{
    uint32_t out = 0;

    for (uint32_t i = 0; i < 8; i++) {
        if ((table >> i & 1) != 0) {
            out |= ((i & 4) != 0 ? a : ~a) & ((i & 2) != 0 ? b : ~b) & ((i & 1) != 0 ? c : ~c);
        }
    }
    return out;
}

/* prmt: four bytes chosen from eight; a selector's high bit spreads the byte's sign. */
static inline uint32_t ptx_permute(uint32_t a, uint32_t b, uint32_t selectors)
{
    const uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t out = 0;

    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t selector = selectors >> (4 * i);
        uint32_t byte = (uint32_t)(bytes >> (8 * (selector & 7))) & 0xFF;

        if ((selector & 8) != 0) {
            byte = (byte & 0x80) != 0 ? 0xFF : 0;
        }
        out |= byte << (8 * i);
    }
    return out;
}

static inline uint32_t ptx_reverse(uint32_t value)
{
    uint32_t out = 0;

    for (uint32_t i = 0; i < 32; i++) {
        out |= (value >> i & 1) << (31 - i);
    }
    return out;
}

/* dp4a: c plus the sum of four products of bytes. */
static inline uint32_t ptx_dp4a_s32_s32(uint32_t a, uint32_t b, uint32_t c)
{
    for (uint32_t i = 0; i < 4; i++) {
        c += (uint32_t)((int32_t)(int8_t)(a >> (8 * i)) * (int32_t)(int8_t)(b >> (8 * i)));
    }
    return c;
}
static inline uint32_t ptx_dp4a_u32_s32(uint32_t a, uint32_t b, uint32_t c)
{
    for (uint32_t i = 0; i < 4; i++) {
        c += (uint32_t)((int32_t)(uint8_t)(a >> (8 * i)) * (int32_t)(int8_t)(b >> (8 * i)));
    }
    return c;
}
static inline uint32_t ptx_dp4a_s32_u32(uint32_t a, uint32_t b, uint32_t c)
{
    return ptx_dp4a_u32_s32(b, a, c);
}
static inline uint32_t ptx_dp4a_u32_u32(uint32_t a, uint32_t b, uint32_t c)
{
    for (uint32_t i = 0; i < 4; i++) {
        c += (a >> (8 * i) & 0xFF) * (b >> (8 * i) & 0xFF);
    }
    return c;
}

#endif
