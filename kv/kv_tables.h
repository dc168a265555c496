/*
 * kv/kv_tables.h - the block tables that kernels read: for each table, and each of its blocks,
 * where that lies now.
 *
 * An entry >= 0 is a slot of the device pool, one below 0 is ~slot of the host pool. The entries
 * are on the device, with a mirror here, so that only what changed is written there.
 *
 * Threads: the thread that owns the device.
 */
#ifndef TSR_KV_KV_TABLES_H
#define TSR_KV_KV_TABLES_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_kv_table {
    int n;        /* entries told */
    int first;    /* of these, the first that rows may look at: those before it are of no block */
    int n_known;  /* up to here the mirror shows them as of `seen` */
    int n_away;   /* of those, how many are not on the device, as far as known */
    int64_t seen; /* tsr_kv_places.n_moved then */
    int32_t runs_at; /* the last step of tsr_kv_tiers in which it had rows */
} tsr_kv_table;

typedef struct tsr_kv_tables {
    tsr_device *dev; /* borrowed */
    int n_tables;
    int max_blocks;
    int32_t *on_device; /* i32 [n_tables, max_blocks], owned */
    tsr_kv_table *tables;
    /* all [n_tables, max_blocks] and owned; taken up only where they are used */
    int32_t *ids;
    int32_t *lives;  /* of the id when it was told: another one now means that it was dropped */
    int32_t *mirror; /* what is on the device */
} tsr_kv_tables;     /* start with {0} */

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_kv_tables_init(tsr_kv_tables *t, tsr_device *dev, int n_tables,
                                             int max_blocks);
size_t tsr_kv_tables_bytes(int n_tables, int max_blocks); /* of all its arrays */
void tsr_kv_tables_clear(tsr_kv_tables *t);               /* fine on {0} */

static inline size_t tsr_kv_tables_at(const tsr_kv_tables *t, int table, int index)
{
    return (size_t)table * (size_t)t->max_blocks + (size_t)index;
}

/* Errors: ARG (there is no such entry). */
TSR_MUST_CHECK tsr_status tsr_kv_tables_check(const tsr_kv_tables *t, int table, int index);

/* Entries [first, end) of a table become `entries` there and here. Errors: DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_tables_write(tsr_kv_tables *t, int table, int first, int end,
                                              const int32_t *entries);

#ifdef __cplusplus
}
#endif

#endif
