/*
 * kv/kv_store.h - the memory that holds this rank's keys and values: where each block lies here.
 *
 * A store has n_slots places of one block each in the device pool. A block id comes to life when it
 * is first placed and ends when it is dropped; its slot is known only here. (Tiers below the device
 * pool will live behind the same calls.) The pool is reserved at once and takes up memory only
 * where tokens were written; slots are used again last given back, first taken, so that it stays
 * small.
 *
 * Threads: the thread that owns the device.
 */
#ifndef TSR_KV_KV_STORE_H
#define TSR_KV_KV_STORE_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_kv_store tsr_kv_store;

/*
 * layout is copied; dev is borrowed and must outlive the store.
 * n_ids: block ids are in [0, n_ids).
 * Errors: ARG, NOMEM (the device has no room: fewer slots).
 */
TSR_MUST_CHECK tsr_status tsr_kv_store_create(tsr_kv_store **out, tsr_device *dev,
                                              const tsr_kv_layout *layout, int n_slots, int n_ids);
void tsr_kv_store_destroy(tsr_kv_store *store); /* NULL is fine */

/* Bytes of the maps beside the pool. */
size_t tsr_kv_store_map_bytes(int n_slots, int n_ids);

/* The slot of block `id`; a block that is not here yet gets one. Errors: ARG (id out of range),
 * FULL. */
TSR_MUST_CHECK tsr_status tsr_kv_store_place(tsr_kv_store *store, int32_t id, int32_t *slot);

/* Block `id` is nobody's any more. Nothing happens if it is not here. Errors: ARG. */
TSR_MUST_CHECK tsr_status tsr_kv_store_drop(tsr_kv_store *store, int32_t id);

/* One layer, for kernels. Good until the store is destroyed. */
tsr_kv_view tsr_kv_store_view(const tsr_kv_store *store, int layer);

int tsr_kv_store_n_slots(const tsr_kv_store *store);
int tsr_kv_store_n_used(const tsr_kv_store *store);

/* Every used slot has one id and free + used = all? For tests and debug builds. */
bool tsr_kv_store_verify(const tsr_kv_store *store);

#ifdef __cplusplus
}
#endif

#endif
