#include "kernels/encoding.h"

#include <assert.h>
#include <string.h>

#include "kernels/dtype.h"

/*
 * Group layouts are those of ggml (ggml/src/ggml-common.h). Numbers are little-endian; d and m are
 * halves: a scale and a minimum. The 32-element groups keep element i in the low four bits of byte
 * i and element i + 16 in the high four. The _K groups of 256 have a scale for every run of 16 or
 * 32 elements, and bits of a number in two places:
 *
 *   Q4_0   d | 16 bytes of 4 bits                        d * (q - 8)
 *   Q4_1   d | m | 16 bytes of 4 bits                    d * q + m
 *   Q5_0   d | 32 fifth bits | 16 bytes of 4 bits        d * (q - 16)
 *   Q5_1   d | m | 32 fifth bits | 16 bytes of 4 bits    d * q + m
 *   Q8_0   d | 32 signed bytes                           d * q
 *   Q2_K   16 x (scale, minimum of 4 bits) | 64 bytes of 2 bits | d | m
 *   Q3_K   32 bytes of third bits | 64 bytes of 2 bits | 16 scales of 6 bits | d
 *   Q4_K   d | m | 8 x (scale, minimum of 6 bits) | 128 bytes of 4 bits
 *   Q5_K   d | m | 8 x (scale, minimum of 6 bits) | 32 bytes of fifth bits | 128 bytes of 4 bits
 *   Q6_K   128 bytes of 4 bits | 64 bytes of 2 bits | 16 signed scales of 8 bits | d
 */
enum {
    SMALL_ELEMS = 32,
    LARGE_ELEMS = 256,
    Q4_0_BYTES = 2 + 16,
    Q4_1_BYTES = 2 + 2 + 16,
    Q5_0_BYTES = 2 + 4 + 16,
    Q5_1_BYTES = 2 + 2 + 4 + 16,
    Q8_0_BYTES = 2 + 32,
    Q2_K_BYTES = 16 + 64 + 2 + 2,
    Q3_K_BYTES = 32 + 64 + 12 + 2,
    Q4_K_BYTES = 2 + 2 + 12 + 128,
    Q5_K_BYTES = 2 + 2 + 12 + 32 + 128,
    Q6_K_BYTES = 128 + 64 + 16 + 2
};

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

static void decode_f32(float *out, const uint8_t *group)
{
    memcpy(out, group, sizeof(*out)); // the host is little-endian, as the file is
}

static void decode_f16(float *out, const uint8_t *group)
{
    *out = load_f16(group);
}

static void decode_bf16(float *out, const uint8_t *group)
{
    *out = tsr_dtype_from_bf16((uint16_t)load_u16(group));
}

static void decode_q4_0(float *out, const uint8_t *group)
{
    const float d = load_f16(group);
    const uint8_t *low = group + 2;

    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((low[i] & 15) - 8);
        out[i + 16] = d * (float)((low[i] >> 4) - 8);
    }
}

static void decode_q4_1(float *out, const uint8_t *group)
{
    const float d = load_f16(group);
    const float m = load_f16(group + 2);
    const uint8_t *low = group + 4;

    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(low[i] & 15) + m;
        out[i + 16] = d * (float)(low[i] >> 4) + m;
    }
}

/* The 32 five-bit numbers of a group: bit i of `high` is the fifth bit of number i. */
static void unpack_5_bits(int *q, const uint8_t *low, uint32_t high)
{
    for (int i = 0; i < 16; i++) {
        q[i] = (low[i] & 15) | (int)((high >> i) & 1U) << 4;
        q[i + 16] = (low[i] >> 4) | (int)((high >> (i + 16)) & 1U) << 4;
    }
}

static void decode_q5_0(float *out, const uint8_t *group)
{
    const float d = load_f16(group);
    int q[SMALL_ELEMS];

    unpack_5_bits(q, group + 6, load_u32(group + 2));
    for (int i = 0; i < SMALL_ELEMS; i++) {
        out[i] = d * (float)(q[i] - 16);
    }
}

static void decode_q5_1(float *out, const uint8_t *group)
{
    const float d = load_f16(group);
    const float m = load_f16(group + 2);
    int q[SMALL_ELEMS];

    unpack_5_bits(q, group + 8, load_u32(group + 4));
    for (int i = 0; i < SMALL_ELEMS; i++) {
        out[i] = d * (float)q[i] + m;
    }
}

static void decode_q8_0(float *out, const uint8_t *group)
{
    const float d = load_f16(group);
    const int8_t *q = (const int8_t *)(group + 2);

    for (int i = 0; i < SMALL_ELEMS; i++) {
        out[i] = d * (float)q[i];
    }
}

/*
 * Two-bit numbers of a _K group: each 32 bytes hold 128 numbers, byte b those of elements b, b +
 * 32, b + 64 and b + 96 from its low bits up. A run is 16 elements with one scale; this is where
 * run r starts and how far up it is.
 */
static const uint8_t *run_of_2_bits(const uint8_t *pairs, int run, int *shift)
{
    *shift = run % 8 / 2 * 2;
    return pairs + run / 8 * 32 + run % 2 * 16;
}

static void decode_q2_k(float *out, const uint8_t *group)
{
    const uint8_t *scales = group;
    const float d = load_f16(group + 80);
    const float m = load_f16(group + 82);

    for (int run = 0; run < 16; run++) {
        const float scale = d * (float)(scales[run] & 15);
        const float minimum = m * (float)(scales[run] >> 4);
        int shift;
        const uint8_t *low = run_of_2_bits(group + 16, run, &shift);

        for (int i = 0; i < 16; i++) {
            out[16 * run + i] = scale * (float)((low[i] >> shift) & 3) - minimum;
        }
    }
}

/* Scale r of a Q3_K group: four bits in the low or high half of byte r % 8, two more in byte 8 + r
 * % 4. */
static int scale_of_q3_k(const uint8_t *scales, int run)
{
    const int low = (scales[run % 8] >> (run / 8 * 4)) & 15;
    const int high = (scales[8 + run % 4] >> (run / 4 * 2)) & 3;

    return (low | high << 4) - 32;
}

static void decode_q3_k(float *out, const uint8_t *group)
{
    const float d = load_f16(group + 108);

    for (int run = 0; run < 16; run++) {
        const float scale = d * (float)scale_of_q3_k(group + 96, run);
        const uint8_t *high = group + run % 2 * 16; // bit run / 2 of each byte
        int shift;
        const uint8_t *low = run_of_2_bits(group + 32, run, &shift);

        for (int i = 0; i < 16; i++) {
            const int q = ((low[i] >> shift) & 3) | ((high[i] >> (run / 2)) & 1) << 2;

            out[16 * run + i] = scale * (float)(q - 4);
        }
    }
}

/*
 * Scale and minimum of run r of a Q4_K or Q5_K group, six bits each. Runs 0 to 3 have them in the
 * low six bits of bytes r and r + 4. Runs 4 to 7 have their low four bits in the halves of byte r +
 * 4, and their high two in the upper bits that runs 0 to 3 left free.
 */
static void scale_and_minimum(int *scale, int *minimum, const uint8_t *packed, int run)
{
    if (run < 4) {
        *scale = packed[run] & 63;
        *minimum = packed[run + 4] & 63;
    } else {
        *scale = (packed[run + 4] & 15) | packed[run - 4] >> 6 << 4;
        *minimum = packed[run + 4] >> 4 | packed[run] >> 6 << 4;
    }
}

/* Q4_K, and Q5_K when there are fifth bits: bit r of high[i] belongs to element i of run r. */
static void decode_runs_of_32(float *out, const uint8_t *group, const uint8_t *low,
                              const uint8_t *high)
{
    const float d = load_f16(group);
    const float m = load_f16(group + 2);

    for (int run = 0; run < 8; run++) {
        const uint8_t *nibbles = low + run / 2 * 32;
        const int shift = run % 2 * 4;
        int scale_6;
        int minimum_6;
        float scale;
        float minimum;

        scale_and_minimum(&scale_6, &minimum_6, group + 4, run);
        scale = d * (float)scale_6;
        minimum = m * (float)minimum_6;
        for (int i = 0; i < 32; i++) {
            const int fifth = high != NULL ? (high[i] >> run) & 1 : 0;

            out[32 * run + i] =
                scale * (float)(((nibbles[i] >> shift) & 15) | fifth << 4) - minimum;
        }
    }
}

static void decode_q4_k(float *out, const uint8_t *group)
{
    decode_runs_of_32(out, group, group + 16, NULL);
}

static void decode_q5_k(float *out, const uint8_t *group)
{
    decode_runs_of_32(out, group, group + 48, group + 16);
}

static void decode_q6_k(float *out, const uint8_t *group)
{
    const int8_t *scales = (const int8_t *)(group + 192);
    const float d = load_f16(group + 208);

    for (int run = 0; run < 16; run++) {
        const float scale = d * (float)scales[run];
        const uint8_t *low = group + run / 8 * 64 + run % 4 * 16;
        const int low_shift = run % 8 / 4 * 4;
        int high_shift;
        const uint8_t *high = run_of_2_bits(group + 128, run, &high_shift);

        for (int i = 0; i < 16; i++) {
            const int q = ((low[i] >> low_shift) & 15) | ((high[i] >> high_shift) & 3) << 4;

            out[16 * run + i] = scale * (float)(q - 32);
        }
    }
}

static const struct {
    tsr_encoding_traits traits;
    void (*decode)(float *out, const uint8_t *group);
} encodings[TSR_ENCODING_COUNT] = {
    [TSR_ENCODING_F32] = {{"F32", 1, 4}, decode_f32},
    [TSR_ENCODING_F16] = {{"F16", 1, 2}, decode_f16},
    [TSR_ENCODING_BF16] = {{"BF16", 1, 2}, decode_bf16},
    [TSR_ENCODING_Q4_0] = {{"Q4_0", SMALL_ELEMS, Q4_0_BYTES}, decode_q4_0},
    [TSR_ENCODING_Q4_1] = {{"Q4_1", SMALL_ELEMS, Q4_1_BYTES}, decode_q4_1},
    [TSR_ENCODING_Q5_0] = {{"Q5_0", SMALL_ELEMS, Q5_0_BYTES}, decode_q5_0},
    [TSR_ENCODING_Q5_1] = {{"Q5_1", SMALL_ELEMS, Q5_1_BYTES}, decode_q5_1},
    [TSR_ENCODING_Q8_0] = {{"Q8_0", SMALL_ELEMS, Q8_0_BYTES}, decode_q8_0},
    [TSR_ENCODING_Q2_K] = {{"Q2_K", LARGE_ELEMS, Q2_K_BYTES}, decode_q2_k},
    [TSR_ENCODING_Q3_K] = {{"Q3_K", LARGE_ELEMS, Q3_K_BYTES}, decode_q3_k},
    [TSR_ENCODING_Q4_K] = {{"Q4_K", LARGE_ELEMS, Q4_K_BYTES}, decode_q4_k},
    [TSR_ENCODING_Q5_K] = {{"Q5_K", LARGE_ELEMS, Q5_K_BYTES}, decode_q5_k},
    [TSR_ENCODING_Q6_K] = {{"Q6_K", LARGE_ELEMS, Q6_K_BYTES}, decode_q6_k},
};

const tsr_encoding_traits *tsr_encoding_describe(tsr_encoding encoding)
{
    assert((unsigned)encoding < TSR_ENCODING_COUNT);
    return &encodings[encoding].traits;
}

size_t tsr_encoding_row_bytes(tsr_encoding encoding, int64_t n_elems)
{
    const tsr_encoding_traits *traits = tsr_encoding_describe(encoding);

    assert(n_elems >= 0 && n_elems % traits->group_elems == 0);
    return (size_t)(n_elems / traits->group_elems) * (size_t)traits->group_bytes;
}

void tsr_encoding_decode(tsr_encoding encoding, float *out, const void *row, int64_t first,
                         int64_t n_elems)
{
    const tsr_encoding_traits *traits = tsr_encoding_describe(encoding);
    const uint8_t *group = (const uint8_t *)row + tsr_encoding_row_bytes(encoding, first);

    assert(n_elems >= 0 && n_elems % traits->group_elems == 0);
    for (int64_t i = 0; i < n_elems; i += traits->group_elems) {
        encodings[encoding].decode(out + i, group);
        group += traits->group_bytes;
    }
}
