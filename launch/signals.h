/*
 * launch/signals.h - which signal asked this process to end.
 *
 * The world (parallel/world.h) reacts to SIGINT and SIGTERM; what the exit status must tell as well
 * is which of them it was.
 */
#ifndef TSR_LAUNCH_SIGNALS_H
#define TSR_LAUNCH_SIGNALS_H

#include <stdbool.h>

#include "parallel/world.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writing to a pipe that nobody reads becomes an error of the write, not the process's death. */
void tsr_signals_ignore_pipe(void);

/* Call once the world is open, which it borrows: note SIGINT and SIGTERM, then do what the world
 * does about them. */
void tsr_signals_watch(tsr_world *world);

/* Has this process, or its world, been asked to end? False without a world. */
bool tsr_signals_asked(void);

/* Take one SIGINT back that alone has asked (tsr_world_take_interrupt()); false if there is none.
 */
bool tsr_signals_take_interrupt(void);

/* SIGINT or SIGTERM, whichever came last; SIGTERM if none came to this process. */
int tsr_signals_number(void);

#ifdef __cplusplus
}
#endif

#endif
