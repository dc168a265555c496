#include "parallel/shard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

typedef struct model {
    const char *name;
    tsr_shard_shape shape;
} model;

/* heads, KV heads, columns a head, dim, feed-forward, vocabulary: from the models' published
 * configurations. */
static const model models[] = {
    {"SmolLM2-135M",
     {.n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .dim = 576, .ff_dim = 1536, .n_vocab = 49152}},
    {"Llama-3-8B",
     {.n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 128,
      .dim = 4096,
      .ff_dim = 14336,
      .n_vocab = 128256}},
    {"Llama-3-70B",
     {.n_heads = 64,
      .n_kv_heads = 8,
      .head_dim = 128,
      .dim = 8192,
      .ff_dim = 28672,
      .n_vocab = 128256}},
    {"Qwen2.5-7B",
     {.n_heads = 28,
      .n_kv_heads = 4,
      .head_dim = 128,
      .dim = 3584,
      .ff_dim = 18944,
      .n_vocab = 152064}},
    {"Falcon-7B",
     {.n_heads = 71,
      .n_kv_heads = 1,
      .head_dim = 64,
      .dim = 4544,
      .ff_dim = 18176,
      .n_vocab = 65024}},
    {"Phi-3-medium",
     {.n_heads = 40,
      .n_kv_heads = 10,
      .head_dim = 128,
      .dim = 5120,
      .ff_dim = 17920,
      .n_vocab = 32064}},
    {"Phi-2",
     {.n_heads = 32,
      .n_kv_heads = 32,
      .head_dim = 80,
      .dim = 2560,
      .ff_dim = 10240,
      .n_vocab = 51200}},
    {"head of 96",
     {.n_heads = 32,
      .n_kv_heads = 32,
      .head_dim = 96,
      .dim = 3072,
      .ff_dim = 8192,
      .n_vocab = 32064}},
    {"tiny",
     {.n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .dim = 64, .ff_dim = 176, .n_vocab = 300}},
    {"tiny and odd",
     {.n_heads = 3, .n_kv_heads = 3, .head_dim = 10, .dim = 30, .ff_dim = 50, .n_vocab = 7}},
    {"KV groups of odd columns",
     {.n_heads = 9, .n_kv_heads = 3, .head_dim = 80, .dim = 720, .ff_dim = 1000, .n_vocab = 1000}},
};

enum {
    N_MODELS = sizeof(models) / sizeof(models[0])
};

static int64_t end_of(tsr_range range)
{
    return range.first + range.count;
}

/* Each part begins where the one before ended; the last ends at n. */
static void assert_continues(tsr_range part, int64_t *at)
{
    assert_true(part.count >= 0);
    assert_int_equal(part.first, *at);
    *at = end_of(part);
}

static void parts_tile_the_whole_exactly_once_for_1_to_64_ranks(void **state)
{
    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        const tsr_shard_shape *shape = &models[m].shape;

        assert_int_equal(tsr_shard_check(shape), TSR_OK);
        for (int n = 1; n <= TSR_SHARD_MAX_RANKS; n++) {
            int64_t heads = 0;
            int64_t ff = 0;
            int64_t vocab = 0;

            for (int rank = 0; rank < n; rank++) {
                const tsr_shard shard = tsr_shard_of(shape, rank, n);

                assert_continues(shard.heads, &heads);
                assert_continues(shard.ff, &ff);
                assert_continues(shard.vocab, &vocab);
            }
            assert_int_equal(heads, shape->n_heads);
            assert_int_equal(ff, shape->ff_dim);
            assert_int_equal(vocab, shape->n_vocab);
        }
    }
}

static void a_rank_keeps_exactly_the_kv_heads_that_its_query_heads_read(void **state)
{
    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        const tsr_shard_shape *shape = &models[m].shape;
        const int64_t group = shape->n_heads / shape->n_kv_heads;

        for (int n = 1; n <= TSR_SHARD_MAX_RANKS; n++) {
            for (int rank = 0; rank < n; rank++) {
                const tsr_shard shard = tsr_shard_of(shape, rank, n);
                bool reads[128] = {false};

                for (int64_t head = shard.heads.first; head < end_of(shard.heads); head++) {
                    reads[head / group] = true;
                }
                for (int64_t kv = 0; kv < shape->n_kv_heads; kv++) {
                    const bool kept = kv >= shard.kv_heads.first && kv < end_of(shard.kv_heads);

                    assert_int_equal(kept, reads[kv]);
                }
            }
        }
    }
}

static void a_kv_head_is_kept_twice_only_where_that_frees_the_busiest_rank(void **state)
{
    int n_cut = 0;

    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        const tsr_shard_shape *shape = &models[m].shape;
        const int64_t group = shape->n_heads / shape->n_kv_heads;

        // Heads whose columns are no whole quantisation groups go in bundles, of which there are
        // fewer.
        if (shape->head_dim % TSR_SHARD_GROUP != 0) {
            continue;
        }
        for (int n = 1; n <= shape->n_kv_heads && n <= TSR_SHARD_MAX_RANKS; n++) {
            const int64_t most_groups =
                (shape->n_kv_heads + n - 1) / n; // of a rank, by whole groups
            int64_t most_query = 0;
            int64_t most_kv = 0;
            int64_t kept = 0;

            for (int rank = 0; rank < n; rank++) {
                const tsr_shard shard = tsr_shard_of(shape, rank, n);

                most_query = shard.heads.count > most_query ? shard.heads.count : most_query;
                most_kv = shard.kv_heads.count > most_kv ? shard.kv_heads.count : most_kv;
                kept += shard.kv_heads.count;
            }
            assert_true(most_kv <= most_groups);
            if (kept > shape->n_kv_heads) {
                assert_true(most_query < most_groups * group);
                n_cut++;
            } else {
                assert_int_equal(kept, shape->n_kv_heads);
            }
        }
    }
    assert_true(n_cut > 0);
}

/* Every cut is at a whole grain or at the end. */
static void assert_whole_grains(tsr_range columns, int64_t grain, int64_t n_columns)
{
    assert_true(columns.first % grain == 0 || columns.first == n_columns);
    assert_true(end_of(columns) % grain == 0 || end_of(columns) == n_columns);
}

static void every_cut_is_at_a_whole_grain_that_does_not_depend_on_the_ranks(void **state)
{
    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        const tsr_shard_shape *shape = &models[m].shape;
        const int64_t n_columns = (int64_t)shape->n_heads * shape->head_dim;
        const int64_t attention = tsr_shard_attention_grain(shape);
        const int64_t ff = tsr_shard_ff_grain(shape);
        const int64_t vocab = tsr_shard_vocab_unit(shape->n_vocab);

        assert_true(attention % TSR_SHARD_GROUP == 0 || attention == n_columns);
        assert_true(ff % TSR_SHARD_GROUP == 0 || ff == shape->ff_dim);
        for (int n = 1; n <= TSR_SHARD_MAX_RANKS; n++) {
            for (int rank = 0; rank < n; rank++) {
                const tsr_shard shard = tsr_shard_of(shape, rank, n);
                tsr_range rows;
                tsr_range cols;

                tsr_shard_window(shape, &shard, TSR_SHARD_HEAD_COLS, shape->dim, n_columns, &rows,
                                 &cols);
                assert_whole_grains(cols, attention, n_columns);
                assert_whole_grains(shard.ff, ff, shape->ff_dim);
                assert_whole_grains(shard.vocab, vocab, shape->n_vocab);
            }
        }
    }
}

static int64_t units(tsr_range part, int64_t unit)
{
    return (part.count + unit - 1) / unit;
}

static void no_rank_has_more_than_one_unit_above_another(void **state)
{
    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        const tsr_shard_shape *shape = &models[m].shape;
        const int64_t group = shape->n_heads / shape->n_kv_heads;
        const int64_t vocab_unit = tsr_shard_vocab_unit(shape->n_vocab);

        for (int n = 1; n <= TSR_SHARD_MAX_RANKS; n++) {
            // Rank 0 has the most and the last rank the least of everything.
            const tsr_shard most = tsr_shard_of(shape, 0, n);
            const tsr_shard least = tsr_shard_of(shape, n - 1, n);

            assert_in_range(units(most.ff, tsr_shard_ff_grain(shape)) -
                                units(least.ff, tsr_shard_ff_grain(shape)),
                            0, 1);
            assert_in_range(units(most.vocab, vocab_unit) - units(least.vocab, vocab_unit), 0, 1);
            if (shape->head_dim % TSR_SHARD_GROUP == 0) {
                const int64_t unit = n <= shape->n_kv_heads ? group : 1;

                assert_in_range(units(most.heads, unit) - units(least.heads, unit), 0, 1);
            }
        }
    }
}

static void nine_heads_over_three_kv_heads_split_as_worked_out_by_hand(void **state)
{
    static const struct {
        int n;
        int rank;
        tsr_shard shard;
    } expected[] = {
        // heads, KV heads, feed-forward (24 grains of 64), vocabulary (96 units of 512)
        {1, 0, {.heads = {0, 9}, .kv_heads = {0, 3}, .ff = {0, 1536}, .vocab = {0, 49152}}},
        {2, 0, {.heads = {0, 5}, .kv_heads = {0, 2}, .ff = {0, 768}, .vocab = {0, 24576}}},
        {2, 1, {.heads = {5, 4}, .kv_heads = {1, 2}, .ff = {768, 768}, .vocab = {24576, 24576}}},
        {3, 1, {.heads = {3, 3}, .kv_heads = {1, 1}, .ff = {512, 512}, .vocab = {16384, 16384}}},
        {4, 0, {.heads = {0, 3}, .kv_heads = {0, 1}, .ff = {0, 384}, .vocab = {0, 12288}}},
        {4, 1, {.heads = {3, 2}, .kv_heads = {1, 1}, .ff = {384, 384}, .vocab = {12288, 12288}}},
        {4, 2, {.heads = {5, 2}, .kv_heads = {1, 2}, .ff = {768, 384}, .vocab = {24576, 12288}}},
        {4, 3, {.heads = {7, 2}, .kv_heads = {2, 1}, .ff = {1152, 384}, .vocab = {36864, 12288}}},
        {5, 4, {.heads = {8, 1}, .kv_heads = {2, 1}, .ff = {1280, 256}, .vocab = {39424, 9728}}},
        {10, 9, {.heads = {9, 0}, .kv_heads = {3, 0}, .ff = {1408, 128}, .vocab = {44544, 4608}}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        const tsr_shard got = tsr_shard_of(&models[0].shape, expected[i].rank, expected[i].n);

        assert_memory_equal(&got, &expected[i].shard, sizeof(got));
    }
}

static void heads_of_eighty_columns_go_in_pairs(void **state)
{
    const tsr_shard_shape phi2 = {.n_heads = 32,
                                  .n_kv_heads = 32,
                                  .head_dim = 80,
                                  .dim = 2560,
                                  .ff_dim = 10240,
                                  .n_vocab = 51200};

    (void)state;
    assert_int_equal(tsr_shard_attention_grain(&phi2), 160);
    // 16 pairs on 3 ranks: 6, 5, 5.
    assert_int_equal(tsr_shard_of(&phi2, 0, 3).heads.count, 12);
    assert_int_equal(tsr_shard_of(&phi2, 1, 3).heads.count, 10);
    assert_int_equal(tsr_shard_of(&phi2, 2, 3).heads.count, 10);
}

static void ranks_without_a_kv_group_of_their_own_still_get_heads(void **state)
{
    // Groups of 3 heads of 80 columns go in twos: 2 units, too few for 3 ranks, so pairs of heads:
    // 2 + 2 + 1 pairs.
    const tsr_shard_shape shape = models[N_MODELS - 1].shape;

    (void)state;
    assert_int_equal(tsr_shard_of(&shape, 0, 2).heads.count, 6);
    assert_int_equal(tsr_shard_of(&shape, 1, 2).heads.count, 3);
    assert_int_equal(tsr_shard_of(&shape, 0, 3).heads.count, 4);
    assert_int_equal(tsr_shard_of(&shape, 1, 3).heads.count, 4);
    assert_int_equal(tsr_shard_of(&shape, 2, 3).heads.count, 1);
}

static void a_vocabulary_has_about_a_hundred_units(void **state)
{
    (void)state;
    assert_int_equal(tsr_shard_vocab_unit(49152), 512);
    assert_int_equal(tsr_shard_vocab_unit(128256), 1024);
    assert_int_equal(tsr_shard_vocab_unit(32000), 256);
    assert_int_equal(tsr_shard_vocab_unit(7), 16);
    for (int64_t n = 1536; n < 300000; n += 7) {
        const int64_t unit = tsr_shard_vocab_unit(n);

        assert_int_equal(unit & (unit - 1), 0);
        assert_in_range((n + unit - 1) / unit, 96, 192);
    }
}

static void windows_of_a_weight_follow_its_rule(void **state)
{
    static const struct {
        tsr_shard_role role;
        int64_t n_rows, n_cols;
        tsr_range rows, cols;
    } expected[] = {
        // rank 2 of 4 of the 9-head model: heads 5..6, KV heads 1..2, ff 768..1151, vocabulary
        // 24576..36863
        {TSR_ROLE_EMBED, 49152, 576, {24576, 12288}, {0, 576}},
        {TSR_ROLE_HEAD, 49152, 576, {24576, 12288}, {0, 576}},
        {TSR_ROLE_FINAL_NORM, 576, 1, {0, 576}, {0, 1}},
        {TSR_ROLE_ATTN_NORM, 576, 1, {0, 576}, {0, 1}},
        {TSR_ROLE_FF_NORM, 576, 1, {0, 576}, {0, 1}},
        {TSR_ROLE_Q, 576, 576, {320, 128}, {0, 576}},
        {TSR_ROLE_K, 192, 576, {64, 128}, {0, 576}},
        {TSR_ROLE_V, 192, 576, {64, 128}, {0, 576}},
        {TSR_ROLE_O, 576, 576, {0, 576}, {320, 128}},
        {TSR_ROLE_GATE, 1536, 576, {768, 384}, {0, 576}},
        {TSR_ROLE_UP, 1536, 576, {768, 384}, {0, 576}},
        {TSR_ROLE_DOWN, 576, 1536, {0, 576}, {768, 384}},
    };
    const tsr_shard shard = tsr_shard_of(&models[0].shape, 2, 4);

    (void)state;
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        tsr_range rows;
        tsr_range cols;

        tsr_shard_window(&models[0].shape, &shard, tsr_shard_rule_of(expected[i].role),
                         expected[i].n_rows, expected[i].n_cols, &rows, &cols);
        assert_memory_equal(&rows, &expected[i].rows, sizeof(rows));
        assert_memory_equal(&cols, &expected[i].cols, sizeof(cols));
    }
}

static void a_bias_is_cut_with_its_rows_and_whole_behind_an_all_reduce(void **state)
{
    (void)state;
    assert_int_equal(tsr_shard_bias_rule_of(TSR_ROLE_Q), TSR_SHARD_HEAD_ROWS);
    assert_int_equal(tsr_shard_bias_rule_of(TSR_ROLE_K), TSR_SHARD_KV_ROWS);
    assert_int_equal(tsr_shard_bias_rule_of(TSR_ROLE_UP), TSR_SHARD_FF_ROWS);
    assert_int_equal(tsr_shard_bias_rule_of(TSR_ROLE_HEAD), TSR_SHARD_VOCAB_ROWS);
    assert_int_equal(tsr_shard_bias_rule_of(TSR_ROLE_O), TSR_SHARD_WHOLE);
    assert_int_equal(tsr_shard_bias_rule_of(TSR_ROLE_DOWN), TSR_SHARD_WHOLE);
}

static void shapes_that_cannot_be_split_are_refused(void **state)
{
    const tsr_shard_shape no_heads = {.n_heads = 0,
                                      .n_kv_heads = 1,
                                      .head_dim = 64,
                                      .dim = 576,
                                      .ff_dim = 1536,
                                      .n_vocab = 49152};
    const tsr_shard_shape no_vocab = {
        .n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .dim = 576, .ff_dim = 1536, .n_vocab = 0};
    const tsr_shard_shape no_groups = {.n_heads = 9,
                                       .n_kv_heads = 4,
                                       .head_dim = 64,
                                       .dim = 576,
                                       .ff_dim = 1536,
                                       .n_vocab = 49152};

    (void)state;
    assert_int_equal(tsr_shard_check(&no_heads), TSR_ERR_ARG);
    assert_int_equal(tsr_shard_check(&no_vocab), TSR_ERR_ARG);
    assert_int_equal(tsr_shard_check(&no_groups), TSR_ERR_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_tile_the_whole_exactly_once_for_1_to_64_ranks),
        cmocka_unit_test(a_rank_keeps_exactly_the_kv_heads_that_its_query_heads_read),
        cmocka_unit_test(a_kv_head_is_kept_twice_only_where_that_frees_the_busiest_rank),
        cmocka_unit_test(every_cut_is_at_a_whole_grain_that_does_not_depend_on_the_ranks),
        cmocka_unit_test(no_rank_has_more_than_one_unit_above_another),
        cmocka_unit_test(nine_heads_over_three_kv_heads_split_as_worked_out_by_hand),
        cmocka_unit_test(heads_of_eighty_columns_go_in_pairs),
        cmocka_unit_test(ranks_without_a_kv_group_of_their_own_still_get_heads),
        cmocka_unit_test(a_vocabulary_has_about_a_hundred_units),
        cmocka_unit_test(windows_of_a_weight_follow_its_rule),
        cmocka_unit_test(a_bias_is_cut_with_its_rows_and_whole_behind_an_all_reduce),
        cmocka_unit_test(shapes_that_cannot_be_split_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
