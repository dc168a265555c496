#include "launch/serve_routes.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "launch/out.h"
#include "launch/serve_net.h"

/* ---- what is asked for ----------------------------------------------------------------------- */

static json_t *read_body(const tsr_visit *v)
{
    return json_loadb(v->body.bytes != NULL ? v->body.bytes : "", v->body.n_bytes,
                      JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
}

static bool is_this_model(const tsr_http *h, const char *name)
{
    return name == NULL || name[0] == '\0' || strcmp(name, h->options.name) == 0;
}

/* A job of the request; what is refused is in *error. */
static tsr_status make_job(tsr_visit *v, tsr_api_request *request, tsr_api_error *error)
{
    const tsr_http_options *o = &v->http->options;
    const tsr_client client = tsr_visit_client(v);
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
        tsr_api_error_set(error,
                          st == TSR_ERR_FULL        ? 429
                          : st == TSR_ERR_CANCELLED ? 503
                                                    : 500,
                          "", "%s", tsr_status_message());
        if (v->job != NULL) {
            tsr_job_let_go(v->job);
            v->job = NULL;
        }
    }
    tsr_api_answer_clear(&answer);
    return st;
}

static enum MHD_Result complete(tsr_visit *v, tsr_api_kind kind)
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
        return tsr_visit_send_error(v, &error);
    }
    return stream ? tsr_visit_send_stream(v) : tsr_visit_send_whole(v);
}

static enum MHD_Result complete_chat(tsr_visit *v)
{
    return complete(v, TSR_API_CHAT);
}

static enum MHD_Result complete_text(tsr_visit *v)
{
    return complete(v, TSR_API_COMPLETION);
}

static enum MHD_Result embed(tsr_visit *v)
{
    return complete(v, TSR_API_EMBEDDING);
}

static json_t *model_object(const tsr_http *h)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:I}", "id", h->options.name, "object", "model",
                     "created", (json_int_t)h->opened_s, "owned_by", "tessera", "max_model_len",
                     (json_int_t)h->options.context);
}

static enum MHD_Result list_models(tsr_visit *v)
{
    return tsr_visit_send_json(
        v, MHD_HTTP_OK, json_pack("{s:s, s:[o]}", "object", "list", "data", model_object(v->http)));
}

static enum MHD_Result tokenize(tsr_visit *v)
{
    json_t *body = read_body(v);
    const json_t *text = json_object_get(body, "prompt");
    enum MHD_Result done;
    int32_t *ids = NULL;
    int64_t n_ids = 0;

    text = text != NULL ? text : json_object_get(body, "text");
    if (!json_is_string(text)) {
        done = tsr_visit_refuse(v, 400, "the body must be {\"prompt\": TEXT}");
    } else if (tsr_model_prompt_ids(v->http->options.model, json_string_value(text),
                                    json_string_length(text), &ids, &n_ids) != TSR_OK) {
        done = tsr_visit_refuse(v, 500, tsr_tessera_message());
    } else {
        done = tsr_visit_send_json(
            v, MHD_HTTP_OK,
            json_pack("{s:o, s:I, s:I}", "tokens", tsr_out_json_ids(ids, n_ids), "count",
                      (json_int_t)n_ids, "max_model_len", (json_int_t)v->http->options.context));
    }
    tsr_tessera_free(ids);
    json_decref(body);
    return done;
}

static enum MHD_Result detokenize(tsr_visit *v)
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
        done = tsr_visit_refuse(v, 400, "the body must be {\"tokens\": [IDS]}");
    } else if (tsr_model_detokenize(v->http->options.model, ids, (int64_t)n, true, &text,
                                    &n_bytes) != TSR_OK) {
        done = tsr_visit_refuse(v, 400, tsr_tessera_message());
    } else {
        done = tsr_visit_send_json(v, MHD_HTTP_OK,
                                   json_pack("{s:o}", "prompt", tsr_out_json_text(text, n_bytes)));
    }
    tsr_tessera_free(text);
    tsr_free(ids);
    json_decref(body);
    return done;
}

static enum MHD_Result tell_health(tsr_visit *v)
{
    return tsr_visit_send_json(v, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
}

static enum MHD_Result tell_metrics(tsr_visit *v)
{
    tsr_text text = {0};
    enum MHD_Result done = MHD_NO;

    if (tsr_metrics_write(v->http->options.metrics, &text) == TSR_OK) {
        done =
            tsr_visit_send(v, MHD_HTTP_OK, "text/plain; version=0.0.4", text.bytes, text.n_bytes);
    }
    tsr_text_clear(&text);
    return done;
}

/* ---- requests -------------------------------------------------------------------------------- */

typedef struct route {
    const char *method;
    const char *path;
    enum MHD_Result (*answer)(tsr_visit *v);
    bool is_open; // to everybody, key or not
} route;

static const route routes[] = {
    {"POST", "/v1/chat/completions", complete_chat, false},
    {"POST", "/v1/completions", complete_text, false},
    {"POST", "/v1/embeddings", embed, false},
    {"GET", "/v1/models", list_models, false},
    {"POST", "/tokenize", tokenize, false},
    {"POST", "/detokenize", detokenize, false},
    {"GET", "/health", tell_health, true},
    {"GET", "/ready", tell_health, true},
    {"GET", "/metrics", tell_metrics, true},
};

static bool has_key(const tsr_visit *v)
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

enum MHD_Result tsr_routes_answer(tsr_visit *v, const char *method, const char *path)
{
    static const char models[] = "/v1/models/";
    const route *found;
    int status;

    if (strcmp(method, MHD_HTTP_METHOD_OPTIONS) == 0) {
        return tsr_visit_send(v, MHD_HTTP_NO_CONTENT, "text/plain", "", 0);
    }
    found = find_route(strcmp(method, MHD_HTTP_METHOD_HEAD) == 0 ? MHD_HTTP_METHOD_GET : method,
                       path, &status);
    if ((found == NULL || !found->is_open) && !has_key(v)) {
        return tsr_visit_refuse(v, MHD_HTTP_UNAUTHORIZED,
                                "a key is wanted: Authorization: Bearer KEY");
    }
    if (found != NULL) {
        return found->answer(v);
    }
    if (strncmp(path, models, sizeof(models) - 1) == 0) {
        return is_this_model(v->http, path + sizeof(models) - 1)
                   ? tsr_visit_send_json(v, MHD_HTTP_OK, model_object(v->http))
                   : tsr_visit_refuse(v, MHD_HTTP_NOT_FOUND, "there is no such model here");
    }
    return tsr_visit_refuse(v, status,
                            status == MHD_HTTP_NOT_FOUND ? "there is no such path here"
                                                         : "that path has another method");
}
