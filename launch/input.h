/*
 * launch/input.h - text that comes in: files, and stdin.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_INPUT_H
#define TSR_LAUNCH_INPUT_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_INPUT_MOST_BYTES = 256 << 20 /* of one text */
};

/*
 * All bytes of the file `path`, or of stdin when it is "-", with a 0 behind them; tsr_free() them.
 * Errors: IO (cannot be read, too large; the path is named), NOMEM, CANCELLED (SIGINT or SIGTERM
 * came while waiting).
 */
TSR_MUST_CHECK tsr_status tsr_input_read(const char *path, char **text, size_t *n_bytes);

/* The next bytes of stdin, at most `room`; *n is 0 at its end. `name` is for the message. Errors:
 * IO, CANCELLED. */
TSR_MUST_CHECK tsr_status tsr_input_some(const char *name, char *at, size_t room, size_t *n);

#ifdef __cplusplus
}
#endif

#endif
