#include "tests/support/compare.h"

#include <setjmp.h>
#include <stdarg.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

typedef struct running {
    comparison found;
    double squared_error;
    double squared_want;
    double tolerance;
} running;

static running start(double tolerance)
{
    return (running){
        .found = {.max_at = -1, .first_bad = -1, .first_nan = -1, .first_infinite = -1},
        .tolerance = tolerance,
    };
}

static void count(int64_t i, int64_t *n, int64_t *first)
{
    *first = *n == 0 ? i : *first;
    *n += 1;
}

static bool same_kind(double got, double want)
{
    if (isnan(got) || isnan(want)) {
        return isnan(got) && isnan(want);
    }
    return isinf(got) || isinf(want) ? got == want : true;
}

static void take(running *r, int64_t i, double got, double want)
{
    comparison *found = &r->found;

    if (isnan(got)) {
        count(i, &found->n_nan, &found->first_nan);
    } else if (isinf(got)) {
        count(i, &found->n_infinite, &found->first_infinite);
    }
    if (!same_kind(got, want)) {
        count(i, &found->n_bad, &found->first_bad);
        found->n_kind++;
    } else if (isfinite(got)) {
        const double error = fabs(got - want);

        r->squared_error += error * error;
        r->squared_want += want * want;
        if (found->max_at < 0 || error > found->max_abs) {
            found->max_abs = error;
            found->max_at = i;
        }
        if (error > r->tolerance) {
            count(i, &found->n_bad, &found->first_bad);
        }
    }
}

static comparison finish(running *r)
{
    if (r->squared_error > 0) {
        r->found.nmse = r->squared_error / r->squared_want; // infinity over zero, as promised
    }
    return r->found;
}

comparison compare_f32(const float *got, const float *want, int64_t n, double tolerance)
{
    running r = start(tolerance);

    for (int64_t i = 0; i < n; i++) {
        take(&r, i, (double)got[i], (double)want[i]);
    }
    return finish(&r);
}

comparison compare_f64(const double *got, const double *want, int64_t n, double tolerance)
{
    running r = start(tolerance);

    for (int64_t i = 0; i < n; i++) {
        take(&r, i, got[i], want[i]);
    }
    return finish(&r);
}

comparison compare_mixed(const float *got, const double *want, int64_t n, double tolerance)
{
    running r = start(tolerance);

    for (int64_t i = 0; i < n; i++) {
        take(&r, i, (double)got[i], want[i]);
    }
    return finish(&r);
}

void compare_assert(const char *what, comparison found, double max_nmse, double tolerance)
{
    const bool close =
        (max_nmse < 0 || found.nmse <= max_nmse) && (tolerance < 0 || found.max_abs <= tolerance);

    if (found.n_kind > 0 || !close) {
        fail_msg("%s: nmse %.3g (at most %.3g), largest error %.3g at %" PRId64
                 " (at most %.3g), %" PRId64 " bad from %" PRId64 ", %" PRId64
                 " of another kind, %" PRId64 " NaN from %" PRId64 ", %" PRId64
                 " infinite from %" PRId64,
                 what, found.nmse, max_nmse, found.max_abs, found.max_at, tolerance, found.n_bad,
                 found.first_bad, found.n_kind, found.n_nan, found.first_nan, found.n_infinite,
                 found.first_infinite);
    }
}
