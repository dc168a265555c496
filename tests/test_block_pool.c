#include "kv/block_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/dice.h"
#include "tests/support/torture.h"

static void every_block_is_given_out_once_and_then_the_pool_is_full(void **state)
{
    bool seen[5] = {false};
    tsr_block_pool *pool = NULL;
    int32_t id = -7;

    (void)state;
    assert_int_equal(tsr_block_pool_create(&pool, 5), TSR_OK);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(tsr_block_pool_n_free(pool), 5 - i);
        assert_int_equal(tsr_block_pool_take(pool, &id), TSR_OK);
        assert_in_range(id, 0, 4);
        assert_false(seen[id]);
        assert_int_equal(tsr_block_pool_n_owners(pool, id), 1);
        seen[id] = true;
    }
    id = -7;
    assert_int_equal(tsr_block_pool_take(pool, &id), TSR_ERR_FULL);
    assert_int_equal(id, -7);
    assert_true(tsr_block_pool_verify(pool));
    tsr_block_pool_destroy(pool);
}

static void the_block_given_back_last_is_taken_first(void **state)
{
    tsr_block_pool *pool = NULL;
    int32_t ids[4], id;

    (void)state;
    assert_int_equal(tsr_block_pool_create(&pool, 4), TSR_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tsr_block_pool_take(pool, &ids[i]), TSR_OK);
    }
    assert_true(tsr_block_pool_drop(pool, ids[1]));
    assert_true(tsr_block_pool_drop(pool, ids[3]));
    assert_int_equal(tsr_block_pool_take(pool, &id), TSR_OK);
    assert_int_equal(id, ids[3]);
    assert_int_equal(tsr_block_pool_take(pool, &id), TSR_OK);
    assert_int_equal(id, ids[1]);
    tsr_block_pool_destroy(pool);
}

static void a_shared_block_is_free_only_when_its_last_owner_drops_it(void **state)
{
    tsr_block_pool *pool = NULL;
    int32_t id;

    (void)state;
    assert_int_equal(tsr_block_pool_create(&pool, 2), TSR_OK);
    assert_int_equal(tsr_block_pool_take(pool, &id), TSR_OK);
    tsr_block_pool_share(pool, id);
    tsr_block_pool_share(pool, id);
    assert_int_equal(tsr_block_pool_n_owners(pool, id), 3);
    assert_false(tsr_block_pool_drop(pool, id));
    assert_false(tsr_block_pool_drop(pool, id));
    assert_int_equal(tsr_block_pool_n_free(pool), 1);
    assert_true(tsr_block_pool_drop(pool, id));
    assert_int_equal(tsr_block_pool_n_free(pool), 2);
    tsr_block_pool_destroy(pool);
}

static void random_owners_always_add_up(void **state)
{
    enum {
        N_BLOCKS = 13,
        N_TURNS = 20000
    };
    int owners[N_BLOCKS] = {0};
    uint64_t dice = 3;
    tsr_block_pool *pool = NULL;

    (void)state;
    assert_int_equal(tsr_block_pool_create(&pool, N_BLOCKS), TSR_OK);
    for (int turn = 0; turn < N_TURNS; turn++) {
        const int32_t id = (int32_t)dice_below(&dice, N_BLOCKS);
        int n_free = 0;

        switch (dice_below(&dice, 4)) {
        case 0: {
            int32_t taken;

            if (tsr_block_pool_take(pool, &taken) == TSR_OK) {
                assert_int_equal(owners[taken], 0);
                owners[taken] = 1;
            }
            break;
        }
        case 1:
            if (owners[id] > 0) {
                tsr_block_pool_share(pool, id);
                owners[id]++;
            }
            break;
        default:
            if (owners[id] > 0) {
                assert_int_equal(tsr_block_pool_drop(pool, id), owners[id] == 1);
                owners[id]--;
            }
            break;
        }
        for (int i = 0; i < N_BLOCKS; i++) {
            assert_int_equal(tsr_block_pool_n_owners(pool, i), owners[i]);
            n_free += owners[i] == 0 ? 1 : 0;
        }
        assert_int_equal(tsr_block_pool_n_free(pool), n_free);
        assert_true(tsr_block_pool_verify(pool));
    }
    tsr_block_pool_destroy(pool);
}

static void a_pool_of_nothing_is_refused(void **state)
{
    tsr_block_pool *pool = NULL;

    (void)state;
    assert_int_equal(tsr_block_pool_create(&pool, 0), TSR_ERR_ARG);
    assert_int_equal(tsr_block_pool_create(&pool, -1), TSR_ERR_ARG);
    assert_null(pool);
    tsr_block_pool_destroy(NULL);
}

static tsr_status make_and_drop(void *ctx)
{
    tsr_block_pool *pool = NULL;

    (void)ctx;
    TSR_TRY(tsr_block_pool_create(&pool, 7));
    tsr_block_pool_destroy(pool);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_int_equal(torture(make_and_drop, NULL), 6); // the record and five arrays
}

static void what_the_index_alone_has_stands_in_line(void **state)
{
    tsr_block_pool *pool = NULL;
    int32_t ids[4];

    (void)state;
    assert_int_equal(tsr_block_pool_create(&pool, 5), TSR_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tsr_block_pool_take(pool, &ids[i]), TSR_OK);
        if (i < 3) {
            tsr_block_pool_keep(pool, ids[i]);
        }
    }
    assert_int_equal(tsr_block_pool_n_idle(pool), 0);
    assert_int_equal(tsr_block_pool_oldest_idle(pool), -1);
    assert_false(tsr_block_pool_drop(pool, ids[1]));
    assert_false(tsr_block_pool_drop(pool, ids[0]));
    assert_false(tsr_block_pool_drop(pool, ids[2]));
    assert_int_equal(tsr_block_pool_n_idle(pool), 3);
    assert_int_equal(tsr_block_pool_oldest_idle(pool), ids[1]);
    tsr_block_pool_share(pool, ids[0]); // used once more: out of the middle, then behind the others
    assert_true(tsr_block_pool_verify(pool));
    assert_false(tsr_block_pool_is_idle(pool, ids[0]));
    assert_false(tsr_block_pool_drop(pool, ids[0]));
    assert_true(tsr_block_pool_let_go(pool, ids[1]));
    assert_int_equal(tsr_block_pool_oldest_idle(pool), ids[2]);
    assert_true(tsr_block_pool_let_go(pool, ids[2]));
    assert_int_equal(tsr_block_pool_oldest_idle(pool), ids[0]);
    tsr_block_pool_share(pool, ids[0]);
    assert_false(tsr_block_pool_let_go(pool, ids[0])); // the other owner has it still
    assert_false(tsr_block_pool_is_kept(pool, ids[0]));
    assert_int_equal(tsr_block_pool_n_idle(pool), 0);
    assert_true(tsr_block_pool_drop(pool, ids[0]));
    assert_true(tsr_block_pool_drop(pool, ids[3]));
    assert_true(tsr_block_pool_verify(pool));
    tsr_block_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_is_given_out_once_and_then_the_pool_is_full),
        cmocka_unit_test(the_block_given_back_last_is_taken_first),
        cmocka_unit_test(a_shared_block_is_free_only_when_its_last_owner_drops_it),
        cmocka_unit_test(random_owners_always_add_up),
        cmocka_unit_test(what_the_index_alone_has_stands_in_line),
        cmocka_unit_test(a_pool_of_nothing_is_refused),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("block_pool", tests, NULL, NULL);
}
