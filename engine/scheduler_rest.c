#include <assert.h>

#include "engine/admission.h"
#include "engine/scheduler_state.h"
#include "engine/victim.h"

static const double FADE = 0.95; // of what was moved, at each report
static const int BOTH_WAYS = 2;

/* ---- room on the device ---- */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Blocks of the longest of those that run, but for one. */
static int64_t longest_beside(const tsr_scheduler *s, const tsr_request *r)
{
    int64_t longest = 0;

    for (int i = 0; i < s->n_running; i++) {
        if (s->running[i] != r && s->running[i]->blocks.n_blocks > longest) {
            longest = s->running[i]->blocks.n_blocks;
        }
    }
    return longest;
}

static int64_t beyond(const tsr_scheduler *s, int64_t n_blocks)
{
    return n_blocks > s->claim_most ? n_blocks - s->claim_most : 0;
}

int64_t tsr_scheduler_rest_claims(const tsr_scheduler *s)
{
    return least(s->n_claimed, s->n_in_lanes - beyond(s, longest_beside(s, NULL)));
}

int64_t tsr_scheduler_rest_room(const tsr_scheduler *s, const tsr_request *r)
{
    const int64_t n = r->blocks.n_blocks;
    const int64_t n_device = s->options.n_device_blocks;
    int64_t n_lanes = s->n_in_lanes;
    int64_t most, alone, shared, beside;

    if (!s->is_tiered) {
        return INT64_MAX / s->options.block_tokens / 2;
    }
    if (tsr_scheduler_blocks_must_copy(s, r)) { // then two blocks are in lanes instead of one
        const int64_t at = r->n_cached / s->options.block_tokens * s->groups.n;

        for (int g = 0; g < s->groups.n; g++) {
            n_lanes += s->n_lanes_with[r->blocks.ids[at + g]] > 1;
        }
    }
    most = n + tsr_admission_most_blocks(&s->options) - n_lanes;
    // By the sum of claims: once it claims as much as it can, whatever comes is read where it lies.
    alone = n_device - (s->n_claimed - least(n, s->claim_most));
    if (alone >= s->claim_most) {
        return most;
    }
    // By the different blocks: likewise, once it is the longest.
    beside = longest_beside(s, r);
    beside = beside > s->claim_most ? beside : s->claim_most;
    if (n > beside) {
        shared = n_lanes - beyond(s, n) <= n_device ? most : 0;
    } else {
        shared = n + n_device - (n_lanes - beyond(s, beside));
        shared = shared >= beside ? most : shared;
    }
    return least(most, alone > shared ? alone : shared);
}

bool tsr_scheduler_rest_fits(const tsr_scheduler *s, const tsr_request *r)
{
    const int64_t n = tsr_block_groups_most(&s->groups, r->n_tokens, 0);
    const int64_t n_in_hand = (int64_t)s->n_running * s->groups.n;
    const int64_t n_device = s->options.n_device_blocks;
    int64_t n_lanes = s->n_in_lanes + n + n_in_hand;
    int64_t longest;

    if (!s->is_tiered) {
        return true;
    }
    for (int i = 0; i < r->blocks.n_columns * s->groups.n; i++) {
        const int32_t id = r->blocks.ids[i];

        n_lanes -= id != TSR_BLOCK_NONE && s->n_lanes_with[id] > 0 ? 1 : 0;
    }
    longest = longest_beside(s, NULL);
    longest = longest > n ? longest : n;
    return n_lanes <= tsr_admission_most_blocks(&s->options) &&
           (s->n_claimed + least(n, s->claim_most) + n_in_hand <= n_device ||
            n_lanes - beyond(s, longest) <= n_device);
}

/* ---- making room ---- */

static tsr_request *later(tsr_request *last, tsr_request *r, const tsr_request *than)
{
    const bool counts = r->state == TSR_REQUEST_RESTING &&
                        (than == NULL || tsr_request_is_before(TSR_REQUEST_BY_STANDING, than, r)) &&
                        (last == NULL || tsr_request_is_before(TSR_REQUEST_BY_STANDING, last, r));

    return counts ? r : last;
}

/* The resting request that stands last, or that stands last behind `than`. */
static tsr_request *last_resting(const tsr_scheduler *s, const tsr_request *than)
{
    tsr_request *last = NULL;

    for (int i = 0; s->n_resting > 0 && i < s->waiting.n_items; i++) {
        last = later(last, s->waiting.items[i], than);
    }
    for (tsr_request *r = s->held.first; s->n_resting > 0 && r != NULL; r = r->next) {
        last = later(last, r, than);
    }
    return last;
}

/* The running one that stands last of those that are held, in front of the n-th; -1: none. */
static int last_held(const tsr_scheduler *s, int n)
{
    int i = n - 1;

    while (i >= 0 && !s->running[i]->is_held) {
        i--;
    }
    return i;
}

bool tsr_scheduler_rest_is_first(const tsr_scheduler *s, int i)
{
    for (int k = 0; k < i; k++) {
        if (!s->running[k]->is_held) {
            return false;
        }
    }
    return true;
}

/* Is it worth keeping what a request has in the cache? */
static bool is_kept(const tsr_scheduler *s, const tsr_request *r)
{
    const double compute_us = s->pace.a_row * (double)r->n_cached;
    const double move_us = BOTH_WAYS * (double)r->blocks.n_blocks * (double)s->options.block_bytes *
                           s->moved_us / s->moved_bytes;

    if (!s->is_tiered || s->options.preempt == TSR_PREEMPT_RECOMPUTE) {
        return false;
    }
    return s->options.preempt == TSR_PREEMPT_SWAP || s->moved_bytes <= 0 || s->pace.reach <= 0 ||
           move_us < compute_us;
}

bool tsr_scheduler_rest_make_room(tsr_scheduler *s, int *i, bool is_device, int *budget)
{
    tsr_request *resting = is_device ? NULL : last_resting(s, s->running[*i]);
    int victim;

    if (resting == NULL) {
        victim = tsr_victim_choose(s->running, *i + 1, s->n_running);
        // The first of those that can go on finds room in any case, so that all end.
        if (victim < 0 && tsr_scheduler_rest_is_first(s, *i)) {
            victim = last_held(s, *i);
            *i -= victim >= 0 ? 1 : 0;
            resting = victim < 0 && !is_device ? last_resting(s, NULL) : NULL;
        }
        if (victim >= 0) {
            *budget +=
                tsr_scheduler_put_back(s, victim, is_device && is_kept(s, s->running[victim]));
            return true;
        }
    }
    if (resting != NULL) {
        tsr_scheduler_forget(s, resting);
    }
    return resting != NULL;
}

bool tsr_scheduler_rest_make_way(tsr_scheduler *s, const tsr_request *r)
{
    const int victim = last_held(s, s->n_running);
    const bool nobody_runs = tsr_scheduler_rest_is_first(s, s->n_running);

    if (victim < 0 || (!nobody_runs &&
                       (s->n_free_lanes > 0 || s->running[victim]->standing_ns < r->standing_ns))) {
        return false;
    }
    (void)tsr_scheduler_put_back(s, victim, s->n_free_lanes == 0 || is_kept(s, s->running[victim]));
    return true;
}

void tsr_scheduler_rest_settle(tsr_scheduler *s)
{
    // The longest has left blocks that others have: now they claim them.
    while (s->is_tiered && tsr_scheduler_rest_claims(s) > s->options.n_device_blocks) {
        const int victim = tsr_victim_choose(s->running, 1, s->n_running);

        (void)tsr_scheduler_put_back(s, victim, is_kept(s, s->running[victim]));
    }
}

/* ---- waking ---- */

bool tsr_scheduler_rest_is_awake(tsr_scheduler *s, tsr_request *r)
{
    if (r->wakes && r->ticket >= 0 && r->ticket < s->n_tickets_done) {
        r->wakes = false;
        r->ticket = -1;
    }
    return !r->wakes;
}

void tsr_scheduler_rest_tell(tsr_scheduler *s, tsr_step *step)
{
    bool any_wakes = false;
    int i = 0;

    while (i < s->n_running) {
        tsr_request *r = s->running[i];
        const bool needs_ticket = r->wakes && r->ticket < 0;
        const bool is_changed =
            s->rows[i] == 0 && s->lane_told[r->lane] && tsr_scheduler_blocks_has_news(s, r);

        if ((needs_ticket || is_changed) && tsr_scheduler_blocks_tell(s, r, step) != TSR_OK) {
            tsr_scheduler_fail(s, r, "%s", tsr_status_message());
            continue; // the next one has its place
        }
        if (needs_ticket) { // one for each of its tables: the last to be done counts
            s->n_tickets += s->groups.n;
            r->ticket = s->n_tickets - 1;
        }
        any_wakes = any_wakes || r->wakes;
        i++;
    }
    step->waits = any_wakes && step->n_seqs == 0 ? 1 : 0;
}

/* ---- what the ranks say ---- */

/* A request keeps what lies before its block `id`, if it has that. */
static void cut_at(tsr_scheduler *s, tsr_request *r, int32_t id)
{
    for (int i = 0; i < r->blocks.n_columns * s->groups.n; i++) {
        if (r->blocks.ids[i] == id) {
            const int64_t n_before = (int64_t)(i / s->groups.n) * s->options.block_tokens;

            r->n_cached = least(r->n_cached, n_before);
            if (!tsr_block_table_goes_on_from(&r->blocks, &s->groups, r->n_cached)) {
                r->n_cached = 0; // what would be seen from there has been left
            }
            tsr_scheduler_blocks_cut(s, r, (int)(r->n_cached / s->options.block_tokens));
            tsr_scheduler_prefix_shrink(s, r);
            if (r->lane >= 0) {
                tsr_scheduler_blocks_untell(s, r);
                r->wakes = r->wakes && r->n_cached > 0;
                r->ticket = -1;
            }
        }
    }
}

static void cut_resting_at(tsr_scheduler *s, tsr_request *r, int32_t id)
{
    cut_at(s, r, id);
    if (r->state == TSR_REQUEST_RESTING && r->n_cached == 0) {
        tsr_scheduler_forget(s, r);
    }
}

static void lose(tsr_scheduler *s, int32_t id)
{
    tsr_scheduler_prefix_lose(s, id);
    for (int i = 0; i < s->n_running; i++) {
        cut_at(s, s->running[i], id);
    }
    for (int i = 0; s->n_resting > 0 && i < s->waiting.n_items; i++) {
        cut_resting_at(s, s->waiting.items[i], id);
    }
    for (tsr_request *r = s->held.first; s->n_resting > 0 && r != NULL; r = r->next) {
        cut_resting_at(s, r, id);
    }
}

void tsr_scheduler_note_report(tsr_scheduler *s, const tsr_step_report *report)
{
    assert(!s->is_out);
    s->n_tickets_done = report->n_tickets_done;
    s->moved_bytes = FADE * s->moved_bytes + (double)report->moved_bytes;
    s->moved_us = FADE * s->moved_us + (double)report->moved_us;
    for (int i = 0; i < report->n_lost; i++) {
        lose(s, report->lost[i]);
    }
}
