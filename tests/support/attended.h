/*
 * tests/support/attended.h - a cache of random keys and values, steps over it, and what attention
 * should give, in double.
 */
#ifndef TSR_TESTS_SUPPORT_ATTENDED_H
#define TSR_TESTS_SUPPORT_ATTENDED_H

#include "tests/support/device.h"

enum {
    N_LAYERS = 2,
    LAYER = 1,
    MAX_SEQS = 6,
    CONTEXT = 1100
};

/* What a step is made of. */
typedef struct step {
    int n_seqs;
    int first_pos[MAX_SEQS];
    int n_rows[MAX_SEQS];
} step;

/* What attention is asked for beyond plain causal softmax. */
typedef struct asked {
    int value_dim; /* 0: as head_dim */
    bool latent;
    bool by_token; // where there is no stride, which asks for it anyhow
    float softcap;
    int window, stride, local;
    bool slopes, sinks;
} asked;

typedef struct setting {
    int n_heads, group, first_head, head_dim, block_tokens;
    tsr_kv_type type;
    step work;
    asked asked;
} setting;

/* A cache of MAX_SEQS sequences with random keys and values for all positions; what is in the pool
 * is only what was written. */
typedef struct cache {
    tsr_kv_layout layout;
    tsr_kv_view view;
    tsr_kv_drift drift; // half of the dimensions turn
    size_t n_bytes;
    char *host;        // [n_bytes] the second place, once blocks were spilled
    tsr_tensor tables; // slots in no order
    float *k, *v;      // [MAX_SEQS, CONTEXT, kv heads * key_dim or value_dim]
    float *q;          // [MAX_SEQS, CONTEXT, heads * key_dim]
    tsr_attention_shape shape;
} cache;

void make_cache(cache *c, const setting *s);
void clear_cache(cache *c);

/* Move every block but each third into the host pool, and poison where it was. */
void spill(cache *c);

int64_t kv_cols(const cache *c); /* of keys */
int lane_of(const step *work, int s);
tsr_batch make_batch(const cache *c, const step *work);
void clear_batch(tsr_batch *batch);

/* The rows of a step out of [MAX_SEQS, CONTEXT, n_cols]. */
tsr_tensor pick(const float *all, const step *work, int64_t n_cols);
void write_step(tsr_device *dev, const cache *c, const step *work);

/* Everything before the step's first positions. */
void write_past(tsr_device *dev, const cache *c, const step *work);
tsr_tensor attend_step(tsr_device *dev, const cache *c, const step *work);

/* How far from what is exact, or from the CPU's, a result may be: `exact`, but of a GPU that rounds
 * otherwise what the type of the cache allows. */
double attended_tolerance(tsr_kv_type type, double exact);

/* Fails unless out is within `most` of the oracle, or what attended_tolerance() makes of it. */
void compare_with_oracle(tsr_tensor out, const cache *c, const step *work, double most);
tsr_device *open_for(const setting *s, int n_threads);

#endif
