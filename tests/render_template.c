/*
 * Chat templates for tests/chat_template_test.py: each line of stdin is {"template": ..., "values":
 * {...}}, each line of stdout {"text": ..., "said": [[start, bytes], ...]} or {"error": ...}.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"
#include "engine/chat_template.h"

static json_t *said_json(const tsr_chat_template_said *said)
{
    json_t *list = json_array();

    for (int i = 0; i < said->n_runs; i++) {
        (void)json_array_append_new(list, json_pack("[II]", (json_int_t)said->runs[i].start,
                                                    (json_int_t)said->runs[i].n_bytes));
    }
    return list;
}

static json_t *render(const json_t *line)
{
    const json_t *words = json_object_get(line, "template");
    const tsr_chat_template_inputs inputs = {
        .values = json_object_get(line, "values"),
        .calendar = true,
    };
    tsr_chat_template *chat_template = NULL;
    tsr_chat_template_said said = {0};
    tsr_text text = {0};
    json_t *reply;
    tsr_status st = tsr_chat_template_create(&chat_template, json_string_value(words),
                                             json_string_length(words));

    if (st == TSR_OK) {
        st = tsr_chat_template_render(chat_template, &text, &said, &inputs);
    }
    reply = st == TSR_OK ? json_pack("{s:o, s:o}", "text", json_stringn(text.bytes, text.n_bytes),
                                     "said", said_json(&said))
                         : json_pack("{s:s}", "error", tsr_status_message());
    tsr_free(said.runs);
    tsr_text_clear(&text);
    tsr_chat_template_destroy(chat_template);
    return reply;
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;

    while (getline(&line, &capacity, stdin) > 0) {
        json_t *request = json_loads(line, 0, NULL);
        json_t *reply = request != NULL ? render(request) : NULL;

        if (reply == NULL || json_dumpf(reply, stdout, JSON_COMPACT) != 0) {
            (void)fprintf(stderr, "not a request: %s\n", line);
            return 1;
        }
        (void)putchar('\n');
        (void)fflush(stdout);
        json_decref(reply);
        json_decref(request);
    }
    free(line);
    return tsr_alloc_live() == 0 ? 0 : 1;
}
