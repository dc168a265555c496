/*
 * parallel/shard.h - what rank r of n owns. Pure arithmetic: no MPI, no device, no memory.
 *
 * Megatron's split (arXiv 1909.08053): query/key/value and gate/up by output rows, O and down by
 * input columns, embedding and head by vocabulary. Nothing need divide: units are dealt out as
 * evenly as they go, the first ranks taking one more, and a rank may own nothing.
 *
 * Attention. The unit is a bundle of whole query heads. While there is one for every rank the
 * bundle is a KV group (one KV head and the query heads that read it; several groups when their
 * columns are no multiple of the quantisation group). When ranks outnumber these, query heads are
 * dealt out one by one (or in the smallest bundles that are whole quantisation groups) and a KV
 * head is kept by every neighbour that reads it. The same is done where it takes query heads from
 * the busiest rank and gives no rank more KV heads than whole groups would: 9 heads over 3 KV heads
 * on 2 ranks go 5 + 4 with 2 KV heads each, not 6 + 3 with 2 and 1.
 *
 * Grains. A row-split matrix is summed a grain at a time; a grain is a fixed run of input columns,
 * the same for every n, and a rank owns whole grains.
 *
 * Vocabulary. Dealt out in runs of a power of two of rows, a function of its size only.
 */
#ifndef TSR_PARALLEL_SHARD_H
#define TSR_PARALLEL_SHARD_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_SHARD_GROUP = 32,    /* columns a quantisation group: every cut is a multiple of it */
    TSR_SHARD_MAX_RANKS = 64 /* what the tests sweep; more is not refused here */
};

/* A half-open run [first, first + count). */
typedef struct tsr_range {
    int64_t first;
    int64_t count;
} tsr_range;

/* The sizes of a model that decide how it is split. */
typedef struct tsr_shard_shape {
    int n_heads;
    int n_kv_heads; /* divides n_heads */
    int head_dim;
    int64_t dim;    /* of the residual stream */
    int64_t ff_dim; /* inner width of the feed-forward */
    int64_t n_vocab;
} tsr_shard_shape;

/* All that one rank owns. */
typedef struct tsr_shard {
    tsr_range heads;    /* query heads */
    tsr_range kv_heads; /* KV heads kept here: those that `heads` read; neighbours may share one at
                           the edges */
    tsr_range ff;       /* columns of the feed-forward */
    tsr_range vocab;    /* rows of embedding and head */
} tsr_shard;

/* n items over n_ranks in whole units (the last unit may be short): the run of `rank`. */
tsr_range tsr_shard_deal(int64_t n_items, int64_t unit, int rank, int n_ranks);

/* ARG if a size is not positive or n_kv_heads does not divide n_heads. */
TSR_MUST_CHECK tsr_status tsr_shard_check(const tsr_shard_shape *shape);
tsr_shard tsr_shard_of(const tsr_shard_shape *shape, int rank, int n_ranks);

/* Columns a grain of the O projection and of the down projection; multiples of TSR_SHARD_GROUP, or
 * the whole width when it is less. */
int64_t tsr_shard_attention_grain(const tsr_shard_shape *shape);
int64_t tsr_shard_ff_grain(const tsr_shard_shape *shape);

/* Rows of vocabulary a unit: a power of two >= 16. */
int64_t tsr_shard_vocab_unit(int64_t n_vocab);

/* ---- weights -----------------------------------------------------------------------------------
 */

/* How a weight [rows, columns] is cut. One table (shard.c) says it for every weight; see
 * docs/architecture.md. */
typedef enum tsr_shard_rule {
    TSR_SHARD_WHOLE,     /* every rank has all of it: norms, biases behind an all-reduce */
    TSR_SHARD_HEAD_ROWS, /* rows of the own query heads */
    TSR_SHARD_KV_ROWS,   /* rows of the own KV heads */
    TSR_SHARD_HEAD_COLS, /* columns of the own query heads */
    TSR_SHARD_FF_ROWS,
    TSR_SHARD_FF_COLS,
    TSR_SHARD_VOCAB_ROWS,
    TSR_SHARD_RULE_COUNT
} tsr_shard_rule;

/* Every weight of a transformer layer or around the layers. */
typedef enum tsr_shard_role {
    TSR_ROLE_EMBED,
    TSR_ROLE_HEAD,
    TSR_ROLE_FINAL_NORM,
    TSR_ROLE_ATTN_NORM,
    TSR_ROLE_FF_NORM,
    TSR_ROLE_Q,
    TSR_ROLE_K,
    TSR_ROLE_V,
    TSR_ROLE_O,
    TSR_ROLE_GATE,
    TSR_ROLE_UP,
    TSR_ROLE_DOWN,
    TSR_ROLE_COUNT
} tsr_shard_role;

tsr_shard_rule tsr_shard_rule_of(tsr_shard_role role);

/* The rule of the bias that belongs to the weight: rows are cut with the weight's rows; behind an
 * all-reduce it is WHOLE. */
tsr_shard_rule tsr_shard_bias_rule_of(tsr_shard_role role);

/* The rows and columns of a weight [n_rows, n_cols] that `shard` owns under `rule`. */
void tsr_shard_window(const tsr_shard_shape *shape, const tsr_shard *shard, tsr_shard_rule rule,
                      int64_t n_rows, int64_t n_cols, tsr_range *rows, tsr_range *cols);

#ifdef __cplusplus
}
#endif

#endif
