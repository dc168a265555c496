#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/fake_ranks.h"
#include "tests/support/torture.h"

enum {
    VOCAB = 50,
    END_TOKEN = 7,
    MAX_PROMPT = 64
};

static bool ends(void *ctx, int32_t token)
{
    (void)ctx;
    return token == END_TOKEN;
}

/* A scheduler with the ranks below it. */
typedef struct rig {
    tsr_scheduler_options options;
    tsr_scheduler *scheduler;
    tsr_step step;
    fake_ranks ranks;
} rig;

static void rig_init(rig *g, const tsr_scheduler_options *options)
{
    tsr_step_limits limits;

    g->options = *options;
    assert_int_equal(tsr_scheduler_create(&g->scheduler, options), TSR_OK);
    limits = tsr_scheduler_step_limits(g->scheduler);
    assert_int_equal(tsr_step_init(&g->step, &limits), TSR_OK);
    fake_ranks_init(&g->ranks, &limits, options->context);
}

static void rig_clear(rig *g)
{
    tsr_scheduler_destroy(g->scheduler);
    tsr_step_clear(&g->step);
    fake_ranks_clear(&g->ranks);
}

static bool rig_plan(rig *g)
{
    const bool busy = tsr_scheduler_plan(g->scheduler, &g->step);

    assert_true(tsr_scheduler_verify(g->scheduler));
    assert_true(g->step.n_rows <= g->options.max_batch_tokens);
    assert_int_equal(busy, g->step.n_seqs > 0 || g->step.n_dropped > 0);
    return busy;
}

static void rig_run(rig *g)
{
    fake_ranks_run(&g->ranks, g->scheduler, &g->step);
    tsr_scheduler_commit(g->scheduler, &g->step, g->ranks.next, ends, NULL);
    assert_true(tsr_scheduler_verify(g->scheduler));
}

/* One step; false when there was none. */
static bool rig_step(rig *g)
{
    if (!rig_plan(g)) {
        return false;
    }
    rig_run(g);
    return true;
}

static tsr_request *make_request(int64_t id, int64_t n_prompt, int max_tokens)
{
    int32_t prompt[MAX_PROMPT];
    uint64_t dice = (uint64_t)id;
    tsr_request *r = NULL;

    assert_true(n_prompt <= MAX_PROMPT);
    for (int64_t i = 0; i < n_prompt; i++) {
        prompt[i] = dice_below(&dice, VOCAB);
    }
    assert_int_equal(tsr_request_create(&r, prompt, n_prompt, max_tokens), TSR_OK);
    r->id = id;
    return r;
}

static tsr_request *submit(rig *g, int64_t id, int64_t n_prompt, int max_tokens)
{
    tsr_request *r = make_request(id, n_prompt, max_tokens);

    r->ignore_end = true;
    assert_int_equal(tsr_scheduler_submit(g->scheduler, r), TSR_OK);
    return r;
}

/* Its tokens are those it would have had alone, however it was scheduled. */
static void assert_as_if_alone(const rig *g, const tsr_request *r)
{
    int64_t n = r->n_prompt;

    for (; n < r->n_tokens; n++) {
        assert_int_equal(r->tokens[n], fake_ranks_next(r->tokens, n, VOCAB));
        assert_true(r->ignore_end || r->tokens[n] != END_TOKEN);
    }
    if (r->reason == TSR_REASON_LENGTH) {
        const int64_t most = r->n_prompt + r->max_tokens;

        assert_int_equal(n, most < g->options.context ? most : g->options.context);
    } else if (r->reason == TSR_REASON_STOP) {
        assert_false(r->ignore_end);
        assert_int_equal(fake_ranks_next(r->tokens, n, VOCAB), END_TOKEN);
    }
    assert_int_equal(r->state, TSR_REQUEST_ENDED);
    assert_int_equal(r->blocks.n_blocks, 0);
    assert_true(r->ended_ns >= r->submitted_ns && r->submitted_ns > 0);
    assert_int_equal(r->first_token_ns > 0, r->n_tokens > r->n_prompt);
}

static tsr_request *take_ended(rig *g)
{
    tsr_request *r = tsr_scheduler_take_ended(g->scheduler);

    if (r != NULL) {
        assert_as_if_alone(g, r);
    }
    return r;
}

/* Run until all have ended, and throw them away. */
static void finish(rig *g)
{
    tsr_request *r;

    for (int n_steps = 0; !tsr_scheduler_is_idle(g->scheduler); n_steps++) {
        assert_true(n_steps < 20000);
        (void)rig_step(g);
    }
    while ((r = take_ended(g)) != NULL) {
        tsr_request_destroy(r);
    }
    assert_int_equal(tsr_scheduler_n_free_blocks(g->scheduler), g->options.n_blocks);
}

static const tsr_scheduler_options roomy = {
    .max_batch_tokens = 8,
    .max_seqs = 4,
    .block_tokens = 4,
    .n_blocks = 100,
    .context = 80,
    .n_vocab = VOCAB,
};

/* ---- one thing at a time ---- */

static void a_prompt_goes_in_chunks_and_then_a_token_a_step(void **state)
{
    static const int rows[] = {8, 8, 4, 1, 1, 1};
    rig g = {0};
    tsr_request *r;

    (void)state;
    rig_init(&g, &roomy);
    r = submit(&g, 1, 20, 4);
    for (int i = 0; i < 6; i++) {
        assert_true(rig_plan(&g));
        assert_int_equal(g.step.n_seqs, 1);
        assert_int_equal(g.step.n_rows, rows[i]);
        assert_int_equal(g.step.n_wanted, i >= 2 ? 1 : 0);
        assert_int_equal(g.step.n_appended, i < 2 ? 2 : i == 2 || i == 3 ? 1 : 0);
        rig_run(&g);
        assert_int_equal(r->n_tokens, i < 2 ? 20 : 20 + i - 1);
    }
    assert_ptr_equal(take_ended(&g), r);
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
    a = submit(&g, 1, 10, 20);
    b = submit(&g, 2, 12, 20);
    c = submit(&g, 3, 3, 20);
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
    finish(&g);
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
        (void)submit(&g, i, 3, 5);
    }
    assert_true(rig_step(&g));
    assert_int_equal(g.step.n_seqs, 4);
    assert_int_equal(tsr_scheduler_n_running(g.scheduler), 4);
    assert_int_equal(tsr_scheduler_n_waiting(g.scheduler), 5);
    finish(&g);
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
    a = submit(&g, 1, 4, 24);
    b = submit(&g, 2, 4, 24);
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
    finish(&g);                          // compares the tokens
    rig_clear(&g);
}

static void a_newcomer_leaves_a_block_for_each_that_runs(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};

    (void)state;
    options.n_blocks = 4;
    rig_init(&g, &options);
    (void)submit(&g, 1, 4, 5);
    (void)submit(&g, 2, 4, 5);
    (void)submit(&g, 3, 4, 5);
    assert_true(rig_step(&g));
    assert_int_equal(tsr_scheduler_n_running(g.scheduler), 2); // 2 blocks are held, 2 in hand
    finish(&g);
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
    r = submit(&g, 1, 9, 40);
    while (r->state != TSR_REQUEST_ENDED) {
        (void)rig_step(&g);
    }
    assert_int_equal(r->reason, TSR_REASON_FAILED);
    assert_int_equal(r->n_tokens, 13); // 12 lie in the cache, the 13th was sampled from them
    assert_non_null(strstr(r->error, "3 cache blocks"));
    assert_string_equal(tsr_request_reason_name(r->reason), "error");
    finish(&g);
    rig_clear(&g);
}

static void a_score_request_wants_every_row_of_its_prompt(void **state)
{
    rig g = {0};
    tsr_request *r = make_request(5, 11, 0);
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
    finish(&g);
    rig_clear(&g);
}

static void a_score_request_may_generate_too(void **state)
{
    rig g = {0};
    tsr_request *r = make_request(5, 6, 3);

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
    finish(&g);
    rig_clear(&g);
}

static void a_request_for_nothing_ends_with_its_prompt(void **state)
{
    rig g = {0};
    tsr_request *none, *full;

    (void)state;
    rig_init(&g, &roomy);
    none = submit(&g, 1, 5, 0);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_wanted, 0);
    rig_run(&g);
    assert_int_equal(none->reason, TSR_REASON_LENGTH);
    assert_int_equal(none->n_tokens, 5);

    full = make_request(2, MAX_PROMPT, 1000); // 16 tokens more fill the context
    full->ignore_end = true;
    assert_int_equal(tsr_scheduler_submit(g.scheduler, full), TSR_OK);
    while (full->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(full->n_tokens, 80);
    assert_int_equal(full->reason, TSR_REASON_LENGTH);
    finish(&g);
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
    greedy = submit(&g, 1, 3, 9);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_best, 1);
    assert_int_equal(g.step.may_ask, 0);
    rig_run(&g);
    top_k = submit(&g, 2, 3, 9);
    top_k->sampling.temperature = 1.0f;
    top_k->sampling.top_k = 20;
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_best, 20);
    assert_int_equal(g.step.may_ask, 0);
    rig_run(&g);
    open = submit(&g, 3, 45, 9);
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
    finish(&g);
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
        r[i] = submit(&g, i, 4, 30);
    }
    assert_true(rig_step(&g)); // 0, 1 and 2 run
    tsr_scheduler_cancel(g.scheduler, r[4]);
    tsr_scheduler_cancel(g.scheduler, r[1]);
    tsr_scheduler_cancel(g.scheduler, r[1]); // once is enough
    assert_ptr_equal(take_ended(&g), r[4]);
    assert_ptr_equal(take_ended(&g), r[1]);
    assert_null(take_ended(&g));
    assert_int_equal(r[1]->reason, TSR_REASON_CANCELLED);
    tsr_request_destroy(r[1]);
    tsr_request_destroy(r[4]);

    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_dropped, 1);
    tsr_scheduler_cancel(g.scheduler, r[0]); // while its step is out
    assert_null(take_ended(&g));
    assert_ptr_equal(tsr_scheduler_request_of(g.scheduler, 0), r[0]);
    rig_run(&g);
    assert_int_equal(r[0]->n_tokens, 5); // the token of that step is not its any more
    assert_ptr_equal(tsr_scheduler_request_of(g.scheduler, 0), r[0]);
    assert_ptr_equal(take_ended(&g), r[0]);
    assert_null(tsr_scheduler_request_of(g.scheduler, 0));
    tsr_request_destroy(r[0]);
    finish(&g);
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
    r = submit(&g, 1, 8, 1);
    assert_true(rig_step(&g));
    (void)submit(&g, 2, 8, 1);
    assert_ptr_equal(take_ended(&g), r);
    tsr_request_destroy(r);
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_dropped, 2);
    assert_int_equal(g.step.n_appended, 2);
    rig_run(&g);
    assert_int_equal(g.ranks.n_given_over, 2);
    finish(&g);
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

    r = make_request(1, 31, 1);
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_ARG);
    tsr_request_destroy(r);
    r = make_request(1, 21, 1);
    assert_int_equal(tsr_scheduler_submit(g.scheduler, r), TSR_ERR_UNSUPPORTED);
    assert_non_null(strstr(tsr_status_message(), "at most 20 tokens"));
    tsr_request_destroy(r);
    r = make_request(1, 5, 1);
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

/* ---- everything at once ---- */

typedef struct tally {
    long n_ended[TSR_REASON_COUNT];
    long n_preempted;
    long n_given_over;
    long n_requests;
} tally;

static void hand_out(rig *g, tsr_request **live, int *n_live, tally *t)
{
    tsr_request *r;

    while ((r = take_ended(g)) != NULL) {
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
    tsr_request *r = make_request(id, 1 + dice_below(dice, dice_below(dice, 4) == 0 ? 40 : 12),
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
    oldest = submit(&g, 1, 40, 20);
    for (int i = 2; i < 8; i++) {
        (void)submit(&g, i, 9, 40);
    }
    while (oldest->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
        assert_true(oldest->state == TSR_REQUEST_ENDED || oldest->n_cached > cached);
        cached = oldest->n_cached;
    }
    assert_int_equal(oldest->n_preempted, 0);
    finish(&g);
    rig_clear(&g);
}

static void what_is_left_at_the_end_stays_its_owners(void **state)
{
    rig g = {0};
    tsr_request *r[6];

    (void)state;
    rig_init(&g, &roomy);
    for (int i = 0; i < 6; i++) {
        r[i] = submit(&g, i, 6, 1 + i);
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
    assert_int_equal(torture(make_and_drop, NULL), 12); // the record, 4 of the pool, 7 arrays
    assert_int_equal(torture(request_and_drop, NULL), 2);
}

static void without_memory_a_request_fails_and_the_others_go_on(void **state)
{
    rig g = {0};
    tsr_request *a, *b;

    (void)state;
    rig_init(&g, &roomy);
    a = submit(&g, 1, 4, 40);
    b = submit(&g, 2, 4, 40);
    tsr_alloc_fail_nth(2); // the list of b's blocks
    assert_true(rig_plan(&g));
    tsr_alloc_fail_nth(0);
    rig_run(&g);
    assert_int_equal(b->reason, TSR_REASON_FAILED);
    assert_non_null(strstr(b->error, "memory"));
    assert_int_equal(a->state, TSR_REQUEST_RUNNING);
    finish(&g);
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
    r = submit(&g, 1, 2, 2000);
    assert_true(r->capacity < 200);
    while (r->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(r->n_tokens, 2002);
    finish(&g);
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
        cmocka_unit_test(in_any_small_pool_all_requests_end_with_their_own_tokens),
        cmocka_unit_test(the_oldest_is_never_put_back_and_never_waits),
        cmocka_unit_test(what_is_left_at_the_end_stays_its_owners),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
        cmocka_unit_test(without_memory_a_request_fails_and_the_others_go_on),
        cmocka_unit_test(a_long_answer_finds_memory_as_it_grows),
    };

    return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
