#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/dice.h"
#include "tests/support/scheduler_rig.h"

typedef struct tally {
    long n_ended[TSR_REASON_COUNT];
    long n_preempted;
    long n_given_over;
    long n_requests;
} tally;

static void hand_out(rig *g, tsr_request **live, int *n_live, tally *t)
{
    tsr_request *r;

    while ((r = rig_take_ended(g)) != NULL) {
        int i = 0;

        while (live[i] != r) {
            i++;
        }
        assert_true(i < *n_live);
        live[i] = live[--*n_live];
        t->n_ended[r->reason]++;
        t->n_preempted += r->n_preempted;
        assert_int_equal(r->error[0] != 0, r->reason == TSR_REASON_FAILED);
        if (r->score && r->reason == TSR_REASON_LENGTH) {
            assert_int_equal(r->n_scored, r->n_prompt);
        }
        tsr_request_destroy(r);
    }
}

static tsr_request *any_request(int64_t id, uint64_t *dice)
{
    tsr_request *r = rig_request(id, 1 + dice_below(dice, dice_below(dice, 4) == 0 ? 40 : 12),
                                 dice_below(dice, 5) == 0 ? 0 : dice_below(dice, 40));

    r->score = dice_below(dice, 4) == 0;
    r->ignore_end = dice_below(dice, 2) == 0;
    if (dice_below(dice, 2) == 0) {
        r->sampling.temperature = (float)(0.1 + dice_unit(dice));
        r->sampling.top_k = dice_below(dice, 30);
    }
    return r;
}

/* A life of a small scheduler: requests come, some are cancelled, all end. */
static void live_through(uint64_t seed, tally *t)
{
    enum {
        MAX_LIVE = 12
    };
    uint64_t dice = seed;
    const tsr_scheduler_options options = {
        .max_batch_tokens = 1 + dice_below(&dice, 24),
        .max_seqs = 1 + dice_below(&dice, 6),
        .block_tokens = 1 + dice_below(&dice, 5),
        .n_blocks = 2 + dice_below(&dice, 16),
        .context = 1 + dice_below(&dice, 70),
        .n_vocab = VOCAB,
    };
    tsr_request *live[MAX_LIVE];
    int n_live = 0;
    rig g = {0};

    rig_init(&g, &options);
    for (int turn = 0; turn < 400 || !tsr_scheduler_is_idle(g.scheduler); turn++) {
        assert_true(turn < 20000); // whatever happens, all end
        if (turn < 400 && n_live < MAX_LIVE && dice_below(&dice, 3) == 0) {
            tsr_request *r = any_request(t->n_requests, &dice);

            if (tsr_scheduler_submit(g.scheduler, r) == TSR_OK) {
                live[n_live++] = r;
                t->n_requests++;
            } else {
                tsr_request_destroy(r);
            }
        }
        if (n_live > 0 && dice_below(&dice, 40) == 0) {
            tsr_scheduler_cancel(g.scheduler, live[dice_below(&dice, n_live)]);
            assert_true(tsr_scheduler_verify(g.scheduler));
            hand_out(&g, live, &n_live, t);
        }
        if (rig_plan(&g)) {
            if (n_live > 0 && dice_below(&dice, 40) == 0) {
                tsr_scheduler_cancel(g.scheduler, live[dice_below(&dice, n_live)]);
                hand_out(&g, live, &n_live, t);
            }
            rig_run(&g);
        }
        hand_out(&g, live, &n_live, t);
    }
    assert_int_equal(n_live, 0);
    assert_int_equal(tsr_scheduler_n_free_blocks(g.scheduler), options.n_blocks);
    for (int id = 0; id < options.n_blocks; id++) {
        assert_int_equal(g.ranks.owners[id], -1); // the ranks hold nothing either
    }
    t->n_given_over += g.ranks.n_given_over;
    rig_clear(&g);
}

static void in_any_small_pool_all_requests_end_with_their_own_tokens(void **state)
{
    tally t = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        live_through(seed, &t);
    }
    // The simulation has met everything it is there for.
    assert_true(t.n_ended[TSR_REASON_LENGTH] > 1000);
    assert_true(t.n_ended[TSR_REASON_STOP] > 200);
    assert_true(t.n_ended[TSR_REASON_CANCELLED] > 100);
    assert_true(t.n_ended[TSR_REASON_FAILED] > 20);
    assert_true(t.n_preempted > 200);
    assert_true(t.n_given_over > 200);
}

static void the_oldest_is_never_put_back_and_never_waits(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *oldest;
    int64_t cached = 0;

    (void)state;
    options.n_blocks = 16;
    options.max_batch_tokens = 5;
    rig_init(&g, &options);
    oldest = rig_submit(&g, 1, 40, 20);
    for (int i = 2; i < 8; i++) {
        (void)rig_submit(&g, i, 9, 40);
    }
    while (oldest->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
        assert_true(oldest->state == TSR_REQUEST_ENDED || oldest->n_cached > cached);
        cached = oldest->n_cached;
    }
    assert_int_equal(oldest->n_preempted, 0);
    rig_finish(&g);
    rig_clear(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_any_small_pool_all_requests_end_with_their_own_tokens),
        cmocka_unit_test(the_oldest_is_never_put_back_and_never_waits),
    };

    return cmocka_run_group_tests_name("scheduler_crowd", tests, NULL, NULL);
}
