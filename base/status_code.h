/*
 * base/status_code.h - how a call ends, for its caller. Part of what is installed beside
 * engine/tessera.h.
 */
#ifndef TSR_BASE_STATUS_CODE_H
#define TSR_BASE_STATUS_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

#endif
