#define _POSIX_C_SOURCE 200809L

#include "launch/batch_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#include <unistd.h>

#include "base/alloc.h"
#include "launch/signals.h"

enum {
    READ_BYTES = 1 << 16,
    POLL_MS = 200 // between two looks whether a signal has asked to end
};

struct tsr_batch_lines {
    const char *path; // borrowed, for messages
    int file;
    bool is_regular;
    bool has_ended; // nothing more can be read
    int64_t n_lines;
    int64_t number;
    char *bytes; // owned: what was read and not given out is [first, end)
    size_t capacity;
    size_t first;
    size_t end;
    bool is_skipping; // the rest of a line that is too long
    bool had_newline; // the line given out last
    int64_t offset;   // in the file, of `first`
};

static tsr_status count_lines(tsr_batch_lines *l)
{
    char bytes[READ_BYTES];
    char last = '\n';
    ssize_t n;

    while ((n = read(l->file, bytes, sizeof(bytes))) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            l->n_lines += bytes[i] == '\n' ? 1 : 0;
        }
        last = bytes[n - 1];
    }
    l->n_lines += last != '\n' ? 1 : 0;
    if (n < 0 || lseek(l->file, 0, SEEK_SET) != 0) {
        return tsr_fail(TSR_ERR_IO, "%s cannot be read: %s", l->path, strerror(errno));
    }
    return TSR_OK;
}

tsr_status tsr_batch_lines_open(tsr_batch_lines **out, const char *path)
{
    tsr_batch_lines *l = tsr_alloc(1, sizeof(*l));
    struct stat facts;
    tsr_status st = TSR_OK;

    if (l == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to read %s", path);
    }
    l->path = strcmp(path, "-") == 0 ? "stdin" : path;
    l->n_lines = -1;
    l->file = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (l->file < 0 || fstat(l->file, &facts) != 0) {
        st = tsr_fail(TSR_ERR_IO, "%s cannot be read: %s", path, strerror(errno));
        goto fail;
    }
    if (S_ISDIR(facts.st_mode)) {
        st = tsr_fail(TSR_ERR_IO, "%s is a folder", path);
        goto fail;
    }
    l->is_regular = S_ISREG(facts.st_mode);
    if (l->is_regular && l->file != STDIN_FILENO) {
        l->n_lines = 0;
        TSR_TRY_GOTO(st, fail, count_lines(l));
    }
    *out = l;
    return TSR_OK;

fail:
    tsr_batch_lines_close(l);
    return st;
}

void tsr_batch_lines_close(tsr_batch_lines *l)
{
    if (l == NULL) {
        return;
    }
    if (l->file > STDIN_FILENO) {
        (void)close(l->file);
    }
    tsr_free(l->bytes);
    tsr_free(l);
}

int64_t tsr_batch_lines_count(const tsr_batch_lines *l)
{
    return l->n_lines;
}

static tsr_status make_room(tsr_batch_lines *l)
{
    size_t capacity = l->capacity > 0 ? l->capacity : READ_BYTES;
    char *grown;

    if (l->first > 0) {
        memmove(l->bytes, l->bytes + l->first, l->end - l->first);
        l->end -= l->first;
        l->first = 0;
    }
    while (capacity < l->end + READ_BYTES + 1) {
        capacity *= 2;
    }
    if (capacity > l->capacity) {
        grown = tsr_alloc_resize(l->bytes, capacity, 1);
        if (grown == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for a line of %s", l->path);
        }
        l->bytes = grown;
        l->capacity = capacity;
    }
    return TSR_OK;
}

bool tsr_batch_lines_had_newline(const tsr_batch_lines *l)
{
    return l->had_newline;
}

int64_t tsr_batch_lines_offset(const tsr_batch_lines *l)
{
    return l->offset;
}

/* Some more bytes; *got is false when there are none at the moment. */
static tsr_status read_more(tsr_batch_lines *l, bool may_wait, bool *got)
{
    struct pollfd watched = {.fd = l->file, .events = POLLIN};
    ssize_t n;

    *got = false;
    while (!l->is_regular && poll(&watched, 1, may_wait ? POLL_MS : 0) <= 0) {
        if (tsr_signals_asked()) {
            return tsr_fail(TSR_ERR_CANCELLED, "asked to end by a signal");
        }
        if (!may_wait) {
            return TSR_OK;
        }
    }
    TSR_TRY(make_room(l));
    n = read(l->file, l->bytes + l->end, READ_BYTES);
    if (n < 0 && errno != EINTR && errno != EAGAIN) {
        return tsr_fail(TSR_ERR_IO, "%s cannot be read: %s", l->path, strerror(errno));
    }
    l->has_ended = n == 0;
    l->end += n > 0 ? (size_t)n : 0;
    *got = true;
    return TSR_OK;
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r') {
            return false;
        }
    }
    return true;
}

/* The line that ends `n` bytes behind the first one is taken; false: it is not to be shown. */
static bool take_line(tsr_batch_lines *l, size_t n, const char **text, size_t *n_bytes)
{
    const bool skipped = l->is_skipping;

    *text = l->bytes + l->first;
    *n_bytes = n;
    l->had_newline = n < l->end - l->first;
    l->bytes[l->first + n] = '\0';
    l->first += n + (l->had_newline ? 1 : 0);
    l->offset += (int64_t)n + (l->had_newline ? 1 : 0);
    l->number++;
    l->is_skipping = false;
    if (skipped) {
        *n_bytes = 0;
        return true;
    }
    return !is_blank(*text, n);
}

tsr_status tsr_batch_lines_next(tsr_batch_lines *l, bool may_wait, const char **text,
                                size_t *n_bytes, int64_t *number, bool *ended)
{
    size_t seen = 0; // bytes from the first on that have no newline
    bool got = true;

    *text = NULL;
    *ended = false;
    for (;;) {
        const size_t n = l->end - l->first;
        const char *newline = n > seen ? memchr(l->bytes + l->first + seen, '\n', n - seen) : NULL;

        if (newline != NULL || (l->has_ended && n > 0)) {
            const size_t line = newline != NULL ? (size_t)(newline - l->bytes) - l->first : n;

            seen = 0;
            if (take_line(l, line, text, n_bytes)) {
                *number = l->number;
                return TSR_OK;
            }
            *text = NULL;
            continue;
        }
        if (l->has_ended) {
            *ended = true;
            return TSR_OK;
        }
        if (n > TSR_BATCH_MOST_LINE) {
            l->is_skipping = true;
            l->offset += (int64_t)n;
            l->first = l->end = 0;
        }
        seen = l->end - l->first;
        TSR_TRY(read_more(l, may_wait, &got));
        if (!got) {
            return TSR_OK;
        }
    }
}
