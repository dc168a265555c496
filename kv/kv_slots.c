#include "kv/kv_slots.h"

#include "base/alloc.h"

tsr_status tsr_kv_slots_init(tsr_kv_slots *slots, int n)
{
    *slots = (tsr_kv_slots){.n = n};
    slots->given = tsr_alloc((size_t)n, sizeof(*slots->given));
    slots->id_in = tsr_alloc((size_t)n, sizeof(*slots->id_in));
    if (slots->given == NULL || slots->id_in == NULL) {
        tsr_kv_slots_clear(slots);
        return tsr_fail(TSR_ERR_NOMEM, "kv store: no memory for a map of %d slots", n);
    }
    return TSR_OK;
}

size_t tsr_kv_slots_bytes(int n)
{
    const tsr_kv_slots *slots = NULL;

    return (size_t)n * (sizeof(*slots->given) + sizeof(*slots->id_in));
}

void tsr_kv_slots_clear(tsr_kv_slots *slots)
{
    tsr_free(slots->id_in);
    tsr_free(slots->given);
    *slots = (tsr_kv_slots){0};
}

int32_t tsr_kv_slots_take(tsr_kv_slots *slots)
{
    if (slots->n_given > 0) {
        return slots->given[--slots->n_given];
    }
    return slots->n_touched < slots->n ? slots->n_touched++ : -1;
}

void tsr_kv_slots_give(tsr_kv_slots *slots, int32_t slot)
{
    slots->id_in[slot] = 0;
    slots->given[slots->n_given++] = slot;
}

bool tsr_kv_slots_verify(const tsr_kv_slots *slots)
{
    if (slots->n_touched > slots->n || slots->n_given > slots->n_touched) {
        return false;
    }
    for (int k = 0; k < slots->n_given; k++) {
        const int32_t slot = slots->given[k];

        if (slot < 0 || slot >= slots->n_touched || slots->id_in[slot] != 0) {
            return false;
        }
    }
    return true;
}
