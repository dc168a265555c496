/*
 * The ops that some families add: layer norms, activations, scales and caps, norms over columns of
 * several ranks, experts. Each against the formula in double precision, and bit for bit the same in
 * every instruction set.
 */
#include "tests/support/device.h"

#include <math.h>

#include "kernels/row_loops.h"

static const struct {
    int64_t n_rows, n_cols;
} shapes[] = {{1, 1}, {1, 16}, {3, 17}, {7, 63}, {2, 576}, {64, 100}};
enum {
    N_SHAPES = sizeof(shapes) / sizeof(shapes[0])
};

static const tsr_ops_limits limits = {512, 1024, 1, 8, 16, 1, 0};
static tsr_device *dev;
static const tsr_tensor absent;

static void assert_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * (1 + fabs(want)))) {
        fail_msg("%.9g is not %.9g", got, want);
    }
}

/* Weights of one row, or of three that take turns. */
static void check_layernorm(int64_t n_rows, int64_t n_cols, int64_t period, bool biased)
{
    uint64_t seed = 3;
    const tsr_tensor x = make_random(TSR_DTYPE_F32, n_rows * period, n_cols, &seed);
    const tsr_tensor weight = make_random(TSR_DTYPE_F32, period, n_cols, &seed);
    const tsr_tensor bias = make_random(TSR_DTYPE_F32, period, n_cols, &seed);
    const tsr_tensor out = make_window(TSR_DTYPE_F32, n_rows * period, n_cols);
    const tsr_tensor plain = make_window(TSR_DTYPE_F32, n_rows * period, n_cols);

    assert_int_equal(tsr_layernorm(dev, out, x, weight, biased ? bias : absent, 1e-5F), TSR_OK);
    for (int64_t r = 0; r < x.n_rows; r++) {
        double mean = 0;
        double squares = 0;

        for (int64_t c = 0; c < n_cols; c++) {
            mean += (double)f32_row(x, r)[c] / (double)n_cols;
        }
        for (int64_t c = 0; c < n_cols; c++) {
            const double d = (double)f32_row(x, r)[c] - mean;

            squares += d * d / (double)n_cols;
        }
        for (int64_t c = 0; c < n_cols; c++) {
            const double v = ((double)f32_row(x, r)[c] - mean) / sqrt(squares + 1e-5);

            assert_near((double)f32_row(out, r)[c],
                        v * (double)f32_row(weight, r % period)[c] +
                            (biased ? (double)f32_row(bias, r % period)[c] : 0),
                        4e-5); // a row of one column is all cancellation
        }
        tsr_row_loops_plain.layernorm(f32_row(plain, r), f32_row(x, r), f32_row(weight, r % period),
                                      biased ? f32_row(bias, r % period) : NULL, n_cols, 1e-5F);
    }
    assert_same_rows(out, plain);
    free_window(x);
    free_window(weight);
    free_window(bias);
    free_window(out);
    free_window(plain);
}

static void layernorm_is_what_the_formula_says_in_every_set(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES; i++) {
        check_layernorm(shapes[i].n_rows, shapes[i].n_cols, 1, false);
        check_layernorm(shapes[i].n_rows, shapes[i].n_cols, 3, true);
    }
}

static double activated(double g, double u, tsr_activation activation)
{
    switch (activation) {
    case TSR_ACTIVATION_SILU:
        return g / (1 + exp(-g)) * u;
    case TSR_ACTIVATION_GELU:
        return g * 0.5 * erfc(-g / sqrt(2)) * u;
    case TSR_ACTIVATION_GELU_TANH:
        return 0.5 * g * (1 + tanh(sqrt(2 / 3.14159265358979) * (g + 0.044715 * g * g * g))) * u;
    case TSR_ACTIVATION_RELU:
        return (g > 0 ? g : 0) * u;
    default:
        g = g < 7 ? g : 7;
        u = u > 7 ? 7 : u < -7 ? -7 : u;
        return g / (1 + exp(-1.702 * g)) * (u + 1);
    }
}

static void check_activation(int64_t n_rows, int64_t n_cols, tsr_activation activation, bool gated)
{
    uint64_t seed = 4;
    const tsr_tensor gate = make_random(TSR_DTYPE_F32, n_rows, n_cols, &seed);
    const tsr_tensor up = make_random(TSR_DTYPE_F32, n_rows, n_cols, &seed);
    const tsr_tensor weights = make_random(TSR_DTYPE_F32, 1, n_rows, &seed);
    const tsr_tensor out = make_window(TSR_DTYPE_F32, n_rows, n_cols);
    const tsr_tensor plain = make_window(TSR_DTYPE_F32, n_rows, n_cols);

    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t c = 0; c < n_cols; c++) {
            f32_row(gate, r)[c] *= c % 3 == 0 ? 8 : 1;
            f32_row(up, r)[c] *= c % 5 == 0 ? 4 : 1;
        }
    }
    assert_int_equal(tsr_activate(dev, out, gate, gated ? up : absent, weights, activation),
                     TSR_OK);
    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t c = 0; c < n_cols; c++) {
            const double g = (double)f32_row(gate, r)[c];
            const double u = gated ? (double)f32_row(up, r)[c] : 1;
            const double weight = (double)f32_row(weights, 0)[r];

            // Phi is within 1.5e-7, and all else as exact as f32.
            assert_near((double)f32_row(out, r)[c], activated(g, u, activation) * weight,
                        1e-6 + 2e-7 * fabs(g * u * weight));
        }
        tsr_row_loops_plain.activate(f32_row(plain, r), f32_row(gate, r),
                                     gated ? f32_row(up, r) : NULL, n_cols, f32_row(weights, 0)[r],
                                     activation);
    }
    assert_same_rows(out, plain);
    free_window(gate);
    free_window(up);
    free_window(weights);
    free_window(out);
    free_window(plain);
}

static void activations_are_what_their_formulas_say_in_every_set(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES; i++) {
        for (int a = 0; a < TSR_ACTIVATION_COUNT; a++) {
            check_activation(shapes[i].n_rows, shapes[i].n_cols, (tsr_activation)a, true);
            if (a != TSR_ACTIVATION_SWIGLU_CLAMPED) {
                check_activation(shapes[i].n_rows, shapes[i].n_cols, (tsr_activation)a, false);
            }
        }
    }
}

static void clipping_cuts_what_is_beyond_the_limit_and_nothing_else(void **state)
{
    uint64_t seed = 6;
    const tsr_tensor x = make_random(TSR_DTYPE_F32, 5, 37, &seed);
    const tsr_tensor was = make_random(TSR_DTYPE_F32, 5, 37, &seed);
    int n_cut = 0;

    (void)state;
    for (int64_t r = 0; r < 5; r++) {
        memcpy(f32_row(was, r), f32_row(x, r), 37 * sizeof(float));
    }
    assert_int_equal(tsr_clip(dev, x, 0.25F), TSR_OK);
    for (int64_t r = 0; r < 5; r++) {
        for (int64_t c = 0; c < 37; c++) {
            const float before = f32_row(was, r)[c];

            assert_true(f32_row(x, r)[c] == fmaxf(-0.25F, fminf(0.25F, before)));
            n_cut += fabsf(before) > 0.25F;
        }
    }
    assert_in_range(n_cut, 5, 5 * 37 - 5);
    assert_int_equal(tsr_clip(dev, x, 0), TSR_ERR_ARG);
    free_window(x);
    free_window(was);
}

static void scales_and_caps_are_what_their_formulas_say(void **state)
{
    uint64_t seed = 5;
    const tsr_tensor x = make_random(TSR_DTYPE_F32, 5, 37, &seed);
    const tsr_tensor y = make_random(TSR_DTYPE_F32, 5, 37, &seed);
    const tsr_tensor was = make_random(TSR_DTYPE_F32, 5, 37, &seed);

    (void)state;
    for (int64_t r = 0; r < 5; r++) {
        memcpy(f32_row(was, r), f32_row(x, r), 37 * sizeof(float));
    }
    assert_int_equal(tsr_add_scaled(dev, x, y, 0.375F), TSR_OK);
    assert_int_equal(tsr_scale(dev, x, 40, 30), TSR_OK);
    for (int64_t r = 0; r < 5; r++) {
        for (int64_t c = 0; c < 37; c++) {
            const double sum = (double)f32_row(was, r)[c] + 0.375 * (double)f32_row(y, r)[c];

            assert_near((double)f32_row(x, r)[c], 30 * tanh(40 * sum / 30), 2e-6);
        }
    }
    free_window(x);
    free_window(y);
    free_window(was);
}

/* Heads split between two or three parts in any way: the same bits. */
static void a_norm_over_parts_does_not_depend_on_how_they_are_cut(void **state)
{
    enum {
        HEADS = 7,
        DIM = 24,
        ROWS = 4
    };
    uint64_t seed = 6;
    const tsr_tensor x = make_random(TSR_DTYPE_F32, ROWS, (int64_t)HEADS * DIM, &seed);
    const tsr_tensor weight = make_random(TSR_DTYPE_F32, 1, (int64_t)HEADS * DIM, &seed);
    const tsr_tensor first = make_window(TSR_DTYPE_F32, ROWS, (int64_t)HEADS * DIM);

    (void)state;
    for (int cut = 0; cut <= HEADS; cut++) {
        const tsr_tensor out = make_window(TSR_DTYPE_F32, ROWS, (int64_t)HEADS * DIM);
        tsr_tensor parts[2];
        tsr_tensor halves[2];
        tsr_tensor weights[2];

        for (int64_t r = 0; r < ROWS; r++) {
            memcpy(f32_row(out, r), f32_row(x, r), (size_t)(HEADS * DIM) * sizeof(float));
        }
        for (int p = 0; p < 2; p++) {
            halves[p] = out;
            weights[p] = weight;
            halves[p].data = f32_row(out, 0) + (p == 0 ? 0 : cut * DIM);
            weights[p].data = f32_row(weight, 0) + (p == 0 ? 0 : cut * DIM);
            halves[p].n_cols = weights[p].n_cols = (int64_t)(p == 0 ? cut : HEADS - cut) * DIM;
            parts[p] = make_window(TSR_DTYPE_F64, ROWS, 1);
            assert_int_equal(tsr_square_sums(dev, parts[p], halves[p], DIM), TSR_OK);
        }
        for (int p = 0; p < 2; p++) {
            assert_int_equal(tsr_rmsnorm_shared(dev, halves[p], parts, 2, weights[p],
                                                (int64_t)HEADS * DIM, 1e-6F),
                             TSR_OK);
        }
        for (int64_t r = 0; r < ROWS; r++) {
            double squares = 0;

            for (int c = 0; c < HEADS * DIM; c++) {
                squares += (double)f32_row(x, r)[c] * (double)f32_row(x, r)[c];
            }
            for (int c = 0; c < HEADS * DIM; c++) {
                assert_near((double)f32_row(out, r)[c],
                            (double)f32_row(x, r)[c] / sqrt(squares / (HEADS * DIM) + 1e-6) *
                                (double)f32_row(weight, 0)[c],
                            1e-6);
            }
            if (cut == 0) {
                memcpy(f32_row(first, r), f32_row(out, r), (size_t)(HEADS * DIM) * sizeof(float));
            }
        }
        assert_same_rows(out, first);
        free_window(parts[0]);
        free_window(parts[1]);
        free_window(out);
    }
    free_window(first);
    free_window(weight);
    free_window(x);
}

/* Joined at once and one after another. */
static void check_join(int64_t n_rows, int64_t dim, int n_parts, bool has_post, bool is_layernorm,
                       float scale)
{
    uint64_t seed = 21;
    const tsr_tensor x = make_random(TSR_DTYPE_F32, n_rows, dim, &seed);
    const tsr_tensor y = make_window(TSR_DTYPE_F32, n_rows, dim);
    const tsr_tensor out = make_window(TSR_DTYPE_F32, n_rows, dim);
    const tsr_tensor want = make_window(TSR_DTYPE_F32, n_rows, dim);
    const tsr_tensor spare = make_window(TSR_DTYPE_F32, n_rows, dim);
    const tsr_tensor parts[2] = {make_random(TSR_DTYPE_F64, n_rows, dim, &seed),
                                 make_random(TSR_DTYPE_F64, n_rows, dim, &seed)};
    const tsr_tensor vectors = make_random(TSR_DTYPE_F32, 5, dim, &seed);
    tsr_tensor v[5];
    tsr_joining j = {.parts = parts,
                     .n_parts = n_parts,
                     .scale = scale,
                     .is_layernorm = is_layernorm,
                     .eps = 1e-5F,
                     .out = out,
                     .spare = spare};

    for (int i = 0; i < 5; i++) {
        v[i] = tsr_tensor_rows(vectors, 1);
        v[i].data = f32_row(vectors, i);
    }
    for (int64_t r = 0; r < n_rows; r++) {
        memcpy(f32_row(y, r), f32_row(x, r), (size_t)dim * sizeof(float));
    }
    j.bias = v[0];
    j.next_weight = v[1];
    j.next_bias = is_layernorm ? v[2] : absent;
    j.post_weight = has_post ? v[3] : absent;
    j.post_bias = has_post && is_layernorm ? v[4] : absent;
    assert_int_equal(tsr_join(dev, x, &j), TSR_OK);
    if (n_parts > 0) {
        assert_int_equal(tsr_narrow(dev, spare, parts, n_parts, v[0]), TSR_OK);
        if (has_post) {
            assert_int_equal(is_layernorm ? tsr_layernorm(dev, spare, spare, v[3], v[4], 1e-5F)
                                          : tsr_rmsnorm(dev, spare, spare, v[3], 1e-5F),
                             TSR_OK);
        }
        assert_int_equal(tsr_add_scaled(dev, y, spare, scale), TSR_OK);
    }
    assert_int_equal(is_layernorm ? tsr_layernorm(dev, want, y, v[1], v[2], 1e-5F)
                                  : tsr_rmsnorm(dev, want, y, v[1], 1e-5F),
                     TSR_OK);
    assert_same_rows(x, y);
    assert_same_rows(out, want);
    j.next_weight = absent;
    j.n_parts = 0;
    assert_int_equal(tsr_join(dev, x, &j), TSR_OK); // nothing is added, and no norm taken
    assert_same_rows(x, y);
    assert_same_rows(out, y);
    free_window(vectors);
    free_window(parts[0]);
    free_window(parts[1]);
    free_window(spare);
    free_window(want);
    free_window(out);
    free_window(y);
    free_window(x);
}

static void joining_at_once_is_joining_step_by_step(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        check_join(3, 100, i % 3, i % 2 != 0, i / 2 % 2 != 0, i / 4 != 0 ? 0.22F : 1.0F);
    }
    check_join(1, 12100, 1, true, false, 1); // no room for such a row in a multiprocessor
}

static void routes_go_to_the_best_experts_and_weights_are_their_softmax(void **state)
{
    static const float logits[] = {1, 3, 2, 3, -1, 0};
    static const struct {
        tsr_routing routing;
        int32_t ids[2];
        double weights[2];
    } cases[] = {
        // Equals: the lower number first. e^3 / (2 e^3); all six: e + 2 e^3 + e^2 + e^-1 + 1
        {{.n_experts = 6, .n_used = 2, .scale = 1}, {1, 3}, {0.5, 0.5}},
        {{.n_experts = 6, .n_used = 2, .before = true, .scale = 2}, {1, 3}, {0.7778114, 0.7778114}},
        {{.n_experts = 6, .n_used = 2, .before = true, .normalise = true, .scale = 1},
         {1, 3},
         {0.5, 0.5}},
        // Of three groups of two only the best: the first of those with a 3.
        {{.n_experts = 6, .n_used = 2, .scale = 1, .n_groups = 3, .n_groups_used = 1},
         {1, 0},
         {0.8807971, 0.1192029}},
    };
    const tsr_tensor in = make_window(TSR_DTYPE_F32, 1, 6);

    (void)state;
    memcpy(in.data, logits, sizeof(logits));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const tsr_tensor ids = make_window(TSR_DTYPE_I32, 1, 2);
        const tsr_tensor weights = make_window(TSR_DTYPE_F32, 1, 2);

        assert_int_equal(tsr_route(dev, ids, weights, in, &cases[i].routing), TSR_OK);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(i32_row(ids, 0)[k], cases[i].ids[k]);
            assert_near((double)f32_row(weights, 0)[k], cases[i].weights[k], 1e-6);
        }
        free_window(ids);
        free_window(weights);
    }
    free_window(in);
}

static void scattered_sums_and_biases_are_exact_in_any_order(void **state)
{
    enum {
        DIM = 19
    };
    static const int32_t to[2][3] = {{4, 0, 2}, {2, 4, 1}};
    uint64_t seed = 8;
    const tsr_tensor bias = make_random(TSR_DTYPE_F32, 1, DIM, &seed);
    const tsr_tensor weights = make_random(TSR_DTYPE_F32, 1, 3, &seed);
    const tsr_tensor parts = make_random(TSR_DTYPE_F64, 3, DIM, &seed);
    tsr_tensor sums[2];

    (void)state;
    for (int64_t r = 0; r < 3; r++) {
        for (int64_t c = 0; c < DIM; c++) {
            f64_row(parts, r)[c] = nearbyint(f64_row(parts, r)[c] * 0x1p28) * 0x1p-28;
        }
    }
    for (int order = 0; order < 2; order++) {
        sums[order] = make_window(TSR_DTYPE_F64, 5, DIM);
        assert_int_equal(tsr_clear(dev, sums[order]), TSR_OK);
        for (int k = 0; k < 2; k++) {
            const tsr_tensor rows = make_ints(to[(k + order) % 2], 3);

            assert_int_equal(tsr_scatter_sums(dev, sums[order], parts, rows, weights, bias),
                             TSR_OK);
            free_window(rows);
        }
    }
    assert_same_rows(sums[0], sums[1]);
    for (int64_t c = 0; c < DIM; c++) { // row 4 takes part 0 of the first and part 1 of the second
        const double want = f64_row(parts, 0)[c] + f64_row(parts, 1)[c] +
                            ((double)f32_row(weights, 0)[0] + (double)f32_row(weights, 0)[1]) *
                                (double)f32_row(bias, 0)[c];

        assert_near(f64_row(sums[0], 4)[c], want, 1e-6);
        assert_true(f64_row(sums[0], 3)[c] == 0);
    }
    free_window(sums[0]);
    free_window(sums[1]);
    free_window(parts);
    free_window(weights);
    free_window(bias);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layernorm_is_what_the_formula_says_in_every_set),
        cmocka_unit_test(activations_are_what_their_formulas_say_in_every_set),
        cmocka_unit_test(clipping_cuts_what_is_beyond_the_limit_and_nothing_else),
        cmocka_unit_test(scales_and_caps_are_what_their_formulas_say),
        cmocka_unit_test(a_norm_over_parts_does_not_depend_on_how_they_are_cut),
        cmocka_unit_test(joining_at_once_is_joining_step_by_step),
        cmocka_unit_test(routes_go_to_the_best_experts_and_weights_are_their_softmax),
        cmocka_unit_test(scattered_sums_and_biases_are_exact_in_any_order),
    };
    int n_failed;

    if (isa_is_missing()) {
        return MISSING_SET;
    }
    dev = open_device(3, &limits);
    n_failed = cmocka_run_group_tests_name("family_rows", tests, NULL, NULL);
    tsr_device_close(dev);
    return n_failed;
}
