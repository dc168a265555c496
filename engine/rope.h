/*
 * engine/rope.h - how fast each pair of rotary dimensions turns: the base and its scalings.
 */
#ifndef TSR_ENGINE_ROPE_H
#define TSR_ENGINE_ROPE_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_rope_scaling {
    TSR_ROPE_SCALING_NONE,
    TSR_ROPE_SCALING_LINEAR,  /* positions divided by the factor */
    TSR_ROPE_SCALING_YARN,    /* Peng et al., arXiv 2309.00071 */
    TSR_ROPE_SCALING_LLAMA3,  /* slow waves stretched by the factor, fast ones not, with a ramp */
    TSR_ROPE_SCALING_FACTORS, /* each frequency divided by a factor of its own */
    TSR_ROPE_SCALING_COUNT
} tsr_rope_scaling;

typedef struct tsr_rope_turns {
    double base;
    tsr_rope_scaling scaling;
    double factor;
    int64_t original_context; /* before scaling */
    double fast, slow;        /* YaRN: turns over the original context from which, and up to which,
                                 the ramp goes (32, 1). Llama 3: the same as its high and low
                                 frequency factors (4, 1) */
    bool whole_dims;          /* YaRN: the ramp's ends are whole dimensions */
    float magnitude;          /* multiplies cosine and sine */
    double *frequencies;      /* [n_rot / 2] radians a position, all scaling done; owned */
} tsr_rope_turns;

/* With scaling FACTORS: [n_rot / 2] of them. Fills turns->frequencies. Errors: FORMAT (numbers that
 * make no sense), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_rope_make(tsr_rope_turns *turns, int n_rot, const double *factors);
void tsr_rope_clear(tsr_rope_turns *turns); /* fine on {0} */

/* YaRN's 0.1 m ln(factor) + 1, or 1 for factors up to 1. */
double tsr_rope_yarn_magnitude(double factor, double m);

#ifdef __cplusplus
}
#endif

#endif
