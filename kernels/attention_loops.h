/*
 * kernels/attention_loops.h - a run of tokens against the queries that share it. Private to the
 * room; a copy for each instruction set.
 *
 * For one query over the n tokens of a run that it sees, all in f32:
 *   s[t] = q . k[t]           one chain of fma, dimensions ascending; q was multiplied by the scale
 *   m    = max s[t]
 *   e[t] = exp(s[t] - m)      v16_exp of kernels/simd.h
 *   l    = sum e[t]           sixteen lanes (t % 16, ascending), the lanes by v16_sum
 *   o[d] = sum e[t] v[t][d]   one chain of fma, tokens ascending
 * and two results merge as kernels/ops.h says, o = fma(o_run, e^(m_run - m'), o e^(m - m')), l
 * likewise. How queries, tokens and dimensions are grouped for speed does not enter: each chain is
 * the same, alone or in a crowd.
 */
#ifndef TSR_KERNELS_ATTENTION_LOOPS_H
#define TSR_KERNELS_ATTENTION_LOOPS_H

#include "kernels/backend.h"

enum {
    TSR_ATTENTION_GROUPS = TSR_ATTENTION_RUN / 16,
    TSR_ATTENTION_PART_TAIL = 16 /* behind o of a part: m, l, and room up to a cache line */
};

/* Keys and values of one head over one run, in groups of 16 tokens. */
typedef struct tsr_attention_run {
    tsr_kv_type type;
    int key_dim;
    int padded_dim;
    int key_stride;                           /* elements from one dimension of a key to the next */
    const void *keys[TSR_ATTENTION_GROUPS];   /* [key_dim, 16], rows key_stride apart */
    const void *values[TSR_ATTENTION_GROUPS]; /* [16, padded_dim] */
} tsr_attention_run;

/*
 * Queries over one run. Each sees the run's first n_seen tokens; n_seen does not fall from one
 * query to the next. A part is [padded_dim + TSR_ATTENTION_PART_TAIL]: o, m, l.
 */
typedef struct tsr_attention_tile {
    int n_queries;
    const int *n_seen; /* [n_queries], each 1 or more */
    const float *q;    /* [n_queries, key_dim], scaled */
    float *scores;     /* [n_queries, TSR_ATTENTION_RUN], to work in */
    float *parts;      /* [n_queries], written */
    bool from_memory;  /* the run is not near yet: ask for its values while the scores are made */
    const tsr_attention_run *then; /* asked for while the values are gathered: what this thread
                                      reads next; or NULL */
} tsr_attention_tile;

typedef struct tsr_attention_loops {
    void (*attend)(const tsr_attention_run *run, const tsr_attention_tile *tile);

    /* Copy a run's first n_tokens to f32 keys [groups, key_dim, 16] and values [groups, 16,
     * padded_dim]. */
    void (*widen)(tsr_attention_run *out, float *keys, float *values, const tsr_attention_run *run,
                  int n_tokens);

    void (*scale)(float *out, const float *q, int key_dim, float scale);

    /* state = state merged with a part of the run that follows it. */
    void (*merge)(float *state, const float *part, int padded_dim);

    /* out = o / l. */
    void (*finish)(float *out, const float *state, int value_dim);
} tsr_attention_loops;

TSR_ISA_DECLARE(tsr_attention_loops, tsr_attention_loops);

#endif
