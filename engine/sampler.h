/*
 * engine/sampler.h - from the best candidates of a row to its next token. Pure: no state, no
 * device.
 *
 * temperature 0 takes the best candidate. Otherwise the distribution softmax(logits *
 * sharpness) is cut by top-k, then top-p, then min-p, then typical-p, and one uniform number picks
 * by inverse distribution over the candidates in falling order. The number depends on (seed,
 * position) alone, through a counter-based generator (Philox4x32-10: Salmon et al., SC'11), so a
 * token never depends on its neighbours.
 *
 * Usually the gathered candidates decide; when the answer may lie beyond them, UNDECIDED is
 * returned and the caller gets the whole row.
 */
#ifndef TSR_ENGINE_SAMPLER_H
#define TSR_ENGINE_SAMPLER_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_sampling {
    float temperature; /* >= 0; 0 is greedy */
    int top_k;         /* 0: all */
    float top_p;       /* (0, 1]; 1: all */
    float min_p;       /* [0, 1]; 0: all. Keeps tokens with p >= min_p * p(best) */
    float typical_p;   /* [0, 1]; 0 or 1: all. Keeps the tokens whose surprise -log p is nearest to
                          the   entropy of what the other filters left, until they have this mass
                          (Meister et   al., arXiv 2202.00666) */
    uint64_t seed;
} tsr_sampling;

/* ARG with words when a field is out of range or not a number. */
TSR_MUST_CHECK tsr_status tsr_sampler_check(const tsr_sampling *sampling);

/* How many candidates a row should gather for these settings. With them, can the answer still lie
 * beyond? */
int tsr_sampler_n_candidates(const tsr_sampling *sampling);
bool tsr_sampler_may_ask(const tsr_sampling *sampling);

/* 1 / temperature as everyone must take it, the ranks' masses included: rounded to f32, at most
 * 1e8; 1 for greedy. */
float tsr_sampler_sharpness(const tsr_sampling *sampling);

typedef struct tsr_candidates {
    const int32_t *ids;  /* [n] by falling logit, lower id first among equals; none is -1 */
    const float *logits; /* [n] raw */
    int n;
    bool all;        /* these are all tokens of the vocabulary */
    double log_mass; /* log sum over the whole vocabulary of exp(logit * sharpness) */
} tsr_candidates;

typedef enum tsr_sampler_verdict {
    TSR_SAMPLER_DECIDED,
    TSR_SAMPLER_UNDECIDED /* give the whole row: candidates.all */
} tsr_sampler_verdict;

/*
 * position: the index that the token will have in its sequence, the prompt included.
 * DECIDED from some candidates is what the whole row would give with the same log_mass. A best
 * logit that is infinite is taken as it is: the first candidate.
 */
tsr_sampler_verdict tsr_sampler_pick(const tsr_sampling *sampling, int64_t position,
                                     const tsr_candidates *candidates, int32_t *token);

/* One block of Philox4x32-10. */
void tsr_sampler_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

/* Uniform in [0, 1), from 53 bits of Philox4x32-10 with key `seed` and counter (position, stream).
 */
double tsr_sampler_uniform(uint64_t seed, int64_t position, uint32_t stream);

/* The seed of the i-th sample of a generation, i >= 0; that of the 0th is `seed` itself. */
uint64_t tsr_sampler_seed_of(uint64_t seed, int i);

/* log of the whole mass from the masses of vocabulary units in order: parts [2 * n_units] as (m,
 * sum) pairs (kernels/ops.h, tsr_top_k; m is not yet divided by the temperature: pair i stands for
 * sum * exp(m * sharpness)). Empty units have m = -infinity. */
double tsr_sampler_log_mass(const float *parts, int64_t n_units, double sharpness);

#ifdef __cplusplus
}
#endif

#endif
