/*
 * tests/bench_plan.c - what the leader's bookkeeping takes of a step: planning, packing,
 * committing, while many long sequences generate.
 *
 *     ninja -C build bench_plan && build/tests/bench_plan
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/scheduler.h"

enum {
    N_VOCAB = 50000,
    BLOCK_TOKENS = 64,
    N_STEPS = 512,     // eight blocks more for each sequence
    MOST_TOKENS = 1200 // generated; the first ones do while the last prompts are read
};

static bool never(void *ctx, int32_t token)
{
    (void)ctx;
    (void)token;
    return false;
}

static void need(tsr_status st)
{
    if (st != TSR_OK) {
        (void)fprintf(stderr, "%s\n", tsr_status_message());
        exit(1);
    }
}

static void submit_all(tsr_scheduler *scheduler, int n_seqs, int n_prompt)
{
    int32_t *prompt = tsr_alloc((size_t)n_prompt, sizeof(*prompt));

    for (int i = 0; i < n_seqs; i++) {
        tsr_request *r = NULL;

        for (int k = 0; k < n_prompt; k++) {
            prompt[k] = (i * 7919 + k) % N_VOCAB;
        }
        need(tsr_request_create(&r, prompt, n_prompt, MOST_TOKENS));
        r->ignore_end = true;
        need(tsr_scheduler_submit(scheduler, r));
    }
    tsr_free(prompt);
}

/* One layer in six sees everything, the others 1,024 positions. */
static const tsr_block_groups mixed = {.n = 6, .behind = {INT32_MAX, 16, 16, 16, 16, 16}};

static void measure(int n_seqs, int n_prompt, bool is_tiered, bool prefix_cache, bool is_mixed)
{
    const int n_blocks =
        n_seqs * ((n_prompt + MOST_TOKENS) / BLOCK_TOKENS + 2) * (is_mixed ? 2 : 1) + 1024;
    const tsr_scheduler_options options = {
        .groups = is_mixed ? mixed : (tsr_block_groups){0},
        .max_batch_tokens = 8192,
        .max_seqs = n_seqs,
        .block_tokens = BLOCK_TOKENS,
        .n_blocks = is_tiered ? 2 * n_blocks : n_blocks,
        .n_device_blocks = is_tiered ? n_blocks : 0,
        .context = n_prompt + MOST_TOKENS,
        .n_vocab = N_VOCAB,
        .prefix_cache = prefix_cache,
    };
    tsr_scheduler *scheduler = NULL;
    tsr_step step;
    tsr_step_limits limits;
    int32_t *next = tsr_alloc((size_t)n_seqs, sizeof(*next));
    int32_t *message = NULL;
    size_t longest = 0;
    int64_t plan_ns = 0, pack_ns = 0, commit_ns = 0, most_ns = 0, now = 0;
    tsr_request *r;

    need(tsr_scheduler_create(&scheduler, &options));
    limits = tsr_scheduler_step_limits(scheduler);
    need(tsr_step_init(&step, &limits));
    message = tsr_alloc(tsr_step_max_ints(&limits), sizeof(*message));
    submit_all(scheduler, n_seqs, n_prompt);
    for (int n = 0; n < N_STEPS;) {
        const int64_t began = tsr_clock_ns();
        const bool busy = tsr_scheduler_plan(scheduler, &step, ++now);
        const int64_t planned = tsr_clock_ns();
        const size_t n_ints = tsr_step_pack(&step, message);
        const int64_t packed = tsr_clock_ns();
        int64_t done;

        tsr_scheduler_commit(scheduler, &step, next, never, NULL, ++now);
        done = tsr_clock_ns();
        if (busy && step.n_rows == n_seqs) { // all generate
            n++;
            plan_ns += planned - began;
            pack_ns += packed - planned;
            commit_ns += done - packed;
            most_ns = done - began > most_ns ? done - began : most_ns;
            longest = n_ints > longest ? n_ints : longest;
        }
    }
    printf("%4d sequences of %6d tokens%s%s%s: plan %6.1f us, pack %5.1f us, commit %6.1f us; the "
           "slowest %6.1f us; messages to %zu bytes\n",
           n_seqs, n_prompt, is_tiered ? ", tiers" : "", prefix_cache ? ", prefix cache" : "",
           is_mixed ? ", windows" : "", (double)plan_ns / 1e3 / N_STEPS,
           (double)pack_ns / 1e3 / N_STEPS, (double)commit_ns / 1e3 / N_STEPS,
           (double)most_ns / 1e3, longest * sizeof(int32_t));
    while (!tsr_scheduler_is_idle(scheduler)) {
        (void)tsr_scheduler_plan(scheduler, &step, ++now);
        tsr_scheduler_commit(scheduler, &step, next, never, NULL, ++now);
    }
    while ((r = tsr_scheduler_take_ended(scheduler)) != NULL) {
        tsr_request_destroy(r);
    }
    tsr_free(message);
    tsr_free(next);
    tsr_step_clear(&step);
    tsr_scheduler_destroy(scheduler);
}

int main(void)
{
    measure(256, 8192, false, false, false);
    measure(256, 8192, false, true, false);
    measure(256, 8192, true, true, false);
    measure(16, 8192, false, true, false);
    measure(16, 131072, false, true, false);
    measure(256, 8192, false, true, true);
    measure(256, 8192, true, true, true);
    return 0;
}
