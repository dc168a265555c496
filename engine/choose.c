#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/leader.h"

/* A token of a row and its logit. */
typedef struct scored {
    float logit;
    int32_t id;
} scored;

/* ---- what is asked for -------------------------------------------------------------------------
 */

/* The position of a wanted row of sequence s, in its sequence. */
static int64_t position_of(const tsr_engine *e, int wanted, int s)
{
    return e->step.first_pos[s] + (e->step.wanted[wanted] - e->step.row_start[s]);
}

static bool is_sampled(const tsr_engine *e, const tsr_request *request, int64_t position, int s)
{
    return position == request->n_tokens - 1 && tsr_scheduler_samples(e->leader->scheduler, s);
}

static bool is_scored(const tsr_request *request, int64_t position)
{
    return request->score && position >= request->n_scored && position < request->n_prompt;
}

/* The changes to the logits of a row that gives the next token. Returns how many in *n. */
static tsr_status write_changes(tsr_engine *e, const tsr_request *request, int wanted, int *n)
{
    tsr_adjust *adjust = ((const tsr_wish *)request->user)->adjust;
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

static tsr_status prepare_row(tsr_engine *e, int wanted, int s)
{
    const tsr_request *request = tsr_scheduler_request_of(e->leader->scheduler, s);
    const tsr_wish *wish = request->user;
    const int64_t position = position_of(e, wanted, s);
    const bool sampled = is_sampled(e, request, position, s);
    const bool scores = is_scored(request, position);
    tsr_step *step = &e->step;
    int n_changes = 0;
    bool twice;

    if (sampled && wish->adjust != NULL) {
        TSR_TRY(write_changes(e, request, wanted, &n_changes));
    }
    // One look is enough where it sees the row as it is, and enough of it.
    twice = (scores && n_changes > 0) ||
            (wish->wants_logprobs && (sampled || scores) &&
             (n_changes > 0 || step->sharpness[wanted] != 1.0F || wish->n_top > step->n_best));
    if (twice) {
        int n = wish->wants_logprobs && wish->n_top > 1 ? wish->n_top : 1;

        n = n < step->limits.n_vocab ? n : step->limits.n_vocab;
        step->n_raw_best = n > step->n_raw_best ? n : step->n_raw_best;
        step->raw[step->n_raw++] = wanted;
    }
    return TSR_OK;
}

tsr_status tsr_choose_prepare(tsr_engine *e)
{
    int s = 0;

    for (int w = 0; w < e->step.n_wanted; w++) {
        while (e->step.wanted[w] >= e->step.row_start[s + 1]) {
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

static void note_top(const tsr_engine *e, tsr_wish *wish, const raw_row *raw)
{
    const int n = wish->n_top < raw->n ? wish->n_top : raw->n;

    for (int i = 0; i < n; i++) {
        wish->top[i].id = e->leader->candidate_ids[i];
        wish->top[i].logprob = (double)e->leader->candidate_logits[i] - raw->log_mass;
    }
    wish->n_top_found = n;
}

/* ---- the next token ----------------------------------------------------------------------------
 */

static int by_falling_logit(const void *left, const void *right)
{
    const scored *a = left;
    const scored *b = right;

    if (a->logit != b->logit) {
        return a->logit > b->logit ? -1 : 1;
    }
    return a->id < b->id ? -1 : 1;
}

/* The whole row as candidates, changed as it is asked and sorted. Rare: only when a row's
 * candidates could not decide. */
static tsr_status sort_whole_row(tsr_engine *e, int wanted)
{
    const size_t n = (size_t)tsr_model_config(e->model)->shape.n_vocab;
    const tsr_step *step = &e->step;
    scored *row = tsr_alloc(n, sizeof(*row));

    if (row == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to sort %zu logits", n);
    }
    for (size_t i = 0; i < n; i++) {
        row[i] = (scored){e->whole_row[i], (int32_t)i};
    }
    for (int a = 0; a < step->n_adjusted; a++) {
        for (int i = step->adjust_start[a];
             step->adjusted[a] == wanted && i < step->adjust_start[a + 1]; i++) {
            scored *at = &row[step->entry_ids[i]];

            at->logit = tsr_adjust_apply(at->logit, step->entry_factors[i], step->entry_adds[i]);
        }
    }
    for (size_t i = 0; i < n; i++) {
        row[i].logit = isnan(row[i].logit) ? -INFINITY : row[i].logit;
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
    const size_t at = (size_t)wanted * f->row_words;
    tsr_wish *wish = request->user;
    tsr_candidates candidates = {
        .ids = e->leader->candidate_ids,
        .logits = e->leader->candidate_logits,
        .n = merge_candidates(e, f, at, f->n_best),
        .log_mass =
            log_mass(e, f, at + 2 * (size_t)f->n_best + 1, (double)e->step.sharpness[wanted]),
    };
    bool asked = false;

    candidates.all = candidates.n == n_vocab;
    if (tsr_sampler_pick(&request->sampling, request->n_tokens, &candidates, token) !=
        TSR_SAMPLER_DECIDED) {
        TSR_TRY(tsr_turn_ask(e, wanted));
        TSR_TRY(sort_whole_row(e, wanted));
        candidates.n = n_vocab;
        candidates.all = true;
        asked = true;
        (void)tsr_sampler_pick(&request->sampling, request->n_tokens, &candidates, token);
    }
    if (wish->wants_logprobs) {
        const raw_row raw = look_at_raw(e, f, wanted);

        wish->logprob = (double)(asked ? e->whole_row[*token]
                                       : raw_logit(e, f, wanted, raw.before_at, *token)) -
                        raw.log_mass;
        note_top(e, wish, &raw);
    }
    return TSR_OK;
}

/* ---- a row -------------------------------------------------------------------------------------
 */

static void tell_score(tsr_engine *e, const tsr_findings *f, int wanted, tsr_request *request,
                       int64_t position)
{
    tsr_wish *wish = request->user;
    const raw_row raw = look_at_raw(e, f, wanted);
    tsr_event event = {
        .kind = TSR_EVENT_SCORE, .position = position, .token = e->step.targets[wanted]};

    event.best = e->leader->candidate_ids[0];
    if (event.token >= 0) {
        event.logprob = (double)target_logit(e, f, wanted) - raw.log_mass;
    }
    note_top(e, wish, &raw);
    event.top = wish->top;
    event.n_top = wish->n_top_found;
    wish->scored_ns = tsr_clock_ns();
    tsr_leader_tell(request, &event);
}

tsr_status tsr_choose_row(tsr_engine *e, const tsr_findings *f, int wanted, int s)
{
    tsr_request *request = tsr_scheduler_request_of(e->leader->scheduler, s);
    tsr_wish *wish = request->user;
    const int64_t position = position_of(e, wanted, s);

    if (wish->wants_logits && position == request->n_prompt - 1) {
        tsr_event event = {.kind = TSR_EVENT_LOGITS, .position = position, .logits = e->whole_row};

        TSR_TRY(tsr_turn_ask(e, wanted));
        wish->wants_logits = false;
        tsr_leader_tell(request, &event);
    }
    if (is_scored(request, position)) {
        tell_score(e, f, wanted, request, position);
    }
    return is_sampled(e, request, position, s) ? sample(e, f, wanted, request, &e->leader->next[s])
                                               : TSR_OK;
}
