#include "kv/kv_tiers_state.h"

enum {
    MOST_AHEAD = 12 // moves at once, of which some are left to what cannot wait
};

/* ---- what cannot wait ---- */

static tsr_status wait_for_block(tsr_kv_tiers *t, int32_t id)
{
    return tsr_kv_tiers_take_back(t, t->places.places[id].move - 1);
}

static tsr_kv_tier source_of(const tsr_kv_tiers *t, int32_t id)
{
    return tsr_kv_places_has(&t->places, id, TSR_KV_HOST) ? TSR_KV_HOST : TSR_KV_DISK;
}

static bool is_anywhere(const tsr_kv_tiers *t, int32_t id)
{
    return tsr_kv_places_has(&t->places, id, TSR_KV_DEVICE) ||
           tsr_kv_places_has(&t->places, id, TSR_KV_HOST) ||
           tsr_kv_places_has(&t->places, id, TSR_KV_DISK);
}

tsr_status tsr_kv_fetch_to_write(tsr_kv_tiers *t, int32_t id)
{
    const tsr_kv_place *b = &t->places.places[id];
    int32_t slot;

    for (;;) {
        if (b->move != 0) {
            TSR_TRY(wait_for_block(t, id)); // what is being read is not written, and the other way
            continue;
        }
        if (b->slot[TSR_KV_DEVICE] != 0) {
            break;
        }
        TSR_TRY(tsr_kv_evict_acquire(t, TSR_KV_DEVICE, true, &slot));
        if (!is_anywhere(t, id)) {
            tsr_kv_places_put(&t->places, id, TSR_KV_DEVICE, slot);
            break;
        }
        t->n_late++;
        TSR_TRY(tsr_kv_tiers_start(t, id, source_of(t, id), TSR_KV_DEVICE, slot, true));
    }
    tsr_kv_places_remove(&t->places, id, TSR_KV_HOST);
    tsr_kv_places_remove(&t->places, id, TSR_KV_DISK);
    return TSR_OK;
}

/* A slot where rows can read: the device's if that costs nothing, else the host pool's. */
static tsr_status acquire_to_read(tsr_kv_tiers *t, tsr_kv_tier *tier, int32_t *slot)
{
    tsr_status st;

    *tier = TSR_KV_DEVICE;
    st = tsr_kv_evict_acquire(t, *tier, false, slot);
    if (st == TSR_ERR_FULL && t->places.slots[TSR_KV_HOST].n > 0) {
        *tier = TSR_KV_HOST;
        st = tsr_kv_evict_acquire(t, *tier, true, slot);
    }
    if (st == TSR_ERR_FULL) {
        *tier = TSR_KV_DEVICE;
        st = tsr_kv_evict_acquire(t, *tier, true, slot);
    }
    return st;
}

tsr_status tsr_kv_fetch_to_read(tsr_kv_tiers *t, int32_t id)
{
    const tsr_kv_place *b = &t->places.places[id];

    while (b->slot[TSR_KV_DEVICE] == 0 && b->slot[TSR_KV_HOST] == 0) {
        tsr_kv_tier tier;
        int32_t slot;

        if (b->move != 0) {
            TSR_TRY(wait_for_block(t, id));
            continue;
        }
        if (!is_anywhere(t, id)) {
            if (!b->is_lost) {
                tsr_kv_tiers_lose(t, id);
            }
            return TSR_OK;
        }
        TSR_TRY(acquire_to_read(t, &tier, &slot));
        t->n_late++;
        TSR_TRY(tsr_kv_tiers_start(t, id, TSR_KV_DISK, tier, slot, true));
    }
    return TSR_OK;
}

/* ---- ahead of need ---- */

/* Where a ticket stands. */
typedef enum progress {
    DONE,
    UNDER_WAY,
    STUCK // it wants room that is not there yet
} progress;

/* Begin to fetch one block to the device, or to the host pool from the disk. */
static tsr_status fetch_one(tsr_kv_tiers *t, int32_t id, progress *state)
{
    const tsr_kv_place *b = &t->places.places[id];
    tsr_kv_tier to = TSR_KV_DEVICE;
    int32_t slot;
    tsr_status st;

    if (b->is_lost || b->slot[TSR_KV_DEVICE] != 0 || !is_anywhere(t, id)) {
        return TSR_OK;
    }
    if (b->move != 0) {
        *state = *state == DONE ? UNDER_WAY : *state;
        return TSR_OK;
    }
    st = tsr_kv_evict_acquire(t, TSR_KV_DEVICE, false, &slot);
    if (st == TSR_ERR_FULL && t->places.n_listed[TSR_KV_DEVICE][TSR_KV_SOLE] > 0) {
        *state = STUCK; // what is nobody's there goes out first
        return TSR_OK;
    }
    if (st == TSR_ERR_FULL && b->slot[TSR_KV_HOST] != 0) {
        return TSR_OK; // rows can read it there
    }
    if (st == TSR_ERR_FULL) {
        to = TSR_KV_HOST;
        st = tsr_kv_evict_acquire(t, to, false, &slot);
    }
    if (st == TSR_ERR_FULL) {
        *state = STUCK;
        return TSR_OK;
    }
    TSR_TRY(st);
    *state = *state == DONE ? UNDER_WAY : *state;
    st = tsr_kv_tiers_start(t, id, source_of(t, id), to, slot, false);
    *state = st == TSR_ERR_FULL ? STUCK : *state;
    return st == TSR_ERR_FULL ? TSR_OK : st;
}

/* The newest blocks of a table come first: what does not fit is its front. */
static tsr_status fetch_table(tsr_kv_tiers *t, int table, progress *state)
{
    *state = DONE;
    const tsr_kv_table *tb = &t->tables->tables[table];

    for (int i = tb->n - 1; i >= tb->first && *state != STUCK; i--) {
        const int32_t id = tsr_kv_tiers_id_at(t, table, i);

        if (tsr_kv_mover_n_moves(t->mover) >= MOST_AHEAD) {
            *state = STUCK;
        } else if (id >= 0) {
            TSR_TRY(fetch_one(t, id, state));
        }
    }
    return TSR_OK;
}

static tsr_status fetch_tickets(tsr_kv_tiers *t)
{
    progress state = UNDER_WAY;

    for (int i = 0; i < t->n_tickets && state != STUCK; i++) {
        TSR_TRY(fetch_table(t, t->tickets[i].table, &state));
        if (state == DONE) {
            t->n_tickets--;
            for (int k = i; k < t->n_tickets; k++) {
                t->tickets[k] = t->tickets[k + 1];
            }
            i--;
        }
    }
    return TSR_OK;
}

/* Blocks that rows read from the host pool come back while the device has room to spare. */
static tsr_status bring_back(tsr_kv_tiers *t)
{
    const tsr_kv_slots *device = &t->places.slots[TSR_KV_DEVICE];
    const int n_kept = tsr_kv_tiers_n_visited(t) + device->n / 16; // for what sequences grow by

    for (int v = 0; v < tsr_kv_tiers_n_visited(t); v++) {
        const int table = tsr_kv_tiers_visited(t, v);
        const tsr_kv_span span = tsr_kv_tiers_span(t, v);
        int i = t->tables->tables[table].n_away > 0 ? span.end - 1 : -1;

        for (; i >= span.first && tsr_kv_slots_n_free(device) > n_kept &&
               tsr_kv_mover_n_moves(t->mover) < MOST_AHEAD;
             i--) {
            progress ignored = DONE;

            TSR_TRY(fetch_one(t, tsr_kv_tiers_id_at(t, table, i), &ignored));
        }
    }
    return TSR_OK;
}

tsr_status tsr_kv_fetch_ahead(tsr_kv_tiers *t)
{
    int n_wanted = 0;

    if (t->n_tickets > 0) {
        TSR_TRY(fetch_tickets(t));
        if (t->n_tickets > 0) {
            const tsr_kv_table *tb = &t->tables->tables[t->tickets[0].table];

            n_wanted = tb->n - tb->first;
        }
    }
    TSR_TRY(bring_back(t));
    return tsr_kv_evict_ahead(t, n_wanted);
}

tsr_status tsr_kv_fetch_ticket(tsr_kv_tiers *t)
{
    const int64_t number = t->n_tickets > 0 ? t->tickets[0].number : -1;

    while (t->n_tickets > 0 && t->tickets[0].number == number) {
        const int table = t->tickets[0].table;

        if (tsr_kv_mover_n_moves(t->mover) > 0) {
            TSR_TRY(tsr_kv_tiers_take_back(t, tsr_kv_mover_oldest(t->mover)));
            TSR_TRY(tsr_kv_fetch_ahead(t));
            continue;
        }
        // Nothing moves by itself: fetch what rows could not read, whatever must give way.
        for (int i = t->tables->tables[table].first; i < t->tables->tables[table].n; i++) {
            const int32_t id = tsr_kv_tiers_id_at(t, table, i);

            if (id >= 0 && is_anywhere(t, id)) {
                TSR_TRY(tsr_kv_fetch_to_read(t, id));
            }
        }
        t->n_tickets--;
        for (int k = 0; k < t->n_tickets; k++) {
            t->tickets[k] = t->tickets[k + 1];
        }
    }
    return TSR_OK;
}
