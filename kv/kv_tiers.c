#include "kv/kv_tiers.h"

#include <assert.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "kv/kv_tiers_state.h"

enum {
    MOST_FAILURES = 3,      // reads of a block, writes of the disk: one after the other
    MOST_COPY_FAILURES = 16 // a device that cannot copy any more is no device
};

/* ---- life ---- */

static tsr_status make_pools(tsr_kv_tiers *t, const tsr_kv_tiers_options *o)
{
    if (o->n_host > 0) {
        const size_t n_slots = (size_t)o->n_host + TSR_KV_TIERS_EXCHANGE;

        if (__builtin_mul_overflow(n_slots, o->block_bytes, &t->host_bytes)) {
            return tsr_fail(TSR_ERR_NOMEM, "%zu blocks of %zu bytes are beyond any memory", n_slots,
                            o->block_bytes);
        }
        t->ground.host_pool = tsr_device_alloc_host(t->ground.dev, t->host_bytes);
        if (t->ground.host_pool == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no host memory for %zu cache blocks of %zu bytes",
                            n_slots, o->block_bytes);
        }
    }
    return o->n_disk == 0 ? TSR_OK
                          : tsr_kv_disk_create(&t->ground.disk, o->folder,
                                               o->n_disk + TSR_KV_TIERS_EXCHANGE, o->block_bytes,
                                               TSR_KV_MOVER_DEPTH, tsr_device_pool(t->ground.dev));
}

static void count_slots(int n_slots[TSR_KV_TIER_COUNT], const tsr_kv_tiers_options *o)
{
    n_slots[TSR_KV_DEVICE] = o->n_device;
    n_slots[TSR_KV_HOST] = o->n_host > 0 ? o->n_host + TSR_KV_TIERS_EXCHANGE : 0;
    n_slots[TSR_KV_DISK] = o->n_disk > 0 ? o->n_disk + TSR_KV_TIERS_EXCHANGE : 0;
}

size_t tsr_kv_tiers_map_bytes(const tsr_kv_tiers_options *o)
{
    int n_slots[TSR_KV_TIER_COUNT];
    size_t n_bytes = (size_t)o->n_ids * sizeof(tsr_kv_place);

    count_slots(n_slots, o);
    for (int t = 0; t < TSR_KV_TIER_COUNT; t++) {
        n_bytes += tsr_kv_slots_bytes(n_slots[t]);
    }
    return o->n_disk == 0 ? n_bytes
                          : n_bytes + tsr_kv_disk_map_bytes(n_slots[TSR_KV_DISK], o->block_bytes) +
                                tsr_kv_mover_buffer_bytes(o->block_bytes);
}

size_t tsr_kv_tiers_host_bytes(size_t block_bytes, int n_host)
{
    return n_host > 0 ? ((size_t)n_host + TSR_KV_TIERS_EXCHANGE) * block_bytes : 0;
}

static tsr_status make_lists(tsr_kv_tiers *t, const tsr_kv_tiers_options *o)
{
    const size_t n_tables = (size_t)t->tables->n_tables;
    int n_slots[TSR_KV_TIER_COUNT];

    count_slots(n_slots, o);
    TSR_TRY(tsr_kv_places_init(&t->places, o->n_ids, n_slots));
    t->tickets = tsr_alloc(n_tables, sizeof(*t->tickets));
    t->fresh = tsr_alloc(n_tables, sizeof(*t->fresh));
    t->spoilt = tsr_alloc(n_tables, sizeof(*t->spoilt));
    if (t->tickets == NULL || t->fresh == NULL || t->spoilt == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "kv store: no memory for lists of %zu tables", n_tables);
    }
    return TSR_OK;
}

tsr_status tsr_kv_tiers_create(tsr_kv_tiers **out, tsr_device *dev, void *device_pool,
                               tsr_kv_tables *tables, const tsr_kv_tiers_options *options)
{
    tsr_status st = TSR_OK;
    tsr_kv_tiers *t;

    if (options->n_device < 1 || options->n_ids < 1 || options->n_host < 0 || options->n_disk < 0 ||
        options->n_groups < 1 || (options->n_disk > 0 && options->folder == NULL)) {
        return tsr_fail(TSR_ERR_ARG, "kv store: %d block ids in %d + %d + %d blocks",
                        options->n_ids, options->n_device, options->n_host, options->n_disk);
    }
    t = tsr_alloc(1, sizeof(*t));
    if (t == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "kv tiers");
    }
    t->ground = (tsr_kv_ground){
        .dev = dev, .block_bytes = options->block_bytes, .device_pool = device_pool};
    t->tables = tables;
    t->n_groups = options->n_groups;
    TSR_TRY_GOTO(st, fail, make_pools(t, options));
    TSR_TRY_GOTO(st, fail, make_lists(t, options));
    TSR_TRY_GOTO(st, fail, tsr_kv_mover_create(&t->mover, &t->ground));
    *out = t;
    return TSR_OK;

fail:
    tsr_kv_tiers_destroy(t);
    return st;
}

void tsr_kv_tiers_destroy(tsr_kv_tiers *t)
{
    if (t == NULL) {
        return;
    }
    tsr_kv_mover_destroy(t->mover); // first: what is under way uses the others
    tsr_free(t->copies);
    tsr_free(t->spoilt);
    tsr_free(t->fresh);
    tsr_free(t->tickets);
    tsr_kv_places_clear(&t->places);
    tsr_kv_disk_destroy(t->ground.disk);
    tsr_device_free_host(t->ground.dev, t->ground.host_pool, t->host_bytes);
    tsr_free(t);
}

const void *tsr_kv_tiers_host_pool(const tsr_kv_tiers *t)
{
    return t->ground.host_pool;
}

/* ---- moves ---- */

void tsr_kv_tiers_lose(tsr_kv_tiers *t, int32_t id)
{
    tsr_kv_places_lose(&t->places, id);
    t->n_ever_lost++;
}

static tsr_status note_failure(tsr_kv_tiers *t, const tsr_kv_move *move)
{
    tsr_kv_place *b = move->id < 0 ? NULL : &t->places.places[move->id];

    if (move->to == TSR_KV_DISK) {
        if (++t->n_write_failures == MOST_FAILURES) {
            t->disk_is_closed = true;
            tsr_log_warn("the disk tier takes no more blocks: %s", tsr_status_message());
        }
    } else if (move->from == TSR_KV_DISK) {
        if (b != NULL && ++b->n_failed >= MOST_FAILURES) {
            tsr_log_warn("a cache block is lost and will be computed again: %s",
                         tsr_status_message());
            tsr_kv_places_remove(&t->places, move->id, TSR_KV_DISK);
            if (b->slot[TSR_KV_DEVICE] == 0 && b->slot[TSR_KV_HOST] == 0) {
                tsr_kv_tiers_lose(t, move->id);
            }
        }
    } else if (++t->n_copy_failures >= MOST_COPY_FAILURES) {
        return tsr_fail(TSR_ERR_DEVICE, "%d copies of cache blocks failed in a row: %s",
                        t->n_copy_failures, tsr_status_message());
    }
    return TSR_OK;
}

static tsr_status end_move(tsr_kv_tiers *t, const tsr_kv_move *move, tsr_status ended)
{
    tsr_kv_slots *to = &t->places.slots[move->to];

    if (move->id >= 0) {
        tsr_kv_places_set_move(&t->places, move->id, -1);
    } else {
        tsr_kv_slots_give(&t->places.slots[move->from], move->from_slot);
    }
    if (ended != TSR_OK || move->id < 0) {
        tsr_kv_slots_give(to, move->to_slot);
    } else {
        tsr_kv_places_put(&t->places, move->id, move->to, move->to_slot);
    }
    if (ended != TSR_OK) {
        return note_failure(t, move);
    }
    if (move->to == TSR_KV_DISK) {
        t->n_write_failures = 0;
    } else if (move->from != TSR_KV_DISK) {
        t->n_copy_failures = 0;
    }
    if (move->id >= 0 && move->from == TSR_KV_DISK) {
        t->places.places[move->id].n_failed = 0;
    }
    return TSR_OK;
}

tsr_status tsr_kv_tiers_take_back(tsr_kv_tiers *t, int waits_for)
{
    tsr_kv_move move;
    tsr_status ended;

    if (waits_for >= 0 && t->stalled_at == 0) {
        t->stalled_at = tsr_clock_ns();
    }
    while (tsr_kv_mover_take(t->mover, waits_for, &move, &ended)) {
        waits_for = -1; // that one has ended by now
        TSR_TRY(end_move(t, &move, ended));
    }
    return TSR_OK;
}

tsr_status tsr_kv_tiers_start(tsr_kv_tiers *t, int32_t id, tsr_kv_tier from, tsr_kv_tier to,
                              int32_t slot, bool may_wait)
{
    const tsr_kv_move move = {
        .id = id,
        .from = from,
        .to = to,
        .from_slot = t->places.places[id].slot[from] - 1,
        .to_slot = slot,
    };
    tsr_status st;
    int place;

    for (;;) {
        st = tsr_kv_mover_start(t->mover, &move, &place);
        if (st != TSR_ERR_FULL || !may_wait) {
            break;
        }
        TSR_TRY_GOTO(st, fail, tsr_kv_tiers_take_back(t, tsr_kv_mover_oldest(t->mover)));
    }
    if (st == TSR_OK) {
        tsr_kv_places_set_move(&t->places, id, place);
        return TSR_OK;
    }

fail:
    tsr_kv_slots_give(&t->places.slots[to], slot);
    return st;
}

tsr_status tsr_kv_tiers_settle(tsr_kv_tiers *t)
{
    while (tsr_kv_mover_n_moves(t->mover) > 0) {
        TSR_TRY(tsr_kv_tiers_take_back(t, tsr_kv_mover_oldest(t->mover)));
    }
    return TSR_OK;
}

/* ---- changes ---- */

void tsr_kv_tiers_drop(tsr_kv_tiers *t, int32_t id)
{
    const tsr_kv_place *b = &t->places.places[id];
    tsr_kv_tier kept = TSR_KV_TIER_COUNT;

    if (b->n_tables > 0) {
        t->places.n_moved++; // whoever still has it in a table is to see that it is gone
    }
    if (b->move != 0) {
        tsr_kv_move *move = tsr_kv_mover_at(t->mover, b->move - 1);

        // What is being read stays the move's until it has ended.
        kept = move->from;
        move->id = -1;
    }
    tsr_kv_places_drop(&t->places, id, kept);
}

/* The table's entry is of no block any more. */
static void empty_entry(tsr_kv_tiers *t, int table, int index)
{
    const int32_t id = tsr_kv_tiers_id_at(t, table, index);

    if (id >= 0) {
        tsr_kv_places_let_go(&t->places, id);
    }
}

void tsr_kv_tiers_close_ticket(tsr_kv_tiers *t, int table)
{
    for (int i = 0; i < t->n_tickets; i++) {
        if (t->tickets[i].table == table) {
            t->n_tickets--;
            for (; i < t->n_tickets; i++) {
                t->tickets[i] = t->tickets[i + 1];
            }
        }
    }
}

void tsr_kv_tiers_leave(tsr_kv_tiers *t, int table)
{
    tsr_kv_table *tb = &t->tables->tables[table];

    for (int i = 0; i < tb->n; i++) {
        empty_entry(t, table, i);
    }
    *tb = (tsr_kv_table){.runs_at = tb->runs_at};
    tsr_kv_tiers_close_ticket(t, table);
    for (int i = 0; i < t->n_fresh; i++) {
        if (t->fresh[i] == table) {
            t->n_fresh--;
            for (; i < t->n_fresh; i++) {
                t->fresh[i] = t->fresh[i + 1];
            }
        }
    }
}

static void note_asked(tsr_kv_tiers *t, int32_t id)
{
    for (int tier = 0; tier < TSR_KV_TIER_COUNT; tier++) {
        if (tsr_kv_places_has(&t->places, id, (tsr_kv_tier)tier)) {
            t->n_asked[tier]++;
            return;
        }
    }
}

void tsr_kv_tiers_append(tsr_kv_tiers *t, int table, int index, int32_t id)
{
    tsr_kv_table *tb = &t->tables->tables[table];
    const size_t at = tsr_kv_tables_at(t->tables, table, index);

    if (tb->n == 0) {
        t->fresh[t->n_fresh++] = table;
        tb->first = index;
    }
    if (index < tb->n) {
        empty_entry(t, table, index);
    }
    for (; tb->n < index; tb->n++) { // entries that nobody told: no block has that life
        t->tables->lives[tsr_kv_tables_at(t->tables, table, tb->n)] = -1;
    }
    note_asked(t, id);
    tsr_kv_places_hold(&t->places, id);
    t->tables->ids[at] = id;
    t->tables->lives[at] = t->places.places[id].life;
    tb->n = index < tb->n ? tb->n : index + 1;
    if (index < tb->n_known) {
        tb->n_known = index;
        tb->seen = -1; // look at all of it again
    }
}

void tsr_kv_tiers_let_go(tsr_kv_tiers *t, int table, int index)
{
    tsr_kv_table *tb = &t->tables->tables[table];

    for (; tb->first <= index && tb->first < tb->n; tb->first++) {
        empty_entry(t, table, tb->first);
        t->tables->lives[tsr_kv_tables_at(t->tables, table, tb->first)] = -1; // of no block
    }
}

tsr_status tsr_kv_tiers_copy(tsr_kv_tiers *t, int32_t from, int32_t to)
{
    if (t->n_copies == t->copies_room) {
        const int room = t->copies_room == 0 ? 16 : 2 * t->copies_room;
        int32_t *grown = tsr_alloc_resize(t->copies, 2 * (size_t)room, sizeof(*grown));

        if (grown == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "kv store: no memory for %d copies", room);
        }
        t->copies = grown;
        t->copies_room = room;
    }
    t->copies[2 * t->n_copies] = from;
    t->copies[2 * t->n_copies + 1] = to;
    t->n_copies++;
    return TSR_OK;
}
