/*
 * What attention can be asked for beyond plain causal softmax, each against the oracle, and blocks
 * that lie in two places.
 */
#include "tests/support/attended.h"

#include <math.h>

static const step mixed = {5, {0, 255, 256, 700, 1023}, {1, 1, 1, 1, 77}};
static const step chunks = {4, {0, 250, 511, 3}, {270, 9, 4, 2}};
static const step few = {3, {17, 0, 1000}, {1, 33, 3}};

#define F16 TSR_KV_TYPE_F16
#define F32 TSR_KV_TYPE_F32
#define BF16 TSR_KV_TYPE_BF16

typedef struct named {
    const char *name;
    setting s;
} named;

static named all[] = {
    {"soft cap", {5, 3, 2, 40, 16, F16, {0}, {.softcap = 0.75F}}},
    {"soft cap far from the scores", {2, 1, 0, 20, 32, F32, {0}, {.softcap = 50}}},
    {"window", {9, 3, 0, 64, 16, F16, {0}, {.window = 100}}},
    {"window of one", {3, 3, 0, 24, 32, F16, {0}, {.window = 1}}},
    {"window over runs", {4, 2, 1, 16, 64, F32, {0}, {.window = 300}}},
    {"window larger than all", {4, 4, 0, 4, 64, F16, {0}, {.window = 5000}}},
    {"stride", {6, 3, 0, 16, 16, F16, {0}, {.stride = 4}}},
    {"stride and local", {5, 2, 1, 24, 32, F16, {0}, {.stride = 7, .local = 20}}},
    {"stride of one", {3, 1, 0, 8, 16, F16, {0}, {.stride = 1}}},
    {"stride over runs", {3, 3, 0, 12, 64, F32, {0}, {.stride = 300, .local = 3}}},
    {"stride in a window", {4, 2, 0, 36, 16, F16, {0}, {.window = 270, .stride = 9, .local = 2}}},
    {"stride and much that is near", {4, 2, 0, 32, 16, F16, {0}, {.stride = 5, .local = 300}}},
    {"stride, cap and sinks",
     {4, 4, 0, 64, 64, BF16, {0}, {.softcap = 1, .stride = 16, .local = 1, .sinks = true}}},
    {"by token without a stride", {6, 2, 0, 40, 32, F16, {0}, {.by_token = true, .window = 300}}},
    {"slopes", {5, 1, 0, 16, 16, F16, {0}, {.slopes = true}}},
    {"slopes, cap and window",
     {5, 5, 0, 16, 16, F16, {0}, {.softcap = 2, .window = 77, .slopes = true}}},
    {"slopes and stride", {6, 3, 1, 16, 32, F16, {0}, {.stride = 5, .slopes = true}}},
    {"sinks", {6, 2, 0, 16, 16, F16, {0}, {.sinks = true}}},
    {"sinks and window", {7, 7, 3, 28, 16, F16, {0}, {.window = 24, .sinks = true}}},
    {"value heads smaller", {4, 2, 0, 40, 16, F16, {0}, {.value_dim = 16}}},
    {"value heads larger", {4, 4, 0, 4, 32, F32, {0}, {.value_dim = 100}}},
    {"odd sizes", {3, 3, 0, 7, 16, F16, {0}, {.value_dim = 13}}},
    {"latent", {6, 6, 0, 40, 16, F16, {0}, {.value_dim = 32, .latent = true}}},
    {"latent, odd, windowed",
     {5, 5, 0, 30, 32, F32, {0}, {.value_dim = 21, .latent = true, .window = 90}}},
    {"latent with a stride",
     {6, 6, 0, 20, 16, F16, {0}, {.value_dim = 20, .latent = true, .stride = 6, .local = 9}}},
    {"latent as DeepSeek has it",
     {16, 16, 0, 576, 64, F16, {0}, {.value_dim = 512, .latent = true}}},
};
enum {
    N_ALL = sizeof(all) / sizeof(all[0])
};

/* The steps in turn; the large one has little to do. */
static void choose_work(int i)
{
    static const step small = {2, {290, 0}, {1, 5}};
    const step *works[] = {&mixed, &chunks, &few};

    all[i].s.work = all[i].s.head_dim > 256 ? small : *works[i % 3];
}

static void each_is_what_the_formula_says_and_threads_and_sets_change_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < N_ALL; i++) {
        const setting *s = &all[i].s;
        tsr_device *dev;
        cache c;
        tsr_tensor out;
        tsr_tensor plain;

        choose_work(i);
        dev = open_for(s, 1 + i % 3);
        make_cache(&c, s);
        write_past(dev, &c, &s->work);
        write_step(dev, &c, &s->work);
        print_message("  %s\n", all[i].name);
        out = attend_step(dev, &c, &s->work);
        compare_with_oracle(out, &c, &s->work, 6e-6);
        dev->isa = TSR_ISA_PLAIN_C;
        plain = attend_step(dev, &c, &s->work);
        assert_same_rows(out, plain);
        free_window(plain);
        free_window(out);
        clear_cache(&c);
        tsr_device_close(dev);
    }
}

static void a_row_is_the_same_alone_and_in_chunks_of_any_size(void **state)
{
    static const int sizes[] = {1, 3, 16, 100};

    (void)state;
    for (int i = 0; i < N_ALL; i++) {
        enum {
            N_ROWS = 330
        };
        const step whole = {1, {0}, {N_ROWS}};
        const setting *s = &all[i].s;
        tsr_device *dev;
        tsr_tensor expected;
        cache c;

        if (s->head_dim > 256) {
            continue;
        }
        dev = open_for(s, 2);
        make_cache(&c, s);
        write_step(dev, &c, &whole);
        expected = attend_step(dev, &c, &whole);
        for (size_t n = 0; n < sizeof(sizes) / sizeof(sizes[0]); n++) {
            // Chunks of size 1 are many: from 200 on only.
            for (int first = sizes[n] == 1 ? 200 : 0; first < N_ROWS; first += sizes[n]) {
                const step work = {
                    1, {first}, {first + sizes[n] < N_ROWS ? sizes[n] : N_ROWS - first}};
                tsr_tensor window = expected;
                tsr_tensor out = attend_step(dev, &c, &work);

                window.data = f32_row(expected, first);
                window.n_rows = work.n_rows[0];
                assert_same_rows(out, window);
                free_window(out);
            }
        }
        free_window(expected);
        clear_cache(&c);
        tsr_device_close(dev);
    }
}

/* ---- what is not seen is not read -------------------------------------------------------------
 */

static void only_what_is_visible_is_read(void **state)
{
    static const setting s = {4, 2, 0, 16, 16, F16, {1, {1023}, {1}}, {.window = 40}};
    static const setting t = {4, 2, 0, 16, 16, F16, {1, {1000}, {1}}, {.stride = 64}};
    static const setting u = {4, 2, 0, 16, 16, TSR_KV_TYPE_INT8, {1, {1000}, {1}}, {.stride = 64}};
    // Heads enough to share a KV head that its tokens are first set side by side; f16 and f32.
    static const setting v = {8, 8, 0, 16, 16, F16, {1, {1000}, {1}}, {.stride = 64, .local = 20}};
    static const setting w = {4, 4, 0, 18, 16, TSR_KV_TYPE_F32, {1, {1000}, {1}}, {.stride = 64}};
    static const setting *const settings[] = {&s, &t, &u, &v, &w};

    (void)state;
    for (int which = 0; which < 5; which++) {
        const setting *now = settings[which];
        tsr_device *dev = open_for(now, 1);
        cache c;
        tsr_tensor out;

        make_cache(&c, now);
        write_past(dev, &c, &now->work);
        write_step(dev, &c, &now->work);
        for (int b = 0; b < 64; b++) { // blocks of which nothing is seen lie nowhere
            const int first = b * 16;
            const bool seen = which == 0
                                  ? first + 15 > 1023 - 40
                                  : (1000 % 64 >= first % 64 && 1000 % 64 < first % 64 + 16) ||
                                        first + 15 > 1000 - now->asked.local;

            if (!seen) {
                i32_row(c.tables, 0)[b] = INT32_MAX;
            }
        }
        out = attend_step(dev, &c, &now->work);
        compare_with_oracle(out, &c, &now->work, which == 2 ? 3e-2 : 6e-6);
        free_window(out);
        clear_cache(&c);
        tsr_device_close(dev);
    }
}

/* ---- two places -------------------------------------------------------------------------------
 */

static void where_a_block_lies_changes_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < N_ALL; i++) {
        const setting *s = &all[i].s;
        tsr_device *dev;
        cache c;
        tsr_tensor expected;
        tsr_tensor out;

        choose_work(i);
        dev = open_for(s, 2);
        make_cache(&c, s);
        write_past(dev, &c, &s->work);
        write_step(dev, &c, &s->work);
        expected = attend_step(dev, &c, &s->work);
        spill(&c);
        out = attend_step(dev, &c, &s->work);
        assert_same_rows(out, expected);
        free_window(out);
        free_window(expected);
        clear_cache(&c);
        tsr_device_close(dev);
    }
}

static void nothing_is_written_into_the_host_pool(void **state)
{
    static const setting s = {2, 1, 0, 16, 16, F16, {2, {0, 20}, {3, 30}}, {0}};
    tsr_device *dev = open_for(&s, 1);
    unsigned char *before;
    tsr_tensor k;
    tsr_batch batch;
    cache c;

    (void)state;
    make_cache(&c, &s);
    spill(&c);
    before = tsr_alloc(c.n_bytes, 1);
    memcpy(before, c.view.pool, c.n_bytes);
    k = pick(c.k, &s.work, kv_cols(&c));
    batch = make_batch(&c, &s.work);
    assert_int_equal(tsr_kv_write(dev, &c.view, k, k, &batch), TSR_ERR_ARG);
    assert_memory_equal(c.view.pool, before, c.n_bytes);
    clear_batch(&batch);
    free_window(k);
    tsr_free(before);
    clear_cache(&c);
    tsr_device_close(dev);
}

/* ---- in parts ---------------------------------------------------------------------------------
 */

static tsr_attention_piece make_piece(const cache *c, int64_t n_rows)
{
    const int64_t n = c->shape.n_heads;

    return (tsr_attention_piece){make_window(TSR_DTYPE_F32, n_rows, n * c->layout.value_dim),
                                 make_window(TSR_DTYPE_F32, n_rows, n),
                                 make_window(TSR_DTYPE_F32, n_rows, n)};
}

static void free_piece(const tsr_attention_piece *piece)
{
    free_window(piece->o);
    free_window(piece->m);
    free_window(piece->l);
}

/* Sequence s of a batch alone. */
static tsr_batch sequence_of(const tsr_batch *batch, int s)
{
    tsr_batch one = *batch;

    one.n_seqs = 1;
    one.row_start.data = (int32_t *)batch->row_start.data + s;
    one.row_start.n_cols = 2;
    one.first_pos.data = (int32_t *)batch->first_pos.data + s;
    one.first_pos.n_cols = 1;
    one.lanes.data = (int32_t *)batch->lanes.data + s;
    one.lanes.n_cols = 1;
    return one;
}

/* The first runs of each sequence are attended by themselves, in two pieces; then the rest, as if
 * the sequence began there. */
static void what_was_seen_before_may_be_given_and_changes_no_bit(void **state)
{
    int n_begun = 0;

    (void)state;
    for (int i = 0; i < N_ALL; i++) {
        const setting *s = &all[i].s;
        tsr_device *dev;
        tsr_tensor expected;
        tsr_tensor out;
        tsr_tensor q;
        tsr_batch batch;
        cache c;

        if (s->asked.stride > 0) { // what is far is counted from the sequence's start
            continue;
        }
        choose_work(i);
        dev = open_for(s, 2);
        make_cache(&c, s);
        write_past(dev, &c, &s->work);
        write_step(dev, &c, &s->work);
        expected = attend_step(dev, &c, &s->work);
        spill(&c);
        q = pick(c.q, &s->work, (int64_t)s->n_heads * s->head_dim);
        out = make_window(TSR_DTYPE_F32, q.n_rows, expected.n_cols);
        batch = make_batch(&c, &s->work);
        for (int seq = 0; seq < s->work.n_seqs; seq++) {
            const tsr_attention_piece first = make_piece(&c, q.n_rows);
            const tsr_attention_piece both = make_piece(&c, q.n_rows);
            tsr_batch one = sequence_of(&batch, seq);
            int32_t *first_pos = one.first_pos.data;
            const int32_t n_before = *first_pos / TSR_ATTENTION_RUN;
            tsr_attention_shape shape = c.shape;
            int32_t table_start;

            assert_int_equal(
                tsr_attention_part(dev, &first, q, &c.view, &one, &shape, 0, n_before > 0), TSR_OK);
            shape.before = &first;
            assert_int_equal(tsr_attention_part(dev, &both, q, &c.view, &one, &shape, 1,
                                                n_before > 1 ? n_before - 1 : 0),
                             TSR_OK);
            shape.before = n_before > 0 ? &both : NULL;
            table_start = n_before * TSR_ATTENTION_RUN / c.layout.block_tokens;
            one.table_start = one.first_pos;
            one.table_start.data = &table_start;
            one.longest -= n_before * TSR_ATTENTION_RUN;
            *first_pos -= n_before * TSR_ATTENTION_RUN;
            assert_int_equal(tsr_attention(dev, out, q, &c.view, &one, &shape), TSR_OK);
            n_begun += n_before > 0;
            free_piece(&first);
            free_piece(&both);
        }
        assert_same_rows(out, expected);
        clear_batch(&batch);
        free_window(q);
        free_window(out);
        free_window(expected);
        clear_cache(&c);
        tsr_device_close(dev);
    }
    assert_true(n_begun > 10);
}

static void a_part_reads_only_its_own_runs(void **state)
{
    static const setting s = {4, 2, 0, 16, 64, F16, {1, {1000}, {2}}, {0}};
    tsr_device *dev = open_for(&s, 1);
    tsr_attention_piece piece;
    tsr_attention_piece again;
    tsr_tensor q;
    tsr_batch batch;
    cache c;

    (void)state;
    make_cache(&c, &s);
    write_past(dev, &c, &s.work);
    write_step(dev, &c, &s.work);
    q = pick(c.q, &s.work, 64);
    batch = make_batch(&c, &s.work);
    piece = make_piece(&c, 2);
    again = make_piece(&c, 2);
    assert_int_equal(tsr_attention_part(dev, &piece, q, &c.view, &batch, &c.shape, 2, 1), TSR_OK);
    for (int b = 0; b < 17; b++) {
        if (b < 8 || b >= 12) {
            i32_row(c.tables, 0)[b] = INT32_MAX;
        }
    }
    assert_int_equal(tsr_attention_part(dev, &again, q, &c.view, &batch, &c.shape, 2, 1), TSR_OK);
    assert_same_rows(again.o, piece.o);
    assert_same_rows(again.m, piece.m);
    assert_same_rows(again.l, piece.l);
    free_piece(&piece);
    free_piece(&again);
    clear_batch(&batch);
    free_window(q);
    clear_cache(&c);
    tsr_device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_what_the_formula_says_and_threads_and_sets_change_no_bit),
        cmocka_unit_test(a_row_is_the_same_alone_and_in_chunks_of_any_size),
        cmocka_unit_test(only_what_is_visible_is_read),
        cmocka_unit_test(where_a_block_lies_changes_no_bit),
        cmocka_unit_test(nothing_is_written_into_the_host_pool),
        cmocka_unit_test(what_was_seen_before_may_be_given_and_changes_no_bit),
        cmocka_unit_test(a_part_reads_only_its_own_runs),
    };

    return isa_is_missing() ? MISSING_SET : cmocka_run_group_tests(tests, NULL, NULL);
}
