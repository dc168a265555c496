/*
 * kv/kv_mover.h - blocks on their way from one tier to another.
 *
 * A move copies one whole block. Between device and host it is one copy; to and from the disk it
 * passes through host memory: from the host pool where it lies there, else through a buffer of the
 * mover's. Both ends are the move's until it has ended and been taken back.
 *
 * Threads: the thread that owns the device.
 */
#ifndef TSR_KV_KV_MOVER_H
#define TSR_KV_KV_MOVER_H

#include "kernels/copy_queue.h"
#include "kv/kv_disk.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_kv_tier {
    TSR_KV_DEVICE,
    TSR_KV_HOST,
    TSR_KV_DISK,
    TSR_KV_TIER_COUNT
} tsr_kv_tier;

enum {
    TSR_KV_MOVER_MOST = 16, /* moves at once */
    TSR_KV_MOVER_DEPTH =
        4 * TSR_KV_MOVER_MOST /* of its queues: how a copy ended is asked a while after it did */
};

typedef struct tsr_kv_mover tsr_kv_mover;

typedef struct tsr_kv_move {
    int32_t id; /* of the block; the owner may set it to -1: nobody's any more */
    tsr_kv_tier from;
    tsr_kv_tier to;
    int32_t from_slot;
    int32_t to_slot;
} tsr_kv_move;

/* Where blocks can lie. Pools and disk are borrowed; NULL when there are none. */
typedef struct tsr_kv_ground {
    tsr_device *dev;
    size_t block_bytes;
    void *device_pool;
    void *host_pool;
    tsr_kv_disk *disk;
} tsr_kv_ground;

/* Errors: NOMEM, DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_mover_create(tsr_kv_mover **out, const tsr_kv_ground *ground);
size_t tsr_kv_mover_buffer_bytes(size_t block_bytes); /* that one takes when there is a disk */
/* What is under way ends first. NULL is fine. */
void tsr_kv_mover_destroy(tsr_kv_mover *mover);

/* *place: which of the moves it is, until it is taken back. The device has ended with both ends.
 * Errors: FULL (no move more, or no buffer, at the moment; no message), DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_mover_start(tsr_kv_mover *mover, const tsr_kv_move *move,
                                             int *place);

int tsr_kv_mover_n_moves(const tsr_kv_mover *mover); /* not taken back */
/* NULL: no move is in that place. */
tsr_kv_move *tsr_kv_mover_at(tsr_kv_mover *mover, int place);

/*
 * Drives moves on and takes one back that has ended: *move is what it was, *ended how; false when
 * none has. waits_for: a place to wait for first, or -1.
 */
bool tsr_kv_mover_take(tsr_kv_mover *mover, int waits_for, tsr_kv_move *move, tsr_status *ended);

/* Which move began first of those not taken back; -1: there is none. */
int tsr_kv_mover_oldest(const tsr_kv_mover *mover);

/* Moves that ended well, by their ends. */
int64_t tsr_kv_mover_n_done(const tsr_kv_mover *mover, tsr_kv_tier from, tsr_kv_tier to);
/* Microseconds that copies and transfers have taken. */
int64_t tsr_kv_mover_busy_us(const tsr_kv_mover *mover);

#ifdef __cplusplus
}
#endif

#endif
