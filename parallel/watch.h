/*
 * parallel/watch.h - a rank's watch over the other ranks of its host, and over signals. Private to
 * the room.
 *
 * All ranks of a host share a table, one cell a rank. A rank's watch thread beats in its cell ten
 * times a second and looks at the other cells: a process that is gone, stopped for a second, or
 * without a beat for three is lost. Whoever sees it first claims the report (once a host), says who
 * is lost and at what, and ends itself with status 1; the watches of the other ranks see the claim
 * and follow. What does not follow is killed. Time is counted in own looks, not by the clock, so
 * that a job that was suspended as a whole does not take its ranks for lost. Where a job has
 * several hosts, the first rank of each watches the others, too (parallel/watch_hosts.h).
 *
 * Threads: open and close by the thread that owns the world; the rest by any.
 */
#ifndef TSR_PARALLEL_WATCH_H
#define TSR_PARALLEL_WATCH_H

#include "parallel/watch_hosts.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_watch tsr_watch;

/* Where this rank stands. */
typedef struct tsr_watch_place {
    int rank;
    int n_ranks;
    int host_rank;
    int n_host_ranks;
    bool launched;          /* by mpirun, srun: end when that parent is gone */
    tsr_watch_hosts *hosts; /* NULL: none to watch; handed over */
} tsr_watch_place;

/* Bytes of the table of a host; all 0 before the first watch opens on it, at the begin of a
 * 128-byte line. */
size_t tsr_watch_table_bytes(int n_host_ranks);

/*
 * Enter this rank in the table, take over SIGINT, SIGTERM, SIGBUS and the like, and start the
 * thread (a rank alone that no launcher started has nobody to watch and no thread). table is
 * borrowed. One watch a process. Errors: ARG (there is one already), NOMEM, IO.
 */
TSR_MUST_CHECK tsr_status tsr_watch_open(tsr_watch **out, void *table,
                                         const tsr_watch_place *place);

/* From now on this rank's vanishing is normal. Signals are again what they were. NULL is fine. */
void tsr_watch_close(tsr_watch *watch);

void tsr_watch_note(tsr_watch *watch, const char *what, int64_t number);
bool tsr_watch_asked_to_end(const tsr_watch *watch); /* any rank of this host was */

/* tsr_world_take_interrupt(). */
bool tsr_watch_take_interrupt(tsr_watch *watch);

/* Look at the others at once and again for wait_us. Does not return if one is lost. */
void tsr_watch_look_for(tsr_watch *watch, int64_t wait_us);

/* Take the right to report the end of the job; false: another rank of this host has it and ends the
 * job. */
bool tsr_watch_claim(tsr_watch *watch);

#ifdef __cplusplus
}
#endif

#endif
