/*
 * tests/emulator/stream.h - streams, events and graphs: when queued work is done.
 *
 * A stream is a queue of works; a work may also wait for works of other streams. Which of those
 * that may run does run is decided by the mode: lazy     nothing runs before the host waits for it,
 * and then only what it needs eager    everything runs as soon as it may random   after each call a
 * few works, of any streams (EMULATOR_SEED) A graph is a list of works with edges; a replay takes
 * them in any order that the edges allow.
 */
#ifndef TSR_TESTS_EMULATOR_STREAM_H
#define TSR_TESTS_EMULATOR_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

typedef enum stream_mode {
    STREAM_LAZY,
    STREAM_EAGER,
    STREAM_RANDOM
} stream_mode;

/* At first what EMULATOR_STREAMS says. */
void stream_set_mode(stream_mode mode, uint32_t seed);
stream_mode stream_get_mode(void);

typedef struct stream_work stream_work;

/* One attempt; false: it cannot end yet (it waits for another process), try again later. */
typedef bool stream_work_fn(stream_work *work);

typedef struct stream_need {
    cudaStream_t stream;
    uint64_t number; /* the work of it that must have ended */
} stream_need;

struct stream_work {
    const char *name;
    stream_work_fn *run;
    void *operands;                /* owned */
    void (*clear)(void *operands); /* what operands own, before they are freed; or NULL */
    stream_need *needs;
    int n_needs;
    int *edges; /* in a graph: nodes that come before */
    int n_edges;
    uint64_t number; /* in its stream, from 1 */
    stream_work *next;
};

/* A work with n_bytes of zeroed operands. Never NULL: without memory the emulator ends. */
stream_work *stream_work_make(const char *name, stream_work_fn *run, size_t n_bytes);

/* Queue it, or put it into the graph that the stream is captured into. Owns it from then on. */
void stream_add(cudaStream_t stream, stream_work *work);

bool stream_is_captured(cudaStream_t stream);
bool stream_any_captured(void);

/* Run what must run until everything that is in the stream now has ended. */
void stream_wait(cudaStream_t stream);
void stream_wait_all(void);

/* Report and end the process. */
_Noreturn void stream_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The device that calls go to (cudaSetDevice), and how a call says that it failed. */
int stream_device(void);
int stream_device_of(cudaStream_t stream);
cudaError_t stream_fail(cudaError_t error, const char *why);

#endif
