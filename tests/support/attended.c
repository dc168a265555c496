#include "tests/support/attended.h"

#include <math.h>

int64_t kv_cols(const cache *c)
{
    return (int64_t)c->layout.n_kv_heads * c->layout.key_dim;
}

static int64_t v_cols(const cache *c)
{
    return (int64_t)c->layout.n_kv_heads * c->layout.value_dim;
}

static float *randoms(int64_t n, uint64_t seed)
{
    float *all = tsr_alloc((size_t)n, sizeof(*all));

    assert_non_null(all);
    for (int64_t i = 0; i < n; i++) {
        all[i] = next_random(&seed) * 2;
    }
    return all;
}

/* A row of random numbers, one a head. */
static tsr_tensor a_head(int n_heads, uint64_t seed)
{
    const tsr_tensor t = make_window(TSR_DTYPE_F32, 1, n_heads);

    for (int h = 0; h < n_heads; h++) {
        f32_row(t, 0)[h] = next_random(&seed) * 0.25F;
    }
    return t;
}

static void make_drift(tsr_kv_drift *drift, int key_dim)
{
    const int n_rot = key_dim / 4 * 2;
    double frequencies[TSR_KV_LAYOUT_MOST_DIM / 2];

    for (int i = 0; i < n_rot / 2; i++) {
        frequencies[i] = pow(1000, -2.0 * i / n_rot);
    }
    tsr_kv_drift_init(drift, key_dim, frequencies, n_rot, key_dim / 8, TSR_ROPE_INTERLEAVED);
}

void make_cache(cache *c, const setting *s)
{
    const int blocks = (CONTEXT + s->block_tokens - 1) / s->block_tokens;
    const int n_slots = MAX_SEQS * blocks;
    const int value_dim = s->asked.value_dim == 0 ? s->head_dim : s->asked.value_dim;
    // One KV head more than is read, to see that it stays out of it.
    const int n_kv_heads = (s->first_head + s->n_heads + s->group - 1) / s->group + 1;

    *c = (cache){0};
    c->layout = (tsr_kv_layout){.n_layers = N_LAYERS,
                                .n_kv_heads = n_kv_heads,
                                .key_dim = s->head_dim,
                                .value_dim = value_dim,
                                .block_tokens = s->block_tokens,
                                .type = s->type,
                                .latent = s->asked.latent,
                                .by_token = s->asked.stride > 0 || s->asked.by_token};
    c->shape = (tsr_attention_shape){
        .n_heads = s->n_heads,
        .group = s->group,
        .first_head = s->first_head,
        .scale = 1.0F / sqrtf((float)s->head_dim),
        .softcap = s->asked.softcap,
        .window = s->asked.window,
        .stride = s->asked.stride,
        .local = s->asked.local,
    };
    if (s->asked.slopes) {
        c->shape.slopes = a_head(s->n_heads, 4);
        for (int h = 0; h < s->n_heads; h++) { // so that what is near counts
            f32_row(c->shape.slopes, 0)[h] = fabsf(f32_row(c->shape.slopes, 0)[h]);
        }
    }
    if (s->asked.sinks) {
        c->shape.sinks = a_head(s->n_heads, 5);
    }
    c->view = (tsr_kv_view){.block_bytes = tsr_kv_layout_block_bytes(&c->layout) + 64,
                            .layout = &c->layout,
                            .layer = LAYER,
                            .drift = &c->drift};
    make_drift(&c->drift, s->head_dim);
    c->n_bytes = c->view.block_bytes * (size_t)n_slots;
    c->view.pool = tsr_alloc(c->n_bytes, 1);
    assert_non_null(c->view.pool);
    memset(c->view.pool, POISON, c->n_bytes);
    c->tables = make_window(TSR_DTYPE_I32, MAX_SEQS, blocks);
    for (int i = 0; i < n_slots; i++) { // 7919 is prime and no factor of n_slots
        i32_row(c->tables, i / blocks)[i % blocks] = (int32_t)((int64_t)i * 7919 % n_slots);
    }
    c->k = randoms(MAX_SEQS * CONTEXT * kv_cols(c), 1);
    c->v = randoms(MAX_SEQS * CONTEXT * v_cols(c), 2);
    c->q = randoms((int64_t)MAX_SEQS * CONTEXT * s->n_heads * s->head_dim, 3);
}

void spill(cache *c)
{
    const int blocks = (int)c->tables.n_cols;
    const int n_slots = MAX_SEQS * blocks;

    c->host = tsr_alloc(c->n_bytes, 1);
    assert_non_null(c->host);
    memset(c->host, POISON, c->n_bytes);
    c->view.host_pool = c->host;
    for (int i = 0; i < n_slots; i++) {
        int32_t *entry = &i32_row(c->tables, i / blocks)[i % blocks];
        const int to = (int)((int64_t)i * 7901 % n_slots); // other slots than in the pool

        if (i % 3 != 0) {
            char *from = (char *)c->view.pool + (size_t)*entry * c->view.block_bytes;

            memcpy(c->host + (size_t)to * c->view.block_bytes, from, c->view.block_bytes);
            memset(from, POISON, c->view.block_bytes);
            *entry = ~to;
        }
    }
}

void clear_cache(cache *c)
{
    tsr_free(c->view.pool);
    tsr_free(c->host);
    tsr_free(c->k);
    tsr_free(c->v);
    tsr_free(c->q);
    free_window(c->tables);
    if (c->shape.slopes.data != NULL) {
        free_window(c->shape.slopes);
    }
    if (c->shape.sinks.data != NULL) {
        free_window(c->shape.sinks);
    }
}

static int64_t rows_of(const step *work)
{
    int64_t n = 0;

    for (int s = 0; s < work->n_seqs; s++) {
        n += work->n_rows[s];
    }
    return n;
}

/* Sequence s of a step is sequence n_seqs - 1 - s of the cache. */
int lane_of(const step *work, int s)
{
    return work->n_seqs - 1 - s;
}

double attended_tolerance(tsr_kv_type type, double exact)
{
    // Weights and queries are rounded to the type: half a unit in the last place each, of values
    // and of scores up to 4.
    return !IS_FAST || type == TSR_KV_TYPE_F32 ? exact : type == TSR_KV_TYPE_BF16 ? 0x1p-6 : 0x1p-9;
}

tsr_batch make_batch(const cache *c, const step *work)
{
    int32_t starts[MAX_SEQS + 1] = {0};
    int32_t lanes[MAX_SEQS];
    tsr_batch batch = {.n_seqs = work->n_seqs, .tables = c->tables, .longest = 1};

    for (int s = 0; s < work->n_seqs; s++) {
        const int end = work->first_pos[s] + work->n_rows[s];

        starts[s + 1] = starts[s] + work->n_rows[s];
        lanes[s] = lane_of(work, s);
        batch.longest = end > batch.longest ? end : batch.longest;
        batch.most_rows = work->n_rows[s] > batch.most_rows ? work->n_rows[s] : batch.most_rows;
    }
    batch.row_start = make_ints(starts, work->n_seqs + 1);
    batch.first_pos = make_ints(work->first_pos, work->n_seqs);
    batch.lanes = make_ints(lanes, work->n_seqs);
    return batch;
}

void clear_batch(tsr_batch *batch)
{
    free_window(batch->row_start);
    free_window(batch->first_pos);
    free_window(batch->lanes);
}

tsr_tensor pick(const float *all, const step *work, int64_t n_cols)
{
    const tsr_tensor t = make_window(TSR_DTYPE_F32, rows_of(work), n_cols);
    int64_t row = 0;

    for (int s = 0; s < work->n_seqs; s++) {
        for (int i = 0; i < work->n_rows[s]; i++) {
            const int64_t at = (int64_t)lane_of(work, s) * CONTEXT + work->first_pos[s] + i;

            memcpy(f32_row(t, row++), all + at * n_cols, (size_t)n_cols * sizeof(float));
        }
    }
    return t;
}

void write_step(tsr_device *dev, const cache *c, const step *work)
{
    const tsr_tensor k = pick(c->k, work, kv_cols(c));
    const tsr_tensor v = pick(c->v, work, v_cols(c));
    const tsr_tensor none = {0};
    tsr_batch batch = make_batch(c, work);

    assert_int_equal(tsr_kv_write(dev, &c->view, k, c->layout.latent ? none : v, &batch), TSR_OK);
    clear_batch(&batch);
    free_window(k);
    free_window(v);
}

void write_past(tsr_device *dev, const cache *c, const step *work)
{
    step past = {.n_seqs = work->n_seqs};

    for (int s = 0; s < work->n_seqs; s++) {
        past.n_rows[s] = work->first_pos[s];
    }
    write_step(dev, c, &past);
}

tsr_tensor attend_step(tsr_device *dev, const cache *c, const step *work)
{
    const int n_heads = c->shape.n_heads;
    const tsr_tensor q = pick(c->q, work, (int64_t)n_heads * c->layout.key_dim);
    const tsr_tensor out =
        make_window(TSR_DTYPE_F32, q.n_rows, (int64_t)n_heads * c->layout.value_dim);
    tsr_batch batch = make_batch(c, work);

    if (tsr_attention(dev, out, q, &c->view, &batch, &c->shape) != TSR_OK) {
        fail_msg("%s", tsr_status_message());
    }
    clear_batch(&batch);
    free_window(q);
    return out;
}

static double stored(float x, tsr_kv_type type)
{
    if (type == TSR_KV_TYPE_F16) {
        return (double)tsr_dtype_from_f16(tsr_dtype_to_f16(x));
    }
    if (type == TSR_KV_TYPE_BF16) {
        return (double)tsr_dtype_from_bf16(tsr_dtype_to_bf16(x));
    }
    return (double)x;
}

static bool visible(const tsr_attention_shape *shape, int distance)
{
    return (shape->window == 0 || distance < shape->window) &&
           (shape->stride == 0 || distance < shape->local || distance % shape->stride == 0);
}

static double score(const cache *c, const float *q, const float *k, int head, int distance)
{
    const tsr_attention_shape *shape = &c->shape;
    double s = 0;

    for (int d = 0; d < c->layout.key_dim; d++) {
        s += (double)q[d] * stored(k[d], c->layout.type);
    }
    s *= (double)shape->scale;
    if (shape->softcap > 0) {
        s = (double)shape->softcap * tanh(s / (double)shape->softcap);
    }
    return shape->slopes.data == NULL
               ? s
               : s - (double)f32_row(shape->slopes, 0)[head] * (double)distance;
}

/* One head of one row in double: all scores, then the softmax, then the sum. */
static void oracle(double *out, const cache *c, int lane, int position, int head)
{
    const tsr_attention_shape *shape = &c->shape;
    const int key_dim = c->layout.key_dim;
    const int value_dim = c->layout.value_dim;
    const int kv_head = (shape->first_head + head) / shape->group;
    const float *q =
        c->q + (((int64_t)lane * CONTEXT + position) * shape->n_heads + head) * key_dim;
    const bool has_sink = shape->sinks.data != NULL;
    const double sink = has_sink ? (double)f32_row(shape->sinks, 0)[head] : -INFINITY;
    double scores[CONTEXT];
    double largest = sink;
    double sum;

    memset(out, 0, (size_t)value_dim * sizeof(*out));
    for (int t = 0; t <= position; t++) {
        const float *k = c->k + ((int64_t)lane * CONTEXT + t) * kv_cols(c) + kv_head * key_dim;

        scores[t] = visible(shape, position - t) ? score(c, q, k, head, position - t) : -INFINITY;
        largest = fmax(largest, scores[t]);
    }
    sum = exp(sink - largest);
    for (int t = 0; t <= position; t++) {
        const int64_t row = (int64_t)lane * CONTEXT + t;
        const float *v = c->layout.latent ? c->k + row * kv_cols(c) + kv_head * key_dim
                                          : c->v + row * v_cols(c) + kv_head * value_dim;
        const double e = exp(scores[t] - largest);

        sum += e;
        for (int d = 0; d < value_dim; d++) {
            out[d] += e * stored(v[d], c->layout.type);
        }
    }
    for (int d = 0; d < value_dim; d++) {
        out[d] /= sum;
    }
}

void compare_with_oracle(tsr_tensor out, const cache *c, const step *work, double most)
{
    const int value_dim = c->layout.value_dim;
    int64_t row = 0;

    most = attended_tolerance(c->layout.type, most);
    for (int seq = 0; seq < work->n_seqs; seq++) {
        for (int i = 0; i < work->n_rows[seq]; i++, row++) {
            // All rows of a short step; of a long one, every 17th and the last.
            if (i % 17 != 0 && i != work->n_rows[seq] - 1) {
                continue;
            }
            for (int h = 0; h < c->shape.n_heads; h++) {
                double expected[TSR_KV_LAYOUT_MOST_DIM];

                oracle(expected, c, lane_of(work, seq), work->first_pos[seq] + i, h);
                for (int d = 0; d < value_dim; d++) {
                    const double got = (double)f32_row(out, row)[h * value_dim + d];

                    if (!(fabs(got - expected[d]) < most)) {
                        fail_msg("sequence %d row %d head %d dim %d: %g, not %g", seq, i, h, d, got,
                                 expected[d]);
                    }
                }
            }
        }
    }
}

tsr_device *open_for(const setting *s, int n_threads)
{
    const tsr_ops_limits limits = {
        .n_rows = CONTEXT * 2,
        .n_heads = s->n_heads,
        .head_dim = s->head_dim > s->asked.value_dim ? s->head_dim : s->asked.value_dim,
        .context = CONTEXT,
        .n_seqs = MAX_SEQS};

    return open_device(n_threads, &limits);
}
