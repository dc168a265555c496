#include <string.h>

#include "engine/scheduler_state.h"

enum {
    NONE = TSR_PREFIX_NONE
};

static void hold(tsr_scheduler *s, tsr_request *r, int32_t node)
{
    tsr_prefix_index_hold(s->prefix, node);
    tsr_prefix_index_release(s->prefix, r->prefix);
    r->prefix = node;
}

tsr_prefix_match tsr_scheduler_prefix_find(const tsr_scheduler *s, const tsr_request *r)
{
    int64_t n_most = r->n_tokens - 1;

    if (s->prefix == NULL) {
        return (tsr_prefix_match){.node = NONE};
    }
    if (tsr_request_reads_all(r)) {
        n_most = r->n_scored < n_most ? r->n_scored : n_most;
    }
    return tsr_prefix_index_find(s->prefix, r->tokens, r->n_tokens, n_most);
}

tsr_status tsr_scheduler_prefix_attach(tsr_scheduler *s, tsr_request *r,
                                       const tsr_prefix_match *match)
{
    tsr_prefix_index_path(s->prefix, match->node, s->path, match->n_columns);
    TSR_TRY(tsr_block_table_share(&r->blocks, s->pool, &s->groups, s->path, match->n_columns));
    hold(s, r, match->node);
    r->n_cached = match->n_tokens;
    r->blocks.floor = tsr_block_groups_floor(&s->groups, r->n_cached);
    r->n_indexed = (int)(match->n_tokens / s->options.block_tokens);
    return TSR_OK;
}

int tsr_scheduler_prefix_n_idle(tsr_scheduler *s, const tsr_prefix_match *match)
{
    int n = 0;

    if (match->n_columns > 0) {
        tsr_prefix_index_path(s->prefix, match->node, s->path, match->n_columns);
    }
    for (int i = 0; i < match->n_columns * s->groups.n; i++) {
        n += s->path[i] != TSR_BLOCK_NONE && tsr_block_pool_is_idle(s->pool, s->path[i]) ? 1 : 0;
    }
    return n;
}

/* The node of its last full column. A last one that it holds and has only a part of is behind. */
static int32_t full_node(const tsr_scheduler *s, const tsr_request *r)
{
    return tsr_prefix_index_ancestor(s->prefix, r->prefix, r->n_indexed);
}

/* The next n_tokens tokens behind those that are known. NONE: its column is not whole any more, or
 * there is no memory. */
static int32_t add(tsr_scheduler *s, const tsr_request *r, int n_tokens)
{
    const int32_t *blocks = r->blocks.ids + (size_t)r->n_indexed * (size_t)s->groups.n;
    int32_t taken[TSR_BLOCK_MOST_GROUPS];
    int n_taken;
    int32_t node;

    for (int g = 0; g < s->groups.n; g++) {
        if (blocks[g] == TSR_BLOCK_NONE) {
            return NONE;
        }
    }
    node = tsr_prefix_index_add(s->prefix, full_node(s, r), blocks,
                                r->tokens + (int64_t)r->n_indexed * s->options.block_tokens,
                                n_tokens, taken, &n_taken);
    for (int i = 0; i < n_taken; i++) {
        tsr_block_pool_keep(s->pool, taken[i]);
    }
    return node;
}

/* May a running request have these blocks instead of its own? Nobody holds what he does not use:
 * with tiers one that no lane has may be out of reach. */
static bool may_have(const tsr_scheduler *s, const int32_t *ids)
{
    bool may = true;

    for (int g = 0; g < s->groups.n; g++) {
        may = may && ids[g] != TSR_BLOCK_NONE && (!s->is_tiered || s->n_lanes_with[ids[g]] > 0);
    }
    return may;
}

void tsr_scheduler_prefix_grow(tsr_scheduler *s, tsr_request *r)
{
    const int bt = s->options.block_tokens;

    while (s->prefix != NULL && ((int64_t)r->n_indexed + 1) * bt <= r->n_cached) {
        const int32_t node = add(s, r, bt);
        const int32_t *had = r->blocks.ids + (size_t)r->n_indexed * (size_t)s->groups.n;
        const int32_t *ids;

        // What is behind one that stays unknown does so, too.
        if (node == NONE) {
            return;
        }
        ids = tsr_prefix_index_blocks(s->prefix, node);
        // The same from somebody else: one of the two is enough.
        if (memcmp(ids, had, (size_t)s->groups.n * sizeof(*ids)) != 0) {
            if (!may_have(s, ids)) {
                return;
            }
            tsr_scheduler_blocks_replace(s, r, r->n_indexed, ids);
        }
        hold(s, r, node);
        r->n_indexed++;
    }
}

void tsr_scheduler_prefix_keep_tail(tsr_scheduler *s, tsr_request *r)
{
    const int bt = s->options.block_tokens;
    const int n_tail = (int)(r->n_cached % bt);

    if (s->prefix != NULL && n_tail > 0 && r->n_indexed == r->n_cached / bt) {
        (void)add(s, r, n_tail);
    }
}

void tsr_scheduler_prefix_shrink(tsr_scheduler *s, tsr_request *r)
{
    const int n_full = (int)(r->n_cached / s->options.block_tokens);

    if (s->prefix != NULL) {
        r->n_indexed = r->n_indexed < n_full ? r->n_indexed : n_full;
        hold(s, r, full_node(s, r));
    }
}

void tsr_scheduler_prefix_fork(tsr_scheduler *s, tsr_request *child, const tsr_request *parent)
{
    if (s->prefix != NULL) {
        hold(s, child, parent->prefix);
        child->n_indexed = parent->n_indexed;
        tsr_scheduler_prefix_shrink(s, child);
    }
}

/* A chain that goes through the node ends above it. */
static void end_above(tsr_scheduler *s, tsr_request *r, int32_t node)
{
    const int depth = tsr_prefix_index_depth(s->prefix, node);

    if (tsr_prefix_index_ancestor(s->prefix, r->prefix, depth) == node) {
        r->n_indexed = r->n_indexed < depth ? r->n_indexed : depth - 1;
        hold(s, r, full_node(s, r));
    }
}

/* The index gives up a block, and what is of no use without it. */
static void forget(tsr_scheduler *s, int32_t id)
{
    const int n = tsr_prefix_index_forget(s->prefix, id, s->freed);

    for (int i = 0; i < n; i++) {
        if (tsr_block_pool_let_go(s->pool, s->freed[i])) {
            tsr_scheduler_blocks_note_free(s, s->freed[i]);
        }
    }
}

void tsr_scheduler_prefix_lose(tsr_scheduler *s, int32_t id)
{
    const int32_t node = s->prefix == NULL ? NONE : tsr_prefix_index_node_of(s->prefix, id);

    if (node == NONE) {
        return;
    }
    for (int i = 0; i < s->n_running; i++) {
        end_above(s, s->running[i], node);
    }
    for (int i = 0; i < s->waiting.n_items; i++) {
        end_above(s, s->waiting.items[i], node);
    }
    for (tsr_request *r = s->held.first; r != NULL; r = r->next) {
        end_above(s, r, node);
    }
    forget(s, id);
}

void tsr_scheduler_prefix_make_room(tsr_scheduler *s, int64_t n)
{
    while (tsr_block_pool_n_free(s->pool) < n && tsr_block_pool_n_idle(s->pool) > 0) {
        forget(s, tsr_block_pool_oldest_idle(s->pool));
    }
}

int tsr_scheduler_prefix_n_free(const tsr_scheduler *s)
{
    return tsr_block_pool_n_free(s->pool) + tsr_block_pool_n_idle(s->pool);
}
