#include "kernels/matmul_panels.h"

/*
 * A block of work is `streams` panels by up to MOST_ROWS rows of x, its sums in registers. With few
 * rows a product is as fast as memory is read, and a core reads faster from several places at once;
 * with many, more sums in registers mean fewer loads for each.
 */
#if defined(TSR_ISA_AVX512)
enum {
    MOST_ROWS = 6,
    ROW_STREAMS = 4, /* panels at once when x is one row */
    STREAMS = 2,     /* when it is more */
    OPEN_BLOCKS = INT32_MAX
};
#elif defined(TSR_ISA_AVX2)
enum {
    MOST_ROWS = 3,
    ROW_STREAMS = 3,
    STREAMS = 1,
    OPEN_BLOCKS = 8 /* blocks of x from which on a panel's nibbles are opened once for all */
};
#else
enum {
    MOST_ROWS = 2,
    ROW_STREAMS = 1,
    STREAMS = 1,
    OPEN_BLOCKS = INT32_MAX
};
#endif

enum {
    MOST_STREAMS = 4,
    MOST_SUMS = 12,
    CHUNK_BYTES = 256 << 10 /* of quantised x that all panels meet before the next: half an L2 */
};

/* A Q4 or Q4_WIDE tile with its nibbles opened to bytes, columns ascending, and f32 scales. */
#define FORMAT_OPEN TSR_FORMAT_COUNT
enum {
    OPEN_D = 512,
    OPEN_M = 576
};

/* ---- one group of 32 columns --------------------------------------------------------------- */

/* Where a block of `rows` rows keeps its numbers in a group. */
#define X_D(x, rows, r) ((const float *)((x) + 32 * (rows)) + (r))
#define X_S(x, rows, r) ((const float *)((x) + 36 * (rows)) + (r))
#define X_S_HALF(x, rows, h, r) ((const float *)((x) + (40 + 4 * (h)) * (rows)) + (r))
#define X_N(x, rows, r) ((const int32_t *)((x) + 48 * (rows)) + (r))
#define X_N_HALF(x, rows, h, r) ((const int32_t *)((x) + (52 + 4 * (h)) * (rows)) + (r))

/* acc = fma(dot, d_w * d_x, acc);  acc = fma(m_w, s_x, acc) */
TSR_INLINE v16 scaled(v16 acc, v16 dot, v16 d, v16 m, float d_x, float s_x)
{
    acc = v16_fma(dot, v16_mul(d, v16_set1(d_x)), acc);
    return v16_fma(m, v16_set1(s_x), acc);
}

TSR_INLINE void group_q4(const int format, const int streams, const int rows,
                         const uint8_t *const *tiles, const uint8_t *x, v16 *acc)
{
    const int8_t *q = (const int8_t *)x;
    dots4 dots[MOST_SUMS];
    v16 d[MOST_STREAMS];
    v16 m[MOST_STREAMS];

    TSR_UNROLL for (int i = 0; i < streams * rows; i++)
    {
        dots[i] = dots4_zero();
    }
    if (format == FORMAT_OPEN) {
        TSR_UNROLL for (int j = 0; j < 8; j++)
        {
            TSR_UNROLL for (int s = 0; s < streams; s++)
            {
                const b64 w = b64_load(tiles[s] + 64 * j);

                TSR_UNROLL for (int r = 0; r < rows; r++)
                {
                    dots[s * rows + r] = dots4_add(dots[s * rows + r], w, q + 32 * r + 4 * j);
                }
            }
        }
    } else {
        TSR_UNROLL for (int j = 0; j < 4; j++)
        {
            b64 low[MOST_STREAMS];
            b64 high[MOST_STREAMS];

            TSR_UNROLL for (int s = 0; s < streams; s++)
            {
                const b64 both = b64_load(tiles[s] + 64 * j);

                low[s] = b64_low(both);
                high[s] = b64_high(both);
            }
            TSR_UNROLL for (int r = 0; r < rows; r++)
            {
                TSR_UNROLL for (int s = 0; s < streams; s++)
                {
                    dots4 *dot = &dots[s * rows + r];

                    *dot = dots4_add(*dot, low[s], q + 32 * r + 4 * j);
                }
            }
            TSR_UNROLL for (int r = 0; r < rows; r++)
            {
                TSR_UNROLL for (int s = 0; s < streams; s++)
                {
                    dots4 *dot = &dots[s * rows + r];

                    *dot = dots4_add(*dot, high[s], q + 32 * r + 16 + 4 * j);
                }
            }
        }
    }
    TSR_UNROLL for (int s = 0; s < streams; s++)
    {
        if (format == TSR_FORMAT_Q4) {
            d[s] = v16_load_f16((const uint16_t *)(tiles[s] + 256));
            m[s] = v16_load_f16((const uint16_t *)(tiles[s] + 288));
        } else {
            d[s] = v16_load((const float *)(tiles[s] + (format == FORMAT_OPEN ? OPEN_D : 256)));
            m[s] = v16_load((const float *)(tiles[s] + (format == FORMAT_OPEN ? OPEN_M : 320)));
        }
    }
    TSR_UNROLL for (int r = 0; r < rows; r++)
    {
        TSR_UNROLL for (int s = 0; s < streams; s++)
        {
            v16 *sum = &acc[s * rows + r];

            *sum = scaled(*sum, dots4_value(dots[s * rows + r]), d[s], m[s], *X_D(x, rows, r),
                          *X_S(x, rows, r));
        }
    }
}

/* Columns 4 first .. 4 end - 1 of signed bytes. */
TSR_INLINE void dots_of_bytes(dots8 *dots, const int streams, const int rows,
                              const uint8_t *const *tiles, const int8_t *q, const int first,
                              const int end)
{
    TSR_UNROLL for (int j = first; j < end; j++)
    {
        b64 w[MOST_STREAMS];

        TSR_UNROLL for (int s = 0; s < streams; s++)
        {
            w[s] = b64_signed(b64_load(tiles[s] + 64 * j));
        }
        TSR_UNROLL for (int r = 0; r < rows; r++)
        {
            TSR_UNROLL for (int s = 0; s < streams; s++)
            {
                dots8 *dot = &dots[s * rows + r];

                *dot = dots8_add(*dot, w[s], q + 32 * r + 4 * j);
            }
        }
    }
}

TSR_INLINE void group_q8(const int streams, const int rows, const uint8_t *const *tiles,
                         const uint8_t *x, v16 *acc)
{
    dots8 dots[MOST_SUMS];

    TSR_UNROLL for (int i = 0; i < streams * rows; i++)
    {
        dots[i] = dots8_start(X_N(x, rows, i % rows));
    }
    dots_of_bytes(dots, streams, rows, tiles, (const int8_t *)x, 0, 8);
    TSR_UNROLL for (int s = 0; s < streams; s++)
    {
        const v16 d = v16_load_f16((const uint16_t *)(tiles[s] + 512));

        TSR_UNROLL for (int r = 0; r < rows; r++)
        {
            v16 *sum = &acc[s * rows + r];

            *sum = v16_fma(dots8_value(dots[s * rows + r]), v16_mul(d, v16_set1(*X_D(x, rows, r))),
                           *sum);
        }
    }
}

TSR_INLINE void group_q8_wide(const int streams, const int rows, const uint8_t *const *tiles,
                              const uint8_t *x, v16 *acc)
{
    TSR_UNROLL for (int h = 0; h < 2; h++)
    {
        dots8 dots[MOST_SUMS];

        TSR_UNROLL for (int i = 0; i < streams * rows; i++)
        {
            dots[i] = dots8_start(X_N_HALF(x, rows, h, i % rows));
        }
        dots_of_bytes(dots, streams, rows, tiles, (const int8_t *)x, 4 * h, 4 * h + 4);
        TSR_UNROLL for (int s = 0; s < streams; s++)
        {
            const v16 d = v16_load((const float *)(tiles[s] + 512 + 128 * h));
            const v16 m = v16_load((const float *)(tiles[s] + 576 + 128 * h));

            TSR_UNROLL for (int r = 0; r < rows; r++)
            {
                v16 *sum = &acc[s * rows + r];

                *sum = scaled(*sum, dots8_value(dots[s * rows + r]), d, m, *X_D(x, rows, r),
                              *X_S_HALF(x, rows, h, r));
            }
        }
    }
}

/* ---- a block: `streams` panels by `rows` rows ---------------------------------------------- */

typedef struct x_block {
    const uint8_t *groups; /* quantised, kernels/matmul_cpu.h */
    int64_t first_row;
} x_block;

TSR_INLINE void block(const int format, const int streams, const int rows, const tsr_panel_place *p,
                      const x_block *x, const int64_t n_groups, const int64_t grain,
                      const size_t tile_bytes)
{
    _Alignas(64) double wide[MOST_SUMS * TSR_PANEL_ROWS];
    double *sums = wide;
    const uint8_t *groups = x->groups;
    const uint8_t *tiles[MOST_STREAMS];
    v16 acc[MOST_SUMS];
    int64_t g = 0;

    // Sums of grains stay in memory: in registers they would push out those of the inner loop.
    __asm__("" : "+r"(sums)::"memory");
    TSR_UNROLL for (int s = 0; s < streams; s++)
    {
        tiles[s] = p[s].tiles;
    }
    if (grain > 0) {
        for (int i = 0; i < streams * rows * TSR_PANEL_ROWS; i++) {
            sums[i] = TSR_GRAIN_START;
        }
    }
    do {
        const int64_t end = grain > 0 && g + grain < n_groups ? g + grain : n_groups;

        TSR_UNROLL for (int i = 0; i < streams * rows; i++)
        {
            acc[i] = v16_set1(0.0F);
        }
        for (; g < end; g++) {
            if (format == TSR_FORMAT_Q8) {
                group_q8(streams, rows, tiles, groups, acc);
            } else if (format == TSR_FORMAT_Q8_WIDE) {
                group_q8_wide(streams, rows, tiles, groups, acc);
            } else {
                group_q4(format, streams, rows, tiles, groups, acc);
            }
            groups += TSR_X_GROUP_BYTES * rows;
            TSR_UNROLL for (int s = 0; s < streams; s++)
            {
                tiles[s] += tile_bytes;
            }
        }
        if (grain > 0) {
            TSR_UNROLL for (int i = 0; i < streams * rows; i++)
            {
                double *sum = sums + TSR_PANEL_ROWS * i;

                w16_store(sum, w16_fma_v16(acc[i], TSR_GRAIN_FACTOR, w16_load(sum)));
            }
        }
    } while (g < n_groups);
    TSR_UNROLL for (int i = 0; i < streams * rows; i++)
    {
        const tsr_panel_place *to = &p[i / rows];
        const int64_t row = x->first_row + i % rows;

        if (grain > 0) {
            tsr_panel_put_f64(to, row, sums + TSR_PANEL_ROWS * i);
        } else {
            tsr_panel_put_f32(to, row, acc[i]);
        }
    }
}

/* ---- all blocks of a run ------------------------------------------------------------------- */

typedef struct shape {
    int64_t n_groups;
    int64_t grain; /* groups a grain; 0: none */
    size_t tile_bytes;
} shape;

TSR_INLINE void block_of(const int format, const int streams, const int rows,
                         const tsr_panel_place *p, const x_block *x, const shape *of)
{
    block(format, streams, rows, p, x, of->n_groups, of->grain, of->tile_bytes);
}

/* `streams` panels by blocks [first, end) of x, each of 1 to MOST_ROWS rows. */
TSR_INLINE void panels_by_blocks(const int format, const int streams, const tsr_panel_place *p,
                                 const tsr_x_blocks *x, int64_t first, int64_t end, const shape *of)
{
    for (int64_t b = first; b < end; b++) {
        const int64_t row = tsr_x_block_first(x, b);
        const x_block here = {x->quantised + row * of->n_groups * TSR_X_GROUP_BYTES, row};

        switch (tsr_x_block_first(x, b + 1) - row) {
#if defined(TSR_ISA_AVX512)
        case 6:
            block_of(format, streams, 6, p, &here, of);
            break;
        case 5:
            block_of(format, streams, 5, p, &here, of);
            break;
        case 4:
            block_of(format, streams, 4, p, &here, of);
            break;
#endif
#if defined(TSR_ISA_AVX512) || defined(TSR_ISA_AVX2)
        case 3:
            block_of(format, streams, 3, p, &here, of);
            break;
#endif
        case 2:
            block_of(format, streams, 2, p, &here, of);
            break;
        default:
            block_of(format, streams, 1, p, &here, of);
            break;
        }
    }
}

/* Open the nibbles of a panel of Q4 or Q4_WIDE. */
TSR_INLINE void open_panel(const int format, uint8_t *to, const uint8_t *tile, const shape *of)
{
    for (int64_t g = 0; g < of->n_groups; g++) {
        for (int j = 0; j < 4; j++) {
            const b64 both = b64_load(tile + 64 * j);

            b64_store(to + 64 * j, b64_low(both));
            b64_store(to + 64 * j + 256, b64_high(both));
        }
        if (format == TSR_FORMAT_Q4) {
            v16_store((float *)(to + OPEN_D), v16_load_f16((const uint16_t *)(tile + 256)));
            v16_store((float *)(to + OPEN_M), v16_load_f16((const uint16_t *)(tile + 288)));
        } else {
            v16_store((float *)(to + OPEN_D), v16_load((const float *)(tile + 256)));
            v16_store((float *)(to + OPEN_M), v16_load((const float *)(tile + 320)));
        }
        to += TSR_OPEN_TILE_BYTES;
        tile += of->tile_bytes;
    }
}

TSR_INLINE void run_format(const int format, const tsr_panel_run *run, const tsr_x_blocks *x,
                           const shape *of)
{
    const shape opened = {of->n_groups, of->grain, TSR_OPEN_TILE_BYTES};
    const int64_t chunk_rows = CHUNK_BYTES / (of->n_groups * TSR_X_GROUP_BYTES);
    const int64_t chunk = chunk_rows > MOST_ROWS ? chunk_rows / MOST_ROWS : 1;
    const bool open =
        (format == TSR_FORMAT_Q4 || format == TSR_FORMAT_Q4_WIDE) && x->n_blocks >= OPEN_BLOCKS;
    tsr_panel_place p[MOST_STREAMS];

    for (int64_t first = 0; first < x->n_blocks; first += chunk) {
        const int64_t end = first + chunk < x->n_blocks ? first + chunk : x->n_blocks;
        int64_t done = 0;

        if (x->n_rows == 1 && ROW_STREAMS > 1) {
            const int64_t apart = run->n_panels / ROW_STREAMS;
            const x_block row = {x->quantised, 0};

            for (int64_t i = 0; i < apart; i++) {
                for (int s = 0; s < ROW_STREAMS; s++) {
                    p[s] = tsr_panel_find(run, i + s * apart);
                }
                block_of(format, ROW_STREAMS, 1, p, &row, of);
            }
            done = apart * ROW_STREAMS;
        } else if (STREAMS > 1) {
            const int64_t apart = run->n_panels / STREAMS;

            for (int64_t i = 0; i < apart; i++) {
                for (int s = 0; s < STREAMS; s++) {
                    p[s] = tsr_panel_find(run, i + s * apart);
                }
                panels_by_blocks(format, STREAMS, p, x, first, end, of);
            }
            done = apart * STREAMS;
        }
        for (; done < run->n_panels; done++) {
            p[0] = tsr_panel_find(run, done);
            if (open) {
                open_panel(format, run->scratch, p[0].tiles, of);
                p[0].tiles = run->scratch;
                panels_by_blocks(FORMAT_OPEN, 1, p, x, first, end, &opened);
            } else {
                panels_by_blocks(format, 1, p, x, first, end, of);
            }
        }
    }
}

void TSR_ISA_NAME(tsr_matmul_int8)(const tsr_panel_run *run, const tsr_x_blocks *x)
{
    const shape of = {
        (run->n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS,
        (run->grain_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS,
        tsr_weight_tile_bytes(run->format),
    };

    switch (run->format) {
    case TSR_FORMAT_Q4:
        run_format(TSR_FORMAT_Q4, run, x, &of);
        break;
    case TSR_FORMAT_Q4_WIDE:
        run_format(TSR_FORMAT_Q4_WIDE, run, x, &of);
        break;
    case TSR_FORMAT_Q8:
        run_format(TSR_FORMAT_Q8, run, x, &of);
        break;
    default:
        run_format(TSR_FORMAT_Q8_WIDE, run, x, &of);
        break;
    }
}
