#include "kv/block_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/torture.h"

enum {
    BLOCK_TOKENS = 16
};

static const tsr_block_groups one = {.n = 1, .block_tokens = BLOCK_TOKENS, .behind = {INT32_MAX}};

/* Layers that see everything, the last 20 positions, and the last 10. */
static const tsr_block_groups mixed = {
    .n = 3, .block_tokens = BLOCK_TOKENS, .behind = {INT32_MAX, 2, 1}};

static int make_pool(void **state)
{
    return tsr_block_pool_create((tsr_block_pool **)state, 40) == TSR_OK ? 0 : -1;
}

static int drop_pool(void **state)
{
    tsr_block_pool_destroy(*state);
    return 0;
}

static void a_table_holds_the_blocks_of_its_tokens_and_none_beyond(void **state)
{
    tsr_block_table table = {0};
    const struct {
        int64_t n_tokens;
        int n_blocks;
    } steps[] = {{0, 0}, {1, 1}, {15, 1}, {16, 1}, {17, 2}, {32, 2}, {33, 3}, {400, 25}, {20, 25}};

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        assert_int_equal(tsr_block_table_grow(&table, *state, &one, steps[i].n_tokens), TSR_OK);
        assert_int_equal(table.n_blocks, steps[i].n_blocks);
        assert_int_equal(tsr_block_pool_n_free(*state), 40 - steps[i].n_blocks);
    }
    tsr_block_table_clear(&table, *state, &one);
    assert_int_equal(table.n_blocks, 0);
    assert_null(table.ids);
    assert_int_equal(tsr_block_pool_n_free(*state), 40);
}

static void growing_keeps_the_blocks_that_are_there(void **state)
{
    tsr_block_table table = {0};
    int32_t ids[40];

    for (int n = 1; n <= 40; n++) {
        assert_int_equal(tsr_block_table_grow(&table, *state, &one, n * BLOCK_TOKENS), TSR_OK);
        ids[n - 1] = table.ids[n - 1];
        for (int i = 0; i < n; i++) {
            assert_int_equal(table.ids[i], ids[i]);
        }
    }
    tsr_block_table_clear(&table, *state, &one);
}

static void a_table_that_cannot_grow_is_as_it_was(void **state)
{
    tsr_block_table table = {0};
    int32_t *ids;

    assert_int_equal(tsr_block_table_grow(&table, *state, &one, 39 * BLOCK_TOKENS), TSR_OK);
    ids = table.ids;
    assert_int_equal(tsr_block_table_grow(&table, *state, &one, 41 * BLOCK_TOKENS), TSR_ERR_FULL);
    assert_int_equal(tsr_block_table_grow(&table, *state, &one, INT64_MAX / 2), TSR_ERR_FULL);
    assert_int_equal(table.n_blocks, 39);
    assert_ptr_equal(table.ids, ids);
    assert_int_equal(tsr_block_pool_n_free(*state), 1);
    tsr_block_table_clear(&table, *state, &one);
}

static void a_cut_gives_back_the_end_and_names_what_became_free(void **state)
{
    tsr_block_table table = {0};
    int32_t freed[5] = {-1, -1, -1, -1, -1};
    int32_t shared;

    assert_int_equal(tsr_block_table_grow(&table, *state, &one, 6 * BLOCK_TOKENS), TSR_OK);
    shared = table.ids[4];
    tsr_block_pool_share(*state, shared);
    assert_int_equal(tsr_block_table_cut(&table, *state, &one, 6, NULL), 0);
    assert_int_equal(tsr_block_table_cut(&table, *state, &one, 2, freed),
                     3); // 5, 3 and 2; 4 is shared
    assert_int_equal(table.n_blocks, 2);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tsr_block_pool_n_owners(*state, freed[i]), 0);
        assert_int_not_equal(freed[i], shared);
    }
    assert_int_equal(freed[3], -1);
    assert_int_equal(tsr_block_pool_n_owners(*state, shared), 1);
    tsr_block_table_clear(&table, *state, &one);
    assert_true(tsr_block_pool_drop(*state, shared));
    assert_int_equal(tsr_block_pool_n_free(*state), 40);
    assert_true(tsr_block_pool_verify(*state));
}

static void tables_that_come_and_go_never_share_a_block(void **state)
{
    enum {
        N_TABLES = 4
    };
    tsr_block_table tables[N_TABLES] = {{0}};
    uint64_t dice = 5;

    for (int turn = 0; turn < 3000; turn++) {
        tsr_block_table *table = &tables[dice_below(&dice, N_TABLES)];
        int n_held = 0;

        if (dice_below(&dice, 5) == 0) {
            tsr_block_table_clear(table, *state, &one);
        } else {
            const int64_t n_tokens = dice_below(&dice, 20 * BLOCK_TOKENS);
            const int64_t more =
                tsr_block_table_blocks_for(n_tokens, BLOCK_TOKENS) - table->n_blocks;
            const bool fits = more <= tsr_block_pool_n_free(*state);

            assert_int_equal(tsr_block_table_grow(table, *state, &one, n_tokens),
                             fits ? TSR_OK : TSR_ERR_FULL);
        }
        for (int t = 0; t < N_TABLES; t++) {
            for (int i = 0; i < tables[t].n_blocks; i++) {
                assert_int_equal(tsr_block_pool_n_owners(*state, tables[t].ids[i]), 1);
            }
            n_held += tables[t].n_blocks;
        }
        assert_int_equal(n_held + tsr_block_pool_n_free(*state), 40);
    }
    for (int t = 0; t < N_TABLES; t++) {
        tsr_block_table_clear(&tables[t], *state, &one);
    }
    assert_int_equal(tsr_block_pool_n_free(*state), 40);
}

static void a_shared_block_is_free_when_the_last_of_its_owners_is_gone(void **state)
{
    tsr_block_table parent = {0};
    tsr_block_table child = {0};

    assert_int_equal(tsr_block_table_grow(&parent, *state, &one, 3 * BLOCK_TOKENS), TSR_OK);
    assert_int_equal(tsr_block_table_share(&child, *state, &one, parent.ids, 3), TSR_OK);
    assert_int_equal(tsr_block_pool_n_free(*state), 37); // nothing was taken for it
    for (int i = 0; i < 3; i++) {
        assert_int_equal(child.ids[i], parent.ids[i]);
        assert_int_equal(tsr_block_pool_n_owners(*state, parent.ids[i]), 2);
    }
    assert_int_equal(tsr_block_table_grow(&child, *state, &one, 41 * BLOCK_TOKENS), TSR_ERR_FULL);
    assert_int_equal(tsr_block_table_cut(&parent, *state, &one, 0, NULL), 0);
    assert_int_equal(tsr_block_pool_n_free(*state), 37);
    tsr_block_table_clear(&child, *state, &one);
    tsr_block_table_clear(&parent, *state, &one);
    assert_int_equal(tsr_block_pool_n_free(*state), 40);
    assert_true(tsr_block_pool_verify(*state));
}

static void a_window_is_told_in_columns(void **state)
{
    (void)state;
    assert_int_equal(tsr_block_groups_behind(0, 16), INT32_MAX);
    assert_int_equal(tsr_block_groups_behind(1, 16), 1);  // itself alone would do
    assert_int_equal(tsr_block_groups_behind(2, 16), 1);  // position 16 sees 15
    assert_int_equal(tsr_block_groups_behind(17, 16), 1); // position 16 sees 0
    assert_int_equal(tsr_block_groups_behind(18, 16), 2); // position 32 sees 15
    assert_int_equal(tsr_block_groups_behind(INT64_MAX / 2, 16), INT32_MAX);
}

static void what_no_row_reaches_is_left_group_by_group(void **state)
{
    tsr_block_table table = {0};
    int32_t left[40];
    int32_t had[12 * 3];

    assert_int_equal(tsr_block_table_grow(&table, *state, &mixed, 10 * BLOCK_TOKENS), TSR_OK);
    assert_int_equal(table.n_columns, 10);
    assert_int_equal(table.n_blocks, 30);
    memcpy(had, table.ids, 30 * sizeof(*had));
    // 5 columns and a bit: the row at 5 * 16 sees columns 3 to 5 through the second group.
    assert_int_equal(tsr_block_groups_floor(&mixed, 5 * BLOCK_TOKENS + 3), 5);
    assert_int_equal(tsr_block_groups_floor(&mixed, 5 * BLOCK_TOKENS), 4);
    assert_int_equal(tsr_block_table_leave(&table, &mixed, 5, left), 3 + 4);
    assert_int_equal(left[0], had[1]);
    assert_int_equal(left[3], had[2]);
    assert_int_equal(table.n_blocks, 23);
    for (int i = 0; i < 7; i++) {
        assert_true(tsr_block_pool_drop(*state, left[i]));
    }
    for (int c = 0; c < 10; c++) {
        assert_int_equal(table.ids[3 * c], had[3 * c]);
        assert_int_equal(table.ids[3 * c + 1], c < 3 ? TSR_BLOCK_NONE : had[3 * c + 1]);
        assert_int_equal(table.ids[3 * c + 2], c < 4 ? TSR_BLOCK_NONE : had[3 * c + 2]);
    }
    assert_int_equal(tsr_block_table_leave(&table, &mixed, 4, left), 0); // a floor only rises
    assert_int_equal(tsr_block_table_n_before(&table, &mixed, 4), 4 + 1);
    assert_true(tsr_block_table_goes_on_from(&table, &mixed, 5 * BLOCK_TOKENS));
    assert_false(tsr_block_table_goes_on_from(&table, &mixed, 5 * BLOCK_TOKENS - 1));
    assert_false(tsr_block_table_goes_on_from(&table, &mixed, 0));
    {
        tsr_block_table child = {0};

        assert_int_equal(tsr_block_table_share(&child, *state, &mixed, table.ids, 6), TSR_OK);
        assert_int_equal(child.n_blocks, 6 + 3 + 2);
        assert_int_equal(tsr_block_table_cut(&child, *state, &mixed, 0, NULL), 0);
        tsr_block_table_clear(&child, *state, &mixed);
    }
    assert_int_equal(tsr_block_table_cut(&table, *state, &mixed, 6, NULL), 12);
    assert_int_equal(table.n_blocks, 11);
    tsr_block_table_clear(&table, *state, &mixed);
    assert_int_equal(tsr_block_pool_n_free(*state), 40);
}

/* Token by token, and back where that is allowed: never more than was said, nothing missing. */
static void a_sequence_holds_no_more_than_was_said(void **state)
{
    tsr_block_table table = {0};
    int64_t most = 0;

    for (int64_t n = 0; n < 12 * BLOCK_TOKENS; n++) { // n are in the cache, one more is written
        int32_t left[40];

        assert_int_equal(tsr_block_table_grow(&table, *state, &mixed, n + 1), TSR_OK);
        assert_int_equal(table.n_blocks, tsr_block_groups_held(&mixed, n, n + 1));
        most = table.n_blocks > most ? table.n_blocks : most;
        assert_true(most <= tsr_block_groups_most(&mixed, n + 1, 0));
        for (int g = 0; g < mixed.n; g++) { // all that the row at n sees is there
            const int64_t reach[] = {INT32_MAX, 20, 10};
            const int64_t first = n >= reach[g] ? n - reach[g] + 1 : 0;

            for (int64_t c = first / BLOCK_TOKENS; c < table.n_columns; c++) {
                assert_int_not_equal(table.ids[c * 3 + g], TSR_BLOCK_NONE);
            }
        }
        for (int i =
                 tsr_block_table_leave(&table, &mixed, tsr_block_groups_floor(&mixed, n + 1), left);
             i > 0; i--) {
            assert_true(tsr_block_pool_drop(*state, left[i - 1]));
        }
        assert_true(tsr_block_table_goes_on_from(&table, &mixed, n)); // without its last token
        assert_true(tsr_block_table_goes_on_from(&table, &mixed, n / BLOCK_TOKENS * BLOCK_TOKENS));
    }
    // 12 columns of the first group, 4 of the second, 3 of the third.
    assert_int_equal(tsr_block_groups_most(&mixed, 12 * BLOCK_TOKENS, 0), 12 + 4 + 3);
    assert_int_equal(most, 12 + 4 + 3);
    tsr_block_table_clear(&table, *state, &mixed);
}

static tsr_status grow_and_clear(void *pool)
{
    tsr_block_table table = {0};
    const tsr_status st = tsr_block_table_grow(&table, pool, &one, 300);

    if (st != TSR_OK) {
        assert_int_equal(table.n_blocks, 0);
        assert_int_equal(tsr_block_pool_n_free(pool), 40);
        return st;
    }
    tsr_block_table_clear(&table, pool, &one);
    return TSR_OK;
}

static void running_out_of_memory_takes_no_block(void **state)
{
    assert_int_equal(torture(grow_and_clear, *state), 1); // the list of ids
}

#define WITH_POOL(test) cmocka_unit_test_setup_teardown(test, make_pool, drop_pool)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_POOL(a_table_holds_the_blocks_of_its_tokens_and_none_beyond),
        WITH_POOL(growing_keeps_the_blocks_that_are_there),
        WITH_POOL(a_table_that_cannot_grow_is_as_it_was),
        WITH_POOL(a_cut_gives_back_the_end_and_names_what_became_free),
        WITH_POOL(tables_that_come_and_go_never_share_a_block),
        WITH_POOL(a_shared_block_is_free_when_the_last_of_its_owners_is_gone),
        WITH_POOL(a_window_is_told_in_columns),
        WITH_POOL(what_no_row_reaches_is_left_group_by_group),
        WITH_POOL(a_sequence_holds_no_more_than_was_said),
        WITH_POOL(running_out_of_memory_takes_no_block),
    };

    return cmocka_run_group_tests_name("block_table", tests, NULL, NULL);
}
