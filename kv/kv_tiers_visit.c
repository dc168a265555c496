#include "base/clock.h"
#include "kv/kv_tiers_state.h"

static void note_tickets(tsr_kv_tiers *t)
{
    for (int i = 0; i < t->n_fresh; i++) {
        const int table = t->fresh[i];

        if (!tsr_kv_tiers_runs(t, table)) {
            t->tickets[t->n_tickets++] = (tsr_kv_ticket){table, t->n_ticketed++};
        }
    }
    t->n_fresh = 0;
}

/*
 * The tables' blocks may fill the device, and the source of a copy that is in no table any more
 * comes on top. When it has a copy in a lower tier its slot, bytes and all, becomes the target's.
 */
static tsr_status hand_over(tsr_kv_tiers *t, int32_t from, int32_t to, bool *done)
{
    tsr_kv_place *source = &t->places.places[from];
    // Its own slot, when it is easy to have, is no second one.
    const int n_easy = tsr_kv_places_n_easy(&t->places, TSR_KV_DEVICE) -
                       (source->list[TSR_KV_DEVICE] == TSR_KV_SPARE ? 1 : 0);
    int32_t slot;

    *done = false;
    if (source->n_tables > 0 || source->slot[TSR_KV_DEVICE] == 0 || source->is_lost ||
        t->places.places[to].slot[TSR_KV_DEVICE] != 0 || n_easy > 0) {
        return TSR_OK;
    }
    TSR_TRY(tsr_kv_evict_back_up(t, from));
    slot = source->slot[TSR_KV_DEVICE];
    if (slot == 0 || source->move != 0 ||
        (source->slot[TSR_KV_HOST] == 0 && source->slot[TSR_KV_DISK] == 0)) {
        return TSR_OK;
    }
    tsr_kv_places_remove(&t->places, from, TSR_KV_DEVICE);
    TSR_TRY(tsr_kv_fetch_to_write(t, to));
    *done = t->places.places[to].slot[TSR_KV_DEVICE] == slot;
    return TSR_OK;
}

static tsr_status copy_block(tsr_kv_tiers *t, int32_t from, int32_t to)
{
    const tsr_kv_ground *g = &t->ground;
    tsr_kv_place *source = &t->places.places[from];
    tsr_kv_place *target = &t->places.places[to];
    bool done;
    char *at;

    target->write_at = t->step;
    TSR_TRY(hand_over(t, from, to, &done));
    if (done) {
        return TSR_OK;
    }
    TSR_TRY(tsr_kv_fetch_to_write(t, to));
    TSR_TRY(tsr_kv_fetch_to_read(t, from));
    at = (char *)g->device_pool + (size_t)(target->slot[TSR_KV_DEVICE] - 1) * g->block_bytes;
    if (source->is_lost) {
        tsr_kv_tiers_lose(t, to);
        return TSR_OK;
    }
    if (source->slot[TSR_KV_DEVICE] != 0) {
        return tsr_device_copy(g->dev, at,
                               (char *)g->device_pool +
                                   (size_t)(source->slot[TSR_KV_DEVICE] - 1) * g->block_bytes,
                               g->block_bytes);
    }
    return tsr_device_upload(
        g->dev, at, (char *)g->host_pool + (size_t)(source->slot[TSR_KV_HOST] - 1) * g->block_bytes,
        g->block_bytes);
}

static tsr_status check_visit(const tsr_kv_tiers *t)
{
    for (int v = 0; v < tsr_kv_tiers_n_visited(t); v++) {
        const int table = tsr_kv_tiers_visited(t, v);

        if (tsr_kv_tiers_span(t, v).end > t->tables->tables[table].n) {
            return tsr_fail(TSR_ERR_ARG, "kv store: table %d has %d blocks, its rows need %d",
                            table, t->tables->tables[table].n, tsr_kv_tiers_span(t, v).end);
        }
    }
    return TSR_OK;
}

static tsr_status find_id(const tsr_kv_tiers *t, int table, int index, int32_t *id)
{
    *id = tsr_kv_tiers_id_at(t, table, index);
    return *id >= 0
               ? TSR_OK
               : tsr_fail(TSR_ERR_ARG, "kv store: block %d of table %d was dropped", index, table);
}

/* What rows write comes to the device; all of it is known before anything has to give way. */
static tsr_status prepare_writes(tsr_kv_tiers *t)
{
    const int n = tsr_kv_tiers_n_visited(t);
    int32_t id;

    for (int v = 0; v < n; v++) {
        const tsr_kv_span span = tsr_kv_tiers_span(t, v);

        for (int b = span.write; b < span.end; b++) {
            TSR_TRY(find_id(t, tsr_kv_tiers_visited(t, v), b, &id));
            t->places.places[id].write_at = t->step;
        }
    }
    for (int v = 0; v < n; v++) {
        const tsr_kv_span span = tsr_kv_tiers_span(t, v);

        for (int b = span.write; b < span.end; b++) {
            id = tsr_kv_tiers_id_at(t, tsr_kv_tiers_visited(t, v), b);
            TSR_TRY(tsr_kv_fetch_to_write(t, id));
        }
    }
    return TSR_OK;
}

static bool is_known(const tsr_kv_tiers *t, int v)
{
    const tsr_kv_table *tb = &t->tables->tables[tsr_kv_tiers_visited(t, v)];

    return tb->seen == t->places.n_moved && tb->n_known >= tsr_kv_tiers_span(t, v).end;
}

static tsr_status prepare_reads(tsr_kv_tiers *t)
{
    for (int v = 0; v < tsr_kv_tiers_n_visited(t); v++) {
        const tsr_kv_span span = tsr_kv_tiers_span(t, v);

        for (int b = span.first; !is_known(t, v) && b < span.end; b++) {
            int32_t id;

            TSR_TRY(find_id(t, tsr_kv_tiers_visited(t, v), b, &id));
            if (!tsr_kv_places_has(&t->places, id, TSR_KV_DEVICE) &&
                !tsr_kv_places_has(&t->places, id, TSR_KV_HOST)) {
                TSR_TRY(tsr_kv_fetch_to_read(t, id));
            }
        }
    }
    return TSR_OK;
}

/* The entries of one table that are not what the device has. */
static tsr_status write_table(tsr_kv_tiers *t, int v)
{
    const int table = tsr_kv_tiers_visited(t, v);
    const tsr_kv_span span = tsr_kv_tiers_span(t, v);
    const int n_seen = span.end;
    tsr_kv_table *tb = &t->tables->tables[table];
    int32_t *mirror = t->tables->mirror + tsr_kv_tables_at(t->tables, table, 0);
    const bool moved = tb->seen != t->places.n_moved;
    int first = -1; // of a run of entries that changed

    tb->n_away = moved ? 0 : tb->n_away;
    for (int b = moved || tb->n_known < span.first ? span.first : tb->n_known; b < n_seen; b++) {
        const tsr_kv_place *p = &t->places.places[tsr_kv_tiers_id_at(t, table, b)];
        // A lost block lies nowhere: the one that is being written stands for it, and what comes of
        // that is not to be trusted.
        const tsr_kv_place *shown =
            p->is_lost && b < n_seen - 1
                ? &t->places.places[tsr_kv_tiers_id_at(t, table, n_seen - 1)]
                : p;
        const bool here = shown->slot[TSR_KV_DEVICE] != 0;
        const int32_t entry = here ? shown->slot[TSR_KV_DEVICE] - 1 : -shown->slot[TSR_KV_HOST];
        const bool changed = b >= tb->n_known || mirror[b] != entry;

        tb->n_away += here ? 0 : 1;
        if (!changed && first >= 0) {
            TSR_TRY(tsr_kv_tables_write(t->tables, table, first, b, mirror + first));
        }
        first = !changed ? -1 : first < 0 ? b : first;
        mirror[b] = entry;
    }
    if (first >= 0) {
        TSR_TRY(tsr_kv_tables_write(t->tables, table, first, n_seen, mirror + first));
    }
    tb->n_known = n_seen > tb->n_known || moved ? n_seen : tb->n_known;
    tb->seen = t->places.n_moved;
    return TSR_OK;
}

static void find_spoilt(tsr_kv_tiers *t)
{
    const bool any = t->places.n_listed[TSR_KV_DEVICE][TSR_KV_LOST] > 0;

    t->n_spoilt = 0;
    for (int v = 0; v < tsr_kv_tiers_n_visited(t); v++) {
        const tsr_kv_span span = tsr_kv_tiers_span(t, v);

        t->spoilt[v] = false;
        for (int b = span.first; any && b < span.end; b++) {
            tsr_kv_place *p =
                &t->places.places[tsr_kv_tiers_id_at(t, tsr_kv_tiers_visited(t, v), b)];

            if (p->is_lost) {
                p->read_at = t->step;
                t->spoilt[v] = true;
            }
        }
        t->n_spoilt += t->spoilt[v] ? 1 : 0;
    }
}

static void note_most(tsr_kv_tiers *t)
{
    for (int tier = 0; tier < TSR_KV_TIER_COUNT; tier++) {
        const tsr_kv_slots *slots = &t->places.slots[tier];
        const int n = slots->n - tsr_kv_slots_n_free(slots);

        t->most_blocks[tier] = n > t->most_blocks[tier] ? n : t->most_blocks[tier];
    }
}

tsr_status tsr_kv_tiers_visit(tsr_kv_tiers *t, const tsr_kv_visit *visit)
{
    t->step++;
    t->is_stamped = false;
    t->visit = *visit;
    t->stalled_at = 0;
    for (int v = 0; v < tsr_kv_tiers_n_visited(t); v++) {
        t->tables->tables[tsr_kv_tiers_visited(t, v)].runs_at = t->step;
        tsr_kv_tiers_close_ticket(t, tsr_kv_tiers_visited(t, v));
    }
    note_tickets(t);
    TSR_TRY(tsr_kv_tiers_take_back(t, -1));
    TSR_TRY(check_visit(t));
    for (int i = 0; i < t->n_copies; i++) {
        TSR_TRY(copy_block(t, t->copies[2 * i], t->copies[2 * i + 1]));
    }
    t->n_copies = 0;
    TSR_TRY(prepare_writes(t));
    TSR_TRY(prepare_reads(t));
    for (int v = 0; v < tsr_kv_tiers_n_visited(t); v++) {
        TSR_TRY(write_table(t, v));
    }
    find_spoilt(t);
    TSR_TRY(tsr_kv_fetch_ahead(t));
    if (visit->waits) {
        TSR_TRY(tsr_kv_fetch_ticket(t));
    }
    if (t->stalled_at != 0) {
        t->n_stalls++;
        t->stall_us += (tsr_clock_ns() - t->stalled_at) / 1000;
    }
    note_most(t);
    return TSR_OK;
}

/* ---- questions ---- */

bool tsr_kv_tiers_is_spoilt(const tsr_kv_tiers *t, int s)
{
    bool is_spoilt = false;

    for (int g = 0; g < t->n_groups; g++) {
        is_spoilt = is_spoilt || t->spoilt[s * t->n_groups + g];
    }
    return is_spoilt;
}
