#include "tests/support/device.h"

#include <math.h>

static const tsr_ops_limits limits = {64, 64, 1, 8, 16, 1, 0};

typedef struct outputs {
    tsr_tensor ids, values, masses;
} outputs;

static outputs run_top_k(tsr_device *dev, tsr_tensor logits, tsr_tensor sharpness, int k,
                         int64_t first_id, int64_t unit_cols)
{
    const int64_t n_units = (logits.n_cols + unit_cols - 1) / unit_cols;
    const outputs o = {make_window(TSR_DTYPE_I32, logits.n_rows, k),
                       make_window(TSR_DTYPE_F32, logits.n_rows, k),
                       make_window(TSR_DTYPE_F32, logits.n_rows, 2 * n_units)};

    assert_int_equal(
        tsr_top_k(dev, o.ids, o.values, o.masses, logits, sharpness, first_id, unit_cols), TSR_OK);
    return o;
}

static void free_outputs(outputs o)
{
    free_window(o.ids);
    free_window(o.values);
    free_window(o.masses);
}

static float plain(float x)
{
    return isnan(x) ? -INFINITY : x;
}

/* k times: the largest that was not taken yet, the first among equals. */
static void check_row(outputs o, tsr_tensor logits, int64_t row, float sharpness, int64_t first_id,
                      int64_t unit_cols)
{
    const int64_t n = logits.n_cols;
    const float *x = f32_row(logits, row);
    bool *taken = tsr_alloc((size_t)n, sizeof(*taken));

    assert_non_null(taken);
    for (int64_t i = 0; i < o.ids.n_cols; i++) {
        int64_t best = -1;

        for (int64_t c = 0; c < n; c++) {
            if (!taken[c] && (best < 0 || plain(x[c]) > plain(x[best]))) {
                best = c;
            }
        }
        if (best < 0) {
            assert_int_equal(i32_row(o.ids, row)[i], -1);
            assert_true(f32_row(o.values, row)[i] == -INFINITY);
        } else {
            assert_int_equal(i32_row(o.ids, row)[i], first_id + best);
            assert_true(f32_row(o.values, row)[i] == plain(x[best]));
            taken[best] = true;
        }
    }
    tsr_free(taken);
    for (int64_t u = 0; u * unit_cols < n; u++) {
        const int64_t end = (u + 1) * unit_cols < n ? (u + 1) * unit_cols : n;
        float largest = -INFINITY;
        double sum = 0;

        for (int64_t c = u * unit_cols; c < end; c++) {
            largest = fmaxf(largest, plain(x[c]));
        }
        for (int64_t c = u * unit_cols; largest > -INFINITY && c < end; c++) {
            sum += exp(((double)plain(x[c]) - (double)largest) * (double)sharpness);
        }
        assert_true(f32_row(o.masses, row)[2 * u] == largest);
        assert_true(fabs((double)f32_row(o.masses, row)[2 * u + 1] - sum) <= sum * 2e-6);
    }
}

static tsr_tensor make_sharpness(int64_t n_rows)
{
    uint64_t seed = 9;
    const tsr_tensor t = make_random(TSR_DTYPE_F32, 1, n_rows, &seed);

    for (int64_t r = 0; r < n_rows; r++) {
        f32_row(t, 0)[r] = fabsf(f32_row(t, 0)[r]);
    }
    return t;
}

enum pattern {
    RANDOM,
    RISING, // every column is better than all before
    FALLING,
    EQUAL,
    FEW_VALUES,
    HOLES, // NaN and -infinity, and a unit of nothing else
    N_PATTERNS
};

static tsr_tensor make_logits(int64_t n_rows, int64_t n_cols, enum pattern pattern)
{
    uint64_t seed = 5;
    const tsr_tensor t = make_random(TSR_DTYPE_F32, n_rows, n_cols, &seed);

    for (int64_t r = 0; r < n_rows; r++) {
        float *x = f32_row(t, r);

        for (int64_t c = 0; c < n_cols; c++) {
            switch (pattern) {
            case RISING:
                x[c] = (float)c;
                break;
            case FALLING:
                x[c] = (float)-c;
                break;
            case EQUAL:
                x[c] = c % 2 != 0 ? 0.0F : -0.0F;
                break;
            case FEW_VALUES:
                x[c] = rintf(x[c]);
                break;
            case HOLES:
                x[c] = c % 5 == 0 || c < 100 ? NAN : c % 5 == 1 ? -INFINITY : x[c];
                break;
            default:
                break;
            }
        }
    }
    return t;
}

static void the_best_and_the_masses_are_found_in_any_row(void **state)
{
    static const struct {
        int64_t n_rows, n_cols;
        int k;
        int64_t unit_cols;
    } shapes[] = {{1, 1000, 64, 64}, {3, 5000, 1, 128}, {2, 77, 100, 10}, {4, 2500, 1024, 300},
                  {1, 17, 1, 17},    {2, 0, 3, 16},     {0, 50, 3, 16},   {1, 40000, 40, 1000}};

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        for (int pattern = 0; pattern < N_PATTERNS; pattern++) {
            tsr_device *dev = open_device(1 + (int)i % 4, &limits);
            const tsr_tensor logits =
                make_logits(shapes[i].n_rows, shapes[i].n_cols, (enum pattern)pattern);
            const tsr_tensor sharpness = make_sharpness(shapes[i].n_rows);
            const outputs o =
                run_top_k(dev, logits, sharpness, shapes[i].k, 1000, shapes[i].unit_cols);

            for (int64_t r = 0; r < shapes[i].n_rows; r++) {
                check_row(o, logits, r, f32_row(sharpness, 0)[r], 1000, shapes[i].unit_cols);
            }
            free_outputs(o);
            free_window(logits);
            free_window(sharpness);
            tsr_device_close(dev);
        }
    }
}

static void threads_and_instruction_sets_change_no_bit(void **state)
{
    (void)state;
    for (int64_t n_rows = 1; n_rows <= 7; n_rows += 3) {
        const tsr_tensor logits = make_logits(n_rows, 30001, HOLES);
        const tsr_tensor sharpness = make_sharpness(n_rows);
        tsr_device *dev = open_device(1, &limits);
        outputs expected;

        dev->isa = TSR_ISA_PLAIN_C;
        expected = run_top_k(dev, logits, sharpness, 50, 0, 100);
        tsr_device_close(dev);
        for (int n_threads = 1; n_threads <= (IS_EMULATED ? 1 : 5); n_threads++) {
            outputs o;

            dev = open_device(n_threads, &limits);
            o = run_top_k(dev, logits, sharpness, 50, 0, 100);
            assert_same_rows(o.ids, expected.ids);
            assert_same_rows(o.values, expected.values);
            assert_same_rows(o.masses, expected.masses);
            free_outputs(o);
            tsr_device_close(dev);
        }
        free_outputs(expected);
        free_window(logits);
        free_window(sharpness);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_and_the_masses_are_found_in_any_row),
        cmocka_unit_test(threads_and_instruction_sets_change_no_bit),
    };

    return isa_is_missing() ? MISSING_SET : cmocka_run_group_tests(tests, NULL, NULL);
}
