/*
 * parallel/fault.h - things that go wrong on purpose, for tests of how a job dies.
 *
 * TSR_FAULT=RANK:WHAT@STEP, for example 1:kill@57: at step 57 rank 1
 *   kill   is killed (SIGKILL)
 *   stop   is stopped (SIGSTOP)
 *   alloc  finds no memory at its next allocation
 *   page   reads a page of a mapped file that is no longer there (SIGBUS)
 *   segv   is ended by SIGSEGV
 *
 * Threads: the thread that owns the world.
 */
#ifndef TSR_PARALLEL_FAULT_H
#define TSR_PARALLEL_FAULT_H

#include "parallel/world.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_fault_kind {
    TSR_FAULT_NONE,
    TSR_FAULT_KILL,
    TSR_FAULT_STOP,
    TSR_FAULT_ALLOC,
    TSR_FAULT_PAGE,
    TSR_FAULT_SEGV,
    TSR_FAULT_COUNT
} tsr_fault_kind;

typedef struct tsr_fault {
    tsr_fault_kind kind;
    int rank;
    int64_t step;
} tsr_fault;

/* Empty text is no fault. Errors: ARG (not of the form above). */
TSR_MUST_CHECK tsr_status tsr_fault_parse(tsr_fault *out, const char *text);

/* To be called once a step by every rank: acts when it is this rank's turn. Costs nothing when no
 * fault is wanted. */
void tsr_fault_maybe(const tsr_world *world, int64_t step);

#ifdef __cplusplus
}
#endif

#endif
