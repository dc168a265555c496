/*
 * parallel/comm.h - collectives on tensors, in the middle of a step.
 *
 * One rank: nothing to do. Ranks of one host: an all-reduce of our own through a shared window
 * (each rank writes its part, all add all parts in rank order); else MPI. The terms of an
 * all-reduce are doubles on a grid (kernels/ops.h, tsr_matmul), whose sums are exact, so that the
 * order in which an algorithm adds them cannot show.
 *
 * Threads: the thread that owns the world.
 */
#ifndef TSR_PARALLEL_COMM_H
#define TSR_PARALLEL_COMM_H

#include "parallel/world.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_comm tsr_comm;

/*
 * largest: the most doubles that one all-reduce will be given at once (a larger call is cut into
 * pieces; this sizes the shared window). world is borrowed. All ranks together. Errors: NOMEM,
 * COMM.
 */
TSR_MUST_CHECK tsr_status tsr_comm_create(tsr_comm **out, tsr_world *world, size_t largest);
void tsr_comm_destroy(tsr_comm *comm); /* all ranks together; NULL is fine */

/* Bytes that a comm takes on each of n_ranks ranks of one host; a window they share is divided
 * among them. */
size_t tsr_comm_rank_bytes(int n_ranks, size_t largest);

const char *tsr_comm_describe(const tsr_comm *comm); /* "one rank", "shared memory", "MPI" */

enum {
    TSR_COMM_MOST_PARTS = 4 /* ranks of one host whose parts whoever needs the sum adds up itself */
};

/*
 * A sum over ranks without copies, in two steps. First each rank writes its part, [largest] doubles
 * at most, to the memory that tsr_comm_part() names: ask for it anew before each sum. Then all
 * meet, and the sum is that of parts[0 .. n_parts), each n_values long, in that order; they may be
 * read until the next meeting. A few ranks of one host find each other's parts there; else there is
 * one part, the sum itself. parts  [TSR_COMM_MOST_PARTS]
 */
double *tsr_comm_part(const tsr_comm *comm);
TSR_MUST_CHECK tsr_status tsr_comm_meet(tsr_comm *comm, size_t n_values, const double **parts,
                                        int *n_parts);

/* values[i] becomes the sum over ranks of values[i], on every rank, in place. */
TSR_MUST_CHECK tsr_status tsr_comm_all_reduce(tsr_comm *comm, double *values, size_t n_values);

#ifdef __cplusplus
}
#endif

#endif
