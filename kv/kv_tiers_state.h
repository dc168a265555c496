/*
 * kv/kv_tiers_state.h - what the tiers are made of. Private to
 *
 *   kv_tiers.c   blocks that come and go
 *   kv_tiers_visit.c   what a step's rows need, and what can be begun beside them
 *   kv_tiers_verify.c   what they report, and whether the books are right
 *   kv_evict.c   finding room
 *   kv_fetch.c   bringing blocks where they are needed, now or soon
 */
#ifndef TSR_KV_KV_TIERS_STATE_H
#define TSR_KV_KV_TIERS_STATE_H

#include "kv/kv_places.h"
#include "kv/kv_tiers.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_kv_ticket {
    int table;
    int64_t number;
} tsr_kv_ticket;

struct tsr_kv_tiers {
    tsr_kv_ground ground; /* host_pool and disk are owned, the rest borrowed */
    size_t host_bytes;
    tsr_kv_mover *mover; /* owned */
    tsr_kv_places places;
    tsr_kv_tables *tables; /* borrowed */
    int n_groups;

    int32_t step;    /* visits so far */
    bool is_stamped; /* read_at of all blocks that this visit reads is set */
    tsr_kv_visit visit;

    tsr_kv_ticket *tickets; /* [n_tables] open ones, in order; owned */
    int n_tickets;
    int64_t n_ticketed; /* ever */
    int *fresh; /* [n_tables] tables that got their first entry since the last visit; owned */
    int n_fresh;
    int32_t *copies; /* [2 * copies_room] pairs (from, to) for the next visit; owned */
    int n_copies;
    int copies_room;
    bool *spoilt; /* [n_tables] by table of the last visit, in its order; owned */
    int n_spoilt;

    int n_write_failures; /* of the disk, one after the other */
    bool disk_is_closed;  /* nothing more is written to it */
    int n_copy_failures;  /* between device and host, one after the other */

    int64_t stalled_at; /* when this visit began to wait; 0: it has not */
    int64_t n_stalls;
    int64_t stall_us;
    int64_t n_asked[TSR_KV_TIER_COUNT];
    int64_t n_late;
    int64_t n_ever_lost;
    int most_blocks[TSR_KV_TIER_COUNT];
};

/* ---- kv_tiers.c ---- */

/* Take back what has ended; waits_for: a move to wait for, or -1. Errors: DEVICE (copies fail and
 * fail). */
TSR_MUST_CHECK tsr_status tsr_kv_tiers_take_back(tsr_kv_tiers *t, int waits_for);

/* Start copying a block to a slot that was taken; may_wait: for a free place among the moves. On
 * failure the slot is given back. Errors: FULL, DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_tiers_start(tsr_kv_tiers *t, int32_t id, tsr_kv_tier from,
                                             tsr_kv_tier to, int32_t slot, bool may_wait);

/* Nobody waits for the table's ticket any more, if it has one. */
void tsr_kv_tiers_close_ticket(tsr_kv_tiers *t, int table);

/* The block's bytes are gone. */
void tsr_kv_tiers_lose(tsr_kv_tiers *t, int32_t id);

/* The id of an entry; -1: that block was dropped. */
static inline int32_t tsr_kv_tiers_id_at(const tsr_kv_tiers *t, int table, int index)
{
    const size_t at = tsr_kv_tables_at(t->tables, table, index);
    const int32_t id = t->tables->ids[at];

    return t->places.places[id].life == t->tables->lives[at] ? id : -1;
}

static inline bool tsr_kv_tiers_runs(const tsr_kv_tiers *t, int table)
{
    return t->tables->tables[table].runs_at == t->step;
}

/* The tables of this visit are those of its sequences, group by group: so many. */
static inline int tsr_kv_tiers_n_visited(const tsr_kv_tiers *t)
{
    return t->visit.n_seqs * t->n_groups;
}

/* The v-th of them. */
static inline int tsr_kv_tiers_visited(const tsr_kv_tiers *t, int v)
{
    return t->visit.lanes[v / t->n_groups] * t->n_groups + v % t->n_groups;
}

/* Of the v-th: rows see blocks [first, end), and write those from `write` on. */
typedef struct tsr_kv_span {
    int first, write, end;
} tsr_kv_span;

static inline tsr_kv_span tsr_kv_tiers_span(const tsr_kv_tiers *t, int v)
{
    const int s = v / t->n_groups;
    const int first_pos = t->visit.first_pos[s];
    const int n_rows = t->visit.row_start[s + 1] - t->visit.row_start[s];

    return (tsr_kv_span){t->tables->tables[tsr_kv_tiers_visited(t, v)].first,
                         first_pos / t->visit.block_tokens,
                         (first_pos + n_rows - 1) / t->visit.block_tokens + 1};
}

/* ---- kv_evict.c ---- */

/* A free slot of a tier. may_wait: blocks are sent out for it if need be. Errors: FULL, DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_evict_acquire(tsr_kv_tiers *t, tsr_kv_tier tier, bool may_wait,
                                               int32_t *slot);

/* A device block in no table gets a copy in a lower tier, if it has none and there is room; waits
 * for it. Errors: DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_evict_back_up(tsr_kv_tiers *t, int32_t id);

/* Begin to write back what will have to go soon. n_wanted: device slots that are wanted now.
 * Errors: DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_evict_ahead(tsr_kv_tiers *t, int n_wanted);

/* ---- kv_fetch.c ---- */

/* The block lies on the device, and there alone, so that it can be written. Errors: FULL, DEVICE.
 */
TSR_MUST_CHECK tsr_status tsr_kv_fetch_to_write(tsr_kv_tiers *t, int32_t id);

/* The block lies on the device or in the host pool, or is lost. Errors: FULL, DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_fetch_to_read(tsr_kv_tiers *t, int32_t id);

/* Begin to fetch what tables without rows will need, and what rows read from the host pool while
 * the device has room; close tickets that are done. Errors: DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_fetch_ahead(tsr_kv_tiers *t);

/* Wait for the oldest open ticket. Errors: FULL, DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_fetch_ticket(tsr_kv_tiers *t);

#ifdef __cplusplus
}
#endif

#endif
