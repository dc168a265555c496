#define _GNU_SOURCE // POLLRDHUP

#include "launch/serve_http.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <microhttpd.h>

#include "base/alloc.h"
#include "launch/out.h"
#include "launch/serve_net.h"
#include "launch/serve_stream.h"

enum {
    CONNECTION_BYTES = 64 << 10, // of the library, for headers and what is sent
    CHUNK_BYTES = 16 << 10
};

struct tsr_http {
    tsr_http_options options;
    struct MHD_Daemon *daemon;
    int64_t opened_s;
    int64_t n_requests; // the daemon's thread only
};

/* One request of a connection. */
typedef struct visit {
    tsr_http *http;
    struct MHD_Connection *connection;
    int socket;
    tsr_text body;
    tsr_job *job;
    bool is_suspended; // guarded by the job's lock, as is the next
    bool is_gone;      // the client
    tsr_stream stream;
    tsr_text out; // of the stream: what the library has not taken yet is [taken, end)
    size_t taken;
} visit;

/* ---- answers --------------------------------------------------------------------------------- */

static enum MHD_Result send_text(visit *v, int status, const char *type, const char *text,
                                 size_t n_bytes)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(n_bytes, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result done;

    if (response == NULL) {
        return MHD_NO;
    }
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (v->http->options.cors != NULL) {
        (void)MHD_add_response_header(response, "Access-Control-Allow-Origin",
                                      v->http->options.cors);
        (void)MHD_add_response_header(response, "Access-Control-Allow-Headers",
                                      "Authorization, Content-Type");
    }
    done = MHD_queue_response(v->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return done;
}

static int append(const char *bytes, size_t n_bytes, void *text)
{
    return tsr_text_append(text, bytes, n_bytes) == TSR_OK ? 0 : -1;
}

/* Takes value. */
static enum MHD_Result send_json(visit *v, int status, json_t *value)
{
    tsr_text text = {0};
    enum MHD_Result done = MHD_NO;

    if (value != NULL && json_dump_callback(value, append, &text, JSON_COMPACT) == 0) {
        done = send_text(v, status, "application/json", text.bytes, text.n_bytes);
    }
    json_decref(value);
    tsr_text_clear(&text);
    return done;
}

static enum MHD_Result send_error(visit *v, const tsr_api_error *error)
{
    tsr_metrics_add(v->http->options.metrics,
                    error->status >= 500 ? TSR_COUNTER_FAILED : TSR_COUNTER_REFUSED, 1);
    return send_json(v, error->status, tsr_api_error_object(error));
}

static enum MHD_Result refuse(visit *v, int status, const char *message)
{
    tsr_api_error error;

    tsr_api_error_set(&error, status, "", "%s", message);
    return send_error(v, &error);
}

/* ---- waiting for a job ----------------------------------------------------------------------- */

/* The engine's thread; the answer is locked. */
static void wake(void *ctx)
{
    visit *v = ctx;

    if (v->is_suspended) {
        v->is_suspended = false;
        MHD_resume_connection(v->connection);
    }
}

/* The same. A suspended connection is watched by nobody else. */
static void look(void *ctx)
{
    visit *v = ctx;
    struct pollfd watched = {.fd = v->socket, .events = POLLRDHUP};

    if (v->is_suspended && poll(&watched, 1, 0) > 0) {
        v->is_gone = true;
        wake(v);
    }
}

/* Until wake(); the answer is locked. */
static void suspend(visit *v)
{
    v->is_suspended = true;
    MHD_suspend_connection(v->connection);
}

/* More of a stream. */
static ssize_t read_stream(void *ctx, uint64_t position, char *to, size_t room)
{
    visit *v = ctx;
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

static enum MHD_Result send_stream(visit *v)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, CHUNK_BYTES, read_stream, v, NULL);
    enum MHD_Result done;

    if (response == NULL) {
        return MHD_NO;
    }
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/event-stream");
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    if (v->http->options.cors != NULL) {
        (void)MHD_add_response_header(response, "Access-Control-Allow-Origin",
                                      v->http->options.cors);
    }
    done = MHD_queue_response(v->connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return done;
}

/* The whole answer, if it is there; otherwise this is called again. */
static enum MHD_Result send_when_whole(visit *v)
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
    return send_json(v, status, object);
}

/* ---- what is asked for ----------------------------------------------------------------------- */

static json_t *read_body(const visit *v)
{
    return json_loadb(v->body.bytes != NULL ? v->body.bytes : "", v->body.n_bytes,
                      JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
}

static bool is_this_model(const tsr_http *h, const char *name)
{
    return name == NULL || name[0] == '\0' || strcmp(name, h->options.name) == 0;
}

/* A job of the request; what is refused is in *error. */
static tsr_status make_job(visit *v, tsr_api_request *request, tsr_api_error *error)
{
    const tsr_http_options *o = &v->http->options;
    const tsr_client client = {wake, look, v};
    tsr_api_answer answer = {0};
    tsr_status st;

    st = tsr_api_answer_init(&answer, request, o->model, o->name);
    if (st == TSR_OK) {
        (void)snprintf(answer.id, sizeof(answer.id), "%s-%08llx%06llx",
                       request->kind == TSR_API_CHAT ? "chatcmpl" : "cmpl",
                       (unsigned long long)v->http->opened_s,
                       (unsigned long long)v->http->n_requests);
        answer.created = (int64_t)time(NULL);
        st = tsr_job_create(&v->job, request, &answer, &client);
    }
    if (st == TSR_OK) {
        st = tsr_desk_hand_in(o->desk, v->job);
    }
    if (st != TSR_OK) {
        tsr_api_error_set(error, tsr_api_error_status(st), "", "%s", tsr_status_message());
        if (v->job != NULL) {
            tsr_job_let_go(v->job);
            v->job = NULL;
        }
    }
    tsr_api_answer_clear(&answer);
    return st;
}

static enum MHD_Result complete(visit *v, tsr_api_kind kind)
{
    const tsr_http_options *o = &v->http->options;
    json_t *body = read_body(v);
    tsr_api_request request = {0};
    tsr_api_error error = {.status = 0};
    tsr_status st = TSR_ERR_ARG;
    bool stream = false;

    v->http->n_requests++;
    if (body == NULL) {
        tsr_api_error_set(&error, 400, "", "the body is no JSON");
    } else {
        st = tsr_api_request_read(&request, kind, body, o->model, o->context,
                                  (uint64_t)time(NULL) * 1000003U + (uint64_t)v->http->n_requests,
                                  &error);
    }
    if (st == TSR_OK && !is_this_model(v->http, request.model)) {
        tsr_api_error_set(&error, 404, "model", "there is no model '%.100s' here, only '%.100s'",
                          request.model, o->name);
        st = TSR_ERR_ARG;
    }
    if (st == TSR_OK) {
        stream = request.stream;
        st = make_job(v, &request, &error);
    }
    json_decref(body);
    tsr_api_request_clear(&request);
    if (st != TSR_OK) {
        return send_error(v, &error);
    }
    return stream ? send_stream(v) : send_when_whole(v);
}

static enum MHD_Result complete_chat(visit *v)
{
    return complete(v, TSR_API_CHAT);
}

static enum MHD_Result complete_text(visit *v)
{
    return complete(v, TSR_API_COMPLETION);
}

static json_t *model_object(const tsr_http *h)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:I}", "id", h->options.name, "object", "model",
                     "created", (json_int_t)h->opened_s, "owned_by", "tessera", "max_model_len",
                     (json_int_t)h->options.context);
}

static enum MHD_Result list_models(visit *v)
{
    return send_json(v, MHD_HTTP_OK,
                     json_pack("{s:s, s:[o]}", "object", "list", "data", model_object(v->http)));
}

static enum MHD_Result tokenize(visit *v)
{
    json_t *body = read_body(v);
    const json_t *text = json_object_get(body, "prompt");
    enum MHD_Result done;
    int32_t *ids = NULL;
    int64_t n_ids = 0;

    text = text != NULL ? text : json_object_get(body, "text");
    if (!json_is_string(text)) {
        done = refuse(v, 400, "the body must be {\"prompt\": TEXT}");
    } else if (tsr_model_prompt_ids(v->http->options.model, json_string_value(text),
                                    json_string_length(text), &ids, &n_ids) != TSR_OK) {
        done = refuse(v, 500, tsr_tessera_message());
    } else {
        done = send_json(v, MHD_HTTP_OK,
                         json_pack("{s:o, s:I, s:I}", "tokens", tsr_out_json_ids(ids, n_ids),
                                   "count", (json_int_t)n_ids, "max_model_len",
                                   (json_int_t)v->http->options.context));
    }
    tsr_tessera_free(ids);
    json_decref(body);
    return done;
}

static enum MHD_Result detokenize(visit *v)
{
    json_t *body = read_body(v);
    const json_t *tokens = json_object_get(body, "tokens");
    const size_t n = json_array_size(tokens);
    int32_t *ids = tsr_alloc(n + 1, sizeof(*ids));
    bool good = json_is_array(tokens) && ids != NULL;
    enum MHD_Result done;
    char *text = NULL;
    size_t n_bytes = 0;

    for (size_t i = 0; good && i < n; i++) {
        const json_t *id = json_array_get(tokens, i);

        good = json_is_integer(id) && json_integer_value(id) >= 0 &&
               json_integer_value(id) <= INT32_MAX;
        ids[i] = (int32_t)json_integer_value(id);
    }
    if (!good) {
        done = refuse(v, 400, "the body must be {\"tokens\": [IDS]}");
    } else if (tsr_model_detokenize(v->http->options.model, ids, (int64_t)n, true, &text,
                                    &n_bytes) != TSR_OK) {
        done = refuse(v, 400, tsr_tessera_message());
    } else {
        done = send_json(v, MHD_HTTP_OK,
                         json_pack("{s:o}", "prompt", tsr_out_json_text(text, n_bytes)));
    }
    tsr_tessera_free(text);
    tsr_free(ids);
    json_decref(body);
    return done;
}

/* Are all ranks there? */
static enum MHD_Result tell_health(visit *v)
{
    const bool is_lost = tsr_desk_is(v->http->options.desk) == TSR_DESK_LOST;

    return send_json(v, is_lost ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK,
                     json_pack("{s:s}", "status", is_lost ? "lost" : "ok"));
}

/* Would a request be taken and begun? */
static enum MHD_Result tell_ready(visit *v)
{
    static const char *const words[TSR_DESK_STATE_COUNT] = {
        [TSR_DESK_SERVING] = "ok", [TSR_DESK_LOST] = "lost", [TSR_DESK_ENDING] = "ending"};
    const tsr_desk_state state = tsr_desk_is(v->http->options.desk);

    return send_json(v, state == TSR_DESK_SERVING ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
                     json_pack("{s:s}", "status", words[state]));
}

static enum MHD_Result tell_metrics(visit *v)
{
    tsr_text text = {0};
    enum MHD_Result done = MHD_NO;

    if (tsr_metrics_write(v->http->options.metrics, &text) == TSR_OK) {
        done = send_text(v, MHD_HTTP_OK, "text/plain; version=0.0.4", text.bytes, text.n_bytes);
    }
    tsr_text_clear(&text);
    return done;
}

/* ---- requests -------------------------------------------------------------------------------- */

typedef struct route {
    const char *method;
    const char *path;
    enum MHD_Result (*answer)(visit *v);
    bool is_open; // to everybody, key or not
} route;

static const route routes[] = {
    {"POST", "/v1/chat/completions", complete_chat, false},
    {"POST", "/v1/completions", complete_text, false},
    {"GET", "/v1/models", list_models, false},
    {"POST", "/tokenize", tokenize, false},
    {"POST", "/detokenize", detokenize, false},
    {"GET", "/health", tell_health, true},
    {"GET", "/ready", tell_ready, true},
    {"GET", "/metrics", tell_metrics, true},
};

static bool has_key(const visit *v)
{
    static const char bearer[] = "Bearer ";
    const tsr_http_options *o = &v->http->options;
    const char *given =
        MHD_lookup_connection_value(v->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    bool found = false;

    if (given == NULL || strncmp(given, bearer, sizeof(bearer) - 1) != 0) {
        return o->n_keys == 0;
    }
    for (int i = 0; i < o->n_keys; i++) {
        found = tsr_net_is_same(given + sizeof(bearer) - 1, o->keys[i]) || found;
    }
    return found || o->n_keys == 0;
}

/* NULL: *status says why. */
static const route *find_route(const char *method, const char *path, int *status)
{
    *status = MHD_HTTP_NOT_FOUND;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(routes[i].path, path) == 0) {
            if (strcmp(routes[i].method, method) == 0) {
                return &routes[i];
            }
            *status = MHD_HTTP_METHOD_NOT_ALLOWED;
        }
    }
    return NULL;
}

/* The request is whole: its body is here. */
static enum MHD_Result answer_visit(visit *v, const char *method, const char *path)
{
    static const char models[] = "/v1/models/";
    const route *found;
    int status;

    if (strcmp(method, MHD_HTTP_METHOD_OPTIONS) == 0) {
        return send_text(v, MHD_HTTP_NO_CONTENT, "text/plain", "", 0);
    }
    found = find_route(strcmp(method, MHD_HTTP_METHOD_HEAD) == 0 ? MHD_HTTP_METHOD_GET : method,
                       path, &status);
    if ((found == NULL || !found->is_open) && !has_key(v)) {
        return refuse(v, MHD_HTTP_UNAUTHORIZED, "a key is wanted: Authorization: Bearer KEY");
    }
    if (found != NULL) {
        return found->answer(v);
    }
    if (strncmp(path, models, sizeof(models) - 1) == 0) {
        return is_this_model(v->http, path + sizeof(models) - 1)
                   ? send_json(v, MHD_HTTP_OK, model_object(v->http))
                   : refuse(v, MHD_HTTP_NOT_FOUND, "there is no such model here");
    }
    return refuse(v, status,
                  status == MHD_HTTP_NOT_FOUND ? "there is no such path here"
                                               : "that path has another method");
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *bytes,
                                  size_t *n_bytes, void **state)
{
    tsr_http *http = ctx;
    visit *v = *state;

    (void)version;
    if (v == NULL) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

        v = tsr_alloc(1, sizeof(*v));
        if (v == NULL || info == NULL) {
            tsr_free(v);
            return MHD_NO;
        }
        v->http = http;
        v->connection = connection;
        v->socket = info->connect_fd;
        *state = v;
        return MHD_YES;
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
        return send_when_whole(v);
    }
    if (v->body.n_bytes > http->options.max_body) {
        return refuse(v, MHD_HTTP_CONTENT_TOO_LARGE, "the body is too large");
    }
    return answer_visit(v, method, path);
}

static void on_end(void *ctx, struct MHD_Connection *connection, void **state,
                   enum MHD_RequestTerminationCode code)
{
    visit *v = *state;

    (void)ctx;
    (void)connection;
    (void)code;
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
        MHD_OPTION_NOTIFY_COMPLETED, on_end, h, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)o->max_connections, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)o->idle_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
        MHD_OPTION_LISTENING_ADDRESS_REUSE, 1U, MHD_OPTION_ARRAY, extra, MHD_OPTION_END);
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
