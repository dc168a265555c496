/*
 * parallel/world_mpi.h - the inside of a world, for the MPI side of parallel/ only.
 */
#ifndef TSR_PARALLEL_WORLD_MPI_H
#define TSR_PARALLEL_WORLD_MPI_H

#include <mpi.h>

#include "parallel/fault.h"
#include "parallel/wait.h"
#include "parallel/watch.h"
#include "parallel/world.h"

enum {
    TSR_WORLD_LINE_BYTES = 128 /* two cache lines: neighbours are fetched in pairs */
};

struct tsr_world {
    int rank;
    int n_ranks;
    int host_rank;
    int n_host_ranks;
    bool over_mpi;     /* else a world of one, and MPI is not touched */
    bool owns_mpi;     /* MPI_Init was called here */
    bool crowded;      /* more ranks than cores on this host */
    bool broken;       /* a meeting failed: the ranks are no longer in step and cannot meet again */
    int64_t limit_ns;  /* that a rank waits for the others; 0: without end */
    MPI_Comm all;      /* of our own, so that an embedding program's messages stay apart */
    MPI_Comm host;     /* the ranks of this host */
    MPI_Win table_win; /* holds `table` when ranks share a host */
    void *table;       /* of the watch */
    void *table_block; /* where ranks do not share a host: the memory of `table`, owned */
    tsr_watch *watch;
    MPI_Request *requests; /* [n_ranks], owned */
    tsr_fault fault;
};

/* What MPI says went wrong, as COMM. */
tsr_status tsr_world_mpi_failed(tsr_world *world, int code, const char *call);

#define TSR_WORLD_TRY_MPI(world, call)                              \
    do {                                                            \
        const int mpi_code_ = (call);                               \
        if (mpi_code_ != MPI_SUCCESS) {                             \
            return tsr_world_mpi_failed((world), mpi_code_, #call); \
        }                                                           \
    } while (0)

/* Wait until all requests are done. `what` names the meeting for the message when the limit passes.
 * Errors: COMM. */
TSR_MUST_CHECK tsr_status tsr_world_wait(tsr_world *world, int n_requests, MPI_Request *requests,
                                         const tsr_wait_policy *policy, const char *what);

/* The waiting of a step of this world. */
tsr_wait_policy tsr_world_step_policy(const tsr_world *world);

/* Nobody came within the limit. */
tsr_status tsr_world_late(tsr_world *world, const char *what);

/*
 * n_bytes of memory that all ranks of this host share; *base is the same memory on all of them, at
 * the begin of a cache line, and its first n_zeroed bytes are 0. (The rest is for whoever touches
 * it first, who then has it near.) All ranks of the host together; given back by MPI_Win_free.
 * Errors: COMM.
 */
TSR_MUST_CHECK tsr_status tsr_world_share(tsr_world *world, MPI_Win *win, void **base,
                                          size_t n_bytes, size_t n_zeroed);

#endif
