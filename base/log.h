/*
 * base/log.h - lines on stderr for the person who runs the job.
 *
 * A line is written whole with one write(2), so that lines of several ranks never mix. When there
 * is more than one rank each line starts with "[rank r/n]". TSR_LOG=error|warn|info|debug chooses.
 *
 * Threads: safe from any.
 */
#ifndef TSR_BASE_LOG_H
#define TSR_BASE_LOG_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_log_level {
    TSR_LOG_ERROR,
    TSR_LOG_WARN, /* the default */
    TSR_LOG_INFO,
    TSR_LOG_DEBUG,
    TSR_LOG_LEVEL_COUNT
} tsr_log_level;

#define tsr_log_error(...) tsr_log_line(TSR_LOG_ERROR, __VA_ARGS__)
#define tsr_log_warn(...) tsr_log_line(TSR_LOG_WARN, __VA_ARGS__)
#define tsr_log_info(...) tsr_log_line(TSR_LOG_INFO, __VA_ARGS__)
#define tsr_log_debug(...) tsr_log_line(TSR_LOG_DEBUG, __VA_ARGS__)

void tsr_log_line(tsr_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A line that was asked for (a summary, a hint), whatever TSR_LOG says, without a prefix. */
void tsr_log_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Write a finished line, '\n' at its end, as it is. Safe in a signal handler, as nothing else here.
 */
void tsr_log_from_signal(const char *line, size_t n_bytes);

/* Who is speaking, for the prefix. One rank alone (n_ranks = 1) has no prefix. */
void tsr_log_set_rank(int rank, int n_ranks);

/* Lines above this level are not written. Overrides TSR_LOG. */
void tsr_log_set_level(tsr_log_level level);

bool tsr_log_on_terminal(void); /* is stderr a terminal? */

/*
 * A bar for long work, drawn on a terminal and silent elsewhere: "packing weights [####----] 48 %".
 * done in 0..total; done == total clears the line. Redraws at most ten times a second. Silent too
 * at level error.
 */
void tsr_log_progress(const char *what, uint64_t done, uint64_t total);

#ifdef __cplusplus
}
#endif

#endif
