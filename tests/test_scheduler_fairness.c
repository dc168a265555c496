#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/pace.h"
#include "tests/support/dice.h"
#include "tests/support/timed_ranks.h"

/*
 * Requests by the hundred thousand, more of them at every moment than can be served.
 *
 * The bound. A request of priority p that comes at time t stands before all that come after
 * t + (HIGHEST - p) x a, where a is what a step of priority is worth. Of those that came before at
 * most QUEUE + SEQS are unfinished at that moment, and SEQS others may run. In each step, but for
 * every TSR_PACE_PROBE-th, the first in standing of those that run gains a token of cache at least,
 * and it is never put back; a better one that is let in may cost it what it had, once for each that
 * is let in. No request has more than LONGEST tokens. So after twice (QUEUE + 2 SEQS) x LONGEST
 * such steps all of them are done, and a step takes no longer than the machine takes for a full
 * one.
 */
enum {
    SEQS = 8,
    QUEUE = 64,
    ROWS = 32,
    MOST_PROMPT = 24,
    MOST_TOKENS = 16,
    LONGEST = MOST_PROMPT + MOST_TOKENS,
    HIGHEST = 9,
    MAX_LIVE = QUEUE + SEQS,
    N_REQUESTS = 34000 // of each of the three kinds
};

static const machine even = {"even", 200, 0, 10, 0, 0};
static const int64_t PRIORITY_NS = 300000000;
static const int64_t NO_AGING_NS = 1000000000000000;

static double bound_s(void)
{
    const double step_s = (even.fixed_us + ROWS * even.row_us) / 1e6;

    return HIGHEST * (double)PRIORITY_NS / 1e9 +
           2.0 * (QUEUE + 2 * SEQS) * LONGEST * step_s * TSR_PACE_PROBE / (TSR_PACE_PROBE - 1);
}

typedef enum crowd_kind {
    FLOOD,  // a few of no priority among any number of the highest
    GIANTS, // the long ones are the lowest, and memory is short
    TIDES,  // priorities rise from one wave to the next, then fall back
    N_KINDS
} crowd_kind;

typedef struct crowd {
    timed_ranks t;
    crowd_kind kind;
    uint64_t dice;
    int n_submitted;
    int n_low; // alive and of priority 0
    int n_live;
    int64_t n_preempted;
    double longest_s; // from submitting to the end
    tsr_request *live[MAX_LIVE];
} crowd;

static bool come(crowd *c)
{
    int64_t n_prompt = 1 + dice_below(&c->dice, MOST_PROMPT);
    int n_tokens = 1 + dice_below(&c->dice, MOST_TOKENS);
    int priority = HIGHEST;
    tsr_request *r;

    if (c->n_low < 4 && dice_below(&c->dice, 20) == 0) {
        priority = 0;
    } else if (c->kind == TIDES) {
        priority = 1 + c->n_submitted / 200 % HIGHEST;
    } else if (c->kind == GIANTS) {
        priority = 1 + dice_below(&c->dice, HIGHEST);
    }
    if (c->kind == GIANTS) {
        n_prompt = priority < 5 ? MOST_PROMPT : 1 + n_prompt / 8;
        n_tokens = priority < 5 ? MOST_TOKENS : n_tokens;
    }
    r = timed_ranks_submit(&c->t, n_prompt, n_tokens, priority);
    if (r == NULL) {
        return false;
    }
    r->user = r;
    c->n_submitted++;
    c->n_low += priority == 0 ? 1 : 0;
    c->n_live++;
    return true;
}

static void leave(crowd *c)
{
    tsr_request *r;

    while ((r = tsr_scheduler_take_ended(c->t.scheduler)) != NULL) {
        const double s = (double)(r->ended_ns - r->submitted_ns) / 1e9;

        assert_int_equal(r->reason, TSR_REASON_LENGTH);
        assert_int_equal(r->n_tokens, r->n_prompt + r->max_tokens);
        c->longest_s = s > c->longest_s ? s : c->longest_s;
        c->n_preempted += r->n_preempted;
        c->n_low -= r->priority == 0 ? 1 : 0;
        c->n_live--;
        tsr_request_destroy(r);
    }
}

/* The longest that anybody took, in seconds of the virtual clock. */
static double live_through(crowd_kind kind, int64_t priority_ns, int64_t *n_preempted)
{
    const tsr_scheduler_options options = {
        .max_batch_tokens = ROWS,
        .max_seqs = SEQS,
        .block_tokens = 4,
        .n_blocks = kind == GIANTS ? 30 : 10 * SEQS,
        .context = LONGEST,
        .n_vocab = 50,
        .max_queue = QUEUE,
        .priority_ns = priority_ns,
    };
    crowd c = {.kind = kind, .dice = 77 + kind};
    int64_t n_steps = 0;

    timed_ranks_init(&c.t, &even, &options);
    while (c.n_submitted < N_REQUESTS || c.n_live > 0) {
        while (c.n_submitted < N_REQUESTS && come(&c)) {
        }
        (void)timed_ranks_step(&c.t);
        leave(&c);
        assert_true(++n_steps < 100 * N_REQUESTS);
        assert_true(n_steps % 64 != 0 || tsr_scheduler_verify(c.t.scheduler));
    }
    *n_preempted += c.n_preempted;
    assert_int_equal(tsr_scheduler_n_free_blocks(c.t.scheduler), options.n_blocks);
    timed_ranks_clear(&c.t);
    return c.longest_s;
}

static void nobody_waits_longer_than_the_bound_in_a_hundred_thousand(void **state)
{
    int64_t n_preempted = 0;

    (void)state;
    for (int kind = 0; kind < N_KINDS; kind++) {
        const double longest_s = live_through((crowd_kind)kind, PRIORITY_NS, &n_preempted);

        if (longest_s > bound_s()) {
            fail_msg("crowd %d: somebody took %.2f s, the bound is %.2f s", kind, longest_s,
                     bound_s());
        }
    }
    assert_true(n_preempted > 1000); // memory was short indeed
}

static void without_aging_the_same_crowd_starves_somebody(void **state)
{
    int64_t n_preempted = 0;

    (void)state;
    assert_true(live_through(FLOOD, NO_AGING_NS, &n_preempted) > bound_s());
    assert_true(live_through(GIANTS, NO_AGING_NS, &n_preempted) > bound_s());
}

/* Priorities do what they are for: of two that wait, the higher one is first by far. */
static void a_higher_priority_waits_less(void **state)
{
    tsr_scheduler_options options = {
        .max_batch_tokens = ROWS,
        .max_seqs = SEQS,
        .block_tokens = 4,
        .n_blocks = 80,
        .context = LONGEST,
        .n_vocab = 50,
    };
    double sum_s[2] = {0};
    timed_ranks t;
    tsr_request *r;

    (void)state;
    timed_ranks_init(&t, &even, &options);
    for (int i = 0; i < 2000; i++) {
        assert_non_null(timed_ranks_submit(&t, 10, 10, i % 2));
    }
    while (!tsr_scheduler_is_idle(t.scheduler)) {
        (void)timed_ranks_step(&t);
        while ((r = tsr_scheduler_take_ended(t.scheduler)) != NULL) {
            sum_s[r->priority] += (double)(r->first_token_ns - r->submitted_ns) / 1e9;
            tsr_request_destroy(r);
        }
    }
    assert_true(sum_s[1] * 2 < sum_s[0]);
    timed_ranks_clear(&t);
}

/* A hundred thousand wait: each step does as much as with a hundred (the test would take hours). */
static void a_long_queue_does_not_slow_the_steps(void **state)
{
    tsr_scheduler_options options = {
        .max_batch_tokens = ROWS,
        .max_seqs = SEQS,
        .block_tokens = 4,
        .n_blocks = 80,
        .context = LONGEST,
        .n_vocab = 50,
    };
    uint64_t dice = 5;
    timed_ranks t;
    tsr_request *r;
    int n_ended = 0;

    (void)state;
    timed_ranks_init(&t, &even, &options);
    for (int i = 0; i < 100000; i++) {
        r = timed_ranks_submit(&t, 1, 1, dice_below(&dice, 10));
        assert_non_null(r);
        t.now_ns += 1000;
    }
    assert_true(tsr_scheduler_verify(t.scheduler));
    while (!tsr_scheduler_is_idle(t.scheduler)) {
        (void)timed_ranks_step(&t);
        while ((r = tsr_scheduler_take_ended(t.scheduler)) != NULL) {
            n_ended++;
            tsr_request_destroy(r);
        }
    }
    assert_int_equal(n_ended, 100000);
    timed_ranks_clear(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_waits_longer_than_the_bound_in_a_hundred_thousand),
        cmocka_unit_test(without_aging_the_same_crowd_starves_somebody),
        cmocka_unit_test(a_higher_priority_waits_less),
        cmocka_unit_test(a_long_queue_does_not_slow_the_steps),
    };

    return cmocka_run_group_tests_name("scheduler_fairness", tests, NULL, NULL);
}
