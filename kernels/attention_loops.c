#include "kernels/attention_inner.h"

static const float lane_numbers[TSR_LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* ---- a run ----------------------------------------------------------------------------------- */

/* Queries to take next of n that are left: as even as tiles of MAX_QUERIES allow. */
static int next_queries(int n)
{
    const int n_tiles = (n + MAX_QUERIES - 1) / MAX_QUERIES;

    return (n + n_tiles - 1) / n_tiles;
}

/* Vectors to take next of n that are left: 4, 2 or 1. */
static int next_vectors(int n, int n_queries)
{
    int most = VECTORS_FOR(n_queries);

    while (most > n) {
        most /= 2;
    }
    return most;
}

static int groups_of(int n_tokens)
{
    return (n_tokens + TSR_LANES - 1) / TSR_LANES;
}

/* Scores of groups [from, to) for n queries from the i-th on. */
static void score_groups(const tsr_attention_run *run, const tsr_attention_tile *tile, int i, int n,
                         int from, int to)
{
    for (int g = from, n_vectors; g < to; g += n_vectors) {
        n_vectors = next_vectors(to - g, n);
        score_tiles[run->type][n][n_vectors](run, tile->q + i * run->key_dim,
                                             tile->scores + i * TSR_ATTENTION_RUN, g,
                                             tile->from_memory && i == 0);
    }
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

static int most(int a, int b)
{
    return a > b ? a : b;
}

static void score_all(const tsr_attention_run *run, const tsr_attention_tile *tile)
{
    const int n_groups = groups_of(tile->seen[tile->n_queries - 1].end);
    const int at_once = TOKENS_A_BLOCK / TSR_LANES;

    // Keys of a block stay near while all queries pass over them.
    for (int g0 = tile->seen[0].first / TSR_LANES; g0 < n_groups; g0 += at_once) {
        for (int i = 0, n; i < tile->n_queries; i += n) {
            n = next_queries(tile->n_queries - i);
            score_groups(run, tile, i, n, most(tile->seen[i].first / TSR_LANES, g0),
                         least(groups_of(tile->seen[i + n - 1].end), g0 + at_once));
        }
    }
}

/* Soft cap and slope over groups [from, to). */
static void bend(float *s, int from, int to, float softcap, float slope, float distance, float step)
{
    const v16 cap = v16_set1(softcap);
    const v16 one = v16_set1(1.0F);
    const v16 on = v16_set1(step * (float)TSR_LANES);
    v16 d = v16_fma(v16_load(lane_numbers), v16_set1(step),
                    v16_set1(distance + step * (float)(from * TSR_LANES)));

    for (int g = from; g < to; g++, d = v16_add(d, on)) {
        v16 x = v16_load(s + g * TSR_LANES);

        if (softcap > 0) {
            // tanh x = 1 - 2 / (e^2x + 1); where e^2x would overflow it is 1 to the last bit, so
            // that 2 x is held below 80: it is minus the larger of -2 x and -80.
            const v16 less = v16_max(v16_div(v16_mul(x, v16_set1(-2.0F)), cap), v16_set1(-80.0F));
            const v16 e = v16_exp(v16_sub(v16_set1(0.0F), less));

            x = v16_sub(cap, v16_div(v16_add(cap, cap), v16_add(e, one)));
        }
        v16_store(s + g * TSR_LANES, v16_fma(v16_set1(slope), d, x));
    }
}

/* Slopes times positions that are rounded to bf16. */
static void bend_rounded(float *s, int from, int to, float scale, float slope, float first_token,
                         float step)
{
    for (int t = from * TSR_LANES; t < to * TSR_LANES; t++) {
        const uint16_t at = tsr_dtype_to_bf16(first_token + step * (float)t);
        const uint16_t rounded = tsr_dtype_to_bf16(slope * tsr_dtype_from_bf16(at));

        s[t] += scale * tsr_dtype_from_bf16(rounded);
    }
}

/* 1 in the first n lanes, 0 behind them. */
static v16 first_lanes(int n)
{
    static const float lanes[2 * TSR_LANES] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

    return v16_load(lanes + TSR_LANES - n);
}

/* Puts x wherever groups [from, to) lie outside of what query i sees; both ends lie in them. Whole
 * vectors: lanes that are stored one by one keep the next load of their vector waiting. */
static void fill_unseen(const tsr_attention_tile *tile, int i, float *s, int from, int to, float x)
{
    float *head = s + from * TSR_LANES;
    float *tail = s + (to - 1) * TSR_LANES;

    v16_store(head, v16_choose(v16_set1(x), v16_load(head),
                               first_lanes(tile->seen[i].first - from * TSR_LANES)));
    v16_store(tail, v16_choose(v16_load(tail), v16_set1(x),
                               first_lanes(tile->seen[i].end - (to - 1) * TSR_LANES)));
}

/* q . mean at the 16 positions of a group. A pair's product with the mean turned by a is cos a (q1
 * m1 + q2 m2) + sin a (q2 m1 - q1 m2). */
static v16 of_mean(const float *q, const float *mean, int n_pairs, const tsr_kv_drift *drift)
{
    v16 along = v16_set1(0.0F);
    v16 across = v16_set1(0.0F);

    for (int j0 = 0; j0 < n_pairs; j0 += TSR_LANES) {
        const v16 q1 = v16_load(q + j0);
        const v16 q2 = v16_load(q + n_pairs + j0);
        const v16 m1 = v16_load(mean + j0);
        const v16 m2 = v16_load(mean + n_pairs + j0);
        const int end = least(TSR_LANES, drift->n_pairs - j0);
        float dots[TSR_LANES];
        float crosses[TSR_LANES];

        v16_store(dots, v16_fma(q2, m2, v16_mul(q1, m1)));
        v16_store(crosses, v16_sub(v16_mul(q2, m1), v16_mul(q1, m2)));
        for (int j = 0; j < end; j++) {
            along = v16_fma(v16_set1(dots[j]), v16_load(drift->cosines[j0 + j]), along);
            across = v16_fma(v16_set1(crosses[j]), v16_load(drift->sines[j0 + j]), across);
        }
    }
    return v16_add(along, across);
}

/* q . mean where each of 16 tokens has its own. */
static v16 of_means(const float *q, const float *means, int n_pairs, int padded_pairs)
{
    v16 sums[2] = {v16_set1(0.0F), v16_set1(0.0F)};

    for (int j = 0; j < n_pairs; j++) {
        for (int half = 0; half < 2; half++) {
            const int at = half * padded_pairs + j;

            sums[half] = v16_fma(v16_set1(q[at]), v16_load(means + at * TSR_LANES), sums[half]);
        }
    }
    return v16_add(sums[0], sums[1]);
}

/* Scores of codes become scores of keys: s[t] = fma(centred[t], q . mean[t], s[t] scale[t]). */
static void unscale(float *s, int from, int to, const tsr_attention_run *run, const float *q)
{
    const int n_pairs = tsr_attention_pairs(run->key_dim);

    for (int g = from; g < to; g++) {
        v16 x = v16_mul(v16_load(s + g * TSR_LANES), v16_load(run->key_scales + g * TSR_LANES));

        if (run->means != NULL) {
            const float *own = run->means + (int64_t)g * 2 * n_pairs * TSR_LANES;
            const v16 of = run->drift == NULL ? of_means(q, own, (run->key_dim + 1) / 2, n_pairs)
                                              : of_mean(q, run->means + (int64_t)g * 2 * n_pairs,
                                                        n_pairs, run->drift);

            x = v16_fma(v16_load(run->centred + g * TSR_LANES), of, x);
        }
        v16_store(s + g * TSR_LANES, x);
    }
}

static void widen_scales(float *scales, float *centred, const uint16_t *from)
{
    const v16 x = v16_load_bf16(from);

    v16_store(scales, v16_abs(x));
    if (centred != NULL) {
        v16_store(centred, v16_negative(x));
    }
}

static void turn_means(float *to, const int8_t *codes, const float *scales, const uint8_t *places,
                       const tsr_kv_drift *drift)
{
    const int padded_pairs = (drift->n_pairs + TSR_LANES - 1) / TSR_LANES * TSR_LANES;
    const i16 at = i16_load_u8(places);
    const v16 scale = v16_load(scales);

    for (int j = 0; j < drift->n_pairs; j++) {
        const v16 a = v16_mul(v16_load_i8(codes + j * TSR_LANES), scale);
        const v16 b = v16_mul(v16_load_i8(codes + (drift->n_pairs + j) * TSR_LANES), scale);
        const v16 c = v16_look_up(v16_load(drift->cosines[j]), at);
        const v16 s = v16_look_up(v16_load(drift->sines[j]), at);

        v16_store(to + j * TSR_LANES, v16_sub(v16_mul(a, c), v16_mul(b, s)));
        v16_store(to + (padded_pairs + j) * TSR_LANES, v16_fma(a, s, v16_mul(b, c)));
    }
}

/* What lies behind the last whole 16 bytes of the rows. */
static void set_rest_upright(char *to, const char *const rows[TSR_LANES], int from, int end,
                             int cell_bytes)
{
    for (int i = from; i < end; i += cell_bytes) {
        for (int t = 0; t < TSR_LANES; t++) {
            memcpy(to + i * TSR_LANES + t * cell_bytes, rows[t] + i, (size_t)cell_bytes);
        }
    }
}

static void set_upright(void *to, const char *const rows[TSR_LANES], int n_cells, int cell_bytes)
{
    enum {
        PIECE = 16
    };
    const int n_bytes = n_cells * cell_bytes;
    int i = 0;

    for (; i + PIECE <= n_bytes; i += PIECE) {
        i16 x[4]; // words of 4 bytes: first those of rows k, 4 + k, ...; then the k-th of all rows

        for (int k = 0; k < 4; k++) {
            const char *const pieces[4] = {rows[k] + i, rows[4 + k] + i, rows[8 + k] + i,
                                           rows[12 + k] + i};

            x[k] = i16_load_quarters(pieces);
        }
        i16_turn_quarters(x);
        for (int k = 0; k < 4; k++) {
            const i16 cells = cell_bytes == 4   ? x[k]
                              : cell_bytes == 2 ? i16_part_halves(x[k])
                                                : i16_part_bytes(x[k]);

            i16_store((int32_t *)((char *)to + (i + 4 * k) * TSR_LANES), cells);
        }
    }
    set_rest_upright(to, rows, i, n_bytes, cell_bytes);
}

static void widen_mean(float *mean, const int8_t *codes, int n, float scale)
{
    const v16 factor = v16_set1(scale);
    int d = 0;

    for (; d + TSR_LANES <= n; d += TSR_LANES) {
        v16_store(mean + d, v16_mul(v16_load_i8(codes + d), factor));
    }
    if (d < n) {
        float rest[TSR_LANES] = {0};

        for (int i = 0; d + i < n; i++) {
            rest[i] = (float)codes[d + i];
        }
        v16_store(mean + d, v16_mul(v16_load(rest), factor));
    }
}

/* Scores of what query i sees become e, and zeros beside it. Sets m and l. */
static void soften(const tsr_attention_run *run, const tsr_attention_tile *tile, int i, float *m,
                   float *l)
{
    const int from = tile->seen[i].first / TSR_LANES;
    const int to = groups_of(tile->seen[i].end);
    float *s = tile->scores + i * TSR_ATTENTION_RUN;
    v16 largest = v16_set1(-INFINITY);
    v16 sum = v16_set1(0.0F);

    if (run->key_scales != NULL) {
        unscale(s, from, to, run, tile->pairs + (int64_t)i * 2 * tsr_attention_pairs(run->key_dim));
    }
    if (tile->slopes != NULL && tile->slopes_scale > 0) {
        bend_rounded(s, from, to, tile->slopes_scale, tile->slopes[i % tile->n_heads],
                     tile->first_token, tile->step);
    } else if (tile->softcap > 0 || tile->slopes != NULL) {
        const float slope = tile->slopes == NULL ? 0 : tile->slopes[i % tile->n_heads];

        bend(s, from, to, tile->softcap, slope,
             tile->distance - tile->row_step * (float)(i / tile->n_heads), tile->step);
    }
    fill_unseen(tile, i, s, from, to, -INFINITY); // whatever lies there
    for (int g = from; g < to; g++) {
        largest = v16_max(largest, v16_load(s + g * TSR_LANES));
    }
    *m = v16_largest(largest);
    largest = v16_set1(*m);
    for (int g = from; g < to; g++) {
        v16_store(s + g * TSR_LANES, v16_exp(v16_sub(v16_load(s + g * TSR_LANES), largest)));
    }
    fill_unseen(tile, i, s, from, to, 0); // v16_exp(-infinity) is tiny, not nothing
    for (int g = from; g < to; g++) {
        const v16 e = v16_load(s + g * TSR_LANES);

        sum = v16_add(sum, e);
        if (run->value_scales != NULL) {
            v16_store(s + g * TSR_LANES, v16_mul(e, v16_load(run->value_scales + g * TSR_LANES)));
        }
    }
    *l = v16_sum(sum);
}

static void gather_all(const tsr_attention_run *run, const float *e, float *o, int64_t part_floats,
                       int n_queries, int from, int to, const tsr_attention_run *then)
{
    const int n_dims = run->padded_dim / TSR_LANES;

    for (int j = 0, n; j < n_dims && from < to; j += n) {
        n = next_vectors(n_dims - j, n_queries);
        gather_tiles[run->type][n_queries][n](run, e, o, part_floats, j * TSR_LANES, from, to,
                                              j == 0 ? then : NULL);
    }
}

/* What only some of n queries from the i-th on see lies before and behind what all of them see.
 * Nothing may touch it for the others, not even with weight 0, which times infinity is NaN. */
static void gather_block(const tsr_attention_run *run, const tsr_attention_tile *tile, int i, int n,
                         int from, int to)
{
    const int64_t part_floats = run->padded_dim + TSR_ATTENTION_PART_TAIL;
    const float *e = tile->scores + i * TSR_ATTENTION_RUN;
    float *o = tile->parts + i * part_floats;
    const tsr_attention_range *seen = tile->seen + i;
    const int shared_end = most(from, least(seen[0].end, to));
    const int shared_from = least(most(seen[n - 1].first, from), shared_end);

    for (int k = 0; k < n - 1; k++) {
        gather_all(run, e + k * TSR_ATTENTION_RUN, o + k * part_floats, part_floats, 1,
                   most(seen[k].first, from), least(seen[k].end, shared_from), NULL);
    }
    gather_all(run, e, o, part_floats, n, shared_from, shared_end, i == 0 ? tile->then : NULL);
    for (int k = 1; k < n; k++) {
        gather_all(run, e + k * TSR_ATTENTION_RUN, o + k * part_floats, part_floats, 1,
                   most(most(seen[k].first, from), shared_end), least(seen[k].end, to), NULL);
    }
}

static void attend(const tsr_attention_run *run, const tsr_attention_tile *tile)
{
    const int64_t part_floats = run->padded_dim + TSR_ATTENTION_PART_TAIL;
    const int most_seen = tile->seen[tile->n_queries - 1].end;

    score_all(run, tile);
    for (int i = 0; i < tile->n_queries; i++) {
        float *part = tile->parts + i * part_floats;

        memset(part, 0, (size_t)part_floats * sizeof(*part));
        soften(run, tile, i, part + run->padded_dim, part + run->padded_dim + 1);
    }
    for (int t = tile->seen[0].first / TOKENS_A_BLOCK * TOKENS_A_BLOCK; t < most_seen;
         t += TOKENS_A_BLOCK) {
        for (int i = 0, n; i < tile->n_queries; i += n) {
            n = next_queries(tile->n_queries - i);
            gather_block(run, tile, i, n, t, t + TOKENS_A_BLOCK);
        }
    }
}

/* ---- around a run ---------------------------------------------------------------------------- */

TSR_INLINE void widen_as(tsr_kv_type kv, float *keys, float *values, const tsr_attention_run *run,
                         int from, int to)
{
    const int key_dim = run->key_dim;
    const int padded_dim = run->padded_dim;
    const v16 levels = levels_of(kv);

    for (int g = from / TSR_LANES; g < groups_of(to); g++) {
        float *to_keys = keys + (int64_t)g * key_dim * TSR_LANES;
        i16 codes = v16_round(v16_set1(0.0F));

        for (int d = 0; d < key_dim; d++) {
            if (tsr_kv_type_has_levels(kv) && d % dims_at_once(kv) == 0) {
                codes = load_codes(run->keys[g], d, run->key_stride, kv);
            }
            v16_store(to_keys + (int64_t)d * TSR_LANES,
                      tsr_kv_type_has_levels(kv)
                          ? key_level(codes, d, levels, kv)
                          : load(run->keys[g], (int64_t)d * run->key_stride, kv));
        }
    }
    for (int t = from; t < to; t++) {
        const bool by_row = run->value_rows != NULL;
        const void *from_values = by_row ? run->value_rows[t] : run->values[t / TSR_LANES];
        const int64_t row = by_row ? 0 : (int64_t)(t % TSR_LANES) * padded_dim;

        for (int d = 0; d < padded_dim && from_values != NULL; d += TSR_LANES) {
            v16_store(values + (int64_t)t * padded_dim + d,
                      load_value(from_values, row + d, levels, kv));
        }
    }
}

#define WIDEN(type)                                                                              \
    static void widen_##type(float *keys, float *values, const tsr_attention_run *run, int from, \
                             int to)                                                             \
    {                                                                                            \
        widen_as(TSR_KV_TYPE_##type, keys, values, run, from, to);                               \
    }
WIDEN(F32)
WIDEN(F16)
WIDEN(BF16)
WIDEN(FP8)
WIDEN(INT8)
WIDEN(INT4)
WIDEN(INT2)

typedef void widen_fn(float *keys, float *values, const tsr_attention_run *run, int from, int to);

static widen_fn *const wideners[TSR_KV_TYPE_COUNT] = {
    [TSR_KV_TYPE_F32] = widen_F32,   [TSR_KV_TYPE_F16] = widen_F16,
    [TSR_KV_TYPE_BF16] = widen_BF16, [TSR_KV_TYPE_FP8] = widen_FP8,
    [TSR_KV_TYPE_INT8] = widen_INT8, [TSR_KV_TYPE_INT4] = widen_INT4,
    [TSR_KV_TYPE_INT2] = widen_INT2};

/* values[t, d] = keys[d, t], zeros behind the last dimension of a key, where keys are the values.
 */
static void turn_over(float *values, const float *keys, const tsr_attention_run *run, int from,
                      int to)
{
    const int key_dim = run->key_dim;
    const int padded_dim = run->padded_dim;
    const int n_dims = least(key_dim, padded_dim);

    for (int t = from; t < to; t++) {
        const float *key = keys + (int64_t)(t / TSR_LANES) * key_dim * TSR_LANES + t % TSR_LANES;
        float *value = values + (int64_t)t * padded_dim;

        if (run->value_rows != NULL || run->values[t / TSR_LANES] != NULL) {
            continue;
        }
        for (int d = 0; d < n_dims; d++) {
            value[d] = key[d * TSR_LANES];
        }
        for (int d = n_dims; d < padded_dim; d++) {
            value[d] = 0;
        }
    }
}

static void widen(tsr_attention_run *out, float *keys, float *values, const tsr_attention_run *run,
                  int from, int to)
{
    wideners[run->type](keys, values, run, from, to);
    turn_over(values, keys, run, from, to);
    *out = *run;
    out->type = TSR_KV_TYPE_F32;
    out->value_rows = NULL;
    out->key_stride = TSR_LANES;
    for (int g = 0; g < TSR_ATTENTION_GROUPS; g++) {
        out->keys[g] = run->keys[g] == NULL ? NULL : keys + (int64_t)g * run->key_dim * TSR_LANES;
        out->values[g] = values + (int64_t)g * run->padded_dim * TSR_LANES;
    }
}

static void turn(float *x, int dim, int unit)
{
    const v16 norm = v16_set1(1.0F / sqrtf((float)unit));

    if (unit < TSR_LANES) {
        tsr_kv_code_turn(x, dim, unit);
        return;
    }
    for (int d = 0; d < dim; d += TSR_LANES) {
        v16 u = v16_load(x + d);

        UNROLL
        for (int half = 1; half < TSR_LANES; half *= 2) {
            u = v16_butterfly(u, half);
        }
        v16_store(x + d, unit == TSR_LANES ? v16_mul(u, norm) : u);
    }
    for (int half = TSR_LANES; half < unit; half *= 2) {
        for (int i = 0; i < dim; i += 2 * half) {
            for (int k = i; k < i + half; k += TSR_LANES) {
                const v16 a = v16_load(x + k);
                const v16 b = v16_load(x + k + half);
                const v16 factor = 2 * half == unit ? norm : v16_set1(1.0F);

                v16_store(x + k, v16_mul(v16_add(a, b), factor));
                v16_store(x + k + half, v16_mul(v16_sub(a, b), factor));
            }
        }
    }
}

static void scale_query(float *out, const float *q, int key_dim, float scale)
{
    for (int d = 0; d < key_dim; d++) {
        out[d] = q[d] * scale;
    }
}

static float exp_of(float x)
{
    float lanes[TSR_LANES];

    v16_store(lanes, v16_exp(v16_set1(x)));
    return lanes[0];
}

static void merge(float *state, const float *part, int padded_dim)
{
    float *m = state + padded_dim;
    float *l = m + 1;
    const float m_run = part[padded_dim];
    const float l_run = part[padded_dim + 1];
    const float largest = *m > m_run ? *m : m_run;
    const float old = exp_of(*m - largest);
    const float new = exp_of(m_run - largest);
    const v16 olds = v16_set1(old);
    const v16 news = v16_set1(new);

    for (int d = 0; d < padded_dim; d += TSR_LANES) {
        v16_store(state + d, v16_fma(v16_load(part + d), news, v16_mul(v16_load(state + d), olds)));
    }
    *m = largest;
    *l = fmaf(l_run, new, *l * old);
}

static void finish(float *out, const float *state, int value_dim)
{
    const v16 l = v16_set1(state[(value_dim + TSR_LANES - 1) / TSR_LANES * TSR_LANES + 1]);
    int d = 0;

    for (; d + TSR_LANES <= value_dim; d += TSR_LANES) {
        v16_store(out + d, v16_div(v16_load(state + d), l));
    }
    if (d < value_dim) {
        v16_store_some(out + d, v16_div(v16_load(state + d), l), value_dim - d);
    }
}

const tsr_attention_loops TSR_ISA_NAME(tsr_attention_loops) = {
    .attend = attend,
    .widen = widen,
    .widen_scales = widen_scales,
    .set_upright = set_upright,
    .turn_means = turn_means,
    .widen_mean = widen_mean,
    .turn = turn,
    .scale = scale_query,
    .merge = merge,
    .finish = finish,
};
