/*
 * launch/answers.h - several answers to one prompt, as flags of a command: samples or beams.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_ANSWERS_H
#define TSR_LAUNCH_ANSWERS_H

#include "engine/tessera.h"
#include "launch/args.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_answers_options {
    int64_t n; /* 0: not given, as are the next three */
    int64_t best_of;
    int64_t beams;
    int64_t num_return;
    double length_penalty;
    const char *early_stopping; /* "yes", "no" or "never" */
} tsr_answers_options;

/* What flags that are not given mean. */
tsr_answers_options tsr_answers_defaults(void);

/* The flags, for a command that keeps the options at `at` of its struct. */
tsr_args_group tsr_answers_group(size_t at);

/* What is wrong with flags that do not go together; NULL if nothing is. */
const char *tsr_answers_fault(const tsr_answers_options *options, double temperature);

/* How many answers a prompt gets; are they told at the end, with a score? */
int tsr_answers_n(const tsr_answers_options *options);
bool tsr_answers_are_scored(const tsr_answers_options *options);

/* The fields of a generation. */
void tsr_answers_put(tsr_generation *generation, const tsr_answers_options *options);

#ifdef __cplusplus
}
#endif

#endif
