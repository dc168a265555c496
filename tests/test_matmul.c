#include "kernels/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/dtype.h"

/*
 * What is expected is computed here one element at a time, in the order of sums that
 * kernels/ops.h promises, and must come back bit for bit from every instruction set, for any
 * number of rows and threads. A second oracle, in double over the exact weights, bounds the error.
 */

enum {
    MOST_COLS = 1600,
#ifdef TSR_TEST_EMULATED // where a multiply-add takes as long as a thousand do here
    MOST_ROWS = 20,
    MOST_THREADS = 1,
    N_FORMATS = TSR_FORMAT_Q4_MIXED, // the mixed ones are the host's
#else
    MOST_ROWS = 300,
    MOST_THREADS = 4,
    N_FORMATS = TSR_FORMAT_COUNT,
#endif
    N_GROUPS = 7, // of mixed formats
    SKIPPED = 77
};

static uint32_t seed = 1;

static uint32_t random_bits(void)
{
    seed = seed * 1664525U + 1013904223U;
    return seed >> 8;
}

static float random_float(void) /* in [-1, 1) */
{
    return (float)random_bits() * 0x1p-23F - 1.0F;
}

static tsr_device *open_device(int n_threads)
{
    const tsr_ops_limits limits = {.n_rows = MOST_ROWS,
                                   .n_cols = MOST_COLS,
                                   .n_heads = 1,
                                   .head_dim = 64,
                                   .context = 64,
                                   .n_seqs = 1};
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = n_threads};
    tsr_device *dev = NULL;

    assert_int_equal(tsr_device_open(&dev, &options), TSR_OK);
    assert_int_equal(
        tsr_device_reserve_scratch(dev, tsr_ops_scratch_bytes(TSR_DEVICE_CPU, n_threads, &limits)),
        TSR_OK);
    return dev;
}

/* ---- weights ------------------------------------------------------------------------------- */

/* Groups in no order for the columns of tiles of any codes, and their table. */
static tsr_weight random_mixed(tsr_weight w)
{
    const int64_t n_panels = (w.n_rows + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS;
    const int64_t n_tiles = (w.n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS;
    const int64_t n_floats = n_panels * tsr_weight_table_floats(N_GROUPS);
    float *groups = malloc((size_t)n_floats * sizeof(*groups) + 1);

    assert_non_null(groups);
    for (int64_t i = 0; i < n_floats; i++) {
        groups[i] =
            i / TSR_PANEL_ROWS % 2 == 0 ? random_float() * 0.05F : (float)(random_bits() % 16);
    }
    for (int64_t t = 0; t < n_panels * n_tiles; t++) {
        uint16_t of_columns[TSR_TILE_COLS];

        for (int c = 0; c < TSR_TILE_COLS; c++) {
            of_columns[c] = (uint16_t)(random_bits() % N_GROUPS);
        }
        tsr_weight_put_groups(w.format, (void *)(uintptr_t)w.tiles, t, of_columns);
    }
    w.groups = groups;
    w.n_groups = N_GROUPS;
    return w;
}

static void free_weight(tsr_weight *w)
{
    free((void *)(uintptr_t)w->tiles);
    free((void *)(uintptr_t)w->groups);
}

/* Tiles of any codes and small scales; codes and scales differ everywhere. */
static tsr_weight random_weight(tsr_format format, int64_t n_rows, int64_t n_cols, int64_t grain)
{
    const size_t n_bytes = tsr_weight_bytes(format, n_rows, n_cols);
    const size_t tile_bytes = tsr_weight_tile_bytes(format);
    uint8_t *tiles = malloc(n_bytes > 0 ? n_bytes : 1);
    tsr_weight w;

    assert_non_null(tiles);
    for (size_t i = 0; i < n_bytes; i++) {
        tiles[i] = (uint8_t)random_bits();
    }
    for (size_t t = 0; t < n_bytes; t += tile_bytes) {
        uint8_t *tile = tiles + t;

        // Elements of plain types, or scales and minima; codes stay as they are.
        static const size_t firsts[TSR_FORMAT_COUNT] = {
            [TSR_FORMAT_FP8] = 512,     [TSR_FORMAT_Q4] = 256,  [TSR_FORMAT_Q4_WIDE] = 256,
            [TSR_FORMAT_NL4] = 256,     [TSR_FORMAT_FP4] = 256, [TSR_FORMAT_Q8] = 512,
            [TSR_FORMAT_Q8_WIDE] = 512,
        };
        const size_t first = firsts[format];
        const bool halves =
            format == TSR_FORMAT_Q4 || format == TSR_FORMAT_Q8 || format == TSR_FORMAT_F16;

        for (size_t at = 0; format == TSR_FORMAT_FP8 && at < first; at++) {
            tile[at] = (tile[at] & 127) == 127 ? 126 : tile[at]; // not NaN
        }
        for (size_t at = first; at < tile_bytes && !tsr_weight_is_mixed(format);) {
            // Few enough bits that a scale times a code is exact, as it is in files.
            const float value = tsr_dtype_from_bf16(tsr_dtype_to_bf16(random_float() * 0.05F));
            const uint16_t bits = halves ? tsr_dtype_to_f16(value) : tsr_dtype_to_bf16(value);

            if (halves || format == TSR_FORMAT_BF16) {
                memcpy(tile + at, &bits, 2);
                at += 2;
            } else {
                memcpy(tile + at, &value, 4);
                at += 4;
            }
        }
    }
    w = (tsr_weight){.format = format,
                     .on = TSR_DEVICE_CPU,
                     .n_rows = n_rows,
                     .n_cols = n_cols,
                     .grain_cols = grain,
                     .tiles = tiles};
    return tsr_weight_is_mixed(format) ? random_mixed(w) : w;
}

static float half_at(const uint8_t *p)
{
    uint16_t bits;

    memcpy(&bits, p, 2);
    return tsr_dtype_from_f16(bits);
}

static float float_at(const uint8_t *p)
{
    float value;

    memcpy(&value, p, 4);
    return value;
}

/* The values of IQ4_NL's codes, and of e2m1's, doubled. */
static const int nl4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                            1,    13,   25,  38,  53,  69,  89,  113};
static const int fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Code, scale and minimum of an element of a quantised weight. */
static int element(const tsr_weight *w, int64_t row, int64_t col, float *d, float *m)
{
    const uint8_t *tile = (const uint8_t *)w->tiles +
                          (size_t)(row / 16) * tsr_weight_panel_bytes(w->format, w->n_cols) +
                          (size_t)(col / 32) * tsr_weight_tile_bytes(w->format);
    const int64_t r = row % 16;
    const int64_t c = col % 32;
    const uint8_t nibbles = tile[64 * (c % 16 / 4) + 4 * r + c % 4];
    const int four = c < 16 ? nibbles & 15 : nibbles >> 4;

    *m = 0.0F;
    switch (w->format) {
    case TSR_FORMAT_Q4:
        *d = half_at(tile + 256 + 2 * r);
        *m = half_at(tile + 288 + 2 * r);
        return four;
    case TSR_FORMAT_Q4_WIDE:
        *d = float_at(tile + 256 + 4 * r);
        *m = float_at(tile + 320 + 4 * r);
        return four;
    case TSR_FORMAT_NL4:
        *d = float_at(tile + 256 + 4 * r);
        return nl4[four];
    case TSR_FORMAT_FP4:
        *d = float_at(tile + 256 + 4 * r);
        return fp4[four];
    case TSR_FORMAT_Q8:
        *d = half_at(tile + 512 + 2 * r);
        break;
    default:
        *d = float_at(tile + 512 + 128 * (c / 16) + 4 * r);
        *m = float_at(tile + 576 + 128 * (c / 16) + 4 * r);
        break;
    }
    return (int8_t)tile[64 * (c / 4) + 4 * r + c % 4];
}

/* ---- what is expected ---------------------------------------------------------------------- */

typedef struct quantised {
    int q[MOST_COLS];
    float d[(MOST_COLS + 31) / 32];
} quantised;

static void quantise(quantised *to, const float *x, int64_t n_cols)
{
    for (int64_t first = 0; first < n_cols; first += 32) {
        const int64_t end = first + 32 < n_cols ? first + 32 : n_cols;
        float largest = 0.0F;

        for (int64_t c = first; c < end; c++) {
            largest = fmaxf(largest, fabsf(x[c]));
        }
        to->d[first / 32] = largest / 127.0F;
        for (int64_t c = first; c < end; c++) {
            to->q[c] = largest < 0x1p-120F ? 0 : (int)rintf(x[c] * (127.0F / largest));
        }
    }
}

/* Columns [first, end) of a grain, or of all. */
static float sum_int8(const tsr_weight *w, int64_t row, const quantised *x, int64_t first,
                      int64_t end)
{
    const int64_t step = w->format == TSR_FORMAT_Q8_WIDE ? 16 : 32;
    float acc = 0.0F;

    for (int64_t c = first; c < end; c += step) {
        const float d_x = x->d[c / 32];
        int32_t dot = 0;
        int32_t total = 0;
        float d;
        float m;

        for (int64_t i = c; i < c + step && i < end; i++) {
            dot += element(w, row, i, &d, &m) * x->q[i];
            total += x->q[i];
        }
        (void)element(w, row, c, &d, &m);
        acc = fmaf((float)dot, d * d_x, acc);
        if (w->format != TSR_FORMAT_Q8 && w->format != TSR_FORMAT_NL4 &&
            w->format != TSR_FORMAT_FP4) {
            acc = fmaf(m, d_x * (float)total, acc);
        }
    }
    return acc;
}

static float sum_f32(const float *w, const float *x, int64_t first, int64_t end)
{
    float acc = 0.0F;

    for (int64_t c = first; c < end; c++) {
        acc = fmaf(w[c], x[c], acc);
    }
    return acc;
}

/* One output element; sums of grains as kernels/ops.h has them. */
static double expected_element(const tsr_weight *w, int64_t row, const float *values,
                               const float *x, const quantised *q, bool int8)
{
    const double start = 1.5 * 0x1p24;
    const int64_t grain = w->grain_cols > 0 ? w->grain_cols : w->n_cols;
    double sum = start;

    for (int64_t c = 0; c < w->n_cols; c += grain) {
        const int64_t end = c + grain < w->n_cols ? c + grain : w->n_cols;
        const float part = int8 ? sum_int8(w, row, q, c, end) : sum_f32(values, x, c, end);

        if (w->grain_cols == 0) {
            return (double)part;
        }
        sum = fma((double)part, 1.0 + 0x1p-52, sum);
    }
    return sum - start;
}

/* Holds a whole output to both oracles. */
static void check_output(const tsr_product *product, tsr_tensor x, tsr_activations how)
{
    const tsr_weight *w = product->weight;
    const bool int8 = how == TSR_ACTIVATIONS_INT8 && tsr_weight_is_quantised(w->format);
    const float *bias = product->bias.data;
    quantised *q = malloc(sizeof(*q));
    float *values = malloc(sizeof(float) * MOST_COLS);

    assert_non_null(q);
    assert_non_null(values);
    for (int64_t r = 0; r < x.n_rows; r++) {
        const float *from = (const float *)x.data + r * x.stride;

        quantise(q, from, x.n_cols);
        for (int64_t m = 0; m < w->n_rows; m++) {
            const int64_t at = r * product->out.stride + m;
            const double got = w->grain_cols > 0 ? ((const double *)product->out.data)[at]
                                                 : (double)((const float *)product->out.data)[at];
            double expected;
            double exact = 0.0;
            double size = 0.0;

            tsr_weight_unpack_row(w, m, values);
            expected = expected_element(w, m, values, from, q, int8);
            if (bias != NULL) {
                expected = (double)((float)expected + bias[m]);
            }
            if (got != expected) {
                fail_msg("%s [%d, %d] grain %d, row %d of %d, out %d: %a, expected %a",
                         tsr_weight_format_name(w->format), (int)w->n_rows, (int)w->n_cols,
                         (int)w->grain_cols, (int)r, (int)x.n_rows, (int)m, got, expected);
            }
            for (int64_t c = 0; c < w->n_cols; c++) {
                exact += (double)values[c] * (double)from[c];
                size += fabs((double)values[c]) *
                        (int8 ? (double)q->d[c / 32] : fabs((double)from[c]) * 0x1p-16);
            }
            exact += bias != NULL ? (double)bias[m] : 0.0;
            // int8: each x is off by half a step of d at most; f32: rounding only.
            assert_true(fabs(got - exact) <= 0.55 * size + 1e-6);
        }
    }
    free(values);
    free(q);
}

/* ---- calls --------------------------------------------------------------------------------- */

static tsr_tensor f32_rows(float *at, int64_t n_rows, int64_t n_cols, int64_t stride)
{
    tsr_tensor t = tsr_tensor_of(at, TSR_DTYPE_F32, TSR_DEVICE_CPU, n_rows, n_cols);

    t.stride = stride;
    return t;
}

typedef struct outputs {
    tsr_product products[TSR_MAX_PRODUCTS];
    tsr_weight weights[TSR_MAX_PRODUCTS];
    int n;
} outputs;

/* Rows are apart by more than their width; what lies between must stay. */
enum {
    GAP = 3
};

static void add_product(outputs *o, tsr_format format, int64_t n_rows, int64_t n_cols,
                        int64_t grain, int64_t x_rows, bool biased)
{
    tsr_product *p = &o->products[o->n];
    tsr_weight *w = &o->weights[o->n++];
    const tsr_dtype dtype = grain > 0 ? TSR_DTYPE_F64 : TSR_DTYPE_F32;
    const size_t n_bytes = (size_t)((n_rows + GAP) * x_rows) * tsr_dtype_bytes(dtype) + 1;

    *w = random_weight(format, n_rows, n_cols, grain);
    *p = (tsr_product){.weight = w};
    p->out = tsr_tensor_of(malloc(n_bytes), dtype, TSR_DEVICE_CPU, x_rows, n_rows);
    assert_non_null(p->out.data);
    memset(p->out.data, 0xFF, n_bytes);
    p->out.stride = n_rows + GAP;
    if (biased) {
        float *bias = malloc(sizeof(float) * (size_t)(n_rows + 1));

        assert_non_null(bias);
        for (int64_t i = 0; i < n_rows; i++) {
            bias[i] = random_float();
        }
        p->bias = f32_rows(bias, 1, n_rows, n_rows);
    }
}

static void free_outputs(outputs *o)
{
    for (int p = 0; p < o->n; p++) {
        const tsr_tensor *out = &o->products[p].out;
        const size_t width = tsr_dtype_bytes(out->dtype);

        for (int64_t r = 0; r < out->n_rows; r++) {
            const uint8_t *gap =
                (const uint8_t *)out->data + (size_t)(r * out->stride + out->n_cols) * width;

            for (size_t i = 0; i < GAP * width; i++) {
                assert_int_equal(gap[i], 0xFF);
            }
        }
        free(out->data);
        free(o->products[p].bias.data);
        free_weight(&o->weights[p]);
    }
    o->n = 0;
}

static float *random_x(int64_t n_rows, int64_t stride)
{
    float *x = malloc(sizeof(float) * (size_t)(n_rows * stride + 1));

    assert_non_null(x);
    for (int64_t i = 0; i < n_rows * stride; i++) {
        x[i] = random_float() * random_float() * (i % 97 == 0 ? 20.0F : 1.0F);
    }
    return x;
}

static void multiply_and_check(tsr_device *dev, outputs *o, int64_t n_rows, int64_t n_cols,
                               tsr_activations how)
{
    float *values = random_x(n_rows, n_cols + 5);
    const tsr_tensor x = f32_rows(values, n_rows, n_cols, n_cols + 5);

    assert_int_equal(tsr_matmul(dev, o->products, o->n, x, how), TSR_OK);
    for (int p = 0; p < o->n; p++) {
        check_output(&o->products[p], x, how);
    }
    free(values);
    free_outputs(o);
}

/* ---- tests --------------------------------------------------------------------------------- */

static void every_format_sums_in_the_promised_order(void **state)
{
    static const int64_t sizes[][3] = {{1, 1, 1},   {1, 16, 32},  {2, 17, 33},  {3, 100, 64},
                                       {1, 90, 96}, {5, 33, 320}, {7, 40, 288}, {13, 70, 544}};

    (void)state;
    for (int n_threads = 1; n_threads <= MOST_THREADS; n_threads += 2) {
        tsr_device *dev = open_device(n_threads);

        for (int f = 0; f < N_FORMATS; f++) {
            for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
                for (int how = 0; how < TSR_ACTIVATIONS_COUNT; how++) {
                    outputs o = {.n = 0};

                    add_product(&o, (tsr_format)f, sizes[s][1], sizes[s][2], 0, sizes[s][0],
                                s % 2 == 0);
                    multiply_and_check(dev, &o, sizes[s][0], sizes[s][2], (tsr_activations)how);
                }
            }
        }
        tsr_device_close(dev);
    }
}

static void any_number_of_rows_gives_each_row_its_own_sums(void **state)
{
    tsr_device *dev = open_device(2);

    (void)state;
    for (int f = 0; f < N_FORMATS; f++) {
        for (int64_t n_rows = 1; n_rows <= 20; n_rows++) {
            outputs o = {.n = 0};

            add_product(&o, (tsr_format)f, 50, 96, n_rows % 2 == 0 ? 64 : 0, n_rows, false);
            multiply_and_check(dev, &o, n_rows, 96, TSR_ACTIVATIONS_INT8);
        }
    }
    tsr_device_close(dev);
}

static void many_rows_and_columns_are_blocked_without_a_trace(void **state)
{
    tsr_device *dev = open_device(2);

    (void)state;
    for (int f = 0; f < N_FORMATS; f++) {
        for (int how = 0; how < TSR_ACTIVATIONS_COUNT; how++) {
            outputs o = {.n = 0};

            // More quantised rows than one chunk of them, and a longer row than one chunk of f32.
            add_product(&o, (tsr_format)f, 17, MOST_COLS, how == 0 ? 0 : 512, MOST_ROWS, false);
            multiply_and_check(dev, &o, MOST_ROWS, MOST_COLS, (tsr_activations)how);
        }
    }
    tsr_device_close(dev);
}

static void sums_of_grains_are_rounded_to_the_grid(void **state)
{
    static const int64_t grains[] = {32, 64, 192, 544, 1000};
    tsr_device *dev = open_device(2);

    (void)state;
    for (int f = 0; f < N_FORMATS; f++) {
        for (size_t g = 0; g < sizeof(grains) / sizeof(grains[0]); g++) {
            for (int how = 0; how < TSR_ACTIVATIONS_COUNT; how++) {
                outputs o = {.n = 0};

                add_product(&o, (tsr_format)f, 100, 544, grains[g], 1, false);
                multiply_and_check(dev, &o, 1, 544, (tsr_activations)how);
                add_product(&o, (tsr_format)f, 35, 544, grains[g], 8, false);
                multiply_and_check(dev, &o, 8, 544, (tsr_activations)how);
            }
        }
    }
    tsr_device_close(dev);
}

static void several_products_share_one_call_whatever_their_formats(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= MOST_THREADS; n_threads++) {
        tsr_device *dev = open_device(n_threads);

        for (int64_t n_rows = 1; n_rows <= 9; n_rows += 4) {
            outputs o = {.n = 0};

            add_product(&o, TSR_FORMAT_Q4, 72, 96, 0, n_rows, true);
            add_product(&o, TSR_FORMAT_Q4, 24, 96, 0, n_rows, false);
            add_product(&o, TSR_FORMAT_Q8, 24, 96, 0, n_rows, true);
            add_product(&o, TSR_FORMAT_F16, 7, 96, 0, n_rows, false);
            multiply_and_check(dev, &o, n_rows, 96, TSR_ACTIVATIONS_INT8);
            add_product(&o, TSR_FORMAT_Q4, 160, 96, 0, n_rows, true);
            add_product(&o, TSR_FORMAT_Q4, 0, 96, 0, n_rows, false);
            add_product(&o, TSR_FORMAT_Q4, 40, 96, 0, n_rows, false);
            add_product(&o, TSR_FORMAT_Q4, 64, 96, 64, n_rows, false);
            multiply_and_check(dev, &o, n_rows, 96, TSR_ACTIVATIONS_INT8);
        }
        tsr_device_close(dev);
    }
}

static void parts_of_the_columns_add_up_to_the_same_doubles(void **state)
{
    enum {
        N = 320,
        M = 40
    };
    tsr_device *dev = open_device(2);
    float *values = random_x(1, N);

    (void)state;
    for (int f = 0; f < N_FORMATS; f++) {
        tsr_weight whole = random_weight((tsr_format)f, M, N, 64);
        const size_t tile = tsr_weight_tile_bytes(whole.format);
        const size_t panel = tsr_weight_panel_bytes(whole.format, N);
        double expected[M];
        double sum[M] = {0};
        tsr_product product = {
            &whole, tsr_tensor_of(expected, TSR_DTYPE_F64, TSR_DEVICE_CPU, 1, M), {0}};

        assert_int_equal(
            tsr_matmul(dev, &product, 1, f32_rows(values, 1, N, N), TSR_ACTIVATIONS_INT8), TSR_OK);
        for (int part = 0; part < 2; part++) { // the second part first
            const int64_t first = part == 0 ? 192 : 0;
            const int64_t n_cols = part == 0 ? 128 : 192;
            uint8_t *tiles = malloc(3 * panel);
            double sums[M];
            tsr_weight w = whole;

            assert_non_null(tiles);
            w.n_cols = n_cols;
            w.tiles = tiles;
            for (size_t p = 0; p < 3; p++) {
                memcpy(tiles + p * tsr_weight_panel_bytes(w.format, n_cols),
                       (const uint8_t *)whole.tiles + p * panel + (size_t)(first / 32) * tile,
                       (size_t)(n_cols / 32) * tile);
            }
            product.weight = &w;
            product.out.data = sums;
            assert_int_equal(tsr_matmul(dev, &product, 1, f32_rows(values + first, 1, n_cols, N),
                                        TSR_ACTIVATIONS_INT8),
                             TSR_OK);
            for (int i = 0; i < M; i++) {
                sum[i] += sums[i];
            }
            free(tiles);
        }
        assert_memory_equal(sum, expected, sizeof(sum));
        free_weight(&whole);
    }
    free(values);
    tsr_device_close(dev);
}

static void nothing_to_sum_gives_zeros_and_the_bias(void **state)
{
    tsr_device *dev = open_device(2);
    tsr_weight plain = {.format = TSR_FORMAT_Q4, .n_rows = 5};
    tsr_weight grained = {.format = TSR_FORMAT_Q8, .n_rows = 5, .grain_cols = 64};
    float out[3][5];
    double sums[3][5];
    float bias[5] = {1, 2, 3, 4, 5};
    float x = 0.0F;
    const tsr_product products[2] = {
        {&plain, f32_rows(out[0], 3, 5, 5), f32_rows(bias, 1, 5, 5)},
        {&grained, tsr_tensor_of(sums, TSR_DTYPE_F64, TSR_DEVICE_CPU, 3, 5), {0}}};

    (void)state;
    memset(out, 0xFF, sizeof(out));
    memset(sums, 0xFF, sizeof(sums));
    assert_int_equal(tsr_matmul(dev, products, 2, f32_rows(&x, 3, 0, 1), TSR_ACTIVATIONS_INT8),
                     TSR_OK);
    for (int r = 0; r < 3; r++) {
        for (int c = 0; c < 5; c++) {
            assert_true(out[r][c] == bias[c]);
            assert_true(sums[r][c] == 0.0);
        }
    }
    tsr_device_close(dev);
}

static void an_x_that_is_not_finite_spoils_its_own_row_only(void **state)
{
    static const float poisons[] = {NAN, -NAN, INFINITY, -INFINITY};
    tsr_device *dev = open_device(2);

    (void)state;
    for (int f = 0; f < N_FORMATS; f++) {
        for (int p = 0; p < 4; p++) {
            for (int how = 0; how < TSR_ACTIVATIONS_COUNT; how++) {
                outputs o = {.n = 0};
                float *values = random_x(3, 96);
                const tsr_tensor x = f32_rows(values, 3, 96, 96);
                const float *out;

                values[96 + 40 + p] = poisons[p];
                add_product(&o, (tsr_format)f, 20, 96, 0, 3, false);
                out = o.products[0].out.data;
                assert_int_equal(tsr_matmul(dev, o.products, 1, x, (tsr_activations)how), TSR_OK);
                for (int r = 0; r < 3; r++) {
                    for (int m = 0; m < 20; m++) {
                        const float got = out[r * o.products[0].out.stride + m];

                        assert_true((isfinite(got) != 0) == (r != 1));
                        if (r == 1 && how == TSR_ACTIVATIONS_INT8 &&
                            tsr_weight_is_quantised((tsr_format)f)) {
                            assert_true(isnan(got) != 0);
                        }
                    }
                }
                free(values);
                free_outputs(&o);
            }
        }
    }
    tsr_device_close(dev);
}

static void the_least_and_the_largest_x_are_rounded_soundly(void **state)
{
    static const float sizes[] = {0x1p-149F, 0x1p-126F, 0x1.8p-121F, 0x1p-120F, 0x1p-60F, 0x1p60F};
    tsr_device *dev = open_device(1);

    (void)state;
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        outputs o = {.n = 0};
        float x[64];
        const tsr_tensor rows = f32_rows(x, 1, 64, 64);

        for (int c = 0; c < 64; c++) {
            x[c] = sizes[s] * (float)(c % 7 - 3);
        }
        add_product(&o, TSR_FORMAT_Q8, 20, 64, 0, 1, false);
        assert_int_equal(tsr_matmul(dev, o.products, 1, rows, TSR_ACTIVATIONS_INT8), TSR_OK);
        check_output(&o.products[0], rows, TSR_ACTIVATIONS_INT8);
        free_outputs(&o);
    }
    tsr_device_close(dev);
}

static void too_little_scratch_is_said_and_nothing_is_written(void **state)
{
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    tsr_device *dev = NULL;
    outputs o = {.n = 0};
    float *values = random_x(4, 64);

    (void)state;
    assert_int_equal(tsr_device_open(&dev, &options), TSR_OK);
    add_product(&o, TSR_FORMAT_Q4, 16, 64, 0, 4, false);
    assert_int_equal(
        tsr_matmul(dev, o.products, 1, f32_rows(values, 4, 64, 64), TSR_ACTIVATIONS_INT8),
        TSR_ERR_ARG);
    assert_int_equal(((const uint8_t *)o.products[0].out.data)[0], 0xFF);
    free(values);
    free_outputs(&o);
    tsr_device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_sums_in_the_promised_order),
        cmocka_unit_test(any_number_of_rows_gives_each_row_its_own_sums),
        cmocka_unit_test(many_rows_and_columns_are_blocked_without_a_trace),
        cmocka_unit_test(sums_of_grains_are_rounded_to_the_grid),
        cmocka_unit_test(several_products_share_one_call_whatever_their_formats),
        cmocka_unit_test(parts_of_the_columns_add_up_to_the_same_doubles),
        cmocka_unit_test(nothing_to_sum_gives_zeros_and_the_bias),
        cmocka_unit_test(an_x_that_is_not_finite_spoils_its_own_row_only),
        cmocka_unit_test(the_least_and_the_largest_x_are_rounded_soundly),
        cmocka_unit_test(too_little_scratch_is_said_and_nothing_is_written),
    };
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    tsr_device *dev;
    const tsr_status st = tsr_device_open(&dev, &options);

    if (st == TSR_ERR_UNSUPPORTED) {
        (void)printf("%s\n", tsr_status_message());
        return SKIPPED;
    }
    if (st == TSR_OK) {
        tsr_device_close(dev);
    }
    return cmocka_run_group_tests_name("matmul", tests, NULL, NULL);
}
