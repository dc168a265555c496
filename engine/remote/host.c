/* The leader at the service of clients: their generations run here, their events go to them. */
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/engine.h"
#include "engine/remote/link.h"

enum {
    MOST_GUESTS = 64,
    MOST_UNSENT = 256 << 20, // bytes: one that does not read its events is let go
    IDLE_MS = 200
};

static const int64_t stats_ns = 250000000;   // from one telling to the next
static const int64_t memory_ns = 1000000000; // which takes all ranks

typedef struct guest {
    tsr_link link;
    bool is_known; // it has said hello
    bool is_owner;
    bool has_news; // since the last mark
    bool wants_blocks;
    bool is_lost; // to be let go
    struct guest *next;
} guest;

typedef struct host {
    tsr_engine *engine;
    const char *model_path;  // as every process of this host finds it
    tsr_memory_stats *ranks; // owned, [n_ranks]
    int n_ranks;
    int listening;
    guest *guests;
    int n_guests;
    struct ask *asks;
    bool is_busy;
    bool has_asked; // a guest, for blocks
    bool is_over;   // its owner has gone
    char *folder;   // owned: to be removed then; NULL: none
    int64_t told_ns;
    int64_t remembered_ns;
    int64_t remembered_steps;
} host;

/* A generation of a guest. */
typedef struct ask {
    host *at;
    guest *from;  // NULL: it has gone
    int64_t name; // what the guest calls it
    int64_t id;
    struct ask *previous;
    struct ask *next;
} ask;

/* ---- what guests are told -------------------------------------------------------------------- */

static void finish(guest *g, tsr_wire *w)
{
    if (tsr_wire_finish(w) != TSR_OK) {
        tsr_log_error("a client is let go: %s", tsr_status_message());
        g->is_lost = true;
    }
}

static void tell(const ask *a, const tsr_event *event)
{
    tsr_wire w = tsr_wire_write(&a->from->link.out, TSR_WIRE_EVENT);
    tsr_event copy = *event;
    int64_t name = a->name;

    tsr_wire_int64(&w, &name);
    tsr_wire_event(&w, &copy);
    finish(a->from, &w);
    a->from->has_news = true;
}

static void tell_stats(host *h)
{
    const int64_t now = tsr_clock_ns();
    tsr_engine_stats stats;
    bool remembers;

    if (h->guests == NULL || now - h->told_ns < stats_ns) {
        return;
    }
    h->told_ns = now;
    stats = tsr_engine_describe(h->engine);
    remembers = now - h->remembered_ns >= memory_ns && stats.n_steps != h->remembered_steps &&
                tsr_engine_memory(h->engine, h->ranks) == TSR_OK;
    if (remembers) {
        h->remembered_ns = now;
        h->remembered_steps = stats.n_steps;
    }
    for (guest *g = h->guests; g != NULL; g = g->next) {
        if (g->is_known) {
            tsr_wire w = tsr_wire_write(&g->link.out, TSR_WIRE_STATS);

            tsr_wire_stats(&w, &stats);
            finish(g, &w);
        }
        if (g->is_known && remembers) {
            tsr_wire w = tsr_wire_write(&g->link.out, TSR_WIRE_MEMORY);

            tsr_wire_memory(&w, h->ranks, h->n_ranks);
            finish(g, &w);
        }
    }
}

/* Those who want to know whose blocks are, and where, are told at once. */
static tsr_status tell_blocks(host *h)
{
    int64_t n_owners = tsr_engine_describe(h->engine).n_blocks;
    int64_t n_places = n_owners * h->n_ranks;
    int64_t *owners = tsr_alloc((size_t)n_owners, sizeof(*owners));
    uint8_t *places = tsr_alloc((size_t)n_places, sizeof(*places));
    tsr_status st = TSR_OK;

    if (owners == NULL || places == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for a map of %lld blocks", (long long)n_owners);
    } else {
        st = tsr_engine_blocks(h->engine, owners, places);
    }
    for (guest *g = h->guests; st == TSR_OK && g != NULL; g = g->next) {
        if (g->wants_blocks) {
            tsr_wire w = tsr_wire_write(&g->link.out, TSR_WIRE_BLOCKS);
            const int64_t *some_owners = owners;
            const uint8_t *some_places = places;

            tsr_wire_blocks(&w, &some_owners, &n_owners, &some_places, &n_places);
            finish(g, &w);
            g->wants_blocks = false;
        }
    }
    tsr_free(owners);
    tsr_free(places);
    return st;
}

/* A step is over: what was told of it may be acted on. */
static void mark(host *h)
{
    for (guest *g = h->guests; g != NULL; g = g->next) {
        if (g->has_news) {
            tsr_wire w = tsr_wire_write(&g->link.out, TSR_WIRE_MARK);

            finish(g, &w);
            g->has_news = false;
        }
    }
}

/* ---- what guests want ------------------------------------------------------------------------ */

static void forget(ask *a)
{
    if (a->previous != NULL) {
        a->previous->next = a->next;
    } else {
        a->at->asks = a->next;
    }
    if (a->next != NULL) {
        a->next->previous = a->previous;
    }
    tsr_free(a);
}

static void note_event(void *ctx, const tsr_event *event)
{
    ask *a = ctx;

    if (a->from != NULL) {
        tell(a, event);
    }
    if (event->kind == TSR_EVENT_END && event->last) {
        forget(a);
    }
}

/* It ends before it has begun. */
static void turn_down(ask *a, tsr_status st)
{
    const tsr_event event = {.kind = TSR_EVENT_END,
                             .last = true,
                             .text = "",
                             .reason = "error",
                             .message = tsr_status_message(),
                             .status = st};

    tell(a, &event);
    forget(a);
}

static tsr_status take_submit(host *h, guest *g, tsr_wire *w)
{
    tsr_generation wish = {0};
    tsr_wire_stops stops;
    int64_t name = 0;
    tsr_status st;
    ask *a;

    tsr_wire_int64(w, &name);
    tsr_wire_generation(w, &wish, &stops);
    TSR_TRY(tsr_wire_check(w));
    a = tsr_alloc(1, sizeof(*a));
    if (a == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a client's generation");
    }
    *a = (ask){.at = h, .from = g, .name = name, .next = h->asks};
    if (h->asks != NULL) {
        h->asks->previous = a;
    }
    h->asks = a;
    wish.on_event = note_event;
    wish.ctx = a;
    st = tsr_engine_submit(h->engine, &wish, &a->id);
    if (st != TSR_OK) {
        turn_down(a, st);
    }
    h->is_busy = true;
    return TSR_OK;
}

static tsr_status take_cancel(host *h, const guest *g, tsr_wire *w)
{
    int64_t name = 0;

    tsr_wire_int64(w, &name);
    TSR_TRY(tsr_wire_check(w));
    for (ask *a = h->asks; a != NULL; a = a->next) {
        if (a->from == g && a->name == name) {
            tsr_engine_cancel(h->engine, a->id);
        }
    }
    return TSR_OK;
}

static tsr_status take_hello(host *h, guest *g, tsr_wire *w)
{
    tsr_engine_stats stats = tsr_engine_describe(h->engine);
    const char *path = h->model_path;
    const char *folder = NULL;
    int mine = TSR_WIRE_VERSION;
    int version = 0;
    tsr_wire answer;

    tsr_wire_int(w, &version);
    if (version == mine) {
        tsr_wire_bool(w, &g->is_owner);
        tsr_wire_text(w, &folder, NULL);
        TSR_TRY(tsr_wire_check(w));
    }
    if (folder != NULL && g->is_owner && h->folder == NULL) {
        h->folder = tsr_alloc_text(folder, strlen(folder));
    }
    // Also to one of another version, so that it can say so.
    answer = tsr_wire_write(&g->link.out, TSR_WIRE_HELLO);
    tsr_wire_int(&answer, &mine);
    tsr_wire_text(&answer, &path, NULL);
    tsr_wire_stats(&answer, &stats);
    finish(g, &answer);
    g->is_known = version == mine;
    return TSR_OK;
}

static tsr_status take_frame(host *h, guest *g, tsr_wire *w)
{
    if (!g->is_known) {
        return w->kind == TSR_WIRE_HELLO
                   ? take_hello(h, g, w)
                   : tsr_fail(TSR_ERR_FORMAT, "a client says no hello, or of another version");
    }
    if (w->kind == TSR_WIRE_BLOCKS) {
        g->wants_blocks = true;
        h->has_asked = true;
        return tsr_wire_check(w);
    }
    return w->kind == TSR_WIRE_SUBMIT   ? take_submit(h, g, w)
           : w->kind == TSR_WIRE_CANCEL ? take_cancel(h, g, w)
                                        : tsr_fail(TSR_ERR_FORMAT, "no message for a leader");
}

static tsr_status hear(host *h, guest *g)
{
    bool is_there = true;
    bool any;
    tsr_wire w;

    TSR_TRY(tsr_link_receive(&g->link, &any));
    while (any && is_there) {
        TSR_TRY(tsr_link_next(&g->link, &w, &is_there));
        if (is_there) {
            TSR_TRY(take_frame(h, g, &w));
        }
    }
    return TSR_OK;
}

/* ---- guests ---------------------------------------------------------------------------------- */

static tsr_status let_in(host *h)
{
    while (h->n_guests < MOST_GUESTS) {
        guest *g = tsr_alloc(1, sizeof(*g));

        if (g == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for a client");
        }
        if (tsr_link_accept(&g->link, h->listening) != TSR_OK || g->link.socket < 0) {
            tsr_free(g);
            return TSR_OK; // or not this time
        }
        g->next = h->guests;
        h->guests = g;
        h->n_guests++;
    }
    return TSR_OK;
}

/* Whatever it had under way ends. */
static void let_go(host *h, guest *g)
{
    for (ask *a = h->asks; a != NULL; a = a->next) {
        if (a->from == g) {
            a->from = NULL;
            tsr_engine_cancel(h->engine, a->id);
        }
    }
    h->is_over = h->is_over || g->is_owner;
    tsr_link_close(&g->link);
    tsr_free(g);
}

/* All that they say is heard, all that can be sent is; the lost ones leave. */
static void attend(host *h)
{
    for (guest *g = h->guests; g != NULL; g = g->next) {
        const tsr_status st = g->is_lost ? TSR_OK : hear(h, g);

        if (st != TSR_OK && st != TSR_ERR_COMM) {
            tsr_log_error("a client is let go: %s", tsr_status_message());
        }
        g->is_lost = g->is_lost || st != TSR_OK;
    }
}

static void send_all(host *h)
{
    guest **at = &h->guests;

    while (*at != NULL) {
        guest *g = *at;

        g->is_lost = g->is_lost || tsr_link_send(&g->link) != TSR_OK;
        if (tsr_link_n_unsent(&g->link) > MOST_UNSENT) {
            tsr_log_error("a client does not read what it is told, and is let go");
            g->is_lost = true;
        }
        if (g->is_lost) {
            *at = g->next;
            h->n_guests--;
            let_go(h, g);
        } else {
            at = &g->next;
        }
    }
}

/* Until somebody says something, or a while has passed. */
static void wait(const host *h, int wait_ms)
{
    struct pollfd watched[MOST_GUESTS + 1];
    nfds_t n = 0;

    if (h->n_guests < MOST_GUESTS) {
        watched[n++] = (struct pollfd){.fd = h->listening, .events = POLLIN};
    }
    for (const guest *g = h->guests; g != NULL; g = g->next) {
        const short wants = tsr_link_n_unsent(&g->link) > 0 ? POLLIN | POLLOUT : POLLIN;

        watched[n++] = (struct pollfd){.fd = g->link.socket, .events = wants};
    }
    (void)poll(watched, n, wait_ms); // a signal ends it, too
}

/* ---- life ------------------------------------------------------------------------------------ */

static tsr_status run(host *h)
{
    while (!h->is_over) {
        if (!h->is_busy) {
            wait(h, IDLE_MS);
        }
        TSR_TRY(let_in(h));
        attend(h);
        TSR_TRY(tsr_engine_step(h->engine, &h->is_busy));
        mark(h);
        tell_stats(h);
        if (h->has_asked) {
            TSR_TRY(tell_blocks(h));
            h->has_asked = false;
        }
        send_all(h);
    }
    return TSR_OK;
}

tsr_status tsr_engine_host(tsr_engine *engine, const char *socket_path, const char *model_path)
{
    char whole_path[PATH_MAX];
    host h = {.engine = engine,
              .model_path = realpath(model_path, whole_path) != NULL ? whole_path : model_path,
              .n_ranks = tsr_world_size(engine->world),
              .listening = -1};
    tsr_status st = TSR_OK;

    h.ranks = tsr_alloc((size_t)h.n_ranks, sizeof(*h.ranks));
    if (h.ranks == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for a host of clients");
        goto done;
    }
    TSR_TRY_GOTO(st, done, tsr_link_listen(&h.listening, socket_path));
    st = run(&h);
done:
    if (h.listening >= 0) {
        (void)unlink(socket_path);
        (void)close(h.listening);
    }
    while (h.guests != NULL) {
        guest *g = h.guests;

        h.guests = g->next;
        let_go(&h, g);
    }
    while (st == TSR_OK && h.asks != NULL) { // the next step ends them, and says so to each
        st = tsr_engine_step(engine, &h.is_busy);
    }
    while (h.asks != NULL) {
        forget(h.asks);
    }
    if (h.is_over && h.folder != NULL) {
        (void)rmdir(h.folder);
    }
    tsr_free(h.folder);
    tsr_free(h.ranks);
    return st;
}
