#include "kernels/task_queue.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

enum {
    MESSAGE_BYTES = 240,
    HOLD_US = 100
};

typedef struct task {
    tsr_task_fn *fn;
    void *ctx;
    tsr_task_kind kind;
    tsr_status st;
    char message[MESSAGE_BYTES]; // when st is a failure
} task;

struct tsr_task_queue {
    int depth;
    task *ring;               // [depth], owned; task t lies at t % depth
    const tsr_cpu_pool *team; // whose CPUs the thread may use; NULL: the caller's
    int64_t n_put;            // written under the mutex, by the owner alone
    _Atomic int64_t n_done;   // written under the mutex, by the thread alone
    _Atomic int64_t busy_ns;
    bool ends;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t done;
    int n_made; // of the mutex and the two conditions
    pthread_t thread;
    bool has_thread;
};

/* Tasks to come until some fail, and how many do: [kind]. */
static atomic_long before_fault[TSR_TASK_KIND_COUNT];
static atomic_long faults[TSR_TASK_KIND_COUNT];

void tsr_task_queue_fail(tsr_task_kind kind, long nth, long n)
{
    atomic_store(&faults[kind], 0);
    atomic_store(&before_fault[kind], nth - 1);
    atomic_store(&faults[kind], n);
}

static atomic_bool is_held;

void tsr_task_queue_hold(bool holds)
{
    atomic_store(&is_held, holds);
}

bool tsr_task_queue_fails(tsr_task_kind kind)
{
    long n = atomic_load_explicit(&faults[kind], memory_order_relaxed);

    if (n <= 0 || atomic_fetch_sub(&before_fault[kind], 1) > 0) {
        return false;
    }
    // Several queues may come at once: no more of them fail than were asked for.
    while (n > 0 && !atomic_compare_exchange_weak(&faults[kind], &n, n - 1)) {
    }
    return n > 0;
}

static void run_task(tsr_task_queue *queue, task *t)
{
    int64_t began;

    while (atomic_load_explicit(&is_held, memory_order_relaxed)) {
        tsr_clock_sleep_us(HOLD_US);
    }
    began = tsr_clock_ns();
    t->st =
        tsr_task_queue_fails(t->kind) ? tsr_fail(TSR_ERR_IO, "a fault on purpose") : t->fn(t->ctx);
    if (t->st != TSR_OK) {
        (void)snprintf(t->message, sizeof(t->message), "%s", tsr_status_message());
    }
    atomic_fetch_add_explicit(&queue->busy_ns, tsr_clock_ns() - began, memory_order_relaxed);
}

static void *work(void *arg)
{
    tsr_task_queue *queue = arg;
    int64_t next = 0;

    if (queue->team != NULL) {
        tsr_cpu_pool_let_in(queue->team);
    }
    (void)pthread_mutex_lock(&queue->mutex);
    for (;;) {
        while (next == queue->n_put && !queue->ends) {
            (void)pthread_cond_wait(&queue->work, &queue->mutex);
        }
        if (next == queue->n_put) {
            break;
        }
        (void)pthread_mutex_unlock(&queue->mutex);
        run_task(queue, &queue->ring[next % queue->depth]);
        next++;
        (void)pthread_mutex_lock(&queue->mutex);
        atomic_store_explicit(&queue->n_done, next, memory_order_release);
        (void)pthread_cond_signal(&queue->done);
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return NULL;
}

static tsr_status make_locks(tsr_task_queue *queue)
{
    if (pthread_mutex_init(&queue->mutex, NULL) == 0) {
        queue->n_made++;
    }
    if (queue->n_made == 1 && pthread_cond_init(&queue->work, NULL) == 0) {
        queue->n_made++;
    }
    if (queue->n_made == 2 && pthread_cond_init(&queue->done, NULL) == 0) {
        queue->n_made++;
    }
    return queue->n_made == 3 ? TSR_OK : tsr_fail(TSR_ERR_NOMEM, "task queue: locks");
}

static tsr_status start_thread(tsr_task_queue *queue)
{
    sigset_t all;
    sigset_t before;
    int error;

    // Signals are for the threads that know what to do with them.
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&queue->thread, NULL, work, queue);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        return tsr_fail(TSR_ERR_DEVICE, "task queue: no thread: %s", strerror(error));
    }
    queue->has_thread = true;
    return TSR_OK;
}

tsr_status tsr_task_queue_create(tsr_task_queue **out, int depth, const tsr_cpu_pool *beside)
{
    tsr_status st = TSR_OK;
    tsr_task_queue *queue;

    if (depth < 1) {
        return tsr_fail(TSR_ERR_ARG, "task queue: a depth of %d", depth);
    }
    queue = tsr_alloc(1, sizeof(*queue));
    if (queue == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "task queue");
    }
    queue->depth = depth;
    queue->team = beside;
    queue->ring = tsr_alloc((size_t)depth, sizeof(*queue->ring));
    if (queue->ring == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "task queue: %d tasks", depth);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, make_locks(queue));
    TSR_TRY_GOTO(st, fail, start_thread(queue));
    *out = queue;
    return TSR_OK;

fail:
    tsr_task_queue_destroy(queue);
    return st;
}

void tsr_task_queue_destroy(tsr_task_queue *queue)
{
    if (queue == NULL) {
        return;
    }
    if (queue->has_thread) {
        (void)pthread_mutex_lock(&queue->mutex);
        queue->ends = true;
        (void)pthread_cond_signal(&queue->work);
        (void)pthread_mutex_unlock(&queue->mutex);
        (void)pthread_join(queue->thread, NULL);
    }
    if (queue->n_made > 2) {
        (void)pthread_cond_destroy(&queue->done);
    }
    if (queue->n_made > 1) {
        (void)pthread_cond_destroy(&queue->work);
    }
    if (queue->n_made > 0) {
        (void)pthread_mutex_destroy(&queue->mutex);
    }
    tsr_free(queue->ring);
    tsr_free(queue);
}

tsr_status tsr_task_queue_put(tsr_task_queue *queue, tsr_task_kind kind, tsr_task_fn *fn, void *ctx,
                              int64_t *ticket)
{
    task *t = &queue->ring[queue->n_put % queue->depth];

    if (queue->n_put - atomic_load_explicit(&queue->n_done, memory_order_acquire) == queue->depth) {
        return TSR_ERR_FULL;
    }
    t->fn = fn;
    t->ctx = ctx;
    t->kind = kind;
    *ticket = queue->n_put;
    (void)pthread_mutex_lock(&queue->mutex);
    queue->n_put++;
    (void)pthread_cond_signal(&queue->work);
    (void)pthread_mutex_unlock(&queue->mutex);
    return TSR_OK;
}

bool tsr_task_queue_is_done(const tsr_task_queue *queue, int64_t ticket)
{
    return atomic_load_explicit(&queue->n_done, memory_order_acquire) > ticket;
}

tsr_status tsr_task_queue_wait(tsr_task_queue *queue, int64_t ticket)
{
    const task *t = &queue->ring[ticket % queue->depth];

    assert(ticket < queue->n_put && ticket >= queue->n_put - queue->depth);
    if (!tsr_task_queue_is_done(queue, ticket)) {
        (void)pthread_mutex_lock(&queue->mutex);
        while (!tsr_task_queue_is_done(queue, ticket)) {
            (void)pthread_cond_wait(&queue->done, &queue->mutex);
        }
        (void)pthread_mutex_unlock(&queue->mutex);
    }
    return t->st == TSR_OK ? TSR_OK : tsr_fail(t->st, "%s", t->message);
}

int64_t tsr_task_queue_busy_ns(const tsr_task_queue *queue)
{
    return atomic_load_explicit(&queue->busy_ns, memory_order_relaxed);
}
