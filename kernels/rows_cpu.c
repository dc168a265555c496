#include "kernels/rows_cpu.h"

enum {
    HAND_OVER_NS = 3000 // below this much work in all, one thread has ended before two have begun
};

typedef struct job {
    tsr_rows_fn *fn;
    const void *ctx;
    int64_t n_rows;
} job;

static void share(void *ctx, int thread, int n_threads)
{
    const job *all = ctx;
    int64_t first;
    int64_t end;

    tsr_cpu_pool_split(all->n_rows, thread, n_threads, &first, &end);
    if (first < end) {
        all->fn(all->ctx, first, end, thread);
    }
}

void tsr_rows_cpu_run(tsr_device *dev, int64_t n_rows, int64_t ns_a_row, tsr_rows_fn *fn,
                      const void *ctx)
{
    job all = {fn, ctx, n_rows};

    if (n_rows <= 1 || n_rows * ns_a_row < HAND_OVER_NS) {
        fn(ctx, 0, n_rows, 0);
    } else {
        tsr_cpu_pool_run(dev->pool, share, &all);
    }
}
