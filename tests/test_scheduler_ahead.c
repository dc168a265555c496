#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/dice.h"
#include "tests/support/scheduler_rig.h"

/* A token is known only when it has been fed to the step behind it. */
static void a_step_is_planned_while_the_one_before_it_runs(void **state)
{
    rig g = {.plans_ahead = true};
    tsr_request *r;

    (void)state;
    rig_init(&g, &roomy);
    r = rig_submit(&g, 1, 12, 6);
    assert_true(rig_step(&g)); // 8 of the prompt; the other 4 are planned
    assert_int_equal(g.n_ahead, 1);
    assert_true(g.is_ahead);
    assert_int_equal(g.ahead.n_rows, 4);
    assert_true(rig_step(&g));
    assert_int_equal(r->n_tokens, 13);
    assert_int_equal(g.ahead.n_rows, 1);
    assert_int_equal(g.ahead.tokens[0], r->tokens[12]);
    assert_true(rig_step(&g));
    assert_int_equal(r->n_tokens, 14);
    rig_finish(&g);
    rig_clear(&g);
}

/* What is known to be an answer's last token is waited for. */
static void the_last_token_is_not_planned_beyond(void **state)
{
    rig g = {.plans_ahead = true};

    (void)state;
    rig_init(&g, &roomy);
    (void)rig_submit(&g, 1, 4, 3);
    rig_finish(&g);
    assert_int_equal(g.n_ahead, 2);
    assert_int_equal(g.ranks.n_rows, 4 + 2);
    rig_clear(&g);
}

/* The first prompt after `id` whose answer ends by a token, the n_tokens-th. */
static tsr_request *one_that_stops(int64_t id, int n_tokens)
{
    for (;; id++) {
        tsr_request *r = rig_request(id, 4, 30);
        int n = 0;

        while (n < 30 && fake_ranks_next(r->tokens, r->n_tokens, VOCAB) != END_TOKEN) {
            assert_int_equal(tsr_request_append(r, fake_ranks_next(r->tokens, r->n_tokens, VOCAB)),
                             TSR_OK);
            n++;
        }
        tsr_request_destroy(r);
        if (n == n_tokens) {
            return rig_request(id, 4, 30);
        }
    }
}

static void one_that_stops_has_a_row_too_many_and_no_token_of_it(void **state)
{
    rig g = {.plans_ahead = true};
    tsr_request *r;

    (void)state;
    rig_init(&g, &roomy);
    r = one_that_stops(1, 3);
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_OK);
    while (r->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(r->reason, TSR_REASON_STOP);
    assert_int_equal(r->n_tokens, 4 + 3);
    assert_int_equal(g.ranks.n_rows, 4 + 3 + 1);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_stop_and_a_cancel_wait_for_the_step_that_is_planned(void **state)
{
    rig g = {.plans_ahead = true};
    tsr_request *stopped, *cancelled;

    (void)state;
    rig_init(&g, &roomy);
    stopped = rig_submit(&g, 1, 3, 20);
    cancelled = rig_submit(&g, 2, 3, 20);
    for (int i = 0; i < 5; i++) {
        assert_true(rig_step(&g));
    }
    assert_true(g.is_ahead);
    stopped->ignore_end = false; // what the rig holds a stopped one to does not apply
    tsr_scheduler_stop(g.scheduler, stopped);
    tsr_scheduler_cancel(g.scheduler, cancelled);
    tsr_scheduler_stop(g.scheduler, cancelled); // whichever was first
    assert_int_equal(stopped->state, TSR_REQUEST_RUNNING);
    assert_int_equal(stopped->n_tokens, 3 + 5);
    assert_true(rig_step(&g));
    assert_int_equal(stopped->reason, TSR_REASON_STOP);
    assert_int_equal(cancelled->reason, TSR_REASON_CANCELLED);
    assert_int_equal(stopped->n_tokens, 3 + 5);
    assert_int_equal(cancelled->n_tokens, 3 + 5);
    assert_ptr_equal(tsr_scheduler_take_ended(g.scheduler), stopped);
    assert_ptr_equal(tsr_scheduler_take_ended(g.scheduler), cancelled);
    tsr_request_destroy(stopped);
    tsr_request_destroy(cancelled);
    rig_finish(&g);
    rig_clear(&g);
}

/* Whatever happens, everybody has the tokens that it would have alone; the rig sees to it. */
static void random_days_give_the_tokens_of_quiet_ones(void **state)
{
    uint64_t dice = 11;
    int n_stopped = 0, n_ahead = 0, n_preempted = 0, n_overdue = 0;

    (void)state;
    for (int day = 0; day < 150; day++) {
        tsr_scheduler_options options = roomy;
        rig g = {.plans_ahead = true};
        int64_t id = 1000 * day;
        tsr_request *some[3] = {NULL, NULL, NULL};
        tsr_request *r;

        options.n_blocks = 21 + dice_below(&dice, 40);
        options.max_batch_tokens = 4 + dice_below(&dice, 20);
        options.prefix_cache = dice_below(&dice, 2) == 0;
        rig_init(&g, &options);
        g.ranks.shares = options.prefix_cache;
        for (int turn = 0; turn < 120; turn++) {
            if (dice_below(&dice, 3) == 0) {
                r = rig_request(options.prefix_cache ? dice_below(&dice, 4) : ++id,
                                1 + dice_below(&dice, 20), 1 + dice_below(&dice, 40));
                r->ignore_end = dice_below(&dice, 2) == 0;
                r->priority = dice_below(&dice, 3);
                r->submitted_ns = g.now_ns;
                r->deadline_ns =
                    dice_below(&dice, 8) == 0 ? g.now_ns + 1 + dice_below(&dice, 60) : 0;
                assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_OK);
                some[dice_below(&dice, 3)] = r;
            }
            (void)rig_step(&g);
            if (dice_below(&dice, 20) == 0 && (r = some[dice_below(&dice, 3)]) != NULL) {
                tsr_scheduler_cancel(g.scheduler, r);
            }
            while ((r = rig_take_ended(&g)) != NULL) {
                n_stopped += r->reason == TSR_REASON_STOP ? 1 : 0;
                n_overdue += r->reason == TSR_REASON_DEADLINE ? 1 : 0;
                n_preempted += r->n_preempted;
                for (int i = 0; i < 3; i++) {
                    some[i] = some[i] == r ? NULL : some[i];
                }
                tsr_request_destroy(r);
            }
        }
        n_ahead += g.n_ahead;
        rig_finish(&g);
        rig_clear(&g);
    }
    assert_true(n_stopped > 100 && n_overdue > 50 && n_preempted > 20 && n_ahead > 150 * 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_is_planned_while_the_one_before_it_runs),
        cmocka_unit_test(the_last_token_is_not_planned_beyond),
        cmocka_unit_test(one_that_stops_has_a_row_too_many_and_no_token_of_it),
        cmocka_unit_test(a_stop_and_a_cancel_wait_for_the_step_that_is_planned),
        cmocka_unit_test(random_days_give_the_tokens_of_quiet_ones),
    };

    return cmocka_run_group_tests_name("scheduler_ahead", tests, NULL, NULL);
}
