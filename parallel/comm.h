/*
 * parallel/comm.h - collectives on tensors, in the middle of a step.
 *
 * One rank: nothing to do. Ranks of one host: an all-reduce of our own through a shared window
 * (each rank writes its part, all add all parts in rank order); else MPI. Ranks that have a GPU
 * each: NCCL, on the devices' queues; where GPUs are fewer than ranks, or the build has no NCCL,
 * what the GPUs add goes through host memory and meets there as the CPU's does. The terms of an
 * all-reduce are doubles on a grid (kernels/ops.h, tsr_matmul), whose sums are exact, so that the
 * order in which an algorithm adds them cannot show.
 *
 * Threads: the thread that owns the world.
 */
#ifndef TSR_PARALLEL_COMM_H
#define TSR_PARALLEL_COMM_H

#include "kernels/device.h"
#include "parallel/world.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_comm tsr_comm;

/*
 * largest: the most doubles that one all-reduce will be given at once (a larger call is cut into
 * pieces; this sizes the shared window). dev: whose memory parts lie in; NULL: the host's. world
 * and dev are borrowed; with NCCL waiting for the device watches the other ranks from now on
 * (tsr_device_set_guard). All ranks together, on devices of one kind. Errors: NOMEM, COMM.
 */
TSR_MUST_CHECK tsr_status tsr_comm_create(tsr_comm **out, tsr_world *world, tsr_device *dev,
                                          size_t largest);
void tsr_comm_destroy(tsr_comm *comm); /* all ranks together; NULL is fine */

/* Bytes that a comm takes on each of n_ranks ranks of one host; a window they share is divided
 * among them. */
size_t tsr_comm_rank_bytes(int n_ranks, size_t largest);

/* "one rank", "shared memory", "MPI", "NCCL", "shared memory of the hosts" ... */
const char *tsr_comm_describe(const tsr_comm *comm);

/* Is all that a meeting does queued on the device, without the host in between? */
bool tsr_comm_is_queued(const tsr_comm *comm);

enum {
    TSR_COMM_MOST_PARTS = 4 /* ranks of one host whose parts whoever needs the sum adds up itself */
};

/*
 * A sum over ranks, in two steps. First each rank writes its part, [largest] doubles at most, to
 * the device memory that tsr_comm_part() names: ask for it anew before each sum. Then all meet, and
 * the sum is that of parts[0 .. n_parts), each n_values long, in that order; ops that are queued
 * before the next meeting may read them. A few ranks of one host find each other's parts there;
 * else there is one part, the sum itself. parts  [TSR_COMM_MOST_PARTS]
 */
double *tsr_comm_part(const tsr_comm *comm);
TSR_MUST_CHECK tsr_status tsr_comm_meet(tsr_comm *comm, size_t n_values, const double **parts,
                                        int *n_parts);

/* values[i] becomes the sum over ranks of values[i], on every rank, in place. values: host memory;
 * with NCCL the device's. */
TSR_MUST_CHECK tsr_status tsr_comm_all_reduce(tsr_comm *comm, double *values, size_t n_values);

#ifdef __cplusplus
}
#endif

#endif
