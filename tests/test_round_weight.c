#include "kernels/round_weight.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"

enum {
    N = 128
};

/* Bell-shaped numbers with an outlier now and then. */
static void make_values(float *values, uint32_t *seed)
{
    for (int i = 0; i < N; i++) {
        float sum = 0.0F;

        for (int k = 0; k < 4; k++) {
            *seed = *seed * 1664525U + 1013904223U;
            sum += (float)(*seed >> 8) / 16777216.0F - 0.5F;
        }
        values[i] = sum * (i % 50 == 49 ? 4.0F : 1.0F);
    }
}

/* The values that a panel gives back, after going through it. */
static void through_a_panel(tsr_format format, float *out, const tsr_encoding_run *runs)
{
    void *panel = tsr_alloc(tsr_weight_panel_bytes(format, N), 1);
    const tsr_weight weight = {
        .format = format, .n_rows = TSR_PANEL_ROWS, .n_cols = N, .tiles = panel};

    assert_non_null(panel);
    for (int t = 0; t < N / TSR_RUN_ELEMS; t++) {
        tsr_weight_put_run(format, panel, 5, t, &runs[t]);
    }
    tsr_weight_unpack_row(&weight, 5, out);
    tsr_free(panel);
}

static double squares(const float *a, const float *b)
{
    double sum = 0.0;

    for (int i = 0; i < N; i++) {
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    }
    return sum;
}

static void what_comes_back_differs_by_the_error_that_was_told(void **state)
{
    static const struct {
        tsr_format format;
        int group;
        double most; // error relative to the values, root mean square
    } cases[] = {
        {TSR_FORMAT_Q8, 32, 0.012}, {TSR_FORMAT_Q8, 128, 0.018}, {TSR_FORMAT_Q4, 32, 0.11},
        {TSR_FORMAT_Q4, 128, 0.2},  {TSR_FORMAT_FP8, 32, 0.03},  {TSR_FORMAT_FP8, 128, 0.03},
    };
    static const float zeros[N];
    uint32_t seed = 5;

    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        for (int round = 0; round < 50; round++) {
            tsr_encoding_run runs[N / TSR_RUN_ELEMS];
            float values[N];
            float got[N];
            double error = 0.0;

            make_values(values, &seed);
            for (int i = 0; i < N; i += cases[c].group) {
                error += tsr_round_weight(cases[c].format, &runs[i / TSR_RUN_ELEMS], values + i,
                                          cases[c].group);
            }
            through_a_panel(cases[c].format, got, runs);
            assert_true(fabs(squares(values, got) - error) <= 1e-5 * error);
            assert_true(sqrt(error / squares(values, zeros)) < cases[c].most);
        }
    }
}

/* What the plain range from least to greatest gives. */
static double error_of_the_whole_range(const float *values, int n)
{
    double error = 0.0;
    float low = values[0];
    float high = values[0];

    for (int i = 1; i < n; i++) {
        low = fminf(low, values[i]);
        high = fmaxf(high, values[i]);
    }
    for (int i = 0; i < n; i++) {
        const double step = ((double)high - (double)low) / 15;
        const double miss = low + step * rint((values[i] - low) / step) - values[i];

        error += miss * miss;
    }
    return error;
}

static void four_bits_do_better_than_the_whole_range(void **state)
{
    uint32_t seed = 9;
    double ours = 0.0;
    double plain = 0.0;

    (void)state;
    for (int round = 0; round < 200; round++) {
        tsr_encoding_run runs[N / TSR_RUN_ELEMS];
        float values[N];

        make_values(values, &seed);
        ours += tsr_round_weight(TSR_FORMAT_Q4, runs, values, N);
        plain += error_of_the_whole_range(values, N);
    }
    assert_true(ours < 0.9 * plain);
}

static void what_is_too_large_for_halves_is_told(void **state)
{
    tsr_encoding_run runs[N / TSR_RUN_ELEMS];
    float values[N] = {3e6F, -2e6F};

    (void)state;
    assert_true(!isfinite(tsr_round_weight(TSR_FORMAT_Q4, runs, values, N)));
}

static void zeros_stay_zeros_and_what_is_no_number_is_told(void **state)
{
    static const tsr_format formats[] = {TSR_FORMAT_Q4, TSR_FORMAT_Q8, TSR_FORMAT_FP8};

    (void)state;
    for (size_t f = 0; f < 3; f++) {
        tsr_encoding_run runs[N / TSR_RUN_ELEMS];
        float values[N] = {0};
        float got[N];

        assert_true(tsr_round_weight(formats[f], runs, values, N) == 0.0);
        through_a_panel(formats[f], got, runs);
        for (int i = 0; i < N; i++) {
            assert_true(got[i] == 0.0F);
        }
        values[77] = NAN;
        assert_true(isnan(tsr_round_weight(formats[f], runs, values, N)));
        values[77] = INFINITY;
        assert_true(!isfinite(tsr_round_weight(formats[f], runs, values, N)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_back_differs_by_the_error_that_was_told),
        cmocka_unit_test(four_bits_do_better_than_the_whole_range),
        cmocka_unit_test(what_is_too_large_for_halves_is_told),
        cmocka_unit_test(zeros_stay_zeros_and_what_is_no_number_is_told),
    };

    return cmocka_run_group_tests_name("round_weight", tests, NULL, NULL);
}
