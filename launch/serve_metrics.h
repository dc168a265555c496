/*
 * launch/serve_metrics.h - what a server has done so far, as Prometheus wants to read it.
 * What its engine looks like is launch/serve_picture.h.
 *
 * Threads: any.
 */
#ifndef TSR_LAUNCH_SERVE_METRICS_H
#define TSR_LAUNCH_SERVE_METRICS_H

#include <jansson.h>

#include "base/text.h"
#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_metrics tsr_metrics;

typedef enum tsr_counter {
    TSR_COUNTER_REQUESTS,  /* handed to the engine */
    TSR_COUNTER_REFUSED,   /* answered with an error of the client's */
    TSR_COUNTER_FAILED,    /* and of ours */
    TSR_COUNTER_CANCELLED, /* the client went away */
    TSR_COUNTER_PROMPT_TOKENS,
    TSR_COUNTER_CACHED_TOKENS, /* of these, found in the cache */
    TSR_COUNTER_TOKENS,        /* generated */
    TSR_COUNTER_RESTARTS,      /* of the ranks, when they were lost */
    TSR_COUNTER_COUNT
} tsr_counter;

typedef enum tsr_gauge {
    TSR_GAUGE_WAITING, /* jobs */
    TSR_GAUGE_RUNNING,
    TSR_GAUGE_SERVING, /* 1: the ranks are there */
    TSR_GAUGE_COUNT
} tsr_gauge;

typedef enum tsr_histogram {
    TSR_HISTOGRAM_FIRST_TOKEN, /* seconds, as all of these */
    TSR_HISTOGRAM_TOKEN_GAP,
    TSR_HISTOGRAM_REQUEST,
    TSR_HISTOGRAM_AWAY, /* from the loss of the ranks until they serve again */
    TSR_HISTOGRAM_COUNT
} tsr_histogram;

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_metrics_create(tsr_metrics **out);
void tsr_metrics_destroy(tsr_metrics *metrics); /* NULL is fine */

void tsr_metrics_add(tsr_metrics *metrics, tsr_counter counter, int64_t n);
void tsr_metrics_set(tsr_metrics *metrics, tsr_gauge gauge, int64_t n);
void tsr_metrics_note(tsr_metrics *metrics, tsr_histogram histogram, double seconds);
/* The text of /metrics (Prometheus exposition format 0.0.4). Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_metrics_write(tsr_metrics *metrics, tsr_text *out);

/* {"requests": {...}, "tokens": {...}, "latency": {...}}, for the page; NULL when memory is short.
 */
json_t *tsr_metrics_object(tsr_metrics *metrics);

/* A line, and a value with what Prometheus wants to know of it. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_metrics_say(tsr_text *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
TSR_MUST_CHECK tsr_status tsr_metrics_say_value(tsr_text *out, const char *name, const char *help,
                                                const char *type, int64_t value);

#ifdef __cplusplus
}
#endif

#endif
