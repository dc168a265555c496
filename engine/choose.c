#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/leader.h"
#include "engine/row_sort.h"
#include "engine/search.h"
#include "engine/tell.h"

/* ---- what is asked for -------------------------------------------------------------------------
 */

/* The position of a wanted row of sequence s, in its sequence. */
static int64_t position_of(const tsr_engine *e, int wanted, int s)
{
    return e->step.first_pos[s] + (e->step.wanted[wanted] - e->step.row_start[s]);
}

/* Does a wanted row of sequence s give its next token? */
static bool is_sampled(const tsr_engine *e, int wanted, int s)
{
    return e->leader->samples[s] && e->step.wanted[wanted] == e->step.row_start[s + 1] - 1;
}

static bool is_scored(const tsr_request *request, int64_t position)
{
    return request->score && position >= request->n_scored && position < request->n_prompt;
}

/* The changes to the logits of a row that gives the next token. Returns how many in *n. */
static tsr_status write_changes(tsr_engine *e, const tsr_request *request, int wanted, int *n)
{
    tsr_adjust *adjust = ((const tsr_member *)request->user)->adjust;
    tsr_step *step = &e->step;
    const int at = step->n_entries;

    TSR_TRY(tsr_adjust_count(adjust, request->tokens, request->n_prompt, request->n_tokens));
    TSR_TRY(tsr_step_reserve(step, (int64_t)at + tsr_adjust_most(adjust)));
    *n = tsr_adjust_list(adjust, step->entry_ids + at, step->entry_factors + at,
                         step->entry_adds + at);
    if (*n > 0) {
        step->n_entries = at + *n;
        step->adjusted[step->n_adjusted++] = wanted;
        step->adjust_start[step->n_adjusted] = step->n_entries;
    }
    return TSR_OK;
}

/* Is anybody told, or ranked by, how likely the tokens of a row are? */
static bool wants_logprobs(const tsr_group *g, bool sampled, bool scores)
{
    return (sampled && g->sums_logprobs) || ((sampled || scores) && g->wants_logprobs);
}

static tsr_status prepare_row(tsr_engine *e, int wanted, int s)
{
    const tsr_request *request = e->leader->requests[s];
    const tsr_member *m = request->user;
    const tsr_group *g = m->group;
    const int64_t position = position_of(e, wanted, s);
    const bool sampled = is_sampled(e, wanted, s);
    const bool scores = is_scored(request, position);
    tsr_step *step = &e->step;
    int n_changes = 0;
    bool twice;

    if (sampled && m->adjust != NULL) {
        TSR_TRY(write_changes(e, request, wanted, &n_changes));
    }
    // One look is enough where it sees the row as it is, and enough of it.
    twice = (scores && n_changes > 0) ||
            (wants_logprobs(g, sampled, scores) &&
             (n_changes > 0 || step->sharpness[wanted] != 1.0F || g->n_top > step->n_best));
    if (twice) {
        int n = g->n_top > 1 ? g->n_top : 1;

        n = n < step->limits.n_vocab ? n : step->limits.n_vocab;
        step->n_raw_best = n > step->n_raw_best ? n : step->n_raw_best;
        step->raw[step->n_raw++] = wanted;
    }
    return TSR_OK;
}

tsr_status tsr_choose_prepare(tsr_engine *e)
{
    tsr_step *step = &e->step;
    int s;

    for (s = 0; s < step->n_seqs; s++) { // beams want more candidates than a sampler
        const tsr_member *m = e->leader->requests[s]->user;
        const tsr_search *search = m->group->search;

        if (search != NULL && search->n_offers > step->n_best) {
            step->n_best = search->n_offers;
        }
    }
    s = 0;
    for (int w = 0; w < step->n_wanted; w++) {
        while (step->wanted[w] >= step->row_start[s + 1]) {
            s++;
        }
        TSR_TRY(prepare_row(e, w, s));
    }
    return TSR_OK;
}

/* ---- what was found ----------------------------------------------------------------------------
 */

/* Word `at` of a rank's findings. */
static const int32_t *words_of(const tsr_engine *e, const tsr_findings *f, int rank, size_t at)
{
    return e->gathered + (size_t)rank * f->n_words + at;
}

static float as_float(int32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* The n_best best of all ranks, from each rank's own: ids at word `at` of its findings, their
 * logits behind them. Returns how many there are. */
static int merge_candidates(tsr_engine *e, const tsr_findings *f, size_t at, int n_best)
{
    const int n_ranks = tsr_world_size(e->world);
    int n = 0;

    memset(e->leader->cursor, 0, (size_t)n_ranks * sizeof(*e->leader->cursor));
    while (n < n_best) {
        int from = -1;
        int32_t best_id = -1;
        float best = 0;

        for (int rank = 0; rank < n_ranks; rank++) {
            const int32_t *row = words_of(e, f, rank, at);
            const int next = e->leader->cursor[rank];
            float logit;

            if (next == n_best || row[next] < 0) {
                continue;
            }
            logit = as_float(row[n_best + next]);
            // Ranks hold rising runs of ids, so the first rank wins among equals: lower id first.
            if (from < 0 || logit > best) {
                from = rank;
                best = logit;
                best_id = row[next];
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
 * order: those of a rank are at word `at` of its findings. */
static double log_mass(tsr_engine *e, const tsr_findings *f, size_t at, double sharpness)
{
    const tsr_config *config = tsr_model_config(e->model);
    const int64_t unit = tsr_shard_vocab_unit(config->shape.n_vocab);
    const int n_ranks = tsr_world_size(e->world);
    int64_t n_units = 0;

    for (int rank = 0; rank < n_ranks; rank++) {
        const int64_t n_cols = (int64_t)(e->row_parts[rank] / sizeof(float));
        const int64_t own = (n_cols + unit - 1) / unit;

        memcpy(e->leader->masses + 2 * n_units, words_of(e, f, rank, at),
               (size_t)(2 * own) * sizeof(float));
        n_units += own;
    }
    return tsr_sampler_log_mass(e->leader->masses, n_units, sharpness);
}

static float target_logit(const tsr_engine *e, const tsr_findings *f, int wanted)
{
    const size_t at = (size_t)wanted * f->row_words + 2 * (size_t)f->n_best;
    float largest = -INFINITY;

    for (int rank = 0; rank < tsr_world_size(e->world); rank++) {
        const float logit = as_float(*words_of(e, f, rank, at));

        largest = logit > largest ? logit : largest;
    }
    return largest;
}

/* A wanted row as the model gave it, whatever was changed in it later. */
typedef struct raw_row {
    int n; // candidates, in the leader's arrays
    double log_mass;
    size_t before_at; // where findings have the logits that the row's candidates had; 0: nowhere
} raw_row;

static raw_row look_at_raw(tsr_engine *e, const tsr_findings *f, int wanted)
{
    const tsr_step *step = &e->step;
    const size_t row_at = (size_t)wanted * f->row_words;
    size_t at;
    int low = 0;
    int high = step->n_raw;

    while (low < high) {
        const int middle = low + (high - low) / 2;

        if (step->raw[middle] < wanted) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == step->n_raw || step->raw[low] != wanted) {
        return (raw_row){.n = merge_candidates(e, f, row_at, f->n_best),
                         .log_mass = log_mass(e, f, row_at + 2 * (size_t)f->n_best + 1, 1.0)};
    }
    at = f->raw_at + (size_t)low * f->raw_words;
    return (raw_row){
        .n = merge_candidates(e, f, at, f->n_raw_best),
        .log_mass = log_mass(e, f, at + 2 * (size_t)f->n_raw_best + (size_t)f->n_best, 1.0),
        .before_at = at + 2 * (size_t)f->n_raw_best,
    };
}

/* The logit that a candidate of a wanted row had before any change. */
static float raw_logit(const tsr_engine *e, const tsr_findings *f, int wanted, size_t before_at,
                       int32_t token)
{
    for (int rank = 0; rank < tsr_world_size(e->world); rank++) {
        const int32_t *ids = words_of(e, f, rank, (size_t)wanted * f->row_words);

        for (int i = 0; i < f->n_best; i++) {
            if (ids[i] == token) {
                return as_float(before_at > 0 ? words_of(e, f, rank, before_at)[i]
                                              : ids[f->n_best + i]);
            }
        }
    }
    return -INFINITY;
}

static void note_top(const tsr_engine *e, tsr_member *m, const raw_row *raw)
{
    const int n = m->group->n_top < raw->n ? m->group->n_top : raw->n;

    for (int i = 0; i < n; i++) {
        m->top[i].id = e->leader->candidate_ids[i];
        m->top[i].logprob = (double)e->leader->candidate_logits[i] - raw->log_mass;
    }
    m->n_top_found = n;
}

/* ---- the next token ----------------------------------------------------------------------------
 */

/* The whole row as candidates, changed as it is asked and sorted: when a row's candidates could not
 * decide. */
static void sort_whole_row(tsr_engine *e, int wanted)
{
    const size_t n = (size_t)tsr_model_config(e->model)->shape.n_vocab;
    const tsr_step *step = &e->step;
    tsr_leader *leader = e->leader;

    memcpy(leader->changed_row, e->whole_row, n * sizeof(*leader->changed_row));
    for (int a = 0; a < step->n_adjusted; a++) {
        for (int i = step->adjust_start[a];
             step->adjusted[a] == wanted && i < step->adjust_start[a + 1]; i++) {
            float *at = &leader->changed_row[step->entry_ids[i]];

            *at = tsr_adjust_apply(*at, step->entry_factors[i], step->entry_adds[i]);
        }
    }
    tsr_row_sort(leader->candidate_ids, leader->candidate_logits, leader->changed_row, n,
                 leader->sort_work);
}

/* The best of a wanted row as it is sampled, in the leader's arrays. */
static tsr_candidates look_at_changed(tsr_engine *e, const tsr_findings *f, int wanted)
{
    const size_t at = (size_t)wanted * f->row_words;
    tsr_candidates candidates = {
        .ids = e->leader->candidate_ids,
        .logits = e->leader->candidate_logits,
        .n = merge_candidates(e, f, at, f->n_best),
        .log_mass =
            log_mass(e, f, at + 2 * (size_t)f->n_best + 1, (double)e->step.sharpness[wanted]),
    };

    candidates.all = candidates.n == (int)tsr_model_config(e->model)->shape.n_vocab;
    return candidates;
}

/* One token for a member, from a row's candidates, or from the whole row if they cannot decide. */
static tsr_status pick(tsr_engine *e, int wanted, const tsr_sampling *sampling, int64_t position,
                       tsr_candidates *candidates, int32_t *token)
{
    if (tsr_sampler_pick(sampling, position, candidates, token) != TSR_SAMPLER_DECIDED) {
        TSR_TRY(tsr_turn_ask(e, wanted));
        sort_whole_row(e, wanted);
        candidates->n = (int)tsr_model_config(e->model)->shape.n_vocab;
        candidates->all = true;
        (void)tsr_sampler_pick(sampling, position, candidates, token);
    }
    return TSR_OK;
}

/* Does a token that was chosen end an answer? */
static bool ends(const tsr_engine *e, const tsr_request *r, int32_t token)
{
    return tsr_request_stops_at(r, token) ||
           (!r->ignore_end && tsr_leader_token_ends(e->model, token));
}

/*
 * The next token of a member, which will have that position, or, where a prompt ends, the first of
 * every sample: all are picked from this row, by their own seeds. How likely they are is looked up
 * when all are: that uses the leader's arrays again.
 */
static tsr_status sample(tsr_engine *e, const tsr_findings *f, int wanted, tsr_member *m,
                         int64_t position)
{
    tsr_group *g = m->group;
    const tsr_request *r = m->request;
    const int first = g->is_forked ? m->index : 0;
    const int last = g->is_forked ? m->index : g->n_members - 1;
    tsr_candidates candidates = look_at_changed(e, f, wanted);
    const bool had_all = candidates.all;

    for (int i = first; i <= last; i++) {
        tsr_sampling sampling = r->sampling;

        sampling.seed = g->is_forked ? sampling.seed : tsr_sampler_seed_of(sampling.seed, i);
        TSR_TRY(pick(e, wanted, &sampling, position, &candidates, &g->members[i].next));
        g->members[i].is_chosen = true;
        g->members[i].is_complete = ends(e, r, g->members[i].next);
    }
    if (wants_logprobs(g, true, false)) {
        const bool asked = candidates.all && !had_all;
        const raw_row raw = look_at_raw(e, f, wanted);

        for (int i = first; i <= last; i++) {
            tsr_member *to = &g->members[i];
            const float logit =
                asked ? e->whole_row[to->next] : raw_logit(e, f, wanted, raw.before_at, to->next);

            to->logprob = (double)logit - raw.log_mass;
            note_top(e, to, &raw);
        }
    }
    return TSR_OK;
}

/* What may follow a beam. */
static void offer(tsr_engine *e, const tsr_findings *f, int wanted, tsr_member *m)
{
    tsr_search *search = m->group->search;
    const tsr_candidates candidates = look_at_changed(e, f, wanted);
    const int n = candidates.n < search->n_offers ? candidates.n : search->n_offers;

    for (int i = 0; i < n; i++) {
        search->offers[i] = (tsr_beam_candidate){
            .id = candidates.ids[i],
            .logprob = (double)candidates.logits[i] - candidates.log_mass,
        };
    }
    if (m->group->wants_logprobs) {
        const raw_row raw = look_at_raw(e, f, wanted);

        for (int i = 0; i < n; i++) {
            search->offers[i].told =
                (double)raw_logit(e, f, wanted, raw.before_at, search->offers[i].id) - raw.log_mass;
        }
        note_top(e, m, &raw);
    }
    tsr_search_offer(search, m, n);
}

/* ---- a row -------------------------------------------------------------------------------------
 */

static void tell_score(tsr_engine *e, const tsr_findings *f, int wanted, tsr_member *m,
                       int64_t position)
{
    const raw_row raw = look_at_raw(e, f, wanted);
    tsr_event event = {
        .kind = TSR_EVENT_SCORE, .position = position, .token = e->step.targets[wanted]};

    event.best = e->leader->candidate_ids[0];
    if (event.token >= 0) {
        event.logprob = (double)target_logit(e, f, wanted) - raw.log_mass;
    }
    note_top(e, m, &raw);
    event.top = m->top;
    event.n_top = m->n_top_found;
    m->group->scored_ns = tsr_clock_ns();
    tsr_tell(m->group, &event);
}

tsr_status tsr_choose_row(tsr_engine *e, const tsr_findings *f, int wanted, int s)
{
    tsr_request *request = e->leader->requests[s];
    tsr_member *m = request->user;
    tsr_group *g = m->group;
    const int64_t position = position_of(e, wanted, s);

    if (g->wants_logits && position == request->n_prompt - 1) {
        tsr_event event = {.kind = TSR_EVENT_LOGITS, .position = position, .logits = e->whole_row};

        TSR_TRY(tsr_turn_ask(e, wanted));
        g->wants_logits = false;
        tsr_tell(g, &event);
    }
    if (is_scored(request, position)) {
        tell_score(e, f, wanted, m, position);
    }
    if (!is_sampled(e, wanted, s)) {
        return TSR_OK;
    }
    if (g->search != NULL) {
        offer(e, f, wanted, m);
    } else if (!m->is_complete) {
        TSR_TRY(sample(e, f, wanted, m, position + 1));
    }
    g->is_held = tsr_group_holds(g);
    e->leader->next[s] = g->is_held ? TSR_SCHEDULER_HOLD : m->next;
    return TSR_OK;
}
