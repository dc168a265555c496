/*
 * engine/request_heap.h - requests in a heap: the first of them at once, any of them put in or
 * taken out in the logarithm of their number.
 *
 * A request knows its own place (request.h, heap_at), so that it is found without a search. It may
 * be in one heap of each order.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_ENGINE_REQUEST_HEAP_H
#define TSR_ENGINE_REQUEST_HEAP_H

#include "engine/request.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Start with {.order = ...}; clear frees the list, not the requests. */
typedef struct tsr_request_heap {
    tsr_request_order order;
    tsr_request **items; /* owned */
    int n_items;
    int capacity;
} tsr_request_heap;

/* Room for n_items in all, so that putting cannot fail. Errors: NOMEM (the heap is as it was). */
TSR_MUST_CHECK tsr_status tsr_request_heap_reserve(tsr_request_heap *heap, int n_items);
void tsr_request_heap_clear(tsr_request_heap *heap);

void tsr_request_heap_put(tsr_request_heap *heap, tsr_request *request);      /* there is room */
void tsr_request_heap_take_out(tsr_request_heap *heap, tsr_request *request); /* it is in there */

tsr_request *tsr_request_heap_first(const tsr_request_heap *heap); /* NULL: empty */

/* Is every item before those below it, and does each know its place? */
bool tsr_request_heap_verify(const tsr_request_heap *heap);

#ifdef __cplusplus
}
#endif

#endif
