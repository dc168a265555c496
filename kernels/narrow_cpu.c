#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

typedef struct job {
    const tsr_row_loops *loops;
    tsr_tensor x;
    const tsr_tensor *parts;
    int n_parts;
    const float *bias;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;
    const double *parts[TSR_MAX_PARTS];

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        for (int p = 0; p < j->n_parts; p++) {
            parts[p] = tsr_rows_cpu_f64(j->parts[p], r);
        }
        j->loops->narrow(tsr_rows_cpu_f32(j->x, r), parts, j->n_parts, j->x.n_cols);
        for (int64_t c = 0; j->bias != NULL && c < j->x.n_cols; c++) {
            tsr_rows_cpu_f32(j->x, r)[c] += j->bias[c];
        }
    }
}

tsr_status tsr_narrow_cpu(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts, int n_parts,
                          tsr_tensor bias)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops), x, parts, n_parts, bias.data};

    tsr_rows_cpu_run(dev, x.n_rows, x.n_cols / 8, rows, &j);
    return TSR_OK;
}
