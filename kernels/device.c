#include "kernels/device.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/backend.h"

tsr_status tsr_device_open(tsr_device **out, const tsr_device_options *options)
{
    tsr_status st = TSR_OK;
    tsr_device *device;

    if (options->kind != TSR_DEVICE_CPU && options->kind != TSR_DEVICE_CUDA) {
        return tsr_fail(TSR_ERR_ARG, "device: no kind %d", (int)options->kind);
    }
    device = tsr_alloc(1, sizeof(*device));
    if (device == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "device");
    }
    device->kind = options->kind;
    device->deterministic = options->kind == TSR_DEVICE_CPU || options->deterministic;
    TSR_TRY_GOTO(st, fail, tsr_cpu_pool_create(&device->pool, options->n_threads, options->cpus));
    TSR_TRY_GOTO(st, fail,
                 options->kind == TSR_DEVICE_CUDA ? tsr_device_cuda_open(device, options)
                                                  : tsr_device_cpu_open(device, options));
    *out = device;
    return TSR_OK;

fail:
    tsr_device_close(device);
    return st;
}

tsr_status tsr_device_open_beside(tsr_device **out, tsr_device *device)
{
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU,
                                        .n_threads = tsr_cpu_pool_n_threads(device->pool)};
    tsr_device *beside = tsr_alloc(1, sizeof(*beside));
    tsr_status st;

    if (beside == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "device");
    }
    beside->kind = TSR_DEVICE_CPU;
    beside->deterministic = true;
    beside->pool = device->pool;
    beside->shares_pool = true;
    st = tsr_device_cpu_open(beside, &options);
    if (st != TSR_OK) {
        tsr_device_close(beside);
        return st;
    }
    *out = beside;
    return TSR_OK;
}

void tsr_device_close(tsr_device *device)
{
    if (device == NULL) {
        return;
    }
    if (device->backend != NULL) {
        tsr_device_free(device, device->scratch, device->scratch_bytes);
        device->backend->close(device);
    }
    tsr_cpu_pool_destroy(device->shares_pool ? NULL : device->pool);
    tsr_free(device);
}

tsr_device_kind tsr_device_kind_of(const tsr_device *device)
{
    return device->kind;
}

bool tsr_device_is_host(const tsr_device *device)
{
    return device->kind == TSR_DEVICE_CPU;
}

const char *tsr_device_describe(const tsr_device *device)
{
    return device->description;
}

tsr_cpu_pool *tsr_device_pool(const tsr_device *device)
{
    return device->pool;
}

tsr_status tsr_device_sync(tsr_device *device)
{
    return device->backend->sync(device);
}

void *tsr_device_queue(const tsr_device *device)
{
    return device->queue;
}

int64_t tsr_device_identity(const tsr_device *device)
{
    return device->identity;
}

void tsr_device_set_guard(tsr_device *device, tsr_device_guard *guard, void *ctx)
{
    device->guard = guard;
    device->guard_ctx = ctx;
}

tsr_status tsr_device_record_begin(tsr_device *device)
{
    return device->backend->record_begin(device);
}

tsr_status tsr_device_record_end(tsr_device *device, tsr_recording **out)
{
    return device->backend->record_end(device, out);
}

tsr_status tsr_device_replay(tsr_device *device, tsr_recording *recording)
{
    return device->backend->replay(device, recording);
}

void tsr_device_forget(tsr_device *device, tsr_recording *recording)
{
    if (recording != NULL) {
        device->backend->forget(device, recording);
    }
}

tsr_status tsr_device_reserve_scratch(tsr_device *device, size_t n_bytes)
{
    void *larger;

    if (n_bytes <= device->scratch_bytes) {
        return TSR_OK;
    }
    larger = tsr_device_alloc(device, n_bytes);
    if (larger == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "device: %zu bytes of scratch", n_bytes);
    }
    tsr_device_free(device, device->scratch, device->scratch_bytes);
    device->scratch = larger;
    device->scratch_bytes = n_bytes;
    return TSR_OK;
}

/* The number behind `key` in a file of lines such as "MemAvailable:  123 kB"; without a key the
 * number that the file begins with. fallback when there is none ("max" is no number). */
static uint64_t number_in(const char *path, const char *key, uint64_t fallback)
{
    FILE *file = fopen(path, "r");
    char line[128];
    uint64_t number = fallback;

    if (file == NULL) {
        return fallback;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0) {
            unsigned long long found;

            if (sscanf(line + strlen(key), "%llu", &found) == 1) {
                number = found;
            }
            break;
        }
    }
    (void)fclose(file);
    return number;
}

int tsr_device_gpus(void)
{
    return tsr_device_cuda_count();
}

uint64_t tsr_device_free_bytes(tsr_device_kind kind, int index)
{
    const uint64_t available = number_in("/proc/meminfo", "MemAvailable:", 4 << 20) * 1024;
    const uint64_t limit = number_in("/sys/fs/cgroup/memory.max", "", UINT64_MAX);
    const uint64_t used = number_in("/sys/fs/cgroup/memory.current", "", 0);
    const uint64_t left = limit > used ? limit - used : 0;

    if (kind == TSR_DEVICE_CUDA) {
        return tsr_device_cuda_free_bytes(index);
    }
    return available < left ? available : left;
}

void *tsr_device_alloc(tsr_device *device, size_t n_bytes)
{
    return device->backend->alloc(device, n_bytes);
}

void tsr_device_free(tsr_device *device, void *memory, size_t n_bytes)
{
    if (memory != NULL) {
        device->backend->give_back(device, memory, n_bytes);
    }
}

void *tsr_device_alloc_host(tsr_device *device, size_t n_bytes)
{
    return device->backend->alloc_host(device, n_bytes);
}

void tsr_device_free_host(tsr_device *device, void *memory, size_t n_bytes)
{
    if (memory != NULL) {
        device->backend->give_back_host(device, memory, n_bytes);
    }
}

tsr_status tsr_device_copy(tsr_device *device, void *to, const void *from, size_t n_bytes)
{
    return n_bytes == 0 ? TSR_OK : device->backend->copy(device, to, from, n_bytes);
}

tsr_status tsr_device_upload(tsr_device *device, void *to, const void *host, size_t n_bytes)
{
    return n_bytes == 0 ? TSR_OK : device->backend->upload(device, to, host, n_bytes);
}

tsr_status tsr_device_download(tsr_device *device, void *host, const void *from, size_t n_bytes)
{
    return n_bytes == 0 ? TSR_OK : device->backend->download(device, host, from, n_bytes);
}
