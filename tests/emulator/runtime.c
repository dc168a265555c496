/* The CUDA runtime as this project calls it: devices, memory, copies. Streams are in stream.c,
 * events and graphs in graph.c, launches in launch.c. */
#include <cuda_runtime_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/emulator/arena.h"
#include "tests/emulator/pinned.h"
#include "tests/emulator/simt.h"
#include "tests/emulator/stream.h"

/* ---- devices
 * ------------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *n_devices)
{
    const char *n = getenv("EMULATOR_DEVICES");

    if (n != NULL && atoi(n) <= 0) {
        return cudaErrorNoDevice; // the count stays as it was, as the real one leaves it
    }
    *n_devices = n != NULL ? atoi(n) : 1;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    int n_devices = 0;

    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || device < 0 || device >= n_devices) {
        return stream_fail(cudaErrorInvalidDevice, "cudaGetDeviceProperties: no such device");
    }
    memset(out, 0, sizeof(*out));
    (void)snprintf(out->name, sizeof(out->name), "emulated GPU");
    out->totalGlobalMem = arena_total_bytes();
    out->major = 9;
    out->minor = 0;
    out->multiProcessorCount = 4; // few, so that splits into as many parts stay small
    out->sharedMemPerBlock = SIMT_DEFAULT_SHARED;
    out->sharedMemPerBlockOptin = SIMT_MAX_SHARED;
    out->maxThreadsPerBlock = SIMT_MAX_THREADS;
    out->warpSize = SIMT_LANES;
    out->pciBusID = 1 + device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    struct cudaDeviceProp p;
    const cudaError_t error = cudaGetDeviceProperties(&p, device);

    if (error != cudaSuccess) {
        return error;
    }
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        return cudaSuccess;
    case cudaDevAttrMemoryClockRate:
    case cudaDevAttrClockRate:
        *value = 1000000; // kHz
        return cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = 64;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = SIMT_MAX_SHARED;
        return cudaSuccess;
    default:
        return stream_fail(cudaErrorInvalidValue, "an attribute that the emulator does not know");
    }
}

cudaError_t cudaMemGetInfo(size_t *n_free, size_t *n_total)
{
    *n_free = arena_free_bytes(stream_device());
    *n_total = arena_total_bytes();
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
    static char text[48];

    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    default:
        (void)snprintf(text, sizeof(text), "emulated error %d", (int)error);
        return text;
    }
}

/* ---- memory
 * -------------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **out, size_t n_bytes)
{
    void *memory;

    if (stream_any_captured()) {
        return stream_fail(cudaErrorStreamCaptureUnsupported, "cudaMalloc during a capture");
    }
    if (n_bytes == 0) {
        *out = NULL;
        return cudaSuccess;
    }
    memory = arena_take(n_bytes, stream_device());
    if (memory == NULL) {
        return stream_fail(cudaErrorMemoryAllocation, "the emulated device is full");
    }
    *out = memory;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    if (memory == NULL) {
        return cudaSuccess;
    }
    stream_wait_all(); // as the real one does
    if (!arena_give_back(memory)) {
        stream_die("cudaFree of %p, which is no live allocation", memory);
    }
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **out, size_t n_bytes)
{
    *out = pinned_take(n_bytes);
    return *out != NULL ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
    stream_wait_all();
    if (memory != NULL && !pinned_give_back(memory)) {
        stream_die("cudaFreeHost of %p, which is not pinned", memory);
    }
    return cudaSuccess;
}

/* ---- copies
 * -------------------------------------------------------------------------------------- */

typedef struct copy {
    void *to;
    const void *from;
    size_t n_bytes;
    char *staged; /* owned: what pageable memory held when the copy was called for */
} copy;

static void clear_copy(void *operands)
{
    free(((copy *)operands)->staged);
}

static char *place_of(const void *memory, size_t n_bytes, const char *what)
{
    char text[160];
    char *contents;

    if (!arena_is_device_address((uint64_t)(uintptr_t)memory)) {
        return (char *)(uintptr_t)memory;
    }
    contents = arena_contents(memory, n_bytes);
    if (contents == NULL) {
        stream_die("%s of %zu bytes at %p, %s", what, n_bytes, memory,
                   arena_describe((uint64_t)(uintptr_t)memory, text));
    }
    return contents;
}

static bool run_copy(stream_work *work)
{
    const copy *c = work->operands;
    const char *from = c->staged != NULL ? c->staged : place_of(c->from, c->n_bytes, "a copy");

    memmove(place_of(c->to, c->n_bytes, "a copy"), from, c->n_bytes);
    return true;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n_bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    const bool to_device = arena_is_device_address((uint64_t)(uintptr_t)to);
    const bool from_device = arena_is_device_address((uint64_t)(uintptr_t)from);
    const bool is_pageable_target = !to_device && !pinned_holds(to, n_bytes);
    stream_work *work;
    copy *c;

    if (kind != cudaMemcpyDefault &&
        (to_device != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) ||
         from_device != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice))) {
        return stream_fail(cudaErrorInvalidValue,
                           "cudaMemcpyAsync: the kind does not fit the addresses");
    }
    if (stream_is_captured(stream) &&
        (is_pageable_target || (!from_device && !pinned_holds(from, n_bytes)))) {
        return stream_fail(cudaErrorStreamCaptureUnsupported, "a captured copy of pageable memory");
    }
    work = stream_work_make("a copy", run_copy, sizeof(copy));
    c = work->operands;
    *c = (copy){.to = to, .from = from, .n_bytes = n_bytes};
    work->clear = clear_copy;
    (void)place_of(to, n_bytes, "a copy");
    (void)place_of(from, n_bytes, "a copy");
    if (!from_device && !pinned_holds(from, n_bytes)) {
        c->staged = malloc(n_bytes == 0 ? 1 : n_bytes);
        if (c->staged == NULL) {
            stream_die("out of memory");
        }
        memcpy(c->staged, from, n_bytes);
    } else if (!to_device && !stream_is_captured(stream)) {
        memset(to, 0xFF, n_bytes); // undefined until the copy is done
    }
    stream_add(stream, work);
    if (is_pageable_target) {
        stream_wait(stream); // the real one may return early, but need not
    }
    return cudaSuccess;
}

typedef struct fill {
    void *to;
    int value;
    size_t n_bytes;
} fill;

static bool run_fill(stream_work *work)
{
    const fill *f = work->operands;

    memset(place_of(f->to, f->n_bytes, "a fill"), f->value, f->n_bytes);
    return true;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t n_bytes, cudaStream_t stream)
{
    stream_work *work = stream_work_make("a fill", run_fill, sizeof(fill));

    if (!arena_is_device_address((uint64_t)(uintptr_t)to)) {
        return stream_fail(cudaErrorInvalidValue, "cudaMemsetAsync of host memory");
    }
    (void)place_of(to, n_bytes, "a fill");
    *(fill *)work->operands = (fill){to, value, n_bytes};
    stream_add(stream, work);
    return cudaSuccess;
}
