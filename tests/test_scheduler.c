#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/scheduler_rig.h"
#include "tests/support/torture.h"

/* ---- one thing at a time ---- */

static void a_prompt_goes_in_chunks_and_then_a_token_a_step(void **state)
{
    static const int rows[] = {8, 8, 4, 1, 1, 1};
    rig g = {0};
    tsr_request *r;

    (void)state;
    rig_init(&g, &roomy);
    r = rig_submit(&g, 1, 20, 4);
    for (int i = 0; i < 6; i++) {
        assert_true(rig_plan(&g));
        assert_int_equal(g.step.n_seqs, 1);
        assert_int_equal(g.step.n_rows, rows[i]);
        assert_int_equal(g.step.n_wanted, i >= 2 ? 1 : 0);
        assert_int_equal(g.step.n_appended, i < 2 ? 2 : i == 2 || i == 3 ? 1 : 0);
        rig_run(&g);
        assert_int_equal(r->n_tokens, i < 2 ? 20 : 20 + i - 1);
    }
    assert_ptr_equal(rig_take_ended(&g), r);
    assert_int_equal(r->reason, TSR_REASON_LENGTH);
    tsr_request_destroy(r);

    // The ranks are still to hear that the six blocks are free.
    assert_false(tsr_scheduler_is_idle(g.scheduler));
    assert_true(rig_step(&g));
    assert_int_equal(g.step.n_dropped, 6);
    assert_true(tsr_scheduler_is_idle(g.scheduler));
    assert_false(rig_step(&g));
    rig_clear(&g);
}

static void decoding_sequences_come_before_prompts_and_prompts_in_order(void **state)
{
    rig g = {0};
    tsr_request *a, *b, *c;

    (void)state;
    rig_init(&g, &roomy);
    a = rig_submit(&g, 1, 10, 20);
    b = rig_submit(&g, 2, 12, 20);
    c = rig_submit(&g, 3, 3, 20);
    assert_true(rig_step(&g)); // 8 of a
    assert_int_equal(a->n_cached, 8);
    assert_int_equal(tsr_scheduler_n_waiting(g.scheduler), 2);
    assert_true(rig_step(&g)); // 2 of a, 6 of b
    assert_int_equal(b->n_cached, 6);
    assert_true(rig_step(&g)); // a decodes, 6 of b, 1 of c
    assert_int_equal(a->n_tokens, 12);
    assert_int_equal(b->n_tokens, 13);
    assert_int_equal(c->n_cached, 1);
    assert_int_equal(tsr_scheduler_n_running(g.scheduler), 3);
    assert_true(rig_step(&g)); // a and b decode, 2 of c
    assert_int_equal(g.step.n_rows, 4);
    assert_int_equal(c->n_tokens, 4);
    rig_finish(&g);
    rig_clear(&g);
}

static void no_more_run_than_there_are_lanes(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};

    (void)state;
    options.max_batch_tokens = 100;
    rig_init(&g, &options);
    for (int i = 0; i < 9; i++) {
        (void)rig_submit(&g, i, 3, 5);
    }
    assert_true(rig_step(&g));
    assert_int_equal(g.step.n_seqs, 4);
    assert_int_equal(tsr_scheduler_n_running(g.scheduler), 4);
    assert_int_equal(tsr_scheduler_n_waiting(g.scheduler), 5);
    rig_finish(&g);
    rig_clear(&g);
}

static void the_youngest_is_put_back_and_its_tokens_do_not_change(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *a, *b;
    int n_steps = 0;

    (void)state;
    options.n_blocks = 8; // 32 tokens: each alone has room, both together do not
    rig_init(&g, &options);
    a = rig_submit(&g, 1, 4, 24);
    b = rig_submit(&g, 2, 4, 24);
    while (b->n_preempted == 0) {
        assert_true(rig_step(&g));
        assert_true(++n_steps < 30);
    }
    assert_int_equal(a->n_preempted, 0);
    assert_int_equal(b->state, TSR_REQUEST_WAITING);
    assert_int_equal(b->n_cached, 0);
    assert_true(b->n_tokens > 10);
    while (a->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(b->n_preempted, 1); // it did not come back only to be put back again
    rig_finish(&g);                      // compares the tokens
    rig_clear(&g);
}

static void a_newcomer_leaves_a_block_for_each_that_runs(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};

    (void)state;
    options.n_blocks = 4;
    options.max_batch_tokens = 100;
    rig_init(&g, &options);
    (void)rig_submit(&g, 1, 4, 5);
    (void)rig_submit(&g, 2, 4, 5);
    (void)rig_submit(&g, 3, 4, 5);
    assert_true(rig_step(&g));
    assert_int_equal(tsr_scheduler_n_running(g.scheduler), 2); // 2 blocks are held, 2 in hand
    rig_finish(&g);
    rig_clear(&g);
}

static void a_request_that_outgrows_the_pool_alone_fails_in_words(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *r;

    (void)state;
    options.n_blocks = 3;
    rig_init(&g, &options);
    r = rig_submit(&g, 1, 9, 40);
    while (r->state != TSR_REQUEST_ENDED) {
        (void)rig_step(&g);
    }
    assert_int_equal(r->reason, TSR_REASON_FAILED);
    assert_int_equal(r->n_tokens, 13); // 12 lie in the cache, the 13th was sampled from them
    assert_non_null(strstr(r->error, "3 cache blocks"));
    assert_string_equal(tsr_request_reason_name(r->reason), "error");
    rig_finish(&g);
    rig_clear(&g);
}

static void a_score_request_wants_every_row_of_its_prompt(void **state)
{
    rig g = {0};
    tsr_request *r = rig_request(5, 11, 0);
    int n_wanted = 0;

    (void)state;
    rig_init(&g, &roomy);
    r->score = true;
    r->sampling.temperature = 0.5f;
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_OK);
    while (r->state != TSR_REQUEST_ENDED) {
        assert_true(rig_plan(&g));
        for (int w = 0; w < g.step.n_wanted; w++, n_wanted++) {
            assert_int_equal(g.step.targets[w], n_wanted < 10 ? r->tokens[n_wanted + 1] : -1);
            assert_true(g.step.sharpness[w] == 1.0f);
        }
        assert_int_equal(g.step.may_ask, 0);
        rig_run(&g);
    }
    assert_int_equal(n_wanted, 11);
    assert_int_equal(r->reason, TSR_REASON_LENGTH);
    assert_int_equal(r->n_tokens, 11);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_score_request_may_generate_too(void **state)
{
    rig g = {0};
    tsr_request *r = rig_request(5, 6, 3);

    (void)state;
    rig_init(&g, &roomy);
    r->score = true;
    r->ignore_end = true;
    r->sampling.temperature = 0.5f;
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_OK);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_wanted, 6);
    assert_true(g.step.sharpness[4] == 1.0f);
    assert_true(g.step.sharpness[5] == 2.0f); // the row that the first token comes from
    assert_int_equal(g.step.targets[5], -1);
    assert_int_equal(g.step.may_ask, 1);
    rig_run(&g);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_wanted, 1);
    rig_run(&g);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_request_for_nothing_ends_with_its_prompt(void **state)
{
    rig g = {0};
    tsr_request *none, *full;

    (void)state;
    rig_init(&g, &roomy);
    none = rig_submit(&g, 1, 5, 0);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_wanted, 0);
    rig_run(&g);
    assert_int_equal(none->reason, TSR_REASON_LENGTH);
    assert_int_equal(none->n_tokens, 5);

    full = rig_request(2, MAX_PROMPT, 1000); // 16 tokens more fill the context
    full->ignore_end = true;
    assert_int_equal(tsr_scheduler_submit(g.scheduler, full), TSR_OK);
    while (full->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(full->n_tokens, 80);
    assert_int_equal(full->reason, TSR_REASON_LENGTH);
    rig_finish(&g);
    rig_clear(&g);
}

static void candidates_and_questions_follow_the_rows_that_sample(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *greedy, *top_k, *open;

    (void)state;
    options.max_batch_tokens = 40;
    rig_init(&g, &options);
    greedy = rig_submit(&g, 1, 3, 9);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_best, 1);
    assert_int_equal(g.step.may_ask, 0);
    rig_run(&g);
    top_k = rig_submit(&g, 2, 3, 9);
    top_k->sampling.temperature = 1.0f;
    top_k->sampling.top_k = 20;
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_best, 20);
    assert_int_equal(g.step.may_ask, 0);
    rig_run(&g);
    open = rig_submit(&g, 3, 45, 9);
    open->sampling.temperature = 1.0f;
    assert_true(rig_plan(&g)); // not all of its prompt is in: nothing of it is sampled
    assert_int_equal(g.step.n_seqs, 3);
    assert_int_equal(g.step.n_best, 20);
    assert_int_equal(g.step.may_ask, 0);
    rig_run(&g);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_best, VOCAB); // 64, of a vocabulary of 50
    assert_int_equal(g.step.may_ask, 1);
    rig_run(&g);
    (void)greedy;
    rig_finish(&g);
    rig_clear(&g);
}

/* ---- cancelling ---- */

static void cancelled_requests_leave_wherever_they_are(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *r[6];

    (void)state;
    options.max_seqs = 3;
    options.max_batch_tokens = 12;
    rig_init(&g, &options);
    for (int i = 0; i < 6; i++) {
        r[i] = rig_submit(&g, i, 4, 30);
    }
    assert_true(rig_step(&g)); // 0, 1 and 2 run
    tsr_scheduler_cancel(g.scheduler, r[4]);
    tsr_scheduler_cancel(g.scheduler, r[1]);
    tsr_scheduler_cancel(g.scheduler, r[1]); // once is enough
    assert_ptr_equal(rig_take_ended(&g), r[4]);
    assert_ptr_equal(rig_take_ended(&g), r[1]);
    assert_null(rig_take_ended(&g));
    assert_int_equal(r[1]->reason, TSR_REASON_CANCELLED);
    tsr_request_destroy(r[1]);
    tsr_request_destroy(r[4]);

    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_dropped, 1);
    tsr_scheduler_cancel(g.scheduler, r[0]); // while its step is out
    assert_null(rig_take_ended(&g));
    assert_ptr_equal(tsr_scheduler_request_of(g.scheduler, 0), r[0]);
    rig_run(&g);
    assert_int_equal(r[0]->n_tokens, 5); // the token of that step is not its any more
    assert_ptr_equal(tsr_scheduler_request_of(g.scheduler, 0), r[0]);
    assert_ptr_equal(rig_take_ended(&g), r[0]);
    assert_null(tsr_scheduler_request_of(g.scheduler, 0));
    tsr_request_destroy(r[0]);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_block_freed_and_given_again_in_one_step_is_in_both_lists(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *r;

    (void)state;
    options.n_blocks = 2;
    rig_init(&g, &options);
    r = rig_submit(&g, 1, 8, 1);
    assert_true(rig_step(&g));
    (void)rig_submit(&g, 2, 8, 1);
    assert_ptr_equal(rig_take_ended(&g), r);
    tsr_request_destroy(r);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_dropped, 2);
    assert_int_equal(g.step.n_appended, 2);
    rig_run(&g);
    assert_int_equal(g.ranks.n_given_over, 2);
    rig_finish(&g);
    rig_clear(&g);
}

/* ---- what is refused ---- */

static void requests_that_cannot_be_served_are_refused(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *r;

    (void)state;
    options.n_blocks = 5;
    options.context = 30;
    rig_init(&g, &options);

    r = rig_request(1, 31, 1);
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_ARG);
    tsr_request_destroy(r);
    r = rig_request(1, 21, 1);
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_UNSUPPORTED);
    assert_non_null(strstr(tsr_status_message(), "at most 20 tokens"));
    tsr_request_destroy(r);
    r = rig_request(1, 5, 1);
    r->tokens[3] = VOCAB;
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_ARG);
    r->tokens[3] = -1;
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_ARG);
    r->tokens[3] = 0;
    r->sampling.top_p = 2.0f;
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_ARG);
    tsr_request_destroy(r);
    assert_true(tsr_scheduler_is_idle(g.scheduler));
    assert_int_equal(tsr_request_create(&r, NULL, 0, 5), TSR_ERR_ARG);
    assert_int_equal(tsr_request_create(&r, (const int32_t[]){1}, 1, -5), TSR_ERR_ARG);
    rig_clear(&g);

    options.max_seqs = 0;
    assert_int_equal(tsr_scheduler_create(&g.scheduler, &options), TSR_ERR_ARG);
    options = roomy;
    options.context = INT64_MAX;
    assert_int_equal(tsr_scheduler_create(&g.scheduler, &options), TSR_ERR_ARG);
}

static void what_is_left_at_the_end_stays_its_owners(void **state)
{
    rig g = {0};
    tsr_request *r[6];

    (void)state;
    rig_init(&g, &roomy);
    for (int i = 0; i < 6; i++) {
        r[i] = rig_submit(&g, i, 6, 1 + i);
    }
    for (int i = 0; i < 4; i++) {
        (void)rig_step(&g);
    }
    rig_clear(&g);
    for (int i = 0; i < 6; i++) {
        tsr_request_destroy(r[i]);
    }
}

/* ---- memory ---- */

static tsr_status make_and_drop(void *ctx)
{
    tsr_scheduler *scheduler = NULL;

    (void)ctx;
    TSR_TRY(tsr_scheduler_create(&scheduler, &roomy));
    tsr_scheduler_destroy(scheduler);
    return TSR_OK;
}

static tsr_status request_and_drop(void *ctx)
{
    const int32_t prompt[3] = {1, 2, 3};
    tsr_request *r = NULL;

    (void)ctx;
    TSR_TRY(tsr_request_create(&r, prompt, 3, 10));
    tsr_request_destroy(r);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_int_equal(torture(make_and_drop, NULL), 21); // the record, 6 of the pool, 14 arrays
    assert_int_equal(torture(request_and_drop, NULL), 2);
}

static void without_memory_a_request_fails_and_the_others_go_on(void **state)
{
    rig g = {0};
    tsr_request *a, *b;

    (void)state;
    rig_init(&g, &roomy);
    a = rig_submit(&g, 1, 4, 40);
    b = rig_submit(&g, 2, 4, 40);
    tsr_alloc_fail_nth(2); // the list of b's blocks
    assert_true(rig_plan(&g));
    tsr_alloc_fail_nth(0);
    rig_run(&g);
    assert_int_equal(b->reason, TSR_REASON_FAILED);
    assert_non_null(strstr(b->error, "memory"));
    assert_int_equal(a->state, TSR_REQUEST_RUNNING);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_long_answer_finds_memory_as_it_grows(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *r;

    (void)state;
    options.context = 5000;
    options.n_blocks = 1300;
    rig_init(&g, &options);
    r = rig_submit(&g, 1, 2, 2000);
    assert_true(r->capacity < 200);
    while (r->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(r->n_tokens, 2002);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_step_is_no_larger_for_longer_sequences(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *r;
    size_t n_ints[2] = {0}; // of steps with a new block, and without

    (void)state;
    options.context = 5000;
    options.n_blocks = 1300;
    options.prefix_cache = true;
    rig_init(&g, &options);
    g.ranks.shares = true;
    r = rig_submit(&g, 1, 3, 2000);
    assert_true(rig_step(&g)); // the prompt
    while (rig_step(&g) && r->state != TSR_REQUEST_ENDED) {
        size_t *n = &n_ints[g.step.n_appended];

        *n = *n == 0 ? tsr_step_n_ints(&g.step) : *n;
        assert_int_equal(tsr_step_n_ints(&g.step), *n);
    }
    assert_int_equal(n_ints[1], n_ints[0] + 3);
    rig_finish(&g);
    rig_clear(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_goes_in_chunks_and_then_a_token_a_step),
        cmocka_unit_test(decoding_sequences_come_before_prompts_and_prompts_in_order),
        cmocka_unit_test(no_more_run_than_there_are_lanes),
        cmocka_unit_test(the_youngest_is_put_back_and_its_tokens_do_not_change),
        cmocka_unit_test(a_newcomer_leaves_a_block_for_each_that_runs),
        cmocka_unit_test(a_request_that_outgrows_the_pool_alone_fails_in_words),
        cmocka_unit_test(a_score_request_wants_every_row_of_its_prompt),
        cmocka_unit_test(a_score_request_may_generate_too),
        cmocka_unit_test(a_request_for_nothing_ends_with_its_prompt),
        cmocka_unit_test(candidates_and_questions_follow_the_rows_that_sample),
        cmocka_unit_test(cancelled_requests_leave_wherever_they_are),
        cmocka_unit_test(a_block_freed_and_given_again_in_one_step_is_in_both_lists),
        cmocka_unit_test(requests_that_cannot_be_served_are_refused),
        cmocka_unit_test(what_is_left_at_the_end_stays_its_owners),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
        cmocka_unit_test(without_memory_a_request_fails_and_the_others_go_on),
        cmocka_unit_test(a_step_is_no_larger_for_longer_sequences),
        cmocka_unit_test(a_long_answer_finds_memory_as_it_grows),
    };

    return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
