/*
 * kernels/batch.cuh - which position a row has, and where the cache keeps it. Private to CUDA
 * files.
 */
#ifndef TSR_KERNELS_BATCH_CUH
#define TSR_KERNELS_BATCH_CUH

#include "kernels/cuda.cuh"

/* tsr_batch as kernels take it. */
struct tsr_batch_rows {
    int n_seqs;
    const int32_t *row_start, *first_pos, *lanes;
    tsr_rows<const int32_t> tables;
    const int32_t *table_start; // NULL: all 0

    /* Rows behind the last sequence's fill a step: nothing is written for them. */
    __device__ bool has(int64_t row) const
    {
        return row < row_start[n_seqs];
    }
    /* The last sequence that begins at or before the row. */
    __device__ int sequence_of(int64_t row) const
    {
        int low = 0;
        int high = n_seqs - 1;

        while (low < high) {
            const int middle = (low + high + 1) / 2;

            if (row_start[middle] <= row) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        return low;
    }
    __device__ int64_t position_of(int64_t row) const
    {
        const int s = sequence_of(row);

        return first_pos[s] + (row - row_start[s]);
    }
    /* The pool slots of the row's sequence. */
    __device__ const int32_t *slots_of(int64_t row) const
    {
        const int s = sequence_of(row);

        return tables[lanes[s]] + (table_start != NULL ? table_start[s] : 0);
    }
    __device__ int32_t slot_of(int64_t row, int64_t position, int block_tokens) const
    {
        return slots_of(row)[position / block_tokens];
    }
};

static inline tsr_batch_rows tsr_batch_rows_of(const tsr_batch *batch)
{
    return tsr_batch_rows{batch->n_seqs,
                          (const int32_t *)batch->row_start.data,
                          (const int32_t *)batch->first_pos.data,
                          (const int32_t *)batch->lanes.data,
                          tsr_rows_of<const int32_t>(batch->tables),
                          (const int32_t *)batch->table_start.data};
}

/* One layer of the cache as kernels take it (kernels/kv_layout.h). */
struct tsr_kv_place {
    char *pool; /* at the layer's first head */
    char *host; /* the same of the host pool, which is pinned: read over the bus */
    size_t block_bytes;
    size_t head_bytes; /* keys and values of one head */
    size_t key_bytes;  /* of these, the keys */
    int key_dim, value_dim, padded_dim, block_tokens;
    int key_codes, value_codes; /* bytes of a block's codes or numbers: scales lie behind */
    int mean_bytes;             /* of a group of keys; 0: they have no means */
    int token_step, dim_step;   /* cells from a key to the next token's, and dimension's */
    bool is_by_token;
    bool is_latent; /* the values are the keys' first dimensions */

    /* What is written lies in the device's pool. */
    __device__ void *own_keys(int32_t slot, int head) const
    {
        return pool + (size_t)slot * block_bytes + (size_t)head * head_bytes;
    }
    /* entry: of a table (tsr_batch) */
    __device__ void *keys(int32_t entry, int head) const
    {
        const int32_t slot = entry ^ entry >> 31; // ~entry below 0

        return (entry >= 0 ? pool : host) + (size_t)slot * block_bytes + (size_t)head * head_bytes;
    }
};

static inline tsr_kv_place tsr_kv_place_of(const tsr_kv_view *kv)
{
    const tsr_kv_layout *layout = kv->layout;

    tsr_kv_place place;

    place.pool = (char *)kv->pool + tsr_kv_layout_offset(layout, kv->layer, 0);
    place.host = kv->host_pool == NULL
                     ? NULL
                     : (char *)kv->host_pool + tsr_kv_layout_offset(layout, kv->layer, 0);
    place.block_bytes = kv->block_bytes;
    place.head_bytes = tsr_kv_layout_key_bytes(layout) + tsr_kv_layout_value_bytes(layout);
    place.key_bytes = tsr_kv_layout_key_bytes(layout);
    place.key_dim = layout->key_dim;
    place.value_dim = layout->value_dim;
    place.padded_dim = tsr_kv_layout_padded_dim(layout);
    place.block_tokens = layout->block_tokens;
    place.key_codes = (int)tsr_kv_layout_key_codes(layout);
    place.value_codes = (int)tsr_kv_layout_value_codes(layout);
    place.mean_bytes = tsr_kv_layout_is_centred(layout) ? (int)tsr_kv_layout_mean_bytes(layout) : 0;
    place.token_step = (int)tsr_kv_layout_key_cell(layout, 1, 0);
    place.dim_step = (int)tsr_kv_layout_key_cell(layout, 0, 1);
    place.is_by_token = layout->by_token;
    place.is_latent = layout->latent;
    return place;
}

#endif
