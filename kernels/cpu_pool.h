/*
 * kernels/cpu_pool.h - a fixed team of threads for short parallel work.
 *
 * The caller is thread 0 of the team and works too. Between calls the others spin for a short while
 * (a step has hundreds of calls a few microseconds apart) and then sleep. Own threads rather than
 * OpenMP: the wait can be bounded, ranks that share cores can yield, and thread sanitizers see
 * every hand-over.
 *
 * Threads: tsr_cpu_pool_run is called by the one thread that made the pool.
 */
#ifndef TSR_KERNELS_CPU_POOL_H
#define TSR_KERNELS_CPU_POOL_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_cpu_pool tsr_cpu_pool;

/* One share of the work; called once on each of n_threads threads, thread in [0, n_threads). */
typedef void tsr_cpu_pool_fn(void *ctx, int thread, int n_threads);

/* n_threads >= 1 counts the caller. cpus: [n_threads] logical CPUs to bind to, or NULL. Errors:
 * ARG, NOMEM, DEVICE. */
TSR_MUST_CHECK tsr_status tsr_cpu_pool_create(tsr_cpu_pool **out, int n_threads, const int *cpus);
/* NULL is fine. A caller that was bound may run again where it might before. */
void tsr_cpu_pool_destroy(tsr_cpu_pool *pool);

int tsr_cpu_pool_n_threads(const tsr_cpu_pool *pool);

/* Runs fn on all threads and returns when all have ended. */
void tsr_cpu_pool_run(tsr_cpu_pool *pool, tsr_cpu_pool_fn *fn, void *ctx);

/* The calling thread, which is none of the team, may run wherever one of the team may. */
void tsr_cpu_pool_let_in(const tsr_cpu_pool *pool);

/* Inside fn: wait until every thread of the team is here. */
void tsr_cpu_pool_barrier(tsr_cpu_pool *pool, int thread);

/* The run of n items that falls to `thread`: [*first, *end). */
static inline void tsr_cpu_pool_split(int64_t n, int thread, int n_threads, int64_t *first,
                                      int64_t *end)
{
    *first = n * thread / n_threads;
    *end = n * (thread + 1) / n_threads;
}

#ifdef __cplusplus
}
#endif

#endif
