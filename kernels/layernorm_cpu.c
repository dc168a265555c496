#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

typedef struct job {
    const tsr_row_loops *loops;
    tsr_tensor out, x, weight, bias;
    float eps;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        const int64_t of_weight = r % j->weight.n_rows;

        j->loops->layernorm(tsr_rows_cpu_f32(j->out, r), tsr_rows_cpu_f32(j->x, r),
                            tsr_rows_cpu_f32(j->weight, of_weight),
                            j->bias.data == NULL ? NULL : tsr_rows_cpu_f32(j->bias, of_weight),
                            j->x.n_cols, j->eps);
    }
}

tsr_status tsr_layernorm_cpu(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight,
                             tsr_tensor bias, float eps)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops), out, x, weight, bias, eps};

    tsr_rows_cpu_run(dev, x.n_rows, x.n_cols / 4, rows, &j);
    return TSR_OK;
}
