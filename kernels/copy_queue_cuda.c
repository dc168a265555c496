#include "kernels/cuda_check.h"

#include "base/alloc.h"
#include "kernels/task_queue.h"

/* A copy on its way, or the last one that took this place. */
typedef struct passage {
    cudaEvent_t begins;
    cudaEvent_t ends;
    cudaError_t error; // once it has ended
    bool fails;        // on purpose: nothing was copied
} passage;

typedef struct copy_stream {
    tsr_copy_queue queue; // first
    tsr_device *dev;      // borrowed
    cudaStream_t stream;
    cudaEvent_t so_far; // what the device's own queue had been given when a copy was put
    passage *passages;  // [depth], owned; that of ticket t lies at t % depth
    int64_t n_put;
    int64_t n_ended; // tickets below it
    int64_t busy_ns;
    int depth;
} copy_stream;

static void destroy(tsr_copy_queue *queue)
{
    copy_stream *s = (copy_stream *)queue;

    if (s->stream != NULL) {
        (void)cudaStreamSynchronize(s->stream);
    }
    for (int i = 0; s->passages != NULL && i < s->depth; i++) {
        if (s->passages[i].begins != NULL) {
            (void)cudaEventDestroy(s->passages[i].begins);
        }
        if (s->passages[i].ends != NULL) {
            (void)cudaEventDestroy(s->passages[i].ends);
        }
    }
    if (s->so_far != NULL) {
        (void)cudaEventDestroy(s->so_far);
    }
    if (s->stream != NULL) {
        (void)cudaStreamDestroy(s->stream);
    }
    tsr_free(s->passages);
    tsr_free(s);
}

/* The oldest that was under way has ended, with `error`. */
static void note_end(copy_stream *s, cudaError_t error)
{
    passage *p = &s->passages[s->n_ended++ % s->depth];
    float ms = 0;

    p->error = error;
    if (error == cudaSuccess && cudaEventElapsedTime(&ms, p->begins, p->ends) == cudaSuccess) {
        s->busy_ns += (int64_t)((double)ms * 1e6);
    }
}

static bool is_done(tsr_copy_queue *queue, int64_t ticket)
{
    copy_stream *s = (copy_stream *)queue;

    while (s->n_ended <= ticket) {
        const cudaError_t error = cudaEventQuery(s->passages[s->n_ended % s->depth].ends);

        if (error == cudaErrorNotReady) {
            return false;
        }
        note_end(s, error);
    }
    return true;
}

static tsr_status wait(tsr_copy_queue *queue, int64_t ticket)
{
    copy_stream *s = (copy_stream *)queue;

    while (s->n_ended <= ticket) {
        note_end(s, cudaEventSynchronize(s->passages[s->n_ended % s->depth].ends));
    }
    TSR_CUDA_TRY(s->passages[ticket % s->depth].error);
    return s->passages[ticket % s->depth].fails ? tsr_fail(TSR_ERR_IO, "a fault on purpose")
                                                : TSR_OK;
}

static tsr_status put(tsr_copy_queue *queue, tsr_copy_way way, void *to, const void *from,
                      size_t n_bytes, int64_t *ticket)
{
    copy_stream *s = (copy_stream *)queue;
    passage *p = &s->passages[s->n_put % s->depth];

    if (s->n_put >= s->depth && !is_done(queue, s->n_put - s->depth)) {
        return TSR_ERR_FULL;
    }
    p->fails = tsr_task_queue_fails(TSR_TASK_COPY);
    TSR_CUDA_TRY(cudaEventRecord(s->so_far, tsr_cuda_queue(s->dev)));
    TSR_CUDA_TRY(cudaStreamWaitEvent(s->stream, s->so_far, 0));
    TSR_CUDA_TRY(cudaEventRecord(p->begins, s->stream));
    TSR_CUDA_TRY(cudaMemcpyAsync(
        to, from, n_bytes,
        way == TSR_COPY_TO_DEVICE ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, s->stream));
    TSR_CUDA_TRY(cudaEventRecord(p->ends, s->stream));
    *ticket = s->n_put++;
    return TSR_OK;
}

static int64_t busy_ns(const tsr_copy_queue *queue)
{
    return ((const copy_stream *)queue)->busy_ns;
}

static const tsr_copy_ways ways = {destroy, put, is_done, wait, busy_ns};

static tsr_status open_stream(copy_stream *s)
{
    TSR_CUDA_TRY(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking));
    TSR_CUDA_TRY(cudaEventCreateWithFlags(&s->so_far, cudaEventDisableTiming));
    for (int i = 0; i < s->depth; i++) {
        TSR_CUDA_TRY(cudaEventCreateWithFlags(&s->passages[i].begins, cudaEventDefault));
        TSR_CUDA_TRY(cudaEventCreateWithFlags(&s->passages[i].ends, cudaEventDefault));
    }
    return TSR_OK;
}

tsr_status tsr_copy_queue_cuda(tsr_copy_queue **out, tsr_device *dev, int depth)
{
    copy_stream *s = tsr_alloc(1, sizeof(*s));
    tsr_status st = TSR_OK;

    if (s == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "copy queue");
    }
    s->queue.ways = &ways;
    s->dev = dev;
    s->depth = depth;
    s->passages = tsr_alloc((size_t)depth, sizeof(*s->passages));
    if (s->passages == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "copy queue: %d copies", depth);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, open_stream(s));
    *out = &s->queue;
    return TSR_OK;

fail:
    destroy(&s->queue);
    return st;
}
