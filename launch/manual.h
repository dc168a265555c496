/*
 * launch/manual.h - the manual pages, as man(1) wants them: from the tables that the command lines
 * are parsed with, and so never behind them.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_MANUAL_H
#define TSR_LAUNCH_MANUAL_H

#include "launch/commands.h"

#ifdef __cplusplus
extern "C" {
#endif

/* To stdout: tessera(1), and tessera-COMMAND(1). */
void tsr_manual_program(void);
void tsr_manual_command(const tsr_command *command);

#ifdef __cplusplus
}
#endif

#endif
