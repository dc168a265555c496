#include "kernels/grain.h"
#include "kernels/rows_cpu.h"

#include <math.h>

typedef struct job {
    tsr_tensor sums, parts;
    const int32_t *rows;
    const float *weights;
    const float *bias;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t i = first; i < end; i++) {
        const double *part = tsr_rows_cpu_f64(j->parts, i);
        double *sum = tsr_rows_cpu_f64(j->sums, j->rows[i]);

        for (int64_t c = 0; c < j->sums.n_cols; c++) {
            sum[c] += part[c];
        }
        for (int64_t c = 0; j->bias != NULL && c < j->sums.n_cols; c++) {
            const float term = j->weights[i] * j->bias[c];

            sum[c] += fma((double)term, TSR_GRAIN_FACTOR, TSR_GRAIN_START) - TSR_GRAIN_START;
        }
    }
}

tsr_status tsr_scatter_sums_cpu(tsr_device *dev, tsr_tensor sums, tsr_tensor parts,
                                tsr_tensor row_numbers, tsr_tensor weights, tsr_tensor bias)
{
    const job j = {sums, parts, row_numbers.data, weights.data, bias.data};

    tsr_rows_cpu_run(dev, parts.n_rows, parts.n_cols / 2, rows, &j);
    return TSR_OK;
}
