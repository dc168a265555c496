#define _GNU_SOURCE // CPU_SET and pthread_setaffinity_np

#include "kernels/cpu_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

enum {
    MAX_THREADS = 4096,
    LINE_BYTES = 64,
    SPIN_NS = 100 * 1000,       // longer than the gap between two ops of a step
    CROWDED_SPIN_NS = 2 * 1000, // more threads than CPUs: whoever we wait for needs our CPU
    PAUSES_A_LOOK = 32          // between two looks at the clock
};

/* A counter that threads wait on until it moves. */
typedef struct gate {
    atomic_uint count;
    atomic_int n_sleepers;
    pthread_mutex_t mutex;
    pthread_cond_t moved;
    char apart[LINE_BYTES]; // neighbours are written by other threads
} gate;

enum {
    START, // a run begins
    END,   // all workers have ended it
    MEET,  // all threads are at the barrier
    GATE_COUNT
};

typedef struct worker {
    tsr_cpu_pool *pool;
    int thread;
    pthread_t id;
} worker;

struct tsr_cpu_pool {
    int n_threads;
    int n_started; // workers that run, of n_threads - 1
    int n_gates;   // made
    int64_t spin_ns;
    bool bound;          // the caller, to cpus[0]
    cpu_set_t before;    // where the caller might run before
    cpu_set_t team;      // where the threads may run, together
    worker *workers;     // [n_threads - 1], owned; the caller is not among them
    tsr_cpu_pool_fn *fn; // of this run; NULL: the end
    void *ctx;
    gate gates[GATE_COUNT];
    atomic_int n_busy; // workers that have not ended this run
    char apart[LINE_BYTES];
    atomic_int n_met; // threads at the barrier
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static bool gate_init(gate *g)
{
    if (pthread_mutex_init(&g->mutex, NULL) != 0) {
        return false;
    }
    if (pthread_cond_init(&g->moved, NULL) != 0) {
        (void)pthread_mutex_destroy(&g->mutex);
        return false;
    }
    return true;
}

static void gate_clear(gate *g)
{
    (void)pthread_cond_destroy(&g->moved);
    (void)pthread_mutex_destroy(&g->mutex);
}

static void gate_move(gate *g)
{
    atomic_fetch_add(&g->count, 1);
    // Either this sees the sleeper, or the sleeper, which counts itself before its last look, sees
    // the new count: both sides are sequentially consistent.
    if (atomic_load(&g->n_sleepers) > 0) {
        (void)pthread_mutex_lock(&g->mutex);
        (void)pthread_cond_broadcast(&g->moved);
        (void)pthread_mutex_unlock(&g->mutex);
    }
}

/* Returns when the count is no longer `seen`. */
static void gate_wait(gate *g, unsigned seen, int64_t spin_ns)
{
    int64_t until = 0;

    for (;;) {
        int64_t now;

        for (int i = 0; i < PAUSES_A_LOOK; i++) {
            if (atomic_load_explicit(&g->count, memory_order_acquire) != seen) {
                return;
            }
            pause_cpu();
        }
        now = tsr_clock_ns();
        until = until == 0 ? now + spin_ns : until;
        if (now >= until) {
            break;
        }
        (void)sched_yield(); // whoever we wait for may be queued behind us on this very CPU
    }

    (void)pthread_mutex_lock(&g->mutex);
    atomic_fetch_add(&g->n_sleepers, 1);
    while (atomic_load(&g->count) == seen) {
        (void)pthread_cond_wait(&g->moved, &g->mutex);
    }
    atomic_fetch_sub(&g->n_sleepers, 1);
    (void)pthread_mutex_unlock(&g->mutex);
}

static void *work(void *arg)
{
    const worker *self = arg;
    tsr_cpu_pool *pool = self->pool;

    for (unsigned seen = 0;; seen++) {
        gate_wait(&pool->gates[START], seen, pool->spin_ns);
        if (pool->fn == NULL) {
            return NULL;
        }
        pool->fn(pool->ctx, self->thread, pool->n_threads);
        if (atomic_fetch_sub(&pool->n_busy, 1) == 1) {
            gate_move(&pool->gates[END]);
        }
    }
}

void tsr_cpu_pool_run(tsr_cpu_pool *pool, tsr_cpu_pool_fn *fn, void *ctx)
{
    const unsigned ended = atomic_load_explicit(&pool->gates[END].count, memory_order_relaxed);

    if (pool->n_threads == 1) {
        fn(ctx, 0, 1);
        return;
    }
    pool->fn = fn;
    pool->ctx = ctx;
    atomic_store_explicit(&pool->n_busy, pool->n_threads - 1, memory_order_relaxed);
    gate_move(&pool->gates[START]);
    fn(ctx, 0, pool->n_threads);
    gate_wait(&pool->gates[END], ended, pool->spin_ns);
}

void tsr_cpu_pool_barrier(tsr_cpu_pool *pool, int thread)
{
    const unsigned seen = atomic_load(&pool->gates[MEET].count);

    (void)thread;
    if (atomic_fetch_add(&pool->n_met, 1) + 1 == pool->n_threads) {
        atomic_store(&pool->n_met, 0); // before anyone can come to the next barrier
        gate_move(&pool->gates[MEET]);
    } else {
        gate_wait(&pool->gates[MEET], seen, pool->spin_ns);
    }
}

int tsr_cpu_pool_n_threads(const tsr_cpu_pool *pool)
{
    return pool->n_threads;
}

static tsr_status bind_thread(pthread_t id, int thread, int cpu)
{
    cpu_set_t one;
    int error;

    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    error = pthread_setaffinity_np(id, sizeof(one), &one);
    if (error != 0) {
        return tsr_fail(TSR_ERR_DEVICE, "cpu pool: thread %d cannot be bound to CPU %d: %s", thread,
                        cpu, strerror(error));
    }
    return TSR_OK;
}

/* CPUs that the threads may run on together. */
static void find_team(tsr_cpu_pool *pool, const int *cpus)
{
    pool->team = pool->before;
    if (cpus != NULL) {
        CPU_ZERO(&pool->team);
        for (int i = 0; i < pool->n_threads; i++) {
            CPU_SET((size_t)cpus[i], &pool->team);
        }
    }
}

void tsr_cpu_pool_let_in(const tsr_cpu_pool *pool)
{
    (void)pthread_setaffinity_np(pthread_self(), sizeof(pool->team), &pool->team);
}

static tsr_status start_workers(tsr_cpu_pool *pool, const int *cpus)
{
    sigset_t all;
    sigset_t mask;
    tsr_status st = TSR_OK;

    // Signals are for the threads that know what to do with them.
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &mask);
    for (int i = 0; i < pool->n_threads - 1 && st == TSR_OK; i++) {
        worker *w = &pool->workers[i];
        int error;

        w->pool = pool;
        w->thread = i + 1;
        error = pthread_create(&w->id, NULL, work, w);
        if (error != 0) {
            st = tsr_fail(TSR_ERR_DEVICE, "cpu pool: thread %d of %d cannot be started: %s", i + 1,
                          pool->n_threads, strerror(error));
        } else {
            pool->n_started++;
            st = cpus != NULL ? bind_thread(w->id, w->thread, cpus[w->thread]) : TSR_OK;
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
    return st;
}

tsr_status tsr_cpu_pool_create(tsr_cpu_pool **out, int n_threads, const int *cpus)
{
    tsr_status st = TSR_OK;
    tsr_cpu_pool *pool;

    if (n_threads < 1 || n_threads > MAX_THREADS) {
        return tsr_fail(TSR_ERR_ARG, "cpu pool: %d threads; 1 to %d are possible", n_threads,
                        MAX_THREADS);
    }
    for (int i = 0; cpus != NULL && i < n_threads; i++) {
        if (cpus[i] < 0 || cpus[i] >= CPU_SETSIZE) {
            return tsr_fail(TSR_ERR_ARG,
                            "cpu pool: thread %d on CPU %d; there is none of that number", i,
                            cpus[i]);
        }
    }
    pool = tsr_alloc(1, sizeof(*pool));
    if (pool == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "cpu pool");
    }
    pool->n_threads = n_threads;
    pool->workers = tsr_alloc((size_t)n_threads - 1, sizeof(*pool->workers));
    if (pool->workers == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "cpu pool: %d threads", n_threads);
        goto fail;
    }
    (void)pthread_getaffinity_np(pthread_self(), sizeof(pool->before), &pool->before);
    find_team(pool, cpus);
    pool->spin_ns = n_threads > CPU_COUNT(&pool->team) ? CROWDED_SPIN_NS : SPIN_NS;
    for (; pool->n_gates < GATE_COUNT; pool->n_gates++) {
        if (!gate_init(&pool->gates[pool->n_gates])) {
            st = tsr_fail(TSR_ERR_NOMEM, "cpu pool: locks");
            goto fail;
        }
    }
    TSR_TRY_GOTO(st, fail, start_workers(pool, cpus));
    if (cpus != NULL) {
        TSR_TRY_GOTO(st, fail, bind_thread(pthread_self(), 0, cpus[0]));
        pool->bound = true;
    }
    *out = pool;
    return TSR_OK;

fail:
    tsr_cpu_pool_destroy(pool);
    return st;
}

void tsr_cpu_pool_destroy(tsr_cpu_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    if (pool->n_started > 0) {
        pool->fn = NULL;
        gate_move(&pool->gates[START]);
        for (int i = 0; i < pool->n_started; i++) {
            (void)pthread_join(pool->workers[i].id, NULL);
        }
    }
    if (pool->bound) {
        (void)pthread_setaffinity_np(pthread_self(), sizeof(pool->before), &pool->before);
    }
    for (int i = 0; i < pool->n_gates; i++) {
        gate_clear(&pool->gates[i]);
    }
    tsr_free(pool->workers);
    tsr_free(pool);
}
