#include "kv/kv_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/torture.h"

static const tsr_kv_layout small = {
    .n_layers = 2,
    .n_kv_heads = 3,
    .key_dim = 24,
    .value_dim = 24,
    .block_tokens = 16,
    .type = TSR_KV_TYPE_BF16,
};

static int open_cpu(void **state)
{
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};

    return tsr_device_open((tsr_device **)state, &options) == TSR_OK ? 0 : -1;
}

static int close_cpu(void **state)
{
    tsr_device_close(*state);
    return 0;
}

enum {
    N_TABLES = 3,
    MAX_BLOCKS = 7
};

static tsr_status create(tsr_kv_store **out, tsr_device *dev, const tsr_kv_layout *layout,
                         int n_slots, int n_ids)
{
    const tsr_kv_store_options options = {
        .layout = *layout,
        .n_ids = n_ids,
        .n_device = n_slots,
        .n_lanes = N_TABLES,
        .n_groups = 1,
        .max_blocks = MAX_BLOCKS,
    };

    return tsr_kv_store_create(out, dev, &options);
}

/* Where block `id` lies, by the entry of a table that it is told to. */
static int32_t place(tsr_kv_store *store, int32_t id)
{
    const int32_t *tables = tsr_kv_store_tables(store, 0).data;
    int32_t slot;

    assert_int_equal(tsr_kv_store_append(store, 2, 5, id), TSR_OK);
    slot = tables[2 * MAX_BLOCKS + 5];
    assert_in_range(slot, 0, tsr_kv_store_n_slots(store) - 1);
    return slot;
}

static void a_block_keeps_its_slot_until_it_is_dropped(void **state)
{
    tsr_kv_store *store = NULL;
    int32_t first, second;

    assert_int_equal(create(&store, *state, &small, 5, 100), TSR_OK);
    first = place(store, 99);
    second = place(store, 0);
    assert_int_not_equal(first, second);
    assert_int_equal(place(store, 99), first);
    assert_int_equal(tsr_kv_store_n_used(store), 2);
    assert_int_equal(tsr_kv_store_drop(store, 99), TSR_OK);
    assert_int_equal(tsr_kv_store_drop(store, 99), TSR_OK); // not here: nothing happens
    assert_int_equal(tsr_kv_store_drop(store, 50), TSR_OK);
    assert_int_equal(tsr_kv_store_n_used(store), 1);
    assert_int_equal(place(store, 0), second);
    assert_true(tsr_kv_store_verify(store));
    tsr_kv_store_destroy(store);
}

static void the_slot_given_back_last_is_taken_first(void **state)
{
    tsr_kv_store *store = NULL;
    int32_t slots[4];

    assert_int_equal(create(&store, *state, &small, 8, 20), TSR_OK);
    for (int i = 0; i < 4; i++) {
        slots[i] = place(store, i);
        assert_int_equal(slots[i], i); // from the front of the pool
    }
    assert_int_equal(tsr_kv_store_drop(store, 1), TSR_OK);
    assert_int_equal(tsr_kv_store_drop(store, 3), TSR_OK);
    assert_int_equal(place(store, 10), slots[3]);
    assert_int_equal(place(store, 11), slots[1]);
    assert_int_equal(place(store, 12), 4);
    tsr_kv_store_destroy(store);
}

static void a_full_store_says_so_and_takes_blocks_again_after_a_drop(void **state)
{
    tsr_kv_store *store = NULL;
    int32_t slot;

    assert_int_equal(create(&store, *state, &small, 3, 9), TSR_OK);
    for (int i = 0; i < 3; i++) {
        (void)place(store, i);
    }
    assert_int_equal(tsr_kv_store_append(store, 0, 0, 5), TSR_ERR_FULL);
    assert_non_null(strstr(tsr_status_message(), "all 3"));
    // A block dropped and given out again in one step: first the drop, then the place.
    slot = place(store, 1);
    assert_int_equal(tsr_kv_store_drop(store, 1), TSR_OK);
    assert_int_equal(place(store, 1), slot);
    assert_true(tsr_kv_store_verify(store));
    tsr_kv_store_destroy(store);
}

static void ids_out_of_range_are_refused(void **state)
{
    tsr_kv_store *store = NULL;

    assert_int_equal(create(&store, *state, &small, 3, 9), TSR_OK);
    assert_int_equal(tsr_kv_store_append(store, 0, 0, 9), TSR_ERR_ARG);
    assert_int_equal(tsr_kv_store_append(store, 0, 0, -2), TSR_ERR_ARG);
    assert_int_equal(tsr_kv_store_drop(store, 9), TSR_ERR_ARG);
    assert_int_equal(tsr_kv_store_drop(store, -1), TSR_ERR_ARG);
    assert_int_equal(tsr_kv_store_append(store, N_TABLES, 0, 1), TSR_ERR_ARG);
    assert_int_equal(tsr_kv_store_append(store, 0, MAX_BLOCKS, 1), TSR_ERR_ARG);
    assert_int_equal(tsr_kv_store_leave(store, -1), TSR_ERR_ARG);
    tsr_kv_store_destroy(store);
}

static void random_blocks_never_share_a_slot(void **state)
{
    enum {
        N_SLOTS = 9,
        N_IDS = 30
    };
    int32_t slot_of[N_IDS];
    tsr_kv_store *store = NULL;
    uint64_t dice = 2;
    int n_used = 0;

    assert_int_equal(create(&store, *state, &small, N_SLOTS, N_IDS), TSR_OK);
    for (int i = 0; i < N_IDS; i++) {
        slot_of[i] = -1;
    }
    for (int turn = 0; turn < 20000; turn++) {
        const int32_t id = dice_below(&dice, N_IDS);

        if (dice_below(&dice, 2) == 0) {
            assert_int_equal(tsr_kv_store_drop(store, id), TSR_OK);
            n_used -= slot_of[id] >= 0 ? 1 : 0;
            slot_of[id] = -1;
        } else if (slot_of[id] >= 0) {
            assert_int_equal(place(store, id), slot_of[id]);
        } else if (n_used < N_SLOTS) {
            slot_of[id] = place(store, id);
            n_used++;
            for (int k = 0; k < N_IDS; k++) {
                assert_true(k == id || slot_of[k] != slot_of[id]);
            }
        } else {

            assert_int_equal(tsr_kv_store_append(store, 0, 0, id), TSR_ERR_FULL);
        }
        assert_int_equal(tsr_kv_store_n_used(store), n_used);
        assert_true(tsr_kv_store_verify(store));
    }
    tsr_kv_store_destroy(store);
}

static void a_view_shows_one_layer_of_the_whole_pool(void **state)
{
    tsr_kv_store *store = NULL;
    /* 2 layers, 3 heads, keys 24 and values 32 (24 padded to 16s) a token, 16 tokens, 2 bytes */
    const size_t block_bytes = (size_t)2 * 3 * (24 + 32) * 16 * 2;
    unsigned char *pool;

    assert_int_equal(create(&store, *state, &small, 5, 5), TSR_OK);
    for (int layer = 0; layer < 2; layer++) {
        const tsr_kv_view view = tsr_kv_store_view(store, layer);

        assert_int_equal(view.layer, layer);
        assert_int_equal(view.block_bytes, block_bytes);
        assert_int_equal(view.layout->key_dim, 24);
        assert_ptr_not_equal(view.layout, &small); // a copy
        assert_ptr_equal(view.pool, tsr_kv_store_view(store, 0).pool);
    }
    pool = tsr_kv_store_view(store, 0).pool;
    memset(pool, 0xab, 5 * block_bytes); // all of it is there: a sanitizer would see
    assert_int_equal(pool[5 * block_bytes - 1], 0xab);
    tsr_kv_store_destroy(store);
}

/* Bytes of memory that the pages of [at, at + n_bytes) take up. */
static size_t resident_bytes(void *at, size_t n_bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t n_pages = (n_bytes + page - 1) / page;
    unsigned char *there = tsr_alloc(n_pages, 1);
    size_t n = 0;

    assert_non_null(there);
    assert_int_equal(mincore(at, n_bytes, there), 0);
    for (size_t i = 0; i < n_pages; i++) {
        n += there[i] & 1;
    }
    tsr_free(there);
    return n * page;
}

static void memory_is_taken_up_only_where_blocks_were_written(void **state)
{
    /* 32 layers * 8 heads * (128 + 128) * 16 tokens * 2 bytes: 2 MiB a block, 2 GB in all */
    const tsr_kv_layout large = {32, 8, 128, 128, 16, TSR_KV_TYPE_F16, false, false};
    enum {
        N_SLOTS = 1000,
        HUGE_BYTES = 2 << 20
    };
    tsr_kv_store *store = NULL;
    tsr_kv_view view;

    assert_int_equal(create(&store, *state, &large, N_SLOTS, 4 * N_SLOTS), TSR_OK);
    view = tsr_kv_store_view(store, 0);
    assert_int_equal(view.block_bytes, 2 << 20);
    assert_int_equal(resident_bytes(view.pool, N_SLOTS * view.block_bytes), 0);

    // Thirty sequences come and go; at most four are there at once.
    for (int32_t id = 0; id < 30; id++) {
        memset((char *)view.pool + (size_t)place(store, id) * view.block_bytes, 1,
               view.block_bytes);
        if (id >= 3) {
            assert_int_equal(tsr_kv_store_drop(store, id - 3), TSR_OK);
        }
    }
    assert_in_range(resident_bytes(view.pool, N_SLOTS * view.block_bytes), 4 * view.block_bytes,
                    4 * view.block_bytes + HUGE_BYTES);
    tsr_kv_store_destroy(store);
}

static void a_rank_without_heads_keeps_the_books_all_the_same(void **state)
{
    tsr_kv_layout none = small;
    tsr_kv_store *store = NULL;

    none.n_kv_heads = 0;
    assert_int_equal(create(&store, *state, &none, 2, 4), TSR_OK);
    assert_int_equal(tsr_kv_store_view(store, 1).block_bytes, 0);
    assert_int_not_equal(place(store, 3), place(store, 1));
    assert_int_equal(tsr_kv_store_append(store, 0, 0, 2), TSR_ERR_FULL);
    assert_int_equal(tsr_kv_store_drop(store, 3), TSR_OK);
    (void)place(store, 2);
    assert_true(tsr_kv_store_verify(store));
    tsr_kv_store_destroy(store);
}

static void a_copied_block_has_all_bytes_of_the_other(void **state)
{
    tsr_kv_store *store = NULL;
    size_t block_bytes;
    unsigned char *pool;

    assert_int_equal(create(&store, *state, &small, 5, 9), TSR_OK);
    pool = tsr_kv_store_view(store, 0).pool;
    block_bytes = tsr_kv_store_view(store, 0).block_bytes;
    memset(pool + (size_t)place(store, 4) * block_bytes, 7, block_bytes);
    memset(pool + (size_t)place(store, 8) * block_bytes, 9, block_bytes);
    assert_int_equal(tsr_kv_store_copy(store, 4, 8), TSR_OK);
    assert_memory_equal(pool + (size_t)place(store, 8) * block_bytes,
                        pool + (size_t)place(store, 4) * block_bytes, block_bytes);
    assert_int_equal(tsr_kv_store_copy(store, 4, 1), TSR_ERR_ARG); // 1 is not here
    assert_int_equal(tsr_kv_store_copy(store, 4, 4), TSR_ERR_ARG);
    assert_int_equal(tsr_kv_store_copy(store, 9, 4), TSR_ERR_ARG);
    tsr_kv_store_destroy(store);
}

static void impossible_stores_are_refused(void **state)
{
    tsr_kv_layout bad = small;
    tsr_kv_layout vast = {1 << 20, 1 << 12,         256,   256,
                          64,      TSR_KV_TYPE_F32, false, false}; /* 2^49 bytes a block */
    tsr_kv_store *store = NULL;

    bad.block_tokens = 17;
    assert_int_equal(create(&store, *state, &bad, 2, 4), TSR_ERR_ARG);
    assert_int_equal(create(&store, *state, &small, 0, 4), TSR_ERR_ARG);
    assert_int_equal(create(&store, *state, &small, 2, 0), TSR_ERR_ARG);
    assert_int_equal(create(&store, *state, &vast, 1 << 10, 4), TSR_ERR_NOMEM);
    assert_int_equal(create(&store, *state, &vast, 1 << 20, 4), TSR_ERR_NOMEM);
    assert_null(store);
    tsr_kv_store_destroy(NULL);
}

static tsr_status make_and_drop(void *dev)
{
    tsr_kv_store *store = NULL;

    TSR_TRY(create(&store, dev, &small, 4, 4));
    tsr_kv_store_destroy(store);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    // The record, the tables with three lists and their place on the device, the pool, three maps.
    assert_int_equal(torture(make_and_drop, *state), 10);
}

#define ON_CPU(test) cmocka_unit_test_setup_teardown(test, open_cpu, close_cpu)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_CPU(a_block_keeps_its_slot_until_it_is_dropped),
        ON_CPU(the_slot_given_back_last_is_taken_first),
        ON_CPU(a_full_store_says_so_and_takes_blocks_again_after_a_drop),
        ON_CPU(ids_out_of_range_are_refused),
        ON_CPU(random_blocks_never_share_a_slot),
        ON_CPU(a_view_shows_one_layer_of_the_whole_pool),
        ON_CPU(memory_is_taken_up_only_where_blocks_were_written),
        ON_CPU(a_rank_without_heads_keeps_the_books_all_the_same),
        ON_CPU(a_copied_block_has_all_bytes_of_the_other),
        ON_CPU(impossible_stores_are_refused),
        ON_CPU(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("kv_store", tests, NULL, NULL);
}
