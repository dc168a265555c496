/*
 * engine/decoder_room.h - what the rows of a forward pass are held in, and the decoder's own
 * functions that pass it around. Private to engine/decoder*.c.
 */
#ifndef TSR_ENGINE_DECODER_ROOM_H
#define TSR_ENGINE_DECODER_ROOM_H

#include "engine/decoder.h"

#ifdef __cplusplus
extern "C" {
#endif

/* R is max_rows. What a model does not need has no columns. */
typedef struct tsr_decoder_room {
    tsr_tensor embedded; /* f32 [R, embed_dim] where that is not dim */
    tsr_tensor x;        /* f32 [R, dim] the residual stream, whole on every rank */
    tsr_tensor normed;   /* f32 [R, dim] what attention and feed-forward read */
    tsr_codes codes;     /* [R, dim] the same, where it is read as codes (tsr_decoder_codes) */
    tsr_tensor joining;  /* f32 [R, dim] what they give, where it is not added at once */
    tsr_tensor angles[TSR_CONFIG_ROPES]; /* f32 [R, n_rot] */
    tsr_tensor q;                        /* f32 [R, own heads * head_dim] */
    tsr_tensor k;                        /* f32 [R, own KV heads * head_dim] */
    tsr_tensor v;
    tsr_tensor mixed; /* f32 [R, own heads * value_dim] what attention gives */
    tsr_tensor gate;  /* f32 [R, own ff] */
    tsr_tensor up;
    tsr_codes up_codes; /* [R, own ff] */

    tsr_tensor q_low;        /* f32 [R, q_low] */
    tsr_tensor latent;       /* f32 [R, kv_low + n_rot] */
    tsr_tensor q_latent;     /* f32 [R, own heads * (kv_low + n_rot)] */
    tsr_tensor mixed_latent; /* f32 [R, own heads * kv_low] */

    tsr_tensor routes;        /* f32 [R, experts] the router's logits */
    tsr_tensor chosen;        /* i32 [R, used] */
    tsr_tensor chosen_weight; /* f32 [R, used] */
    tsr_tensor chosen_place;  /* i32 [R, used] where each choice is, by expert */
    tsr_tensor expert_start;  /* i32 [1, experts + 1] */
    tsr_tensor expert_rows;   /* i32 [1, R * used] rows by expert */
    tsr_tensor expert_weight; /* f32 [1, R * used] */
    tsr_tensor expert_x;      /* f32 [S, dim], S the rows of tsr_decoder_expert_rows() */
    tsr_tensor expert_gate;   /* f32 [S, own columns of an expert] */
    tsr_tensor expert_up;
    tsr_tensor expert_sum;   /* f64 [S, dim] */
    tsr_tensor shared_scale; /* f32 [R, 1] */
    tsr_tensor shared_gate;  /* f32 [R, own columns of the shared expert] */
    tsr_tensor shared_up;

    tsr_tensor wanted;                        /* f32 [HEAD_ROWS, dim] */
    tsr_tensor wanted_narrow;                 /* f32 [HEAD_ROWS, embed_dim] likewise */
    tsr_tensor logits;                        /* f32 [HEAD_ROWS, own vocabulary] */
    tsr_tensor frequencies[TSR_CONFIG_ROPES]; /* f64 [1, n_rot / 2] */
    tsr_tensor slopes;                        /* f32 [1, own heads] */
} tsr_decoder_room;

enum {
    /* Steps of so many rows have all their experts computed at once, without the host; in larger
       ones each expert's rows take turns in the same room. */
    TSR_DECODER_MIXED_ROWS = 64
};

struct tsr_decoder {
    tsr_decoder_parts parts;
    tsr_decoder_room room;
    int32_t *expert_start;  /* [experts + 1] on the host, owned */
    bool experts_are_alike; /* in format and distance, so that they can be computed at once */
    tsr_kv_drift drifts[TSR_CONFIG_ROPES + 1]; /* of keys, by their rope; the last has none */
    tsr_kv_layout by_token;                    /* the cache's, of layers that see single tokens */
    void *memory;                              /* owned: the room lies in it */
    size_t n_bytes;
};

/* Rows that experts compute at a time, at most. */
int64_t tsr_decoder_expert_rows(const tsr_decoder_parts *parts);

/* Bytes that making one takes. */
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

/* `codes` where these products take x as such on this device, else absent. */
tsr_codes tsr_decoder_codes(const tsr_decoder *d, tsr_codes codes, const tsr_product *products,
                            int n_products);

/* Products of x, which is there as codes as well where tsr_decoder_codes() says so. */
TSR_MUST_CHECK tsr_status tsr_decoder_multiply(const tsr_decoder *d, const tsr_product *products,
                                               int n_products, tsr_tensor x, tsr_codes codes);

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

/* What attention makes of room->normed first: how many products of [3]. 0: something else. */
int tsr_decoder_attend_first(const tsr_decoder *d, const tsr_decoder_room *room, int layer,
                             tsr_product *products);

/* This rank's part of what attention gives for room->normed, in tsr_decoder_own_part(). The batch's
 * tables are found here. */
TSR_MUST_CHECK tsr_status tsr_decoder_attend(tsr_decoder *d, const tsr_decoder_room *room,
                                             int layer, const tsr_batch *batch);

/* Whether the experts of every layer are. */
bool tsr_decoder_experts_are_alike(const tsr_decoder_parts *parts);

/* The same of a layer's mixture of experts. */
TSR_MUST_CHECK tsr_status tsr_decoder_mix(tsr_decoder *d, const tsr_decoder_room *room, int layer);

#ifdef __cplusplus
}
#endif

#endif
