/*
 * engine/packing.h - how a checkpoint packs its linear weights, as quantization_config of its
 * config.json says. Where they lie then: engine/packed.h.
 */
#ifndef TSR_ENGINE_PACKING_H
#define TSR_ENGINE_PACKING_H

#include "engine/hf_keys.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_packing_kind {
    TSR_PACKING_NONE,
    TSR_PACKING_GPTQ,
    TSR_PACKING_AWQ,
    TSR_PACKING_FP8,
    TSR_PACKING_WORDS, /* compressed-tensors, codes in words */
    TSR_PACKING_BYTES, /* compressed-tensors, a byte a code */
    TSR_PACKING_MXFP4, /* stacks of experts */
    TSR_PACKING_KIND_COUNT
} tsr_packing_kind;

/* How all packed weights of a checkpoint are packed. */
typedef struct tsr_packing {
    tsr_packing_kind kind;
    int bits;            /* 4 or 8 */
    int64_t group;       /* columns that share a scale; 0: all */
    bool zeros_less_one; /* GPTQ's first form */
    int64_t block_rows;  /* FP8: rows and columns that share a scale; 0: all */
    int64_t block_cols;
} tsr_packing;

/* From config.json; NONE when it says nothing. Errors: UNSUPPORTED (a method or variant that is not
 * here: names it), FORMAT. */
TSR_MUST_CHECK tsr_status tsr_packing_read(tsr_packing *out, const tsr_hf_keys *config);

/* In a word: "GPTQ4". */
const char *tsr_packing_name(const tsr_packing *packing);

#ifdef __cplusplus
}
#endif

#endif
