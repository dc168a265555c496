/*
 * kernels/cuda_check.h - CUDA's errors become ours. Private to CUDA files.
 */
#ifndef TSR_KERNELS_CUDA_CHECK_H
#define TSR_KERNELS_CUDA_CHECK_H

#include <cuda_runtime_api.h>

#include "kernels/backend.h"

/* The last error is taken away, or the next check would blame the wrong call. */
#define TSR_CUDA_TRY(call)                                                             \
    do {                                                                               \
        const cudaError_t cuda_error_ = (call);                                        \
        if (cuda_error_ != cudaSuccess) {                                              \
            (void)cudaGetLastError();                                                  \
            return tsr_fail(cuda_error_ == cudaErrorMemoryAllocation ? TSR_ERR_NOMEM   \
                                                                     : TSR_ERR_DEVICE, \
                            "GPU: %s: %s", #call, cudaGetErrorString(cuda_error_));    \
        }                                                                              \
    } while (0)

/* After launches: what they were refused for. */
#define TSR_CUDA_LAUNCHED() TSR_CUDA_TRY(cudaGetLastError())

static inline cudaStream_t tsr_cuda_queue(const tsr_device *dev)
{
    return (cudaStream_t)dev->queue;
}

#endif
