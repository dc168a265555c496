#include "kernels/attention_tile.h"

#include <string.h>

#include "kernels/kv_code.h"
#include "kernels/rows_cpu.h"

enum {
    // Queries that pay for converting a run to f32 once: what one instruction converts, all else.
    WIDEN_FROM = 36,
    WIDEN_CODES_FROM = 16,
    LINE_BYTES = 64
};

/* ---- what there is --------------------------------------------------------------------------- */

tsr_attention_sequence tsr_attention_tile_sequence(const tsr_attention_call *c, int seq)
{
    const int32_t *row_start = c->batch->row_start.data;
    const int32_t *first_pos = c->batch->first_pos.data;
    const int32_t *lanes = c->batch->lanes.data;
    const int32_t *table_start = c->batch->table_start.data;

    return (tsr_attention_sequence){row_start[seq], row_start[seq + 1] - row_start[seq],
                                    first_pos[seq],
                                    tsr_rows_cpu_i32(c->batch->tables, lanes[seq]) +
                                        (table_start != NULL ? table_start[seq] : 0)};
}

tsr_attention_rows tsr_attention_tile_at(const tsr_attention_call *c, int seq, int64_t row_tile,
                                         int64_t tile_rows, int strip)
{
    const tsr_attention_shape *shape = c->shape;
    const int64_t kv_head = strip / c->strips_a_head;
    const int64_t piece = strip % c->strips_a_head;
    const int64_t group = kv_head * shape->group - shape->first_head; // its first head, may be < 0
    const int64_t start = group + piece * TSR_ATTENTION_STRIP_HEADS;
    const int64_t end = tsr_least(tsr_least(shape->n_heads, group + shape->group),
                                  start + TSR_ATTENTION_STRIP_HEADS);
    tsr_attention_rows t = {.seq = seq, .in = tsr_attention_tile_sequence(c, seq)};

    t.first_row = row_tile * tile_rows;
    t.n_rows = (int)tsr_least(tile_rows, t.in.n_rows - t.first_row);
    t.kv_head = (int)kv_head;
    t.first_head = (int)tsr_most(0, start);
    t.n_heads = (int)tsr_most(0, end - t.first_head);
    return t;
}

/* ---- what is seen ---------------------------------------------------------------------------- */

/* The first position that a window lets the row at `position` see. */
static int64_t window_start(const tsr_attention_shape *shape, int64_t position)
{
    return shape->window == 0 ? 0 : tsr_most(0, position - shape->window + 1);
}

int64_t tsr_attention_tile_first_run(const tsr_attention_call *c, const tsr_attention_sequence *in)
{
    return window_start(c->shape, in->first_pos) / TSR_ATTENTION_RUN;
}

int64_t tsr_attention_tile_end_run(const tsr_attention_sequence *in)
{
    return tsr_ceil_div(in->first_pos + in->n_rows, TSR_ATTENTION_RUN);
}

/* What the row at `position` sees of the run that starts at `start`, without a stride. */
static tsr_attention_range seen(const tsr_attention_shape *shape, int64_t position, int64_t start)
{
    return (tsr_attention_range){
        (int)tsr_most(0, tsr_least(window_start(shape, position) - start, TSR_ATTENTION_RUN)),
        (int)tsr_most(0, tsr_least(position + 1 - start, TSR_ATTENTION_RUN))};
}

/* The same with a stride. */
static tsr_attention_pattern seen_by_stride(const tsr_attention_shape *shape, int64_t position,
                                            int64_t start)
{
    const tsr_attention_range all = seen(shape, position, start);
    const int64_t local = position - shape->local + 1 - start; // from here on everything is near
    const int64_t near =
        shape->stride == 1 ? all.first : tsr_least(tsr_most(all.first, local), all.end);

    if (all.first >= all.end) {
        return (tsr_attention_pattern){.step = 1};
    }
    return (tsr_attention_pattern){
        (int)tsr_least(all.first + (position - start - all.first) % shape->stride, near),
        (int)near,
        (int)tsr_least(shape->stride, TSR_ATTENTION_RUN), // so far it leads out of the run anyhow
        {(int)near, all.end}};
}

static int count_tokens(const tsr_attention_pattern *p)
{
    return (p->end - p->first + p->step - 1) / p->step + p->near.end - p->near.first;
}

/* Bit g: something of the g-th 16 tokens is seen. */
static uint32_t groups_of_range(tsr_attention_range r)
{
    return r.first >= r.end ? 0 : (2U << (r.end - 1) / 16) - (1U << r.first / 16);
}

static uint32_t groups_of_pattern(const tsr_attention_pattern *p)
{
    uint32_t groups = groups_of_range(p->near);

    for (int t = p->first; t < p->end; t += p->step) {
        groups |= 1U << t / 16;
    }
    return groups;
}

/* ---- where it lies --------------------------------------------------------------------------- */

static const char *block_at(const tsr_kv_view *kv, int32_t slot)
{
    return slot >= 0 ? (const char *)kv->pool + (size_t)slot * kv->block_bytes
                     : (const char *)kv->host_pool + (size_t)~slot * kv->block_bytes;
}

/* The groups of a run; those that are not among the bits stay NULL. */
static void find_run(tsr_attention_run *run, const tsr_attention_call *c,
                     const tsr_attention_rows *t, int64_t index, uint32_t groups)
{
    const tsr_kv_layout *layout = c->kv->layout;
    const size_t offset = tsr_kv_layout_offset(layout, c->kv->layer, t->kv_head);
    const size_t key_bytes = tsr_kv_layout_key_bytes(layout);
    const size_t key_elem_bytes = ((size_t)tsr_kv_type_bits(layout->type) + 7) / 8;
    const size_t value_row_bytes =
        (size_t)c->padded_dim * (size_t)tsr_kv_type_bits(layout->type) / 8;

    *run = (tsr_attention_run){.type = layout->type,
                               .key_dim = layout->key_dim,
                               .padded_dim = c->padded_dim,
                               .key_stride = layout->block_tokens};
    for (int g = 0; g < TSR_ATTENTION_GROUPS; g++) {
        if ((groups >> g & 1U) != 0) {
            const int64_t token = index * TSR_ATTENTION_RUN + g * 16;
            const size_t within = (size_t)(token % layout->block_tokens);
            const char *keys = block_at(c->kv, t->in.slots[token / layout->block_tokens]) + offset;

            run->keys[g] = keys + within * key_elem_bytes;
            run->values[g] = layout->latent ? NULL : keys + key_bytes + within * value_row_bytes;
        }
    }
}

/* Is it less to set the tokens side by side than to score their whole groups? Both cost about one
 * step a dimension, a token here, a group and each of its queries there. The same for every number
 * of ranks, whose tiles have fewer heads. */
static bool is_sparse(const tsr_attention_call *c, const tsr_attention_pattern *p, uint32_t groups)
{
    return c->shape->slopes.data == NULL && !c->kv->layout->latent &&
           !tsr_kv_type_is_coded(c->kv->layout->type) &&
           3 * count_tokens(p) < 2 * __builtin_popcount(groups) * (1 + c->shape->group);
}

/* Token t of a run becomes the n-th of what is picked. */
static void pick_token(tsr_attention_run *to, const tsr_attention_bench *b,
                       const tsr_attention_run *from, int t, int n)
{
    const size_t elem_bytes = (size_t)tsr_kv_type_bits(from->type) / 8;
    const size_t row_bytes = (size_t)from->padded_dim * elem_bytes;
    const int64_t key_stride = from->key_stride;
    const char *key = (const char *)from->keys[t / 16] + (size_t)(t % 16) * elem_bytes;
    char *keys = (char *)b->keys + (size_t)(n / 16 * from->key_dim) * 16 * elem_bytes;
    char *values = (char *)b->values + (size_t)(n / 16) * 16 * row_bytes;

    if (elem_bytes == sizeof(uint16_t)) {
        uint16_t *at = (uint16_t *)(void *)keys + n % 16;

        for (int64_t d = 0; d < from->key_dim; d++) {
            at[d * 16] = ((const uint16_t *)(const void *)key)[d * key_stride];
        }
    } else {
        float *at = (float *)(void *)keys + n % 16;

        for (int64_t d = 0; d < from->key_dim; d++) {
            at[d * 16] = ((const float *)(const void *)key)[d * key_stride];
        }
    }
    memcpy(values + (size_t)(n % 16) * row_bytes,
           (const char *)from->values[t / 16] + (size_t)(t % 16) * row_bytes, row_bytes);
    to->keys[n / 16] = keys;
    to->values[n / 16] = values;
}

/* The tokens of a pattern, side by side. */
static void pick_tokens(tsr_attention_run *to, const tsr_attention_bench *b,
                        const tsr_attention_run *from, const tsr_attention_pattern *p)
{
    int n = 0;

    *to = (tsr_attention_run){.type = from->type,
                              .key_dim = from->key_dim,
                              .padded_dim = from->padded_dim,
                              .key_stride = 16};
    for (int t = p->first; t < p->end; t += p->step) {
        pick_token(to, b, from, t, n++);
    }
    for (int t = p->near.first; t < p->near.end; t++) {
        pick_token(to, b, from, t, n++);
    }
}

/* What the codes of tokens [from, to) stand for. */
static void add_scales(const tsr_attention_call *c, tsr_attention_run *run,
                       const tsr_attention_bench *b, int from, int to)
{
    const tsr_kv_layout *layout = c->kv->layout;
    const size_t key_codes = tsr_kv_layout_key_codes(layout);
    const size_t value_codes = tsr_kv_layout_value_codes(layout);
    const size_t value_row_bytes =
        (size_t)c->padded_dim * (size_t)tsr_kv_type_bits(layout->type) / 8;
    const int n_pairs = (layout->key_dim + 1) / 2;
    const int padded_pairs = tsr_attention_pairs(layout->key_dim);
    float *value_scales = b->scales + TSR_ATTENTION_RUN;
    float *centred = value_scales + TSR_ATTENTION_RUN;

    for (int g = from / 16; g * 16 < to; g++) {
        const size_t within = (size_t)((int64_t)g * 16 % layout->block_tokens);
        const char *keys;

        if (run->keys[g] == NULL) {
            continue;
        }
        keys = (const char *)run->keys[g] - within; // bytes of a token apart
        c->loops->widen_scales(b->scales + g * 16, centred + g * 16,
                               (const uint16_t *)(const void *)(keys + key_codes) + within);
        if (!layout->latent) {
            const char *values = (const char *)run->values[g] - within * value_row_bytes;

            c->loops->widen_scales(value_scales + g * 16, NULL,
                                   (const uint16_t *)(const void *)(values + value_codes) + within);
        }
        if (tsr_kv_layout_is_centred(layout)) {
            float *mean = b->means + (int64_t)g * 2 * padded_pairs;
            float scale;
            const int8_t *codes = tsr_kv_code_mean_at(&scale, keys, layout, (int)within);

            c->loops->widen_mean(mean, codes, n_pairs, scale);
            c->loops->widen_mean(mean + padded_pairs, codes + n_pairs, n_pairs, scale);
            run->means = b->means;
            run->drift = c->kv->drift;
        }
    }
    run->key_scales = b->scales;
    run->value_scales = layout->latent ? b->scales : value_scales;
    run->centred = centred;
}

/* Ask for the scales and means of tokens [from, to) of a run that is attended next; its codes are
 * asked for by the loops. */
static void ask_for_scales(const tsr_attention_call *c, const tsr_attention_run *run, int from,
                           int to)
{
    const tsr_kv_layout *layout = c->kv->layout;
    const size_t key_codes = tsr_kv_layout_key_codes(layout);
    const size_t key_bytes = tsr_kv_layout_key_bytes(layout);
    const size_t value_bytes = tsr_kv_layout_value_bytes(layout);

    for (int t = from / layout->block_tokens * layout->block_tokens; t < to;
         t += layout->block_tokens) {
        const int g = (t > from ? t : from) / 16;
        const char *keys = (const char *)run->keys[g] - g * 16 % layout->block_tokens;

        for (size_t i = key_codes; i < key_bytes; i += LINE_BYTES) {
            __builtin_prefetch(keys + i, 0, 2);
        }
        for (size_t i = tsr_kv_layout_value_codes(layout); i < value_bytes; i += LINE_BYTES) {
            __builtin_prefetch(keys + key_bytes + i, 0, 2);
        }
    }
}

/* ---- a tile over a run ----------------------------------------------------------------------- */

/* Split into two halves of whole vectors. */
static void split_padded(const tsr_kv_drift *drift, float *to, int padded_pairs, const float *x)
{
    float split[TSR_KV_LAYOUT_MOST_DIM];
    const size_t n_bytes = (size_t)drift->n_pairs * sizeof(float);

    tsr_kv_drift_split(drift, split, x);
    memset(to, 0, 2 * (size_t)padded_pairs * sizeof(float));
    memcpy(to, split, n_bytes);
    memcpy(to + padded_pairs, split + drift->n_pairs, n_bytes);
}

void tsr_attention_tile_queries(const tsr_attention_call *c, const tsr_attention_rows *t,
                                const tsr_attention_bench *b)
{
    const tsr_kv_layout *layout = c->kv->layout;
    const int key_dim = layout->key_dim;
    const int padded_pairs = tsr_attention_pairs(key_dim);
    float *q = b->q;
    float *pairs = b->pairs;

    for (int r = 0; r < t->n_rows; r++) {
        const float *row = tsr_rows_cpu_f32(c->q, t->in.first_row + t->first_row + r);

        for (int h = 0; h < t->n_heads; h++) {
            c->loops->scale(q, row + (int64_t)(t->first_head + h) * key_dim, key_dim,
                            c->shape->scale);
            if (tsr_kv_layout_is_centred(layout)) {
                split_padded(c->kv->drift, pairs, padded_pairs, q);
                pairs += 2 * padded_pairs;
            }
            if (tsr_kv_type_is_turned(layout->type)) {
                c->loops->turn(q, key_dim, tsr_kv_code_key_unit(layout));
            }
            q += key_dim;
        }
    }
}

/* The whole of what any query of the tile sees of a run; end <= first when that is nothing. */
static tsr_attention_range seen_by_tile(const tsr_attention_call *c, const tsr_attention_rows *t,
                                        int64_t run)
{
    const int64_t start = run * TSR_ATTENTION_RUN;
    const int64_t first = t->in.first_pos + t->first_row;

    return (tsr_attention_range){seen(c->shape, first, start).first,
                                 seen(c->shape, first + t->n_rows - 1, start).end};
}

static int queries_to_widen_for(tsr_kv_type type)
{
    return type == TSR_KV_TYPE_FP8 || tsr_kv_type_has_levels(type) ? WIDEN_CODES_FROM : WIDEN_FROM;
}

void tsr_attention_tile_attend(const tsr_attention_call *c, const tsr_attention_rows *t,
                               int64_t run, const tsr_attention_bench *b, float *parts,
                               const tsr_attention_rows *later, int64_t later_run)
{
    const int n_queries = t->n_rows * t->n_heads;
    const int64_t start = run * TSR_ATTENTION_RUN;
    const int64_t first_pos = t->in.first_pos + t->first_row;
    const int widen_from = queries_to_widen_for(c->kv->layout->type);
    tsr_attention_range all = seen_by_tile(c, t, run);
    const float *slopes = c->shape->slopes.data;
    tsr_attention_range seen_by[TSR_ATTENTION_QUERIES];
    tsr_attention_pattern pattern;
    uint32_t groups = groups_of_range(all);
    tsr_attention_run then;
    tsr_attention_run what;
    tsr_attention_run copy; // side by side, or widened
    const tsr_attention_run *at = &what;
    tsr_attention_tile queries = {
        .seen = seen_by, .softcap = c->shape->softcap, .scores = b->scores};
    int first = 0;
    int end = 0;
    bool picked;

    for (int i = 0; i < n_queries; i++) { // those that see anything follow one another
        seen_by[i] = seen(c->shape, first_pos + i / t->n_heads, start);
        *tsr_attention_tile_sum(c, parts + (int64_t)i * c->part_floats) = 0;
        if (seen_by[i].first < seen_by[i].end) {
            first = end == 0 ? i : first;
            end = i + 1;
        }
    }
    if (c->shape->stride > 0 && end > 0) { // a tile has one row
        pattern = seen_by_stride(c->shape, first_pos, start);
        groups = groups_of_pattern(&pattern);
        queries.pattern = &pattern;
        end = groups == 0 ? 0 : end;
    }
    if (end == 0) {
        return;
    }
    find_run(&what, c, t, run, groups);
    if (tsr_kv_type_is_coded(what.type)) {
        add_scales(c, &what, b, all.first, all.end);
    }
    picked = queries.pattern != NULL && is_sparse(c, &pattern, groups);
    if (picked) {
        pick_tokens(&copy, b, &what, &pattern);
        at = &copy;
        all = (tsr_attention_range){0, count_tokens(&pattern)};
        queries.pattern = NULL;
        for (int i = first; i < end; i++) {
            seen_by[i] = all;
        }
    }
    queries.n_queries = end - first;
    queries.seen = seen_by + first;
    queries.q = b->q + (int64_t)first * c->kv->layout->key_dim;
    queries.pairs = b->pairs + (int64_t)first * 2 * tsr_attention_pairs(c->kv->layout->key_dim);
    queries.parts = parts + (int64_t)first * c->part_floats;
    queries.n_heads = t->n_heads;
    queries.slopes = slopes == NULL ? NULL : slopes + t->first_head; // first is a multiple of heads
    queries.slopes_scale = c->shape->slopes_scale;
    queries.first_token = (float)start;
    queries.distance = (float)(start - (first_pos + first / t->n_heads));
    queries.from_memory =
        queries.n_queries < widen_from && c->shape->stride == 0 && !c->kv->layout->latent;
    if (queries.from_memory && later != NULL) {
        const tsr_attention_range next = seen_by_tile(c, later, later_run);

        if (next.first < next.end) {
            find_run(&then, c, later, later_run, groups_of_range(next));
            queries.then = &then;
            if (tsr_kv_type_is_coded(then.type)) {
                ask_for_scales(c, &then, next.first, next.end);
            }
        }
    }
    if (c->kv->layout->latent ||
        (queries.n_queries >= widen_from && what.type != TSR_KV_TYPE_F32 && !picked)) {
        c->loops->widen(&copy, b->keys, b->values, &what, all.first, all.end);
        at = &copy;
    }
    c->loops->attend(at, &queries);
}

void tsr_attention_tile_merge(const tsr_attention_call *c, float *state, const float *part)
{
    if (part[c->padded_dim + 1] == 0) {
        return; // nothing was seen; a sum that is NaN goes on
    }
    if (state[c->padded_dim + 1] == 0) {
        memcpy(state, part, (size_t)c->part_floats * sizeof(*part));
    } else {
        c->loops->merge(state, part, c->padded_dim);
    }
}

void tsr_attention_tile_finish(const tsr_attention_call *c, tsr_tensor out, int64_t row, int head,
                               float *state)
{
    const tsr_kv_layout *layout = c->kv->layout;
    const int value_dim = layout->value_dim;
    float *to = tsr_rows_cpu_f32(out, row) + (int64_t)head * value_dim;
    const float *sinks = c->shape->sinks.data;

    if (sinks != NULL) {
        float sink[TSR_ATTENTION_MOST_PART] = {0};

        sink[c->padded_dim] = sinks[head];
        sink[c->padded_dim + 1] = 1;
        c->loops->merge(state, sink, c->padded_dim);
    }
    c->loops->finish(to, state, value_dim);
    if (tsr_kv_type_is_turned(layout->type)) {
        c->loops->turn(to, value_dim, tsr_kv_code_value_unit(layout));
    }
}
