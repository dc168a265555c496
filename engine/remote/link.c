#define _GNU_SOURCE // accept4, struct ucred

#include "engine/remote/link.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 << 10,
    MOST_WAITING = 64 // to be accepted
};

static tsr_status address_of(struct sockaddr_un *out, const char *path)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (path[0] == '\0' || strlen(path) >= sizeof(out->sun_path)) {
        return tsr_fail(TSR_ERR_ARG, "a socket's path has 1 to %zu bytes, not %zu: '%.100s'",
                        sizeof(out->sun_path) - 1, strlen(path), path);
    }
    memcpy(out->sun_path, path, strlen(path) + 1);
    return TSR_OK;
}

tsr_status tsr_link_connect(tsr_link *link, const char *path)
{
    struct sockaddr_un address;
    int made;
    int reason;

    TSR_TRY(address_of(&address, path));
    made = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0) {
        return tsr_fail(TSR_ERR_IO, "no socket: %s", strerror(errno));
    }
    if (connect(made, (const struct sockaddr *)&address, sizeof(address)) == 0) {
        *link = (tsr_link){.socket = made};
        return TSR_OK;
    }
    reason = errno;
    (void)close(made);
    return tsr_fail(reason == ENOENT || reason == ECONNREFUSED || reason == EAGAIN ? TSR_ERR_COMM
                                                                                   : TSR_ERR_IO,
                    "cannot connect to '%s': %s", path, strerror(reason));
}

tsr_status tsr_link_listen(int *out, const char *path)
{
    struct sockaddr_un address;
    tsr_link other = TSR_LINK_NONE;
    struct stat found;
    mode_t before;
    int bound;
    int made;

    TSR_TRY(address_of(&address, path));
    if (tsr_link_connect(&other, path) == TSR_OK) {
        tsr_link_close(&other);
        return tsr_fail(TSR_ERR_COMM, "an engine listens at '%s' already", path);
    }
    if (lstat(path, &found) == 0 && S_ISSOCK(found.st_mode)) {
        (void)unlink(path); // of one that was killed
    }
    made = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0) {
        return tsr_fail(TSR_ERR_IO, "no socket: %s", strerror(errno));
    }
    before = umask(0177);
    bound = bind(made, (const struct sockaddr *)&address, sizeof(address));
    (void)umask(before);
    if (bound != 0 || listen(made, MOST_WAITING) != 0) {
        const int reason = errno;

        (void)close(made);
        return tsr_fail(TSR_ERR_IO, "cannot listen at '%s': %s", path, strerror(reason));
    }
    *out = made;
    return TSR_OK;
}

tsr_status tsr_link_accept(tsr_link *link, int listening)
{
    const int made = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (made < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        return tsr_fail(TSR_ERR_IO, "cannot accept a client: %s", strerror(errno));
    }
    *link = (tsr_link){.socket = made < 0 ? -1 : made};
    return TSR_OK;
}

void tsr_link_close(tsr_link *link)
{
    if (link->socket >= 0) {
        (void)close(link->socket);
    }
    tsr_text_clear(&link->in);
    tsr_text_clear(&link->out);
    *link = TSR_LINK_NONE;
}

/* What was used makes place. */
static void shift(tsr_text *text, size_t *n_used)
{
    if (*n_used > 0) {
        memmove(text->bytes, text->bytes + *n_used, text->n_bytes - *n_used);
        text->n_bytes -= *n_used;
        *n_used = 0;
    }
}

tsr_status tsr_link_receive(tsr_link *link, bool *any)
{
    char bytes[READ_BYTES];

    *any = false;
    shift(&link->in, &link->n_used);
    // A frame that is never whole is found out by its length; what is behind it can wait.
    while (link->in.n_bytes < TSR_WIRE_MOST_BYTES) {
        const ssize_t n = recv(link->socket, bytes, sizeof(bytes), 0);

        if (n > 0) {
            *any = true;
            TSR_TRY(tsr_text_append(&link->in, bytes, (size_t)n));
        } else if (n == 0) {
            return tsr_fail(TSR_ERR_COMM, "the other side has gone");
        } else if (errno == EAGAIN) {
            return TSR_OK;
        } else if (errno != EINTR) {
            return tsr_fail(TSR_ERR_COMM, "the connection is lost: %s", strerror(errno));
        }
    }
    return TSR_OK;
}

tsr_status tsr_link_send(tsr_link *link)
{
    while (link->n_sent < link->out.n_bytes) {
        const ssize_t n = send(link->socket, link->out.bytes + link->n_sent,
                               link->out.n_bytes - link->n_sent, MSG_NOSIGNAL);

        if (n >= 0) {
            link->n_sent += (size_t)n;
        } else if (errno == EAGAIN) {
            shift(&link->out, &link->n_sent);
            return TSR_OK;
        } else if (errno != EINTR) {
            return tsr_fail(TSR_ERR_COMM, "the connection is lost: %s", strerror(errno));
        }
    }
    link->out.n_bytes = link->n_sent = 0;
    return TSR_OK;
}

tsr_status tsr_link_next(tsr_link *link, tsr_wire *frame, bool *is_there)
{
    size_t used = 0;

    if (link->n_used < link->in.n_bytes) {
        TSR_TRY(tsr_wire_read(frame, &used, link->in.bytes + link->n_used,
                              link->in.n_bytes - link->n_used));
    }
    link->n_used += used;
    *is_there = used > 0;
    return TSR_OK;
}

int tsr_link_peer(const tsr_link *link)
{
    struct ucred peer;
    socklen_t n_bytes = sizeof(peer);

    return getsockopt(link->socket, SOL_SOCKET, SO_PEERCRED, &peer, &n_bytes) == 0 ? (int)peer.pid
                                                                                   : 0;
}
