#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/victim.h"
#include "tests/support/dice.h"
#include "tests/support/scheduler_rig.h"

static tsr_request *submit(rig *g, int64_t id, int64_t n_prompt, int max_tokens, int priority,
                           int64_t deadline_ns)
{
    tsr_request *r = rig_request(id, n_prompt, max_tokens);

    r->ignore_end = true;
    r->submitted_ns = g->now_ns;
    r->priority = priority;
    r->deadline_ns = deadline_ns;
    assert_int_equal(tsr_scheduler_submit(g->scheduler, r), TSR_OK);
    assert_true(tsr_scheduler_verify(g->scheduler));
    return r;
}

/* ---- who goes first ---- */

static void priority_goes_first_until_waiting_has_made_up_for_it(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *order[5];
    tsr_request *r;

    (void)state;
    options.max_seqs = 1;
    options.priority_ns = 1000;
    rig_init(&g, &options);
    order[0] = submit(&g, 1, 2, 1, 0, 0); // runs before any other is there
    assert_true(rig_step(&g));
    order[3] = submit(&g, 2, 2, 1, 0, 0);
    order[1] = submit(&g, 3, 2, 1, 2, 0);
    order[2] = submit(&g, 4, 2, 1, 1, 0);
    g.now_ns += 990;
    order[4] = submit(&g, 5, 2, 1, 0, 0);
    g.now_ns += 20;
    r = submit(&g, 6, 2, 1, 1, 0); // came a priority's worth after the second
    for (int i = 0; i < 5; i++) {
        while (order[i]->state != TSR_REQUEST_ENDED) {
            assert_true(rig_step(&g));
            assert_true(r->state == TSR_REQUEST_WAITING || i == 4);
        }
        if (i == 3) {
            order[4] = r; // and before the fifth, which it is less than that behind
        }
        for (int k = i + 1; k < 5; k++) {
            assert_int_not_equal(order[k]->state, TSR_REQUEST_ENDED);
        }
    }
    rig_finish(&g);
    rig_clear(&g);
}

static void a_priority_out_of_range_is_refused(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *r = rig_request(1, 3, 1);

    (void)state;
    rig_init(&g, &options);
    r->priority = TSR_SCHEDULER_PRIORITIES + 1;
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_ARG);
    r->priority = -r->priority;
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_ARG);
    tsr_request_destroy(r);
    rig_clear(&g);
    options.priority_ns = -1;
    assert_int_equal(tsr_scheduler_create(&g.scheduler, &options), TSR_ERR_ARG);
    options = roomy;
    options.max_queue = -1;
    assert_int_equal(tsr_scheduler_create(&g.scheduler, &options), TSR_ERR_ARG);
}

/* ---- what is let in ---- */

static void a_prompt_is_let_in_when_all_of_it_fits_and_not_for_what_it_may_generate(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *a, *b, *c;

    (void)state;
    options.n_blocks = 16;
    rig_init(&g, &options);
    a = submit(&g, 1, 32, 40, 0, 0); // 8 blocks, and could become 18
    b = submit(&g, 2, 29, 9, 0, 0);  // 8 more and one in hand: too many
    c = submit(&g, 3, 1, 1, 0, 0);   // would fit, and keeps its place behind b
    for (int i = 0; i < 6; i++) {
        assert_true(rig_step(&g));
        assert_int_equal(b->state, TSR_REQUEST_WAITING);
        assert_int_equal(c->state, TSR_REQUEST_WAITING);
    }
    assert_int_equal(a->state, TSR_REQUEST_RUNNING);
    tsr_scheduler_cancel(g.scheduler, b);
    b = submit(&g, 4, 24, 9, 1, 0); // 6: fits, though both may outgrow the pool
    assert_true(rig_step(&g));
    assert_int_equal(b->state, TSR_REQUEST_RUNNING);
    rig_finish(&g);
    rig_clear(&g);
}

static void the_queue_takes_no_more_than_it_may(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *r;

    (void)state;
    options.max_queue = 3;
    options.max_seqs = 1;
    rig_init(&g, &options);
    for (int i = 0; i < 3; i++) {
        (void)submit(&g, i, 3, 5, 0, 0);
    }
    r = rig_request(9, 3, 5);
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_FULL);
    assert_non_null(strstr(tsr_status_message(), "3 requests wait already"));
    assert_true(tsr_scheduler_verify(g.scheduler));
    assert_true(rig_step(&g)); // one of them runs now
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_OK);
    rig_finish(&g);
    rig_clear(&g);
}

/* ---- who is put back ---- */

static tsr_request *holding(tsr_request *r, int64_t n_cached, int n_blocks, int priority,
                            int n_preempted)
{
    *r = (tsr_request){.n_cached = n_cached,
                       .blocks.n_blocks = n_blocks,
                       .priority = priority,
                       .n_preempted = n_preempted};
    return r;
}

static void the_victim_is_low_then_cheap_then_last(void **state)
{
    tsr_request r[6];
    tsr_request *running[6];

    (void)state;
    running[0] = holding(&r[0], 1, 1, -5, 0); // the cheapest and lowest of all, but first
    running[1] = holding(&r[1], 640, 10, 0, 0);
    running[2] = holding(&r[2], 65, 2, 0, 0); // 32.5 tokens a block
    running[3] = holding(&r[3], 66, 2, 0, 0); // 33
    running[4] = holding(&r[4], 60, 1, 0, 0);
    running[5] = holding(&r[5], 1, 1, 3, 0);
    assert_int_equal(tsr_victim_choose(running, 1, 6), 2);
    r[2].n_preempted = 1; // 65 a block, as it has paid once
    assert_int_equal(tsr_victim_choose(running, 1, 6), 3);
    r[3].n_cached = 128;
    r[1].n_cached = r[1].blocks.n_blocks * 60; // as much a block as the fifth
    assert_int_equal(tsr_victim_choose(running, 1, 6), 4);
    r[1].priority = -1;
    assert_int_equal(tsr_victim_choose(running, 1, 6), 1);
    assert_int_equal(tsr_victim_choose(running, 0, 6), 0);
    assert_int_equal(tsr_victim_choose(running, 5, 6), 5);
    r[5].blocks.n_blocks = 0;
    assert_int_equal(tsr_victim_choose(running, 5, 6), -1);
    assert_int_equal(tsr_victim_choose(running, 6, 6), -1);
}

static void the_lower_priority_is_put_back_though_it_came_first(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *low, *high, *higher;

    (void)state;
    options.n_blocks = 9;
    options.max_batch_tokens = 20;
    rig_init(&g, &options);
    low = submit(&g, 1, 8, 12, -1, 0);
    assert_true(rig_step(&g));
    high = submit(&g, 2, 8, 20, 0, 0);
    higher = submit(&g, 3, 4, 20, 1, 0);
    while (low->n_preempted + high->n_preempted + higher->n_preempted == 0) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(low->n_preempted, 1);
    assert_int_equal(low->state, TSR_REQUEST_WAITING);
    while (higher->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(higher->n_preempted, 0);
    rig_finish(&g);
    rig_clear(&g);
}

/* ---- deadlines and timings ---- */

static void a_deadline_ends_who_waits_and_who_runs(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *runs, *waits, *stays;

    (void)state;
    options.max_seqs = 2;
    rig_init(&g, &options);
    stays = submit(&g, 1, 3, 30, 0, 0);
    runs = submit(&g, 2, 3, 30, 0, 1000);
    waits = submit(&g, 3, 3, 30, 0, 500);
    for (int i = 0; i < 4; i++) {
        assert_true(rig_step(&g));
    }
    g.now_ns = 498;
    assert_true(rig_step(&g));
    assert_null(rig_take_ended(&g));
    assert_true(rig_step(&g)); // 501
    assert_ptr_equal(rig_take_ended(&g), waits);
    assert_int_equal(waits->reason, TSR_REASON_DEADLINE);
    assert_int_equal(waits->n_tokens, 3);
    assert_string_equal(tsr_request_reason_name(waits->reason), "deadline");
    tsr_request_destroy(waits);
    g.now_ns = 998;
    assert_true(rig_step(&g)); // planned at 999: it still has this token
    assert_int_equal(runs->state, TSR_REQUEST_RUNNING);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_seqs, 1);
    assert_int_equal(g.step.n_dropped, 3); // at once: prompt and tokens
    assert_ptr_equal(rig_take_ended(&g), runs);
    assert_int_equal(runs->reason, TSR_REASON_DEADLINE);
    assert_true(runs->n_tokens > 3);
    tsr_request_destroy(runs);
    rig_run(&g);
    assert_int_equal(stays->state, TSR_REQUEST_RUNNING);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_request_knows_when_its_tokens_came(void **state)
{
    rig g = {0};
    tsr_request *r;

    (void)state;
    rig_init(&g, &roomy);
    g.now_ns = 100;
    r = submit(&g, 1, 3, 4, 0, 0);
    for (int i = 0; i < 4; i++) {
        assert_true(rig_plan(&g));
        g.now_ns += i == 2 ? 50 : 10;
        rig_run(&g);
    }
    // Planning and committing move the clock by 1 each.
    assert_int_equal(r->submitted_ns, 100);
    assert_int_equal(r->first_token_ns, 112);
    assert_int_equal(r->longest_gap_ns, 52);
    assert_int_equal(r->last_token_ns, 112 + 12 + 52 + 12);
    assert_int_equal(r->ended_ns, r->last_token_ns);
    rig_finish(&g);
    rig_clear(&g);
}

/* One life with an end from outside at each of its moments: everything it held comes back. */
static void end_at(int moment, bool by_deadline, bool while_out)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *r[5];

    options.n_blocks = 12; // short: some are put back
    options.max_seqs = 3;
    options.max_queue = 5;
    rig_init(&g, &options);
    for (int i = 0; i < 5; i++) {
        const bool mine = i % 2 == 0;

        r[i] =
            submit(&g, i, 5 + 4 * i, 14, i == 3 ? 1 : 0, mine && by_deadline ? 1 + 2 * moment : 0);
    }
    for (int k = 0; k < moment; k++) {
        (void)rig_step(&g);
    }
    if (while_out && rig_plan(&g)) {
        for (int i = 0; i < 5 && !by_deadline; i += 2) {
            tsr_scheduler_cancel(g.scheduler, r[i]);
            assert_true(tsr_scheduler_verify(g.scheduler));
        }
        rig_run(&g);
    } else if (!by_deadline) {
        for (int i = 0; i < 5; i += 2) {
            tsr_scheduler_cancel(g.scheduler, r[i]);
            assert_true(tsr_scheduler_verify(g.scheduler));
        }
    }
    if (by_deadline) {
        (void)rig_step(&g);
        (void)rig_step(&g);
    }
    for (int i = 0; i < 5; i += 2) {
        assert_int_equal(r[i]->state, TSR_REQUEST_ENDED);
        assert_true(r[i]->reason == TSR_REASON_LENGTH ||
                    r[i]->reason == (by_deadline ? TSR_REASON_DEADLINE : TSR_REASON_CANCELLED));
    }
    rig_finish(&g); // all blocks are free again
    assert_true(tsr_scheduler_verify(g.scheduler));
    for (int id = 0; id < options.n_blocks; id++) {
        assert_int_equal(g.ranks.owners[id], -1); // for the ranks, too
    }
    rig_clear(&g);
}

static void whatever_ends_a_request_at_whatever_moment_leaves_the_pool_clean(void **state)
{
    (void)state;
    for (int moment = 0; moment < 70; moment++) {
        end_at(moment, true, false);
        end_at(moment, false, false);
        end_at(moment, false, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(priority_goes_first_until_waiting_has_made_up_for_it),
        cmocka_unit_test(a_priority_out_of_range_is_refused),
        cmocka_unit_test(a_prompt_is_let_in_when_all_of_it_fits_and_not_for_what_it_may_generate),
        cmocka_unit_test(the_queue_takes_no_more_than_it_may),
        cmocka_unit_test(the_victim_is_low_then_cheap_then_last),
        cmocka_unit_test(the_lower_priority_is_put_back_though_it_came_first),
        cmocka_unit_test(a_deadline_ends_who_waits_and_who_runs),
        cmocka_unit_test(a_request_knows_when_its_tokens_came),
        cmocka_unit_test(whatever_ends_a_request_at_whatever_moment_leaves_the_pool_clean),
    };

    return cmocka_run_group_tests_name("scheduler_policy", tests, NULL, NULL);
}
