/*
 * parallel/comm_ways.h - the ways in which a comm can sum, behind parallel/comm.h. Private to the
 * room and its tests.
 */
#ifndef TSR_PARALLEL_COMM_WAYS_H
#define TSR_PARALLEL_COMM_WAYS_H

#include "parallel/comm.h"
#include "parallel/world_mpi.h"

typedef enum tsr_comm_way {
    TSR_COMM_ALONE,
    TSR_COMM_SHARED,
    TSR_COMM_MPI,
    TSR_COMM_NCCL,
    TSR_COMM_WAY_COUNT
} tsr_comm_way;

struct tsr_comm {
    tsr_world *world; /* borrowed */
    tsr_device *dev;  /* borrowed; or NULL */
    tsr_comm_way way;
    double *on_device; /* [largest] parts and sums, where the device's memory is not the host's;
                          owned */
    void *nccl;        /* of comm_nccl.c, owned */
    /* The shared window (comm_shared.c). */
    MPI_Win win;
    void *memory;
    size_t area;  /* doubles that a rank's area holds */
    size_t piece; /* doubles that are summed at once in areas; at most `area` */
    bool direct;  /* a part of the largest size is written into its area by whoever makes it */
    double *own;  /* [largest] this rank's part on the host, where it is not direct; owned */
    size_t largest;
    uint64_t n_meets; /* times that all ranks have met in the window */
    int turn;         /* which of the two sets of areas is next */
};

/* tsr_comm_create chooses among these. SHARED is for ranks of one host, NCCL for those that have a
 * GPU each. */
TSR_MUST_CHECK tsr_status tsr_comm_create_way(tsr_comm **out, tsr_world *world, tsr_device *dev,
                                              size_t largest, tsr_comm_way way);

/* Was the build given NCCL? */
bool tsr_comm_nccl_is_built(void);
TSR_MUST_CHECK tsr_status tsr_comm_nccl_open(tsr_comm *comm); /* succeeds on all ranks or on none */
void tsr_comm_nccl_close(tsr_comm *comm);

/* How a shared window is cut. */
typedef struct tsr_comm_areas {
    size_t piece; /* as in tsr_comm, as are the next two */
    size_t area;
    bool direct;
    size_t n_flag_bytes;
    size_t n_bytes; /* of the window */
} tsr_comm_areas;
tsr_comm_areas tsr_comm_shared_areas(size_t n_ranks, size_t largest);

TSR_MUST_CHECK tsr_status tsr_comm_shared_open(tsr_comm *comm, size_t largest);
void tsr_comm_shared_close(tsr_comm *comm);

/* Direct: this rank's area; and, after a meeting, everybody's. */
double *tsr_comm_shared_part(const tsr_comm *comm);
TSR_MUST_CHECK tsr_status tsr_comm_shared_meet(tsr_comm *comm, const double **parts);

typedef tsr_status tsr_comm_all_reduce_fn(tsr_comm *comm, double *values, size_t n_values);

tsr_comm_all_reduce_fn tsr_comm_shared_all_reduce, tsr_comm_mpi_all_reduce,
    tsr_comm_nccl_all_reduce;

#endif
