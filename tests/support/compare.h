/*
 * tests/support/compare.h - how far numbers are from what they should be.
 *
 * Two numbers *match in kind* when both are finite, both are NaN, or both are the same infinity.
 */
#ifndef TSR_TESTS_SUPPORT_COMPARE_H
#define TSR_TESTS_SUPPORT_COMPARE_H

#include <stdint.h>

typedef struct comparison {
    double nmse;            /* sum (got - want)^2 / sum want^2 over the pairs where both are finite;
                               infinity when want is all zeros and got is not */
    double max_abs;         /* largest |got - want| over the same pairs; 0 when there are none */
    int64_t max_at;         /* its index, -1 when there are none */
    int64_t first_bad;      /* first pair that differs in kind or by more than the tolerance; -1 */
    int64_t n_bad;          /* how many such */
    int64_t n_kind;         /* how many of them differ in kind */
    int64_t n_nan;          /* NaN in got, expected or not */
    int64_t first_nan;      /* -1 */
    int64_t n_infinite;     /* infinities in got, expected or not */
    int64_t first_infinite; /* -1 */
} comparison;

comparison compare_f32(const float *got, const float *want, int64_t n, double tolerance);
comparison compare_f64(const double *got, const double *want, int64_t n, double tolerance);

/* Numbers of the code under test against those of the oracle. */
comparison compare_mixed(const float *got, const double *want, int64_t n, double tolerance);

/*
 * Fails the running test, in one line that starts with `what`, unless all pairs match in kind,
 * nmse <= max_nmse and max_abs <= tolerance. A negative bound is not looked at.
 */
void compare_assert(const char *what, comparison found, double max_nmse, double tolerance);

#endif
