#include "kv/kv_tiers_state.h"

/* Blocks that are written back beside, at most, and device slots that are to be had at once. */
enum {
    MOST_AHEAD = 8
};

/* ---- who can go ---- */

static void stamp(tsr_kv_tiers *t)
{
    for (int v = 0; v < tsr_kv_tiers_n_visited(t) && !t->is_stamped; v++) {
        const tsr_kv_span span = tsr_kv_tiers_span(t, v);

        for (int b = span.first; b < span.end; b++) {
            const int32_t id = tsr_kv_tiers_id_at(t, tsr_kv_tiers_visited(t, v), b);

            if (id >= 0) {
                t->places.places[id].read_at = t->step;
            }
        }
    }
    t->is_stamped = true;
}

/* The oldest block of a table whose copy in `tier` could go, or -1. */
static int32_t oldest_of(const tsr_kv_tiers *t, int table, tsr_kv_tier tier, bool may_be_read)
{
    for (int i = t->tables->tables[table].first; i < t->tables->tables[table].n; i++) {
        const int32_t id = tsr_kv_tiers_id_at(t, table, i);
        const tsr_kv_place *b = id < 0 ? NULL : &t->places.places[id];

        if (b != NULL && b->slot[tier] != 0 && b->move == 0 && !b->is_lost &&
            b->write_at != t->step && (may_be_read || b->read_at != t->step)) {
            return id;
        }
    }
    return -1;
}

static int n_in_table(const tsr_kv_tiers *t, int table)
{
    return t->tables->tables[table].n - t->tables->tables[table].first;
}

/* The same of a lane: of its tables, the longest first. */
static int32_t oldest_of_lane(const tsr_kv_tiers *t, int lane, tsr_kv_tier tier, bool may_be_read)
{
    int32_t oldest = -1;
    int longest = 0;

    for (int table = lane * t->n_groups; table < (lane + 1) * t->n_groups; table++) {
        const int32_t id =
            n_in_table(t, table) > longest ? oldest_of(t, table, tier, may_be_read) : -1;

        if (id >= 0) {
            oldest = id;
            longest = n_in_table(t, table);
        }
    }
    return oldest;
}

/* Of the running lanes with more blocks than `above` (the others) that with most (any) that has
 * such a block. */
static int32_t choose_from_tables(const tsr_kv_tiers *t, tsr_kv_tier tier, bool running, int above)
{
    int32_t chosen = -1;
    int longest = above;

    for (int lane = 0; lane < t->tables->n_tables / t->n_groups; lane++) {
        int n = 0;

        for (int g = 0; g < t->n_groups; g++) {
            n += n_in_table(t, lane * t->n_groups + g);
        }
        if (n > longest && tsr_kv_tiers_runs(t, lane * t->n_groups) == running) {
            const int32_t id = oldest_of_lane(t, lane, tier, running);

            if (id >= 0) {
                chosen = id;
                longest = n;
            }
        }
    }
    return chosen;
}

/* ---- sending a block down ---- */

static bool takes_blocks(const tsr_kv_tiers *t, tsr_kv_tier tier)
{
    return t->places.slots[tier].n > 0 && !(tier == TSR_KV_DISK && t->disk_is_closed);
}

/* A copy of the block in a lower tier, at last as deep as `deepest`; waits for it. FULL: there is
 * no room. */
static tsr_status send_down(tsr_kv_tiers *t, int32_t id, tsr_kv_tier from, tsr_kv_tier deepest)
{
    for (int to = (int)from + 1; to <= (int)deepest; to++) {
        tsr_status st;
        int32_t slot;

        if (!takes_blocks(t, (tsr_kv_tier)to)) {
            continue;
        }
        st = tsr_kv_evict_acquire(t, (tsr_kv_tier)to, true, &slot);
        if (st == TSR_ERR_FULL) {
            continue;
        }
        TSR_TRY(st);
        // Finding that room may have waited, and the block been taken elsewhere meanwhile.
        if (t->places.places[id].slot[from] == 0 || t->places.places[id].move != 0 ||
            t->places.places[id].slot[to] != 0) {
            tsr_kv_slots_give(&t->places.slots[to], slot);
            return TSR_OK;
        }
        TSR_TRY(tsr_kv_tiers_start(t, id, from, (tsr_kv_tier)to, slot, true));
        if (t->places.places[id].move != 0) {
            TSR_TRY(tsr_kv_tiers_take_back(t, t->places.places[id].move - 1));
        }
        return TSR_OK; // a copy that failed is tried again when room is asked for again
    }
    return TSR_ERR_FULL;
}

tsr_status tsr_kv_evict_back_up(tsr_kv_tiers *t, int32_t id)
{
    const tsr_kv_place *b = &t->places.places[id];
    tsr_status st = TSR_OK;

    if (b->slot[TSR_KV_HOST] == 0 && b->slot[TSR_KV_DISK] == 0 && b->move == 0) {
        st = send_down(t, id, TSR_KV_DEVICE, TSR_KV_DISK);
    }
    return st == TSR_ERR_FULL ? TSR_OK : st;
}

/* The copy of a block that is in a table goes; one that serves as well is made first. */
static tsr_status push_out(tsr_kv_tiers *t, int32_t id, tsr_kv_tier tier, tsr_kv_tier deepest)
{
    const tsr_kv_place *b = &t->places.places[id];

    for (int to = (int)tier + 1; to <= (int)deepest; to++) {
        if (b->slot[to] != 0) {
            tsr_kv_places_remove(&t->places, id, tier);
            return TSR_OK;
        }
    }
    return send_down(t, id, tier, deepest);
}

/* No tier takes what would have to go: a block that no row reads now is given up, and its owner
 * computes it again. FULL: there is none. */
static tsr_status give_up_one(tsr_kv_tiers *t)
{
    for (int tier = TSR_KV_DEVICE; tier <= TSR_KV_HOST; tier++) {
        int32_t id = tsr_kv_places_first(&t->places, (tsr_kv_tier)tier, TSR_KV_SOLE);

        id = id >= 0 ? id : choose_from_tables(t, (tsr_kv_tier)tier, false, 0);
        if (id >= 0) {
            tsr_kv_tiers_lose(t, id);
            return TSR_OK;
        }
    }
    return tsr_fail(TSR_ERR_FULL,
                    "kv store: rows need more blocks at once than %d on the device "
                    "and %d in host memory",
                    t->places.slots[TSR_KV_DEVICE].n, t->places.slots[TSR_KV_HOST].n);
}

/* The device slot of a lost block that no row reads now: nothing of worth lies there. */
static bool take_from_lost(tsr_kv_tiers *t)
{
    int32_t id = tsr_kv_places_first(&t->places, TSR_KV_DEVICE, TSR_KV_LOST);

    if (id >= 0) {
        stamp(t);
    }
    for (; id >= 0; id = tsr_kv_places_next(&t->places, TSR_KV_DEVICE, id)) {
        const tsr_kv_place *b = &t->places.places[id];

        if (b->slot[TSR_KV_DEVICE] != 0 && b->read_at != t->step && b->write_at != t->step) {
            tsr_kv_places_remove(&t->places, id, TSR_KV_DEVICE);
            return true;
        }
    }
    return false;
}

/* Something in a full tier gives way, or is at least on its way. */
static tsr_status make_room(tsr_kv_tiers *t, tsr_kv_tier tier)
{
    const int32_t sole = tsr_kv_places_first(&t->places, tier, TSR_KV_SOLE);
    tsr_status st = TSR_ERR_FULL;
    int32_t id;

    if (tier == TSR_KV_DEVICE && take_from_lost(t)) {
        return TSR_OK;
    }
    if (sole >= 0) {
        st = send_down(t, sole, tier, TSR_KV_DISK);
    }
    if (st == TSR_ERR_FULL && tsr_kv_mover_n_moves(t->mover) > 0) {
        return tsr_kv_tiers_take_back(t, tsr_kv_mover_oldest(t->mover));
    }
    if (st != TSR_ERR_FULL || tier == TSR_KV_DISK) {
        return st;
    }
    stamp(t);
    // Who has more than its part of the device first, then those that do not run yet, then any.
    id =
        tier == TSR_KV_DEVICE ? choose_from_tables(t, tier, true, t->places.slots[tier].n / 2) : -1;
    st = id < 0 ? TSR_ERR_FULL : push_out(t, id, tier, TSR_KV_HOST);
    id = choose_from_tables(t, tier, false, 0);
    if (st == TSR_ERR_FULL && id >= 0) {
        st = push_out(t, id, tier, TSR_KV_DISK);
    }
    if (st == TSR_ERR_FULL && tier == TSR_KV_DEVICE) {
        const int32_t any = choose_from_tables(t, tier, true, 0);

        st = any < 0 ? TSR_ERR_FULL : push_out(t, any, tier, TSR_KV_HOST);
    }
    return st == TSR_ERR_FULL && tier == TSR_KV_DEVICE ? give_up_one(t) : st;
}

tsr_status tsr_kv_evict_acquire(tsr_kv_tiers *t, tsr_kv_tier tier, bool may_wait, int32_t *slot)
{
    for (;;) {
        const int32_t found = tsr_kv_slots_take(&t->places.slots[tier]);
        int32_t spare;

        if (found >= 0) {
            *slot = found;
            return TSR_OK;
        }
        spare = tsr_kv_places_first(&t->places, tier, TSR_KV_SPARE);
        if (spare >= 0) {
            tsr_kv_places_remove(&t->places, spare, tier);
        } else if (may_wait) {
            TSR_TRY(make_room(t, tier));
        } else {
            return TSR_ERR_FULL;
        }
    }
}

/* ---- ahead of need ---- */

/* A slot for a copy that nothing waits for: free, or of a copy that nobody will miss. -1: none. */
static int32_t quiet_slot(tsr_kv_tiers *t, tsr_kv_tier tier)
{
    const int32_t spare = tsr_kv_places_first(&t->places, tier, TSR_KV_SPARE);

    // The only lower copy of a block that nobody needs on the device is what lets it go from there:
    // taking that would only change which block has one.
    if (tsr_kv_slots_n_free(&t->places.slots[tier]) == 0 && spare >= 0) {
        const tsr_kv_place *b = &t->places.places[spare];
        const int n_copies = (b->slot[TSR_KV_DEVICE] != 0 ? 1 : 0) +
                             (b->slot[TSR_KV_HOST] != 0 ? 1 : 0) +
                             (b->slot[TSR_KV_DISK] != 0 ? 1 : 0);

        if (b->n_tables > 0 || n_copies == 3) {
            tsr_kv_places_remove(&t->places, spare, tier);
        }
    }
    return tsr_kv_slots_take(&t->places.slots[tier]);
}

/* Start a copy to the next tier that has quiet room; false: none has, or no move is free. */
static tsr_status write_back(tsr_kv_tiers *t, int32_t id, tsr_kv_tier from, tsr_kv_tier deepest,
                             bool *began)
{
    *began = false;
    for (int to = (int)from + 1; to <= (int)deepest; to++) {
        const int32_t slot = takes_blocks(t, (tsr_kv_tier)to) ? quiet_slot(t, (tsr_kv_tier)to) : -1;
        tsr_status st;

        if (slot >= 0) {
            st = tsr_kv_tiers_start(t, id, from, (tsr_kv_tier)to, slot, false);
            *began = st == TSR_OK;
            return st == TSR_ERR_FULL ? TSR_OK : st;
        }
    }
    return TSR_OK;
}

static int n_easy_wanted(const tsr_kv_tiers *t, tsr_kv_tier tier)
{
    return t->places.slots[tier].n / 8 + 1;
}

/* Sole copies of a tier, least recently used first, until so many slots are easy to have. */
static tsr_status write_back_sole(tsr_kv_tiers *t, tsr_kv_tier tier, int n_wanted)
{
    int n_missing = n_wanted - tsr_kv_places_n_easy(&t->places, tier);
    bool began = true;

    while (n_missing-- > 0 && began && tsr_kv_mover_n_moves(t->mover) < MOST_AHEAD) {
        const int32_t id = tsr_kv_places_first(&t->places, tier, TSR_KV_SOLE);

        if (id < 0) {
            return TSR_OK;
        }
        TSR_TRY(write_back(t, id, tier, TSR_KV_DISK, &began));
    }
    return TSR_OK;
}

tsr_status tsr_kv_evict_ahead(tsr_kv_tiers *t, int n_wanted)
{
    const int usual = n_easy_wanted(t, TSR_KV_DEVICE);

    if (takes_blocks(t, TSR_KV_DISK) && t->places.slots[TSR_KV_HOST].n > 0) {
        TSR_TRY(write_back_sole(t, TSR_KV_HOST, n_easy_wanted(t, TSR_KV_HOST)));
    }
    TSR_TRY(write_back_sole(t, TSR_KV_DEVICE, n_wanted > usual ? n_wanted : usual));
    // Nobody else is there: the oldest block of the longest sequence goes next.
    if (tsr_kv_places_n_easy(&t->places, TSR_KV_DEVICE) == 0 &&
        tsr_kv_mover_n_moves(t->mover) == 0 && t->places.slots[TSR_KV_HOST].n > 0) {
        const int32_t id =
            choose_from_tables(t, TSR_KV_DEVICE, true, t->places.slots[TSR_KV_DEVICE].n / 2);
        bool began;

        if (id >= 0 && !tsr_kv_places_has(&t->places, id, TSR_KV_HOST)) {
            TSR_TRY(write_back(t, id, TSR_KV_DEVICE, TSR_KV_HOST, &began));
        }
    }
    return TSR_OK;
}
