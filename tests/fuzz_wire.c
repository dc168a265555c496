/*
 * Any bytes as what a client, or the leader, says: frames are found or refused, and what is read of
 * them lies within them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/remote/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static int64_t sum_ids(const int32_t *ids, int64_t n)
{
    int64_t sum = 0;

    for (int64_t i = 0; i < n; i++) {
        sum += ids[i];
    }
    return sum;
}

static int64_t read_generation(tsr_wire *w)
{
    tsr_generation g = {0};
    tsr_wire_stops stops;
    int64_t sum;

    tsr_wire_generation(w, &g, &stops);
    if (tsr_wire_check(w) != TSR_OK) {
        return 0;
    }
    sum = sum_ids(g.prompt, g.n_prompt) + sum_ids(g.so_far, g.n_so_far) +
          sum_ids(g.bias_ids, g.n_biases) + sum_ids(g.stop_ids, g.n_stop_ids);
    for (int i = 0; i < g.n_biases; i++) {
        sum += g.biases[i] > 0 ? 1 : 0;
    }
    for (int i = 0; i < g.n_stops; i++) {
        must(strlen(g.stops[i]) <= g.stop_bytes[i]);
    }
    return sum;
}

static int64_t read_event(tsr_wire *w)
{
    tsr_event e = {0};
    int64_t sum = 0;

    tsr_wire_event(w, &e);
    if (tsr_wire_check(w) != TSR_OK) {
        return 0;
    }
    for (int i = 0; i < e.n_top; i++) {
        sum += e.top[i].id;
    }
    for (int64_t i = 0; i < e.n_values; i++) {
        sum += (e.logits != NULL ? e.logits : e.embedding)[i] > 0 ? 1 : 0;
    }
    must(e.text == NULL || strlen(e.text) <= e.text_bytes);
    return sum + (e.reason != NULL ? (int64_t)strlen(e.reason) : 0) +
           (e.message != NULL ? (int64_t)strlen(e.message) : 0);
}

static int64_t read_blocks(tsr_wire *w)
{
    const int64_t *owners = NULL;
    const uint8_t *places = NULL;
    int64_t n_owners = 0;
    int64_t n_places = 0;
    int64_t sum = 0;

    tsr_wire_blocks(w, &owners, &n_owners, &places, &n_places);
    if (tsr_wire_check(w) != TSR_OK) {
        return 0;
    }
    for (int64_t i = 0; i < n_owners; i++) {
        sum += owners[i] & 1;
    }
    for (int64_t i = 0; i < n_places; i++) {
        sum += places[i];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    char *copy = tsr_alloc(n_bytes + 1, 1); // at a multiple of eight, as on a link
    volatile int64_t sum = 0;
    size_t used = 1;

    must(copy != NULL);
    memcpy(copy, bytes, n_bytes);
    for (size_t at = 0; used > 0; at += used) {
        tsr_memory_stats ranks[2];
        tsr_engine_stats stats = {0};
        tsr_wire w;

        if (tsr_wire_read(&w, &used, copy + at, n_bytes - at) != TSR_OK || used == 0) {
            break;
        }
        switch (w.kind) {
        case TSR_WIRE_SUBMIT:
            sum += read_generation(&w);
            break;
        case TSR_WIRE_EVENT:
            sum += read_event(&w);
            break;
        case TSR_WIRE_BLOCKS:
            sum += read_blocks(&w);
            break;
        case TSR_WIRE_MEMORY:
            memset(ranks, 0, sizeof(ranks));
            tsr_wire_memory(&w, ranks, 2);
            break;
        default:
            tsr_wire_stats(&w, &stats);
            break;
        }
    }
    (void)sum; // that it is read by somebody is what it is for
    tsr_free(copy);
    return 0;
}
