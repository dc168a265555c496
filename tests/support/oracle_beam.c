#include "tests/support/oracle_beam.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct offer {
    int parent;
    int32_t token;
    double sum;
} offer;

typedef struct search {
    oracle *o;
    const oracle_beam_rules *rules;
    const int32_t *prompt;
    int n_prompt;
    oracle_answer live[ORACLE_BEAM_WIDTH];
    int n_live;
    oracle_answer *answers;
    int n_answers;
    double margin;
} search;

static void note_margin(search *s, double margin)
{
    s->margin = fmin(s->margin, margin);
}

/* Log-probabilities of what may follow a beam. */
static void row_of(search *s, const oracle_answer *beam, double *row)
{
    const oracle_beam_rules *r = s->rules;
    const int n_vocab = oracle_n_vocab(s->o);
    const int n = s->n_prompt + beam->n_ids;
    int32_t *all = malloc((size_t)n * sizeof(*all));
    double mass;

    assert_non_null(all);
    memcpy(all, s->prompt, (size_t)s->n_prompt * sizeof(*all));
    memcpy(all + s->n_prompt, beam->ids, (size_t)beam->n_ids * sizeof(*all));
    oracle_logits(s->o, all, n, 1, row);
    for (int v = 0; v < n_vocab; v++) {
        bool seen = false;
        bool generated = false;

        for (int i = 0; i < n; i++) {
            seen = seen || all[i] == v;
            generated = generated || (all[i] == v && i >= s->n_prompt);
        }
        if (seen) {
            row[v] = row[v] > 0 ? row[v] / r->repetition : row[v] * r->repetition;
        }
        row[v] -= generated ? r->presence : 0;
        if ((v == r->end_token || v == r->stop_id) && beam->n_ids < r->min_tokens) {
            row[v] = -INFINITY;
        }
    }
    free(all);
    mass = oracle_log_mass(row, n_vocab);
    for (int v = 0; v < n_vocab; v++) {
        row[v] -= mass;
    }
}

static int by_sum(const void *left, const void *right)
{
    const offer *a = left;
    const offer *b = right;

    return a->sum != b->sum ? (a->sum > b->sum ? -1 : 1) : 0;
}

static void keep(search *s, oracle_answer answer, int length)
{
    const int width = s->rules->width;
    int at = 0;

    answer.score = answer.sum / pow(length, s->rules->length_penalty);
    while (at < s->n_answers && s->answers[at].score >= answer.score) {
        at++;
    }
    if (s->n_answers == width) {
        note_margin(s, fabs(answer.score - s->answers[width - 1].score));
    }
    if (at == width) {
        return;
    }
    s->n_answers += s->n_answers < width ? 1 : 0;
    memmove(&s->answers[at + 1], &s->answers[at], (size_t)(s->n_answers - 1 - at) * sizeof(answer));
    s->answers[at] = answer;
}

static bool is_over(search *s, double best, int length)
{
    const oracle_beam_rules *r = s->rules;
    const int counted =
        r->stopping == TSR_STOPPING_NEVER && r->length_penalty > 0 ? r->max_tokens : length;
    double attainable, worst;

    if (s->n_answers < r->width || r->stopping == TSR_STOPPING_EARLY) {
        return s->n_answers == r->width;
    }
    attainable = best / pow(counted, r->length_penalty);
    worst = s->answers[r->width - 1].score;
    if (worst != attainable) { // equal: one and the same answer
        note_margin(s, fabs(worst - attainable));
    }
    return worst >= attainable;
}

/* One token more for all. */
static void advance(search *s, int length)
{
    const oracle_beam_rules *r = s->rules;
    const int n_vocab = oracle_n_vocab(s->o);
    const int n_offers = s->n_live * n_vocab;
    offer *offers = malloc((size_t)n_offers * sizeof(*offers));
    double *row = malloc((size_t)n_vocab * sizeof(*row));
    oracle_answer next[ORACLE_BEAM_WIDTH];
    int n_next = 0;

    assert_non_null(offers);
    assert_non_null(row);
    for (int i = 0; i < s->n_live; i++) {
        row_of(s, &s->live[i], row);
        for (int v = 0; v < n_vocab; v++) {
            offers[i * n_vocab + v] = (offer){i, v, s->live[i].sum + row[v]};
        }
    }
    qsort(offers, (size_t)n_offers, sizeof(*offers), by_sum);
    for (int k = 0; n_next < r->width; k++) {
        const offer *taken = &offers[k];
        oracle_answer made = s->live[taken->parent];

        assert_true(k + 1 < n_offers && taken->sum > -INFINITY);
        if (k + 1 >= r->width) { // who is in and who is out
            note_margin(s, taken->sum - offers[k + 1].sum);
        }
        made.sum = taken->sum;
        if (taken->token != r->end_token) {
            made.ids[made.n_ids++] = taken->token;
        }
        if (taken->token != r->end_token && taken->token != r->stop_id) {
            next[n_next++] = made;
        } else if (k < r->width) {
            keep(s, made, length);
        }
    }
    memcpy(s->live, next, sizeof(next));
    s->n_live = is_over(s, offers[0].sum, length) ? 0 : r->width;
    free(row);
    free(offers);
}

int oracle_beam_search(oracle *o, const int32_t *prompt, int n_prompt,
                       const oracle_beam_rules *rules, oracle_answer *answers, double *margin)
{
    search s = {.o = o,
                .rules = rules,
                .prompt = prompt,
                .n_prompt = n_prompt,
                .n_live = 1,
                .answers = answers,
                .margin = INFINITY};

    assert_in_range(rules->width, 1, ORACLE_BEAM_WIDTH);
    assert_in_range(rules->max_tokens, 1, ORACLE_BEAM_LENGTH);
    for (int n = 1; n <= rules->max_tokens && s.n_live > 0; n++) {
        advance(&s, n);
    }
    for (int i = 0; i < s.n_live; i++) {
        s.live[i].is_open = true;
        keep(&s, s.live[i], rules->max_tokens);
    }
    for (int i = 1; i < s.n_answers; i++) {
        note_margin(&s, answers[i - 1].score - answers[i].score);
    }
    *margin = s.margin;
    return s.n_answers;
}
