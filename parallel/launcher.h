/*
 * parallel/launcher.h - a job of ranks that this process starts, itself no rank of it: mpirun, its
 * child, and through that the ranks.
 *
 * The job does not outlive this process: when the thread that started it is gone, however it came
 * to that, the kernel sends SIGTERM to the child, which ends its ranks; and ranks whose launcher is
 * gone end by themselves (parallel/world.h). It is a process group of its own, so that Ctrl-C at a
 * terminal reaches this process only. What the job says goes to this process's stderr.
 *
 * Threads: the one that started it.
 */
#ifndef TSR_PARALLEL_LAUNCHER_H
#define TSR_PARALLEL_LAUNCHER_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_launcher {
    int pid;          /* 0: there is no job */
    int64_t asked_ns; /* when it was asked to end; 0: it was not */
    bool is_killed;
    int status; /* of the job that was the last, as waitpid() has it */
} tsr_launcher; /* start with {0} */

/* words [a NULL behind the last]: the command line. Errors: IO. */
TSR_MUST_CHECK tsr_status tsr_launcher_start(tsr_launcher *launcher, const char *const *words);

/* Is the job there? Once it has been asked to end, it is made to after a while. */
bool tsr_launcher_runs(tsr_launcher *launcher);

void tsr_launcher_ask_to_end(tsr_launcher *launcher);

/* Returns when it is gone: made to end if it has not done so after wait_us. */
void tsr_launcher_end(tsr_launcher *launcher, int64_t wait_us);

/* How the last job ended: "status 1", "signal 9". */
typedef struct tsr_launcher_words {
    char text[80];
} tsr_launcher_words;
tsr_launcher_words tsr_launcher_fate(const tsr_launcher *launcher);

/* The kernel's letter for the state of a process ('T': stopped), 0 when there is no such process,
 * '?' when that cannot be said. */
char tsr_launcher_process_state(int pid);

#ifdef __cplusplus
}
#endif

#endif
