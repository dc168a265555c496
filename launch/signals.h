/*
 * launch/signals.h - which signal asked this process to end.
 *
 * The world (parallel/world.h) reacts to SIGINT and SIGTERM; what the exit status must tell as well
 * is which of them it was.
 */
#ifndef TSR_LAUNCH_SIGNALS_H
#define TSR_LAUNCH_SIGNALS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Writing to a pipe that nobody reads becomes an error of the write, not the process's death. */
void tsr_signals_ignore_pipe(void);

/* Call once a world is open: note SIGINT and SIGTERM, then do what the world does about them. */
void tsr_signals_watch(void);

int tsr_signals_last(void); /* SIGINT or SIGTERM; 0: none came. Any thread. */

#ifdef __cplusplus
}
#endif

#endif
