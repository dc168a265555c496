/*
 * launch/batch_lines.h - the lines of a batch file, one at a time, from a file or a pipe that may
 * be slow.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_BATCH_LINES_H
#define TSR_LAUNCH_BATCH_LINES_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_BATCH_MOST_LINE = 64 << 20 /* bytes of one line */
};

typedef struct tsr_batch_lines tsr_batch_lines;

/* path "-": stdin. Errors: IO, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_batch_lines_open(tsr_batch_lines **out, const char *path);
void tsr_batch_lines_close(tsr_batch_lines *lines); /* NULL is fine */

/* How many lines there are; -1: it is a pipe, who knows. */
int64_t tsr_batch_lines_count(const tsr_batch_lines *lines);

/*
 * The next line that is not blank, without its newline, with a 0 behind it; good until the next
 * call. *number counts all lines from 1. may_wait: false comes back at once when a pipe has no
 * whole line yet. *text is NULL then, and at the end (*ended). A line that is too long comes as
 * n_bytes 0.
 * Errors: IO, NOMEM, CANCELLED (asked to end by a signal).
 */
TSR_MUST_CHECK tsr_status tsr_batch_lines_next(tsr_batch_lines *lines, bool may_wait,
                                               const char **text, size_t *n_bytes, int64_t *number,
                                               bool *ended);

/* Of the line given out last: did it end with a newline, and how many bytes lie before the one that
 * follows it? */
bool tsr_batch_lines_had_newline(const tsr_batch_lines *lines);
int64_t tsr_batch_lines_offset(const tsr_batch_lines *lines);

#ifdef __cplusplus
}
#endif

#endif
