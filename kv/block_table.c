#include "kv/block_table.h"

#include <assert.h>

#include "base/alloc.h"

enum {
    FIRST_CAPACITY = 16
};

tsr_status tsr_block_table_reserve(tsr_block_table *table, int n_blocks)
{
    int64_t capacity = table->capacity > 0 ? table->capacity : FIRST_CAPACITY;
    int32_t *ids;

    if (n_blocks <= table->capacity) {
        return TSR_OK;
    }
    // Doubling, so that a sequence which grows token by token is moved a few times only.
    while (capacity < n_blocks) {
        capacity *= 2;
    }
    capacity = capacity < INT32_MAX ? capacity : INT32_MAX;
    ids = tsr_alloc_resize(table->ids, (size_t)capacity, sizeof(*ids));
    if (ids == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "block table: no memory for a list of %lld blocks",
                        (long long)capacity);
    }
    table->ids = ids;
    table->capacity = (int)capacity;
    return TSR_OK;
}

tsr_status tsr_block_table_grow(tsr_block_table *table, tsr_block_pool *pool, int64_t n_tokens,
                                int block_tokens)
{
    const int64_t n_blocks = tsr_block_table_blocks_for(n_tokens, block_tokens);

    // Both ways to fail come before the first block is taken: nothing has to be given back.
    if (n_blocks - table->n_blocks > tsr_block_pool_n_free(pool)) {
        return TSR_ERR_FULL;
    }
    if (n_blocks <= table->n_blocks) {
        return TSR_OK;
    }
    TSR_TRY(tsr_block_table_reserve(table, (int)n_blocks));
    while (table->n_blocks < n_blocks) {
        TSR_TRY(tsr_block_pool_take(pool, &table->ids[table->n_blocks])); // there are enough
        table->n_blocks++;
    }
    return TSR_OK;
}

tsr_status tsr_block_table_share(tsr_block_table *table, tsr_block_pool *pool, const int32_t *ids,
                                 int n)
{
    TSR_TRY(tsr_block_table_reserve(table, table->n_blocks + n));
    for (int i = 0; i < n; i++) {
        tsr_block_pool_share(pool, ids[i]);
        table->ids[table->n_blocks++] = ids[i];
    }
    return TSR_OK;
}

int tsr_block_table_cut(tsr_block_table *table, tsr_block_pool *pool, int n_keep, int32_t *freed)
{
    int n_freed = 0;

    assert(n_keep >= 0);
    while (table->n_blocks > n_keep) {
        const int32_t id = table->ids[--table->n_blocks];

        if (tsr_block_pool_drop(pool, id)) {
            if (freed != NULL) {
                freed[n_freed] = id;
            }
            n_freed++;
        }
    }
    return n_freed;
}

void tsr_block_table_clear(tsr_block_table *table, tsr_block_pool *pool)
{
    (void)tsr_block_table_cut(table, pool, 0, NULL);
    tsr_free(table->ids);
    *table = (tsr_block_table){0};
}
