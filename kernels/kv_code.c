#include "kernels/kv_code.h"

#include <math.h>
#include <string.h>

#define FOUR -1.5104F, -0.4528F, 0.4528F, 1.5104F

const float *tsr_kv_code_levels(tsr_kv_type type)
{
    static const float levels[2][16] = {{FOUR, FOUR, FOUR, FOUR},
                                        {-2.7326F, -2.0690F, -1.6181F, -1.2562F, -0.9423F, -0.6568F,
                                         -0.3880F, -0.1284F, 0.1284F, 0.3880F, 0.6568F, 0.9423F,
                                         1.2562F, 1.6181F, 2.0690F, 2.7326F}};

    return levels[type == TSR_KV_TYPE_INT4];
}

enum {
    MOST_DIM = TSR_KV_LAYOUT_MOST_DIM,
    REFITS = 2 // of scale and codes to each other
};

/* ---- turning --------------------------------------------------------------------------------- */

static int power_of_two_in(int n)
{
    return n & -n;
}

int tsr_kv_code_key_unit(const tsr_kv_layout *layout)
{
    return power_of_two_in(layout->latent ? layout->key_dim | layout->value_dim : layout->key_dim);
}

int tsr_kv_code_value_unit(const tsr_kv_layout *layout)
{
    return power_of_two_in(layout->latent ? layout->key_dim | layout->value_dim
                                          : layout->value_dim);
}

void tsr_kv_code_turn(float *x, int dim, int unit)
{
    const float norm = 1.0F / sqrtf((float)unit);

    for (int first = 0; first < dim; first += unit) {
        float *u = x + first;

        for (int half = 1; half < unit; half *= 2) {
            for (int i = 0; i < unit; i += 2 * half) {
                for (int k = i; k < i + half; k++) {
                    const float a = u[k];
                    const float b = u[k + half];

                    u[k] = a + b;
                    u[k + half] = a - b;
                }
            }
        }
        for (int i = 0; i < unit; i++) {
            u[i] *= norm;
        }
    }
}

/* ---- rounding -------------------------------------------------------------------------------- */

static float sum_of_squares(const float *x, int dim)
{
    float lanes[8] = {0};

    for (int d = 0; d < dim; d++) {
        lanes[d % 8] += x[d] * x[d];
    }
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/* The largest magnitude; NaN or infinity where there is one. */
static float largest(const float *x, int dim)
{
    float most = 0;

    for (int d = 0; d < dim; d++) {
        const float a = fabsf(x[d]);

        if (!(a <= most)) {
            most = a;
        }
        if (!(most < INFINITY)) {
            return most;
        }
    }
    return most;
}

/* absmax / levels, up to the next bf16, so that nothing is cut off. */
static uint16_t scale_up(float absmax, float levels)
{
    uint16_t scale = tsr_dtype_to_bf16(absmax / levels);

    if (tsr_dtype_from_bf16(scale) * levels < absmax) {
        scale++;
    }
    return scale;
}

static void round_to_bytes(tsr_kv_code *out, const float *x, int dim, tsr_kv_type type)
{
    const bool is_int = type == TSR_KV_TYPE_INT8;
    float scale;
    float inverse;

    out->scale = scale_up(largest(x, dim), is_int ? 127.0F : 448.0F);
    scale = tsr_dtype_from_bf16(out->scale);
    inverse = scale > 0 ? 1 / scale : 0;
    inverse = inverse < INFINITY ? inverse : 0; // a vector of nearly nothing is zeros
    for (int d = 0; d < dim; d++) {
        const float z = x[d] * inverse;

        out->codes[d] =
            is_int ? (uint8_t)(int8_t)rintf(fmaxf(-127.0F, fminf(z, 127.0F))) : tsr_dtype_to_fp8(z);
    }
}

static void round_turned(tsr_kv_code *out, const float *x, int dim, tsr_kv_type type)
{
    const float *levels = tsr_kv_code_levels(type);
    const int n_levels = 1 << tsr_kv_type_bits(type);
    float borders[16];
    float y[MOST_DIM];
    float scale = sqrtf(sum_of_squares(x, dim) / (float)dim);

    for (int i = 0; i < n_levels - 1; i++) {
        borders[i] = 0.5F * (levels[i] + levels[i + 1]);
    }
    for (int n = 0; n < REFITS; n++) {
        const float inverse = scale > 0 && 1 / scale < INFINITY ? 1 / scale : 0;
        float products[MOST_DIM];
        float xy = 0;

        memset(out->codes, 0, (size_t)dim);
        for (int i = 0; i < n_levels - 1; i++) {
            for (int d = 0; d < dim; d++) {
                out->codes[d] = (uint8_t)(out->codes[d] + (x[d] * inverse > borders[i]));
            }
        }
        for (int d = 0; d < dim; d++) {
            y[d] = levels[out->codes[d]];
            products[d] = x[d] * y[d];
        }
        for (int d = 0; d < dim; d++) {
            xy += products[d];
        }
        scale = fmaxf(0, xy / sum_of_squares(y, dim));
    }
    // The least squares code is shorter than x by what is lost, and scores would shrink with it.
    out->scale = tsr_dtype_to_bf16(sqrtf(sum_of_squares(x, dim) / sum_of_squares(y, dim)));
}

void tsr_kv_code_round(tsr_kv_code *out, const float *x, const float *mean, int dim,
                       tsr_kv_type type)
{
    float rest[MOST_DIM];
    bool is_less = false;

    if (!(largest(x, dim) < INFINITY)) {
        memset(out->codes, 0, (size_t)dim);
        out->scale = 0x7FC0;
        return;
    }
    if (!tsr_kv_type_has_levels(type)) {
        round_to_bytes(out, x, dim, type);
        return;
    }
    if (mean != NULL) {
        for (int d = 0; d < dim; d++) {
            rest[d] = x[d] - mean[d];
        }
        is_less = sum_of_squares(rest, dim) < sum_of_squares(x, dim);
    }
    round_turned(out, is_less ? rest : x, dim, type);
    out->scale |= is_less ? 0x8000U : 0;
}

/* ---- in a block ------------------------------------------------------------------------------ */

/* The codes of a token as one string of bits; byte i goes to to[i * stride]. */
static void pack(uint8_t *to, int64_t stride, const uint8_t *codes, int dim, int bits)
{
    const int a_byte = 8 / bits;

    for (int d = 0; d < dim; d += a_byte) {
        uint32_t byte = 0;

        for (int i = 0; i < a_byte && d + i < dim; i++) {
            byte |= (uint32_t)codes[d + i] << (i * bits);
        }
        *to = (uint8_t)byte;
        to += stride;
    }
}

static void put_scale(void *codes, size_t code_bytes, int at, uint16_t scale)
{
    memcpy((char *)codes + code_bytes + (size_t)at * sizeof(scale), &scale, sizeof(scale));
}

void tsr_kv_code_put_key(void *keys, const tsr_kv_layout *layout, int at, const tsr_kv_code *code)
{
    const int64_t first = tsr_kv_layout_key_cell(layout, at, 0);

    pack((uint8_t *)keys + first, tsr_kv_layout_key_cell(layout, at, 1) - first, code->codes,
         layout->key_dim, tsr_kv_type_bits(layout->type));
    put_scale(keys, tsr_kv_layout_key_codes(layout), at, code->scale);
}

void tsr_kv_code_put_value(void *values, const tsr_kv_layout *layout, int at,
                           const tsr_kv_code *code)
{
    const int bits = tsr_kv_type_bits(layout->type);
    const size_t row_bytes = (size_t)tsr_kv_layout_padded_dim(layout) * (size_t)bits / 8;
    uint8_t *row = (uint8_t *)values + (size_t)at * row_bytes;

    memset(row, 0, row_bytes);
    pack(row, 1, code->codes, layout->value_dim, bits);
    put_scale(values, tsr_kv_layout_value_codes(layout), at, code->scale);
}

static size_t mean_offset(const tsr_kv_layout *layout, int at)
{
    return tsr_kv_layout_key_codes(layout) + (size_t)layout->block_tokens * sizeof(uint16_t) +
           (size_t)(at / TSR_KV_LAYOUT_GROUP) * tsr_kv_layout_mean_bytes(layout);
}

const int8_t *tsr_kv_code_mean_at(float *scale, const void *keys, const tsr_kv_layout *layout,
                                  int at)
{
    const char *record = (const char *)keys + mean_offset(layout, at);
    uint16_t bits;

    memcpy(&bits, record, sizeof(bits));
    *scale = tsr_dtype_from_bf16(bits);
    return (const int8_t *)record + sizeof(bits);
}

bool tsr_kv_code_key(float *x, const void *keys, const tsr_kv_layout *layout, int at)
{
    const int bits = tsr_kv_type_bits(layout->type);
    const float *levels = tsr_kv_code_levels(layout->type);
    const uint8_t *codes = keys;
    uint16_t scale_bits;
    float scale;

    memcpy(&scale_bits,
           (const char *)keys + tsr_kv_layout_key_codes(layout) + (size_t)at * sizeof(scale_bits),
           sizeof(scale_bits));
    scale = fabsf(tsr_dtype_from_bf16(scale_bits));
    scale = scale < INFINITY ? scale : 0;
    for (int d = 0; d < layout->key_dim; d++) {
        const int bit = d * bits;

        // What lies above the code's bits does not matter: levels repeat.
        x[d] = scale * levels[codes[tsr_kv_layout_key_cell(layout, at, bit / 8)] >> bit % 8 & 15];
    }
    return (scale_bits & 0x8000U) != 0;
}

void tsr_kv_code_put_mean(void *keys, const tsr_kv_layout *layout, int at, const float *mean)
{
    char *record = (char *)keys + mean_offset(layout, at);
    const int n = (layout->key_dim + 1) / 2 * 2;
    tsr_kv_code code;

    round_to_bytes(&code, mean, n, TSR_KV_TYPE_INT8);
    memcpy(record, &code.scale, sizeof(code.scale));
    memcpy(record + sizeof(code.scale), code.codes, (size_t)n);
}
