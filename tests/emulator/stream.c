#include "tests/emulator/stream_inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/emulator/simt.h"
#include "tests/emulator/simt_inside.h"

enum {
    MAX_STREAMS = 4096
};

static stream_mode mode;
static bool mode_is_set;
static cudaStream_t streams[MAX_STREAMS];
static int n_streams;
static int current_device;
static cudaError_t last_error;

void stream_die(const char *format, ...)
{
    va_list arguments;

    (void)fprintf(stderr, "emulator: ");
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    _exit(SIMT_EXIT);
}

void *stream_memory(size_t n, size_t elem_bytes)
{
    void *memory = calloc(n == 0 ? 1 : n, elem_bytes);

    if (memory == NULL) {
        stream_die("out of memory");
    }
    return memory;
}

int *stream_copy_ints(const int *ints, int n)
{
    int *copy = stream_memory((size_t)n, sizeof(*copy));

    if (n > 0) {
        memcpy(copy, ints, (size_t)n * sizeof(*copy));
    }
    return copy;
}

/* ---- modes and devices
 * --------------------------------------------------------------------------- */

void stream_set_mode(stream_mode wanted, uint32_t seed)
{
    mode = wanted;
    mode_is_set = true;
    simt_set_order(simt_get_order(), seed);
}

stream_mode stream_get_mode(void)
{
    const char *wanted = getenv("EMULATOR_STREAMS");

    if (!mode_is_set) {
        mode_is_set = true;
        mode = wanted == NULL                  ? STREAM_LAZY
               : strcmp(wanted, "eager") == 0  ? STREAM_EAGER
               : strcmp(wanted, "random") == 0 ? STREAM_RANDOM
                                               : STREAM_LAZY;
    }
    return mode;
}

cudaError_t stream_fail(cudaError_t error, const char *why)
{
    last_error = error;
    (void)fprintf(stderr, "emulator: error %d: %s\n", (int)error, why);
    return error;
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t error = last_error;

    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

int stream_device(void)
{
    return current_device;
}

int stream_device_of(cudaStream_t stream)
{
    return stream_of(stream)->device;
}

cudaError_t cudaSetDevice(int device)
{
    int n_devices = 0;

    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || device < 0 || device >= n_devices) {
        return stream_fail(cudaErrorInvalidDevice, "cudaSetDevice: there is no such device");
    }
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return cudaSuccess;
}

/* ---- works
 * --------------------------------------------------------------------------------------- */

stream_work *stream_work_make(const char *name, stream_work_fn *run, size_t n_bytes)
{
    stream_work *work = stream_memory(1, sizeof(*work));

    work->name = name;
    work->run = run;
    work->operands = stream_memory(1, n_bytes == 0 ? 1 : n_bytes);
    return work;
}

void stream_work_free(stream_work *work)
{
    if (work->clear != NULL) {
        work->clear(work->operands);
    }
    free(work->operands);
    free(work->needs);
    free(work->edges);
    free(work);
}

cudaStream_t stream_of(cudaStream_t stream)
{
    if (stream == NULL || stream == cudaStreamLegacy || stream == cudaStreamPerThread) {
        stream_die("work without a stream: the default stream is not used in this project");
    }
    for (int i = 0; i < n_streams; i++) {
        if (streams[i] == stream) {
            if (!stream->is_alive) {
                stream_die("stream %d was destroyed", stream->id);
            }
            return stream;
        }
    }
    stream_die("%p is not a stream", (void *)stream);
}

cudaStream_t stream_number(int i)
{
    return i < n_streams ? streams[i] : NULL;
}

static bool may_run(const struct CUstream_st *s)
{
    if (s->first == NULL) {
        return false;
    }
    for (int i = 0; i < s->first->n_needs; i++) {
        if (s->first->needs[i].stream->n_ended < s->first->needs[i].number) {
            return false;
        }
    }
    return true;
}

static bool run_first(cudaStream_t s)
{
    stream_work *work = s->first;

    if (!work->run(work)) {
        return false;
    }
    s->n_ended = work->number;
    s->first = work->next;
    s->last = s->first == NULL ? NULL : s->last;
    stream_work_free(work);
    return true;
}

/* After a call: what the mode lets run. */
static void run_some(void)
{
    bool has_moved = stream_get_mode() == STREAM_EAGER;
    uint32_t n = stream_get_mode() == STREAM_RANDOM ? simt_random() % 4 : 0;

    while (has_moved) {
        has_moved = false;
        for (int i = 0; i < n_streams; i++) {
            has_moved = (may_run(streams[i]) && run_first(streams[i])) || has_moved;
        }
    }
    for (; n > 0; n--) {
        cudaStream_t s = streams[simt_random() % (uint32_t)n_streams];

        if (may_run(s)) {
            (void)run_first(s);
        }
    }
}

/* EMULATOR_COUNT: how much the program queued. */
static uint64_t n_queued;
static uint64_t n_graphs;
static uint64_t n_kernels; // those in graphs aside

static void tell_counts(void)
{
    (void)fprintf(
        stderr, "emulator: %llu works were queued, %llu kernels and %llu of them graphs\n",
        (unsigned long long)n_queued, (unsigned long long)n_kernels, (unsigned long long)n_graphs);
}

static void count(const stream_work *work)
{
    if (n_queued == 0 && getenv("EMULATOR_COUNT") != NULL) {
        (void)atexit(tell_counts);
    }
    n_queued++;
    n_graphs += strcmp(work->name, "a graph") == 0;
    n_kernels += strncmp(work->name, "_Z", 2) == 0; // mangled
}

void stream_add(cudaStream_t stream, stream_work *work)
{
    cudaStream_t s = stream_of(stream);
    cudaGraph_t graph = s->captured;

    if (graph != NULL) {
        work->edges = stream_copy_ints(s->tails, s->n_tails);
        work->n_edges = s->n_tails;
        graph->nodes = realloc(graph->nodes, ((size_t)graph->n_nodes + 1) * sizeof(*graph->nodes));
        if (graph->nodes == NULL) {
            stream_die("out of memory");
        }
        graph->nodes[graph->n_nodes++] = work;
        free(s->tails);
        s->tails = stream_copy_ints(&(int){graph->n_nodes - 1}, 1);
        s->n_tails = 1;
        return;
    }
    count(work);
    work->number = ++s->n_added;
    if (s->last == NULL) {
        s->first = work;
    } else {
        s->last->next = work;
    }
    s->last = work;
    run_some();
}

bool stream_is_captured(cudaStream_t stream)
{
    return stream_of(stream)->captured != NULL;
}

bool stream_any_captured(void)
{
    for (int i = 0; i < n_streams; i++) {
        if (streams[i]->captured != NULL) {
            return true;
        }
    }
    return false;
}

/* ---- waiting
 * ------------------------------------------------------------------------------------- */

/* Mark the streams whose first work must run for work `number` of `s` to end. */
static void mark_needed(cudaStream_t s, uint64_t number, uint64_t *wanted)
{
    const int id = s->id;

    if (s->n_ended >= number || wanted[id] >= number) {
        return;
    }
    wanted[id] = number;
    for (const stream_work *w = s->first; w != NULL && w->number <= number; w = w->next) {
        for (int i = 0; i < w->n_needs; i++) {
            mark_needed(w->needs[i].stream, w->needs[i].number, wanted);
        }
    }
}

static double now_s(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double patience_s(void)
{
    const char *seconds = getenv("EMULATOR_PATIENCE");

    return seconds != NULL ? atof(seconds) : 60;
}

/* Run one of the works that work `number` of `s` needs; *stuck: one that may run but cannot end. */
static bool advance(cudaStream_t s, uint64_t number, cudaStream_t *stuck)
{
    uint64_t *wanted = stream_memory((size_t)n_streams, sizeof(*wanted));
    const uint32_t first = simt_random();
    bool has_moved = false;

    *stuck = NULL;
    mark_needed(s, number, wanted);
    for (int i = 0; i < n_streams && !has_moved; i++) {
        cudaStream_t candidate = streams[(first + (uint32_t)i) % (uint32_t)n_streams];

        if (wanted[candidate->id] > 0 && may_run(candidate)) {
            *stuck = candidate;
            has_moved = run_first(candidate);
        }
    }
    free(wanted);
    return has_moved;
}

bool stream_has_passed(stream_need need)
{
    cudaStream_t stuck;

    if (need.stream->n_ended < need.number) {
        (void)advance(need.stream, need.number, &stuck);
    }
    return need.stream->n_ended >= need.number;
}

static void wait_for(cudaStream_t s, uint64_t number)
{
    double last_move = now_s();

    while (s->n_ended < number) {
        cudaStream_t stuck;

        if (advance(s, number, &stuck)) {
            last_move = now_s();
        } else if (stuck == NULL) {
            stream_die("stream %d can never end: works wait for each other", s->id);
        } else if (now_s() - last_move > patience_s()) {
            stream_die("hang: stream %d waits in %s", stuck->id, stuck->first->name);
        } else {
            (void)usleep(50);
        }
    }
}

void stream_wait_until(stream_need need)
{
    wait_for(need.stream, need.number);
}

void stream_wait(cudaStream_t stream)
{
    cudaStream_t s = stream_of(stream);

    wait_for(s, s->n_added);
}

void stream_wait_all(void)
{
    for (int i = 0; i < n_streams; i++) {
        wait_for(streams[i], streams[i]->n_added);
    }
}

/* ---- what programs call
 * -------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    cudaStream_t s;

    if (flags != cudaStreamNonBlocking || n_streams == MAX_STREAMS) {
        return stream_fail(cudaErrorInvalidValue,
                           "cudaStreamCreateWithFlags: only non-blocking streams");
    }
    s = stream_memory(1, sizeof(*s));
    s->id = n_streams;
    s->device = current_device;
    s->is_alive = true;
    streams[n_streams++] = s;
    *stream = s;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    stream_wait(stream);
    stream->is_alive = false; // kept: events may still name it
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (stream_is_captured(stream)) {
        return stream_fail(cudaErrorStreamCaptureUnsupported,
                           "cudaStreamSynchronize of a captured stream");
    }
    stream_wait(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    cudaStream_t s = stream_of(stream);

    return stream_has_passed((stream_need){s, s->n_added}) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void)
{
    stream_wait_all();
    return cudaSuccess;
}

typedef struct call {
    cudaHostFn_t fn;
    void *operand;
} call;

static bool run_call(stream_work *work)
{
    const call *c = work->operands;

    c->fn(c->operand);
    return true;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *operand)
{
    stream_work *work = stream_work_make("a host function", run_call, sizeof(call));

    *(call *)work->operands = (call){fn, operand};
    stream_add(stream, work);
    return cudaSuccess;
}
