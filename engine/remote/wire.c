#include "engine/remote/wire.h"

#include <limits.h>
#include <string.h>

// Whatever is added to one of these has to be passed below, and TSR_WIRE_VERSION goes up.
_Static_assert(sizeof(tsr_generation) == 232, "a generation has other fields than are passed here");
_Static_assert(sizeof(tsr_event) == 200, "an event has other fields than are passed here");
_Static_assert(sizeof(tsr_engine_stats) == 176, "stats have other fields than are passed here");
_Static_assert(sizeof(tsr_memory_stats) == 216, "memory has other fields than are passed here");

/* ---- frames ---------------------------------------------------------------------------------- */

typedef struct head {
    uint32_t n_bytes; // of all of the frame
    uint32_t kind;
} head;

_Static_assert(sizeof(head) == TSR_WIRE_HEAD_BYTES, "the head of a frame");

static void put(tsr_wire *w, const void *bytes, size_t n_bytes)
{
    w->is_bad = w->is_bad || tsr_text_append(w->out, bytes, n_bytes) != TSR_OK;
}

/* The next n_bytes; NULL when there are not so many. */
static const void *take(tsr_wire *w, size_t n_bytes)
{
    const void *at = w->at;

    w->is_bad = w->is_bad || n_bytes > (size_t)(w->end - w->at);
    if (w->is_bad) {
        return NULL;
    }
    w->at += n_bytes;
    return at;
}

tsr_wire tsr_wire_write(tsr_text *out, tsr_wire_kind kind)
{
    const head h = {.kind = (uint32_t)kind};
    tsr_wire w = {.kind = kind, .out = out, .began = out->n_bytes};

    put(&w, &h, sizeof(h));
    return w;
}

tsr_status tsr_wire_finish(tsr_wire *w)
{
    const size_t n_bytes = w->out->n_bytes - w->began;
    const head h = {(uint32_t)n_bytes, (uint32_t)w->kind};

    if (w->is_bad || n_bytes > TSR_WIRE_MOST_BYTES) {
        w->out->n_bytes = w->began;
        return w->is_bad ? tsr_fail(TSR_ERR_NOMEM, "no memory for a message of %zu bytes", n_bytes)
                         : tsr_fail(TSR_ERR_ARG, "a message of %zu bytes, at most %d are possible",
                                    n_bytes, (int)TSR_WIRE_MOST_BYTES);
    }
    memcpy(w->out->bytes + w->began, &h, sizeof(h));
    return TSR_OK;
}

tsr_status tsr_wire_read(tsr_wire *w, size_t *used, const char *bytes, size_t n_bytes)
{
    head h;

    *used = 0;
    if (n_bytes < sizeof(h)) {
        return TSR_OK;
    }
    memcpy(&h, bytes, sizeof(h));
    if (h.n_bytes < sizeof(h) || h.n_bytes % 8 != 0 || h.n_bytes > TSR_WIRE_MOST_BYTES ||
        h.kind >= TSR_WIRE_KIND_COUNT) {
        return tsr_fail(TSR_ERR_FORMAT, "a message of %u bytes and kind %u", (unsigned)h.n_bytes,
                        (unsigned)h.kind);
    }
    if (n_bytes >= h.n_bytes) {
        *used = h.n_bytes;
        *w = (tsr_wire){
            .kind = (tsr_wire_kind)h.kind, .at = bytes + sizeof(h), .end = bytes + h.n_bytes};
    }
    return TSR_OK;
}

tsr_status tsr_wire_check(const tsr_wire *w)
{
    if (w->is_bad || w->at != w->end) {
        return tsr_fail(TSR_ERR_FORMAT, "a message of kind %d makes no sense", (int)w->kind);
    }
    return TSR_OK;
}

/* ---- fields ---------------------------------------------------------------------------------- */

/* Eight bytes. */
static void pass(tsr_wire *w, void *value)
{
    if (w->out != NULL) {
        put(w, value, 8);
    } else {
        const void *from = take(w, 8);

        if (from != NULL) {
            memcpy(value, from, 8);
        }
    }
}

void tsr_wire_int64(tsr_wire *w, int64_t *value)
{
    pass(w, value);
}

void tsr_wire_int(tsr_wire *w, int *value)
{
    int64_t wide = *value;

    pass(w, &wide);
    w->is_bad = w->is_bad || wide < INT_MIN || wide > INT_MAX;
    *value = w->is_bad ? 0 : (int)wide;
}

void tsr_wire_bool(tsr_wire *w, bool *value)
{
    int wide = *value ? 1 : 0;

    tsr_wire_int(w, &wide);
    w->is_bad = w->is_bad || (wide & ~1) != 0;
    *value = wide == 1;
}

void tsr_wire_real(tsr_wire *w, double *value)
{
    pass(w, value);
}

static void pass_float(tsr_wire *w, float *value)
{
    double wide = (double)*value;

    pass(w, &wide);
    *value = (float)wide; // it was one
}

static void pass_id(tsr_wire *w, int32_t *value)
{
    int wide = *value;

    tsr_wire_int(w, &wide);
    *value = wide;
}

/* Counters of 64 bits, or what is as wide. */
static void pass_uint64(tsr_wire *w, uint64_t *value)
{
    pass(w, value);
}

static void pass_doubles(tsr_wire *w, double *const *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        tsr_wire_real(w, values[i]);
    }
}

/* *n elements, and what is needed to the next multiple of eight, one 0 at least. Read, they lie in
 * the frame. */
static void pass_list(tsr_wire *w, const void **items, int64_t *n, size_t item_bytes)
{
    static const char zeros[8] = {0};
    size_t n_bytes;

    tsr_wire_int64(w, n);
    if (w->is_bad || *n < 0 || *n > TSR_WIRE_MOST_BYTES / (int64_t)item_bytes) {
        w->is_bad = true;
        *n = 0;
        return;
    }
    n_bytes = (size_t)*n * item_bytes;
    if (w->out == NULL) {
        *items = take(w, n_bytes / 8 * 8 + 8);
        *n = *items != NULL ? *n : 0;
    } else {
        put(w, n_bytes > 0 ? *items : zeros, n_bytes);
        put(w, zeros, 8 - n_bytes % 8);
    }
}

static void pass_ids(tsr_wire *w, const int32_t **ids, int64_t *n)
{
    const void *items = *ids;

    pass_list(w, &items, n, sizeof(**ids));
    *ids = items;
}

void tsr_wire_text(tsr_wire *w, const char **text, size_t *n_bytes)
{
    const void *items = *text;
    bool is_there = *text != NULL;
    int64_t n = 0;

    tsr_wire_bool(w, &is_there);
    if (is_there && w->out != NULL) {
        n = (int64_t)(n_bytes != NULL ? *n_bytes : strlen(*text));
    }
    pass_list(w, &items, &n, 1);
    if (w->out == NULL) {
        // Whoever sent it may have put no 0 there: what has none is no text.
        w->is_bad = w->is_bad || (is_there && ((const char *)items)[n] != '\0');
        *text = is_there && !w->is_bad ? items : NULL;
        if (n_bytes != NULL) {
            *n_bytes = *text != NULL ? (size_t)n : 0;
        }
    }
}

/* ---- a generation ---------------------------------------------------------------------------- */

static void pass_stops(tsr_wire *w, tsr_generation *g, tsr_wire_stops *stops)
{
    tsr_wire_int(w, &g->n_stops);
    if (w->is_bad || g->n_stops < 0 || g->n_stops > TSR_STOPS_MOST) {
        w->is_bad = true;
        return;
    }
    for (int i = 0; i < g->n_stops; i++) {
        const char *text = w->out != NULL ? g->stops[i] : NULL;
        size_t n_bytes = 0;

        if (w->out != NULL) {
            n_bytes = g->stop_bytes != NULL ? g->stop_bytes[i] : strlen(text);
        }
        tsr_wire_text(w, &text, &n_bytes);
        if (w->out == NULL) {
            stops->texts[i] = text != NULL ? text : "";
            stops->n_bytes[i] = n_bytes;
        }
    }
    if (w->out == NULL) {
        g->stops = stops->texts;
        g->stop_bytes = stops->n_bytes;
    }
}

/* Which tokens end it, or are liked more or less. */
static void pass_wishes(tsr_wire *w, tsr_generation *g, tsr_wire_stops *stops)
{
    int64_t n_biases = g->n_biases;
    int64_t n_added = g->n_biases;
    int64_t n_stop_ids = g->n_stop_ids;
    const void *biases = g->biases;

    pass_ids(w, &g->bias_ids, &n_biases);
    pass_list(w, &biases, &n_added, sizeof(*g->biases));
    g->biases = biases;
    pass_ids(w, &g->stop_ids, &n_stop_ids);
    w->is_bad = w->is_bad || n_added != n_biases;
    g->n_biases = (int)n_biases; // a frame has fewer than INT_MAX
    g->n_stop_ids = (int)n_stop_ids;
    pass_stops(w, g, stops);
    tsr_wire_bool(w, &g->include_stop);
}

void tsr_wire_generation(tsr_wire *w, tsr_generation *g, tsr_wire_stops *stops)
{
    float *const floats[] = {&g->temperature,
                             &g->top_p,
                             &g->min_p,
                             &g->typical_p,
                             &g->repetition_penalty,
                             &g->presence_penalty,
                             &g->frequency_penalty};
    int *const ints[] = {&g->max_tokens, &g->top_k, &g->priority,   &g->n,
                         &g->best_of,    &g->beams, &g->min_tokens, &g->n_top};
    bool *const bools[] = {&g->ignore_end, &g->want_logprobs, &g->score, &g->want_logits};
    double *const doubles[] = {&g->deadline_s, &g->length_penalty, &g->so_far_logprob};
    int stopping = (int)g->stopping;
    int pooling = (int)g->pooling;

    pass_ids(w, &g->prompt, &g->n_prompt);
    pass_ids(w, &g->so_far, &g->n_so_far);
    for (size_t i = 0; i < sizeof(floats) / sizeof(floats[0]); i++) {
        pass_float(w, floats[i]);
    }
    for (size_t i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
        tsr_wire_int(w, ints[i]);
    }
    for (size_t i = 0; i < sizeof(bools) / sizeof(bools[0]); i++) {
        tsr_wire_bool(w, bools[i]);
    }
    pass_doubles(w, doubles, sizeof(doubles) / sizeof(doubles[0]));
    pass_uint64(w, &g->seed);
    tsr_wire_int(w, &stopping);
    w->is_bad = w->is_bad || stopping < 0 || stopping >= TSR_STOPPING_COUNT;
    g->stopping = w->is_bad ? TSR_STOPPING_USUAL : (tsr_stopping)stopping;
    tsr_wire_int(w, &pooling);
    w->is_bad = w->is_bad || pooling < 0 || pooling >= TSR_POOLING_COUNT;
    g->pooling = w->is_bad ? TSR_POOLING_NONE : (tsr_pooling)pooling;
    pass_wishes(w, g, stops);
}

/* ---- an event -------------------------------------------------------------------------------- */

_Static_assert(sizeof(tsr_top_token) == 16, "the likeliest are read where they lie");

static void pass_top(tsr_wire *w, tsr_event *event)
{
    int64_t n = event->n_top;

    tsr_wire_int64(w, &n);
    if (w->is_bad || n < 0 || n > TSR_MOST_TOP) {
        w->is_bad = true;
        return;
    }
    for (int i = 0; w->out != NULL && i < n; i++) {
        tsr_top_token one;

        memset(&one, 0, sizeof(one)); // what lies between the fields, too
        one.id = event->top[i].id;
        one.logprob = event->top[i].logprob;
        put(w, &one, sizeof(one));
    }
    if (w->out == NULL) {
        event->top = take(w, (size_t)n * sizeof(*event->top));
        event->n_top = event->top != NULL ? (int)n : 0;
    }
}

void tsr_wire_event(tsr_wire *w, tsr_event *event)
{
    double *const doubles[] = {&event->logprob,      &event->score,        &event->first_token_s,
                               &event->prompt_s,     &event->generation_s, &event->mean_gap_s,
                               &event->longest_gap_s};
    int64_t *const counts[] = {&event->position, &event->n_prompt, &event->n_cached_tokens,
                               &event->n_generated};
    const void *numbers = event->kind == TSR_EVENT_EMBEDDING ? event->embedding : event->logits;
    bool has_numbers;
    int kind = (int)event->kind;
    int status = (int)event->status;

    tsr_wire_int(w, &kind);
    tsr_wire_int(w, &status);
    w->is_bad = w->is_bad || kind < 0 || kind >= TSR_EVENT_KIND_COUNT || status < 0 ||
                status >= TSR_STATUS_COUNT;
    event->kind = w->is_bad ? TSR_EVENT_END : (tsr_event_kind)kind;
    event->status = w->is_bad ? TSR_OK : (tsr_status)status;
    tsr_wire_int(w, &event->choice);
    tsr_wire_bool(w, &event->last);
    pass_id(w, &event->token);
    pass_id(w, &event->best);
    tsr_wire_text(w, &event->text, &event->text_bytes);
    tsr_wire_text(w, &event->reason, NULL);
    tsr_wire_text(w, &event->message, NULL);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        tsr_wire_int64(w, counts[i]);
    }
    pass_doubles(w, doubles, sizeof(doubles) / sizeof(doubles[0]));
    pass_top(w, event);
    has_numbers = event->kind == TSR_EVENT_LOGITS || event->kind == TSR_EVENT_EMBEDDING;
    event->n_values = has_numbers ? event->n_values : 0;
    pass_list(w, &numbers, &event->n_values, sizeof(float));
    w->is_bad = w->is_bad || (!has_numbers && event->n_values > 0);
    event->logits = event->kind == TSR_EVENT_LOGITS && event->n_values > 0 ? numbers : NULL;
    event->embedding = event->kind == TSR_EVENT_EMBEDDING && event->n_values > 0 ? numbers : NULL;
}

/* ---- what an engine is, and holds ------------------------------------------------------------ */

void tsr_wire_stats(tsr_wire *w, tsr_engine_stats *s)
{
    int *const ints[] = {&s->n_ranks,  &s->n_threads,      &s->block_tokens,
                         &s->n_blocks, &s->n_lower_blocks, &s->n_blocks_free};
    int64_t *const counts[] = {&s->context, &s->longest, &s->n_steps, &s->n_preempted};
    uint64_t *const sizes[] = {&s->weight_bytes, &s->kv_block_bytes, &s->token_bytes,
                               &s->token_macs,   &s->head_macs,      &s->kv_token_bytes};
    double *const doubles[] = {&s->load_s, &s->block_fill, &s->step_s, &s->host_s};

    for (size_t i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
        tsr_wire_int(w, ints[i]);
    }
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        tsr_wire_int64(w, counts[i]);
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        pass_uint64(w, sizes[i]);
    }
    pass_doubles(w, doubles, sizeof(doubles) / sizeof(doubles[0]));
    tsr_wire_text(w, &s->device, NULL);
    tsr_wire_text(w, &s->comm, NULL);
    tsr_wire_bool(w, &s->on_gpu);
}

static void pass_tiers(tsr_wire *w, int64_t *counts)
{
    for (int tier = 0; tier < TSR_MEMORY_TIER_COUNT; tier++) {
        tsr_wire_int64(w, &counts[tier]);
    }
}

void tsr_wire_memory(tsr_wire *w, tsr_memory_stats *ranks, int n_ranks)
{
    for (int rank = 0; rank < n_ranks; rank++) {
        tsr_memory_stats *m = &ranks[rank];

        pass_uint64(w, &m->block_bytes);
        pass_tiers(w, m->n_slots);
        pass_tiers(w, m->n_blocks);
        pass_tiers(w, m->most_blocks);
        for (int tier = 0; tier < TSR_MEMORY_TIER_COUNT; tier++) {
            pass_tiers(w, m->n_moves[tier]);
        }
        tsr_wire_real(w, &m->busy_s);
        tsr_wire_int64(w, &m->n_stalls);
        tsr_wire_real(w, &m->stall_s);
        pass_tiers(w, m->n_asked);
        tsr_wire_int64(w, &m->n_late);
        tsr_wire_int64(w, &m->n_lost);
    }
}

void tsr_wire_blocks(tsr_wire *w, const int64_t **owners, int64_t *n_owners, const uint8_t **places,
                     int64_t *n_places)
{
    const void *items = *owners;

    pass_list(w, &items, n_owners, sizeof(**owners));
    *owners = items;
    items = *places;
    pass_list(w, &items, n_places, sizeof(**places));
    *places = items;
}
