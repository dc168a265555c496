#include <string.h>

#include "base/log.h"
#include "launch/commands.h"
#include "launch/completion.h"
#include "launch/manual.h"

typedef struct pages_options {
    const char *about; /* which command, which shell */
} pages_options;

static const tsr_args_option manual_table[] = {
    {"COMMAND", NULL, TSR_ARGS_TEXT, offsetof(pages_options, about), 0, 0, NULL,
     "the command whose page is wanted (default: the page of tessera itself)"},
};

static const tsr_args_option completion_table[] = {
    {"SHELL", NULL, TSR_ARGS_CHOICE, offsetof(pages_options, about), 0, 0, "bash|zsh|fish",
     "bash, zsh or fish"},
};

int tsr_cmd_manual_run(const tsr_call *call)
{
    const tsr_args_group group = {"Page", manual_table, 1, 0};
    const tsr_args_spec spec = {
        .command = "manual",
        .usage = "[COMMAND]",
        .about = "Writes a manual page to stdout, in the form that man reads. They are installed "
                 "with the program; this is for where it is not.",
        .groups = &group,
        .n_groups = 1,
        .examples = "  tessera manual batch | man -l -\n",
    };
    pages_options options = {0};
    const tsr_command *command = NULL;
    int exit_status;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    command = options.about != NULL ? tsr_commands_find(options.about) : NULL;
    if (options.about != NULL && command == NULL) {
        return tsr_call_usage(call, "there is no command '%.100s'", options.about);
    }
    if (call->speaks && command != NULL) {
        tsr_manual_command(command);
    } else if (call->speaks) {
        tsr_manual_program();
    }
    return tsr_call_end(call, TSR_OK);
}

int tsr_cmd_completion_run(const tsr_call *call)
{
    const tsr_args_group group = {"Shell", completion_table, 1, 0};
    const tsr_args_spec spec = {
        .command = "completion",
        .usage = "bash|zsh|fish",
        .about = "Writes to stdout what a shell needs to complete tessera's command lines. It is "
                 "installed with the program; this is for where it is not.",
        .groups = &group,
        .n_groups = 1,
        .examples = "  source <(tessera completion bash)\n"
                    "  tessera completion zsh >~/.zfunc/_tessera\n"
                    "  tessera completion fish >~/.config/fish/completions/tessera.fish\n",
    };
    pages_options options = {0};
    int exit_status;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    if (options.about == NULL) {
        return tsr_call_usage(call, "which shell? bash, zsh or fish");
    }
    if (!call->speaks) {
        return TSR_EXIT_DONE;
    }
    if (strcmp(options.about, "bash") == 0) {
        tsr_completion_bash();
    } else if (strcmp(options.about, "zsh") == 0) {
        tsr_completion_zsh();
    } else {
        tsr_completion_fish();
    }
    return tsr_call_end(call, TSR_OK);
}
