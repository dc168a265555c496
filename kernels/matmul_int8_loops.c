#include "kernels/encoding_run.h"
#include "kernels/matmul_panels.h"

/*
 * A block of work is `streams` panels by up to MOST_ROWS rows of x, its sums in registers. With few
 * rows a product is as fast as memory is read, and a core reads faster from several places at once;
 * with many, more sums in registers mean fewer loads for each.
 */
#if defined(TSR_ISA_AVX512)
enum {
    MOST_ROWS = TSR_X_BLOCK_AVX512,
    ROW_STREAMS = 4, /* panels at once when x is one row */
    STREAMS = 2,     /* when it is more */
    OPEN_BLOCKS = INT32_MAX
};
#elif defined(TSR_ISA_AVX2)
enum {
    MOST_ROWS = TSR_X_BLOCK_AVX2,
    ROW_STREAMS = 3,
    STREAMS = 1,
    OPEN_BLOCKS = 8 /* blocks of x from which on a panel's nibbles are opened once for all */
};
#else
enum {
    MOST_ROWS = TSR_X_BLOCK_PLAIN,
    ROW_STREAMS = 1,
    STREAMS = 1,
    OPEN_BLOCKS = INT32_MAX
};
#endif

enum {
    MOST_STREAMS = 4,
    MOST_SUMS = 12,
    MOST_PARTS = 5,         /* in which the next panels are brought near: a line a group each */
    CHUNK_BYTES = 256 << 10 /* of quantised x that all panels meet before the next: half an L2 */
};

// Where registers are few, sums of grains stay in memory: they would push out the inner loop's.
#if defined(TSR_ISA_AVX512)
#define SUMS_IN_MEMORY(sums) ((void)0)
#else
#define SUMS_IN_MEMORY(sums) __asm__("" : : "r"(sums) : "memory")
#endif

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

/* NL4 and FP4: codes that stand for signed bytes. */
TSR_INLINE void group_coded(const int8_t *values, const int streams, const int rows,
                            const uint8_t *const *tiles, const uint8_t *x, v16 *acc)
{
    const int8_t *q = (const int8_t *)x;
    dots8 dots[MOST_SUMS];

    TSR_UNROLL for (int i = 0; i < streams * rows; i++)
    {
        dots[i] = dots8_start(X_N(x, rows, i % rows));
    }
    TSR_UNROLL for (int j = 0; j < 8; j++)
    {
        TSR_UNROLL for (int s = 0; s < streams; s++)
        {
            const b64 both = b64_load(tiles[s] + 64 * (j % 4));
            const b64 w = b64_signed(b64_lookup(j < 4 ? b64_low(both) : b64_high(both), values));

            TSR_UNROLL for (int r = 0; r < rows; r++)
            {
                dots[s * rows + r] = dots8_add(dots[s * rows + r], w, q + 32 * r + 4 * j);
            }
        }
    }
    TSR_UNROLL for (int s = 0; s < streams; s++)
    {
        const v16 d = v16_load((const float *)(tiles[s] + 256));

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
    const uint8_t *ahead[MOST_STREAMS]; /* weights of later blocks to bring near meanwhile: */
    size_t ahead_bytes;                 /* so much a group; 0: none */
} x_block;

typedef struct shape {
    int64_t n_groups;
    int64_t grain; /* groups a grain; 0: none */
    size_t tile_bytes;
} shape;

typedef void block_fn(const tsr_panel_place *p, const x_block *x, const shape *of);

TSR_INLINE void block(const int format, const bool grained, const int streams, const int rows,
                      const tsr_panel_place *p, const x_block *x, const shape *of)
{
    const int64_t grain = grained ? of->grain : of->n_groups;
    const uint8_t *groups = x->groups;
    const uint8_t *tiles[MOST_STREAMS];
    const uint8_t *ahead[MOST_STREAMS];
    v16 acc[MOST_SUMS];
    w16 sums[MOST_SUMS]; // of grains
    int64_t g = 0;

    SUMS_IN_MEMORY(sums);
    TSR_UNROLL for (int s = 0; s < streams; s++)
    {
        tiles[s] = p[s].tiles;
        ahead[s] = x->ahead[s];
    }
    TSR_UNROLL for (int i = 0; i < streams * rows; i++)
    {
        // Output lines are far away: asked for now, they are here when the sums are.
        tsr_panel_expect(&p[i / rows], x->first_row + i % rows, grained);
        if (grained) {
            sums[i] = w16_set1(TSR_GRAIN_START);
        }
    }
    do {
        const int64_t end = g + grain < of->n_groups ? g + grain : of->n_groups;

        TSR_UNROLL for (int i = 0; i < streams * rows; i++)
        {
            acc[i] = v16_set1(0.0F);
        }
        for (; g < end; g++) {
            if (format == TSR_FORMAT_Q8) {
                group_q8(streams, rows, tiles, groups, acc);
            } else if (format == TSR_FORMAT_Q8_WIDE) {
                group_q8_wide(streams, rows, tiles, groups, acc);
            } else if (format == TSR_FORMAT_NL4) {
                group_coded(tsr_encoding_nl4_values, streams, rows, tiles, groups, acc);
            } else if (format == TSR_FORMAT_FP4) {
                group_coded(tsr_encoding_fp4_values, streams, rows, tiles, groups, acc);
            } else {
                group_q4(format, streams, rows, tiles, groups, acc);
            }
            if (rows > 1) {
                for (size_t line = 0; line < x->ahead_bytes; line += 64) {
                    TSR_UNROLL for (int s = 0; s < streams; s++)
                    {
                        __builtin_prefetch(ahead[s] + line);
                    }
                }
                TSR_UNROLL for (int s = 0; s < streams; s++)
                {
                    ahead[s] += x->ahead_bytes;
                }
            }
            groups += TSR_X_GROUP_BYTES * rows;
            TSR_UNROLL for (int s = 0; s < streams; s++)
            {
                tiles[s] += of->tile_bytes;
            }
        }
        if (grained) {
            TSR_UNROLL for (int i = 0; i < streams * rows; i++)
            {
                sums[i] = w16_fma_v16(acc[i], TSR_GRAIN_FACTOR, sums[i]);
            }
        }
    } while (grained && g < of->n_groups);
    TSR_UNROLL for (int i = 0; i < streams * rows; i++)
    {
        const tsr_panel_place *to = &p[i / rows];
        const int64_t row = x->first_row + i % rows;

        if (grained) {
            tsr_panel_put_f64(to, row, sums[i]);
        } else {
            tsr_panel_put_f32(to, row, acc[i]);
        }
    }
}

/* ---- one function a format and a size of block --------------------------------------------- */

typedef struct blocks {
    block_fn *row;                   /* ROW_STREAMS panels by a row */
    block_fn *wide[MOST_ROWS + 1];   /* STREAMS panels by so many rows; NULLs: narrow is better */
    block_fn *narrow[MOST_ROWS + 1]; /* a panel by so many rows */
} blocks;

#define BLOCK(name, format, grained, streams, rows)                                   \
    static void name##_##streams##_##rows(const tsr_panel_place *p, const x_block *x, \
                                          const shape *of)                            \
    {                                                                                 \
        block(format, grained, streams, rows, p, x, of);                              \
    }

#if defined(TSR_ISA_AVX512)
#define NARROW(name, format, grained)  \
    BLOCK(name, format, grained, 4, 1) \
    BLOCK(name, format, grained, 1, 1) \
    BLOCK(name, format, grained, 1, 2) \
    BLOCK(name, format, grained, 1, 3) \
    BLOCK(name, format, grained, 1, 4) \
    BLOCK(name, format, grained, 1, 5) \
    BLOCK(name, format, grained, 1, 6)
#define BLOCKS(name, format)                                                                    \
    NARROW(name, format, false)                                                                 \
    BLOCK(name, format, false, 2, 2)                                                            \
    BLOCK(name, format, false, 2, 3)                                                            \
    BLOCK(name, format, false, 2, 4)                                                            \
    BLOCK(name, format, false, 2, 5)                                                            \
    BLOCK(name, format, false, 2, 6)                                                            \
    NARROW(name##_grained, format, true)                                                        \
    static const blocks name##_blocks[2] = {                                                    \
        {name##_4_1,                                                                            \
         {NULL, NULL, name##_2_2, name##_2_3, name##_2_4, name##_2_5, name##_2_6},              \
         {NULL, name##_1_1, name##_1_2, name##_1_3, name##_1_4, name##_1_5, name##_1_6}},       \
        {name##_grained_4_1,                                                                    \
         {NULL},                                                                                \
         {NULL, name##_grained_1_1, name##_grained_1_2, name##_grained_1_3, name##_grained_1_4, \
          name##_grained_1_5, name##_grained_1_6}}};
#elif defined(TSR_ISA_AVX2)
#define NARROW(name, format, grained)  \
    BLOCK(name, format, grained, 3, 1) \
    BLOCK(name, format, grained, 1, 1) \
    BLOCK(name, format, grained, 1, 2) \
    BLOCK(name, format, grained, 1, 3)
#define BLOCKS(name, format)                                              \
    NARROW(name, format, false)                                           \
    NARROW(name##_grained, format, true)                                  \
    static const blocks name##_blocks[2] = {                              \
        {name##_3_1, {NULL}, {NULL, name##_1_1, name##_1_2, name##_1_3}}, \
        {name##_grained_3_1,                                              \
         {NULL},                                                          \
         {NULL, name##_grained_1_1, name##_grained_1_2, name##_grained_1_3}}};
#else
#define NARROW(name, format, grained)  \
    BLOCK(name, format, grained, 1, 1) \
    BLOCK(name, format, grained, 1, 2)
#define BLOCKS(name, format)                                  \
    NARROW(name, format, false)                               \
    NARROW(name##_grained, format, true)                      \
    static const blocks name##_blocks[2] = {                  \
        {name##_1_1, {NULL}, {NULL, name##_1_1, name##_1_2}}, \
        {name##_grained_1_1, {NULL}, {NULL, name##_grained_1_1, name##_grained_1_2}}};
#endif

BLOCKS(q4, TSR_FORMAT_Q4)
BLOCKS(q4_wide, TSR_FORMAT_Q4_WIDE)
BLOCKS(nl4, TSR_FORMAT_NL4)
BLOCKS(fp4, TSR_FORMAT_FP4)
BLOCKS(q8, TSR_FORMAT_Q8)
BLOCKS(q8_wide, TSR_FORMAT_Q8_WIDE)
#if defined(TSR_ISA_AVX2)
BLOCKS(opened, FORMAT_OPEN)
#else
static const blocks opened_blocks[2]; // panels stay closed
#endif

/* ---- all blocks of a run ------------------------------------------------------------------- */

/*
 * `streams` panels by blocks [first, end) of x; `by_rows` has a function for each number of rows.
 * The first block of a panel waits for memory and the others compute: so they bring the panels
 * that come next a part each.
 */
static void panels_by_blocks(block_fn *const *by_rows, int streams, const tsr_panel_place *p,
                             const tsr_panel_place *next, size_t next_tile_bytes,
                             const tsr_x_blocks *x, int64_t first, int64_t end, const shape *of)
{
    const int64_t n_parts = end - first < MOST_PARTS ? end - first : MOST_PARTS;
    const size_t part_bytes = (next_tile_bytes / (size_t)n_parts + 63) / 64 * 64;

    for (int64_t b = first; b < end; b++) {
        const int64_t row = tsr_x_block_first(x, b);
        x_block here = {x->quantised + row * of->n_groups * TSR_X_GROUP_BYTES, row, {NULL}, 0};

        if (n_parts > 1 && b - first < n_parts) {
            here.ahead_bytes = part_bytes;
            for (int s = 0; s < streams; s++) {
                here.ahead[s] = next[s].tiles + (b - first) * of->n_groups * (int64_t)part_bytes;
            }
        }
        by_rows[tsr_x_block_first(x, b + 1) - row](p, &here, of);
    }
}

/* Open the nibbles of a panel of Q4 or Q4_WIDE. */
static void open_panel(tsr_format format, uint8_t *to, const uint8_t *tile, const shape *of)
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

/* The next `streams` panels, `apart` from each other. */
static void find_panels(tsr_panel_place *p, const tsr_panel_run *run, int64_t i, int streams,
                        int64_t apart)
{
    for (int s = 0; s < streams; s++) {
        p[s] = tsr_panel_find(run, i + s * apart);
    }
}

static void by_one_row(const blocks *with, const tsr_panel_run *run, const tsr_x_blocks *x,
                       const shape *of)
{
    const int64_t apart = run->n_panels / ROW_STREAMS;
    const x_block row = {.groups = x->quantised};
    tsr_panel_place p[MOST_STREAMS];

    for (int64_t i = 0; i < apart; i++) {
        find_panels(p, run, i, ROW_STREAMS, apart);
        with->row(p, &row, of);
    }
    for (int64_t i = apart * ROW_STREAMS; i < run->n_panels; i++) {
        p[0] = tsr_panel_find(run, i);
        with->narrow[1](p, &row, of);
    }
}

static void by_rows(const blocks *with, const tsr_panel_run *run, const tsr_x_blocks *x,
                    const shape *of)
{
    const shape opened = {of->n_groups, of->grain, TSR_OPEN_TILE_BYTES};
    const bool open = (run->format == TSR_FORMAT_Q4 || run->format == TSR_FORMAT_Q4_WIDE) &&
                      x->n_blocks >= OPEN_BLOCKS;
    const int64_t chunk_rows = CHUNK_BYTES / (of->n_groups * TSR_X_GROUP_BYTES);
    const int64_t chunk = chunk_rows > MOST_ROWS ? chunk_rows / MOST_ROWS : 1;
    const int64_t apart = with->wide[MOST_ROWS] != NULL ? run->n_panels / STREAMS : 0;
    tsr_panel_place p[MOST_STREAMS];
    tsr_panel_place next[MOST_STREAMS];

    for (int64_t first = 0; first < x->n_blocks; first += chunk) {
        const int64_t end = first + chunk < x->n_blocks ? first + chunk : x->n_blocks;

        for (int64_t i = 0; i < apart; i++) {
            find_panels(p, run, i, STREAMS, apart);
            find_panels(next, run, i + 1 < apart ? i + 1 : 0, STREAMS, apart);
            panels_by_blocks(with->wide, STREAMS, p, next, of->tile_bytes, x, first, end, of);
        }
        for (int64_t i = apart * STREAMS; i < run->n_panels; i++) {
            p[0] = tsr_panel_find(run, i);
            next[0] = tsr_panel_find(run, i + 1 < run->n_panels ? i + 1 : i);
            if (open) {
                open_panel(run->format, run->scratch, p[0].tiles, of);
                p[0].tiles = run->scratch;
                panels_by_blocks(opened_blocks[of->grain > 0].narrow, 1, p, next, of->tile_bytes, x,
                                 first, end, &opened);
            } else {
                panels_by_blocks(with->narrow, 1, p, next, of->tile_bytes, x, first, end, of);
            }
        }
    }
}

void TSR_ISA_NAME(tsr_matmul_int8)(const tsr_panel_run *run, const tsr_x_blocks *x)
{
    static const blocks *const of_format[TSR_FORMAT_COUNT] = {
        [TSR_FORMAT_Q4] = q4_blocks,   [TSR_FORMAT_Q4_WIDE] = q4_wide_blocks,
        [TSR_FORMAT_NL4] = nl4_blocks, [TSR_FORMAT_FP4] = fp4_blocks,
        [TSR_FORMAT_Q8] = q8_blocks,   [TSR_FORMAT_Q8_WIDE] = q8_wide_blocks,
    };
    const shape of = {
        (run->n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS,
        (run->grain_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS,
        tsr_weight_tile_bytes(run->format),
    };
    const blocks *with = &of_format[run->format][of.grain > 0];

    if (x->n_rows == 1) {
        by_one_row(with, run, x, &of);
    } else {
        by_rows(with, run, x, &of);
    }
}
