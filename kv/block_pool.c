#include "kv/block_pool.h"

#include <assert.h>

#include "base/alloc.h"

enum {
    HELD = -1, // in `place`: not among the free
    NONE = -1  // no neighbour, and nobody in the line
};

/* A block's place in the line of the idle ones. */
typedef struct neighbours {
    int32_t older, newer;
} neighbours;

struct tsr_block_pool {
    int n_blocks;
    int n_free;
    int32_t
        *free_ids;   // owned, [n_blocks]: the first n_free are the free ids, next to be taken last
    int32_t *place;  // owned, [n_blocks]: where in `free_ids` an id stands, or HELD
    int32_t *owners; // owned, [n_blocks]
    bool *is_kept;   // owned, [n_blocks]: one of the owners is the prefix index
    neighbours *beside;     // owned, [n_blocks]; of idle ones
    int32_t oldest, newest; // of the idle
    int n_idle;
};

size_t tsr_block_pool_book_bytes(int n_blocks)
{
    const tsr_block_pool *pool = NULL;

    return (size_t)n_blocks *
           (sizeof(*pool->free_ids) + sizeof(*pool->place) + sizeof(*pool->owners) +
            sizeof(*pool->is_kept) + sizeof(*pool->beside));
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
    pool->is_kept = tsr_alloc((size_t)n_blocks, sizeof(*pool->is_kept));
    pool->beside = tsr_alloc((size_t)n_blocks, sizeof(*pool->beside));
    pool->oldest = NONE;
    pool->newest = NONE;
    if (pool->free_ids == NULL || pool->place == NULL || pool->owners == NULL ||
        pool->is_kept == NULL || pool->beside == NULL) {
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
    tsr_free(pool->beside);
    tsr_free(pool->is_kept);
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

/* ---- the idle ---- */

bool tsr_block_pool_is_idle(const tsr_block_pool *pool, int32_t id)
{
    return pool->is_kept[id] && pool->owners[id] == 1;
}

static void join_line(tsr_block_pool *pool, int32_t id)
{
    pool->beside[id] = (neighbours){.older = pool->newest, .newer = NONE};
    if (pool->newest != NONE) {
        pool->beside[pool->newest].newer = id;
    } else {
        pool->oldest = id;
    }
    pool->newest = id;
    pool->n_idle++;
}

static void leave_line(tsr_block_pool *pool, int32_t id)
{
    const neighbours n = pool->beside[id];

    if (n.older != NONE) {
        pool->beside[n.older].newer = n.newer;
    } else {
        pool->oldest = n.newer;
    }
    if (n.newer != NONE) {
        pool->beside[n.newer].older = n.older;
    } else {
        pool->newest = n.older;
    }
    pool->n_idle--;
}

/* ---- owners ---- */

void tsr_block_pool_share(tsr_block_pool *pool, int32_t id)
{
    assert(id >= 0 && id < pool->n_blocks && pool->owners[id] > 0);
    if (tsr_block_pool_is_idle(pool, id)) {
        leave_line(pool, id);
    }
    pool->owners[id]++;
}

bool tsr_block_pool_drop(tsr_block_pool *pool, int32_t id)
{
    assert(id >= 0 && id < pool->n_blocks && pool->owners[id] > 0);
    if (--pool->owners[id] > 0) {
        if (tsr_block_pool_is_idle(pool, id)) {
            join_line(pool, id);
        }
        return false;
    }
    pool->place[id] = pool->n_free;
    pool->free_ids[pool->n_free++] = id;
    return true;
}

void tsr_block_pool_keep(tsr_block_pool *pool, int32_t id)
{
    assert(!pool->is_kept[id]);
    tsr_block_pool_share(pool, id);
    pool->is_kept[id] = true;
}

bool tsr_block_pool_let_go(tsr_block_pool *pool, int32_t id)
{
    assert(pool->is_kept[id]);
    if (tsr_block_pool_is_idle(pool, id)) {
        leave_line(pool, id);
    }
    pool->is_kept[id] = false;
    return tsr_block_pool_drop(pool, id);
}

/* ---- questions ---- */

int32_t tsr_block_pool_oldest_idle(const tsr_block_pool *pool)
{
    return pool->oldest;
}

bool tsr_block_pool_is_kept(const tsr_block_pool *pool, int32_t id)
{
    return pool->is_kept[id];
}

int tsr_block_pool_n_idle(const tsr_block_pool *pool)
{
    return pool->n_idle;
}

int tsr_block_pool_n_blocks(const tsr_block_pool *pool)
{
    return pool->n_blocks;
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

/* The line has so many, each beside its neighbours. */
static bool verify_line(const tsr_block_pool *pool)
{
    int32_t before = NONE;
    int n = 0;

    for (int32_t id = pool->oldest; id != NONE; before = id, id = pool->beside[id].newer, n++) {
        if (n == pool->n_idle || !tsr_block_pool_is_idle(pool, id) ||
            pool->beside[id].older != before) {
            return false;
        }
    }
    return n == pool->n_idle && before == pool->newest;
}

bool tsr_block_pool_verify(const tsr_block_pool *pool)
{
    int n_held = 0;
    int n_idle = 0;

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
        if (pool->is_kept[id] && pool->owners[id] == 0) {
            return false;
        }
        n_held += pool->owners[id] > 0 ? 1 : 0;
        n_idle += tsr_block_pool_is_idle(pool, id) ? 1 : 0;
    }
    return pool->n_free + n_held == pool->n_blocks && n_idle == pool->n_idle && verify_line(pool);
}
