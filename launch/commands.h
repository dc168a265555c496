/*
 * launch/commands.h - the commands, and what main() hands to them.
 *
 * A command is called on every rank with the same words. Whatever it says, only the rank that
 * `speaks` says it. It returns the exit status of the process.
 */
#ifndef TSR_LAUNCH_COMMANDS_H
#define TSR_LAUNCH_COMMANDS_H

#include "launch/args.h"
#include "parallel/world.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_EXIT_DONE = 0,
    TSR_EXIT_FAILED = 1,
    TSR_EXIT_USAGE = 2,
    TSR_EXIT_SIGNAL = 128 /* plus the signal's number */
};

typedef struct tsr_call {
    const char *command;
    int argc; /* the words behind the command's name */
    char **argv;
    tsr_world *world; /* NULL for a command without ranks that was started alone */
    bool speaks;      /* is this the leader? */
} tsr_call;

/*
 * Reads the command's line. True: go on. False: *exit_status says how the command ends, help or the
 * complaint having been said; what was parsed is cleared.
 */
bool tsr_call_parse(const tsr_call *call, const tsr_args_spec *spec, void *into, int *exit_status);

/* A line that parses and yet makes no sense. The exit status. */
int tsr_call_usage(const tsr_call *call, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The exit status of a command that ended with `st`; says why if that was a failure. */
int tsr_call_end(const tsr_call *call, tsr_status st);

int tsr_cmd_generate_run(const tsr_call *call);
int tsr_cmd_chat_run(const tsr_call *call);
int tsr_cmd_engine_run(const tsr_call *call);
int tsr_cmd_serve_run(const tsr_call *call);
int tsr_cmd_tokenize_run(const tsr_call *call);
int tsr_cmd_detokenize_run(const tsr_call *call);
int tsr_cmd_batch_run(const tsr_call *call);
int tsr_cmd_perplexity_run(const tsr_call *call);
int tsr_cmd_bench_run(const tsr_call *call);
int tsr_cmd_inspect_run(const tsr_call *call);
int tsr_cmd_plan_run(const tsr_call *call);

#ifdef __cplusplus
}
#endif

#endif
