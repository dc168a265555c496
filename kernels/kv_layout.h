/*
 * kernels/kv_layout.h - where a key or a value lies inside a block of the cache.
 *
 * A block holds block_tokens tokens of every layer, as one piece of memory, so that it moves as
 * one: [layer][kv head] { K [key_dim][block_tokens], V [block_tokens][padded_dim] }. K has the
 * tokens of one dimension together, so that scores of 16 tokens are lanes of one vector; V has the
 * dimensions of a token together. padded_dim is value_dim rounded up to 16; the padding holds
 * zeros. A token that is not there yet has undefined contents: nothing may read it.
 *
 * A latent layout (multi-head latent attention, DeepSeek-V2, arXiv 2405.04434) keeps no V: the
 * values are the first value_dim dimensions of the keys.
 */
#ifndef TSR_KERNELS_KV_LAYOUT_H
#define TSR_KERNELS_KV_LAYOUT_H

#include "kernels/dtype.h"
#include "kernels/kv_type.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_kv_layout {
    int n_layers;
    int n_kv_heads;   /* kept on this rank; may be 0 */
    int key_dim;      /* of a head, 1 .. TSR_KV_LAYOUT_MOST_DIM */
    int value_dim;    /* of a head, likewise; at most key_dim in a latent layout */
    int block_tokens; /* 16, 32 or 64 */
    tsr_kv_type type;
    bool latent; /* the values are the first value_dim dimensions of the keys, kept once */
} tsr_kv_layout;

enum {
    TSR_KV_LAYOUT_MOST_DIM = 576
};

/* Errors: ARG (a field out of range). */
TSR_MUST_CHECK tsr_status tsr_kv_layout_check(const tsr_kv_layout *layout);

static inline int tsr_kv_layout_padded_dim(const tsr_kv_layout *layout)
{
    return (layout->value_dim + 15) / 16 * 16;
}

/* Bytes of one head's keys, and of its values, in one layer of one block. */
size_t tsr_kv_layout_key_bytes(const tsr_kv_layout *layout);
size_t tsr_kv_layout_value_bytes(const tsr_kv_layout *layout);

/* Byte offset of a head's keys in a block; its values follow at + key_bytes. */
size_t tsr_kv_layout_offset(const tsr_kv_layout *layout, int layer, int kv_head);

/* Bytes of a whole block: all layers, all heads of this rank. */
size_t tsr_kv_layout_block_bytes(const tsr_kv_layout *layout);

#ifdef __cplusplus
}
#endif

#endif
