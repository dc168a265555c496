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
    tsr_prefix_index_path(s->prefix, match->node, s->freed, match->n_blocks);
    TSR_TRY(tsr_block_table_share(&r->blocks, s->pool, s->freed, match->n_blocks));
    hold(s, r, match->node);
    r->n_cached = match->n_tokens;
    r->n_indexed = (int)(match->n_tokens / s->options.block_tokens);
    return TSR_OK;
}

/* The node of its last full block. A last block that it holds and has only a part of is behind. */
static int32_t full_node(const tsr_scheduler *s, const tsr_request *r)
{
    return tsr_prefix_index_ancestor(s->prefix, r->prefix, r->n_indexed);
}

/* The next n_tokens tokens behind those that are known. */
static int32_t add(tsr_scheduler *s, const tsr_request *r, int n_tokens)
{
    const int32_t block = r->blocks.ids[r->n_indexed];
    bool is_new;
    const int32_t node = tsr_prefix_index_add(
        s->prefix, full_node(s, r), block,
        r->tokens + (int64_t)r->n_indexed * s->options.block_tokens, n_tokens, &is_new);

    if (is_new) {
        tsr_block_pool_share(s->pool, block);
    }
    return node;
}

void tsr_scheduler_prefix_grow(tsr_scheduler *s, tsr_request *r)
{
    const int bt = s->options.block_tokens;

    while (s->prefix != NULL && ((int64_t)r->n_indexed + 1) * bt <= r->n_cached) {
        const int32_t node = add(s, r, bt);

        // The same from somebody else: one of the two is enough. Nobody holds what he does not use,
        // so where that one may be out of reach, those behind it stay unknown.
        if (node != r->blocks.ids[r->n_indexed]) {
            if (s->is_tiered && s->n_lanes_with[node] == 0) {
                return;
            }
            tsr_scheduler_blocks_replace(s, r, r->n_indexed, node);
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

void tsr_scheduler_prefix_lose(tsr_scheduler *s, int32_t id)
{
    int n;

    if (s->prefix == NULL || tsr_prefix_index_depth(s->prefix, id) == 0) {
        return;
    }
    for (int i = 0; i < s->n_running; i++) {
        end_above(s, s->running[i], id);
    }
    for (int i = 0; i < s->waiting.n_items; i++) {
        end_above(s, s->waiting.items[i], id);
    }
    for (tsr_request *r = s->held.first; r != NULL; r = r->next) {
        end_above(s, r, id);
    }
    n = tsr_prefix_index_cut(s->prefix, id, s->freed);
    for (int i = 0; i < n; i++) {
        tsr_scheduler_blocks_release(s, s->freed[i]);
    }
}

void tsr_scheduler_prefix_make_room(tsr_scheduler *s, int64_t n)
{
    int32_t id;

    while (s->prefix != NULL && tsr_block_pool_n_free(s->pool) < n &&
           tsr_prefix_index_forget(s->prefix, &id)) {
        tsr_scheduler_blocks_release(s, id);
    }
}

int tsr_scheduler_prefix_n_free(const tsr_scheduler *s)
{
    return tsr_block_pool_n_free(s->pool) +
           (s->prefix == NULL ? 0 : tsr_prefix_index_n_unheld(s->prefix));
}
