#include "engine/chat_template.h"

#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "engine/jinja/jparser.h"
#include "engine/jinja/jrun.h"

enum {
    TREE_BYTES = 64 << 20,
    RUN_BYTES = 256 << 20,
    MOST_STEPS = 10 * 1000 * 1000,
    MOST_TEXT_BYTES = 4 << 20 // of a template
};

struct tsr_chat_template {
    tsr_jmemory memory;
    tsr_jnode *tree; // in memory
};

tsr_status tsr_chat_template_create(tsr_chat_template **out, const char *text, size_t n_bytes)
{
    tsr_chat_template *made;
    tsr_status st;

    if (n_bytes > MOST_TEXT_BYTES) {
        return tsr_fail(TSR_ERR_FORMAT, "a chat template of %zu bytes; %d are the most", n_bytes,
                        MOST_TEXT_BYTES);
    }
    made = tsr_alloc(1, sizeof(*made));
    if (made == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a chat template");
    }
    made->memory.most_bytes = TREE_BYTES;
    st = tsr_jparser_read(&made->memory, &made->tree, text, n_bytes);
    if (st != TSR_OK) {
        tsr_chat_template_destroy(made);
        return st;
    }
    *out = made;
    return TSR_OK;
}

void tsr_chat_template_destroy(tsr_chat_template *chat_template)
{
    if (chat_template != NULL) {
        tsr_jmemory_clear(&chat_template->memory);
        tsr_free(chat_template);
    }
}

/* ---- inputs ------------------------------------------------------------------------------------
 */

/* Roles are parts of a template's own words ("<|user|>"), as long as they are these. */
static bool is_known_role(const char *role, size_t n_bytes)
{
    static const char *const known[] = {"system",      "user",         "assistant", "tool",
                                        "developer",   "function",     "ipython",   "model",
                                        "observation", "tool_response"};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strlen(known[i]) == n_bytes && memcmp(known[i], role, n_bytes) == 0) {
            return true;
        }
    }
    return false;
}

static tsr_status text_value(tsr_jrun *run, tsr_jvalue *out, const char *bytes, size_t n_bytes,
                             bool said)
{
    const tsr_jtext *text;

    TSR_TRY(tsr_jtext_copy(run, &text, bytes, n_bytes, said));
    *out = tsr_jvalue_text(text);
    return TSR_OK;
}

static tsr_status words_value(tsr_jrun *run, tsr_jvalue *out, const char *words)
{
    const tsr_jtext *text;

    TSR_TRY(tsr_jtext_words(run, &text, words));
    *out = tsr_jvalue_text(text);
    return TSR_OK;
}

static tsr_status set_member(tsr_jrun *run, tsr_jdict *dict, const char *name, tsr_jvalue value)
{
    tsr_jvalue key;

    TSR_TRY(words_value(run, &key, name));
    return tsr_jvalue_set(run, dict, key, value);
}

static tsr_status from_json(tsr_jrun *run, tsr_jvalue *out, const json_t *json, bool role,
                            int depth);

static tsr_status from_object(tsr_jrun *run, tsr_jvalue *out, const json_t *json, int depth)
{
    const char *name;
    json_t *member;
    tsr_jdict *dict;

    TSR_TRY(tsr_jvalue_new_dict(run, &dict));
    // jansson iterates a constant object through a pointer that is not.
    json_object_foreach((json_t *)(uintptr_t)json, name, member)
    {
        tsr_jvalue key;
        tsr_jvalue value;

        TSR_TRY(text_value(run, &key, name, strlen(name), true));
        TSR_TRY(from_json(run, &value, member, strcmp(name, "role") == 0, depth + 1));
        TSR_TRY(tsr_jvalue_set(run, dict, key, value));
    }
    *out = tsr_jvalue_dict(TSR_J_DICT, dict);
    return TSR_OK;
}

/* role: the value is a message's role. */
static tsr_status from_json(tsr_jrun *run, tsr_jvalue *out, const json_t *json, bool role,
                            int depth)
{
    tsr_jlist *list;

    if (depth > TSR_JVALUE_MOST_DEPTH) {
        return tsr_fail(TSR_ERR_ARG, "values within values, more than %d deep",
                        TSR_JVALUE_MOST_DEPTH);
    }
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return from_object(run, out, json, depth);
    case JSON_ARRAY:
        TSR_TRY(tsr_jvalue_new_list(run, &list));
        for (size_t i = 0; i < json_array_size(json); i++) {
            tsr_jvalue item;

            TSR_TRY(from_json(run, &item, json_array_get(json, i), false, depth + 1));
            TSR_TRY(tsr_jvalue_append(run, list, item));
        }
        *out = tsr_jvalue_list(TSR_J_LIST, list);
        return TSR_OK;
    case JSON_STRING:
        return text_value(
            run, out, json_string_value(json), json_string_length(json),
            !(role && is_known_role(json_string_value(json), json_string_length(json))));
    case JSON_INTEGER:
        *out = tsr_jvalue_int(json_integer_value(json));
        return TSR_OK;
    case JSON_REAL:
        *out = tsr_jvalue_float(json_real_value(json));
        return TSR_OK;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = tsr_jvalue_bool(json_is_true(json));
        return TSR_OK;
    default:
        *out = tsr_jvalue_none();
        return TSR_OK;
    }
}

static tsr_status from_messages(tsr_jrun *run, tsr_jvalue *out,
                                const tsr_chat_template_inputs *inputs)
{
    tsr_jlist *list;

    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int i = 0; i < inputs->n_messages; i++) {
        const tsr_chat_template_message *message = &inputs->messages[i];
        const size_t role_bytes = strlen(message->role);
        tsr_jvalue value;
        tsr_jdict *dict;

        TSR_TRY(tsr_jvalue_new_dict(run, &dict));
        TSR_TRY(text_value(run, &value, message->role, role_bytes,
                           !is_known_role(message->role, role_bytes)));
        TSR_TRY(set_member(run, dict, "role", value));
        TSR_TRY(text_value(run, &value, message->content, strlen(message->content), true));
        TSR_TRY(set_member(run, dict, "content", value));
        TSR_TRY(tsr_jvalue_append(run, list, tsr_jvalue_dict(TSR_J_DICT, dict)));
    }
    *out = tsr_jvalue_list(TSR_J_LIST, list);
    return TSR_OK;
}

static tsr_status set_name(tsr_jrun *run, const char *name, tsr_jvalue value)
{
    const tsr_jtext *text;

    TSR_TRY(tsr_jtext_copy(run, &text, name, strlen(name), false));
    return tsr_jexec_set(run, run->globals, text, value);
}

static tsr_status set_token(tsr_jrun *run, const char *name, const char *words)
{
    tsr_jvalue value;

    if (words == NULL) {
        return TSR_OK;
    }
    TSR_TRY(text_value(run, &value, words, strlen(words), false));
    return set_name(run, name, value);
}

static tsr_status set_inputs(tsr_jrun *run, const tsr_chat_template_inputs *inputs)
{
    const char *name;
    json_t *member;
    tsr_jvalue value;

    TSR_TRY(tsr_jexec_scope(run, &run->globals, NULL));
    TSR_TRY(set_name(run, "tools", tsr_jvalue_none()));
    TSR_TRY(set_name(run, "documents", tsr_jvalue_none()));
    TSR_TRY(set_name(run, "add_generation_prompt", tsr_jvalue_bool(inputs->add_generation_prompt)));
    TSR_TRY(set_token(run, "bos_token", inputs->tokens.bos));
    TSR_TRY(set_token(run, "eos_token", inputs->tokens.eos));
    TSR_TRY(set_token(run, "unk_token", inputs->tokens.unk));
    TSR_TRY(set_token(run, "pad_token", inputs->tokens.pad));
    json_object_foreach((json_t *)(uintptr_t)inputs->values, name, member)
    {
        TSR_TRY(from_json(run, &value, member, false, 0));
        TSR_TRY(set_name(run, name, value));
    }
    if (inputs->messages != NULL) {
        TSR_TRY(from_messages(run, &value, inputs));
        TSR_TRY(set_name(run, "messages", value));
    }
    return TSR_OK;
}

/* ---- rendering ---------------------------------------------------------------------------------
 */

static tsr_status hand_out(const tsr_jbuilder *made, tsr_text *out, tsr_chat_template_said *said)
{
    tsr_text_run *runs = NULL;

    if (said != NULL) {
        runs = tsr_alloc((size_t)made->n_said, sizeof(*runs));
        if (runs == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for what is said in a conversation");
        }
        for (int i = 0; i < made->n_said; i++) {
            runs[i] = made->said[i];
            runs[i].start += out->n_bytes;
        }
    }
    if (tsr_text_append(out, made->n_bytes > 0 ? made->bytes : "", made->n_bytes) != TSR_OK) {
        tsr_free(runs);
        return TSR_ERR_NOMEM;
    }
    if (said != NULL) {
        *said = (tsr_chat_template_said){.runs = runs, .n_runs = made->n_said};
    }
    return TSR_OK;
}

tsr_status tsr_chat_template_render(const tsr_chat_template *chat_template, tsr_text *out,
                                    tsr_chat_template_said *said,
                                    const tsr_chat_template_inputs *inputs)
{
    tsr_jbuilder made = {0};
    tsr_jrun run = {
        .memory = {.most_bytes = RUN_BYTES},
        .steps_left = MOST_STEPS,
        .line = 1,
        .out = &made,
        .clock_s = (int64_t)time(NULL),
        .calendar = inputs->calendar,
    };
    tsr_jleap leap = TSR_JLEAP_NONE;
    tsr_status st;

    TSR_TRY_GOTO(st, done, set_inputs(&run, inputs));
    TSR_TRY_GOTO(st, done, tsr_jexec_block(&run, run.globals, chat_template->tree, &leap));
    st = hand_out(&made, out, said);

done:
    tsr_jmemory_clear(&run.memory);
    return st;
}
