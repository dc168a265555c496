/*
 * engine/weights.h - this rank's shard of every weight, in the formats that kernels compute with.
 *
 * Which part of a weight is whose: parallel/shard.h. How it is called and laid out in the file:
 * engine/family.h, engine/weight_place.h. The file is mapped; each rank reads and repacks only its
 * own rows and columns, without loss, threads sharing the work, and gives the file's pages back as
 * it goes.
 */
#ifndef TSR_ENGINE_WEIGHTS_H
#define TSR_ENGINE_WEIGHTS_H

#include "engine/checkpoint.h"
#include "engine/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = W x (+ b). A bias behind an all-reduce is whole on every rank. */
typedef struct tsr_linear {
    tsr_weight weight;
    tsr_tensor bias; /* f32 [1, rows], or absent */
} tsr_linear;

/* Absent (data NULL) where the model has none. */
typedef struct tsr_norm {
    tsr_tensor weight; /* f32 [1, n], or [own heads, head_dim] of a norm a head */
    tsr_tensor bias;
} tsr_norm;

/* What a layer does not have is zero. */
typedef struct tsr_layer_weights {
    tsr_norm attn_norm; /* [1, dim], as the next three */
    tsr_norm ff_norm;
    tsr_norm attn_post_norm;
    tsr_norm ff_post_norm;
    tsr_linear q; /* [own heads * head_dim, dim, or q_low] */
    tsr_linear k; /* [own KV heads * head_dim, dim] */
    tsr_linear v;
    tsr_linear o; /* [dim, own heads * value_dim], grained */
    tsr_norm q_head_norm;
    tsr_norm k_head_norm;
    tsr_norm q_wide_norm; /* [1, own heads * head_dim] of a norm over all heads of all ranks */
    tsr_norm k_wide_norm;
    tsr_tensor sinks;  /* f32 [1, own heads] */
    tsr_linear q_low;  /* [q_low, dim] */
    tsr_linear kv_low; /* [kv_low + n_rot, dim] */
    tsr_norm q_low_norm;
    tsr_norm kv_low_norm;
    tsr_linear *k_up;        /* [own heads] of [kv_low, n_nope] */
    tsr_linear *v_up;        /* [own heads] of [value_dim, kv_low] */
    tsr_linear gate;         /* [own ff, dim] */
    tsr_linear up;           /* [own ff, dim] */
    tsr_linear down;         /* [dim, own ff], grained */
    tsr_linear router;       /* [experts, dim] */
    tsr_linear *expert_gate; /* [own experts] of [own columns, dim] */
    tsr_linear *expert_up;
    tsr_linear *expert_down; /* [own experts] of [dim, own columns], grained */
    tsr_linear shared_scale; /* [1, dim] */
    tsr_linear shared_gate;
    tsr_linear shared_up;
    tsr_linear shared_down; /* grained */
} tsr_layer_weights;

typedef struct tsr_weights {
    tsr_linear embed;          /* [own vocabulary, embed_dim] */
    tsr_linear positions;      /* [own positions, dim] */
    tsr_norm embed_norm;       /* [1, dim] */
    tsr_linear embed_up;       /* [dim, embed_dim] */
    tsr_linear head_down;      /* [embed_dim, dim] */
    tsr_linear head;           /* [own vocabulary, embed_dim]; the embedding itself when tied */
    tsr_norm final_norm;       /* [1, dim] */
    tsr_layer_weights *layers; /* [n_layers], owned */
    tsr_linear *numbered;      /* owned: what the layers' arrays point to */
    tsr_device *dev;           /* borrowed */
    void *memory;              /* owned: all of the above lies in it */
    size_t n_bytes;
    uint64_t file_bytes; /* how many of the file's bytes were read: the tensors' parts that are this
                            rank's, not a byte beside them */
} tsr_weights;

/*
 * Find every tensor, check its shape against the config, and pack this rank's part.
 *   as  F32, F16 or BF16: what plain weights become, rounded to nearest even; Q8, Q4 or FP8: what
 *       those of layers become that map activations, but for routers and heads of latents, where
 *       rows are a multiple of 32 columns, the others staying as they are; COUNT: as they are
 * stored Errors: FORMAT (a tensor is missing or of another shape), UNSUPPORTED (one is superfluous
 * and so not understood), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_weights_load(tsr_weights *weights, tsr_device *dev,
                                           const tsr_checkpoint *checkpoint,
                                           const tsr_config *config, const tsr_shard *shard,
                                           tsr_format as);
void tsr_weights_clear(tsr_weights *weights); /* fine on {0} */

/* Bytes that the shard will take on a device of its rank, without loading anything. Errors as
 * above. */
TSR_MUST_CHECK tsr_status tsr_weights_measure(size_t *n_bytes, const tsr_checkpoint *checkpoint,
                                              const tsr_config *config, const tsr_shard *shard,
                                              tsr_format as, tsr_device_kind on);

/* The same of a model that only its config is known of: all its matrices being of `encoding`. */
size_t tsr_weights_estimate(tsr_encoding encoding, const tsr_config *config,
                            const tsr_shard *shard);

/* Bytes of the structs that describe a shard, beside its weights. */
size_t tsr_weights_table_bytes(const tsr_config *config, const tsr_shard *shard);

#ifdef __cplusplus
}
#endif

#endif
