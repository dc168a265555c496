#include "kernels/cuda_check.h"

#include <stdio.h>
#include "base/alloc.h"

/*
 * One stream a device, so that ops follow one another without being waited for. The host's own
 * memory is pageable: the runtime stages what is uploaded before the call returns, and a download
 * ends when it has arrived, so neither needs a wait of ours.
 */

int tsr_device_cuda_count(void)
{
    int n_devices = 0;

    if (cudaGetDeviceCount(&n_devices) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0; // on failure the call leaves the number as it was
    }
    return n_devices;
}

static tsr_status sync(tsr_device *dev)
{
    TSR_CUDA_TRY(cudaStreamSynchronize(tsr_cuda_queue(dev)));
    return TSR_OK;
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
    (void)dev;
    return tsr_alloc_pages(n_bytes);
}

static void give_back_host(tsr_device *dev, void *memory, size_t n_bytes)
{
    (void)dev;
    tsr_free_pages(memory, n_bytes);
}

static tsr_status copy(tsr_device *dev, void *to, const void *from, size_t n_bytes)
{
    TSR_CUDA_TRY(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDeviceToDevice, tsr_cuda_queue(dev)));
    return TSR_OK;
}

static tsr_status upload(tsr_device *dev, void *to, const void *host, size_t n_bytes)
{
    TSR_CUDA_TRY(cudaMemcpyAsync(to, host, n_bytes, cudaMemcpyHostToDevice, tsr_cuda_queue(dev)));
    return TSR_OK;
}

static tsr_status download(tsr_device *dev, void *host, const void *from, size_t n_bytes)
{
    TSR_CUDA_TRY(cudaMemcpyAsync(host, from, n_bytes, cudaMemcpyDeviceToHost, tsr_cuda_queue(dev)));
    TSR_CUDA_TRY(cudaStreamSynchronize(tsr_cuda_queue(dev)));
    return TSR_OK;
}

static void close_queue(tsr_device *dev)
{
    if (dev->queue != NULL) {
        (void)cudaStreamDestroy(tsr_cuda_queue(dev));
    }
}

static const tsr_backend backend = {
    .close = close_queue,
    .sync = sync,
    .alloc = alloc,
    .give_back = give_back,
    .alloc_host = alloc_host,
    .give_back_host = give_back_host,
    .copy = copy,
    .upload = upload,
    .download = download,
    .embed = tsr_embed_cuda,
    .narrow = tsr_narrow_cuda,
    .add_sums = tsr_add_sums_cuda,
    .rmsnorm = tsr_rmsnorm_cuda,
    .matmul = tsr_matmul_cuda,
    .activate = tsr_activate_cuda,
    .add_scaled = tsr_add_scaled_cuda,
    .scale = tsr_scale_cuda,
    .layernorm = tsr_layernorm_cuda,
    .square_sums = tsr_square_sums_cuda,
    .rmsnorm_shared = tsr_rmsnorm_shared_cuda,
    .route = tsr_route_cuda,
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
    cudaStream_t queue;

    if (n_devices == 0) {
        return tsr_fail(
            TSR_ERR_UNSUPPORTED,
            "device: no GPU that this build's CUDA can use was found; --device cpu does "
            "without");
    }
    if (options->index < 0 || options->index >= n_devices) {
        return tsr_fail(TSR_ERR_ARG, "device: GPU %d of %d", options->index, n_devices);
    }
    TSR_CUDA_TRY(cudaSetDevice(options->index));
    TSR_CUDA_TRY(cudaGetDeviceProperties(&properties, options->index));
    TSR_CUDA_TRY(cudaStreamCreateWithFlags(&queue, cudaStreamNonBlocking));
    dev->queue = queue;
    dev->backend = &backend;
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
