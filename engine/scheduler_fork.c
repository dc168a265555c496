#include <assert.h>
#include <string.h>

#include "base/alloc.h"
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
    const int64_t n_cached = least(least(parent->n_cached, n_kept), most);
    const int64_t n_blocks = tsr_block_table_blocks_for(n_cached, s->options.block_tokens);

    assert(!s->is_out && n_kept <= parent->n_tokens && n_kept <= child->n_tokens);
    TSR_TRY(tsr_scheduler_take_on(s, child, 0));
    if (tsr_block_table_share(&child->blocks, s->pool, parent->blocks.ids, (int)n_blocks) !=
        TSR_OK) {
        if (child->deadline_ns != 0) {
            tsr_request_heap_take_out(&s->deadlines, child);
        }
        return TSR_ERR_NOMEM;
    }
    child->n_cached = n_cached;
    child->is_held = is_held;
    child->n_reused = parent->n_reused;
    tsr_scheduler_prefix_fork(s, child, parent);
    if (n_blocks > 0 && s->n_free_lanes > 0 && parent->state == TSR_REQUEST_RUNNING &&
        !parent->wakes && tsr_scheduler_rest_fits(s, child)) {
        (void)tsr_scheduler_start(s, child);
    } else {
        tsr_scheduler_wait(s, child);
    }
    return TSR_OK;
}

/* What a request takes over from another. */
typedef struct heritage {
    tsr_block_table blocks;
    int32_t *tokens;
    int64_t n_cached;
    int64_t n_scored;
    int32_t prefix; // held
    int n_indexed;
} heritage;

static tsr_status inherit(tsr_scheduler *s, heritage *h, const tsr_request *from, int64_t capacity)
{
    h->tokens = tsr_alloc((size_t)capacity, sizeof(*h->tokens));
    if (h->tokens == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "scheduler: no memory for %lld tokens", (long long)capacity);
    }
    memcpy(h->tokens, from->tokens, (size_t)from->n_tokens * sizeof(*h->tokens));
    h->n_cached = from->n_cached;
    h->n_scored = from->n_scored;
    h->n_indexed = from->n_indexed;
    if (s->prefix != NULL) {
        tsr_prefix_index_hold(s->prefix, from->prefix);
        h->prefix = from->prefix;
    }
    return tsr_block_table_share(&h->blocks, s->pool, from->blocks.ids, from->blocks.n_blocks);
}

/* The old blocks and tokens for those inherited. Its lane keeps the entries that are the same. */
static void become(tsr_scheduler *s, tsr_request *r, heritage *h)
{
    const bool waits = r->state != TSR_REQUEST_RUNNING;
    int n_same = 0;

    while (n_same < r->n_told && n_same < h->blocks.n_blocks &&
           r->blocks.ids[n_same] == h->blocks.ids[n_same]) {
        n_same++;
    }
    if (waits) {
        tsr_scheduler_wait_no_more(s, r);
    }
    tsr_scheduler_blocks_adopt(s, r, &h->blocks, n_same);
    if (s->prefix != NULL) {
        tsr_prefix_index_release(s->prefix, r->prefix);
        r->prefix = h->prefix;
    }
    r->n_indexed = h->n_indexed;
    tsr_free(r->tokens);
    r->tokens = h->tokens;
    r->n_cached = h->n_cached;
    r->n_scored = h->n_scored;
    if (waits) {
        tsr_scheduler_wait(s, r);
    }
}

tsr_status tsr_scheduler_refork(tsr_scheduler *s, tsr_request *const *requests, const int *sources,
                                int n)
{
    heritage *made = tsr_alloc((size_t)n, sizeof(*made));
    tsr_status st = TSR_OK;

    assert(!s->is_out);
    if (made == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "scheduler: no memory to fork %d sequences", n);
    }
    for (int i = 0; i < n; i++) {
        made[i].prefix = TSR_PREFIX_NONE;
    }
    for (int i = 0; i < n; i++) {
        const tsr_request *from = requests[sources[i]];

        assert(from->n_tokens == requests[i]->n_tokens && from->n_prompt == requests[i]->n_prompt);
        if (sources[i] != i) {
            TSR_TRY_GOTO(st, fail, inherit(s, &made[i], from, requests[i]->capacity));
        }
    }
    for (int i = 0; i < n; i++) {
        if (sources[i] != i) {
            become(s, requests[i], &made[i]);
        }
    }
    tsr_free(made);
    return TSR_OK;

fail:
    for (int i = 0; i < n; i++) {
        tsr_block_table_clear(&made[i].blocks, s->pool); // none was the only owner
        tsr_free(made[i].tokens);
        if (s->prefix != NULL) {
            tsr_prefix_index_release(s->prefix, made[i].prefix);
        }
    }
    tsr_free(made);
    return st;
}
