#include "launch/api_request.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "launch/api_prompt.h"

void tsr_api_error_set(tsr_api_error *error, int status, const char *param, const char *format, ...)
{
    va_list args;

    error->status = status;
    error->type = status >= 500   ? "server_error"
                  : status == 429 ? "rate_limit_error"
                                  : "invalid_request_error";
    (void)snprintf(error->param, sizeof(error->param), "%.60s", param);
    va_start(args, format);
    (void)vsnprintf(error->message, sizeof(error->message), format, args);
    va_end(args);
}

int tsr_api_error_status(tsr_status status)
{
    switch (status) {
    case TSR_ERR_ARG:
    case TSR_ERR_UNSUPPORTED:
        return 400;
    case TSR_ERR_FULL:
        return 429;
    case TSR_ERR_CANCELLED:
    case TSR_ERR_COMM:
        return 503;
    default:
        return 500;
    }
}

json_t *tsr_api_error_object(const tsr_api_error *error)
{
    const char *code = error->status == 401 ? "invalid_api_key"
                       : error->status == 404 && strcmp(error->param, "model") == 0
                           ? "model_not_found"
                           : NULL;

    return json_pack("{s:{s:s, s:s, s:o, s:o}}", "error", "message", error->message, "type",
                     error->type, "param",
                     error->param[0] != '\0' ? json_string(error->param) : json_null(), "code",
                     code != NULL ? json_string(code) : json_null());
}

/* ---- lists ----------------------------------------------------------------------------------- */

static tsr_status read_stops(const tsr_api_body *r, tsr_api_request *q)
{
    const json_t *value = tsr_api_value_of(r, "stop");
    size_t n;

    if (value == NULL) {
        return TSR_OK;
    }
    q->stops = json_is_string(value) ? json_pack("[O]", value) : json_deep_copy(value);
    n = json_array_size(q->stops);
    if (!json_is_array(q->stops) || n > TSR_API_MOST_STOPS) {
        return tsr_api_value_refuse(r, "stop", "a text or a list of up to 16");
    }
    q->stop_texts = tsr_alloc(n + 1, sizeof(*q->stop_texts));
    q->stop_bytes = tsr_alloc(n + 1, sizeof(*q->stop_bytes));
    if (q->stop_texts == NULL || q->stop_bytes == NULL) {
        return tsr_api_value_no_memory(r);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *stop = json_array_get(q->stops, i);

        if (!json_is_string(stop) || json_string_length(stop) == 0) {
            return tsr_api_value_refuse(r, "stop", "a text or a list of texts, none of them empty");
        }
        q->stop_texts[i] = json_string_value(stop);
        q->stop_bytes[i] = json_string_length(stop);
    }
    q->generation.stops = q->stop_texts;
    q->generation.stop_bytes = q->stop_bytes;
    q->generation.n_stops = (int)n;
    return TSR_OK;
}

static tsr_status read_biases(const tsr_api_body *r, tsr_api_request *q)
{
    const json_t *value = tsr_api_value_of(r, "logit_bias");
    const size_t n = json_object_size(value);
    const char *key;
    json_t *bias;
    int i = 0;

    if (value != NULL && !json_is_object(value)) {
        return tsr_api_value_refuse(r, "logit_bias", "an object of token ids and numbers");
    }
    if (n == 0) {
        return TSR_OK;
    }
    q->bias_ids = tsr_alloc(n, sizeof(*q->bias_ids));
    q->biases = tsr_alloc(n, sizeof(*q->biases));
    if (q->bias_ids == NULL || q->biases == NULL) {
        return tsr_api_value_no_memory(r);
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, bias)
    {
        char *end = NULL;
        const long id = strtol(key, &end, 10);

        if (key[0] < '0' || key[0] > '9' || *end != '\0' || id > INT32_MAX ||
            !json_is_number(bias) || fabs(json_number_value(bias)) > 100) {
            return tsr_api_value_refuse(r, "logit_bias",
                                        "an object of token ids and numbers from -100 to 100");
        }
        q->bias_ids[i] = (int32_t)id;
        q->biases[i++] = (float)json_number_value(bias);
    }
    q->generation.bias_ids = q->bias_ids;
    q->generation.biases = q->biases;
    q->generation.n_biases = i;
    return TSR_OK;
}

static tsr_status read_stop_ids(const tsr_api_body *r, tsr_api_request *q)
{
    const json_t *value = tsr_api_value_of(r, "stop_token_ids");
    const size_t n = json_array_size(value);

    if (value != NULL && !json_is_array(value)) {
        return tsr_api_value_refuse(r, "stop_token_ids", "a list of token ids");
    }
    if (n == 0) {
        return TSR_OK;
    }
    q->stop_ids = tsr_alloc(n, sizeof(*q->stop_ids));
    if (q->stop_ids == NULL) {
        return tsr_api_value_no_memory(r);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(value, i);

        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX) {
            return tsr_api_value_refuse(r, "stop_token_ids", "a list of token ids");
        }
        q->stop_ids[i] = (int32_t)json_integer_value(id);
    }
    q->generation.stop_ids = q->stop_ids;
    q->generation.n_stop_ids = (int)n;
    return TSR_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static tsr_status read_seed(const tsr_api_body *r, tsr_generation *g)
{
    const json_t *value = tsr_api_value_of(r, "seed");

    if (value != NULL && !json_is_integer(value)) {
        return tsr_api_value_refuse(r, "seed", "a whole number");
    }
    g->seed = value != NULL ? (uint64_t)json_integer_value(value) : g->seed;
    return TSR_OK;
}

static tsr_status read_lengths(const tsr_api_body *r, tsr_api_request *q)
{
    const int most = r->context < INT32_MAX ? (int)r->context : INT32_MAX;
    tsr_generation *g = &q->generation;

    g->max_tokens = q->kind == TSR_API_CHAT ? most : 16;
    TSR_TRY(tsr_api_value_int(r, "max_tokens", q->echo ? 0 : 1, INT32_MAX, &g->max_tokens));
    TSR_TRY(tsr_api_value_int(r, "max_completion_tokens", 1, INT32_MAX, &g->max_tokens));
    TSR_TRY(tsr_api_value_int(r, "min_tokens", 0, INT32_MAX, &g->min_tokens));
    return tsr_api_value_real(r, "timeout", 0, 1e9, &g->deadline_s);
}

static tsr_status read_choosing(const tsr_api_body *r, tsr_generation *g)
{
    g->temperature = 1;
    TSR_TRY(tsr_api_value_float(r, "temperature", 0, 100, &g->temperature));
    TSR_TRY(tsr_api_value_float(r, "top_p", 0, 1, &g->top_p));
    TSR_TRY(tsr_api_value_float(r, "min_p", 0, 1, &g->min_p));
    TSR_TRY(tsr_api_value_float(r, "typical_p", 0, 1, &g->typical_p));
    TSR_TRY(tsr_api_value_int(r, "top_k", -1, INT32_MAX, &g->top_k));
    g->top_k = g->top_k < 0 ? 0 : g->top_k;
    TSR_TRY(tsr_api_value_float(r, "presence_penalty", -2, 2, &g->presence_penalty));
    TSR_TRY(tsr_api_value_float(r, "frequency_penalty", -2, 2, &g->frequency_penalty));
    TSR_TRY(tsr_api_value_float(r, "repetition_penalty", 0.001, 1000, &g->repetition_penalty));
    TSR_TRY(tsr_api_value_bool(r, "ignore_eos", &g->ignore_end));
    TSR_TRY(tsr_api_value_bool(r, "include_stop_str_in_output", &g->include_stop));
    TSR_TRY(tsr_api_value_int(r, "priority", -1000, 1000, &g->priority));
    return read_seed(r, g);
}

static tsr_status read_choices(const tsr_api_body *r, tsr_api_request *q)
{
    tsr_generation *g = &q->generation;
    bool search = false;
    bool early = false;

    g->n = 1;
    TSR_TRY(tsr_api_value_int(r, "n", 1, TSR_API_MOST_CHOICES, &g->n));
    g->best_of = g->n;
    TSR_TRY(tsr_api_value_int(r, "best_of", 1, TSR_API_MOST_CHOICES, &g->best_of));
    TSR_TRY(tsr_api_value_bool(r, "use_beam_search", &search));
    TSR_TRY(tsr_api_value_bool(r, "early_stopping", &early));
    g->length_penalty = 1;
    TSR_TRY(tsr_api_value_real(r, "length_penalty", -10, 10, &g->length_penalty));
    if (g->best_of < g->n) {
        return tsr_api_value_refuse(r, "best_of", "at least n");
    }
    if (search) {
        g->beams = g->best_of;
        g->best_of = 0;
        g->temperature = 0;
        g->stopping = early ? TSR_STOPPING_EARLY : TSR_STOPPING_USUAL;
    }
    if (q->stream && (search || g->best_of > g->n)) {
        return tsr_api_value_refuse(r, "stream",
                                    "false with best_of or beams: they are known at the end only");
    }
    return TSR_OK;
}

static tsr_status read_logprobs(const tsr_api_body *r, tsr_api_request *q)
{
    bool wanted = false;

    q->logprobs = -1;
    if (q->kind == TSR_API_COMPLETION) {
        TSR_TRY(tsr_api_value_int(r, "logprobs", 0, TSR_MOST_TOP, &q->logprobs));
    } else {
        int n = 0;

        TSR_TRY(tsr_api_value_bool(r, "logprobs", &wanted));
        TSR_TRY(tsr_api_value_int(r, "top_logprobs", 0, TSR_MOST_TOP, &n));
        q->logprobs = wanted ? n : -1;
    }
    q->generation.want_logprobs = q->logprobs >= 0;
    q->generation.n_top = q->logprobs > 0 ? q->logprobs : 0;
    q->generation.score = q->echo && q->logprobs >= 0;
    return TSR_OK;
}

static tsr_status read_stream(const tsr_api_body *r, tsr_api_request *q)
{
    const json_t *options = tsr_api_value_of(r, "stream_options");
    const json_t *usage = json_object_get(options, "include_usage");

    TSR_TRY(tsr_api_value_bool(r, "stream", &q->stream));
    if (options != NULL && (!json_is_object(options) ||
                            (usage != NULL && !json_is_boolean(usage) && !json_is_null(usage)))) {
        return tsr_api_value_refuse(r, "stream_options", "{\"include_usage\": true or false}");
    }
    q->stream_usage = json_is_true(usage);
    if (q->kind == TSR_API_COMPLETION) {
        TSR_TRY(tsr_api_value_bool(r, "echo", &q->echo));
    }
    return TSR_OK;
}

/* Keys that are read, and those that do no harm when they are not. */
static tsr_status check_keys(const tsr_api_body *r, tsr_api_kind kind)
{
    enum {
        TEXT = 1 << TSR_API_COMPLETION,
        CHAT = 1 << TSR_API_CHAT,
        EMBEDDING = 1 << TSR_API_EMBEDDING,
        BOTH = TEXT | CHAT,
        ALL = BOTH | EMBEDDING
    };
    static const struct {
        const char *key;
        int kinds;
    } known[] = {
        {"model", ALL},
        {"prompt", TEXT},
        {"messages", CHAT},
        {"input", EMBEDDING},
        {"max_tokens", BOTH},
        {"max_completion_tokens", BOTH},
        {"min_tokens", BOTH},
        {"timeout", ALL},
        {"priority", ALL},
        {"temperature", BOTH},
        {"top_p", BOTH},
        {"min_p", BOTH},
        {"typical_p", BOTH},
        {"top_k", BOTH},
        {"presence_penalty", BOTH},
        {"frequency_penalty", BOTH},
        {"repetition_penalty", BOTH},
        {"ignore_eos", BOTH},
        {"include_stop_str_in_output", BOTH},
        {"seed", BOTH},
        {"n", BOTH},
        {"best_of", BOTH},
        {"use_beam_search", BOTH},
        {"early_stopping", BOTH},
        {"length_penalty", BOTH},
        {"echo", TEXT},
        {"logprobs", BOTH},
        {"top_logprobs", CHAT},
        {"stream", BOTH},
        {"stream_options", BOTH},
        {"stop", BOTH},
        {"stop_token_ids", BOTH},
        {"logit_bias", BOTH},
        {"tools", CHAT},
        {"tool_choice", CHAT},
        {"parallel_tool_calls", CHAT},
        {"response_format", CHAT},
        {"encoding_format", EMBEDDING},
        {"dimensions", EMBEDDING},
        {"pooling", EMBEDDING},
        {"user", ALL},
        {"metadata", BOTH},
        {"store", BOTH},
        {"service_tier", BOTH},
        {"safety_identifier", BOTH},
        {"prompt_cache_key", BOTH},
    };
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)r->body, key, value)
    {
        bool found = json_is_null(value);

        for (size_t i = 0; !found && i < sizeof(known) / sizeof(known[0]); i++) {
            found = (known[i].kinds & 1 << kind) != 0 && strcmp(key, known[i].key) == 0;
        }
        if (!found) {
            tsr_api_error_set(r->error, 400, key, "the key '%.40s' is not known here", key);
            return TSR_ERR_ARG;
        }
    }
    return TSR_OK;
}

static tsr_status read_calling(const tsr_api_body *r, tsr_api_request *q)
{
    const json_t *format = tsr_api_value_of(r, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));

    q->many_calls = true;
    TSR_TRY(tsr_api_value_bool(r, "parallel_tool_calls", &q->many_calls));
    if (format != NULL && (type == NULL || strcmp(type, "text") != 0)) {
        return tsr_api_value_refuse(r, "response_format",
                                    "{\"type\": \"text\"}: no other can be promised here");
    }
    return TSR_OK;
}

static tsr_status read_embedding(const tsr_api_body *r, tsr_api_request *q)
{
    const json_t *format = tsr_api_value_of(r, "encoding_format");
    const json_t *pooling = tsr_api_value_of(r, "pooling");
    const char *format_text = format != NULL ? json_string_value(format) : "float";
    const char *pooling_text = pooling != NULL ? json_string_value(pooling) : "mean";
    const int dim = (int)tsr_model_describe(r->model).dim;
    tsr_generation *g = &q->generation;
    int wanted = dim;

    if (format_text == NULL ||
        (strcmp(format_text, "float") != 0 && strcmp(format_text, "base64") != 0)) {
        return tsr_api_value_refuse(r, "encoding_format", "\"float\" or \"base64\"");
    }
    if (pooling_text == NULL ||
        (strcmp(pooling_text, "mean") != 0 && strcmp(pooling_text, "last") != 0)) {
        return tsr_api_value_refuse(r, "pooling", "\"mean\" or \"last\"");
    }
    TSR_TRY(tsr_api_value_int(r, "dimensions", dim, dim, &wanted));
    TSR_TRY(tsr_api_value_int(r, "priority", -1000, 1000, &g->priority));
    TSR_TRY(tsr_api_value_real(r, "timeout", 0, 1e9, &g->deadline_s));
    q->base64 = strcmp(format_text, "base64") == 0;
    q->logprobs = -1;
    g->n = 1;
    g->pooling = strcmp(pooling_text, "last") == 0 ? TSR_POOLING_LAST : TSR_POOLING_MEAN;
    return tsr_api_prompt_read(r, q);
}

static tsr_status read_all(const tsr_api_body *r, tsr_api_request *q)
{
    const json_t *model = tsr_api_value_of(r, "model");

    if (!json_is_object(r->body)) {
        tsr_api_error_set(r->error, 400, "", "the request must be a JSON object");
        return TSR_ERR_ARG;
    }
    TSR_TRY(check_keys(r, q->kind));
    if (model != NULL && !json_is_string(model)) {
        return tsr_api_value_refuse(r, "model", "a name");
    }
    if (model != NULL) {
        q->model = tsr_alloc_text(json_string_value(model), json_string_length(model));
        if (q->model == NULL) {
            return tsr_api_value_no_memory(r);
        }
    }
    if (q->kind == TSR_API_EMBEDDING) {
        return read_embedding(r, q);
    }
    TSR_TRY(read_stream(r, q));
    TSR_TRY(read_lengths(r, q));
    TSR_TRY(read_choosing(r, &q->generation));
    TSR_TRY(read_choices(r, q));
    TSR_TRY(read_logprobs(r, q));
    TSR_TRY(read_stops(r, q));
    TSR_TRY(read_stop_ids(r, q));
    TSR_TRY(read_biases(r, q));
    TSR_TRY(read_calling(r, q));
    return q->kind == TSR_API_CHAT ? tsr_api_prompt_read_messages(r, q) : tsr_api_prompt_read(r, q);
}

tsr_status tsr_api_request_read(tsr_api_request *out, tsr_api_kind kind, const json_t *body,
                                const tsr_model *model, int64_t context, uint64_t seed,
                                tsr_api_error *error)
{
    const tsr_api_body r = {body, model, context, error};
    tsr_api_request q = {.kind = kind, .generation = {.seed = seed}};
    const tsr_status st = read_all(&r, &q);

    if (st != TSR_OK) {
        tsr_api_request_clear(&q);
        return st;
    }
    *out = q;
    return TSR_OK;
}

void tsr_api_request_clear(tsr_api_request *q)
{
    for (int i = 0; i < q->n_prompts; i++) {
        tsr_tessera_free(q->prompts[i].ids);
    }
    tsr_free(q->prompts);
    tsr_free(q->model);
    tsr_free(q->stop_texts);
    tsr_free(q->stop_bytes);
    tsr_free(q->bias_ids);
    tsr_free(q->biases);
    tsr_free(q->stop_ids);
    json_decref(q->stops);
    *q = (tsr_api_request){0};
}
