#include "kernels/copy_queue.h"

#include "kernels/backend.h"

tsr_status tsr_copy_queue_create(tsr_copy_queue **out, tsr_device *dev, int depth)
{
    if (depth < 1) {
        return tsr_fail(TSR_ERR_ARG, "copy queue: a depth of %d", depth);
    }
    return dev->backend->copies_aside(out, dev, depth);
}

void tsr_copy_queue_destroy(tsr_copy_queue *queue)
{
    if (queue != NULL) {
        queue->ways->destroy(queue);
    }
}

tsr_status tsr_copy_queue_put(tsr_copy_queue *queue, tsr_copy_way way, void *to, const void *from,
                              size_t n_bytes, int64_t *ticket)
{
    return queue->ways->put(queue, way, to, from, n_bytes, ticket);
}

bool tsr_copy_queue_is_done(tsr_copy_queue *queue, int64_t ticket)
{
    return queue->ways->is_done(queue, ticket);
}

tsr_status tsr_copy_queue_wait(tsr_copy_queue *queue, int64_t ticket)
{
    return queue->ways->wait(queue, ticket);
}

int64_t tsr_copy_queue_busy_ns(const tsr_copy_queue *queue)
{
    return queue->ways->busy_ns(queue);
}
