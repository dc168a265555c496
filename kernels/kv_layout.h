/*
 * kernels/kv_layout.h - where a key or a value lies inside a block of the cache.
 *
 * A block holds block_tokens tokens of every layer, as one piece of memory, so that it moves as
 * one: [layer][kv head] { K [head_dim][block_tokens], V [block_tokens][padded_dim] } K has the
 * tokens of one dimension together, so that scores of 16 tokens are lanes of one vector; V has the
 * dimensions of a token together. padded_dim is head_dim rounded up to 16; the padding holds zeros.
 * A token that is not there yet has undefined contents: nothing may read it.
 */
#ifndef TSR_KERNELS_KV_LAYOUT_H
#define TSR_KERNELS_KV_LAYOUT_H

#include "kernels/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_kv_layout {
    int n_layers;
    int n_kv_heads; /* kept on this rank; may be 0 */
    int head_dim;
    int block_tokens; /* 16, 32 or 64 */
    tsr_dtype dtype;  /* F32, F16 or BF16 */
} tsr_kv_layout;

/* Errors: ARG (a field out of range). */
TSR_MUST_CHECK tsr_status tsr_kv_layout_check(const tsr_kv_layout *layout);

static inline int tsr_kv_layout_padded_dim(const tsr_kv_layout *layout)
{
    return (layout->head_dim + 15) / 16 * 16;
}

/* Bytes of one head's keys, and of its values, in one layer of one block. */
static inline size_t tsr_kv_layout_key_bytes(const tsr_kv_layout *layout)
{
    return (size_t)layout->head_dim * (size_t)layout->block_tokens * tsr_dtype_bytes(layout->dtype);
}
static inline size_t tsr_kv_layout_value_bytes(const tsr_kv_layout *layout)
{
    return (size_t)tsr_kv_layout_padded_dim(layout) * (size_t)layout->block_tokens *
           tsr_dtype_bytes(layout->dtype);
}

/* Byte offset of a head's keys in a block; its values follow at + key_bytes. */
static inline size_t tsr_kv_layout_offset(const tsr_kv_layout *layout, int layer, int kv_head)
{
    return ((size_t)layer * (size_t)layout->n_kv_heads + (size_t)kv_head) *
           (tsr_kv_layout_key_bytes(layout) + tsr_kv_layout_value_bytes(layout));
}

/* Bytes of a whole block: all layers, all heads of this rank. */
static inline size_t tsr_kv_layout_block_bytes(const tsr_kv_layout *layout)
{
    return tsr_kv_layout_offset(layout, layout->n_layers, 0);
}

#ifdef __cplusplus
}
#endif

#endif
