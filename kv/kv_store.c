#include "kv/kv_store.h"

#include <assert.h>

#include "base/alloc.h"

/* Maps hold number + 1, so that the zeroed pages they come as mean "none" and are touched only
 * where blocks live. */
struct tsr_kv_store {
    tsr_device *dev; // borrowed
    tsr_kv_layout layout;
    size_t block_bytes; // may be 0: this rank keeps no heads
    void *pool;         // owned, [n_slots * block_bytes] on the device; NULL when that is 0
    int n_slots;
    int n_ids;
    int32_t *slot_of; // owned, [n_ids]: slot + 1 of a block that is here
    int32_t *id_in;   // owned, [n_slots]: id + 1 of the block in a slot
    int32_t *given;   // owned, [n_slots]: slots given back, the last on top
    int n_given;
    int n_touched; // slots from here on were never used
};

static size_t pool_bytes(const tsr_kv_store *store)
{
    return (size_t)store->n_slots * store->block_bytes;
}

size_t tsr_kv_store_map_bytes(int n_slots, int n_ids)
{
    return ((size_t)n_ids + 2 * (size_t)n_slots) * sizeof(int32_t); // slot_of; id_in and given
}

tsr_status tsr_kv_store_create(tsr_kv_store **out, tsr_device *dev, const tsr_kv_layout *layout,
                               int n_slots, int n_ids)
{
    tsr_status st = TSR_OK;
    tsr_kv_store *store;
    size_t n_bytes;

    TSR_TRY(tsr_kv_layout_check(layout));
    if (n_slots <= 0 || n_ids <= 0) {
        return tsr_fail(TSR_ERR_ARG, "kv store: %d slots for %d block ids, both must be positive",
                        n_slots, n_ids);
    }
    store = tsr_alloc(1, sizeof(*store));
    if (store == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "kv store: no memory for its record");
    }
    store->dev = dev;
    store->layout = *layout;
    store->block_bytes = tsr_kv_layout_block_bytes(layout);
    store->n_slots = n_slots;
    store->n_ids = n_ids;

    store->slot_of = tsr_alloc((size_t)n_ids, sizeof(*store->slot_of));
    store->id_in = tsr_alloc((size_t)n_slots, sizeof(*store->id_in));
    store->given = tsr_alloc((size_t)n_slots, sizeof(*store->given));
    if (store->slot_of == NULL || store->id_in == NULL || store->given == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "kv store: no memory for maps of %d slots and %d block ids",
                      n_slots, n_ids);
        goto fail;
    }
    if (__builtin_mul_overflow((size_t)n_slots, store->block_bytes, &n_bytes)) {
        st = tsr_fail(TSR_ERR_NOMEM, "kv store: %d blocks of %zu bytes are beyond any memory",
                      n_slots, store->block_bytes);
        goto fail;
    }
    if (n_bytes > 0) {
        store->pool = tsr_device_alloc(dev, n_bytes);
        if (store->pool == NULL) {
            st = tsr_fail(TSR_ERR_NOMEM, "kv store: no room for %d blocks of %zu bytes", n_slots,
                          store->block_bytes);
            goto fail;
        }
    }
    *out = store;
    return TSR_OK;

fail:
    tsr_kv_store_destroy(store);
    return st;
}

void tsr_kv_store_destroy(tsr_kv_store *store)
{
    if (store == NULL) {
        return;
    }
    if (store->pool != NULL) {
        tsr_device_free(store->dev, store->pool, pool_bytes(store));
    }
    tsr_free(store->given);
    tsr_free(store->id_in);
    tsr_free(store->slot_of);
    tsr_free(store);
}

static tsr_status check_id(const tsr_kv_store *store, int32_t id)
{
    if (id < 0 || id >= store->n_ids) {
        return tsr_fail(TSR_ERR_ARG, "kv store: block %d, ids are below %d", (int)id, store->n_ids);
    }
    return TSR_OK;
}

tsr_status tsr_kv_store_place(tsr_kv_store *store, int32_t id, int32_t *slot)
{
    int32_t found;

    TSR_TRY(check_id(store, id));
    if (store->slot_of[id] != 0) {
        *slot = store->slot_of[id] - 1;
        return TSR_OK;
    }
    if (store->n_given > 0) {
        found = store->given[--store->n_given];
    } else if (store->n_touched < store->n_slots) {
        found = store->n_touched++;
    } else {
        return tsr_fail(TSR_ERR_FULL, "kv store: no slot for block %d, all %d hold one", (int)id,
                        store->n_slots);
    }
    store->slot_of[id] = found + 1;
    store->id_in[found] = id + 1;
    *slot = found;
    return TSR_OK;
}

tsr_status tsr_kv_store_drop(tsr_kv_store *store, int32_t id)
{
    int32_t slot;

    TSR_TRY(check_id(store, id));
    if (store->slot_of[id] == 0) {
        return TSR_OK;
    }
    slot = store->slot_of[id] - 1;
    store->slot_of[id] = 0;
    store->id_in[slot] = 0;
    store->given[store->n_given++] = slot;
    return TSR_OK;
}

tsr_kv_view tsr_kv_store_view(const tsr_kv_store *store, int layer)
{
    assert(layer >= 0 && layer < store->layout.n_layers);
    return (tsr_kv_view){
        .pool = store->pool,
        .block_bytes = store->block_bytes,
        .layout = &store->layout,
        .layer = layer,
    };
}

int tsr_kv_store_n_slots(const tsr_kv_store *store)
{
    return store->n_slots;
}

int tsr_kv_store_n_used(const tsr_kv_store *store)
{
    return store->n_touched - store->n_given;
}

bool tsr_kv_store_verify(const tsr_kv_store *store)
{
    int n_ids_here = 0;
    int n_slots_used = 0;

    for (int id = 0; id < store->n_ids; id++) {
        const int32_t slot = store->slot_of[id] - 1;

        if (slot < -1 || slot >= store->n_touched) {
            return false;
        }
        if (slot >= 0) {
            if (store->id_in[slot] != id + 1) {
                return false;
            }
            n_ids_here++;
        }
    }
    for (int slot = 0; slot < store->n_slots; slot++) {
        n_slots_used += store->id_in[slot] != 0 ? 1 : 0;
    }
    for (int k = 0; k < store->n_given; k++) {
        if (store->given[k] < 0 || store->given[k] >= store->n_touched ||
            store->id_in[store->given[k]] != 0) {
            return false;
        }
    }
    return n_ids_here == n_slots_used && n_slots_used + store->n_given == store->n_touched &&
           store->n_touched <= store->n_slots;
}
