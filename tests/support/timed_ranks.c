#include "tests/support/timed_ranks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"

void timed_ranks_init(timed_ranks *t, const machine *m, const tsr_scheduler_options *options)
{
    tsr_step_limits limits;

    *t = (timed_ranks){.machine = *m, .dice = 1, .now_ns = 1};
    assert_int_equal(tsr_scheduler_create(&t->scheduler, options), TSR_OK);
    limits = tsr_scheduler_step_limits(t->scheduler);
    assert_int_equal(tsr_step_init(&t->step, &limits), TSR_OK);
    t->next = tsr_alloc((size_t)options->max_seqs, sizeof(*t->next));
    assert_non_null(t->next);
    for (int i = 0; i < options->max_seqs; i++) {
        t->next[i] = 1;
    }
}

void timed_ranks_clear(timed_ranks *t)
{
    tsr_scheduler_destroy(t->scheduler);
    tsr_step_clear(&t->step);
    tsr_free(t->next);
}

tsr_request *timed_ranks_submit(timed_ranks *t, int64_t n_prompt, int max_tokens, int priority)
{
    int32_t *prompt = tsr_alloc((size_t)n_prompt, sizeof(*prompt));
    tsr_request *r = NULL;
    tsr_status st;

    assert_non_null(prompt);
    assert_int_equal(tsr_request_create(&r, prompt, n_prompt, max_tokens), TSR_OK);
    tsr_free(prompt);
    r->ignore_end = true;
    r->priority = priority;
    r->submitted_ns = t->now_ns;
    st = tsr_scheduler_submit(t->scheduler, r);
    if (st != TSR_OK) {
        assert_int_equal(st, TSR_ERR_FULL);
        tsr_request_destroy(r);
        return NULL;
    }
    return r;
}

/* What the step takes, or would take if only those in it that generate were. */
static double step_us(const timed_ranks *t, bool prompts_too)
{
    const machine *m = &t->machine;
    double n_places = 0;
    double compute_us = 0;

    for (int s = 0; s < t->step.n_seqs; s++) {
        const tsr_request *r = tsr_scheduler_request_of(t->scheduler, s);
        const int n_rows = t->step.row_start[s + 1] - t->step.row_start[s];

        if (prompts_too || r->n_cached >= r->n_prompt) {
            n_places += (t->step.first_pos[s] + n_rows / 2.0) * n_rows;
            compute_us += m->row_us * n_rows;
        }
    }
    return m->fixed_us + (compute_us > m->read_us ? compute_us : m->read_us) +
           m->place_us * n_places;
}

static bool never(void *ctx, int32_t token)
{
    (void)ctx;
    (void)token;
    return false;
}

bool timed_ranks_step(timed_ranks *t)
{
    if (!tsr_scheduler_plan(t->scheduler, &t->step, t->now_ns)) {
        return false;
    }
    if (t->step.n_seqs > 0) {
        t->last_us =
            step_us(t, true) * (1.0 + t->machine.noise * (2.0 * dice_unit(&t->dice) - 1.0));
        t->usual_us = step_us(t, false);
    }
    t->now_ns += t->step.n_seqs > 0 ? (int64_t)(t->last_us * 1e3) : 0;
    tsr_scheduler_commit(t->scheduler, &t->step, t->next, never, NULL, t->now_ns);
    if (!t->mute && t->step.n_seqs > 0) {
        tsr_scheduler_note_time(t->scheduler, tsr_scheduler_load_of(t->scheduler),
                                (int64_t)t->last_us);
    }
    return true;
}
