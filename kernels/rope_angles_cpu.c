#include "kernels/rows_cpu.h"

#include <math.h>

typedef struct job {
    tsr_tensor angles;
    const int32_t *positions;
    const double *frequencies;
    float scale;
} job;

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;
    const int64_t half = j->angles.n_cols / 2;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        float *turns = tsr_rows_cpu_f32(j->angles, r);

        for (int64_t i = 0; i < half; i++) {
            const double a = (double)j->positions[r] * j->frequencies[i];

            turns[i] = (float)(cos(a) * (double)j->scale);
            turns[half + i] = (float)(sin(a) * (double)j->scale);
        }
    }
}

tsr_status tsr_rope_angles_cpu(tsr_device *dev, tsr_tensor angles, tsr_tensor positions,
                               tsr_tensor frequencies, float scale)
{
    const job j = {angles, positions.data, frequencies.data, scale};

    tsr_rows_cpu_run(dev, angles.n_rows, angles.n_cols * 15, rows, &j);
    return TSR_OK;
}
