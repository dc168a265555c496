#include "tests/emulator/stream_inside.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/emulator/simt_inside.h"

/* ---- events
 * -------------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    (void)flags;
    *event = stream_memory(1, sizeof(**event));
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    if (event->is_recorded && event->captured == NULL) {
        stream_wait_all(); // a work that stamps it may be on its way
    }
    free(event->tails);
    free(event);
    return cudaSuccess;
}

static bool stamp(stream_work *work)
{
    cudaEvent_t event = *(cudaEvent_t *)work->operands;
    struct timespec time;

    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    event->at_ms = (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
    return true;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    cudaStream_t s = stream_of(stream);

    event->is_recorded = true;
    event->captured = s->captured;
    if (s->captured != NULL) {
        free(event->tails);
        event->tails = stream_copy_ints(s->tails, s->n_tails);
        event->n_tails = s->n_tails;
        return cudaSuccess;
    }
    event->need = (stream_need){s, s->n_added + 1};
    {
        stream_work *work = stream_work_make("an event", stamp, sizeof(event));

        *(cudaEvent_t *)work->operands = event;
        stream_add(s, work);
    }
    return cudaSuccess;
}

static bool do_nothing(stream_work *work)
{
    (void)work;
    return true;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    cudaStream_t s = stream_of(stream);
    stream_work *work;

    (void)flags;
    if (!event->is_recorded) {
        return cudaSuccess;
    }
    if (event->captured != NULL) {
        if (s->captured != NULL && s->captured != event->captured) {
            return stream_fail(cudaErrorStreamCaptureMerge, "two captures meet at an event");
        }
        s->captured = event->captured;
        s->tails = realloc(s->tails, (size_t)(s->n_tails + event->n_tails + 1) * sizeof(*s->tails));
        if (s->tails == NULL) {
            stream_die("out of memory");
        }
        memcpy(s->tails + s->n_tails, event->tails, (size_t)event->n_tails * sizeof(*s->tails));
        s->n_tails += event->n_tails;
        return cudaSuccess;
    }
    if (s->captured != NULL) {
        return stream_fail(cudaErrorStreamCaptureIsolation,
                           "a captured stream waits for an event from outside");
    }
    work = stream_work_make("waiting for an event", do_nothing, 0);
    work->needs = stream_memory(1, sizeof(*work->needs));
    work->needs[0] = event->need;
    work->n_needs = 1;
    stream_add(s, work);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (event->captured != NULL) {
        return stream_fail(cudaErrorStreamCaptureUnsupported, "waiting for a captured event");
    }
    if (event->is_recorded && event->need.stream->n_ended < event->need.number) {
        stream_wait_until(event->need);
    }
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return !event->is_recorded || stream_has_passed(event->need) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t first, cudaEvent_t second)
{
    if (cudaEventQuery(first) != cudaSuccess || cudaEventQuery(second) != cudaSuccess) {
        return cudaErrorNotReady;
    }
    *ms = (float)(second->at_ms - first->at_ms);
    return cudaSuccess;
}

/* ---- graphs
 * -------------------------------------------------------------------------------------- */

struct CUgraphExec_st {
    cudaGraph_t graph; /* held */
};

static void let_go(cudaGraph_t graph)
{
    if (--graph->n_holders > 0) {
        return;
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        stream_work_free(graph->nodes[i]);
    }
    free(graph->nodes);
    free(graph);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode capture_mode)
{
    cudaStream_t s = stream_of(stream);

    (void)capture_mode;
    if (s->captured != NULL) {
        return stream_fail(cudaErrorIllegalState, "the stream is captured already");
    }
    s->captured = stream_memory(1, sizeof(*s->captured));
    s->captured->n_holders = 1;
    s->began_capture = true;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    *status =
        stream_is_captured(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

/* How many nodes lead to the ends of a stream; `seen` marks them. */
static int count_before(const struct CUgraph_st *graph, int node, bool *seen)
{
    int n = 1;

    if (seen[node]) {
        return 0;
    }
    seen[node] = true;
    for (int i = 0; i < graph->nodes[node]->n_edges; i++) {
        n += count_before(graph, graph->nodes[node]->edges[i], seen);
    }
    return n;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    cudaStream_t s = stream_of(stream);
    cudaGraph_t graph = s->captured;
    bool *seen;
    int n_joined = 0;

    if (graph == NULL || !s->began_capture) {
        return stream_fail(cudaErrorIllegalState, "the capture did not begin in this stream");
    }
    seen = stream_memory((size_t)graph->n_nodes, sizeof(*seen));
    for (int i = 0; i < s->n_tails; i++) {
        n_joined += count_before(graph, s->tails[i], seen);
    }
    free(seen);
    for (int i = 0; stream_number(i) != NULL; i++) {
        cudaStream_t other = stream_number(i);

        if (other->captured == graph) {
            other->captured = NULL;
            other->began_capture = false;
            free(other->tails);
            other->tails = NULL;
            other->n_tails = 0;
        }
    }
    if (n_joined < graph->n_nodes) {
        let_go(graph);
        return stream_fail(cudaErrorStreamCaptureUnjoined,
                           "the captured stream does not come after all works of the others");
    }
    *out = graph;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    (void)flags;
    *out = stream_memory(1, sizeof(**out));
    (*out)->graph = graph;
    graph->n_holders++;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    let_go(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    stream_wait_all();
    let_go(exec->graph);
    free(exec);
    return cudaSuccess;
}

typedef struct replay {
    cudaGraph_t graph;
    bool *has_ended; /* [n_nodes] */
    int n_ended;
} replay;

static void clear_replay(void *operands)
{
    free(((replay *)operands)->has_ended);
}

static bool may_begin(const replay *r, int node)
{
    const stream_work *work = r->graph->nodes[node];

    for (int i = 0; i < work->n_edges; i++) {
        if (!r->has_ended[work->edges[i]]) {
            return false;
        }
    }
    return !r->has_ended[node];
}

static bool run_replay(stream_work *work)
{
    replay *r = work->operands;
    const int n = r->graph->n_nodes;

    while (r->n_ended < n) {
        const uint32_t first = simt_random();
        bool has_moved = false;

        for (int i = 0; i < n && !has_moved; i++) {
            const int node = (int)((first + (uint32_t)i) % (uint32_t)n);

            if (may_begin(r, node) && r->graph->nodes[node]->run(r->graph->nodes[node])) {
                r->has_ended[node] = true;
                r->n_ended++;
                has_moved = true;
            }
        }
        if (!has_moved) {
            return false;
        }
    }
    return true;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    stream_work *work = stream_work_make("a graph", run_replay, sizeof(replay));
    replay *r = work->operands;

    r->graph = exec->graph;
    r->has_ended = stream_memory((size_t)r->graph->n_nodes, sizeof(*r->has_ended));
    work->clear = clear_replay;
    stream_add(stream, work);
    return cudaSuccess;
}
