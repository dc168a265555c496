#include "tests/support/scheduler_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/dice.h"

const tsr_scheduler_options roomy = {
    .max_batch_tokens = 8,
    .max_seqs = 4,
    .block_tokens = 4,
    .n_blocks = 100,
    .context = 80,
    .n_vocab = VOCAB,
};

static bool ends(void *ctx, int32_t token)
{
    (void)ctx;
    return token == END_TOKEN;
}

void rig_init(rig *g, const tsr_scheduler_options *options)
{
    tsr_step_limits limits;

    assert_true(options->max_seqs <= MAX_SEQS);
    g->options = *options;
    assert_int_equal(tsr_scheduler_create(&g->scheduler, options), TSR_OK);
    limits = tsr_scheduler_step_limits(g->scheduler);
    assert_int_equal(tsr_step_init(&g->step, &limits), TSR_OK);
    assert_int_equal(tsr_step_init(&g->ahead, &limits), TSR_OK);
    fake_ranks_init(&g->ranks, &limits, options->context);
    g->ranks.is_tiered = options->n_device_blocks > 0;
}

void rig_clear(rig *g)
{
    tsr_scheduler_destroy(g->scheduler);
    tsr_step_clear(&g->step);
    tsr_step_clear(&g->ahead);
    fake_ranks_clear(&g->ranks);
}

bool rig_plan(rig *g)
{
    bool busy = true;

    if (g->is_ahead) {
        const tsr_step used = g->step;

        g->step = g->ahead;
        g->ahead = used;
        g->is_ahead = false;
    } else {
        busy = tsr_scheduler_plan(g->scheduler, &g->step, ++g->now_ns);
    }
    assert_true(tsr_scheduler_verify(g->scheduler));
    assert_true(g->step.n_rows <= g->options.max_batch_tokens);
    assert_int_equal(busy, g->step.n_seqs > 0 || g->step.n_dropped > 0 || g->step.n_appended > 0 ||
                               g->step.waits != 0);
    assert_true(g->step.n_seqs > 0 || g->step.n_rows == 0);
    return busy;
}

/* What the ranks bring comes when the next step is planned already. */
static void run_ahead(rig *g)
{
    tsr_request *requests[MAX_SEQS];
    int32_t later[MAX_SEQS];

    for (int s = 0; s < g->step.n_seqs; s++) {
        requests[s] = tsr_scheduler_samples(g->scheduler, s)
                          ? tsr_scheduler_request_of(g->scheduler, s)
                          : NULL;
        later[s] = TSR_SCHEDULER_LATER;
    }
    tsr_scheduler_commit(g->scheduler, &g->step, later, ends, NULL, ++g->now_ns);
    assert_true(tsr_scheduler_verify(g->scheduler));
    g->is_ahead = tsr_scheduler_plan(g->scheduler, &g->ahead, ++g->now_ns);
    assert_true(tsr_scheduler_verify(g->scheduler));
    for (int s = 0; s < g->step.n_seqs; s++) {
        if (requests[s] != NULL) {
            tsr_scheduler_settle(g->scheduler, requests[s], g->ranks.next[s], ends, NULL, g->now_ns,
                                 g->is_ahead ? &g->ahead : NULL);
        }
    }
    assert_true(tsr_scheduler_verify(g->scheduler));
    g->n_ahead++;
}

void rig_run(rig *g)
{
    fake_ranks_run(&g->ranks, g->scheduler, &g->step);
    g->now_ns++;
    if (g->plans_ahead && tsr_scheduler_may_plan_ahead(g->scheduler, &g->step)) {
        run_ahead(g);
        return;
    }
    if (g->ranks.report.is_spoilt) {
        tsr_scheduler_void(g->scheduler, g->now_ns);
    } else {
        tsr_scheduler_commit(g->scheduler, &g->step, g->ranks.next, ends, NULL, g->now_ns);
    }
    if (g->ranks.is_tiered) {
        tsr_scheduler_note_report(g->scheduler, &g->ranks.report);
    }
    assert_true(tsr_scheduler_verify(g->scheduler));
}

/* One step; false when there was none. */
bool rig_step(rig *g)
{
    if (!rig_plan(g)) {
        return false;
    }
    rig_run(g);
    return true;
}

tsr_request *rig_request(int64_t id, int64_t n_prompt, int max_tokens)
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

tsr_request *rig_submit(rig *g, int64_t id, int64_t n_prompt, int max_tokens)
{
    tsr_request *r = rig_request(id, n_prompt, max_tokens);

    r->ignore_end = true;
    r->submitted_ns = g->now_ns;
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
    assert_true(r->ended_ns >= r->submitted_ns);
    assert_int_equal(r->first_token_ns > 0, r->n_tokens > r->n_prompt);
}

tsr_request *rig_take_ended(rig *g)
{
    tsr_request *r = tsr_scheduler_take_ended(g->scheduler);

    if (r != NULL) {
        assert_as_if_alone(g, r);
    }
    return r;
}

/* Run until all have ended, and throw them away. */
void rig_finish(rig *g)
{
    tsr_request *r;

    for (int n_steps = 0; !tsr_scheduler_is_idle(g->scheduler); n_steps++) {
        assert_true(n_steps < 20000);
        (void)rig_step(g);
    }
    while ((r = rig_take_ended(g)) != NULL) {
        tsr_request_destroy(r);
    }
    assert_int_equal(tsr_scheduler_n_free_blocks(g->scheduler), g->options.n_blocks);
}
