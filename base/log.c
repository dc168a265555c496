#define _POSIX_C_SOURCE 200809L

#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"

enum {
    LINE_BYTES = 1024,
    BAR_CELLS = 30,
    REDRAW_NS = 100000000
};

static atomic_int speaker;
static atomic_int speakers = 1;
static atomic_int chosen_level = -1;

static const char *const level_names[TSR_LOG_LEVEL_COUNT] = {"error", "warn", "info", "debug"};

static int current_level(void)
{
    int level = atomic_load(&chosen_level);

    if (level < 0) {
        const char *name = tsr_env_text(TSR_ENV_LOG);

        level = TSR_LOG_WARN;
        for (int i = 0; i < TSR_LOG_LEVEL_COUNT; i++) {
            if (strcmp(name, level_names[i]) == 0) {
                level = i;
            }
        }
        atomic_store(&chosen_level, level);
    }
    return level;
}

static void write_whole(const char *line, size_t n_bytes)
{
    while (n_bytes > 0) {
        const ssize_t written = write(STDERR_FILENO, line, n_bytes);

        if (written <= 0) {
            return; // nobody can be told that telling failed
        }
        line += written;
        n_bytes -= (size_t)written;
    }
}

void tsr_log_line(tsr_log_level level, const char *format, ...)
{
    char line[LINE_BYTES];
    int used = 0;
    va_list args;

    if ((int)level > current_level()) {
        return;
    }
    if (atomic_load(&speakers) > 1) {
        used = snprintf(line, sizeof(line), "[rank %d/%d] ", atomic_load(&speaker),
                        atomic_load(&speakers));
    }
    va_start(args, format);
    used += vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, args);
    va_end(args);
    if (used > LINE_BYTES - 2) {
        used = LINE_BYTES - 2;
    }
    line[used] = '\n';
    write_whole(line, (size_t)used + 1);
}

void tsr_log_say(const char *format, ...)
{
    char line[LINE_BYTES];
    va_list args;
    int used;

    va_start(args, format);
    used = vsnprintf(line, sizeof(line) - 1, format, args);
    va_end(args);
    if (used > LINE_BYTES - 2) {
        used = LINE_BYTES - 2;
    }
    line[used] = '\n';
    write_whole(line, (size_t)used + 1);
}

void tsr_log_from_signal(const char *line, size_t n_bytes)
{
    write_whole(line, n_bytes);
}

void tsr_log_set_rank(int rank, int n_ranks)
{
    atomic_store(&speaker, rank);
    atomic_store(&speakers, n_ranks);
}

void tsr_log_set_level(tsr_log_level level)
{
    atomic_store(&chosen_level, (int)level);
}

bool tsr_log_on_terminal(void)
{
    return isatty(STDERR_FILENO) == 1;
}

void tsr_log_progress(const char *what, uint64_t done, uint64_t total)
{
    static _Atomic int64_t drawn_ns;
    const int64_t now = tsr_clock_ns();
    char line[LINE_BYTES];
    char bar[BAR_CELLS + 1];
    int filled;
    int used;

    if (atomic_load(&speaker) != 0 || !tsr_log_on_terminal() || total == 0 ||
        current_level() < (int)TSR_LOG_WARN) {
        return;
    }
    if (done >= total) {
        write_whole("\r\033[K", 4);
        return;
    }
    if (now - atomic_load(&drawn_ns) < REDRAW_NS) {
        return;
    }
    atomic_store(&drawn_ns, now);
    filled = (int)(done * BAR_CELLS / total);
    memset(bar, '-', BAR_CELLS);
    memset(bar, '#', (size_t)filled);
    bar[BAR_CELLS] = '\0';
    used = snprintf(line, sizeof(line), "\r%s [%s] %3d %%", what, bar, (int)(done * 100 / total));
    write_whole(line, (size_t)used);
}
