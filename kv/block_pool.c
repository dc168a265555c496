#include "kv/block_pool.h"

#include <assert.h>

#include "base/alloc.h"

enum {
    HELD = -1 // in `place`: not among the free
};

struct tsr_block_pool {
    int n_blocks;
    int n_free;
    int32_t
        *free_ids;   // owned, [n_blocks]: the first n_free are the free ids, next to be taken last
    int32_t *place;  // owned, [n_blocks]: where in `free_ids` an id stands, or HELD
    int32_t *owners; // owned, [n_blocks]
};

size_t tsr_block_pool_book_bytes(int n_blocks)
{
    const tsr_block_pool *pool = NULL;

    return (size_t)n_blocks *
           (sizeof(*pool->free_ids) + sizeof(*pool->place) + sizeof(*pool->owners));
}

tsr_status tsr_block_pool_create(tsr_block_pool **out, int n_blocks)
{
    tsr_block_pool *pool;

    if (n_blocks <= 0) {
        return tsr_fail(TSR_ERR_ARG, "block pool: %d blocks, at least 1 is needed", n_blocks);
    }
    pool = tsr_alloc(1, sizeof(*pool));
    if (pool == NULL) {
        goto fail;
    }
    pool->n_blocks = n_blocks;
    pool->free_ids = tsr_alloc((size_t)n_blocks, sizeof(*pool->free_ids));
    pool->place = tsr_alloc((size_t)n_blocks, sizeof(*pool->place));
    pool->owners = tsr_alloc((size_t)n_blocks, sizeof(*pool->owners));
    if (pool->free_ids == NULL || pool->place == NULL || pool->owners == NULL) {
        goto fail;
    }
    // From the highest down, so that block 0 is taken first.
    for (int32_t id = n_blocks - 1; id >= 0; id--) {
        pool->place[id] = pool->n_free;
        pool->free_ids[pool->n_free++] = id;
    }
    *out = pool;
    return TSR_OK;

fail:
    tsr_block_pool_destroy(pool);
    return tsr_fail(TSR_ERR_NOMEM, "block pool: no memory to keep books of %d blocks", n_blocks);
}

void tsr_block_pool_destroy(tsr_block_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    tsr_free(pool->owners);
    tsr_free(pool->place);
    tsr_free(pool->free_ids);
    tsr_free(pool);
}

tsr_status tsr_block_pool_take(tsr_block_pool *pool, int32_t *id)
{
    int32_t taken;

    if (pool->n_free == 0) {
        return TSR_ERR_FULL; // normal life: no message
    }
    taken = pool->free_ids[--pool->n_free];
    pool->place[taken] = HELD;
    pool->owners[taken] = 1;
    *id = taken;
    return TSR_OK;
}

void tsr_block_pool_share(tsr_block_pool *pool, int32_t id)
{
    assert(id >= 0 && id < pool->n_blocks && pool->owners[id] > 0);
    pool->owners[id]++;
}

bool tsr_block_pool_drop(tsr_block_pool *pool, int32_t id)
{
    assert(id >= 0 && id < pool->n_blocks && pool->owners[id] > 0);
    if (--pool->owners[id] > 0) {
        return false;
    }
    pool->place[id] = pool->n_free;
    pool->free_ids[pool->n_free++] = id;
    return true;
}

int tsr_block_pool_n_free(const tsr_block_pool *pool)
{
    return pool->n_free;
}

int tsr_block_pool_n_owners(const tsr_block_pool *pool, int32_t id)
{
    assert(id >= 0 && id < pool->n_blocks);
    return pool->owners[id];
}

bool tsr_block_pool_verify(const tsr_block_pool *pool)
{
    int n_held = 0;

    if (pool->n_free < 0 || pool->n_free > pool->n_blocks) {
        return false;
    }
    // An id that stood twice among the free would need two places.
    for (int k = 0; k < pool->n_free; k++) {
        const int32_t id = pool->free_ids[k];

        if (id < 0 || id >= pool->n_blocks || pool->place[id] != k || pool->owners[id] != 0) {
            return false;
        }
    }
    for (int id = 0; id < pool->n_blocks; id++) {
        if (pool->owners[id] < 0 || (pool->owners[id] > 0) != (pool->place[id] == HELD)) {
            return false;
        }
        n_held += pool->owners[id] > 0 ? 1 : 0;
    }
    return pool->n_free + n_held == pool->n_blocks;
}
