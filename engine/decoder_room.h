/*
 * engine/decoder_room.h - what the rows of a forward pass are held in, and the decoder's own
 * functions that pass it around. Private to engine/decoder*.c.
 */
#ifndef TSR_ENGINE_DECODER_ROOM_H
#define TSR_ENGINE_DECODER_ROOM_H

#include "engine/decoder.h"
#include "engine/decoder_beside.h"

#ifdef __cplusplus
extern "C" {
#endif

/* R is max_rows. What a model does not need has no columns. */
typedef struct tsr_decoder_room {
    tsr_tensor x;       /* f32 [R, dim] the residual stream, whole on every rank */
    tsr_tensor normed;  /* f32 [R, dim] what attention and feed-forward read */
    tsr_tensor joining; /* f32 [R, dim] what they give, where it is not added at once */
    tsr_tensor angles[TSR_CONFIG_ROPES]; /* f32 [R, n_rot] */
    tsr_tensor q;                        /* f32 [R, own heads * head_dim] */
    tsr_tensor k;                        /* f32 [R, own KV heads * head_dim] */
    tsr_tensor v;
    tsr_tensor mixed; /* f32 [R, own heads * value_dim] what attention gives */
    tsr_tensor gate;  /* f32 [R, own ff] */
    tsr_tensor up;

    tsr_tensor q_low;        /* f32 [R, q_low] */
    tsr_tensor latent;       /* f32 [R, kv_low + n_rot] */
    tsr_tensor q_latent;     /* f32 [R, own heads * (kv_low + n_rot)] */
    tsr_tensor mixed_latent; /* f32 [R, own heads * kv_low] */

    tsr_tensor routes;        /* f32 [R, experts] the router's logits */
    tsr_tensor chosen;        /* i32 [R, used] */
    tsr_tensor chosen_weight; /* f32 [R, used] */
    tsr_tensor expert_rows;   /* i32 [1, R * used] rows by expert */
    tsr_tensor expert_weight; /* f32 [1, R * used] */
    tsr_tensor expert_x;      /* f32 [R, dim] */
    tsr_tensor expert_gate;   /* f32 [R, own columns of an expert] */
    tsr_tensor expert_up;
    tsr_tensor expert_sum;   /* f64 [R, dim] */
    tsr_tensor shared_scale; /* f32 [R, 1] */
    tsr_tensor shared_gate;  /* f32 [R, own columns of the shared expert] */
    tsr_tensor shared_up;

    tsr_tensor wanted;                        /* f32 [HEAD_ROWS, dim] */
    tsr_tensor logits;                        /* f32 [HEAD_ROWS, own vocabulary] */
    tsr_tensor frequencies[TSR_CONFIG_ROPES]; /* f64 [1, n_rot / 2] */
    tsr_tensor slopes;                        /* f32 [1, own heads] */
    tsr_kv_drift *drifts; /* [TSR_CONFIG_ROPES + 1] of keys, by their rope; the last has none */
} tsr_decoder_room;

/* On the host: the chosen experts of a batch, sorted. */
typedef struct tsr_decoder_sorting {
    int32_t *chosen; /* [R * used] */
    float *weight;
    int32_t *rows; /* [R * used] by expert, rising */
    float *row_weight;
    int64_t *start; /* [experts + 1] */
} tsr_decoder_sorting;

struct tsr_decoder {
    tsr_decoder_parts parts;
    tsr_decoder_room room;
    tsr_decoder_sorting sorting;
    tsr_decoder_beside *beside; /* owned; NULL: no host has a part in this */
    void *memory;               /* owned: the room lies in it */
    size_t n_bytes;
};

/* Bytes that making one takes, with what is sorted on the host. */
size_t tsr_decoder_room_bytes(const tsr_decoder_parts *parts);

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_decoder_room_make(tsr_decoder *d);
void tsr_decoder_room_clear(tsr_decoder *d);

/* The room as a batch of n_rows sees it. */
tsr_decoder_room tsr_decoder_room_rows(const tsr_decoder *d, int64_t n_rows);

/* A sum over ranks, [rows, columns], as the parts that are still to be added. */
typedef struct tsr_decoder_sum {
    tsr_tensor parts[TSR_MAX_PARTS];
    int n_parts;
} tsr_decoder_sum;

/* Where this rank's part of the next sum goes: f64 [n_rows, n_cols]. */
tsr_tensor tsr_decoder_own_part(const tsr_decoder *d, int64_t n_rows, int64_t n_cols);

/* Every rank has written its part; now all may read them. */
TSR_MUST_CHECK tsr_status tsr_decoder_meet(const tsr_decoder *d, int64_t n_rows, int64_t n_cols,
                                           tsr_decoder_sum *sum);

/* A norm of the model's kind. */
TSR_MUST_CHECK tsr_status tsr_decoder_norm(const tsr_decoder *d, tsr_tensor out, tsr_tensor x,
                                           const tsr_norm *norm);

/* Columns [first, first + n) of a tensor. */
static inline tsr_tensor tsr_decoder_columns(tsr_tensor t, int64_t first, int64_t n)
{
    t.data = t.data == NULL ? NULL : (char *)t.data + (size_t)first * tsr_dtype_bytes(t.dtype);
    t.n_cols = n;
    return t;
}

/* This rank's part of what attention gives for room->normed, in tsr_decoder_own_part(). The batch's
 * tables are found here. */
TSR_MUST_CHECK tsr_status tsr_decoder_attend(tsr_decoder *d, const tsr_decoder_room *room,
                                             int layer, const tsr_batch *batch);

/* The same of a layer's mixture of experts. */
TSR_MUST_CHECK tsr_status tsr_decoder_mix(tsr_decoder *d, const tsr_decoder_room *room, int layer);

#ifdef __cplusplus
}
#endif

#endif
