/*
 * tests/emulator/stream_inside.h - what stream.c, graph.c and event.c share.
 */
#ifndef TSR_TESTS_EMULATOR_STREAM_INSIDE_H
#define TSR_TESTS_EMULATOR_STREAM_INSIDE_H

#include "tests/emulator/stream.h"

struct CUgraph_st {
    stream_work **nodes;
    int n_nodes;
    int n_holders; /* the graph itself, and what was instantiated from it */
};

struct CUstream_st {
    int id;
    int device;
    bool is_alive;
    stream_work *first, *last;
    uint64_t n_added;
    uint64_t n_ended;
    cudaGraph_t captured; /* into which graph; NULL: not captured */
    bool began_capture;
    int *tails; /* nodes that the next one comes after */
    int n_tails;
};

struct CUevent_st {
    bool is_recorded;
    stream_need need;
    cudaGraph_t captured; /* recorded in a capture */
    int *tails;
    int n_tails;
    double at_ms; /* when it passed */
};

/* Never NULL; ends the process at a stream that was destroyed or is none. */
cudaStream_t stream_of(cudaStream_t stream);

/* All there are: index 0 .. n - 1. NULL past the end. */
cudaStream_t stream_number(int i);

/* Run what must run until that work has ended. */
void stream_wait_until(stream_need need);

/* Has it ended? A program that asks again and again waits: each time one work of those that are
 * needed is run. */
bool stream_has_passed(stream_need need);

void stream_work_free(stream_work *work);
void *stream_memory(size_t n, size_t elem_bytes); /* zeroed; never NULL */
int *stream_copy_ints(const int *ints, int n);

#endif
