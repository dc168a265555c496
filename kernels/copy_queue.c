#include "kernels/copy_queue.h"

#include <string.h>

#include "base/alloc.h"
#include "kernels/task_queue.h"

typedef struct copy {
    void *to;
    const void *from;
    size_t n_bytes;
} copy;

struct tsr_copy_queue {
    tsr_task_queue *tasks; // owned
    copy *copies;          // [depth], owned; that of ticket t lies at t % depth
    int64_t n_put;
    int depth;
};

tsr_status tsr_copy_queue_create(tsr_copy_queue **out, tsr_device *dev, int depth)
{
    tsr_status st = TSR_OK;
    tsr_copy_queue *queue;

    if (depth < 1) {
        return tsr_fail(TSR_ERR_ARG, "copy queue: a depth of %d", depth);
    }
    queue = tsr_alloc(1, sizeof(*queue));
    if (queue == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "copy queue");
    }
    queue->depth = depth;
    queue->copies = tsr_alloc((size_t)depth, sizeof(*queue->copies));
    if (queue->copies == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "copy queue: %d copies", depth);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, tsr_task_queue_create(&queue->tasks, depth, tsr_device_pool(dev)));
    *out = queue;
    return TSR_OK;

fail:
    tsr_copy_queue_destroy(queue);
    return st;
}

void tsr_copy_queue_destroy(tsr_copy_queue *queue)
{
    if (queue != NULL) {
        tsr_task_queue_destroy(queue->tasks);
        tsr_free(queue->copies);
        tsr_free(queue);
    }
}

static tsr_status run_copy(void *ctx)
{
    const copy *c = ctx;

    if (c->n_bytes > 0) {
        memcpy(c->to, c->from, c->n_bytes);
    }
    return TSR_OK;
}

tsr_status tsr_copy_queue_put(tsr_copy_queue *queue, tsr_copy_way way, void *to, const void *from,
                              size_t n_bytes, int64_t *ticket)
{
    copy *c = &queue->copies[queue->n_put % queue->depth];

    (void)way; // both ends are plain memory
    if (queue->n_put >= queue->depth &&
        !tsr_task_queue_is_done(queue->tasks, queue->n_put - queue->depth)) {
        return TSR_ERR_FULL;
    }
    *c = (copy){to, from, n_bytes};
    TSR_TRY(tsr_task_queue_put(queue->tasks, TSR_TASK_COPY, run_copy, c, ticket));
    queue->n_put++;
    return TSR_OK;
}

bool tsr_copy_queue_is_done(const tsr_copy_queue *queue, int64_t ticket)
{
    return tsr_task_queue_is_done(queue->tasks, ticket);
}

tsr_status tsr_copy_queue_wait(tsr_copy_queue *queue, int64_t ticket)
{
    return tsr_task_queue_wait(queue->tasks, ticket);
}

int64_t tsr_copy_queue_busy_ns(const tsr_copy_queue *queue)
{
    return tsr_task_queue_busy_ns(queue->tasks);
}
