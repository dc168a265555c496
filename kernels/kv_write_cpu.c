#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

#include <string.h>

typedef struct job {
    const tsr_row_loops *loops;
    const tsr_kv_view *kv;
    tsr_tensor k, v;
    const tsr_batch *batch;
} job;

/* One token's keys of one head lie block_tokens elements apart. */
static void put_keys(void *keys, const void *row, int head_dim, int block_tokens, size_t elem_bytes)
{
    if (elem_bytes == sizeof(uint16_t)) {
        const uint16_t *from = row;
        uint16_t *to = keys;

        for (int d = 0; d < head_dim; d++) {
            to[d * block_tokens] = from[d];
        }
    } else {
        const float *from = row;
        float *to = keys;

        for (int d = 0; d < head_dim; d++) {
            to[d * block_tokens] = from[d];
        }
    }
}

/* Token `at` of a block: all heads of one row. */
static void put_token(const job *j, char *block, int at, int64_t row)
{
    const tsr_kv_layout *layout = j->kv->layout;
    const size_t elem_bytes = (size_t)tsr_kv_type_bits(layout->type) / 8;
    const size_t dim_bytes = (size_t)layout->value_dim * elem_bytes;
    const size_t padded_bytes = (size_t)tsr_kv_layout_padded_dim(layout) * elem_bytes;
    const float *k = tsr_rows_cpu_f32(j->k, row);
    const float *v = layout->latent ? NULL : tsr_rows_cpu_f32(j->v, row);
    union {
        float f32[TSR_KV_LAYOUT_MOST_DIM];
        uint16_t f16[TSR_KV_LAYOUT_MOST_DIM];
    } rounded;

    for (int h = 0; h < layout->n_kv_heads; h++) {
        char *keys = block + tsr_kv_layout_offset(layout, j->kv->layer, h);
        char *value = keys + tsr_kv_layout_key_bytes(layout) + (size_t)at * padded_bytes;

        j->loops->round(&rounded, k + h * layout->key_dim, layout->key_dim, layout->type);
        put_keys(keys + (size_t)at * elem_bytes, &rounded, layout->key_dim, layout->block_tokens,
                 elem_bytes);
        if (layout->latent) {
            continue;
        }
        j->loops->round(value, v + h * layout->value_dim, layout->value_dim, layout->type);
        memset(value + dim_bytes, 0, padded_bytes - dim_bytes);
    }
}

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;
    const tsr_batch *batch = j->batch;
    const int32_t *row_start = batch->row_start.data;
    const int32_t *first_pos = batch->first_pos.data;
    const int32_t *lanes = batch->lanes.data;
    const int block_tokens = j->kv->layout->block_tokens;

    (void)thread;
    for (int s = 0; s < batch->n_seqs; s++) {
        const int32_t *slots = tsr_rows_cpu_i32(batch->tables, lanes[s]);
        const int64_t from = row_start[s] > first ? row_start[s] : first;
        const int64_t to = row_start[s + 1] < end ? row_start[s + 1] : end;

        for (int64_t r = from; r < to; r++) {
            const int64_t position = first_pos[s] + (r - row_start[s]);
            const int32_t slot = slots[position / block_tokens];

            put_token(j, (char *)j->kv->pool + (size_t)slot * j->kv->block_bytes,
                      (int)(position % block_tokens), r);
        }
    }
}

/* What is written must lie in the device pool. */
static tsr_status check_places(const tsr_kv_view *kv, const tsr_batch *batch)
{
    const int32_t *row_start = batch->row_start.data;
    const int32_t *first_pos = batch->first_pos.data;
    const int32_t *lanes = batch->lanes.data;
    const int64_t block_tokens = kv->layout->block_tokens;

    for (int s = 0; s < batch->n_seqs; s++) {
        const int32_t *slots = tsr_rows_cpu_i32(batch->tables, lanes[s]);
        const int64_t end = first_pos[s] + (row_start[s + 1] - row_start[s]);

        for (int64_t b = first_pos[s] / block_tokens; b * block_tokens < end; b++) {
            if (slots[b] < 0 && first_pos[s] < end) {
                return tsr_fail(TSR_ERR_ARG,
                                "kv_write: block %lld of sequence %d lies in the host pool, where "
                                "nothing is written",
                                (long long)b, s);
            }
        }
    }
    return TSR_OK;
}

tsr_status tsr_kv_write_cpu(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor k, tsr_tensor v,
                            const tsr_batch *batch)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops), kv, k, v, batch};

    TSR_TRY(check_places(kv, batch));
    tsr_rows_cpu_run(dev, k.n_rows, k.n_cols, rows, &j);
    return TSR_OK;
}
