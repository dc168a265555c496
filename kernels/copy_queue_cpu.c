#include "kernels/backend.h"

#include <string.h>

#include "base/alloc.h"
#include "kernels/task_queue.h"

typedef struct copy {
    void *to;
    const void *from;
    size_t n_bytes;
} copy;

typedef struct copy_thread {
    tsr_copy_queue queue;  // first
    tsr_task_queue *tasks; // owned
    copy *copies;          // [depth], owned; that of ticket t lies at t % depth
    int64_t n_put;
    int depth;
} copy_thread;

static void destroy(tsr_copy_queue *queue)
{
    copy_thread *t = (copy_thread *)queue;

    tsr_task_queue_destroy(t->tasks);
    tsr_free(t->copies);
    tsr_free(t);
}

static tsr_status run_copy(void *ctx)
{
    const copy *c = ctx;

    if (c->n_bytes > 0) {
        memcpy(c->to, c->from, c->n_bytes);
    }
    return TSR_OK;
}

static tsr_status put(tsr_copy_queue *queue, tsr_copy_way way, void *to, const void *from,
                      size_t n_bytes, int64_t *ticket)
{
    copy_thread *t = (copy_thread *)queue;
    copy *c = &t->copies[t->n_put % t->depth];

    (void)way; // both ends are plain memory
    if (t->n_put >= t->depth && !tsr_task_queue_is_done(t->tasks, t->n_put - t->depth)) {
        return TSR_ERR_FULL;
    }
    *c = (copy){to, from, n_bytes};
    TSR_TRY(tsr_task_queue_put(t->tasks, TSR_TASK_COPY, run_copy, c, ticket));
    t->n_put++;
    return TSR_OK;
}

static bool is_done(tsr_copy_queue *queue, int64_t ticket)
{
    return tsr_task_queue_is_done(((copy_thread *)queue)->tasks, ticket);
}

static tsr_status wait(tsr_copy_queue *queue, int64_t ticket)
{
    return tsr_task_queue_wait(((copy_thread *)queue)->tasks, ticket);
}

static int64_t busy_ns(const tsr_copy_queue *queue)
{
    return tsr_task_queue_busy_ns(((const copy_thread *)queue)->tasks);
}

static const tsr_copy_ways ways = {destroy, put, is_done, wait, busy_ns};

tsr_status tsr_copy_queue_cpu(tsr_copy_queue **out, tsr_device *dev, int depth)
{
    copy_thread *t = tsr_alloc(1, sizeof(*t));
    tsr_status st = TSR_OK;

    if (t == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "copy queue");
    }
    t->queue.ways = &ways;
    t->depth = depth;
    t->copies = tsr_alloc((size_t)depth, sizeof(*t->copies));
    if (t->copies == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "copy queue: %d copies", depth);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, tsr_task_queue_create(&t->tasks, depth, dev->pool));
    *out = &t->queue;
    return TSR_OK;

fail:
    destroy(&t->queue);
    return st;
}
