#include "engine/step.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/torture.h"

static const tsr_step_limits small = {
    .max_rows = 24,
    .max_seqs = 5,
    .max_blocks = 6,
    .n_groups = 2,
    .block_tokens = 16,
    .n_block_ids = 11,
    .n_vocab = 100,
};

/* Some of the wanted rows, or the last of all, looked at twice and changed. */
static void fill_raw_and_entries(tsr_step *step, uint64_t *dice, bool all)
{
    const tsr_step_limits *l = &step->limits;
    const int gap = all ? 1 : 1 + dice_below(dice, 3);

    assert_int_equal(tsr_step_reserve(step, (int64_t)l->max_seqs * l->n_vocab), TSR_OK);
    step->n_raw_best = all ? 1 : 1 + dice_below(dice, l->n_vocab);
    for (int w = 0; w < step->n_wanted; w++) {
        if (all || dice_below(dice, 3) == 0) {
            step->raw[step->n_raw++] = w;
        }
        if (step->n_adjusted < l->max_seqs && (all || dice_below(dice, 3) > 0)) {
            for (int id = 0; id < l->n_vocab; id += gap) {
                step->entry_ids[step->n_entries] = id;
                step->entry_factors[step->n_entries] = all ? 1.0f : (float)(0.1 + dice_unit(dice));
                step->entry_adds[step->n_entries++] = all || id % 7 != 0 ? 0.5f : -INFINITY;
            }
            step->adjusted[step->n_adjusted++] = w;
            step->adjust_start[step->n_adjusted] = step->n_entries;
        }
    }
}

/* Any step that the limits allow. */
static void fill(tsr_step *step, uint64_t *dice)
{
    const tsr_step_limits *l = &step->limits;
    int32_t lanes[8] = {0};

    tsr_step_reset(step);
    for (int i = 0; i < l->max_seqs; i++) {
        const int k = dice_below(dice, i + 1); // a random order of lanes

        lanes[i] = lanes[k];
        lanes[k] = i;
    }
    step->n_seqs = dice_below(dice, l->max_seqs + 1);
    for (int s = 0; s < step->n_seqs; s++) {
        const int n_rows = 1 + dice_below(dice, l->max_rows / l->max_seqs);

        for (int k = 0; k < n_rows; k++) {
            step->tokens[step->n_rows++] = dice_below(dice, l->n_vocab);
        }
        step->row_start[s + 1] = step->n_rows;
        step->first_pos[s] = dice_below(dice, l->max_blocks * l->block_tokens - n_rows + 1);
        step->lanes[s] = lanes[s];
        step->is_long[s] = dice_below(dice, 2);
    }
    step->n_dropped = dice_below(dice, l->n_block_ids + 1);
    for (int i = 0; i < step->n_dropped; i++) {
        step->dropped[i] = dice_below(dice, l->n_block_ids);
    }
    for (int lane = 0; lane < l->max_seqs; lane++) {
        if (dice_below(dice, 3) == 0) {
            step->left[step->n_left++] = lane;
        }
    }
    assert_int_equal(tsr_step_reserve_appended(step, 2 * l->n_block_ids), TSR_OK);
    step->n_appended = dice_below(dice, 2 * l->n_block_ids + 1);
    for (int i = 0; i < step->n_appended; i++) {
        step->append_lane[i] = dice_below(dice, l->max_seqs);
        step->append_index[i] = dice_below(dice, l->max_blocks * l->n_groups);
        step->append_block[i] = dice_below(dice, l->n_block_ids + 1) - 1;
    }
    step->n_copied = dice_below(dice, l->max_seqs * l->n_groups + 1);
    for (int i = 0; i < step->n_copied; i++) {
        step->copy_from[i] = dice_below(dice, l->n_block_ids);
        step->copy_to[i] =
            (step->copy_from[i] + 1 + dice_below(dice, l->n_block_ids - 1)) % l->n_block_ids;
    }
    for (int r = 0; r < step->n_rows; r++) {
        if (dice_below(dice, 2) == 0) {
            step->wanted[step->n_wanted] = r;
            step->targets[step->n_wanted] = dice_below(dice, l->n_vocab + 1) - 1;
            step->sharpness[step->n_wanted] = (float)(0.1 + dice_unit(dice));
            step->n_wanted++;
        }
    }
    step->n_best = 1 + dice_below(dice, l->n_vocab);
    step->may_ask = dice_below(dice, 2);
    step->waits = step->n_seqs == 0 ? dice_below(dice, 2) : 0;
    fill_raw_and_entries(step, dice, false);
}

static void assert_same_ints(const void *a, const void *b, int32_t n)
{
    if (n > 0) {
        assert_memory_equal(a, b, (size_t)n * sizeof(int32_t));
    }
}

static void assert_same(const tsr_step *a, const tsr_step *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->n_rows, b->n_rows);
    assert_int_equal(a->n_seqs, b->n_seqs);
    assert_int_equal(a->n_dropped, b->n_dropped);
    assert_int_equal(a->n_left, b->n_left);
    assert_int_equal(a->n_appended, b->n_appended);
    assert_int_equal(a->n_copied, b->n_copied);
    assert_int_equal(a->waits, b->waits);
    assert_int_equal(a->n_wanted, b->n_wanted);
    assert_int_equal(a->n_best, b->n_best);
    assert_int_equal(a->may_ask, b->may_ask);
    assert_same_ints(a->tokens, b->tokens, a->n_rows);
    assert_same_ints(a->row_start, b->row_start, a->n_seqs + 1);
    assert_same_ints(a->first_pos, b->first_pos, a->n_seqs);
    assert_same_ints(a->lanes, b->lanes, a->n_seqs);
    assert_same_ints(a->is_long, b->is_long, a->n_seqs);
    assert_same_ints(a->dropped, b->dropped, a->n_dropped);
    assert_same_ints(a->left, b->left, a->n_left);
    assert_same_ints(a->copy_from, b->copy_from, a->n_copied);
    assert_same_ints(a->copy_to, b->copy_to, a->n_copied);
    assert_same_ints(a->append_lane, b->append_lane, a->n_appended);
    assert_same_ints(a->append_index, b->append_index, a->n_appended);
    assert_same_ints(a->append_block, b->append_block, a->n_appended);
    assert_same_ints(a->wanted, b->wanted, a->n_wanted);
    assert_same_ints(a->targets, b->targets, a->n_wanted);
    assert_same_ints(a->sharpness, b->sharpness, a->n_wanted);
    assert_int_equal(a->n_raw, b->n_raw);
    assert_int_equal(a->n_raw_best, b->n_raw_best);
    assert_int_equal(a->n_adjusted, b->n_adjusted);
    assert_int_equal(a->n_entries, b->n_entries);
    assert_same_ints(a->raw, b->raw, a->n_raw);
    assert_same_ints(a->adjusted, b->adjusted, a->n_adjusted);
    assert_same_ints(a->adjust_start, b->adjust_start, a->n_adjusted + 1);
    assert_same_ints(a->entry_ids, b->entry_ids, a->n_entries);
    assert_same_ints(a->entry_factors, b->entry_factors, a->n_entries);
    assert_same_ints(a->entry_adds, b->entry_adds, a->n_entries);
}

/* What unpacking promises to those below. */
static void assert_within_limits(const tsr_step *step)
{
    const tsr_step_limits *l = &step->limits;
    bool lane_seen[8] = {false};
    bool lane_left[8] = {false};

    assert_in_range(step->n_rows, 0, l->max_rows);
    assert_in_range(step->n_seqs, 0, l->max_seqs);
    assert_in_range(step->n_wanted, 0, step->n_rows);
    assert_int_equal(step->row_start[0], 0);
    assert_int_equal(step->row_start[step->n_seqs], step->n_rows);
    for (int s = 0; s < step->n_seqs; s++) {
        const int n_rows = step->row_start[s + 1] - step->row_start[s];

        assert_true(n_rows >= 1);
        assert_true(step->first_pos[s] >= 0);
        assert_true(step->first_pos[s] + n_rows <= l->max_blocks * l->block_tokens);
        assert_in_range(step->lanes[s], 0, l->max_seqs - 1);
        assert_false(lane_seen[step->lanes[s]]);
        lane_seen[step->lanes[s]] = true;
    }
    for (int r = 0; r < step->n_rows; r++) {
        assert_in_range(step->tokens[r], 0, l->n_vocab - 1);
    }
    for (int i = 0; i < step->n_dropped; i++) {
        assert_in_range(step->dropped[i], 0, l->n_block_ids - 1);
    }
    assert_true(step->n_left <= l->max_seqs);
    for (int i = 0; i < step->n_left; i++) {
        assert_in_range(step->left[i], 0, l->max_seqs - 1);
        assert_false(lane_left[step->left[i]]);
        lane_left[step->left[i]] = true;
    }
    assert_true(step->n_copied <= l->max_seqs * l->n_groups);
    for (int i = 0; i < step->n_copied; i++) {
        assert_in_range(step->copy_from[i], 0, l->n_block_ids - 1);
        assert_in_range(step->copy_to[i], 0, l->n_block_ids - 1);
        assert_int_not_equal(step->copy_from[i], step->copy_to[i]);
    }
    assert_in_range(step->waits, 0, step->n_seqs > 0 ? 0 : 1);
    assert_true(step->n_appended <= step->max_appended);
    for (int i = 0; i < step->n_appended; i++) {
        assert_in_range(step->append_lane[i], 0, l->max_seqs - 1);
        assert_in_range(step->append_index[i], 0, l->max_blocks * l->n_groups - 1);
        assert_in_range(step->append_block[i] + 1, 0, l->n_block_ids);
    }
    for (int i = 0; i < step->n_wanted; i++) {
        assert_true(step->wanted[i] > (i > 0 ? step->wanted[i - 1] : -1));
        assert_true(step->wanted[i] < step->n_rows);
        assert_true(step->targets[i] >= -1 && step->targets[i] < l->n_vocab);
        assert_true(step->sharpness[i] > 0.0f && step->sharpness[i] < 1e39);
    }
    assert_in_range(step->n_best, 1, l->n_vocab);
    assert_in_range(step->may_ask, 0, 1);
    assert_in_range(step->n_raw_best, 1, l->n_vocab);
    for (int i = 0; i < step->n_raw; i++) {
        assert_true(step->raw[i] > (i > 0 ? step->raw[i - 1] : -1));
        assert_true(step->raw[i] < step->n_wanted);
    }
    assert_true(step->n_adjusted <= l->max_seqs);
    assert_true(step->n_entries <= step->max_entries);
    assert_int_equal(step->adjust_start[0], 0);
    assert_int_equal(step->adjust_start[step->n_adjusted], step->n_entries);
    for (int a = 0; a < step->n_adjusted; a++) {
        int32_t least = 0;

        assert_true(step->adjusted[a] > (a > 0 ? step->adjusted[a - 1] : -1));
        assert_true(step->adjusted[a] < step->n_wanted);
        assert_true(step->adjust_start[a] <= step->adjust_start[a + 1]);
        for (int i = step->adjust_start[a]; i < step->adjust_start[a + 1]; i++) {
            assert_true(step->entry_ids[i] >= least && step->entry_ids[i] < l->n_vocab);
            assert_true(step->entry_factors[i] > 0.0f && step->entry_factors[i] < 1e39);
            assert_true(step->entry_adds[i] == step->entry_adds[i]);
            least = step->entry_ids[i] + 1;
        }
    }
}

/* The message in a heap block of just its length, so that a sanitizer sees every int read past it.
 */
static int32_t *exact_copy(const int32_t *message, size_t n_ints)
{
    int32_t *copy = tsr_alloc(n_ints, sizeof(*copy));

    assert_non_null(copy);
    memcpy(copy, message, n_ints * sizeof(*copy));
    return copy;
}

typedef struct pair {
    tsr_step sent;
    tsr_step got;
    int32_t *message;
} pair;

static pair made;

static int make_pair(void **state)
{
    made = (pair){0};
    made.message = tsr_alloc(tsr_step_max_ints(&small), sizeof(int32_t));
    *state = &made;
    return made.message != NULL && tsr_step_init(&made.sent, &small) == TSR_OK &&
                   tsr_step_init(&made.got, &small) == TSR_OK
               ? 0
               : -1;
}

static int drop_pair(void **state)
{
    pair *p = *state;

    tsr_step_clear(&p->sent);
    tsr_step_clear(&p->got);
    tsr_free(p->message);
    return 0;
}

static void a_step_arrives_as_it_was_sent(void **state)
{
    pair *p = *state;
    uint64_t dice = 1;
    size_t longest = 0;

    for (int turn = 0; turn < 2000; turn++) {
        size_t n_ints;
        int32_t *copy;

        fill(&p->sent, &dice);
        n_ints = tsr_step_pack(&p->sent, p->message);
        assert_int_equal(p->message[0], n_ints);
        assert_true(n_ints <= tsr_step_max_ints(&small));
        longest = n_ints > longest ? n_ints : longest;
        copy = exact_copy(p->message, n_ints);
        assert_int_equal(tsr_step_unpack(&p->got, copy, n_ints), TSR_OK);
        assert_same(&p->sent, &p->got);
        assert_within_limits(&p->got);
        tsr_free(copy);
    }
    assert_true(longest > tsr_step_max_ints(&small) / 2);
}

static void the_largest_step_fits_its_bound_exactly(void **state)
{
    pair *p = *state;
    tsr_step *step = &p->sent;

    step->n_rows = small.max_rows;
    step->n_wanted = small.max_rows;
    for (int r = 0; r < small.max_rows; r++) {
        step->wanted[r] = r;
        step->sharpness[r] = 1.0f;
    }
    step->n_seqs = small.max_seqs;
    for (int s = 0; s < small.max_seqs; s++) {
        step->row_start[s + 1] = s + 1 < small.max_seqs ? s + 1 : small.max_rows;
        step->lanes[s] = s;
    }
    step->n_dropped = small.n_block_ids;
    step->n_left = small.max_seqs;
    for (int i = 0; i < small.max_seqs; i++) {
        step->left[i] = i;
    }
    step->n_copied = small.max_seqs * small.n_groups;
    for (int i = 0; i < step->n_copied; i++) {
        step->copy_to[i] = i + 1;
    }
    // Every lane's whole tables, each of which also lets go of what was before.
    assert_int_equal(
        tsr_step_reserve_appended(step, small.max_seqs * small.n_groups * (small.max_blocks + 1)),
        TSR_OK);
    step->n_appended = small.max_seqs * small.n_groups * (small.max_blocks + 1);
    fill_raw_and_entries(step, NULL, true);
    assert_int_equal(tsr_step_n_ints(step), tsr_step_max_ints(&small));
    assert_int_equal(tsr_step_pack(step, p->message), tsr_step_max_ints(&small));
    assert_int_equal(tsr_step_unpack(&p->got, p->message, tsr_step_max_ints(&small)), TSR_OK);
    assert_same(step, &p->got);
}

static void a_message_in_a_larger_buffer_is_read_to_its_own_end(void **state)
{
    pair *p = *state;
    uint64_t dice = 4;
    size_t n_ints;

    fill(&p->sent, &dice);
    memset(p->message, 0xff, tsr_step_max_ints(&small) * sizeof(int32_t));
    n_ints = tsr_step_pack(&p->sent, p->message);
    assert_true(n_ints < tsr_step_max_ints(&small));
    assert_int_equal(tsr_step_unpack(&p->got, p->message, tsr_step_max_ints(&small)), TSR_OK);
    assert_same(&p->sent, &p->got);
}

static void the_end_is_a_short_message(void **state)
{
    pair *p = *state;
    uint64_t dice = 2;
    size_t n_ints;

    fill(&p->sent, &dice);
    p->sent.kind = TSR_STEP_END;
    n_ints = tsr_step_pack(&p->sent, p->message);
    assert_true(n_ints <= 16);
    assert_int_equal(tsr_step_unpack(&p->got, p->message, n_ints), TSR_OK);
    assert_int_equal(p->got.kind, TSR_STEP_END);
    assert_int_equal(p->got.n_rows, 0);
    assert_int_equal(p->got.n_appended, 0);
}

static void a_decode_step_of_long_sequences_is_a_small_message(void **state)
{
    /* 64 sequences of 128k tokens in blocks of 16, each with one row that is wanted */
    const tsr_step_limits limits = {
        .max_rows = 512,
        .max_seqs = 64,
        .max_blocks = 8192,
        .n_groups = 1,
        .block_tokens = 16,
        .n_block_ids = 64 * 8192,
        .n_vocab = 151936,
    };
    tsr_step step;
    int32_t message[1024];

    (void)state;
    assert_int_equal(tsr_step_init(&step, &limits), TSR_OK);
    step.n_rows = step.n_seqs = step.n_wanted = 64;
    for (int i = 0; i < 64; i++) {
        step.row_start[i + 1] = i + 1;
        step.first_pos[i] = 131000 + i;
        step.lanes[i] = i;
        step.wanted[i] = i;
        step.targets[i] = -1;
        step.sharpness[i] = 1.0f;
    }
    /* 16 ints of head and 8 a sequence */
    assert_int_equal(tsr_step_pack(&step, message), 16 + 8 * 64);
    assert_true((16 + 8 * 64) * sizeof(int32_t) < 2304);
    tsr_step_clear(&step);
}

static void a_truncated_message_is_refused_and_changes_nothing(void **state)
{
    pair *p = *state;
    tsr_step before;
    uint64_t dice = 8;

    assert_int_equal(tsr_step_init(&before, &small), TSR_OK);
    for (int turn = 0; turn < 30; turn++) {
        size_t n_ints;

        fill(&p->got, &dice);
        n_ints = tsr_step_pack(&p->got, p->message);
        assert_int_equal(tsr_step_unpack(&before, p->message, n_ints), TSR_OK);
        fill(&p->sent, &dice);
        n_ints = tsr_step_pack(&p->sent, p->message);
        for (size_t n = 0; n < n_ints; n++) {
            int32_t *copy = exact_copy(p->message, n);

            assert_int_equal(tsr_step_unpack(&p->got, copy, n), TSR_ERR_FORMAT);
            if (n > 0) { // also when it says itself that it is shorter
                copy[0] = (int32_t)n;
                assert_int_equal(tsr_step_unpack(&p->got, copy, n), TSR_ERR_FORMAT);
            }
            assert_same(&before, &p->got);
            tsr_free(copy);
        }
    }
    tsr_step_clear(&before);
}

static void a_corrupted_message_is_refused_or_keeps_every_promise(void **state)
{
    static const int32_t odd[] = {INT32_MIN, -2,  -1,  0,   1,          2,         5,
                                  10,        11,  23,  24,  25,         99,        100,
                                  101,       127, 255, 256, 0x7f800000, INT32_MAX, 0x7fc00000};
    pair *p = *state;
    uint64_t dice = 6;
    long n_refused = 0;
    long n_taken = 0;

    for (int turn = 0; turn < 60; turn++) {
        size_t n_ints;

        fill(&p->sent, &dice);
        n_ints = tsr_step_pack(&p->sent, p->message);
        for (size_t i = 0; i < n_ints; i++) {
            for (size_t k = 0; k < sizeof(odd) / sizeof(odd[0]); k++) {
                int32_t *copy = exact_copy(p->message, n_ints);
                const tsr_status st = (copy[i] = odd[k], tsr_step_unpack(&p->got, copy, n_ints));

                if (st == TSR_OK) {
                    assert_within_limits(&p->got);
                    n_taken++;
                } else {
                    assert_int_equal(st, TSR_ERR_FORMAT);
                    n_refused++;
                }
                tsr_free(copy);
            }
        }
    }
    assert_true(n_refused > 10000);
    assert_true(n_taken > 10000); // another token in range is another sound step
}

static void a_step_without_rows_brings_changes_and_may_wait(void **state)
{
    pair *p = *state;
    size_t n_ints;

    p->sent.n_left = 1;
    p->sent.left[0] = 3;
    p->sent.n_appended = 1;
    p->sent.append_lane[0] = 3; // a lane that is left can be told another table at once
    p->sent.append_block[0] = 10;
    p->sent.waits = 1;
    n_ints = tsr_step_pack(&p->sent, p->message);
    assert_int_equal(n_ints, 16 + 1 + 3);
    assert_int_equal(tsr_step_unpack(&p->got, p->message, n_ints), TSR_OK);
    assert_same(&p->sent, &p->got);
    assert_int_equal(p->got.kind, TSR_STEP_RUN);

    p->sent.n_rows = p->sent.n_seqs = p->sent.row_start[1] = 1; // with rows it must not
    n_ints = tsr_step_pack(&p->sent, p->message);
    assert_int_equal(tsr_step_unpack(&p->got, p->message, n_ints), TSR_ERR_FORMAT);
}

static void what_was_appended_stays_when_more_room_is_made(void **state)
{
    pair *p = *state;
    tsr_step *step = &p->sent;

    for (int n = 0; n < 1000; n++) {
        assert_int_equal(tsr_step_reserve_appended(step, n + 1), TSR_OK);
        step->append_lane[n] = n % 5;
        step->append_index[n] = n;
        step->append_block[n] = 2 * n;
        step->n_appended = n + 1;
    }
    for (int n = 0; n < 1000; n++) {
        assert_int_equal(step->append_lane[n], n % 5);
        assert_int_equal(step->append_index[n], n);
        assert_int_equal(step->append_block[n], 2 * n);
    }
    assert_int_equal(tsr_step_reserve_appended(step, INT64_MAX / 8), TSR_ERR_NOMEM);
    assert_int_equal(step->n_appended, 1000);
}

static void impossible_limits_are_refused(void **state)
{
    tsr_step_limits bad[8];
    tsr_step step = {0};

    (void)state;
    for (int i = 0; i < 8; i++) {
        bad[i] = small;
    }
    bad[0].max_rows = 0;
    bad[1].max_seqs = -1;
    bad[2].max_blocks = 0;
    bad[3].block_tokens = 0;
    bad[4].n_block_ids = 0;
    bad[5].n_vocab = 0;
    bad[6].max_blocks = bad[6].block_tokens = 1 << 20;
    bad[7].n_groups = 0;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(tsr_step_init(&step, &bad[i]), TSR_ERR_ARG);
        assert_null(step.memory);
    }
}

static tsr_status init_and_clear(void *ctx)
{
    tsr_step step = {0};

    (void)ctx;
    TSR_TRY(tsr_step_init(&step, &small));
    tsr_step_clear(&step);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_int_equal(torture(init_and_clear, NULL), 2);
}

#define WITH_PAIR(test) cmocka_unit_test_setup_teardown(test, make_pair, drop_pair)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PAIR(a_step_arrives_as_it_was_sent),
        WITH_PAIR(the_largest_step_fits_its_bound_exactly),
        WITH_PAIR(a_message_in_a_larger_buffer_is_read_to_its_own_end),
        WITH_PAIR(the_end_is_a_short_message),
        cmocka_unit_test(a_decode_step_of_long_sequences_is_a_small_message),
        WITH_PAIR(a_truncated_message_is_refused_and_changes_nothing),
        WITH_PAIR(a_corrupted_message_is_refused_or_keeps_every_promise),
        WITH_PAIR(a_step_without_rows_brings_changes_and_may_wait),
        WITH_PAIR(what_was_appended_stays_when_more_room_is_made),
        cmocka_unit_test(impossible_limits_are_refused),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("step", tests, NULL, NULL);
}
