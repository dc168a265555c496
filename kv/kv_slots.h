/*
 * kv/kv_slots.h - the places of one tier, and which block lies in each.
 *
 * The place given back last is taken first, and those never used come after all others: a pool
 * takes up memory only as far as it was ever needed.
 *
 * Threads: none of its own.
 */
#ifndef TSR_KV_KV_SLOTS_H
#define TSR_KV_KV_SLOTS_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_kv_slots {
    int n;          /* places in all */
    int n_touched;  /* places from here on were never used */
    int n_given;    /* places that were given back and are free */
    int32_t *given; /* owned, [n] */
    int32_t *id_in; /* owned, [n]: id + 1 of the block in a place; 0: none, or not yet */
} tsr_kv_slots;     /* start with {0}: no places */

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_kv_slots_init(tsr_kv_slots *slots, int n);
size_t tsr_kv_slots_bytes(int n);             /* of its arrays */
void tsr_kv_slots_clear(tsr_kv_slots *slots); /* fine on {0} */

static inline int tsr_kv_slots_n_free(const tsr_kv_slots *slots)
{
    return slots->n - slots->n_touched + slots->n_given;
}

/* A free place, nobody's yet; -1: there is none. */
int32_t tsr_kv_slots_take(tsr_kv_slots *slots);
void tsr_kv_slots_give(tsr_kv_slots *slots, int32_t slot);

/* No free place holds a block, none is free twice? */
bool tsr_kv_slots_verify(const tsr_kv_slots *slots);

#ifdef __cplusplus
}
#endif

#endif
