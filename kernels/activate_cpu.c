#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

typedef struct job {
    const tsr_row_loops *loops;
    tsr_tensor out, gate, up;
    const float *weights;
    tsr_activation activation;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        j->loops->activate(tsr_rows_cpu_f32(j->out, r), tsr_rows_cpu_f32(j->gate, r),
                           j->up.data == NULL ? NULL : tsr_rows_cpu_f32(j->up, r), j->out.n_cols,
                           j->weights == NULL ? 1.0F : j->weights[r], j->activation);
    }
}

tsr_status tsr_activate_cpu(tsr_device *dev, tsr_tensor out, tsr_tensor gate, tsr_tensor up,
                            tsr_tensor weights, tsr_activation activation)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops), out, gate, up, weights.data, activation};

    tsr_rows_cpu_run(dev, out.n_rows, out.n_cols, rows, &j);
    return TSR_OK;
}
