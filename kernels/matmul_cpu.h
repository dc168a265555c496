/*
 * kernels/matmul_cpu.h - how the parts of the CPU's matrix product fit together. Private to the
 * room.
 *
 * tsr_matmul() cuts the panels of all its products (kernels/weight.h) into one run of equal bytes
 * a thread. A thread's run is handed to the loops of the device's instruction set in stretches of
 * one format: tsr_panel_run.
 *
 * Rows of x come in blocks of up to rows_per_block rows, as even in size as they go. For int8 each
 * block is quantised once into (R rows in the block, a group is 32 columns):
 *   group g at g * R * 64:  q int8 [R, 32];  then f32 [R] each: d, the scale; s = d * sum(q);
 *                           s of columns 0..15; s of columns 16..31;  then i32 [R] each:
 *                           -128 * sum(q); of columns 0..15; of columns 16..31; 4 R bytes unused
 * so that all a block needs of a group lies together at fixed distances.
 */
#ifndef TSR_KERNELS_MATMUL_CPU_H
#define TSR_KERNELS_MATMUL_CPU_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The most rows of x in a block, for each instruction set. */
enum {
    TSR_X_BLOCK_PLAIN = 2,
    TSR_X_BLOCK_AVX2 = 3,
    TSR_X_BLOCK_AVX512 = 6
};

enum {
    TSR_X_GROUP_BYTES = 64,    /* of one row's group of 32 columns, quantised */
    TSR_OPEN_TILE_BYTES = 640, /* a 4-bit tile opened to bytes: codes, f32 d, f32 m */
    TSR_F32_CHUNK_TILES = 8,   /* tiles of a panel that are turned to f32 at once, */
    TSR_F32_CHUNK_ROWS = 64    /* for so many rows of x */
};

/* f32 weights [cols, 16], f32 sums and f64 sums [rows, 16] */
#define TSR_F32_SCRATCH_BYTES \
    ((size_t)TSR_PANEL_ROWS * \
     (4 * TSR_TILE_COLS * (size_t)TSR_F32_CHUNK_TILES + 12 * (size_t)TSR_F32_CHUNK_ROWS))

/* One product's part in a run of panels. */
typedef struct tsr_panel_stretch {
    const uint8_t *tiles; /* of its first panel here */
    const float *groups;  /* likewise, of mixed formats */
    int64_t n_groups;
    void *out;         /* f32 or f64: row 0 of its first panel's first lane */
    const float *bias; /* likewise; or NULL */
    int64_t out_stride;
    int64_t n_panels;
    int64_t
        n_lanes; /* weight rows from the first panel's on: the last panel may have fewer than 16 */
} tsr_panel_stretch;

/* Panels of one format, all with the same x. */
typedef struct tsr_panel_run {
    tsr_format format;
    int64_t n_cols;
    int64_t panel_bytes;
    int64_t grain_cols; /* 0: f32 out */
    int64_t n_panels;   /* over all stretches */
    int n_stretches;
    tsr_panel_stretch stretches[TSR_MAX_PRODUCTS];
    uint8_t *scratch; /* this thread's own, 64-byte aligned: room for an opened panel, or for
                         TSR_F32_SCRATCH_BYTES */
} tsr_panel_run;

/* The rows of x, cut into blocks. */
typedef struct tsr_x_blocks {
    int64_t n_rows;
    int64_t n_blocks;
    const float *x; /* f32 [n_rows, n_cols] */
    int64_t x_stride;
    uint8_t *quantised; /* 64-byte aligned; block after block; NULL when f32 will do */
} tsr_x_blocks;

/* First row of a block; of block n_blocks: n_rows. */
static inline int64_t tsr_x_block_first(const tsr_x_blocks *x, int64_t block)
{
    return x->n_rows * block / x->n_blocks;
}

/* The loops of one instruction set. */
typedef struct tsr_matmul_loops {
    int rows_per_block; /* TSR_X_BLOCK_... */
    /* Quantises the rows of blocks [first, end). */
    void (*quantise)(const tsr_x_blocks *x, int64_t n_cols, int64_t first, int64_t end);
    void (*int8)(const tsr_panel_run *run, const tsr_x_blocks *x);
    void (*f32)(const tsr_panel_run *run, const tsr_x_blocks *x);
} tsr_matmul_loops;

#define TSR_MATMUL_DECLARE(isa)                                                                 \
    void tsr_quantise_##isa(const tsr_x_blocks *x, int64_t n_cols, int64_t first, int64_t end); \
    void tsr_matmul_int8_##isa(const tsr_panel_run *run, const tsr_x_blocks *x);                \
    void tsr_matmul_f32_##isa(const tsr_panel_run *run, const tsr_x_blocks *x);
TSR_MATMUL_DECLARE(plain)
TSR_MATMUL_DECLARE(avx2)
TSR_MATMUL_DECLARE(avx512)

#ifdef __cplusplus
}
#endif

#endif
