#include "engine/pool.h"

#include <math.h>

#include "base/alloc.h"
#include "engine/leader.h"
#include "engine/tell.h"

struct tsr_pool {
    tsr_pooling how;
    int64_t n_taken; // positions
    int64_t dim;
    double *sum;   // owned, [dim]
    float *vector; // owned, [dim]
    float *rows;   // owned, [HEAD_ROWS * dim]
};

tsr_status tsr_pool_create(tsr_pool **out, const tsr_engine *e, tsr_pooling how)
{
    const int64_t dim = tsr_model_config(e->model)->shape.dim;
    tsr_pool *pool = tsr_alloc(1, sizeof(*pool));

    if (pool == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for an embedding");
    }
    pool->how = how;
    pool->dim = dim;
    pool->sum = tsr_alloc((size_t)dim, sizeof(*pool->sum));
    pool->vector = tsr_alloc((size_t)dim, sizeof(*pool->vector));
    pool->rows = tsr_alloc((size_t)dim * TSR_DECODER_HEAD_ROWS, sizeof(*pool->rows));
    if (pool->sum == NULL || pool->vector == NULL || pool->rows == NULL) {
        tsr_pool_destroy(pool);
        return tsr_fail(TSR_ERR_NOMEM, "no memory for an embedding of %lld numbers",
                        (long long)dim);
    }
    *out = pool;
    return TSR_OK;
}

void tsr_pool_destroy(tsr_pool *pool)
{
    if (pool != NULL) {
        tsr_free(pool->rows);
        tsr_free(pool->vector);
        tsr_free(pool->sum);
        tsr_free(pool);
    }
}

/* Of positions [n_taken, ...): those that come again after a sequence was put back are not here. */
static tsr_status take(tsr_engine *e, tsr_pool *pool, int first_row, int n_rows)
{
    for (int at = 0; at < n_rows; at += TSR_DECODER_HEAD_ROWS) {
        const int n = n_rows - at < TSR_DECODER_HEAD_ROWS ? n_rows - at : TSR_DECODER_HEAD_ROWS;

        TSR_TRY(tsr_runner_hidden(e->runner, pool->rows, first_row + at, n));
        for (int64_t i = 0; i < n * pool->dim; i++) {
            pool->sum[i % pool->dim] += (double)pool->rows[i];
        }
    }
    pool->n_taken += n_rows;
    return TSR_OK;
}

static void tell(const tsr_group *g)
{
    const tsr_pool *pool = g->pool;
    tsr_event event = {
        .kind = TSR_EVENT_EMBEDDING, .embedding = pool->vector, .n_values = pool->dim};
    double square = 0;

    for (int64_t i = 0; i < pool->dim; i++) {
        square += pool->sum[i] * pool->sum[i];
    }
    for (int64_t i = 0; i < pool->dim; i++) {
        pool->vector[i] = square > 0 ? (float)(pool->sum[i] / sqrt(square)) : 0;
    }
    tsr_tell(g, &event);
}

tsr_status tsr_pool_rows(tsr_engine *e)
{
    const tsr_step *step = &e->step;

    for (int s = 0; s < step->n_seqs && !e->report.is_spoilt; s++) {
        const tsr_request *r = e->leader->requests[s];
        const tsr_group *g = ((const tsr_member *)r->user)->group;
        const int64_t end = step->first_pos[s] + (step->row_start[s + 1] - step->row_start[s]);
        int64_t first;

        if (g->pool == NULL) {
            continue;
        }
        first = g->pool->how == TSR_POOLING_LAST ? r->n_prompt - 1 : g->pool->n_taken;
        if (first >= end || first >= r->n_prompt) {
            continue;
        }
        TSR_TRY(take(e, g->pool, step->row_start[s] + (int)(first - step->first_pos[s]),
                     (int)(end - first)));
        if (end == r->n_prompt) {
            tell(g);
        }
    }
    return TSR_OK;
}
