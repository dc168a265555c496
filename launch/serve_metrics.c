#include "launch/serve_metrics.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"

enum {
    N_BOUNDS = 16,
    LINE_BYTES = 256
};

static const double bounds[N_BOUNDS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                        0.5,   1,      2.5,   5,    10,    30,   60,  300};

static const struct {
    const char *name;
    const char *help;
} counters[TSR_COUNTER_COUNT] =
    {
        [TSR_COUNTER_REQUESTS] = {"tessera_requests_total", "Requests handed to the engine."},
        [TSR_COUNTER_REFUSED] = {"tessera_requests_refused_total", "Requests that made no sense."},
        [TSR_COUNTER_FAILED] = {"tessera_requests_failed_total",
                                "Requests that could not be done."},
        [TSR_COUNTER_CANCELLED] = {"tessera_requests_cancelled_total",
                                   "Requests whose client went away."},
        [TSR_COUNTER_PROMPT_TOKENS] = {"tessera_prompt_tokens_total", "Tokens of prompts."},
        [TSR_COUNTER_CACHED_TOKENS] = {"tessera_prefix_hit_tokens_total",
                                       "Tokens of prompts that were in the cache."},
        [TSR_COUNTER_TOKENS] = {"tessera_generated_tokens_total", "Tokens generated."},
        [TSR_COUNTER_RESTARTS] = {"tessera_engine_restarts_total",
                                  "How often ranks were lost and started again."},
},
  gauges[TSR_GAUGE_COUNT] =
      {
          [TSR_GAUGE_WAITING] = {"tessera_requests_waiting", "Requests that have not begun."},
          [TSR_GAUGE_RUNNING] = {"tessera_requests_running", "Requests that are being answered."},
          [TSR_GAUGE_SERVING] = {"tessera_engine_serving",
                                 "1: the ranks serve; 0: they are lost, and requests wait."},
},
  histograms[TSR_HISTOGRAM_COUNT] = {
      [TSR_HISTOGRAM_FIRST_TOKEN] = {"tessera_time_to_first_token_seconds",
                                     "From a request to its first token."},
      [TSR_HISTOGRAM_TOKEN_GAP] = {"tessera_token_gap_seconds",
                                   "Time between two tokens of an answer."},
      [TSR_HISTOGRAM_REQUEST] = {"tessera_request_seconds", "From a request to its end."},
      [TSR_HISTOGRAM_AWAY] = {"tessera_engine_away_seconds",
                              "From the loss of the ranks until they serve again."},
};

typedef struct histogram {
    int64_t counts[N_BOUNDS + 1];
    int64_t n;
    double sum;
} histogram;

struct tsr_metrics {
    pthread_mutex_t lock;
    int64_t counters[TSR_COUNTER_COUNT];
    int64_t gauges[TSR_GAUGE_COUNT];
    histogram histograms[TSR_HISTOGRAM_COUNT];
};

tsr_status tsr_metrics_create(tsr_metrics **out)
{
    tsr_metrics *m = tsr_alloc(1, sizeof(*m));

    if (m == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for metrics");
    }
    (void)pthread_mutex_init(&m->lock, NULL);
    *out = m;
    return TSR_OK;
}

void tsr_metrics_destroy(tsr_metrics *m)
{
    if (m != NULL) {
        (void)pthread_mutex_destroy(&m->lock);
        tsr_free(m);
    }
}

void tsr_metrics_add(tsr_metrics *m, tsr_counter counter, int64_t n)
{
    (void)pthread_mutex_lock(&m->lock);
    m->counters[counter] += n;
    (void)pthread_mutex_unlock(&m->lock);
}

void tsr_metrics_set(tsr_metrics *m, tsr_gauge gauge, int64_t n)
{
    (void)pthread_mutex_lock(&m->lock);
    m->gauges[gauge] = n;
    (void)pthread_mutex_unlock(&m->lock);
}

void tsr_metrics_note(tsr_metrics *m, tsr_histogram which, double seconds)
{
    histogram *h = &m->histograms[which];
    int i = 0;

    (void)pthread_mutex_lock(&m->lock);
    while (i < N_BOUNDS && seconds > bounds[i]) {
        i++;
    }
    h->counts[i]++;
    h->n++;
    h->sum += seconds;
    (void)pthread_mutex_unlock(&m->lock);
}

/* ---- text ------------------------------------------------------------------------------------ */

tsr_status tsr_metrics_say(tsr_text *out, const char *format, ...)
{
    char line[LINE_BYTES];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    return tsr_text_append(out, line, n < LINE_BYTES ? (size_t)n : LINE_BYTES - 1);
}

tsr_status tsr_metrics_say_value(tsr_text *out, const char *name, const char *help,
                                 const char *type, int64_t value)
{
    return tsr_metrics_say(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRId64 "\n", name, help, name,
                           type, name, value);
}

static tsr_status say_histogram(tsr_text *out, const char *name, const char *help,
                                const histogram *h)
{
    int64_t n = 0;

    TSR_TRY(tsr_metrics_say(out, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name));
    for (int i = 0; i < N_BOUNDS; i++) {
        n += h->counts[i];
        TSR_TRY(tsr_metrics_say(out, "%s_bucket{le=\"%g\"} %" PRId64 "\n", name, bounds[i], n));
    }
    return tsr_metrics_say(
        out, "%s_bucket{le=\"+Inf\"} %" PRId64 "\n%s_sum %.6f\n%s_count %" PRId64 "\n", name, h->n,
        name, h->sum, name, h->n);
}

static tsr_status say_all(const tsr_metrics *m, tsr_text *out)
{
    for (int i = 0; i < TSR_COUNTER_COUNT; i++) {
        TSR_TRY(tsr_metrics_say_value(out, counters[i].name, counters[i].help, "counter",
                                      m->counters[i]));
    }
    for (int i = 0; i < TSR_GAUGE_COUNT; i++) {
        TSR_TRY(tsr_metrics_say_value(out, gauges[i].name, gauges[i].help, "gauge", m->gauges[i]));
    }
    for (int i = 0; i < TSR_HISTOGRAM_COUNT; i++) {
        TSR_TRY(say_histogram(out, histograms[i].name, histograms[i].help, &m->histograms[i]));
    }
    return TSR_OK;
}

tsr_status tsr_metrics_write(tsr_metrics *m, tsr_text *out)
{
    tsr_status st;

    (void)pthread_mutex_lock(&m->lock);
    st = say_all(m, out);
    (void)pthread_mutex_unlock(&m->lock);
    return st;
}

/* ---- for the page ---------------------------------------------------------------------------- */

/* Counts of each bucket alone, and the bounds above them; the last has none. */
static json_t *histogram_object(const histogram *h)
{
    json_t *counts = json_array();
    json_t *most = json_array();

    for (int i = 0; i <= N_BOUNDS; i++) {
        (void)!json_array_append_new(counts, json_integer((json_int_t)h->counts[i]));
        if (i < N_BOUNDS) {
            (void)!json_array_append_new(most, json_real(bounds[i]));
        }
    }
    return json_pack("{s:o, s:o, s:f, s:I}", "bounds", most, "counts", counts, "sum", h->sum,
                     "count", (json_int_t)h->n);
}

json_t *tsr_metrics_object(tsr_metrics *m)
{
    json_t *object;

    (void)pthread_mutex_lock(&m->lock);
    object = json_pack("{s:{s:I, s:I, s:I, s:I, s:I, s:I}, s:{s:I, s:I, s:I}, s:{s:o, s:o, s:o}}",
                       "requests", "waiting", (json_int_t)m->gauges[TSR_GAUGE_WAITING], "running",
                       (json_int_t)m->gauges[TSR_GAUGE_RUNNING], "taken",
                       (json_int_t)m->counters[TSR_COUNTER_REQUESTS], "refused",
                       (json_int_t)m->counters[TSR_COUNTER_REFUSED], "failed",
                       (json_int_t)m->counters[TSR_COUNTER_FAILED], "cancelled",
                       (json_int_t)m->counters[TSR_COUNTER_CANCELLED], "tokens", "prompt",
                       (json_int_t)m->counters[TSR_COUNTER_PROMPT_TOKENS], "cached",
                       (json_int_t)m->counters[TSR_COUNTER_CACHED_TOKENS], "generated",
                       (json_int_t)m->counters[TSR_COUNTER_TOKENS], "latency", "first_token",
                       histogram_object(&m->histograms[TSR_HISTOGRAM_FIRST_TOKEN]), "token_gap",
                       histogram_object(&m->histograms[TSR_HISTOGRAM_TOKEN_GAP]), "request",
                       histogram_object(&m->histograms[TSR_HISTOGRAM_REQUEST]));
    (void)pthread_mutex_unlock(&m->lock);
    return object;
}
