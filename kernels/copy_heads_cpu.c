#include "kernels/rows_cpu.h"

#include <string.h>

typedef struct job {
    tsr_tensor out, x;
    int out_dim, to, x_dim, from, n;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;
    const int64_t n_heads = j->x.n_cols / j->x_dim;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        for (int64_t h = 0; h < n_heads; h++) {
            memcpy(tsr_rows_cpu_f32(j->out, r) + h * j->out_dim + j->to,
                   tsr_rows_cpu_f32(j->x, r) + h * j->x_dim + j->from,
                   (size_t)j->n * sizeof(float));
        }
    }
}

tsr_status tsr_copy_heads_cpu(tsr_device *dev, tsr_tensor out, int out_dim, int to, tsr_tensor x,
                              int x_dim, int from, int n)
{
    const job j = {out, x, out_dim, to, x_dim, from, n};

    tsr_rows_cpu_run(dev, x.n_rows, x.n_cols / 8, rows, &j);
    return TSR_OK;
}
