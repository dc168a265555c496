/*
 * engine/weights.h - this rank's shard of every weight, in the formats that kernels compute with.
 *
 * Which part of a weight is whose: parallel/shard.h. The file is mapped; each rank reads and
 * repacks only its own rows and columns, without loss, threads sharing the work, and gives the
 * file's pages back as it goes.
 */
#ifndef TSR_ENGINE_WEIGHTS_H
#define TSR_ENGINE_WEIGHTS_H

#include "engine/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = W x (+ b). A bias behind an all-reduce is whole on every rank. */
typedef struct tsr_linear {
    tsr_weight weight;
    tsr_tensor bias; /* f32 [1, rows], or absent */
} tsr_linear;

typedef struct tsr_layer_weights {
    tsr_tensor attn_norm; /* f32 [1, dim] */
    tsr_tensor ff_norm;   /* f32 [1, dim] */
    tsr_linear q;         /* [own heads * head_dim, dim] */
    tsr_linear k;         /* [own KV heads * head_dim, dim] */
    tsr_linear v;
    tsr_linear o;    /* [dim, own heads * head_dim], grained */
    tsr_linear gate; /* [own ff, dim] */
    tsr_linear up;   /* [own ff, dim] */
    tsr_linear down; /* [dim, own ff], grained */
} tsr_layer_weights;

typedef struct tsr_weights {
    tsr_linear embed;          /* [own vocabulary, dim] */
    tsr_linear head;           /* [own vocabulary, dim]; the embedding itself when tied */
    tsr_tensor final_norm;     /* f32 [1, dim] */
    tsr_layer_weights *layers; /* [n_layers], owned */
    tsr_device *dev;           /* borrowed */
    void *memory;              /* owned: all of the above lies in it */
    size_t n_bytes;
} tsr_weights;

/*
 * Find every tensor, check its shape against the config, and pack this rank's part.
 * Errors: FORMAT (a tensor is missing, of another shape, or superfluous and so not understood),
 * UNSUPPORTED, NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_weights_load(tsr_weights *weights, tsr_device *dev,
                                           const tsr_gguf *gguf, const tsr_config *config,
                                           const tsr_shard *shard);
void tsr_weights_clear(tsr_weights *weights); /* fine on {0} */

/* Bytes that the shard will take on its rank, without loading anything. Errors as above. */
TSR_MUST_CHECK tsr_status tsr_weights_measure(size_t *n_bytes, const tsr_gguf *gguf,
                                              const tsr_config *config, const tsr_shard *shard);

/* A model of which only the shape is known: what its tensors would be. */
typedef struct tsr_weights_outline {
    tsr_encoding encoding; /* of all matrices; norms and biases are f32 */
    bool qkv_bias;
    bool gated; /* the feed-forward has a gate */
} tsr_weights_outline;

/* Bytes that the shard of such a model would take on its rank. */
size_t tsr_weights_estimate(const tsr_weights_outline *outline, const tsr_config *config,
                            const tsr_shard *shard);

#ifdef __cplusplus
}
#endif

#endif
