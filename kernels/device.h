/*
 * kernels/device.h - where arithmetic happens: one device a rank, with one in-order queue.
 *
 * On the CPU an op has ended when its call returns; on other devices it may only be queued:
 * tsr_device_sync() waits.
 *
 * Threads: a device belongs to the thread that opened it.
 */
#ifndef TSR_KERNELS_DEVICE_H
#define TSR_KERNELS_DEVICE_H

#include "base/status.h"
#include "kernels/cpu_pool.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_device tsr_device;

typedef enum tsr_device_kind {
    TSR_DEVICE_CPU,
    TSR_DEVICE_CUDA, /* a GPU; UNSUPPORTED in a build without CUDA and where there is none */
    TSR_DEVICE_KIND_COUNT
} tsr_device_kind;

typedef struct tsr_device_options {
    tsr_device_kind kind;
    int index;          /* which GPU; not read for CPU */
    int n_threads;      /* CPU threads, the caller's own included; >= 1 */
    bool deterministic; /* of a GPU: sums in the CPU's order (docs/gpu.md), as CPUs have them */
    const int *cpus;    /* [n_threads] logical CPUs to bind them to, or NULL: not bound. Borrowed
                           during the call */
} tsr_device_options;

/* Errors: ARG (also: TSR_ISA names no set), NOMEM, DEVICE (a thread cannot be started or bound),
 * UNSUPPORTED (kind not in this build; TSR_ISA names a set that this machine lacks). */
TSR_MUST_CHECK tsr_status tsr_device_open(tsr_device **out, const tsr_device_options *options);
/* The CPU beside a device, with the device's own team of threads: for what a GPU leaves to the host
 * in the middle of a step. `device` is borrowed and must outlive it. Errors: as above. */
TSR_MUST_CHECK tsr_status tsr_device_open_beside(tsr_device **out, tsr_device *device);
void tsr_device_close(tsr_device *device); /* NULL is fine */

tsr_device_kind tsr_device_kind_of(const tsr_device *device);

/* May the host read and write the device's memory as its own? */
bool tsr_device_is_host(const tsr_device *device);
const char *tsr_device_describe(const tsr_device *device); /* "CPU, AVX-512 VNNI, 2 threads" */

/* The threads beside the device, for host work such as packing weights. Borrowed. */
tsr_cpu_pool *tsr_device_pool(const tsr_device *device);

TSR_MUST_CHECK tsr_status tsr_device_sync(tsr_device *device);

/* A GPU's queue as its own API names it (a cudaStream_t), for what else is queued there; NULL on
 * the CPU, whose ops have ended when their calls return. */
void *tsr_device_queue(const tsr_device *device);

/* The same number for the same GPU of a host, whatever the process calls it; 0 for the CPU. */
int64_t tsr_device_identity(const tsr_device *device);

/*
 * While the host waits for a device's queue, guard(ctx, true) is called once and guard(ctx, false)
 * again and again: it passes the time, and its failure ends the wait and is that of whoever waited.
 * For queues in which one device waits for others, which may be gone. guard NULL: none. The CPU
 * never calls it.
 */
typedef tsr_status tsr_device_guard(void *ctx, bool begins);
void tsr_device_set_guard(tsr_device *device, tsr_device_guard *guard, void *ctx);

/* ---- recordings -------------------------------------------------------------------------------
 */

/*
 * Ops that are called between record_begin and record_end are not run but kept, with the addresses
 * they were given, and then replayed in one call as often as one likes, on what lies at those
 * addresses by then. In between nothing may be waited for, uploaded, downloaded or allocated. A
 * recording ends before its device. Errors: UNSUPPORTED (the CPU), DEVICE, NOMEM.
 */
typedef struct tsr_recording tsr_recording;
TSR_MUST_CHECK tsr_status tsr_device_record_begin(tsr_device *device);
TSR_MUST_CHECK tsr_status tsr_device_record_end(tsr_device *device, tsr_recording **out);
TSR_MUST_CHECK tsr_status tsr_device_replay(tsr_device *device, tsr_recording *recording);
void tsr_device_forget(tsr_device *device, tsr_recording *recording); /* NULL is fine */

/*
 * Memory that ops need for themselves, reserved once so that no step allocates. Ops check that what
 * they need fits: see tsr_ops_scratch_bytes() in kernels/ops.h. Errors: NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_device_reserve_scratch(tsr_device *device, size_t n_bytes);

/* ---- memory ------------------------------------------------------------------------------------
 */

/* Bytes that a device has free now; on the CPU (index not read) what the system says is available,
 * within the limits of its control group. */
uint64_t tsr_device_free_bytes(tsr_device_kind kind, int index);

/* How many GPUs this build can use on this host. */
int tsr_device_gpus(void);

/* Zeroed device memory. On the CPU: whole pages that take up memory when first touched. NULL when
 * there is no room. */
void *tsr_device_alloc(tsr_device *device, size_t n_bytes);
void tsr_device_free(tsr_device *device, void *memory, size_t n_bytes); /* NULL is fine */

/* Host memory that a copy queue can reach: zeroed, pages taken when first touched, page-aligned.
 * NULL when there is no room. */
void *tsr_device_alloc_host(tsr_device *device, size_t n_bytes);
void tsr_device_free_host(tsr_device *device, void *memory, size_t n_bytes); /* NULL is fine */

/* Both ends on the device, not overlapping. */
TSR_MUST_CHECK tsr_status tsr_device_copy(tsr_device *device, void *to, const void *from,
                                          size_t n_bytes);

TSR_MUST_CHECK tsr_status tsr_device_upload(tsr_device *device, void *to, const void *host,
                                            size_t n_bytes);
TSR_MUST_CHECK tsr_status tsr_device_download(tsr_device *device, void *host, const void *from,
                                              size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
