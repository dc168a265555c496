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

#include "base/status_code.h"

#ifdef __cplusplus
extern "C" {
#endif

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
