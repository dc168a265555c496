#include "kv/block_table.h"

#include <assert.h>

#include "base/alloc.h"

enum {
    FIRST_CAPACITY = 16
};

/* ---- groups ---- */

int64_t tsr_block_groups_most(const tsr_block_groups *groups, int64_t n_tokens, int64_t n_columns)
{
    const int64_t n_more = tsr_block_table_blocks_for(n_tokens, groups->block_tokens) - n_columns;
    int64_t n = 0;

    for (int g = 0; g < groups->n && n_more > 0; g++) {
        // The column that grows, the one before it, which is the floor, and what that one sees.
        const int64_t most = (int64_t)groups->behind[g] + 2;

        n += n_more < most ? n_more : most;
    }
    return n;
}

int64_t tsr_block_groups_held(const tsr_block_groups *groups, int64_t n_cached, int64_t n_tokens)
{
    const int64_t n_columns = tsr_block_table_blocks_for(n_tokens, groups->block_tokens);
    const int floor = tsr_block_groups_floor(groups, n_cached);
    int64_t n = 0;

    for (int g = 0; g < groups->n; g++) {
        n += n_columns - tsr_block_groups_first(groups, g, floor);
    }
    return n;
}

int64_t tsr_block_groups_longest(const tsr_block_groups *groups, int64_t n_blocks,
                                 int64_t most_tokens)
{
    int64_t low = 0;
    int64_t high = tsr_block_table_blocks_for(most_tokens, groups->block_tokens); // columns
    int64_t n_tokens;

    while (low < high) {
        const int64_t middle = low + (high - low + 1) / 2;

        if (tsr_block_groups_most(groups, middle * groups->block_tokens, 0) <= n_blocks) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    n_tokens = low * groups->block_tokens;
    return n_tokens < most_tokens ? n_tokens : most_tokens;
}

/* ---- tables ---- */

tsr_status tsr_block_table_reserve(tsr_block_table *table, const tsr_block_groups *groups,
                                   int n_columns)
{
    const int64_t n_ids = (int64_t)n_columns * groups->n;
    int64_t capacity = table->capacity > 0 ? table->capacity : FIRST_CAPACITY;
    int32_t *ids;

    if (n_ids <= table->capacity) {
        return TSR_OK;
    }
    // Doubling, so that a sequence which grows token by token is moved a few times only.
    while (capacity < n_ids) {
        capacity *= 2;
    }
    capacity = capacity < INT32_MAX ? capacity : INT32_MAX;
    ids = capacity < n_ids ? NULL : tsr_alloc_resize(table->ids, (size_t)capacity, sizeof(*ids));
    if (ids == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "block table: no memory for a list of %lld blocks",
                        (long long)capacity);
    }
    table->ids = ids;
    table->capacity = (int)capacity;
    return TSR_OK;
}

tsr_status tsr_block_table_grow(tsr_block_table *table, tsr_block_pool *pool,
                                const tsr_block_groups *groups, int64_t n_tokens)
{
    const int64_t n_columns = tsr_block_table_blocks_for(n_tokens, groups->block_tokens);

    // Both ways to fail come before the first block is taken: nothing has to be given back.
    if ((n_columns - table->n_columns) * groups->n > tsr_block_pool_n_free(pool)) {
        return TSR_ERR_FULL;
    }
    if (n_columns <= table->n_columns) {
        return TSR_OK;
    }
    TSR_TRY(tsr_block_table_reserve(table, groups, (int)n_columns));
    for (; table->n_columns < n_columns; table->n_columns++) {
        for (int g = 0; g < groups->n; g++) { // there are enough
            TSR_TRY(tsr_block_pool_take(pool, &table->ids[table->n_columns * groups->n + g]));
        }
        table->n_blocks += groups->n;
    }
    return TSR_OK;
}

tsr_status tsr_block_table_share(tsr_block_table *table, tsr_block_pool *pool,
                                 const tsr_block_groups *groups, const int32_t *ids, int n_columns)
{
    int32_t *to;

    TSR_TRY(tsr_block_table_reserve(table, groups, table->n_columns + n_columns));
    to = table->ids + (size_t)table->n_columns * (size_t)groups->n;
    for (int i = 0; i < n_columns * groups->n; i++) {
        if (ids[i] != TSR_BLOCK_NONE) {
            tsr_block_pool_share(pool, ids[i]);
            table->n_blocks++;
        }
        to[i] = ids[i];
    }
    table->n_columns += n_columns;
    return TSR_OK;
}

int tsr_block_table_cut(tsr_block_table *table, tsr_block_pool *pool,
                        const tsr_block_groups *groups, int n_keep, int32_t *freed)
{
    int n_freed = 0;

    assert(n_keep >= 0);
    for (int i = table->n_columns * groups->n - 1; i >= n_keep * groups->n; i--) {
        const int32_t id = table->ids[i];

        if (id == TSR_BLOCK_NONE) {
            continue;
        }
        table->n_blocks--;
        if (tsr_block_pool_drop(pool, id)) {
            if (freed != NULL) {
                freed[n_freed] = id;
            }
            n_freed++;
        }
    }
    table->n_columns = n_keep < table->n_columns ? n_keep : table->n_columns;
    table->floor = n_keep > 0 ? table->floor : 0;
    return n_freed;
}

int tsr_block_table_leave(tsr_block_table *table, const tsr_block_groups *groups, int floor,
                          int32_t *left)
{
    int n_left = 0;

    for (int g = 0; g < groups->n && floor > table->floor; g++) {
        const int end = tsr_block_groups_first(groups, g, floor);

        for (int c = tsr_block_groups_first(groups, g, table->floor); c < end; c++) {
            left[n_left++] = table->ids[c * groups->n + g];
            table->ids[c * groups->n + g] = TSR_BLOCK_NONE;
        }
    }
    table->n_blocks -= n_left;
    table->floor = floor > table->floor ? floor : table->floor;
    return n_left;
}

bool tsr_block_table_goes_on_from(const tsr_block_table *table, const tsr_block_groups *groups,
                                  int64_t n_tokens)
{
    const int64_t column = n_tokens / groups->block_tokens;

    for (int g = 0; g < groups->n; g++) {
        const int first = tsr_block_groups_first(groups, g, table->floor);

        if (first > 0 && column - groups->behind[g] < first) {
            return false;
        }
    }
    return true;
}

int tsr_block_table_n_before(const tsr_block_table *table, const tsr_block_groups *groups,
                             int n_columns)
{
    int n = 0;

    for (int g = 0; g < groups->n; g++) {
        const int first = tsr_block_groups_first(groups, g, table->floor);

        n += n_columns > first ? n_columns - first : 0;
    }
    return n;
}

void tsr_block_table_clear(tsr_block_table *table, tsr_block_pool *pool,
                           const tsr_block_groups *groups)
{
    (void)tsr_block_table_cut(table, pool, groups, 0, NULL);
    tsr_free(table->ids);
    *table = (tsr_block_table){0};
}
