#define _POSIX_C_SOURCE 200809L

#include "launch/input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "launch/signals.h"

enum {
    FIRST_BYTES = 1 << 16,
    LOOK_UP_MS = 100 /* how late a signal may be noticed while waiting for a slow writer */
};

/* The next bytes, at most `room`; 0 at the end. */
static tsr_status read_some(int file, const char *name, char *at, size_t room, size_t *n)
{
    for (;;) {
        struct pollfd waiting = {.fd = file, .events = POLLIN};
        ssize_t got;

        if (tsr_signals_asked()) {
            return tsr_fail(TSR_ERR_CANCELLED, "stopped while reading %s", name);
        }
        if (poll(&waiting, 1, LOOK_UP_MS) <= 0) {
            continue; // nothing yet; or a signal came, and reading would wait on in spite of it
        }
        got = read(file, at, room);
        if (got >= 0) {
            *n = (size_t)got;
            return TSR_OK;
        }
        if (errno != EINTR && errno != EAGAIN) {
            return tsr_fail(TSR_ERR_IO, "%s cannot be read: %s", name, strerror(errno));
        }
    }
}

static tsr_status read_all(int file, const char *name, char **text, size_t *n_bytes)
{
    size_t room = FIRST_BYTES;
    size_t used = 0;
    char *bytes = tsr_alloc(room, 1);
    tsr_status st;

    if (bytes == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to read %s", name);
    }
    for (;;) {
        size_t n = 0;

        TSR_TRY_GOTO(st, fail, read_some(file, name, bytes + used, room - used - 1, &n));
        if (n == 0) {
            break;
        }
        used += n;
        if (used > TSR_INPUT_MOST_BYTES) {
            st = tsr_fail(TSR_ERR_IO, "%s is larger than %d MiB: too much for one text", name,
                          TSR_INPUT_MOST_BYTES >> 20);
            goto fail;
        }
        if (used == room - 1) {
            char *more = tsr_alloc_resize(bytes, room * 2, 1);

            if (more == NULL) {
                st = tsr_fail(TSR_ERR_NOMEM, "no memory to read %s", name);
                goto fail;
            }
            bytes = more;
            room *= 2;
        }
    }
    bytes[used] = '\0';
    *text = bytes;
    *n_bytes = used;
    return TSR_OK;

fail:
    tsr_free(bytes);
    return st;
}

tsr_status tsr_input_some(const char *name, char *at, size_t room, size_t *n)
{
    return read_some(STDIN_FILENO, name, at, room, n);
}

tsr_status tsr_input_read(const char *path, char **text, size_t *n_bytes)
{
    tsr_status st;
    int file;

    if (strcmp(path, "-") == 0) {
        if (isatty(STDIN_FILENO) == 1) {
            tsr_log_say("reading text from the terminal; Ctrl-D on an empty line ends it");
        }
        return read_all(STDIN_FILENO, "stdin", text, n_bytes);
    }
    file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (file < 0) {
        return tsr_fail(TSR_ERR_IO, "%s cannot be opened: %s", path, strerror(errno));
    }
    st = read_all(file, path, text, n_bytes);
    (void)close(file);
    return st;
}
