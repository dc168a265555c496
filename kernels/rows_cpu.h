/*
 * kernels/rows_cpu.h - shares out the rows of an op over the threads of a CPU. Private to the room.
 */
#ifndef TSR_KERNELS_ROWS_CPU_H
#define TSR_KERNELS_ROWS_CPU_H

#include "kernels/backend.h"

/* Rows [first, end) of an op; thread is below the pool's n_threads. */
typedef void tsr_rows_fn(const void *ctx, int64_t first, int64_t end, int thread);

/*
 * Calls fn for all rows, on several threads when the work is worth a hand-over.
 *   ns_a_row  about how long a row takes
 */
void tsr_rows_cpu_run(tsr_device *dev, int64_t n_rows, int64_t ns_a_row, tsr_rows_fn *fn,
                      const void *ctx);

static inline float *tsr_rows_cpu_f32(tsr_tensor t, int64_t row)
{
    return (float *)t.data + row * t.stride;
}
static inline double *tsr_rows_cpu_f64(tsr_tensor t, int64_t row)
{
    return (double *)t.data + row * t.stride;
}
static inline int32_t *tsr_rows_cpu_i32(tsr_tensor t, int64_t row)
{
    return (int32_t *)t.data + row * t.stride;
}

#endif
