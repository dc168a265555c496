#include "engine/remote/attach.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    TURN_MS = 5,
    SERVING_TURN_MS = 10, // each costs the ranks a moment on one of their cores
    END_US = 10000000     // that a job has to end when it is asked to
};

static const int64_t first_rest_ns = 500000000;
static const int64_t own_end_ns = 3000000000; // in which ranks end by themselves when one is lost
static const int64_t quiet_ns = 1000000000;   // before the leader's process is looked at
static const int64_t stopped_ns = 2000000000; // that it may be stopped
static const int64_t joining_ns =
    60000000000;                              // that a job of somebody else's may take to come back
static const int64_t useful_ns = 10000000000; // it served so long: that was no failure

void tsr_attach_init(tsr_attach *a)
{
    *a = (tsr_attach){.link = TSR_LINK_NONE, .wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
}

void tsr_attach_wake(tsr_attach *a)
{
    (void)!eventfd_write(a->wake, 1);
}

/* The job is to be gone before another begins. */
static void begin_end(tsr_attach *a, int64_t now, int64_t rest_ns)
{
    tsr_link_close(&a->link);
    a->state = TSR_ATTACH_ENDING;
    a->until_ns = now + own_end_ns;
    a->rest_ns = rest_ns;
    a->lost_ns = a->lost_ns != 0 ? a->lost_ns : now;
}

void tsr_attach_lose(tsr_attach *a)
{
    const int64_t now = tsr_clock_ns();

    a->n_useless = a->was_useful || now - a->served_ns > useful_ns ? 0 : a->n_useless + 1;
    begin_end(a, now, a->n_useless > 0 ? first_rest_ns : 0);
}

/* ---- coming ---------------------------------------------------------------------------------- */

tsr_status tsr_attach_take_stats(tsr_attach *a, tsr_wire *w)
{
    tsr_engine_stats stats = {0};

    tsr_wire_stats(w, &stats);
    TSR_TRY(tsr_wire_check(w));
    (void)snprintf(a->device, sizeof(a->device), "%s", stats.device != NULL ? stats.device : "");
    (void)snprintf(a->comm, sizeof(a->comm), "%s", stats.comm != NULL ? stats.comm : "");
    stats.device = a->device;
    stats.comm = a->comm;
    a->stats = stats;
    return TSR_OK;
}

static tsr_status say_hello(tsr_attach *a)
{
    tsr_wire w = tsr_wire_write(&a->link.out, TSR_WIRE_HELLO);
    int version = TSR_WIRE_VERSION;
    bool is_owner = a->words != NULL;
    const char *folder = a->folder;

    tsr_wire_int(&w, &version);
    tsr_wire_bool(&w, &is_owner);
    tsr_wire_text(&w, &folder, NULL);
    TSR_TRY(tsr_wire_finish(&w));
    return tsr_link_send(&a->link);
}

static tsr_status take_hello(tsr_attach *a, tsr_wire *w)
{
    const char *path = NULL;
    int version = 0;

    tsr_wire_int(w, &version);
    if (w->kind != TSR_WIRE_HELLO || version != TSR_WIRE_VERSION) {
        return tsr_fail(TSR_ERR_FORMAT, "the engine at '%s' is of another version (%d, here %d)",
                        a->socket, version, (int)TSR_WIRE_VERSION);
    }
    tsr_wire_text(w, &path, NULL);
    TSR_TRY(tsr_attach_take_stats(a, w));
    if (a->model_path == NULL && path != NULL) {
        a->model_path = tsr_alloc_text(path, strlen(path));
    }
    return a->model_path != NULL ? TSR_OK : tsr_fail(TSR_ERR_NOMEM, "no memory for a path");
}

/* Connects if somebody listens, and hears hello if it has been said. */
static tsr_status meet(tsr_attach *a, tsr_attach_news *news)
{
    bool is_there = false;
    bool any;
    tsr_wire w;

    if (a->link.socket < 0) {
        TSR_TRY(tsr_link_connect(&a->link, a->socket));
        TSR_TRY(say_hello(a));
    }
    TSR_TRY(tsr_link_receive(&a->link, &any));
    TSR_TRY(tsr_link_next(&a->link, &w, &is_there));
    if (is_there) {
        const int64_t now = tsr_clock_ns();

        TSR_TRY(take_hello(a, &w));
        a->state = TSR_ATTACH_SERVING;
        a->heard_ns = a->served_ns = now;
        a->stopped_ns = 0;
        a->was_useful = false;
        a->away_s = a->lost_ns != 0 ? (double)(now - a->lost_ns) / 1e9 : 0;
        a->n_restarts += a->lost_ns != 0 ? 1 : 0;
        a->lost_ns = 0;
        a->n_failures = 0;
        *news = TSR_ATTACH_CAME;
    }
    return TSR_OK;
}

static tsr_status give_up(const tsr_attach *a)
{
    if (a->words == NULL) {
        return tsr_fail(TSR_ERR_COMM, "no engine can be joined at '%s'", a->socket);
    }
    if (a->served_ns == 0) {
        return tsr_fail(TSR_ERR_COMM, "the ranks ended before they served: %s",
                        tsr_launcher_fate(&a->launcher).text);
    }
    return tsr_fail(TSR_ERR_COMM,
                    "the ranks were started %d times and did not come to serve; they are not "
                    "started again (the last job: %s)",
                    a->n_failures, tsr_launcher_fate(&a->launcher).text);
}

static tsr_status wait_to_serve(tsr_attach *a, tsr_attach_news *news)
{
    const bool runs = a->words == NULL || tsr_launcher_runs(&a->launcher);
    const tsr_status st = meet(a, news);

    if (st == TSR_ERR_FORMAT || st == TSR_ERR_NOMEM) {
        return st; // it would not be better the next time
    }
    if (st != TSR_OK) {
        tsr_link_close(&a->link);
    }
    if (!runs && a->state == TSR_ATTACH_STARTING) {
        begin_end(a, tsr_clock_ns(), first_rest_ns << a->n_failures++);
    }
    if (a->words == NULL && a->link.socket < 0 && a->state == TSR_ATTACH_STARTING &&
        tsr_clock_ns() - a->lost_ns > joining_ns) {
        return give_up(a);
    }
    tsr_clock_sleep_us(a->state == TSR_ATTACH_STARTING ? TURN_MS * 1000 : 0);
    return TSR_OK;
}

/* ---- staying --------------------------------------------------------------------------------- */

/* A leader that is alone has nobody who would notice that it is stopped. */
static void look_at_leader(tsr_attach *a, int64_t now, tsr_attach_news *news)
{
    const int pid = tsr_link_peer(&a->link);

    if (a->words == NULL || pid == 0 || tsr_launcher_process_state(pid) != 'T') {
        a->stopped_ns = 0;
        a->heard_ns = now; // look again when it has been quiet for as long once more
    } else if (a->stopped_ns == 0) {
        a->stopped_ns = now;
    } else if (now - a->stopped_ns > stopped_ns) {
        tsr_log_error("the leader (process %d) is stopped; ending the job", pid);
        (void)kill(pid, SIGKILL);
        tsr_attach_lose(a);
        *news = TSR_ATTACH_LOST;
    }
}

static tsr_status serve(tsr_attach *a, tsr_attach_news *news)
{
    const bool wants_to_send = tsr_link_n_unsent(&a->link) > 0;
    struct pollfd watched[] = {
        {.fd = a->link.socket, .events = (short)(POLLIN | (wants_to_send ? POLLOUT : 0))},
        {.fd = a->wake, .events = POLLIN}};
    eventfd_t n_wakes;
    int64_t now;
    bool any = false;
    tsr_status st;

    (void)poll(watched, 2, a->is_idle ? 0 : SERVING_TURN_MS);
    if (watched[1].revents != 0) {
        (void)!eventfd_read(a->wake, &n_wakes);
    }
    st = tsr_link_receive(&a->link, &any);
    if (st == TSR_ERR_NOMEM) {
        return st;
    }
    if (st != TSR_OK) {
        tsr_attach_lose(a);
        *news = TSR_ATTACH_LOST;
        return TSR_OK;
    }
    now = tsr_clock_ns();
    if (any) {
        a->heard_ns = now;
        a->stopped_ns = 0;
    } else if (now - a->heard_ns > quiet_ns) {
        look_at_leader(a, now, news);
    }
    return TSR_OK;
}

/* ---- turns ----------------------------------------------------------------------------------- */

static tsr_status wait_for_end(tsr_attach *a)
{
    const int64_t now = tsr_clock_ns();

    if (a->words != NULL && tsr_launcher_runs(&a->launcher)) {
        if (now > a->until_ns) {
            tsr_launcher_ask_to_end(&a->launcher);
        }
        tsr_clock_sleep_us(TURN_MS * 1000);
        return TSR_OK;
    }
    if (a->words != NULL && (a->served_ns == 0 || a->n_failures >= TSR_ATTACH_MOST_FAILURES)) {
        return give_up(a);
    }
    a->until_ns = now + a->rest_ns;
    a->state = TSR_ATTACH_RESTING;
    return TSR_OK;
}

static tsr_status start(tsr_attach *a)
{
    const int64_t now = tsr_clock_ns();

    if (now < a->until_ns) {
        tsr_clock_sleep_us(TURN_MS * 1000);
        return TSR_OK;
    }
    if (a->folder != NULL) {
        (void)mkdir(a->folder, S_IRWXU); // a leader that took itself for left has removed it
    }
    if (a->words != NULL) {
        TSR_TRY(tsr_launcher_start(&a->launcher, a->words));
    }
    a->state = TSR_ATTACH_STARTING;
    return TSR_OK;
}

tsr_status tsr_attach_turn(tsr_attach *a, tsr_attach_news *news)
{
    *news = TSR_ATTACH_NO_NEWS;
    switch (a->state) {
    case TSR_ATTACH_RESTING:
        return start(a);
    case TSR_ATTACH_STARTING:
        return wait_to_serve(a, news);
    case TSR_ATTACH_SERVING:
        return serve(a, news);
    default:
        return wait_for_end(a);
    }
}

void tsr_attach_close(tsr_attach *a)
{
    tsr_link_close(&a->link); // which ends a job that was started here
    if (a->words != NULL) {
        tsr_launcher_end(&a->launcher, a->state == TSR_ATTACH_SERVING ? END_US : 0);
    }
    tsr_free(a->model_path);
    a->model_path = NULL;
    if (a->wake >= 0) {
        (void)close(a->wake);
        a->wake = -1;
    }
}
