#include "tests/support/device.h"

#include <math.h>

enum {
    N_LAYERS = 2,
    LAYER = 1,
    MAX_SEQS = 6,
    CONTEXT = 1100,
    MANY_ROWS = IS_EMULATED ? 280 : 600
};

/* What a step is made of. */
typedef struct step {
    int n_seqs;
    int first_pos[MAX_SEQS];
    int n_rows[MAX_SEQS];
} step;

typedef struct setting {
    int n_heads, group, first_head, head_dim, block_tokens;
    tsr_dtype dtype;
    step work;
} setting;

/* A cache of MAX_SEQS sequences with random keys and values for all positions; what is in the pool
 * is only what was written. */
typedef struct cache {
    tsr_kv_layout layout;
    tsr_kv_view view;
    size_t n_bytes;
    tsr_tensor tables; // slots in no order
    float *k, *v;      // [MAX_SEQS, CONTEXT, kv heads * head_dim]
    float *q;          // [MAX_SEQS, CONTEXT, heads * head_dim]
} cache;

static int64_t kv_cols(const cache *c)
{
    return (int64_t)c->layout.n_kv_heads * c->layout.head_dim;
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

static void make_cache(cache *c, const setting *s)
{
    const int blocks = (CONTEXT + s->block_tokens - 1) / s->block_tokens;
    const int n_slots = MAX_SEQS * blocks;
    // One KV head more than is read, to see that it stays out of it.
    const int n_kv_heads = (s->first_head + s->n_heads + s->group - 1) / s->group + 1;

    c->layout = (tsr_kv_layout){N_LAYERS, n_kv_heads, s->head_dim, s->block_tokens, s->dtype};
    c->view = (tsr_kv_view){.block_bytes = tsr_kv_layout_block_bytes(&c->layout) + 64,
                            .layout = &c->layout,
                            .layer = LAYER};
    c->n_bytes = c->view.block_bytes * (size_t)n_slots;
    c->view.pool = tsr_alloc(c->n_bytes, 1);
    assert_non_null(c->view.pool);
    memset(c->view.pool, POISON, c->n_bytes);
    c->tables = make_window(TSR_DTYPE_I32, MAX_SEQS, blocks);
    for (int i = 0; i < n_slots; i++) { // 7919 is prime and no factor of n_slots
        i32_row(c->tables, i / blocks)[i % blocks] = (int32_t)((int64_t)i * 7919 % n_slots);
    }
    c->k = randoms(MAX_SEQS * CONTEXT * kv_cols(c), 1);
    c->v = randoms(MAX_SEQS * CONTEXT * kv_cols(c), 2);
    c->q = randoms((int64_t)MAX_SEQS * CONTEXT * s->n_heads * s->head_dim, 3);
}

static void clear_cache(cache *c)
{
    tsr_free(c->view.pool);
    tsr_free(c->k);
    tsr_free(c->v);
    tsr_free(c->q);
    free_window(c->tables);
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
static int lane_of(const step *work, int s)
{
    return work->n_seqs - 1 - s;
}

static tsr_batch make_batch(const cache *c, const step *work)
{
    int32_t starts[MAX_SEQS + 1] = {0};
    int32_t lanes[MAX_SEQS];
    tsr_batch batch = {.n_seqs = work->n_seqs, .tables = c->tables, .longest = 1};

    for (int s = 0; s < work->n_seqs; s++) {
        const int end = work->first_pos[s] + work->n_rows[s];

        starts[s + 1] = starts[s] + work->n_rows[s];
        lanes[s] = lane_of(work, s);
        batch.longest = end > batch.longest ? end : batch.longest;
    }
    batch.row_start = make_ints(starts, work->n_seqs + 1);
    batch.first_pos = make_ints(work->first_pos, work->n_seqs);
    batch.lanes = make_ints(lanes, work->n_seqs);
    return batch;
}

static void clear_batch(tsr_batch *batch)
{
    free_window(batch->row_start);
    free_window(batch->first_pos);
    free_window(batch->lanes);
}

/* The rows of a step out of [MAX_SEQS, CONTEXT, n_cols]. */
static tsr_tensor pick(const float *all, const step *work, int64_t n_cols)
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

static void write_step(tsr_device *dev, const cache *c, const step *work)
{
    const tsr_tensor k = pick(c->k, work, kv_cols(c));
    const tsr_tensor v = pick(c->v, work, kv_cols(c));
    tsr_batch batch = make_batch(c, work);

    assert_int_equal(tsr_kv_write(dev, &c->view, k, v, &batch), TSR_OK);
    clear_batch(&batch);
    free_window(k);
    free_window(v);
}

/* Everything before the step's first positions. */
static void write_past(tsr_device *dev, const cache *c, const step *work)
{
    step past = {.n_seqs = work->n_seqs};

    for (int s = 0; s < work->n_seqs; s++) {
        past.n_rows[s] = work->first_pos[s];
    }
    write_step(dev, c, &past);
}

static tsr_tensor attend_step(tsr_device *dev, const cache *c, const setting *s, const step *work)
{
    const int64_t n_cols = (int64_t)s->n_heads * s->head_dim;
    const tsr_attention_shape shape = {s->n_heads, s->head_dim, s->group, s->first_head,
                                       1.0F / sqrtf((float)s->head_dim)};
    const tsr_tensor q = pick(c->q, work, n_cols);
    const tsr_tensor out = make_window(TSR_DTYPE_F32, q.n_rows, n_cols);
    tsr_batch batch = make_batch(c, work);

    assert_int_equal(tsr_attention(dev, out, q, &c->view, &batch, &shape), TSR_OK);
    clear_batch(&batch);
    free_window(q);
    return out;
}

static double stored(float x, tsr_dtype dtype)
{
    if (dtype == TSR_DTYPE_F16) {
        return (double)tsr_dtype_from_f16(tsr_dtype_to_f16(x));
    }
    if (dtype == TSR_DTYPE_BF16) {
        return (double)tsr_dtype_from_bf16(tsr_dtype_to_bf16(x));
    }
    return (double)x;
}

/* One head of one row in double: all scores, then the softmax, then the sum. */
static void oracle(double *out, const cache *c, const setting *s, int lane, int position, int head)
{
    const int dim = s->head_dim;
    const int kv_head = (s->first_head + head) / s->group;
    const float *q = c->q + (((int64_t)lane * CONTEXT + position) * s->n_heads + head) * dim;
    double scores[CONTEXT];
    double largest = -INFINITY;
    double sum = 0;

    memset(out, 0, (size_t)dim * sizeof(*out));
    for (int t = 0; t <= position; t++) {
        const float *k = c->k + ((int64_t)lane * CONTEXT + t) * kv_cols(c) + kv_head * dim;

        scores[t] = 0;
        for (int d = 0; d < dim; d++) {
            scores[t] += (double)q[d] * stored(k[d], s->dtype);
        }
        scores[t] /= sqrt(dim);
        largest = fmax(largest, scores[t]);
    }
    for (int t = 0; t <= position; t++) {
        const float *v = c->v + ((int64_t)lane * CONTEXT + t) * kv_cols(c) + kv_head * dim;
        const double e = exp(scores[t] - largest);

        sum += e;
        for (int d = 0; d < dim; d++) {
            out[d] += e * stored(v[d], s->dtype);
        }
    }
    for (int d = 0; d < dim; d++) {
        out[d] /= sum;
    }
}

static void compare_with_oracle(tsr_tensor out, const cache *c, const setting *s, const step *work)
{
    int64_t row = 0;

    for (int seq = 0; seq < work->n_seqs; seq++) {
        for (int i = 0; i < work->n_rows[seq]; i++, row++) {
            // All rows of a short step; of a long one, every 17th and the last.
            if (i % 17 != 0 && i != work->n_rows[seq] - 1) {
                continue;
            }
            for (int h = 0; h < s->n_heads; h++) {
                double expected[256];

                oracle(expected, c, s, lane_of(work, seq), work->first_pos[seq] + i, h);
                for (int d = 0; d < s->head_dim; d++) {
                    const double got = (double)f32_row(out, row)[h * s->head_dim + d];

                    if (!(fabs(got - expected[d]) < 4e-6)) {
                        fail_msg("sequence %d row %d head %d dim %d: %g, not %g", seq, i, h, d, got,
                                 expected[d]);
                    }
                }
            }
        }
    }
}

static tsr_device *open_for(const setting *s, int n_threads)
{
    const tsr_ops_limits limits = {.n_rows = CONTEXT * 2,
                                   .n_heads = s->n_heads,
                                   .head_dim = s->head_dim,
                                   .context = CONTEXT,
                                   .n_seqs = MAX_SEQS};

    return open_device(n_threads, &limits);
}

static const setting settings[] = {
    // decoding beside prompts, over the borders of runs and blocks
    {9, 3, 0, 64, 16, TSR_DTYPE_F16, {5, {0, 255, 256, 700, 1023}, {1, 1, 1, 1, 77}}},
    // a KV head shared with the rank before, and one with the rank behind; a head that needs
    // padding
    {5, 3, 2, 40, 32, TSR_DTYPE_F16, {4, {0, 250, 511, 3}, {270, 9, 4, 2}}},
    {3, 1, 0, 8, 64, TSR_DTYPE_F32, {3, {17, 0, 1000}, {1, 33, 3}}},
    {7, 7, 0, 72, 16, TSR_DTYPE_BF16, {2, {300, 60}, {1, 50}}},
    {71, 71, 0, 64, 32, TSR_DTYPE_F16, {3, {0, 270, 514}, {5, 1, 2}}},
    {90, 90, 5, 16, 16, TSR_DTYPE_F16, {2, {260, 100}, {3, 7}}},
    {2, 2, 0, 256, 64, TSR_DTYPE_BF16, {2, {290, 0}, {1, 30}}},
    {16, 2, 1, 128, 16, TSR_DTYPE_F32, {2, {515, 0}, {1, 40}}},
    {4, 4, 0, 64, 16, TSR_DTYPE_F16, {0, {0}, {0}}},
};
enum {
    N_SETTINGS = sizeof(settings) / sizeof(settings[0])
};

static void attention_is_what_the_formula_says(void **state)
{
    (void)state;
    // On the emulated GPU, which must give the CPU's bits in every setting, one is enough here.
    for (int i = IS_EMULATED ? 2 : 0; i < N_SETTINGS; i += IS_EMULATED ? N_SETTINGS : 1) {
        const setting *s = &settings[i];
        tsr_device *dev = open_for(s, 1 + i % 3);
        cache c;
        tsr_tensor out;

        make_cache(&c, s);
        write_past(dev, &c, &s->work);
        write_step(dev, &c, &s->work);
        out = attend_step(dev, &c, s, &s->work);
        compare_with_oracle(out, &c, s, &s->work);
        free_window(out);
        clear_cache(&c);
        tsr_device_close(dev);
    }
}

static void threads_and_instruction_sets_change_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < N_SETTINGS; i++) {
        const setting *s = &settings[i];
        tsr_device *dev = open_for(s, 1);
        cache c;
        tsr_tensor expected;

        make_cache(&c, s);
        write_past(dev, &c, &s->work);
        write_step(dev, &c, &s->work);
        dev->isa = TSR_ISA_PLAIN_C;
        expected = attend_step(dev, &c, s, &s->work);
        tsr_device_close(dev);
        for (int n_threads = 1; n_threads <= (IS_EMULATED ? 1 : 5); n_threads++) {
            tsr_tensor out;

            dev = open_for(s, n_threads); // with the set that TSR_ISA names
            out = attend_step(dev, &c, s, &s->work);
            assert_same_rows(out, expected);
            free_window(out);
            tsr_device_close(dev);
        }
        free_window(expected);
        clear_cache(&c);
    }
}

/* Rows [0, CONTEXT) of one sequence, in chunks. */
static tsr_tensor attend_in_chunks(tsr_device *dev, const setting *s, int n_rows, int chunk)
{
    const int64_t n_cols = (int64_t)s->n_heads * s->head_dim;
    const tsr_tensor all = make_window(TSR_DTYPE_F32, n_rows, n_cols);
    cache c;

    make_cache(&c, s);
    for (int first = 0; first < n_rows; first += chunk) {
        const step work = {1, {first}, {first + chunk < n_rows ? chunk : n_rows - first}};
        tsr_tensor out;

        write_step(dev, &c, &work);
        out = attend_step(dev, &c, s, &work);
        for (int64_t r = 0; r < out.n_rows; r++) {
            memcpy(f32_row(all, first + r), f32_row(out, r), (size_t)n_cols * sizeof(float));
        }
        free_window(out);
    }
    clear_cache(&c);
    return all;
}

static void
a_row_is_the_same_alone_and_in_chunks_of_any_size_and_in_blocks_of_any_size(void **state)
{
    static const int chunks[] = {1, 2, 3, 5, 16, 100, 256, 600};
    static const int blocks[] = {16, 32, 64};
    setting s = {5, 3, 2, 24, 16, TSR_DTYPE_F16, {0, {0}, {0}}};
    tsr_device *dev = open_for(&s, 2);
    const tsr_tensor expected = attend_in_chunks(dev, &s, MANY_ROWS, MANY_ROWS);

    (void)state;
    for (size_t i = IS_EMULATED ? 5 : 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        for (size_t b = 0; b < 3; b++) {
            tsr_tensor out;

            if (IS_EMULATED && i % 3 != b) {
                continue;
            }
            s.block_tokens = blocks[b];
            out = attend_in_chunks(dev, &s, MANY_ROWS, chunks[i]);
            assert_same_rows(out, expected);
            free_window(out);
        }
    }
    free_window(expected);
    tsr_device_close(dev);
}

static void a_row_is_the_same_in_any_crowd(void **state)
{
    const setting s = {6,
                       3,
                       0,
                       32,
                       16,
                       TSR_DTYPE_BF16,
                       {4, {600, 0, 31, 258}, {1, IS_EMULATED ? 60 : 300, 2, 19}}};
    tsr_device *dev = open_for(&s, 3);
    cache c;
    tsr_tensor together;
    int64_t row = 0;

    (void)state;
    make_cache(&c, &s);
    write_past(dev, &c, &s.work);
    write_step(dev, &c, &s.work);
    together = attend_step(dev, &c, &s, &s.work);
    for (int i = 0; i < s.work.n_seqs; i++) {
        // Sequences of no rows keep the lanes where they are.
        step alone = {.n_seqs = s.work.n_seqs};
        tsr_tensor window = together;
        tsr_tensor out;

        alone.first_pos[i] = s.work.first_pos[i];
        alone.n_rows[i] = s.work.n_rows[i];
        out = attend_step(dev, &c, &s, &alone);
        window.data = f32_row(together, row);
        window.n_rows = s.work.n_rows[i];
        assert_same_rows(out, window);
        row += s.work.n_rows[i];
        free_window(out);
    }
    free_window(together);
    clear_cache(&c);
    tsr_device_close(dev);
}

static void a_value_beyond_f16_harms_only_the_rows_that_see_it(void **state)
{
    const setting s = {3, 3, 0, 16, 16, TSR_DTYPE_F16, {1, {0}, {40}}};
    tsr_device *dev = open_for(&s, 1);
    cache c;
    tsr_tensor out;

    (void)state;
    make_cache(&c, &s);
    c.v[20 * kv_cols(&c)] = 1e30F; // infinity in the cache
    write_step(dev, &c, &s.work);
    out = attend_step(dev, &c, &s, &s.work);
    for (int r = 0; r < 40; r++) {
        assert_int_equal(isfinite(f32_row(out, r)[0]) != 0, r < 20);
    }
    free_window(out);
    clear_cache(&c);
    tsr_device_close(dev);
}

static void large_scores_do_not_overflow(void **state)
{
    const setting s = {1, 1, 0, 16, 16, TSR_DTYPE_F32, {1, {299}, {1}}};
    tsr_device *dev = open_for(&s, 1);
    cache c;
    tsr_tensor out;

    (void)state;
    make_cache(&c, &s);
    for (int64_t i = 0; i < 300 * 16; i++) {
        c.q[i] *= 1000;
    }
    write_past(dev, &c, &s.work);
    write_step(dev, &c, &s.work);
    out = attend_step(dev, &c, &s, &s.work);
    compare_with_oracle(out, &c, &s, &s.work);
    free_window(out);
    clear_cache(&c);
    tsr_device_close(dev);
}

/* ---- kv_write -------------------------------------------------------------------------------- */

static void keys_and_values_lie_where_the_layout_says_and_nothing_else_is_touched(void **state)
{
    static const tsr_dtype dtypes[] = {TSR_DTYPE_F32, TSR_DTYPE_F16, TSR_DTYPE_BF16};

    (void)state;
    for (int i = 0; i < 3; i++) {
        const setting s = {2, 1, 0, 24, 32, dtypes[i], {2, {30, 64}, {5, 1}}};
        const size_t elem_bytes = tsr_dtype_bytes(s.dtype);
        tsr_device *dev = open_for(&s, 2);
        unsigned char *expected;
        cache c;

        make_cache(&c, &s);
        expected = tsr_alloc(c.n_bytes, 1);
        memset(expected, POISON, c.n_bytes);
        for (int seq = 0; seq < 2; seq++) {
            for (int r = 0; r < s.work.n_rows[seq]; r++) {
                const int lane = lane_of(&s.work, seq);
                const int position = s.work.first_pos[seq] + r;
                const int32_t slot = i32_row(c.tables, lane)[position / 32];
                const int at = position % 32;

                for (int h = 0; h < c.layout.n_kv_heads; h++) {
                    // [layer][kv head] { K [24][32], V [32][32] }
                    unsigned char *keys =
                        expected + (size_t)slot * c.view.block_bytes +
                        (size_t)((LAYER * c.layout.n_kv_heads + h) * 56 * 32) * elem_bytes;

                    for (int d = 0; d < 32; d++) {
                        const int64_t from =
                            ((int64_t)lane * CONTEXT + position) * kv_cols(&c) + h * 24 + d;
                        const float both[2] = {d < 24 ? c.k[from] : 0, d < 24 ? c.v[from] : 0};

                        for (int which = d < 24 ? 0 : 1; which < 2; which++) {
                            const size_t index =
                                (size_t)(which == 0 ? d * 32 + at : 24 * 32 + at * 32 + d);
                            const uint16_t half = s.dtype == TSR_DTYPE_F16
                                                      ? tsr_dtype_to_f16(both[which])
                                                      : tsr_dtype_to_bf16(both[which]);

                            memcpy(keys + index * elem_bytes,
                                   elem_bytes == 4 ? (const void *)&both[which] : &half,
                                   elem_bytes);
                        }
                    }
                }
            }
        }
        write_step(dev, &c, &s.work);
        assert_memory_equal(c.view.pool, expected, c.n_bytes);
        tsr_free(expected);
        clear_cache(&c);
        tsr_device_close(dev);
    }
}

static void too_little_scratch_is_refused_before_anything_is_written(void **state)
{
    const setting s = {3, 3, 0, 16, 16, TSR_DTYPE_F16, {1, {0}, {4}}};
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    const tsr_attention_shape shape = {3, 16, 3, 0, 1};
    const tsr_tensor out = make_window(TSR_DTYPE_F32, 4, 48);
    tsr_device *dev = NULL;
    tsr_batch batch;
    tsr_tensor q;
    cache c;

    (void)state;
    assert_int_equal(tsr_device_open(&dev, &options), TSR_OK);
    make_cache(&c, &s);
    write_step(dev, &c, &s.work);
    q = pick(c.q, &s.work, 48);
    batch = make_batch(&c, &s.work);
    assert_int_equal(tsr_attention(dev, out, q, &c.view, &batch, &shape), TSR_ERR_ARG);
    assert_true(isnan(f32_row(out, 0)[0]));
    clear_batch(&batch);
    free_window(q);
    free_window(out);
    clear_cache(&c);
    tsr_device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_what_the_formula_says),
        cmocka_unit_test(threads_and_instruction_sets_change_no_bit),
        cmocka_unit_test(
            a_row_is_the_same_alone_and_in_chunks_of_any_size_and_in_blocks_of_any_size),
        cmocka_unit_test(a_row_is_the_same_in_any_crowd),
        cmocka_unit_test(a_value_beyond_f16_harms_only_the_rows_that_see_it),
        cmocka_unit_test(large_scores_do_not_overflow),
        cmocka_unit_test(keys_and_values_lie_where_the_layout_says_and_nothing_else_is_touched),
        cmocka_unit_test(too_little_scratch_is_refused_before_anything_is_written),
    };

    return isa_is_missing() ? MISSING_SET : cmocka_run_group_tests(tests, NULL, NULL);
}
