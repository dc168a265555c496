/*
 * kernels/attention_tile.h - some rows and heads of one sequence over one run of its positions:
 * what they see of it, where it lies, and their part of the softmax. Private to the room.
 *
 * A strip is the query heads of one KV head, in pieces of at most TSR_ATTENTION_STRIP_HEADS. A tile
 * is a strip of some rows. Its queries are numbered row by row.
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
    int padded_dim;
    int part_floats;   /* padded_dim + TSR_ATTENTION_PART_TAIL */
    int strips_a_head; /* of a KV head */
    int n_strips;
    int strip_heads; /* at most in one */
} tsr_attention_call;

/* Memory of one thread. */
typedef struct tsr_attention_bench {
    float *q;      /* [QUERIES, key_dim] */
    float *pairs;  /* [QUERIES, 2, tsr_attention_pairs()] */
    float *scores; /* [QUERIES, TSR_ATTENTION_RUN] */
    float *parts;  /* [QUERIES, part_floats] */
    float *states; /* [QUERIES, part_floats] */
    float *keys;   /* [TSR_ATTENTION_RUN, key_dim] */
    float *values; /* [TSR_ATTENTION_RUN, padded_dim] */
    float *scales; /* [3, TSR_ATTENTION_RUN] of keys, of values, and what is centred */
    float *means;  /* [TSR_ATTENTION_GROUPS, 2, tsr_attention_pairs()] */
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
    int n_rows;
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

/* The row_tile-th tile_rows rows of a sequence, and strip `strip`. */
tsr_attention_rows tsr_attention_tile_at(const tsr_attention_call *c, int seq, int64_t row_tile,
                                         int64_t tile_rows, int strip);

/* Runs outside [first, end) are not seen by any row of the sequence. */
int64_t tsr_attention_tile_first_run(const tsr_attention_call *c, const tsr_attention_sequence *in);
int64_t tsr_attention_tile_end_run(const tsr_attention_sequence *in);

/* The tile's queries, as attend() wants them, into the bench. */
void tsr_attention_tile_queries(const tsr_attention_call *c, const tsr_attention_rows *t,
                                const tsr_attention_bench *b);

/*
 * parts[query] over run `run`; l is 0 where a query sees nothing of it. Later is the tile and run
 * that this thread takes next, to be asked for in time; or NULL.
 */
void tsr_attention_tile_attend(const tsr_attention_call *c, const tsr_attention_rows *t,
                               int64_t run, const tsr_attention_bench *b, float *parts,
                               const tsr_attention_rows *later, int64_t later_run);

/* state = state merged with a part behind it; a state that has seen nothing has l = 0. */
void tsr_attention_tile_merge(const tsr_attention_call *c, float *state, const float *part);

/* The tile's query into out[row, head], with its sink; the state is used up. */
void tsr_attention_tile_finish(const tsr_attention_call *c, tsr_tensor out, int64_t row, int head,
                               float *state);

static inline float *tsr_attention_tile_sum(const tsr_attention_call *c, float *part)
{
    return part + c->padded_dim + 1; /* l */
}

#endif
