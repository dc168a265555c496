#include <assert.h>
#include <string.h>

#include "engine/scheduler_state.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

tsr_status tsr_scheduler_fork(tsr_scheduler *s, const tsr_request *parent, tsr_request *child,
                              int64_t n_kept)
{
    // At least its last token is computed: that row gives the next one. If it has, for the parent,
    // that one waits for it.
    const bool is_held = parent->is_held && child->n_tokens == parent->n_tokens;
    const int64_t most = is_held ? child->n_tokens : child->n_tokens - 1;
    const int64_t n_shared = least(least(parent->n_cached, n_kept), most);
    // Where what its next row sees has been left, it begins at the beginning.
    const int64_t n_cached =
        tsr_block_table_goes_on_from(&parent->blocks, &s->groups, n_shared) ? n_shared : 0;
    const int64_t n_columns = tsr_block_table_blocks_for(n_cached, s->options.block_tokens);

    assert(!s->is_out && n_kept <= parent->n_tokens && n_kept <= child->n_tokens);
    TSR_TRY(tsr_scheduler_take_on(s, child, 0));
    if (tsr_block_table_share(&child->blocks, s->pool, &s->groups, parent->blocks.ids,
                              (int)n_columns) != TSR_OK) {
        if (child->deadline_ns != 0) {
            tsr_request_heap_take_out(&s->deadlines, child);
        }
        return TSR_ERR_NOMEM;
    }
    child->n_cached = n_cached;
    child->blocks.floor = n_cached > 0 ? parent->blocks.floor : 0;
    child->is_held = is_held;
    child->n_reused = least(parent->n_reused, child->n_prompt);
    tsr_scheduler_prefix_fork(s, child, parent);
    if (n_columns > 0 && s->n_free_lanes > 0 && parent->state == TSR_REQUEST_RUNNING &&
        !parent->wakes && tsr_scheduler_rest_fits(s, child)) {
        (void)tsr_scheduler_start(s, child);
    } else {
        tsr_scheduler_wait(s, child);
    }
    return TSR_OK;
}

tsr_status tsr_scheduler_refork(tsr_scheduler *s, const tsr_request *from, tsr_request *to)
{
    int64_t n_same_tokens;
    int n_same;
    bool waits;

    assert(!s->is_out && from != to && from->n_tokens == to->n_tokens &&
           from->n_prompt == to->n_prompt && from->is_held == to->is_held);
    // What rests, or is about to wake, may lie in slower memory: whoever takes part in it must wake
    // with it.
    if (s->is_tiered && to->state == TSR_REQUEST_RUNNING &&
        (from->state != TSR_REQUEST_RUNNING || from->wakes)) {
        (void)tsr_scheduler_put_back(s, tsr_scheduler_index_of(s, to), false);
    }
    waits = to->state != TSR_REQUEST_RUNNING;
    if (waits) {
        tsr_scheduler_wait_no_more(s, to);
    }
    if (tsr_scheduler_blocks_become(s, to, from, &n_same) != TSR_OK) {
        if (waits) {
            tsr_scheduler_wait(s, to);
        }
        return TSR_ERR_NOMEM;
    }
    // The same block holds the same tokens, as far as both have computed them; of columns that were
    // left nothing is known.
    n_same_tokens = to->blocks.floor > 0 ? 0
                                         : least((int64_t)n_same * s->options.block_tokens,
                                                 least(from->n_cached, to->n_cached));
    memcpy(to->tokens + n_same_tokens, from->tokens + n_same_tokens,
           (size_t)(from->n_tokens - n_same_tokens) * sizeof(*to->tokens));
    to->n_cached = from->n_cached;
    to->n_scored = from->n_scored;
    tsr_scheduler_prefix_fork(s, to, from);
    if (waits) {
        tsr_scheduler_wait(s, to);
    } else if (s->is_tiered && tsr_scheduler_rest_claims(s) > s->options.n_device_blocks) {
        (void)tsr_scheduler_put_back(s, tsr_scheduler_index_of(s, to), true);
    }
    return TSR_OK;
}
