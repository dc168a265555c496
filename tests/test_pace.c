#include "engine/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/timed_ranks.h"

/* ---- the model ---- */

static void nothing_is_held_back_while_nothing_is_known_or_nobody_decodes(void **state)
{
    tsr_pace pace = {0};

    (void)state;
    assert_int_equal(tsr_pace_prompt_rows(&pace, 3, 500, 0), 500);
    for (int i = 0; i < 20; i++) {
        tsr_pace_note(&pace, 4, 0, 1000);
        tsr_pace_note(&pace, 4, 8, 3000);
    }
    assert_int_equal(tsr_pace_prompt_rows(&pace, 0, 500, 0), 500);
    assert_true(tsr_pace_prompt_rows(&pace, 4, 500, 0) < 8);
}

static void the_costs_of_a_machine_without_corners_are_found(void **state)
{
    tsr_pace pace = {0};

    (void)state;
    for (int i = 0; i < 120; i++) {
        const int n_decoding = 1 + i % 5;
        const int n_rows = i % 3 == 0 ? 0 : 10 * (i % 7);

        tsr_pace_note(&pace, n_decoding, n_rows, 4000 + 100 * n_decoding + 50 * n_rows);
    }
    assert_true(tsr_pace_guess(&pace, 3, 40) > 6300 * 0.98);
    assert_true(tsr_pace_guess(&pace, 3, 40) < 6300 * 1.02);
    // 4000 + 200 without prompts: 0.6 of that is worth 50 rows; to 6 ms there are 36.
    assert_in_range(tsr_pace_prompt_rows(&pace, 2, 500, 0), 48, 52);
    assert_in_range(tsr_pace_prompt_rows(&pace, 2, 500, 6000), 34, 38);
    assert_int_equal(tsr_pace_prompt_rows(&pace, 2, 30, 0), 30);
    assert_int_equal(tsr_pace_prompt_rows(&pace, 2, 500, 1000), TSR_PACE_LEAST_ROWS);
    assert_int_equal(tsr_pace_prompt_rows(&pace, 2, 0, 1000), 0);
}

static void what_was_learnt_of_prompts_outlasts_a_long_time_without_them(void **state)
{
    tsr_pace pace = {0};

    (void)state;
    for (int i = 0; i < 30; i++) {
        tsr_pace_note(&pace, 0, 200, 4000 + 50 * 200);
        tsr_pace_note(&pace, 1, 0, 4000);
    }
    for (int i = 0; i < 5000; i++) {
        tsr_pace_note(&pace, 1, 0, 4000 + i * 0.4); // the context grows
    }
    assert_in_range(tsr_pace_prompt_rows(&pace, 1, 500, 0), 54, 78); // of 6 ms
}

static void one_step_out_of_all_proportion_changes_little(void **state)
{
    tsr_pace pace = {0};
    int before;

    (void)state;
    for (int i = 0; i < 50; i++) {
        tsr_pace_note(&pace, 4, 0, 4000);
        tsr_pace_note(&pace, 4, 80, 8000);
    }
    before = tsr_pace_prompt_rows(&pace, 4, 500, 0);
    tsr_pace_note(&pace, 4, 0, 3e6);
    assert_in_range(tsr_pace_prompt_rows(&pace, 4, 500, 0), before * 3 / 4, before * 5 / 4);
}

/* Others come to use the cores: it is not the rows that cost more. */
static void a_machine_that_becomes_slower_keeps_its_pace(void **state)
{
    tsr_pace pace = {0};

    (void)state;
    for (int i = 0; i < 400; i++) {
        const double slower = i < 100 ? 1 : 3;
        const int n_rows = tsr_pace_prompt_rows(&pace, 4, 500, 0);

        tsr_pace_note(&pace, 4, n_rows, slower * (4000 + 50 * n_rows));
        if (i >= 100) {
            assert_true(n_rows < 2 * 48);
        }
        if (i >= 200 && n_rows > 0) {
            assert_true(n_rows > 48 / 2); // 0.6 of 4000 is worth 48 of them, on either machine
        }
    }
}

static void rows_that_cost_nothing_are_followed_by_twice_as_many_at_most(void **state)
{
    tsr_pace pace = {0};

    (void)state;
    tsr_pace_note(&pace, 0, 5, 8000);
    for (int i = 0; i < 50; i++) {
        tsr_pace_note(&pace, 1, 0, 8000);
        tsr_pace_note(&pace, 1, 5, 8000);
    }
    assert_int_equal(tsr_pace_prompt_rows(&pace, 1, 500, 0), 10);
}

static void now_and_then_a_step_goes_without_prompts(void **state)
{
    tsr_pace pace = {0};

    (void)state;
    tsr_pace_note(&pace, 0, 100, 8000); // a prompt was timed, a token never was
    assert_int_equal(tsr_pace_prompt_rows(&pace, 1, 500, 0), 0);
    tsr_pace_note(&pace, 1, 0, 4000);
    for (int i = 0; i < TSR_PACE_PROBE - 1; i++) {
        assert_in_range(tsr_pace_prompt_rows(&pace, 1, 500, 0), TSR_PACE_LEAST_ROWS, 200);
        tsr_pace_note(&pace, 1, 50, 8000);
    }
    assert_int_equal(tsr_pace_prompt_rows(&pace, 1, 500, 0), 0);
}

/* ---- a long prompt arrives ---- */

static const machine machines[] = {
    {"two cores", 200, 8000, 1500, 0.05, 0},
    {"two cores, unsteady", 200, 8000, 1500, 0.05, 0.1},
    {"a sum", 3000, 0, 300, 0.02, 0.05},
    {"accelerator", 4000, 3000, 40, 0.0004, 0.05},
    {"long contexts cost most", 1000, 1000, 50, 0.2, 0},
};

enum {
    N_MACHINES = sizeof(machines) / sizeof(machines[0]),
    LONG_PROMPT = 4000
};

static const tsr_scheduler_options wide = {
    .max_batch_tokens = 512,
    .max_seqs = 64,
    .block_tokens = 64,
    .n_blocks = 4096,
    .context = 8192,
    .n_vocab = 50,
};

/* While the prompt was read, in times of the step as it would have been without it. */
typedef struct gaps {
    double longest;
    double mean;
    double longest_us;
    double mean_us;
    int n_steps; // that it took
} gaps;

static void note_gap(gaps *g, const timed_ranks *t)
{
    const double ratio = t->last_us / t->usual_us;

    g->longest = ratio > g->longest ? ratio : g->longest;
    g->longest_us = t->last_us > g->longest_us ? t->last_us : g->longest_us;
    g->mean += (ratio - g->mean) / (g->n_steps + 1);
    g->mean_us += (t->last_us - g->mean_us) / (g->n_steps + 1);
    g->n_steps++;
}

/* n_running sequences decode; a long prompt comes and is read. */
static gaps long_prompt_beside(const machine *m, int n_running, int64_t target_us, bool mute)
{
    tsr_scheduler_options options = wide;
    timed_ranks t;
    tsr_request *all[64];
    tsr_request *last;
    gaps g = {0};

    options.target_itl_us = target_us;
    timed_ranks_init(&t, m, &options);
    t.mute = mute;
    for (int i = 0; i < n_running; i++) {
        all[i] = timed_ranks_submit(&t, 40 + 10 * i, 7000, 0);
        for (int k = 0; k < 10; k++) {
            assert_true(timed_ranks_step(&t));
        }
    }
    for (int i = 0; i < n_running; i++) {
        while (all[i]->first_token_ns == 0) {
            assert_true(timed_ranks_step(&t));
        }
    }
    for (int k = 0; k < 60; k++) {
        assert_true(timed_ranks_step(&t));
    }
    last = timed_ranks_submit(&t, LONG_PROMPT, 10, 0);
    while (last->n_tokens == LONG_PROMPT) {
        assert_true(g.n_steps < 2 * LONG_PROMPT);
        assert_true(timed_ranks_step(&t));
        note_gap(&g, &t);
        for (int i = 0; i < n_running; i++) {
            assert_true(all[i]->last_token_ns == t.now_ns); // each has a token of every step
        }
    }
    assert_true(tsr_scheduler_verify(t.scheduler));
    timed_ranks_clear(&t);
    for (int i = 0; i < n_running; i++) {
        assert_true(all[i]->longest_gap_ns > 0);
        tsr_request_destroy(all[i]);
    }
    tsr_request_destroy(last);
    return g;
}

static void a_long_prompt_never_stalls_the_others(void **state)
{
    static const int n_running[] = {1, 4, 16, 48};

    (void)state;
    for (int i = 0; i < N_MACHINES; i++) {
        for (int k = 0; k < 4; k++) {
            const gaps g = long_prompt_beside(&machines[i], n_running[k], 0, false);

            // What may be used is used, unless the prompt is done in no time.
            if (g.longest >= 2.5 || (g.mean < 1.3 && g.n_steps > 16)) {
                fail_msg("%s, %d running: the longest gap was %.2f times the usual one, the mean "
                         "%.2f",
                         machines[i].name, n_running[k], g.longest, g.mean);
            }
        }
        // It would be otherwise if nobody learnt from the times.
        assert_true(long_prompt_beside(&machines[i], 4, 0, true).longest > 2.5);
    }
}

static void a_target_is_kept_to(void **state)
{
    const machine m = {"a sum", 3000, 0, 300, 0, 0};
    const gaps roomy = long_prompt_beside(&m, 2, 20000, false);
    const gaps impossible = long_prompt_beside(&m, 2, 2000, false); // a step is 3.6 ms

    (void)state;
    assert_true(roomy.longest_us < 20000 * 1.1);
    assert_true(roomy.mean_us > 20000 * 0.8);
    assert_true(impossible.longest_us < 3600 + (TSR_PACE_LEAST_ROWS + 1) * 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_held_back_while_nothing_is_known_or_nobody_decodes),
        cmocka_unit_test(the_costs_of_a_machine_without_corners_are_found),
        cmocka_unit_test(what_was_learnt_of_prompts_outlasts_a_long_time_without_them),
        cmocka_unit_test(one_step_out_of_all_proportion_changes_little),
        cmocka_unit_test(a_machine_that_becomes_slower_keeps_its_pace),
        cmocka_unit_test(rows_that_cost_nothing_are_followed_by_twice_as_many_at_most),
        cmocka_unit_test(now_and_then_a_step_goes_without_prompts),
        cmocka_unit_test(a_long_prompt_never_stalls_the_others),
        cmocka_unit_test(a_target_is_kept_to),
    };

    return cmocka_run_group_tests_name("pace", tests, NULL, NULL);
}
