/*
 * parallel/world.h - all ranks of this job: who they are, how they meet, and how they die.
 *
 * A world is opened once, first thing in main(). Under mpirun or srun it is MPI_COMM_WORLD
 * (threads: FUNNELED: every call but the two marked "any thread" comes from the thread that opened
 * it); a process started alone is a world of one and MPI is not touched. Rank 0 is the leader.
 *
 * Death. Ranks of one host share a small table (MPI-3 shared window) in which each rank's watch
 * thread beats ten times a second and notes what the rank is at (parallel/watch.h). A rank whose
 * process is gone, stopped for a second, or without a beat for 3 s is reported once, by the first
 * rank that sees it: which rank, its process, and what it was at; then the job ends with a non-zero
 * status, and what does not follow is killed. When mpirun itself notices first and sends SIGTERM,
 * the same report is made before leaving; when mpirun is gone, so is the job. The first ranks of
 * all hosts watch each other over TCP (parallel/watch_hosts.h): a host that is gone, or silent for
 * 3 s, ends the job likewise. A rank that waits for others longer than TSR_TIMEOUT seconds (0: for
 * ever) gets COMM; only a follower's wait for a broadcast has no limit. SIGBUS (a mapped file whose
 * page cannot be read) and SIGSEGV are reported with the rank's name before the process ends.
 * SIGINT and SIGTERM set tsr_world_asked_to_end(); the second one ends the process at once. One
 * world at a time in a process; under MPI, where the world began MPI, only one ever.
 */
#ifndef TSR_PARALLEL_WORLD_H
#define TSR_PARALLEL_WORLD_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_world tsr_world;

TSR_MUST_CHECK tsr_status tsr_world_open(tsr_world **out);

/* Meets all ranks. After this the process may exit. NULL is fine. */
void tsr_world_close(tsr_world *world);

int tsr_world_rank(const tsr_world *world);
int tsr_world_size(const tsr_world *world);
bool tsr_world_is_leader(const tsr_world *world);
int tsr_world_host_rank(const tsr_world *world); /* among the ranks of this host */
int tsr_world_host_size(const tsr_world *world);

/*
 * The leader's n_bytes reach every rank. Followers may wait here for hours: waiting spins for a
 * fraction of a millisecond and then sleeps in growing naps (at most 1 ms), so that an idle
 * follower leaves its core alone.
 */
TSR_MUST_CHECK tsr_status tsr_world_broadcast(tsr_world *world, void *bytes, size_t n_bytes);

/* Every rank's n_bytes, in rank order, at the leader: received [size * n_bytes] there, ignored
 * elsewhere. */
TSR_MUST_CHECK tsr_status tsr_world_gather(tsr_world *world, void *received, const void *sent,
                                           size_t n_bytes);

/* The same with parts of different length: received holds them end to end, n_received [size]
 * (leader only) says how many bytes each rank sends; all ranks must already agree on these numbers.
 */
TSR_MUST_CHECK tsr_status tsr_world_gather_parts(tsr_world *world, void *received,
                                                 const size_t *n_received, const void *sent,
                                                 size_t n_bytes);

/* The least / largest of all ranks' values, known to all. */
TSR_MUST_CHECK tsr_status tsr_world_min(tsr_world *world, int64_t *value);
TSR_MUST_CHECK tsr_status tsr_world_max(tsr_world *world, int64_t *value);

/*
 * Do all ranks agree that things went well? Each gives its own status; the result is TSR_OK on all,
 * or on all the failure of the lowest failing rank, whose message becomes this thread's last
 * message. The way out of set-up work that can fail on one rank alone (loading weights), without
 * leaving the others waiting.
 */
TSR_MUST_CHECK tsr_status tsr_world_agree(tsr_world *world, tsr_status mine);

/* ---- life and death ----------------------------------------------------------------------------
 */

/* What this rank is at, for the report if it is lost: "loading weights", "running step 57". Any
 * thread. Cheap: `what` is a string that lives for ever, number is shown behind it when >= 0. */
void tsr_world_note(tsr_world *world, const char *what, int64_t number);

/* Has somebody asked this process, or another rank of this host, to end (SIGINT, SIGTERM)? Any
 * thread. */
bool tsr_world_asked_to_end(const tsr_world *world);

/*
 * Was it SIGINT alone that asked, and is this rank the whole world? Then take it back: nobody is
 * asked to end, and the next one is a first one again. For a program in which Ctrl-C stops what it
 * is at and not the program; among ranks, one that took it back could not know of the others.
 */
bool tsr_world_take_interrupt(tsr_world *world);

/* After the ranks have met in a step no rank may leave on its own: report `status` with this
 * thread's last message as the fault of this rank and end the whole job, at once. Does not return.
 */
__attribute__((noreturn)) void tsr_world_abort(tsr_world *world, tsr_status status);

#ifdef __cplusplus
}
#endif

#endif
