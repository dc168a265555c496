#include "launch/serve_metrics.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"

enum {
    N_BOUNDS = 14,
    LINE_BYTES = 256
};

static const double bounds[N_BOUNDS] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                        1,     2.5,  5,     10,   30,  60,   300};

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
        [TSR_COUNTER_TOKENS] = {"tessera_generated_tokens_total", "Tokens generated."},
},
  gauges[TSR_GAUGE_COUNT] =
      {
          [TSR_GAUGE_WAITING] = {"tessera_requests_waiting", "Requests that have not begun."},
          [TSR_GAUGE_RUNNING] = {"tessera_requests_running", "Requests that are being answered."},
},
  histograms[TSR_HISTOGRAM_COUNT] = {
      [TSR_HISTOGRAM_FIRST_TOKEN] = {"tessera_time_to_first_token_seconds",
                                     "From a request to its first token."},
      [TSR_HISTOGRAM_TOKEN_GAP] = {"tessera_token_gap_seconds",
                                   "Mean time between two tokens of an answer."},
      [TSR_HISTOGRAM_REQUEST] = {"tessera_request_seconds", "From a request to its end."},
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
    tsr_engine_stats stats;
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

void tsr_metrics_take_stats(tsr_metrics *m, const tsr_engine_stats *stats)
{
    (void)pthread_mutex_lock(&m->lock);
    m->stats = *stats;
    (void)pthread_mutex_unlock(&m->lock);
}

/* ---- text ------------------------------------------------------------------------------------ */

static tsr_status say(tsr_text *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

static tsr_status say(tsr_text *out, const char *format, ...)
{
    char line[LINE_BYTES];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    return tsr_text_append(out, line, n < LINE_BYTES ? (size_t)n : LINE_BYTES - 1);
}

static tsr_status say_value(tsr_text *out, const char *name, const char *help, const char *type,
                            int64_t value)
{
    return say(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRId64 "\n", name, help, name, type, name,
               value);
}

static tsr_status say_histogram(tsr_text *out, const char *name, const char *help,
                                const histogram *h)
{
    int64_t n = 0;

    TSR_TRY(say(out, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name));
    for (int i = 0; i < N_BOUNDS; i++) {
        n += h->counts[i];
        TSR_TRY(say(out, "%s_bucket{le=\"%g\"} %" PRId64 "\n", name, bounds[i], n));
    }
    return say(out, "%s_bucket{le=\"+Inf\"} %" PRId64 "\n%s_sum %.6f\n%s_count %" PRId64 "\n", name,
               h->n, name, h->sum, name, h->n);
}

static tsr_status say_all(const tsr_metrics *m, tsr_text *out)
{
    for (int i = 0; i < TSR_COUNTER_COUNT; i++) {
        TSR_TRY(say_value(out, counters[i].name, counters[i].help, "counter", m->counters[i]));
    }
    for (int i = 0; i < TSR_GAUGE_COUNT; i++) {
        TSR_TRY(say_value(out, gauges[i].name, gauges[i].help, "gauge", m->gauges[i]));
    }
    for (int i = 0; i < TSR_HISTOGRAM_COUNT; i++) {
        TSR_TRY(say_histogram(out, histograms[i].name, histograms[i].help, &m->histograms[i]));
    }
    TSR_TRY(say_value(out, "tessera_ranks", "Ranks of the engine.", "gauge", m->stats.n_ranks));
    TSR_TRY(
        say_value(out, "tessera_steps_total", "Steps of the engine.", "counter", m->stats.n_steps));
    TSR_TRY(say_value(out, "tessera_preemptions_total", "Sequences put back for want of memory.",
                      "counter", m->stats.n_preempted));
    TSR_TRY(
        say_value(out, "tessera_kv_blocks", "Blocks of the cache.", "gauge", m->stats.n_blocks));
    return say_value(out, "tessera_kv_blocks_free", "Blocks of the cache that nobody holds.",
                     "gauge", m->stats.n_blocks_free);
}

tsr_status tsr_metrics_write(tsr_metrics *m, tsr_text *out)
{
    tsr_status st;

    (void)pthread_mutex_lock(&m->lock);
    st = say_all(m, out);
    (void)pthread_mutex_unlock(&m->lock);
    return st;
}
