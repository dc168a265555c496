#include "kernels/rows_cpu.h"

#include <string.h>

typedef struct job {
    tsr_tensor out, x;
    const int32_t *from;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        memcpy(tsr_rows_cpu_f32(j->out, r), tsr_rows_cpu_f32(j->x, j->from[r]),
               (size_t)j->out.n_cols * sizeof(float));
    }
}

tsr_status tsr_gather_rows_cpu(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor rows_of_x)
{
    const job j = {out, x, rows_of_x.data};

    // What lies on this device costs nothing to look at: a wild index is told before it is
    // followed.
    for (int64_t r = 0; r < out.n_rows; r++) {
        if (j.from[r] < 0 || j.from[r] >= x.n_rows) {
            return tsr_fail(TSR_ERR_ARG, "gather_rows: row %d of %lld", (int)j.from[r],
                            (long long)x.n_rows);
        }
    }
    tsr_rows_cpu_run(dev, out.n_rows, out.n_cols / 8, rows, &j);
    return TSR_OK;
}
