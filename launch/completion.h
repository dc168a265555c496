/*
 * launch/completion.h - what shells need to complete command lines: a script for each, from the
 * tables that the lines are parsed with. A value named M or F is a file, as are operands.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_COMPLETION_H
#define TSR_LAUNCH_COMPLETION_H

#include "launch/commands.h"

#ifdef __cplusplus
extern "C" {
#endif

/* To stdout. */
void tsr_completion_bash(void);
void tsr_completion_zsh(void);
void tsr_completion_fish(void);

#ifdef __cplusplus
}
#endif

#endif
