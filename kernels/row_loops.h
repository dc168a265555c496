/*
 * kernels/row_loops.h - the loops of the ops that go along rows, a copy for each instruction set.
 * Private to the room. No window overlaps another unless it is said.
 */
#ifndef TSR_KERNELS_ROW_LOOPS_H
#define TSR_KERNELS_ROW_LOOPS_H

#include "kernels/backend.h"

typedef struct tsr_row_loops {
    void (*widen)(double *out, const float *x, int64_t n);
    void (*narrow)(float *out, const double *const *parts, int n_parts, int64_t n);
    /* bias or NULL */
    void (*add_sums)(float *x, const double *const *parts, int n_parts, const float *bias,
                     int64_t n);
    void (*rmsnorm)(float *out, const float *x, const float *weight, int64_t n,
                    float eps); /* out may be x */
    /* bias or NULL; out may be x */
    void (*layernorm)(float *out, const float *x, const float *weight, const float *bias, int64_t n,
                      float eps);
    float (*squares)(const float *x, int64_t n); /* their sum, as in rmsnorm */
    /* up or NULL; out may be gate */
    void (*activate)(float *out, const float *gate, const float *up, int64_t n, float weight,
                     tsr_activation activation);
    void (*scale)(float *x, int64_t n, float factor, float cap);
    void (*add_scaled)(float *x, const float *y, int64_t n, float factor);
    void (*rope)(float *x, const float *angles, int n_rot, tsr_rope_pairs pairs); /* one head */

    /* out = x rounded to a type of the cache. */
    void (*round)(void *out, const float *x, int64_t n, tsr_kv_type type);
} tsr_row_loops;

TSR_ISA_DECLARE(tsr_row_loops, tsr_row_loops);

#endif
