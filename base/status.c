#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    MESSAGE_BYTES = 512,
    PLACE_BYTES = 96
};

static _Thread_local char message[MESSAGE_BYTES];
static _Thread_local char place[PLACE_BYTES];

tsr_status tsr_status_fail(const char *file, int line, tsr_status code, const char *format, ...)
{
    char made[MESSAGE_BYTES]; // the message before may be part of this one
    va_list args;

    va_start(args, format);
    (void)vsnprintf(made, sizeof(made), format, args);
    va_end(args);
    memcpy(message, made, strlen(made) + 1);
    (void)snprintf(place, sizeof(place), "%s:%d", file, line);
    return code;
}

const char *tsr_status_name(tsr_status code)
{
    static const char *const names[TSR_STATUS_COUNT] = {
        [TSR_OK] = "ok",
        [TSR_ERR_ARG] = "bad argument",
        [TSR_ERR_NOMEM] = "out of memory",
        [TSR_ERR_FULL] = "full",
        [TSR_ERR_IO] = "input/output error",
        [TSR_ERR_FORMAT] = "bad format",
        [TSR_ERR_UNSUPPORTED] = "unsupported",
        [TSR_ERR_DEVICE] = "device error",
        [TSR_ERR_COMM] = "rank lost",
        [TSR_ERR_CANCELLED] = "cancelled",
    };

    return (unsigned)code < TSR_STATUS_COUNT ? names[code] : "unknown status";
}

const char *tsr_status_message(void)
{
    return message;
}

const char *tsr_status_place(void)
{
    return place;
}
