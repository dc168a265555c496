#include "engine/scheduler.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"
#include "engine/admission.h"
#include "engine/scheduler_state.h"
#include "engine/victim.h"

static const int64_t PRIORITY_NS = 10000000000; // 10 seconds

/* ---- life ---- */

size_t tsr_scheduler_table_bytes(int n_blocks)
{
    const tsr_scheduler *s = NULL;

    return tsr_block_pool_book_bytes(n_blocks) + (size_t)n_blocks * sizeof(*s->dropped);
}

tsr_status tsr_scheduler_create(tsr_scheduler **out, const tsr_scheduler_options *options)
{
    tsr_status st = TSR_OK;
    size_t max_seqs;
    tsr_scheduler *s;

    TSR_TRY(tsr_admission_check_options(options));
    max_seqs = (size_t)options->max_seqs;
    s = tsr_alloc(1, sizeof(*s));
    if (s == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "scheduler: no memory for its record");
    }
    s->options = *options;
    s->options.priority_ns = options->priority_ns > 0 ? options->priority_ns : PRIORITY_NS;
    s->waiting.order = TSR_REQUEST_BY_STANDING;
    s->deadlines.order = TSR_REQUEST_BY_DEADLINE;
    TSR_TRY_GOTO(st, fail, tsr_block_pool_create(&s->pool, options->n_blocks));
    s->running = tsr_alloc(max_seqs, sizeof(tsr_request *));
    s->rows = tsr_alloc(max_seqs, sizeof(*s->rows));
    s->free_lanes = tsr_alloc(max_seqs, sizeof(*s->free_lanes));
    s->dropped = tsr_alloc((size_t)options->n_blocks, sizeof(*s->dropped));
    s->planned = tsr_alloc(max_seqs, sizeof(tsr_request *));
    s->samples = tsr_alloc(max_seqs, sizeof(*s->samples));
    s->cancelled = tsr_alloc(max_seqs, sizeof(*s->cancelled));
    if (s->running == NULL || s->rows == NULL || s->free_lanes == NULL || s->dropped == NULL ||
        s->planned == NULL || s->samples == NULL || s->cancelled == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "scheduler: no memory for %d sequences and %d blocks",
                      options->max_seqs, options->n_blocks);
        goto fail;
    }
    for (int lane = options->max_seqs - 1; lane >= 0; lane--) {
        s->free_lanes[s->n_free_lanes++] = lane;
    }
    *out = s;
    return TSR_OK;

fail:
    tsr_scheduler_destroy(s);
    return st;
}

void tsr_scheduler_destroy(tsr_scheduler *s)
{
    if (s == NULL) {
        return;
    }
    for (int i = 0; i < s->n_running; i++) {
        tsr_block_table_clear(&s->running[i]->blocks, s->pool);
    }
    tsr_free(s->cancelled);
    tsr_free(s->samples);
    tsr_free(s->planned);
    tsr_free(s->dropped);
    tsr_free(s->free_lanes);
    tsr_free(s->rows);
    tsr_free(s->running);
    tsr_request_heap_clear(&s->deadlines);
    tsr_request_heap_clear(&s->waiting);
    tsr_block_pool_destroy(s->pool);
    tsr_free(s);
}

tsr_step_limits tsr_scheduler_step_limits(const tsr_scheduler *s)
{
    const tsr_scheduler_options *o = &s->options;

    return (tsr_step_limits){
        .max_rows = o->max_batch_tokens,
        .max_seqs = o->max_seqs,
        .max_blocks = (int)tsr_block_table_blocks_for(o->context, o->block_tokens),
        .block_tokens = o->block_tokens,
        .n_block_ids = o->n_blocks,
        .n_vocab = o->n_vocab,
    };
}

tsr_status tsr_scheduler_submit(tsr_scheduler *s, tsr_request *r)
{
    assert(r->state == TSR_REQUEST_WAITING && r->n_tokens == r->n_prompt);
    TSR_TRY(tsr_admission_check_request(&s->options, r, s->waiting.n_items));
    // Whoever runs can be put back, or have a deadline: there is a place for each of them.
    TSR_TRY(tsr_request_heap_reserve(&s->waiting, s->waiting.n_items + s->n_running + 1));
    TSR_TRY(tsr_request_heap_reserve(&s->deadlines, s->deadlines.n_items + 1));
    s->now_ns = r->submitted_ns > s->now_ns ? r->submitted_ns : s->now_ns;
    r->arrival = s->n_arrived++;
    r->standing_ns = r->submitted_ns - r->priority * s->options.priority_ns;
    tsr_request_heap_put(&s->waiting, r);
    if (r->deadline_ns != 0) {
        tsr_request_heap_put(&s->deadlines, r);
    }
    return TSR_OK;
}

/* ---- leaving the running ones ---- */

/* Take the i-th running request off its lane and its blocks; it is in no queue then. Blocks the
 * ranks were told of are noted for them to drop; those taken in this very plan they never knew. */
static tsr_request *stop_running(tsr_scheduler *s, int i)
{
    tsr_request *r = s->running[i];

    (void)tsr_block_table_cut(&r->blocks, s->pool, r->n_told, NULL);
    s->n_dropped += tsr_block_table_cut(&r->blocks, s->pool, 0, &s->dropped[s->n_dropped]);
    tsr_block_table_clear(&r->blocks, s->pool);
    r->n_told = 0;
    r->n_cached = 0;
    s->free_lanes[s->n_free_lanes++] = r->lane;
    r->lane = -1;
    s->n_running--;
    for (int k = i; k < s->n_running; k++) {
        s->running[k] = s->running[k + 1];
        s->rows[k] = s->rows[k + 1];
    }
    return r;
}

static int index_of(const tsr_scheduler *s, const tsr_request *r)
{
    int i = 0;

    while (s->running[i] != r) {
        i++;
    }
    return i;
}

static void end(tsr_scheduler *s, tsr_request *r, tsr_request_reason reason)
{
    if (r->state == TSR_REQUEST_RUNNING) {
        (void)stop_running(s, index_of(s, r));
    } else {
        tsr_request_heap_take_out(&s->waiting, r);
    }
    if (r->deadline_ns != 0) {
        tsr_request_heap_take_out(&s->deadlines, r);
    }
    r->state = TSR_REQUEST_ENDED;
    r->reason = reason;
    r->ended_ns = s->now_ns;
    tsr_request_put_last(&s->ended, r);
}

static void fail(tsr_scheduler *s, tsr_request *r, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void fail(tsr_scheduler *s, tsr_request *r, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(r->error, sizeof(r->error), format, args);
    va_end(args);
    end(s, r, TSR_REASON_FAILED);
}

/* The i-th running request back among the waiting ones. Returns the rows it had been given in this
 * plan. */
static int put_back(tsr_scheduler *s, int i)
{
    const int rows = s->rows[i];
    tsr_request *r = stop_running(s, i);

    r->state = TSR_REQUEST_WAITING;
    r->n_preempted++;
    tsr_request_heap_put(&s->waiting, r);
    return rows;
}

void tsr_scheduler_stop(tsr_scheduler *s, tsr_request *r)
{
    assert(!s->is_out);
    if (r->state != TSR_REQUEST_ENDED) {
        end(s, r, TSR_REASON_STOP);
    } else if (r->reason == TSR_REASON_LENGTH) {
        r->reason = TSR_REASON_STOP; // its last token has ended the answer
    }
}

void tsr_scheduler_cancel(tsr_scheduler *s, tsr_request *r)
{
    if (r->state == TSR_REQUEST_ENDED) {
        return;
    }
    // While a step is out its blocks are in use, and whoever reads its results needs the request.
    for (int i = 0; s->is_out && i < s->n_planned; i++) {
        if (s->planned[i] == r) {
            s->cancelled[i] = true;
            return;
        }
    }
    end(s, r, TSR_REASON_CANCELLED);
}

/* ---- planning ---- */

/* How many tokens the sequence has when it has generated all it may. */
static int64_t longest(const tsr_scheduler *s, const tsr_request *r)
{
    const int64_t n_tokens = r->n_prompt + r->max_tokens;

    return n_tokens < s->options.context ? n_tokens : s->options.context;
}

/* Does it get a token from a step that brings its cache to n_cached? */
static bool samples_at(const tsr_scheduler *s, const tsr_request *r, int64_t n_cached)
{
    return n_cached == r->n_tokens && r->n_tokens < longest(s, r);
}

static int64_t n_ahead(const tsr_request *r)
{
    return r->n_tokens - r->n_cached;
}

/*
 * Give the i-th running request up to `want` rows and the blocks for them, putting others that
 * stand behind it back while there is no room for a single row. Returns false when the request
 * ended instead.
 */
static bool give_rows(tsr_scheduler *s, int i, int64_t want, int *budget)
{
    const tsr_scheduler_options *o = &s->options;
    tsr_request *r = s->running[i];
    int64_t fit;

    if (tsr_block_table_blocks_for(r->n_cached + 1, o->block_tokens) > o->n_blocks) {
        fail(s, r,
             "the sequence has grown to %lld tokens, more than the %d cache blocks of %d tokens "
             "hold",
             (long long)r->n_tokens, o->n_blocks, o->block_tokens);
        return false;
    }
    for (;;) {
        const int64_t n_blocks = (int64_t)r->blocks.n_blocks + tsr_block_pool_n_free(s->pool);
        int victim;

        fit = n_blocks * o->block_tokens - r->n_cached;
        victim = fit > 0 ? -1 : tsr_victim_choose(s->running, i + 1, s->n_running);
        if (victim < 0) {
            break;
        }
        *budget += put_back(s, victim);
    }
    want = want < fit ? want : fit;
    if (want <= 0) {
        return true; // nobody behind it: wait with what is there
    }
    if (tsr_block_table_grow(&r->blocks, s->pool, r->n_cached + want, o->block_tokens) != TSR_OK) {
        fail(s, r, "%s", tsr_status_message()); // the blocks are there, memory to list them is not
        return false;
    }
    s->rows[i] = (int)want;
    *budget -= (int)want;
    return true;
}

/* Rows for those that run, by standing: decoding ones, or those with more tokens to compute. */
static void plan_running(tsr_scheduler *s, bool decoding, int *budget)
{
    int i = 0;

    while (i<s->n_running && * budget> 0) {
        const int64_t ahead = n_ahead(s->running[i]);
        bool still_here = true;

        if ((ahead == 1) == decoding) {
            still_here = give_rows(s, i, ahead < *budget ? ahead : *budget, budget);
        }
        i += still_here ? 1 : 0; // who ended has left the place to the next
    }
}

/* A place among those that run, by standing; returns which. */
static int start_running(tsr_scheduler *s, tsr_request *r)
{
    int at = s->n_running++;

    for (; at > 0 && tsr_request_is_before(TSR_REQUEST_BY_STANDING, r, s->running[at - 1]); at--) {
        s->running[at] = s->running[at - 1];
        s->rows[at] = s->rows[at - 1];
    }
    r->state = TSR_REQUEST_RUNNING;
    r->lane = s->free_lanes[--s->n_free_lanes];
    s->running[at] = r;
    s->rows[at] = 0;
    return at;
}

/* Newcomers, as far as there are rows left for them; all prompts that run have been given theirs.
 */
static void admit(tsr_scheduler *s, int *budget)
{
    while (s->waiting.n_items > 0 && s->n_running<s->options.max_seqs && * budget> 0) {
        tsr_request *r = tsr_request_heap_first(&s->waiting);
        const int64_t n_needed = tsr_block_table_blocks_for(r->n_tokens, s->options.block_tokens);

        // One block in hand for each that runs: else a newcomer would soon be put back for it.
        if (s->n_running > 0 && n_needed + s->n_running > tsr_block_pool_n_free(s->pool)) {
            return;
        }
        tsr_request_heap_take_out(&s->waiting, r);
        (void)give_rows(s, start_running(s, r), r->n_tokens < *budget ? r->n_tokens : *budget,
                        budget);
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

static void write_sequence(tsr_scheduler *s, tsr_request *r, int n_rows, tsr_step *step)
{
    const int seq = step->n_seqs++;
    const int first_row = step->n_rows;
    const bool samples = samples_at(s, r, r->n_cached + n_rows);

    for (int k = 0; k < n_rows; k++) {
        step->tokens[step->n_rows++] = r->tokens[r->n_cached + k];
    }
    step->row_start[seq + 1] = step->n_rows;
    step->first_pos[seq] = (int32_t)r->n_cached;
    step->lanes[seq] = r->lane;
    for (; r->n_told < r->blocks.n_blocks; r->n_told++) {
        step->append_lane[step->n_appended] = r->lane;
        step->append_index[step->n_appended] = r->n_told;
        step->append_block[step->n_appended] = r->blocks.ids[r->n_told];
        step->n_appended++;
    }
    write_wanted(r, step, first_row, samples);
    if (samples) {
        const int n = tsr_sampler_n_candidates(&r->sampling);

        step->n_best = n > step->n_best ? n : step->n_best;
        step->may_ask |= tsr_sampler_may_ask(&r->sampling) ? 1 : 0;
    }
    s->planned[seq] = r;
    s->samples[seq] = samples;
    s->cancelled[seq] = false;
}

static void end_overdue(tsr_scheduler *s)
{
    for (;;) {
        tsr_request *r = tsr_request_heap_first(&s->deadlines);

        if (r == NULL || r->deadline_ns > s->now_ns) {
            return;
        }
        end(s, r, TSR_REASON_DEADLINE);
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
    assert(!s->is_out);
    s->now_ns = now_ns > s->now_ns ? now_ns : s->now_ns;
    tsr_step_reset(step);
    end_overdue(s);
    give_all_rows(s);
    s->n_decoding = 0;
    for (int i = 0; i < s->n_running; i++) {
        if (s->rows[i] > 0) {
            s->n_decoding += n_ahead(s->running[i]) == 1 ? 1 : 0;
            write_sequence(s, s->running[i], s->rows[i], step);
        }
    }
    step->n_best = step->n_best < s->options.n_vocab ? step->n_best : s->options.n_vocab;
    s->n_planned = step->n_seqs;
    s->n_prompt_rows = step->n_rows - s->n_decoding;
    s->is_out = step->n_seqs > 0;
    for (; step->n_dropped < s->n_dropped; step->n_dropped++) {
        step->dropped[step->n_dropped] = s->dropped[step->n_dropped];
    }
    s->n_dropped = 0;
    return step->n_seqs > 0 || step->n_dropped > 0;
}

tsr_request *tsr_scheduler_request_of(const tsr_scheduler *s, int seq)
{
    assert(seq >= 0 && seq < s->n_planned);
    return s->planned[seq];
}

bool tsr_scheduler_samples(const tsr_scheduler *s, int seq)
{
    assert(seq >= 0 && seq < s->n_planned);
    return s->samples[seq];
}

/* ---- results ---- */

static void take_token(tsr_scheduler *s, tsr_request *r, int32_t token,
                       bool (*ends)(void *ctx, int32_t token), void *ctx)
{
    const bool stops = tsr_request_stops_at(r, token);

    if ((stops && !r->keep_stop) || (!stops && !r->ignore_end && ends(ctx, token))) {
        end(s, r, TSR_REASON_STOP);
        return;
    }
    if (tsr_request_append(r, token) != TSR_OK) {
        fail(s, r, "%s", tsr_status_message());
        return;
    }
    if (r->first_token_ns == 0) {
        r->first_token_ns = s->now_ns;
    } else if (s->now_ns - r->last_token_ns > r->longest_gap_ns) {
        r->longest_gap_ns = s->now_ns - r->last_token_ns;
    }
    r->last_token_ns = s->now_ns;
    if (stops) {
        end(s, r, TSR_REASON_STOP);
    } else if (r->n_tokens >= longest(s, r)) {
        end(s, r, TSR_REASON_LENGTH);
    }
}

void tsr_scheduler_commit(tsr_scheduler *s, const tsr_step *step, const int32_t *next,
                          bool (*ends)(void *ctx, int32_t token), void *ctx, int64_t now_ns)
{
    assert(step->n_seqs == s->n_planned && (s->is_out || step->n_seqs == 0));
    s->now_ns = now_ns > s->now_ns ? now_ns : s->now_ns;
    for (int seq = 0; seq < s->n_planned; seq++) {
        tsr_request *r = s->planned[seq];

        r->n_cached += step->row_start[seq + 1] - step->row_start[seq];
        if (r->score && r->n_scored < r->n_prompt && r->n_cached > r->n_scored) {
            r->n_scored = r->n_cached < r->n_prompt ? r->n_cached : r->n_prompt;
        }
        if (s->cancelled[seq]) {
            end(s, r, TSR_REASON_CANCELLED);
        } else if (s->samples[seq]) {
            take_token(s, r, next[seq], ends, ctx);
        } else if (n_ahead(r) == 0) {
            end(s, r, TSR_REASON_LENGTH);
        }
    }
    s->is_out = false;
}

void tsr_scheduler_note_time(tsr_scheduler *s, int64_t us)
{
    if (s->n_decoding + s->n_prompt_rows > 0) {
        tsr_pace_note(&s->pace, s->n_decoding, s->n_prompt_rows, (double)us);
    }
}

tsr_request *tsr_scheduler_take_ended(tsr_scheduler *s)
{
    tsr_request *r = s->ended.first;

    if (r == NULL) {
        return NULL;
    }
    tsr_request_take_out(&s->ended, r);
    for (int i = 0; i < s->n_planned; i++) {
        s->planned[i] = s->planned[i] != r ? s->planned[i] : NULL;
    }
    return r;
}

/* ---- questions ---- */

bool tsr_scheduler_is_idle(const tsr_scheduler *s)
{
    return s->waiting.n_items == 0 && s->n_running == 0 && s->n_dropped == 0;
}

int tsr_scheduler_n_waiting(const tsr_scheduler *s)
{
    return s->waiting.n_items;
}

int tsr_scheduler_n_running(const tsr_scheduler *s)
{
    return s->n_running;
}

int tsr_scheduler_n_free_blocks(const tsr_scheduler *s)
{
    return tsr_block_pool_n_free(s->pool);
}
