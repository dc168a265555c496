#include "engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

static const double MOST_DEADLINE_S = 1e9; // 31 years

/* The leader's side of one generation. */
typedef struct generation {
    tsr_event_fn *on_event;
    void *ctx;
    tsr_text text;      /* decoded and not yet shown: at most an unfinished character */
    int64_t n_shown;    /* tokens of the request that were reported */
    int64_t scored_ns;  /* when the last of them was */
    int64_t started_ns; /* of the first step it was in */
    int64_t last_ns;    /* of the last token */
    bool wants_logits;
} generation;

/* A token of a row and its logit. */
typedef struct scored {
    float logit;
    int32_t id;
} scored;

struct tsr_leader {
    tsr_scheduler *scheduler;
    int32_t *candidate_ids;  /* [n_vocab] */
    float *candidate_logits; /* [n_vocab] */
    float *masses;           /* [2 * all units] */
    int *cursor;             /* [n_ranks] */
    int32_t *next;           /* [max_seqs] */
    tsr_request **live;      /* what was submitted and has not ended, [n_live], in no order */
    int n_live;
    int live_capacity;
    int64_t next_id;
    int64_t n_preempted;
};

static void end_request(tsr_leader *leader, tsr_request *request);

tsr_status tsr_leader_create(tsr_leader **out, const tsr_engine *e)
{
    const tsr_shard_shape *shape = &tsr_model_config(e->model)->shape;
    const size_t n_vocab = (size_t)shape->n_vocab;
    const size_t n_ranks = (size_t)tsr_world_size(e->world);
    const size_t n_units = n_vocab / (size_t)tsr_shard_vocab_unit(shape->n_vocab) + n_ranks;
    const tsr_scheduler_options options = {
        .max_batch_tokens = e->settings.max_batch_tokens,
        .max_seqs = e->settings.max_sequences,
        .block_tokens = e->settings.block_tokens,
        .n_blocks = e->settings.n_blocks,
        .context = e->settings.context,
        .n_vocab = (int)shape->n_vocab,
        .max_queue = e->settings.max_queue,
        .target_itl_us = e->settings.target_itl_us,
    };
    tsr_leader *leader = tsr_alloc(1, sizeof(*leader));
    tsr_status st = TSR_OK;

    if (leader == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the leader");
    }
    TSR_TRY_GOTO(st, fail, tsr_scheduler_create(&leader->scheduler, &options));
    leader->candidate_ids = tsr_alloc(n_vocab, sizeof(*leader->candidate_ids));
    leader->candidate_logits = tsr_alloc(n_vocab, sizeof(*leader->candidate_logits));
    leader->masses = tsr_alloc(2 * n_units, sizeof(*leader->masses));
    leader->cursor = tsr_alloc(n_ranks, sizeof(*leader->cursor));
    leader->next = tsr_alloc((size_t)e->settings.max_sequences, sizeof(*leader->next));
    if (leader->candidate_ids == NULL || leader->candidate_logits == NULL ||
        leader->masses == NULL || leader->cursor == NULL || leader->next == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for the leader's tables");
        goto fail;
    }
    *out = leader;
    return TSR_OK;

fail:
    tsr_leader_destroy(leader);
    return st;
}

void tsr_leader_destroy(tsr_leader *leader)
{
    if (leader == NULL) {
        return;
    }
    tsr_scheduler_destroy(leader->scheduler);
    while (leader->n_live > 0) {
        end_request(leader, leader->live[leader->n_live - 1]);
    }
    tsr_free(leader->live);
    tsr_free(leader->next);
    tsr_free(leader->cursor);
    tsr_free(leader->masses);
    tsr_free(leader->candidate_logits);
    tsr_free(leader->candidate_ids);
    tsr_free(leader);
}

int tsr_leader_n_free_blocks(const tsr_leader *leader)
{
    return tsr_scheduler_n_free_blocks(leader->scheduler);
}

int64_t tsr_leader_n_preempted(const tsr_leader *leader)
{
    return leader->n_preempted;
}

/* ---- requests ----------------------------------------------------------------------------------
 */

static tsr_status keep_live(tsr_engine *e, tsr_request *request)
{
    if (e->leader->n_live == e->leader->live_capacity) {
        const int capacity = e->leader->live_capacity == 0 ? 16 : 2 * e->leader->live_capacity;
        tsr_request **grown = tsr_alloc_resize(e->leader->live, (size_t)capacity, sizeof(*grown));

        if (grown == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for %d requests", capacity);
        }
        e->leader->live = grown;
        e->leader->live_capacity = capacity;
    }
    e->leader->live[e->leader->n_live++] = request;
    return TSR_OK;
}

/* Forget a request that the scheduler no longer holds. */
static void end_request(tsr_leader *leader, tsr_request *request)
{
    generation *g = request->user;

    for (int i = 0; i < leader->n_live; i++) {
        if (leader->live[i] == request) {
            leader->live[i] = leader->live[--leader->n_live];
            break;
        }
    }
    if (g != NULL) {
        tsr_text_clear(&g->text);
        tsr_free(g);
    }
    tsr_request_destroy(request);
}

tsr_status tsr_engine_submit(tsr_engine *e, const tsr_generation *wish, int64_t *id)
{
    const tsr_sampling sampling = {
        .temperature = wish->temperature,
        .top_k = wish->top_k,
        .top_p = wish->top_p == 0 ? 1 : wish->top_p,
        .min_p = wish->min_p,
        .seed = wish->seed,
    };
    tsr_request *request = NULL;
    tsr_status st;

    if (wish->on_event == NULL || wish->max_tokens < 0 ||
        (wish->want_logits && wish->max_tokens == 0 && !wish->score)) {
        return tsr_fail(TSR_ERR_ARG,
                        "a generation needs on_event, max_tokens >= 0, and something to do");
    }
    if (!(wish->deadline_s >= 0 && wish->deadline_s <= MOST_DEADLINE_S)) {
        return tsr_fail(TSR_ERR_ARG, "a deadline in %g seconds; it must lie in 0..%g",
                        wish->deadline_s, MOST_DEADLINE_S);
    }
    TSR_TRY(tsr_sampler_check(&sampling));
    TSR_TRY(tsr_request_create(&request, wish->prompt, wish->n_prompt, wish->max_tokens));
    request->id = e->leader->next_id;
    request->sampling = sampling;
    request->ignore_end = wish->ignore_end;
    request->score = wish->score;
    request->submitted_ns = tsr_clock_ns();
    request->priority = wish->priority;
    if (wish->deadline_s > 0) {
        request->deadline_ns = request->submitted_ns + (int64_t)(wish->deadline_s * 1e9);
    }
    request->user = tsr_alloc(1, sizeof(generation));
    if (request->user == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for a generation");
        goto fail;
    }
    *(generation *)request->user = (generation){.on_event = wish->on_event,
                                                .ctx = wish->ctx,
                                                .n_shown = request->n_prompt,
                                                .wants_logits = wish->want_logits};
    TSR_TRY_GOTO(st, fail, keep_live(e, request));
    TSR_TRY_GOTO(st, fail, tsr_scheduler_submit(e->leader->scheduler, request));
    *id = e->leader->next_id++;
    return TSR_OK;

fail:
    end_request(e->leader, request);
    return st;
}

void tsr_engine_cancel(tsr_engine *e, int64_t id)
{
    for (int i = 0; i < e->leader->n_live; i++) {
        if (e->leader->live[i]->id == id) {
            tsr_scheduler_cancel(e->leader->scheduler, e->leader->live[i]);
            return;
        }
    }
}

/* ---- events ------------------------------------------------------------------------------------
 */

static void tell(const tsr_request *request, tsr_event *event)
{
    const generation *g = request->user;

    event->id = request->id;
    g->on_event(g->ctx, event);
}

/* A token more: its text, as far as it may be shown. */
static void tell_token(tsr_engine *e, tsr_request *request, int32_t token)
{
    generation *g = request->user;
    tsr_event event = {.kind = TSR_EVENT_TOKEN, .token = token};
    size_t whole;

    if (tsr_tokenizer_decode(tsr_model_tokenizer(e->model), &g->text, token, false) != TSR_OK) {
        tsr_log_error("a token's text is lost: %s", tsr_status_message());
    }
    whole = tsr_tokenizer_whole_utf8(g->text.bytes, g->text.n_bytes);
    event.text = g->text.bytes;
    event.text_bytes = whole;
    tell(request, &event);
    if (whole > 0) {
        memmove(g->text.bytes, g->text.bytes + whole, g->text.n_bytes - whole);
        g->text.n_bytes -= whole;
    }
}

static double seconds(int64_t from_ns, int64_t to_ns)
{
    return from_ns > 0 && to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

static void tell_end(tsr_request *request)
{
    generation *g = request->user;
    const int64_t prompt_done = g->scored_ns > 0 ? g->scored_ns : request->first_token_ns;
    tsr_event event = {
        .kind = TSR_EVENT_END,
        .text = g->text.bytes,
        .text_bytes = g->text.n_bytes,
        .reason = tsr_request_reason_name(request->reason),
        .message = request->error,
        .n_prompt = request->n_prompt,
        .n_generated = request->n_tokens - request->n_prompt,
        .first_token_s = seconds(request->submitted_ns, request->first_token_ns),
        .prompt_s = seconds(g->started_ns, prompt_done),
        .generation_s = seconds(request->first_token_ns, g->last_ns),
        .longest_gap_s = (double)request->longest_gap_ns / 1e9,
    };

    if (event.n_generated > 1) {
        event.mean_gap_s = seconds(request->first_token_ns, request->last_token_ns) /
                           (double)(event.n_generated - 1);
    }

    tell(request, &event);
}

/* ---- sampling, on the leader -------------------------------------------------------------------
 */

/* The n_best best of all ranks, from each rank's own; returns how many there are. */
static int merge_candidates(tsr_engine *e, const tsr_findings *f, int wanted)
{
    const int n_ranks = tsr_world_size(e->world);
    int n = 0;

    memset(e->leader->cursor, 0, (size_t)n_ranks * sizeof(*e->leader->cursor));
    while (n < f->n_best) {
        int from = -1;
        int32_t best_id = -1;
        float best = 0;

        for (int rank = 0; rank < n_ranks; rank++) {
            const int32_t *row =
                e->gathered + (size_t)rank * f->n_words + (size_t)wanted * f->row_words;
            const int at = e->leader->cursor[rank];
            float logit;

            if (at == f->n_best || row[at] < 0) {
                continue;
            }
            memcpy(&logit, &row[f->n_best + at], sizeof(logit));
            // Ranks hold rising runs of ids, so the first rank wins among equals: lower id first.
            if (from < 0 || logit > best) {
                from = rank;
                best = logit;
                best_id = row[at];
            }
        }
        if (from < 0) {
            break;
        }
        e->leader->cursor[from]++;
        e->leader->candidate_ids[n] = best_id;
        e->leader->candidate_logits[n] = best;
        n++;
    }
    return n;
}

/* log of the sum over the vocabulary of exp(logit * sharpness), from the masses of its units in
 * order. */
static double log_mass(tsr_engine *e, const tsr_findings *f, int wanted)
{
    const tsr_config *config = tsr_model_config(e->model);
    const int64_t unit = tsr_shard_vocab_unit(config->shape.n_vocab);
    const int n_ranks = tsr_world_size(e->world);
    int64_t n_units = 0;

    for (int rank = 0; rank < n_ranks; rank++) {
        const int32_t *row =
            e->gathered + (size_t)rank * f->n_words + (size_t)wanted * f->row_words;
        const int64_t n_cols = (int64_t)(e->row_parts[rank] / sizeof(float));
        const int64_t own = (n_cols + unit - 1) / unit;

        memcpy(e->leader->masses + 2 * n_units, row + 2 * f->n_best + 1,
               (size_t)(2 * own) * sizeof(float));
        n_units += own;
    }
    return tsr_sampler_log_mass(e->leader->masses, n_units, (double)e->step.sharpness[wanted]);
}

static float target_logit(const tsr_engine *e, const tsr_findings *f, int wanted)
{
    float largest = -INFINITY;

    for (int rank = 0; rank < tsr_world_size(e->world); rank++) {
        const int32_t *row =
            e->gathered + (size_t)rank * f->n_words + (size_t)wanted * f->row_words;
        float logit;

        memcpy(&logit, &row[2 * f->n_best], sizeof(logit));
        largest = logit > largest ? logit : largest;
    }
    return largest;
}

static int by_falling_logit(const void *left, const void *right)
{
    const scored *a = left;
    const scored *b = right;

    if (a->logit != b->logit) {
        return a->logit > b->logit ? -1 : 1;
    }
    return a->id < b->id ? -1 : 1;
}

/* The whole row as candidates, sorted. Rare: only when a row's candidates could not decide. */
static tsr_status sort_whole_row(tsr_engine *e)
{
    const size_t n = (size_t)tsr_model_config(e->model)->shape.n_vocab;
    scored *row = tsr_alloc(n, sizeof(*row));

    if (row == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to sort %zu logits", n);
    }
    for (size_t i = 0; i < n; i++) {
        row[i] = (scored){isnan(e->whole_row[i]) ? -INFINITY : e->whole_row[i], (int32_t)i};
    }
    qsort(row, n, sizeof(*row), by_falling_logit);
    for (size_t i = 0; i < n; i++) {
        e->leader->candidate_ids[i] = row[i].id;
        e->leader->candidate_logits[i] = row[i].logit;
    }
    tsr_free(row);
    return TSR_OK;
}

static tsr_status sample(tsr_engine *e, const tsr_findings *f, int wanted,
                         const tsr_request *request, int32_t *token)
{
    const int n_vocab = (int)tsr_model_config(e->model)->shape.n_vocab;
    tsr_candidates candidates = {
        .ids = e->leader->candidate_ids,
        .logits = e->leader->candidate_logits,
        .n = merge_candidates(e, f, wanted),
        .log_mass = log_mass(e, f, wanted),
    };

    candidates.all = candidates.n == n_vocab;
    if (tsr_sampler_pick(&request->sampling, request->n_tokens, &candidates, token) ==
        TSR_SAMPLER_DECIDED) {
        return TSR_OK;
    }
    TSR_TRY(tsr_turn_ask(e, wanted));
    TSR_TRY(sort_whole_row(e));
    candidates.n = n_vocab;
    candidates.all = true;
    (void)tsr_sampler_pick(&request->sampling, request->n_tokens, &candidates, token);
    return TSR_OK;
}

static void tell_score(tsr_engine *e, const tsr_findings *f, int wanted, tsr_request *request,
                       int64_t position)
{
    generation *g = request->user;
    tsr_event event = {
        .kind = TSR_EVENT_SCORE, .position = position, .token = e->step.targets[wanted]};

    (void)merge_candidates(e, f, wanted);
    event.best = e->leader->candidate_ids[0];
    if (event.token >= 0) {
        event.logprob = (double)target_logit(e, f, wanted) - log_mass(e, f, wanted);
    }
    g->scored_ns = tsr_clock_ns();
    tell(request, &event);
}

/* One wanted row: scores are told, the last row gives the next token. */
static tsr_status use_row(tsr_engine *e, const tsr_findings *f, int wanted, int s)
{
    tsr_request *request = tsr_scheduler_request_of(e->leader->scheduler, s);
    generation *g = request->user;
    const int64_t position = e->step.first_pos[s] + (e->step.wanted[wanted] - e->step.row_start[s]);

    if (g->wants_logits && position == request->n_prompt - 1) {
        tsr_event event = {.kind = TSR_EVENT_LOGITS, .position = position, .logits = e->whole_row};

        TSR_TRY(tsr_turn_ask(e, wanted));
        g->wants_logits = false;
        tell(request, &event);
    }
    if (request->score && position >= request->n_scored && position < request->n_prompt) {
        tell_score(e, f, wanted, request, position);
    }
    return position == request->n_tokens - 1 && tsr_scheduler_samples(e->leader->scheduler, s)
               ? sample(e, f, wanted, request, &e->leader->next[s])
               : TSR_OK;
}

static bool token_ends(void *ctx, int32_t token)
{
    return tsr_tokenizer_is_end(ctx, token);
}

/* What the step has brought reaches whoever asked for it. */
static void tell_all(tsr_engine *e)
{
    const int64_t now = tsr_clock_ns();
    tsr_request *request;

    for (int s = 0; s < e->step.n_seqs; s++) {
        generation *g;

        request = tsr_scheduler_request_of(e->leader->scheduler, s);
        g = request->user;
        if (g->n_shown < request->n_tokens) {
            g->last_ns = now;
            if (request->first_token_ns == 0) {
                request->first_token_ns = now;
            }
            tell_token(e, request, request->tokens[g->n_shown++]);
        }
    }
    while ((request = tsr_scheduler_take_ended(e->leader->scheduler)) != NULL) {
        e->leader->n_preempted += request->n_preempted;
        tell_end(request);
        end_request(e->leader, request);
    }
}

static tsr_status lead_step(tsr_engine *e)
{
    tsr_findings findings = {0};
    int s = 0;

    TSR_TRY(tsr_turn_take(e, &findings));
    for (int w = 0; w < e->step.n_wanted; w++) {
        while (e->step.wanted[w] >= e->step.row_start[s + 1]) {
            s++;
        }
        TSR_TRY(use_row(e, &findings, w, s));
    }
    return e->step.may_ask ? tsr_turn_ask(e, -1) : TSR_OK;
}

tsr_status tsr_engine_step(tsr_engine *e, bool *busy)
{
    const int64_t began = tsr_clock_ns();
    tsr_status st;

    if (tsr_world_asked_to_end(e->world)) {
        return tsr_fail(TSR_ERR_CANCELLED, "asked to end by a signal");
    }
    if (tsr_scheduler_plan(e->leader->scheduler, &e->step, began)) {
        int64_t done;

        for (int s = 0; s < e->step.n_seqs; s++) {
            generation *g = tsr_scheduler_request_of(e->leader->scheduler, s)->user;

            g->started_ns = g->started_ns == 0 ? began : g->started_ns;
            e->step.may_ask = e->step.may_ask || g->wants_logits;
        }
        st = lead_step(e);
        if (st != TSR_OK) {
            tsr_world_abort(e->world, st);
        }
        done = tsr_clock_ns();
        tsr_scheduler_commit(e->leader->scheduler, &e->step, e->leader->next, token_ends,
                             (void *)(uintptr_t)tsr_model_tokenizer(e->model), done);
        tsr_scheduler_note_time(e->leader->scheduler, (done - began) / 1000);
    } else {
        e->step.n_seqs = 0;
    }
    tell_all(e);
    e->step_ns += e->step.n_seqs > 0 ? tsr_clock_ns() - began : 0;
    *busy = !tsr_scheduler_is_idle(e->leader->scheduler);
    return TSR_OK;
}
