/*
 * kv/kv_store.h - the memory that holds this rank's keys and values: where each block lies here.
 *
 * A block id comes to life when it is first told to a table and ends when it is dropped; where it
 * lies is known only here. With a device pool alone a block has one slot of it all its life. With
 * lower tiers (kv_tiers.h) it moves between them.
 *
 * The device pool is reserved at once and takes up memory only where tokens were written; slots are
 * used again last given back, first taken, so that it stays small.
 *
 * A lane is a sequence's place here, with a table for each group of layers (kv/block_table.h).
 *
 * In each step: drop, leave, append and let go, copy, in this order; then visit; then the rows are
 * computed.
 *
 * Threads: the thread that owns the device.
 */
#ifndef TSR_KV_KV_STORE_H
#define TSR_KV_KV_STORE_H

#include "kernels/ops.h"
#include "kv/kv_tiers.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_kv_store tsr_kv_store;

typedef struct tsr_kv_store_options {
    tsr_kv_layout layout; /* copied */
    int n_ids;            /* block ids are in [0, n_ids) */
    int n_device;         /* blocks in the device pool */
    bool is_tiered;       /* else the next three do not count */
    int n_host;
    int n_disk;
    const char *folder;
    int n_lanes;
    int n_groups;
    int max_blocks; /* of a table */
} tsr_kv_store_options;

/* dev is borrowed and must outlive the store. Errors: ARG, NOMEM (there is no room: fewer blocks),
 * IO (the disk tier). */
TSR_MUST_CHECK tsr_status tsr_kv_store_create(tsr_kv_store **out, tsr_device *dev,
                                              const tsr_kv_store_options *options);
void tsr_kv_store_destroy(tsr_kv_store *store); /* NULL is fine */

/* Bytes of its tables and maps, beside the device pool; with lower tiers also of what copies to and
 * from the disk pass through. Of options all but the folder is read. */
size_t tsr_kv_store_map_bytes(const tsr_kv_store_options *options);

/* Block `id` is nobody's any more. Nothing happens if it is not here. Errors: ARG. */
TSR_MUST_CHECK tsr_status tsr_kv_store_drop(tsr_kv_store *store, int32_t id);

/* The lane's tables are empty again; their blocks stay wherever they are. Errors: ARG. */
TSR_MUST_CHECK tsr_status tsr_kv_store_leave(tsr_kv_store *store, int lane);

/* Block `id` is block number index / n_groups of the lane's table of group index % n_groups now, in
 * place of what was there; -1: no row looks at what was there, or before it, any more. Errors: ARG,
 * FULL (no room for a new block). */
TSR_MUST_CHECK tsr_status tsr_kv_store_append(tsr_kv_store *store, int lane, int index, int32_t id);

/* All bytes of block `from` are those of block `to`, too, when rows are computed. Errors: ARG,
 * NOMEM, DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_store_copy(tsr_kv_store *store, int32_t from, int32_t to);

/* All tables and blocks are where the visit's rows can use them: see tsr_kv_tiers_visit(). */
TSR_MUST_CHECK tsr_status tsr_kv_store_visit(tsr_kv_store *store, const tsr_kv_visit *visit);

/* One layer of a group, for kernels. Good until the store is destroyed, as is the next. */
tsr_kv_view tsr_kv_store_view(const tsr_kv_store *store, int layer);

/* The tables of a group, i32 [n_lanes, max_blocks] on the device: tsr_batch.tables. */
tsr_tensor tsr_kv_store_tables(const tsr_kv_store *store, int group);

/* The same in host memory. */
tsr_tensor tsr_kv_store_host_tables(const tsr_kv_store *store, int group);

/* How many blocks at the beginning of a lane's table lie in the host pool, and there alone, since
 * the last visit. */
int tsr_kv_store_n_away(const tsr_kv_store *store, int lane, int group);

/* NULL without lower tiers. */
const tsr_kv_tiers *tsr_kv_store_tiers(const tsr_kv_store *store);

/* places [n_ids]: bit t is set when the block has a copy in tier t (tsr_kv_tier). */
void tsr_kv_store_places(const tsr_kv_store *store, uint8_t *places);

int tsr_kv_store_n_slots(const tsr_kv_store *store); /* of the device pool */
int tsr_kv_store_n_used(const tsr_kv_store *store);
int tsr_kv_store_most_used(const tsr_kv_store *store); /* ever, at the same time */

/* Every used slot has one id and free + used = all? For tests and debug builds. */
bool tsr_kv_store_verify(const tsr_kv_store *store);

#ifdef __cplusplus
}
#endif

#endif
