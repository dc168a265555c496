#include "kv/block_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/torture.h"

enum {
    BLOCK_TOKENS = 16
};

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
        assert_int_equal(tsr_block_table_grow(&table, *state, steps[i].n_tokens, BLOCK_TOKENS),
                         TSR_OK);
        assert_int_equal(table.n_blocks, steps[i].n_blocks);
        assert_int_equal(tsr_block_pool_n_free(*state), 40 - steps[i].n_blocks);
    }
    tsr_block_table_clear(&table, *state);
    assert_int_equal(table.n_blocks, 0);
    assert_null(table.ids);
    assert_int_equal(tsr_block_pool_n_free(*state), 40);
}

static void growing_keeps_the_blocks_that_are_there(void **state)
{
    tsr_block_table table = {0};
    int32_t ids[40];

    for (int n = 1; n <= 40; n++) {
        assert_int_equal(tsr_block_table_grow(&table, *state, n * BLOCK_TOKENS, BLOCK_TOKENS),
                         TSR_OK);
        ids[n - 1] = table.ids[n - 1];
        for (int i = 0; i < n; i++) {
            assert_int_equal(table.ids[i], ids[i]);
        }
    }
    tsr_block_table_clear(&table, *state);
}

static void a_table_that_cannot_grow_is_as_it_was(void **state)
{
    tsr_block_table table = {0};
    int32_t *ids;

    assert_int_equal(tsr_block_table_grow(&table, *state, 39 * BLOCK_TOKENS, BLOCK_TOKENS), TSR_OK);
    ids = table.ids;
    assert_int_equal(tsr_block_table_grow(&table, *state, 41 * BLOCK_TOKENS, BLOCK_TOKENS),
                     TSR_ERR_FULL);
    assert_int_equal(tsr_block_table_grow(&table, *state, INT64_MAX / 2, BLOCK_TOKENS),
                     TSR_ERR_FULL);
    assert_int_equal(table.n_blocks, 39);
    assert_ptr_equal(table.ids, ids);
    assert_int_equal(tsr_block_pool_n_free(*state), 1);
    tsr_block_table_clear(&table, *state);
}

static void a_cut_gives_back_the_end_and_names_what_became_free(void **state)
{
    tsr_block_table table = {0};
    int32_t freed[5] = {-1, -1, -1, -1, -1};
    int32_t shared;

    assert_int_equal(tsr_block_table_grow(&table, *state, 6 * BLOCK_TOKENS, BLOCK_TOKENS), TSR_OK);
    shared = table.ids[4];
    tsr_block_pool_share(*state, shared);
    assert_int_equal(tsr_block_table_cut(&table, *state, 6, NULL), 0);
    assert_int_equal(tsr_block_table_cut(&table, *state, 2, freed), 3); // 5, 3 and 2; 4 is shared
    assert_int_equal(table.n_blocks, 2);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tsr_block_pool_n_owners(*state, freed[i]), 0);
        assert_int_not_equal(freed[i], shared);
    }
    assert_int_equal(freed[3], -1);
    assert_int_equal(tsr_block_pool_n_owners(*state, shared), 1);
    tsr_block_table_clear(&table, *state);
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
            tsr_block_table_clear(table, *state);
        } else {
            const int64_t n_tokens = dice_below(&dice, 20 * BLOCK_TOKENS);
            const int64_t more =
                tsr_block_table_blocks_for(n_tokens, BLOCK_TOKENS) - table->n_blocks;
            const bool fits = more <= tsr_block_pool_n_free(*state);

            assert_int_equal(tsr_block_table_grow(table, *state, n_tokens, BLOCK_TOKENS),
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
        tsr_block_table_clear(&tables[t], *state);
    }
    assert_int_equal(tsr_block_pool_n_free(*state), 40);
}

static void a_shared_block_is_free_when_the_last_of_its_owners_is_gone(void **state)
{
    tsr_block_table parent = {0};
    tsr_block_table child = {0};

    assert_int_equal(tsr_block_table_grow(&parent, *state, 3 * BLOCK_TOKENS, BLOCK_TOKENS), TSR_OK);
    assert_int_equal(tsr_block_table_share(&child, *state, parent.ids, 3), TSR_OK);
    assert_int_equal(tsr_block_pool_n_free(*state), 37); // nothing was taken for it
    for (int i = 0; i < 3; i++) {
        assert_int_equal(child.ids[i], parent.ids[i]);
        assert_int_equal(tsr_block_pool_n_owners(*state, parent.ids[i]), 2);
    }
    assert_int_equal(tsr_block_table_grow(&child, *state, 41 * BLOCK_TOKENS, BLOCK_TOKENS),
                     TSR_ERR_FULL);
    assert_int_equal(tsr_block_table_cut(&parent, *state, 0, NULL), 0);
    assert_int_equal(tsr_block_pool_n_free(*state), 37);
    tsr_block_table_clear(&child, *state);
    tsr_block_table_clear(&parent, *state);
    assert_int_equal(tsr_block_pool_n_free(*state), 40);
    assert_true(tsr_block_pool_verify(*state));
}

static tsr_status grow_and_clear(void *pool)
{
    tsr_block_table table = {0};
    const tsr_status st = tsr_block_table_grow(&table, pool, 300, BLOCK_TOKENS);

    if (st != TSR_OK) {
        assert_int_equal(table.n_blocks, 0);
        assert_int_equal(tsr_block_pool_n_free(pool), 40);
        return st;
    }
    tsr_block_table_clear(&table, pool);
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
        WITH_POOL(running_out_of_memory_takes_no_block),
    };

    return cmocka_run_group_tests_name("block_table", tests, NULL, NULL);
}
