/*
 * base/status.h - how a call fails: a code for the caller, one message for the reader.
 *
 * The first function to decide that something failed says so with tsr_fail(); everyone above
 * hands the code up with TSR_TRY. The message names numbers: what came, what was expected.
 *
 * Threads: the last message is kept a thread.
 */
#ifndef TSR_BASE_STATUS_H
#define TSR_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the caller can do about it. */
typedef enum tsr_status {
    TSR_OK = 0,
    TSR_ERR_ARG,         /* fix the call */
    TSR_ERR_NOMEM,       /* ask for less */
    TSR_ERR_FULL,        /* try later: normal life for the scheduler */
    TSR_ERR_IO,          /* a file or a socket could not be read or written */
    TSR_ERR_FORMAT,      /* the bytes are not what they claim to be */
    TSR_ERR_UNSUPPORTED, /* sound, but this build or model cannot do it */
    TSR_ERR_DEVICE,      /* the device failed */
    TSR_ERR_COMM,        /* a rank is lost */
    TSR_ERR_CANCELLED,   /* somebody asked for the end: SIGINT, SIGTERM, tsr_engine_cancel() */
    TSR_STATUS_COUNT
} tsr_status;

#define TSR_MUST_CHECK __attribute__((warn_unused_result))

/* Record the one message of a fault and return its code. */
#define tsr_fail(code, ...) tsr_status_fail(__FILE__, __LINE__, (code), __VA_ARGS__)

tsr_status tsr_status_fail(const char *file, int line, tsr_status code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

const char *tsr_status_name(tsr_status code);

/* This thread's last message, without its place; "" if there was none. Good until the next fault.
 */
const char *tsr_status_message(void);

/* Where this thread's last message was made, as "kv/kv_store.c:41". */
const char *tsr_status_place(void);

/* Hand a failure to the caller as it is. */
#define TSR_TRY(expr)                      \
    do {                                   \
        const tsr_status try_st_ = (expr); \
        if (try_st_ != TSR_OK) {           \
            return try_st_;                \
        }                                  \
    } while (0)

/* Same, but leave through `label` so that what was acquired is given back. */
#define TSR_TRY_GOTO(st, label, expr) \
    do {                              \
        (st) = (expr);                \
        if ((st) != TSR_OK) {         \
            goto label;               \
        }                             \
    } while (0)

#ifdef __cplusplus
}
#endif

#endif
