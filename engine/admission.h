/*
 * engine/admission.h - what a scheduler takes on: options that make sense, requests that can be
 * served.
 *
 * Threads: none of its own.
 */
#ifndef TSR_ENGINE_ADMISSION_H
#define TSR_ENGINE_ADMISSION_H

#include "engine/scheduler.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Errors: ARG. */
TSR_MUST_CHECK tsr_status tsr_admission_check_options(const tsr_scheduler_options *options);

/* options->groups, complete. */
tsr_block_groups tsr_admission_groups(const tsr_scheduler_options *options);

/* How many blocks a running sequence can have: those that rows can read. */
int tsr_admission_most_blocks(const tsr_scheduler_options *options);

/* While n_waiting others wait. Errors: those of tsr_scheduler_submit(), without NOMEM. */
TSR_MUST_CHECK tsr_status tsr_admission_check_request(const tsr_scheduler_options *options,
                                                      const tsr_request *request, int n_waiting);

#ifdef __cplusplus
}
#endif

#endif
