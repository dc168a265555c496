#include "engine/remote/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/engine.h"
#include "engine/remote/attach.h"
#include "engine/remote/job_words.h"
#include "engine/remote/kept.h"
#include "engine/request.h"

enum {
    FIRST_SLOTS = 64,
    USUAL_SEQUENCES = 64, // that run when options leave it open
    SLOT_BITS = 20,       // of an id: which slot; the rest counts
    MOST_USELESS = 8      // losses in a row: then what is kept is given up
};

struct tsr_remote {
    tsr_attach attach;
    tsr_job_words words; // of the job, if there is one
    tsr_kept **slots;    // owned, [n_slots]; NULL: free
    int n_slots;
    int n_kept;
    int most_kept; // 0: any number
    int64_t next_serial;
    tsr_memory_stats *ranks; // owned, [n_ranks]: as they were told last
    int n_ranks;
    int64_t *owners; // owned, [n_blocks]: likewise, if they ever were
    uint8_t *places; // owned, [n_ranks * n_blocks]
    int64_t n_blocks;
    int64_t dim; // of the model
    int64_t n_vocab;
};

/* ---- generations ----------------------------------------------------------------------------- */

static tsr_status find_slot(tsr_remote *r, int *slot)
{
    const int n = r->n_slots > 0 ? 2 * r->n_slots : FIRST_SLOTS;
    tsr_kept **slots;

    for (*slot = 0; *slot < r->n_slots; ++*slot) {
        if (r->slots[*slot] == NULL) {
            return TSR_OK;
        }
    }
    slots = n <= 1 << SLOT_BITS ? tsr_alloc_resize(r->slots, (size_t)n, sizeof(tsr_kept *)) : NULL;
    if (slots == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d generations", n);
    }
    memset(slots + r->n_slots, 0, (size_t)(n - r->n_slots) * sizeof(tsr_kept *));
    r->slots = slots;
    r->n_slots = n;
    return TSR_OK;
}

static void drop(tsr_remote *r, int slot)
{
    tsr_kept_destroy(r->slots[slot]);
    r->slots[slot] = NULL;
    r->n_kept--;
}

tsr_status tsr_remote_submit(tsr_remote *r, const tsr_generation *wish, int64_t *id)
{
    tsr_status st = TSR_OK;
    tsr_kept *k = NULL;
    int slot;

    if (r->most_kept > 0 && r->n_kept >= r->most_kept) {
        return tsr_fail(TSR_ERR_FULL, "%d generations run or wait already", r->n_kept);
    }
    TSR_TRY(find_slot(r, &slot));
    TSR_TRY(tsr_kept_create(&k, wish));
    k->id = r->next_serial << SLOT_BITS | slot;
    k->name = (int64_t)slot * TSR_KEPT_NAMES;
    if (r->attach.state == TSR_ATTACH_SERVING) {
        TSR_TRY_GOTO(st, fail, tsr_kept_submit(k, &r->attach.link.out));
    }
    r->next_serial++;
    r->slots[slot] = k;
    r->n_kept++;
    *id = k->id;
    return TSR_OK;

fail:
    tsr_kept_destroy(k);
    return st;
}

static void send_cancel(tsr_remote *r, int64_t name)
{
    tsr_wire w = tsr_wire_write(&r->attach.link.out, TSR_WIRE_CANCEL);

    tsr_wire_int64(&w, &name);
    if (tsr_wire_finish(&w) != TSR_OK) {
        tsr_log_error("a generation that is not wanted any more goes on: %s", tsr_status_message());
    }
}

void tsr_remote_cancel(tsr_remote *r, int64_t id)
{
    const int64_t slot = id & ((1 << SLOT_BITS) - 1);
    tsr_kept *k = id >= 0 && slot < r->n_slots ? r->slots[slot] : NULL;

    if (k == NULL || k->id != id || k->is_cancelled) {
        return;
    }
    k->is_cancelled = true;
    if (r->attach.state != TSR_ATTACH_SERVING) {
        return; // the next step ends it
    }
    for (int i = 0; k->is_split && i < k->n_choices; i++) {
        if (!k->choices[i].is_over) {
            send_cancel(r, k->name + 1 + i);
        }
    }
    if (!k->is_split) {
        send_cancel(r, k->name);
    }
}

/* Ends what is kept in a slot without any ranks. */
static void end_here(tsr_remote *r, int slot, const char *reason, tsr_status st,
                     const char *message)
{
    tsr_kept *k = r->slots[slot];

    for (int i = 0; i < k->n_choices; i++) {
        if (!k->choices[i].is_over) {
            const tsr_event event = {.kind = TSR_EVENT_END,
                                     .id = k->id,
                                     .choice = i,
                                     .last = --k->n_open == 0,
                                     .text = "",
                                     .reason = reason,
                                     .message = message,
                                     .status = st,
                                     .n_generated = k->choices[i].tokens.n_ids};

            k->choices[i].is_over = true;
            k->on_event(k->ctx, &event);
        }
    }
    drop(r, slot);
}

/* While there are no ranks, and before new ones hear of it. */
static void end_unwanted(tsr_remote *r)
{
    const int64_t now = tsr_clock_ns();

    for (int slot = 0; slot < r->n_slots; slot++) {
        const tsr_kept *k = r->slots[slot];

        if (k != NULL && k->is_cancelled) {
            end_here(r, slot, "cancelled", TSR_OK, "");
        } else if (k != NULL && k->deadline_ns != 0 && now >= k->deadline_ns) {
            end_here(r, slot, "deadline", TSR_OK, "");
        }
    }
}

static int by_age(const void *left, const void *right)
{
    const tsr_kept *a = *(tsr_kept *const *)left;
    const tsr_kept *b = *(tsr_kept *const *)right;

    return a->id < b->id ? -1 : 1; // ids count, whatever the slot
}

/* The oldest first, as they came: else one could wait for ever, where ranks are lost all the time.
 */
static tsr_status submit_all(tsr_remote *r)
{
    tsr_kept **all;
    int n = 0;

    end_unwanted(r);
    all = tsr_alloc((size_t)r->n_kept, sizeof(tsr_kept *));
    if (all == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to submit %d generations again", r->n_kept);
    }
    for (int slot = 0; slot < r->n_slots; slot++) {
        if (r->slots[slot] != NULL) {
            all[n++] = r->slots[slot];
        }
    }
    qsort(all, (size_t)n, sizeof(tsr_kept *), by_age);
    for (int i = 0; i < n; i++) {
        const int slot = (int)(all[i]->name / TSR_KEPT_NAMES);

        const tsr_status st = tsr_kept_submit(all[i], &r->attach.link.out);

        if (st != TSR_OK) {
            end_here(r, slot, "error", st, tsr_status_message());
        }
    }
    tsr_free(all);
    return TSR_OK;
}

/* ---- what comes ------------------------------------------------------------------------------ */

/* The same word where it stays: the frame goes. NULL: there is no such reason. */
static const char *lasting(const char *reason)
{
    for (int i = 0; reason != NULL && i < TSR_REASON_COUNT; i++) {
        const char *name = tsr_request_reason_name((tsr_request_reason)i);

        if (strcmp(reason, name) == 0) {
            return name;
        }
    }
    return NULL;
}

static tsr_status take_event(tsr_remote *r, tsr_wire *w)
{
    tsr_event event = {0};
    int64_t name = 0;
    int64_t slot;
    tsr_kept *k;

    tsr_wire_int64(w, &name);
    tsr_wire_event(w, &event);
    TSR_TRY(tsr_wire_check(w));
    if ((event.kind == TSR_EVENT_LOGITS && event.n_values != r->n_vocab) ||
        (event.kind == TSR_EVENT_EMBEDDING && event.n_values != r->dim)) {
        return tsr_fail(TSR_ERR_FORMAT, "an event with %lld numbers", (long long)event.n_values);
    }
    event.reason = lasting(event.reason);
    slot = name / TSR_KEPT_NAMES;
    k = name >= 0 && slot < r->n_slots ? r->slots[slot] : NULL;
    if ((event.kind == TSR_EVENT_TOKEN && event.text == NULL) ||
        (event.kind == TSR_EVENT_END && (event.text == NULL || event.reason == NULL))) {
        return tsr_fail(TSR_ERR_FORMAT, "an event without its text");
    }
    r->attach.was_useful = true;
    if (k != NULL && tsr_kept_hear(k, name, &event)) {
        const bool is_last = event.kind == TSR_EVENT_END && event.last;

        k->on_event(k->ctx, &event);
        if (is_last) {
            drop(r, (int)slot);
        }
    }
    return TSR_OK;
}

static tsr_status take_memory(tsr_remote *r, tsr_wire *w)
{
    tsr_wire_memory(w, r->ranks, r->n_ranks);
    return tsr_wire_check(w);
}

static tsr_status take_blocks(tsr_remote *r, tsr_wire *w)
{
    const int64_t *owners = NULL;
    const uint8_t *places = NULL;
    int64_t n_owners = 0;
    int64_t n_places = 0;

    tsr_wire_blocks(w, &owners, &n_owners, &places, &n_places);
    TSR_TRY(tsr_wire_check(w));
    if (n_places != n_owners * r->n_ranks) {
        return tsr_fail(TSR_ERR_FORMAT, "a map of blocks that does not fit");
    }
    tsr_free(r->owners);
    tsr_free(r->places);
    r->owners = tsr_alloc((size_t)n_owners, sizeof(*r->owners));
    r->places = tsr_alloc((size_t)n_places, sizeof(*r->places));
    r->n_blocks = r->owners != NULL && r->places != NULL ? n_owners : 0;
    if (r->n_blocks > 0) {
        memcpy(r->owners, owners, (size_t)n_owners * sizeof(*owners));
        memcpy(r->places, places, (size_t)n_places * sizeof(*places));
    }
    return TSR_OK;
}

static tsr_status take_frame(tsr_remote *r, tsr_wire *w)
{
    switch (w->kind) {
    case TSR_WIRE_EVENT:
        return take_event(r, w);
    case TSR_WIRE_STATS:
        return tsr_attach_take_stats(&r->attach, w);
    case TSR_WIRE_MEMORY:
        return take_memory(r, w);
    case TSR_WIRE_BLOCKS:
        return take_blocks(r, w);
    case TSR_WIRE_MARK:
        return TSR_OK;
    default:
        return tsr_fail(TSR_ERR_FORMAT, "no message for a client");
    }
}

/* Events of a step that is not known to be over wait for the rest: see engine/remote/wire.h. */
static tsr_status hear(tsr_remote *r)
{
    tsr_link *link = &r->attach.link;
    const size_t first = link->n_used;
    size_t end = first;
    bool is_there = true;
    tsr_wire w;

    while (is_there) {
        TSR_TRY(tsr_link_next(link, &w, &is_there));
        end = is_there && w.kind != TSR_WIRE_EVENT ? link->n_used : end;
    }
    link->n_used = first;
    while (link->n_used < end) {
        TSR_TRY(tsr_link_next(link, &w, &is_there));
        TSR_TRY(take_frame(r, &w));
    }
    return TSR_OK;
}

/* ---- life ------------------------------------------------------------------------------------ */

/* Something of what is kept ends the ranks, or others do, faster than a token is made: no end is in
 * sight. */
static void end_all(tsr_remote *r)
{
    const int64_t until = r->next_serial; // whoever is told may submit again
    char message[128];

    (void)snprintf(message, sizeof(message),
                   "the ranks were lost %d times in a row and nothing came of it",
                   r->attach.n_useless);
    tsr_log_error("%s; %d %s", message, r->n_kept,
                  r->n_kept == 1 ? "request is given up" : "requests are given up");
    r->attach.n_useless = 0;
    for (int slot = 0; slot < r->n_slots; slot++) {
        if (r->slots[slot] != NULL && r->slots[slot]->id >> SLOT_BITS < until) {
            end_here(r, slot, "error", TSR_ERR_COMM, message);
        }
    }
}

static void note_lost(tsr_remote *r)
{
    if (r->attach.n_useless >= MOST_USELESS) {
        end_all(r);
    }
    tsr_log_warn("the engine is lost; %d %s until it is started again", r->n_kept,
                 r->n_kept == 1 ? "request waits" : "requests wait");
}

static tsr_status turn(tsr_remote *r)
{
    tsr_attach *a = &r->attach;
    tsr_attach_news news;

    a->is_idle = r->n_kept == 0;
    a->was_useful = a->was_useful || a->is_idle;
    TSR_TRY(tsr_attach_turn(a, &news));
    if (news == TSR_ATTACH_LOST) {
        note_lost(r);
    }
    if (news == TSR_ATTACH_CAME && a->n_restarts > 0) {
        tsr_log_warn("the engine serves again after %.2f s; %d %s on", a->away_s, r->n_kept,
                     r->n_kept == 1 ? "request goes" : "requests go");
    }
    if (news == TSR_ATTACH_CAME) {
        TSR_TRY(submit_all(r));
    }
    return TSR_OK;
}

tsr_status tsr_remote_step(tsr_remote *r, bool *busy)
{
    TSR_TRY(turn(r));
    if (r->attach.state == TSR_ATTACH_SERVING) {
        if (hear(r) != TSR_OK) {
            tsr_log_error("the engine says what makes no sense: %s", tsr_status_message());
            tsr_attach_lose(&r->attach);
            note_lost(r);
        } else {
            (void)!tsr_link_send(&r->attach.link); // that it is lost is heard
        }
    } else {
        end_unwanted(r);
    }
    *busy = r->n_kept > 0;
    return TSR_OK;
}

bool tsr_remote_is_serving(const tsr_remote *r)
{
    return r->attach.state == TSR_ATTACH_SERVING;
}

void tsr_remote_wake(tsr_remote *r)
{
    tsr_attach_wake(&r->attach);
}

tsr_engine_stats tsr_remote_describe(const tsr_remote *r)
{
    tsr_engine_stats stats = r->attach.stats;

    stats.n_restarts = r->attach.n_restarts;
    stats.away_s = r->attach.away_s;
    return stats;
}

tsr_status tsr_remote_memory(const tsr_remote *r, tsr_memory_stats *ranks)
{
    memcpy(ranks, r->ranks, (size_t)r->n_ranks * sizeof(*ranks));
    return TSR_OK;
}

tsr_status tsr_remote_blocks(tsr_remote *r, int64_t *owners, uint8_t *places)
{
    const int64_t n_blocks = r->attach.stats.n_blocks;
    const bool is_known = n_blocks == r->n_blocks;

    for (int64_t i = 0; i < n_blocks; i++) {
        owners[i] = is_known ? r->owners[i] : -1;
    }
    for (int64_t i = 0; i < n_blocks * r->n_ranks; i++) {
        places[i] = is_known ? r->places[i] : 0;
    }
    if (r->attach.state == TSR_ATTACH_SERVING) {
        tsr_wire w = tsr_wire_write(&r->attach.link.out, TSR_WIRE_BLOCKS);

        return tsr_wire_finish(&w);
    }
    return TSR_OK;
}

/* Takes r. The model, if there is one already, is that of the ranks. */
static tsr_status open_engine(tsr_engine **out, tsr_remote *r, const tsr_engine_options *options,
                              tsr_world *world)
{
    tsr_engine *e = tsr_alloc(1, sizeof(*e));
    tsr_status st = TSR_OK;

    if (e == NULL) {
        tsr_remote_destroy(r);
        return tsr_fail(TSR_ERR_NOMEM, "no memory for an engine");
    }
    e->remote = r;
    e->world = world;
    e->stopped = true;
    e->drain_ns = (int64_t)(options->drain_s * 1e9);
    if (options->model_path != NULL) { // its mistakes are told before anything is started
        TSR_TRY_GOTO(st, fail, tsr_model_open(&e->model, options->model_path));
    }
    while (!tsr_remote_is_serving(r)) {
        if (world != NULL && tsr_world_asked_to_end(world)) {
            st = tsr_fail(TSR_ERR_CANCELLED, "asked to end by a signal");
            goto fail;
        }
        TSR_TRY_GOTO(st, fail, turn(r));
    }
    if (e->model == NULL) {
        TSR_TRY_GOTO(st, fail, tsr_model_open(&e->model, r->attach.model_path));
    }
    r->dim = tsr_model_describe(e->model).dim;
    r->n_vocab = tsr_model_describe(e->model).n_vocab;
    r->n_ranks = r->attach.stats.n_ranks;
    r->ranks = tsr_alloc((size_t)(r->n_ranks > 0 ? r->n_ranks : 0), sizeof(*r->ranks));
    if (r->ranks == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for what %d ranks hold", r->n_ranks);
        goto fail;
    }
    *out = e;
    return TSR_OK;

fail:
    tsr_engine_destroy(e);
    return st;
}

static tsr_remote *make(void)
{
    tsr_remote *r = tsr_alloc(1, sizeof(*r));

    if (r != NULL) {
        tsr_attach_init(&r->attach);
    }
    return r;
}

tsr_status tsr_engine_launch(tsr_engine **out, tsr_world *world, const tsr_launch_options *options)
{
    const tsr_engine_options *o = &options->engine;
    tsr_remote *r = make();
    tsr_status st;

    if (r == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for an engine");
    }
    st = tsr_job_words_init(&r->words, options);
    if (st != TSR_OK) {
        tsr_remote_destroy(r);
        return st;
    }
    r->attach.words = (const char *const *)r->words.words;
    r->attach.socket = r->words.socket;
    r->attach.folder = r->words.own_folder;
    if (o->max_queue > 0) {
        r->most_kept = o->max_queue + (o->max_sequences > 0 ? o->max_sequences : USUAL_SEQUENCES);
    }
    return open_engine(out, r, o, world);
}

tsr_status tsr_engine_join(tsr_engine **out, const char *socket)
{
    const tsr_engine_options none = {0};
    tsr_remote *r = make();

    if (r != NULL) {
        r->words.socket = tsr_alloc_text(socket, strlen(socket));
        r->attach.socket = r->words.socket;
    }
    if (r == NULL || r->words.socket == NULL) {
        tsr_remote_destroy(r);
        return tsr_fail(TSR_ERR_NOMEM, "no memory for an engine");
    }
    return open_engine(out, r, &none, NULL);
}

void tsr_remote_destroy(tsr_remote *r)
{
    if (r == NULL) {
        return;
    }
    tsr_attach_close(&r->attach);
    for (int slot = 0; slot < r->n_slots; slot++) {
        tsr_kept_destroy(r->slots[slot]);
    }
    tsr_free(r->slots);
    tsr_free(r->ranks);
    tsr_free(r->owners);
    tsr_free(r->places);
    tsr_job_words_clear(&r->words);
    tsr_free(r);
}
