/* The one program: chooses the command, opens the world, and turns the end into an exit status. */
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "engine/tessera.h"
#include "launch/commands.h"
#include "launch/out.h"
#include "launch/signals.h"

typedef struct tsr_command {
    const char *name;
    const char *summary;
    bool ranks; /* works on all ranks; the others never need more than the leader */
    int (*run)(const tsr_call *call);
} tsr_command;

static const tsr_command commands[] = {
    {"generate", "continue a prompt, or answer it (--chat)", true, tsr_cmd_generate_run},
    {"chat", "talk with the model", true, tsr_cmd_chat_run},
    {"serve", "OpenAI's HTTP interface", true, tsr_cmd_serve_run},
    {"engine", "the model at the service of programs on this machine", true, tsr_cmd_engine_run},
    {"batch", "answer a file of requests", true, tsr_cmd_batch_run},
    {"tokenize", "text on stdin to token ids", false, tsr_cmd_tokenize_run},
    {"detokenize", "token ids on stdin to text", false, tsr_cmd_detokenize_run},
    {"perplexity", "how well the model foresees a text", true, tsr_cmd_perplexity_run},
    {"bench", "tokens a second, beside what the machine could do", true, tsr_cmd_bench_run},
    {"inspect", "what a model file holds, and what each rank would own", false,
     tsr_cmd_inspect_run},
    {"plan", "what fits: memory a rank, longest context, most sequences", false, tsr_cmd_plan_run},
};

enum {
    N_COMMANDS = sizeof(commands) / sizeof(commands[0])
};

static const tsr_command *find_command(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static void print_help(void)
{
    tsr_out_print("tessera %s - one language model across many ranks\n\n"
                  "usage: [mpirun -n RANKS] tessera COMMAND [OPTIONS]\n\nCommands\n",
                  tsr_tessera_version());
    for (int i = 0; i < N_COMMANDS; i++) {
        tsr_out_print("  %-12s%s\n", commands[i].name, commands[i].summary);
    }
    tsr_out_print("\n"
                  "  tessera COMMAND --help    all about one command\n"
                  "  tessera --version         the version\n"
                  "\nExamples\n"
                  "  tessera generate --model model.gguf --chat --prompt 'Why is the sky blue?'\n"
                  "  mpirun -n 2 tessera generate --model model.gguf --prompt 'Once upon a time'\n"
                  "  tessera inspect model.gguf --ranks 3\n"
                  "\nEnvironment\n");
    for (int i = 0; i < TSR_ENV_COUNT; i++) {
        const tsr_env_entry *entry = tsr_env_describe((tsr_env_id)i);

        tsr_out_print("  %-12s%s\n", entry->name, entry->help);
    }
    tsr_out_print("\nExit status: 0 done, 1 failed, 2 a mistake in the command line, 130 and 143 "
                  "stopped by a signal.\n");
}

static int complain_unknown(const tsr_call *call, const char *word)
{
    const char *names[N_COMMANDS];
    const char *nearest;

    for (int i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
    }
    nearest = tsr_args_nearest(word, names, N_COMMANDS);
    if (call->speaks) {
        tsr_log_error("tessera: there is no command '%.100s'%s%s%s", word,
                      nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "",
                      nearest != NULL ? "?" : "");
        tsr_log_error("'tessera --help' shows all commands");
    }
    return TSR_EXIT_USAGE;
}

/* "tessera --help", "tessera --version", "tessera help", and what is none of these. */
static int run_without_command(const tsr_call *call, const char *word)
{
    const bool help =
        strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;

    if (!help && strcmp(word, "--version") != 0) {
        return complain_unknown(call, word);
    }
    if (call->speaks && help) {
        print_help();
    } else if (call->speaks) {
        tsr_out_print("tessera %s\n", tsr_tessera_version());
    }
    return tsr_call_end(call, TSR_OK);
}

/* The words of the command line: "help COMMAND" is "COMMAND --help". */
static int run(int argc, char **argv, tsr_call *call)
{
    static char help_word[] = "--help";
    static char *help_words[] = {help_word, NULL};
    const tsr_command *command;

    if (argc < 2) {
        if (call->speaks) {
            tsr_log_error("usage: tessera COMMAND [OPTIONS]; 'tessera --help' shows all commands");
        }
        return TSR_EXIT_USAGE;
    }
    call->argc = argc - 2;
    call->argv = argv + 2;
    command = find_command(argv[1]);
    if (command == NULL && argc > 2 && strcmp(argv[1], "help") == 0) {
        command = find_command(argv[2]);
        if (command == NULL) {
            return complain_unknown(call, argv[2]);
        }
        call->argc = 1;
        call->argv = help_words;
    }
    if (command == NULL) {
        return run_without_command(call, argv[1]);
    }
    call->command = command->name;
    return command->run(call);
}

int main(int argc, char **argv)
{
    const tsr_command *command = argc > 1 ? find_command(argv[1]) : NULL;
    tsr_call call = {.command = "", .speaks = true};
    int exit_status;

    tsr_signals_ignore_pipe();
    // A command without ranks that runs alone leaves the signals as they are: Ctrl-C just ends it.
    if ((command != NULL && command->ranks) || tsr_env_under_mpi()) {
        if (tsr_world_open(&call.world) != TSR_OK) {
            tsr_log_error("tessera: %s", tsr_status_message());
            return TSR_EXIT_FAILED;
        }
        tsr_signals_watch(call.world);
        call.speaks = tsr_world_is_leader(call.world);
    }
    exit_status = run(argc, argv, &call);
    tsr_world_close(call.world);
    return exit_status;
}
