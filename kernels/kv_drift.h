/*
 * kernels/kv_drift.h - how keys change from one position to the next, where nothing else does:
 * pairs of dimensions turn, each by its own angle (Su et al., arXiv 2104.09864). Dimensions that do
 * not turn are paired as well, by an angle of 0.
 *
 * A vector is *split* where the first dimensions of all pairs come before the second ones:
 * [2, n_pairs]. With an odd number of dimensions the last second one is 0.
 */
#ifndef TSR_KERNELS_KV_DRIFT_H
#define TSR_KERNELS_KV_DRIFT_H

#include "kernels/kv_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_rope_pairs {
    TSR_ROPE_INTERLEAVED, /* dimensions (2i, 2i + 1) turn together */
    TSR_ROPE_HALVES,      /* dimensions (i, i + n_rot / 2) */
    TSR_ROPE_PAIRS_COUNT
} tsr_rope_pairs;

enum {
    TSR_KV_DRIFT_MOST_PAIRS = TSR_KV_LAYOUT_MOST_DIM / 2
};

typedef struct tsr_kv_drift {
    int key_dim;
    int n_pairs; /* half of key_dim, rounded up */
    int16_t first[TSR_KV_DRIFT_MOST_PAIRS];
    int16_t second[TSR_KV_DRIFT_MOST_PAIRS];
    float cosines[TSR_KV_DRIFT_MOST_PAIRS][TSR_KV_LAYOUT_GROUP]; /* of 1 .. 16 positions */
    float sines[TSR_KV_DRIFT_MOST_PAIRS][TSR_KV_LAYOUT_GROUP];
} tsr_kv_drift;

/* Dimensions [first, first + n_rot) of key_dim turn, by frequencies [n_rot / 2] a position; with
 * n_rot 0 none does. */
void tsr_kv_drift_init(tsr_kv_drift *drift, int key_dim, const double *frequencies, int n_rot,
                       int first, tsr_rope_pairs pairs);

void tsr_kv_drift_split(const tsr_kv_drift *drift, float *split, const float *x);
void tsr_kv_drift_join(const tsr_kv_drift *drift, float *x, const float *split);

/* A split vector as it is n positions later, -16 .. 16. In place. */
void tsr_kv_drift_turn(const tsr_kv_drift *drift, float *split, int n);

#ifdef __cplusplus
}
#endif

#endif
