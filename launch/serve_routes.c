#include "launch/serve_routes.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "launch/api_prompt.h"
#include "launch/out.h"
#include "launch/serve_net.h"
#include "launch/serve_page.h"

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
        tsr_api_error_set(error, tsr_api_error_status(st), "", "%s", tsr_status_message());
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

/* {"prompt": TEXT}, or {"messages": [...]} with or without tools, as of a request. */
static enum MHD_Result tokenize(tsr_visit *v)
{
    const tsr_http_options *o = &v->http->options;
    json_t *body = read_body(v);
    tsr_api_error error = {.status = 0};
    const tsr_api_body b = {body, o->model, o->context, &error};
    tsr_api_request request = {.kind = TSR_API_COMPLETION};
    enum MHD_Result done;
    tsr_status st;

    if (!json_is_object(body)) {
        tsr_api_error_set(&error, 400, "", "the body must be {\"prompt\": TEXT}");
        st = TSR_ERR_ARG;
    } else if (json_object_get(body, "messages") != NULL) {
        st = tsr_api_prompt_read_messages(&b, &request);
    } else if (!json_is_string(tsr_api_value_of(&b, "prompt"))) {
        st = tsr_api_value_refuse(&b, "prompt", "a text");
    } else {
        st = tsr_api_prompt_read(&b, &request);
    }
    if (st != TSR_OK) {
        done = tsr_visit_send_error(v, &error);
    } else {
        done = tsr_visit_send_json(
            v, MHD_HTTP_OK,
            json_pack("{s:o, s:I, s:I}", "tokens",
                      tsr_out_json_ids(request.prompts[0].ids, request.prompts[0].n_ids), "count",
                      (json_int_t)request.prompts[0].n_ids, "max_model_len",
                      (json_int_t)o->context));
    }
    tsr_api_request_clear(&request);
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

/* Are all ranks there? */
static enum MHD_Result tell_health(tsr_visit *v)
{
    const bool is_lost = tsr_desk_is(v->http->options.desk) == TSR_DESK_LOST;

    return tsr_visit_send_json(v, is_lost ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK,
                               json_pack("{s:s}", "status", is_lost ? "lost" : "ok"));
}

static const char *const states[TSR_DESK_STATE_COUNT] = {
    [TSR_DESK_SERVING] = "ok", [TSR_DESK_LOST] = "lost", [TSR_DESK_ENDING] = "ending"};

/* Would a request be taken and begun? */
static enum MHD_Result tell_ready(tsr_visit *v)
{
    const tsr_desk_state state = tsr_desk_is(v->http->options.desk);

    return tsr_visit_send_json(
        v, state == TSR_DESK_SERVING ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
        json_pack("{s:s}", "status", states[state]));
}

static enum MHD_Result tell_metrics(tsr_visit *v)
{
    tsr_text text = {0};
    enum MHD_Result done = MHD_NO;

    if (tsr_metrics_write(v->http->options.metrics, &text) == TSR_OK &&
        tsr_picture_write(v->http->options.picture, &text) == TSR_OK) {
        done =
            tsr_visit_send(v, MHD_HTTP_OK, "text/plain; version=0.0.4", text.bytes, text.n_bytes);
    }
    tsr_text_clear(&text);
    return done;
}

static enum MHD_Result tell_status(tsr_visit *v)
{
    const tsr_http_options *o = &v->http->options;
    json_t *object = tsr_picture_object(o->picture);
    json_t *metrics = tsr_metrics_object(o->metrics);
    json_t *server = json_pack("{s:s, s:s, s:s, s:I}", "model", o->name, "version",
                               tsr_tessera_version(), "state", states[tsr_desk_is(o->desk)],
                               "uptime_s", (json_int_t)(time(NULL) - v->http->opened_s));

    if (json_object_update(object, metrics) != 0 || json_object_update(object, server) != 0) {
        json_decref(object);
        object = NULL;
    }
    json_decref(metrics);
    json_decref(server);
    return tsr_visit_send_json(v, MHD_HTTP_OK, object);
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
    {"GET", "/ready", tell_ready, true},
    {"GET", "/metrics", tell_metrics, true},
    {"GET", "/status", tell_status, false},
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

/* NULL: there is none, or (*allowed is not NULL) it has another method. */
static const route *find_route(const char *method, const char *path, const char **allowed)
{
    *allowed = NULL;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(routes[i].path, path) == 0) {
            if (strcmp(routes[i].method, method) == 0) {
                return &routes[i];
            }
            *allowed = routes[i].method;
        }
    }
    return NULL;
}

/* What stands under paths that are not in the table: the page's files, and models by name. */
static enum MHD_Result answer_other(tsr_visit *v, bool is_get, const char *path)
{
    static const char models[] = "/v1/models/";
    const tsr_page_file *file = tsr_page_find(path);
    const bool is_model = strncmp(path, models, sizeof(models) - 1) == 0;

    if ((file != NULL || is_model) && !is_get) {
        v->allowed = MHD_HTTP_METHOD_GET;
        return tsr_visit_refuse(v, MHD_HTTP_METHOD_NOT_ALLOWED, "that path has another method");
    }
    if (file != NULL) {
        return tsr_visit_send(v, MHD_HTTP_OK, file->type, (const char *)file->bytes, file->n_bytes);
    }
    if (!is_model) {
        return tsr_visit_refuse(v, MHD_HTTP_NOT_FOUND, "there is no such path here");
    }
    return is_this_model(v->http, path + sizeof(models) - 1)
               ? tsr_visit_send_json(v, MHD_HTTP_OK, model_object(v->http))
               : tsr_visit_refuse(v, MHD_HTTP_NOT_FOUND, "there is no such model here");
}

enum MHD_Result tsr_routes_answer(tsr_visit *v, const char *method, const char *path)
{
    const bool is_get =
        strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    const route *found;

    if (strcmp(method, MHD_HTTP_METHOD_OPTIONS) == 0) {
        return tsr_visit_send(v, MHD_HTTP_NO_CONTENT, "text/plain", "", 0);
    }
    found = find_route(is_get ? MHD_HTTP_METHOD_GET : method, path, &v->allowed);
    if ((found == NULL ? tsr_page_find(path) == NULL : !found->is_open) && !has_key(v)) {
        return tsr_visit_refuse(v, MHD_HTTP_UNAUTHORIZED,
                                "a key is wanted: Authorization: Bearer KEY");
    }
    if (found != NULL) {
        return found->answer(v);
    }
    return v->allowed != NULL
               ? tsr_visit_refuse(v, MHD_HTTP_METHOD_NOT_ALLOWED, "that path has another method")
               : answer_other(v, is_get, path);
}
