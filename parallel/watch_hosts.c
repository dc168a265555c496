#define _GNU_SOURCE // accept4

#include "parallel/watch_hosts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

enum {
    MEET_MS = 15000,  // for all guests to come
    GREET_MS = 1000,  // to connect, and to answer
    SILENT_LOOKS = 30 // 3 s
};

typedef enum kind {
    LIFE = 1,
    END,  // the job ends, and it has been said why
    PEACE // no more will come, and that is well
} kind;

typedef struct message {
    int64_t kind;
    tsr_watch_sign sign;
} message;

/* The first bytes of either side. */
typedef struct greeting {
    uint64_t secret[2];
    tsr_watch_host self;
} greeting;

typedef struct contact {
    int fd; // -1: none, or ended in peace
    tsr_watch_host who;
    tsr_watch_sign last;
    int n_quiet; // looks since the last sign
    size_t n_in; // bytes of a message that has come in part
    char in[sizeof(message)];
} contact;

struct tsr_watch_hosts {
    int listener; // -1 but while rank 0 waits for guests
    int n_contacts;
    bool has_ended;
    contact contacts[];
};

// ---- the meeting --------------------------------------------------------------------------------

static tsr_status make(tsr_watch_hosts **out, int n_contacts)
{
    tsr_watch_hosts *hosts = tsr_alloc(1, sizeof(*hosts) + (size_t)n_contacts * sizeof(contact));

    if (hosts == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "watch of %d hosts", n_contacts);
    }
    hosts->listener = -1;
    hosts->n_contacts = n_contacts;
    for (int i = 0; i < n_contacts; i++) {
        hosts->contacts[i].fd = -1;
    }
    *out = hosts;
    return TSR_OK;
}

/* The addresses of this host that others may know. */
static int list_addresses(uint32_t *addresses)
{
    struct ifaddrs *all = NULL;
    int n = 0;

    if (getifaddrs(&all) != 0) {
        return 0;
    }
    for (const struct ifaddrs *one = all; one != NULL; one = one->ifa_next) {
        if (one->ifa_addr != NULL && one->ifa_addr->sa_family == AF_INET &&
            (one->ifa_flags & IFF_UP) != 0 && (one->ifa_flags & IFF_LOOPBACK) == 0 &&
            n < TSR_WATCH_HOSTS_ADDRESSES) {
            struct sockaddr_in address;

            memcpy(&address, one->ifa_addr, sizeof(address));
            addresses[n++] = address.sin_addr.s_addr;
        }
    }
    freeifaddrs(all);
    return n;
}

tsr_status tsr_watch_hosts_invite(tsr_watch_hosts **out, int n_guests,
                                  tsr_watch_invitation *invitation)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t n_bytes = sizeof(any);
    tsr_watch_hosts *hosts = NULL;
    tsr_status st = TSR_OK;

    TSR_TRY(make(&hosts, n_guests));
    hosts->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (hosts->listener < 0 || bind(hosts->listener, (struct sockaddr *)&any, sizeof(any)) != 0 ||
        listen(hosts->listener, n_guests) != 0 ||
        getsockname(hosts->listener, (struct sockaddr *)&any, &n_bytes) != 0 ||
        getrandom(invitation->secret, sizeof(invitation->secret), 0) !=
            (ssize_t)sizeof(invitation->secret)) {
        st = tsr_fail(TSR_ERR_IO, "no port for the other hosts: %s", strerror(errno));
        goto fail;
    }
    invitation->port = any.sin_port;
    invitation->n_addresses = list_addresses(invitation->addresses);
    if (invitation->n_addresses == 0) {
        st = tsr_fail(TSR_ERR_IO, "this host has no IPv4 address for other hosts");
        goto fail;
    }
    *out = hosts;
    return TSR_OK;

fail:
    tsr_watch_hosts_close(hosts);
    return st;
}

/* All bytes, within GREET_MS of silence. */
static bool receive_all(int fd, void *bytes, size_t n_bytes)
{
    struct pollfd there = {.fd = fd, .events = POLLIN};
    size_t n = 0;

    while (n < n_bytes && poll(&there, 1, GREET_MS) > 0) {
        const ssize_t got = recv(fd, (char *)bytes + n, n_bytes - n, MSG_DONTWAIT);

        if (got <= 0) {
            return false;
        }
        n += (size_t)got;
    }
    return n == n_bytes;
}

/* Both sides show who they are. */
static bool greet(int fd, const tsr_watch_host *self, const tsr_watch_invitation *invitation,
                  contact *c)
{
    const int yes = 1;
    greeting mine = {.secret = {invitation->secret[0], invitation->secret[1]}, .self = *self};
    greeting theirs;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    if (send(fd, &mine, sizeof(mine), MSG_NOSIGNAL) != (ssize_t)sizeof(mine) ||
        !receive_all(fd, &theirs, sizeof(theirs)) ||
        memcmp(theirs.secret, mine.secret, sizeof(mine.secret)) != 0) {
        return false;
    }
    *c = (contact){.fd = fd, .who = theirs.self, .last.number = -1};
    c->who.name[TSR_WATCH_HOSTS_NAME_BYTES - 1] = '\0';
    return true;
}

/* Rank 0: everybody comes. */
static tsr_status receive_guests(tsr_watch_hosts *hosts, const tsr_watch_host *self,
                                 const tsr_watch_invitation *invitation)
{
    const int64_t end_ns = tsr_clock_ns() + (int64_t)MEET_MS * 1000000;
    int n = 0;

    while (n < hosts->n_contacts) {
        struct pollfd door = {.fd = hosts->listener, .events = POLLIN};
        const int64_t left_ms = (end_ns - tsr_clock_ns()) / 1000000;
        int fd;

        if (left_ms <= 0 || poll(&door, 1, (int)left_ms) <= 0) {
            return tsr_fail(TSR_ERR_IO, "%d of %d other hosts did not come to port %d",
                            hosts->n_contacts - n, hosts->n_contacts, ntohs(invitation->port));
        }
        fd = accept4(hosts->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0 && greet(fd, self, invitation, &hosts->contacts[n])) {
            n++;
        } else if (fd >= 0) {
            (void)close(fd);
        }
    }
    (void)close(hosts->listener);
    hosts->listener = -1;
    return TSR_OK;
}

/* -1: nobody there. */
static int connect_to(uint32_t address, uint16_t port)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_addr.s_addr = address, .sin_port = port};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd made = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t n_bytes = sizeof(error);

    if (fd < 0) {
        return -1;
    }
    if ((connect(fd, (const struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) ||
        poll(&made, 1, GREET_MS) <= 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n_bytes) != 0 || error != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

tsr_status tsr_watch_hosts_meet(tsr_watch_hosts **hosts, const tsr_watch_host *self,
                                const tsr_watch_invitation *invitation)
{
    tsr_watch_hosts *guest = NULL;

    if (*hosts != NULL) {
        return receive_guests(*hosts, self, invitation);
    }
    TSR_TRY(make(&guest, 1));
    *hosts = guest;
    // An address of that host may be one of this host, too, and belong to somebody else here.
    for (int i = 0; i < invitation->n_addresses; i++) {
        const int fd = connect_to(invitation->addresses[i], invitation->port);

        if (fd >= 0 && greet(fd, self, invitation, &guest->contacts[0])) {
            return TSR_OK;
        }
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    return tsr_fail(TSR_ERR_IO,
                    "host %s cannot reach the host of rank 0 at any of its %d addresses",
                    self->name, (int)invitation->n_addresses);
}

// ---- signs of life ------------------------------------------------------------------------------

/* A full queue keeps enough signs of life as it is. */
static void tell(const contact *c, kind what, const tsr_watch_sign *sign)
{
    message m = {.kind = what};

    if (sign != NULL) {
        m.sign = *sign;
    }
    if (c->fd >= 0) {
        (void)!send(c->fd, &m, sizeof(m), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

static void drop(contact *c)
{
    (void)close(c->fd);
    c->fd = -1;
}

/* What has come over a connection. */
static tsr_watch_news read_contact(contact *c)
{
    while (c->fd >= 0) {
        const ssize_t n = recv(c->fd, c->in + c->n_in, sizeof(c->in) - c->n_in, MSG_DONTWAIT);
        message m;

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return TSR_WATCH_NEWS_NONE;
        }
        if (n <= 0) {
            drop(c);
            return TSR_WATCH_NEWS_GONE;
        }
        c->n_in += (size_t)n;
        if (c->n_in < sizeof(m)) {
            continue;
        }
        memcpy(&m, c->in, sizeof(m));
        c->n_in = 0;
        c->n_quiet = 0;
        c->last = m.sign;
        c->last.note[TSR_WATCH_HOSTS_NOTE_BYTES - 1] = '\0';
        if (m.kind == END) {
            return TSR_WATCH_NEWS_ENDED;
        }
        if (m.kind == PEACE) {
            drop(c);
        }
    }
    return TSR_WATCH_NEWS_NONE;
}

tsr_watch_news tsr_watch_hosts_look(tsr_watch_hosts *hosts, bool on_time,
                                    const tsr_watch_sign *sign, tsr_watch_host *who,
                                    tsr_watch_sign *last)
{
    for (int i = 0; hosts != NULL && i < hosts->n_contacts; i++) {
        contact *c = &hosts->contacts[i];
        tsr_watch_news news = read_contact(c);

        if (on_time && c->fd >= 0 && news == TSR_WATCH_NEWS_NONE) {
            tell(c, LIFE, sign);
            news = ++c->n_quiet >= SILENT_LOOKS ? TSR_WATCH_NEWS_SILENT : TSR_WATCH_NEWS_NONE;
        }
        if (news != TSR_WATCH_NEWS_NONE) {
            *who = c->who;
            *last = c->last;
            return news;
        }
    }
    return TSR_WATCH_NEWS_NONE;
}

void tsr_watch_hosts_end(tsr_watch_hosts *hosts)
{
    if (hosts == NULL || hosts->has_ended) {
        return;
    }
    hosts->has_ended = true;
    for (int i = 0; i < hosts->n_contacts; i++) {
        tell(&hosts->contacts[i], END, NULL);
    }
}

void tsr_watch_hosts_close(tsr_watch_hosts *hosts)
{
    if (hosts == NULL) {
        return;
    }
    for (int i = 0; i < hosts->n_contacts; i++) {
        if (hosts->contacts[i].fd >= 0) {
            tell(&hosts->contacts[i], PEACE, NULL);
            drop(&hosts->contacts[i]);
        }
    }
    if (hosts->listener >= 0) {
        (void)close(hosts->listener);
    }
    tsr_free(hosts);
}
