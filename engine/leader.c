#include "engine/leader.h"

#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

static const double MOST_DEADLINE_S = 1e9; // 31 years

static void end_request(tsr_leader *leader, tsr_request *request);

static size_t most_units(const tsr_shard_shape *shape, int n_ranks)
{
    return (size_t)(shape->n_vocab / tsr_shard_vocab_unit(shape->n_vocab)) + (size_t)n_ranks;
}

size_t tsr_leader_table_bytes(const tsr_settings *settings, const tsr_config *config, int n_ranks)
{
    const tsr_leader *leader = NULL;
    const tsr_engine *e = NULL;

    return (size_t)config->shape.n_vocab *
               (sizeof(*leader->candidate_ids) + sizeof(*leader->candidate_logits) +
                sizeof(*e->whole_row)) +
           2 * most_units(&config->shape, n_ranks) * sizeof(*leader->masses) +
           tsr_scheduler_table_bytes(settings->n_blocks);
}

tsr_status tsr_leader_create(tsr_leader **out, const tsr_engine *e)
{
    const tsr_shard_shape *shape = &tsr_model_config(e->model)->shape;
    const size_t n_vocab = (size_t)shape->n_vocab;
    const size_t n_ranks = (size_t)tsr_world_size(e->world);
    const size_t n_units = most_units(shape, tsr_world_size(e->world));
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
    tsr_wish *g = request->user;

    for (int i = 0; i < leader->n_live; i++) {
        if (leader->live[i] == request) {
            leader->live[i] = leader->live[--leader->n_live];
            break;
        }
    }
    if (g != NULL) {
        tsr_text_clear(&g->text);
        tsr_adjust_destroy(g->adjust);
        tsr_stops_destroy(g->stops);
        tsr_free(g->top);
        tsr_free(g);
    }
    tsr_request_destroy(request);
}

/* What changes the logits of a generation: penalties, biases, and its end tokens for a while. */
static tsr_status make_adjust(const tsr_engine *e, tsr_wish *g, const tsr_generation *wish)
{
    const tsr_tokenizer *tokenizer = tsr_model_tokenizer(e->model);
    const int n_vocab = (int)tsr_model_config(e->model)->shape.n_vocab;
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
        banned = tsr_alloc((size_t)n_vocab + (size_t)wish->n_stop_ids, sizeof(*banned));
        if (banned == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for a list of end tokens");
        }
        for (int id = 0; id < n_vocab && !wish->ignore_end; id++) {
            if (tsr_tokenizer_is_end(tokenizer, id)) {
                banned[settings.n_banned++] = id;
            }
        }
        for (int i = 0; i < wish->n_stop_ids; i++) {
            banned[settings.n_banned++] = wish->stop_ids[i];
        }
        settings.banned = banned;
    }
    st = tsr_adjust_is_wanted(&settings) ? tsr_adjust_create(&g->adjust, &settings, n_vocab)
                                         : TSR_OK;
    tsr_free(banned);
    return st;
}

/* How a generation ends, what its logits become, and what is told of them. */
static tsr_status make_wish(const tsr_engine *e, tsr_request *request, const tsr_generation *wish)
{
    const int n_vocab = (int)tsr_model_config(e->model)->shape.n_vocab;
    tsr_wish *g = request->user;

    *g = (tsr_wish){.on_event = wish->on_event,
                    .stream = {.begun = true}, // it goes on behind the prompt
                    .ctx = wish->ctx,
                    .n_shown = request->n_prompt,
                    .wants_logits = wish->want_logits,
                    .min_tokens = wish->min_tokens,
                    .include_stop = wish->include_stop,
                    .wants_logprobs = wish->want_logprobs,
                    .n_top = wish->want_logprobs ? wish->n_top : 0};
    if (wish->min_tokens < 0) {
        return tsr_fail(TSR_ERR_ARG, "min_tokens is %d, it must be 0 or more", wish->min_tokens);
    }
    if (wish->n_top < 0 || wish->n_top > TSR_MOST_TOP) {
        return tsr_fail(TSR_ERR_ARG, "log-probabilities of the %d best, 0 to %d are possible",
                        wish->n_top, TSR_MOST_TOP);
    }
    TSR_TRY(tsr_request_stop_at(request, wish->stop_ids, wish->n_stop_ids, n_vocab));
    request->keep_stop = wish->include_stop;
    TSR_TRY(make_adjust(e, g, wish));
    if (wish->n_stops != 0) {
        TSR_TRY(tsr_stops_create(&g->stops, wish->stops, wish->stop_bytes, wish->n_stops));
    }
    if (g->n_top > 0) {
        g->top = tsr_alloc((size_t)g->n_top, sizeof(*g->top));
        if (g->top == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for %d candidates", g->n_top);
        }
    }
    return TSR_OK;
}

tsr_status tsr_engine_submit(tsr_engine *e, const tsr_generation *wish, int64_t *id)
{
    const tsr_sampling sampling = {
        .temperature = wish->temperature,
        .top_k = wish->top_k,
        .top_p = wish->top_p == 0 ? 1 : wish->top_p,
        .min_p = wish->min_p,
        .typical_p = wish->typical_p,
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
    request->user = tsr_alloc(1, sizeof(tsr_wish));
    if (request->user == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for a generation");
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, make_wish(e, request, wish));
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

void tsr_leader_tell(const tsr_request *request, tsr_event *event)
{
    const tsr_wish *g = request->user;

    event->id = request->id;
    g->on_event(g->ctx, event);
}

/* The last bytes of a generation's text, from `first` on, are new. Returns how many of all may be
 * shown now; *stops: a stop string is complete, and the text ends before it or with it. */
static size_t search_stops(tsr_wish *g, size_t first, bool *stops)
{
    size_t used, match_bytes;

    *stops = g->stops != NULL && first < g->text.n_bytes &&
             tsr_stops_feed(g->stops, &g->stop_state, g->text.bytes + first,
                            g->text.n_bytes - first, &used, &match_bytes);
    if (*stops) {
        g->text.n_bytes = first + used - (g->include_stop ? 0 : match_bytes);
        return g->text.n_bytes;
    }
    return g->text.n_bytes - (g->stops != NULL ? tsr_stops_held(g->stops, g->stop_state) : 0);
}

/* A token more: its text, as far as it may be shown. */
static void tell_token(tsr_engine *e, tsr_request *request, int32_t token)
{
    tsr_wish *g = request->user;
    tsr_event event = {.kind = TSR_EVENT_TOKEN,
                       .token = token,
                       .logprob = g->logprob,
                       .top = g->top,
                       .n_top = g->n_top_found};
    const size_t n_before = g->text.n_bytes;
    bool stops = false;
    size_t whole;

    // A vocabulary may be padded: beyond the tokens there is nothing to be shown.
    if (token < tsr_tokenizer_n_vocab(tsr_model_tokenizer(e->model)) &&
        tsr_tokenizer_decode(tsr_model_tokenizer(e->model), &g->stream, &g->text, token, false) !=
            TSR_OK) {
        tsr_log_error("a token's text is lost: %s", tsr_status_message());
    }
    whole = g->text.n_bytes;
    if (g->n_shown - request->n_prompt > g->min_tokens) {
        whole = search_stops(g, n_before, &stops);
    }
    if (stops) {
        tsr_scheduler_stop(e->leader->scheduler, request);
    }
    whole = tsr_tokenizer_whole_utf8(g->text.bytes, whole);
    event.text = g->text.bytes;
    event.text_bytes = whole;
    tsr_leader_tell(request, &event);
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
    tsr_wish *g = request->user;
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

    tsr_leader_tell(request, &event);
}

/* ---- steps -------------------------------------------------------------------------------------
 */

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
        tsr_wish *g;

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
        TSR_TRY(tsr_choose_row(e, &findings, w, s));
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
            tsr_wish *g = tsr_scheduler_request_of(e->leader->scheduler, s)->user;

            g->started_ns = g->started_ns == 0 ? began : g->started_ns;
            e->step.may_ask = e->step.may_ask || g->wants_logits;
        }
        st = tsr_choose_prepare(e);
        st = st == TSR_OK ? lead_step(e) : st;
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
