#include "base/ids.h"

#include "base/alloc.h"

tsr_status tsr_ids_append(tsr_ids *list, int32_t id)
{
    if (list->n_ids == list->capacity) {
        const int64_t wanted = list->capacity < 64 ? 64 : list->capacity * 2;
        int32_t *grown = tsr_alloc_resize(list->ids, (size_t)wanted, sizeof(*grown));

        if (grown == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no room for %lld token ids", (long long)wanted);
        }
        list->ids = grown;
        list->capacity = wanted;
    }
    list->ids[list->n_ids++] = id;
    return TSR_OK;
}

void tsr_ids_clear(tsr_ids *list)
{
    tsr_free(list->ids);
    *list = (tsr_ids){0};
}
