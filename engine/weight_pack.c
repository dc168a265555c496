#include "engine/weight_pack.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/round_weight.h"

enum {
    MOST_LINES = 1024 // elements of a stored row that are decoded at once
};

static bool is_plain(tsr_encoding encoding)
{
    return tsr_encoding_describe(encoding)->group_elems == 1;
}

/* A plain weight that is to be rounded to fewer bits. */
static bool is_rounded(const tsr_weight_place *place, tsr_format as)
{
    return !place->is_packed && is_plain(place->source->encoding) &&
           (as == TSR_FORMAT_Q8 || as == TSR_FORMAT_Q4 || as == TSR_FORMAT_FP8);
}

static tsr_encoding encoding_for(const tsr_weight_place *place, tsr_format as)
{
    const tsr_encoding stored = place->source->encoding;

    if (is_plain(stored)) {
        return as == TSR_FORMAT_COUNT  ? stored
               : as == TSR_FORMAT_F16  ? TSR_ENCODING_F16
               : as == TSR_FORMAT_BF16 ? TSR_ENCODING_BF16
                                       : TSR_ENCODING_F32;
    }
    return place->transposed ? TSR_ENCODING_F32 : stored;
}

tsr_format tsr_weight_pack_format(const tsr_weight_place *place, tsr_format as, tsr_device_kind on)
{
    if (place->is_packed) {
        return tsr_weight_is_mixed(place->packed.format) && on != TSR_DEVICE_CPU
                   ? TSR_FORMAT_F32
                   : place->packed.format;
    }
    return is_rounded(place, as) ? as : tsr_weight_format_for(encoding_for(place, as));
}

/* Packed weights: the rows that are lines of `rows`, or the columns when they lie transposed. */
static uint64_t packed_bytes(const tsr_weight_place *place, tsr_range rows, tsr_range cols)
{
    const int64_t first = tsr_weight_place_line(place, rows.first);
    const tsr_range lines = {first,
                             tsr_weight_place_line(place, rows.first + rows.count - 1) + 1 - first};

    if (!place->transposed) {
        return tsr_packed_file_bytes(&place->packed, lines, rows.count, cols);
    }
    return tsr_packed_file_bytes(&place->packed, (tsr_range){place->skip + cols.first, cols.count},
                                 cols.count, lines);
}

uint64_t tsr_weight_pack_file_bytes(const tsr_weight_place *place, tsr_range rows, tsr_range cols)
{
    const tsr_encoding_traits *traits;

    if (rows.count <= 0 || cols.count <= 0) {
        return 0;
    }
    if (place->is_packed) {
        return packed_bytes(place, rows, cols);
    }
    traits = tsr_encoding_describe(place->source->encoding);
    return (uint64_t)rows.count * (uint64_t)cols.count / (uint64_t)traits->group_elems *
               (uint64_t)traits->group_bytes +
           (place->factors != NULL ? sizeof(float) : 0);
}

/* A row of the stored matrix. */
static const char *stored_row(const tsr_weight_place *p, int64_t row)
{
    const tsr_stored_tensor *t = p->source;

    return (const char *)t->data + (size_t)(p->matrix * t->shape[1] + row) *
                                       tsr_encoding_row_bytes(t->encoding, t->shape[0]);
}

/* Rows of the weight are columns of the file: of each stored row, the few that this panel wants. */
static void turn(const tsr_weight_pack *pack, float *values, int64_t first, int n_rows)
{
    const tsr_weight_place *p = &pack->place;
    const tsr_encoding encoding = p->source->encoding;
    const int64_t group = tsr_encoding_describe(encoding)->group_elems;
    const int64_t n_cols = pack->cols.count;
    int64_t lines[TSR_PANEL_ROWS];
    int64_t low = INT64_MAX;
    int64_t high = 0;
    float run[MOST_LINES];

    for (int r = 0; r < n_rows; r++) {
        lines[r] = tsr_weight_place_line(p, first + r);
        low = lines[r] < low ? lines[r] : low;
        high = lines[r] + 1 > high ? lines[r] + 1 : high;
    }
    low = low / group * group;
    high = (high + group - 1) / group * group;
    for (int64_t c = 0; c < n_cols; c++) {
        const char *row = stored_row(p, p->skip + pack->cols.first + c);

        if (high - low <= MOST_LINES) {
            tsr_encoding_decode(encoding, run, row, low, high - low);
        }
        for (int r = 0; r < n_rows; r++) {
            if (high - low <= MOST_LINES) {
                values[r * n_cols + c] = run[lines[r] - low];
            } else { // far apart, which only parts of a fused tensor are
                const int64_t start = lines[r] / group * group;

                tsr_encoding_decode(encoding, run, row, start, group);
                values[r * n_cols + c] = run[lines[r] - start];
            }
        }
    }
}

static void widen(const tsr_weight_pack *pack, float *values, int64_t first, int n_rows)
{
    const tsr_weight_place *p = &pack->place;

    for (int r = 0; r < n_rows; r++) {
        tsr_encoding_decode(p->source->encoding, values + r * pack->cols.count,
                            stored_row(p, tsr_weight_place_line(p, first + r)), pack->cols.first,
                            pack->cols.count);
    }
}

/* In place: 16-bit numbers take the front half of each row's f32 numbers. */
static void narrow(float *values, int64_t n, tsr_encoding to)
{
    uint16_t *halves = (uint16_t *)(void *)values;

    for (int64_t i = 0; i < n && to != TSR_ENCODING_F32; i++) {
        float value;
        uint16_t half;

        memcpy(&value, &values[i], sizeof(value));
        half = to == TSR_ENCODING_F16 ? tsr_dtype_to_f16(value) : tsr_dtype_to_bf16(value);
        memcpy(&halves[i], &half, sizeof(half));
    }
}

static tsr_status make_bench(tsr_weight_pack_bench *bench, int64_t n_cols)
{
    float *grown;

    if (bench->n_cols >= n_cols) {
        return TSR_OK;
    }
    grown = tsr_alloc_resize(bench->values, (size_t)n_cols * TSR_PANEL_ROWS, sizeof(*grown));
    if (grown == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %lld columns of weights", (long long)n_cols);
    }
    *bench = (tsr_weight_pack_bench){grown, n_cols};
    return TSR_OK;
}

/* Which groups the columns of a mixed panel are in, and the table of these. */
static tsr_status put_groups(const tsr_weight_pack *pack, char *to, float *table, int64_t first,
                             int n_rows)
{
    const tsr_packed *packed = &pack->place.packed;

    for (int64_t t = 0; t < pack->cols.count / TSR_TILE_COLS; t++) {
        uint16_t groups[TSR_TILE_COLS];

        tsr_packed_groups(packed, groups, pack->cols.first / TSR_TILE_COLS + t);
        tsr_weight_put_groups(packed->format, to, t, groups);
    }
    memset(table, 0, (size_t)tsr_weight_table_floats(packed->n_groups) * sizeof(*table));
    for (int r = 0; r < n_rows; r++) {
        const int64_t row = tsr_weight_place_line(&pack->place, first + r);

        for (int64_t g = 0; g < packed->n_groups; g++) {
            float *of_group = table + tsr_weight_table_floats(g);

            TSR_TRY(tsr_packed_group(packed, &of_group[r], &of_group[TSR_PANEL_ROWS + r], row, g));
        }
    }
    return TSR_OK;
}

/* A panel of a packed weight, its rows written run by run. */
static tsr_status put_runs(const tsr_weight_pack *pack, char *to, int64_t first, int n_rows)
{
    const tsr_packed *packed = &pack->place.packed;
    const int64_t first_tile = pack->cols.first / TSR_TILE_COLS;

    // Every cut is a multiple of a tile (parallel/shard.h), and so is the whole (engine/packed.h).
    assert(pack->cols.first % TSR_TILE_COLS == 0 && pack->cols.count % TSR_TILE_COLS == 0);
    memset(to, 0, pack->panel_bytes);
    for (int r = 0; r < n_rows; r++) {
        const int64_t row = tsr_weight_place_line(&pack->place, first + r);

        for (int64_t t = 0; t < pack->cols.count / TSR_TILE_COLS; t++) {
            tsr_encoding_run run;

            TSR_TRY(tsr_packed_run(packed, &run, row, first_tile + t));
            tsr_weight_put_run(packed->format, to, r, t, &run);
        }
    }
    return TSR_OK;
}

/* The values of a packed weight's rows. */
static tsr_status open_packed(const tsr_weight_pack *pack, float *values, int64_t first, int n_rows)
{
    const tsr_weight_place *p = &pack->place;
    const int64_t n_cols = pack->cols.count;

    for (int r = 0; r < n_rows; r++) {
        const int64_t line = tsr_weight_place_line(p, first + r);

        if (!p->transposed) {
            TSR_TRY(
                tsr_packed_values(&p->packed, values + r * n_cols, line, pack->cols.first, n_cols));
            continue;
        }
        for (int64_t c = 0; c < n_cols; c++) {
            TSR_TRY(tsr_packed_values(&p->packed, values + r * n_cols + c,
                                      p->skip + pack->cols.first + c, line, 1));
        }
    }
    return TSR_OK;
}

/* A panel's values in bench->values. */
static tsr_status open_rows(const tsr_weight_pack *pack, float *values, int64_t first, int n_rows)
{
    const float factor = tsr_weight_place_factor(&pack->place);

    if (pack->place.is_packed) {
        return open_packed(pack, values, first, n_rows);
    }
    if (pack->place.transposed) {
        turn(pack, values, first, n_rows);
    } else {
        widen(pack, values, first, n_rows);
    }
    for (int64_t i = 0; pack->place.factors != NULL && i < n_rows * pack->cols.count; i++) {
        values[i] *= factor;
    }
    return TSR_OK;
}

/* A panel of values, each 32 of them rounded to one scale. */
static tsr_status put_rounded(const tsr_weight_pack *pack, char *to, const float *values,
                              int n_rows)
{
    memset(to, 0, pack->panel_bytes);
    for (int r = 0; r < n_rows; r++) {
        for (int64_t t = 0; t < pack->cols.count / TSR_TILE_COLS; t++) {
            const float *from = values + r * pack->cols.count + t * TSR_TILE_COLS;
            tsr_encoding_run run;

            if (!isfinite(tsr_round_weight(pack->as, &run, from, TSR_TILE_COLS))) {
                return tsr_fail(TSR_ERR_FORMAT, "there are weights that cannot be rounded to %s",
                                tsr_weight_format_name(pack->as));
            }
            tsr_weight_put_run(pack->as, to, r, t, &run);
        }
    }
    return TSR_OK;
}

tsr_status tsr_weight_pack_one(const tsr_weight_pack *pack, tsr_weight_pack_bench *bench,
                               int64_t panel)
{
    const tsr_weight_place *p = &pack->place;
    const int64_t at = panel * TSR_PANEL_ROWS;
    const int64_t left = pack->rows.count - at;
    const int n_rows = left < TSR_PANEL_ROWS ? (int)left : TSR_PANEL_ROWS;
    const int64_t first = pack->rows.first + at;
    const tsr_encoding as = p->is_packed ? TSR_ENCODING_F32 : encoding_for(p, pack->as);
    char *to = pack->panels + (size_t)panel * pack->panel_bytes;
    const void *rows[TSR_PANEL_ROWS] = {NULL};

    if (tsr_weight_is_mixed(pack->format)) {
        TSR_TRY(put_runs(pack, to, first, n_rows));
        return put_groups(pack, to,
                          pack->groups + panel * tsr_weight_table_floats(p->packed.n_groups), first,
                          n_rows);
    }
    if (p->is_packed && pack->format != TSR_FORMAT_F32) {
        return put_runs(pack, to, first, n_rows);
    }
    if (!p->is_packed && !p->transposed && !is_rounded(p, pack->as) && as == p->source->encoding) {
        for (int r = 0; r < n_rows; r++) {
            rows[r] = stored_row(p, tsr_weight_place_line(p, first + r));
        }
        TSR_TRY(tsr_weight_pack_panel(as, to, rows, pack->cols.first, pack->cols.count));
        if (p->factors != NULL) {
            assert(pack->format == TSR_FORMAT_Q8_WIDE);
            tsr_weight_multiply_panel(to, pack->cols.count, tsr_weight_place_factor(p));
        }
        return TSR_OK;
    }
    TSR_TRY(make_bench(bench, pack->cols.count));
    TSR_TRY(open_rows(pack, bench->values, first, n_rows));
    if (is_rounded(p, pack->as)) {
        return put_rounded(pack, to, bench->values, n_rows);
    }
    for (int r = 0; r < n_rows; r++) {
        float *row = bench->values + r * pack->cols.count;

        narrow(row, pack->cols.count, as);
        rows[r] = row;
    }
    return tsr_weight_pack_panel(as, to, rows, 0, pack->cols.count);
}

void tsr_weight_pack_clear(tsr_weight_pack_bench *bench)
{
    tsr_free(bench->values);
    *bench = (tsr_weight_pack_bench){0};
}
