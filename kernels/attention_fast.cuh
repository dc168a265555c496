/*
 * kernels/attention_fast.cuh - attention on tensor cores, for devices that need not give the CPU's
 * bits. Private to CUDA files.
 */
#ifndef TSR_KERNELS_ATTENTION_FAST_CUH
#define TSR_KERNELS_ATTENTION_FAST_CUH

#include "kernels/backend.h"

/* Can it do this? Keys and values of f16, bf16, fp8 or int8, heads of a multiple of 8 up to 256;
 * latent layouts of f16 or bf16, keys up to 576 and values up to 512; and all but keys
 * by token, which strides have. */
bool tsr_attention_fast_can(const tsr_kv_view *kv);

tsr_attention_fn tsr_attention_fast;

#endif
