#include "launch/api_request.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "launch/api_value.h"

void tsr_api_error_set(tsr_api_error *error, int status, const char *param, const char *format, ...)
{
    va_list args;

    error->status = status;
    error->type = status >= 500 ? "server_error" : "invalid_request_error";
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
        return 503;
    default:
        return 500;
    }
}

json_t *tsr_api_error_object(const tsr_api_error *error)
{
    return json_pack("{s:{s:s, s:s, s:o, s:n}}", "error", "message", error->message, "type",
                     error->type, "param",
                     error->param[0] != '\0' ? json_string(error->param) : json_null(), "code");
}

/* ---- prompts --------------------------------------------------------------------------------- */

static bool is_ids(const json_t *value)
{
    return json_is_array(value) && json_array_size(value) > 0 &&
           json_is_integer(json_array_get(value, 0));
}

static tsr_status take_ids(const tsr_api_body *r, const json_t *value, tsr_api_prompt *out)
{
    const int n_vocab = (int)tsr_model_describe(r->model).n_vocab;
    const size_t n = json_array_size(value);

    out->ids = tsr_alloc(n, sizeof(*out->ids));
    if (out->ids == NULL) {
        return tsr_api_value_no_memory(r);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(value, i);

        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= n_vocab) {
            return tsr_api_value_refuse(r, "prompt", "text or token ids of this model");
        }
        out->ids[i] = (int32_t)json_integer_value(id);
    }
    out->n_ids = (int64_t)n;
    return TSR_OK;
}

static tsr_status take_prompt(const tsr_api_body *r, const json_t *value, tsr_api_prompt *out)
{
    if (is_ids(value)) {
        TSR_TRY(take_ids(r, value, out));
    } else if (json_is_string(value)) {
        if (tsr_model_prompt_ids(r->model, json_string_value(value), json_string_length(value),
                                 &out->ids, &out->n_ids) != TSR_OK) {
            return tsr_api_value_no_memory(r);
        }
    } else {
        return tsr_api_value_refuse(r, "prompt", "text, token ids, or a list of these");
    }
    if (out->n_ids == 0) {
        return tsr_api_value_refuse(r, "prompt",
                                    "more than nothing: there is nothing to go on from");
    }
    if (out->n_ids >= r->context) {
        tsr_api_error_set(r->error, 400, "prompt",
                          "the prompt has %lld tokens, the context of %lld has no room for an "
                          "answer",
                          (long long)out->n_ids, (long long)r->context);
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

static tsr_status read_prompts(const tsr_api_body *r, tsr_api_request *q)
{
    const json_t *value = tsr_api_value_of(r, "prompt");
    const bool many = json_is_array(value) && !is_ids(value);
    const size_t n = many ? json_array_size(value) : 1;

    if (value == NULL || n < 1 || n > TSR_API_MOST_PROMPTS) {
        return tsr_api_value_refuse(r, "prompt", "text, token ids, or a list of these, up to 256");
    }
    q->prompts = tsr_alloc(n, sizeof(*q->prompts));
    if (q->prompts == NULL) {
        return tsr_api_value_no_memory(r);
    }
    for (size_t i = 0; i < n; i++) {
        q->n_prompts++;
        TSR_TRY(take_prompt(r, many ? json_array_get(value, i) : value, &q->prompts[i]));
    }
    return TSR_OK;
}

/* A text that is to end with a 0 cannot have one inside. */
static bool is_plain_text(const json_t *value)
{
    return json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value);
}

/* The text of a message: a string, or the texts of its parts one behind the other; a reference is
 * the caller's. */
static tsr_status take_content(const tsr_api_body *r, const json_t *message, json_t **text)
{
    const json_t *content = json_object_get(message, "content");
    tsr_text whole = {0};
    tsr_status st = TSR_OK;
    const json_t *part;
    size_t i;

    *text = NULL;
    if (is_plain_text(content)) {
        *text = json_incref((json_t *)(uintptr_t)content);
        return TSR_OK;
    }
    if (content != NULL && !json_is_null(content) && !json_is_array(content)) {
        return tsr_api_value_refuse(r, "messages", "a list of messages whose content is text");
    }
    json_array_foreach(content, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *more = json_object_get(part, "text");

        if (st != TSR_OK) {
            break;
        }
        if (type == NULL || strcmp(type, "text") != 0 || !is_plain_text(more)) {
            st = tsr_api_value_refuse(r, "messages", "a list of messages whose content is text");
        } else if (json_string_length(more) > 0 &&
                   tsr_text_append(&whole, json_string_value(more), json_string_length(more)) !=
                       TSR_OK) {
            st = tsr_api_value_no_memory(r);
        }
    }
    *text =
        st == TSR_OK ? json_stringn(whole.bytes != NULL ? whole.bytes : "", whole.n_bytes) : NULL;
    tsr_text_clear(&whole);
    return st == TSR_OK && *text == NULL ? tsr_api_value_no_memory(r) : st;
}

static tsr_status read_messages(const tsr_api_body *r, tsr_api_request *q)
{
    const json_t *value = tsr_api_value_of(r, "messages");
    const size_t n = json_array_size(value);
    tsr_chat_message *messages = tsr_alloc(n + 1, sizeof(*messages));
    json_t *texts = json_array();
    tsr_status st = TSR_OK;

    q->prompts = tsr_alloc(1, sizeof(*q->prompts));
    if (messages == NULL || texts == NULL || q->prompts == NULL) {
        st = tsr_api_value_no_memory(r);
    } else if (n == 0) {
        st = tsr_api_value_refuse(r, "messages", "a list of messages, one at least");
    }
    for (size_t i = 0; i < n && st == TSR_OK; i++) {
        const json_t *message = json_array_get(value, i);
        json_t *text = NULL;

        messages[i].role = json_string_value(json_object_get(message, "role"));
        st = messages[i].role == NULL
                 ? tsr_api_value_refuse(r, "messages", "a list of messages with a role")
                 : take_content(r, message, &text);
        if (text != NULL && json_array_append_new(texts, text) != 0) {
            st = tsr_api_value_no_memory(r);
        }
        messages[i].content = st == TSR_OK ? json_string_value(text) : NULL;
    }
    if (st == TSR_OK) {
        st = tsr_model_conversation_ids(r->model, messages, (int)n, &q->prompts[0].ids,
                                        &q->prompts[0].n_ids);
        if (st != TSR_OK) {
            tsr_api_error_set(r->error, st == TSR_ERR_NOMEM ? 500 : 400, "messages", "%s",
                              tsr_tessera_message());
        } else {
            q->n_prompts = 1;
        }
    }
    json_decref(texts);
    tsr_free(messages);
    if (st == TSR_OK && q->prompts[0].n_ids >= r->context) {
        tsr_api_error_set(r->error, 400, "messages",
                          "the conversation has %lld tokens, the context of %lld has no room for "
                          "an answer",
                          (long long)q->prompts[0].n_ids, (long long)r->context);
        st = TSR_ERR_ARG;
    }
    return st;
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

    TSR_TRY(tsr_api_value_bool(r, "stream", &q->stream));
    if (options != NULL && !json_is_object(options)) {
        return tsr_api_value_refuse(r, "stream_options", "an object");
    }
    q->stream_usage = json_is_true(json_object_get(options, "include_usage"));
    if (q->kind == TSR_API_COMPLETION) {
        TSR_TRY(tsr_api_value_bool(r, "echo", &q->echo));
    }
    return TSR_OK;
}

/* Keys that are read, and those that do no harm when they are not. */
static tsr_status check_keys(const tsr_api_body *r, tsr_api_kind kind)
{
    static const char *const known[] = {
        "model",
        "max_tokens",
        "max_completion_tokens",
        "min_tokens",
        "timeout",
        "temperature",
        "top_p",
        "min_p",
        "typical_p",
        "top_k",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "ignore_eos",
        "include_stop_str_in_output",
        "priority",
        "seed",
        "n",
        "best_of",
        "use_beam_search",
        "early_stopping",
        "length_penalty",
        "logprobs",
        "stream",
        "stream_options",
        "stop",
        "stop_token_ids",
        "logit_bias",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
    };
    static const char *const of_kind[TSR_API_KIND_COUNT][3] = {
        [TSR_API_COMPLETION] = {"prompt", "echo"},
        [TSR_API_CHAT] = {"messages", "top_logprobs"},
    };
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)r->body, key, value)
    {
        bool found = json_is_null(value);

        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            found = found || strcmp(key, known[i]) == 0;
        }
        for (int i = 0; of_kind[kind][i] != NULL; i++) {
            found = found || strcmp(key, of_kind[kind][i]) == 0;
        }
        if (!found) {
            tsr_api_error_set(r->error, 400, key, "the key '%.40s' is not known here", key);
            return TSR_ERR_ARG;
        }
    }
    return TSR_OK;
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
    TSR_TRY(read_stream(r, q));
    TSR_TRY(read_lengths(r, q));
    TSR_TRY(read_choosing(r, &q->generation));
    TSR_TRY(read_choices(r, q));
    TSR_TRY(read_logprobs(r, q));
    TSR_TRY(read_stops(r, q));
    TSR_TRY(read_stop_ids(r, q));
    TSR_TRY(read_biases(r, q));
    return q->kind == TSR_API_CHAT ? read_messages(r, q) : read_prompts(r, q);
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
