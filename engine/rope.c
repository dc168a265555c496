#include "engine/rope.h"

#include <math.h>

#include "base/alloc.h"

static const double TWO_PI = 6.283185307179586;

double tsr_rope_yarn_magnitude(double factor, double m)
{
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

/* The dimension whose wave turns `turns` times over the original context. */
static double yarn_dimension(const tsr_rope_turns *t, int n_rot, double turns)
{
    return n_rot * log((double)t->original_context / (turns * TWO_PI)) / (2 * log(t->base));
}

/* How far dimension i is interpolated: 0 fast waves stay as they are, 1 slow waves are stretched by
 * the factor. */
static double yarn_ramp(const tsr_rope_turns *t, int n_rot, int i)
{
    double low = yarn_dimension(t, n_rot, t->fast);
    double high = yarn_dimension(t, n_rot, t->slow);

    low = fmax(t->whole_dims ? floor(low) : low, 0);
    high = fmin(t->whole_dims ? ceil(high) : high, n_rot - 1);
    return fmin(fmax((i - low) / fmax(high - low, 0.001), 0), 1);
}

/* The same of Llama 3, by the wave's length. */
static double llama3_ramp(const tsr_rope_turns *t, double frequency)
{
    const double turns = (double)t->original_context * frequency / TWO_PI;

    return 1 - fmin(fmax((turns - t->slow) / (t->fast - t->slow), 0), 1);
}

tsr_status tsr_rope_make(tsr_rope_turns *t, int n_rot, const double *factors)
{
    if (!(t->base > 1 && t->base < 1e15)) {
        return tsr_fail(TSR_ERR_FORMAT, "a rotary base of %g", t->base);
    }
    if (!(t->factor >= 1e-3 && t->factor <= 1e6)) {
        return tsr_fail(TSR_ERR_FORMAT, "rotary positions are scaled by %g", t->factor);
    }
    if (!(t->magnitude > 0 && t->magnitude < 1e6F)) {
        return tsr_fail(TSR_ERR_FORMAT, "rotary cosines are multiplied by %g",
                        (double)t->magnitude);
    }
    if ((t->scaling == TSR_ROPE_SCALING_YARN || t->scaling == TSR_ROPE_SCALING_LLAMA3) &&
        !(t->original_context >= 1 && t->slow > 0 && t->fast > t->slow)) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "rotary scaling from %lld positions, ramp from %g to %g turns",
                        (long long)t->original_context, t->slow, t->fast);
    }
    t->frequencies = tsr_alloc((size_t)n_rot / 2, sizeof(*t->frequencies));
    if (t->frequencies == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d rotary frequencies", n_rot / 2);
    }
    for (int i = 0; i < n_rot / 2; i++) {
        const double frequency = pow(t->base, -2.0 * i / n_rot);
        double ramp = 0;

        switch (t->scaling) {
        case TSR_ROPE_SCALING_LINEAR:
            ramp = 1;
            break;
        case TSR_ROPE_SCALING_YARN:
            ramp = yarn_ramp(t, n_rot, i);
            break;
        case TSR_ROPE_SCALING_LLAMA3:
            ramp = llama3_ramp(t, frequency);
            break;
        default:
            break;
        }
        t->frequencies[i] = frequency / t->factor * ramp + frequency * (1 - ramp);
        if (factors != NULL) {
            if (!(factors[i] > 1e-6 && factors[i] < 1e6)) {
                return tsr_fail(TSR_ERR_FORMAT, "rotary factor %d is %g", i, factors[i]);
            }
            t->frequencies[i] /= factors[i];
        }
    }
    return TSR_OK;
}

void tsr_rope_clear(tsr_rope_turns *turns)
{
    tsr_free(turns->frequencies);
    *turns = (tsr_rope_turns){0};
}
