#include "launch/session.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "launch/memory_words.h"

#define FIELD(name) offsetof(tsr_session_options, name)

static const tsr_args_option options_table[] = {
    {"--model", "M", TSR_ARGS_TEXT, FIELD(model), 0, 0, NULL,
     "the model: a GGUF file, or a Hugging Face folder (config.json and safetensors)"},
    {"--ctx", "N", TSR_ARGS_INTEGER, FIELD(context), 1, INT32_MAX, NULL,
     "positions a sequence may have, prompt and answer together (default: what the model was made "
     "for)"},
    {"--dtype", "T", TSR_ARGS_CHOICE, FIELD(dtype), 0, 0, "auto|f32|f16|bf16",
     "what weights of 16 or 32 bits become; auto: as they are stored (default auto)"},
    {"--quantize", "T", TSR_ARGS_CHOICE, FIELD(quantize), 0, 0, "int8|int4|fp8",
     "round the layers' weights of 16 or 32 bits to that, 32 columns a scale (default: not)"},
    {"--kv-dtype", "T", TSR_ARGS_CHOICE, FIELD(kv_dtype), 0, 0, TSR_SESSION_KV_DTYPES,
     "how keys and values are kept (default f16)"},
    {"--kv-memory", "BYTES", TSR_ARGS_BYTES, FIELD(kv_memory_bytes), 0, 0, NULL,
     "memory for keys and values on each rank, such as 512M or 1.5G (default auto: what the "
     "machine has room for, taken as it fills)"},
    {"--kv-host", "BYTES", TSR_ARGS_BYTES, FIELD(kv_host_bytes), 0, 0, NULL,
     "host memory on each rank for blocks of keys and values that --kv-memory has no room for: "
     "sequences that wait keep theirs there, and those longer than --kv-memory are read there "
     "(default none)"},
    {"--kv-disk", "BYTES[:DIR]", TSR_ARGS_PLACE, FIELD(kv_disk), 0, 0, NULL,
     "a file of that size on each rank, in DIR, for blocks that neither has room for; it has no "
     "name and goes with the process (default none; DIR: /tmp)"},
    {"--block-tokens", "N", TSR_ARGS_CHOICE, FIELD(block_tokens), 0, 0, "16|32|64",
     "tokens a block of that memory (default 16)"},
    {"--threads", "N", TSR_ARGS_INTEGER, FIELD(n_threads), 1, 1024, NULL,
     "threads of each rank (default: the host's cores divided among its ranks)"},
    {"--device", "D", TSR_ARGS_CHOICE, FIELD(device), 0, 0, "auto|cpu|cuda",
     "where the arithmetic is done (default auto: on GPUs if every rank has one)"},
    {"--deterministic", NULL, TSR_ARGS_FLAG, FIELD(deterministic), 0, 0, NULL,
     "on GPUs: the same tokens whatever else is computed beside them and on any number of ranks, "
     "as "
     "on CPUs, for some of the speed"},
    {"--activations", "T", TSR_ARGS_CHOICE, FIELD(activations), 0, 0, "int8|f32",
     "numbers that meet quantised weights: int8 is fast, f32 is exact (default int8)"},
    {"--max-batch-tokens", "N", TSR_ARGS_INTEGER, FIELD(max_batch_tokens), 1, 65536, NULL,
     "tokens that one step computes at most (default 512)"},
    {"--max-sequences", "N", TSR_ARGS_INTEGER, FIELD(max_sequences), 1, 4096, NULL,
     "sequences that run at once at most (default 64)"},
    {"--max-queue", "N", TSR_ARGS_INTEGER, FIELD(max_queue), 0, INT32_MAX, NULL,
     "prompts that wait at most; one more is refused; 0: any number (default 0)"},
    {"--no-prefix-cache", NULL, TSR_ARGS_FLAG, FIELD(no_prefix_cache), 0, 0, NULL,
     "compute every prompt whole, also where the cache still has its beginning"},
    {"--no-graphs", NULL, TSR_ARGS_FLAG, FIELD(no_graphs), 0, 0, NULL,
     "on GPUs: launch every kernel of every step by itself, instead of replaying what was "
     "recorded"},
    {"--preempt", "HOW", TSR_ARGS_CHOICE, FIELD(preempt), 0, 0, "auto|swap|recompute",
     "the cache of a sequence that has to wait for memory: kept in slower memory, computed again, "
     "or "
     "whichever is faster (default auto)"},
    {"--target-itl", "MS", TSR_ARGS_REAL, FIELD(target_itl_ms), 0, 1000000, NULL,
     "milliseconds between two tokens of a sequence: while others generate, prompts are read in "
     "pieces that keep it; 0: 1.6 times the time without prompts (default for one prompt; several "
     "prompts, and bench, read them at full speed)"},
    {"--verbose", NULL, TSR_ARGS_FLAG, FIELD(verbose), 0, 0, NULL,
     "at the end, what each rank's memory for keys and values held and moved, on stderr"},
    {"--quiet", NULL, TSR_ARGS_FLAG, FIELD(quiet), 0, 0, NULL,
     "nothing on stderr but errors: no summary, no bar"},
};

tsr_args_group tsr_session_group(size_t at)
{
    return (tsr_args_group){
        .title = "Model and engine",
        .options = options_table,
        .n_options = sizeof(options_table) / sizeof(options_table[0]),
        .at = at,
    };
}

static tsr_engine_options engine_options(const tsr_session_options *options)
{
    return (tsr_engine_options){
        .model_path = options->model,
        .context = options->context,
        .kv_dtype = options->kv_dtype,
        .dtype = options->dtype,
        .quantize = options->quantize,
        .kv_memory_bytes = options->kv_memory_bytes,
        .kv_host_bytes = options->kv_host_bytes,
        .kv_disk_bytes = options->kv_disk.n_bytes,
        .kv_disk_folder = options->kv_disk.folder,
        .block_tokens =
            options->block_tokens != NULL ? (int)strtol(options->block_tokens, NULL, 10) : 0,
        .n_threads = (int)options->n_threads,
        .device = options->device,
        .deterministic = options->deterministic,
        .activations = options->activations,
        .max_batch_tokens = (int)options->max_batch_tokens,
        .max_sequences = (int)options->max_sequences,
        .max_queue = (int)options->max_queue,
        .no_prefix_cache = options->no_prefix_cache,
        .no_graphs = options->no_graphs,
        .preempt = options->preempt,
        .target_itl_ms = options->target_itl_ms,
        .drain_s = options->drain_s,
    };
}

/* The leader's part. Whatever became of it, the followers are let go. */
static tsr_status lead_and_stop(tsr_engine *engine, const tsr_session_options *options,
                                tsr_status (*lead)(tsr_engine *engine, void *ctx), void *ctx)
{
    tsr_status st = lead(engine, ctx);

    if (st == TSR_OK && options->verbose) {
        st = tsr_memory_words_say(engine);
    }

    if (st != TSR_OK) {
        char message[512];
        const char *said = tsr_status_message();

        (void)snprintf(message, sizeof(message), "%s", said);
        (void)!tsr_engine_stop(engine);
        return tsr_fail(st, "%s", message); // stopping may have left a message of its own
    }
    return tsr_engine_stop(engine);
}

/* Errors: those of tsr_engine_launch(), and UNSUPPORTED. */
static tsr_status launch(tsr_engine **out, const tsr_call *call, const tsr_session_job *job,
                         const tsr_engine_options *chosen)
{
    char program[PATH_MAX];
    const ssize_t n_bytes = readlink("/proc/self/exe", program, sizeof(program) - 1);
    const tsr_launch_options options = {.engine = *chosen,
                                        .n_ranks = job->n_ranks,
                                        .launcher = job->launcher,
                                        .program = n_bytes > 0 ? program : NULL,
                                        .socket = job->socket};

    if (tsr_env_under_mpi()) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "the ranks are there already: started under mpirun or "
                                             "srun, it starts none itself");
    }
    if (n_bytes > 0) {
        program[n_bytes] = '\0';
    }
    return tsr_engine_launch(out, call->world, &options);
}

tsr_status tsr_session_run(const tsr_call *call, const tsr_session_options *options,
                           tsr_status ready, tsr_status (*lead)(tsr_engine *engine, void *ctx),
                           void *ctx)
{
    const tsr_engine_options chosen = engine_options(options);
    tsr_engine *engine = NULL;
    tsr_status st;

    if (options->quiet) {
        tsr_log_set_level(TSR_LOG_ERROR);
    }
    TSR_TRY(tsr_world_agree(call->world, ready));
    if (options->job != NULL) {
        TSR_TRY(launch(&engine, call, options->job, &chosen));
    } else {
        TSR_TRY(tsr_engine_create(&engine, call->world, &chosen));
    }
    if (tsr_engine_is_leader(engine)) {
        st = lead_and_stop(engine, options, lead, ctx);
    } else {
        st = tsr_engine_follow(engine);
    }
    tsr_engine_destroy(engine);
    return st;
}

tsr_session_words tsr_session_crew(const tsr_engine *engine)
{
    const tsr_engine_stats stats = tsr_engine_describe(engine);
    tsr_session_words words;

    (void)snprintf(words.text, sizeof(words.text), "%d %s x %d %s", stats.n_ranks,
                   stats.n_ranks == 1 ? "rank" : "ranks", stats.n_threads,
                   stats.n_threads == 1 ? "thread" : "threads");
    return words;
}

void tsr_session_model_name(const char *path, char *name, size_t n_bytes)
{
    size_t end = strlen(path);
    size_t first;

    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    for (first = end; first > 0 && path[first - 1] != '/'; first--) {
    }
    (void)snprintf(name, n_bytes, "%.*s", (int)(end - first), path + first);
}
