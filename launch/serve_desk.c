#define _POSIX_C_SOURCE 200809L

#include "launch/serve_desk.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "launch/signals.h"

enum {
    IDLE_MS = 50, // between two looks whether a signal has asked to end, or the ranks are lost
    LOOK_MS = 1   // between two looks whether clients are still there: mostly once a step
};

/* One prompt's generation. */
typedef struct ticket {
    tsr_job *job;
    int prompt;
    int64_t id; // of the generation
    bool runs;
} ticket;

struct tsr_job {
    pthread_mutex_t lock;
    tsr_api_request request;
    tsr_api_answer answer; // guarded
    tsr_client client;
    bool is_let_go; // guarded: by the client's side
    int n_holders;  // guarded: of the two sides

    // The engine's side only.
    tsr_desk *desk;
    ticket *tickets;  // owned, [n_prompts]
    int64_t *told_ns; // owned, [n_choices]: when each got its last token; 0: it has none
    int64_t handed_in_ns;
    bool is_cancelled;
    tsr_job *previous;
    tsr_job *next;
};

struct tsr_desk {
    tsr_desk_options options;
    pthread_mutex_t lock;
    pthread_cond_t more;
    tsr_engine *engine; // guarded: to be woken; NULL: nobody drives one
    tsr_job *first;     // guarded: handed in, oldest first
    tsr_job *last;
    int n_waiting;
    bool is_closed; // guarded
    atomic_int state;

    tsr_job *running; // the engine's side only
    int n_running;
    int64_t looked_ns;
};

/* ---- jobs ------------------------------------------------------------------------------------ */

tsr_status tsr_job_create(tsr_job **out, tsr_api_request *request, tsr_api_answer *answer,
                          const tsr_client *client)
{
    tsr_job *job = tsr_alloc(1, sizeof(*job));

    if (job != NULL) {
        job->tickets = tsr_alloc((size_t)request->n_prompts, sizeof(*job->tickets));
        job->told_ns = tsr_alloc((size_t)answer->n_choices, sizeof(*job->told_ns));
    }
    if (job == NULL || job->tickets == NULL || job->told_ns == NULL) {
        if (job != NULL) {
            tsr_free(job->tickets);
            tsr_free(job->told_ns);
        }
        tsr_free(job);
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a request");
    }
    (void)pthread_mutex_init(&job->lock, NULL);
    job->request = *request;
    job->answer = *answer;
    job->answer.request = &job->request;
    job->client = *client;
    job->n_holders = 1;
    *request = (tsr_api_request){0};
    *answer = (tsr_api_answer){0};
    *out = job;
    return TSR_OK;
}

/* One of the two sides is done with it. */
static void release(tsr_job *job, bool by_client)
{
    int n_left;

    (void)pthread_mutex_lock(&job->lock);
    job->is_let_go = job->is_let_go || by_client;
    n_left = --job->n_holders;
    (void)pthread_mutex_unlock(&job->lock);
    if (n_left == 0) {
        (void)pthread_mutex_destroy(&job->lock);
        tsr_api_answer_clear(&job->answer);
        tsr_api_request_clear(&job->request);
        tsr_free(job->tickets);
        tsr_free(job->told_ns);
        tsr_free(job);
    }
}

void tsr_job_let_go(tsr_job *job)
{
    release(job, true);
}

const tsr_api_answer *tsr_job_lock(tsr_job *job)
{
    (void)pthread_mutex_lock(&job->lock);
    return &job->answer;
}

void tsr_job_unlock(tsr_job *job)
{
    (void)pthread_mutex_unlock(&job->lock);
}

/* ---- the desk -------------------------------------------------------------------------------- */

tsr_status tsr_desk_create(tsr_desk **out, const tsr_desk_options *options)
{
    tsr_desk *desk = tsr_alloc(1, sizeof(*desk));
    pthread_condattr_t monotonic;

    if (desk == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a server's desk");
    }
    desk->options = *options;
    (void)pthread_mutex_init(&desk->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&desk->more, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    *out = desk;
    return TSR_OK;
}

void tsr_desk_destroy(tsr_desk *desk)
{
    if (desk != NULL) {
        (void)pthread_cond_destroy(&desk->more);
        (void)pthread_mutex_destroy(&desk->lock);
        tsr_free(desk);
    }
}

tsr_status tsr_desk_hand_in(tsr_desk *desk, tsr_job *job)
{
    tsr_status st = TSR_OK;

    (void)pthread_mutex_lock(&desk->lock);
    if (desk->is_closed) {
        st = tsr_fail(TSR_ERR_CANCELLED, "the server is ending");
    } else if (desk->options.max_waiting > 0 && desk->n_waiting >= desk->options.max_waiting) {
        st = tsr_fail(TSR_ERR_FULL, "%d requests wait already", desk->n_waiting);
    } else {
        job->n_holders++; // nobody else knows of it yet
        job->handed_in_ns = tsr_clock_ns();
        job->next = NULL;
        job->previous = desk->last;
        if (desk->last != NULL) {
            desk->last->next = job;
        } else {
            desk->first = job;
        }
        desk->last = job;
        desk->n_waiting++;
        tsr_metrics_set(desk->options.metrics, TSR_GAUGE_WAITING, desk->n_waiting);
        (void)pthread_cond_signal(&desk->more);
        if (desk->engine != NULL) {
            tsr_engine_wake(desk->engine);
        }
    }
    (void)pthread_mutex_unlock(&desk->lock);
    return st;
}

tsr_desk_state tsr_desk_is(const tsr_desk *desk)
{
    return (tsr_desk_state)atomic_load(&desk->state);
}

/* ---- the engine's side ----------------------------------------------------------------------- */

static double seconds_since(int64_t ns)
{
    return (double)(tsr_clock_ns() - ns) / 1e9;
}

/* Each token as it comes; those of answers that are known at the end only are told together, and
 * say themselves how they came. */
static void note_times(tsr_job *job, const ticket *t, const tsr_event *event)
{
    const tsr_generation *g = &job->request.generation;
    const bool told_at_end = g->beams > 0 || g->best_of > g->n;
    tsr_metrics *m = job->desk->options.metrics;
    int64_t *last_ns = &job->told_ns[t->prompt * g->n + event->choice];
    const int64_t now_ns = tsr_clock_ns();

    if (event->kind == TSR_EVENT_TOKEN && !told_at_end) {
        tsr_metrics_add(m, TSR_COUNTER_TOKENS, 1);
        if (*last_ns > 0) {
            tsr_metrics_note(m, TSR_HISTOGRAM_TOKEN_GAP, (double)(now_ns - *last_ns) / 1e9);
        } else if (event->choice == 0) {
            tsr_metrics_note(m, TSR_HISTOGRAM_FIRST_TOKEN, seconds_since(job->handed_in_ns));
        }
        *last_ns = now_ns;
    } else if (event->kind == TSR_EVENT_END && told_at_end) {
        tsr_metrics_add(m, TSR_COUNTER_TOKENS, event->n_generated);
        if (event->first_token_s > 0 && event->choice == 0) {
            tsr_metrics_note(m, TSR_HISTOGRAM_FIRST_TOKEN, event->first_token_s);
        }
        if (event->mean_gap_s > 0) {
            tsr_metrics_note(m, TSR_HISTOGRAM_TOKEN_GAP, event->mean_gap_s);
        }
    }
    if (event->kind == TSR_EVENT_END && event->choice == 0) {
        tsr_metrics_add(m, TSR_COUNTER_CACHED_TOKENS, event->n_cached_tokens);
    }
}

static void note_event(void *ctx, const tsr_event *event)
{
    ticket *t = ctx;
    tsr_job *job = t->job;

    note_times(job, t, event);
    if (event->kind == TSR_EVENT_END) {
        t->runs = t->runs && !event->last;
    }
    (void)pthread_mutex_lock(&job->lock);
    tsr_api_answer_note(&job->answer, t->prompt, event);
    if (!job->is_let_go) {
        job->client.wake(job->client.ctx);
    }
    (void)pthread_mutex_unlock(&job->lock);
}

static void fail_job(tsr_job *job, int status, const char *message)
{
    (void)pthread_mutex_lock(&job->lock);
    if (!job->answer.failed) {
        job->answer.failed = true;
        tsr_api_error_set(&job->answer.error, status, "", "%.390s", message);
    }
    (void)pthread_mutex_unlock(&job->lock);
}

/* No event will come for what is open. */
static void close_job(tsr_job *job)
{
    (void)pthread_mutex_lock(&job->lock);
    job->answer.n_open = 0;
    if (!job->is_let_go) {
        job->client.wake(job->client.ctx);
    }
    (void)pthread_mutex_unlock(&job->lock);
}

static void begin(tsr_desk *desk, tsr_engine *engine, tsr_job *job)
{
    tsr_generation g = job->request.generation;

    job->desk = desk;
    g.on_event = note_event;
    for (int p = 0; p < job->request.n_prompts; p++) {
        tsr_status st;

        job->tickets[p] = (ticket){.job = job, .prompt = p};
        g.prompt = job->request.prompts[p].ids;
        g.n_prompt = job->request.prompts[p].n_ids;
        g.ctx = &job->tickets[p];
        st = tsr_engine_submit(engine, &g, &job->tickets[p].id);
        job->tickets[p].runs = st == TSR_OK;
        if (st != TSR_OK) {
            fail_job(job, tsr_api_error_status(st), tsr_tessera_message());
            break;
        }
        tsr_metrics_add(desk->options.metrics, TSR_COUNTER_PROMPT_TOKENS, g.n_prompt);
    }
    tsr_metrics_add(desk->options.metrics, TSR_COUNTER_REQUESTS, 1);
    job->previous = NULL;
    job->next = desk->running;
    if (desk->running != NULL) {
        desk->running->previous = job;
    }
    desk->running = job;
    desk->n_running++;
    tsr_metrics_set(desk->options.metrics, TSR_GAUGE_RUNNING, desk->n_running);
}

static bool runs(const tsr_job *job)
{
    for (int p = 0; p < job->request.n_prompts; p++) {
        if (job->tickets[p].runs) {
            return true;
        }
    }
    return false;
}

static void end_job(tsr_desk *desk, tsr_job *job)
{
    if (job->previous != NULL) {
        job->previous->next = job->next;
    } else {
        desk->running = job->next;
    }
    if (job->next != NULL) {
        job->next->previous = job->previous;
    }
    desk->n_running--;
    tsr_metrics_set(desk->options.metrics, TSR_GAUGE_RUNNING, desk->n_running);
    tsr_metrics_note(desk->options.metrics, TSR_HISTOGRAM_REQUEST,
                     seconds_since(job->handed_in_ns));
    close_job(job);
    release(job, false);
}

/* Jobs that are done leave; those whose client went away, or that failed in part, are cancelled. */
static void tend(tsr_desk *desk, tsr_engine *engine)
{
    const bool looks = seconds_since(desk->looked_ns) * 1e3 >= LOOK_MS;
    tsr_job *next;

    desk->looked_ns = looks ? tsr_clock_ns() : desk->looked_ns;
    for (tsr_job *job = desk->running; job != NULL; job = next) {
        bool unwanted;

        next = job->next;
        (void)pthread_mutex_lock(&job->lock);
        if (looks && !job->is_let_go) {
            job->client.look(job->client.ctx);
        }
        unwanted = job->is_let_go || job->answer.failed;
        if (job->is_let_go && !job->is_cancelled) {
            tsr_metrics_add(desk->options.metrics, TSR_COUNTER_CANCELLED, runs(job) ? 1 : 0);
        }
        (void)pthread_mutex_unlock(&job->lock);
        for (int p = 0; unwanted && !job->is_cancelled && p < job->request.n_prompts; p++) {
            if (job->tickets[p].runs) {
                tsr_engine_cancel(engine, job->tickets[p].id);
            }
        }
        job->is_cancelled = job->is_cancelled || unwanted;
        if (!runs(job)) {
            end_job(desk, job);
        }
    }
}

/* What was handed in since; when there is nothing to do at all, waits a while for it. */
static void take_in(tsr_desk *desk, tsr_engine *engine)
{
    tsr_job *job;
    tsr_job *next;

    (void)pthread_mutex_lock(&desk->lock);
    if (desk->first == NULL && desk->running == NULL) {
        const int64_t until_ns = tsr_clock_ns() + IDLE_MS * INT64_C(1000000);
        const struct timespec until = {until_ns / 1000000000, until_ns % 1000000000};

        (void)pthread_cond_timedwait(&desk->more, &desk->lock, &until);
    }
    job = desk->first;
    desk->first = desk->last = NULL;
    desk->n_waiting = 0;
    tsr_metrics_set(desk->options.metrics, TSR_GAUGE_WAITING, 0);
    (void)pthread_mutex_unlock(&desk->lock);
    for (; job != NULL; job = next) {
        next = job->next;
        begin(desk, engine, job);
    }
}

/* Nothing more is taken; what was handed in already is under way. */
static void close_desk(tsr_desk *desk)
{
    atomic_store(&desk->state, TSR_DESK_ENDING);
    (void)pthread_mutex_lock(&desk->lock);
    desk->is_closed = true;
    (void)pthread_mutex_unlock(&desk->lock);
}

/* Whatever is left fails. */
static void shut(tsr_desk *desk, const char *message)
{
    tsr_job *job;

    close_desk(desk);
    job = desk->first;
    desk->first = desk->last = NULL;
    while (job != NULL) {
        tsr_job *next = job->next;

        fail_job(job, 503, message);
        close_job(job);
        release(job, false);
        job = next;
    }
    while (desk->running != NULL) {
        fail_job(desk->running, 503, message);
        end_job(desk, desk->running);
    }
}

static void set_engine(tsr_desk *desk, tsr_engine *engine)
{
    (void)pthread_mutex_lock(&desk->lock);
    desk->engine = engine;
    (void)pthread_mutex_unlock(&desk->lock);
}

/* What is told of the ranks: clients of /health and /ready, and whoever counts. */
static void note_ranks(tsr_desk *desk, const tsr_engine *engine)
{
    const bool serves = tsr_engine_is_serving(engine);
    tsr_metrics *m = desk->options.metrics;

    if (serves && atomic_load(&desk->state) == TSR_DESK_LOST) {
        tsr_metrics_add(m, TSR_COUNTER_RESTARTS, 1);
        tsr_metrics_note(m, TSR_HISTOGRAM_AWAY, tsr_engine_describe(engine).away_s);
    }
    tsr_metrics_set(m, TSR_GAUGE_SERVING, serves ? 1 : 0);
    atomic_store(&desk->state, serves ? TSR_DESK_SERVING : TSR_DESK_LOST);
}

tsr_status tsr_desk_serve(tsr_desk *desk, tsr_engine *engine)
{
    tsr_status st = TSR_OK;
    bool busy;

    set_engine(desk, engine);
    while (st == TSR_OK && !(tsr_signals_asked() && desk->running == NULL)) {
        if (tsr_signals_asked()) {
            close_desk(desk);
        } else {
            note_ranks(desk, engine);
        }
        take_in(desk, engine);
        tend(desk, engine);
        tsr_picture_look(desk->options.picture, engine, desk->running != NULL);
        st = tsr_engine_step(engine, &busy);
    }
    set_engine(desk, NULL);
    shut(desk,
         st == TSR_OK || st == TSR_ERR_CANCELLED ? "the server is ending" : tsr_status_message());
    return st;
}
