#include "kv/kv_tables.h"

#include <string.h>

#include "base/alloc.h"

static size_t table_bytes(const tsr_kv_tables *t)
{
    return (size_t)t->n_tables * (size_t)t->max_blocks * sizeof(int32_t);
}

size_t tsr_kv_tables_bytes(int n_tables, int max_blocks)
{
    const tsr_kv_tables t = {.n_tables = n_tables, .max_blocks = max_blocks};

    return 4 * table_bytes(&t) + (size_t)n_tables * sizeof(*t.tables);
}

tsr_status tsr_kv_tables_init(tsr_kv_tables *t, tsr_device *dev, int n_tables, int max_blocks)
{
    *t = (tsr_kv_tables){.dev = dev, .n_tables = n_tables, .max_blocks = max_blocks};
    t->on_device = tsr_device_alloc(dev, table_bytes(t));
    t->tables = tsr_alloc((size_t)n_tables, sizeof(*t->tables));
    t->ids = tsr_alloc_pages(table_bytes(t));
    t->lives = tsr_alloc_pages(table_bytes(t));
    t->mirror = tsr_alloc_pages(table_bytes(t));
    if (t->on_device == NULL || t->tables == NULL || t->ids == NULL || t->lives == NULL ||
        t->mirror == NULL) {
        tsr_kv_tables_clear(t);
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the tables of %d sequences of %d blocks",
                        n_tables, max_blocks);
    }
    return TSR_OK;
}

void tsr_kv_tables_clear(tsr_kv_tables *t)
{
    tsr_free_pages(t->mirror, table_bytes(t));
    tsr_free_pages(t->lives, table_bytes(t));
    tsr_free_pages(t->ids, table_bytes(t));
    tsr_free(t->tables);
    if (t->on_device != NULL) {
        tsr_device_free(t->dev, t->on_device, table_bytes(t));
    }
    *t = (tsr_kv_tables){0};
}

tsr_status tsr_kv_tables_check(const tsr_kv_tables *t, int table, int index)
{
    if (table < 0 || table >= t->n_tables || index < 0 || index >= t->max_blocks) {
        return tsr_fail(TSR_ERR_ARG, "kv store: block %d of table %d; there are %d of %d blocks",
                        index, table, t->n_tables, t->max_blocks);
    }
    return TSR_OK;
}

tsr_status tsr_kv_tables_write(tsr_kv_tables *t, int table, int first, int end,
                               const int32_t *entries)
{
    const size_t at = tsr_kv_tables_at(t, table, first);
    const size_t n_bytes = (size_t)(end - first) * sizeof(*entries);

    if (entries != t->mirror + at) {
        memcpy(t->mirror + at, entries, n_bytes);
    }
    return tsr_device_upload(t->dev, t->on_device + at, t->mirror + at, n_bytes);
}
