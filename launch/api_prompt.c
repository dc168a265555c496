#include "launch/api_prompt.h"

#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "launch/api_value.h"
#include "launch/out.h"

enum {
    MOST_TOOLS = 128
};

/* A generation needs room for a token. */
static tsr_status check_length(const tsr_api_body *r, const char *key, const tsr_api_prompt *prompt,
                               bool generates)
{
    if (prompt->n_ids + (generates ? 1 : 0) > r->context) {
        tsr_api_error_set(r->error, 400, key, "%lld tokens are too many for the context of %lld%s",
                          (long long)prompt->n_ids, (long long)r->context,
                          generates ? ", an answer's first among them" : "");
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

/* ---- prompts --------------------------------------------------------------------------------- */

static bool is_ids(const json_t *value)
{
    return json_is_array(value) && json_array_size(value) > 0 &&
           json_is_integer(json_array_get(value, 0));
}

static tsr_status take_ids(const tsr_api_body *r, const char *key, const json_t *value,
                           tsr_api_prompt *out)
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
            return tsr_api_value_refuse(r, key, "text or token ids of this model");
        }
        out->ids[i] = (int32_t)json_integer_value(id);
    }
    out->n_ids = (int64_t)n;
    return TSR_OK;
}

static tsr_status take_prompt(const tsr_api_body *r, const char *key, const json_t *value,
                              tsr_api_prompt *out)
{
    if (is_ids(value)) {
        TSR_TRY(take_ids(r, key, value, out));
    } else if (json_is_string(value)) {
        if (tsr_model_prompt_ids(r->model, json_string_value(value), json_string_length(value),
                                 &out->ids, &out->n_ids) != TSR_OK) {
            return tsr_api_value_no_memory(r);
        }
    } else {
        return tsr_api_value_refuse(r, key, "text, token ids, or a list of these");
    }
    if (out->n_ids == 0) {
        return tsr_api_value_refuse(r, key, "more than nothing: there is nothing to go on from");
    }
    return TSR_OK;
}

tsr_status tsr_api_prompt_read(const tsr_api_body *r, tsr_api_request *q)
{
    const bool generates = q->kind != TSR_API_EMBEDDING;
    const char *key = generates ? "prompt" : "input";
    const json_t *value = tsr_api_value_of(r, key);
    const bool many = json_is_array(value) && !is_ids(value);
    const size_t n = many ? json_array_size(value) : 1;

    if (value == NULL || n < 1 || n > TSR_API_MOST_PROMPTS) {
        return tsr_api_value_refuse(r, key, "text, token ids, or a list of these, up to 256");
    }
    q->prompts = tsr_alloc(n, sizeof(*q->prompts));
    if (q->prompts == NULL) {
        return tsr_api_value_no_memory(r);
    }
    for (size_t i = 0; i < n; i++) {
        q->n_prompts++;
        TSR_TRY(take_prompt(r, key, many ? json_array_get(value, i) : value, &q->prompts[i]));
        TSR_TRY(check_length(r, key, &q->prompts[i], generates));
    }
    return TSR_OK;
}

/* ---- messages -------------------------------------------------------------------------------- */

static const char MESSAGES[] = "messages";

/* The text of a message: a string, or the texts of its parts one behind the other; a reference is
 * the caller's. None is an empty one. */
static tsr_status take_content(const tsr_api_body *r, const json_t *message, json_t **text)
{
    const json_t *content = json_object_get(message, "content");
    tsr_text whole = {0};
    tsr_status st = TSR_OK;
    const json_t *part;
    size_t i;

    if (json_is_string(content)) {
        *text = json_incref((json_t *)(uintptr_t)content);
        return TSR_OK;
    }
    if (content != NULL && !json_is_null(content) && !json_is_array(content)) {
        return tsr_api_value_refuse(r, MESSAGES, "a list of messages whose content is text");
    }
    json_array_foreach(content, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *more = json_object_get(part, "text");

        if (type == NULL || strcmp(type, "text") != 0 || !json_is_string(more)) {
            st = tsr_api_value_refuse(r, MESSAGES, "a list of messages whose content is text");
            break;
        }
        if (json_string_length(more) > 0 &&
            tsr_text_append(&whole, json_string_value(more), json_string_length(more)) != TSR_OK) {
            st = tsr_api_value_no_memory(r);
            break;
        }
    }
    *text =
        st == TSR_OK ? json_stringn(whole.bytes != NULL ? whole.bytes : "", whole.n_bytes) : NULL;
    tsr_text_clear(&whole);
    return st == TSR_OK && *text == NULL ? tsr_api_value_no_memory(r) : st;
}

static const char *known_role(const json_t *message)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    const char *role = json_string_value(json_object_get(message, "role"));

    for (size_t i = 0; role != NULL && i < sizeof(roles) / sizeof(roles[0]); i++) {
        if (strcmp(role, roles[i]) == 0) {
            return roles[i];
        }
    }
    return role != NULL && strcmp(role, "developer") == 0 ? "system" : NULL;
}

/* A call that the model has made: {"id", "type", "function": {"name", "arguments"}}. */
static bool is_call(const json_t *call)
{
    const json_t *function = json_object_get(call, "function");
    const char *type = json_string_value(json_object_get(call, "type"));

    return json_is_string(json_object_get(call, "id")) && type != NULL &&
           strcmp(type, "function") == 0 && json_is_string(json_object_get(function, "name")) &&
           json_is_string(json_object_get(function, "arguments"));
}

/* Templates want the arguments of a call as they are, the interface gives them as text. */
static tsr_status take_calls(const tsr_api_body *r, const json_t *calls, json_t *plain)
{
    json_t *copy = json_deep_copy(calls);
    tsr_status st = TSR_OK;
    json_t *call;
    size_t i;

    json_array_foreach(copy, i, call)
    {
        json_t *function = json_object_get(call, "function");
        const json_t *text = json_object_get(function, "arguments");
        json_t *arguments = NULL;

        if (!is_call(call)) {
            st = tsr_api_value_refuse(r, MESSAGES, "a list of messages, their calls of functions");
            break;
        }
        arguments = json_loadb(json_string_value(text), json_string_length(text),
                               JSON_REJECT_DUPLICATES, NULL);
        if (json_is_object(arguments)) {
            (void)!json_object_set(function, "arguments", arguments);
        }
        json_decref(arguments);
    }
    if (st == TSR_OK && json_array_size(copy) > 0) {
        (void)!json_object_set(plain, "tool_calls", copy);
    }
    json_decref(copy);
    return st;
}

/* What a message has besides its role and content. */
static tsr_status take_rest(const tsr_api_body *r, const json_t *message, json_t *plain)
{
    static const char *const texts[] = {"name", "tool_call_id"};
    const json_t *calls = json_object_get(message, "tool_calls");

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        json_t *value = json_object_get(message, texts[i]);

        if (value != NULL && !json_is_null(value)) {
            if (!json_is_string(value)) {
                return tsr_api_value_refuse(r, MESSAGES,
                                            "a list of messages, their names and ids texts");
            }
            (void)!json_object_set(plain, texts[i], value);
        }
    }
    if (calls == NULL || json_is_null(calls)) {
        return TSR_OK;
    }
    return json_is_array(calls)
               ? take_calls(r, calls, plain)
               : tsr_api_value_refuse(r, MESSAGES, "a list of messages, their calls lists");
}

static tsr_status take_messages(const tsr_api_body *r, json_t *out)
{
    const json_t *value = tsr_api_value_of(r, MESSAGES);
    const json_t *message;
    size_t i;

    if (json_array_size(value) == 0) {
        return tsr_api_value_refuse(r, MESSAGES, "a list of messages, one at least");
    }
    json_array_foreach(value, i, message)
    {
        const char *role = known_role(message);
        json_t *text = NULL;
        json_t *plain;

        if (role == NULL) {
            return tsr_api_value_refuse(r, MESSAGES,
                                        "a list of messages with a role: system, developer, user, "
                                        "assistant or tool");
        }
        TSR_TRY(take_content(r, message, &text));
        plain = json_pack("{s:s, s:o}", "role", role, "content", text);
        if (json_array_append_new(out, plain) != 0) {
            return tsr_api_value_no_memory(r);
        }
        TSR_TRY(take_rest(r, message, plain));
    }
    return TSR_OK;
}

/* NULL in *tools: none are to be told of. */
static tsr_status take_tools(const tsr_api_body *r, json_t **tools)
{
    json_t *value = (json_t *)(uintptr_t)tsr_api_value_of(r, "tools");
    const json_t *choice = tsr_api_value_of(r, "tool_choice");
    const char *choice_text = choice != NULL ? json_string_value(choice) : "auto";
    const json_t *tool;
    size_t i;

    *tools = NULL;
    if (value != NULL && (!json_is_array(value) || json_array_size(value) > MOST_TOOLS)) {
        return tsr_api_value_refuse(r, "tools", "a list of functions, up to 128");
    }
    json_array_foreach(value, i, tool)
    {
        const char *type = json_string_value(json_object_get(tool, "type"));

        if (type == NULL || strcmp(type, "function") != 0 ||
            !json_is_string(json_object_get(json_object_get(tool, "function"), "name"))) {
            return tsr_api_value_refuse(
                r, "tools",
                "a list of {\"type\": \"function\", \"function\": {\"name\": ..., ...}}");
        }
    }
    if (choice_text == NULL ||
        (strcmp(choice_text, "auto") != 0 && strcmp(choice_text, "none") != 0)) {
        return tsr_api_value_refuse(
            r, "tool_choice", "\"auto\" or \"none\": a model cannot be made to call a tool here");
    }
    if (json_array_size(value) == 0 || strcmp(choice_text, "none") == 0) {
        return TSR_OK;
    }
    if (strstr(tsr_model_describe(r->model).chat_template, "tools") == NULL) {
        tsr_api_error_set(r->error, 400, "tools", "this model's chat template takes no tools");
        return TSR_ERR_ARG;
    }
    *tools = value;
    return TSR_OK;
}

static tsr_status render(const tsr_api_body *r, const json_t *conversation, tsr_api_prompt *out)
{
    tsr_text text = {0};
    tsr_status st = tsr_out_json_append(&text, conversation);

    if (st != TSR_OK) {
        st = tsr_api_value_no_memory(r);
    } else {
        st = tsr_model_chat_request_ids(r->model, text.bytes, text.n_bytes, NULL, NULL, &out->ids,
                                        &out->n_ids);
        if (st != TSR_OK) {
            tsr_api_error_set(r->error, st == TSR_ERR_NOMEM ? 500 : 400, MESSAGES, "%.390s",
                              tsr_tessera_message());
        }
    }
    tsr_text_clear(&text);
    return st;
}

tsr_status tsr_api_prompt_read_messages(const tsr_api_body *r, tsr_api_request *q)
{
    json_t *messages = json_array();
    json_t *tools = NULL;
    json_t *conversation = json_pack("{s:o, s:b}", MESSAGES, messages, "add_generation_prompt", 1);
    tsr_status st = TSR_OK;

    q->prompts = tsr_alloc(1, sizeof(*q->prompts));
    if (conversation == NULL || q->prompts == NULL) {
        json_decref(conversation);
        return tsr_api_value_no_memory(r);
    }
    TSR_TRY_GOTO(st, done, take_messages(r, messages));
    TSR_TRY_GOTO(st, done, take_tools(r, &tools));
    if (tools != NULL) {
        q->may_call = true;
        (void)!json_object_set(conversation, "tools", tools);
    }
    TSR_TRY_GOTO(st, done, render(r, conversation, &q->prompts[0]));
    q->n_prompts = 1;
    st = check_length(r, MESSAGES, &q->prompts[0], true);

done:
    json_decref(conversation);
    return st;
}
