#define _GNU_SOURCE // O_DIRECT

#include "kv/kv_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/alloc.h"

enum {
    SECTOR_BYTES = 4096, // direct reads and writes start and end at multiples of it
    PATH_BYTES = 4096
};

typedef struct transfer {
    tsr_kv_disk *disk;
    int32_t slot;
    const void *from; /* to be written, or NULL */
    void *to;
} transfer;

struct tsr_kv_disk {
    tsr_task_queue *tasks; // owned
    transfer *transfers;   // [depth], owned; that of ticket t lies at t % depth
    int64_t n_put;
    int depth;
    int file; // -1: none
    int n_slots;
    size_t block_bytes;
    size_t slot_bytes;
    void *buffer;   // [slot_bytes] aligned, owned: what direct transfers want
    uint64_t *sums; // [n_slots], owned: of what lies in each slot. The thread's, as is the buffer
};

size_t tsr_kv_disk_slot_bytes(size_t block_bytes)
{
    return (block_bytes + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
}

/* All of the buffer to or from a slot. */
static tsr_status move_slot(const tsr_kv_disk *disk, int32_t slot, bool writes)
{
    const off_t start = (off_t)slot * (off_t)disk->slot_bytes;
    size_t n_done = 0;

    while (n_done < disk->slot_bytes) {
        char *at = (char *)disk->buffer + n_done;
        const size_t n_left = disk->slot_bytes - n_done;
        const ssize_t n = writes ? pwrite(disk->file, at, n_left, start + (off_t)n_done)
                                 : pread(disk->file, at, n_left, start + (off_t)n_done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return tsr_fail(TSR_ERR_IO, "kv disk: block %d cannot be %s: %s", (int)slot,
                            writes ? "written" : "read",
                            n == 0 ? "the file ends early" : strerror(errno));
        }
        n_done += (size_t)n;
    }
    return TSR_OK;
}

static tsr_status run_write(void *ctx)
{
    const transfer *t = ctx;
    tsr_kv_disk *disk = t->disk;

    memcpy(disk->buffer, t->from, disk->block_bytes);
    disk->sums[t->slot] = XXH3_64bits(disk->buffer, disk->block_bytes);
    return move_slot(disk, t->slot, true);
}

static tsr_status run_read(void *ctx)
{
    const transfer *t = ctx;
    tsr_kv_disk *disk = t->disk;

    TSR_TRY(move_slot(disk, t->slot, false));
    if (XXH3_64bits(disk->buffer, disk->block_bytes) != disk->sums[t->slot]) {
        return tsr_fail(TSR_ERR_FORMAT, "kv disk: block %d is not what was written", (int)t->slot);
    }
    memcpy(t->to, disk->buffer, disk->block_bytes);
    return TSR_OK;
}

/* Past the page cache, if this file system can; a trial of the first slot says. */
static tsr_status choose_way(tsr_kv_disk *disk)
{
    const int flags = fcntl(disk->file, F_GETFL);

    if (flags >= 0 && fcntl(disk->file, F_SETFL, flags | O_DIRECT) == 0 &&
        move_slot(disk, 0, true) == TSR_OK && move_slot(disk, 0, false) == TSR_OK) {
        return TSR_OK;
    }
    (void)fcntl(disk->file, F_SETFL, flags);
    TSR_TRY(move_slot(disk, 0, true));
    return move_slot(disk, 0, false);
}

static tsr_status make_file(tsr_kv_disk *disk, const char *folder)
{
    const unsigned long long n_bytes = (unsigned long long)disk->n_slots * disk->slot_bytes;
    char path[PATH_BYTES];
    const int n = snprintf(path, sizeof(path), "%s/tessera-kv-XXXXXX", folder);
    int error;

    if (n < 0 || n >= PATH_BYTES) {
        return tsr_fail(TSR_ERR_ARG, "kv disk: the folder's name is too long");
    }
    disk->file = mkostemp(path, O_CLOEXEC);
    if (disk->file < 0) {
        return tsr_fail(TSR_ERR_IO, "no file for cache blocks can be made in %s: %s", folder,
                        strerror(errno));
    }
    (void)unlink(path);
    error = posix_fallocate(disk->file, 0, (off_t)n_bytes);
    if (error != 0) {
        return tsr_fail(TSR_ERR_IO, "%s has no room for %.1f MB of cache blocks: %s", folder,
                        (double)n_bytes / 1e6, strerror(error));
    }
    return choose_way(disk);
}

size_t tsr_kv_disk_map_bytes(int n_slots, size_t block_bytes)
{
    const tsr_kv_disk *disk = NULL;

    return (size_t)n_slots * sizeof(*disk->sums) + tsr_kv_disk_slot_bytes(block_bytes);
}

tsr_status tsr_kv_disk_create(tsr_kv_disk **out, const char *folder, int n_slots,
                              size_t block_bytes, int depth, const tsr_cpu_pool *beside)
{
    tsr_status st = TSR_OK;
    tsr_kv_disk *disk;

    if (n_slots < 1 || block_bytes == 0 || depth < 1) {
        return tsr_fail(TSR_ERR_ARG, "kv disk: %d blocks of %zu bytes, %d at once", n_slots,
                        block_bytes, depth);
    }
    disk = tsr_alloc(1, sizeof(*disk));
    if (disk == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "kv disk");
    }
    disk->file = -1;
    disk->n_slots = n_slots;
    disk->depth = depth;
    disk->block_bytes = block_bytes;
    disk->slot_bytes = tsr_kv_disk_slot_bytes(block_bytes);
    disk->sums = tsr_alloc((size_t)n_slots, sizeof(*disk->sums));
    disk->transfers = tsr_alloc((size_t)depth, sizeof(*disk->transfers));
    disk->buffer = tsr_alloc_pages(disk->slot_bytes);
    if (disk->sums == NULL || disk->transfers == NULL || disk->buffer == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "kv disk: no memory for a list of %d blocks", n_slots);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, make_file(disk, folder));
    TSR_TRY_GOTO(st, fail, tsr_task_queue_create(&disk->tasks, depth, beside));
    *out = disk;
    return TSR_OK;

fail:
    tsr_kv_disk_destroy(disk);
    return st;
}

void tsr_kv_disk_destroy(tsr_kv_disk *disk)
{
    if (disk == NULL) {
        return;
    }
    tsr_task_queue_destroy(disk->tasks);
    if (disk->file >= 0) {
        (void)close(disk->file);
    }
    tsr_free_pages(disk->buffer, disk->slot_bytes);
    tsr_free(disk->transfers);
    tsr_free(disk->sums);
    tsr_free(disk);
}

static tsr_status put(tsr_kv_disk *disk, tsr_task_kind kind, tsr_task_fn *fn,
                      const transfer *wanted, int64_t *ticket)
{
    transfer *t = &disk->transfers[disk->n_put % disk->depth];

    if (disk->n_put >= disk->depth &&
        !tsr_task_queue_is_done(disk->tasks, disk->n_put - disk->depth)) {
        return TSR_ERR_FULL;
    }
    *t = *wanted;
    TSR_TRY(tsr_task_queue_put(disk->tasks, kind, fn, t, ticket));
    disk->n_put++;
    return TSR_OK;
}

tsr_status tsr_kv_disk_write(tsr_kv_disk *disk, int32_t slot, const void *from, int64_t *ticket)
{
    const transfer wanted = {.disk = disk, .slot = slot, .from = from};

    return put(disk, TSR_TASK_WRITE, run_write, &wanted, ticket);
}

tsr_status tsr_kv_disk_read(tsr_kv_disk *disk, int32_t slot, void *to, int64_t *ticket)
{
    const transfer wanted = {.disk = disk, .slot = slot, .to = to};

    return put(disk, TSR_TASK_READ, run_read, &wanted, ticket);
}

bool tsr_kv_disk_is_done(const tsr_kv_disk *disk, int64_t ticket)
{
    return tsr_task_queue_is_done(disk->tasks, ticket);
}

tsr_status tsr_kv_disk_wait(tsr_kv_disk *disk, int64_t ticket)
{
    return tsr_task_queue_wait(disk->tasks, ticket);
}

int64_t tsr_kv_disk_busy_ns(const tsr_kv_disk *disk)
{
    return tsr_task_queue_busy_ns(disk->tasks);
}

int tsr_kv_disk_file(const tsr_kv_disk *disk)
{
    return disk->file;
}
