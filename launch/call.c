#include "launch/commands.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "launch/out.h"
#include "launch/signals.h"

enum {
    MESSAGE_BYTES = 512
};

static int complain_usage(const tsr_call *call, const char *message)
{
    if (call->speaks) {
        tsr_log_error("tessera %s: %s", call->command, message);
        tsr_log_error("'tessera %s --help' shows all options", call->command);
    }
    return TSR_EXIT_USAGE;
}

int tsr_call_usage(const tsr_call *call, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return complain_usage(call, message);
}

bool tsr_call_parse(const tsr_call *call, const tsr_args_spec *spec, void *into, int *exit_status)
{
    bool help;
    tsr_status st;

    if (call->show != NULL) {
        call->show(call->show_ctx, spec);
        *exit_status = TSR_EXIT_DONE;
        return false;
    }
    st = tsr_args_parse(spec, call->argc, call->argv, into, &help);
    if (st == TSR_OK && !help) {
        return true;
    }
    if (st == TSR_ERR_ARG) {
        *exit_status = complain_usage(call, tsr_status_message());
    } else {
        if (st == TSR_OK && call->speaks) {
            tsr_args_help(spec);
        }
        *exit_status = tsr_call_end(call, st);
    }
    tsr_args_clear(spec, into);
    return false;
}

int tsr_call_end(const tsr_call *call, tsr_status st)
{
    if (st == TSR_ERR_CANCELLED || (st == TSR_OK && tsr_signals_asked())) {
        return TSR_EXIT_SIGNAL + tsr_signals_number();
    }
    if (st == TSR_OK) {
        st = tsr_out_finish();
    }
    if (st != TSR_OK && call->speaks) {
        tsr_log_error("tessera %s: %s", call->command, tsr_status_message());
    }
    return st == TSR_OK ? TSR_EXIT_DONE : TSR_EXIT_FAILED;
}
