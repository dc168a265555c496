#include "kernels/cuda_check.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/blas_cuda.h"
#include "kernels/machine_cuda.h"

/*
 * One stream a device, so that ops follow one another without being waited for.
 *
 * What is uploaded goes through a ring of pinned memory: an upload has left the caller's memory
 * when the call returns, and is on its way while the next piece is brought. A download lands in
 * pinned memory, too: into pageable memory the runtime would wait by itself, and nobody could end
 * that wait when another rank is lost.
 */

enum {
    SEGMENT_BYTES = 1 << 20,
    N_SEGMENTS = 8,
    ALIGN_BYTES = 256
};

typedef struct staging {
    char *ring;                   /* [N_SEGMENTS * SEGMENT_BYTES] pinned, owned */
    char *landing;                /* [SEGMENT_BYTES] pinned, owned */
    cudaEvent_t left[N_SEGMENTS]; /* passed when all that came through a segment has left it */
    int segment;
    size_t used; /* bytes of it */
} staging;

int tsr_device_cuda_count(void)
{
    int n_devices = 0;

    if (cudaGetDeviceCount(&n_devices) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0; // on failure the call leaves the number as it was
    }
    return n_devices;
}

/* Until the queue has passed the event, or is empty. */
static tsr_status wait(tsr_device *dev, cudaEvent_t event)
{
    cudaError_t error = cudaSuccess;

    if (dev->guard == NULL) {
        TSR_CUDA_TRY(event != NULL ? cudaEventSynchronize(event)
                                   : cudaStreamSynchronize(tsr_cuda_queue(dev)));
        return TSR_OK;
    }
    TSR_TRY(dev->guard(dev->guard_ctx, true));
    for (;;) {
        error = event != NULL ? cudaEventQuery(event) : cudaStreamQuery(tsr_cuda_queue(dev));
        if (error != cudaErrorNotReady) {
            TSR_CUDA_TRY(error);
            return TSR_OK;
        }
        TSR_TRY(dev->guard(dev->guard_ctx, false));
    }
}

static tsr_status sync(tsr_device *dev)
{
    return wait(dev, NULL);
}

static void *alloc(tsr_device *dev, size_t n_bytes)
{
    void *memory = NULL;

    if (cudaMalloc(&memory, n_bytes == 0 ? 1 : n_bytes) != cudaSuccess ||
        cudaMemsetAsync(memory, 0, n_bytes, tsr_cuda_queue(dev)) != cudaSuccess) {
        (void)cudaGetLastError();
        (void)cudaFree(memory);
        return NULL;
    }
    return memory;
}

static void give_back(tsr_device *dev, void *memory, size_t n_bytes)
{
    (void)dev;
    (void)n_bytes;
    (void)cudaFree(memory);
}

static void *alloc_host(tsr_device *dev, size_t n_bytes)
{
    void *memory = NULL;

    (void)dev;
    if (cudaMallocHost(&memory, n_bytes == 0 ? 1 : n_bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    memset(memory, 0, n_bytes);
    return memory;
}

static void give_back_host(tsr_device *dev, void *memory, size_t n_bytes)
{
    (void)dev;
    (void)n_bytes;
    (void)cudaFreeHost(memory);
}

static tsr_status copy(tsr_device *dev, void *to, const void *from, size_t n_bytes)
{
    TSR_CUDA_TRY(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDeviceToDevice, tsr_cuda_queue(dev)));
    return TSR_OK;
}

static tsr_status next_segment(tsr_device *dev, staging *s)
{
    TSR_CUDA_TRY(cudaEventRecord(s->left[s->segment], tsr_cuda_queue(dev)));
    s->segment = (s->segment + 1) % N_SEGMENTS;
    s->used = 0;
    return wait(dev, s->left[s->segment]);
}

static tsr_status upload(tsr_device *dev, void *to, const void *host, size_t n_bytes)
{
    staging *s = dev->staging;

    for (size_t done = 0; done < n_bytes;) {
        char *at;
        size_t n;

        if (s->used == SEGMENT_BYTES) {
            TSR_TRY(next_segment(dev, s));
        }
        at = s->ring + (size_t)s->segment * SEGMENT_BYTES + s->used;
        n = n_bytes - done < SEGMENT_BYTES - s->used ? n_bytes - done : SEGMENT_BYTES - s->used;
        memcpy(at, (const char *)host + done, n);
        TSR_CUDA_TRY(
            cudaMemcpyAsync((char *)to + done, at, n, cudaMemcpyHostToDevice, tsr_cuda_queue(dev)));
        s->used += (n + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
        done += n;
    }
    return TSR_OK;
}

static tsr_status download(tsr_device *dev, void *host, const void *from, size_t n_bytes)
{
    staging *s = dev->staging;

    for (size_t done = 0; done < n_bytes; done += SEGMENT_BYTES) {
        const size_t n = n_bytes - done < SEGMENT_BYTES ? n_bytes - done : SEGMENT_BYTES;

        TSR_CUDA_TRY(cudaMemcpyAsync(s->landing, (const char *)from + done, n,
                                     cudaMemcpyDeviceToHost, tsr_cuda_queue(dev)));
        TSR_TRY(wait(dev, NULL));
        memcpy((char *)host + done, s->landing, n);
    }
    return TSR_OK;
}

/* A recording is a graph that was made of a stream. */
static tsr_status record_begin(tsr_device *dev)
{
    TSR_CUDA_TRY(cudaStreamBeginCapture(tsr_cuda_queue(dev), cudaStreamCaptureModeThreadLocal));
    return TSR_OK;
}

static tsr_status record_end(tsr_device *dev, tsr_recording **out)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    cudaError_t error;

    TSR_CUDA_TRY(cudaStreamEndCapture(tsr_cuda_queue(dev), &graph));
    error = cudaGraphInstantiate(&exec, graph, 0);
    (void)cudaGraphDestroy(graph);
    TSR_CUDA_TRY(error);
    *out = (tsr_recording *)(void *)exec;
    return TSR_OK;
}

static tsr_status replay(tsr_device *dev, tsr_recording *recording)
{
    TSR_CUDA_TRY(cudaGraphLaunch((cudaGraphExec_t)(void *)recording, tsr_cuda_queue(dev)));
    return TSR_OK;
}

static void forget(tsr_device *dev, tsr_recording *recording)
{
    (void)dev;
    (void)cudaGraphExecDestroy((cudaGraphExec_t)(void *)recording);
}

static tsr_status open_staging(tsr_device *dev)
{
    staging *s = tsr_alloc(1, sizeof(*s));

    if (s == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "device");
    }
    dev->staging = s;
    s->ring = alloc_host(dev, (size_t)N_SEGMENTS * SEGMENT_BYTES);
    s->landing = alloc_host(dev, SEGMENT_BYTES);
    if (s->ring == NULL || s->landing == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "device: no pinned memory for copies");
    }
    for (int i = 0; i < N_SEGMENTS; i++) {
        TSR_CUDA_TRY(cudaEventCreateWithFlags(&s->left[i], cudaEventDisableTiming));
    }
    return TSR_OK;
}

static void close_staging(staging *s)
{
    if (s == NULL) {
        return;
    }
    for (int i = 0; i < N_SEGMENTS; i++) {
        if (s->left[i] != NULL) {
            (void)cudaEventDestroy(s->left[i]);
        }
    }
    (void)cudaFreeHost(s->landing);
    (void)cudaFreeHost(s->ring);
    tsr_free(s);
}

static void close_device(tsr_device *dev)
{
    tsr_blas_close(dev);
    close_staging(dev->staging);
    if (dev->queue != NULL) {
        (void)cudaStreamDestroy(tsr_cuda_queue(dev));
    }
}

static const tsr_backend backend = {
    .close = close_device,
    .sync = sync,
    .alloc = alloc,
    .give_back = give_back,
    .alloc_host = alloc_host,
    .give_back_host = give_back_host,
    .copy = copy,
    .upload = upload,
    .download = download,
    .record_begin = record_begin,
    .record_end = record_end,
    .replay = replay,
    .forget = forget,
    .embed = tsr_embed_cuda,
    .narrow = tsr_narrow_cuda,
    .add_sums = tsr_add_sums_cuda,
    .rmsnorm = tsr_rmsnorm_cuda,
    .matmul = tsr_matmul_cuda,
    .activate = tsr_activate_cuda,
    .activate_codes = tsr_activate_codes_cuda,
    .join = tsr_join_cuda,
    .matmul_codes = tsr_matmul_codes_cuda,
    .add_scaled = tsr_add_scaled_cuda,
    .scale = tsr_scale_cuda,
    .clip = tsr_clip_cuda,
    .layernorm = tsr_layernorm_cuda,
    .square_sums = tsr_square_sums_cuda,
    .rmsnorm_shared = tsr_rmsnorm_shared_cuda,
    .route = tsr_route_cuda,
    .sort_experts = tsr_sort_experts_cuda,
    .matmul_experts = tsr_matmul_experts_cuda,
    .add_experts = tsr_add_experts_cuda,
    .sigmoid = tsr_sigmoid_cuda,
    .clear = tsr_clear_cuda,
    .scatter_sums = tsr_scatter_sums_cuda,
    .copy_heads = tsr_copy_heads_cuda,
    .rope_angles = tsr_rope_angles_cuda,
    .rope = tsr_rope_cuda,
    .kv_write = tsr_kv_write_cuda,
    .rope_write = tsr_rope_write_cuda,
    .attention = tsr_attention_cuda,
    .attention_part = tsr_attention_part_cuda,
    .attention_merge = tsr_attention_merge_cuda,
    .gather_rows = tsr_gather_rows_cuda,
    .adjust_logits = tsr_adjust_logits_cuda,
    .top_k = tsr_top_k_cuda,
};

tsr_status tsr_device_cuda_open(tsr_device *dev, const tsr_device_options *options)
{
    const int n_devices = tsr_device_cuda_count();
    struct cudaDeviceProp properties;
    cudaStream_t queue = NULL;

    if (n_devices == 0) {
        int ignored;

        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "device: no GPU that this build can use (%s); --device cpu does without",
                        cudaGetErrorString(cudaGetDeviceCount(&ignored)));
    }
    if (options->index < 0 || options->index >= n_devices) {
        return tsr_fail(TSR_ERR_ARG, "device: GPU %d of %d", options->index, n_devices);
    }
    TSR_CUDA_TRY(cudaSetDevice(options->index));
    TSR_CUDA_TRY(cudaGetDeviceProperties(&properties, options->index));
    TSR_CUDA_TRY(cudaStreamCreateWithFlags(&queue, cudaStreamNonBlocking));
    dev->backend = &backend;
    dev->queue = queue;
    dev->identity =
        (int64_t)properties.pciDomainID << 16 | properties.pciBusID << 8 | properties.pciDeviceID;
    TSR_TRY(open_staging(dev));
    (void)snprintf(dev->description, sizeof(dev->description), "GPU %d, %.40s, sm_%d%d",
                   options->index, properties.name, properties.major, properties.minor);
    return TSR_OK;
}

size_t tsr_device_cuda_scratch(int n_threads, const tsr_ops_limits *limits)
{
    // Ops follow one another in their queue: what the hungriest needs is enough for all.
    const size_t matmul = tsr_matmul_cuda_scratch(n_threads, limits);
    const size_t attention = tsr_attention_cuda_scratch(n_threads, limits);

    return matmul > attention ? matmul : attention;
}

uint64_t tsr_device_cuda_free_bytes(int index)
{
    size_t n_free = 0;
    size_t n_total = 0;

    if (cudaSetDevice(index) != cudaSuccess || cudaMemGetInfo(&n_free, &n_total) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0;
    }
    return n_free;
}

/* Multiply-adds that a multiprocessor's tensor cores do in a clock, as NVIDIA's papers on the
 * architectures have them. */
static int macs_a_clock(int major, int minor)
{
    return major >= 10 ? 4096 : major == 9 ? 2048 : major == 8 && minor == 0 ? 1024 : 512;
}

tsr_status tsr_machine_cuda_peak(const tsr_device *dev, double *read_bytes_per_s,
                                 double *macs_per_s)
{
    const enum cudaDeviceAttr wanted[] = {
        cudaDevAttrMemoryClockRate,
        cudaDevAttrGlobalMemoryBusWidth,
        cudaDevAttrClockRate,
        cudaDevAttrMultiProcessorCount,
        cudaDevAttrComputeCapabilityMajor,
        cudaDevAttrComputeCapabilityMinor,
    };
    int v[sizeof(wanted) / sizeof(wanted[0])] = {0};
    int device = 0;

    (void)dev; // the current one: it belongs to this thread
    TSR_CUDA_TRY(cudaGetDevice(&device));
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        TSR_CUDA_TRY(cudaDeviceGetAttribute(&v[i], wanted[i], device));
    }
    *read_bytes_per_s = 2.0 * v[0] * 1e3 * v[1] / 8.0; // kHz; two transfers a clock; bits
    *macs_per_s = v[2] * 1e3 * v[3] * macs_a_clock(v[4], v[5]);
    return TSR_OK;
}
