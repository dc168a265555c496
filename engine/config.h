/*
 * engine/config.h - what a model is: its sizes, its family, its positions. Read from the file once
 * and checked once.
 *
 * A family is data: how its metadata and tensors are called and which variants of the ops it uses.
 * The one forward function (engine/decoder.c) reads it. docs/adding-a-model.md shows how to add
 * one.
 */
#ifndef TSR_ENGINE_CONFIG_H
#define TSR_ENGINE_CONFIG_H

#include "engine/gguf.h"
#include "kernels/ops.h"
#include "parallel/shard.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_family {
    const char *architecture; /* general.architecture, and the prefix of its metadata keys */
    tsr_rope_pairs rope_pairs;
} tsr_family;

typedef enum tsr_rope_scaling {
    TSR_ROPE_SCALING_NONE,
    TSR_ROPE_SCALING_LINEAR, /* positions divided by the factor */
    TSR_ROPE_SCALING_YARN,   /* Peng et al., arXiv 2309.00071 */
    TSR_ROPE_SCALING_COUNT
} tsr_rope_scaling;

typedef struct tsr_config {
    const tsr_family *family;
    int n_layers;
    tsr_shard_shape shape; /* heads, dims, vocabulary */
    int64_t context;       /* positions the model was made for */
    float norm_eps;

    int n_rot; /* dimensions of a head that turn with position */
    double rope_base;
    tsr_rope_scaling rope_scaling;
    double rope_factor;
    int64_t rope_original_context;
    bool rope_has_factors; /* the file divides each frequency by a factor of its own (Llama 3) */
    double *frequencies;   /* [n_rot / 2] radians a position, all scaling done; owned */
    float rope_magnitude;  /* multiplies cosine and sine (YaRN's attention factor) */

    float attention_scale;
    bool tied_head; /* no output.weight: the head is the embedding */
} tsr_config;

/* Errors: UNSUPPORTED (a family or a variant that is not known: names it), FORMAT (keys missing or
 * out of range), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_config_read(tsr_config *config, const tsr_gguf *gguf);
void tsr_config_clear(tsr_config *config); /* fine on {0} */

#ifdef __cplusplus
}
#endif

#endif
