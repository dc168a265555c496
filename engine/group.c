#include "engine/group.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/leader.h"
#include "engine/pool.h"
#include "engine/search.h"
#include "engine/tell.h"

static const double MOST_DEADLINE_S = 1e9; // 31 years

enum {
    MOST_SAMPLES = 4096
};

/* ---- what is asked for ----------------------------------------------------------------------- */

static tsr_status check(const tsr_generation *wish)
{
    if (wish->on_event == NULL || wish->max_tokens < 0 ||
        (wish->want_logits && wish->max_tokens == 0 && !wish->score)) {
        return tsr_fail(TSR_ERR_ARG,
                        "a generation needs on_event, max_tokens >= 0, and something to do");
    }
    if (!(wish->deadline_s >= 0 && wish->deadline_s <= MOST_DEADLINE_S)) {
        return tsr_fail(TSR_ERR_ARG, "a deadline in %g seconds; it must lie in 0..%g",
                        wish->deadline_s, MOST_DEADLINE_S);
    }
    if (wish->min_tokens < 0) {
        return tsr_fail(TSR_ERR_ARG, "min_tokens is %d, it must be 0 or more", wish->min_tokens);
    }
    if (wish->n_top < 0 || wish->n_top > TSR_MOST_TOP) {
        return tsr_fail(TSR_ERR_ARG, "log-probabilities of the %d best, 0 to %d are possible",
                        wish->n_top, TSR_MOST_TOP);
    }
    if (wish->n < 0 || wish->n > MOST_SAMPLES || wish->best_of < 0 ||
        wish->best_of > MOST_SAMPLES || (wish->best_of > 0 && wish->best_of < wish->n)) {
        return tsr_fail(TSR_ERR_ARG, "the best %d of %d samples; at most %d of as many or more",
                        wish->n, wish->best_of, MOST_SAMPLES);
    }
    if ((wish->n > 1 || wish->best_of > 1 || wish->beams != 0) && wish->max_tokens == 0) {
        return tsr_fail(TSR_ERR_ARG, "several answers of no token");
    }
    if (wish->beams < 0 || wish->beams > MOST_SAMPLES) {
        return tsr_fail(TSR_ERR_ARG, "%d beams; at most %d are possible", wish->beams,
                        MOST_SAMPLES);
    }
    if (wish->beams > 0 && (wish->n > wish->beams || wish->best_of > 0)) {
        return tsr_fail(TSR_ERR_ARG, "%d answers of %d beams%s", wish->n, wish->beams,
                        wish->best_of > 0 ? "; best_of is of samples" : "");
    }
    if (wish->n_so_far < 0 ||
        (wish->n_so_far > 0 && (wish->n > 1 || wish->best_of > 1 || wish->beams > 0 ||
                                wish->score || wish->want_logits))) {
        return tsr_fail(TSR_ERR_ARG, "only a single sample can go on from %lld tokens",
                        (long long)wish->n_so_far);
    }
    if (wish->beams > 0 && wish->temperature != 0) {
        return tsr_fail(TSR_ERR_ARG, "beams are not sampled: the temperature must be 0, not %g",
                        (double)wish->temperature);
    }
    if ((unsigned)wish->pooling >= TSR_POOLING_COUNT ||
        (wish->pooling != TSR_POOLING_NONE && wish->max_tokens != 0)) {
        return tsr_fail(TSR_ERR_ARG, "pooling number %d with %d tokens to generate; it takes none",
                        (int)wish->pooling, wish->max_tokens);
    }
    if ((unsigned)wish->stopping >= TSR_STOPPING_COUNT) {
        return tsr_fail(TSR_ERR_ARG, "a way of stopping number %d", (int)wish->stopping);
    }
    return TSR_OK;
}

/* What changes the logits of a generation: penalties, biases, and its end tokens for a while. */
static tsr_status make_adjust(const tsr_engine *e, tsr_adjust **out, const tsr_generation *wish)
{
    const tsr_leader *leader = e->leader;
    const int n_vocab = (int)tsr_model_config(e->model)->shape.n_vocab;
    const int n_ends = wish->ignore_end ? 0 : leader->n_end_ids;
    tsr_adjust_settings settings = {
        .repetition = wish->repetition_penalty == 0 ? 1 : wish->repetition_penalty,
        .presence = wish->presence_penalty,
        .frequency = wish->frequency_penalty,
        .bias_ids = wish->bias_ids,
        .biases = wish->biases,
        .n_biases = wish->n_biases,
        .ban_until = wish->min_tokens,
    };
    int32_t *banned = NULL;
    tsr_status st;

    if (wish->min_tokens > 0) {
        banned = tsr_alloc((size_t)n_ends + (size_t)wish->n_stop_ids, sizeof(*banned));
        if (banned == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for a list of end tokens");
        }
        memcpy(banned, leader->end_ids, (size_t)n_ends * sizeof(*banned));
        if (wish->n_stop_ids > 0) {
            memcpy(banned + n_ends, wish->stop_ids, (size_t)wish->n_stop_ids * sizeof(*banned));
        }
        settings.banned = banned;
        settings.n_banned = n_ends + wish->n_stop_ids;
    }
    st = tsr_adjust_is_wanted(&settings) ? tsr_adjust_create(out, &settings, n_vocab) : TSR_OK;
    tsr_free(banned);
    return st;
}

static tsr_status make_top(tsr_member *m)
{
    if (m->group->n_top > 0) {
        m->top = tsr_alloc((size_t)m->group->n_top, sizeof(*m->top));
        if (m->top == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for %d candidates", m->group->n_top);
        }
    }
    return TSR_OK;
}

/* The request that reads the prompt. */
static tsr_status make_first(const tsr_engine *e, tsr_group *g, const tsr_generation *wish)
{
    const tsr_sampling sampling = {
        .temperature = wish->temperature,
        .top_k = wish->top_k,
        .top_p = wish->top_p == 0 ? 1 : wish->top_p,
        .min_p = wish->min_p,
        .typical_p = wish->typical_p,
        .seed = wish->seed,
    };
    tsr_member *m = &g->members[0];
    tsr_request *r;

    TSR_TRY(tsr_sampler_check(&sampling));
    TSR_TRY(tsr_request_create(&m->request, wish->prompt, wish->n_prompt, wish->max_tokens));
    r = m->request;
    r->user = m;
    r->id = g->id;
    r->sampling = sampling;
    r->ignore_end = wish->ignore_end;
    r->score = wish->score;
    r->pools = wish->pooling == TSR_POOLING_MEAN;
    r->submitted_ns = tsr_clock_ns();
    r->priority = wish->priority;
    if (wish->deadline_s > 0) {
        r->deadline_ns = r->submitted_ns + (int64_t)(wish->deadline_s * 1e9);
    }
    r->keep_stop = wish->include_stop;
    for (int64_t i = 0; i < wish->n_so_far; i++) {
        TSR_TRY(tsr_request_append(r, wish->so_far[i]));
    }
    m->n_shown = r->n_prompt;
    m->sum = wish->so_far_logprob;
    TSR_TRY(tsr_request_stop_at(r, wish->stop_ids, wish->n_stop_ids,
                                (int)tsr_model_config(e->model)->shape.n_vocab));
    return make_adjust(e, &m->adjust, wish);
}

tsr_status tsr_group_create(tsr_group **out, const tsr_engine *e, const tsr_generation *wish)
{
    const int n = wish->n > 0 ? wish->n : 1;
    tsr_status st = TSR_OK;
    tsr_group *g;

    TSR_TRY(check(wish));
    g = tsr_alloc(1, sizeof(*g));
    if (g == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a generation");
    }
    *g = (tsr_group){.id = e->leader->next_id,
                     .on_event = wish->on_event,
                     .ctx = wish->ctx,
                     .n_choices = n,
                     .n_members = wish->beams > 0     ? wish->beams
                                  : wish->best_of > n ? wish->best_of
                                                      : n,
                     .tells_at_end = wish->beams > 0 || wish->best_of > n,
                     .wants_logits = wish->want_logits,
                     .wants_logprobs = wish->want_logprobs,
                     .sums_logprobs = wish->want_logprobs || wish->best_of > n,
                     .n_top = wish->want_logprobs ? wish->n_top : 0,
                     .min_tokens = wish->min_tokens,
                     .include_stop = wish->include_stop};
    g->is_forked = g->n_members == 1;
    g->n_open = g->n_members;
    g->members = tsr_alloc((size_t)g->n_members, sizeof(*g->members));
    if (g->members == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for %d sequences", g->n_members);
        goto fail;
    }
    for (int i = 0; i < g->n_members; i++) {
        g->members[i] = (tsr_member){.group = g, .index = i, .writing = TSR_WRITING_BEGINS};
        TSR_TRY_GOTO(st, fail, make_top(&g->members[i]));
    }
    TSR_TRY_GOTO(st, fail, make_first(e, g, wish));
    if (wish->n_stops != 0) {
        TSR_TRY_GOTO(st, fail,
                     tsr_stops_create(&g->stops, wish->stops, wish->stop_bytes, wish->n_stops));
    }
    if (wish->pooling != TSR_POOLING_NONE) {
        TSR_TRY_GOTO(st, fail, tsr_pool_create(&g->pool, e, wish->pooling));
    }
    if (wish->beams > 0) {
        TSR_TRY_GOTO(st, fail, tsr_search_create(&g->search, e, g, wish));
    }
    *out = g;
    return TSR_OK;

fail:
    tsr_group_destroy(g);
    return st;
}

void tsr_group_destroy(tsr_group *g)
{
    if (g == NULL) {
        return;
    }
    for (int i = 0; g->members != NULL && i < g->n_members; i++) {
        tsr_member *m = &g->members[i];

        tsr_request_destroy(m->request);
        tsr_adjust_destroy(m->adjust);
        tsr_text_clear(&m->text);
        tsr_free(m->top);
        tsr_free(m->kept);
        tsr_free(m->kept_top);
    }
    tsr_search_destroy(g->search);
    tsr_pool_destroy(g->pool);
    tsr_stops_destroy(g->stops);
    tsr_free(g->members);
    tsr_free(g);
}

void tsr_group_cancel(tsr_engine *e, tsr_group *g)
{
    g->is_cancelled = true; // nothing is forked any more
    for (int i = 0; i < g->n_members; i++) {
        if (g->members[i].request != NULL && !g->members[i].is_over) {
            tsr_scheduler_cancel(e->leader->scheduler, g->members[i].request);
        }
    }
}

/* ---- forks ----------------------------------------------------------------------------------- */

tsr_status tsr_group_fork(tsr_engine *e, tsr_member *m, const tsr_member *from)
{
    const tsr_request *parent = from->request;
    tsr_status st = TSR_OK;

    tsr_request_destroy(m->request); // of a beam that ended earlier
    m->request = NULL;
    TSR_TRY(tsr_request_copy(&m->request, parent));
    m->request->user = m;
    m->request->sampling.seed = tsr_sampler_seed_of(parent->sampling.seed, m->index);
    m->n_shown = parent->n_prompt;
    if (from->adjust != NULL && m->adjust == NULL) {
        TSR_TRY_GOTO(st, fail, tsr_adjust_copy(&m->adjust, from->adjust));
    } else if (from->adjust != NULL) {
        TSR_TRY_GOTO(st, fail, tsr_adjust_become(m->adjust, from->adjust));
    }
    TSR_TRY_GOTO(st, fail,
                 tsr_scheduler_fork(e->leader->scheduler, parent, m->request, parent->n_tokens));
    m->is_over = false;
    m->group->n_requests++;
    return TSR_OK;

fail:
    tsr_request_destroy(m->request);
    m->request = NULL;
    m->is_over = true;
    return st;
}

void tsr_group_give(tsr_engine *e, tsr_member *m, int32_t token)
{
    tsr_scheduler_give(e->leader->scheduler, m->request, token, tsr_leader_token_ends, e->model);
}

/* The first token is there for every sample. All fork before any gets it: it may end by it. */
static void fork_samples(tsr_engine *e, tsr_group *g)
{
    g->is_forked = true;
    for (int i = 1; i < g->n_members; i++) {
        tsr_member *m = &g->members[i];

        if (tsr_group_fork(e, m, &g->members[0]) != TSR_OK) {
            (void)snprintf(m->error, sizeof(m->error), "%s", tsr_status_message());
            tsr_tell_end(m);
        }
    }
    for (int i = 0; i < g->n_members; i++) {
        if (!g->members[i].is_over) {
            tsr_group_give(e, &g->members[i], g->members[i].next);
        }
    }
    for (int i = 1; i < g->n_members; i++) { // no step has them yet
        if (!g->members[i].is_over) {
            tsr_tell_tokens(e, &g->members[i]);
        }
    }
}

void tsr_group_advance(tsr_engine *e, tsr_group *g, int64_t now_ns)
{
    g->is_held = false;
    if (g->is_cancelled || g->is_told) {
        return;
    }
    if (g->search != NULL) {
        tsr_search_advance(e, g, now_ns);
    } else {
        fork_samples(e, g);
    }
}
