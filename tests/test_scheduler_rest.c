#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/dice.h"
#include "tests/support/scheduler_rig.h"

/* 10 blocks of 4 tokens on the device, 6 of the host, 24 on disk. A sequence claims 5 at most. */
static const tsr_scheduler_options tiered = {
    .max_batch_tokens = 16,
    .max_seqs = 4,
    .block_tokens = 4,
    .n_blocks = 40,
    .n_device_blocks = 10,
    .n_host_blocks = 6,
    .block_bytes = 1000,
    .preempt = TSR_PREEMPT_SWAP,
    .context = 80,
    .n_vocab = VOCAB,
};

static int n_held(const rig *g)
{
    return g->options.n_blocks - tsr_scheduler_n_free_blocks(g->scheduler);
}

static void run_until(rig *g, const tsr_request *r, tsr_request_state state)
{
    for (int n = 0; r->state != state; n++) {
        assert_true(n < 1000);
        assert_true(rig_step(g));
    }
}

/* Three sequences, of which the last, [2], has just been put back: the others have grown to four
 * blocks each. */
static void crowd_out(rig *g, const tsr_scheduler_options *options, tsr_request *all[3])
{
    rig_init(g, options);
    all[0] = rig_submit(g, 1, 8, 20);
    all[1] = rig_submit(g, 2, 8, 20);
    all[2] = rig_submit(g, 3, 6, 20);
    for (int n = 0; all[2]->n_preempted == 0; n++) {
        assert_true(n < 100 && rig_step(g));
    }
}

static void whoever_is_put_back_keeps_every_token_it_had(void **state)
{
    rig g = {0};
    tsr_request *all[3];

    (void)state;
    crowd_out(&g, &tiered, all);
    assert_int_equal(all[2]->state, TSR_REQUEST_RESTING);
    assert_int_equal(all[2]->n_cached, 9); // with a partial tail
    assert_int_equal(all[2]->blocks.n_blocks, 3);
    assert_int_equal(g.step.n_left, 1);
    assert_int_equal(g.step.n_dropped, 0);
    while (all[0]->state != TSR_REQUEST_ENDED) {
        assert_int_equal(all[2]->n_cached, 9);
        assert_true(rig_step(&g));
    }
    run_until(&g, all[2], TSR_REQUEST_RUNNING);
    run_until(&g, all[2], TSR_REQUEST_ENDED);
    // Every token was computed once: those of the prompts, and those generated but for the last.
    assert_int_equal(g.ranks.n_rows, 8 + 8 + 6 + 3 * 19);
    assert_int_equal(all[2]->n_preempted, 1);
    rig_finish(&g);
    rig_clear(&g);
}

static void it_wakes_with_a_ticket_and_runs_when_that_is_done(void **state)
{
    rig g = {0};
    tsr_request *all[3];

    (void)state;
    crowd_out(&g, &tiered, all);
    g.ranks.dice = 3;
    g.ranks.max_delay = 500; // far longer than it takes here
    run_until(&g, all[2], TSR_REQUEST_RUNNING);
    assert_true(all[2]->wakes);
    assert_int_equal(g.step.n_seqs, 0);
    assert_int_equal(g.step.n_appended, all[2]->blocks.n_blocks); // told, without rows
    // Nobody else runs: the step itself waits.
    assert_int_equal(g.step.waits, 1);
    assert_true(rig_step(&g));
    assert_int_equal(g.step.n_seqs, 1);
    assert_false(all[2]->wakes);
    rig_finish(&g);
    rig_clear(&g);
}

static void others_run_while_one_wakes(void **state)
{
    rig g = {0};
    tsr_request *all[3];
    int n_beside = 0;

    (void)state;
    crowd_out(&g, &tiered, all);
    tsr_scheduler_cancel(g.scheduler, all[1]); // there is room again, and the first runs on
    g.ranks.max_delay = 12;
    g.ranks.dice = 9;
    run_until(&g, all[2], TSR_REQUEST_RUNNING);
    while (all[2]->wakes) {
        assert_true(rig_step(&g));
        n_beside += all[2]->wakes && g.step.n_seqs == 1 && g.step.waits == 0 ? 1 : 0;
    }
    assert_true(n_beside > 2);
    rig_finish(&g);
    rig_clear(&g);
}

static void sequences_longer_than_the_device_run_beside_others(void **state)
{
    tsr_scheduler_options options = tiered;
    rig g = {0};
    tsr_request *long_one, *other, *small;
    int n_together = 0;

    (void)state;
    options.n_host_blocks = 14;
    rig_init(&g, &options);
    long_one = rig_submit(&g, 1, 28, 20); // 12 blocks in the end, the device has 10
    other = rig_submit(&g, 2, 4, 40);     // 11 in the end: both claim half
    small = rig_submit(&g, 3, 4, 2);
    while (long_one->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
        n_together += long_one->blocks.n_blocks > 10 && other->n_cached > 0 &&
                              other->state == TSR_REQUEST_RUNNING
                          ? 1
                          : 0;
    }
    assert_true(n_together > 5);
    assert_int_equal(long_one->n_preempted, 0);
    run_until(&g, small, TSR_REQUEST_ENDED);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_sequence_that_no_memory_can_be_read_for_ends_in_words(void **state)
{
    rig g = {0};
    tsr_request *r = rig_request(2, 62, 4);
    tsr_request *grows;

    (void)state;
    rig_init(&g, &tiered);
    assert_int_equal(tsr_request_append(r, 1), TSR_OK);
    assert_int_equal(tsr_request_append(r, 1), TSR_OK);
    assert_int_equal(tsr_request_append(r, 1), TSR_OK);
    r->n_prompt = r->n_tokens; // 65 tokens, 16 blocks can be read
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_UNSUPPORTED);
    assert_non_null(strstr(tsr_status_message(), "at most 64 tokens fit"));
    tsr_request_destroy(r);
    grows = rig_submit(&g, 1, 60, 10);
    run_until(&g, grows, TSR_REQUEST_ENDED);
    assert_int_equal(grows->reason, TSR_REASON_FAILED);
    assert_non_null(strstr(grows->error, "16 cache blocks"));
    assert_int_equal(grows->n_tokens, 65);
    rig_finish(&g);
    rig_clear(&g);
}

static void when_all_tiers_are_full_whoever_rests_is_computed_again(void **state)
{
    tsr_scheduler_options options = tiered;
    rig g = {0};
    tsr_request *all[3];

    (void)state;
    options.n_blocks = 13; // three in the host, none on disk: the first two come to 14
    options.n_host_blocks = 3;
    crowd_out(&g, &options, all);
    assert_int_equal(all[2]->state, TSR_REQUEST_RESTING);
    run_until(&g, all[2], TSR_REQUEST_WAITING);
    assert_int_equal(all[1]->n_preempted, 0);
    rig_finish(&g);
    assert_true(g.ranks.n_rows > 8 + 8 + 6 + 3 * 19); // some of it twice
    rig_clear(&g);
}

/* ---- which way ---- */

static tsr_request_state put_back_state(tsr_preempt preempt, int64_t moved_bytes, int64_t moved_us)
{
    tsr_scheduler_options options = tiered;
    rig g = {0};
    tsr_scheduler_load load;
    tsr_request *b;
    tsr_request_state found;

    options.preempt = preempt;
    rig_init(&g, &options);
    g.ranks.report.moved_bytes = moved_bytes;
    g.ranks.report.moved_us = moved_us;
    (void)rig_submit(&g, 1, 8, 20);
    (void)rig_submit(&g, 2, 8, 20);
    b = rig_submit(&g, 3, 6, 20);
    for (int n = 0; b->n_preempted == 0; n++) {
        assert_true(n < 100 && rig_step(&g));
        load = tsr_scheduler_load_of(g.scheduler);
        tsr_scheduler_note_time(g.scheduler, load, 100 + 100 * load.n_prompt_rows);
    }
    found = b->state;
    rig_finish(&g);
    rig_clear(&g);
    return found;
}

static void it_is_moved_or_computed_again_whichever_takes_less_time(void **state)
{
    // 3 blocks of 1000 bytes there and back, against 9 rows of some 100 us.
    (void)state;
    assert_int_equal(put_back_state(TSR_PREEMPT_AUTO, 1000000, 50000), TSR_REQUEST_RESTING);
    assert_int_equal(put_back_state(TSR_PREEMPT_AUTO, 1000000, 500000), TSR_REQUEST_WAITING);
    assert_int_equal(put_back_state(TSR_PREEMPT_AUTO, 0, 0), TSR_REQUEST_RESTING); // to learn it
    assert_int_equal(put_back_state(TSR_PREEMPT_SWAP, 1000000, 500000), TSR_REQUEST_RESTING);
    assert_int_equal(put_back_state(TSR_PREEMPT_RECOMPUTE, 1000000, 50000), TSR_REQUEST_WAITING);
}

/* ---- what goes wrong ---- */

static void one_that_wakes_can_be_cancelled(void **state)
{
    rig g = {0};
    tsr_request *all[3];

    (void)state;
    crowd_out(&g, &tiered, all);
    g.ranks.dice = 3;
    g.ranks.max_delay = 500;
    run_until(&g, all[2], TSR_REQUEST_RUNNING);
    tsr_scheduler_cancel(g.scheduler, all[2]);
    assert_int_equal(all[2]->state, TSR_REQUEST_ENDED);
    assert_int_equal(n_held(&g), 0);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_left, 1);
    assert_int_equal(g.step.n_dropped, 3);
    assert_int_equal(g.step.waits, 0);
    rig_run(&g);
    rig_finish(&g);
    assert_int_equal(g.ranks.n_open, 0);
    rig_clear(&g);
}

static void what_was_lost_is_computed_again_and_what_is_before_it_is_not(void **state)
{
    rig g = {0};
    tsr_request *all[3];
    long n_rows;

    (void)state;
    crowd_out(&g, &tiered, all);
    tsr_scheduler_cancel(g.scheduler, all[1]); // there is room again, and the first runs on
    g.ranks.dice = 3;
    g.ranks.max_delay = 500;
    run_until(&g, all[2], TSR_REQUEST_RUNNING);
    assert_int_equal(g.step.waits, 0);
    fake_ranks_lose(&g.ranks, all[2]->blocks.ids[1]);
    assert_true(rig_step(&g));
    assert_int_equal(all[2]->n_cached, 4);
    n_rows = g.ranks.n_rows + (8 + 19 - all[0]->n_cached) + (6 + 19 - 4);
    run_until(&g, all[2], TSR_REQUEST_ENDED);
    assert_int_equal(g.ranks.n_rows, n_rows);
    assert_int_equal(g.ranks.report.n_lost, 0); // it was dropped
    rig_finish(&g);
    rig_clear(&g);
}

static void what_is_lost_of_one_that_rests_is_known_when_it_wakes(void **state)
{
    rig g = {0};
    tsr_request *all[3];

    (void)state;
    crowd_out(&g, &tiered, all);
    fake_ranks_lose(&g.ranks, all[2]->blocks.ids[2]);
    assert_true(rig_step(&g));
    assert_int_equal(all[2]->n_cached, 8);
    assert_int_equal(all[2]->state, TSR_REQUEST_RESTING);
    fake_ranks_lose(&g.ranks, all[2]->blocks.ids[0]);
    assert_true(rig_step(&g));
    assert_int_equal(all[2]->n_cached, 0);
    assert_int_equal(all[2]->state, TSR_REQUEST_WAITING); // nothing is left
    rig_finish(&g);
    rig_clear(&g);
}

static void a_step_that_read_a_lost_block_counts_for_nothing(void **state)
{
    rig g = {0};
    tsr_request *a, *b;
    long n_rows;

    (void)state;
    rig_init(&g, &tiered);
    g.ranks.shares = true; // whoever is in a void step writes twice
    a = rig_submit(&g, 1, 10, 20);
    b = rig_submit(&g, 2, 6, 8);
    for (int i = 0; i < 5; i++) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(a->n_cached, 14);
    fake_ranks_lose(&g.ranks, a->blocks.ids[1]);
    assert_true(rig_step(&g));
    assert_true(g.ranks.report.is_spoilt);
    assert_int_equal(a->n_tokens, 15); // no token of that step
    assert_int_equal(a->n_cached, 4);
    assert_int_equal(b->n_tokens, 11);
    assert_int_equal(b->n_cached, 10);
    n_rows = g.ranks.n_rows;
    run_until(&g, a, TSR_REQUEST_ENDED);
    assert_int_equal(g.ranks.n_rows - n_rows, (10 + 19 - 4) + (6 + 7 - 10));
    rig_finish(&g);
    rig_clear(&g);
}

static void who_is_cancelled_in_a_step_that_counts_for_nothing_ends(void **state)
{
    rig g = {0};
    tsr_request *a, *b;

    (void)state;
    rig_init(&g, &tiered);
    g.ranks.shares = true;
    a = rig_submit(&g, 1, 10, 20);
    b = rig_submit(&g, 2, 6, 8);
    assert_true(rig_step(&g));
    fake_ranks_lose(&g.ranks, a->blocks.ids[1]);
    assert_true(rig_plan(&g));
    tsr_scheduler_cancel(g.scheduler, b);
    rig_run(&g);
    assert_int_equal(b->state, TSR_REQUEST_ENDED);
    assert_int_equal(b->reason, TSR_REASON_CANCELLED);
    assert_int_equal(b->n_tokens, 7);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_crowd_ends_whatever_waits_for_whom(void **state)
{
    (void)state;
    for (int seed = 1; seed <= 40; seed++) {
        tsr_scheduler_options options = tiered;
        uint64_t dice = (uint64_t)seed;
        rig g = {0};

        options.n_device_blocks = 3 + dice_below(&dice, 10);
        options.n_host_blocks = dice_below(&dice, 10);
        options.n_blocks =
            options.n_device_blocks + options.n_host_blocks + 1 + dice_below(&dice, 10);
        options.preempt = dice_below(&dice, 3);
        options.max_seqs = 1 + dice_below(&dice, 6);
        rig_init(&g, &options);
        g.ranks.dice = (uint64_t)seed;
        g.ranks.max_delay = dice_below(&dice, 6);
        for (int i = 0; i < 30; i++) {
            const int most = 4 * (options.n_device_blocks + options.n_host_blocks);
            const int n_prompt = 1 + dice_below(&dice, most < 40 ? most : 40);
            const int room = most - n_prompt;

            (void)rig_submit(&g, i, n_prompt, room > 0 ? dice_below(&dice, room) : 0);
            for (int k = dice_below(&dice, 8); k > 0; k--) {
                (void)rig_step(&g);
            }
        }
        rig_finish(&g);
        rig_clear(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whoever_is_put_back_keeps_every_token_it_had),
        cmocka_unit_test(it_wakes_with_a_ticket_and_runs_when_that_is_done),
        cmocka_unit_test(others_run_while_one_wakes),
        cmocka_unit_test(sequences_longer_than_the_device_run_beside_others),
        cmocka_unit_test(a_sequence_that_no_memory_can_be_read_for_ends_in_words),
        cmocka_unit_test(when_all_tiers_are_full_whoever_rests_is_computed_again),
        cmocka_unit_test(it_is_moved_or_computed_again_whichever_takes_less_time),
        cmocka_unit_test(one_that_wakes_can_be_cancelled),
        cmocka_unit_test(what_was_lost_is_computed_again_and_what_is_before_it_is_not),
        cmocka_unit_test(what_is_lost_of_one_that_rests_is_known_when_it_wakes),
        cmocka_unit_test(a_step_that_read_a_lost_block_counts_for_nothing),
        cmocka_unit_test(who_is_cancelled_in_a_step_that_counts_for_nothing_ends),
        cmocka_unit_test(a_crowd_ends_whatever_waits_for_whom),
    };

    return cmocka_run_group_tests_name("scheduler_rest", tests, NULL, NULL);
}
