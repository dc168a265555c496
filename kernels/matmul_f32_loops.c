#include "kernels/encoding_run.h"
#include "kernels/matmul_panels.h"

/*
 * x as it is. A panel's next few tiles are turned to f32 in this thread's scratch, then all rows
 * of x pass over them, their sums resting in scratch between; a single row over plain weights
 * reads them where they lie.
 */
#if defined(TSR_ISA_AVX512)
enum {
    MOST_ROWS = 8,
    ROW_STREAMS = 4
};
#elif defined(TSR_ISA_AVX2)
enum {
    MOST_ROWS = 4,
    ROW_STREAMS = 4
};
#else
enum {
    MOST_ROWS = 4,
    ROW_STREAMS = 1
};
#endif

enum {
    FP8_TILE_BYTES = 576,
    FP8_D = 512,
    CHUNK_COLS = TSR_F32_CHUNK_TILES * TSR_TILE_COLS,
    CHUNK_ROWS = TSR_F32_CHUNK_ROWS
};

/* A thread's scratch. */
typedef struct bench {
    float *w;     /* [CHUNK_COLS, 16] */
    float *acc;   /* [CHUNK_ROWS, 16]: of the grain that is being summed */
    double *sums; /* [CHUNK_ROWS, 16]: of whole grains */
} bench;

/* ---- weights to f32 ------------------------------------------------------------------------ */

TSR_INLINE v16 plain_column(const int format, const uint8_t *tile, int64_t c)
{
    if (format == TSR_FORMAT_F16) {
        return v16_load_f16((const uint16_t *)tile + TSR_PANEL_ROWS * c);
    }
    if (format == TSR_FORMAT_BF16) {
        return v16_load_bf16((const uint16_t *)tile + TSR_PANEL_ROWS * c);
    }
    if (format == TSR_FORMAT_FP8) {
        const uint8_t *at = tile + c / TSR_TILE_COLS * FP8_TILE_BYTES;

        return v16_mul(v16_load((const float *)(at + FP8_D)),
                       v16_load_fp8(at + TSR_PANEL_ROWS * (c % TSR_TILE_COLS)));
    }
    return v16_load((const float *)tile + TSR_PANEL_ROWS * c);
}

static void open_nibbles(float *to, const uint8_t *tile, v16 d, v16 m)
{
    for (int j = 0; j < 4; j++) {
        const b64 four = b64_load(tile + 64 * j);

        for (int i = 0; i < 4; i++) {
            float *low = to + TSR_PANEL_ROWS * (4 * j + i);

            v16_store(low, v16_fma(d, i16_to_v16(b64_nibbles(four, 8 * i)), m));
            v16_store(low + TSR_PANEL_ROWS * 16,
                      v16_fma(d, i16_to_v16(b64_nibbles(four, 8 * i + 4)), m));
        }
    }
}

static void open_codes(float *to, const uint8_t *tile, const int8_t *values)
{
    const v16 d = v16_load((const float *)(tile + 256));
    float table[16];

    for (int i = 0; i < 16; i++) {
        table[i] = (float)values[i];
    }
    for (int j = 0; j < 4; j++) {
        const b64 four = b64_load(tile + 64 * j);

        for (int i = 0; i < 4; i++) {
            float *low = to + TSR_PANEL_ROWS * (4 * j + i);

            v16_store(low, v16_mul(d, v16_lookup(table, b64_nibbles(four, 8 * i))));
            v16_store(low + TSR_PANEL_ROWS * 16,
                      v16_mul(d, v16_lookup(table, b64_nibbles(four, 8 * i + 4))));
        }
    }
}

static void open_bytes(float *to, const uint8_t *tile, v16 d, v16 m)
{
    for (int j = 0; j < 4; j++) {
        const b64 four = b64_load(tile + 64 * j);

        for (int i = 0; i < 4; i++) {
            v16_store(to + TSR_PANEL_ROWS * (4 * j + i),
                      v16_fma(d, i16_to_v16(b64_bytes(four, 8 * i)), m));
        }
    }
}

/* to = d (q - z), by a column's group. */
TSR_INLINE void put_mixed(float *to, i16 codes, const float *group)
{
    v16_store(
        to, v16_mul(v16_load(group), v16_sub(i16_to_v16(codes), v16_load(group + TSR_PANEL_ROWS))));
}

static void open_mixed(tsr_format format, float *to, const uint8_t *tile, const float *groups)
{
    const size_t codes_bytes = tsr_weight_tile_bytes(format) - TSR_TILE_COLS * sizeof(uint16_t);
    const bool nibbles = format == TSR_FORMAT_Q4_MIXED;
    const float *of[TSR_TILE_COLS];

    for (int c = 0; c < TSR_TILE_COLS; c++) {
        uint16_t g;

        memcpy(&g, tile + codes_bytes + sizeof(g) * (size_t)c, sizeof(g));
        of[c] = groups + tsr_weight_table_floats(g);
    }
    for (int j = 0; j < (nibbles ? 4 : 8); j++) {
        const b64 four = b64_load(tile + 64 * j);

        for (int i = 0; i < 4; i++) {
            const int c = 4 * j + i;

            if (nibbles) {
                put_mixed(to + TSR_PANEL_ROWS * c, b64_nibbles(four, 8 * i), of[c]);
                put_mixed(to + TSR_PANEL_ROWS * (c + 16), b64_nibbles(four, 8 * i + 4), of[c + 16]);
            } else {
                put_mixed(to + TSR_PANEL_ROWS * c, b64_bytes(four, 8 * i), of[c]);
            }
        }
    }
}

static void open_tile(tsr_format format, float *to, const uint8_t *tile, const float *groups)
{
    const int half = TSR_PANEL_ROWS * 16; // elements of 16 columns

    switch (format) {
    case TSR_FORMAT_F32:
        memcpy(to, tile, 2048);
        break;
    case TSR_FORMAT_F16:
        for (int c = 0; c < TSR_TILE_COLS; c++) {
            v16_store(to + TSR_PANEL_ROWS * c, plain_column(TSR_FORMAT_F16, tile, c));
        }
        break;
    case TSR_FORMAT_BF16:
        for (int c = 0; c < TSR_TILE_COLS; c++) {
            v16_store(to + TSR_PANEL_ROWS * c, plain_column(TSR_FORMAT_BF16, tile, c));
        }
        break;
    case TSR_FORMAT_FP8:
        for (int c = 0; c < TSR_TILE_COLS; c++) {
            v16_store(to + TSR_PANEL_ROWS * c, plain_column(TSR_FORMAT_FP8, tile, c));
        }
        break;
    case TSR_FORMAT_NL4:
        open_codes(to, tile, tsr_encoding_nl4_values);
        break;
    case TSR_FORMAT_FP4:
        open_codes(to, tile, tsr_encoding_fp4_values);
        break;
    case TSR_FORMAT_Q4:
        open_nibbles(to, tile, v16_load_f16((const uint16_t *)(tile + 256)),
                     v16_load_f16((const uint16_t *)(tile + 288)));
        break;
    case TSR_FORMAT_Q4_WIDE:
        open_nibbles(to, tile, v16_load((const float *)(tile + 256)),
                     v16_load((const float *)(tile + 320)));
        break;
    case TSR_FORMAT_Q8:
        for (int h = 0; h < 2; h++) {
            open_bytes(to + half * h, tile + 256 * h, v16_load_f16((const uint16_t *)(tile + 512)),
                       v16_set1(0.0F));
        }
        break;
    case TSR_FORMAT_Q8_WIDE:
        for (int h = 0; h < 2; h++) {
            open_bytes(to + half * h, tile + 256 * h,
                       v16_load((const float *)(tile + 512 + 128 * h)),
                       v16_load((const float *)(tile + 576 + 128 * h)));
        }
        break;
    case TSR_FORMAT_Q4_MIXED:
    case TSR_FORMAT_Q8_MIXED:
        open_mixed(format, to, tile, groups);
        break;
    case TSR_FORMAT_COUNT:
        break;
    }
}

/* ---- sums ---------------------------------------------------------------------------------- */

/* acc[r, :] += w x[r, :] over n columns, for `rows` rows of x. */
TSR_INLINE void rows_over_chunk(const int rows, float *acc, const float *w, const float *x,
                                int64_t stride, int64_t n)
{
    v16 sum[MOST_ROWS];

    TSR_UNROLL for (int r = 0; r < rows; r++)
    {
        sum[r] = v16_load(acc + TSR_PANEL_ROWS * r);
    }
    for (int64_t c = 0; c < n; c++) {
        const v16 column = v16_load(w + TSR_PANEL_ROWS * c);

        TSR_UNROLL for (int r = 0; r < rows; r++)
        {
            sum[r] = v16_fma(column, v16_set1(x[r * stride + c]), sum[r]);
        }
    }
    TSR_UNROLL for (int r = 0; r < rows; r++)
    {
        v16_store(acc + TSR_PANEL_ROWS * r, sum[r]);
    }
}

static void all_rows_over_chunk(const bench *b, const float *x, int64_t stride, int64_t n_rows,
                                int64_t n_cols)
{
    int64_t r = 0;

    for (; r + MOST_ROWS <= n_rows; r += MOST_ROWS) {
        rows_over_chunk(MOST_ROWS, b->acc + TSR_PANEL_ROWS * r, b->w, x + r * stride, stride,
                        n_cols);
    }
    for (; r + 2 <= n_rows; r += 2) {
        rows_over_chunk(2, b->acc + TSR_PANEL_ROWS * r, b->w, x + r * stride, stride, n_cols);
    }
    for (; r < n_rows; r++) {
        rows_over_chunk(1, b->acc + TSR_PANEL_ROWS * r, b->w, x + r * stride, stride, n_cols);
    }
}

static void end_grain(const bench *b, int64_t n_rows)
{
    for (int64_t i = 0; i < n_rows * TSR_PANEL_ROWS; i += TSR_PANEL_ROWS) {
        w16_store(b->sums + i,
                  w16_fma_v16(v16_load(b->acc + i), TSR_GRAIN_FACTOR, w16_load(b->sums + i)));
        v16_store(b->acc + i, v16_set1(0.0F));
    }
}

/* A panel by n_rows <= CHUNK_ROWS rows of x from `first` on. */
static void panel_by_rows(const tsr_panel_run *run, const tsr_panel_place *p, const tsr_x_blocks *x,
                          int64_t first, int64_t n_rows, const bench *b)
{
    const size_t tile_bytes = tsr_weight_tile_bytes(run->format);
    const int64_t grain = run->grain_cols > 0 ? run->grain_cols : run->n_cols;
    const uint8_t *tile = p->tiles;
    int64_t grain_end = grain;

    for (int64_t i = 0; i < n_rows * TSR_PANEL_ROWS; i++) {
        b->acc[i] = 0.0F;
        b->sums[i] = TSR_GRAIN_START;
    }
    for (int64_t c = 0; c < run->n_cols;) {
        int64_t end = c + CHUNK_COLS;

        grain_end = grain_end < run->n_cols ? grain_end : run->n_cols;
        end = end < grain_end ? end : grain_end;
        for (int64_t t = 0; t < end - c; t += TSR_TILE_COLS, tile += tile_bytes) {
            open_tile(run->format, b->w + TSR_PANEL_ROWS * t, tile, p->groups);
        }
        all_rows_over_chunk(b, x->x + first * x->x_stride + c, x->x_stride, n_rows, end - c);
        if (end == grain_end && run->grain_cols > 0) {
            end_grain(b, n_rows);
        }
        grain_end += end == grain_end ? grain : 0;
        c = end;
    }
    for (int64_t r = 0; r < n_rows; r++) {
        if (run->grain_cols > 0) {
            tsr_panel_put_f64(p, first + r, w16_load(b->sums + TSR_PANEL_ROWS * r));
        } else {
            tsr_panel_put_f32(p, first + r, v16_load(b->acc + TSR_PANEL_ROWS * r));
        }
    }
}

/* `streams` panels of plain weights by a single row. */
TSR_INLINE void panels_by_row(const int format, const int streams, const tsr_panel_run *run,
                              const tsr_panel_place *p, const float *x)
{
    const int64_t grain = run->grain_cols > 0 ? run->grain_cols : run->n_cols;
    _Alignas(64) double sums[4 * TSR_PANEL_ROWS];
    v16 acc[4];
    int64_t c = 0;

    for (int i = 0; i < 4 * TSR_PANEL_ROWS; i++) {
        sums[i] = TSR_GRAIN_START;
    }
    do {
        const int64_t end = c + grain < run->n_cols ? c + grain : run->n_cols;

        TSR_UNROLL for (int s = 0; s < streams; s++)
        {
            acc[s] = v16_set1(0.0F);
        }
        for (; c < end; c++) {
            const v16 one = v16_set1(x[c]);

            TSR_UNROLL for (int s = 0; s < streams; s++)
            {
                acc[s] = v16_fma(plain_column(format, p[s].tiles, c), one, acc[s]);
            }
        }
        if (run->grain_cols > 0) {
            TSR_UNROLL for (int s = 0; s < streams; s++)
            {
                double *sum = sums + TSR_PANEL_ROWS * s;

                w16_store(sum, w16_fma_v16(acc[s], TSR_GRAIN_FACTOR, w16_load(sum)));
            }
        }
    } while (c < run->n_cols);
    TSR_UNROLL for (int s = 0; s < streams; s++)
    {
        if (run->grain_cols > 0) {
            tsr_panel_put_f64(&p[s], 0, w16_load(sums + TSR_PANEL_ROWS * s));
        } else {
            tsr_panel_put_f32(&p[s], 0, acc[s]);
        }
    }
}

TSR_INLINE void run_by_row(const int format, const tsr_panel_run *run, const float *x)
{
    const int64_t apart = run->n_panels / ROW_STREAMS;
    tsr_panel_place p[ROW_STREAMS];

    for (int64_t i = 0; i < apart; i++) {
        for (int s = 0; s < ROW_STREAMS; s++) {
            p[s] = tsr_panel_find(run, i + s * apart);
        }
        panels_by_row(format, ROW_STREAMS, run, p, x);
    }
    for (int64_t i = apart * ROW_STREAMS; i < run->n_panels; i++) {
        p[0] = tsr_panel_find(run, i);
        panels_by_row(format, 1, run, p, x);
    }
}

void TSR_ISA_NAME(tsr_matmul_f32)(const tsr_panel_run *run, const tsr_x_blocks *x)
{
    const bench b = {
        (float *)run->scratch,
        (float *)run->scratch + CHUNK_COLS * TSR_PANEL_ROWS,
        (double *)((float *)run->scratch + (CHUNK_COLS + CHUNK_ROWS) * TSR_PANEL_ROWS),
    };

    if (x->n_rows == 1 && run->format == TSR_FORMAT_F32) {
        run_by_row(TSR_FORMAT_F32, run, x->x);
        return;
    }
    if (x->n_rows == 1 && run->format == TSR_FORMAT_F16) {
        run_by_row(TSR_FORMAT_F16, run, x->x);
        return;
    }
    if (x->n_rows == 1 && run->format == TSR_FORMAT_BF16) {
        run_by_row(TSR_FORMAT_BF16, run, x->x);
        return;
    }
    if (x->n_rows == 1 && run->format == TSR_FORMAT_FP8) {
        run_by_row(TSR_FORMAT_FP8, run, x->x);
        return;
    }
    for (int64_t first = 0; first < x->n_rows; first += CHUNK_ROWS) {
        const int64_t left = x->n_rows - first;

        for (int64_t i = 0; i < run->n_panels; i++) {
            const tsr_panel_place p = tsr_panel_find(run, i);

            panel_by_rows(run, &p, x, first, left < CHUNK_ROWS ? left : CHUNK_ROWS, &b);
        }
    }
}
