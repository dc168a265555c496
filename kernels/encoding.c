#include "kernels/encoding.h"

#include <assert.h>
#include <string.h>

#include "kernels/dtype.h"
#include "kernels/encoding_run.h"

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
 *
 * Those of fewer bits, with grids and tables of values, are told in encoding_run.c.
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

static void decode_q5_0(float *out, const uint8_t *group)
{
    const float d = load_f16(group);
    const uint8_t *low = group + 6;
    uint32_t high; // bit i is the fifth bit of number i

    memcpy(&high, group + 2, sizeof(high));
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((int)((low[i] & 15U) | (high >> i & 1U) << 4) - 16);
        out[i + 16] = d * (float)((int)((low[i] >> 4) | (high >> (i + 16) & 1U) << 4) - 16);
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

static void decode_q4_k(float *out, const uint8_t *group)
{
    const float d = load_f16(group);
    const float m = load_f16(group + 2);

    for (int run = 0; run < 8; run++) {
        const uint8_t *nibbles = group + 16 + run / 2 * 32;
        unsigned scale;
        unsigned minimum;

        tsr_encoding_six_bits(group + 4, run, &scale, &minimum);
        for (int i = 0; i < 32; i++) {
            out[32 * run + i] =
                d * (float)scale * (float)(nibbles[i] >> (run % 2 * 4) & 15) - m * (float)minimum;
        }
    }
}

/* Encodings without a decoder of their own are read in runs (kernels/encoding_run.h). */
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
    [TSR_ENCODING_Q5_1] = {{"Q5_1", SMALL_ELEMS, Q5_1_BYTES}, NULL},
    [TSR_ENCODING_Q8_0] = {{"Q8_0", SMALL_ELEMS, Q8_0_BYTES}, decode_q8_0},
    [TSR_ENCODING_Q2_K] = {{"Q2_K", LARGE_ELEMS, Q2_K_BYTES}, NULL},
    [TSR_ENCODING_Q3_K] = {{"Q3_K", LARGE_ELEMS, Q3_K_BYTES}, NULL},
    [TSR_ENCODING_Q4_K] = {{"Q4_K", LARGE_ELEMS, Q4_K_BYTES}, decode_q4_k},
    [TSR_ENCODING_Q5_K] = {{"Q5_K", LARGE_ELEMS, Q5_K_BYTES}, NULL},
    [TSR_ENCODING_Q6_K] = {{"Q6_K", LARGE_ELEMS, Q6_K_BYTES}, NULL},
    [TSR_ENCODING_IQ1_S] = {{"IQ1_S", LARGE_ELEMS, 50}, NULL},
    [TSR_ENCODING_IQ1_M] = {{"IQ1_M", LARGE_ELEMS, 56}, NULL},
    [TSR_ENCODING_IQ2_XXS] = {{"IQ2_XXS", LARGE_ELEMS, 66}, NULL},
    [TSR_ENCODING_IQ2_XS] = {{"IQ2_XS", LARGE_ELEMS, 74}, NULL},
    [TSR_ENCODING_IQ2_S] = {{"IQ2_S", LARGE_ELEMS, 82}, NULL},
    [TSR_ENCODING_IQ3_XXS] = {{"IQ3_XXS", LARGE_ELEMS, 98}, NULL},
    [TSR_ENCODING_IQ3_S] = {{"IQ3_S", LARGE_ELEMS, 110}, NULL},
    [TSR_ENCODING_IQ4_NL] = {{"IQ4_NL", SMALL_ELEMS, 18}, NULL},
    [TSR_ENCODING_IQ4_XS] = {{"IQ4_XS", LARGE_ELEMS, 136}, NULL},
    [TSR_ENCODING_TQ1_0] = {{"TQ1_0", LARGE_ELEMS, 54}, NULL},
    [TSR_ENCODING_TQ2_0] = {{"TQ2_0", LARGE_ELEMS, 66}, NULL},
    [TSR_ENCODING_MXFP4] = {{"MXFP4", SMALL_ELEMS, 17}, NULL},
    [TSR_ENCODING_NVFP4] = {{"NVFP4", 64, 36}, NULL},
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

/* Runs [first, end) of a row. */
static void decode_runs(tsr_encoding encoding, float *out, const uint8_t *row, int64_t first,
                        int64_t end)
{
    tsr_encoding_read_fn *read = tsr_encoding_reader(encoding);
    tsr_encoding_read_fn *read_codes = tsr_encoding_codes_reader(encoding);
    const int8_t *values =
        encoding == TSR_ENCODING_MXFP4 ? tsr_encoding_fp4_values : tsr_encoding_nl4_values;

    for (int64_t t = first; t < end; t++, out += TSR_RUN_ELEMS) {
        tsr_encoding_run run;

        if (read_codes != NULL) {
            read_codes(&run, row, t);
            for (int i = 0; i < TSR_RUN_ELEMS; i++) {
                out[i] = run.d[0] * (float)values[run.q[i]];
            }
        } else {
            read(&run, row, t);
            for (int i = 0; i < TSR_RUN_ELEMS; i++) {
                out[i] = run.d[i / 16] * (float)run.q[i] + run.m[i / 16];
            }
        }
    }
}

void tsr_encoding_decode(tsr_encoding encoding, float *out, const void *row, int64_t first,
                         int64_t n_elems)
{
    const tsr_encoding_traits *traits = tsr_encoding_describe(encoding);
    const uint8_t *group = (const uint8_t *)row + tsr_encoding_row_bytes(encoding, first);

    assert(n_elems >= 0 && n_elems % traits->group_elems == 0);
    if (encodings[encoding].decode == NULL) {
        decode_runs(encoding, out, row, first / TSR_RUN_ELEMS, (first + n_elems) / TSR_RUN_ELEMS);
        return;
    }
    for (int64_t i = 0; i < n_elems; i += traits->group_elems) {
        encodings[encoding].decode(out + i, group);
        group += traits->group_bytes;
    }
}
