#define _GNU_SOURCE // POLLRDHUP

#include "launch/serve_visit.h"

#include <poll.h>
#include <string.h>

#include "base/alloc.h"
#include "launch/out.h"

enum {
    CHUNK_BYTES = 16 << 10
};

/* ---- answers --------------------------------------------------------------------------------- */

static void add_headers(const tsr_visit *v, struct MHD_Response *response, int status,
                        const char *type)
{
    const char *cors = v->http->options.cors;
    const struct {
        bool wanted;
        const char *name;
        const char *value;
    } headers[] = {
        {true, MHD_HTTP_HEADER_CONTENT_TYPE, type},
        {true, "X-Content-Type-Options", "nosniff"},
        {true, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache"},
        {strncmp(type, "text/html", 9) == 0, "Content-Security-Policy",
         "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
         "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
        {status == MHD_HTTP_UNAUTHORIZED, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer"},
        {status == MHD_HTTP_METHOD_NOT_ALLOWED && v->allowed != NULL, MHD_HTTP_HEADER_ALLOW,
         v->allowed},
        {status == MHD_HTTP_TOO_MANY_REQUESTS || status == MHD_HTTP_SERVICE_UNAVAILABLE,
         MHD_HTTP_HEADER_RETRY_AFTER, "1"},
        {v->closes, MHD_HTTP_HEADER_CONNECTION, "close"},
        {cors != NULL, "Access-Control-Allow-Origin", cors},
        {cors != NULL && status == MHD_HTTP_NO_CONTENT, "Access-Control-Allow-Headers",
         "Authorization, Content-Type"},
        {cors != NULL && status == MHD_HTTP_NO_CONTENT, "Access-Control-Allow-Methods",
         "GET, POST, OPTIONS"},
    };

    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        if (headers[i].wanted) {
            (void)MHD_add_response_header(response, headers[i].name, headers[i].value);
        }
    }
}

enum MHD_Result tsr_visit_send(tsr_visit *v, int status, const char *type, const char *text,
                               size_t n_bytes)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(n_bytes, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result done;

    if (response == NULL) {
        return MHD_NO;
    }
    add_headers(v, response, status, type);
    done = MHD_queue_response(v->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return done;
}

enum MHD_Result tsr_visit_send_json(tsr_visit *v, int status, json_t *value)
{
    tsr_text text = {0};
    enum MHD_Result done = MHD_NO;

    if (tsr_out_json_append(&text, value) == TSR_OK) {
        done = tsr_visit_send(v, status, "application/json", text.bytes, text.n_bytes);
    }
    json_decref(value);
    tsr_text_clear(&text);
    return done;
}

enum MHD_Result tsr_visit_send_error(tsr_visit *v, const tsr_api_error *error)
{
    tsr_metrics_add(v->http->options.metrics,
                    error->status >= 500 ? TSR_COUNTER_FAILED : TSR_COUNTER_REFUSED, 1);
    return tsr_visit_send_json(v, error->status, tsr_api_error_object(error));
}

enum MHD_Result tsr_visit_refuse(tsr_visit *v, int status, const char *message)
{
    tsr_api_error error;

    tsr_api_error_set(&error, status, "", "%s", message);
    return tsr_visit_send_error(v, &error);
}

/* ---- waiting for a job ----------------------------------------------------------------------- */

/* The engine's thread; the answer is locked. */
static void wake(void *ctx)
{
    tsr_visit *v = ctx;

    if (v->is_suspended) {
        v->is_suspended = false;
        MHD_resume_connection(v->connection);
    }
}

/* The same. A suspended connection is watched by nobody else. */
static void look(void *ctx)
{
    tsr_visit *v = ctx;
    struct pollfd watched = {.fd = v->socket, .events = POLLRDHUP};

    if (v->is_suspended && poll(&watched, 1, 0) > 0) {
        v->is_gone = true;
        wake(v);
    }
}

tsr_client tsr_visit_client(tsr_visit *v)
{
    return (tsr_client){wake, look, v};
}

/* Until wake(); the answer is locked. */
static void suspend(tsr_visit *v)
{
    v->is_suspended = true;
    MHD_suspend_connection(v->connection);
}

/* More of a stream. */
static ssize_t read_stream(void *ctx, uint64_t position, char *to, size_t room)
{
    tsr_visit *v = ctx;
    const tsr_api_answer *answer = tsr_job_lock(v->job);
    ssize_t n = 0;

    (void)position;
    if (v->taken == v->out.n_bytes) {
        v->out.n_bytes = v->taken = 0;
        if (tsr_stream_write(&v->stream, answer, &v->out) != TSR_OK || v->is_gone) {
            tsr_job_unlock(v->job);
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
    }
    if (v->taken < v->out.n_bytes) {
        const size_t left = v->out.n_bytes - v->taken;

        n = (ssize_t)(left < room ? left : room);
        memcpy(to, v->out.bytes + v->taken, (size_t)n);
        v->taken += (size_t)n;
    } else if (v->stream.is_over) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        suspend(v);
    }
    tsr_job_unlock(v->job);
    return n;
}

enum MHD_Result tsr_visit_send_stream(tsr_visit *v)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, CHUNK_BYTES, read_stream, v, NULL);
    enum MHD_Result done;

    if (response == NULL) {
        return MHD_NO;
    }
    add_headers(v, response, MHD_HTTP_OK, "text/event-stream");
    done = MHD_queue_response(v->connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return done;
}

enum MHD_Result tsr_visit_send_whole(tsr_visit *v)
{
    const tsr_api_answer *answer = tsr_job_lock(v->job);
    json_t *object = NULL;
    int status = 0;

    if (v->is_gone) {
        tsr_job_unlock(v->job);
        return MHD_NO;
    }
    if (tsr_api_answer_is_whole(answer)) {
        object = tsr_api_answer_object(answer);
        status = answer->failed ? answer->error.status : MHD_HTTP_OK;
    } else {
        suspend(v);
    }
    tsr_job_unlock(v->job);
    if (status == 0) {
        return MHD_YES;
    }
    if (status >= 400) {
        tsr_metrics_add(v->http->options.metrics,
                        status >= 500 ? TSR_COUNTER_FAILED : TSR_COUNTER_REFUSED, 1);
    }
    return tsr_visit_send_json(v, status, object);
}

/* ---- life ------------------------------------------------------------------------------------ */

tsr_visit *tsr_visit_create(tsr_http *http, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    tsr_visit *v = info != NULL ? tsr_alloc(1, sizeof(*v)) : NULL;

    if (v != NULL) {
        v->http = http;
        v->connection = connection;
        v->socket = info->connect_fd;
    }
    return v;
}

void tsr_visit_destroy(tsr_visit *v)
{
    if (v == NULL) {
        return;
    }
    if (v->job != NULL) {
        tsr_job_let_go(v->job);
    }
    tsr_stream_clear(&v->stream);
    tsr_text_clear(&v->out);
    tsr_text_clear(&v->body);
    tsr_free(v);
}
