#include "engine/remote/kept.h"

#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/sampler.h"

static const double least_deadline_s = 1e-6; // 0 would be none

static tsr_status check(const tsr_generation *wish)
{
    if (wish->on_event == NULL || wish->n_prompt < 1 || wish->prompt == NULL) {
        return tsr_fail(TSR_ERR_ARG, "a generation needs a prompt and on_event");
    }
    if (wish->n < 0 || wish->n > TSR_KEPT_MOST_CHOICES) {
        return tsr_fail(TSR_ERR_ARG, "%d samples; at most %d are possible", wish->n,
                        (int)TSR_KEPT_MOST_CHOICES);
    }
    if (wish->n_stops < 0 || wish->n_stops > TSR_STOPS_MOST) {
        return tsr_fail(TSR_ERR_ARG, "%d stop strings; at most %d are possible", wish->n_stops,
                        (int)TSR_STOPS_MOST);
    }
    return TSR_OK;
}

static tsr_status write_wish(tsr_text *out, int64_t name, const tsr_generation *wish)
{
    tsr_wire w = tsr_wire_write(out, TSR_WIRE_SUBMIT);
    tsr_generation copy = *wish;

    tsr_wire_int64(&w, &name);
    tsr_wire_generation(&w, &copy, NULL);
    return tsr_wire_finish(&w);
}

/* Its lists lie in the kept frame and in *stops. */
static tsr_status read_wish(tsr_generation *out, tsr_wire_stops *stops, const tsr_kept *k)
{
    tsr_wire w;
    size_t used;
    int64_t name = 0;

    *out = (tsr_generation){0};
    TSR_TRY(tsr_wire_read(&w, &used, k->wish.bytes, k->wish.n_bytes));
    tsr_wire_int64(&w, &name);
    tsr_wire_generation(&w, out, stops);
    return tsr_wire_check(&w);
}

tsr_status tsr_kept_create(tsr_kept **out, const tsr_generation *wish)
{
    const int n = wish->n > 0 ? wish->n : 1;
    tsr_status st = TSR_OK;
    tsr_kept *k;

    TSR_TRY(check(wish));
    k = tsr_alloc(1, sizeof(*k));
    if (k == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a generation");
    }
    k->on_event = wish->on_event;
    k->ctx = wish->ctx;
    k->n_choices = n;
    k->n_open = n;
    k->tells_at_end = wish->beams > 0 || wish->best_of > n;
    k->submitted_ns = tsr_clock_ns();
    if (wish->deadline_s > 0) {
        k->deadline_ns = k->submitted_ns + (int64_t)(wish->deadline_s * 1e9);
    }
    k->choices = tsr_alloc((size_t)n, sizeof(*k->choices));
    if (k->choices == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for %d samples", n);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, write_wish(&k->wish, 0, wish));
    *out = k;
    return TSR_OK;

fail:
    tsr_kept_destroy(k);
    return st;
}

void tsr_kept_destroy(tsr_kept *k)
{
    if (k == NULL) {
        return;
    }
    for (int i = 0; k->choices != NULL && i < k->n_choices; i++) {
        tsr_ids_clear(&k->choices[i].tokens);
    }
    tsr_free(k->choices);
    tsr_text_clear(&k->wish);
    tsr_free(k);
}

/* What one of several samples, or the only one, has become, and goes on from. */
static tsr_generation choice_of(const tsr_kept *k, const tsr_generation *wish, int choice)
{
    const tsr_kept_choice *c = &k->choices[choice];
    tsr_generation g = *wish;

    g.n = 1;
    g.best_of = 0;
    g.seed = tsr_sampler_seed_of(wish->seed, choice);
    g.score = false; // what was to be told of the prompt was told before any token
    g.want_logits = false;
    g.so_far = c->tokens.ids;
    g.n_so_far = c->tokens.n_ids;
    g.so_far_logprob = c->sum;
    return g;
}

tsr_status tsr_kept_submit(tsr_kept *k, tsr_text *out)
{
    const size_t n_before = out->n_bytes;
    tsr_wire_stops stops;
    tsr_generation wish;
    tsr_status st = TSR_OK;

    if (k->is_torn) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory was left to keep an answer");
    }
    TSR_TRY(read_wish(&wish, &stops, k));
    if (k->deadline_ns != 0) {
        wish.deadline_s = (double)(k->deadline_ns - tsr_clock_ns()) / 1e9;
        wish.deadline_s = wish.deadline_s > 0 ? wish.deadline_s : least_deadline_s;
    }
    k->is_split = k->has_token && !k->tells_at_end;
    k->n_skipped = k->is_split ? 0 : k->n_told;
    if (!k->is_split) {
        return write_wish(out, k->name, &wish);
    }
    for (int i = 0; i < k->n_choices && st == TSR_OK; i++) {
        if (!k->choices[i].is_over) {
            const tsr_generation g = choice_of(k, &wish, i);

            st = write_wish(out, k->name + 1 + i, &g);
        }
    }
    out->n_bytes = st == TSR_OK ? out->n_bytes : n_before;
    return st;
}

/* ---- events ---------------------------------------------------------------------------------- */

static double seconds(int64_t from_ns, int64_t to_ns)
{
    return from_ns > 0 && to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

/* The ranks that told its end may not have been there from its beginning. */
static void take_time(const tsr_kept *k, const tsr_kept_choice *c, tsr_event *event)
{
    const int64_t n = event->n_generated;

    event->first_token_s = seconds(k->submitted_ns, c->first_ns);
    event->generation_s = seconds(c->first_ns, c->last_ns);
    event->mean_gap_s = n > 1 ? event->generation_s / (double)(n - 1) : 0;
}

static void note(tsr_kept *k, tsr_event *event)
{
    tsr_kept_choice *c = &k->choices[event->choice];

    if (event->kind == TSR_EVENT_TOKEN) {
        c->last_ns = tsr_clock_ns();
        c->first_ns = c->first_ns != 0 ? c->first_ns : c->last_ns;
        c->sum += event->logprob;
        k->has_token = true;
        k->is_torn = k->is_torn || tsr_ids_append(&c->tokens, event->token) != TSR_OK;
    } else if (event->kind == TSR_EVENT_END) {
        k->n_open -= c->is_over ? 0 : 1;
        c->is_over = true;
        if (k->is_split) {
            event->last = k->n_open == 0;
            take_time(k, c, event);
        }
    }
}

bool tsr_kept_hear(tsr_kept *k, int64_t name, tsr_event *event)
{
    if (name != k->name) {
        event->choice = (int)(name - k->name - 1);
    }
    if (event->choice < 0 || event->choice >= k->n_choices || k->is_split != (name != k->name) ||
        k->choices[event->choice].is_over) {
        return false;
    }
    if (k->n_skipped > 0) {
        k->n_skipped--;
        return false;
    }
    k->n_told++;
    event->id = k->id;
    note(k, event);
    return true;
}
