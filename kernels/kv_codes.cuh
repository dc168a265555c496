/*
 * kernels/kv_codes.cuh - keys and values as codes (kernels/kv_code.h) on a GPU. Private to CUDA
 * files.
 */
#ifndef TSR_KERNELS_KV_CODES_CUH
#define TSR_KERNELS_KV_CODES_CUH

#include "kernels/backend.h"

/* tsr_kv_write for codes, with the CPU's bits. */
tsr_kv_write_fn tsr_kv_codes_write;

/* to = H (factor * from), of n_heads vectors of dim in every row; no gaps between the rows of `to`,
 * which may be `from`. */
tsr_status tsr_kv_codes_turn(tsr_device *dev, tsr_tensor to, tsr_tensor from, int n_heads, int dim,
                             int unit, float factor);

#endif
