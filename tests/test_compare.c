#include "tests/support/compare.h"

#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void equal_numbers_are_at_no_distance(void **state)
{
    const double row[] = {1.0, -2.0, NAN, INFINITY, -INFINITY, 0.0};
    const comparison found = compare_f64(row, row, 6, 0.0);

    (void)state;
    assert_true(found.nmse == 0.0 && found.max_abs == 0.0);
    assert_int_equal(found.n_bad, 0);
    assert_int_equal(found.first_bad, -1);
    assert_int_equal(found.n_nan, 1);
    assert_int_equal(found.first_nan, 2);
    assert_int_equal(found.n_infinite, 2);
    assert_int_equal(found.first_infinite, 3);
    compare_assert("equal", found, 0.0, 0.0);
}

static void errors_are_found_and_measured(void **state)
{
    const float got[] = {3.0F, 4.5F, 0.25F, 1.0F};
    const double want[] = {3.0, 4.0, 0.0, 0.0};
    const comparison found = compare_mixed(got, want, 4, 0.3);

    (void)state;
    // (0.25 + 0.0625 + 1) / (9 + 16)
    assert_true(fabs(found.nmse - 1.3125 / 25.0) < 1e-15);
    assert_true(found.max_abs == 1.0);
    assert_int_equal(found.max_at, 3);
    assert_int_equal(found.first_bad, 1);
    assert_int_equal(found.n_bad, 2);
    assert_int_equal(found.n_kind, 0);
}

static void numbers_of_another_kind_are_bad_whatever_the_tolerance(void **state)
{
    const float got[] = {1.0F, NAN, INFINITY, -INFINITY, 5.0F};
    const float want[] = {1.0F, 1.0F, 1.0F, INFINITY, NAN};
    const comparison found = compare_f32(got, want, 5, 1e30);

    (void)state;
    assert_int_equal(found.n_bad, 4);
    assert_int_equal(found.n_kind, 4);
    assert_int_equal(found.first_bad, 1);
    assert_true(found.max_abs == 0.0);
    assert_int_equal(found.max_at, 0);
}

static void anything_beside_zeros_is_infinitely_far(void **state)
{
    const double got[] = {0.0, 1e-3};
    const double want[] = {0.0, 0.0};

    (void)state;
    assert_true(isinf(compare_f64(got, want, 2, 1.0).nmse));
    assert_true(compare_f64(want, want, 2, 1.0).nmse == 0.0);
    assert_int_equal(compare_f64(got, want, 0, 1.0).max_at, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_numbers_are_at_no_distance),
        cmocka_unit_test(errors_are_found_and_measured),
        cmocka_unit_test(numbers_of_another_kind_are_bad_whatever_the_tolerance),
        cmocka_unit_test(anything_beside_zeros_is_infinitely_far),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
