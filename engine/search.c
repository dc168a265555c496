#include "engine/search.h"

#include <string.h>

#include "base/alloc.h"
#include "engine/leader.h"
#include "engine/tell.h"

/* ---- which tokens end an answer -------------------------------------------------------------- */

/* Does the text of the n-th token complete a stop string when it is put behind beam i? *writing: of
 * the text that far. */
static bool completes_stop(tsr_search *s, int i, int64_t n, int32_t token, tsr_writing *writing)
{
    const tsr_group *g = s->group;
    size_t used, match_bytes;

    *writing = g->members[s->live[i]].writing;
    if (g->stops == NULL) {
        return false; // nobody reads the text before the end
    }
    s->scratch.n_bytes = 0;
    tsr_tell_decode(s->tokenizer, writing, &s->scratch, token);
    return n > g->min_tokens && s->scratch.n_bytes > 0 &&
           tsr_stops_feed(g->stops, &writing->stop_state, s->scratch.bytes, s->scratch.n_bytes,
                          &used, &match_bytes);
}

static tsr_beam_end ends(void *ctx, int i, int32_t token)
{
    tsr_search *s = ctx;
    const tsr_request *r = s->group->members[s->live[i]].request;
    tsr_writing writing;

    if (tsr_request_stops_at(r, token)) {
        return r->keep_stop ? TSR_BEAM_ENDS_WITH : TSR_BEAM_ENDS;
    }
    if (!r->ignore_end && tsr_model_is_end(s->model, token)) {
        return TSR_BEAM_ENDS;
    }
    return completes_stop(s, i, tsr_beam_n_tokens(s->beam) + 1, token, &writing)
               ? TSR_BEAM_ENDS_WITH
               : TSR_BEAM_GOES_ON;
}

/* ---- life ------------------------------------------------------------------------------------ */

tsr_status tsr_search_create(tsr_search **out, const tsr_engine *e, tsr_group *g,
                             const tsr_generation *wish)
{
    const size_t width = (size_t)wish->beams;
    const int n_ends = (wish->ignore_end ? 0 : e->leader->n_end_ids) + wish->n_stop_ids;
    const int64_t room = e->settings.context - wish->n_prompt;
    tsr_search *s = tsr_alloc(1, sizeof(*s));
    tsr_status st = TSR_OK;
    tsr_beam_rules rules;

    if (s == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a search");
    }
    s->group = g;
    s->tokenizer = tsr_model_tokenizer(e->model);
    s->model = e->model;
    s->n_offers =
        tsr_beam_n_offers(wish->beams, n_ends, (int)tsr_model_config(e->model)->shape.n_vocab);
    rules = (tsr_beam_rules){.width = wish->beams,
                             .length_penalty = wish->length_penalty,
                             .stopping = wish->stopping,
                             .max_tokens = wish->max_tokens < room ? wish->max_tokens : room,
                             .n_offers = s->n_offers,
                             .n_top = g->n_top,
                             .ends = ends,
                             .ctx = s};
    TSR_TRY_GOTO(st, fail, tsr_beam_create(&s->beam, &rules));
    s->offers = tsr_alloc((size_t)s->n_offers, sizeof(*s->offers));
    s->live = tsr_alloc(width, sizeof(*s->live));
    s->next_live = tsr_alloc(width, sizeof(*s->next_live));
    s->steps = tsr_alloc(width, sizeof(*s->steps));
    s->is_taken = tsr_alloc(width, sizeof(*s->is_taken));
    s->writings = tsr_alloc(width, sizeof(*s->writings));
    if (s->offers == NULL || s->live == NULL || s->next_live == NULL || s->steps == NULL ||
        s->is_taken == NULL || s->writings == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for %d beams", wish->beams);
        goto fail;
    }
    *out = s;
    return TSR_OK;

fail:
    tsr_search_destroy(s);
    return st;
}

void tsr_search_destroy(tsr_search *s)
{
    if (s == NULL) {
        return;
    }
    tsr_text_clear(&s->scratch);
    tsr_free(s->writings);
    tsr_free(s->is_taken);
    tsr_free(s->steps);
    tsr_free(s->next_live);
    tsr_free(s->live);
    tsr_free(s->offers);
    tsr_beam_destroy(s->beam);
    tsr_free(s);
}

void tsr_search_offer(tsr_search *s, const tsr_member *m, int n)
{
    for (int i = 0; i < tsr_beam_n_live(s->beam); i++) {
        if (s->live[i] == m->index) {
            tsr_beam_offer(s->beam, i, s->offers, n, m->top, m->n_top_found);
            return;
        }
    }
}

/* ---- a round --------------------------------------------------------------------------------- */

static tsr_member *beam_at(const tsr_search *s, int i)
{
    return &s->group->members[s->live[i]];
}

static bool is_round_complete(const tsr_search *s)
{
    for (int i = 0; i < tsr_beam_n_live(s->beam); i++) {
        if (!tsr_beam_has_offered(s->beam, i)) {
            return false;
        }
    }
    return true;
}

/* Of the new live beams the first that continues a beam stays in its place. */
static void place_first_children(tsr_search *s, int n_live)
{
    memset(s->is_taken, 0, (size_t)s->group->n_members * sizeof(*s->is_taken));
    for (int k = 0; k < n_live; k++) {
        const int parent = s->live[s->steps[k].parent];

        s->next_live[k] = s->is_taken[parent] ? -1 : parent;
        s->is_taken[parent] = true;
    }
}

static bool is_here(const tsr_member *m)
{
    return m->request != NULL && !m->is_over;
}

/* The others: in the places of beams that have died, or of ones that never were. Who lives on stays
 * as it is meanwhile, so all find their parents. */
static tsr_status place_others(tsr_engine *e, tsr_search *s, int n_live)
{
    int at = 0;

    for (int k = 0; k < n_live; k++) {
        const tsr_member *parent = beam_at(s, s->steps[k].parent);
        tsr_member *m;

        if (s->next_live[k] >= 0) {
            continue;
        }
        while (s->is_taken[at]) {
            at++;
        }
        m = &s->group->members[at];
        s->is_taken[at] = true;
        s->next_live[k] = at;
        if (!is_here(m)) {
            TSR_TRY(tsr_group_fork(e, m, parent));
            continue;
        }
        TSR_TRY(tsr_scheduler_refork(e->leader->scheduler, parent->request, m->request));
        if (m->adjust != NULL) {
            TSR_TRY(tsr_adjust_become(m->adjust, parent->adjust));
        }
    }
    return TSR_OK;
}

static void end_unplaced(tsr_engine *e, tsr_search *s)
{
    for (int i = 0; i < s->group->n_members; i++) {
        const tsr_member *m = &s->group->members[i];

        if (!s->is_taken[i] && is_here(m)) {
            tsr_scheduler_cancel(e->leader->scheduler, m->request);
        }
    }
}

/* Once: what events do may come back here. */
static void end_search(tsr_engine *e, tsr_group *g, tsr_request_reason reason)
{
    g->is_told = true;
    tsr_tell_answers(e, g, reason);
    tsr_group_cancel(e, g);
}

static tsr_status begin_round(tsr_engine *e, tsr_search *s)
{
    tsr_group *g = s->group;
    int n_live;
    int *swap;

    TSR_TRY(tsr_beam_advance(s->beam, s->steps));
    n_live = tsr_beam_n_live(s->beam);
    if (n_live == 0) {
        end_search(e, g, TSR_REASON_LENGTH);
        return TSR_OK;
    }
    for (int k = 0; k < n_live; k++) {
        (void)completes_stop(s, s->steps[k].parent, tsr_beam_n_tokens(s->beam), s->steps[k].token,
                             &s->writings[k]);
    }
    place_first_children(s, n_live);
    TSR_TRY(place_others(e, s, n_live));
    end_unplaced(e, s);
    swap = s->live;
    s->live = s->next_live;
    s->next_live = swap;
    for (int k = 0; k < n_live; k++) {
        tsr_member *m = beam_at(s, k);

        m->writing = s->writings[k];
        tsr_group_give(e, m, s->steps[k].token);
    }
    return TSR_OK;
}

static void note_time(tsr_search *s, int64_t now_ns)
{
    if (s->first_ns == 0) {
        s->first_ns = now_ns;
    } else if (now_ns - s->last_ns > s->longest_gap_ns) {
        s->longest_gap_ns = now_ns - s->last_ns;
    }
    s->last_ns = now_ns;
    s->n_rounds++;
}

/* What cannot go on ends with an error. */
static void fail_search(tsr_engine *e, tsr_group *g, const char *message)
{
    g->is_told = true;
    tsr_tell_error(g, 0, message, true);
    tsr_group_cancel(e, g);
}

void tsr_search_advance(tsr_engine *e, tsr_group *g, int64_t now_ns)
{
    if (!is_round_complete(g->search)) {
        return;
    }
    note_time(g->search, now_ns);
    g->is_forked = true;
    if (begin_round(e, g->search) != TSR_OK) {
        fail_search(e, g, tsr_status_message());
    }
}

void tsr_search_end(tsr_engine *e, tsr_member *m)
{
    tsr_group *g = m->group;
    const tsr_search *s = g->search;
    bool is_live = false;

    m->is_over = true;
    for (int i = 0; i < tsr_beam_n_live(s->beam); i++) {
        is_live = is_live || s->live[i] == m->index;
    }
    if (g->is_told || !is_live) {
        return; // this search has ended it
    }
    if (m->request->reason == TSR_REASON_FAILED) {
        fail_search(e, g, m->request->error);
        return;
    }
    tsr_beam_finish(s->beam);
    end_search(e, g, m->request->reason);
}
