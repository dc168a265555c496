#include "engine/memory_report.h"

#include <string.h>

/* Where in the words. */
enum {
    TICKETS_LOW,
    TICKETS_HIGH,
    MOVED_KIB,
    MOVED_US,
    IS_SPOILT,
    N_LOST,
    LOST
};

_Static_assert(LOST + TSR_STEP_MOST_LOST == TSR_MEMORY_REPORT_WORDS, "the words of a report");
_Static_assert((int)TSR_KV_TIERS_MOST_LOST == (int)TSR_STEP_MOST_LOST, "as many as are named");

static int32_t clamped(int64_t n)
{
    return n > INT32_MAX ? INT32_MAX : (int32_t)n;
}

void tsr_memory_report_write(tsr_memory_report *said, int32_t *words, const tsr_kv_tiers *tiers)
{
    const tsr_kv_report r = tsr_kv_tiers_report(tiers);
    int64_t moved_bytes = 0;

    for (int from = 0; from < TSR_KV_TIER_COUNT; from++) {
        for (int to = 0; to < TSR_KV_TIER_COUNT; to++) {
            moved_bytes += r.n_moves[from][to] * (int64_t)r.block_bytes;
        }
    }
    words[TICKETS_LOW] = (int32_t)(r.n_tickets_done & INT32_MAX);
    words[TICKETS_HIGH] = (int32_t)(r.n_tickets_done >> 31);
    words[MOVED_KIB] = clamped((moved_bytes - said->moved_bytes) / 1024);
    words[MOVED_US] = clamped(r.busy_us - said->moved_us);
    words[IS_SPOILT] = r.n_spoilt > 0 ? 1 : 0;
    words[N_LOST] = r.n_lost < TSR_STEP_MOST_LOST ? r.n_lost : TSR_STEP_MOST_LOST;
    memcpy(&words[LOST], r.lost, sizeof(r.lost));
    *said = (tsr_memory_report){moved_bytes, r.busy_us};
}

_Static_assert((int)TSR_KV_TIER_COUNT == (int)TSR_MEMORY_TIER_COUNT, "the same tiers");

tsr_memory_stats tsr_memory_report_stats(const tsr_kv_store *store)
{
    tsr_memory_stats stats = {.block_bytes = tsr_kv_store_view(store, 0).block_bytes};
    tsr_kv_report r;

    if (tsr_kv_store_tiers(store) == NULL) {
        stats.n_slots[TSR_MEMORY_DEVICE] = tsr_kv_store_n_slots(store);
        stats.n_blocks[TSR_MEMORY_DEVICE] = tsr_kv_store_n_used(store);
        stats.most_blocks[TSR_MEMORY_DEVICE] = tsr_kv_store_most_used(store);
        return stats;
    }
    r = tsr_kv_tiers_report(tsr_kv_store_tiers(store));
    for (int tier = 0; tier < TSR_MEMORY_TIER_COUNT; tier++) {
        stats.n_slots[tier] = r.n_slots[tier];
        stats.n_blocks[tier] = r.n_blocks[tier];
        stats.most_blocks[tier] = r.most_blocks[tier];
        stats.n_asked[tier] = r.n_asked[tier];
        memcpy(stats.n_moves[tier], r.n_moves[tier], sizeof(stats.n_moves[tier]));
    }
    stats.busy_s = (double)r.busy_us / 1e6;
    stats.n_stalls = r.n_stalls;
    stats.stall_s = (double)r.stall_us / 1e6;
    stats.n_late = r.n_late;
    stats.n_lost = r.n_ever_lost;
    return stats;
}

static void add_lost(tsr_step_report *out, int32_t id)
{
    for (int i = 0; i < out->n_lost; i++) {
        if (out->lost[i] == id) {
            return;
        }
    }
    if (out->n_lost < TSR_STEP_MOST_LOST) {
        out->lost[out->n_lost++] = id;
    }
}

void tsr_memory_report_merge(tsr_step_report *out, const int32_t *words, size_t stride, int n_ranks)
{
    *out = (tsr_step_report){.n_tickets_done = INT64_MAX};
    for (int rank = 0; rank < n_ranks; rank++) {
        const int32_t *w = words + (size_t)rank * stride;
        const int64_t n_done = (int64_t)w[TICKETS_HIGH] << 31 | w[TICKETS_LOW];
        const int64_t n_bytes = (int64_t)w[MOVED_KIB] * 1024;

        out->n_tickets_done = n_done < out->n_tickets_done ? n_done : out->n_tickets_done;
        // a / b > c / d without dividing: the slower rank for a byte speaks for all.
        if (n_bytes > 0 &&
            (out->moved_bytes == 0 || (double)w[MOVED_US] * (double)out->moved_bytes >
                                          (double)out->moved_us * (double)n_bytes)) {
            out->moved_bytes = n_bytes;
            out->moved_us = w[MOVED_US];
        }
        out->is_spoilt = out->is_spoilt || w[IS_SPOILT] != 0;
        for (int i = 0; i < w[N_LOST]; i++) {
            add_lost(out, w[LOST + i]);
        }
    }
}
