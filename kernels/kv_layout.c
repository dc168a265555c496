#include "kernels/kv_layout.h"

tsr_status tsr_kv_layout_check(const tsr_kv_layout *layout)
{
    if (layout->n_layers < 1 || layout->n_kv_heads < 0) {
        return tsr_fail(TSR_ERR_ARG, "kv layout: %d layers of %d kv heads", layout->n_layers,
                        layout->n_kv_heads);
    }
    if (layout->key_dim < 1 || layout->key_dim > TSR_KV_LAYOUT_MOST_DIM || layout->value_dim < 1 ||
        layout->value_dim > TSR_KV_LAYOUT_MOST_DIM) {
        return tsr_fail(TSR_ERR_ARG, "kv layout: keys of %d and values of %d; 1 to %d are possible",
                        layout->key_dim, layout->value_dim, TSR_KV_LAYOUT_MOST_DIM);
    }
    if (layout->latent && layout->value_dim > layout->key_dim) {
        return tsr_fail(TSR_ERR_ARG, "kv layout: values of %d are not a part of keys of %d",
                        layout->value_dim, layout->key_dim);
    }
    if (layout->block_tokens != 16 && layout->block_tokens != 32 && layout->block_tokens != 64) {
        return tsr_fail(TSR_ERR_ARG, "kv layout: blocks of %d tokens; 16, 32 or 64 are possible",
                        layout->block_tokens);
    }
    if (layout->type < 0 || layout->type >= TSR_KV_TYPE_COUNT) {
        return tsr_fail(TSR_ERR_ARG, "kv layout: elements of type %d", (int)layout->type);
    }
    return TSR_OK;
}

static size_t scale_bytes(const tsr_kv_layout *layout)
{
    return tsr_kv_type_is_coded(layout->type) ? (size_t)layout->block_tokens * sizeof(uint16_t) : 0;
}

size_t tsr_kv_layout_key_codes(const tsr_kv_layout *layout)
{
    return ((size_t)layout->key_dim * (size_t)tsr_kv_type_bits(layout->type) + 7) / 8 *
           (size_t)layout->block_tokens;
}

size_t tsr_kv_layout_value_codes(const tsr_kv_layout *layout)
{
    return layout->latent
               ? 0
               : (size_t)tsr_kv_layout_padded_dim(layout) * (size_t)tsr_kv_type_bits(layout->type) /
                     8 * (size_t)layout->block_tokens;
}

size_t tsr_kv_layout_key_bytes(const tsr_kv_layout *layout)
{
    const size_t mean_bytes = tsr_kv_layout_is_centred(layout)
                                  ? (size_t)(layout->block_tokens / TSR_KV_LAYOUT_GROUP) *
                                        tsr_kv_layout_mean_bytes(layout)
                                  : 0;

    // Whole words, so that what follows is aligned.
    return (tsr_kv_layout_key_codes(layout) + scale_bytes(layout) + mean_bytes + 3) / 4 * 4;
}

size_t tsr_kv_layout_value_bytes(const tsr_kv_layout *layout)
{
    return layout->latent ? 0 : tsr_kv_layout_value_codes(layout) + scale_bytes(layout);
}

size_t tsr_kv_layout_offset(const tsr_kv_layout *layout, int layer, int kv_head)
{
    return ((size_t)layer * (size_t)layout->n_kv_heads + (size_t)kv_head) *
           (tsr_kv_layout_key_bytes(layout) + tsr_kv_layout_value_bytes(layout));
}

size_t tsr_kv_layout_block_bytes(const tsr_kv_layout *layout)
{
    return tsr_kv_layout_offset(layout, layout->n_layers, 0);
}
