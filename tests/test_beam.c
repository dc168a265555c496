#include "engine/beam.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/torture.h"

enum {
    MOST_VOCAB = 12,
    MOST_WIDTH = 9,
    MOST_LENGTH = 8,
    MOST_BEAMS = 1024 // in the exhaustive test
};

/* ---- a toy model: log-probabilities by the tokens so far ---- */

typedef struct toy {
    uint64_t seed;
    int n_vocab;
    int n_ends;     // ids below it end an answer
    bool ends_with; // and are part of it
    bool is_coarse; // many equal ones
    bool has_holes; // and impossible ones
} toy;

static void toy_row(const toy *m, const int32_t *tokens, int n, double *logprobs)
{
    uint64_t dice = m->seed;
    double mass = 0;

    for (int i = 0; i < n; i++) {
        dice = dice * 31 + (uint64_t)tokens[i] + 1;
    }
    for (int v = 0; v < m->n_vocab; v++) {
        double logit = 4.0 * dice_unit(&dice);

        logit = m->is_coarse ? floor(logit) : logit;
        logprobs[v] = m->has_holes && dice_below(&dice, 4) == 0 ? -INFINITY : logit;
        mass += exp(logprobs[v]);
    }
    for (int v = 0; v < m->n_vocab; v++) {
        logprobs[v] = m->is_coarse ? logprobs[v] - 4.0 : logprobs[v] - log(mass);
    }
}

/* ---- the same search, plainly: everything is listed, sorted and copied ---- */

typedef struct plain_answer {
    int32_t tokens[MOST_LENGTH];
    int n;
    double sum;
    double score;
    bool is_open;
    int order; // of coming
} plain_answer;

typedef struct plain_beam {
    int32_t tokens[MOST_LENGTH];
    double sum;
} plain_beam;

typedef struct plain_offer {
    int parent;
    int32_t token;
    double logprob;
    double sum;
} plain_offer;

static int by_sum(const void *left, const void *right)
{
    const plain_offer *a = left;
    const plain_offer *b = right;

    if (a->sum != b->sum) {
        return a->sum > b->sum ? -1 : 1;
    }
    if (a->parent != b->parent) {
        return a->parent - b->parent;
    }
    if (a->logprob != b->logprob) {
        return a->logprob > b->logprob ? -1 : 1;
    }
    return a->token - b->token;
}

static int by_score(const void *left, const void *right)
{
    const plain_answer *a = left;
    const plain_answer *b = right;

    if (a->score != b->score) {
        return a->score > b->score ? -1 : 1;
    }
    return a->order - b->order;
}

typedef struct plain_search {
    const toy *model;
    tsr_beam_rules rules;
    plain_answer *answers;
    int n_answers;
    int n_came;
} plain_search;

static void plain_keep(plain_search *p, const int32_t *tokens, int n, int length, double sum,
                       bool is_open)
{
    plain_answer *a = &p->answers[p->n_answers++];

    memset(a, 0, sizeof(*a));
    memcpy(a->tokens, tokens, (size_t)n * sizeof(*tokens));
    a->n = n;
    a->sum = sum;
    a->score = length > 0 ? sum / pow(length, p->rules.length_penalty) : 0;
    a->is_open = is_open;
    a->order = p->n_came++;
    qsort(p->answers, (size_t)p->n_answers, sizeof(*a), by_score);
    p->n_answers = p->n_answers < p->rules.width ? p->n_answers : p->rules.width;
}

static bool plain_is_done(const plain_search *p, double best, int length)
{
    const double worst = p->n_answers > 0 ? p->answers[p->n_answers - 1].score : 0;
    const double penalty = p->rules.length_penalty;

    if (p->n_answers < p->rules.width) {
        return false;
    }
    switch (p->rules.stopping) {
    case TSR_STOPPING_EARLY:
        return true;
    case TSR_STOPPING_USUAL:
        return worst >= best / pow(length, penalty);
    default:
        return worst >= best / pow(penalty > 0 ? (double)p->rules.max_tokens : length, penalty);
    }
}

static void plain_run(plain_search *p)
{
    const int width = p->rules.width;
    plain_beam *live = calloc((size_t)width, sizeof(*live));
    plain_beam *next = calloc((size_t)width, sizeof(*next));
    plain_offer *offers = malloc((size_t)width * MOST_VOCAB * sizeof(*offers));
    int n_live = 1;

    for (int n = 0; n_live > 0 && n < p->rules.max_tokens; n++) {
        int n_offers = 0;
        int n_next = 0;

        for (int i = 0; i < n_live; i++) {
            double logprobs[MOST_VOCAB];

            toy_row(p->model, live[i].tokens, n, logprobs);
            for (int v = 0; v < p->model->n_vocab; v++) {
                if (logprobs[v] > -INFINITY) {
                    offers[n_offers++] =
                        (plain_offer){i, v, logprobs[v], live[i].sum + logprobs[v]};
                }
            }
        }
        qsort(offers, (size_t)n_offers, sizeof(*offers), by_sum);
        for (int k = 0; k < n_offers && n_next < width; k++) {
            plain_beam made = live[offers[k].parent];

            made.tokens[n] = offers[k].token;
            made.sum = offers[k].sum;
            if (offers[k].token >= p->model->n_ends) {
                next[n_next++] = made;
            } else if (k < width) {
                plain_keep(p, made.tokens, n + (p->model->ends_with ? 1 : 0), n + 1, made.sum,
                           false);
            }
        }
        if (n_offers == 0) {
            for (int i = 0; i < n_live && p->n_answers == 0; i++) {
                plain_keep(p, live[i].tokens, n, n, live[i].sum, true);
            }
            n_live = 0;
            break;
        }
        memcpy(live, next, (size_t)n_next * sizeof(*live));
        n_live = n_next;
        if (plain_is_done(p, offers[0].sum, n + 1)) {
            n_live = 0;
        }
    }
    for (int i = 0; i < n_live; i++) {
        plain_keep(p, live[i].tokens, (int)p->rules.max_tokens, (int)p->rules.max_tokens,
                   live[i].sum, true);
    }
    free(offers);
    free(next);
    free(live);
}

/* ---- the search under test, driven as the engine drives it ---- */

typedef struct driven {
    const toy *model;
    tsr_beam *beam;
    plain_beam *live;
    int n_rounds;
} driven;

static tsr_beam_end toy_ends(void *ctx, int beam, int32_t token)
{
    const toy *m = ctx;

    assert_true(beam >= 0 && beam < MOST_BEAMS);
    if (token >= m->n_ends) {
        return TSR_BEAM_GOES_ON;
    }
    return m->ends_with ? TSR_BEAM_ENDS_WITH : TSR_BEAM_ENDS;
}

static int by_logprob(const void *left, const void *right)
{
    const tsr_beam_candidate *a = left;
    const tsr_beam_candidate *b = right;

    if (a->logprob != b->logprob) {
        return a->logprob > b->logprob ? -1 : 1;
    }
    return a->id - b->id;
}

static void offer_row(driven *d, int i, int n, const tsr_beam_rules *rules)
{
    tsr_beam_candidate all[MOST_VOCAB];
    tsr_top_token top[2];
    double logprobs[MOST_VOCAB];

    toy_row(d->model, d->live[i].tokens, n, logprobs);
    for (int v = 0; v < d->model->n_vocab; v++) {
        all[v] = (tsr_beam_candidate){v, logprobs[v], 10.0 * n + v};
    }
    qsort(all, (size_t)d->model->n_vocab, sizeof(*all), by_logprob);
    for (int k = 0; k < rules->n_top; k++) {
        top[k] = (tsr_top_token){all[k].id, all[k].logprob};
    }
    tsr_beam_offer(d->beam, i, all, rules->n_offers, top, rules->n_top);
}

static tsr_status drive(driven *d, const tsr_beam_rules *rules)
{
    tsr_beam_step *steps = calloc((size_t)rules->width, sizeof(*steps));
    plain_beam *next = calloc((size_t)rules->width, sizeof(*next));
    tsr_status st = tsr_beam_create(&d->beam, rules);

    while (st == TSR_OK && tsr_beam_n_live(d->beam) > 0) {
        const int n = (int)tsr_beam_n_tokens(d->beam);

        for (int i = tsr_beam_n_live(d->beam) - 1; i >= 0; i--) {
            assert_false(tsr_beam_has_offered(d->beam, i));
            offer_row(d, i, n, rules);
            assert_true(tsr_beam_has_offered(d->beam, i));
        }
        st = tsr_beam_advance(d->beam, steps);
        for (int i = 0; st == TSR_OK && i < tsr_beam_n_live(d->beam); i++) {
            next[i] = d->live[steps[i].parent];
            next[i].tokens[n] = steps[i].token;
        }
        memcpy(d->live, next, (size_t)rules->width * sizeof(*next));
        d->n_rounds++;
    }
    free(next);
    free(steps);
    return st;
}

static void assert_same_answer(const plain_answer *plain, const tsr_beam *b, int i,
                               const tsr_beam_rules *rules, const toy *model)
{
    const tsr_beam_answer got = tsr_beam_answer_at(b, i);
    tsr_beam_place places[MOST_LENGTH];

    assert_int_equal(got.n_tokens, plain->n);
    assert_int_equal(got.is_open, plain->is_open);
    assert_memory_equal(&got.sum, &plain->sum, sizeof(got.sum));
    assert_memory_equal(&got.score, &plain->score, sizeof(got.score));
    tsr_beam_read(b, i, places);
    for (int t = 0; t < plain->n; t++) {
        double logprobs[MOST_VOCAB];
        int n_above = 0;

        assert_int_equal(places[t].token, plain->tokens[t]);
        assert_true(places[t].told == 10.0 * t + plain->tokens[t]);
        assert_int_equal(places[t].n_top, rules->n_top);
        toy_row(model, plain->tokens, t, logprobs);
        for (int v = 0; v < model->n_vocab && rules->n_top > 0; v++) {
            n_above += logprobs[v] > places[t].top[0].logprob ? 1 : 0;
        }
        assert_int_equal(n_above, 0);
    }
}

static void a_search_finds_what_a_plain_one_finds(void **state)
{
    int n_open = 0;
    int n_ended = 0;

    (void)state;
    for (int turn = 0; turn < 3000; turn++) {
        uint64_t dice = (uint64_t)turn * 77 + 5;
        const toy model = {.seed = dice_roll(&dice),
                           .n_vocab = 3 + dice_below(&dice, MOST_VOCAB - 2),
                           .n_ends = dice_below(&dice, 3),
                           .ends_with = dice_below(&dice, 2) == 0,
                           .is_coarse = dice_below(&dice, 3) == 0,
                           .has_holes = dice_below(&dice, 3) == 0};
        tsr_beam_rules rules = {.width = 1 + dice_below(&dice, MOST_WIDTH),
                                .length_penalty = dice_below(&dice, 7) * 0.5 - 1.0,
                                .stopping = (tsr_stopping)dice_below(&dice, TSR_STOPPING_COUNT),
                                .max_tokens = 1 + dice_below(&dice, MOST_LENGTH),
                                .n_top = dice_below(&dice, 3),
                                .ends = toy_ends,
                                .ctx = (void *)(uintptr_t)&model};
        plain_answer answers[MOST_WIDTH + 1];
        plain_beam live[MOST_WIDTH] = {0};
        plain_search plain = {.model = &model, .rules = rules, .answers = answers};
        driven d = {.model = &model, .live = live};

        rules.n_offers = tsr_beam_n_offers(rules.width, model.n_ends, model.n_vocab);
        plain_run(&plain);
        assert_int_equal(drive(&d, &rules), TSR_OK);
        assert_int_equal(tsr_beam_n_answers(d.beam), plain.n_answers);
        for (int i = 0; i < plain.n_answers; i++) {
            assert_same_answer(&answers[i], d.beam, i, &rules, &model);
            n_open += answers[i].is_open ? 1 : 0;
            n_ended += answers[i].is_open ? 0 : 1;
        }
        tsr_beam_destroy(d.beam);
    }
    assert_true(n_open > 1000 && n_ended > 1000);
}

/* ---- wide enough, it finds the best of all answers ---- */

static void try_all(const toy *m, int32_t *tokens, int n, int longest, double sum, double penalty,
                    double *best)
{
    double logprobs[MOST_VOCAB];

    if (n == longest) {
        *best = fmax(*best, sum / pow(n, penalty));
        return;
    }
    toy_row(m, tokens, n, logprobs);
    for (int v = 0; v < m->n_vocab; v++) {
        tokens[n] = v;
        if (v < m->n_ends) {
            *best = fmax(*best, (sum + logprobs[v]) / pow(n + 1, penalty));
        } else {
            try_all(m, tokens, n + 1, longest, sum + logprobs[v], penalty, best);
        }
    }
}

static void beams_for_all_find_the_best_of_all(void **state)
{
    (void)state;
    for (int turn = 0; turn < 20; turn++) {
        const toy model = {.seed = (uint64_t)turn, .n_vocab = 5, .n_ends = 1};
        const tsr_beam_rules rules = {.width = MOST_BEAMS, // 4 ^ 5 sequences
                                      .length_penalty = turn % 4 * 0.5,
                                      .stopping = TSR_STOPPING_NEVER,
                                      .max_tokens = 5,
                                      .n_offers = 5,
                                      .ends = toy_ends,
                                      .ctx = (void *)(uintptr_t)&model};
        plain_beam *live = calloc(MOST_BEAMS, sizeof(*live));
        driven d = {.model = &model, .live = live};
        int32_t tokens[5];
        double best = -INFINITY;

        try_all(&model, tokens, 0, 5, 0, rules.length_penalty, &best);
        assert_int_equal(drive(&d, &rules), TSR_OK);
        assert_true(tsr_beam_answer_at(d.beam, 0).score == best);
        tsr_beam_destroy(d.beam);
        free(live);
    }
}

/* ---- rules one by one ---- */

/* Rounds of given sums: beam i's offers are (token, log-probability) pairs. */
static tsr_beam *begin(int width, double penalty, tsr_stopping stopping, int64_t max_tokens)
{
    static const toy ends_at_zero = {.n_ends = 1, .n_vocab = MOST_VOCAB};
    const tsr_beam_rules rules = {.width = width,
                                  .length_penalty = penalty,
                                  .stopping = stopping,
                                  .max_tokens = max_tokens,
                                  .n_offers = MOST_VOCAB,
                                  .ends = toy_ends,
                                  .ctx = (void *)(uintptr_t)&ends_at_zero};
    tsr_beam *b = NULL;

    assert_int_equal(tsr_beam_create(&b, &rules), TSR_OK);
    return b;
}

static void offer(tsr_beam *b, int i, int n, const int32_t *ids, const double *logprobs)
{
    tsr_beam_candidate c[MOST_VOCAB];

    for (int k = 0; k < n; k++) {
        c[k] = (tsr_beam_candidate){ids[k], logprobs[k], 0};
    }
    tsr_beam_offer(b, i, c, n, NULL, 0);
}

static void equal_sums_go_by_beam_and_then_by_token(void **state)
{
    tsr_beam *b = begin(3, 1, TSR_STOPPING_USUAL, 9);
    tsr_beam_step steps[3];

    (void)state;
    offer(b, 0, 3, (int32_t[]){4, 6, 9}, (double[]){-1, -1, -1});
    assert_int_equal(tsr_beam_advance(b, steps), TSR_OK);
    assert_int_equal(steps[0].token, 4);
    assert_int_equal(steps[1].token, 6);
    assert_int_equal(steps[2].token, 9);
    offer(b, 2, 2, (int32_t[]){1, 2}, (double[]){-1, -1});
    offer(b, 1, 2, (int32_t[]){2, 3}, (double[]){-1, -1});
    offer(b, 0, 1, (int32_t[]){8}, (double[]){-1});
    assert_int_equal(tsr_beam_advance(b, steps), TSR_OK);
    assert_int_equal(steps[0].parent, 0);
    assert_int_equal(steps[0].token, 8);
    assert_int_equal(steps[1].parent, 1);
    assert_int_equal(steps[1].token, 2);
    assert_int_equal(steps[2].parent, 1);
    assert_int_equal(steps[2].token, 3);
    tsr_beam_destroy(b);
}

static void length_counts_the_end_token_and_not_the_prompt(void **state)
{
    tsr_beam *b = begin(1, 2, TSR_STOPPING_NEVER, 9);
    tsr_beam_step steps[1];

    (void)state;
    for (int t = 0; t < 2; t++) {
        offer(b, 0, 1, (int32_t[]){5}, (double[]){-1});
        assert_int_equal(tsr_beam_advance(b, steps), TSR_OK);
    }
    offer(b, 0, 2, (int32_t[]){0, 5}, (double[]){-0.7, -0.7});
    assert_int_equal(tsr_beam_advance(b, steps), TSR_OK);
    assert_int_equal(tsr_beam_n_answers(b), 1);
    assert_int_equal(tsr_beam_answer_at(b, 0).n_tokens, 2);
    assert_true(tsr_beam_answer_at(b, 0).score == -2.7 / 9);
    tsr_beam_finish(b); // the open one: -2.7 / 3 ^ 2 as well, and later
    assert_false(tsr_beam_answer_at(b, 0).is_open);
    tsr_beam_destroy(b);
}

static void an_end_below_the_first_beams_is_no_answer(void **state)
{
    tsr_beam *b = begin(2, 0, TSR_STOPPING_EARLY, 9);
    tsr_beam_step steps[2];

    (void)state;
    offer(b, 0, 4, (int32_t[]){3, 4, 0, 5}, (double[]){-1, -2, -3, -4});
    assert_int_equal(tsr_beam_advance(b, steps), TSR_OK);
    assert_int_equal(tsr_beam_n_answers(b), 0);
    offer(b, 0, 3, (int32_t[]){5, 0, 6}, (double[]){-1, -2, -9});
    offer(b, 1, 1, (int32_t[]){7}, (double[]){-5});
    assert_int_equal(tsr_beam_advance(b, steps), TSR_OK);
    assert_int_equal(tsr_beam_n_answers(b), 1); // second of all
    assert_int_equal(tsr_beam_n_live(b), 2);
    assert_int_equal(steps[1].token, 7);
    tsr_beam_destroy(b);
}

/* Of a single beam the best continuation ends the answer, with -4 / 2 = -2; the beam that lives has
 * -4.5. */
static void each_way_of_stopping_stops_where_it_says(void **state)
{
    static const struct {
        tsr_stopping stopping;
        double penalty;
        bool is_over;
    } cases[] = {
        {TSR_STOPPING_EARLY, 1, true},  // there is an answer
        {TSR_STOPPING_USUAL, 1, true},  // the best sum, -4, scores no more at length 2
        {TSR_STOPPING_NEVER, 1, false}, // but -4 / 6 at length 6
        {TSR_STOPPING_NEVER, 0, true},  // where length does not count, never more
        {TSR_STOPPING_NEVER, -1, true}, // nor where it counts against
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_beam *b = begin(1, cases[i].penalty, cases[i].stopping, 6);
        tsr_beam_step steps[1];

        offer(b, 0, 1, (int32_t[]){3}, (double[]){-1});
        assert_int_equal(tsr_beam_advance(b, steps), TSR_OK);
        offer(b, 0, 2, (int32_t[]){0, 4}, (double[]){-3, -3.5});
        assert_int_equal(tsr_beam_advance(b, steps), TSR_OK);
        assert_int_equal(tsr_beam_n_answers(b), 1);
        assert_int_equal(tsr_beam_n_live(b) == 0, cases[i].is_over);
        tsr_beam_destroy(b);
    }
}

static void what_is_impossible_is_never_taken(void **state)
{
    tsr_beam *b = begin(3, 1, TSR_STOPPING_USUAL, 9);
    tsr_beam_step steps[3];

    (void)state;
    offer(b, 0, 3, (int32_t[]){3, 4, 5}, (double[]){-1, -INFINITY, NAN});
    assert_int_equal(tsr_beam_advance(b, steps), TSR_OK);
    assert_int_equal(tsr_beam_n_live(b), 1);
    offer(b, 0, 1, (int32_t[]){3}, (double[]){-INFINITY});
    assert_int_equal(tsr_beam_advance(b, steps), TSR_OK);
    assert_int_equal(tsr_beam_n_live(b), 0);
    assert_int_equal(tsr_beam_n_answers(b), 1);
    assert_true(tsr_beam_answer_at(b, 0).is_open);
    assert_int_equal(tsr_beam_answer_at(b, 0).n_tokens, 1);
    tsr_beam_destroy(b);
}

static void offers_suffice_for_all_beams_and_ends(void **state)
{
    (void)state;
    assert_int_equal(tsr_beam_n_offers(4, 2, 1000), 10);
    assert_int_equal(tsr_beam_n_offers(4, 2, 7), 7);
    assert_int_equal(tsr_beam_n_offers(4096, 100, INT32_MAX), 8292);
}

static void what_cannot_be_is_refused(void **state)
{
    const tsr_beam_rules good = {.width = 2, .max_tokens = 3, .n_offers = 4, .ends = toy_ends};
    tsr_beam_rules bad[4] = {good, good, good, good};
    tsr_beam *b = NULL;

    (void)state;
    bad[0].width = 0;
    bad[1].width = 1 << 20;
    bad[2].length_penalty = NAN;
    bad[3].length_penalty = 11;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tsr_beam_create(&b, &bad[i]), TSR_ERR_ARG);
    }
    assert_null(b);
}

static tsr_status search_once(void *ctx)
{
    const toy model = {.seed = 4, .n_vocab = 9, .n_ends = 1};
    const tsr_beam_rules rules = {.width = 4,
                                  .length_penalty = 1,
                                  .max_tokens = MOST_LENGTH,
                                  .n_offers = 9,
                                  .n_top = 2,
                                  .ends = toy_ends,
                                  .ctx = (void *)(uintptr_t)&model};
    plain_beam live[4] = {0};
    driven d = {.model = &model, .live = live};
    const tsr_status st = drive(&d, &rules);

    (void)ctx;
    tsr_beam_destroy(d.beam);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_true(torture(search_once, NULL) >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_search_finds_what_a_plain_one_finds),
        cmocka_unit_test(beams_for_all_find_the_best_of_all),
        cmocka_unit_test(equal_sums_go_by_beam_and_then_by_token),
        cmocka_unit_test(length_counts_the_end_token_and_not_the_prompt),
        cmocka_unit_test(an_end_below_the_first_beams_is_no_answer),
        cmocka_unit_test(each_way_of_stopping_stops_where_it_says),
        cmocka_unit_test(what_is_impossible_is_never_taken),
        cmocka_unit_test(offers_suffice_for_all_beams_and_ends),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
