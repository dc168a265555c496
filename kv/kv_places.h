/*
 * kv/kv_places.h - where each block has copies, and which copies could go. The books of the tiers:
 * no byte is moved here.
 *
 * A block that lives has a copy in one tier or more, all alike; or none yet; or none any more: then
 * it is *lost*, and stays so until it is dropped, whatever is written to it. A copy is
 *   spare   when another copy serves as well: it may be forgotten at once,
 *   sole    when the block is in no table and has no lower copy: it must be copied before it goes,
 *   kept    otherwise: a table needs it where it is.
 * Spare and sole copies of a tier stand in lists, least recently used first. A block that is on its
 * way (`move`) is in no list.
 *
 * Threads: none of its own.
 */
#ifndef TSR_KV_KV_PLACES_H
#define TSR_KV_KV_PLACES_H

#include "kv/kv_mover.h"
#include "kv/kv_slots.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_kv_list {
    TSR_KV_UNLISTED,
    TSR_KV_SPARE,
    TSR_KV_SOLE,
    TSR_KV_LOST, /* of tier DEVICE alone: blocks whose bytes are gone, until they are dropped */
    TSR_KV_LIST_COUNT
} tsr_kv_list;

/* A block here. */
typedef struct tsr_kv_place {
    int32_t slot[TSR_KV_TIER_COUNT]; /* slot + 1; 0: no copy there */
    int32_t before[TSR_KV_TIER_COUNT];
    int32_t behind[TSR_KV_TIER_COUNT]; /* id + 1 of the neighbour in the list */
    uint8_t list[TSR_KV_TIER_COUNT];
    uint8_t move;     /* 1 + which of the mover's moves has this block; 0: none */
    uint8_t n_failed; /* reads that failed one after the other */
    bool is_lost;     /* what lies there, if anything, is not what was written */
    int32_t n_tables; /* that hold it */
    int32_t life;     /* how often the id was dropped */
    int32_t read_at;  /* the step, of tsr_kv_tiers, that reads it, as far as noted */
    int32_t write_at; /* likewise: that writes it */
} tsr_kv_place;

typedef struct tsr_kv_places {
    int n_ids;
    tsr_kv_place *places; /* owned, [n_ids] */
    tsr_kv_slots slots[TSR_KV_TIER_COUNT];
    int32_t first[TSR_KV_TIER_COUNT][TSR_KV_LIST_COUNT]; /* id + 1 of the least recently used */
    int32_t last[TSR_KV_TIER_COUNT][TSR_KV_LIST_COUNT];
    int n_listed[TSR_KV_TIER_COUNT][TSR_KV_LIST_COUNT];
    int64_t n_moved; /* counts changes that a table may have to hear of */
} tsr_kv_places;     /* start with {0} */

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_kv_places_init(tsr_kv_places *p, int n_ids,
                                             const int n_slots[TSR_KV_TIER_COUNT]);
void tsr_kv_places_clear(tsr_kv_places *p); /* fine on {0} */

/* A slot that was taken from `tier` holds block `id` now. */
void tsr_kv_places_put(tsr_kv_places *p, int32_t id, tsr_kv_tier tier, int32_t slot);

/* The copy in `tier` is forgotten and its slot free; nothing happens if there is none. */
void tsr_kv_places_remove(tsr_kv_places *p, int32_t id, tsr_kv_tier tier);

/* Block `id` is on its way in a move (place of the mover), or no longer (-1). */
void tsr_kv_places_set_move(tsr_kv_places *p, int32_t id, int place);

void tsr_kv_places_hold(tsr_kv_places *p, int32_t id);   /* one table more has it */
void tsr_kv_places_let_go(tsr_kv_places *p, int32_t id); /* one less */

/* No copy is left, and no move: the block's bytes are gone. */
void tsr_kv_places_lose(tsr_kv_places *p, int32_t id);

/* The id is nobody's; all its slots are free, but for the one that a move reads (kept_tier, or
 * TSR_KV_TIER_COUNT): that is the move's. */
void tsr_kv_places_drop(tsr_kv_places *p, int32_t id, tsr_kv_tier kept_tier);

/* The least recently used of a list; -1: it is empty. */
static inline int32_t tsr_kv_places_first(const tsr_kv_places *p, tsr_kv_tier tier,
                                          tsr_kv_list list)
{
    return p->first[tier][list] - 1;
}

/* The one behind it; -1: it is the last. */
static inline int32_t tsr_kv_places_next(const tsr_kv_places *p, tsr_kv_tier tier, int32_t id)
{
    return p->places[id].behind[tier] - 1;
}

static inline bool tsr_kv_places_has(const tsr_kv_places *p, int32_t id, tsr_kv_tier tier)
{
    return p->places[id].slot[tier] != 0;
}

/* Free slots of a tier, and those that could be at once. */
static inline int tsr_kv_places_n_easy(const tsr_kv_places *p, tsr_kv_tier tier)
{
    return tsr_kv_slots_n_free(&p->slots[tier]) + p->n_listed[tier][TSR_KV_SPARE];
}

/* Does every slot hold what its block says, stands every copy in the list it belongs to?
 * n_moving: slots that are moves' alone [tier]. */
bool tsr_kv_places_verify(const tsr_kv_places *p, const int n_moving[TSR_KV_TIER_COUNT]);

#ifdef __cplusplus
}
#endif

#endif
