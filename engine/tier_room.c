#include "engine/tier_room.h"

#include "kv/kv_tiers.h"

enum {
    MOST_BLOCKS = 1 << 22,   // of the device, and of all tiers together
    LEAST_DEVICE_COLUMNS = 4 // with tiers: a step writes to half of them at most
};

int tsr_tier_room_least(const tsr_tier_room *room)
{
    return (room->is_tiered ? LEAST_DEVICE_COLUMNS : 1) * room->n_groups;
}

static tsr_status count_device(tsr_tier_room *out, const tsr_engine_options *options,
                               const tsr_device_options *device, int64_t n_useful, int host_size)
{
    // By itself the cache takes at most half of what is free, shared among the host's ranks.
    const uint64_t room =
        options->kv_memory_bytes > 0
            ? options->kv_memory_bytes
            : tsr_device_free_bytes(device->kind, device->index) / 2 / (uint64_t)host_size;
    const int64_t fitting = (int64_t)(room / out->block_bytes);
    const int64_t least = tsr_tier_room_least(out);
    const int64_t n = fitting < n_useful || options->kv_memory_bytes > 0 ? fitting : n_useful;

    if (fitting < least) {
        return tsr_fail(
            TSR_ERR_ARG,
            "the cache may take %llu bytes a rank, and %lld of its blocks, of %llu bytes "
            "each, is the least: give --kv-memory more or --block-tokens less",
            (unsigned long long)room, (long long)least, (unsigned long long)out->block_bytes);
    }
    out->n_device = (int)(n < least ? least : n < MOST_BLOCKS ? n : MOST_BLOCKS);
    return TSR_OK;
}

/* Blocks of a lower tier, beside those that are kept for exchanges. */
static tsr_status count_lower(int *out, const char *option, uint64_t n_bytes, size_t slot_bytes)
{
    const uint64_t n = n_bytes / slot_bytes;

    if (n_bytes == 0) {
        *out = 0;
        return TSR_OK;
    }
    if (n <= TSR_KV_TIERS_EXCHANGE) {
        return tsr_fail(TSR_ERR_ARG,
                        "%s allows %llu bytes, which hold %llu cache blocks of %zu bytes; %d or "
                        "more are needed",
                        option, (unsigned long long)n_bytes, (unsigned long long)n, slot_bytes,
                        TSR_KV_TIERS_EXCHANGE + 1);
    }
    *out = n < MOST_BLOCKS ? (int)n - TSR_KV_TIERS_EXCHANGE : MOST_BLOCKS;
    return TSR_OK;
}

tsr_status tsr_tier_room_count_lower(tsr_tier_room *room, const tsr_engine_options *options)
{
    room->is_tiered = options->kv_host_bytes > 0 || options->kv_disk_bytes > 0;
    if (room->block_bytes == 0) {
        room->n_host = options->kv_host_bytes > 0 ? MOST_BLOCKS : 0;
        room->n_disk = options->kv_disk_bytes > 0 ? MOST_BLOCKS : 0;
        return TSR_OK;
    }
    TSR_TRY(count_lower(&room->n_host, "--kv-host", options->kv_host_bytes, room->block_bytes));
    return count_lower(&room->n_disk, "--kv-disk", options->kv_disk_bytes,
                       tsr_kv_disk_slot_bytes(room->block_bytes));
}

tsr_status tsr_tier_room_count(tsr_tier_room *out, const tsr_engine_options *options,
                               const tsr_device_options *device, size_t block_bytes, int n_groups,
                               int64_t n_useful, int host_size)
{
    const uint64_t free_bytes = tsr_device_free_bytes(TSR_DEVICE_CPU, 0);

    *out = (tsr_tier_room){
        .is_tiered = options->kv_host_bytes > 0 || options->kv_disk_bytes > 0,
        .n_groups = n_groups,
        .block_bytes = block_bytes,
    };
    if (options->kv_host_bytes > free_bytes / (uint64_t)host_size) {
        return tsr_fail(TSR_ERR_ARG,
                        "--kv-host allows %llu bytes on each rank, %d here, and %llu are "
                        "free here",
                        (unsigned long long)options->kv_host_bytes, host_size,
                        (unsigned long long)free_bytes);
    }
    if (block_bytes == 0) {
        const bool decides = !out->is_tiered && options->kv_memory_bytes == 0;

        out->n_device = decides && n_useful < MOST_BLOCKS ? (int)n_useful : MOST_BLOCKS;
    } else {
        TSR_TRY(count_device(out, options, device, n_useful, host_size));
    }
    return tsr_tier_room_count_lower(out, options);
}

int tsr_tier_room_fitting(const tsr_tier_room *room, uint64_t n_bytes)
{
    const uint64_t n = room->block_bytes > 0 ? n_bytes / room->block_bytes : MOST_BLOCKS;

    return n < (uint64_t)tsr_tier_room_least(room) ? 0 : n < MOST_BLOCKS ? (int)n : MOST_BLOCKS;
}

void tsr_tier_room_cap(tsr_tier_room *room)
{
    const int lower = MOST_BLOCKS - room->n_device;

    room->n_host = room->n_host < lower ? room->n_host : lower;
    room->n_disk = room->n_disk < lower - room->n_host ? room->n_disk : lower - room->n_host;
}

tsr_status tsr_tier_room_agree(tsr_tier_room *out, const tsr_tier_room *own, tsr_world *world)
{
    int64_t n_device = own->n_device;
    int64_t n_host = own->n_host;
    int64_t n_disk = own->n_disk;
    int64_t block_bytes = (int64_t)own->block_bytes;

    TSR_TRY(tsr_world_min(world, &n_device));
    TSR_TRY(tsr_world_min(world, &n_host));
    TSR_TRY(tsr_world_min(world, &n_disk));
    TSR_TRY(tsr_world_max(world, &block_bytes));
    if (n_device < 1) {
        return tsr_fail(TSR_ERR_ARG, "a rank has no room for even one block of the cache");
    }
    *out = (tsr_tier_room){
        .is_tiered = own->is_tiered,
        .n_groups = own->n_groups,
        .n_device = (int)n_device,
        .n_host = (int)n_host,
        .n_disk = (int)n_disk,
        .block_bytes = (uint64_t)block_bytes,
    };
    tsr_tier_room_cap(out);
    return TSR_OK;
}

int tsr_tier_room_n_ids(const tsr_tier_room *room)
{
    return room->n_device + room->n_host + room->n_disk;
}

static int between(int n, int least, int most)
{
    return n < least ? least : n > most ? most : n;
}

tsr_tier_room tsr_tier_room_used(const tsr_tier_room *own, const tsr_tier_room *agreed)
{
    const int n_ids = tsr_tier_room_n_ids(agreed);
    tsr_tier_room used = *own;

    if (!own->is_tiered) {
        used.n_device = agreed->n_device;
    } else if (own->block_bytes == 0) {
        used.n_device = n_ids; // costs nothing, and so nothing ever moves
        used.n_host = 0;
        used.n_disk = 0;
    } else {
        used.n_device = between(own->n_device, agreed->n_device, n_ids);
        used.n_host = between(own->n_host, agreed->n_host, n_ids);
        used.n_disk = between(own->n_disk, agreed->n_disk, n_ids);
    }
    return used;
}
