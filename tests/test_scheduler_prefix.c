#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/scheduler_rig.h"

/* 30 blocks of 4 tokens. */
static const tsr_scheduler_options cached = {
    .max_batch_tokens = 16,
    .max_seqs = 4,
    .block_tokens = 4,
    .n_blocks = 30,
    .context = 80,
    .n_vocab = VOCAB,
    .prefix_cache = true,
};

static void init(rig *g, const tsr_scheduler_options *options)
{
    rig_init(g, options);
    g->ranks.shares = true;
}

static tsr_request *submit(rig *g, int64_t id, const int32_t *prompt, int64_t n, int max_tokens)
{
    tsr_request *r = NULL;

    assert_int_equal(tsr_request_create(&r, prompt, n, max_tokens), TSR_OK);
    r->id = id;
    r->ignore_end = true;
    r->submitted_ns = g->now_ns;
    assert_int_equal(tsr_scheduler_submit(g->scheduler, r), TSR_OK);
    return r;
}

/* Until it has ended; how many rows were computed. */
static long run(rig *g, const tsr_request *r)
{
    const long before = g->ranks.n_rows;

    for (int n = 0; r->state != TSR_REQUEST_ENDED; n++) {
        assert_true(n < 1000 && rig_step(g));
    }
    return g->ranks.n_rows - before;
}

static void fill(int32_t *tokens, int n, uint64_t seed)
{
    for (int i = 0; i < n; i++) {
        tokens[i] = dice_below(&seed, VOCAB);
    }
}

static void what_begins_alike_is_computed_once(void **state)
{
    rig g = {0};
    int32_t tokens[30];
    tsr_request *a, *b, *c;

    (void)state;
    init(&g, &cached);
    fill(tokens, 30, 1);
    a = submit(&g, 1, tokens, 22, 1);
    assert_int_equal(run(&g, a), 22);
    assert_int_equal(a->n_reused, 0);
    assert_int_equal(tsr_scheduler_n_free_blocks(g.scheduler), 30); // all could be forgotten
    tokens[20] = (tokens[20] + 1) % VOCAB;                          // five blocks are the same
    b = submit(&g, 2, tokens, 30, 1);
    assert_int_equal(run(&g, b), 10);
    assert_int_equal(b->n_reused, 20);
    tokens[10] = (tokens[10] + 1) % VOCAB; // two, and half of the third
    c = submit(&g, 3, tokens, 30, 1);
    assert_int_equal(run(&g, c), 20);
    assert_int_equal(c->n_reused, 10);
    assert_int_equal(g.ranks.n_copied, 1); // that half
    rig_finish(&g);
    rig_clear(&g);
}

static void the_last_token_of_a_prompt_is_always_computed(void **state)
{
    int32_t tokens[20];

    (void)state;
    fill(tokens, 20, 1);
    for (int n = 1; n <= 20; n++) {
        rig g = {0};

        init(&g, &cached);
        (void)run(&g, submit(&g, 1, tokens, n, 1));
        assert_int_equal(run(&g, submit(&g, 2, tokens, n, 3)), 1 + 2);
        rig_finish(&g);
        rig_clear(&g);
    }
}

static void a_conversation_goes_on_where_it_was(void **state)
{
    rig g = {0};
    int32_t tokens[MAX_PROMPT];
    int64_t n = 9;

    (void)state;
    init(&g, &cached);
    fill(tokens, MAX_PROMPT, 5);
    for (int turn = 0; turn < 5; turn++) {
        tsr_request *r = submit(&g, turn, tokens, n, 6);

        // All but the last token that was generated is there, and that and the new words come.
        assert_int_equal(run(&g, r), (turn == 0 ? 9 : 1 + 4) + 5);
        assert_int_equal(r->n_reused, turn == 0 ? 0 : n - 5);
        for (; n < r->n_tokens; n++) {
            tokens[n] = r->tokens[n];
        }
        n += 4; // what is said next
    }
    rig_finish(&g);
    rig_clear(&g);
}

static void full_blocks_are_shared_while_their_sequence_still_runs(void **state)
{
    rig g = {0};
    int32_t tokens[20];
    tsr_request *a, *b;

    (void)state;
    init(&g, &cached);
    fill(tokens, 20, 3);
    a = submit(&g, 1, tokens, 14, 30);
    assert_true(rig_step(&g));
    b = submit(&g, 2, tokens, 18, 30);
    assert_true(rig_step(&g));
    assert_int_equal(b->n_reused, 12);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(a->blocks.ids[i], b->blocks.ids[i]);
    }
    assert_int_equal(g.step.n_copied, 0);
    rig_finish(&g);
    rig_clear(&g);
}

static void what_several_computed_at_once_is_kept_once(void **state)
{
    rig g = {0};
    int32_t tokens[8];
    tsr_request *all[2];

    (void)state;
    init(&g, &cached);
    fill(tokens, 8, 3);
    for (int i = 0; i < 2; i++) {
        all[i] = submit(&g, i, tokens, 8, 30);
    }
    assert_true(rig_step(&g));
    assert_int_equal(g.step.n_rows, 16);
    assert_int_equal(tsr_scheduler_n_free_blocks(g.scheduler), 30 - 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(all[0]->blocks.ids[i], all[1]->blocks.ids[i]);
    }
    assert_true(rig_step(&g));
    assert_int_equal(g.step.n_dropped, 2);
    assert_int_equal(g.step.n_appended, 2 + 2); // the second hears of it, and both grow
    rig_finish(&g);
    rig_clear(&g);
}

static void nobody_is_put_back_while_there_is_something_to_forget(void **state)
{
    rig g = {0};
    int32_t tokens[60];
    tsr_request *old, *young, *big;

    (void)state;
    init(&g, &cached);
    fill(tokens, 60, 1);
    old = submit(&g, 1, tokens, 28, 1);
    (void)run(&g, old);
    young = submit(&g, 2, tokens + 30, 28, 1);
    (void)run(&g, young); // 14 blocks, 16 are free
    fill(tokens, 60, 9);
    big = submit(&g, 3, tokens, 60, 14); // 19 in the end
    (void)run(&g, big);
    assert_int_equal(big->n_preempted, 0);
    fill(tokens, 60, 1);
    // Three blocks were wanted, and then one more: the last ones of what was used longest ago.
    assert_int_equal(run(&g, submit(&g, 4, tokens + 30, 30, 1)), 2);
    assert_int_equal(run(&g, submit(&g, 5, tokens, 30, 1)), 30 - (7 - 4) * 4);
    rig_finish(&g);
    rig_clear(&g);
}

static void whoever_is_put_back_finds_what_nobody_else_needed(void **state)
{
    tsr_scheduler_options options = cached;
    rig g = {0};
    tsr_request *a, *b;
    long n_rows;

    (void)state;
    options.n_blocks = 12;
    init(&g, &options);
    a = rig_submit(&g, 1, 8, 21); // seven blocks
    b = rig_submit(&g, 2, 8, 21);
    n_rows = run(&g, a) + run(&g, b);
    assert_int_equal(b->n_preempted, 1);
    // One block of b was taken at a time; it computes those again and no more.
    assert_true(n_rows > 2 * (8 + 20));
    assert_true(n_rows <= 2 * (8 + 20) + 8);
    rig_finish(&g);
    rig_clear(&g);
}

static void what_is_to_be_scored_is_computed(void **state)
{
    rig g = {0};
    int32_t tokens[20];
    tsr_request *r;

    (void)state;
    init(&g, &cached);
    fill(tokens, 20, 1);
    (void)run(&g, submit(&g, 1, tokens, 20, 1));
    r = submit(&g, 2, tokens, 20, 1);
    r->score = true;
    assert_int_equal(run(&g, r), 20);
    assert_int_equal(r->n_reused, 0);
    assert_int_equal(r->n_scored, 20);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_sequence_as_long_as_the_pool_ends_though_it_shares_its_tail(void **state)
{
    tsr_scheduler_options options = cached;
    rig g = {0};
    int32_t tokens[40];

    (void)state;
    options.n_blocks = 10;
    init(&g, &options);
    fill(tokens, 40, 1);
    (void)run(&g, submit(&g, 1, tokens, 39, 1));
    // No block is left to copy the tail into: it is computed again.
    assert_int_equal(run(&g, submit(&g, 2, tokens, 39, 2)), 3 + 1);
    assert_int_equal(g.ranks.n_copied, 0);
    rig_finish(&g);
    rig_clear(&g);
}

static void children_and_those_who_became_others_are_known_as_well(void **state)
{
    rig g = {0};
    tsr_request *all[2];

    (void)state;
    init(&g, &cached);
    all[0] = rig_submit(&g, 1, 10, 12);
    assert_true(rig_step(&g));
    all[1] = rig_request(1, 10, 12); // the same prompt
    all[1]->id = 2;
    assert_int_equal(tsr_request_append(all[1], (all[0]->tokens[10] + 1) % VOCAB), TSR_OK);
    assert_int_equal(tsr_scheduler_fork(g.scheduler, all[0], all[1], 10), TSR_OK);
    assert_true(tsr_scheduler_verify(g.scheduler));
    for (int i = 0; i < 6; i++) {
        assert_true(rig_step(&g));
        assert_int_equal(tsr_scheduler_refork(g.scheduler, all[i % 2], all[1 - i % 2]), TSR_OK);
        assert_true(tsr_scheduler_verify(g.scheduler));
    }
    while (!tsr_scheduler_is_idle(g.scheduler)) {
        (void)rig_step(&g);
    }
    for (int i = 0; i < 2; i++) {
        tsr_request *r = tsr_scheduler_take_ended(g.scheduler);
        tsr_request *again = submit(&g, 10 + i, r->tokens, r->n_tokens, 1);

        assert_int_equal(run(&g, again), 1);
        assert_int_equal(again->n_reused, r->n_tokens - 1);
        tsr_request_destroy(r);
        tsr_request_destroy(tsr_scheduler_take_ended(g.scheduler));
    }
    rig_clear(&g);
}

static void a_hit_in_slower_memory_wakes_first(void **state)
{
    tsr_scheduler_options options = cached;
    rig g = {0};
    int32_t tokens[20];
    tsr_request *r;

    (void)state;
    options.n_device_blocks = 12;
    options.n_host_blocks = 10;
    init(&g, &options);
    fill(tokens, 20, 1);
    (void)run(&g, submit(&g, 1, tokens, 20, 1));
    r = submit(&g, 2, tokens, 20, 1);
    assert_true(rig_step(&g));
    assert_true(r->wakes);
    assert_int_equal(g.step.n_rows, 0);
    assert_int_equal(run(&g, r), 1);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_lost_block_is_not_found_any_more_nor_what_is_behind_it(void **state)
{
    tsr_scheduler_options options = cached;
    rig g = {0};
    int32_t tokens[20];
    int32_t third;
    tsr_request *r;

    (void)state;
    options.n_device_blocks = 12;
    options.n_host_blocks = 10;
    init(&g, &options);
    fill(tokens, 20, 1);
    r = submit(&g, 1, tokens, 20, 1);
    while (r->n_cached < 16) {
        assert_true(rig_step(&g));
    }
    third = r->blocks.ids[2];
    (void)run(&g, r);
    fake_ranks_lose(&g.ranks, third);
    (void)run(&g, submit(&g, 2, tokens + 10, 3, 1)); // a step, to hear of it
    r = submit(&g, 3, tokens, 20, 1);
    (void)run(&g, r);
    assert_int_equal(r->n_reused, 8);
    assert_int_equal(g.ranks.report.n_lost, 0);
    rig_finish(&g);
    rig_clear(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_begins_alike_is_computed_once),
        cmocka_unit_test(the_last_token_of_a_prompt_is_always_computed),
        cmocka_unit_test(a_conversation_goes_on_where_it_was),
        cmocka_unit_test(full_blocks_are_shared_while_their_sequence_still_runs),
        cmocka_unit_test(what_several_computed_at_once_is_kept_once),
        cmocka_unit_test(nobody_is_put_back_while_there_is_something_to_forget),
        cmocka_unit_test(whoever_is_put_back_finds_what_nobody_else_needed),
        cmocka_unit_test(what_is_to_be_scored_is_computed),
        cmocka_unit_test(a_sequence_as_long_as_the_pool_ends_though_it_shares_its_tail),
        cmocka_unit_test(children_and_those_who_became_others_are_known_as_well),
        cmocka_unit_test(a_hit_in_slower_memory_wakes_first),
        cmocka_unit_test(a_lost_block_is_not_found_any_more_nor_what_is_behind_it),
    };

    return cmocka_run_group_tests_name("scheduler_prefix", tests, NULL, NULL);
}
