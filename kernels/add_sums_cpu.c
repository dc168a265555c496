#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

typedef struct job {
    const tsr_row_loops *loops;
    tsr_tensor x, sums;
    const float *bias;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        j->loops->add_sums(tsr_rows_cpu_f32(j->x, r), tsr_rows_cpu_f64(j->sums, r), j->bias,
                           j->x.n_cols);
    }
}

tsr_status tsr_add_sums_cpu(tsr_device *dev, tsr_tensor x, tsr_tensor sums, tsr_tensor bias)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops), x, sums, bias.data};

    tsr_rows_cpu_run(dev, x.n_rows, x.n_cols / 8, rows, &j);
    return TSR_OK;
}
