#include "launch/api_answer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "launch/api_embedding.h"
#include "launch/out.h"

tsr_status tsr_api_answer_init(tsr_api_answer *a, const tsr_api_request *request,
                               const tsr_model *model, const char *name)
{
    const int n = request->generation.n * request->n_prompts;

    *a = (tsr_api_answer){.request = request,
                          .model = model,
                          .name = name,
                          .n_choices = n,
                          .n_open = request->n_prompts};
    a->choices = tsr_alloc((size_t)n, sizeof(*a->choices));
    a->prompts = tsr_alloc((size_t)request->n_prompts, sizeof(*a->prompts));
    a->dim = tsr_model_describe(model).dim;
    if (request->kind == TSR_API_EMBEDDING) {
        a->vectors = tsr_alloc((size_t)request->n_prompts * (size_t)a->dim, sizeof(*a->vectors));
    }
    if (a->choices == NULL || a->prompts == NULL ||
        (a->vectors == NULL && request->kind == TSR_API_EMBEDDING)) {
        tsr_api_answer_clear(a);
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d answers", n);
    }
    for (int p = 0; p < request->n_prompts; p++) {
        a->n_prompt += request->prompts[p].n_ids;
    }
    return TSR_OK;
}

void tsr_api_answer_clear(tsr_api_answer *a)
{
    for (int i = 0; a->choices != NULL && i < a->n_choices; i++) {
        tsr_text_clear(&a->choices[i].text);
        tsr_api_calls_clear(&a->choices[i].calls);
        tsr_likely_clear(&a->choices[i].likely);
    }
    for (int p = 0; a->prompts != NULL && p < a->request->n_prompts; p++) {
        tsr_likely_clear(&a->prompts[p]);
    }
    tsr_free(a->choices);
    tsr_free(a->prompts);
    tsr_free(a->vectors);
    *a = (tsr_api_answer){0};
}

/* ---- events ---------------------------------------------------------------------------------- */

static void fail(tsr_api_answer *a, int status, const char *message)
{
    if (!a->failed) {
        a->failed = true;
        tsr_api_error_set(&a->error, status, "", "%.390s", message);
    }
}

static void note_end(tsr_api_answer *a, tsr_api_choice *c, const tsr_event *event)
{
    const bool is_usual =
        strcmp(event->reason, "stop") == 0 || strcmp(event->reason, "length") == 0;

    (void)snprintf(c->reason, sizeof(c->reason), "%s", event->reason);
    c->n_generated = event->n_generated;
    a->n_cached += event->choice == 0 ? event->n_cached_tokens : 0;
    if (!is_usual) {
        fail(a, strcmp(event->reason, "deadline") == 0 ? 408 : tsr_api_error_status(event->status),
             event->message != NULL && event->message[0] != '\0' ? event->message : event->reason);
    }
}

/* What was said goes to the choice's text, or to its calls. */
static tsr_status take_text(const tsr_api_answer *a, tsr_api_choice *c, const tsr_event *event)
{
    const bool ends = event->kind == TSR_EVENT_END;
    char seed[sizeof(a->id) + 16];

    if (!a->request->may_call) {
        return event->text_bytes > 0 ? tsr_text_append(&c->text, event->text, event->text_bytes)
                                     : TSR_OK;
    }
    (void)snprintf(seed, sizeof(seed), "%s %d", a->id, event->choice);
    TSR_TRY(tsr_api_calls_read(&c->calls, &c->text, event->text, event->text_bytes, ends, seed,
                               a->request->many_calls ? SIZE_MAX : 1));
    if (json_array_size(c->calls.found) > 0 && strcmp(c->reason, "stop") == 0) {
        (void)snprintf(c->reason, sizeof(c->reason), "tool_calls");
    }
    return TSR_OK;
}

void tsr_api_answer_note(tsr_api_answer *a, int prompt, const tsr_event *event)
{
    tsr_api_choice *c = &a->choices[prompt * a->request->generation.n + event->choice];
    tsr_status st = TSR_OK;

    switch (event->kind) {
    case TSR_EVENT_TOKEN:
        if (a->request->logprobs >= 0) {
            st = tsr_likely_append(&c->likely, event->token, event->logprob, event->top,
                                   event->n_top);
        }
        break;
    case TSR_EVENT_SCORE:
        // An event foresees the token behind its position: the first one is foreseen by nobody.
        if (event->position == 0) {
            st = tsr_likely_append(&a->prompts[prompt], a->request->prompts[prompt].ids[0], NAN,
                                   NULL, 0);
        }
        if (st == TSR_OK && event->token >= 0) {
            st = tsr_likely_append(&a->prompts[prompt], event->token, event->logprob, event->top,
                                   event->n_top);
        }
        return;
    case TSR_EVENT_EMBEDDING:
        memcpy(a->vectors + prompt * a->dim, event->embedding,
               (size_t)a->dim * sizeof(*a->vectors));
        return;
    case TSR_EVENT_END:
        note_end(a, c, event);
        a->n_open -= event->last ? 1 : 0;
        break;
    default:
        return;
    }
    st = st == TSR_OK ? take_text(a, c, event) : st;
    if (st != TSR_OK) {
        fail(a, 500, "no memory for the answer");
    }
}

/* ---- objects --------------------------------------------------------------------------------- */

/* The text of one token; its bytes may be part of a character only. */
static json_t *token_text(const tsr_model *model, int32_t id, json_t **bytes)
{
    json_t *value = NULL;
    size_t n_bytes = 0;
    char *text = NULL;

    if (tsr_model_token_text(model, id, &text, &n_bytes) != TSR_OK) {
        return NULL;
    }
    value = tsr_out_json_text(text, n_bytes);
    if (bytes != NULL) {
        *bytes = json_array();
        for (size_t i = 0; i < n_bytes; i++) {
            (void)!json_array_append_new(*bytes, json_integer((unsigned char)text[i]));
        }
    }
    tsr_tessera_free(text);
    return value;
}

/* {"token", "logprob", "bytes"}, as chats have it. */
static json_t *chat_token(const tsr_model *model, int32_t id, double logprob)
{
    json_t *bytes = NULL;
    json_t *text = token_text(model, id, &bytes);

    return json_pack("{s:o, s:o, s:o}", "token", text, "logprob", tsr_out_json_real(logprob),
                     "bytes", bytes);
}

static json_t *chat_logprobs(const tsr_likely *likely, const tsr_model *model, int first)
{
    json_t *content = json_array();

    for (int i = first; i < likely->n_tokens; i++) {
        const tsr_likely_token *t = &likely->tokens[i];
        json_t *object = chat_token(model, t->id, t->logprob);
        json_t *top = json_array();

        for (int k = 0; k < t->n_top; k++) {
            const tsr_top_token *one = &likely->top[t->top_at + k];

            (void)!json_array_append_new(top, chat_token(model, one->id, one->logprob));
        }
        (void)!json_object_set_new(object, "top_logprobs", top);
        (void)!json_array_append_new(content, object);
    }
    return json_pack("{s:o, s:n}", "content", content, "refusal");
}

/* Four lists side by side, as completions have it; *offset counts characters of the text. */
static void add_completion_logprobs(json_t *lists[4], const tsr_likely *likely, int first,
                                    const tsr_model *model, size_t *offset)
{
    for (int i = first; i < likely->n_tokens; i++) {
        const tsr_likely_token *t = &likely->tokens[i];
        json_t *text = token_text(model, t->id, NULL);
        json_t *top = isfinite(t->logprob) ? json_object() : json_null();
        const size_t at = *offset;

        for (const char *c = json_string_value(text); c != NULL && *c != '\0'; c++) {
            *offset += ((unsigned char)*c & 0xC0) != 0x80 ? 1 : 0;
        }
        for (int k = 0; k < t->n_top && json_is_object(top); k++) {
            const tsr_top_token *one = &likely->top[t->top_at + k];
            json_t *name = token_text(model, one->id, NULL);

            (void)!json_object_set_new(top, json_string_value(name),
                                       tsr_out_json_real(one->logprob));
            json_decref(name);
        }
        (void)!json_array_append_new(lists[0], text);
        (void)!json_array_append_new(lists[1], tsr_out_json_real(t->logprob));
        (void)!json_array_append_new(lists[2], top);
        (void)!json_array_append_new(lists[3], json_integer((json_int_t)at));
    }
}

json_t *tsr_api_answer_logprobs(const tsr_api_answer *a, int choice, int first_token)
{
    const tsr_likely *likely = &a->choices[choice].likely;
    json_t *lists[4];
    size_t offset = 0;

    if (a->request->kind == TSR_API_CHAT) {
        return chat_logprobs(likely, a->model, first_token);
    }
    for (int i = 0; i < 4; i++) {
        lists[i] = json_array();
    }
    if (first_token == 0) {
        add_completion_logprobs(lists, &a->prompts[choice / a->request->generation.n], 0, a->model,
                                &offset);
    }
    add_completion_logprobs(lists, likely, first_token, a->model, &offset);
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", lists[0], "token_logprobs", lists[1],
                     "top_logprobs", lists[2], "text_offset", lists[3]);
}

json_t *tsr_api_answer_prompt_text(const tsr_api_answer *a, int choice)
{
    const tsr_api_prompt *prompt = &a->request->prompts[choice / a->request->generation.n];
    json_t *value = NULL;
    char *text = NULL;
    size_t n_bytes = 0;

    if (tsr_model_detokenize(a->model, prompt->ids, prompt->n_ids, false, &text, &n_bytes) ==
        TSR_OK) {
        value = tsr_out_json_text(text, n_bytes);
    }
    tsr_tessera_free(text);
    return value;
}

static json_t *choice_text(const tsr_api_answer *a, int choice)
{
    const tsr_api_choice *c = &a->choices[choice];
    json_t *text = tsr_out_json_text(c->text.bytes != NULL ? c->text.bytes : "", c->text.n_bytes);
    json_t *prompt;
    json_t *whole;

    if (!a->request->echo) {
        return text;
    }
    prompt = tsr_api_answer_prompt_text(a, choice);
    whole = json_pack("s%+%", json_string_value(prompt), json_string_length(prompt),
                      json_string_value(text), json_string_length(text));
    json_decref(prompt);
    json_decref(text);
    return whole;
}

static json_t *message_object(const tsr_api_answer *a, int i)
{
    const tsr_api_choice *c = &a->choices[i];
    const bool calls = json_array_size(c->calls.found) > 0;
    json_t *message = json_pack("{s:s, s:o}", "role", "assistant", "content",
                                calls && c->text.n_bytes == 0 ? json_null() : choice_text(a, i));

    if (calls) {
        (void)!json_object_set(message, "tool_calls", c->calls.found);
    }
    return message;
}

static json_t *choice_object(const tsr_api_answer *a, int i)
{
    const bool wanted = a->request->logprobs >= 0;
    const char *reason = a->choices[i].reason;

    if (a->request->kind == TSR_API_CHAT) {
        return json_pack("{s:i, s:o, s:o, s:s}", "index", i, "message", message_object(a, i),
                         "logprobs", wanted ? tsr_api_answer_logprobs(a, i, 0) : json_null(),
                         "finish_reason", reason);
    }
    return json_pack("{s:i, s:o, s:o, s:s}", "index", i, "text", choice_text(a, i), "logprobs",
                     wanted ? tsr_api_answer_logprobs(a, i, 0) : json_null(), "finish_reason",
                     reason);
}

json_t *tsr_api_answer_usage(const tsr_api_answer *a)
{
    int64_t n = 0;

    for (int i = 0; i < a->n_choices; i++) {
        n += a->choices[i].n_generated;
    }
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)a->n_prompt,
                     "completion_tokens", (json_int_t)n, "total_tokens",
                     (json_int_t)(a->n_prompt + n), "prompt_tokens_details", "cached_tokens",
                     (json_int_t)a->n_cached);
}

static json_t *embeddings_object(const tsr_api_answer *a)
{
    json_t *data = json_array();

    for (int p = 0; p < a->request->n_prompts; p++) {
        json_t *numbers =
            tsr_api_embedding_numbers(a->vectors + p * a->dim, a->dim, a->request->base64);

        if (json_array_append_new(data, json_pack("{s:s, s:i, s:o}", "object", "embedding", "index",
                                                  p, "embedding", numbers)) != 0) {
            json_decref(data);
            return NULL;
        }
    }
    return json_pack("{s:s, s:o, s:s, s:{s:I, s:I}}", "object", "list", "data", data, "model",
                     a->name, "usage", "prompt_tokens", (json_int_t)a->n_prompt, "total_tokens",
                     (json_int_t)a->n_prompt);
}

json_t *tsr_api_answer_object(const tsr_api_answer *a)
{
    json_t *choices;

    if (a->failed) {
        return tsr_api_error_object(&a->error);
    }
    if (a->request->kind == TSR_API_EMBEDDING) {
        return embeddings_object(a);
    }
    choices = json_array();
    for (int i = 0; i < a->n_choices; i++) {
        if (a->choices[i].reason[0] != '\0' &&
            json_array_append_new(choices, choice_object(a, i)) != 0) {
            json_decref(choices);
            return NULL;
        }
    }
    return json_pack("{s:s, s:s, s:I, s:s, s:o, s:o}", "id", a->id, "object",
                     a->request->kind == TSR_API_CHAT ? "chat.completion" : "text_completion",
                     "created", (json_int_t)a->created, "model", a->name, "choices", choices,
                     "usage", tsr_api_answer_usage(a));
}
