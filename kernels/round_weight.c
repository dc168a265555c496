#include "kernels/round_weight.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/dtype.h"

enum {
    MOST_VALUES = 128,
    SHRINKS = 12 // ranges that are tried at either end
};

static float as_half(float value)
{
    return tsr_dtype_from_f16(tsr_dtype_to_f16(value));
}

static float largest(const float *values, int n)
{
    float most = 0.0F;

    for (int i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(values[i]));
    }
    return most;
}

/* Codes of one scale and minimum; the squared error. */
static double codes_for(int8_t *q, const float *values, int n, float d, float m, int least,
                        int most)
{
    const float inverse = d != 0.0F ? 1.0F / d : 0.0F;
    double error = 0.0;

    for (int i = 0; i < n; i++) {
        const float at = rintf((values[i] - m) * inverse);
        const float code = fminf(fmaxf(at, (float)least), (float)most);
        const double miss = (double)(d * code + m) - (double)values[i];

        q[i] = (int8_t)code;
        error += miss * miss;
    }
    return error;
}

static void spread(tsr_encoding_run *runs, const int8_t *q, int n, float d, float m)
{
    for (int t = 0; t < n / TSR_RUN_ELEMS; t++) {
        memcpy(runs[t].q, q + TSR_RUN_ELEMS * t, TSR_RUN_ELEMS);
        runs[t].d[0] = runs[t].d[1] = d;
        runs[t].m[0] = runs[t].m[1] = m;
    }
}

static double to_bytes(tsr_encoding_run *runs, const float *values, int n)
{
    const float d = as_half(largest(values, n) / 127.0F);
    int8_t q[MOST_VALUES];
    const double error = codes_for(q, values, n, d, 0.0F, -127, 127);

    spread(runs, q, n, d, -0.0F);
    return error;
}

static double to_nibbles(tsr_encoding_run *runs, const float *values, int n)
{
    float low = values[0];
    float high = values[0];
    double best = INFINITY;

    for (int i = 1; i < n; i++) {
        low = fminf(low, values[i]);
        high = fmaxf(high, values[i]);
    }
    // Both ends drawn in by up to a quarter of the range: outliers are cut, the rest is finer.
    for (int i = 0; i < SHRINKS * SHRINKS; i++) {
        const float from = low + (high - low) * 0.02F * (float)(i % SHRINKS);
        const float to = high - (high - low) * 0.02F * (float)(i / SHRINKS);
        const float d = as_half((to - from) / 15.0F);
        const float m = as_half(from);
        int8_t q[MOST_VALUES];
        const double error = codes_for(q, values, n, d, m, 0, 15);

        if (error < best) {
            best = error;
            spread(runs, q, n, d, m);
        }
    }
    return best;
}

static double to_fp8(tsr_encoding_run *runs, const float *values, int n)
{
    const float d = largest(values, n) / 448.0F;
    const float inverse = d != 0.0F ? 1.0F / d : 0.0F;
    int8_t q[MOST_VALUES];
    double error = 0.0;

    for (int i = 0; i < n; i++) {
        const uint8_t e = tsr_dtype_to_fp8(values[i] * inverse);
        const double miss = (double)(d * tsr_dtype_from_fp8(e)) - (double)values[i];

        memcpy(&q[i], &e, 1);
        error += miss * miss;
    }
    spread(runs, q, n, d, -0.0F);
    return error;
}

double tsr_round_weight(tsr_format format, tsr_encoding_run *runs, const float *values, int n)
{
    assert(n > 0 && n <= MOST_VALUES && n % TSR_RUN_ELEMS == 0);
    for (int i = 0; i < n; i++) {
        if (!isfinite(values[i])) {
            return NAN;
        }
    }
    if (format == TSR_FORMAT_Q4) {
        return to_nibbles(runs, values, n);
    }
    assert(format == TSR_FORMAT_Q8 || format == TSR_FORMAT_FP8);
    return format == TSR_FORMAT_Q8 ? to_bytes(runs, values, n) : to_fp8(runs, values, n);
}
