#include "kv/kv_places.h"

#include <assert.h>

#include "base/alloc.h"

tsr_status tsr_kv_places_init(tsr_kv_places *p, int n_ids, const int n_slots[TSR_KV_TIER_COUNT])
{
    tsr_status st = TSR_OK;

    *p = (tsr_kv_places){.n_ids = n_ids};
    p->places = tsr_alloc((size_t)n_ids, sizeof(*p->places));
    if (p->places == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "kv store: no memory for a list of %d blocks", n_ids);
        goto fail;
    }
    for (int t = 0; t < TSR_KV_TIER_COUNT; t++) {
        TSR_TRY_GOTO(st, fail, tsr_kv_slots_init(&p->slots[t], n_slots[t]));
    }
    return TSR_OK;

fail:
    tsr_kv_places_clear(p);
    return st;
}

void tsr_kv_places_clear(tsr_kv_places *p)
{
    for (int t = 0; t < TSR_KV_TIER_COUNT; t++) {
        tsr_kv_slots_clear(&p->slots[t]);
    }
    tsr_free(p->places);
    *p = (tsr_kv_places){0};
}

/* ---- lists ---- */

static void unlist(tsr_kv_places *p, int32_t id, int tier)
{
    tsr_kv_place *b = &p->places[id];
    const int list = b->list[tier];

    if (list == TSR_KV_UNLISTED) {
        return;
    }
    if (b->before[tier] != 0) {
        p->places[b->before[tier] - 1].behind[tier] = b->behind[tier];
    } else {
        p->first[tier][list] = b->behind[tier];
    }
    if (b->behind[tier] != 0) {
        p->places[b->behind[tier] - 1].before[tier] = b->before[tier];
    } else {
        p->last[tier][list] = b->before[tier];
    }
    b->before[tier] = 0;
    b->behind[tier] = 0;
    b->list[tier] = TSR_KV_UNLISTED;
    p->n_listed[tier][list]--;
}

static void put_last(tsr_kv_places *p, int32_t id, int tier, int list)
{
    tsr_kv_place *b = &p->places[id];

    b->list[tier] = (uint8_t)list;
    b->before[tier] = p->last[tier][list];
    if (b->before[tier] != 0) {
        p->places[b->before[tier] - 1].behind[tier] = id + 1;
    } else {
        p->first[tier][list] = id + 1;
    }
    p->last[tier][list] = id + 1;
    p->n_listed[tier][list]++;
}

/* The list that a block's copy in a tier belongs to. */
static tsr_kv_list list_for(const tsr_kv_place *b, int tier)
{
    const bool device = b->slot[TSR_KV_DEVICE] != 0;
    const bool host = b->slot[TSR_KV_HOST] != 0;
    const bool disk = b->slot[TSR_KV_DISK] != 0;

    if (b->is_lost && tier == TSR_KV_DEVICE) {
        return TSR_KV_LOST;
    }
    if (b->slot[tier] == 0 || b->move != 0) {
        return TSR_KV_UNLISTED;
    }
    switch (tier) {
    case TSR_KV_DEVICE:
        return b->n_tables > 0 ? TSR_KV_UNLISTED : host || disk ? TSR_KV_SPARE : TSR_KV_SOLE;
    case TSR_KV_HOST:
        if (device) {
            return TSR_KV_SPARE;
        }
        return b->n_tables > 0 ? TSR_KV_UNLISTED : disk ? TSR_KV_SPARE : TSR_KV_SOLE;
    default:
        return device || host ? TSR_KV_SPARE : TSR_KV_UNLISTED;
    }
}

static void relist(tsr_kv_places *p, int32_t id)
{
    for (int t = 0; t < TSR_KV_TIER_COUNT; t++) {
        const tsr_kv_list wanted = list_for(&p->places[id], t);

        if (p->places[id].list[t] != wanted) {
            unlist(p, id, t);
            if (wanted != TSR_KV_UNLISTED) {
                put_last(p, id, t, (int)wanted);
            }
        }
    }
}

/* ---- changes ---- */

void tsr_kv_places_put(tsr_kv_places *p, int32_t id, tsr_kv_tier tier, int32_t slot)
{
    tsr_kv_place *b = &p->places[id];

    assert(b->slot[tier] == 0);
    // A first copy is news to nobody, and one below the device changes nothing for who reads there.
    if (b->n_tables > 0 && b->slot[TSR_KV_DEVICE] == 0 &&
        (b->slot[TSR_KV_HOST] != 0 || b->slot[TSR_KV_DISK] != 0)) {
        p->n_moved++;
    }
    b->slot[tier] = slot + 1;
    p->slots[tier].id_in[slot] = id + 1;
    relist(p, id);
}

void tsr_kv_places_remove(tsr_kv_places *p, int32_t id, tsr_kv_tier tier)
{
    tsr_kv_place *b = &p->places[id];

    if (b->slot[tier] == 0) {
        return;
    }
    tsr_kv_slots_give(&p->slots[tier], b->slot[tier] - 1);
    b->slot[tier] = 0;
    // Who reads it on the device does not care about copies below.
    p->n_moved += b->n_tables > 0 && b->slot[TSR_KV_DEVICE] == 0 ? 1 : 0;
    relist(p, id);
}

void tsr_kv_places_set_move(tsr_kv_places *p, int32_t id, int place)
{
    p->places[id].move = (uint8_t)(place + 1);
    relist(p, id);
}

void tsr_kv_places_hold(tsr_kv_places *p, int32_t id)
{
    p->places[id].n_tables++;
    relist(p, id);
}

void tsr_kv_places_let_go(tsr_kv_places *p, int32_t id)
{
    assert(p->places[id].n_tables > 0);
    p->places[id].n_tables--;
    relist(p, id);
}

void tsr_kv_places_lose(tsr_kv_places *p, int32_t id)
{
    for (int t = 0; t < TSR_KV_TIER_COUNT; t++) {
        tsr_kv_places_remove(p, id, (tsr_kv_tier)t);
    }
    p->places[id].is_lost = true;
    p->n_moved++;
    relist(p, id);
}

void tsr_kv_places_drop(tsr_kv_places *p, int32_t id, tsr_kv_tier kept_tier)
{
    tsr_kv_place *b = &p->places[id];
    const int32_t life = b->life + 1;

    for (int t = 0; t < TSR_KV_TIER_COUNT; t++) {
        unlist(p, id, t);
        if (b->slot[t] != 0 && t == (int)kept_tier) {
            p->slots[t].id_in[b->slot[t] - 1] = 0;
        } else if (b->slot[t] != 0) {
            tsr_kv_slots_give(&p->slots[t], b->slot[t] - 1);
        }
    }
    *b = (tsr_kv_place){.life = life};
}

bool tsr_kv_places_verify(const tsr_kv_places *p, const int n_moving[TSR_KV_TIER_COUNT])
{
    for (int t = 0; t < TSR_KV_TIER_COUNT; t++) {
        const tsr_kv_slots *slots = &p->slots[t];
        int n_copies = 0;
        int n_listed[TSR_KV_LIST_COUNT] = {0};

        if (!tsr_kv_slots_verify(slots)) {
            return false;
        }
        for (int id = 0; id < p->n_ids; id++) {
            const tsr_kv_place *b = &p->places[id];

            if (b->slot[t] != 0 &&
                (b->slot[t] > slots->n_touched || slots->id_in[b->slot[t] - 1] != id + 1)) {
                return false;
            }
            if (b->list[t] != (uint8_t)list_for(b, t)) {
                return false;
            }
            n_copies += b->slot[t] != 0 ? 1 : 0;
            n_listed[b->list[t]]++;
        }
        if (n_copies + n_moving[t] + tsr_kv_slots_n_free(slots) != slots->n) {
            return false;
        }
        for (int list = TSR_KV_SPARE; list < TSR_KV_LIST_COUNT; list++) {
            int n = 0;

            for (int32_t id = p->first[t][list] - 1; id >= 0; id = p->places[id].behind[t] - 1) {
                n++;
            }
            if (n != p->n_listed[t][list] || n != n_listed[list]) {
                return false;
            }
        }
    }
    return true;
}
