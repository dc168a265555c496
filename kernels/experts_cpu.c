#include "kernels/grain.h"
#include "kernels/rows_cpu.h"

#include <math.h>

/* What the ops over sorted rows do on a CPU: counting, and an expert after another. */

tsr_status tsr_sort_experts_cpu(tsr_device *dev, tsr_tensor start, tsr_tensor rows,
                                tsr_tensor weights, tsr_tensor places, tsr_tensor ids,
                                tsr_tensor chosen)
{
    int32_t *at = start.data;
    const int64_t n_experts = start.n_cols - 1;

    (void)dev;
    for (int64_t e = 0; e <= n_experts; e++) {
        at[e] = 0;
    }
    for (int64_t i = 0; i < ids.n_rows * ids.n_cols; i++) {
        at[tsr_rows_cpu_i32(ids, i / ids.n_cols)[i % ids.n_cols] + 1]++;
    }
    for (int64_t e = 0; e < n_experts; e++) {
        at[e + 1] += at[e];
    }
    for (int64_t r = 0; r < ids.n_rows; r++) {
        for (int64_t k = 0; k < ids.n_cols; k++) {
            const int32_t place = at[tsr_rows_cpu_i32(ids, r)[k]]++;

            ((int32_t *)rows.data)[place] = (int32_t)r;
            ((float *)weights.data)[place] = tsr_rows_cpu_f32(chosen, r)[k];
            tsr_rows_cpu_i32(places, r)[k] = place;
        }
    }
    for (int64_t e = n_experts; e > 0; e--) { // each start has moved to the next one's
        at[e] = at[e - 1];
    }
    at[0] = 0;
    return TSR_OK;
}

/* Rows [first, first + n) of a tensor. */
static tsr_tensor rows_of(tsr_tensor t, int64_t first, int64_t n)
{
    t.data = (char *)t.data + (size_t)(first * t.stride) * tsr_dtype_bytes(t.dtype);
    t.n_rows = n;
    return t;
}

tsr_status tsr_matmul_experts_cpu(tsr_device *dev, const tsr_expert_product *products,
                                  int n_products, tsr_tensor x, tsr_tensor start, int64_t most_rows,
                                  tsr_activations activations)
{
    const int32_t *at = start.data;

    (void)most_rows;
    for (int64_t e = 0; e + 1 < start.n_cols; e++) {
        const int64_t n = at[e + 1] - at[e];
        tsr_weight weights[TSR_MAX_PRODUCTS];
        tsr_product own[TSR_MAX_PRODUCTS];

        for (int p = 0; p < n_products; p++) {
            const tsr_expert_weights *from = products[p].weights;

            weights[p] = from->first;
            if (weights[p].tiles != NULL) {
                weights[p].tiles = (const char *)from->first.tiles + e * from->apart_bytes;
            }
            own[p] = (tsr_product){&weights[p], rows_of(products[p].out, at[e], n), from->bias};
            if (from->bias.data != NULL) {
                own[p].bias = rows_of(from->bias, e, 1);
            }
        }
        if (n > 0) {
            TSR_TRY(tsr_matmul_cpu(dev, own, n_products, rows_of(x, at[e], n), activations));
        }
    }
    return TSR_OK;
}

typedef struct adding {
    tsr_tensor sums, parts, ids, places, bias;
    const float *weights;
    int64_t first, n_here;
} adding;

static void add_rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const adding *a = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        double *sum = tsr_rows_cpu_f64(a->sums, r);

        for (int64_t k = 0; k < a->ids.n_cols; k++) {
            const int64_t e = tsr_rows_cpu_i32(a->ids, r)[k] - a->first;
            const int32_t place = tsr_rows_cpu_i32(a->places, r)[k];
            const double *part = tsr_rows_cpu_f64(a->parts, place);
            const float *bias = a->bias.data;

            if (e < 0 || e >= a->n_here) {
                continue;
            }
            for (int64_t c = 0; c < a->sums.n_cols; c++) {
                sum[c] += part[c];
            }
            for (int64_t c = 0; bias != NULL && c < a->sums.n_cols; c++) {
                const float term = a->weights[place] * bias[e * a->bias.stride + c];

                sum[c] += fma((double)term, TSR_GRAIN_FACTOR, TSR_GRAIN_START) - TSR_GRAIN_START;
            }
        }
    }
}

tsr_status tsr_add_experts_cpu(tsr_device *dev, tsr_tensor sums, tsr_tensor parts, tsr_tensor ids,
                               tsr_tensor places, tsr_tensor weights, tsr_tensor bias,
                               int64_t first, int64_t n_here)
{
    const adding a = {sums, parts, ids, places, bias, weights.data, first, n_here};

    tsr_rows_cpu_run(dev, sums.n_rows, ids.n_cols * sums.n_cols / 2, add_rows, &a);
    return TSR_OK;
}
