#include "tests/support/encoder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/dtype.h"

/* SplitMix64: Steele, Lea and Flood, OOPSLA 2014. */
uint64_t test_random_bits(test_random *random)
{
    uint64_t bits = random->state += 0x9E3779B97F4A7C15U;

    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9U;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBU;
    return bits ^ (bits >> 31);
}

double test_random_normal(test_random *random)
{
    const uint64_t bits = test_random_bits(random);
    const uint64_t four =
        (bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) + ((bits >> 32) & 0xFFFF) + (bits >> 48);

    // The sum of four uniform numbers, because no mathematics library has a say in it.
    return ((double)four / 65535.0 - 2.0) * 1.7320508075688772;
}

double test_random_between(test_random *random, double low, double high)
{
    return low + (high - low) * (double)(test_random_bits(random) >> 11) * 0x1p-53;
}

bool encoder_takes_values(tsr_encoding encoding)
{
    return encoding <= TSR_ENCODING_Q8_0;
}

static void put_half(uint8_t *at, float value)
{
    const uint16_t half = tsr_dtype_to_f16(value);

    memcpy(at, &half, sizeof(half));
}

/* The level nearest to value / scale + offset, within 0..top. */
static unsigned level(float value, float scale, float offset, int top)
{
    const double at = scale == 0.0F ? offset : rint((double)value / scale + offset);

    return (unsigned)fmin(fmax(at, 0.0), top);
}

/* 32 values as levels of n_bits (4 or 5) each: `fifth` is where the fifth bits go, then come the
 * low four bits, elements 0..15 in the low halves of the bytes and 16..31 in the high ones. */
static void put_levels(uint8_t *fifth, uint8_t *low, const unsigned *levels)
{
    uint32_t high_bits = 0;

    for (int i = 0; i < 16; i++) {
        low[i] = (uint8_t)((levels[i] & 15U) | (levels[i + 16] & 15U) << 4);
    }
    for (int i = 0; i < 32; i++) {
        high_bits |= (uint32_t)(levels[i] >> 4) << i;
    }
    if (fifth != NULL) {
        memcpy(fifth, &high_bits, sizeof(high_bits));
    }
}

/* Q4_0 and Q5_0: the value of greatest size takes the lowest level, so that its sign is kept. */
static void encode_centred(uint8_t *out, const float *values, int n_bits)
{
    const int centre = 1 << (n_bits - 1);
    unsigned levels[32];
    float extreme = 0.0F;
    float scale;

    for (int i = 0; i < 32; i++) {
        extreme = fabsf(values[i]) > fabsf(extreme) ? values[i] : extreme;
    }
    scale = extreme / (float)-centre;
    put_half(out, scale);
    for (int i = 0; i < 32; i++) {
        levels[i] = level(values[i], scale, (float)centre, 2 * centre - 1);
    }
    put_levels(n_bits == 5 ? out + 2 : NULL, out + (n_bits == 5 ? 6 : 2), levels);
}

/* Q4_1 and Q5_1: from the least value to the greatest. */
static void encode_ranged(uint8_t *out, const float *values, int n_bits)
{
    const int top = (1 << n_bits) - 1;
    unsigned levels[32];
    float least = values[0];
    float greatest = values[0];
    float scale;

    for (int i = 1; i < 32; i++) {
        least = fminf(least, values[i]);
        greatest = fmaxf(greatest, values[i]);
    }
    scale = (greatest - least) / (float)top;
    put_half(out, scale);
    put_half(out + 2, least);
    for (int i = 0; i < 32; i++) {
        levels[i] = level(values[i] - least, scale, 0.0F, top);
    }
    put_levels(n_bits == 5 ? out + 4 : NULL, out + (n_bits == 5 ? 8 : 4), levels);
}

static void encode_bytes(uint8_t *out, const float *values)
{
    float extreme = 0.0F;
    float scale;

    for (int i = 0; i < 32; i++) {
        extreme = fmaxf(extreme, fabsf(values[i]));
    }
    scale = extreme / 127.0F;
    put_half(out, scale);
    for (int i = 0; i < 32; i++) {
        out[2 + i] = (uint8_t)(int8_t)((int)level(values[i], scale, 127.0F, 254) - 127);
    }
}

void encoder_row(tsr_encoding encoding, void *out, const float *values, int64_t n)
{
    const tsr_encoding_traits *traits = tsr_encoding_describe(encoding);
    uint8_t *at = out;

    assert_int_equal(n % traits->group_elems, 0);
    for (int64_t i = 0; i < n; i += traits->group_elems, at += traits->group_bytes) {
        uint16_t bits;

        switch (encoding) {
        case TSR_ENCODING_F32:
            memcpy(at, values + i, sizeof(float));
            break;
        case TSR_ENCODING_F16:
            put_half(at, values[i]);
            break;
        case TSR_ENCODING_BF16:
            bits = tsr_dtype_to_bf16(values[i]);
            memcpy(at, &bits, sizeof(bits));
            break;
        case TSR_ENCODING_Q4_0:
        case TSR_ENCODING_Q5_0:
            encode_centred(at, values + i, encoding == TSR_ENCODING_Q5_0 ? 5 : 4);
            break;
        case TSR_ENCODING_Q4_1:
        case TSR_ENCODING_Q5_1:
            encode_ranged(at, values + i, encoding == TSR_ENCODING_Q5_1 ? 5 : 4);
            break;
        case TSR_ENCODING_Q8_0:
            encode_bytes(at, values + i);
            break;
        default:
            fail_msg("no encoder of values for %s", traits->name);
        }
    }
}

/* Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minima in twelve bytes. */
static void put_sixes(uint8_t out[12], const unsigned scales[8], const unsigned minima[8])
{
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(scales[i] | (scales[i + 4] >> 4) << 6);
        out[i + 4] = (uint8_t)(minima[i] | (minima[i + 4] >> 4) << 6);
        out[i + 8] = (uint8_t)((scales[i + 4] & 15U) | (minima[i + 4] & 15U) << 4);
    }
}

/* A scale in low..top and a minimum near it, so that the values of a group lie around zero. */
static void pick_pair(test_random *random, unsigned top, unsigned *scale, unsigned *minimum)
{
    const uint64_t bits = test_random_bits(random);

    *scale = top / 4 + (unsigned)(bits % (top - top / 4 + 1));
    *minimum = *scale + (unsigned)((bits >> 32) % 3) - 1; // scale >= 1: stays above zero
    *minimum = *minimum > top ? top : *minimum;
}

/* IQ1_M: four bits of the half in the uppermost of each of four words. */
static void put_spread_out(uint8_t *words, float value)
{
    const uint16_t half = tsr_dtype_to_f16(value);

    for (int i = 0; i < 4; i++) {
        words[2 * i + 1] = (uint8_t)((words[2 * i + 1] & 15) | (half >> (4 * i) & 15) << 4);
    }
}

enum { // instead of where a half stands
    SPREAD_OUT = -1,
    POWER_OF_2 = -2,
    FOUR_E4M3 = -3
};

void encoder_random_row(tsr_encoding encoding, void *out, double spread, int64_t n,
                        test_random *random)
{
    // What a group's values spread with a super-scale of 1, from the root mean squares of uniform
    // scales and uniform levels; the level around which Q2_K, Q4_K and Q5_K lie is half their top.
    static const struct {
        double unit;
        float centre;
        int scale_at; // where the super-scale stands; a minimum's stands right behind it
    } forms[TSR_ENCODING_COUNT] = {
        [TSR_ENCODING_Q2_K] = {9.9 * 1.12, 1.5F, 80}, [TSR_ENCODING_Q3_K] = {18.5 * 2.35, 0, 108},
        [TSR_ENCODING_Q4_K] = {41.5 * 4.6, 7.5F, 0},  [TSR_ENCODING_Q5_K] = {41.5 * 9.2, 15.5F, 0},
        [TSR_ENCODING_Q6_K] = {73.9 * 18.5, 0, 208},  [TSR_ENCODING_IQ1_S] = {7.18, 0, 0},
        [TSR_ENCODING_IQ1_M] = {7.18, 0, SPREAD_OUT}, [TSR_ENCODING_IQ2_XXS] = {53.3, 0, 0},
        [TSR_ENCODING_IQ2_XS] = {55.9, 0, 0},         [TSR_ENCODING_IQ2_S] = {56.3, 0, 0},
        [TSR_ENCODING_IQ3_XXS] = {143, 0, 0},         [TSR_ENCODING_IQ3_S] = {140, 0, 0},
        [TSR_ENCODING_IQ4_NL] = {67.5, 0, 0},         [TSR_ENCODING_IQ4_XS] = {67.5 * 18.5, 0, 0},
        [TSR_ENCODING_TQ1_0] = {0.818, 0, 52},        [TSR_ENCODING_TQ2_0] = {1.23, 0, 64},
        [TSR_ENCODING_MXFP4] = {5.9, 0, POWER_OF_2},  [TSR_ENCODING_NVFP4] = {5.9, 0, FOUR_E4M3},
    };
    const tsr_encoding_traits *traits = tsr_encoding_describe(encoding);
    const float scale = (float)(spread / forms[encoding].unit);
    uint8_t *at = out;

    assert_false(encoder_takes_values(encoding));
    assert_int_equal(n % traits->group_elems, 0);
    for (int64_t g = 0; g < n / traits->group_elems; g++, at += traits->group_bytes) {
        unsigned scales[16];
        unsigned minima[16];

        for (int i = 0; i < traits->group_bytes; i++) {
            at[i] = (uint8_t)(test_random_bits(random) >> 56);
        }
        for (int i = 0; i < 16; i++) {
            pick_pair(random, encoding == TSR_ENCODING_Q2_K ? 15 : 63, &scales[i], &minima[i]);
        }
        if (encoding == TSR_ENCODING_Q2_K) {
            for (int i = 0; i < 16; i++) {
                at[i] = (uint8_t)(scales[i] | minima[i] << 4);
            }
        } else if (encoding == TSR_ENCODING_Q4_K || encoding == TSR_ENCODING_Q5_K) {
            put_sixes(at + 4, scales, minima);
        }
        if (forms[encoding].scale_at == POWER_OF_2) {
            at[0] = (uint8_t)(128 + lrint(log2((double)scale)));
        } else if (forms[encoding].scale_at == FOUR_E4M3) {
            memset(at, tsr_dtype_to_fp8(2 * scale), 4);
        } else if (forms[encoding].scale_at == SPREAD_OUT) {
            put_spread_out(at + 48, scale);
        } else {
            put_half(at + forms[encoding].scale_at, scale);
        }
        if (forms[encoding].centre > 0) {
            put_half(at + forms[encoding].scale_at + 2, scale * forms[encoding].centre);
        }
    }
}
