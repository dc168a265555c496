#include "tests/support/sampler_rows.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
    UNIT = 32 // columns that a rank sums in f32
};

static const float *sort_logits;

static int by_falling_logit(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a;
    const int32_t k = *(const int32_t *)b;

    if (sort_logits[i] != sort_logits[k]) {
        return sort_logits[i] > sort_logits[k] ? -1 : 1;
    }
    return i < k ? -1 : 1;
}

void make_row(row *r, const float *logits, int n, const tsr_sampling *sampling)
{
    const float sharpness = tsr_sampler_sharpness(sampling);
    float parts[2 * (MAX_VOCAB / UNIT + 1)];
    int n_units = 0;

    r->n = n;
    for (int i = 0; i < n; i++) {
        r->ids[i] = i;
    }
    sort_logits = logits;
    qsort(r->ids, (size_t)n, sizeof(r->ids[0]), by_falling_logit);
    for (int i = 0; i < n; i++) {
        r->logits[i] = logits[r->ids[i]];
    }
    for (int first = 0; first < n; first += UNIT, n_units++) {
        const int end = first + UNIT < n ? first + UNIT : n;
        float best = -INFINITY;
        float sum = 0.0f;

        for (int i = first; i < end; i++) {
            best = fmaxf(best, logits[i]);
        }
        for (int i = first; i < end && best > -INFINITY; i++) {
            sum += expf((logits[i] - best) * sharpness);
        }
        parts[2 * n_units] = best;
        parts[2 * n_units + 1] = sum;
    }
    r->log_mass = tsr_sampler_log_mass(parts, n_units, (double)sharpness);
}

tsr_candidates first_of(const row *r, int n)
{
    n = n < r->n ? n : r->n;
    return (tsr_candidates){r->ids, r->logits, n, n == r->n, r->log_mass};
}

int32_t pick_whole(const tsr_sampling *sampling, const row *r, int64_t position)
{
    const tsr_candidates all = first_of(r, r->n);
    int32_t token = -1;

    assert_int_equal(tsr_sampler_pick(sampling, position, &all, &token), TSR_SAMPLER_DECIDED);
    return token;
}

/* p [n] of the tokens order [n], by falling p and with sum 1: typical-p by its definition. */
static void keep_typical(double *p, const int32_t *order, int n, double typical_p)
{
    bool in[MAX_VOCAB] = {false};
    double entropy = 0.0;
    double mass = 0.0;

    for (int i = 0; i < n; i++) {
        entropy -= p[order[i]] * log(p[order[i]]);
    }
    while (mass < typical_p) {
        int nearest = -1;

        for (int i = 0; i < n; i++) {
            if (!in[i] && (nearest < 0 || fabs(-log(p[order[i]]) - entropy) <
                                              fabs(-log(p[order[nearest]]) - entropy))) {
                nearest = i;
            }
        }
        if (nearest < 0) {
            break;
        }
        in[nearest] = true;
        mass += p[order[nearest]];
    }
    for (int i = 0; i < n; i++) {
        p[order[i]] = in[i] ? p[order[i]] / mass : 0.0;
    }
}

void exact_probabilities(double *p, const float *logits, int n, const tsr_sampling *s)
{
    int32_t order[MAX_VOCAB];
    double total = 0.0;
    int keep = n;

    for (int i = 0; i < n; i++) {
        order[i] = i;
        p[i] = exp((double)logits[i] / (double)s->temperature);
    }
    sort_logits = logits;
    qsort(order, (size_t)n, sizeof(order[0]), by_falling_logit);
    if (s->top_k > 0 && s->top_k < keep) {
        keep = s->top_k;
    }
    for (int i = 0; i < keep; i++) {
        total += p[order[i]];
    }
    if (s->top_p < 1.0f) {
        double mass = 0.0;
        int n_in = 0;

        while (n_in < keep && mass < (double)s->top_p * total) {
            mass += p[order[n_in++]];
        }
        keep = n_in;
    }
    while (keep > 1 && p[order[keep - 1]] < (double)s->min_p * p[order[0]]) {
        keep--;
    }
    total = 0.0;
    for (int i = 0; i < keep; i++) {
        total += p[order[i]];
    }
    for (int i = 0; i < n; i++) {
        p[order[i]] = i < keep ? p[order[i]] / total : 0.0;
    }
    if (s->typical_p > 0.0f && s->typical_p < 1.0f) {
        keep_typical(p, order, keep, (double)s->typical_p);
    }
}
