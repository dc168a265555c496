#include "kv/kv_tiers_state.h"

uint8_t tsr_kv_tiers_places(const tsr_kv_tiers *t, int32_t id)
{
    unsigned places = 0;

    for (int tier = 0; tier < TSR_KV_TIER_COUNT; tier++) {
        places |= t->places.places[id].slot[tier] != 0 ? 1U << tier : 0;
    }
    return (uint8_t)places;
}

tsr_kv_report tsr_kv_tiers_report(const tsr_kv_tiers *t)
{
    const tsr_kv_places *p = &t->places;
    tsr_kv_report r = {
        .n_tickets_done = t->n_tickets > 0 ? t->tickets[0].number : t->n_ticketed,
        .n_lost = p->n_listed[TSR_KV_DEVICE][TSR_KV_LOST],
        .n_spoilt = t->n_spoilt,
        .block_bytes = t->ground.block_bytes,
        .busy_us = tsr_kv_mover_busy_us(t->mover),
        .n_stalls = t->n_stalls,
        .stall_us = t->stall_us,
        .n_late = t->n_late,
        .n_ever_lost = t->n_ever_lost,
    };
    int n_named = 0;

    for (int reads = 1; reads >= 0; reads--) {
        int32_t id = tsr_kv_places_first(p, TSR_KV_DEVICE, TSR_KV_LOST);

        for (; id >= 0 && n_named < TSR_KV_TIERS_MOST_LOST;
             id = tsr_kv_places_next(p, TSR_KV_DEVICE, id)) {
            if ((p->places[id].read_at == t->step) == (reads == 1)) {
                r.lost[n_named++] = id;
            }
        }
    }
    for (int from = 0; from < TSR_KV_TIER_COUNT; from++) {
        r.n_slots[from] = p->slots[from].n;
        r.n_blocks[from] = p->slots[from].n - tsr_kv_slots_n_free(&p->slots[from]);
        r.n_asked[from] = t->n_asked[from];
        r.most_blocks[from] = t->most_blocks[from];
        for (int to = 0; to < TSR_KV_TIER_COUNT; to++) {
            r.n_moves[from][to] = tsr_kv_mover_n_done(t->mover, (tsr_kv_tier)from, (tsr_kv_tier)to);
        }
    }
    return r;
}

bool tsr_kv_tiers_verify(const tsr_kv_tiers *t)
{
    int n_moving[TSR_KV_TIER_COUNT] = {0};

    for (int place = 0; place < TSR_KV_MOVER_MOST; place++) {
        const tsr_kv_move *move = tsr_kv_mover_at(t->mover, place);

        if (move != NULL) {
            n_moving[move->to]++;
            n_moving[move->from] += move->id < 0 ? 1 : 0;
            if (move->id >= 0 && t->places.places[move->id].move != place + 1) {
                return false;
            }
        }
    }
    for (int table = 0; table < t->tables->n_tables; table++) {
        for (int i = 0; i < t->tables->tables[table].n; i++) {
            const int32_t id = tsr_kv_tiers_id_at(t, table, i);

            if (id >= 0 && t->places.places[id].n_tables < 1) {
                return false;
            }
        }
    }
    return tsr_kv_places_verify(&t->places, n_moving);
}
