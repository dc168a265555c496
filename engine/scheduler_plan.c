#include <assert.h>
#include <limits.h>

#include "engine/admission.h"
#include "engine/scheduler_state.h"

/* Does it get a token from a step that brings its cache to n_cached? */
static bool samples_at(const tsr_scheduler *s, const tsr_request *r, int64_t n_cached)
{
    return n_cached == r->n_tokens && r->n_tokens < tsr_scheduler_longest(s, r);
}

/* More than it could ever have. */
static bool is_too_long(const tsr_scheduler *s, const tsr_request *r)
{
    return tsr_block_groups_held(&s->groups, r->n_cached, r->n_cached + 1) >
           tsr_admission_most_blocks(&s->options);
}

/* How many of `want` rows more there is room for: free blocks, or some that only the prefix index
 * has, and the device's account. *is_device: it is the device that sets the limit. */
static int64_t room_for_rows(tsr_scheduler *s, const tsr_request *r, int64_t want, bool *is_device)
{
    const int bt = s->options.block_tokens;
    const int n = s->groups.n;
    const int64_t n_had = r->blocks.n_columns;
    const int n_copies = tsr_scheduler_blocks_must_copy(s, r) ? n : 0;
    const int64_t n_needed =
        (tsr_block_table_blocks_for(r->n_cached + want, bt) - n_had) * n + n_copies;
    const int64_t n_device = tsr_scheduler_rest_room(s, r) - r->blocks.n_blocks; // more of them
    int64_t n_more, fit;

    tsr_scheduler_prefix_make_room(s, n_needed < n_device ? n_needed : n_device);
    n_more = tsr_block_pool_n_free(s->pool) - n_copies;
    *is_device = n_device < n_more;
    n_more = *is_device ? n_device : n_more;
    // Less than nothing is less than the columns that are there.
    fit = (n_had + (n_more >= 0 ? n_more / n : -n_had)) * bt - r->n_cached;
    return want < fit ? want : fit;
}

/* The last resort of the first of those that can go on: it shares its last block and there is none
 * left to copy that into. It does without, and computes its tokens again. */
static bool give_up_tail(tsr_scheduler *s, int i)
{
    tsr_request *r = s->running[i];

    if (!tsr_scheduler_rest_is_first(s, i) || !tsr_scheduler_blocks_must_copy(s, r)) {
        return false;
    }
    r->n_cached -= r->n_cached % s->options.block_tokens;
    tsr_scheduler_blocks_ungrow(s, r);
    tsr_scheduler_prefix_shrink(s, r);
    return true;
}

/*
 * Give the i-th running request up to `want` rows and the blocks for them, taking room from others
 * while there is none for a single row. It may end instead. Returns where the one behind it is
 * then.
 */
static int give_rows(tsr_scheduler *s, int i, int64_t want, int *budget)
{
    const int bt = s->options.block_tokens;
    tsr_request *r = s->running[i];
    const int64_t n_writable = (int64_t)(s->n_writes / s->groups.n) * bt - r->n_cached % bt;
    bool is_device;
    int64_t fit;

    if (is_too_long(s, r)) {
        tsr_scheduler_fail(
            s, r,
            "the sequence has grown to %lld tokens, more than the %d cache blocks of %d tokens "
            "hold",
            (long long)r->n_tokens, tsr_admission_most_blocks(&s->options), bt);
        return i;
    }
    want = want < n_writable ? want : n_writable;
    if (want <= 0) {
        return i + 1; // in the next step
    }
    do {
        fit = room_for_rows(s, r, want, &is_device);
    } while (fit <= 0 &&
             (tsr_scheduler_rest_make_room(s, &i, is_device, budget) || give_up_tail(s, i)));
    want = fit;
    if (want <= 0) {
        return i + 1; // nobody behind it: wait with what is there
    }
    if (tsr_scheduler_blocks_grow(s, r, want) != TSR_OK) {
        // The blocks are there, memory to list them is not.
        tsr_scheduler_fail(s, r, "%s", tsr_status_message());
        return i;
    }
    s->n_writes -= (int)tsr_block_table_blocks_for(r->n_cached % bt + want, bt) * s->groups.n;
    s->rows[i] = (int)want;
    *budget -= (int)want;
    return i + 1;
}

/* Rows for those that run, by standing: decoding ones, or those with more tokens to compute. */
static void plan_running(tsr_scheduler *s, bool decoding, int *budget)
{
    int i = 0;

    while (i<s->n_running && * budget> 0) {
        tsr_request *r = s->running[i];
        const int64_t ahead = tsr_scheduler_n_ahead(r);

        if ((ahead == 1) == decoding && !r->is_held && tsr_scheduler_rest_is_awake(s, r)) {
            i = give_rows(s, i, ahead < *budget ? ahead : *budget, budget);
        } else {
            i++;
        }
    }
}

/* Is there a lane and room for the first of those that wait, which finds so much of itself in the
 * cache? One column in hand for each that runs: else a newcomer would soon be put back for it. */
static bool has_place(tsr_scheduler *s, const tsr_request *r, const tsr_prefix_match *match)
{
    const int64_t n_had = match->n_tokens / s->options.block_tokens + r->blocks.n_columns;
    const int64_t n_needed = tsr_block_groups_most(&s->groups, r->n_tokens, n_had) +
                             (tsr_scheduler_blocks_must_copy(s, r) ? s->groups.n : 0) +
                             tsr_scheduler_prefix_n_idle(s, match);
    const int64_t n_in_hand = (int64_t)s->n_running * s->groups.n;

    return s->n_running == 0 || (s->n_running < s->options.max_seqs &&
                                 n_needed + n_in_hand <= tsr_scheduler_prefix_n_free(s) &&
                                 tsr_scheduler_rest_fits(s, r));
}

/* Newcomers, as far as there are rows left for them; all prompts that run have been given theirs.
 */
static void admit(tsr_scheduler *s, int *budget)
{
    while (s->waiting.n_items > 0 && *budget > 0) {
        tsr_request *r = tsr_request_heap_first(&s->waiting);
        tsr_prefix_match match = {.node = TSR_PREFIX_NONE};
        int64_t n_ahead;
        int i;

        if (r->n_cached == 0) {
            match = tsr_scheduler_prefix_find(s, r);
        }
        if (!has_place(s, r, &match)) {
            if (!tsr_scheduler_rest_make_way(s, r)) {
                return;
            }
            continue;
        }
        tsr_scheduler_wait_no_more(s, r);
        if (match.n_columns > 0 && tsr_scheduler_prefix_attach(s, r, &match) != TSR_OK) {
            match.n_tokens = 0; // without memory to list them the blocks are not shared
        }
        if (match.n_columns > 0 && r->n_preempted == 0) {
            r->n_reused = match.n_tokens < r->n_prompt ? match.n_tokens : r->n_prompt;
        }
        i = tsr_scheduler_start(s, r);
        r->wakes = s->is_tiered && r->n_cached > 0;
        n_ahead = tsr_scheduler_n_ahead(r);
        if (!r->wakes) {
            (void)give_rows(s, i, n_ahead < *budget ? n_ahead : *budget, budget);
        }
    }
}

/* The wanted rows of a sequence whose rows start at first_row of the step. */
static void write_wanted(const tsr_request *r, tsr_step *step, int first_row, bool samples)
{
    const int n_rows = step->n_rows - first_row;

    for (int k = r->score ? 0 : n_rows - 1; k < n_rows; k++) {
        const int64_t pos = r->n_cached + k;
        const bool is_sampled = samples && k == n_rows - 1;
        const bool is_scored = r->score && pos >= r->n_scored && pos < r->n_prompt;

        if (is_sampled || is_scored) {
            step->wanted[step->n_wanted] = first_row + k;
            step->targets[step->n_wanted] =
                is_scored && pos + 1 < r->n_prompt ? r->tokens[pos + 1] : -1;
            step->sharpness[step->n_wanted] =
                is_sampled ? tsr_sampler_sharpness(&r->sampling) : 1.0f;
            step->n_wanted++;
        }
    }
}

/* False: the request ended instead. */
static bool write_sequence(tsr_scheduler *s, tsr_request *r, int n_rows, tsr_step *step)
{
    const int seq = step->n_seqs;
    const int first_row = step->n_rows;
    const bool samples = samples_at(s, r, r->n_cached + n_rows);

    if (tsr_scheduler_blocks_tell(s, r, step) != TSR_OK) {
        tsr_scheduler_fail(s, r, "%s", tsr_status_message());
        return false;
    }
    for (int k = 0; k < n_rows; k++) {
        step->tokens[step->n_rows++] = r->tokens[r->n_cached + k];
    }
    step->row_start[seq + 1] = step->n_rows;
    step->n_seqs++;
    step->first_pos[seq] = (int32_t)r->n_cached;
    step->lanes[seq] = r->lane;
    step->is_long[seq] = s->options.long_from > 0 && r->n_tokens > s->options.long_from;
    write_wanted(r, step, first_row, samples);
    if (samples) {
        const int n = tsr_sampler_n_candidates(&r->sampling);

        step->n_best = n > step->n_best ? n : step->n_best;
        step->may_ask |= tsr_sampler_may_ask(&r->sampling) ? 1 : 0;
    }
    s->planned[seq] = r;
    s->samples[seq] = samples;
    s->ends_as[seq] = TSR_REASON_NONE;
    return true;
}

static void end_overdue(tsr_scheduler *s)
{
    for (;;) {
        tsr_request *r = tsr_request_heap_first(&s->deadlines);

        if (r == NULL || r->deadline_ns > s->now_ns) {
            return;
        }
        tsr_scheduler_end(s, r, TSR_REASON_DEADLINE);
    }
}

/* Rows for all who get some: decoding ones first, then prompts as far as the pace allows. */
static void give_all_rows(tsr_scheduler *s)
{
    int budget = s->options.max_batch_tokens;
    const int n_waiting = s->waiting.n_items;
    int n_decoding;

    for (int i = 0; i < s->n_running; i++) {
        s->rows[i] = 0;
    }
    s->n_writes = s->is_tiered ? s->claim_most : INT_MAX;
    plan_running(s, true, &budget);
    n_decoding = s->options.max_batch_tokens - budget; // a row each
    budget = tsr_pace_prompt_rows(&s->pace, n_decoding, budget, (double)s->options.target_itl_us);
    plan_running(s, false, &budget);
    if (s->waiting.n_items == n_waiting) {
        admit(s, &budget); // not in a step that put somebody back
    }
}

bool tsr_scheduler_plan(tsr_scheduler *s, tsr_step *step, int64_t now_ns)
{
    int i = 0;

    assert(!s->is_out);
    s->now_ns = now_ns > s->now_ns ? now_ns : s->now_ns;
    tsr_step_reset(step);
    end_overdue(s);
    give_all_rows(s);
    s->load = (tsr_scheduler_load){0};
    while (i < s->n_running) {
        const bool decodes = tsr_scheduler_n_ahead(s->running[i]) == 1;

        if (s->rows[i] == 0) {
            i++;
        } else if (write_sequence(s, s->running[i], s->rows[i], step)) {
            s->load.n_decoding += decodes ? 1 : 0;
            i++;
        }
    }
    step->n_best = step->n_best < s->options.n_vocab ? step->n_best : s->options.n_vocab;
    s->n_planned = step->n_seqs;
    s->load.n_prompt_rows = step->n_rows - s->load.n_decoding;
    s->is_out = step->n_seqs > 0;
    tsr_scheduler_rest_tell(s, step);
    // Lanes that were left are told with the next step that there is for another reason.
    if (step->n_seqs == 0 && s->n_dropped == 0 && step->n_appended == 0 && step->waits == 0) {
        return false;
    }
    tsr_scheduler_blocks_tell_free(s, step);
    return true;
}
