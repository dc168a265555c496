#include "kernels/round_weight.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/dtype.h"

enum {
    MOST_VALUES = 128
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

/* The code of a value; nothing in it that a vector could not do. */
static inline float code_of(float value, float m, float inverse, float least, float most)
{
    const float magic = 12582912.0F; // 1.5 * 2^23: adding it rounds to a whole number
    float at = (value - m) * inverse;

    at = at > least ? at : least;
    at = at < most ? at : most;
    return (at + magic) - magic;
}

/* Codes of one scale and minimum; the squared error. */
static double codes_for(int8_t *q, const float *values, int n, float d, float m, float least,
                        float most)
{
    const float inverse = d != 0.0F ? 1.0F / d : 0.0F;
    double error = 0.0;

    for (int i = 0; i < n; i++) {
        const float code = code_of(values[i], m, inverse, least, most);
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

/* A scale and minimum of four bits, as halves. */
typedef struct grid {
    float d;
    float m;
} grid;

/* The squared error of a grid, as four sums side by side. */
static float miss_of(grid g, const float *values, int n)
{
    const float inverse = g.d != 0.0F ? 1.0F / g.d : 0.0F;
    float sums[4] = {0};

    for (int i = 0; i < n; i += 4) {
        for (int k = 0; k < 4; k++) {
            const float v = values[i + k];
            const float miss = g.d * code_of(v, g.m, inverse, 0.0F, 15.0F) + g.m - v;

            sums[k] += miss * miss;
        }
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/* From least to greatest, both ends drawn in by parts of that range. */
static grid drawn_in(float low, float high, float from, float to)
{
    const float range = high - low;

    return (grid){as_half(range * (1.0F - from - to) / 15.0F), as_half(low + range * from)};
}

/* The line that is nearest to the values at the codes of a grid, by least squares. */
static grid fitted(grid g, const float *values, int n)
{
    const float inverse = g.d != 0.0F ? 1.0F / g.d : 0.0F;
    double sum_q = 0.0;
    double sum_qq = 0.0;
    double sum_v = 0.0;
    double sum_qv = 0.0;
    double below;
    double d;

    for (int i = 0; i < n; i++) {
        const double v = (double)values[i];
        const double q = (double)code_of(values[i], g.m, inverse, 0.0F, 15.0F);

        sum_q += q;
        sum_qq += q * q;
        sum_v += v;
        sum_qv += q * v;
    }
    below = n * sum_qq - sum_q * sum_q;
    d = below > 0.0 ? (n * sum_qv - sum_q * sum_v) / below : 0.0;
    return (grid){as_half((float)d), as_half((float)((sum_v - d * sum_q) / n))};
}

/*
 * Leaving out an extreme often serves the others better: a few ranges, then steps from the best of
 * them, then the line through what that gave. As good as all 144 ranges in steps of a fiftieth.
 */
static grid best_grid(const float *values, int n)
{
    static const float coarse[] = {0.0F, 0.09F, 0.16F};
    static const float steps[] = {0.03F, 0.02F};
    static const float sides[4][2] = {{-1, 0}, {1, 0}, {0, -1}, {0, 1}};
    float low = values[0];
    float high = values[0];
    float from = 0.0F;
    float to = 0.0F;
    float least = INFINITY;
    grid best = {.d = INFINITY}; // no codes: the values are too large for halves
    grid line;

    for (int i = 1; i < n; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    for (int i = 0; i < 17; i++) { // 9 coarse ones, then 4 steps of either size
        const bool first = i < 9;
        const float *side = sides[(i - 9) & 3];
        const float step = first ? 0.0F : steps[(i - 9) / 4];
        const float f = first ? coarse[i % 3] : from + step * side[0];
        const float t = first ? coarse[i / 3] : to + step * side[1];
        const grid g = drawn_in(low, high, f, t);
        const float miss = miss_of(g, values, n);

        if (miss < least) {
            least = miss;
            best = g;
            from = f;
            to = t;
        }
    }
    if (!isfinite(best.d)) {
        return best;
    }
    line = fitted(best, values, n);
    return miss_of(line, values, n) < least ? line : best;
}

static double to_nibbles(tsr_encoding_run *runs, const float *values, int n)
{
    const grid g = best_grid(values, n);
    int8_t q[MOST_VALUES];
    const double error = codes_for(q, values, n, g.d, g.m, 0, 15);

    spread(runs, q, n, g.d, g.m);
    return error;
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
