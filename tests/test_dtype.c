#include "kernels/dtype.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

/* e4m3 as its specification says it: sign, 4 bits of exponent with bias 7, 3 bits of fraction. */
static double fp8_value(unsigned bits)
{
    const int exponent = (int)(bits >> 3 & 15);
    const int fraction = (int)(bits & 7);
    const double size = exponent == 0 ? ldexp(fraction, -9) : ldexp(8 + fraction, exponent - 10);

    return bits & 128 ? -size : size;
}

static void every_fp8_is_what_its_bits_say(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 256; bits++) {
        const float value = tsr_dtype_from_fp8((uint8_t)bits);

        if ((bits & 127) == 127) {
            assert_true(isnan(value));
        } else {
            assert_true((double)value == fp8_value(bits));
            assert_int_equal(signbit(value) != 0, bits >> 7);
        }
    }
}

/* The nearest of all that are no NaN; of two as near the one with an even fraction. */
static unsigned nearest_fp8(double value)
{
    unsigned best = 0;

    for (unsigned bits = 0; bits < 127; bits++) {
        const double miss = fabs(fp8_value(bits) - fabs(value));
        const double least = fabs(fp8_value(best) - fabs(value));

        if (miss < least || (miss == least && bits % 2 == 0)) {
            best = bits;
        }
    }
    return best | (signbit(value) ? 128U : 0U);
}

static void numbers_are_rounded_to_the_nearest_fp8(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 126; bits++) {
        const double here = fp8_value(bits);
        const double next = fp8_value(bits + 1);

        for (int i = 0; i <= 16; i++) { // the eighth of them is a tie
            const float value = (float)(here + (next - here) * i / 16);

            assert_int_equal(tsr_dtype_to_fp8(value), nearest_fp8((double)value));
            assert_int_equal(tsr_dtype_to_fp8(-value), nearest_fp8((double)-value));
        }
    }
    assert_int_equal(tsr_dtype_to_fp8(449.0F), 126);
    assert_int_equal(tsr_dtype_to_fp8(-1e30F), 254);
    assert_int_equal(tsr_dtype_to_fp8(INFINITY), 126);
    assert_int_equal(tsr_dtype_to_fp8(1e-30F), 0);
    assert_int_equal(tsr_dtype_to_fp8(NAN) & 127, 127);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fp8_is_what_its_bits_say),
        cmocka_unit_test(numbers_are_rounded_to_the_nearest_fp8),
    };

    return cmocka_run_group_tests_name("dtype", tests, NULL, NULL);
}
