#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

typedef struct job {
    const tsr_row_loops *loops;
    tsr_tensor out, gate, up;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        j->loops->swiglu(tsr_rows_cpu_f32(j->out, r), tsr_rows_cpu_f32(j->gate, r),
                         tsr_rows_cpu_f32(j->up, r), j->out.n_cols);
    }
}

tsr_status tsr_swiglu_cpu(tsr_device *dev, tsr_tensor out, tsr_tensor gate, tsr_tensor up)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops), out, gate, up};

    tsr_rows_cpu_run(dev, out.n_rows, out.n_cols, rows, &j);
    return TSR_OK;
}
