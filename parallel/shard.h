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
 *
 * Experts. Dealt out whole, or each cut by columns like a feed-forward, whichever gives the busiest
 * rank less; whole when it is the same. Sums do not depend on it: a grain is a grain.
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
    int64_t ff_dim; /* inner width of the feed-forward; 0: every layer has experts instead */
    int64_t n_vocab;
    int value_dim;       /* columns a head gives to O; 0: head_dim */
    int n_experts;       /* 0: no layer has experts */
    int64_t expert_ff;   /* inner width of an expert */
    int64_t shared_ff;   /* inner width of the expert that every token takes; 0: there is none */
    int64_t n_positions; /* rows of a table of learned positions; 0: there is none */
} tsr_shard_shape;

/* All that one rank owns. */
typedef struct tsr_shard {
    tsr_range heads;     /* query heads */
    tsr_range kv_heads;  /* KV heads kept here: those that `heads` read; neighbours may share one at
                            the edges */
    tsr_range ff;        /* columns of the feed-forward */
    tsr_range vocab;     /* rows of embedding and head */
    tsr_range experts;   /* experts of which something is here */
    tsr_range expert_ff; /* the columns of each of them */
    tsr_range shared_ff;
    tsr_range positions; /* rows of the table of learned positions */
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

/* The same of any feed-forward of this inner width: an expert's, the shared one's. */
int64_t tsr_shard_grain_of(int64_t ff_dim);

/* Columns a head gives to O. */
int tsr_shard_value_dim(const tsr_shard_shape *shape);

/* Whether the query head that stands for a KV head in sums over KV heads is here: of ranks that
 * keep the same KV head exactly one. */
bool tsr_shard_counts_kv_head(const tsr_shard_shape *shape, const tsr_shard *shard,
                              int64_t kv_head);

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
    TSR_SHARD_EXPERT_ROWS, /* rows of the own columns of an expert */
    TSR_SHARD_EXPERT_COLS,
    TSR_SHARD_SHARED_ROWS, /* the same of the shared expert */
    TSR_SHARD_SHARED_COLS,
    TSR_SHARD_POSITION_ROWS,
    TSR_SHARD_HEADS, /* one number a query head */
    TSR_SHARD_RULE_COUNT
} tsr_shard_rule;

/* Every weight of a transformer layer or around the layers. */
typedef enum tsr_shard_role {
    TSR_ROLE_EMBED,
    TSR_ROLE_POSITIONS,  /* learned positions */
    TSR_ROLE_EMBED_NORM, /* behind the embedding */
    TSR_ROLE_EMBED_UP,   /* from the embedding's width to the layers' */
    TSR_ROLE_HEAD_DOWN,  /* and back, in front of the head */
    TSR_ROLE_HEAD,
    TSR_ROLE_FINAL_NORM,
    TSR_ROLE_ATTN_NORM,
    TSR_ROLE_FF_NORM,
    TSR_ROLE_ATTN_POST_NORM, /* of what attention gives, before it joins the residual stream */
    TSR_ROLE_FF_POST_NORM,
    TSR_ROLE_Q,
    TSR_ROLE_K,
    TSR_ROLE_V,
    TSR_ROLE_O,
    TSR_ROLE_Q_HEAD_NORM, /* one vector for all heads */
    TSR_ROLE_K_HEAD_NORM,
    TSR_ROLE_Q_HEADS_NORM, /* a vector a head, each head by itself */
    TSR_ROLE_K_HEADS_NORM,
    TSR_ROLE_Q_WIDE_NORM, /* over the whole width of Q */
    TSR_ROLE_K_WIDE_NORM,
    TSR_ROLE_SINKS,
    TSR_ROLE_Q_LOW, /* latent attention: x to the latent of Q, and its norm */
    TSR_ROLE_Q_LOW_NORM,
    TSR_ROLE_KV_LOW, /* x to the latent of K and V, with the rotary part of K; and its norm */
    TSR_ROLE_KV_LOW_NORM,
    TSR_ROLE_K_UP, /* one head: Q without its rotary part to the latent of K */
    TSR_ROLE_V_UP, /* one head: the latent of V to V */
    TSR_ROLE_GATE,
    TSR_ROLE_UP,
    TSR_ROLE_DOWN,
    TSR_ROLE_ROUTER,
    TSR_ROLE_EXPERT_GATE,
    TSR_ROLE_EXPERT_UP,
    TSR_ROLE_EXPERT_DOWN,
    TSR_ROLE_SHARED_SCALE, /* one row: how much of the shared expert a token takes */
    TSR_ROLE_SHARED_GATE,
    TSR_ROLE_SHARED_UP,
    TSR_ROLE_SHARED_DOWN,
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
