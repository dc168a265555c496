/*
 * kernels/machine.h - what this machine's cores can do at most, measured, so that a speed can be
 * told as a share of it.
 */
#ifndef TSR_KERNELS_MACHINE_H
#define TSR_KERNELS_MACHINE_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * On a GPU nothing is measured: by its clocks, what its memory and its tensor cores can do. On the
 * CPU, all threads of the device at once, for about `ms` milliseconds each: read_bytes_per_s  plain
 * reading of memory far larger than the caches macs_per_s        multiply-adds of the kernels' kind
 * from registers alone: int8 dot products, or f32 fused multiply-adds for TSR_ACTIVATIONS_F32
 * Errors: NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_machine_measure(tsr_device *dev, tsr_activations activations, int ms,
                                              double *read_bytes_per_s, double *macs_per_s);

#ifdef __cplusplus
}
#endif

#endif
