#include "kernels/backend.h"
#include "kernels/machine_cuda.h"

/* In place of device_cuda.c in a build without CUDA. */

int tsr_device_cuda_count(void)
{
    return 0;
}

tsr_status tsr_device_cuda_open(tsr_device *dev, const tsr_device_options *options)
{
    (void)dev;
    (void)options;
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "device: this build has no CUDA; --device cpu does without");
}

uint64_t tsr_device_cuda_free_bytes(int index)
{
    (void)index;
    return 0;
}

size_t tsr_device_cuda_scratch(int n_threads, const tsr_ops_limits *limits)
{
    (void)n_threads;
    (void)limits;
    return 0;
}

tsr_status tsr_machine_cuda_peak(const tsr_device *dev, double *read_bytes_per_s,
                                 double *macs_per_s)
{
    (void)dev, (void)read_bytes_per_s, (void)macs_per_s;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "device: this build has no CUDA");
}
