#include "engine/step.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"

/* Ints at the head of a message; the arrays follow in the order of the struct. */
enum {
    AT_N_INTS,
    AT_KIND,
    AT_N_ROWS,
    AT_N_SEQS,
    AT_N_DROPPED,
    AT_N_APPENDED,
    AT_N_WANTED,
    AT_N_BEST,
    AT_MAY_ASK,
    AT_N_RAW,
    AT_N_RAW_BEST,
    AT_N_ADJUSTED,
    AT_N_ENTRIES,
    HEAD_INTS
};

enum {
    MOST_ENTRIES = INT32_MAX / 8 // so that a message's count of ints fits
};

_Static_assert(sizeof(float) == sizeof(int32_t), "a sharpness travels as the bits of one int");

static tsr_status check_limits(const tsr_step_limits *limits)
{
    if (limits->max_rows < 1 || limits->max_seqs < 1 || limits->max_blocks < 1 ||
        limits->block_tokens < 1 || limits->n_block_ids < 1 || limits->n_vocab < 1) {
        return tsr_fail(TSR_ERR_ARG,
                        "step: limits of %d rows, %d sequences, %d blocks of %d tokens, %d block "
                        "ids and %d tokens must all be positive",
                        limits->max_rows, limits->max_seqs, limits->max_blocks,
                        limits->block_tokens, limits->n_block_ids, limits->n_vocab);
    }
    if ((int64_t)limits->max_blocks * limits->block_tokens > INT32_MAX) {
        return tsr_fail(TSR_ERR_ARG, "step: %d blocks of %d tokens have positions beyond 32 bits",
                        limits->max_blocks, limits->block_tokens);
    }
    return TSR_OK;
}

static size_t memory_ints(const tsr_step_limits *limits)
{
    return 5 * (size_t)limits->max_rows + 6 * (size_t)limits->max_seqs + 2 +
           4 * (size_t)limits->n_block_ids;
}

size_t tsr_step_table_bytes(const tsr_step_limits *limits)
{
    return memory_ints(limits) * sizeof(int32_t);
}

tsr_status tsr_step_init(tsr_step *step, const tsr_step_limits *limits)
{
    size_t max_rows, max_seqs, n_ids;
    int32_t *at;
    tsr_step made = {.limits = *limits};

    TSR_TRY(check_limits(limits));
    max_rows = (size_t)limits->max_rows;
    max_seqs = (size_t)limits->max_seqs;
    n_ids = (size_t)limits->n_block_ids;
    made.memory = tsr_alloc(memory_ints(limits), sizeof(*made.memory));
    if (made.memory == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "step: no memory for %d rows and %d block ids",
                        limits->max_rows, limits->n_block_ids);
    }
    at = made.memory;
    made.tokens = at;
    made.row_start = at += max_rows;
    made.first_pos = at += max_seqs + 1;
    made.lanes = at += max_seqs;
    made.marks = at += max_seqs;
    made.wanted = at += max_seqs;
    made.targets = at += max_rows;
    made.sharpness = (float *)(at += max_rows);
    made.raw = at += max_rows;
    made.adjusted = at += max_rows;
    made.adjust_start = at += max_seqs;
    made.dropped = at += max_seqs + 1;
    made.append_lane = at += n_ids;
    made.append_index = at += n_ids;
    made.append_block = at + n_ids;
    tsr_step_reset(&made);
    *step = made;
    return TSR_OK;
}

void tsr_step_clear(tsr_step *step)
{
    tsr_free(step->entry_memory);
    tsr_free(step->memory);
    *step = (tsr_step){0};
}

void tsr_step_reset(tsr_step *step)
{
    step->kind = TSR_STEP_RUN;
    step->n_rows = 0;
    step->n_seqs = 0;
    step->row_start[0] = 0;
    step->n_dropped = 0;
    step->n_appended = 0;
    step->n_wanted = 0;
    step->n_best = 1;
    step->may_ask = 0;
    step->n_raw = 0;
    step->n_raw_best = 1;
    step->n_adjusted = 0;
    step->adjust_start[0] = 0;
    step->n_entries = 0;
}

tsr_status tsr_step_reserve(tsr_step *step, int64_t n)
{
    int64_t room = 2 * (int64_t)step->max_entries;
    tsr_step had = *step;
    int32_t *made;

    if (n <= step->max_entries) {
        return TSR_OK;
    }
    room = room < n ? n : room;
    made = room > MOST_ENTRIES ? NULL : tsr_alloc((size_t)room * 3, sizeof(*made));
    if (made == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "step: no memory to change %lld logits", (long long)n);
    }
    step->entry_memory = made;
    step->max_entries = (int32_t)room;
    step->entry_ids = made;
    step->entry_factors = (float *)(made + room);
    step->entry_adds = (float *)(made + 2 * room);
    if (had.n_entries > 0) {
        const size_t n_bytes = (size_t)had.n_entries * sizeof(*made);

        memcpy(step->entry_ids, had.entry_ids, n_bytes);
        memcpy(step->entry_factors, had.entry_factors, n_bytes);
        memcpy(step->entry_adds, had.entry_adds, n_bytes);
    }
    tsr_free(had.entry_memory);
    return TSR_OK;
}

size_t tsr_step_max_ints(const tsr_step_limits *limits)
{
    // A sequence has one row at most whose logits are changed, each of them once.
    return HEAD_INTS + 5 * (size_t)limits->max_rows + 5 * (size_t)limits->max_seqs +
           4 * (size_t)limits->n_block_ids + 3 * (size_t)limits->max_seqs * (size_t)limits->n_vocab;
}

size_t tsr_step_n_ints(const tsr_step *step)
{
    if (step->kind != TSR_STEP_RUN) {
        return HEAD_INTS;
    }
    return HEAD_INTS + (size_t)step->n_rows + 3 * (size_t)step->n_seqs + (size_t)step->n_dropped +
           3 * (size_t)step->n_appended + 3 * (size_t)step->n_wanted + (size_t)step->n_raw +
           2 * (size_t)step->n_adjusted + 3 * (size_t)step->n_entries;
}

/* ---- writing ---- */

static int32_t *put(int32_t *to, const void *ints, int32_t n)
{
    if (n > 0) {
        memcpy(to, ints, (size_t)n * sizeof(*to));
    }
    return to + n;
}

size_t tsr_step_pack(const tsr_step *step, int32_t *message)
{
    const bool runs = step->kind == TSR_STEP_RUN;
    int32_t *at = message + HEAD_INTS;

    message[AT_KIND] = step->kind;
    message[AT_N_ROWS] = runs ? step->n_rows : 0;
    message[AT_N_SEQS] = runs ? step->n_seqs : 0;
    message[AT_N_DROPPED] = runs ? step->n_dropped : 0;
    message[AT_N_APPENDED] = runs ? step->n_appended : 0;
    message[AT_N_WANTED] = runs ? step->n_wanted : 0;
    message[AT_N_BEST] = step->n_best;
    message[AT_MAY_ASK] = step->may_ask;
    message[AT_N_RAW] = runs ? step->n_raw : 0;
    message[AT_N_RAW_BEST] = step->n_raw_best;
    message[AT_N_ADJUSTED] = runs ? step->n_adjusted : 0;
    message[AT_N_ENTRIES] = runs ? step->n_entries : 0;
    if (runs) {
        at = put(at, step->tokens, step->n_rows);
        at = put(at, step->row_start + 1, step->n_seqs); // the first is always 0
        at = put(at, step->first_pos, step->n_seqs);
        at = put(at, step->lanes, step->n_seqs);
        at = put(at, step->dropped, step->n_dropped);
        at = put(at, step->append_lane, step->n_appended);
        at = put(at, step->append_index, step->n_appended);
        at = put(at, step->append_block, step->n_appended);
        at = put(at, step->wanted, step->n_wanted);
        at = put(at, step->targets, step->n_wanted);
        at = put(at, step->sharpness, step->n_wanted);
        at = put(at, step->raw, step->n_raw);
        at = put(at, step->adjusted, step->n_adjusted);
        at = put(at, step->adjust_start + 1, step->n_adjusted); // the first is always 0
        at = put(at, step->entry_ids, step->n_entries);
        at = put(at, step->entry_factors, step->n_entries);
        at = put(at, step->entry_adds, step->n_entries);
    }
    message[AT_N_INTS] = (int32_t)(at - message);
    return (size_t)(at - message);
}

/* ---- reading ---- */

/* A packed step as it lies in the message. */
typedef struct packed {
    const int32_t *head;
    const int32_t *tokens;
    const int32_t *row_ends;
    const int32_t *first_pos;
    const int32_t *lanes;
    const int32_t *dropped;
    const int32_t *append_lane;
    const int32_t *append_index;
    const int32_t *append_block;
    const int32_t *wanted;
    const int32_t *targets;
    const int32_t *sharpness; // bits of floats
    const int32_t *raw;
    const int32_t *adjusted;
    const int32_t *adjust_ends;
    const int32_t *entry_ids;
    const int32_t *entry_factors; // bits of floats
    const int32_t *entry_adds;    // bits of floats
} packed;

static tsr_status check_count(const char *what, int32_t n, int64_t max)
{
    if (n < 0 || n > max) {
        return tsr_fail(TSR_ERR_FORMAT, "step: %d %s, at most %lld are possible", (int)n, what,
                        (long long)max);
    }
    return TSR_OK;
}

static float float_at(const int32_t *bits, int32_t i)
{
    float value;

    memcpy(&value, &bits[i], sizeof(value));
    return value;
}

static tsr_status check_indices(const char *what, const int32_t *values, int32_t n, int32_t first,
                                int32_t end)
{
    for (int32_t i = 0; i < n; i++) {
        if (values[i] < first || values[i] >= end) {
            return tsr_fail(TSR_ERR_FORMAT, "step: %s %d is %d, not in [%d, %d)", what, (int)i,
                            (int)values[i], (int)first, (int)end);
        }
    }
    return TSR_OK;
}

/* Counts first: with them the places of the arrays are known to lie within the message. */
static tsr_status open_message(packed *in, const tsr_step_limits *limits, const int32_t *message,
                               size_t n_ints)
{
    const int32_t *at = message + HEAD_INTS;
    int64_t n_needed;

    if (n_ints < HEAD_INTS) {
        return tsr_fail(TSR_ERR_FORMAT, "step: a message of %zu ints, its head alone has %d",
                        n_ints, HEAD_INTS);
    }
    if (message[AT_KIND] < 0 || message[AT_KIND] >= TSR_STEP_KIND_COUNT) {
        return tsr_fail(TSR_ERR_FORMAT, "step: kind %d is unknown", (int)message[AT_KIND]);
    }
    TSR_TRY(check_count("rows", message[AT_N_ROWS], limits->max_rows));
    TSR_TRY(check_count("sequences", message[AT_N_SEQS], limits->max_seqs));
    TSR_TRY(check_count("dropped blocks", message[AT_N_DROPPED], limits->n_block_ids));
    TSR_TRY(check_count("appended blocks", message[AT_N_APPENDED], limits->n_block_ids));
    TSR_TRY(check_count("wanted rows", message[AT_N_WANTED], message[AT_N_ROWS]));
    TSR_TRY(check_indices("candidate count", &message[AT_N_BEST], 1, 1, INT32_MAX));
    TSR_TRY(check_indices("may_ask", &message[AT_MAY_ASK], 1, 0, 2));
    if (message[AT_N_BEST] > limits->n_vocab) {
        return tsr_fail(TSR_ERR_FORMAT, "step: %d candidates of a vocabulary of %d",
                        (int)message[AT_N_BEST], limits->n_vocab);
    }
    TSR_TRY(check_count("rows looked at twice", message[AT_N_RAW], message[AT_N_WANTED]));
    TSR_TRY(check_indices("candidate count of the first look", &message[AT_N_RAW_BEST], 1, 1,
                          limits->n_vocab + 1));
    TSR_TRY(check_count("changed rows", message[AT_N_ADJUSTED], limits->max_seqs));
    TSR_TRY(check_count("changed rows", message[AT_N_ADJUSTED], message[AT_N_WANTED]));
    TSR_TRY(check_count("changed logits", message[AT_N_ENTRIES],
                        (int64_t)message[AT_N_ADJUSTED] * limits->n_vocab));
    n_needed = HEAD_INTS + (int64_t)message[AT_N_ROWS] + 3 * (int64_t)message[AT_N_SEQS] +
               message[AT_N_DROPPED] + 3 * (int64_t)message[AT_N_APPENDED] +
               3 * (int64_t)message[AT_N_WANTED] + message[AT_N_RAW] +
               2 * (int64_t)message[AT_N_ADJUSTED] + 3 * (int64_t)message[AT_N_ENTRIES];
    if (message[AT_N_INTS] != n_needed || (size_t)n_needed > n_ints) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "step: the counts ask for %lld ints, the message says %d and has %zu",
                        (long long)n_needed, (int)message[AT_N_INTS], n_ints);
    }
    in->head = message;
    in->tokens = at;
    in->row_ends = at += message[AT_N_ROWS];
    in->first_pos = at += message[AT_N_SEQS];
    in->lanes = at += message[AT_N_SEQS];
    in->dropped = at += message[AT_N_SEQS];
    in->append_lane = at += message[AT_N_DROPPED];
    in->append_index = at += message[AT_N_APPENDED];
    in->append_block = at += message[AT_N_APPENDED];
    in->wanted = at += message[AT_N_APPENDED];
    in->targets = at += message[AT_N_WANTED];
    in->sharpness = at += message[AT_N_WANTED];
    in->raw = at += message[AT_N_WANTED];
    in->adjusted = at += message[AT_N_RAW];
    in->adjust_ends = at += message[AT_N_ADJUSTED];
    in->entry_ids = at += message[AT_N_ADJUSTED];
    in->entry_factors = at += message[AT_N_ENTRIES];
    in->entry_adds = at + message[AT_N_ENTRIES];
    return TSR_OK;
}

static tsr_status check_sequences(const packed *in, const tsr_step_limits *limits, int32_t *marks)
{
    const int32_t n_seqs = in->head[AT_N_SEQS];
    const int64_t n_positions = (int64_t)limits->max_blocks * limits->block_tokens;
    int32_t row = 0;
    int32_t twice = -1;

    for (int32_t s = 0; s < n_seqs; s++) {
        const int64_t n_rows = (int64_t)in->row_ends[s] - row;

        if (n_rows < 1 || in->row_ends[s] > in->head[AT_N_ROWS]) {
            return tsr_fail(TSR_ERR_FORMAT, "step: sequence %d has rows %d to %d of %d", (int)s,
                            (int)row, (int)in->row_ends[s], (int)in->head[AT_N_ROWS]);
        }
        if (in->first_pos[s] < 0 || in->first_pos[s] + n_rows > n_positions) {
            return tsr_fail(TSR_ERR_FORMAT,
                            "step: sequence %d has %lld rows from position %d, its blocks hold "
                            "%lld",
                            (int)s, (long long)n_rows, (int)in->first_pos[s],
                            (long long)n_positions);
        }
        row = in->row_ends[s];
    }
    if (row != in->head[AT_N_ROWS]) {
        return tsr_fail(TSR_ERR_FORMAT, "step: %d of %d rows belong to a sequence", (int)row,
                        (int)in->head[AT_N_ROWS]);
    }
    TSR_TRY(check_indices("lane", in->lanes, n_seqs, 0, limits->max_seqs));
    for (int32_t s = 0; s < n_seqs; s++) {
        twice = marks[in->lanes[s]] != 0 ? in->lanes[s] : twice;
        marks[in->lanes[s]] = 1;
    }
    for (int32_t s = 0; s < n_seqs; s++) {
        marks[in->lanes[s]] = 0;
    }
    if (twice >= 0) {
        return tsr_fail(TSR_ERR_FORMAT, "step: lane %d is in it twice", (int)twice);
    }
    return TSR_OK;
}

static tsr_status check_wanted(const packed *in, const tsr_step_limits *limits)
{
    int32_t least = 0;

    TSR_TRY(check_indices("target", in->targets, in->head[AT_N_WANTED], -1, limits->n_vocab));
    for (int32_t i = 0; i < in->head[AT_N_WANTED]; i++) {
        if (in->wanted[i] < least || in->wanted[i] >= in->head[AT_N_ROWS]) {
            return tsr_fail(TSR_ERR_FORMAT, "step: wanted row %d is row %d, not in [%d, %d)",
                            (int)i, (int)in->wanted[i], (int)least, (int)in->head[AT_N_ROWS]);
        }
        least = in->wanted[i] + 1;
        if (!isfinite(float_at(in->sharpness, i)) || !(float_at(in->sharpness, i) > 0.0f)) {
            return tsr_fail(TSR_ERR_FORMAT, "step: wanted row %d has sharpness %g", (int)i,
                            (double)float_at(in->sharpness, i));
        }
    }
    return TSR_OK;
}

/* Numbers of wanted rows, each above the one before it. */
static tsr_status check_rising(const char *what, const int32_t *rows, int32_t n, int32_t n_wanted)
{
    for (int32_t i = 0; i < n; i++) {
        const int32_t least = i == 0 ? 0 : rows[i - 1] + 1;

        if (rows[i] < least || rows[i] >= n_wanted) {
            return tsr_fail(TSR_ERR_FORMAT, "step: %s %d is wanted row %d, not in [%d, %d)", what,
                            (int)i, (int)rows[i], (int)least, (int)n_wanted);
        }
    }
    return TSR_OK;
}

static tsr_status check_entries(const packed *in, const tsr_step_limits *limits)
{
    int32_t at = 0;

    for (int32_t a = 0; a < in->head[AT_N_ADJUSTED]; a++) {
        int32_t least = 0;

        if (in->adjust_ends[a] < at || in->adjust_ends[a] > in->head[AT_N_ENTRIES]) {
            return tsr_fail(TSR_ERR_FORMAT, "step: changed row %d has entries %d to %d of %d",
                            (int)a, (int)at, (int)in->adjust_ends[a], (int)in->head[AT_N_ENTRIES]);
        }
        for (; at < in->adjust_ends[a]; at++) {
            const float factor = float_at(in->entry_factors, at);

            if (in->entry_ids[at] < least || in->entry_ids[at] >= limits->n_vocab) {
                return tsr_fail(TSR_ERR_FORMAT, "step: entry %d is of token %d, not in [%d, %d)",
                                (int)at, (int)in->entry_ids[at], (int)least, limits->n_vocab);
            }
            least = in->entry_ids[at] + 1;
            if (!isfinite(factor) || !(factor > 0.0F) || isnan(float_at(in->entry_adds, at))) {
                return tsr_fail(TSR_ERR_FORMAT, "step: entry %d has factor %g and addend %g",
                                (int)at, (double)factor, (double)float_at(in->entry_adds, at));
            }
        }
    }
    if (at != in->head[AT_N_ENTRIES]) {
        return tsr_fail(TSR_ERR_FORMAT, "step: %d of %d entries belong to a row", (int)at,
                        (int)in->head[AT_N_ENTRIES]);
    }
    return TSR_OK;
}

static void get(void *ints, const int32_t *from, int32_t n)
{
    if (n > 0) {
        memcpy(ints, from, (size_t)n * sizeof(*from));
    }
}

tsr_status tsr_step_unpack(tsr_step *step, const int32_t *message, size_t n_ints)
{
    const tsr_step_limits *limits = &step->limits;
    packed in = {0};

    TSR_TRY(open_message(&in, limits, message, n_ints));
    TSR_TRY(check_indices("token", in.tokens, message[AT_N_ROWS], 0, limits->n_vocab));
    TSR_TRY(check_sequences(&in, limits, step->marks));
    TSR_TRY(
        check_indices("dropped block", in.dropped, message[AT_N_DROPPED], 0, limits->n_block_ids));
    TSR_TRY(check_indices("lane of appended block", in.append_lane, message[AT_N_APPENDED], 0,
                          limits->max_seqs));
    TSR_TRY(check_indices("place of appended block", in.append_index, message[AT_N_APPENDED], 0,
                          limits->max_blocks));
    TSR_TRY(check_indices("appended block", in.append_block, message[AT_N_APPENDED], 0,
                          limits->n_block_ids));
    TSR_TRY(check_wanted(&in, limits));
    TSR_TRY(check_rising("row looked at twice", in.raw, message[AT_N_RAW], message[AT_N_WANTED]));
    TSR_TRY(check_rising("changed row", in.adjusted, message[AT_N_ADJUSTED], message[AT_N_WANTED]));
    TSR_TRY(check_entries(&in, limits));
    TSR_TRY(tsr_step_reserve(step, message[AT_N_ENTRIES]));

    step->kind = message[AT_KIND];
    step->n_rows = message[AT_N_ROWS];
    step->n_seqs = message[AT_N_SEQS];
    step->n_dropped = message[AT_N_DROPPED];
    step->n_appended = message[AT_N_APPENDED];
    step->n_wanted = message[AT_N_WANTED];
    step->n_best = message[AT_N_BEST];
    step->may_ask = message[AT_MAY_ASK];
    step->n_raw = message[AT_N_RAW];
    step->n_raw_best = message[AT_N_RAW_BEST];
    step->n_adjusted = message[AT_N_ADJUSTED];
    step->n_entries = message[AT_N_ENTRIES];
    get(step->tokens, in.tokens, step->n_rows);
    step->row_start[0] = 0;
    get(step->row_start + 1, in.row_ends, step->n_seqs);
    get(step->first_pos, in.first_pos, step->n_seqs);
    get(step->lanes, in.lanes, step->n_seqs);
    get(step->dropped, in.dropped, step->n_dropped);
    get(step->append_lane, in.append_lane, step->n_appended);
    get(step->append_index, in.append_index, step->n_appended);
    get(step->append_block, in.append_block, step->n_appended);
    get(step->wanted, in.wanted, step->n_wanted);
    get(step->targets, in.targets, step->n_wanted);
    get(step->sharpness, in.sharpness, step->n_wanted);
    get(step->raw, in.raw, step->n_raw);
    get(step->adjusted, in.adjusted, step->n_adjusted);
    step->adjust_start[0] = 0;
    get(step->adjust_start + 1, in.adjust_ends, step->n_adjusted);
    get(step->entry_ids, in.entry_ids, step->n_entries);
    get(step->entry_factors, in.entry_factors, step->n_entries);
    get(step->entry_adds, in.entry_adds, step->n_entries);
    return TSR_OK;
}
