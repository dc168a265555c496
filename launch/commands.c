#include "launch/commands.h"

#include <string.h>

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
    {"manual", "the manual pages, for man", false, tsr_cmd_manual_run},
    {"completion", "what a shell needs to complete command lines", false, tsr_cmd_completion_run},
    {0},
};

_Static_assert(sizeof(commands) / sizeof(commands[0]) <= TSR_COMMANDS_MOST, "");

const tsr_command *tsr_commands_all(void)
{
    return commands;
}

const tsr_command *tsr_commands_find(const char *name)
{
    for (const tsr_command *c = commands; c->name != NULL; c++) {
        if (strcmp(c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

void tsr_commands_describe(const tsr_command *command, tsr_args_show *show, void *ctx)
{
    const tsr_call call = {.command = command->name, .show = show, .show_ctx = ctx};

    (void)command->run(&call); // which comes to tsr_call_parse(), and no farther
}
