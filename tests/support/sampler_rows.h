/*
 * tests/support/sampler_rows.h - rows of logits as ranks give them to the sampler, and what the
 * sampler's filters mean, by definition.
 */
#ifndef TSR_TESTS_SUPPORT_SAMPLER_ROWS_H
#define TSR_TESTS_SUPPORT_SAMPLER_ROWS_H

#include "engine/sampler.h"

enum {
    MAX_VOCAB = 300
};

/* The whole of a row, sorted, and its mass as the ranks sum it: in f32, a unit at a time. */
typedef struct row {
    int n;
    int32_t ids[MAX_VOCAB];
    float logits[MAX_VOCAB];
    double log_mass;
} row;

void make_row(row *r, const float *logits, int n, const tsr_sampling *sampling);

/* Its n best, or all. */
tsr_candidates first_of(const row *r, int n);

/* The token that the whole row gives. */
int32_t pick_whole(const tsr_sampling *sampling, const row *r, int64_t position);

/* p [n]: the filters on probabilities of all tokens, one after the other. */
void exact_probabilities(double *p, const float *logits, int n, const tsr_sampling *sampling);

#endif
