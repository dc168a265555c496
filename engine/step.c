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
    AT_N_LEFT,
    AT_N_APPENDED,
    AT_N_COPIED,
    AT_N_WANTED,
    AT_N_BEST,
    AT_MAY_ASK,
    AT_WAITS,
    AT_N_RAW,
    AT_N_RAW_BEST,
    AT_N_ADJUSTED,
    AT_N_ENTRIES,
    HEAD_INTS
};

enum {
    MOST_ENTRIES = INT32_MAX / 8, // so that a message's count of ints fits
    MOST_APPENDED = INT32_MAX / 8
};

_Static_assert(sizeof(float) == sizeof(int32_t), "a sharpness travels as the bits of one int");

static tsr_status check_limits(const tsr_step_limits *limits)
{
    if (limits->max_rows < 1 || limits->max_seqs < 1 || limits->max_blocks < 1 ||
        limits->n_groups < 1 || limits->block_tokens < 1 || limits->n_block_ids < 1 ||
        limits->n_vocab < 1) {
        return tsr_fail(TSR_ERR_ARG,
                        "step: %d rows, %d sequences of %d blocks of %d tokens in %d "
                        "groups, %d block ids, %d tokens: all must be positive",
                        limits->max_rows, limits->max_seqs, limits->max_blocks,
                        limits->block_tokens, limits->n_groups, limits->n_block_ids,
                        limits->n_vocab);
    }
    if ((int64_t)limits->max_blocks * limits->block_tokens > INT32_MAX ||
        (int64_t)limits->max_blocks * limits->n_groups > INT32_MAX) {
        return tsr_fail(TSR_ERR_ARG, "step: %d blocks of %d tokens have positions beyond 32 bits",
                        limits->max_blocks, limits->block_tokens);
    }
    return TSR_OK;
}

tsr_status tsr_step_init(tsr_step *step, const tsr_step_limits *limits)
{
    size_t max_rows, max_seqs, n_ids;
    int32_t *at;
    tsr_step made = {.limits = *limits};
    tsr_status st = TSR_OK;

    TSR_TRY(check_limits(limits));
    max_rows = (size_t)limits->max_rows;
    max_seqs = (size_t)limits->max_seqs;
    n_ids = (size_t)limits->n_block_ids;
    made.memory = tsr_alloc(tsr_step_array_ints(limits), sizeof(*made.memory));
    if (made.memory == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "step: no memory for %d rows and %d block ids",
                        limits->max_rows, limits->n_block_ids);
    }
    at = made.memory;
    made.tokens = at;
    made.row_start = at += max_rows;
    made.first_pos = at += max_seqs + 1;
    made.lanes = at += max_seqs;
    made.is_long = at += max_seqs;
    made.marks = at += max_seqs;
    made.wanted = at += max_seqs;
    made.targets = at += max_rows;
    made.sharpness = (float *)(at += max_rows);
    made.raw = at += max_rows;
    made.adjusted = at += max_rows;
    made.adjust_start = at += max_seqs;
    made.dropped = at += max_seqs + 1;
    made.left = at += n_ids;
    made.copy_from = at += max_seqs;
    made.copy_to = at + max_seqs * (size_t)limits->n_groups;
    tsr_step_reset(&made);
    TSR_TRY_GOTO(st, fail, tsr_step_reserve_appended(&made, limits->n_block_ids));
    *step = made;
    return TSR_OK;

fail:
    tsr_step_clear(&made);
    return st;
}

void tsr_step_clear(tsr_step *step)
{
    tsr_free(step->entry_memory);
    tsr_free(step->table_memory);
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
    step->n_left = 0;
    step->n_appended = 0;
    step->n_copied = 0;
    step->n_wanted = 0;
    step->n_best = 1;
    step->may_ask = 0;
    step->waits = 0;
    step->n_raw = 0;
    step->n_raw_best = 1;
    step->n_adjusted = 0;
    step->adjust_start[0] = 0;
    step->n_entries = 0;
}

/* Three lists of `room` ints each in one piece of memory, in place of `had`: of each of its lists,
 * `old_room` ints apart, n stay. */
static tsr_status grow_lists(int32_t **had, int64_t old_room, int64_t room, int32_t n)
{
    int32_t *made = tsr_alloc((size_t)room * 3, sizeof(*made));

    if (made == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "step: no memory for lists of %lld", (long long)room);
    }
    for (int list = 0; n > 0 && list < 3; list++) {
        memcpy(made + list * room, *had + list * old_room, (size_t)n * sizeof(*made));
    }
    tsr_free(*had);
    *had = made;
    return TSR_OK;
}

/* Room for n, and for twice what there was, so that growing stays rare. */
static int64_t grown_room(int64_t room, int64_t n, int64_t most)
{
    const int64_t twice = 2 * room < most ? 2 * room : most;

    return twice < n ? n : twice;
}

tsr_status tsr_step_reserve_appended(tsr_step *step, int64_t n)
{
    const int64_t room = grown_room(step->max_appended, n, MOST_APPENDED);

    if (n <= step->max_appended) {
        return TSR_OK;
    }
    if (n > MOST_APPENDED) {
        return tsr_fail(TSR_ERR_NOMEM, "step: %lld blocks to append", (long long)n);
    }
    TSR_TRY(grow_lists(&step->table_memory, step->max_appended, room, step->n_appended));
    step->max_appended = (int32_t)room;
    step->append_lane = step->table_memory;
    step->append_index = step->table_memory + room;
    step->append_block = step->table_memory + 2 * room;
    return TSR_OK;
}

tsr_status tsr_step_reserve(tsr_step *step, int64_t n)
{
    const int64_t room = grown_room(step->max_entries, n, MOST_ENTRIES);

    if (n <= step->max_entries) {
        return TSR_OK;
    }
    if (n > MOST_ENTRIES) {
        return tsr_fail(TSR_ERR_NOMEM, "step: %lld logits to change", (long long)n);
    }
    TSR_TRY(grow_lists(&step->entry_memory, step->max_entries, room, step->n_entries));
    step->max_entries = (int32_t)room;
    step->entry_ids = step->entry_memory;
    step->entry_factors = (float *)(step->entry_memory + room);
    step->entry_adds = (float *)(step->entry_memory + 2 * room);
    return TSR_OK;
}

/* Every entry of every lane, each of whose groups lets go of something as well; or each id once. */
static int64_t most_appended(const tsr_step_limits *limits)
{
    const int64_t of_a_lane = ((int64_t)limits->max_blocks + 1) * limits->n_groups;
    const int64_t all = limits->max_seqs * of_a_lane;
    const int64_t most = all > limits->n_block_ids ? all : limits->n_block_ids;

    return most < MOST_APPENDED ? most : MOST_APPENDED;
}

size_t tsr_step_max_ints(const tsr_step_limits *limits)
{
    // A sequence has one row at most whose logits are changed, each of them once.
    return HEAD_INTS + 5 * (size_t)limits->max_rows +
           (7 + 2 * (size_t)limits->n_groups) * (size_t)limits->max_seqs +
           (size_t)limits->n_block_ids + 3 * (size_t)most_appended(limits) +
           3 * (size_t)limits->max_seqs * (size_t)limits->n_vocab;
}

size_t tsr_step_n_ints(const tsr_step *step)
{
    if (step->kind != TSR_STEP_RUN) {
        return HEAD_INTS;
    }
    return HEAD_INTS + (size_t)step->n_rows + 4 * (size_t)step->n_seqs + (size_t)step->n_dropped +
           (size_t)step->n_left + 3 * (size_t)step->n_appended + 2 * (size_t)step->n_copied +
           3 * (size_t)step->n_wanted + (size_t)step->n_raw + 2 * (size_t)step->n_adjusted +
           3 * (size_t)step->n_entries;
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
    message[AT_N_LEFT] = runs ? step->n_left : 0;
    message[AT_N_APPENDED] = runs ? step->n_appended : 0;
    message[AT_N_COPIED] = runs ? step->n_copied : 0;
    message[AT_N_WANTED] = runs ? step->n_wanted : 0;
    message[AT_N_BEST] = step->n_best;
    message[AT_MAY_ASK] = step->may_ask;
    message[AT_WAITS] = runs ? step->waits : 0;
    message[AT_N_RAW] = runs ? step->n_raw : 0;
    message[AT_N_RAW_BEST] = step->n_raw_best;
    message[AT_N_ADJUSTED] = runs ? step->n_adjusted : 0;
    message[AT_N_ENTRIES] = runs ? step->n_entries : 0;
    if (runs) {
        at = put(at, step->tokens, step->n_rows);
        at = put(at, step->row_start + 1, step->n_seqs); // the first is always 0
        at = put(at, step->first_pos, step->n_seqs);
        at = put(at, step->lanes, step->n_seqs);
        at = put(at, step->is_long, step->n_seqs);
        at = put(at, step->dropped, step->n_dropped);
        at = put(at, step->left, step->n_left);
        at = put(at, step->append_lane, step->n_appended);
        at = put(at, step->append_index, step->n_appended);
        at = put(at, step->append_block, step->n_appended);
        at = put(at, step->copy_from, step->n_copied);
        at = put(at, step->copy_to, step->n_copied);
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
    const int32_t *row_ends, *first_pos, *lanes, *is_long;
    const int32_t *dropped, *left;
    const int32_t *append_lane, *append_index, *append_block;
    const int32_t *copy_from, *copy_to;
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
    bool runs;
    int64_t n_needed;

    if (n_ints < HEAD_INTS) {
        return tsr_fail(TSR_ERR_FORMAT, "step: a message of %zu ints, its head alone has %d",
                        n_ints, HEAD_INTS);
    }
    if (message[AT_KIND] < 0 || message[AT_KIND] >= TSR_STEP_KIND_COUNT) {
        return tsr_fail(TSR_ERR_FORMAT, "step: kind %d is unknown", (int)message[AT_KIND]);
    }
    runs = message[AT_KIND] == TSR_STEP_RUN; // others are a head alone
    TSR_TRY(check_count("ints", message[AT_N_INTS], runs ? INT32_MAX : HEAD_INTS));
    TSR_TRY(check_count("rows", message[AT_N_ROWS], limits->max_rows));
    TSR_TRY(check_count("sequences", message[AT_N_SEQS], limits->max_seqs));
    TSR_TRY(check_count("dropped blocks", message[AT_N_DROPPED], limits->n_block_ids));
    TSR_TRY(check_count("left lanes", message[AT_N_LEFT], limits->max_seqs));
    TSR_TRY(check_count("appended blocks", message[AT_N_APPENDED], most_appended(limits)));
    TSR_TRY(check_count("copied blocks", message[AT_N_COPIED],
                        (int64_t)limits->max_seqs * limits->n_groups));
    TSR_TRY(check_count("wanted rows", message[AT_N_WANTED], message[AT_N_ROWS]));
    TSR_TRY(check_indices("candidate count", &message[AT_N_BEST], 1, 1, INT32_MAX));
    TSR_TRY(check_indices("may_ask", &message[AT_MAY_ASK], 1, 0, 2));
    TSR_TRY(check_count("waits", message[AT_WAITS], runs && message[AT_N_SEQS] == 0 ? 1 : 0));
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
    n_needed = HEAD_INTS + (int64_t)message[AT_N_ROWS] + 4 * (int64_t)message[AT_N_SEQS] +
               message[AT_N_DROPPED] + message[AT_N_LEFT] + 3 * (int64_t)message[AT_N_APPENDED] +
               2 * (int64_t)message[AT_N_COPIED] + 3 * (int64_t)message[AT_N_WANTED] +
               message[AT_N_RAW] + 2 * (int64_t)message[AT_N_ADJUSTED] +
               3 * (int64_t)message[AT_N_ENTRIES];
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
    in->is_long = at += message[AT_N_SEQS];
    in->dropped = at += message[AT_N_SEQS];
    in->left = at += message[AT_N_DROPPED];
    in->append_lane = at += message[AT_N_LEFT];
    in->append_index = at += message[AT_N_APPENDED];
    in->append_block = at += message[AT_N_APPENDED];
    in->copy_from = at += message[AT_N_APPENDED];
    in->copy_to = at += message[AT_N_COPIED];
    in->wanted = at += message[AT_N_COPIED];
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

/* Lanes, none twice. */
static tsr_status check_lanes(const char *what, const int32_t *lanes, int32_t n, int32_t max_seqs,
                              int32_t *marks)
{
    int32_t twice = -1;

    TSR_TRY(check_indices(what, lanes, n, 0, max_seqs));
    for (int32_t i = 0; i < n; i++) {
        twice = marks[lanes[i]] != 0 ? lanes[i] : twice;
        marks[lanes[i]] = 1;
    }
    for (int32_t i = 0; i < n; i++) {
        marks[lanes[i]] = 0;
    }
    return twice < 0 ? TSR_OK
                     : tsr_fail(TSR_ERR_FORMAT, "step: %s %d is in it twice", what, (int)twice);
}

static tsr_status check_sequences(const packed *in, const tsr_step_limits *limits, int32_t *marks)
{
    const int32_t n_seqs = in->head[AT_N_SEQS];
    const int64_t n_positions = (int64_t)limits->max_blocks * limits->block_tokens;
    int32_t row = 0;

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
    TSR_TRY(check_indices("is_long", in->is_long, n_seqs, 0, 2));
    return check_lanes("lane", in->lanes, n_seqs, limits->max_seqs, marks);
}

static tsr_status check_blocks(const packed *in, const tsr_step_limits *limits, int32_t *marks)
{
    const int32_t n_appended = in->head[AT_N_APPENDED];
    const int32_t n_copied = in->head[AT_N_COPIED];

    TSR_TRY(check_indices("dropped block", in->dropped, in->head[AT_N_DROPPED], 0,
                          limits->n_block_ids));
    TSR_TRY(check_lanes("left lane", in->left, in->head[AT_N_LEFT], limits->max_seqs, marks));
    TSR_TRY(
        check_indices("lane of appended block", in->append_lane, n_appended, 0, limits->max_seqs));
    TSR_TRY(check_indices("place of appended block", in->append_index, n_appended, 0,
                          limits->max_blocks * limits->n_groups));
    TSR_TRY(check_indices("appended block", in->append_block, n_appended, -1, limits->n_block_ids));
    TSR_TRY(check_indices("block to copy", in->copy_from, n_copied, 0, limits->n_block_ids));
    TSR_TRY(check_indices("block to copy into", in->copy_to, n_copied, 0, limits->n_block_ids));
    for (int32_t i = 0; i < n_copied; i++) {
        if (in->copy_from[i] == in->copy_to[i]) {
            return tsr_fail(TSR_ERR_FORMAT, "step: block %d is copied into itself",
                            (int)in->copy_to[i]);
        }
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
    TSR_TRY(check_blocks(&in, limits, step->marks));
    TSR_TRY(check_wanted(&in, limits));
    TSR_TRY(check_rising("row looked at twice", in.raw, message[AT_N_RAW], message[AT_N_WANTED]));
    TSR_TRY(check_rising("changed row", in.adjusted, message[AT_N_ADJUSTED], message[AT_N_WANTED]));
    TSR_TRY(check_entries(&in, limits));
    TSR_TRY(tsr_step_reserve_appended(step, message[AT_N_APPENDED]));
    TSR_TRY(tsr_step_reserve(step, message[AT_N_ENTRIES]));

    step->kind = message[AT_KIND];
    step->n_rows = message[AT_N_ROWS];
    step->n_seqs = message[AT_N_SEQS];
    step->n_dropped = message[AT_N_DROPPED];
    step->n_left = message[AT_N_LEFT];
    step->n_appended = message[AT_N_APPENDED];
    step->n_copied = message[AT_N_COPIED];
    step->n_wanted = message[AT_N_WANTED];
    step->n_best = message[AT_N_BEST];
    step->may_ask = message[AT_MAY_ASK];
    step->waits = message[AT_WAITS];
    step->n_raw = message[AT_N_RAW];
    step->n_raw_best = message[AT_N_RAW_BEST];
    step->n_adjusted = message[AT_N_ADJUSTED];
    step->n_entries = message[AT_N_ENTRIES];
    get(step->tokens, in.tokens, step->n_rows);
    step->row_start[0] = 0;
    get(step->row_start + 1, in.row_ends, step->n_seqs);
    get(step->first_pos, in.first_pos, step->n_seqs);
    get(step->lanes, in.lanes, step->n_seqs);
    get(step->is_long, in.is_long, step->n_seqs);
    get(step->dropped, in.dropped, step->n_dropped);
    get(step->left, in.left, step->n_left);
    get(step->append_lane, in.append_lane, step->n_appended);
    get(step->append_index, in.append_index, step->n_appended);
    get(step->append_block, in.append_block, step->n_appended);
    get(step->copy_from, in.copy_from, step->n_copied);
    get(step->copy_to, in.copy_to, step->n_copied);
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
