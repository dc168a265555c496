#include <assert.h>

#include "engine/scheduler_state.h"

void tsr_scheduler_blocks_note_free(tsr_scheduler *s, int32_t id)
{
    if (s->known[id]) {
        s->known[id] = false;
        s->dropped[s->n_dropped++] = id;
    }
}

void tsr_scheduler_blocks_release(tsr_scheduler *s, int32_t id)
{
    if (tsr_block_pool_drop(s->pool, id)) {
        tsr_scheduler_blocks_note_free(s, id);
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

/* Columns [from, n_columns) of a request come to its lane; or leave it, and it is left with `from`.
 */
static void count_columns(tsr_scheduler *s, const tsr_request *r, int from, int by)
{
    const int n_before = tsr_block_table_n_before(&r->blocks, &s->groups, from);

    if (!s->is_tiered || r->lane < 0) {
        return;
    }
    for (int i = from * s->groups.n; i < r->blocks.n_columns * s->groups.n; i++) {
        if (r->blocks.ids[i] != TSR_BLOCK_NONE) {
            count_in_lane(s, r->blocks.ids[i], by);
        }
    }
    s->n_claimed += by * (claim_of(s, r->blocks.n_blocks) - claim_of(s, n_before));
}

/* Give back all but the first n_keep columns; the list stays. */
static void drop_behind(tsr_scheduler *s, tsr_request *r, int n_keep)
{
    int n_freed;

    count_columns(s, r, n_keep, -1);
    n_freed = tsr_block_table_cut(&r->blocks, s->pool, &s->groups, n_keep, s->freed);
    for (int i = 0; i < n_freed; i++) {
        tsr_scheduler_blocks_note_free(s, s->freed[i]);
    }
    r->n_told = r->n_told < n_keep ? r->n_told : n_keep;
}

void tsr_scheduler_blocks_cut(tsr_scheduler *s, tsr_request *r, int n_keep)
{
    drop_behind(s, r, n_keep);
    if (n_keep == 0) {
        tsr_block_table_clear(&r->blocks, s->pool, &s->groups);
    }
}

void tsr_scheduler_blocks_leave(tsr_scheduler *s, tsr_request *r)
{
    const int n_had = r->blocks.n_blocks;
    const int n = tsr_block_table_leave(&r->blocks, &s->groups,
                                        tsr_block_groups_floor(&s->groups, r->n_cached), s->freed);

    for (int i = 0; i < n; i++) {
        if (s->is_tiered && r->lane >= 0) {
            count_in_lane(s, s->freed[i], -1);
        }
        tsr_scheduler_blocks_release(s, s->freed[i]);
    }
    if (s->is_tiered && r->lane >= 0) {
        s->n_claimed += claim_of(s, r->blocks.n_blocks) - claim_of(s, n_had);
    }
}

/* How many first columns of two tables have the same blocks. */
static int n_same_columns(const tsr_scheduler *s, const tsr_block_table *a,
                          const tsr_block_table *b)
{
    const int most = (a->n_columns < b->n_columns ? a->n_columns : b->n_columns) * s->groups.n;
    int same = 0;

    while (same < most && a->ids[same] == b->ids[same]) {
        same++;
    }
    return same / s->groups.n;
}

tsr_status tsr_scheduler_blocks_become(tsr_scheduler *s, tsr_request *r, const tsr_request *from,
                                       int *n_same)
{
    const int n = from->blocks.n_columns;
    const int same = n_same_columns(s, &r->blocks, &from->blocks);

    TSR_TRY(tsr_block_table_reserve(&r->blocks, &s->groups, n));
    if (r->lane >= 0 && r->blocks.floor != from->blocks.floor) {
        tsr_scheduler_blocks_untell(s, r); // its lane has let go of others than it is to have
    }
    drop_behind(s, r, same);
    TSR_TRY(tsr_block_table_share(&r->blocks, s->pool, &s->groups,
                                  from->blocks.ids + (size_t)same * (size_t)s->groups.n,
                                  n - same)); // there is room
    r->blocks.floor = from->blocks.floor;
    count_columns(s, r, same, 1);
    *n_same = same;
    return TSR_OK;
}

void tsr_scheduler_blocks_take_lane(tsr_scheduler *s, tsr_request *r)
{
    r->lane = s->free_lanes[--s->n_free_lanes];
    count_columns(s, r, 0, 1);
}

void tsr_scheduler_blocks_leave_lane(tsr_scheduler *s, tsr_request *r)
{
    count_columns(s, r, 0, -1);
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
    r->floor_told = 0;
}

/* The column that the next row is written into, if there is one yet. */
static int next_column(const tsr_scheduler *s, const tsr_request *r)
{
    return (int)(r->n_cached / s->options.block_tokens);
}

static int32_t *column_at(const tsr_scheduler *s, const tsr_request *r, int at)
{
    return r->blocks.ids + (size_t)at * (size_t)s->groups.n;
}

bool tsr_scheduler_blocks_must_copy(const tsr_scheduler *s, const tsr_request *r)
{
    const int at = next_column(s, r);
    bool must = false;

    for (int g = 0; g < s->groups.n && !must && at < r->blocks.n_columns && !r->copies; g++) {
        const int32_t id = column_at(s, r, at)[g];
        int n_owners = tsr_block_pool_n_owners(s->pool, id);

        // Those who copy from it in this step do so before anything is written.
        for (int i = 0; n_owners > 1 && i < s->n_running; i++) {
            const tsr_request *other = s->running[i];

            n_owners -= other->copies && other->copy_from[g] == id ? 1 : 0;
        }
        must = n_owners > 1;
    }
    return must;
}

/* Other blocks in the place of one of a request's columns. */
static void swap_column(tsr_scheduler *s, tsr_request *r, int at, const int32_t *ids)
{
    int32_t *column = column_at(s, r, at);

    for (int g = 0; g < s->groups.n; g++) {
        if (s->is_tiered) {
            count_in_lane(s, column[g], -1);
            count_in_lane(s, ids[g], 1);
        }
        column[g] = ids[g];
    }
}

void tsr_scheduler_blocks_replace(tsr_scheduler *s, tsr_request *r, int at, const int32_t *ids)
{
    int32_t was[TSR_BLOCK_MOST_GROUPS];

    for (int g = 0; g < s->groups.n; g++) {
        was[g] = column_at(s, r, at)[g];
        tsr_block_pool_share(s->pool, ids[g]);
    }
    swap_column(s, r, at, ids);
    for (int g = 0; g < s->groups.n; g++) {
        tsr_scheduler_blocks_release(s, was[g]);
    }
    r->n_told = r->n_told < at ? r->n_told : at;
}

/* A fresh column in the place of the one that the next row is written into, which it will be a copy
 * of. */
static tsr_status begin_copy(tsr_scheduler *s, tsr_request *r)
{
    const int at = next_column(s, r);
    int32_t fresh[TSR_BLOCK_MOST_GROUPS];

    if (tsr_block_pool_n_free(s->pool) < s->groups.n) {
        return TSR_ERR_FULL;
    }
    for (int g = 0; g < s->groups.n; g++) {
        TSR_TRY(tsr_block_pool_take(s->pool, &fresh[g])); // there are enough
        r->copy_from[g] = column_at(s, r, at)[g];         // its owner is kept for the copy
    }
    r->copies = true;
    swap_column(s, r, at, fresh);
    r->n_told = r->n_told < at ? r->n_told : at;
    tsr_scheduler_prefix_shrink(s, r); // what it copies from need not be held any longer
    return TSR_OK;
}

tsr_status tsr_scheduler_blocks_grow(tsr_scheduler *s, tsr_request *r, int64_t n_rows)
{
    const int n_before = r->blocks.n_columns;

    if (tsr_scheduler_blocks_must_copy(s, r)) {
        TSR_TRY(begin_copy(s, r));
    }
    TSR_TRY(tsr_block_table_grow(&r->blocks, s->pool, &s->groups, r->n_cached + n_rows));
    count_columns(s, r, n_before, 1);
    return TSR_OK;
}

void tsr_scheduler_blocks_ungrow(tsr_scheduler *s, tsr_request *r)
{
    const int64_t n_kept = tsr_block_table_blocks_for(r->n_cached, s->options.block_tokens);

    if (r->copies) {
        int32_t fresh[TSR_BLOCK_MOST_GROUPS];

        for (int g = 0; g < s->groups.n; g++) {
            fresh[g] = column_at(s, r, next_column(s, r))[g];
        }
        swap_column(s, r, next_column(s, r), r->copy_from); // with the owners that were kept
        r->copies = false;
        for (int g = 0; g < s->groups.n; g++) {
            tsr_scheduler_blocks_release(s, fresh[g]);
        }
    }
    tsr_scheduler_blocks_cut(s, r, (int)n_kept);
}

/* ---- what the ranks are told ---- */

static void tell_entry(tsr_scheduler *s, const tsr_request *r, tsr_step *step, int entry)
{
    const int32_t id = r->blocks.ids[entry];

    step->append_lane[step->n_appended] = r->lane;
    step->append_index[step->n_appended] = entry;
    step->append_block[step->n_appended++] = id;
    if (id != TSR_BLOCK_NONE) {
        s->known[id] = true;
    }
}

/* With tiers: entries that were left since the lane was told of them. A block that somebody else
 * has as well may then lie anywhere. */
static void tell_left(tsr_scheduler *s, tsr_request *r, tsr_step *step)
{
    for (int g = 0; g < s->groups.n && s->is_tiered && s->lane_told[r->lane]; g++) {
        const int first = tsr_block_groups_first(&s->groups, g, r->blocks.floor);

        if (first > tsr_block_groups_first(&s->groups, g, r->floor_told)) {
            tell_entry(s, r, step, (first - 1) * s->groups.n + g); // and so of those before it
        }
    }
    r->floor_told = r->blocks.floor;
}

tsr_status tsr_scheduler_blocks_tell(tsr_scheduler *s, tsr_request *r, tsr_step *step)
{
    const int n = s->groups.n;
    const int64_t n_more = (int64_t)(r->blocks.n_columns - r->n_told + 1) * n;

    TSR_TRY(tsr_step_reserve_appended(step, step->n_appended + n_more));
    for (int g = 0; g < n && r->copies; g++) {
        step->copy_from[step->n_copied] = r->copy_from[g];
        step->copy_to[step->n_copied++] = column_at(s, r, next_column(s, r))[g];
        s->copied[s->n_copied++] = r->copy_from[g];
    }
    r->copies = false;
    tell_left(s, r, step);
    for (int i = r->n_told * n; i < r->blocks.n_columns * n; i++) {
        if (r->blocks.ids[i] != TSR_BLOCK_NONE) {
            tell_entry(s, r, step, i);
        }
    }
    r->n_told = r->blocks.n_columns;
    s->lane_told[r->lane] = true;
    return TSR_OK;
}

bool tsr_scheduler_blocks_has_news(const tsr_scheduler *s, const tsr_request *r)
{
    return r->n_told < r->blocks.n_columns || (s->is_tiered && r->floor_told != r->blocks.floor);
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
