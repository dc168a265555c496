#include "tests/support/device.h"

#include "kernels/round_weight.h"

/* Rows that the op before a product rounds: the product has the same bits as when it rounds them
 * itself. On a real GPU as well (tests/gpu). */

enum {
    COLS = 100, // not whole groups
    ROWS = 40,  // of the weight
    N_TILES = (COLS + TSR_TILE_COLS - 1) / TSR_TILE_COLS
};

static tsr_device *dev;
static uint64_t seed = 3;

static tsr_tensor on_gpu(int64_t n_rows, int64_t n_cols)
{
    const tsr_tensor made = make_random(TSR_DTYPE_F32, n_rows, n_cols, &seed);
    const size_t n_bytes = (size_t)(n_rows * made.stride) * sizeof(float);
    tsr_tensor t = made;

    t.on = TSR_DEVICE_CUDA;
    t.data = tsr_device_alloc(dev, n_bytes);
    assert_non_null(t.data);
    assert_int_equal(tsr_device_upload(dev, t.data, made.data, n_bytes), TSR_OK);
    free_window(made);
    return t;
}

static void free_on_gpu(tsr_tensor t)
{
    tsr_device_free(dev, t.data, (size_t)(t.n_rows * t.stride) * sizeof(float));
}

static tsr_weight make_weight(tsr_format format)
{
    const size_t n_bytes = tsr_weight_bytes(format, ROWS, COLS);
    const size_t panel_bytes = tsr_weight_panel_bytes(format, COLS);
    char *packed = tsr_alloc(n_bytes, 1);
    float values[TSR_TILE_COLS];
    tsr_encoding_run run;
    tsr_weight w = {.format = format, .on = TSR_DEVICE_CUDA, .n_rows = ROWS, .n_cols = COLS};
    void *tiles = tsr_device_alloc(dev, n_bytes);

    for (int i = 0; i < ROWS * N_TILES; i++) {
        for (int c = 0; c < TSR_TILE_COLS; c++) {
            values[c] = i % N_TILES * TSR_TILE_COLS + c < COLS ? next_random(&seed) : 0;
        }
        (void)tsr_round_weight(format, &run, values, TSR_TILE_COLS);
        tsr_weight_put_run(format, packed + (size_t)(i / N_TILES / TSR_PANEL_ROWS) * panel_bytes,
                           i / N_TILES % TSR_PANEL_ROWS, i % N_TILES, &run);
    }
    assert_int_equal(tsr_device_upload(dev, tiles, packed, n_bytes), TSR_OK);
    tsr_free(packed);
    w.tiles = tiles;
    return w;
}

/* Products of x, by its codes and as it is. */
static void check_products(const tsr_weight *weights, tsr_tensor x, tsr_codes codes)
{
    enum {
        MOST = TSR_FEW_ROWS * (ROWS + MARGIN_COLS)
    };
    const tsr_tensor out[2] = {on_gpu(x.n_rows, ROWS), on_gpu(x.n_rows, ROWS)};
    const size_t n_bytes = (size_t)(x.n_rows * out[0].stride) * sizeof(float);
    static float got[2][MOST];

    for (int f = 0; f < 2; f++) {
        for (int by_codes = 0; by_codes < 2; by_codes++) {
            const tsr_product product = {.weight = &weights[f], .out = out[by_codes]};

            assert_true(tsr_matmul_takes_codes(dev, &product, 1, x.n_rows, TSR_ACTIVATIONS_INT8));
            assert_int_equal(by_codes ? tsr_matmul_codes(dev, &product, 1, codes)
                                      : tsr_matmul(dev, &product, 1, x, TSR_ACTIVATIONS_INT8),
                             TSR_OK);
            assert_int_equal(tsr_device_download(dev, got[by_codes], out[by_codes].data, n_bytes),
                             TSR_OK);
        }
        for (int64_t r = 0; r < x.n_rows; r++) {
            assert_memory_equal(got[0] + r * out[0].stride, got[1] + r * out[0].stride,
                                ROWS * sizeof(float));
        }
    }
    free_on_gpu(out[0]);
    free_on_gpu(out[1]);
}

static void check_device(bool deterministic)
{
    static const int64_t sizes[] = {1, 9, TSR_FEW_ROWS};
    const tsr_device_options options = {
        .kind = TSR_DEVICE_CUDA, .n_threads = 1, .deterministic = deterministic};
    const tsr_ops_limits limits = {TSR_FEW_ROWS, COLS, 1, 8, 16, 1, 0};

    assert_int_equal(tsr_device_open(&dev, &options), TSR_OK);
    assert_int_equal(
        tsr_device_reserve_scratch(dev, tsr_ops_scratch_bytes(TSR_DEVICE_CUDA, 1, &limits)),
        TSR_OK);
    const tsr_weight weights[2] = {make_weight(TSR_FORMAT_Q4), make_weight(TSR_FORMAT_Q8)};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const int64_t n = sizes[i];
        const size_t n_bytes = tsr_ops_codes_bytes(n, COLS);
        const tsr_codes codes = {tsr_device_alloc(dev, n_bytes), n, COLS};
        const tsr_tensor x = on_gpu(n, COLS);
        const tsr_tensor up = on_gpu(n, COLS);
        const tsr_tensor out = on_gpu(n, COLS);
        const tsr_tensor weight = on_gpu(1, COLS);
        const tsr_joining j = {
            .scale = 1, .next_weight = weight, .eps = 1e-5F, .out = out, .codes = codes};

        assert_non_null(codes.data);
        assert_int_equal(tsr_join(dev, x, &j), TSR_OK);
        check_products(weights, out, codes);
        assert_int_equal(tsr_activate_codes(dev, codes, out, x, up, TSR_ACTIVATION_SILU), TSR_OK);
        check_products(weights, out, codes);
        free_on_gpu(weight);
        free_on_gpu(out);
        free_on_gpu(up);
        free_on_gpu(x);
        tsr_device_free(dev, codes.data, n_bytes);
    }
    for (int f = 0; f < 2; f++) {
        tsr_device_free(dev, (void *)(uintptr_t)weights[f].tiles,
                        tsr_weight_bytes(weights[f].format, ROWS, COLS));
    }
    tsr_device_close(dev);
}

static void products_of_codes_are_those_of_what_was_rounded(void **state)
{
    (void)state;
    check_device(false);
    check_device(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_codes_are_those_of_what_was_rounded),
    };

    return cmocka_run_group_tests_name("codes", tests, NULL, NULL);
}
