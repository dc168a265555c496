#include "engine/weight_pack.h"

#include <string.h>

#include "base/alloc.h"

enum {
    MOST_LINES = 1024 // elements of a stored row that are decoded at once
};

static bool is_plain(tsr_encoding encoding)
{
    return tsr_encoding_describe(encoding)->group_elems == 1;
}

tsr_encoding tsr_weight_pack_encoding(const tsr_weight_place *place, tsr_encoding as)
{
    const tsr_encoding stored = place->source->encoding;

    if (is_plain(stored)) {
        return as == TSR_ENCODING_COUNT ? stored : as;
    }
    return place->transposed ? TSR_ENCODING_F32 : stored;
}

uint64_t tsr_weight_pack_file_bytes(const tsr_weight_place *place, int64_t n_rows, int64_t n_cols)
{
    const tsr_encoding_traits *traits = tsr_encoding_describe(place->source->encoding);
    const uint64_t n_elems = (uint64_t)n_rows * (uint64_t)n_cols;

    return n_elems / (uint64_t)traits->group_elems * (uint64_t)traits->group_bytes;
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

tsr_status tsr_weight_pack_one(const tsr_weight_pack *pack, tsr_weight_pack_bench *bench,
                               int64_t panel)
{
    const tsr_weight_place *p = &pack->place;
    const int64_t at = panel * TSR_PANEL_ROWS;
    const int64_t left = pack->rows.count - at;
    const int n_rows = left < TSR_PANEL_ROWS ? (int)left : TSR_PANEL_ROWS;
    char *to = pack->panels + (size_t)panel * pack->panel_bytes;
    const void *rows[TSR_PANEL_ROWS] = {NULL};

    if (!p->transposed && pack->to == p->source->encoding) {
        for (int r = 0; r < n_rows; r++) {
            rows[r] = stored_row(p, tsr_weight_place_line(p, pack->rows.first + at + r));
        }
        return tsr_weight_pack_panel(pack->to, to, rows, pack->cols.first, pack->cols.count);
    }
    TSR_TRY(make_bench(bench, pack->cols.count));
    if (p->transposed) {
        turn(pack, bench->values, pack->rows.first + at, n_rows);
    } else {
        widen(pack, bench->values, pack->rows.first + at, n_rows);
    }
    for (int r = 0; r < n_rows; r++) {
        float *row = bench->values + r * pack->cols.count;

        narrow(row, pack->cols.count, pack->to);
        rows[r] = row;
    }
    return tsr_weight_pack_panel(pack->to, to, rows, 0, pack->cols.count);
}

void tsr_weight_pack_clear(tsr_weight_pack_bench *bench)
{
    tsr_free(bench->values);
    *bench = (tsr_weight_pack_bench){0};
}
