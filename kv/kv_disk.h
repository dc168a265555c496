/*
 * kv/kv_disk.h - the lowest tier: blocks in one file, read and written by a thread of its own.
 *
 * The file is made in a folder, loses its name at once, and gets all its space then: a full disk is
 * known at the start, and nothing is left behind however the process ends. Where the file system
 * takes it, the file is read and written past the page cache. Each block has a checksum (XXH3, 64
 * bits), so that a block that comes back is the one that went.
 *
 * Threads: the thread that made it.
 */
#ifndef TSR_KV_KV_DISK_H
#define TSR_KV_KV_DISK_H

#include "kernels/task_queue.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_kv_disk tsr_kv_disk;

/*
 * n_slots places of block_bytes each, in a file in `folder`. beside: see tsr_task_queue_create().
 * depth: reads and writes under way at once.
 * Errors: ARG, IO (no such folder, no space: says how much), NOMEM, DEVICE.
 */
TSR_MUST_CHECK tsr_status tsr_kv_disk_create(tsr_kv_disk **out, const char *folder, int n_slots,
                                             size_t block_bytes, int depth,
                                             const tsr_cpu_pool *beside);
void tsr_kv_disk_destroy(tsr_kv_disk *disk); /* what is under way ends first; NULL is fine */

/* Bytes of the file that a block of block_bytes takes. */
size_t tsr_kv_disk_slot_bytes(size_t block_bytes);

/* Bytes of host memory for so many slots' checksums, and for the buffer of direct transfers. */
size_t tsr_kv_disk_map_bytes(int n_slots, size_t block_bytes);

/* Start writing a block from host memory, or reading one to it; that memory is the disk's until the
 * ticket is done. Errors: FULL (`depth` are under way). */
TSR_MUST_CHECK tsr_status tsr_kv_disk_write(tsr_kv_disk *disk, int32_t slot, const void *from,
                                            int64_t *ticket);
TSR_MUST_CHECK tsr_status tsr_kv_disk_read(tsr_kv_disk *disk, int32_t slot, void *to,
                                           int64_t *ticket);

bool tsr_kv_disk_is_done(const tsr_kv_disk *disk, int64_t ticket);

/* Returns when it is done. Errors: IO, FORMAT (the block that was read is not the one that was
 * written). */
TSR_MUST_CHECK tsr_status tsr_kv_disk_wait(tsr_kv_disk *disk, int64_t ticket);

int64_t tsr_kv_disk_busy_ns(const tsr_kv_disk *disk);

/* For tests: the file. */
int tsr_kv_disk_file(const tsr_kv_disk *disk);

#ifdef __cplusplus
}
#endif

#endif
