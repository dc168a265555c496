/*
 * kernels/attention_latent.cuh - attention on tensor cores over latent layouts. Private to CUDA
 * files.
 */
#ifndef TSR_KERNELS_ATTENTION_LATENT_CUH
#define TSR_KERNELS_ATTENTION_LATENT_CUH

#include "kernels/attention_blocks.cuh"

enum {
    TSR_ATTENTION_LATENT_VALUES = 512 /* dimensions of a value, at most */
};

/* Keys of f16 or bf16, of a multiple of 8 dimensions up to TSR_KV_LAYOUT_MOST_DIM. */
tsr_attention_kernels tsr_attention_latent(bool is_bf16);

#endif
