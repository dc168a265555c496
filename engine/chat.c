#define _GNU_SOURCE // memmem
#include "engine/chat.h"

#include <string.h>

#include "base/alloc.h"

static const tsr_chat_template_tokens no_tokens = {"", "", "", ""};

static tsr_status render(tsr_text *out, tsr_chat_template_said *said, const char *template_text,
                         size_t template_bytes, const tsr_chat_template_inputs *inputs)
{
    tsr_chat_template *chat_template;
    tsr_status st;

    if (template_bytes == 0) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "this model has no chat template");
    }
    TSR_TRY(tsr_chat_template_create(&chat_template, template_text, template_bytes));
    st = tsr_chat_template_render(chat_template, out, said, inputs);
    tsr_chat_template_destroy(chat_template);
    return st;
}

tsr_status tsr_chat_render(tsr_text *out, tsr_chat_template_said *said, const char *template_text,
                           size_t template_bytes, const tsr_chat_template_tokens *tokens,
                           const tsr_chat_message *messages, int n_messages)
{
    tsr_chat_template_message *given;
    tsr_status st;

    if (n_messages <= 0) {
        return tsr_fail(TSR_ERR_ARG, "a conversation needs a message");
    }
    given = tsr_alloc((size_t)n_messages, sizeof(*given));
    if (given == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a conversation of %d messages", n_messages);
    }
    for (int i = 0; i < n_messages; i++) {
        const char *role = messages[i].role;

        if (strcmp(role, "system") != 0 && strcmp(role, "user") != 0 &&
            strcmp(role, "assistant") != 0) {
            st = tsr_fail(TSR_ERR_ARG,
                          "message %d has the role \"%.40s\"; known are system, user, assistant", i,
                          role);
            goto done;
        }
        given[i] = (tsr_chat_template_message){.role = role, .content = messages[i].content};
    }
    st = render(out, said, template_text, template_bytes,
                &(tsr_chat_template_inputs){.messages = given,
                                            .n_messages = n_messages,
                                            .add_generation_prompt = true,
                                            .tokens = tokens != NULL ? *tokens : no_tokens});

done:
    tsr_free(given);
    return st;
}

tsr_status tsr_chat_render_json(tsr_text *out, tsr_chat_template_said *said,
                                const char *template_text, size_t template_bytes,
                                const tsr_chat_template_tokens *tokens, const char *json,
                                size_t json_bytes)
{
    json_error_t error;
    json_t *values = json_loadb(json, json_bytes, JSON_REJECT_DUPLICATES, &error);
    tsr_status st;

    if (values == NULL) {
        return tsr_fail(TSR_ERR_ARG, "a chat request is not sound JSON: line %d: %s", error.line,
                        error.text);
    }
    if (!json_is_array(json_object_get(values, "messages")) ||
        json_array_size(json_object_get(values, "messages")) == 0) {
        st = tsr_fail(TSR_ERR_ARG, "a chat request needs a list of messages");
    } else {
        st = render(out, said, template_text, template_bytes,
                    &(tsr_chat_template_inputs){.values = values,
                                                .tokens = tokens != NULL ? *tokens : no_tokens});
    }
    json_decref(values);
    return st;
}

static bool has(const char *text, size_t n_bytes, const char *words)
{
    return memmem(text, n_bytes, words, strlen(words)) != NULL;
}

const char *tsr_chat_form_name(const char *template_text, size_t template_bytes)
{
    if (template_bytes == 0) {
        return "none";
    }
    if (has(template_text, template_bytes, "<|im_start|>")) {
        return "ChatML";
    }
    return has(template_text, template_bytes, "<|start_header_id|>") ? "Llama 3" : "other";
}
