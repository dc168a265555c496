#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

typedef struct job {
    const tsr_row_loops *loops;
    tsr_tensor x, angles;
    int head_dim;
    int first;
    tsr_rope_pairs pairs;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        const float *angles = tsr_rows_cpu_f32(j->angles, r);
        float *x = tsr_rows_cpu_f32(j->x, r);

        for (int64_t c = j->first; c < j->x.n_cols; c += j->head_dim) {
            j->loops->rope(x + c, angles, (int)j->angles.n_cols, j->pairs);
        }
    }
}

tsr_status tsr_rope_cpu(tsr_device *dev, tsr_tensor x, tsr_tensor angles, int head_dim, int first,
                        tsr_rope_pairs pairs)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops), x, angles, head_dim, first, pairs};

    tsr_rows_cpu_run(dev, x.n_rows, x.n_cols / 2, rows, &j);
    return TSR_OK;
}
