/*
 * kernels/kv_layout.h - where a key or a value lies inside a block of the cache.
 *
 * A block holds block_tokens tokens of every layer, as one piece of memory, so that it moves as
 * one: [layer][kv head] { keys, values }.
 *
 *   f32, f16, bf16   keys [key_dim][block_tokens];  values [block_tokens][padded_dim]
 *   fp8, int8        the same of bytes;  behind each the scales, bf16 [block_tokens]
 *   int4, int2       the codes of a token are one string of bits, the first dimension lowest.
 *                    keys: its bytes [ceil(key_dim * bits / 8)][block_tokens];  scales bf16
 *                    [block_tokens], negative where the mean was taken off;  means, not in a latent
 *                    layout: [block_tokens / 16] { scale bf16, codes of int8 [key_dim, made even],
 *                    split (kernels/kv_drift.h) }
 *                    values: its bytes [block_tokens][padded_dim * bits / 8];  scales bf16
 *                    [block_tokens]
 *
 * What the codes mean is said in kernels/kv_code.h. Keys have the tokens of one dimension together,
 * so that scores of 16 tokens are lanes of one vector; values have the dimensions of a token
 * together. In a layout by token keys lie as values do, [block_tokens][key_dim] or of int4 and int2
 * [block_tokens][bytes]: of layers that see single tokens, which are then read without their
 * neighbours (tsr_kv_layout_key_cell() is the whole difference). padded_dim is value_dim rounded up
 * to 16; the padding holds zeros, or codes that nobody looks at. A token that is not there yet has
 * undefined contents: nothing may read it.
 *
 * A latent layout (multi-head latent attention, DeepSeek-V2, arXiv 2405.04434) keeps no values:
 * they are the first value_dim dimensions of the keys.
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
    bool latent;   /* the values are the first value_dim dimensions of the keys, kept once */
    bool by_token; /* of keys; changes no size, so that layers of one block may differ in it */
} tsr_kv_layout;

enum {
    TSR_KV_LAYOUT_MOST_DIM = 576,
    TSR_KV_LAYOUT_GROUP = 16 /* tokens that have one mean */
};

/* Errors: ARG (a field out of range). */
TSR_MUST_CHECK tsr_status tsr_kv_layout_check(const tsr_kv_layout *layout);

static inline int tsr_kv_layout_padded_dim(const tsr_kv_layout *layout)
{
    return (layout->value_dim + 15) / 16 * 16;
}

/* Bytes of one head's keys, and of its values, in one layer of one block; with scales and means. */
size_t tsr_kv_layout_key_bytes(const tsr_kv_layout *layout);
size_t tsr_kv_layout_value_bytes(const tsr_kv_layout *layout);

/* Of those, the codes or numbers alone: what the scales lie behind. */
size_t tsr_kv_layout_key_codes(const tsr_kv_layout *layout);
size_t tsr_kv_layout_value_codes(const tsr_kv_layout *layout);

/* Cells of a token's key, which lie apart from one another where a layout is not by token:
 * elements, or bytes of int4 and int2. */
static inline int tsr_kv_layout_key_cells(const tsr_kv_layout *layout)
{
    return tsr_kv_type_has_levels(layout->type)
               ? (layout->key_dim * tsr_kv_type_bits(layout->type) + 7) / 8
               : layout->key_dim;
}

/* Where cell i of token `at` lies, in cells from the head's first. */
static inline int64_t tsr_kv_layout_key_cell(const tsr_kv_layout *layout, int at, int i)
{
    return layout->by_token ? (int64_t)at * tsr_kv_layout_key_cells(layout) + i
                            : (int64_t)i * layout->block_tokens + at;
}

/* Bytes of one group's mean. */
static inline size_t tsr_kv_layout_mean_bytes(const tsr_kv_layout *layout)
{
    return sizeof(uint16_t) + ((size_t)layout->key_dim + 1) / 2 * 2;
}

/* Do the keys have means? */
static inline bool tsr_kv_layout_is_centred(const tsr_kv_layout *layout)
{
    return tsr_kv_type_has_levels(layout->type) && !layout->latent;
}

/* Byte offset of a head's keys in a block; its values follow at + key_bytes. */
size_t tsr_kv_layout_offset(const tsr_kv_layout *layout, int layer, int kv_head);

/* Bytes of a whole block: all layers, all heads of this rank. */
size_t tsr_kv_layout_block_bytes(const tsr_kv_layout *layout);

#ifdef __cplusplus
}
#endif

#endif
