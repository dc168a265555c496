#include <string.h>

#include "base/alloc.h"
#include "engine/tessera.h"

/* One event, and behind it in the same memory what it points at. */
typedef struct kept_event {
    struct kept_event *next;
    tsr_event event;
} kept_event;

struct tsr_events {
    kept_event *first;
    kept_event **end;  // where the next one is linked
    kept_event *given; // what was given out last, kept for its reader
    bool is_short;     // an event found no memory
};

tsr_status tsr_events_create(tsr_events **out)
{
    tsr_events *events = tsr_alloc(1, sizeof(*events));

    if (events == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a queue of events");
    }
    events->end = &events->first;
    *out = events;
    return TSR_OK;
}

void tsr_events_destroy(tsr_events *events)
{
    kept_event *next;

    if (events == NULL) {
        return;
    }
    for (kept_event *kept = events->first; kept != NULL; kept = next) {
        next = kept->next;
        tsr_free(kept);
    }
    tsr_free(events->given);
    tsr_free(events);
}

/* Bytes into the block at *at, which goes behind them; the copy. */
static const void *put(char **at, const void *bytes, size_t n_bytes)
{
    char *copy = *at;

    if (bytes == NULL) {
        return NULL;
    }
    memcpy(copy, bytes, n_bytes);
    *at += n_bytes;
    return copy;
}

/* All that it points at: what must lie at a multiple of 8 comes first. */
static kept_event *copy_of(const tsr_event *event)
{
    const size_t top_bytes = (size_t)event->n_top * sizeof(*event->top);
    const size_t value_bytes = (size_t)event->n_values * sizeof(*event->logits);
    const size_t message_bytes = event->message != NULL ? strlen(event->message) + 1 : 0;
    const size_t text_bytes = event->text_bytes + 1; // a 0 behind it
    kept_event *kept =
        tsr_alloc(1, sizeof(*kept) + top_bytes + value_bytes + message_bytes + text_bytes);
    char *at;

    if (kept == NULL) {
        return NULL;
    }
    at = (char *)(kept + 1);
    kept->event = *event;
    kept->event.top = put(&at, event->top, top_bytes);
    kept->event.logits = put(&at, event->logits, value_bytes);
    kept->event.embedding = put(&at, event->embedding, value_bytes);
    kept->event.message = put(&at, event->message, message_bytes);
    kept->event.text = put(&at, event->text, event->text_bytes);
    return kept;
}

void tsr_events_add(void *queue, const tsr_event *event)
{
    tsr_events *events = queue;
    kept_event *kept = events->is_short ? NULL : copy_of(event);

    if (kept == NULL) {
        events->is_short = true; // and nothing behind the gap is kept: no answer with a hole in it
        return;
    }
    *events->end = kept;
    events->end = &kept->next;
}

tsr_status tsr_events_next(tsr_events *events, tsr_event *event, bool *found)
{
    kept_event *kept = events->first;

    if (kept == NULL && events->is_short) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for events: some are lost");
    }
    *found = kept != NULL;
    if (kept != NULL) {
        tsr_free(events->given);
        events->given = kept;
        events->first = kept->next;
        events->end = events->first != NULL ? events->end : &events->first;
        *event = kept->event;
    }
    return TSR_OK;
}
