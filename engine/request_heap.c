#include "engine/request_heap.h"

#include <assert.h>

#include "base/alloc.h"

enum {
    FIRST_ROOM = 64
};

tsr_status tsr_request_heap_reserve(tsr_request_heap *heap, int n_items)
{
    int64_t capacity = heap->capacity > 0 ? heap->capacity : FIRST_ROOM;
    tsr_request **items;

    if (n_items <= heap->capacity) {
        return TSR_OK;
    }
    while (capacity < n_items) {
        capacity *= 2;
    }
    items = tsr_alloc_resize(heap->items, (size_t)capacity, sizeof(tsr_request *));
    if (items == NULL || capacity > INT32_MAX) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a queue of %d requests", n_items);
    }
    heap->items = items;
    heap->capacity = (int)capacity;
    return TSR_OK;
}

void tsr_request_heap_clear(tsr_request_heap *heap)
{
    tsr_free(heap->items);
    *heap = (tsr_request_heap){.order = heap->order};
}

static void place(tsr_request_heap *heap, int at, tsr_request *request)
{
    heap->items[at] = request;
    request->heap_at[heap->order] = at + 1;
}

/* The request belongs at `at` or nearer to the top. */
static void rise(tsr_request_heap *heap, int at, tsr_request *request)
{
    while (at > 0 && tsr_request_is_before(heap->order, request, heap->items[(at - 1) / 2])) {
        place(heap, at, heap->items[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(heap, at, request);
}

/* The request belongs at `at` or farther from the top. */
static void sink(tsr_request_heap *heap, int at, tsr_request *request)
{
    for (;;) {
        int below = 2 * at + 1;

        if (below + 1 < heap->n_items &&
            tsr_request_is_before(heap->order, heap->items[below + 1], heap->items[below])) {
            below++;
        }
        if (below >= heap->n_items ||
            !tsr_request_is_before(heap->order, heap->items[below], request)) {
            break;
        }
        place(heap, at, heap->items[below]);
        at = below;
    }
    place(heap, at, request);
}

void tsr_request_heap_put(tsr_request_heap *heap, tsr_request *request)
{
    assert(heap->n_items < heap->capacity && request->heap_at[heap->order] == 0);
    heap->n_items++;
    rise(heap, heap->n_items - 1, request);
}

void tsr_request_heap_take_out(tsr_request_heap *heap, tsr_request *request)
{
    const int at = request->heap_at[heap->order] - 1;
    tsr_request *last = heap->items[heap->n_items - 1];

    assert(at >= 0 && heap->items[at] == request);
    request->heap_at[heap->order] = 0;
    heap->n_items--;
    if (last == request) {
        return;
    }
    if (tsr_request_is_before(heap->order, last, request)) {
        rise(heap, at, last);
    } else {
        sink(heap, at, last);
    }
}

tsr_request *tsr_request_heap_first(const tsr_request_heap *heap)
{
    return heap->n_items > 0 ? heap->items[0] : NULL;
}

bool tsr_request_heap_verify(const tsr_request_heap *heap)
{
    for (int i = 0; i < heap->n_items; i++) {
        if (heap->items[i]->heap_at[heap->order] != i + 1 ||
            (i > 0 &&
             tsr_request_is_before(heap->order, heap->items[i], heap->items[(i - 1) / 2]))) {
            return false;
        }
    }
    return heap->n_items <= heap->capacity;
}
