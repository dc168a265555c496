#include "base/alloc.h"
#include "engine/admission.h"
#include "engine/scheduler_state.h"

static bool verify_lane(const tsr_scheduler *s, int i)
{
    const tsr_request *r = s->running[i];

    if (r->lane < 0 || r->lane >= s->options.max_seqs ||
        (r->n_told > 0 && !s->lane_told[r->lane])) {
        return false;
    }
    for (int k = 0; k < i; k++) {
        if (s->running[k]->lane == r->lane) {
            return false;
        }
    }
    for (int k = 0; k < s->n_free_lanes; k++) {
        if (s->free_lanes[k] == r->lane || s->lane_told[s->free_lanes[k]]) {
            return false;
        }
    }
    return true;
}

/* The table has what it says, of each group the columns from the first that the floor keeps: all
 * that rows from n_cached on see, and no more. */
static bool verify_table(const tsr_scheduler *s, const tsr_request *r)
{
    const tsr_block_table *t = &r->blocks;
    int n_blocks = 0;

    for (int i = 0; i < t->n_columns * s->groups.n; i++) {
        const bool is_left =
            i / s->groups.n < tsr_block_groups_first(&s->groups, i % s->groups.n, t->floor);

        if ((t->ids[i] == TSR_BLOCK_NONE) != is_left) {
            return false;
        }
        n_blocks += is_left ? 0 : 1;
    }
    return n_blocks == t->n_blocks && tsr_block_table_goes_on_from(t, &s->groups, r->n_cached) &&
           t->floor >= tsr_block_groups_floor(&s->groups, r->n_cached);
}

static bool verify_running(const tsr_scheduler *s)
{
    for (int i = 0; i < s->n_running; i++) {
        const tsr_request *r = s->running[i];
        const int64_t n_needed = tsr_block_table_blocks_for(r->n_cached, s->options.block_tokens);

        if (r->state != TSR_REQUEST_RUNNING || r->n_cached > r->n_tokens ||
            r->blocks.n_columns < n_needed || r->n_told > r->blocks.n_columns || r->copies ||
            !verify_table(s, r) || !verify_lane(s, i) ||
            (i > 0 && !tsr_request_is_before(TSR_REQUEST_BY_STANDING, s->running[i - 1], r)) ||
            r->heap_at[TSR_REQUEST_BY_STANDING] != 0) {
            return false;
        }
        if (!s->is_out && r->blocks.n_columns != n_needed) {
            return false;
        }
    }
    return true;
}

static bool holds_nothing(const tsr_request *r, tsr_request_state state)
{
    return r->state == state && r->lane == -1 && r->n_cached == 0 && r->blocks.n_columns == 0 &&
           r->blocks.n_blocks == 0 && r->n_told == 0 && !r->copies && r->prefix == TSR_PREFIX_NONE;
}

static bool rests(const tsr_scheduler *s, const tsr_request *r)
{
    return r->state == TSR_REQUEST_RESTING && r->lane == -1 && r->n_cached > 0 &&
           r->n_cached <= r->n_tokens && r->n_told == 0 && !r->copies && verify_table(s, r) &&
           r->blocks.n_columns == tsr_block_table_blocks_for(r->n_cached, s->options.block_tokens);
}

static bool verify_waiting(const tsr_scheduler *s)
{
    int n_resting = 0;

    for (int i = 0; i < s->waiting.n_items; i++) {
        const tsr_request *r = s->waiting.items[i];

        if (r->is_held || !(rests(s, r) || holds_nothing(r, TSR_REQUEST_WAITING))) {
            return false;
        }
        n_resting += r->state == TSR_REQUEST_RESTING ? 1 : 0;
    }
    for (const tsr_request *r = s->held.first; r != NULL; r = r->next) {
        if (!r->is_held || !(rests(s, r) || holds_nothing(r, TSR_REQUEST_WAITING))) {
            return false;
        }
        n_resting += r->state == TSR_REQUEST_RESTING ? 1 : 0;
    }
    return tsr_request_heap_verify(&s->waiting) && n_resting == s->n_resting &&
           s->waiting.capacity >= s->waiting.n_items + s->n_running + s->held.n_requests;
}

static void count_table(const tsr_scheduler *s, const tsr_block_table *table, int *n_owners)
{
    for (int i = 0; i < table->n_columns * s->groups.n; i++) {
        if (table->ids[i] != TSR_BLOCK_NONE) {
            n_owners[table->ids[i]]++;
        }
    }
}

/* Every owner that the pool counts is a table, the prefix index or a copy in flight; what was told
 * and is free again stands in the list of those to be dropped. */
static bool verify_owners(const tsr_scheduler *s)
{
    int *n_owners = tsr_alloc((size_t)s->options.n_blocks, sizeof(*n_owners));
    bool is_sound = n_owners != NULL;

    if (is_sound) {
        for (int i = 0; i < s->n_running; i++) {
            count_table(s, &s->running[i]->blocks, n_owners);
        }
        for (int i = 0; i < s->waiting.n_items; i++) {
            count_table(s, &s->waiting.items[i]->blocks, n_owners);
        }
        for (const tsr_request *r = s->held.first; r != NULL; r = r->next) {
            count_table(s, &r->blocks, n_owners);
        }
        for (int i = 0; i < s->n_copied; i++) {
            n_owners[s->copied[i]]++;
        }
        for (int id = 0; s->prefix != NULL && id < s->options.n_blocks; id++) {
            n_owners[id] += tsr_block_pool_is_kept(s->pool, id) ? 1 : 0;
        }
    }
    for (int id = 0; is_sound && id < s->options.n_blocks; id++) {
        is_sound = n_owners[id] == tsr_block_pool_n_owners(s->pool, id) &&
                   (n_owners[id] > 0 || !s->known[id]);
    }
    for (int i = 0; is_sound && i < s->n_dropped; i++) {
        is_sound = !s->known[s->dropped[i]];
    }
    tsr_free(n_owners);
    return is_sound;
}

/* Is its chain in the index that of its tokens? Counts it if it holds one. */
static bool verify_chain(const tsr_scheduler *s, const tsr_request *r, int *n_holders)
{
    const int depth = tsr_prefix_index_depth(s->prefix, r->prefix);

    *n_holders += r->prefix != TSR_PREFIX_NONE ? 1 : 0;
    // Its part in the blocks that see everything is what keeps the nodes above.
    for (int g = 0; g < s->groups.n && depth > 0; g++) {
        if (s->groups.behind[g] == INT32_MAX && depth == r->n_indexed &&
            tsr_prefix_index_blocks(s->prefix, r->prefix)[g] !=
                r->blocks.ids[(depth - 1) * s->groups.n + g]) {
            return false;
        }
    }
    return (int64_t)r->n_indexed * s->options.block_tokens <= r->n_cached &&
           (depth == r->n_indexed || depth == r->n_indexed + 1);
}

/* The index holds what requests say they hold. */
static bool verify_prefix(const tsr_scheduler *s)
{
    bool is_sound = true;
    int n_holders = 0;

    for (int i = 0; is_sound && i < s->n_running; i++) {
        is_sound = verify_chain(s, s->running[i], &n_holders);
    }
    for (int i = 0; is_sound && i < s->waiting.n_items; i++) {
        is_sound = verify_chain(s, s->waiting.items[i], &n_holders);
    }
    for (const tsr_request *r = s->held.first; is_sound && r != NULL; r = r->next) {
        is_sound = verify_chain(s, r, &n_holders);
    }
    for (int id = 0; is_sound && id < s->options.n_blocks; id++) {
        is_sound = tsr_block_pool_is_kept(s->pool, id) ==
                   (tsr_prefix_index_node_of(s->prefix, id) != TSR_PREFIX_NONE);
    }
    return is_sound && n_holders == tsr_prefix_index_n_held(s->prefix) &&
           tsr_prefix_index_verify(s->prefix);
}

/* What is counted of the blocks that lanes have, and that it is no more than was promised. */
static bool verify_lanes(const tsr_scheduler *s)
{
    int *n_lanes = tsr_alloc((size_t)s->options.n_blocks, sizeof(*n_lanes));
    bool is_sound = n_lanes != NULL;
    int64_t n_claimed = 0;
    int n_in_lanes = 0;

    for (int i = 0; is_sound && i < s->n_running; i++) {
        const int n = s->running[i]->blocks.n_blocks;

        count_table(s, &s->running[i]->blocks, n_lanes);
        n_claimed += n < s->claim_most ? n : s->claim_most;
    }
    for (int id = 0; is_sound && id < s->options.n_blocks; id++) {
        is_sound = n_lanes[id] == s->n_lanes_with[id];
        n_in_lanes += n_lanes[id] > 0 ? 1 : 0;
    }
    tsr_free(n_lanes);
    return is_sound && n_in_lanes == s->n_in_lanes && n_claimed == s->n_claimed &&
           n_in_lanes <= tsr_admission_most_blocks(&s->options) &&
           tsr_scheduler_rest_claims(s) <= s->options.n_device_blocks;
}

static bool verify_deadlines(const tsr_scheduler *s)
{
    int n = 0;

    for (int i = 0; i < s->n_running; i++) {
        n += s->running[i]->heap_at[TSR_REQUEST_BY_DEADLINE] != 0 ? 1 : 0;
    }
    for (int i = 0; i < s->waiting.n_items; i++) {
        n += s->waiting.items[i]->heap_at[TSR_REQUEST_BY_DEADLINE] != 0 ? 1 : 0;
    }
    for (const tsr_request *r = s->held.first; r != NULL; r = r->next) {
        n += r->heap_at[TSR_REQUEST_BY_DEADLINE] != 0 ? 1 : 0;
    }
    return tsr_request_heap_verify(&s->deadlines) && n == s->deadlines.n_items;
}

static bool verify_ended(const tsr_scheduler *s)
{
    const tsr_request *before = NULL;
    int n = 0;

    for (const tsr_request *r = s->ended.first; r != NULL; before = r, r = r->next, n++) {
        if (!holds_nothing(r, TSR_REQUEST_ENDED) || r->previous != before ||
            r->heap_at[TSR_REQUEST_BY_STANDING] != 0 || r->heap_at[TSR_REQUEST_BY_DEADLINE] != 0) {
            return false;
        }
    }
    return s->ended.last == before && s->ended.n_requests == n;
}

bool tsr_scheduler_verify(const tsr_scheduler *s)
{
    return s->n_running + s->n_free_lanes == s->options.max_seqs &&
           s->n_dropped <= s->options.n_blocks && s->n_left <= s->options.max_seqs &&
           (s->is_out || s->n_copied == 0) && tsr_block_pool_verify(s->pool) && verify_running(s) &&
           verify_waiting(s) && verify_owners(s) && (!s->is_tiered || verify_lanes(s)) &&
           (s->prefix == NULL || verify_prefix(s)) && verify_deadlines(s) && verify_ended(s);
}
