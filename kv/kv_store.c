#include "kv/kv_store.h"

#include <assert.h>

#include "base/alloc.h"
#include "kv/kv_slots.h"

enum {
    LET_GO = -1 // in the place of an id
};

struct tsr_kv_store {
    tsr_device *dev; // borrowed
    tsr_kv_store_options options;
    size_t block_bytes; // may be 0: this rank keeps no heads
    void *pool;         // owned, [n_device * block_bytes] on the device; NULL when that is 0
    tsr_kv_tables tables;
    tsr_kv_tiers *tiers; // owned; NULL: the next two count
    tsr_kv_slots slots;
    // Maps hold number + 1, so that the zeroed pages they come as mean "none" and are touched only
    // where blocks live.
    int32_t *slot_of; // owned, [n_ids]: slot + 1 of a block that is here
};

static size_t pool_bytes(const tsr_kv_store *store)
{
    return (size_t)store->options.n_device * store->block_bytes;
}

static tsr_status make_pool(tsr_kv_store *store)
{
    size_t n_bytes;

    if (__builtin_mul_overflow((size_t)store->options.n_device, store->block_bytes, &n_bytes)) {
        return tsr_fail(TSR_ERR_NOMEM, "kv store: %d blocks of %zu bytes are beyond any memory",
                        store->options.n_device, store->block_bytes);
    }
    if (n_bytes > 0) {
        store->pool = tsr_device_alloc(store->dev, n_bytes);
        if (store->pool == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "kv store: no room for %d blocks of %zu bytes",
                            store->options.n_device, store->block_bytes);
        }
    }
    return TSR_OK;
}

/* What the tiers are asked for. */
static tsr_kv_tiers_options tiers_of(const tsr_kv_store_options *o)
{
    return (tsr_kv_tiers_options){
        .n_groups = o->n_groups,
        .block_bytes = tsr_kv_layout_block_bytes(&o->layout),
        .n_ids = o->n_ids,
        .n_device = o->n_device,
        .n_host = o->n_host,
        .n_disk = o->n_disk,
        .folder = o->folder,
    };
}

static tsr_status make_maps(tsr_kv_store *store)
{
    const tsr_kv_store_options *o = &store->options;

    if (o->is_tiered) {
        const tsr_kv_tiers_options tiers = tiers_of(o);

        return tsr_kv_tiers_create(&store->tiers, store->dev, store->pool, &store->tables, &tiers);
    }
    TSR_TRY(tsr_kv_slots_init(&store->slots, o->n_device));
    store->slot_of = tsr_alloc((size_t)o->n_ids, sizeof(*store->slot_of));
    if (store->slot_of == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "kv store: no memory for a map of %d block ids", o->n_ids);
    }
    return TSR_OK;
}

size_t tsr_kv_store_map_bytes(const tsr_kv_store_options *o)
{
    const tsr_kv_tiers_options tiers = tiers_of(o);
    const tsr_kv_store *store = NULL;

    return tsr_kv_tables_bytes(o->n_lanes * o->n_groups, o->max_blocks) +
           (o->is_tiered
                ? tsr_kv_tiers_map_bytes(&tiers)
                : tsr_kv_slots_bytes(o->n_device) + (size_t)o->n_ids * sizeof(*store->slot_of));
}

tsr_status tsr_kv_store_create(tsr_kv_store **out, tsr_device *dev,
                               const tsr_kv_store_options *options)
{
    tsr_status st = TSR_OK;
    tsr_kv_store *store;

    TSR_TRY(tsr_kv_layout_check(&options->layout));
    if (options->n_device <= 0 || options->n_ids <= 0 || options->n_lanes <= 0 ||
        options->n_groups <= 0 || options->max_blocks <= 0) {
        return tsr_fail(TSR_ERR_ARG,
                        "kv store: %d slots for %d block ids in %d x %d tables of %d, all must be "
                        "positive",
                        options->n_device, options->n_ids, options->n_lanes, options->n_groups,
                        options->max_blocks);
    }
    store = tsr_alloc(1, sizeof(*store));
    if (store == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "kv store: no memory for its record");
    }
    store->dev = dev;
    store->options = *options;
    store->options.folder = NULL;
    store->block_bytes = tsr_kv_layout_block_bytes(&options->layout);
    TSR_TRY_GOTO(st, fail,
                 tsr_kv_tables_init(&store->tables, dev, options->n_lanes * options->n_groups,
                                    options->max_blocks));
    TSR_TRY_GOTO(st, fail, make_pool(store));
    store->options.folder = options->folder;
    TSR_TRY_GOTO(st, fail, make_maps(store));
    store->options.folder = NULL; // was for the call alone
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
    tsr_kv_tiers_destroy(store->tiers);
    tsr_free(store->slot_of);
    tsr_kv_slots_clear(&store->slots);
    if (store->pool != NULL) {
        tsr_device_free(store->dev, store->pool, pool_bytes(store));
    }
    tsr_kv_tables_clear(&store->tables);
    tsr_free(store);
}

static tsr_status check_id(const tsr_kv_store *store, int32_t id)
{
    if (id < 0 || id >= store->options.n_ids) {
        return tsr_fail(TSR_ERR_ARG, "kv store: block %d, ids are below %d", (int)id,
                        store->options.n_ids);
    }
    return TSR_OK;
}

/* ---- the device pool alone ---- */

/* The slot of block `id`; a block that is not here yet gets one. */
static tsr_status place(tsr_kv_store *store, int32_t id, int32_t *slot)
{
    int32_t found;

    if (store->slot_of[id] == 0) {
        found = tsr_kv_slots_take(&store->slots);
        if (found < 0) {
            return tsr_fail(TSR_ERR_FULL, "kv store: no slot for block %d, all %d hold one",
                            (int)id, store->slots.n);
        }
        store->slot_of[id] = found + 1;
        store->slots.id_in[found] = id + 1;
    }
    *slot = store->slot_of[id] - 1;
    return TSR_OK;
}

static void *block_at(const tsr_kv_store *store, int32_t slot)
{
    return (char *)store->pool + (size_t)slot * store->block_bytes;
}

/* ---- changes ---- */

tsr_status tsr_kv_store_drop(tsr_kv_store *store, int32_t id)
{
    TSR_TRY(check_id(store, id));
    if (store->tiers != NULL) {
        tsr_kv_tiers_drop(store->tiers, id);
    } else if (store->slot_of[id] != 0) {
        tsr_kv_slots_give(&store->slots, store->slot_of[id] - 1);
        store->slot_of[id] = 0;
    }
    return TSR_OK;
}

tsr_status tsr_kv_store_leave(tsr_kv_store *store, int lane)
{
    const int n_groups = store->options.n_groups;

    TSR_TRY(tsr_kv_tables_check(&store->tables, lane * n_groups, 0));
    for (int g = 0; g < n_groups && store->tiers != NULL; g++) {
        tsr_kv_tiers_leave(store->tiers, lane * n_groups + g);
    }
    return TSR_OK;
}

tsr_status tsr_kv_store_append(tsr_kv_store *store, int lane, int index, int32_t id)
{
    const int table = lane * store->options.n_groups + index % store->options.n_groups;
    const int column = index / store->options.n_groups;
    int32_t slot;

    TSR_TRY(tsr_kv_tables_check(&store->tables, table, column));
    if (id == LET_GO) {
        if (store->tiers != NULL) {
            tsr_kv_tiers_let_go(store->tiers, table, column);
        }
        return TSR_OK;
    }
    TSR_TRY(check_id(store, id));
    if (store->tiers != NULL) {
        tsr_kv_tiers_append(store->tiers, table, column, id);
        return TSR_OK;
    }
    TSR_TRY(place(store, id, &slot));
    return tsr_kv_tables_write(&store->tables, table, column, column + 1, &slot);
}

tsr_status tsr_kv_store_copy(tsr_kv_store *store, int32_t from, int32_t to)
{
    TSR_TRY(check_id(store, from));
    TSR_TRY(check_id(store, to));
    if (store->tiers != NULL) {
        return tsr_kv_tiers_copy(store->tiers, from, to);
    }
    if (store->slot_of[from] == 0 || store->slot_of[to] == 0 || from == to) {
        return tsr_fail(TSR_ERR_ARG, "kv store: block %d to block %d: there are no such two here",
                        (int)from, (int)to);
    }
    return tsr_device_copy(store->dev, block_at(store, store->slot_of[to] - 1),
                           block_at(store, store->slot_of[from] - 1), store->block_bytes);
}

tsr_status tsr_kv_store_visit(tsr_kv_store *store, const tsr_kv_visit *visit)
{
    return store->tiers != NULL ? tsr_kv_tiers_visit(store->tiers, visit) : TSR_OK;
}

/* ---- questions ---- */

tsr_kv_view tsr_kv_store_view(const tsr_kv_store *store, int layer)
{
    assert(layer >= 0 && layer < store->options.layout.n_layers);
    return (tsr_kv_view){
        .pool = store->pool,
        .host_pool = store->tiers == NULL ? NULL : tsr_kv_tiers_host_pool(store->tiers),
        .block_bytes = store->block_bytes,
        .layout = &store->options.layout,
        .layer = layer,
    };
}

/* A lane's tables stand one behind the other. */
static tsr_tensor tables_at(const tsr_kv_store *store, int32_t *entries, tsr_device_kind on,
                            int group)
{
    const tsr_kv_store_options *o = &store->options;

    return (tsr_tensor){.data = entries + tsr_kv_tables_at(&store->tables, group, 0),
                        .dtype = TSR_DTYPE_I32,
                        .on = on,
                        .n_rows = o->n_lanes,
                        .n_cols = o->max_blocks,
                        .stride = (int64_t)o->n_groups * o->max_blocks};
}

tsr_tensor tsr_kv_store_tables(const tsr_kv_store *store, int group)
{
    return tables_at(store, store->tables.on_device, tsr_device_kind_of(store->dev), group);
}

tsr_tensor tsr_kv_store_host_tables(const tsr_kv_store *store, int group)
{
    return tables_at(store, store->tables.mirror, TSR_DEVICE_CPU, group);
}

int tsr_kv_store_n_away(const tsr_kv_store *store, int lane, int group)
{
    const int table = lane * store->options.n_groups + group;
    const tsr_kv_table *tb = &store->tables.tables[table];
    const int32_t *mirror = store->tables.mirror + tsr_kv_tables_at(&store->tables, table, 0);
    int n = 0;

    while (tb->n_away > 0 && tb->first == 0 && n < tb->n_known && mirror[n] < 0) {
        n++;
    }
    return n;
}

const tsr_kv_tiers *tsr_kv_store_tiers(const tsr_kv_store *store)
{
    return store->tiers;
}

int tsr_kv_store_n_slots(const tsr_kv_store *store)
{
    return store->options.n_device;
}

void tsr_kv_store_places(const tsr_kv_store *store, uint8_t *places)
{
    for (int32_t id = 0; id < store->options.n_ids; id++) {
        if (store->tiers != NULL) {
            places[id] = tsr_kv_tiers_places(store->tiers, id);
        } else {
            places[id] = store->slot_of[id] != 0 ? 1 << TSR_KV_DEVICE : 0;
        }
    }
}

int tsr_kv_store_n_used(const tsr_kv_store *store)
{
    return store->tiers != NULL ? tsr_kv_tiers_report(store->tiers).n_blocks[TSR_KV_DEVICE]
                                : store->slots.n_touched - store->slots.n_given;
}

int tsr_kv_store_most_used(const tsr_kv_store *store)
{
    return store->tiers != NULL ? tsr_kv_tiers_report(store->tiers).most_blocks[TSR_KV_DEVICE]
                                : store->slots.n_touched; // places are used again before new ones
}

bool tsr_kv_store_verify(const tsr_kv_store *store)
{
    int n_here = 0;

    if (store->tiers != NULL) {
        return tsr_kv_tiers_verify(store->tiers);
    }
    for (int id = 0; id < store->options.n_ids; id++) {
        const int32_t slot = store->slot_of[id] - 1;

        if (slot < -1 || slot >= store->slots.n_touched ||
            (slot >= 0 && store->slots.id_in[slot] != id + 1)) {
            return false;
        }
        n_here += slot >= 0 ? 1 : 0;
    }
    return n_here == tsr_kv_store_n_used(store) && tsr_kv_slots_verify(&store->slots);
}
