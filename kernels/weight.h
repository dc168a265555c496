/*
 * kernels/weight.h - weight matrices in the layouts that the kernels compute with.
 *
 * A weight W [n_rows, n_cols] maps x [n_cols] to y [n_rows], y = W x. It is cut into panels of 16
 * rows and each panel into tiles of 16 rows x 32 columns; the tiles of a panel follow one another
 * along the columns, panels follow one another, so that a product with one x is one forward stream.
 * Rows beyond n_rows and columns beyond n_cols are zeros. A lane of a vector is a row: no sum ever
 * crosses lanes.
 *
 * Tiles (byte offsets; r = row in the panel, c = column in the tile):
 *   Q4       320 B  w = d q + m, 0 <= q <= 15, f16 d and m a row and 32 columns:
 *                   [64 j + 4 r + i], j < 4, i < 4: low nibble column 4 j + i, high nibble column
 *                   16 + 4 j + i;  [256 + 2 r] d, [288 + 2 r] m
 *   Q4_WIDE  384 B  the same with f32 d at [256 + 4 r] and m at [320 + 4 r]
 *   NL4      320 B  w = d t[q], q as in Q4, t the sixteen values of IQ4_NL; f32 d at [256 + 4 r]
 *   FP4      320 B  the same with the sixteen values of e2m1, doubled: 0, 1, 2, 3, 4, 6, 8, 12 and
 *                   their negatives
 *   Q8       544 B  w = d q, -128 <= q <= 127, f16 d a row and 32 columns:
 *                   [64 (c / 4) + 4 r + c % 4] q, [512 + 2 r] d
 *   Q8_WIDE  768 B  w = d q + m, f32 d and m a row and 16 columns; q as in Q8; half h = c / 16:
 *                   [512 + 128 h + 4 r] d, [576 + 128 h + 4 r] m
 *   FP8      576 B  w = d e, e of type e4m3 (OCP 8-bit floating point 1.0: no infinities), f32 d a
 *                   row and 32 columns: [16 c + r] e, [512 + 4 r] d; the product is rounded to f32
 *   F16, BF16  1024 B and F32  2048 B: element (r, c) at index 16 c + r
 *   Q4_MIXED 320 B and Q8_MIXED  576 B: codes as in Q4 and Q8, whose columns belong to groups in
 * any order: [256 + 2 c] and [512 + 2 c] u16 the group g of column c; w = d (q - z), f32 d and z a
 * row and group, in a table beside the tiles
 *
 * In all but FP8 and the mixed ones d q is exact in f32, so that w is rounded once, where m is
 * added; in those it is rounded once as well, by the product.
 *
 * Every encoding of kernels/encoding.h goes into one of these without loss:
 *   Q4_0, Q4_1 -> Q4;  Q4_K -> Q4_WIDE;  Q8_0, Q5_0 -> Q8;  IQ4_NL, IQ4_XS -> NL4;  MXFP4 -> FP4;
 *   plain types stay;  all others -> Q8_WIDE.
 */
#ifndef TSR_KERNELS_WEIGHT_H
#define TSR_KERNELS_WEIGHT_H

#include "kernels/device.h"
#include "kernels/encoding.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_PANEL_ROWS = 16,
    TSR_TILE_COLS = 32
};

typedef enum tsr_format {
    TSR_FORMAT_F32,
    TSR_FORMAT_F16,
    TSR_FORMAT_BF16,
    TSR_FORMAT_FP8,
    TSR_FORMAT_Q4,
    TSR_FORMAT_Q4_WIDE,
    TSR_FORMAT_NL4,
    TSR_FORMAT_FP4,
    TSR_FORMAT_Q8,
    TSR_FORMAT_Q8_WIDE,
    TSR_FORMAT_Q4_MIXED,
    TSR_FORMAT_Q8_MIXED,
    TSR_FORMAT_COUNT
} tsr_format;

typedef struct tsr_weight {
    tsr_format format;
    tsr_device_kind on;
    int64_t n_rows;
    int64_t n_cols;
    int64_t
        grain_cols; /* > 0: the product is a sum over ranks and is taken a grain of so many columns
                       at a time (a multiple of 32, or all columns); 0: it is whole on this rank */
    const void *tiles;   /* borrowed; NULL when n_rows or n_cols is 0 */
    const float *groups; /* mixed formats, host memory only: for each panel [n_groups, 2, 16], d and
                            z of its rows; borrowed */
    int64_t n_groups;
} tsr_weight;

const char *tsr_weight_format_name(tsr_format format);
size_t tsr_weight_tile_bytes(tsr_format format);

/* Has it integer codes in runs of one scale, so that products can be taken with int8 activations?
 */
bool tsr_weight_is_quantised(tsr_format format);

bool tsr_weight_is_mixed(tsr_format format);

/* Floats of a panel's table of groups. */
static inline int64_t tsr_weight_table_floats(int64_t n_groups)
{
    return 2 * TSR_PANEL_ROWS * n_groups;
}

tsr_format tsr_weight_format_for(tsr_encoding encoding);

/* Bytes of all tiles of a weight. */
size_t tsr_weight_bytes(tsr_format format, int64_t n_rows, int64_t n_cols);

/* Bytes of one panel of 16 rows. */
size_t tsr_weight_panel_bytes(tsr_format format, int64_t n_cols);

/*
 * Pack columns [first_col, first_col + n_cols) of up to 16 encoded rows into one panel, in host
 * memory. panel  tsr_weight_panel_bytes() bytes, all written rows   [16] each points to the start
 * of a whole encoded row; NULL: a row of zeros
 *   first_col, n_cols  multiples of 32 for grouped encodings
 * Errors: FORMAT (a scale that the compute format cannot hold exactly), ARG.
 */
TSR_MUST_CHECK tsr_status tsr_weight_pack_panel(tsr_encoding encoding, void *panel,
                                                const void *const *rows, int64_t first_col,
                                                int64_t n_cols);

/*
 * Write columns [32 tile, 32 tile + 32) of row r of a panel that was all zeros, from what is no
 * encoding of kernels/encoding.h.
 *   Q4, Q4_WIDE    q in 0..15; d[0], m[0] (in Q4 they are halves)
 *   NL4, FP4       q in 0..15; d[0]
 *   Q8             d[0], a half
 *   Q8_WIDE        as it is
 *   FP8            q are the bits of e; d[0]
 *   mixed          q, in 0..15 or -128..127
 * Plain formats have no runs.
 */
void tsr_weight_put_run(tsr_format format, void *panel, int r, int64_t tile,
                        const tsr_encoding_run *run);

/* All elements of a panel of Q8_WIDE whose m are zeros, times a factor: d becomes d times it,
 * rounded, and products with it are rounded once more. */
void tsr_weight_multiply_panel(void *panel, int64_t n_cols, float factor);

/* The groups of a mixed format's columns [32 tile, 32 tile + 32). */
void tsr_weight_put_groups(tsr_format format, void *panel, int64_t tile,
                           const uint16_t groups[TSR_TILE_COLS]);

/* The exact values of one row, f32 [n_cols]; host memory. */
void tsr_weight_unpack_row(const tsr_weight *weight, int64_t row, float *out);

#ifdef __cplusplus
}
#endif

#endif
