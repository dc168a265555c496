/*
 * kernels/task_queue.h - one thread that carries out tasks in their order, beside the device's own
 * team: copies and file work that nobody waits for yet.
 *
 * Each task has a ticket, counted from 0. Tickets are done in order, so one number says how far the
 * thread is; looking at it costs no lock. How a task ended can be asked until `depth` more have
 * been put.
 *
 * Threads: put, look and wait are called by the one thread that made the queue.
 */
#ifndef TSR_KERNELS_TASK_QUEUE_H
#define TSR_KERNELS_TASK_QUEUE_H

#include "kernels/cpu_pool.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_task_queue tsr_task_queue;

/* What a task is about: for faults on purpose. */
typedef enum tsr_task_kind {
    TSR_TASK_COPY,
    TSR_TASK_READ,
    TSR_TASK_WRITE,
    TSR_TASK_KIND_COUNT
} tsr_task_kind;

/* Runs on the queue's thread. A failure is told by tsr_fail(), as anywhere. */
typedef tsr_status tsr_task_fn(void *ctx);

/* beside: the thread may run where this team may; NULL: where the caller may. Errors: ARG, NOMEM,
 * DEVICE (no thread). */
TSR_MUST_CHECK tsr_status tsr_task_queue_create(tsr_task_queue **out, int depth,
                                                const tsr_cpu_pool *beside);
void tsr_task_queue_destroy(tsr_task_queue *queue); /* what was put is done first; NULL is fine */

/* ctx belongs to the task until that is done. Errors: FULL (`depth` tasks are under way; no
 * message). */
TSR_MUST_CHECK tsr_status tsr_task_queue_put(tsr_task_queue *queue, tsr_task_kind kind,
                                             tsr_task_fn *fn, void *ctx, int64_t *ticket);

bool tsr_task_queue_is_done(const tsr_task_queue *queue, int64_t ticket);

/* Returns when the task is done, with what it returned; its message is this thread's then. */
TSR_MUST_CHECK tsr_status tsr_task_queue_wait(tsr_task_queue *queue, int64_t ticket);

/* Nanoseconds that the thread has spent in tasks so far. */
int64_t tsr_task_queue_busy_ns(const tsr_task_queue *queue);

/* For tests: of the tasks of a kind that begin from now on, in all queues of the process, the nth
 * (1 is the next) and the n - 1 behind it fail without being run. n = 0 switches off. */
void tsr_task_queue_fail(tsr_task_kind kind, long nth, long n);

/* Is something of the kind that begins now to fail for that? Whoever has no such queue, but does
 * such things, asks too. */
bool tsr_task_queue_fails(tsr_task_kind kind);

/* For tests: no task of the process begins until this is called with false. */
void tsr_task_queue_hold(bool holds);

#ifdef __cplusplus
}
#endif

#endif
