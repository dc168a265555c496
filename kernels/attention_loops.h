/*
 * kernels/attention_loops.h - a run of tokens against the queries that share it. Private to the
 * room; a copy for each instruction set.
 *
 * For one query over the tokens of a run that it sees, all in f32:
 *   s[t] = q . k[t]           one chain of fma, dimensions ascending; q was multiplied by the scale
 *   s[t] = fma(centred, q . mean[t], s[t] scale[t])   over codes; likewise e[t] *= scale[t],
 *        behind l; q . mean[t] is the sum of two chains of fma over the pairs j of
 * kernels/kv_drift.h: cos_j[t] (q m)_j and sin_j[t] (q x m)_j s[t] = c tanh(s[t] / c)   with a soft
 * cap, as c - 2 c / (e^(2 s[t] / c) + 1) s[t] = fma(slope, t - p, s[t]) m    = max s[t] e[t] =
 * exp(s[t] - m)      v16_exp of kernels/simd.h l    = sum e[t]           sixteen lanes (t % 16,
 * ascending), the lanes by v16_sum o[d] = sum e[t] v[t][d]   one chain of fma, tokens ascending and
 * two results merge as kernels/ops.h says, o = fma(o_run, e^(m_run - m'), o e^(m - m')), l
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
    int key_stride; /* elements from one dimension of a key to the next */
    /* [key_dim, 16], rows key_stride apart; rows of bytes for int4 and int2. NULL: nothing of the
     * group is seen */
    const void *keys[TSR_ATTENTION_GROUPS];
    /* [16, padded_dim]; NULL also where the values are in the keys */
    const void *values[TSR_ATTENTION_GROUPS];
    /* Of tokens that lie by themselves: NULL, or where each lies. Their keys are set upright before
     * they are attended, their values are read there. */
    const char *const *key_rows;   /* [TSR_ATTENTION_RUN] */
    const char *const *value_rows; /* [TSR_ATTENTION_RUN], of padded_dim */
    /* What codes stand for (kernels/kv_code.h); NULL over numbers. */
    const float *key_scales;   /* [TSR_ATTENTION_RUN] */
    const float *value_scales; /* [TSR_ATTENTION_RUN] */
    const float *centred;      /* [TSR_ATTENTION_RUN] 1 where the mean was taken off, 0 elsewhere */
    const float *means;        /* [groups, 2, tsr_attention_pairs()] split, or NULL */
    const tsr_kv_drift *drift; /* how they change within a group; NULL where each token has a mean
                                  of its own, [groups, 2, tsr_attention_pairs(), 16] */
} tsr_attention_run;

/* Pairs of dimensions, rounded up to whole vectors. */
static inline int tsr_attention_pairs(int key_dim)
{
    return ((key_dim + 1) / 2 + 15) / 16 * 16;
}

typedef struct tsr_attention_range {
    int first, end; /* tokens of a run */
} tsr_attention_range;

/*
 * Queries over one run. Query i sees tokens seen[i], of which there is at least one; neither end
 * falls from one query to the next. A part is [padded_dim + TSR_ATTENTION_PART_TAIL]: o, m, l.
 */
typedef struct tsr_attention_tile {
    int n_queries;
    int n_heads; /* queries a row: the first is that of a row's first head */
    const tsr_attention_range *seen;
    float softcap;       /* 0: none */
    const float *slopes; /* [n_heads] or NULL */
    float distance;      /* from the first row to the run's first token, in positions */
    float step;          /* from one token to the next */
    float row_step;      /* from one row to the next */
    float slopes_scale;  /* > 0: slopes_scale * bf16(slope * t) instead, */
    float first_token;   /* with t of the run's first token */
    const float *q;      /* [n_queries, key_dim], scaled */
    const float *pairs;  /* [n_queries, 2, tsr_attention_pairs()] the same not turned and split,
                            where there are means */
    float *scores;       /* [n_queries, TSR_ATTENTION_RUN], to work in */
    float *parts;        /* [n_queries], written */
    bool from_memory;    /* the run is not near yet: ask for its values while the scores are made */
    const tsr_attention_run *then; /* asked for while the values are gathered: what this thread
                                      reads next; or NULL */
} tsr_attention_tile;

typedef struct tsr_attention_loops {
    void (*attend)(const tsr_attention_run *run, const tsr_attention_tile *tile);

    /* Copy tokens [from, to) of a run, and those beside them in their groups, to f32 keys [groups,
     * key_dim, 16] and values [groups, 16, padded_dim]. */
    void (*widen)(tsr_attention_run *out, float *keys, float *values, const tsr_attention_run *run,
                  int from, int to);

    /* Of the 16 tokens of a group: |from|, and 1 where the sign is set. centred may be
     * NULL. */
    void (*widen_scales)(float *scales, float *centred, const uint16_t *from);

    /* Sixteen rows of n_cells numbers of cell_bytes, 1, 2 or 4, become columns: to [n_cells, 16].
     */
    void (*set_upright)(void *to, const char *const rows[16], int n_cells, int cell_bytes);

    /* The means of 16 tokens, each turned to its place in its own group: to [2, pairs, 16] from
     * codes [2, drift->n_pairs, 16]. */
    void (*turn_means)(float *to, const int8_t *codes, const float *scales, const uint8_t *places,
                       const tsr_kv_drift *drift);

    /* codes * scale, zeros up to a multiple of 16. */
    void (*widen_mean)(float *mean, const int8_t *codes, int n, float scale);

    /* tsr_kv_code_turn, the same bits. */
    void (*turn)(float *x, int dim, int unit);

    void (*scale)(float *out, const float *q, int key_dim, float scale);

    /* state = state merged with a part of the run that follows it. */
    void (*merge)(float *state, const float *part, int padded_dim);

    /* out = o / l. */
    void (*finish)(float *out, const float *state, int value_dim);
} tsr_attention_loops;

TSR_ISA_DECLARE(tsr_attention_loops, tsr_attention_loops);

#endif
