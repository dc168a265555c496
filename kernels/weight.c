#include "kernels/weight.h"

#include <assert.h>
#include <string.h>

#include "kernels/dtype.h"
#include "kernels/encoding_run.h"

/* Byte offsets within tiles, as kernels/weight.h lays them out. */
enum {
    Q4_BYTES = 320,
    Q4_D = 256,
    Q4_M = 288,
    Q4_WIDE_BYTES = 384,
    Q4_WIDE_D = 256,
    Q4_WIDE_M = 320,
    Q8_BYTES = 544,
    Q8_D = 512,
    Q8_WIDE_BYTES = 768,
    Q8_WIDE_D = 512,
    Q8_WIDE_M = 576,
    Q8_WIDE_HALF = 128,
    CODED_BYTES = 320, // NL4 and FP4
    CODED_D = 256,
    FP8_BYTES = 576,
    FP8_D = 512,
    Q4_MIXED_BYTES = 320,
    Q8_MIXED_BYTES = 576,
    HALF_COLS = 16
};

static const struct {
    const char *name;
    size_t tile_bytes;
} formats[TSR_FORMAT_COUNT] = {
    [TSR_FORMAT_F32] = {"f32", 2048},
    [TSR_FORMAT_F16] = {"f16", 1024},
    [TSR_FORMAT_BF16] = {"bf16", 1024},
    [TSR_FORMAT_FP8] = {"fp8", FP8_BYTES},
    [TSR_FORMAT_Q4] = {"q4", Q4_BYTES},
    [TSR_FORMAT_Q4_WIDE] = {"q4_wide", Q4_WIDE_BYTES},
    [TSR_FORMAT_NL4] = {"nl4", CODED_BYTES},
    [TSR_FORMAT_FP4] = {"fp4", CODED_BYTES},
    [TSR_FORMAT_Q8] = {"q8", Q8_BYTES},
    [TSR_FORMAT_Q8_WIDE] = {"q8_wide", Q8_WIDE_BYTES},
    [TSR_FORMAT_Q4_MIXED] = {"q4_mixed", Q4_MIXED_BYTES},
    [TSR_FORMAT_Q8_MIXED] = {"q8_mixed", Q8_MIXED_BYTES},
};

const char *tsr_weight_format_name(tsr_format format)
{
    return formats[format].name;
}

size_t tsr_weight_tile_bytes(tsr_format format)
{
    return formats[format].tile_bytes;
}

bool tsr_weight_is_quantised(tsr_format format)
{
    return format >= TSR_FORMAT_Q4 && !tsr_weight_is_mixed(format);
}

bool tsr_weight_is_mixed(tsr_format format)
{
    return format == TSR_FORMAT_Q4_MIXED || format == TSR_FORMAT_Q8_MIXED;
}

tsr_format tsr_weight_format_for(tsr_encoding encoding)
{
    switch (encoding) {
    case TSR_ENCODING_F16:
        return TSR_FORMAT_F16;
    case TSR_ENCODING_BF16:
        return TSR_FORMAT_BF16;
    case TSR_ENCODING_Q4_0:
    case TSR_ENCODING_Q4_1:
        return TSR_FORMAT_Q4;
    case TSR_ENCODING_Q4_K:
        return TSR_FORMAT_Q4_WIDE;
    case TSR_ENCODING_Q5_0:
    case TSR_ENCODING_Q8_0:
        return TSR_FORMAT_Q8;
    case TSR_ENCODING_IQ4_NL:
    case TSR_ENCODING_IQ4_XS:
        return TSR_FORMAT_NL4;
    case TSR_ENCODING_MXFP4:
        return TSR_FORMAT_FP4;
    case TSR_ENCODING_F32:
    case TSR_ENCODING_COUNT:
        return TSR_FORMAT_F32;
    default:
        return TSR_FORMAT_Q8_WIDE;
    }
}

static int64_t tiles_across(int64_t n_cols)
{
    return (n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS;
}

size_t tsr_weight_panel_bytes(tsr_format format, int64_t n_cols)
{
    return (size_t)tiles_across(n_cols) * formats[format].tile_bytes;
}

size_t tsr_weight_bytes(tsr_format format, int64_t n_rows, int64_t n_cols)
{
    const int64_t n_panels = (n_rows + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS;

    return (size_t)n_panels * tsr_weight_panel_bytes(format, n_cols);
}

/* ---- bytes --------------------------------------------------------------------------------- */

static uint32_t load32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static void store32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static uint16_t load16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static void store16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, sizeof(v));
}

static float load_f16(const uint8_t *p)
{
    return tsr_dtype_from_f16(load16(p));
}

static void store_f32(uint8_t *p, float v)
{
    memcpy(p, &v, sizeof(v));
}

static float load_f32(const uint8_t *p)
{
    float v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* ---- plain types: a transposition ---------------------------------------------------------- */

static void pack_words(uint8_t *panel, const void *const *rows, int64_t first_col, int64_t n_cols)
{
    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        const uint8_t *from = rows[r];

        for (int64_t c = 0; c < n_cols && from != NULL; c++) {
            store32(panel + (size_t)(TSR_PANEL_ROWS * c + r) * 4,
                    load32(from + (size_t)(first_col + c) * 4));
        }
    }
}

static void pack_halves(uint8_t *panel, const void *const *rows, int64_t first_col, int64_t n_cols)
{
    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        const uint8_t *from = rows[r];

        for (int64_t c = 0; c < n_cols && from != NULL; c++) {
            store16(panel + (size_t)(TSR_PANEL_ROWS * c + r) * 2,
                    load16(from + (size_t)(first_col + c) * 2));
        }
    }
}

/* ---- 4 bits with f16 scales: the file's bits, dealt out ------------------------------------ */

/* -8 d in f16, exactly; false when it is not a finite half. */
static bool times_minus_8(uint16_t *out, uint16_t d)
{
    const unsigned exponent = (d >> 10) & 0x1FU;
    uint16_t m;

    if (exponent >= 1 && exponent <= 27) {
        *out = (uint16_t)((d ^ 0x8000U) + (3U << 10));
        return true;
    }
    m = tsr_dtype_to_f16(-8.0F * tsr_dtype_from_f16(d)); // zero, subnormal, or too large
    *out = m;
    return (m & 0x7C00U) != 0x7C00U;
}

static void put_nibbles(uint8_t *tile, int r, const uint8_t *codes)
{
    for (int j = 0; j < 4; j++) {
        store32(tile + 64 * j + 4 * r, load32(codes + 4 * j));
    }
}

static tsr_status pack_q4_0(uint8_t *panel, const void *const *rows, int64_t first, int64_t n_tiles)
{
    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        const uint8_t *from = rows[r];
        uint8_t *tile = panel;

        if (from == NULL) {
            continue;
        }
        from += first * 18;
        for (int64_t t = 0; t < n_tiles; t++, from += 18, tile += Q4_BYTES) {
            uint16_t m;

            if (!times_minus_8(&m, load16(from))) {
                return tsr_fail(TSR_ERR_FORMAT, "a Q4_0 scale of %g is out of range",
                                (double)load_f16(from));
            }
            put_nibbles(tile, r, from + 2);
            store16(tile + Q4_D + 2 * r, load16(from));
            store16(tile + Q4_M + 2 * r, m);
        }
    }
    return TSR_OK;
}

static void pack_q4_1(uint8_t *panel, const void *const *rows, int64_t first, int64_t n_tiles)
{
    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        const uint8_t *from = rows[r];
        uint8_t *tile = panel;

        if (from == NULL) {
            continue;
        }
        from += first * 20;
        for (int64_t t = 0; t < n_tiles; t++, from += 20, tile += Q4_BYTES) {
            put_nibbles(tile, r, from + 4);
            store16(tile + Q4_D + 2 * r, load16(from));
            store16(tile + Q4_M + 2 * r, load16(from + 2));
        }
    }
}

/* ---- 8 bits with f16 scales ---------------------------------------------------------------- */

static void pack_q8_0(uint8_t *panel, const void *const *rows, int64_t first, int64_t n_tiles)
{
    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        const uint8_t *from = rows[r];
        uint8_t *tile = panel;

        if (from == NULL) {
            continue;
        }
        from += first * 34;
        for (int64_t t = 0; t < n_tiles; t++, from += 34, tile += Q8_BYTES) {
            for (int j = 0; j < 8; j++) {
                store32(tile + 64 * j + 4 * r, load32(from + 2 + 4 * j));
            }
            store16(tile + Q8_D + 2 * r, load16(from));
        }
    }
}

/* The 32 five-bit codes of Q5_0 and Q5_1: the fifth bits are a word of their own. */
static void five_bits(int8_t q[TSR_TILE_COLS], uint32_t high, const uint8_t *low, int less)
{
    for (int c = 0; c < HALF_COLS; c++) {
        q[c] = (int8_t)((int)((low[c] & 15U) | ((high >> c & 1U) << 4)) - less);
        q[16 + c] = (int8_t)((int)((low[c] >> 4) | ((high >> (16 + c) & 1U) << 4)) - less);
    }
}

static void put_codes(uint8_t *tile, int r, const int8_t q[TSR_TILE_COLS])
{
    for (int j = 0; j < 8; j++) {
        memcpy(tile + 64 * j + 4 * r, q + 4 * j, 4);
    }
}

static void pack_q5_0(uint8_t *panel, const void *const *rows, int64_t first, int64_t n_tiles)
{
    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        const uint8_t *from = rows[r];
        uint8_t *tile = panel;

        if (from == NULL) {
            continue;
        }
        from += first * 22;
        for (int64_t t = 0; t < n_tiles; t++, from += 22, tile += Q8_BYTES) {
            int8_t q[TSR_TILE_COLS];

            five_bits(q, load32(from + 2), from + 6, 16);
            put_codes(tile, r, q);
            store16(tile + Q8_D + 2 * r, load16(from));
        }
    }
}

/* ---- the K encodings: groups of 256 -------------------------------------------------------- */

static void pack_q4_k(uint8_t *panel, const void *const *rows, int64_t first, int64_t n_tiles)
{
    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        uint8_t *tile = panel;

        for (int64_t t = first; t < first + n_tiles && rows[r] != NULL;
             t++, tile += Q4_WIDE_BYTES) {
            const uint8_t *from = (const uint8_t *)rows[r] + t / 8 * 144;
            const int i = (int)(t % 8);
            const uint8_t *codes = from + 16 + i / 2 * TSR_TILE_COLS;
            const int shift = i % 2 * 4; // even runs in the low nibbles, odd ones in the high
            unsigned scale;
            unsigned minimum;

            tsr_encoding_six_bits(from + 4, i, &scale, &minimum);
            for (int j = 0; j < 4; j++) {
                const uint32_t low = load32(codes + 4 * j) >> shift & 0x0F0F0F0FU;
                const uint32_t high = load32(codes + 16 + 4 * j) >> shift & 0x0F0F0F0FU;

                store32(tile + 64 * j + 4 * r, low | high << 4);
            }
            store_f32(tile + Q4_WIDE_D + 4 * r, load_f16(from) * (float)scale);
            store_f32(tile + Q4_WIDE_M + 4 * r, -(load_f16(from + 2) * (float)minimum));
        }
    }
}

/* ---- runs ---------------------------------------------------------------------------------- */

/* Codes below 16, as Q4 has them. */
static void put_codes_of_4_bits(uint8_t *tile, int r, const int8_t q[TSR_TILE_COLS])
{
    for (int c = 0; c < 16; c++) {
        tile[64 * (c / 4) + 4 * r + c % 4] = (uint8_t)((q[c] & 15) | (q[c + 16] & 15) << 4);
    }
}

void tsr_weight_put_run(tsr_format format, void *panel, int r, int64_t tile,
                        const tsr_encoding_run *run)
{
    uint8_t *to = (uint8_t *)panel + (size_t)tile * formats[format].tile_bytes;

    switch (format) {
    case TSR_FORMAT_Q4:
        put_codes_of_4_bits(to, r, run->q);
        store16(to + Q4_D + 2 * r, tsr_dtype_to_f16(run->d[0]));
        store16(to + Q4_M + 2 * r, tsr_dtype_to_f16(run->m[0]));
        break;
    case TSR_FORMAT_Q4_WIDE:
        put_codes_of_4_bits(to, r, run->q);
        store_f32(to + Q4_WIDE_D + 4 * r, run->d[0]);
        store_f32(to + Q4_WIDE_M + 4 * r, run->m[0]);
        break;
    case TSR_FORMAT_NL4:
    case TSR_FORMAT_FP4:
        put_codes_of_4_bits(to, r, run->q);
        store_f32(to + CODED_D + 4 * r, run->d[0]);
        break;
    case TSR_FORMAT_Q8:
        put_codes(to, r, run->q);
        store16(to + Q8_D + 2 * r, tsr_dtype_to_f16(run->d[0]));
        break;
    case TSR_FORMAT_Q8_WIDE:
        put_codes(to, r, run->q);
        for (int h = 0; h < 2; h++) {
            store_f32(to + Q8_WIDE_D + Q8_WIDE_HALF * h + 4 * r, run->d[h]);
            store_f32(to + Q8_WIDE_M + Q8_WIDE_HALF * h + 4 * r, run->m[h]);
        }
        break;
    case TSR_FORMAT_FP8:
        for (int c = 0; c < TSR_TILE_COLS; c++) {
            to[TSR_PANEL_ROWS * c + r] = (uint8_t)run->q[c];
        }
        store_f32(to + FP8_D + 4 * r, run->d[0]);
        break;
    case TSR_FORMAT_Q4_MIXED:
        put_codes_of_4_bits(to, r, run->q);
        break;
    case TSR_FORMAT_Q8_MIXED:
        put_codes(to, r, run->q);
        break;
    default:
        assert(false); // plain formats have no runs
        break;
    }
}

/* Where a mixed tile says which groups its columns belong to. */
static size_t groups_at(tsr_format format)
{
    return formats[format].tile_bytes - TSR_TILE_COLS * sizeof(uint16_t);
}

void tsr_weight_multiply_panel(void *panel, int64_t n_cols, float factor)
{
    for (int64_t t = 0; t < (n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS; t++) {
        for (int h = 0; h < 2; h++) {
            uint8_t *d = (uint8_t *)panel + t * Q8_WIDE_BYTES + Q8_WIDE_D + Q8_WIDE_HALF * h;

            for (int r = 0; r < TSR_PANEL_ROWS; r++) {
                store_f32(d + 4 * r, load_f32(d + 4 * r) * factor);
            }
        }
    }
}

void tsr_weight_put_groups(tsr_format format, void *panel, int64_t tile,
                           const uint16_t groups[TSR_TILE_COLS])
{
    memcpy((uint8_t *)panel + (size_t)tile * formats[format].tile_bytes + groups_at(format), groups,
           TSR_TILE_COLS * sizeof(*groups));
}

static void pack_runs(tsr_encoding encoding, uint8_t *panel, const void *const *rows, int64_t first,
                      int64_t n_tiles)
{
    const tsr_format format = tsr_weight_format_for(encoding);
    tsr_encoding_read_fn *read = format == TSR_FORMAT_Q8_WIDE ? tsr_encoding_reader(encoding)
                                                              : tsr_encoding_codes_reader(encoding);

    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        for (int64_t t = 0; t < n_tiles && rows[r] != NULL; t++) {
            tsr_encoding_run run;

            read(&run, rows[r], first + t);
            tsr_weight_put_run(format, panel, r, t, &run);
        }
    }
}

tsr_status tsr_weight_pack_panel(tsr_encoding encoding, void *panel, const void *const *rows,
                                 int64_t first_col, int64_t n_cols)
{
    const tsr_format format = tsr_weight_format_for(encoding);
    const int64_t first = first_col / TSR_TILE_COLS;
    const int64_t n_tiles = tiles_across(n_cols);
    bool whole = n_cols % TSR_TILE_COLS == 0;

    if (tsr_weight_is_quantised(format) && (first_col % TSR_TILE_COLS != 0 || !whole)) {
        return tsr_fail(TSR_ERR_ARG, "columns %lld to %lld cut through groups of %d",
                        (long long)first_col, (long long)(first_col + n_cols), TSR_TILE_COLS);
    }
    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        whole = whole && rows[r] != NULL;
    }
    if (!whole) {
        memset(panel, 0, tsr_weight_panel_bytes(format, n_cols));
    }
    switch (encoding) {
    case TSR_ENCODING_F32:
        pack_words(panel, rows, first_col, n_cols);
        break;
    case TSR_ENCODING_F16:
    case TSR_ENCODING_BF16:
        pack_halves(panel, rows, first_col, n_cols);
        break;
    case TSR_ENCODING_Q4_0:
        return pack_q4_0(panel, rows, first, n_tiles);
    case TSR_ENCODING_Q4_1:
        pack_q4_1(panel, rows, first, n_tiles);
        break;
    case TSR_ENCODING_Q4_K:
        pack_q4_k(panel, rows, first, n_tiles);
        break;
    case TSR_ENCODING_Q8_0:
        pack_q8_0(panel, rows, first, n_tiles);
        break;
    case TSR_ENCODING_Q5_0:
        pack_q5_0(panel, rows, first, n_tiles);
        break;
    default:
        pack_runs(encoding, panel, rows, first, n_tiles);
        break;
    }
    return TSR_OK;
}

/* ---- and back ------------------------------------------------------------------------------ */

static int code8(const uint8_t *tile, int r, int c)
{
    return (int8_t)tile[64 * (c / 4) + 4 * r + c % 4];
}

static int code4(const uint8_t *tile, int r, int c)
{
    const uint8_t byte = tile[64 * (c % 16 / 4) + 4 * r + c % 4];

    return c < 16 ? byte & 15 : byte >> 4;
}

static float element(tsr_format format, const uint8_t *tile, int r, int c)
{
    const uint8_t *half = tile + Q8_WIDE_HALF * (c / HALF_COLS) + 4 * r;
    const size_t at = (size_t)(TSR_PANEL_ROWS * c + r);

    switch (format) {
    case TSR_FORMAT_F32:
        return load_f32(tile + 4 * at);
    case TSR_FORMAT_F16:
        return load_f16(tile + 2 * at);
    case TSR_FORMAT_BF16:
        return tsr_dtype_from_bf16(load16(tile + 2 * at));
    case TSR_FORMAT_Q4:
        return load_f16(tile + Q4_D + 2 * r) * (float)code4(tile, r, c) +
               load_f16(tile + Q4_M + 2 * r);
    case TSR_FORMAT_Q4_WIDE:
        return load_f32(tile + Q4_WIDE_D + 4 * r) * (float)code4(tile, r, c) +
               load_f32(tile + Q4_WIDE_M + 4 * r);
    case TSR_FORMAT_Q8:
        return load_f16(tile + Q8_D + 2 * r) * (float)code8(tile, r, c);
    case TSR_FORMAT_Q8_WIDE:
        return load_f32(half + Q8_WIDE_D) * (float)code8(tile, r, c) + load_f32(half + Q8_WIDE_M);
    case TSR_FORMAT_NL4:
        return load_f32(tile + CODED_D + 4 * r) * (float)tsr_encoding_nl4_values[code4(tile, r, c)];
    case TSR_FORMAT_FP4:
        return load_f32(tile + CODED_D + 4 * r) * (float)tsr_encoding_fp4_values[code4(tile, r, c)];
    case TSR_FORMAT_FP8:
        return load_f32(tile + FP8_D + 4 * r) * tsr_dtype_from_fp8(tile[at]);
    default:
        break;
    }
    return 0.0F;
}

/* Its groups are those of the panel. */
static float mixed_element(tsr_format format, const uint8_t *tile, const float *groups, int r,
                           int c)
{
    const int code = format == TSR_FORMAT_Q4_MIXED ? code4(tile, r, c) : code8(tile, r, c);
    const float *group =
        groups + tsr_weight_table_floats(load16(tile + groups_at(format) + 2 * (size_t)c));

    return group[r] * ((float)code - group[TSR_PANEL_ROWS + r]);
}

void tsr_weight_unpack_row(const tsr_weight *weight, int64_t row, float *out)
{
    const size_t tile_bytes = formats[weight->format].tile_bytes;
    const uint8_t *tile =
        (const uint8_t *)weight->tiles +
        (size_t)(row / TSR_PANEL_ROWS) * tsr_weight_panel_bytes(weight->format, weight->n_cols);
    const float *groups = weight->groups;
    const int r = (int)(row % TSR_PANEL_ROWS);

    assert(row >= 0 && row < weight->n_rows);
    if (groups != NULL) {
        groups += row / TSR_PANEL_ROWS * tsr_weight_table_floats(weight->n_groups);
    }
    for (int64_t c = 0; c < weight->n_cols; c++) {
        const uint8_t *at = tile + (size_t)(c / TSR_TILE_COLS) * tile_bytes;
        const int in_tile = (int)(c % TSR_TILE_COLS);

        out[c] = groups != NULL ? mixed_element(weight->format, at, groups, r, in_tile)
                                : element(weight->format, at, r, in_tile);
    }
}
