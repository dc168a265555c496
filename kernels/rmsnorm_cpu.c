#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

typedef struct job {
    const tsr_row_loops *loops;
    tsr_tensor out, x, weight;
    float eps;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        j->loops->rmsnorm(tsr_rows_cpu_f32(j->out, r), tsr_rows_cpu_f32(j->x, r),
                          tsr_rows_cpu_f32(j->weight, r % j->weight.n_rows), j->x.n_cols, j->eps);
    }
}

tsr_status tsr_rmsnorm_cpu(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight,
                           float eps)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops), out, x, weight, eps};

    tsr_rows_cpu_run(dev, x.n_rows, x.n_cols / 8, rows, &j);
    return TSR_OK;
}
