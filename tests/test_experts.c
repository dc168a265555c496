/*
 * Mixtures of experts: which experts rows go to, rows by expert, products with each row's own
 * expert, and their sum. Against plain loops, and bit for bit the same in every instruction set.
 */
#include "tests/support/device.h"

#include <math.h>

#include "kernels/dtype.h"
#include "kernels/round_weight.h"

enum {
    EXPERTS = 7,
    USED = 3,
    MOST_ROWS = 20,
    MOST_COLS = 96
};

static const tsr_ops_limits limits = {MOST_ROWS, MOST_COLS, 1, 8, 16, 1, MOST_ROWS *USED};
static tsr_device *dev;

/* Does a come before b by falling logit, the lower number first among equals? */
static bool is_before(const float *logits, int a, int b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

/* In double precision, with another algorithm: an expert is chosen if few come before it. */
static void check_route(const tsr_routing *r, const float *logits, const int32_t *ids,
                        const float *weights)
{
    const int size = r->n_groups > 0 ? r->n_experts / r->n_groups : r->n_experts;
    double mass = 0;
    double of_chosen = 0;

    for (int e = 0; e < r->n_experts; e++) {
        int groups_before = 0;
        int before = 0;

        for (int g = 0; g < r->n_experts / size; g++) {
            int best = g * size;
            int own = e / size * size;

            for (int i = 0; i < size; i++) {
                best = is_before(logits, g * size + i, best) ? g * size + i : best;
                own = is_before(logits, e / size * size + i, own) ? e / size * size + i : own;
            }
            groups_before += is_before(logits, best, own);
        }
        for (int k = 0; k < r->n_used; k++) {
            before += ids[k] != e && is_before(logits, ids[k], e);
        }
        for (int k = 0; k < r->n_used; k++) {
            if (ids[k] == e) {
                assert_int_equal(before, k);
                assert_true(r->n_groups == 0 || groups_before < r->n_groups_used);
                of_chosen += exp((double)logits[e]);
                before = -1;
            }
        }
        // Not chosen: all that were chosen are before it, or its group is not among the best.
        assert_true(before < 0 || before == r->n_used ||
                    (r->n_groups > 0 && groups_before >= r->n_groups_used));
        mass += exp((double)logits[e]);
    }
    for (int k = 0; k < r->n_used; k++) {
        const double part = exp((double)logits[ids[k]]) * (double)r->scale;
        const double want = part / (r->before && !r->normalise ? mass : of_chosen);

        assert_true(fabs((double)weights[k] - want) <= 1e-6 * want);
    }
}

static void routes_are_the_best_experts_of_the_best_groups(void **state)
{
    static const tsr_routing cases[] = {
        {.n_experts = 5, .n_used = 5, .scale = 1},
        {.n_experts = 33, .n_used = 4, .scale = 2.5F, .before = true},
        {.n_experts = 64, .n_used = 6, .scale = 1, .before = true, .normalise = true},
        {.n_experts = 160,
         .n_used = 6,
         .scale = 16,
         .before = true,
         .n_groups = 8,
         .n_groups_used = 3},
        {.n_experts = TSR_ROUTE_MOST,
         .n_used = 2,
         .scale = 1,
         .n_groups = TSR_ROUTE_MOST,
         .n_groups_used = 2},
    };
    uint64_t seed = 5;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const tsr_routing *r = &cases[i];
        const tsr_tensor logits = make_random(TSR_DTYPE_F32, 3, r->n_experts, &seed);
        const tsr_tensor ids = make_window(TSR_DTYPE_I32, 3, r->n_used);
        const tsr_tensor weights = make_window(TSR_DTYPE_F32, 3, r->n_used);

        for (int e = 0; e < r->n_experts; e++) { // many equals, and one that has no chance
            f32_row(logits, 2)[e] = rintf(f32_row(logits, 2)[e]);
        }
        f32_row(logits, 1)[1] = -INFINITY;
        assert_int_equal(tsr_route(dev, ids, weights, logits, r), TSR_OK);
        for (int row = 0; row < 3; row++) {
            check_route(r, f32_row(logits, row), i32_row(ids, row), f32_row(weights, row));
        }
        free_window(weights);
        free_window(ids);
        free_window(logits);
    }
}

static void experts_of_logits_that_are_no_numbers_are_experts_still(void **state)
{
    const tsr_routing r = {.n_experts = 6, .n_used = 3, .scale = 1};
    const tsr_tensor logits = make_window(TSR_DTYPE_F32, 1, 6); // poisoned: NaN
    const tsr_tensor ids = make_window(TSR_DTYPE_I32, 1, 3);
    const tsr_tensor weights = make_window(TSR_DTYPE_F32, 1, 3);

    (void)state;
    assert_int_equal(tsr_route(dev, ids, weights, logits, &r), TSR_OK);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(i32_row(ids, 0)[k], k);
    }
    free_window(weights);
    free_window(ids);
    free_window(logits);
}

/* Choices of n rows, no expert twice in a row; expert 4 is nobody's. */
typedef struct choices {
    tsr_tensor ids, chosen, start, rows, weights, places;
} choices;

static choices choose(int64_t n)
{
    uint64_t seed = (uint64_t)n;
    choices c = {.ids = make_window(TSR_DTYPE_I32, n, USED),
                 .chosen = make_random(TSR_DTYPE_F32, n, USED, &seed),
                 .start = make_window(TSR_DTYPE_I32, 1, EXPERTS + 1),
                 .rows = make_window(TSR_DTYPE_I32, 1, n * USED),
                 .weights = make_window(TSR_DTYPE_F32, 1, n * USED),
                 .places = make_window(TSR_DTYPE_I32, n, USED)};
    static const int32_t three[][USED] = {{6, 0, 3}, {1, 6, 5}, {2, 1, 6}, {0, 2, 3}, {6, 5, 1}};

    for (int64_t r = 0; r < n; r++) {
        memcpy(i32_row(c.ids, r), three[(r * r + r / 3) % 5], sizeof(three[0]));
    }
    assert_int_equal(tsr_sort_experts(dev, c.start, c.rows, c.weights, c.places, c.ids, c.chosen),
                     TSR_OK);
    return c;
}

static void free_choices(choices *c)
{
    free_window(c->ids);
    free_window(c->chosen);
    free_window(c->start);
    free_window(c->rows);
    free_window(c->weights);
    free_window(c->places);
}

static void rows_lie_by_expert_and_rise_within_each(void **state)
{
    static const int64_t sizes[] = {1, 2, MOST_ROWS, 90};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        choices c = choose(sizes[i]);
        const int32_t *start = i32_row(c.start, 0);
        int32_t at = 0;

        for (int e = 0; e < EXPERTS; e++) {
            assert_int_equal(start[e], at);
            for (int64_t r = 0; r < sizes[i]; r++) {
                for (int k = 0; k < USED; k++) {
                    if (i32_row(c.ids, r)[k] == e) {
                        assert_int_equal(i32_row(c.places, r)[k], at);
                        assert_int_equal(i32_row(c.rows, 0)[at], r);
                        assert_true(f32_row(c.weights, 0)[at] == f32_row(c.chosen, r)[k]);
                        at++;
                    }
                }
            }
        }
        assert_int_equal(start[EXPERTS], at);
        free_choices(&c);
    }
}

/* Rows of random numbers, rounded to a format. */
static void fill_panel(tsr_format format, char *panel, int n_rows, uint64_t *seed)
{
    const tsr_encoding plain = format == TSR_FORMAT_BF16 ? TSR_ENCODING_BF16 : TSR_ENCODING_F32;
    float values[TSR_PANEL_ROWS][MOST_COLS];
    uint16_t halves[TSR_PANEL_ROWS][MOST_COLS];
    const void *rows[TSR_PANEL_ROWS] = {NULL};
    tsr_encoding_run run;

    for (int r = 0; r < n_rows; r++) {
        for (int c = 0; c < MOST_COLS; c++) {
            values[r][c] = next_random(seed);
            halves[r][c] = tsr_dtype_to_bf16(values[r][c]);
        }
        rows[r] = format == TSR_FORMAT_BF16 ? (const void *)halves[r] : values[r];
        for (int t = 0; format > TSR_FORMAT_BF16 && t < MOST_COLS / TSR_TILE_COLS; t++) {
            (void)tsr_round_weight(format, &run, values[r] + t * TSR_TILE_COLS, TSR_TILE_COLS);
            tsr_weight_put_run(format, panel, r, t, &run);
        }
    }
    if (format <= TSR_FORMAT_BF16) {
        assert_int_equal(tsr_weight_pack_panel(plain, panel, rows, 0, MOST_COLS), TSR_OK);
    }
}

/* Experts' matrices behind one another, with a gap. */
static char *make_weights(tsr_expert_weights *to, tsr_format format, int64_t n_rows,
                          int64_t grain_cols, uint64_t *seed)
{
    const int64_t panel_bytes = (int64_t)tsr_weight_panel_bytes(format, MOST_COLS);
    const int64_t n_panels = (n_rows + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS;
    char *memory;

    to->apart_bytes = n_panels * panel_bytes + 64;
    memory = tsr_alloc_pages((size_t)(EXPERTS * to->apart_bytes));
    assert_non_null(memory);
    for (int64_t i = 0; i < EXPERTS * n_panels; i++) {
        const int64_t left = n_rows - i % n_panels * TSR_PANEL_ROWS;

        fill_panel(format, memory + i / n_panels * to->apart_bytes + i % n_panels * panel_bytes,
                   left < TSR_PANEL_ROWS ? (int)left : TSR_PANEL_ROWS, seed);
    }
    to->first = (tsr_weight){.format = format,
                             .on = TSR_DEVICE_CPU,
                             .n_rows = n_rows,
                             .n_cols = MOST_COLS,
                             .grain_cols = grain_cols,
                             .tiles = memory};
    return memory;
}

/* Two products with experts [1, 6): each row as tsr_matmul has it with the one expert's weights. */
static void check_products(tsr_format format, int64_t n)
{
    enum {
        FIRST = 1,
        HERE = 5
    };
    static const int64_t shapes[2][2] = {{37, 0}, {16, 64}}; // rows, columns a grain
    uint64_t seed = 11;
    choices c = choose(n);
    const tsr_tensor x = make_random(TSR_DTYPE_F32, n * USED, MOST_COLS, &seed);
    const tsr_tensor bias = make_random(TSR_DTYPE_F32, EXPERTS, shapes[0][0], &seed);
    const int32_t *start = i32_row(c.start, 0) + FIRST;
    tsr_expert_weights weights[2] = {{.bias = bias}};
    tsr_expert_product products[2];
    char *memory[2];

    for (int p = 0; p < 2; p++) {
        memory[p] = make_weights(&weights[p], format, shapes[p][0], shapes[p][1], &seed);
        products[p].weights = &weights[p];
        products[p].out =
            make_window(p == 0 ? TSR_DTYPE_F32 : TSR_DTYPE_F64, n * USED, shapes[p][0]);
        weights[p].first.tiles = memory[p] + FIRST * weights[p].apart_bytes;
    }
    weights[0].bias.data = f32_row(bias, FIRST);
    weights[0].bias.n_rows = HERE;
    c.start.data = (int32_t *)c.start.data + FIRST;
    c.start.n_cols = HERE + 1;
    assert_int_equal(tsr_matmul_experts(dev, products, 2, x, c.start, n, TSR_ACTIVATIONS_INT8),
                     TSR_OK);
    for (int p = 0; p < 2; p++) {
        for (int64_t e = 0; e < HERE; e++) {
            const int64_t n_rows = start[e + 1] - start[e];
            const tsr_tensor out = make_window(products[p].out.dtype, n_rows, shapes[p][0]);
            tsr_weight own = weights[p].first;
            tsr_product product = {&own, out, {0}};
            tsr_tensor from = tsr_tensor_rows(x, n_rows);
            tsr_tensor got = tsr_tensor_rows(products[p].out, n_rows);

            own.tiles = memory[p] + (FIRST + e) * weights[p].apart_bytes;
            from.data = f32_row(x, start[e]);
            got.data = p == 0 ? (void *)f32_row(got, start[e]) : (void *)f64_row(got, start[e]);
            if (p == 0) {
                product.bias = tsr_tensor_rows(bias, 1);
                product.bias.data = f32_row(bias, FIRST + e);
            }
            assert_int_equal(tsr_matmul(dev, &product, 1, from, TSR_ACTIVATIONS_INT8), TSR_OK);
            assert_same_rows(got, out);
            free_window(out);
        }
        for (int64_t r = 0; r < n * USED; r++) { // of experts that are elsewhere nothing is written
            const bool is_here = r >= start[0] && r < start[HERE];
            const unsigned char *row =
                p == 0 ? (void *)f32_row(products[p].out, r) : (void *)f64_row(products[p].out, r);

            assert_true(is_here || (row[0] == POISON && row[3] == POISON));
        }
        free_window(products[p].out);
        tsr_free_pages(memory[p], (size_t)(EXPERTS * weights[p].apart_bytes));
    }
    c.start.data = (int32_t *)c.start.data - FIRST;
    c.start.n_cols = EXPERTS + 1;
    free_choices(&c);
    free_window(bias);
    free_window(x);
}

static void each_row_is_multiplied_by_its_own_experts_weights(void **state)
{
    static const tsr_format formats[] = {TSR_FORMAT_F32, TSR_FORMAT_BF16, TSR_FORMAT_FP8,
                                         TSR_FORMAT_Q4, TSR_FORMAT_Q8};
    static const int64_t sizes[] = {1, 4, MOST_ROWS};

    (void)state;
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
            check_products(formats[i], sizes[s]);
        }
    }
}

static void the_parts_of_experts_here_are_added_with_their_biases(void **state)
{
    enum {
        DIM = 19,
        FIRST = 2,
        HERE = 4,
        ROWS = 5
    };
    uint64_t seed = 9;
    choices c = choose(ROWS);
    const tsr_tensor bias = make_random(TSR_DTYPE_F32, HERE, DIM, &seed);
    const tsr_tensor parts = make_random(TSR_DTYPE_F64, ROWS * USED, DIM, &seed);
    const tsr_tensor before = make_random(TSR_DTYPE_F64, ROWS, DIM, &seed);
    const tsr_tensor sums[2] = {make_window(TSR_DTYPE_F64, ROWS, DIM),
                                make_window(TSR_DTYPE_F64, ROWS, DIM)};

    (void)state;
    for (int biased = 0; biased < 2; biased++) {
        for (int64_t r = 0; r < ROWS; r++) {
            memcpy(f64_row(sums[biased], r), f64_row(before, r), DIM * sizeof(double));
        }
        assert_int_equal(tsr_add_experts(dev, sums[biased], parts, c.ids, c.places, c.weights,
                                         biased ? bias : (tsr_tensor){0}, FIRST, HERE),
                         TSR_OK);
    }
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t col = 0; col < DIM; col++) {
            double want = f64_row(before, r)[col];
            double of_biases = 0;

            for (int k = 0; k < USED; k++) {
                const int32_t e = i32_row(c.ids, r)[k] - FIRST;

                if (e >= 0 && e < HERE) {
                    want += f64_row(parts, i32_row(c.places, r)[k])[col];
                    of_biases += (double)f32_row(c.chosen, r)[k] * (double)f32_row(bias, e)[col];
                }
            }
            assert_true(f64_row(sums[0], r)[col] == want);
            assert_true(fabs(f64_row(sums[1], r)[col] - want - of_biases) < 1e-6);
        }
    }
    free_window(sums[0]);
    free_window(sums[1]);
    free_window(before);
    free_window(parts);
    free_window(bias);
    free_choices(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_are_the_best_experts_of_the_best_groups),
        cmocka_unit_test(experts_of_logits_that_are_no_numbers_are_experts_still),
        cmocka_unit_test(rows_lie_by_expert_and_rise_within_each),
        cmocka_unit_test(each_row_is_multiplied_by_its_own_experts_weights),
        cmocka_unit_test(the_parts_of_experts_here_are_added_with_their_biases),
    };
    int n_failed;

    if (isa_is_missing()) {
        return MISSING_SET;
    }
    dev = open_device(3, &limits);
    n_failed = cmocka_run_group_tests_name("experts", tests, NULL, NULL);
    tsr_device_close(dev);
    return n_failed;
}
