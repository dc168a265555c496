#include "engine/scheduler.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"
#include "engine/admission.h"
#include "engine/scheduler_state.h"

static const int64_t PRIORITY_NS = 10000000000; // 10 seconds

/* ---- life ---- */

/* Entries of the longest table. */
static size_t path_entries(const tsr_scheduler_options *o, const tsr_block_groups *groups)
{
    return (size_t)tsr_block_table_blocks_for(o->context, o->block_tokens) * (size_t)groups->n;
}

size_t tsr_scheduler_table_bytes(const tsr_scheduler_options *o)
{
    const tsr_block_groups groups = tsr_admission_groups(o);
    const tsr_scheduler *s = NULL;

    return tsr_block_pool_book_bytes(o->n_blocks) +
           (o->prefix_cache ? tsr_prefix_index_bytes(o->n_blocks, &groups) : 0) +
           (size_t)o->n_blocks * (sizeof(*s->known) + sizeof(*s->dropped) + sizeof(*s->freed) +
                                  sizeof(*s->n_lanes_with)) +
           path_entries(o, &groups) * sizeof(*s->path);
}

tsr_status tsr_scheduler_create(tsr_scheduler **out, const tsr_scheduler_options *options)
{
    tsr_status st = TSR_OK;
    size_t max_seqs, n_blocks;
    tsr_scheduler *s;

    TSR_TRY(tsr_admission_check_options(options));
    max_seqs = (size_t)options->max_seqs;
    n_blocks = (size_t)options->n_blocks;
    s = tsr_alloc(1, sizeof(*s));
    if (s == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "scheduler: no memory for its record");
    }
    s->options = *options;
    s->groups = tsr_admission_groups(options);
    s->options.priority_ns = options->priority_ns > 0 ? options->priority_ns : PRIORITY_NS;
    s->is_tiered = options->n_device_blocks > 0 && options->n_device_blocks < options->n_blocks;
    s->claim_most = options->n_device_blocks > 2 ? options->n_device_blocks / 2 : 1;
    s->waiting.order = TSR_REQUEST_BY_STANDING;
    s->deadlines.order = TSR_REQUEST_BY_DEADLINE;
    TSR_TRY_GOTO(st, fail, tsr_block_pool_create(&s->pool, options->n_blocks));
    if (options->prefix_cache) {
        TSR_TRY_GOTO(st, fail, tsr_prefix_index_create(&s->prefix, options->n_blocks, &s->groups));
    }
    s->running = tsr_alloc(max_seqs, sizeof(tsr_request *));
    s->rows = tsr_alloc(max_seqs, sizeof(*s->rows));
    s->free_lanes = tsr_alloc(max_seqs, sizeof(*s->free_lanes));
    s->known = tsr_alloc(n_blocks, sizeof(*s->known));
    s->dropped = tsr_alloc(n_blocks, sizeof(*s->dropped));
    s->freed = tsr_alloc(n_blocks, sizeof(*s->freed));
    s->n_lanes_with = tsr_alloc(n_blocks, sizeof(*s->n_lanes_with));
    s->lane_told = tsr_alloc(max_seqs, sizeof(*s->lane_told));
    s->left = tsr_alloc(max_seqs, sizeof(*s->left));
    s->copied = tsr_alloc(max_seqs * (size_t)s->groups.n, sizeof(*s->copied));
    s->path = tsr_alloc(path_entries(options, &s->groups), sizeof(*s->path));
    s->planned = tsr_alloc(max_seqs, sizeof(tsr_request *));
    s->samples = tsr_alloc(max_seqs, sizeof(*s->samples));
    s->ends_as = tsr_alloc(max_seqs, sizeof(*s->ends_as));
    if (s->running == NULL || s->rows == NULL || s->free_lanes == NULL || s->dropped == NULL ||
        s->known == NULL || s->freed == NULL || s->n_lanes_with == NULL || s->lane_told == NULL ||
        s->left == NULL || s->copied == NULL || s->path == NULL || s->planned == NULL ||
        s->samples == NULL || s->ends_as == NULL) {
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
        tsr_block_table_clear(&s->running[i]->blocks, s->pool, &s->groups);
    }
    for (int i = 0; i < s->waiting.n_items; i++) {
        tsr_block_table_clear(&s->waiting.items[i]->blocks, s->pool, &s->groups);
    }
    for (tsr_request *r = s->held.first; r != NULL; r = r->next) {
        tsr_block_table_clear(&r->blocks, s->pool, &s->groups);
    }
    tsr_free(s->path);
    tsr_free(s->copied);
    tsr_free(s->left);
    tsr_free(s->lane_told);
    tsr_free(s->n_lanes_with);
    tsr_free(s->freed);
    tsr_free(s->known);
    tsr_free(s->ends_as);
    tsr_free(s->samples);
    tsr_free(s->planned);
    tsr_free(s->dropped);
    tsr_free(s->free_lanes);
    tsr_free(s->rows);
    tsr_free(s->running);
    tsr_request_heap_clear(&s->deadlines);
    tsr_request_heap_clear(&s->waiting);
    tsr_prefix_index_destroy(s->prefix);
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
        .n_groups = s->groups.n,
        .block_tokens = o->block_tokens,
        .n_block_ids = o->n_blocks,
        .n_vocab = o->n_vocab,
    };
}

tsr_status tsr_scheduler_take_on(tsr_scheduler *s, tsr_request *r, int n_waiting)
{
    assert(r->state == TSR_REQUEST_WAITING && r->blocks.n_blocks == 0);
    TSR_TRY(tsr_admission_check_request(&s->options, r, n_waiting));
    // Whoever runs or is held can come to wait, or have a deadline: there is a place for each.
    TSR_TRY(tsr_request_heap_reserve(&s->waiting,
                                     s->waiting.n_items + s->n_running + s->held.n_requests + 1));
    TSR_TRY(tsr_request_heap_reserve(&s->deadlines, s->deadlines.n_items + 1));
    s->now_ns = r->submitted_ns > s->now_ns ? r->submitted_ns : s->now_ns;
    r->arrival = s->n_arrived++;
    r->standing_ns = r->submitted_ns - r->priority * s->options.priority_ns;
    if (r->deadline_ns != 0) {
        tsr_request_heap_put(&s->deadlines, r);
    }
    return TSR_OK;
}

tsr_status tsr_scheduler_submit(tsr_scheduler *s, tsr_request *r)
{
    TSR_TRY(tsr_scheduler_take_on(s, r, s->waiting.n_items));
    tsr_scheduler_wait(s, r);
    return TSR_OK;
}

/* ---- waiting, running, ending ---- */

void tsr_scheduler_wait(tsr_scheduler *s, tsr_request *r)
{
    r->state = r->blocks.n_blocks > 0 ? TSR_REQUEST_RESTING : TSR_REQUEST_WAITING;
    s->n_resting += r->state == TSR_REQUEST_RESTING ? 1 : 0;
    if (r->is_held) {
        tsr_request_put_last(&s->held, r);
    } else {
        tsr_request_heap_put(&s->waiting, r);
    }
}

void tsr_scheduler_wait_no_more(tsr_scheduler *s, tsr_request *r)
{
    s->n_resting -= r->state == TSR_REQUEST_RESTING ? 1 : 0;
    if (r->is_held) {
        tsr_request_take_out(&s->held, r);
    } else {
        tsr_request_heap_take_out(&s->waiting, r);
    }
}

int tsr_scheduler_start(tsr_scheduler *s, tsr_request *r)
{
    int at = s->n_running++;

    for (; at > 0 && tsr_request_is_before(TSR_REQUEST_BY_STANDING, r, s->running[at - 1]); at--) {
        s->running[at] = s->running[at - 1];
        s->rows[at] = s->rows[at - 1];
    }
    r->state = TSR_REQUEST_RUNNING;
    tsr_scheduler_blocks_take_lane(s, r);
    s->running[at] = r;
    s->rows[at] = 0;
    return at;
}

/* Take the i-th running request off its lane; it is in no queue then. */
static tsr_request *stop_running(tsr_scheduler *s, int i)
{
    tsr_request *r = s->running[i];

    tsr_scheduler_blocks_ungrow(s, r);
    tsr_scheduler_blocks_leave_lane(s, r);
    r->wakes = false;
    r->ticket = -1;
    s->n_running--;
    for (int k = i; k < s->n_running; k++) {
        s->running[k] = s->running[k + 1];
        s->rows[k] = s->rows[k + 1];
    }
    return r;
}

int tsr_scheduler_index_of(const tsr_scheduler *s, const tsr_request *r)
{
    int i = 0;

    while (s->running[i] != r) {
        i++;
    }
    return i;
}

/* What it has in the cache is given up. */
static void give_up_cache(tsr_scheduler *s, tsr_request *r)
{
    tsr_scheduler_prefix_keep_tail(s, r);
    tsr_scheduler_blocks_cut(s, r, 0);
    r->n_cached = 0;
    tsr_scheduler_prefix_shrink(s, r);
}

void tsr_scheduler_end(tsr_scheduler *s, tsr_request *r, tsr_request_reason reason)
{
    if (r->state == TSR_REQUEST_RUNNING) {
        (void)stop_running(s, tsr_scheduler_index_of(s, r));
    } else {
        tsr_scheduler_wait_no_more(s, r);
    }
    give_up_cache(s, r);
    if (r->deadline_ns != 0) {
        tsr_request_heap_take_out(&s->deadlines, r);
    }
    r->state = TSR_REQUEST_ENDED;
    r->reason = reason;
    r->ended_ns = s->now_ns;
    tsr_request_put_last(&s->ended, r);
}

void tsr_scheduler_fail(tsr_scheduler *s, tsr_request *r, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(r->error, sizeof(r->error), format, args);
    va_end(args);
    tsr_scheduler_end(s, r, TSR_REASON_FAILED);
}

int tsr_scheduler_put_back(tsr_scheduler *s, int i, bool keep)
{
    const int rows = s->rows[i];
    tsr_request *r = stop_running(s, i);

    if (!keep) {
        give_up_cache(s, r);
    }
    r->n_preempted++;
    tsr_scheduler_wait(s, r);
    return rows;
}

void tsr_scheduler_forget(tsr_scheduler *s, tsr_request *r)
{
    assert(r->state == TSR_REQUEST_RESTING);
    give_up_cache(s, r);
    r->state = TSR_REQUEST_WAITING;
    s->n_resting--;
}

/* Where it is in the step that is out; -1: nowhere. */
static int planned_at(const tsr_scheduler *s, const tsr_request *r)
{
    for (int i = 0; s->is_out && i < s->n_planned; i++) {
        if (s->planned[i] == r) {
            return i;
        }
    }
    return -1;
}

/* One that has not ended is to end. While a step is out its blocks are in use, and whoever reads
 * its results needs the request. */
static void end_in_time(tsr_scheduler *s, tsr_request *r, tsr_request_reason reason)
{
    const int at = planned_at(s, r);

    if (at < 0) {
        tsr_scheduler_end(s, r, reason);
    } else if (s->ends_as[at] == TSR_REASON_NONE) {
        s->ends_as[at] = reason;
    }
}

void tsr_scheduler_stop(tsr_scheduler *s, tsr_request *r)
{
    if (r->state != TSR_REQUEST_ENDED) {
        end_in_time(s, r, TSR_REASON_STOP);
    } else if (r->reason == TSR_REASON_LENGTH) {
        r->reason = TSR_REASON_STOP; // its last token has ended the answer
    }
}

void tsr_scheduler_cancel(tsr_scheduler *s, tsr_request *r)
{
    if (r->state != TSR_REQUEST_ENDED) {
        end_in_time(s, r, TSR_REASON_CANCELLED);
    }
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

int64_t tsr_scheduler_longest(const tsr_scheduler *s, const tsr_request *r)
{
    const int64_t n_tokens = r->n_prompt + r->max_tokens;

    return n_tokens < s->options.context ? n_tokens : s->options.context;
}

static void note_token(const tsr_scheduler *s, tsr_request *r)
{
    if (r->first_token_ns == 0) {
        r->first_token_ns = s->now_ns;
    } else if (s->now_ns - r->last_token_ns > r->longest_gap_ns) {
        r->longest_gap_ns = s->now_ns - r->last_token_ns;
    }
    r->last_token_ns = s->now_ns;
}

static void take_token(tsr_scheduler *s, tsr_request *r, int32_t token,
                       bool (*ends)(void *ctx, int32_t token), void *ctx)
{
    const bool stops = tsr_request_stops_at(r, token);

    if ((stops && !r->keep_stop) || (!stops && !r->ignore_end && ends(ctx, token))) {
        tsr_scheduler_end(s, r, TSR_REASON_STOP);
        return;
    }
    if (tsr_request_append(r, token) != TSR_OK) {
        tsr_scheduler_fail(s, r, "%s", tsr_status_message());
        return;
    }
    note_token(s, r);
    if (stops) {
        tsr_scheduler_end(s, r, TSR_REASON_STOP);
    } else if (r->n_tokens >= tsr_scheduler_longest(s, r)) {
        tsr_scheduler_end(s, r, TSR_REASON_LENGTH);
    } else if (s->options.long_from > 0 && r->n_tokens == s->options.long_from + 1) {
        // What is cached of it was computed as a short one.
        (void)tsr_scheduler_put_back(s, tsr_scheduler_index_of(s, r), false);
    }
}

bool tsr_scheduler_may_plan_ahead(const tsr_scheduler *s, const tsr_step *step)
{
    bool may = !s->is_tiered && s->n_planned > 0;

    for (int seq = 0; seq < s->n_planned && may; seq++) {
        const tsr_request *r = s->planned[seq];
        const int64_t n_cached = r->n_cached + step->row_start[seq + 1] - step->row_start[seq];

        may = s->ends_as[seq] == TSR_REASON_NONE && !(r->score && r->n_scored < r->n_prompt) &&
              (s->samples[seq] ? r->n_tokens + 1 < tsr_scheduler_longest(s, r) &&
                                     r->n_tokens != s->options.long_from
                               : n_cached < r->n_tokens);
    }
    return may;
}

void tsr_scheduler_settle(tsr_scheduler *s, tsr_request *r, int32_t token,
                          bool (*ends)(void *ctx, int32_t token), void *ctx, int64_t now_ns,
                          tsr_step *ahead)
{
    const bool stops = tsr_request_stops_at(r, token);
    const bool is_over = stops || (!r->ignore_end && ends(ctx, token));
    const int64_t at = r->n_tokens - 1;
    const int seq = planned_at(s, r);

    if (r->tokens[at] != TSR_SCHEDULER_LATER) {
        return; // there was no memory for it
    }
    s->now_ns = now_ns > s->now_ns ? now_ns : s->now_ns;
    r->tokens[at] = token;
    if (ahead != NULL && seq >= 0) {
        const int64_t row = ahead->row_start[seq] + at - ahead->first_pos[seq];

        if (row < ahead->row_start[seq + 1]) {
            ahead->tokens[row] = token;
        }
    }
    if (is_over && !(stops && r->keep_stop)) {
        r->n_tokens--;
    } else {
        note_token(s, r);
    }
    if (is_over && r->state != TSR_REQUEST_ENDED) {
        end_in_time(s, r, TSR_REASON_STOP);
    }
}

/* Positions of its last column that have no token yet. */
static int64_t n_unfilled(const tsr_scheduler *s, const tsr_request *r)
{
    return (int64_t)r->blocks.n_columns * s->options.block_tokens - r->n_cached;
}

/* The ranks have copied what was to be copied. */
static void close_step(tsr_scheduler *s)
{
    for (int i = 0; i < s->n_copied; i++) {
        tsr_scheduler_blocks_release(s, s->copied[i]);
    }
    s->n_copied = 0;
    s->is_out = false;
}

void tsr_scheduler_commit(tsr_scheduler *s, const tsr_step *step, const int32_t *next,
                          bool (*ends)(void *ctx, int32_t token), void *ctx, int64_t now_ns)
{
    assert(step->n_seqs == s->n_planned && (s->is_out || step->n_seqs == 0));
    s->now_ns = now_ns > s->now_ns ? now_ns : s->now_ns;
    for (int seq = 0; seq < s->n_planned; seq++) {
        tsr_request *r = s->planned[seq];

        r->n_cached += step->row_start[seq + 1] - step->row_start[seq];
        s->n_held_positions += (int64_t)r->blocks.n_blocks * s->options.block_tokens;
        s->n_held_tokens +=
            (int64_t)r->blocks.n_blocks * s->options.block_tokens - n_unfilled(s, r) * s->groups.n;
        tsr_scheduler_prefix_grow(s, r);
        tsr_scheduler_blocks_leave(s, r);
        if (tsr_request_reads_all(r) && r->n_cached > r->n_scored) {
            r->n_scored = r->n_cached < r->n_prompt ? r->n_cached : r->n_prompt;
        }
        if (s->ends_as[seq] != TSR_REASON_NONE) {
            tsr_scheduler_end(s, r, s->ends_as[seq]);
        } else if (s->samples[seq] && next[seq] == TSR_SCHEDULER_LATER) {
            if (tsr_request_append(r, TSR_SCHEDULER_LATER) != TSR_OK) {
                tsr_scheduler_fail(s, r, "%s", tsr_status_message());
            }
        } else if (s->samples[seq]) {
            r->is_held = next[seq] == TSR_SCHEDULER_HOLD;
            if (!r->is_held) {
                take_token(s, r, next[seq], ends, ctx);
            }
        } else if (tsr_scheduler_n_ahead(r) == 0) {
            tsr_scheduler_end(s, r, TSR_REASON_LENGTH);
        }
    }
    close_step(s);
    tsr_scheduler_rest_settle(s);
}

void tsr_scheduler_void(tsr_scheduler *s, int64_t now_ns)
{
    s->now_ns = now_ns > s->now_ns ? now_ns : s->now_ns;
    for (int seq = 0; seq < s->n_planned; seq++) {
        if (s->ends_as[seq] != TSR_REASON_NONE) {
            tsr_scheduler_end(s, s->planned[seq], s->ends_as[seq]);
        } else { // it has the blocks of what it had
            tsr_scheduler_blocks_ungrow(s, s->planned[seq]);
            tsr_scheduler_blocks_untell(s, s->planned[seq]);
        }
    }
    close_step(s);
}

void tsr_scheduler_give(tsr_scheduler *s, tsr_request *r, int32_t token,
                        bool (*ends)(void *ctx, int32_t token), void *ctx)
{
    assert(!s->is_out && r->is_held);
    if (r->state != TSR_REQUEST_RUNNING) {
        tsr_scheduler_wait_no_more(s, r);
    }
    r->is_held = false;
    if (r->state != TSR_REQUEST_RUNNING) {
        tsr_scheduler_wait(s, r);
    }
    take_token(s, r, token, ends, ctx);
}

tsr_scheduler_load tsr_scheduler_load_of(const tsr_scheduler *s)
{
    return s->load;
}

void tsr_scheduler_note_time(tsr_scheduler *s, tsr_scheduler_load load, int64_t us)
{
    if (load.n_decoding + load.n_prompt_rows > 0) {
        tsr_pace_note(&s->pace, load.n_decoding, load.n_prompt_rows, (double)us);
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
    return s->waiting.n_items == 0 && s->held.n_requests == 0 && s->n_running == 0 &&
           s->n_dropped == 0;
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
    return tsr_scheduler_prefix_n_free(s);
}

double tsr_scheduler_fill(const tsr_scheduler *s)
{
    return s->n_held_positions > 0 ? (double)s->n_held_tokens / (double)s->n_held_positions : 0;
}
