/*
 * Sequences whose next token is not known when their step is committed: they need nothing until
 * they are given one, and stand in nobody's way.
 */
#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/dice.h"
#include "tests/support/scheduler_rig.h"

static bool never_ends(void *ctx, int32_t token)
{
    (void)ctx;
    (void)token;
    return false;
}

/* A step whose commit holds all that sample and are of the given id or above. */
static bool hold_step(rig *g, int64_t id)
{
    if (!rig_plan(g)) {
        return false;
    }
    fake_ranks_run(&g->ranks, g->scheduler, &g->step);
    for (int s = 0; s < g->step.n_seqs; s++) {
        if (tsr_scheduler_request_of(g->scheduler, s)->id >= id) {
            g->ranks.next[s] = TSR_SCHEDULER_HOLD;
        }
    }
    tsr_scheduler_commit(g->scheduler, &g->step, g->ranks.next, never_ends, NULL, ++g->now_ns);
    assert_true(tsr_scheduler_verify(g->scheduler));
    return true;
}

/* The token that it would have had. */
static void give(rig *g, tsr_request *r)
{
    tsr_scheduler_give(g->scheduler, r, fake_ranks_next(r->tokens, r->n_tokens, VOCAB), never_ends,
                       NULL);
    assert_true(tsr_scheduler_verify(g->scheduler));
}

static void one_that_is_held_gets_no_rows_until_it_has_its_token(void **state)
{
    rig g = {0};
    tsr_request *r;

    (void)state;
    rig_init(&g, &roomy);
    r = rig_submit(&g, 1, 6, 5);
    assert_true(hold_step(&g, 1));
    assert_true(r->is_held);
    assert_int_equal(r->n_tokens, 6);
    assert_false(rig_step(&g));
    assert_false(tsr_scheduler_is_idle(g.scheduler));
    give(&g, r);
    assert_false(r->is_held);
    assert_int_equal(r->n_tokens, 7);
    assert_true(rig_step(&g));
    assert_int_equal(g.step.n_rows, 1);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_token_that_is_given_ends_it_as_one_that_is_committed(void **state)
{
    rig g = {0};
    tsr_request *r;

    (void)state;
    rig_init(&g, &roomy);
    r = rig_submit(&g, 1, 6, 1);
    assert_true(hold_step(&g, 1));
    give(&g, r);
    assert_int_equal(r->state, TSR_REQUEST_ENDED);
    assert_int_equal(r->reason, TSR_REASON_LENGTH);
    rig_finish(&g);
    rig_clear(&g);
}

static void the_child_of_one_that_is_held_is_held_with_all_its_blocks(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *parent, *children[2];

    (void)state;
    options.max_seqs = 2; // so the second child finds no lane
    rig_init(&g, &options);
    g.ranks.shares = true;
    parent = rig_submit(&g, 1, 6, 5);
    assert_true(hold_step(&g, 1));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tsr_request_copy(&children[i], parent), TSR_OK);
        children[i]->id = 2 + i;
        assert_int_equal(tsr_scheduler_fork(g.scheduler, parent, children[i], 6), TSR_OK);
        assert_true(tsr_scheduler_verify(g.scheduler));
        assert_true(children[i]->is_held);
        assert_int_equal(children[i]->n_cached, 6);
    }
    assert_int_equal(children[0]->state, TSR_REQUEST_RUNNING);
    assert_int_equal(children[1]->state, TSR_REQUEST_RESTING);
    assert_false(rig_step(&g));
    give(&g, children[1]); // the lane of another that is held becomes its own
    assert_true(rig_step(&g));
    assert_int_equal(children[1]->n_cached, 7);
    give(&g, children[0]);
    give(&g, parent);
    rig_finish(&g);
    rig_clear(&g);
}

static void whoever_is_held_gives_way_to_one_behind_it_that_cannot_go_on(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *held, *other;

    (void)state;
    options.n_blocks = 8;
    rig_init(&g, &options);
    held = rig_submit(&g, 2, 16, 4); // four blocks
    while (!held->is_held) {
        assert_true(hold_step(&g, 2));
    }
    other = rig_submit(&g, 1, 8, 20); // grows into seven
    while (other->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(held->n_preempted, 1);
    assert_int_equal(held->n_cached, 0);
    assert_true(held->is_held);
    give(&g, held); // computed again, then as if nothing had been
    rig_finish(&g);
    rig_clear(&g);
}

static void cancelling_one_that_is_held_ends_it_wherever_it_is(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *a, *b;

    (void)state;
    options.max_seqs = 1;
    rig_init(&g, &options);
    a = rig_submit(&g, 1, 6, 5);
    assert_true(hold_step(&g, 1));
    b = rig_submit(&g, 2, 6, 5);
    assert_true(hold_step(&g, 1)); // the first one leaves its lane to it
    assert_int_equal(a->state, TSR_REQUEST_RESTING);
    assert_int_equal(b->state, TSR_REQUEST_RUNNING);
    tsr_scheduler_cancel(g.scheduler, a);
    tsr_scheduler_cancel(g.scheduler, b);
    assert_int_equal(a->reason, TSR_REASON_CANCELLED);
    assert_int_equal(b->reason, TSR_REASON_CANCELLED);
    rig_finish(&g);
    rig_clear(&g);
}

/* Rounds of many, each of whose members waits for all, in lanes and blocks for a few. */
static void rounds_end_however_little_room_there_is(void **state)
{
    enum {
        WIDTH = 6,
        N_ROUNDS = 12
    };
    uint64_t dice = 5;

    (void)state;
    for (int turn = 0; turn < 40; turn++) {
        tsr_scheduler_options options = roomy;
        tsr_request *members[WIDTH];
        rig g = {0};

        options.n_blocks = 7 + dice_below(&dice, 20); // one of them takes seven
        options.max_seqs = 1 + dice_below(&dice, 8);
        rig_init(&g, &options);
        g.ranks.shares = true; // who leaves its lane keeps its blocks
        for (int i = 0; i < 3; i++) {
            (void)rig_submit(&g, 1 + i, 1 + dice_below(&dice, 12), 12); // others
        }
        for (int i = 0; i < WIDTH; i++) {
            members[i] = rig_submit(&g, 10 + i, 1 + dice_below(&dice, 14), N_ROUNDS + 1);
        }
        for (int round = 0; round < N_ROUNDS; round++) {
            int n_held = 0;

            for (int n_steps = 0; n_held < WIDTH; n_steps++) {
                assert_true(n_steps < 400);
                (void)hold_step(&g, 10);
                n_held = 0;
                for (int i = 0; i < WIDTH; i++) {
                    n_held += members[i]->is_held ? 1 : 0;
                }
            }
            for (int i = 0; i < WIDTH; i++) {
                give(&g, members[(i + round) % WIDTH]);
            }
        }
        rig_finish(&g);
        rig_clear(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_is_held_gets_no_rows_until_it_has_its_token),
        cmocka_unit_test(a_token_that_is_given_ends_it_as_one_that_is_committed),
        cmocka_unit_test(the_child_of_one_that_is_held_is_held_with_all_its_blocks),
        cmocka_unit_test(whoever_is_held_gives_way_to_one_behind_it_that_cannot_go_on),
        cmocka_unit_test(cancelling_one_that_is_held_ends_it_wherever_it_is),
        cmocka_unit_test(rounds_end_however_little_room_there_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
