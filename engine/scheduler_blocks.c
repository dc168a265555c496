#include <assert.h>

#include "engine/scheduler_state.h"

/* Ids that have become free: the ranks are to drop those they know of. */
static void note_free(tsr_scheduler *s, int32_t id)
{
    if (s->known[id]) {
        s->known[id] = false;
        s->dropped[s->n_dropped++] = id;
    }
}

void tsr_scheduler_blocks_release(tsr_scheduler *s, int32_t id)
{
    if (tsr_block_pool_drop(s->pool, id)) {
        note_free(s, id);
    }
}

/* One lane more or less has the block. */
static void count_in_lane(tsr_scheduler *s, int32_t id, int by)
{
    s->n_lanes_with[id] += by;
    s->n_in_lanes += by > 0 && s->n_lanes_with[id] == 1 ? 1 : 0;
    s->n_in_lanes -= by < 0 && s->n_lanes_with[id] == 0 ? 1 : 0;
}

static int claim_of(const tsr_scheduler *s, int n_blocks)
{
    return n_blocks < s->claim_most ? n_blocks : s->claim_most;
}

/* Blocks [from, n_blocks) of a request come to its lane; or leave it, and it is left with `from`.
 */
static void count_blocks(tsr_scheduler *s, const tsr_request *r, int from, int by)
{
    if (!s->is_tiered || r->lane < 0) {
        return;
    }
    for (int i = from; i < r->blocks.n_blocks; i++) {
        count_in_lane(s, r->blocks.ids[i], by);
    }
    s->n_claimed += by * (claim_of(s, r->blocks.n_blocks) - claim_of(s, from));
}

/* Give back all but the first n_keep; the list stays. */
static void drop_behind(tsr_scheduler *s, tsr_request *r, int n_keep)
{
    int n_freed;

    count_blocks(s, r, n_keep, -1);
    n_freed = tsr_block_table_cut(&r->blocks, s->pool, n_keep, s->freed);
    for (int i = 0; i < n_freed; i++) {
        note_free(s, s->freed[i]);
    }
    r->n_told = r->n_told < n_keep ? r->n_told : n_keep;
}

void tsr_scheduler_blocks_cut(tsr_scheduler *s, tsr_request *r, int n_keep)
{
    drop_behind(s, r, n_keep);
    if (n_keep == 0) {
        tsr_block_table_clear(&r->blocks, s->pool);
    }
}

tsr_status tsr_scheduler_blocks_become(tsr_scheduler *s, tsr_request *r, const tsr_request *from,
                                       int *n_same)
{
    const int n = from->blocks.n_blocks;
    int same = 0;

    TSR_TRY(tsr_block_table_reserve(&r->blocks, n));
    while (same < n && same < r->blocks.n_blocks && r->blocks.ids[same] == from->blocks.ids[same]) {
        same++;
    }
    drop_behind(s, r, same);
    TSR_TRY(tsr_block_table_share(&r->blocks, s->pool, from->blocks.ids + same, n - same)); // room
    count_blocks(s, r, same, 1);
    *n_same = same;
    return TSR_OK;
}

void tsr_scheduler_blocks_take_lane(tsr_scheduler *s, tsr_request *r)
{
    r->lane = s->free_lanes[--s->n_free_lanes];
    count_blocks(s, r, 0, 1);
}

void tsr_scheduler_blocks_leave_lane(tsr_scheduler *s, tsr_request *r)
{
    count_blocks(s, r, 0, -1);
    tsr_scheduler_blocks_untell(s, r);
    s->free_lanes[s->n_free_lanes++] = r->lane;
    r->lane = -1;
}

void tsr_scheduler_blocks_untell(tsr_scheduler *s, tsr_request *r)
{
    if (s->lane_told[r->lane]) {
        s->lane_told[r->lane] = false;
        s->left[s->n_left++] = r->lane;
    }
    r->n_told = 0;
}

/* The block that the next row is written into, if there is one yet. */
static int next_block(const tsr_scheduler *s, const tsr_request *r)
{
    return (int)(r->n_cached / s->options.block_tokens);
}

bool tsr_scheduler_blocks_must_copy(const tsr_scheduler *s, const tsr_request *r)
{
    const int at = next_block(s, r);
    int n_owners;

    if (at >= r->blocks.n_blocks || r->copy_from >= 0) {
        return false;
    }
    n_owners = tsr_block_pool_n_owners(s->pool, r->blocks.ids[at]);
    // Those who copy from it in this step do so before anything is written.
    for (int i = 0; n_owners > 1 && i < s->n_running; i++) {
        n_owners -= s->running[i]->copy_from == r->blocks.ids[at] ? 1 : 0;
    }
    return n_owners > 1;
}

/* Another block in the place of one of a request's. */
static void swap_block(tsr_scheduler *s, tsr_request *r, int at, int32_t id)
{
    if (s->is_tiered) {
        count_in_lane(s, r->blocks.ids[at], -1);
        count_in_lane(s, id, 1);
    }
    r->blocks.ids[at] = id;
}

void tsr_scheduler_blocks_replace(tsr_scheduler *s, tsr_request *r, int at, int32_t id)
{
    const int32_t was = r->blocks.ids[at];

    tsr_block_pool_share(s->pool, id);
    swap_block(s, r, at, id);
    tsr_scheduler_blocks_release(s, was);
    r->n_told = r->n_told < at ? r->n_told : at;
}

tsr_status tsr_scheduler_blocks_grow(tsr_scheduler *s, tsr_request *r, int64_t n_rows)
{
    const int n_before = r->blocks.n_blocks;

    if (tsr_scheduler_blocks_must_copy(s, r)) {
        const int at = next_block(s, r);
        int32_t fresh;

        TSR_TRY(tsr_block_pool_take(s->pool, &fresh));
        r->copy_from = r->blocks.ids[at]; // its owner is kept for the copy
        swap_block(s, r, at, fresh);
        r->n_told = r->n_told < at ? r->n_told : at;
        tsr_scheduler_prefix_shrink(s, r); // what it copies from need not be held any longer
    }
    TSR_TRY(
        tsr_block_table_grow(&r->blocks, s->pool, r->n_cached + n_rows, s->options.block_tokens));
    count_blocks(s, r, n_before, 1);
    return TSR_OK;
}

void tsr_scheduler_blocks_ungrow(tsr_scheduler *s, tsr_request *r)
{
    const int64_t n_kept = tsr_block_table_blocks_for(r->n_cached, s->options.block_tokens);

    if (r->copy_from >= 0) {
        const int32_t fresh = r->blocks.ids[next_block(s, r)];

        swap_block(s, r, next_block(s, r), r->copy_from); // with the owner that was kept
        r->copy_from = -1;
        tsr_scheduler_blocks_release(s, fresh);
    }
    tsr_scheduler_blocks_cut(s, r, (int)n_kept);
}

tsr_status tsr_scheduler_blocks_tell(tsr_scheduler *s, tsr_request *r, tsr_step *step)
{
    const int64_t n_more = r->blocks.n_blocks - r->n_told;

    TSR_TRY(tsr_step_reserve_appended(step, step->n_appended + n_more));
    if (r->copy_from >= 0) {
        step->copy_from[step->n_copied] = r->copy_from;
        step->copy_to[step->n_copied++] = r->blocks.ids[next_block(s, r)];
        s->copied[s->n_copied++] = r->copy_from;
        r->copy_from = -1;
    }
    for (; r->n_told < r->blocks.n_blocks; r->n_told++) {
        step->append_lane[step->n_appended] = r->lane;
        step->append_index[step->n_appended] = r->n_told;
        step->append_block[step->n_appended++] = r->blocks.ids[r->n_told];
        s->known[r->blocks.ids[r->n_told]] = true;
    }
    s->lane_told[r->lane] = true;
    return TSR_OK;
}

void tsr_scheduler_blocks_tell_free(tsr_scheduler *s, tsr_step *step)
{
    for (; step->n_dropped < s->n_dropped; step->n_dropped++) {
        step->dropped[step->n_dropped] = s->dropped[step->n_dropped];
    }
    for (; step->n_left < s->n_left; step->n_left++) {
        step->left[step->n_left] = s->left[step->n_left];
    }
    s->n_dropped = 0;
    s->n_left = 0;
}
