/* What nvcc's host objects call: registration of kernels, and launches. A launch finds the
 * translated kernel by its mangled name. */
#include "tests/emulator/simt.h"
#include "tests/emulator/stream.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_REGISTERED = 4096
};

static struct {
    const void *stub; /* the host function that stands for the kernel */
    const char *name;
    int dynamic_shared_bytes; /* allowed */
} registered[MAX_REGISTERED];
static int n_registered;

static struct {
    dim3 grid, threads;
    size_t shared_bytes;
    cudaStream_t stream;
} configuration;

void **__cudaRegisterFatBinary(void *binary);
void __cudaRegisterFatBinaryEnd(void **module);
void __cudaUnregisterFatBinary(void **module);
char __cudaInitModule(void **module);
void __cudaRegisterFunction(void **module, const char *stub, char *device_stub, const char *name,
                            int limit, uint3 *tid, uint3 *bid, dim3 *threads, dim3 *grid,
                            int *warp);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 threads, size_t shared_bytes,
                                     struct CUstream_st *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *threads, size_t *shared_bytes,
                                       void *stream);
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *stub);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 threads, void **arguments,
                               size_t shared_bytes, cudaStream_t stream);

void **__cudaRegisterFatBinary(void *binary)
{
    static void *module;

    (void)binary;
    return &module;
}

void __cudaRegisterFatBinaryEnd(void **module)
{
    (void)module;
}

void __cudaUnregisterFatBinary(void **module)
{
    (void)module;
}

char __cudaInitModule(void **module)
{
    (void)module;
    return 1;
}

void __cudaRegisterFunction(void **module, const char *stub, char *device_stub, const char *name,
                            int limit, uint3 *tid, uint3 *bid, dim3 *threads, dim3 *grid, int *warp)
{
    (void)module, (void)device_stub, (void)limit, (void)tid, (void)bid, (void)threads, (void)grid;
    (void)warp;
    if (n_registered == MAX_REGISTERED) {
        stream_die("too many kernels");
    }
    registered[n_registered].stub = stub;
    registered[n_registered].name = name;
    registered[n_registered++].dynamic_shared_bytes = SIMT_DEFAULT_SHARED;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 threads, size_t shared_bytes,
                                     struct CUstream_st *stream)
{
    configuration.grid = grid;
    configuration.threads = threads;
    configuration.shared_bytes = shared_bytes;
    configuration.stream = stream;
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *threads, size_t *shared_bytes,
                                       void *stream)
{
    *grid = configuration.grid;
    *threads = configuration.threads;
    *shared_bytes = configuration.shared_bytes;
    *(cudaStream_t *)stream = configuration.stream;
    return cudaSuccess;
}

static int find(const void *stub)
{
    for (int i = 0; i < n_registered; i++) {
        if (registered[i].stub == stub) {
            return i;
        }
    }
    stream_die("a launch of something that is no kernel");
}

cudaError_t cudaFuncSetAttribute(const void *stub, enum cudaFuncAttribute attribute, int value)
{
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value > SIMT_MAX_SHARED) {
            return stream_fail(cudaErrorInvalidValue, "more shared memory than a block can have");
        }
        registered[find(stub)].dynamic_shared_bytes = value;
    }
    return cudaSuccess;
}

/* A launch in a queue: the parameters were copied when it was called. */
typedef struct queued {
    simt_launch launch;
    char parameters[SIMT_MAX_PARAMETER_BYTES];
} queued;

static bool run_queued(stream_work *work)
{
    queued *q = work->operands;

    q->launch.parameters = q->parameters;
    simt_run(&q->launch);
    return true;
}

static const char *refusal(const simt_kernel *kernel, dim3 grid, dim3 threads, size_t shared_bytes,
                           int allowed)
{
    const uint64_t n_threads = (uint64_t)threads.x * threads.y * threads.z;

    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > INT32_MAX || grid.y > 65535 ||
        grid.z > 65535) {
        return "a grid that a device refuses";
    }
    if (n_threads == 0 || n_threads > SIMT_MAX_THREADS || threads.z > 64) {
        return "a block that a device refuses";
    }
    if (kernel->max_threads > 0 && n_threads > kernel->max_threads) {
        return "more threads than the kernel's __launch_bounds__";
    }
    if (kernel->shared_bytes + shared_bytes >
            (size_t)(allowed > SIMT_DEFAULT_SHARED ? SIMT_MAX_SHARED : SIMT_DEFAULT_SHARED) ||
        shared_bytes > (size_t)allowed) {
        return "more shared memory than was asked for with cudaFuncSetAttribute";
    }
    return NULL;
}

cudaError_t cudaLaunchKernel(const void *stub, dim3 grid, dim3 threads, void **arguments,
                             size_t shared_bytes, cudaStream_t stream)
{
    const int i = find(stub);
    const simt_kernel *kernel = simt_find(registered[i].name);
    stream_work *work;
    queued *q;

    if (kernel == NULL) {
        stream_die("kernel %s was not translated", registered[i].name);
    }
    if (refusal(kernel, grid, threads, shared_bytes, registered[i].dynamic_shared_bytes) != NULL) {
        return stream_fail(
            cudaErrorInvalidConfiguration,
            refusal(kernel, grid, threads, shared_bytes, registered[i].dynamic_shared_bytes));
    }
    work = stream_work_make(kernel->name, run_queued, sizeof(queued));
    q = work->operands;
    q->launch = (simt_launch){.kernel = kernel,
                              .grid = {grid.x, grid.y, grid.z},
                              .threads = {threads.x, threads.y, threads.z},
                              .dynamic_shared_bytes = (uint32_t)shared_bytes,
                              .device = stream_device_of(stream)};
    for (int p = 0; p < kernel->n_parameters; p++) {
        memcpy(q->parameters + kernel->offsets[p], arguments[p], kernel->sizes[p]);
    }
    stream_add(stream, work);
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *stub)
{
    *kernel = (cudaKernel_t)(uintptr_t)stub;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 threads, void **arguments,
                               size_t shared_bytes, cudaStream_t stream)
{
    return cudaLaunchKernel(kernel, grid, threads, arguments, shared_bytes, stream);
}
