#include "engine/tell.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/leader.h"
#include "engine/search.h"

void tsr_tell(const tsr_group *g, tsr_event *event)
{
    event->id = g->id;
    g->on_event(g->ctx, event);
}

/* ---- text ------------------------------------------------------------------------------------ */

void tsr_tell_decode(const tsr_tokenizer *tokenizer, tsr_writing *writing, tsr_text *text,
                     int32_t token)
{
    // A vocabulary may be padded: beyond the tokens there is nothing to be shown.
    if (tokenizer != NULL && token < tsr_tokenizer_n_vocab(tokenizer) &&
        tsr_tokenizer_decode(tokenizer, &writing->stream, text, token, false) != TSR_OK) {
        tsr_log_error("a token's text is lost: %s", tsr_status_message());
    }
}

/* The last bytes of a text, from `first` on, are new. Returns how many of all may be shown now;
 * *stops: a stop string is complete, and the text ends before it or with it. */
static size_t search_stops(const tsr_group *g, int *state, tsr_text *text, size_t first,
                           bool *stops)
{
    size_t used, match_bytes;

    *stops = g->stops != NULL && first < text->n_bytes &&
             tsr_stops_feed(g->stops, state, text->bytes + first, text->n_bytes - first, &used,
                            &match_bytes);
    if (*stops) {
        text->n_bytes = first + used - (g->include_stop ? 0 : match_bytes);
        return text->n_bytes;
    }
    return text->n_bytes - (g->stops != NULL ? tsr_stops_held(g->stops, *state) : 0);
}

/* The n-th token of an answer behind its text. Returns how many bytes of all may be shown now. */
static size_t put_token(const tsr_engine *e, const tsr_group *g, tsr_text *text,
                        tsr_writing *writing, int32_t token, int64_t n, bool *stops)
{
    const size_t n_before = text->n_bytes;
    size_t whole;

    *stops = false;
    tsr_tell_decode(tsr_model_tokenizer(e->model), writing, text, token);
    whole = n > g->min_tokens ? search_stops(g, &writing->stop_state, text, n_before, stops)
                              : text->n_bytes;
    return tsr_tokenizer_whole_utf8(text->bytes, whole);
}

static void drop_first(tsr_text *text, size_t n_bytes)
{
    if (n_bytes > 0) {
        memmove(text->bytes, text->bytes + n_bytes, text->n_bytes - n_bytes);
        text->n_bytes -= n_bytes;
    }
}

/* ---- samples --------------------------------------------------------------------------------- */

static tsr_status make_room(tsr_member *m, int64_t n)
{
    const int64_t room = n < 32 ? 32 : 2 * n;
    const size_t n_top = (size_t)m->group->n_top;
    tsr_beam_place *kept;
    tsr_top_token *top;

    if (n <= m->kept_room) {
        return TSR_OK;
    }
    kept = tsr_alloc_resize(m->kept, (size_t)room, sizeof(*kept));
    m->kept = kept != NULL ? kept : m->kept;
    top = tsr_alloc_resize(m->kept_top, (size_t)room * n_top, sizeof(*top));
    m->kept_top = top != NULL ? top : m->kept_top;
    if (kept == NULL || top == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %lld tokens", (long long)room);
    }
    m->kept_room = room;
    return TSR_OK;
}

/* A token that is told later, if at all. */
static tsr_status keep_token(tsr_member *m, int64_t at, int32_t token)
{
    const size_t n_top = (size_t)m->n_top_found;

    TSR_TRY(make_room(m, at + 1));
    m->kept[at] = (tsr_beam_place){.token = token, .told = m->logprob, .n_top = m->n_top_found};
    if (n_top > 0) {
        memcpy(m->kept_top + (size_t)at * (size_t)m->group->n_top, m->top, n_top * sizeof(*m->top));
    }
    return TSR_OK;
}

static void sum_up(tsr_member *m)
{
    m->sum += m->logprob;
    m->n_summed++;
    m->is_chosen = false;
}

void tsr_tell_tokens(tsr_engine *e, tsr_member *m)
{
    const tsr_group *g = m->group;
    tsr_request *r = m->request;

    // One at most: every step's token is looked at before the next.
    while (m->n_shown < r->n_tokens) {
        const int64_t at = m->n_shown++ - r->n_prompt;
        tsr_event event = {.kind = TSR_EVENT_TOKEN,
                           .choice = m->index,
                           .token = r->tokens[m->n_shown - 1],
                           .logprob = g->wants_logprobs ? m->logprob : 0,
                           .top = m->top,
                           .n_top = m->n_top_found};
        bool stops;

        event.text_bytes = put_token(e, g, &m->text, &m->writing, event.token, at + 1, &stops);
        event.text = m->text.bytes != NULL ? m->text.bytes : "";
        sum_up(m);
        m->is_complete = m->is_complete || stops;
        if (stops) {
            tsr_scheduler_stop(e->leader->scheduler, r);
        }
        if (!g->tells_at_end) {
            tsr_tell(g, &event);
            drop_first(&m->text, event.text_bytes);
        } else if (keep_token(m, at, event.token) != TSR_OK) {
            (void)snprintf(m->error, sizeof(m->error), "%s", tsr_status_message());
            tsr_scheduler_cancel(e->leader->scheduler, r);
        }
    }
}

bool tsr_tell_begin(const tsr_engine *e, tsr_member *m)
{
    const tsr_request *r = m->request;
    bool ends = false;

    while (m->n_shown < r->n_tokens && !ends) {
        const int32_t token = r->tokens[m->n_shown++];

        drop_first(&m->text, put_token(e, m->group, &m->text, &m->writing, token,
                                       m->n_shown - r->n_prompt, &ends));
        ends = ends || tsr_request_stops_at(r, token);
    }
    return ends;
}

/* ---- ends ------------------------------------------------------------------------------------ */

static double seconds(int64_t from_ns, int64_t to_ns)
{
    return from_ns > 0 && to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

void tsr_tell_error(tsr_group *g, int choice, const char *message, bool last)
{
    tsr_event event = {.kind = TSR_EVENT_END,
                       .choice = choice,
                       .last = last,
                       .text = "",
                       .reason = tsr_request_reason_name(TSR_REASON_FAILED),
                       .message = message,
                       .n_prompt = g->members[0].request->n_prompt};

    tsr_tell(g, &event);
}

static tsr_event end_of(const tsr_group *g, const tsr_request *r, int64_t n_generated)
{
    const int64_t prompt_done = g->scored_ns > 0 ? g->scored_ns : r->first_token_ns;
    tsr_event event = {
        .kind = TSR_EVENT_END,
        .text = "",
        .reason = tsr_request_reason_name(r->reason),
        .message = r->error,
        .n_prompt = r->n_prompt,
        .n_cached_tokens = r->n_reused,
        .n_generated = n_generated,
        .first_token_s = seconds(r->submitted_ns, r->first_token_ns),
        .prompt_s = seconds(g->started_ns, prompt_done),
        .generation_s = seconds(r->first_token_ns, r->last_token_ns),
        .longest_gap_s = (double)r->longest_gap_ns / 1e9,
    };

    if (event.n_generated > 1) {
        event.mean_gap_s = event.generation_s / (double)(event.n_generated - 1);
    }
    return event;
}

static void tell_kept(const tsr_member *m, int choice)
{
    const tsr_group *g = m->group;

    for (int64_t t = 0; t < m->n_shown - m->request->n_prompt; t++) {
        tsr_event event = {.kind = TSR_EVENT_TOKEN,
                           .choice = choice,
                           .token = m->kept[t].token,
                           .text = "",
                           .logprob = g->wants_logprobs ? m->kept[t].told : 0,
                           .top = m->kept_top + (size_t)t * (size_t)g->n_top,
                           .n_top = m->kept[t].n_top};

        tsr_tell(g, &event);
    }
}

static void tell_choice(tsr_group *g, const tsr_member *m, int choice, bool last)
{
    // One that was not forked yet has no request: it ends as the first one does.
    const tsr_request *r = m->request != NULL ? m->request : g->members[0].request;
    tsr_event event;

    if (m->error[0] != '\0') {
        tsr_tell_error(g, choice, m->error, last);
        return;
    }
    if (g->tells_at_end && m->request != NULL) {
        tell_kept(m, choice);
    }
    event = end_of(g, r, m->request != NULL ? r->n_tokens - r->n_prompt : 0);
    event.choice = choice;
    event.last = last;
    if (m->text.n_bytes > 0) {
        event.text = m->text.bytes != NULL ? m->text.bytes : "";
        event.text_bytes = m->text.n_bytes;
    }
    event.logprob = g->wants_logprobs ? m->sum : 0;
    event.score = g->tells_at_end ? m->score : 0;
    tsr_tell(g, &event);
}

/* The likeliest for each token first; of equals the first one. */
static void tell_best(tsr_group *g)
{
    for (int choice = 0; choice < g->n_choices; choice++) {
        tsr_member *best = NULL;

        for (int i = 0; i < g->n_members; i++) {
            tsr_member *m = &g->members[i];

            best = !m->is_told && (best == NULL || m->score > best->score) ? m : best;
        }
        best->is_told = true;
        tell_choice(g, best, choice, choice == g->n_choices - 1);
    }
}

void tsr_tell_end(tsr_member *m)
{
    tsr_group *g = m->group;

    m->is_over = true;
    if (m->request != NULL && m->is_chosen && m->request->reason == TSR_REASON_STOP) {
        sum_up(m); // the end token, which is not kept
    }
    m->score = m->n_summed > 0 ? m->sum / (double)m->n_summed : -(double)INFINITY;
    g->n_open -= g->is_forked ? 1 : g->n_open; // those that were not forked end with it
    if (g->tells_at_end) {
        if (g->n_open == 0) {
            tell_best(g);
        }
    } else if (g->is_forked) {
        tell_choice(g, m, m->index, g->n_open == 0);
    } else {
        for (int i = 0; i < g->n_members; i++) {
            tell_choice(g, &g->members[i], i, i == g->n_members - 1);
        }
    }
}

/* ---- beams ----------------------------------------------------------------------------------- */

/* The i-th best answer: its tokens, and its text with the end. */
static tsr_status tell_answer(const tsr_engine *e, tsr_group *g, int i, tsr_request_reason reason,
                              bool last)
{
    const tsr_search *s = g->search;
    const tsr_request *r = g->members[0].request;
    const tsr_beam_answer answer = tsr_beam_answer_at(s->beam, i);
    tsr_beam_place *places = tsr_alloc((size_t)answer.n_tokens, sizeof(*places));
    tsr_text text = {0};
    tsr_event end = end_of(g, r, answer.n_tokens);
    tsr_writing writing = TSR_WRITING_BEGINS;
    bool stops = false;

    if (places == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %lld tokens", (long long)answer.n_tokens);
    }
    tsr_beam_read(s->beam, i, places);
    for (int64_t t = 0; t < answer.n_tokens; t++) {
        tsr_event event = {.kind = TSR_EVENT_TOKEN,
                           .choice = i,
                           .token = places[t].token,
                           .text = "",
                           .logprob = g->wants_logprobs ? places[t].told : 0,
                           .top = places[t].top,
                           .n_top = places[t].n_top};

        (void)put_token(e, g, &text, &writing, event.token, t + 1, &stops);
        tsr_tell(g, &event);
    }
    end.choice = i;
    end.last = last;
    end.reason = tsr_request_reason_name(answer.is_open ? reason : TSR_REASON_STOP);
    end.text = text.bytes != NULL ? text.bytes : "";
    end.text_bytes = text.n_bytes;
    end.logprob = answer.sum;
    end.score = answer.score;
    end.first_token_s = seconds(r->submitted_ns, s->first_ns);
    end.prompt_s = seconds(g->started_ns, g->scored_ns > 0 ? g->scored_ns : s->first_ns);
    end.generation_s = seconds(s->first_ns, s->last_ns);
    end.longest_gap_s = (double)s->longest_gap_ns / 1e9;
    end.mean_gap_s = s->n_rounds > 1 ? end.generation_s / (double)(s->n_rounds - 1) : 0;
    tsr_tell(g, &end);
    tsr_text_clear(&text);
    tsr_free(places);
    return TSR_OK;
}

void tsr_tell_answers(const tsr_engine *e, tsr_group *g, tsr_request_reason reason)
{
    const int n_answers = tsr_beam_n_answers(g->search->beam);
    const int n = n_answers < g->n_choices ? n_answers : g->n_choices;

    for (int i = 0; i < n; i++) {
        if (tell_answer(e, g, i, reason, i == n - 1) != TSR_OK) {
            tsr_tell_error(g, i, tsr_status_message(), i == n - 1);
        }
    }
}
