/*
 * engine/config.h - what a model is: its sizes, and every choice that tells its family from
 * another. Read once, from a GGUF file's metadata or a folder's config.json, and checked once.
 *
 * It is data only. The one forward function (engine/decoder.c) reads it; engine/family.h describes
 * the families that fill it. docs/adding-a-model.md shows how to add one.
 */
#ifndef TSR_ENGINE_CONFIG_H
#define TSR_ENGINE_CONFIG_H

#include "engine/packing.h"
#include "engine/rope.h"
#include "kernels/ops.h"
#include "parallel/shard.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_family tsr_family;         /* engine/family.h */
typedef struct tsr_checkpoint tsr_checkpoint; /* engine/checkpoint.h */

typedef enum tsr_norm_kind {
    TSR_NORM_RMS,
    TSR_NORM_LAYER, /* mean taken off; a bias where the config says so */
    TSR_NORM_KIND_COUNT
} tsr_norm_kind;

/* What may differ from layer to layer. */
typedef struct tsr_layer_config {
    bool makes_kv;   /* has keys and values of its own */
    int kv_layer;    /* which of the cache's layers it reads */
    int group;       /* of that: whose blocks it is in, */
    int group_layer; /* and which layer of such a block it is */
    bool by_token;   /* of that: its keys lie by token, because some reader has a stride */
    int rope;        /* which of config->ropes turns its queries and keys; -1: none does */
    bool experts;    /* a mixture of experts in the place of the feed-forward */
    int64_t window;  /* the last so many positions are seen; 0: all */
    int64_t stride;  /* > 0: of the positions further than `local` only each stride-th */
    int64_t local;
    float scale; /* of queries times keys */
} tsr_layer_config;

enum {
    TSR_CONFIG_ROPES = 2,
    TSR_CONFIG_GROUPS = 8 /* at most */
};

/* One bit a role. */
#define TSR_ROLE_BIT(role) (UINT64_C(1) << (role))

typedef struct tsr_config {
    const tsr_family *family;
    int n_layers;
    int n_kv_layers;                  /* layers of the cache */
    int n_groups;                     /* that these form, by how far back they are seen */
    int64_t reach[TSR_CONFIG_GROUPS]; /* of each: the last so many positions; 0: all */
    int group_layers;                 /* that a block has room for: some groups may have fewer */
    tsr_layer_config *layers;         /* [n_layers]; owned */
    tsr_shard_shape shape;            /* heads, dims, vocabulary */
    int64_t context;                  /* positions the model was made for */
    tsr_packing packing;              /* of its linear weights */
    uint64_t roles;                   /* TSR_ROLE_BIT of each weight that it has */
    uint64_t biases;                  /* of each whose weight has a bias */
    bool biases_as_found; /* a GGUF file says it by having them: `biases` does not; a folder
                             may have more than `biases` */

    int64_t embed_dim; /* width of embedding and head; dim, where EMBED_UP and HEAD_DOWN are not
                          between them and the layers */

    tsr_norm_kind norm;
    float norm_eps;
    bool norm_plus_one;   /* norms multiply by 1 + the stored weight */
    uint64_t plain_norms; /* roles of norms that only normalise: they have no tensors */
    bool norms_stay;      /* norms in front of attention and feed-forward change the residual stream
                             itself, and so do those behind, once it has been added to */
    bool parallel; /* attention and feed-forward both read the layer's input; without a norm of
                      its own the feed-forward reads attention's */
    tsr_activation activation;
    bool tied_head; /* the head is the embedding */

    tsr_rope_pairs rope_pairs;
    int n_rot;      /* dimensions of a head that turn with position */
    int rope_first; /* the first of them */
    tsr_rope_turns ropes[TSR_CONFIG_ROPES];
    int n_ropes;
    int64_t rope_switch; /* > 0: sequences longer than this turn by the next rope instead */

    int position_offset; /* learned positions: the row of position 0 */
    float *slopes;       /* ALiBi: [n_heads], or NULL; owned */
    float slopes_scale;  /* > 0: each slope times position is rounded to bf16, and scaled by so many
                            times the scale of scores */

    float embed_scale; /* 1 does nothing; so do the next three */
    float residual_scale;
    float logit_scale;
    float logit_cap; /* 0: none */
    float attention_cap;
    float qkv_clip; /* > 0: queries, keys and values are cut to -clip .. clip */

    tsr_routing routing; /* of experts */

    int kv_low; /* latent attention: what the cache keeps of K and V, beside the rotary part of K;
                   0: plain attention */
    int q_low;  /* latent of Q; 0: none */
    int n_nope; /* dimensions of a query head that do not turn */
} tsr_config;

/* Errors: UNSUPPORTED (a family or a variant that is not known: names it), FORMAT (keys missing, of
 * the wrong type or out of range), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_config_read(tsr_config *config, const tsr_checkpoint *checkpoint);
void tsr_config_clear(tsr_config *config); /* fine on {0} */

static inline bool tsr_config_has(const tsr_config *config, tsr_shard_role role)
{
    return (config->roles & TSR_ROLE_BIT(role)) != 0;
}

/* Dimensions of a key and of a value as the cache keeps them. */
int tsr_config_key_dim(const tsr_config *config);
int tsr_config_value_dim(const tsr_config *config);

#ifdef __cplusplus
}
#endif

#endif
