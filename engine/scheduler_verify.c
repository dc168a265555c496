#include "engine/scheduler_state.h"

static bool verify_running(const tsr_scheduler *s)
{
    int n_held = 0;

    for (int i = 0; i < s->n_running; i++) {
        const tsr_request *r = s->running[i];
        const int64_t n_needed = tsr_block_table_blocks_for(r->n_cached, s->options.block_tokens);

        if (r->state != TSR_REQUEST_RUNNING || r->n_cached > r->n_tokens ||
            r->blocks.n_blocks < n_needed || r->n_told < n_needed ||
            r->n_told > r->blocks.n_blocks || r->lane < 0 || r->lane >= s->options.max_seqs ||
            (i > 0 && !tsr_request_is_before(TSR_REQUEST_BY_STANDING, s->running[i - 1], r)) ||
            r->heap_at[TSR_REQUEST_BY_STANDING] != 0) {
            return false;
        }
        for (int k = 0; k < i; k++) {
            if (s->running[k]->lane == r->lane) {
                return false;
            }
        }
        for (int k = 0; k < s->n_free_lanes; k++) {
            if (s->free_lanes[k] == r->lane) {
                return false;
            }
        }
        for (int b = 0; b < r->blocks.n_blocks; b++) {
            if (tsr_block_pool_n_owners(s->pool, r->blocks.ids[b]) != 1) {
                return false;
            }
        }
        n_held += r->blocks.n_blocks;
    }
    return n_held + tsr_block_pool_n_free(s->pool) == s->options.n_blocks;
}

static bool holds_nothing(const tsr_request *r, tsr_request_state state)
{
    return r->state == state && r->lane == -1 && r->n_cached == 0 && r->blocks.n_blocks == 0 &&
           r->n_told == 0;
}

static bool verify_waiting(const tsr_scheduler *s)
{
    for (int i = 0; i < s->waiting.n_items; i++) {
        if (!holds_nothing(s->waiting.items[i], TSR_REQUEST_WAITING)) {
            return false;
        }
    }
    return tsr_request_heap_verify(&s->waiting) &&
           s->waiting.capacity >= s->waiting.n_items + s->n_running;
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
           s->n_dropped <= s->options.n_blocks && tsr_block_pool_verify(s->pool) &&
           verify_running(s) && verify_waiting(s) && verify_deadlines(s) && verify_ended(s);
}
