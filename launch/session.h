/*
 * launch/session.h - the options of an engine, and its life around one command.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_SESSION_H
#define TSR_LAUNCH_SESSION_H

#include "engine/tessera.h"
#include "launch/commands.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TSR_SESSION_KV_DTYPES "f32|f16|bf16|fp8|int8|int4|int2"

/* What the options group below fills. {0} is a good start. */
/* A --target-itl that hurries nothing: prompts are read at full speed, as suits work that nobody
 * watches. */
#define TSR_SESSION_UNHURRIED_MS 1e6

/* Ranks that are other processes, started and looked after by this one. */
typedef struct tsr_session_job {
    int n_ranks;
    const char *launcher; /* NULL, as is the next: see tsr_launch_options */
    const char *socket;
} tsr_session_job;

typedef struct tsr_session_options {
    const char *model;
    int64_t context;
    const char *kv_dtype;
    uint64_t kv_memory_bytes;
    uint64_t kv_host_bytes;
    tsr_args_place kv_disk;
    const char *block_tokens;
    int64_t n_threads;
    const char *device;
    const char *activations;
    const char *dtype;
    const char *quantize;
    int64_t max_batch_tokens;
    int64_t max_sequences;
    int64_t max_queue;
    bool no_prefix_cache;
    const char *preempt;
    double target_itl_ms;
    double drain_s; /* no option of the group, as is the next */
    const tsr_session_job *job;
    bool quiet;
    bool verbose;
} tsr_session_options;

/* "--model" first. `at` is where the struct lies in the command's own. */
tsr_args_group tsr_session_group(size_t at);

/*
 * Opens the engine on all ranks, lets the leader carry out `lead` while the others follow, and
 * closes it. `ready` is what this rank has to say about the preparations that came before: if any
 * rank failed, none goes on. Returns this rank's status; when lead() failed, its own. With a job,
 * this process is no rank: the engine is a client's.
 */
TSR_MUST_CHECK tsr_status tsr_session_run(const tsr_call *call, const tsr_session_options *options,
                                          tsr_status ready,
                                          tsr_status (*lead)(tsr_engine *engine, void *ctx),
                                          void *ctx);

/* "2 ranks x 1 thread" */
typedef struct tsr_session_words {
    char text[48];
} tsr_session_words;
tsr_session_words tsr_session_crew(const tsr_engine *engine);

/* What a model is called: the last part of its path, as far as there is room for it. */
void tsr_session_model_name(const char *path, char *name, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
