#include "kernels/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    size_t n_bytes;
} traits[TSR_DTYPE_COUNT] = {
    [TSR_DTYPE_F32] = {"f32", 4}, [TSR_DTYPE_F16] = {"f16", 2}, [TSR_DTYPE_BF16] = {"bf16", 2},
    [TSR_DTYPE_F64] = {"f64", 8}, [TSR_DTYPE_I32] = {"i32", 4},
};

size_t tsr_dtype_bytes(tsr_dtype dtype)
{
    return traits[dtype].n_bytes;
}

const char *tsr_dtype_name(tsr_dtype dtype)
{
    return traits[dtype].name;
}

static float from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint32_t to_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

float tsr_dtype_from_f16(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000U) << 16;
    const uint32_t exponent = (half >> 10) & 0x1FU;
    const uint32_t fraction = half & 0x3FFU;

    if (exponent == 0) { // zero or subnormal: fraction * 2^-24, exact in f32
        const float magnitude = (float)fraction * 0x1p-24F;

        return from_bits(sign | to_bits(magnitude));
    }
    if (exponent == 0x1F) {
        return from_bits(sign | 0x7F800000U | (fraction << 13));
    }
    return from_bits(sign | ((exponent + 112U) << 23) | (fraction << 13));
}

float tsr_dtype_from_bf16(uint16_t bits)
{
    return from_bits((uint32_t)bits << 16);
}

float tsr_dtype_from_fp8(uint8_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x80U) << 24;
    const uint32_t magnitude = bits & 0x7FU;

    if (magnitude < 8) { // zero or subnormal: fraction * 2^-9
        return from_bits(sign | to_bits((float)magnitude * 0x1p-9F));
    }
    return from_bits(sign | (magnitude == 0x7F ? 0x7FC00000U : (magnitude << 20) + (120U << 23)));
}

/* Drop the low `n` bits of a positive number, to nearest, ties to even. */
static uint32_t shift_rounded(uint32_t bits, int n)
{
    const uint32_t half = 1U << (n - 1);
    const uint32_t rest = bits & ((1U << n) - 1U);
    const uint32_t kept = bits >> n;

    return kept + (rest > half || (rest == half && (kept & 1U)) ? 1U : 0U);
}

uint16_t tsr_dtype_to_f16(float value)
{
    const uint32_t bits = to_bits(value);
    const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000U);
    const uint32_t magnitude = bits & 0x7FFFFFFFU;
    const int exponent = (int)(magnitude >> 23) - 112; // of a half

    if (magnitude > 0x7F800000U) {
        return (uint16_t)(sign | 0x7E00U); // NaN
    }
    if (magnitude >= 0x47800000U) {
        return (uint16_t)(sign | 0x7C00U); // 2^16 and above
    }
    if (exponent <= 0) {
        // Subnormal in half: the hidden bit is shifted in; below half the least one it is zero.
        return exponent < -10 ? sign
                              : (uint16_t)(sign | shift_rounded((magnitude & 0x7FFFFFU) | 0x800000U,
                                                                14 - exponent));
    }
    // A carry out of the fraction runs into the exponent, and from its largest into infinity: as it
    // should.
    return (uint16_t)(sign | shift_rounded(magnitude - (112U << 23), 13));
}

uint16_t tsr_dtype_to_bf16(float value)
{
    const uint32_t bits = to_bits(value);
    const uint32_t magnitude = bits & 0x7FFFFFFFU;

    if (magnitude > 0x7F800000U) {
        return (uint16_t)((bits >> 16) | 0x40U);
    }
    return (uint16_t)(((bits >> 16) & 0x8000U) | shift_rounded(magnitude, 16));
}

uint8_t tsr_dtype_to_fp8(float value)
{
    const uint32_t bits = to_bits(value);
    const uint8_t sign = (uint8_t)((bits >> 24) & 0x80U);
    const uint32_t magnitude = bits & 0x7FFFFFFFU;
    const int exponent = (int)(magnitude >> 23) - 120;

    if (magnitude > 0x7F800000U) {
        return sign | 0x7FU;
    }
    if (magnitude >= 0x43E00000U) {
        return sign | 0x7EU; // 448 and above
    }
    if (exponent <= 0) {
        return exponent < -4 ? sign
                             : (uint8_t)(sign | shift_rounded((magnitude & 0x7FFFFFU) | 0x800000U,
                                                              21 - exponent));
    }
    return (uint8_t)(sign | shift_rounded(magnitude - (120U << 23), 20));
}
