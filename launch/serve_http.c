#include "launch/serve_http.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/log.h"
#include "launch/serve_net.h"
#include "launch/serve_routes.h"

enum {
    CONNECTION_BYTES = 64 << 10, // of the library, for headers and what is sent
    MOST_SURPLUS = 128,          // connections beyond the limit, at once, that are told so
    SURPLUS_S = 2,               // and have so long to ask
    OTHER_FILES = 128            // that a process has open besides
};

/* ---- connections ----------------------------------------------------------------------------- */

/* One too many is let in to be told so: what is not let in hangs, and whoever asks learns nothing.
 */
static void on_connection(void *ctx, struct MHD_Connection *connection, void **state,
                          enum MHD_ConnectionNotificationCode code)
{
    tsr_http *http = ctx;

    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        http->n_connections--;
    } else if (++http->n_connections > http->options.max_connections) {
        *state = http; // whatever is not NULL: a surplus one
        (void)MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                        (unsigned)SURPLUS_S);
    }
}

static bool is_surplus(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info != NULL && info->socket_context != NULL;
}

/* As many as the process may have files for. */
static void limit_connections(tsr_http_options *o)
{
    const int n_other = MOST_SURPLUS + OTHER_FILES;
    const int n_files = tsr_net_raise_files(o->max_connections + n_other);

    if (n_files < o->max_connections + n_other) {
        const int n = n_files > 2 * n_other ? n_files - n_other : n_files / 2;

        tsr_log_warn("%d connections at once, not %d: this process may have %d files open", n,
                     o->max_connections, n_files);
        o->max_connections = n;
    }
}

/* ---- requests -------------------------------------------------------------------------------- */

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *bytes,
                                  size_t *n_bytes, void **state)
{
    tsr_http *http = ctx;
    tsr_visit *v = *state;

    (void)version;
    if (v == NULL) {
        v = tsr_visit_create(http, connection);
        *state = v;
        if (v != NULL && is_surplus(connection)) {
            v->closes = true;
            return tsr_visit_refuse(v, MHD_HTTP_SERVICE_UNAVAILABLE,
                                    "too many connections; the server takes no more at once");
        }
        return v != NULL ? MHD_YES : MHD_NO;
    }
    if (*n_bytes > 0) {
        // What is beyond the limit is read and not kept: the client hears why at its end.
        if (v->body.n_bytes <= http->options.max_body &&
            tsr_text_append(&v->body, bytes, *n_bytes) != TSR_OK) {
            return MHD_NO;
        }
        *n_bytes = 0;
        return MHD_YES;
    }
    if (v->job != NULL) {
        return tsr_visit_send_whole(v);
    }
    if (v->body.n_bytes > http->options.max_body) {
        return tsr_visit_refuse(v, MHD_HTTP_CONTENT_TOO_LARGE, "the body is too large");
    }
    return tsr_routes_answer(v, method, path);
}

static void on_end(void *ctx, struct MHD_Connection *connection, void **state,
                   enum MHD_RequestTerminationCode code)
{
    (void)ctx;
    (void)connection;
    (void)code;
    tsr_visit_destroy(*state);
    *state = NULL;
}

/* ---- opening --------------------------------------------------------------------------------- */

static struct MHD_Daemon *start(tsr_http *h, const struct sockaddr_storage *address)
{
    const tsr_http_options *o = &h->options;
    const bool tls = o->tls_cert != NULL;
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
                           (address->ss_family == AF_INET6 ? MHD_USE_IPv6 : 0) |
                           (tls ? MHD_USE_TLS : 0);
    struct MHD_OptionItem extra[] = {
        {tls ? MHD_OPTION_HTTPS_MEM_CERT : MHD_OPTION_END, 0, (void *)(uintptr_t)o->tls_cert},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)o->tls_key},
        {MHD_OPTION_END, 0, NULL},
    };

    return MHD_start_daemon(
        flags, (uint16_t)o->port, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR, address,
        MHD_OPTION_NOTIFY_COMPLETED, on_end, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)(o->max_connections + MOST_SURPLUS),
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)o->idle_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1U, MHD_OPTION_ARRAY, extra,
        MHD_OPTION_END);
}

tsr_status tsr_http_open(tsr_http **out, const tsr_http_options *options)
{
    struct sockaddr_storage address;
    tsr_http *h;

    if (!tsr_net_address(options->host, options->port, &address)) {
        return tsr_fail(TSR_ERR_ARG, "--host wants an address such as 127.0.0.1 or ::1, not '%s'",
                        options->host);
    }
    if (options->tls_cert != NULL && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "libmicrohttpd was built without TLS here");
    }
    h = tsr_alloc(1, sizeof(*h));
    if (h == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a server");
    }
    h->options = *options;
    h->opened_s = (int64_t)time(NULL);
    limit_connections(&h->options);
    errno = 0;
    h->daemon = start(h, &address);
    if (h->daemon == NULL) {
        const int reason = errno;

        tsr_free(h);
        return tsr_fail(TSR_ERR_IO, "cannot listen at %s, port %d: %s", options->host,
                        options->port, reason != 0 ? strerror(reason) : "the library refuses");
    }
    *out = h;
    return TSR_OK;
}

void tsr_http_close(tsr_http *h)
{
    if (h != NULL) {
        MHD_stop_daemon(h->daemon);
        tsr_free(h);
    }
}

int tsr_http_port(const tsr_http *h)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);

    return info != NULL ? info->port : 0;
}
