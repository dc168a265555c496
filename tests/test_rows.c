#include "tests/support/device.h"

#include <math.h>

#include "kernels/row_loops.h"

/* Awkward shapes: nothing, one, odd, vectors and a rest, more rows than threads. */
static const struct {
    int64_t n_rows, n_cols;
} shapes[] = {{0, 7}, {1, 1}, {1, 16}, {3, 17}, {5, 0}, {7, 63}, {2, 576}, {64, 100}, {300, 257}};
enum {
    N_SHAPES = sizeof(shapes) / sizeof(shapes[0])
};

static const tsr_ops_limits limits = {512, 1024, 1, 8, 16, 1, 0};

static bool near(double got, double expected, double ulps)
{
    return fabs(got - expected) <= ulps * 0x1p-24 * fabs(expected) + 1e-37;
}

/* Calls check(dev, rows, cols) for all shapes, with 1 to 5
 * threads. */
static void on_all_shapes(void (*check)(tsr_device *dev, int64_t n_rows, int64_t n_cols))
{
    for (int i = 0; i < N_SHAPES; i++) {
        for (int n_threads = 1; n_threads <= (IS_EMULATED ? 1 : 5); n_threads += 2) {
            tsr_device *dev = open_device(n_threads, &limits);

            check(dev, shapes[i].n_rows, shapes[i].n_cols);
            tsr_device_close(dev);
        }
    }
}

/* Parts of a sum on the grid of 2^-28, as products with grains give them. */
static void make_parts(tsr_tensor *parts, int n_parts, int64_t n_rows, int64_t n_cols,
                       uint64_t *seed)
{
    for (int p = 0; p < n_parts; p++) {
        parts[p] = make_random(TSR_DTYPE_F64, n_rows, n_cols, seed);
        for (int64_t r = 0; r < n_rows; r++) {
            for (int64_t c = 0; c < n_cols; c++) {
                f64_row(parts[p], r)[c] = nearbyint(f64_row(parts[p], r)[c] * 0x1p28) * 0x1p-28;
            }
        }
    }
}

/* Exact in any order: here from the last part to the first. */
static double whole_sum(const tsr_tensor *parts, int n_parts, int64_t r, int64_t c)
{
    double sum = 0;

    for (int p = n_parts - 1; p >= 0; p--) {
        sum += f64_row(parts[p], r)[c];
    }
    return sum;
}

static void free_parts(const tsr_tensor *parts, int n_parts)
{
    for (int p = 0; p < n_parts; p++) {
        free_window(parts[p]);
    }
}

static void check_narrow(tsr_device *dev, int64_t n_rows, int64_t n_cols)
{
    for (int n_parts = 1; n_parts <= TSR_MAX_PARTS; n_parts++) {
        uint64_t seed = 1;
        tsr_tensor parts[TSR_MAX_PARTS];
        const tsr_tensor x = make_window(TSR_DTYPE_F32, n_rows, n_cols);

        make_parts(parts, n_parts, n_rows, n_cols, &seed);
        assert_int_equal(tsr_narrow(dev, x, parts, n_parts, (tsr_tensor){0}), TSR_OK);
        for (int64_t r = 0; r < n_rows; r++) {
            for (int64_t c = 0; c < n_cols; c++) {
                assert_true(f32_row(x, r)[c] == (float)whole_sum(parts, n_parts, r, c));
            }
        }
        free_parts(parts, n_parts);
        free_window(x);
    }
}

static void narrowing_adds_the_parts_and_rounds_once(void **state)
{
    (void)state;
    on_all_shapes(check_narrow);
}

static void check_add_sums(tsr_device *dev, int64_t n_rows, int64_t n_cols)
{
    for (int n_parts = 1; n_parts <= TSR_MAX_PARTS; n_parts++) {
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            uint64_t seed = 2;
            uint64_t again;
            tsr_tensor parts[TSR_MAX_PARTS];
            tsr_tensor bias;
            tsr_tensor x;
            tsr_tensor before;

            make_parts(parts, n_parts, n_rows, n_cols, &seed);
            bias = make_random(TSR_DTYPE_F32, 1, n_cols, &seed);
            again = seed;
            x = make_random(TSR_DTYPE_F32, n_rows, n_cols, &seed);
            before = make_random(TSR_DTYPE_F32, n_rows, n_cols, &again);
            assert_int_equal(tsr_add_sums(dev, x, parts, n_parts,
                                          with_bias != 0 ? bias : (tsr_tensor){.data = NULL}),
                             TSR_OK);
            for (int64_t r = 0; r < n_rows; r++) {
                for (int64_t c = 0; c < n_cols; c++) {
                    const float sum = (float)whole_sum(parts, n_parts, r, c);
                    const float added = with_bias != 0 ? sum + f32_row(bias, 0)[c] : sum;

                    assert_true(f32_row(x, r)[c] == f32_row(before, r)[c] + added);
                }
            }
            free_parts(parts, n_parts);
            free_window(bias);
            free_window(x);
            free_window(before);
        }
    }
}

static void sums_are_added_with_and_without_bias(void **state)
{
    (void)state;
    on_all_shapes(check_add_sums);
}

static void check_rmsnorm(tsr_device *dev, int64_t n_rows, int64_t n_cols)
{
    uint64_t seed = 3;
    const tsr_tensor x = make_random(TSR_DTYPE_F32, n_rows, n_cols, &seed);
    const tsr_tensor weight = make_random(TSR_DTYPE_F32, 1, n_cols, &seed);
    const tsr_tensor out = make_window(TSR_DTYPE_F32, n_rows, n_cols);
    const tsr_tensor plain = make_window(TSR_DTYPE_F32, n_rows, n_cols);
    const float eps = 1e-5F;

    assert_int_equal(tsr_rmsnorm(dev, out, x, weight, eps), TSR_OK);
    for (int64_t r = 0; r < n_rows && n_cols > 0; r++) {
        double squares = 0;

        for (int64_t c = 0; c < n_cols; c++) {
            squares += (double)f32_row(x, r)[c] * (double)f32_row(x, r)[c];
        }
        for (int64_t c = 0; c < n_cols; c++) {
            assert_true(
                near((double)f32_row(out, r)[c],
                     (double)f32_row(x, r)[c] / sqrt(squares / (double)n_cols + (double)eps) *
                         (double)f32_row(weight, 0)[c],
                     12));
        }
        tsr_row_loops_plain.rmsnorm(f32_row(plain, r), f32_row(x, r), f32_row(weight, 0), n_cols,
                                    eps);
    }
    assert_same_rows(out, plain);
    assert_int_equal(tsr_rmsnorm(dev, x, x, weight, eps), TSR_OK); // in place
    assert_same_rows(x, plain);
    free_window(x);
    free_window(weight);
    free_window(out);
    free_window(plain);
}

static void rmsnorm_is_what_the_formula_says_in_every_set(void **state)
{
    (void)state;
    on_all_shapes(check_rmsnorm);
}

static void check_swiglu(tsr_device *dev, int64_t n_rows, int64_t n_cols)
{
    uint64_t seed = 4;
    const tsr_tensor gate = make_random(TSR_DTYPE_F32, n_rows, n_cols, &seed);
    const tsr_tensor up = make_random(TSR_DTYPE_F32, n_rows, n_cols, &seed);
    const tsr_tensor out = make_window(TSR_DTYPE_F32, n_rows, n_cols);
    const tsr_tensor plain = make_window(TSR_DTYPE_F32, n_rows, n_cols);

    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t c = 0; c < n_cols; c++) {
            f32_row(gate, r)[c] *= c % 3 == 0 ? 8 : 1;
        }
    }
    assert_int_equal(tsr_activate(dev, out, gate, up, (tsr_tensor){0}, TSR_ACTIVATION_SILU),
                     TSR_OK);
    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t c = 0; c < n_cols; c++) {
            const double g = (double)f32_row(gate, r)[c];

            assert_true(near((double)f32_row(out, r)[c],
                             g / (1 + exp(-g)) * (double)f32_row(up, r)[c], 10));
        }
        tsr_row_loops_plain.activate(f32_row(plain, r), f32_row(gate, r), f32_row(up, r), n_cols, 1,
                                     TSR_ACTIVATION_SILU);
    }
    assert_same_rows(out, plain);
    assert_int_equal(tsr_activate(dev, gate, gate, up, (tsr_tensor){0}, TSR_ACTIVATION_SILU),
                     TSR_OK); // in place
    assert_same_rows(gate, plain);
    free_window(gate);
    free_window(up);
    free_window(out);
    free_window(plain);
}

static void swiglu_is_what_the_formula_says_in_every_set(void **state)
{
    (void)state;
    on_all_shapes(check_swiglu);
}

static void swiglu_of_large_gates_stays_finite(void **state)
{
    float gates[] = {-1000.0F, -88.5F, -3e38F, 1000.0F, 0.0F};
    float ones[] = {1, 1, 1, 1, 1};
    float out[5];
    tsr_device *dev = open_device(1, &limits);

    (void)state;
    assert_int_equal(tsr_activate(dev, tsr_tensor_of(out, TSR_DTYPE_F32, TSR_DEVICE_CPU, 1, 5),
                                  tsr_tensor_of(gates, TSR_DTYPE_F32, TSR_DEVICE_CPU, 1, 5),
                                  tsr_tensor_of(ones, TSR_DTYPE_F32, TSR_DEVICE_CPU, 1, 5),
                                  (tsr_tensor){0}, TSR_ACTIVATION_SILU),
                     TSR_OK);
    assert_true(fabsf(out[0]) < 1e-30F);
    assert_true(fabsf(out[1]) < 1e-30F);
    assert_true(isfinite(out[2]));
    assert_true(out[3] == 1000.0F);
    assert_true(out[4] == 0.0F);
    tsr_device_close(dev);
}

/* ---- rope ------------------------------------------------------------------------------------ */

static void angles_are_taken_in_double(void **state)
{
    const int32_t positions[] = {0, 1, 7, 131071};
    const tsr_tensor at = make_ints(positions, 4);
    const tsr_tensor frequencies = make_window(TSR_DTYPE_F64, 1, 6);
    const tsr_tensor angles = make_window(TSR_DTYPE_F32, 4, 12);
    tsr_device *dev = open_device(3, &limits);

    (void)state;
    for (int i = 0; i < 6; i++) {
        f64_row(frequencies, 0)[i] = pow(10000.0, -i / 6.0);
    }
    assert_int_equal(tsr_rope_angles(dev, angles, at, frequencies, 1.25F), TSR_OK);
    for (int r = 0; r < 4; r++) {
        for (int i = 0; i < 6; i++) {
            const double a = positions[r] * f64_row(frequencies, 0)[i];

            assert_true(near((double)f32_row(angles, r)[i], 1.25 * cos(a), 1));
            assert_true(near((double)f32_row(angles, r)[6 + i], 1.25 * sin(a), 1));
        }
    }
    free_window(at);
    free_window(frequencies);
    free_window(angles);
    tsr_device_close(dev);
}

static void check_rope(tsr_device *dev, int64_t n_rows, int n_heads, int head_dim, int n_rot,
                       tsr_rope_pairs pairs)
{
    uint64_t seed = 6;
    const tsr_tensor x = make_random(TSR_DTYPE_F32, n_rows, n_heads * head_dim, &seed);
    const tsr_tensor angles = make_random(TSR_DTYPE_F32, n_rows, n_rot, &seed);
    uint64_t again = 6;
    const tsr_tensor before = make_random(TSR_DTYPE_F32, n_rows, n_heads * head_dim, &again);

    assert_int_equal(tsr_rope(dev, x, angles, head_dim, 0, pairs), TSR_OK);
    for (int64_t r = 0; r < n_rows; r++) {
        const float *turn = f32_row(angles, r);

        for (int h = 0; h < n_heads; h++) {
            const float *from = f32_row(before, r) + h * head_dim;
            const float *to = f32_row(x, r) + h * head_dim;

            for (int i = 0; i < n_rot / 2; i++) {
                const int a = pairs == TSR_ROPE_HALVES ? i : 2 * i;
                const int b = pairs == TSR_ROPE_HALVES ? n_rot / 2 + i : 2 * i + 1;
                const double c = (double)turn[i];
                const double s = (double)turn[n_rot / 2 + i];

                assert_true(fabs((double)to[a] - ((double)from[a] * c - (double)from[b] * s)) <
                            4e-6);
                assert_true(fabs((double)to[b] - ((double)from[a] * s + (double)from[b] * c)) <
                            4e-6);
            }
            for (int d = n_rot; d < head_dim; d++) {
                assert_true(to[d] == from[d]);
            }
            if (n_rot > 0) {
                float *plain = f32_row(before, r) + h * head_dim;

                tsr_row_loops_plain.rope(plain, turn, n_rot, pairs);
                assert_memory_equal(plain, to, (size_t)head_dim * sizeof(float));
            }
        }
    }
    free_window(x);
    free_window(angles);
    free_window(before);
}

static void heads_turn_by_their_angles_and_the_rest_stays(void **state)
{
    static const int heads[][3] = {// heads, head_dim, n_rot
                                   {1, 8, 8},
                                   {9, 64, 64},
                                   {3, 40, 24},
                                   {2, 20, 6},
                                   {2, 16, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        for (int pairs = 0; pairs < TSR_ROPE_PAIRS_COUNT; pairs++) {
            for (int64_t n_rows = 0; n_rows < 80; n_rows = 3 * n_rows + 1) {
                tsr_device *dev = open_device(1 + (int)n_rows % 4, &limits);

                check_rope(dev, n_rows, heads[i][0], heads[i][1], heads[i][2],
                           (tsr_rope_pairs)pairs);
                tsr_device_close(dev);
            }
        }
    }
}

/* ---- rows by number -------------------------------------------------------------------------- */

static void rows_are_gathered_in_any_order_and_wild_numbers_refused(void **state)
{
    int32_t wanted[200];
    uint64_t seed = 7;
    const tsr_tensor x = make_random(TSR_DTYPE_F32, 11, 333, &seed);
    const tsr_tensor out = make_window(TSR_DTYPE_F32, 200, 333);
    tsr_device *dev = open_device(3, &limits);
    tsr_tensor rows;

    (void)state;
    for (int i = 0; i < 200; i++) {
        wanted[i] = i * 7 % 11;
    }
    wanted[199] = 11;
    rows = make_ints(wanted, 200);
    if (IS_EMULATED) { // nobody waits for a GPU to learn of it: that row is lost, and no other
        assert_int_equal(tsr_gather_rows(dev, out, x, rows), TSR_OK);
        assert_true(isnan(f32_row(out, 199)[0]));
    } else {
        assert_int_equal(tsr_gather_rows(dev, out, x, rows), TSR_ERR_ARG);
        assert_true(isnan(f32_row(out, 0)[0]));
    }
    i32_row(rows, 0)[199] = 10;
    assert_int_equal(tsr_gather_rows(dev, out, x, rows), TSR_OK);
    for (int i = 0; i < 200; i++) {
        assert_memory_equal(f32_row(out, i), f32_row(x, i32_row(rows, 0)[i]), 333 * sizeof(float));
    }
    free_window(x);
    free_window(out);
    free_window(rows);
    tsr_device_close(dev);
}

static void tokens_of_this_rank_get_their_row_and_others_zeros(void **state)
{
    enum {
        ROWS = 20,
        COLS = 40,
        FIRST = 100
    };
    static const int32_t wanted[] = {100, 119, 99, 120, 110, 0, 100};
    const tsr_tensor ids = make_ints(wanted, 7);
    const tsr_tensor sums = make_window(TSR_DTYPE_F64, 7, COLS);
    // Tiles of 16 rows x 32 columns, element (r, c) at 16 c + r.
    float *tiles = tsr_alloc(2 * 2 * 512, sizeof(float));
    const tsr_weight table = {.format = TSR_FORMAT_F32,
                              .on = TSR_DEVICE_CPU,
                              .n_rows = ROWS,
                              .n_cols = COLS,
                              .tiles = tiles};
    tsr_device *dev = open_device(2, &limits);

    (void)state;
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < COLS; c++) {
            tiles[(r / 16 * 2 + c / 32) * 512 + c % 32 * 16 + r % 16] = (float)(r * 1000 + c);
        }
    }
    assert_int_equal(tsr_embed(dev, sums, ids, &table, FIRST, false), TSR_OK);
    for (int i = 0; i < 7; i++) {
        const int row = wanted[i] - FIRST;

        for (int c = 0; c < COLS; c++) {
            assert_true(f64_row(sums, i)[c] == (row >= 0 && row < ROWS ? row * 1000 + c : 0));
        }
    }
    free_window(ids);
    free_window(sums);
    tsr_free(tiles);
    tsr_device_close(dev);
}

/* ---- rounding to the cache's types ----------------------------------------------------------- */

static void every_set_rounds_to_the_cache_as_the_host_does(void **state)
{
    enum {
        N = 3001
    };
    float *x = tsr_alloc(N, sizeof(float));
    uint16_t *got = tsr_alloc(N, sizeof(uint16_t));
    tsr_device *dev = open_device(1, &limits);
    const tsr_row_loops *loops = TSR_ISA_PICK(dev->isa, tsr_row_loops);
    uint64_t seed = 8;

    (void)state;
    for (int i = 0; i < N; i++) { // all sizes: subnormal halves, ties, overflow
        x[i] = next_random(&seed) * exp2f((float)(i % 60 - 35));
        x[i] = i % 7 == 0 ? tsr_dtype_from_f16((uint16_t)i) * (1 + 0x1p-11F) : x[i];
    }
    loops->round(got, x, N, TSR_KV_TYPE_F16);
    for (int i = 0; i < N; i++) {
        assert_int_equal(got[i], tsr_dtype_to_f16(x[i]));
    }
    loops->round(got, x, N, TSR_KV_TYPE_BF16);
    for (int i = 0; i < N; i++) {
        assert_int_equal(got[i], tsr_dtype_to_bf16(x[i]));
    }
    tsr_free(x);
    tsr_free(got);
    tsr_device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(narrowing_adds_the_parts_and_rounds_once),
        cmocka_unit_test(sums_are_added_with_and_without_bias),
        cmocka_unit_test(rmsnorm_is_what_the_formula_says_in_every_set),
        cmocka_unit_test(swiglu_is_what_the_formula_says_in_every_set),
        cmocka_unit_test(swiglu_of_large_gates_stays_finite),
        cmocka_unit_test(angles_are_taken_in_double),
        cmocka_unit_test(heads_turn_by_their_angles_and_the_rest_stays),
        cmocka_unit_test(rows_are_gathered_in_any_order_and_wild_numbers_refused),
        cmocka_unit_test(tokens_of_this_rank_get_their_row_and_others_zeros),
        cmocka_unit_test(every_set_rounds_to_the_cache_as_the_host_does),
    };

    return isa_is_missing() ? MISSING_SET : cmocka_run_group_tests(tests, NULL, NULL);
}
