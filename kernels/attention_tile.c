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

    return (tsr_attention_sequence){row_start[seq], row_start[seq + 1] - row_start[seq],
                                    first_pos[seq], tsr_rows_cpu_i32(c->batch->tables, lanes[seq])};
}

/* Rows of a sequence that lie side by side and see different single tokens. */
static int64_t n_classes(const tsr_attention_call *c, const tsr_attention_sequence *in)
{
    return tsr_least(c->stride, in->n_rows);
}

int64_t tsr_attention_tile_count(const tsr_attention_call *c, const tsr_attention_sequence *in,
                                 int64_t tile_rows)
{
    return n_classes(c, in) * tsr_ceil_div(tsr_ceil_div(in->n_rows, c->stride), tile_rows);
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
    const int64_t classes = n_classes(c, &t.in);

    t.first_row = row_tile % classes + row_tile / classes * tile_rows * c->stride;
    t.n_rows =
        (int)tsr_most(0, tsr_least(tile_rows, tsr_ceil_div(t.in.n_rows - t.first_row, c->stride)));
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

/* The first of those of which it sees every one. */
static int64_t near_start(const tsr_attention_shape *shape, int64_t position)
{
    const int64_t first = window_start(shape, position);

    return shape->stride == 0 ? first : tsr_most(first, position - shape->local + 1);
}

tsr_attention_runs tsr_attention_tile_runs(const tsr_attention_call *c, int64_t first_pos,
                                           int64_t n_rows)
{
    const tsr_attention_shape *shape = c->shape;
    const int64_t far_positions = TSR_ATTENTION_RUN * c->stride;
    const int64_t last_pos = first_pos + n_rows - 1;
    const int64_t first = window_start(shape, first_pos);
    const int64_t far_end = near_start(shape, last_pos);
    tsr_attention_runs runs = {.first_far = first / far_positions,
                               .first_near = near_start(shape, first_pos) / TSR_ATTENTION_RUN};

    if (shape->stride > 0 && far_end > first) {
        runs.n_far = tsr_ceil_div(far_end, far_positions) - runs.first_far;
    }
    if (shape->stride == 0 || shape->local > 0) {
        runs.n_near = tsr_ceil_div(last_pos + 1, TSR_ATTENTION_RUN) - runs.first_near;
    }
    return runs;
}

tsr_attention_span tsr_attention_tile_span(const tsr_attention_call *c,
                                           const tsr_attention_runs *runs, int64_t first_pos,
                                           int64_t i)
{
    if (i < runs->n_far) {
        return (tsr_attention_span){(runs->first_far + i) * TSR_ATTENTION_RUN * c->stride +
                                        first_pos % c->stride,
                                    c->stride, true};
    }
    return (tsr_attention_span){(runs->first_near + i - runs->n_far) * TSR_ATTENTION_RUN, 1, false};
}

/* The first token of a span that does not lie before `position`. */
static int token_from(const tsr_attention_span *span, int64_t position)
{
    const int64_t away = tsr_most(0, position - span->first);

    return (int)tsr_least(span->step == 1 ? away : tsr_ceil_div(away, span->step),
                          TSR_ATTENTION_RUN);
}

/* What the row at `position` sees of a span. */
static tsr_attention_range seen(const tsr_attention_shape *shape, int64_t position,
                                const tsr_attention_span *span)
{
    const int64_t near = near_start(shape, position);

    return (tsr_attention_range){token_from(span, span->far ? window_start(shape, position) : near),
                                 token_from(span, span->far ? near : position + 1)};
}

/* ---- where it lies --------------------------------------------------------------------------- */

/* The groups of a run in which tokens [from, to) lie; the others stay NULL. */
static void find_run(tsr_attention_run *run, const tsr_attention_call *c,
                     const tsr_attention_rows *t, const tsr_attention_span *span, int from, int to)
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
    for (int g = from / 16; g * 16 < to; g++) {
        const int64_t token = span->first + g * 16;
        const size_t within = (size_t)(token % layout->block_tokens);
        const char *keys =
            tsr_attention_tile_block(c->kv, t->in.slots[token / layout->block_tokens]) + offset;

        run->keys[g] = keys + within * key_elem_bytes;
        run->values[g] = layout->latent ? NULL : keys + key_bytes + within * value_row_bytes;
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
        const char *keys = (const char *)run->keys[g] - within; // bytes of a token apart

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
        const float *row = tsr_rows_cpu_f32(c->q, t->in.first_row + t->first_row + r * c->stride);

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

/* The position of a tile's r-th row. */
static int64_t position_of(const tsr_attention_call *c, const tsr_attention_rows *t, int64_t r)
{
    return t->in.first_pos + t->first_row + r * c->stride;
}

/* The whole of what rows [first, end) of a tile see of a run; end <= first when that is nothing. */
static tsr_attention_range seen_by_rows(const tsr_attention_call *c, const tsr_attention_rows *t,
                                        const tsr_attention_span *span, int first, int end)
{
    return (tsr_attention_range){seen(c->shape, position_of(c, t, first), span).first,
                                 seen(c->shape, position_of(c, t, end - 1), span).end};
}

/* Asks for what is attended next. Returns whether there is something, which is then in `run`. */
static bool ask_for_next(tsr_attention_run *run, const tsr_attention_call *c,
                         const tsr_attention_next *next, const tsr_attention_bench *b)
{
    const tsr_attention_rows *t = &next->rows;
    const tsr_attention_range range =
        t->n_rows > 0 ? seen_by_rows(c, t, &next->span, 0, t->n_rows) : (tsr_attention_range){0};

    if (range.first >= range.end) {
        return false;
    }
    if (c->kv->layout->by_token) {
        tsr_attention_pick_next(run, c, t, &next->span, range.first, range.end, b);
        return true;
    }
    find_run(run, c, t, &next->span, range.first, range.end);
    if (tsr_kv_type_is_coded(run->type)) {
        ask_for_scales(c, run, range.first, range.end);
    }
    return true;
}

static int queries_to_widen_for(tsr_kv_type type)
{
    return type == TSR_KV_TYPE_FP8 || tsr_kv_type_has_levels(type) ? WIDEN_CODES_FROM : WIDEN_FROM;
}

/* Rows [first, end) of a tile, all of which see something of the run. */
static void attend_rows(const tsr_attention_call *c, const tsr_attention_rows *t, int first,
                        int end, const tsr_attention_span *span, const tsr_attention_bench *b,
                        float *parts, const tsr_attention_next *next)
{
    const tsr_kv_layout *layout = c->kv->layout;
    const tsr_attention_range all = seen_by_rows(c, t, span, first, end);
    const int64_t query = (int64_t)first * t->n_heads;
    const bool is_few = (end - first) * t->n_heads < queries_to_widen_for(layout->type);
    const float *slopes = c->shape->slopes.data;
    tsr_attention_range seen_by[TSR_ATTENTION_QUERIES];
    tsr_attention_run then;
    tsr_attention_run what;
    tsr_attention_run wide;
    tsr_attention_tile queries = {
        .n_queries = (end - first) * t->n_heads,
        .n_heads = t->n_heads,
        .seen = seen_by,
        .softcap = c->shape->softcap,
        .slopes = slopes == NULL ? NULL : slopes + t->first_head,
        .distance = (float)(span->first - position_of(c, t, first)),
        .step = (float)span->step,
        .row_step = (float)c->stride,
        .slopes_scale = c->shape->slopes_scale,
        .first_token = (float)span->first,
        .q = b->q + query * layout->key_dim,
        .pairs = b->pairs + query * 2 * tsr_attention_pairs(layout->key_dim),
        .scores = b->scores,
        .parts = parts + query * c->part_floats,
    };

    for (int i = 0; i < queries.n_queries; i++) {
        seen_by[i] = seen(c->shape, position_of(c, t, first + i / t->n_heads), span);
    }
    if (layout->by_token) {
        tsr_attention_pick(&what, c, t, span, all.first, all.end, b);
    } else {
        find_run(&what, c, t, span, all.first, all.end);
        if (tsr_kv_type_is_coded(what.type)) {
            add_scales(c, &what, b, all.first, all.end);
        }
        queries.from_memory = is_few && !layout->latent;
    }
    if (is_few && next != NULL && ask_for_next(&then, c, next, b)) {
        queries.then = &then;
    }
    if ((layout->latent && !layout->by_token) || (!is_few && what.type != TSR_KV_TYPE_F32)) {
        c->loops->widen(&wide, b->keys, b->values, &what, all.first, all.end);
        what = wide;
    }
    c->loops->attend(&what, &queries);
}

static bool sees_nothing(const tsr_attention_call *c, const tsr_attention_rows *t, int row,
                         const tsr_attention_span *span)
{
    const tsr_attention_range range = seen_by_rows(c, t, span, row, row + 1);

    return range.first >= range.end;
}

void tsr_attention_tile_attend(const tsr_attention_call *c, const tsr_attention_rows *t,
                               const tsr_attention_span *span, const tsr_attention_bench *b,
                               float *parts, const tsr_attention_next *next)
{
    // Rows that are far apart have little in common of what is near to them.
    const int at_once = span->far || c->shape->stride == 0
                            ? t->n_rows
                            : (int)tsr_least(tsr_most(c->shape->local / c->stride, 1), t->n_rows);
    int first = 0;
    int end = t->n_rows;

    for (int i = 0; i < t->n_rows * t->n_heads; i++) {
        *tsr_attention_tile_sum(c, parts + (int64_t)i * c->part_floats) = 0;
    }
    while (first < end && sees_nothing(c, t, first, span)) { // those that do follow one another
        first++;
    }
    while (first < end && sees_nothing(c, t, end - 1, span)) {
        end--;
    }
    for (; first < end; first += at_once) {
        attend_rows(c, t, first, (int)tsr_least(first + at_once, end), span, b, parts, next);
    }
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
