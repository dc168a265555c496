#include "kernels/attention_loops.h"
#include "kernels/kv_code.h"
#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

#include <string.h>

typedef struct job {
    const tsr_row_loops *loops;
    void (*turn)(float *x, int dim, int unit);
    const tsr_kv_view *kv;
    tsr_tensor k, v;
    const tsr_batch *batch;
} job;

/* The key of token `at`, a cell after the other. */
static void put_key(void *keys, const void *row, const tsr_kv_layout *layout, int at)
{
    const int64_t first = tsr_kv_layout_key_cell(layout, at, 0);
    const int64_t step = tsr_kv_layout_key_cell(layout, at, 1) - first;

    if (tsr_kv_type_bits(layout->type) == 16) {
        const uint16_t *from = row;
        uint16_t *to = (uint16_t *)keys + first;

        for (int d = 0; d < layout->key_dim; d++) {
            to[d * step] = from[d];
        }
    } else {
        const float *from = row;
        float *to = (float *)keys + first;

        for (int d = 0; d < layout->key_dim; d++) {
            to[d * step] = from[d];
        }
    }
}

/* Numbers as they are: token `at` of one head. */
static void put_plain(const job *j, char *keys, int at, const float *k, const float *v)
{
    const tsr_kv_layout *layout = j->kv->layout;
    const size_t elem_bytes = (size_t)tsr_kv_type_bits(layout->type) / 8;
    const size_t dim_bytes = (size_t)layout->value_dim * elem_bytes;
    const size_t padded_bytes = (size_t)tsr_kv_layout_padded_dim(layout) * elem_bytes;
    char *value = keys + tsr_kv_layout_key_bytes(layout) + (size_t)at * padded_bytes;
    union {
        float f32[TSR_KV_LAYOUT_MOST_DIM];
        uint16_t f16[TSR_KV_LAYOUT_MOST_DIM];
    } rounded;

    j->loops->round(&rounded, k, layout->key_dim, layout->type);
    put_key(keys, &rounded, layout, at);
    if (!layout->latent) {
        j->loops->round(value, v, layout->value_dim, layout->type);
        memset(value + dim_bytes, 0, padded_bytes - dim_bytes);
    }
}

static void round_into(const job *j, tsr_kv_code *code, const float *x, int dim, int unit,
                       tsr_kv_type type)
{
    float turned[TSR_KV_LAYOUT_MOST_DIM];

    if (tsr_kv_type_is_turned(type)) {
        memcpy(turned, x, (size_t)dim * sizeof(*x));
        j->turn(turned, dim, unit);
        x = turned;
    }
    tsr_kv_code_round(code, x, NULL, dim, type);
}

/* Codes: token `at` of one head, but for keys that have means. */
static void put_coded(const job *j, char *keys, int at, const float *k, const float *v)
{
    const tsr_kv_layout *layout = j->kv->layout;
    tsr_kv_code code;

    if (!tsr_kv_layout_is_centred(layout)) {
        round_into(j, &code, k, layout->key_dim, tsr_kv_code_key_unit(layout), layout->type);
        tsr_kv_code_put_key(keys, layout, at, &code);
    }
    if (!layout->latent) {
        round_into(j, &code, v, layout->value_dim, tsr_kv_code_value_unit(layout), layout->type);
        tsr_kv_code_put_value(keys + tsr_kv_layout_key_bytes(layout), layout, at, &code);
    }
}

/* Token `at` of a block: all heads of one row. */
static void put_token(const job *j, char *block, int at, int64_t row)
{
    const tsr_kv_layout *layout = j->kv->layout;
    const float *k = tsr_rows_cpu_f32(j->k, row);
    const float *v = layout->latent ? NULL : tsr_rows_cpu_f32(j->v, row);

    for (int h = 0; h < layout->n_kv_heads; h++) {
        char *keys = block + tsr_kv_layout_offset(layout, j->kv->layer, h);

        if (tsr_kv_type_is_coded(layout->type)) {
            put_coded(j, keys, at, k + (int64_t)h * layout->key_dim,
                      v == NULL ? NULL : v + (int64_t)h * layout->value_dim);
        } else {
            put_plain(j, keys, at, k + (int64_t)h * layout->key_dim,
                      v == NULL ? NULL : v + (int64_t)h * layout->value_dim);
        }
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

/* The keys of one head in the block of a position. */
static const char *keys_at(const job *j, const int32_t *slots, int64_t position, int head)
{
    const tsr_kv_layout *layout = j->kv->layout;
    const int32_t slot = slots[position / layout->block_tokens];
    const char *block = slot >= 0
                            ? (const char *)j->kv->pool + (size_t)slot * j->kv->block_bytes
                            : (const char *)j->kv->host_pool + (size_t)~slot * j->kv->block_bytes;

    return block + tsr_kv_layout_offset(layout, j->kv->layer, head);
}

/* ---- keys that have means: a head of a sequence, its rows in order ---- */

enum {
    GROUP = TSR_KV_LAYOUT_GROUP
};

/* Means are split, and as they are at the position before the group's first. */
static void load_mean(float *mean, const void *keys, const tsr_kv_layout *layout, int at)
{
    const int n = (layout->key_dim + 1) / 2 * 2;
    float scale;
    const int8_t *codes = tsr_kv_code_mean_at(&scale, keys, layout, at);

    for (int i = 0; i < n; i++) {
        mean[i] = scale * (float)codes[i];
    }
}

/* The mean of a group, from the keys of the one before it and from what was before those. */
static void mean_after(const job *j, float *mean, const int32_t *slots, int64_t group, int head)
{
    const tsr_kv_layout *layout = j->kv->layout;
    const tsr_kv_drift *drift = j->kv->drift;
    const int n = 2 * drift->n_pairs;
    const int64_t before = (group - 1) * GROUP;
    const int within = (int)(before % layout->block_tokens);
    const char *keys = keys_at(j, slots, before, head);
    const int first = before == 0 ? 1 : 0;
    float sum[TSR_KV_LAYOUT_MOST_DIM] = {0};

    load_mean(mean, keys, layout, within);
    tsr_kv_drift_turn(drift, mean, GROUP);
    for (int t = first; t < GROUP; t++) {
        float x[TSR_KV_LAYOUT_MOST_DIM];
        float split[TSR_KV_LAYOUT_MOST_DIM];
        const bool is_centred = tsr_kv_code_key(x, keys, layout, within + t);

        j->turn(x, layout->key_dim, tsr_kv_code_key_unit(layout));
        tsr_kv_drift_split(drift, split, x);
        tsr_kv_drift_turn(drift, split, GROUP - 1 - t);
        for (int i = 0; i < n; i++) {
            sum[i] += is_centred ? split[i] + mean[i] : split[i];
        }
    }
    for (int i = 0; i < n; i++) {
        const float newest = sum[i] / (float)(GROUP - first);

        mean[i] = before == 0 ? newest : 0.75F * mean[i] + 0.25F * newest;
    }
}

/* The mean that holds from the first position of a group on, whose key is k. */
static void put_mean(const job *j, const int32_t *slots, int64_t position, int head, const float *k)
{
    const tsr_kv_layout *layout = j->kv->layout;
    char *keys = (char *)(uintptr_t)keys_at(j, slots, position, head);
    float mean[TSR_KV_LAYOUT_MOST_DIM];

    if (position == 0) {
        tsr_kv_drift_split(j->kv->drift, mean, k);
        tsr_kv_drift_turn(j->kv->drift, mean, -1);
    } else {
        mean_after(j, mean, slots, position / GROUP, head);
    }
    tsr_kv_code_put_mean(keys, layout, (int)(position % layout->block_tokens), mean);
}

/* One key, less its group's mean. */
static void put_centred(const job *j, char *keys, int at, const float *k, const float *mean)
{
    const tsr_kv_layout *layout = j->kv->layout;
    const tsr_kv_drift *drift = j->kv->drift;
    const int unit = tsr_kv_code_key_unit(layout);
    float split[TSR_KV_LAYOUT_MOST_DIM];
    float here[TSR_KV_LAYOUT_MOST_DIM];
    float turned[TSR_KV_LAYOUT_MOST_DIM];
    tsr_kv_code code;

    memcpy(split, mean, 2 * (size_t)drift->n_pairs * sizeof(*mean));
    tsr_kv_drift_turn(drift, split, at % GROUP + 1);
    tsr_kv_drift_join(drift, here, split);
    j->turn(here, layout->key_dim, unit);
    memcpy(turned, k, (size_t)layout->key_dim * sizeof(*k));
    j->turn(turned, layout->key_dim, unit);
    tsr_kv_code_round(&code, turned, here, layout->key_dim, layout->type);
    tsr_kv_code_put_key(keys, layout, at, &code);
}

/* In order, because each group needs the one before it. */
static void heads(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;
    const tsr_kv_layout *layout = j->kv->layout;
    const int32_t *row_start = j->batch->row_start.data;
    const int32_t *first_pos = j->batch->first_pos.data;
    const int32_t *lanes = j->batch->lanes.data;

    (void)thread;
    for (int64_t i = first; i < end; i++) {
        const int s = (int)(i / layout->n_kv_heads);
        const int head = (int)(i % layout->n_kv_heads);
        const int32_t *slots = tsr_rows_cpu_i32(j->batch->tables, lanes[s]);
        float mean[TSR_KV_LAYOUT_MOST_DIM];

        for (int64_t r = row_start[s]; r < row_start[s + 1]; r++) {
            const int64_t position = first_pos[s] + (r - row_start[s]);
            const int at = (int)(position % layout->block_tokens);
            const float *k = tsr_rows_cpu_f32(j->k, r) + (int64_t)head * layout->key_dim;
            char *keys = (char *)(uintptr_t)keys_at(j, slots, position, head);

            if (position % GROUP == 0) {
                put_mean(j, slots, position, head, k);
            }
            if (r == row_start[s] || position % GROUP == 0) {
                load_mean(mean, keys, layout, at);
            }
            put_centred(j, keys, at, k, mean);
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

static int64_t ns_an_element(tsr_kv_type type)
{
    return tsr_kv_type_is_coded(type) ? 10 : 1;
}

tsr_status tsr_kv_write_cpu(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor k, tsr_tensor v,
                            const tsr_batch *batch)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops),
                   TSR_ISA_PICK(dev->isa, tsr_attention_loops)->turn,
                   kv,
                   k,
                   v,
                   batch};

    TSR_TRY(check_places(kv, batch));
    tsr_rows_cpu_run(dev, k.n_rows, k.n_cols * ns_an_element(kv->layout->type), rows, &j);
    if (tsr_kv_layout_is_centred(kv->layout)) {
        const int64_t n_heads = (int64_t)batch->n_seqs * kv->layout->n_kv_heads;

        tsr_rows_cpu_run(dev, n_heads,
                         k.n_rows * k.n_cols / n_heads * ns_an_element(kv->layout->type), heads,
                         &j);
    }
    return TSR_OK;
}
