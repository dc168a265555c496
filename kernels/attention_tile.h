/*
 * kernels/attention_tile.h - some rows and heads of one sequence over one run of its positions:
 * what they see of it, where it lies, and their part of the softmax. Private to the room.
 *
 * A strip is the query heads of one KV head, in pieces of at most TSR_ATTENTION_STRIP_HEADS. A tile
 * is a strip of some rows. Its queries are numbered row by row. With a stride the rows of a tile
 * lie it apart, so that they see the same single tokens.
 */
#ifndef TSR_KERNELS_ATTENTION_TILE_H
#define TSR_KERNELS_ATTENTION_TILE_H

#include "kernels/attention_loops.h"

enum {
    TSR_ATTENTION_QUERIES = 96, /* at most in a tile: they share what is read of a run */
    TSR_ATTENTION_STRIP_HEADS = 64,
    TSR_ATTENTION_MOST_PART =
        (TSR_KV_LAYOUT_MOST_DIM + 15) / 16 * 16 + TSR_ATTENTION_PART_TAIL /* part_floats */
};

/* What all tiles of one call share. */
typedef struct tsr_attention_call {
    const tsr_attention_loops *loops;
    tsr_tensor q;
    const tsr_kv_view *kv;
    const tsr_batch *batch;
    const tsr_attention_shape *shape;
    int64_t stride; /* at least 1 */
    int padded_dim;
    int part_floats;   /* padded_dim + TSR_ATTENTION_PART_TAIL */
    int strips_a_head; /* of a KV head */
    int n_strips;
    int strip_heads; /* at most in one */
} tsr_attention_call;

/* Memory of one thread. */
typedef struct tsr_attention_bench {
    float *q;            /* [QUERIES, key_dim] */
    float *pairs;        /* [QUERIES, 2, tsr_attention_pairs()] */
    float *scores;       /* [QUERIES, TSR_ATTENTION_RUN] */
    float *parts;        /* [QUERIES, part_floats] */
    float *states;       /* [QUERIES, part_floats] */
    float *keys;         /* [TSR_ATTENTION_RUN, key_dim] */
    float *values;       /* [TSR_ATTENTION_RUN, padded_dim] */
    float *scales;       /* [3, TSR_ATTENTION_RUN] of keys, of values, and what is centred */
    float *means;        /* [TSR_ATTENTION_RUN, 2, tsr_attention_pairs()] */
    char *picked_keys;   /* [TSR_ATTENTION_RUN, key_dim] of any type */
    char *picked_values; /* [TSR_ATTENTION_RUN, padded_dim] */
    const char **rows;   /* [3, TSR_ATTENTION_RUN] of keys, of values, and of the next run's keys */
} tsr_attention_bench;

typedef struct tsr_attention_sequence {
    int64_t first_row;
    int64_t n_rows;
    int64_t first_pos;
    const int32_t *slots;
} tsr_attention_sequence;

typedef struct tsr_attention_rows {
    int seq;
    tsr_attention_sequence in;
    int64_t first_row; /* within the sequence */
    int n_rows;        /* stride apart */
    int kv_head;
    int first_head;
    int n_heads; /* may be 0 at the edges */
} tsr_attention_rows;

static inline int64_t tsr_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}
static inline int64_t tsr_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t tsr_most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

tsr_attention_sequence tsr_attention_tile_sequence(const tsr_attention_call *c, int seq);

/* In how many tiles of so many rows a sequence falls. */
int64_t tsr_attention_tile_count(const tsr_attention_call *c, const tsr_attention_sequence *in,
                                 int64_t tile_rows);

/* The row_tile-th of them, of at most tile_rows rows, maybe none, and strip `strip`. */
tsr_attention_rows tsr_attention_tile_at(const tsr_attention_call *c, int seq, int64_t row_tile,
                                         int64_t tile_rows, int strip);

/*
 * The runs of some rows of a sequence, in the order in which they merge. Far ones, where there is a
 * stride: of TSR_ATTENTION_RUN * stride positions each, of which a row sees those of its own place
 * in the stride. Then near ones, of TSR_ATTENTION_RUN positions.
 */
typedef struct tsr_attention_runs {
    int64_t first_far, n_far;
    int64_t first_near, n_near;
} tsr_attention_runs;

tsr_attention_runs tsr_attention_tile_runs(const tsr_attention_call *c, int64_t first_pos,
                                           int64_t n_rows);

/* A run as a row sees it: token i of it is at position first + i * step. */
typedef struct tsr_attention_span {
    int64_t first, step;
    bool far;
} tsr_attention_span;

/* The i-th run for the row at first_pos, and those that are strides away from it. */
tsr_attention_span tsr_attention_tile_span(const tsr_attention_call *c,
                                           const tsr_attention_runs *runs, int64_t first_pos,
                                           int64_t i);

/* The tile's queries, as attend() wants them, into the bench. */
void tsr_attention_tile_queries(const tsr_attention_call *c, const tsr_attention_rows *t,
                                const tsr_attention_bench *b);

/* What a thread takes next. */
typedef struct tsr_attention_next {
    tsr_attention_rows rows;
    tsr_attention_span span;
} tsr_attention_next;

/*
 * parts[query] over a run; l is 0 where a query sees nothing of it. Next, which may be NULL, is
 * asked for in time.
 */
void tsr_attention_tile_attend(const tsr_attention_call *c, const tsr_attention_rows *t,
                               const tsr_attention_span *span, const tsr_attention_bench *b,
                               float *parts, const tsr_attention_next *next);

/* Where a block lies. */
static inline const char *tsr_attention_tile_block(const tsr_kv_view *kv, int32_t slot)
{
    return slot >= 0 ? (const char *)kv->pool + (size_t)slot * kv->block_bytes
                     : (const char *)kv->host_pool + (size_t)~slot * kv->block_bytes;
}

/* state = state merged with a part behind it; a state that has seen nothing has l = 0. */
void tsr_attention_tile_merge(const tsr_attention_call *c, float *state, const float *part);

/* The tile's query into out[row, head], with its sink; the state is used up. */
void tsr_attention_tile_finish(const tsr_attention_call *c, tsr_tensor out, int64_t row, int head,
                               float *state);

/* kernels/attention_pick.c: tokens [from, to) of a span, set side by side on the bench. */
void tsr_attention_pick(tsr_attention_run *run, const tsr_attention_call *c,
                        const tsr_attention_rows *t, const tsr_attention_span *span, int from,
                        int to, const tsr_attention_bench *b);

/* Only where their keys lie, for them to be asked for. */
void tsr_attention_pick_next(tsr_attention_run *run, const tsr_attention_call *c,
                             const tsr_attention_rows *t, const tsr_attention_span *span, int from,
                             int to, const tsr_attention_bench *b);

static inline float *tsr_attention_tile_sum(const tsr_attention_call *c, float *part)
{
    return part + c->padded_dim + 1; /* l */
}

#endif
