/*
 * parallel/placement.h - how many threads a rank runs, and on which cpus.
 *
 * The cores that the ranks of a host may use are divided among them in whole cores, unevenly where
 * it must be, neighbours getting neighbouring cores; one thread a core. Cores that a cgroup or the
 * launcher withholds do not count.
 *
 * Ranks that were given the same cpus divide them; ranks that the launcher bound apart keep what
 * they have. But Open MPI binds a job of two ranks to one core each when it is not told what to do:
 * such a binding, which nobody asked for, does not count.
 *
 * Ranks that outnumber their cores run one thread each, bound to nothing. Where a quota of
 * processor time (cgroup cpu.max) is less than the cores, the threads are as many as the quota, and
 * free to move.
 */
#ifndef TSR_PARALLEL_PLACEMENT_H
#define TSR_PARALLEL_PLACEMENT_H

#include "parallel/world.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_PLACEMENT_MOST = 1024, /* threads, and cpus of a host that can be told apart */
    TSR_PLACEMENT_SMT = 8      /* cpus a core */
};

typedef struct tsr_placement {
    int n_threads;                /* >= 1 */
    int n_cpus;                   /* n_threads; or 0: the threads are not bound */
    int cpus[TSR_PLACEMENT_MOST]; /* thread i belongs on cpus[i], numbered as the operating system
                                     does */
} tsr_placement;

/*
 * All ranks together. n_wanted: threads that the user asks for, 0 for as many as there are cores.
 * More threads than cores go to the second cpus of the cores; more than cpus are not bound. Errors:
 * ARG (n_wanted is negative or above TSR_PLACEMENT_MOST), IO (the machine cannot be read), COMM.
 */
TSR_MUST_CHECK tsr_status tsr_placement_find(tsr_placement *out, tsr_world *world, int n_wanted);

/* ---- the arithmetic behind it ------------------------------------------------------------------
 */

typedef struct tsr_placement_core {
    int n_cpus;
    int cpus[TSR_PLACEMENT_SMT];
} tsr_placement_core;

/*
 * The part of rank `index` of the n_sharing ranks that share cores [n_cores >= 1].
 * n_quota: cpus' worth of time that they may use together; 0: no limit.
 */
void tsr_placement_divide(tsr_placement *out, const tsr_placement_core *cores, int n_cores,
                          int index, int n_sharing, int n_wanted, int n_quota);

#ifdef __cplusplus
}
#endif

#endif
