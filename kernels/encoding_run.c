#include "kernels/encoding_run.h"

#include <math.h>
#include <string.h>

#include "kernels/dtype.h"

/*
 * Group layouts are those of ggml (ggml/src/ggml-common.h); those of fewer and larger runs are told
 * in encoding.c. Here d is a half in front of the group unless it is said otherwise, and a group
 * has 256 elements, eight runs:
 *
 *   IQ2_XXS  d | 8 x (4 grid points of 8 bits | 4 x 7 bits of signs, scale of 4 bits)
 *   IQ2_XS   d | 32 x (grid point of 9 bits, signs of 7) | 16 scales of 4 bits
 *   IQ2_S    d | 32 x low 8 bits of a grid point | 32 x signs | 8 x 4 x 2 high bits | 16 scales
 *   IQ3_XXS  d | 64 grid points of 8 bits | 8 x (4 x 7 bits of signs, scale of 4 bits)
 *   IQ3_S    d | 64 x low 8 bits of a grid point | 8 x 8 high bits | 32 x signs | 8 scales of 4
 * bits IQ1_S    d | 32 x low 8 bits of a grid point | 8 x (4 x 3 high bits, scale of 3 bits, shift)
 *   IQ1_M    32 x low 8 bits | 32 x (3 high bits, shift) | 4 x (4 scales of 3 bits, 4 bits of d)
 *   IQ4_XS   d | 8 x 2 high bits of a scale | 8 x 4 low bits | 128 bytes of 4-bit codes
 *   TQ1_0    240 numbers of base 3, five a byte | 16 more, four a byte | d behind them
 *   TQ2_0    64 bytes of 2 bits | d behind them
 *   IQ4_NL   32 elements: d | 16 bytes of 4-bit codes
 *   MXFP4    32 elements: exponent e of 2^(e - 127) | 16 bytes of 4-bit codes
 *   NVFP4    64 elements: 4 scales of e4m3, their sign unused | 4 x 8 bytes of 4-bit codes, the
 *            first eight of sixteen in the low bits
 */

static uint32_t load_u16(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8;
}

static uint32_t load_u32(const uint8_t *bytes)
{
    return load_u16(bytes) | load_u16(bytes + 2) << 16;
}

static float load_f16(const uint8_t *bytes)
{
    return tsr_dtype_from_f16((uint16_t)load_u16(bytes));
}

static void set_scales(tsr_encoding_run *run, float first, float second)
{
    run->d[0] = first;
    run->d[1] = second;
    run->m[0] = run->m[1] = -0.0F; // x + -0 is x, a negative zero too
}

/* ---- five to two bits, evenly spaced ------------------------------------------------------- */

static void read_q5_1(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *from = row + t * 24;
    const uint8_t *low = from + 8;
    const uint32_t high = load_u32(from + 4);

    for (int i = 0; i < 16; i++) {
        run->q[i] = (int8_t)((low[i] & 15U) | (high >> i & 1U) << 4);
        run->q[i + 16] = (int8_t)((low[i] >> 4) | (high >> (i + 16) & 1U) << 4);
    }
    run->d[0] = run->d[1] = load_f16(from);
    run->m[0] = run->m[1] = load_f16(from + 2);
}

static void read_q2_k(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *from = row + t / 8 * 84;
    const int i = (int)(t % 8);
    const uint8_t *codes = from + 16 + i / 4 * TSR_RUN_ELEMS;

    for (int c = 0; c < TSR_RUN_ELEMS; c++) {
        run->q[c] = (int8_t)(codes[c] >> (i % 4 * 2) & 3);
    }
    for (int h = 0; h < 2; h++) {
        const uint8_t scale = from[2 * i + h];

        run->d[h] = load_f16(from + 80) * (float)(scale & 15);
        run->m[h] = -(load_f16(from + 82) * (float)(scale >> 4));
    }
}

static void read_q3_k(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *from = row + t / 8 * 110;
    const int i = (int)(t % 8);
    const uint8_t *codes = from + 32 + i / 4 * TSR_RUN_ELEMS;
    const uint8_t *scales = from + 96;

    for (int c = 0; c < TSR_RUN_ELEMS; c++) {
        // The third bit stands in a mask of its own; where it is not set, 4 is taken off.
        run->q[c] = (int8_t)((codes[c] >> (i % 4 * 2) & 3) - (from[c] >> i & 1 ? 0 : 4));
    }
    for (int h = 0; h < 2; h++) {
        const int s = 2 * i + h; // of 16 scales: low 4 bits in 8 bytes, high 2 bits in 4
        const int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
        const int high = scales[8 + s % 4] >> (s / 4 * 2) & 3;

        run->d[h] = load_f16(from + 108) * (float)((low | high << 4) - 32);
        run->m[h] = -0.0F;
    }
}

/* Runs 0 to 3 have theirs in the low six bits of bytes i and i + 4. Runs 4 to 7 have their low four
 * bits in the halves of byte i + 4, and their high two where runs 0 to 3 left bits free. */
void tsr_encoding_six_bits(const uint8_t *packed, int i, unsigned *scale, unsigned *minimum)
{
    if (i < 4) {
        *scale = packed[i] & 63U;
        *minimum = packed[i + 4] & 63U;
    } else {
        *scale = (packed[i + 4] & 15U) | (unsigned)(packed[i - 4] >> 6) << 4;
        *minimum = (unsigned)(packed[i + 4] >> 4) | (unsigned)(packed[i] >> 6) << 4;
    }
}

static void read_q5_k(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *from = row + t / 8 * 176;
    const int i = (int)(t % 8);
    const uint8_t *high = from + 16;
    const uint8_t *codes = from + 48 + i / 2 * TSR_RUN_ELEMS;
    unsigned scale;
    unsigned minimum;

    for (int c = 0; c < TSR_RUN_ELEMS; c++) {
        run->q[c] = (int8_t)((codes[c] >> (i % 2 * 4) & 15) | (high[c] >> i & 1) << 4);
    }
    tsr_encoding_six_bits(from + 4, i, &scale, &minimum);
    run->d[0] = run->d[1] = load_f16(from) * (float)scale;
    run->m[0] = run->m[1] = -(load_f16(from + 2) * (float)minimum);
}

static void read_q6_k(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *from = row + t / 8 * 210;
    const int half = (int)(t % 8) / 4; // 128 elements: 64 bytes of low nibbles, 32 of high pairs
    const int i = (int)(t % 8) % 4;
    const uint8_t *low = from + 64 * half + i % 2 * TSR_RUN_ELEMS;
    const uint8_t *high = from + 128 + 32 * half;
    const float d = load_f16(from + 208);
    const int8_t *scales = (const int8_t *)from + 192 + 8 * half + 2 * i;

    for (int c = 0; c < TSR_RUN_ELEMS; c++) {
        run->q[c] = (int8_t)(((low[c] >> (i / 2 * 4) & 15) | (high[c] >> (2 * i) & 3) << 4) - 32);
    }
    set_scales(run, d * (float)scales[0], d * (float)scales[1]);
}

/* ---- points of a grid ---------------------------------------------------------------------- */

/* The eighth sign makes the number of minus signs even. */
static unsigned eight_signs(unsigned seven)
{
    return seven | (unsigned)__builtin_parity(seven) << 7;
}

static void put_signed(int8_t *q, int n, uint16_t point, int bits, const int8_t *levels,
                       unsigned signs)
{
    for (int i = 0; i < n; i++) {
        const int8_t value = levels[point >> (bits * i) & ((1 << bits) - 1)];

        q[i] = (int8_t)(signs >> i & 1U ? -value : value);
    }
}

static const int8_t iq2_levels[4] = {8, 25, 43, 0};
static const int8_t iq3_xxs_levels[16] = {4, 12, 20, 28, 36, 44, 52, 62};
static const int8_t iq3_s_levels[16] = {1, 3, 5, 7, 9, 11, 13, 15};

static void read_iq2_xxs(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *group = row + t / 8 * 66;
    const uint8_t *from = group + 2 + t % 8 * 8;
    const uint32_t rest = load_u32(from + 4);
    const float d = load_f16(group) * (float)(2 * (rest >> 28) + 1) * 0.125F;

    for (int i = 0; i < 4; i++) {
        put_signed(run->q + 8 * i, 8, tsr_grid_iq2_xxs[from[i]], 2, iq2_levels,
                   eight_signs(rest >> (7 * i) & 127));
    }
    set_scales(run, d, d);
}

static float iq2_scale(const uint8_t *group, unsigned scale)
{
    return load_f16(group) * (float)(2 * scale + 1) * 0.125F;
}

static void read_iq2_xs(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *group = row + t / 8 * 74;
    const uint8_t *from = group + 2 + t % 8 * 8;
    const uint8_t scales = group[66 + t % 8];

    for (int i = 0; i < 4; i++) {
        const unsigned word = load_u16(from + 2 * i);

        put_signed(run->q + 8 * i, 8, tsr_grid_iq2_xs[word & 511], 2, iq2_levels,
                   eight_signs(word >> 9));
    }
    set_scales(run, iq2_scale(group, scales & 15U), iq2_scale(group, scales >> 4));
}

static void read_iq2_s(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *group = row + t / 8 * 82;
    const uint8_t *low = group + 2 + t % 8 * 4;
    const uint8_t *signs = low + 32;
    const uint8_t high = group[66 + t % 8];
    const uint8_t scales = group[74 + t % 8];

    for (int i = 0; i < 4; i++) {
        put_signed(run->q + 8 * i, 8, tsr_grid_iq2_s[low[i] | (high >> (2 * i) & 3) << 8], 2,
                   iq2_levels, signs[i]);
    }
    set_scales(run, iq2_scale(group, scales & 15U), iq2_scale(group, scales >> 4));
}

static void read_iq3_xxs(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *group = row + t / 8 * 98;
    const uint8_t *points = group + 2 + t % 8 * 8;
    const uint32_t rest = load_u32(group + 66 + t % 8 * 4);
    const float d = load_f16(group) * (float)(2 * (rest >> 28) + 1) * 0.25F;

    for (int i = 0; i < 8; i++) {
        put_signed(run->q + 4 * i, 4, tsr_grid_iq3_xxs[points[i]], 4, iq3_xxs_levels,
                   eight_signs(rest >> (7 * (i / 2)) & 127) >> (i % 2 * 4));
    }
    set_scales(run, d, d);
}

static void read_iq3_s(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *group = row + t / 8 * 110;
    const uint8_t *low = group + 2 + t % 8 * 8;
    const uint8_t high = group[66 + t % 8];
    const uint8_t *signs = group + 74 + t % 8 * 4;
    const unsigned scale = (unsigned)group[106 + t % 8 / 2] >> (t % 2 * 4) & 15U;
    const float d = load_f16(group) * (float)(2 * scale + 1);

    for (int i = 0; i < 8; i++) {
        put_signed(run->q + 4 * i, 4, tsr_grid_iq3_s[low[i] | (high >> i & 1) << 8], 4,
                   iq3_s_levels, (unsigned)signs[i / 2] >> (i % 2 * 4));
    }
    set_scales(run, d, d);
}

/* Eight elements d * (-1, 0 or 1, less or more an eighth) as eighths. */
static void put_shifted(int8_t *q, uint16_t point, bool less)
{
    for (int i = 0; i < 8; i++) {
        q[i] = (int8_t)(8 * ((point >> (2 * i) & 3) - 1) + (less ? -1 : 1));
    }
}

static void read_iq1_s(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *group = row + t / 8 * 50;
    const uint8_t *low = group + 2 + t % 8 * 4;
    const uint32_t rest = load_u16(group + 34 + t % 8 * 2);
    const float d = load_f16(group) * (float)(2 * (rest >> 12 & 7) + 1) * 0.125F;

    for (int i = 0; i < 4; i++) {
        put_shifted(run->q + 8 * i, tsr_grid_iq1[low[i] | (rest >> (3 * i) & 7) << 8],
                    (rest & 0x8000U) != 0);
    }
    set_scales(run, d, d);
}

static void read_iq1_m(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *group = row + t / 8 * 56;
    const uint8_t *low = group + t % 8 * 4;
    const uint8_t *rest = group + 32 + t % 8 * 2;
    const uint8_t *scales = group + 48;
    const uint32_t both = load_u16(scales + t % 8 / 2 * 2) >> (t % 2 * 6);
    uint32_t half = 0;
    float d;

    for (unsigned i = 0; i < 4; i++) {
        half |= (load_u16(scales + 2 * i) >> 12) << (4 * i);
    }
    d = tsr_dtype_from_f16((uint16_t)half) * 0.125F;
    for (int i = 0; i < 4; i++) {
        const unsigned four = (unsigned)rest[i / 2] >> (i % 2 * 4);

        put_shifted(run->q + 8 * i, tsr_grid_iq1[low[i] | (four & 7U) << 8], (four & 8U) != 0);
    }
    set_scales(run, d * (float)(2 * (both & 7) + 1), d * (float)(2 * (both >> 3 & 7) + 1));
}

/* ---- three values -------------------------------------------------------------------------- */

static void read_tq1_0(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    const uint8_t *group = row + t / 8 * 54;
    const float d = load_f16(group + 52);

    for (int i = 0; i < TSR_RUN_ELEMS; i++) {
        const int at = (int)(t % 8) * TSR_RUN_ELEMS + i;
        uint8_t byte;
        int digit;

        // A digit is what overflows when the byte, a fraction of 256, is multiplied by 3.
        if (at < 160) {
            byte = group[at % 32];
            digit = at / 32;
        } else if (at < 240) {
            byte = group[32 + at % 16];
            digit = (at - 160) / 16;
        } else {
            byte = group[48 + at % 4];
            digit = (at - 240) / 4;
        }
        byte = (uint8_t)(byte * powers[digit]);
        run->q[i] = (int8_t)((byte * 3 >> 8) - 1);
    }
    set_scales(run, d, d);
}

static void read_tq2_0(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *group = row + t / 8 * 66;
    const uint8_t *codes = group + t % 8 / 4 * 32;
    const float d = load_f16(group + 64);

    for (int i = 0; i < TSR_RUN_ELEMS; i++) {
        run->q[i] = (int8_t)((codes[i] >> (t % 4 * 2) & 3) - 1);
    }
    set_scales(run, d, d);
}

/* ---- sixteen values from a table ----------------------------------------------------------- */

const int8_t tsr_encoding_nl4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};
const int8_t tsr_encoding_fp4_values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};

static void open_codes(tsr_encoding_run *run, const uint8_t *nibbles)
{
    for (int i = 0; i < 16; i++) {
        run->q[i] = (int8_t)(nibbles[i] & 15);
        run->q[i + 16] = (int8_t)(nibbles[i] >> 4);
    }
}

static void read_iq4_nl(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    open_codes(run, row + t * 18 + 2);
    run->d[0] = load_f16(row + t * 18);
}

static void read_iq4_xs(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *group = row + t / 8 * 136;
    const unsigned i = (unsigned)(t % 8);
    const unsigned low = (unsigned)group[4 + i / 2] >> (i % 2 * 4) & 15U;
    const unsigned high = load_u16(group + 2) >> (2 * i) & 3U;

    open_codes(run, group + 8 + 16 * i);
    run->d[0] = load_f16(group) * (float)((int)(low | high << 4) - 32);
}

static void read_mxfp4(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    open_codes(run, row + t * 17 + 1);
    run->d[0] = ldexpf(1.0F, row[t * 17] - 128); // its values are doubled
}

/* A half of it, as the values of the codes are doubled. What is no number in e4m3 is zero here. */
static float nvfp4_scale(uint8_t bits)
{
    const int exponent = bits >> 3 & 15;
    const int mantissa = bits & 7;

    if (bits == 0x7F) {
        return 0;
    }
    return exponent == 0 ? ldexpf((float)mantissa, -10)
                         : ldexpf((float)(8 + mantissa), exponent - 11);
}

static void read_nvfp4(tsr_encoding_run *run, const uint8_t *row, int64_t t)
{
    const uint8_t *scales = row + t / 2 * 36;
    const uint8_t *codes = scales + 4 + t % 2 * 16;

    scales += t % 2 * 2;
    for (int i = 0; i < 8; i++) {
        for (int h = 0; h < 2; h++) {
            run->q[16 * h + i] = tsr_encoding_fp4_values[codes[8 * h + i] & 15];
            run->q[16 * h + 8 + i] = tsr_encoding_fp4_values[codes[8 * h + i] >> 4];
        }
    }
    set_scales(run, nvfp4_scale(scales[0]), nvfp4_scale(scales[1]));
}

/* ---- all of them --------------------------------------------------------------------------- */

tsr_encoding_read_fn *tsr_encoding_reader(tsr_encoding encoding)
{
    static tsr_encoding_read_fn *const readers[TSR_ENCODING_COUNT] = {
        [TSR_ENCODING_Q5_1] = read_q5_1,       [TSR_ENCODING_Q2_K] = read_q2_k,
        [TSR_ENCODING_Q3_K] = read_q3_k,       [TSR_ENCODING_Q5_K] = read_q5_k,
        [TSR_ENCODING_Q6_K] = read_q6_k,       [TSR_ENCODING_IQ2_XXS] = read_iq2_xxs,
        [TSR_ENCODING_IQ2_XS] = read_iq2_xs,   [TSR_ENCODING_IQ2_S] = read_iq2_s,
        [TSR_ENCODING_IQ3_XXS] = read_iq3_xxs, [TSR_ENCODING_IQ3_S] = read_iq3_s,
        [TSR_ENCODING_IQ1_S] = read_iq1_s,     [TSR_ENCODING_IQ1_M] = read_iq1_m,
        [TSR_ENCODING_TQ1_0] = read_tq1_0,     [TSR_ENCODING_TQ2_0] = read_tq2_0,
        [TSR_ENCODING_NVFP4] = read_nvfp4,
    };

    return readers[encoding];
}

tsr_encoding_read_fn *tsr_encoding_codes_reader(tsr_encoding encoding)
{
    switch (encoding) {
    case TSR_ENCODING_IQ4_NL:
        return read_iq4_nl;
    case TSR_ENCODING_IQ4_XS:
        return read_iq4_xs;
    case TSR_ENCODING_MXFP4:
        return read_mxfp4;
    default:
        return NULL;
    }
}
