#include "kernels/grain.h"
#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

#include <math.h>

typedef struct job {
    const tsr_row_loops *loops;
    tsr_tensor x, sums;
    int head_dim;
    const tsr_tensor *parts;
    int n_parts;
    const float *weight;
    int64_t n_whole;
    float eps;
} job;

static void sum_rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        const float *x = tsr_rows_cpu_f32(j->x, r);
        double sum = TSR_GRAIN_START;

        for (int64_t c = 0; c < j->x.n_cols; c += j->head_dim) {
            sum = fma((double)j->loops->squares(x + c, j->head_dim), TSR_GRAIN_FACTOR, sum);
        }
        *tsr_rows_cpu_f64(j->sums, r) = sum - TSR_GRAIN_START;
    }
}

tsr_status tsr_square_sums_cpu(tsr_device *dev, tsr_tensor sums, tsr_tensor x, int head_dim)
{
    const job j = {
        .loops = TSR_ISA_PICK(dev->isa, tsr_row_loops), .x = x, .sums = sums, .head_dim = head_dim};

    tsr_rows_cpu_run(dev, x.n_rows, x.n_cols / 8, sum_rows, &j);
    return TSR_OK;
}

static void norm_rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        float *x = tsr_rows_cpu_f32(j->x, r);
        double sum = 0;
        float scale;

        for (int p = 0; p < j->n_parts; p++) {
            sum += *tsr_rows_cpu_f64(j->parts[p], r);
        }
        scale = 1.0F / sqrtf((float)sum / (float)j->n_whole + j->eps);
        for (int64_t c = 0; c < j->x.n_cols; c++) {
            x[c] = x[c] * scale * j->weight[c];
        }
    }
}

tsr_status tsr_rmsnorm_shared_cpu(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts,
                                  int n_parts, tsr_tensor weight, int64_t n_whole, float eps)
{
    const job j = {.x = x,
                   .parts = parts,
                   .n_parts = n_parts,
                   .weight = weight.data,
                   .n_whole = n_whole,
                   .eps = eps};

    tsr_rows_cpu_run(dev, x.n_rows, x.n_cols / 8, norm_rows, &j);
    return TSR_OK;
}
