/*
 * kernels/kv_codes.cuh - keys and values in 8 bits (kernels/kv_code.h) on a GPU. Private to CUDA
 * files.
 */
#ifndef TSR_KERNELS_KV_CODES_CUH
#define TSR_KERNELS_KV_CODES_CUH

#include "kernels/backend.h"

/* tsr_kv_write for fp8 and int8, with the CPU's bits. */
tsr_kv_write_fn tsr_kv_codes_write;

/* Turn n_heads vectors of dim in every row, in `to` (no gaps between its rows) or in place. */
tsr_status tsr_kv_codes_turn(tsr_device *dev, tsr_tensor to, tsr_tensor from, int n_heads, int dim,
                             int unit);

#endif
