/*
 * launch/gpus.h - how much memory well-known GPUs have.
 */
#ifndef TSR_LAUNCH_GPUS_H
#define TSR_LAUNCH_GPUS_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Bytes of such a GPU that a rank can fill: what its driver reports, less 1 GiB for the driver's
 * context and the libraries. Case does not count. Errors: ARG (lists the known names).
 */
TSR_MUST_CHECK tsr_status tsr_gpus_find(uint64_t *usable_bytes, const char *name);

#ifdef __cplusplus
}
#endif

#endif
