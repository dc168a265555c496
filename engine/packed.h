/*
 * engine/packed.h - linear weights that a Hugging Face checkpoint keeps in fewer bits, as
 * quantization_config of its config.json says.
 *
 *   gptq     codes of 4 or 8 bits in words of 32 along the columns [cols / per word, rows]; scales
 *            [groups, rows]; zeros packed along the rows [groups, rows / per word], less one in the
 *            first form of the format, as they are in gptq_v2; g_idx [cols]: each column's group,
 *            in any order when activations decided it (Frantar et al., arXiv 2210.17323)
 *   awq      codes of 4 bits packed along the rows [cols, rows / 8], in the order 0 2 4 6 1 3 5 7;
 *            zeros likewise; scales [groups, rows] (Lin et al., arXiv 2306.00978; "gemm")
 *   fp8      e4m3 [rows, cols] and weight_scale_inv, a scale a block
 *            (deepseek-ai/DeepSeek-V3, config.json)
 *   compressed-tensors   weight_packed: codes plus half their range in words along the columns,
 *            with weight_scale [rows, groups] and perhaps weight_zero_point packed along the rows;
 *            or weight of bytes or of e4m3 with weight_scale a row, a block or in all
 *            (github.com/neuralmagic/compressed-tensors)
 *
 * A value is (code - zero) * scale in all of them. They go into tiles (kernels/weight.h) as they
 * are; only where neighbouring columns have different scales are they opened to f32.
 *
 * Threads: reading from several threads is safe.
 */
#ifndef TSR_ENGINE_PACKED_H
#define TSR_ENGINE_PACKED_H

#include "engine/checkpoint.h"
#include "kernels/weight.h"

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

enum {
    TSR_PACKED_TENSORS = 5
};

/* One packed weight; everything in it is borrowed from the checkpoint. */
typedef struct tsr_packed {
    const tsr_packing *how;
    tsr_format format; /* that its runs are for; F32: it has none, take values */
    int64_t n_rows;
    int64_t n_cols;
    const uint8_t *codes;
    const uint8_t *scales;
    tsr_encoding scale_type; /* F32, F16 or BF16 */
    int64_t scale_row;       /* distance of two rows' scales, in scales; 0: they share them */
    int64_t scale_group;     /* and of two groups' */
    const uint8_t *zeros;    /* NULL: half the range of the codes */
    const int32_t *groups;   /* [n_cols] when they are out of order; else NULL */
    int64_t n_groups;
    const tsr_stored_tensor *tensors[TSR_PACKED_TENSORS]; /* that belong to it */
    int n_tensors;
} tsr_packed;

/*
 * The packed weight called `name` (without ".weight" or ".qweight"). *found is false when that name
 * is not packed: look for a plain tensor then. Shapes of its tensors are checked against each
 * other. Errors: FORMAT, UNSUPPORTED.
 */
TSR_MUST_CHECK tsr_status tsr_packed_find(tsr_packed *out, bool *found, const tsr_packing *how,
                                          const tsr_checkpoint *checkpoint, const char *name);

/* Columns [32 tile, 32 tile + 32) of a row, for tsr_weight_put_run(); columns past the end are
 * zeros. Not for F32. */
void tsr_packed_run(const tsr_packed *packed, tsr_encoding_run *run, int64_t row, int64_t tile);

/* Columns [first, first + n) of a row as f32: each product is rounded once. */
void tsr_packed_values(const tsr_packed *packed, float *out, int64_t row, int64_t first, int64_t n);

#ifdef __cplusplus
}
#endif

#endif
