/*
 * kernels/machine_cuda.h - what a GPU can do at most, by its clocks. Private to the room.
 */
#ifndef TSR_KERNELS_MACHINE_CUDA_H
#define TSR_KERNELS_MACHINE_CUDA_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes a second from its memory; multiply-adds a second of 16-bit numbers on tensor cores, dense,
 * summed in f32. Errors: DEVICE, UNSUPPORTED (no GPU in this build). */
TSR_MUST_CHECK tsr_status tsr_machine_cuda_peak(const tsr_device *dev, double *read_bytes_per_s,
                                                double *macs_per_s);

#ifdef __cplusplus
}
#endif

#endif
