/*
 * engine/victim.h - which running request is put back when blocks run out.
 *
 * The lowest priority first. Among those one that is held, and so has nothing to do; else the one
 * that costs least for what it gives: tokens to compute again x (1 + how often it was put back
 * already) / blocks that come free; and among equals the one that stands last. What was put back
 * before costs more, so that misfortune goes round.
 *
 * Threads: none of its own.
 */
#ifndef TSR_ENGINE_VICTIM_H
#define TSR_ENGINE_VICTIM_H

#include "engine/request.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of running [first .. n_running - 1], by standing; -1: none of them holds a block. */
int tsr_victim_choose(tsr_request *const *running, int first, int n_running);

#ifdef __cplusplus
}
#endif

#endif
