/*
 * engine/tier_room.h - how many blocks of the cache fit each tier of memory, on a rank and on all.
 */
#ifndef TSR_ENGINE_TIER_ROOM_H
#define TSR_ENGINE_TIER_ROOM_H

#include "engine/tessera.h"
#include "kernels/device.h"
#include "parallel/world.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_tier_room {
    bool is_tiered; /* there is memory below the device's; else n_host and n_disk are 0 */
    int n_groups;   /* of layers: so many blocks a sequence grows by */
    int n_device;   /* blocks */
    int n_host;
    int n_disk;
    uint64_t block_bytes; /* may be 0: this rank keeps no heads, and has room for any number */
} tsr_tier_room;

/*
 * What this rank has room for. n_useful: blocks that the device could use at most, when nobody says
 * how much memory to take. host_size: ranks on this host.
 * Errors: ARG (a budget that holds no block, or is more than the machine has; in words).
 */
TSR_MUST_CHECK tsr_status tsr_tier_room_count(tsr_tier_room *out, const tsr_engine_options *options,
                                              const tsr_device_options *device, size_t block_bytes,
                                              int n_groups, int64_t n_useful, int host_size);

/* The same of the tiers below the device's alone: block_bytes and n_groups are set, is_tiered,
 * n_host and n_disk become known. Errors: ARG. */
TSR_MUST_CHECK tsr_status tsr_tier_room_count_lower(tsr_tier_room *room,
                                                    const tsr_engine_options *options);

/* Blocks of the device that a rank must have. */
int tsr_tier_room_least(const tsr_tier_room *room);

/* Blocks of the device that fit so many bytes: never more than a cache may have; fewer than it must
 * have are none. */
int tsr_tier_room_fitting(const tsr_tier_room *room, uint64_t n_bytes);

/* What all ranks have at least becomes what all use: no more blocks than there may be ids. */
void tsr_tier_room_cap(tsr_tier_room *room);

/* Of each tier what the rank with the least has; the bytes of the largest block. All together.
 * Errors: COMM, ARG (not even one block). */
TSR_MUST_CHECK tsr_status tsr_tier_room_agree(tsr_tier_room *out, const tsr_tier_room *own,
                                              tsr_world *world);

/* Block ids that there are with so much room. */
int tsr_tier_room_n_ids(const tsr_tier_room *room);

/* What a rank of this room uses, where all have `agreed`: at least that. */
tsr_tier_room tsr_tier_room_used(const tsr_tier_room *own, const tsr_tier_room *agreed);

#ifdef __cplusplus
}
#endif

#endif
