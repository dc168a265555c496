#include "tests/support/attended.h"

#include <math.h>

static const setting settings[] = {
    // decoding beside prompts, over the borders of runs and blocks
    {9, 3, 0, 64, 16, TSR_KV_TYPE_F16, {5, {0, 255, 256, 700, 1023}, {1, 1, 1, 1, 77}}, {0}},
    // a KV head shared with the rank before, and one with the rank behind; a head that needs
    // padding
    {5, 3, 2, 40, 32, TSR_KV_TYPE_F16, {4, {0, 250, 511, 3}, {270, 9, 4, 2}}, {0}},
    {3, 1, 0, 8, 64, TSR_KV_TYPE_F32, {3, {17, 0, 1000}, {1, 33, 3}}, {0}},
    {7, 7, 0, 72, 16, TSR_KV_TYPE_BF16, {2, {300, 60}, {1, 50}}, {0}},
    {71, 71, 0, 64, 32, TSR_KV_TYPE_F16, {3, {0, 270, 514}, {5, 1, 2}}, {0}},
    {90, 90, 5, 16, 16, TSR_KV_TYPE_F16, {2, {260, 100}, {3, 7}}, {0}},
    {2, 2, 0, 256, 64, TSR_KV_TYPE_BF16, {2, {290, 0}, {1, 30}}, {0}},
    {16, 2, 1, 128, 16, TSR_KV_TYPE_F32, {2, {515, 0}, {1, 40}}, {0}},
    {4, 4, 0, 64, 16, TSR_KV_TYPE_F16, {0, {0}, {0}}, {0}},
};
enum {
    N_SETTINGS = sizeof(settings) / sizeof(settings[0]),
    MANY_ROWS = IS_EMULATED ? 280 : 600
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
        out = attend_step(dev, &c, &s->work);
        compare_with_oracle(out, &c, &s->work, 4e-6);
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
        expected = attend_step(dev, &c, &s->work);
        tsr_device_close(dev);
        for (int n_threads = 1; n_threads <= (IS_EMULATED ? 1 : 5); n_threads++) {
            tsr_tensor out;

            dev = open_for(s, n_threads); // with the set that TSR_ISA names
            out = attend_step(dev, &c, &s->work);
            if (IS_FAST) {
                assert_near_rows(out, expected, attended_tolerance(s->type, 0));
            } else {
                assert_same_rows(out, expected);
            }
            free_window(out);
            tsr_device_close(dev);
        }
        free_window(expected);
        clear_cache(&c);
    }
}

static const setting beyond[] = {
    {9, 3, 0, 64, 16, TSR_KV_TYPE_INT8, {4, {0, 255, 700, 256}, {1, 1, 1, 20}}, {0}},
    {5, 3, 2, 40, 32, TSR_KV_TYPE_FP8, {4, {0, 250, 511, 3}, {30, 9, 1, 2}}, {.window = 200}},
    {2, 2, 0, 256, 64, TSR_KV_TYPE_INT8, {2, {290, 0}, {1, 30}}, {.value_dim = 232}},
    {3, 3, 0, 128, 16, TSR_KV_TYPE_FP8, {2, {70, 5}, {1, 66}}, {.sinks = true}},
    {9,
     3,
     0,
     64,
     16,
     TSR_KV_TYPE_F16,
     {3, {700, 0, 300}, {1, 40, 1}},
     {.softcap = 0.75F, .window = 100}},
    {4, 2, 0, 128, 32, TSR_KV_TYPE_BF16, {2, {600, 270}, {1, 20}}, {.slopes = true}},
    {7,
     7,
     3,
     32,
     16,
     TSR_KV_TYPE_F16,
     {3, {600, 5, 300}, {1, 20, 1}},
     {.window = 24, .sinks = true}},
    {4, 2, 0, 104, 16, TSR_KV_TYPE_F16, {2, {600, 5}, {1, 20}}, {.value_dim = 16}},
    {34, 17, 4, 16, 16, TSR_KV_TYPE_F16, {2, {400, 5}, {1, 9}}, {0}},
    {5, 3, 1, 20, 64, TSR_KV_TYPE_F32, {2, {300, 5}, {3, 9}}, {.softcap = 2, .window = 77}},
    {5, 3, 2, 40, 32, TSR_KV_TYPE_INT4, {3, {0, 250, 40}, {20, 9, 1}}, {.slopes = true}},
    {3, 1, 0, 20, 64, TSR_KV_TYPE_INT2, {3, {17, 0, 270}, {1, 33, 2}}, {.sinks = true}},
    {2, 2, 0, 7, 16, TSR_KV_TYPE_INT4, {2, {90, 60}, {1, 20}}, {.value_dim = 13, .window = 70}},
    {4, 4, 0, 24, 16, TSR_KV_TYPE_INT8, {2, {5, 40}, {1, 9}}, {.value_dim = 4, .latent = true}},
    {6, 6, 0, 80, 32, TSR_KV_TYPE_INT2, {2, {290, 0}, {1, 9}}, {.value_dim = 64, .latent = true}},
    {5, 5, 0, 30, 32, TSR_KV_TYPE_F32, {2, {5, 260}, {5, 1}}, {.value_dim = 21, .latent = true}},
    {16, 16, 0, 576, 64, TSR_KV_TYPE_F16, {2, {70, 0}, {1, 5}}, {.value_dim = 512, .latent = true}},
    {21,
     24,
     3,
     40,
     16,
     TSR_KV_TYPE_BF16,
     {3, {300, 5, 40}, {1, 20, 1}},
     {.value_dim = 32, .latent = true, .window = 290, .sinks = true}},
    {4, 2, 0, 16, 16, TSR_KV_TYPE_F16, {3, {300, 0, 9}, {1, 20, 3}}, {.stride = 4}},
    {5,
     2,
     1,
     24,
     32,
     TSR_KV_TYPE_INT4,
     {3, {300, 0, 600}, {1, 20, 3}},
     {.stride = 7, .local = 20, .slopes = true}},
    {3, 3, 0, 12, 64, TSR_KV_TYPE_F32, {2, {600, 0}, {2, 9}}, {.stride = 300, .local = 3}},
    {4,
     2,
     0,
     36,
     16,
     TSR_KV_TYPE_INT8,
     {2, {500, 0}, {2, 9}},
     {.window = 270, .stride = 9, .local = 2}},
    {6,
     6,
     0,
     20,
     16,
     TSR_KV_TYPE_F16,
     {2, {290, 0}, {1, 20}},
     {.value_dim = 20, .latent = true, .stride = 6, .local = 9}},
    {2, 1, 0, 8, 16, TSR_KV_TYPE_F16, {1, {300}, {2}}, {.stride = 1}},
};
enum {
    N_BEYOND = sizeof(beyond) / sizeof(beyond[0])
};

/* Blocks of which no row sees anything lie nowhere. */
static void lose_what_is_not_seen(cache *c, const setting *s)
{
    for (int seq = 0; seq < s->work.n_seqs; seq++) {
        const int first = s->work.first_pos[seq];
        const int low = s->asked.window > 0 ? first - s->asked.window + 1 : 0;

        for (int b = 0; b < (int)c->tables.n_cols; b++) {
            if ((b + 1) * s->block_tokens <= low ||
                b * s->block_tokens >= first + s->work.n_rows[seq]) {
                i32_row(c->tables, lane_of(&s->work, seq))[b] = -1;
            }
        }
    }
}

static void codes_and_all_that_can_be_asked_for_are_as_plain_c_has_them(void **state)
{
    (void)state;
    for (int i = 0; i < N_BEYOND; i++) {
        const setting *s = &beyond[i];
        tsr_device *dev = open_for(s, 1);
        char *written;
        tsr_tensor expected;
        tsr_tensor out;
        cache c;

        print_message("  setting %d\n", i);
        make_cache(&c, s);
        write_past(dev, &c, &s->work);
        write_step(dev, &c, &s->work);
        written = tsr_alloc(c.n_bytes, 1);
        memcpy(written, c.view.pool, c.n_bytes);
        memset(c.view.pool, POISON, c.n_bytes);
        dev->isa = TSR_ISA_PLAIN_C;
        write_past(dev, &c, &s->work);
        write_step(dev, &c, &s->work);
        assert_memory_equal(written, c.view.pool, c.n_bytes);
        tsr_free(written);
        lose_what_is_not_seen(&c, s);
        expected = attend_step(dev, &c, &s->work);
        tsr_device_close(dev);
        dev = open_for(s, 1);
        out = attend_step(dev, &c, &s->work);
        if (IS_FAST) {
            assert_near_rows(out, expected, attended_tolerance(s->type, 0));
        } else {
            assert_same_rows(out, expected);
        }
        free_window(out);
        free_window(expected);
        clear_cache(&c);
        tsr_device_close(dev);
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
        out = attend_step(dev, &c, &work);
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
    setting s = {5, 3, 2, 24, 16, TSR_KV_TYPE_F16, {0, {0}, {0}}, {0}};
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
                       TSR_KV_TYPE_BF16,
                       {4, {600, 0, 31, 258}, {1, IS_EMULATED ? 60 : 300, 2, 19}},
                       {0}};
    tsr_device *dev = open_for(&s, 3);
    cache c;
    tsr_tensor together;
    int64_t row = 0;

    (void)state;
    make_cache(&c, &s);
    write_past(dev, &c, &s.work);
    write_step(dev, &c, &s.work);
    together = attend_step(dev, &c, &s.work);
    for (int i = 0; i < s.work.n_seqs; i++) {
        // Sequences of no rows keep the lanes where they are.
        step alone = {.n_seqs = s.work.n_seqs};
        tsr_tensor window = together;
        tsr_tensor out;

        alone.first_pos[i] = s.work.first_pos[i];
        alone.n_rows[i] = s.work.n_rows[i];
        out = attend_step(dev, &c, &alone);
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
    const setting s = {3, 3, 0, 16, 16, TSR_KV_TYPE_F16, {1, {0}, {40}}, {0}};
    tsr_device *dev = open_for(&s, 1);
    cache c;
    tsr_tensor out;

    (void)state;
    if (IS_FAST) { // a value of infinity times a weight of zero is NaN on tensor cores
        tsr_device_close(dev);
        skip();
    }
    make_cache(&c, &s);
    c.v[20 * kv_cols(&c)] = 1e30F; // infinity in the cache
    write_step(dev, &c, &s.work);
    out = attend_step(dev, &c, &s.work);
    for (int r = 0; r < 40; r++) {
        assert_int_equal(isfinite(f32_row(out, r)[0]) != 0, r < 20);
    }
    free_window(out);
    clear_cache(&c);
    tsr_device_close(dev);
}

static void large_scores_do_not_overflow(void **state)
{
    const setting s = {1, 1, 0, 16, 16, TSR_KV_TYPE_F32, {1, {299}, {1}}, {0}};
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
    out = attend_step(dev, &c, &s.work);
    compare_with_oracle(out, &c, &s.work, 4e-6);
    free_window(out);
    clear_cache(&c);
    tsr_device_close(dev);
}

/* ---- kv_write -------------------------------------------------------------------------------- */

static void keys_and_values_lie_where_the_layout_says_and_nothing_else_is_touched(void **state)
{
    static const tsr_kv_type types[] = {TSR_KV_TYPE_F32, TSR_KV_TYPE_F16, TSR_KV_TYPE_BF16};

    (void)state;
    for (int i = 0; i < 3; i++) {
        const setting s = {2, 1, 0, 24, 32, types[i], {2, {30, 64}, {5, 1}}, {0}};
        const size_t elem_bytes = (size_t)tsr_kv_type_bits(s.type) / 8;
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
                            const uint16_t half = s.type == TSR_KV_TYPE_F16
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

static void turning_and_writing_at_once_is_one_after_the_other(void **state)
{
    static const tsr_kv_type types[] = {TSR_KV_TYPE_F32, TSR_KV_TYPE_F16, TSR_KV_TYPE_BF16,
                                        TSR_KV_TYPE_INT8};

    (void)state;
    for (int i = 0; i < 4; i++) {
        const setting s = {4, 2, 0, 24, 16, types[i], {3, {30, 0, 64}, {5, 3, 1}}, {0}};
        tsr_device *dev = open_for(&s, 2);
        uint64_t seed = 7;
        const tsr_tensor angles = make_random(TSR_DTYPE_F32, 9, 20, &seed);
        const tsr_rope_pairs pairs = i % 2 == 0 ? TSR_ROPE_HALVES : TSR_ROPE_INTERLEAVED;
        tsr_batch batch;
        tsr_tensor q[2];
        tsr_tensor k[2];
        tsr_tensor v;
        char *expected;
        cache c;

        make_cache(&c, &s);
        batch = make_batch(&c, &s.work);
        v = pick(c.v, &s.work, kv_cols(&c));
        for (int n = 0; n < 2; n++) {
            q[n] = pick(c.q, &s.work, 4 * 24);
            k[n] = pick(c.k, &s.work, kv_cols(&c));
        }
        assert_int_equal(tsr_rope(dev, q[0], angles, 24, 2, pairs), TSR_OK);
        assert_int_equal(tsr_rope(dev, k[0], angles, 24, 2, pairs), TSR_OK);
        assert_int_equal(tsr_kv_write(dev, &c.view, k[0], v, &batch), TSR_OK);
        expected = tsr_alloc(c.n_bytes, 1);
        memcpy(expected, c.view.pool, c.n_bytes);
        memset(c.view.pool, POISON, c.n_bytes);
        dev->isa = IS_EMULATED ? dev->isa : TSR_ISA_PLAIN_C;
        assert_int_equal(tsr_rope_write(dev, &c.view, q[1], k[1], v, angles, 2, pairs, &batch),
                         TSR_OK);
        assert_same_rows(q[1], q[0]);
        assert_memory_equal(c.view.pool, expected, c.n_bytes);
        k[1].n_cols = angles.n_cols + 1; // neither fits the angles' heads
        assert_int_equal(tsr_rope_write(dev, &c.view, q[1], k[1], v, angles, 2, pairs, &batch),
                         TSR_ERR_ARG);
        k[1].n_cols = kv_cols(&c);
        for (int n = 0; n < 2; n++) {
            free_window(q[n]);
            free_window(k[n]);
        }
        free_window(v);
        free_window(angles);
        clear_batch(&batch);
        tsr_free(expected);
        clear_cache(&c);
        tsr_device_close(dev);
    }
}

static void too_little_scratch_is_refused_before_anything_is_written(void **state)
{
    const setting s = {3, 3, 0, 16, 16, TSR_KV_TYPE_F16, {1, {300}, {1}}, {0}};
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    const tsr_attention_shape shape = {.n_heads = 3, .group = 3, .scale = 1};
    const tsr_tensor out = make_window(TSR_DTYPE_F32, 1, 48);
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
        cmocka_unit_test(codes_and_all_that_can_be_asked_for_are_as_plain_c_has_them),
        cmocka_unit_test(
            a_row_is_the_same_alone_and_in_chunks_of_any_size_and_in_blocks_of_any_size),
        cmocka_unit_test(a_row_is_the_same_in_any_crowd),
        cmocka_unit_test(a_value_beyond_f16_harms_only_the_rows_that_see_it),
        cmocka_unit_test(large_scores_do_not_overflow),
        cmocka_unit_test(keys_and_values_lie_where_the_layout_says_and_nothing_else_is_touched),
        cmocka_unit_test(turning_and_writing_at_once_is_one_after_the_other),
        cmocka_unit_test(too_little_scratch_is_refused_before_anything_is_written),
    };

    return isa_is_missing() ? MISSING_SET : cmocka_run_group_tests(tests, NULL, NULL);
}
