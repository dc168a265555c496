#include <setjmp.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/ops.h"
#include "kernels/round_weight.h"

/*
 * Products of many rows on a GPU that need not give the CPU's bits, against sums in double. On an
 * emulated device, or on a real one where this is linked with CUDA.
 */

enum {
    ROWS = 70, // of x: more than the kernels for few take
    MOST_COLS = 200,
    MOST_M = 90
};

static uint64_t seed = 1;

static float next(void)
{
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    return (float)(int32_t)(seed >> 32) * 0x1p-31F;
}

/* A weight of random numbers; tiles are on the host, owned. */
static tsr_weight make_weight(tsr_format format, int64_t m, int64_t n_cols, int64_t grain)
{
    char *tiles = tsr_alloc(tsr_weight_bytes(format, m, n_cols), 1);
    const int64_t n_tiles = (n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS;

    assert_non_null(tiles);
    for (int64_t panel = 0; panel < (m + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS; panel++) {
        char *at = tiles + (size_t)panel * tsr_weight_panel_bytes(format, n_cols);

        if (format == TSR_FORMAT_F16 || format == TSR_FORMAT_BF16) {
            uint16_t *halves = (uint16_t *)(void *)at;

            for (int64_t i = 0; i < n_tiles * TSR_TILE_COLS * TSR_PANEL_ROWS; i++) {
                halves[i] =
                    format == TSR_FORMAT_F16 ? tsr_dtype_to_f16(next()) : tsr_dtype_to_bf16(next());
            }
            continue;
        }
        for (int64_t t = 0; t < n_tiles; t++) {
            for (int r = 0; r < TSR_PANEL_ROWS; r++) {
                tsr_encoding_run run = {0};

                for (int c = 0; c < TSR_TILE_COLS; c++) {
                    run.q[c] = (int8_t)(format == TSR_FORMAT_Q8 || format == TSR_FORMAT_Q8_WIDE
                                            ? next() * 127
                                            : 8 + next() * 8);
                }
                run.d[0] = run.d[1] = tsr_dtype_from_f16(tsr_dtype_to_f16(next() / 16));
                run.m[0] = run.m[1] = tsr_dtype_from_f16(tsr_dtype_to_f16(next() / 16));
                if (format != TSR_FORMAT_Q4 && format != TSR_FORMAT_Q4_WIDE &&
                    format != TSR_FORMAT_Q8_WIDE) {
                    run.m[0] = run.m[1] = 0;
                }
                tsr_weight_put_run(format, at, r, t, &run);
            }
        }
    }
    return (tsr_weight){.format = format,
                        .on = TSR_DEVICE_CPU,
                        .n_rows = m,
                        .n_cols = n_cols,
                        .grain_cols = grain,
                        .tiles = tiles};
}

static void *uploaded(tsr_device *dev, const void *host, size_t n_bytes)
{
    void *memory = tsr_device_alloc(dev, n_bytes);

    assert_non_null(memory);
    assert_int_equal(tsr_device_upload(dev, memory, host, n_bytes), TSR_OK);
    return memory;
}

/* A factor of `magnitude` over all of x, which must come out again. */
static void check_product(tsr_device *dev, tsr_format format, int64_t m, int64_t n_cols,
                          int64_t grain, float magnitude)
{
    const size_t out_bytes = ROWS * (size_t)m * (grain > 0 ? sizeof(double) : sizeof(float));
    tsr_weight host = make_weight(format, m, n_cols, grain);
    tsr_weight weight = host;
    static float x[ROWS * MOST_COLS];
    static float bias[MOST_M];
    static float row[MOST_COLS + TSR_TILE_COLS];
    static double got[ROWS * MOST_M];
    const size_t weight_bytes = tsr_weight_bytes(format, m, n_cols);
    tsr_tensor on_device;
    tsr_product product;

    for (int i = 0; i < ROWS * n_cols; i++) {
        x[i] = next() * magnitude;
    }
    for (int i = 0; i < m; i++) {
        bias[i] = next() * magnitude;
    }
    weight.on = TSR_DEVICE_CUDA;
    weight.tiles = uploaded(dev, host.tiles, weight_bytes);
    on_device = tsr_tensor_of(uploaded(dev, x, ROWS * (size_t)n_cols * sizeof(*x)), TSR_DTYPE_F32,
                              TSR_DEVICE_CUDA, ROWS, n_cols);
    product = (tsr_product){.weight = &weight,
                            .out = tsr_tensor_of(tsr_device_alloc(dev, out_bytes),
                                                 grain > 0 ? TSR_DTYPE_F64 : TSR_DTYPE_F32,
                                                 TSR_DEVICE_CUDA, ROWS, m)};
    if (grain == 0) {
        product.bias = tsr_tensor_of(uploaded(dev, bias, (size_t)m * sizeof(*bias)), TSR_DTYPE_F32,
                                     TSR_DEVICE_CUDA, 1, m);
    }
    assert_int_equal(tsr_matmul(dev, &product, 1, on_device, TSR_ACTIVATIONS_INT8), TSR_OK);
    assert_int_equal(tsr_device_download(dev, got, product.out.data, out_bytes), TSR_OK);
    for (int64_t j = 0; j < m; j++) {
        tsr_weight_unpack_row(&host, j, row);
        for (int64_t r = 0; r < ROWS; r++) {
            double sum = grain > 0 ? 0.0 : (double)bias[j];
            double most = fabs(sum);
            const double result =
                grain > 0 ? got[r * m + j] : (double)((const float *)(const void *)got)[r * m + j];

            for (int64_t c = 0; c < n_cols; c++) {
                const double term = (double)row[c] * (double)x[r * n_cols + c];

                sum += term;
                most += fabs(term);
            }
            // Two factors rounded to 8 bits in bf16, to 11 in f16; sums in f32.
            if (!(fabs(result - sum) <= most * (format == TSR_FORMAT_BF16 ? 0x1p-8 : 0x1p-10))) {
                fail_msg("%s %lld x %lld, row %lld, %lld: %g, not %g",
                         tsr_weight_format_name(format), (long long)m, (long long)n_cols,
                         (long long)r, (long long)j, result, sum);
            }
        }
    }
    tsr_device_free(dev, product.bias.data, (size_t)m * sizeof(*bias));
    tsr_device_free(dev, product.out.data, out_bytes);
    tsr_device_free(dev, on_device.data, ROWS * (size_t)n_cols * sizeof(*x));
    tsr_device_free(dev, (void *)(uintptr_t)weight.tiles, weight_bytes);
    tsr_free((void *)(uintptr_t)host.tiles);
}

static tsr_device *open_gpu(size_t scratch_bytes)
{
    const tsr_device_options options = {.kind = TSR_DEVICE_CUDA, .n_threads = 1};
    tsr_device *dev = NULL;

    assert_int_equal(tsr_device_open(&dev, &options), TSR_OK);
    assert_int_equal(tsr_device_reserve_scratch(dev, scratch_bytes), TSR_OK);
    return dev;
}

static size_t enough(void)
{
    const tsr_ops_limits limits = {.n_rows = ROWS,
                                   .n_cols = MOST_COLS,
                                   .n_heads = 1,
                                   .head_dim = 8,
                                   .context = 16,
                                   .n_seqs = 1};

    return tsr_ops_scratch_bytes(TSR_DEVICE_CUDA, 1, &limits);
}

static void every_format_gives_its_product(void **state)
{
    tsr_device *dev = open_gpu(enough());

    (void)state;
    for (int f = TSR_FORMAT_F16; f <= TSR_FORMAT_Q8_WIDE; f++) {
        if (f != TSR_FORMAT_FP8) { // its runs are bits: with the others in tests/test_matmul.c
            check_product(dev, (tsr_format)f, 41, 96, 0, 1);
            check_product(dev, (tsr_format)f, MOST_M, 193, 64, 1); // a tail, and a sum over ranks
        }
    }
    tsr_device_close(dev);
}

static void what_is_large_or_small_does_not_overflow(void **state)
{
    tsr_device *dev = open_gpu(enough());

    (void)state;
    for (int i = -60; i <= 60; i += 20) {
        check_product(dev, TSR_FORMAT_Q4, 17, 64, 0, ldexpf(1, i));
        check_product(dev, TSR_FORMAT_BF16, 17, 64, 0, ldexpf(1, i));
    }
    tsr_device_close(dev);
}

static void with_little_scratch_a_weight_is_taken_in_bands(void **state)
{
    // cuBLAS's workspace, x, and two panels with their sums
    const size_t least = (32U << 20) + 512 + ROWS * 96 * 2 + 2 * 16 * (96 * 2 + ROWS * 4) + 1024;
    tsr_device *dev = open_gpu(least);

    (void)state;
    check_product(dev, TSR_FORMAT_Q8, MOST_M, 96, 0, 1);
    check_product(dev, TSR_FORMAT_Q4_WIDE, MOST_M, 96, 96, 1);
    tsr_device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_gives_its_product),
        cmocka_unit_test(what_is_large_or_small_does_not_overflow),
        cmocka_unit_test(with_little_scratch_a_weight_is_taken_in_bands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
