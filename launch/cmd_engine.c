#include "launch/commands.h"
#include "launch/session.h"

typedef struct engine_command_options {
    const char *socket;
    tsr_session_options session;
} engine_command_options;

#define FIELD(name) offsetof(engine_command_options, name)

static const tsr_args_option options_table[] = {
    {"--socket", "PATH", TSR_ARGS_TEXT, FIELD(socket), 0, 0, NULL,
     "where it listens: a Unix socket, which only this user may use"},
};

static tsr_status lead(tsr_engine *engine, void *ctx)
{
    const engine_command_options *o = ctx;

    return tsr_engine_host(engine, o->socket, o->session.model);
}

int tsr_cmd_engine_run(const tsr_call *call)
{
    const tsr_args_group groups[] = {
        {"Engine", options_table, sizeof(options_table) / sizeof(options_table[0]), 0},
        tsr_session_group(FIELD(session)),
    };
    const tsr_args_spec spec = {
        .command = "engine",
        .usage = "--model M --socket PATH [OPTIONS]",
        .about = "The model at the service of programs on this machine (libtessera's "
                 "tsr_engine_join()). 'tessera serve --tensor-parallel-size N' starts it by "
                 "itself. It ends with Ctrl-C or SIGTERM, and with the program that started it.",
        .groups = groups,
        .n_groups = 2,
        .examples = "  mpirun -n 2 tessera engine --model model.gguf --socket /run/user/1000/llm\n",
    };
    engine_command_options options = {0};
    int exit_status;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    if (options.session.model == NULL || options.socket == NULL) {
        exit_status = tsr_call_usage(call, "--model M and --socket PATH are needed");
    } else {
        exit_status =
            tsr_call_end(call, tsr_session_run(call, &options.session, TSR_OK, lead, &options));
    }
    tsr_args_clear(&spec, &options);
    return exit_status;
}
