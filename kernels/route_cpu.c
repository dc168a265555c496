#include "kernels/rows_cpu.h"

#include <float.h>
#include <math.h>

typedef struct job {
    tsr_tensor ids, weights, logits;
    const tsr_routing *routing;
} job;

static float largest(const float *x, int n)
{
    float most = -INFINITY;

    for (int i = 0; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    return most;
}

/* Marks the `wanted` largest of n, the lower number first among equals, and lists them by falling
 * size. NaN is never larger. */
static void choose(int32_t *chosen, bool *taken, const float *x, int n, int wanted)
{
    for (int i = 0; i < n; i++) {
        taken[i] = false;
    }
    for (int k = 0; k < wanted; k++) {
        int best = -1;

        for (int i = 0; i < n; i++) {
            if (!taken[i] && (best < 0 || x[i] > x[best])) {
                best = i;
            }
        }
        taken[best] = true;
        chosen[k] = best;
    }
}

/* Experts outside the best groups have no chance. */
static void keep_best_groups(float *logits, const tsr_routing *r)
{
    const int n = r->n_experts / r->n_groups;
    float best[TSR_ROUTE_MOST];
    int32_t chosen[TSR_ROUTE_MOST];
    bool taken[TSR_ROUTE_MOST];

    for (int g = 0; g < r->n_groups; g++) {
        best[g] = largest(logits + (int64_t)g * n, n);
    }
    choose(chosen, taken, best, r->n_groups, r->n_groups_used);
    for (int i = 0; i < r->n_experts; i++) {
        logits[i] = taken[i / n] ? logits[i] : -FLT_MAX;
    }
}

static void route_row(int32_t *ids, float *weights, const float *row, const tsr_routing *r)
{
    float logits[TSR_ROUTE_MOST];
    bool taken[TSR_ROUTE_MOST];
    const float most = largest(row, r->n_experts);
    double mass = 0;
    double chosen = 0;

    for (int i = 0; i < r->n_experts; i++) {
        logits[i] = row[i];
        mass += exp((double)(row[i] - most));
    }
    if (r->n_groups > 0) {
        keep_best_groups(logits, r);
    }
    choose(ids, taken, logits, r->n_experts, r->n_used);
    for (int k = 0; k < r->n_used; k++) {
        chosen += exp((double)(row[ids[k]] - most));
    }
    for (int k = 0; k < r->n_used; k++) {
        const double part = exp((double)(row[ids[k]] - most));

        // Over the chosen or over all and then normalised is the same.
        weights[k] =
            (float)(part / (r->before && !r->normalise ? mass : chosen) * (double)r->scale);
    }
}

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        route_row(tsr_rows_cpu_i32(j->ids, r), tsr_rows_cpu_f32(j->weights, r),
                  tsr_rows_cpu_f32(j->logits, r), j->routing);
    }
}

tsr_status tsr_route_cpu(tsr_device *dev, tsr_tensor ids, tsr_tensor weights, tsr_tensor logits,
                         const tsr_routing *routing)
{
    const job j = {ids, weights, logits, routing};

    tsr_rows_cpu_run(dev, logits.n_rows, (int64_t)routing->n_experts * (8 + routing->n_used), rows,
                     &j);
    return TSR_OK;
}
