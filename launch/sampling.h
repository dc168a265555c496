/*
 * launch/sampling.h - the options that say how a token is chosen.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_SAMPLING_H
#define TSR_LAUNCH_SAMPLING_H

#include "engine/tessera.h"
#include "launch/args.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the options group below fills. {.top_p = 1} is a good start. */
typedef struct tsr_sampling_options {
    double temperature;
    int64_t top_k;
    double top_p;
    double min_p;
    uint64_t seed;
} tsr_sampling_options;

/* `at` is where the struct lies in the command's own. */
tsr_args_group tsr_sampling_group(const char *title, size_t at);

void tsr_sampling_apply(const tsr_sampling_options *options, tsr_generation *generation);

#ifdef __cplusplus
}
#endif

#endif
