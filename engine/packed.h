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
 *   mxfp4    NAME_blocks [experts, rows, groups, 16]: codes of e2m1, the even column of two in the
 *            low bits; NAME_scales [experts, rows, groups]: exponents (OCP Microscaling
 *            specification 1.0)
 *
 * A value is (code - zero) * scale in all of them, rounded once (a code of a float has its value).
 * They go into tiles (kernels/weight.h) as they are: mixed ones where neighbouring columns are in
 * different groups, and where integer codes have scales of f32, whose products with a code need not
 * be exact. They are opened to f32 where rows are no whole number of tiles. Which of it depends on
 * the whole weight only: it is the same on every rank. Activations are not rounded as such
 * checkpoints may ask for.
 *
 * Threads: reading from several threads is safe.
 */
#ifndef TSR_ENGINE_PACKED_H
#define TSR_ENGINE_PACKED_H

#include "engine/checkpoint.h"
#include "engine/packing.h"
#include "kernels/weight.h"
#include "parallel/shard.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_PACKED_TENSORS = 6
};

/* One packed weight; everything in it is borrowed from the checkpoint. */
typedef struct tsr_packed {
    const tsr_packing *how;
    tsr_format format; /* that its runs are for; F32: it has none, take values */
    int64_t n_stack;   /* matrices: 1 but for MXFP4 */
    int64_t n_rows;    /* of a matrix; line r of matrix m is row  m * n_rows + r */
    int64_t n_cols;
    const uint8_t *codes;
    const uint8_t *scales;
    tsr_encoding scale_type; /* F32, F16 or BF16; COUNT: bytes that are exponents */
    int64_t scale_row;       /* distance of two rows' scales, in scales; 0: they share them */
    int64_t scale_group;     /* and of two groups' */
    const uint8_t *zeros;    /* NULL: half the range of the codes */
    const uint8_t *groups;   /* i32 [n_cols] when they are out of order; else NULL */
    int64_t n_groups;
    const tsr_stored_tensor *tensors[TSR_PACKED_TENSORS]; /* that belong to it; codes first */
    int n_tensors;
} tsr_packed;

/*
 * The packed weight called `name` (without ".weight", ".qweight" or "_blocks"). *found is false
 * when that name is not packed: look for a plain tensor then. Shapes of its tensors are checked
 * against each other. Errors: FORMAT, UNSUPPORTED.
 */
TSR_MUST_CHECK tsr_status tsr_packed_find(tsr_packed *out, bool *found, const tsr_packing *how,
                                          const tsr_checkpoint *checkpoint, const char *name);

/* Columns [32 tile, 32 tile + 32) of a row, for tsr_weight_put_run(); of mixed formats the codes
 * only. Not for F32. Errors: FORMAT (a code or a scale is no number). */
TSR_MUST_CHECK tsr_status tsr_packed_run(const tsr_packed *packed, tsr_encoding_run *run,
                                         int64_t row, int64_t tile);

/* For mixed formats: the groups of these columns, and d and z of a row in a group. Errors: FORMAT
 * (d is no number). */
void tsr_packed_groups(const tsr_packed *packed, uint16_t groups[TSR_TILE_COLS], int64_t tile);
TSR_MUST_CHECK tsr_status tsr_packed_group(const tsr_packed *packed, float *d, float *z,
                                           int64_t row, int64_t group);

/* Columns [first, first + n) of a row as f32. Errors as above. */
TSR_MUST_CHECK tsr_status tsr_packed_values(const tsr_packed *packed, float *out, int64_t row,
                                            int64_t first, int64_t n);

/* How many weights a tensor holds: 0 of what only belongs to codes, as scales do. */
int64_t tsr_packed_count(const tsr_packing *how, const tsr_stored_tensor *tensor);

/* The bytes of the file that the columns `cols` of some rows are, the first and the last of them
 * those of `rows`, `n_rows` in all: codes, and the scales, zeros and groups that they use. */
uint64_t tsr_packed_file_bytes(const tsr_packed *packed, tsr_range rows, int64_t n_rows,
                               tsr_range cols);

#ifdef __cplusplus
}
#endif

#endif
