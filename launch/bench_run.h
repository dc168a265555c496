/*
 * launch/bench_run.h - one measurement: a batch of made-up prompts, timed a step at a time.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_BENCH_RUN_H
#define TSR_LAUNCH_BENCH_RUN_H

#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_bench_task {
    const char *what; /* "prompt", "generate", "batch" */
    int batch;
    int64_t context;  /* prompt tokens of each sequence; 0 is one token, since none cannot be */
    int64_t n_tokens; /* to generate for each */
    bool prompt;      /* time the prompt, not what follows it */
} tsr_bench_task;

typedef struct tsr_bench_result {
    int batch;
    int64_t context;     /* as asked for, or as much as the model's context allows */
    double mean_context; /* positions that a generated token attended to, on average */
    double tok_per_s;    /* of all sequences together; the median of the parts */
    double host_share;   /* of the time: what the leader alone was busy with */
} tsr_bench_result;

/* Errors: what submitting and stepping give. */
TSR_MUST_CHECK tsr_status tsr_bench_run(tsr_engine *engine, const tsr_bench_task *task,
                                        int n_repeats, tsr_bench_result *out);

#ifdef __cplusplus
}
#endif

#endif
