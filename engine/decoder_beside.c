#include "engine/decoder_beside.h"

#include <string.h>

#include "base/alloc.h"

enum {
    RUN = TSR_ATTENTION_RUN,
    INTS_A_SEQUENCE = 2 // where it begins for the GPU, as a position and as an entry of its table
};

struct tsr_decoder_beside {
    tsr_decoder_parts parts;
    tsr_device *cpu; // owned
    int key_dim, value_dim, n_heads;
    int block_tokens;

    tsr_decoder_spans spans; // of the batch that was looked at, as are the next
    bool needs[TSR_CONFIG_GROUPS];
    int32_t *n_runs; // [n_groups, max_seqs] that are the CPU's; owned
    int32_t *ints;   // [n_groups, INTS_A_SEQUENCE, max_seqs], owned, as is the same on the device
    int32_t *ints_there;

    float *memory; // q [R, heads * key_dim], o [R, heads * value_dim], m, l [R, heads]; owned
    float *q, *o, *m, *l;
    float *memory_there;       // all but q, on the device; owned
    tsr_attention_piece given; // windows of it
};

static size_t count_ints(const tsr_decoder_beside *b)
{
    return (size_t)b->parts.config->n_groups * INTS_A_SEQUENCE * (size_t)b->parts.max_seqs;
}

/* Of all rows and heads. */
static size_t count_floats(const tsr_decoder_beside *b, int a_head)
{
    return (size_t)b->parts.max_rows * (size_t)b->n_heads * (size_t)a_head;
}

static tsr_status make_room(tsr_decoder_beside *b)
{
    const tsr_device_kind kind = tsr_device_kind_of(b->parts.dev);
    const size_t up = count_floats(b, b->value_dim + 2) * sizeof(float);
    const size_t down = count_floats(b, b->key_dim) * sizeof(float);
    const int64_t rows = b->parts.max_rows;
    float *at;

    b->n_runs = tsr_alloc(count_ints(b), sizeof(*b->n_runs));
    b->ints = tsr_alloc(count_ints(b), sizeof(*b->ints));
    b->memory = tsr_alloc_pages(down + up);
    b->ints_there = tsr_device_alloc(b->parts.dev, count_ints(b) * sizeof(*b->ints_there));
    b->memory_there = tsr_device_alloc(b->parts.dev, up);
    if (b->n_runs == NULL || b->ints == NULL || b->memory == NULL || b->ints_there == NULL ||
        b->memory_there == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for what the CPU attends for %d rows",
                        b->parts.max_rows);
    }
    b->q = b->memory;
    b->o = b->q + count_floats(b, b->key_dim);
    b->m = b->o + count_floats(b, b->value_dim);
    b->l = b->m + count_floats(b, 1);
    at = b->memory_there;
    b->given.o = tsr_tensor_of(at, TSR_DTYPE_F32, kind, rows, (int64_t)b->n_heads * b->value_dim);
    at += count_floats(b, b->value_dim);
    b->given.m = tsr_tensor_of(at, TSR_DTYPE_F32, kind, rows, b->n_heads);
    at += count_floats(b, 1);
    b->given.l = tsr_tensor_of(at, TSR_DTYPE_F32, kind, rows, b->n_heads);
    return TSR_OK;
}

tsr_status tsr_decoder_beside_create(tsr_decoder_beside **out, const tsr_decoder_parts *parts)
{
    tsr_ops_limits limits = {
        .n_rows = parts->max_rows, .n_heads = (int)parts->shard->heads.count, .n_seqs = 1};
    tsr_status st = TSR_OK;
    tsr_decoder_beside *b;
    tsr_kv_view kv;

    *out = NULL;
    if (tsr_device_is_host(parts->dev) || limits.n_heads == 0) {
        return TSR_OK;
    }
    kv = tsr_kv_store_view(parts->kv, 0);
    if (kv.host_pool == NULL) {
        return TSR_OK;
    }
    limits.head_dim =
        kv.layout->key_dim > kv.layout->value_dim ? kv.layout->key_dim : kv.layout->value_dim;
    b = tsr_alloc(1, sizeof(*b));
    if (b == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the CPU beside the GPU");
    }
    b->parts = *parts;
    b->key_dim = kv.layout->key_dim;
    b->value_dim = kv.layout->value_dim;
    b->n_heads = limits.n_heads;
    b->block_tokens = kv.layout->block_tokens;
    TSR_TRY_GOTO(st, fail, tsr_device_open_beside(&b->cpu, parts->dev));
    TSR_TRY_GOTO(st, fail,
                 tsr_device_reserve_scratch(
                     b->cpu, tsr_ops_scratch_bytes(
                                 TSR_DEVICE_CPU,
                                 tsr_cpu_pool_n_threads(tsr_device_pool(parts->dev)), &limits)));
    TSR_TRY_GOTO(st, fail, make_room(b));
    *out = b;
    return TSR_OK;

fail:
    tsr_decoder_beside_destroy(b);
    return st;
}

void tsr_decoder_beside_destroy(tsr_decoder_beside *b)
{
    if (b == NULL) {
        return;
    }
    tsr_device_free(b->parts.dev, b->memory_there,
                    count_floats(b, b->value_dim + 2) * sizeof(float));
    tsr_device_free(b->parts.dev, b->ints_there, count_ints(b) * sizeof(*b->ints_there));
    tsr_free_pages(b->memory, count_floats(b, b->key_dim + b->value_dim + 2) * sizeof(float));
    tsr_free(b->ints);
    tsr_free(b->n_runs);
    tsr_device_close(b->cpu);
    tsr_free(b);
}

static int32_t *runs_of(const tsr_decoder_beside *b, int group)
{
    return b->n_runs + (size_t)group * (size_t)b->parts.max_seqs;
}

/* Where a group's integers begin, here or on the device. */
static size_t ints_of(const tsr_decoder_beside *b, int group)
{
    return (size_t)group * INTS_A_SEQUENCE * (size_t)b->parts.max_seqs;
}

tsr_status tsr_decoder_beside_look(tsr_decoder_beside *b, const tsr_decoder_spans *spans)
{
    b->spans = *spans;
    for (int g = 0; g < b->parts.config->n_groups; g++) {
        int32_t *first_pos = b->ints + ints_of(b, g);
        int32_t *table_start = first_pos + b->parts.max_seqs;

        b->needs[g] = false;
        memset(first_pos, 0, INTS_A_SEQUENCE * (size_t)b->parts.max_seqs * sizeof(*first_pos));
        for (int s = 0; s < spans->n_seqs; s++) {
            const int n_away = tsr_kv_store_n_away(b->parts.kv, spans->lanes[s], g);
            const int32_t n = n_away * b->block_tokens / RUN;

            runs_of(b, g)[s] = n;
            first_pos[s] = spans->first_pos[s] - n * RUN;
            table_start[s] = n * RUN / b->block_tokens;
            b->needs[g] = b->needs[g] || n > 0;
        }
        if (b->needs[g]) {
            TSR_TRY(tsr_device_upload(b->parts.dev, b->ints_there + ints_of(b, g), first_pos,
                                      INTS_A_SEQUENCE * (size_t)b->parts.max_seqs *
                                          sizeof(*first_pos)));
        }
    }
    if (tsr_decoder_beside_is_needed(b)) { // rows of other sequences have seen nothing before
        memset(b->l, 0, count_floats(b, 1) * sizeof(*b->l));
    }
    return TSR_OK;
}

bool tsr_decoder_beside_is_needed(const tsr_decoder_beside *b)
{
    bool is_needed = false;

    for (int g = 0; g < b->parts.config->n_groups; g++) {
        is_needed = is_needed || b->needs[g];
    }
    return is_needed;
}

static tsr_tensor on_host(const void *memory, tsr_dtype dtype, int64_t n_rows, int64_t n_cols)
{
    return tsr_tensor_of((void *)(uintptr_t)memory, dtype, TSR_DEVICE_CPU, n_rows, n_cols);
}

/* The CPU's runs of sequence s: what its rows have seen of them is in b->o, m and l then. */
static tsr_status attend_sequence(tsr_decoder_beside *b, int s, const tsr_kv_view *kv, int group,
                                  const tsr_attention_shape *shape)
{
    const int32_t first_row = b->spans.row_start[s];
    const int32_t row_start[] = {0, b->spans.row_start[s + 1] - first_row};
    const int64_t n = row_start[1];
    const tsr_batch batch = {.n_seqs = 1,
                             .row_start = on_host(row_start, TSR_DTYPE_I32, 1, 2),
                             .first_pos = on_host(&b->spans.first_pos[s], TSR_DTYPE_I32, 1, 1),
                             .lanes = on_host(&b->spans.lanes[s], TSR_DTYPE_I32, 1, 1),
                             .tables = tsr_kv_store_host_tables(b->parts.kv, group),
                             .longest = b->spans.first_pos[s] + n,
                             .most_rows = n};
    const int64_t at = (int64_t)first_row * b->n_heads;
    const tsr_attention_piece piece = {
        on_host(b->o + at * b->value_dim, TSR_DTYPE_F32, n, (int64_t)b->n_heads * b->value_dim),
        on_host(b->m + at, TSR_DTYPE_F32, n, b->n_heads),
        on_host(b->l + at, TSR_DTYPE_F32, n, b->n_heads)};
    tsr_attention_shape own = *shape;
    tsr_kv_view host = *kv;

    own.sinks = (tsr_tensor){0}; // they come last, and the GPU has them
    host.pool = NULL;
    return tsr_attention_part(
        b->cpu, &piece,
        on_host(b->q + at * b->key_dim, TSR_DTYPE_F32, n, (int64_t)b->n_heads * b->key_dim), &host,
        &batch, &own, 0, runs_of(b, group)[s]);
}

/* Numbers of rows of a sequence, n_cols each, from one side to the other. */
static tsr_status bring(const tsr_decoder_beside *b, int s, const float *host, tsr_tensor there,
                        bool up)
{
    const size_t first = (size_t)b->spans.row_start[s] * (size_t)there.n_cols;
    const size_t n_bytes = (size_t)(b->spans.row_start[s + 1] - b->spans.row_start[s]) *
                           (size_t)there.n_cols * sizeof(float);
    float *at = (float *)there.data + first;

    return up ? tsr_device_upload(b->parts.dev, at, host + first, n_bytes)
              : tsr_device_download(b->parts.dev, (float *)(uintptr_t)(host + first), at, n_bytes);
}

/* What the CPU's attention is not for here: operands that lie on the GPU, positions that count from
 * the sequence's start, and layers that see little. */
static bool is_for_cpu(const tsr_kv_view *kv, const tsr_attention_shape *shape)
{
    return shape->window == 0 && shape->stride == 0 && shape->slopes.data == NULL &&
           !tsr_kv_layout_is_centred(kv->layout);
}

tsr_status tsr_decoder_beside_attend(tsr_decoder_beside *b, tsr_tensor q, const tsr_kv_view *kv,
                                     int group, tsr_batch *batch, tsr_attention_shape *shape)
{
    const tsr_decoder_spans *spans = &b->spans;
    const int32_t *n_runs = runs_of(b, group);
    int32_t *ints = b->ints_there + ints_of(b, group);
    int64_t longest = 0;

    if (!b->needs[group] || !is_for_cpu(kv, shape)) {
        return TSR_OK;
    }
    for (int s = 0; s < spans->n_seqs; s++) {
        const int64_t end = spans->first_pos[s] + spans->row_start[s + 1] - spans->row_start[s] -
                            (int64_t)n_runs[s] * RUN;

        longest = end > longest ? end : longest;
        if (n_runs[s] > 0) {
            TSR_TRY(bring(b, s, b->q, q, false));
            TSR_TRY(attend_sequence(b, s, kv, group, shape));
            TSR_TRY(bring(b, s, b->o, b->given.o, true));
            TSR_TRY(bring(b, s, b->m, b->given.m, true));
        }
    }
    TSR_TRY(tsr_device_upload(b->parts.dev, b->given.l.data, b->l,
                              (size_t)q.n_rows * (size_t)b->n_heads * sizeof(*b->l)));
    b->given.o.n_rows = b->given.m.n_rows = b->given.l.n_rows = q.n_rows;
    batch->first_pos.data = ints;
    batch->table_start = batch->first_pos;
    batch->table_start.data = ints + b->parts.max_seqs;
    batch->longest = longest;
    shape->before = &b->given;
    return TSR_OK;
}
