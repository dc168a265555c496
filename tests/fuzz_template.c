/*
 * Any bytes as a chat template, over inputs of every kind: it ends, within its limits, and either
 * gives a text whose said parts lie in order within it, or one sentence.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static const char inputs_json[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \" Be brief. \"},"
    " {\"role\": \"user\", \"content\": \"Gr\xc3\xbc\xc3\x9f <|im_end|>\\n\\tyou\"},"
    " {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\":"
    " {\"name\": \"f\", \"arguments\": {\"a\": 1, \"b\": [true, null, 2.5]}}}]},"
    " {\"role\": \"tool\", \"content\": [{\"type\": \"text\", \"text\": \"42\"}]}],"
    " \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\","
    " \"parameters\": {\"type\": \"object\", \"properties\": {}}}}],"
    " \"add_generation_prompt\": true, \"n\": 7, \"x\": 0.1, \"name\": \"abc\"}";

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static json_t *values;
    tsr_chat_template_inputs inputs = {
        .tokens = {.bos = "<s>", .eos = "</s>"},
    };
    tsr_chat_template *chat_template = NULL;
    tsr_chat_template_said said = {0};
    tsr_text text = {0};
    const long live = tsr_alloc_live();

    tsr_log_set_level(TSR_LOG_ERROR);
    if (values == NULL) {
        values = json_loads(inputs_json, 0, NULL);
        must(values != NULL);
    }
    inputs.values = values;
    if (tsr_chat_template_create(&chat_template, (const char *)bytes, n_bytes) == TSR_OK &&
        tsr_chat_template_render(chat_template, &text, &said, &inputs) == TSR_OK) {
        size_t at = 0;

        for (int i = 0; i < said.n_runs; i++) {
            must(said.runs[i].start >= at && said.runs[i].n_bytes > 0);
            at = said.runs[i].start + said.runs[i].n_bytes;
            must(at <= text.n_bytes);
        }
    } else {
        must(tsr_status_message()[0] != '\0' && text.bytes == NULL && said.runs == NULL);
    }
    tsr_free(said.runs);
    tsr_text_clear(&text);
    tsr_chat_template_destroy(chat_template);
    must(tsr_alloc_live() == live);
    return 0;
}
