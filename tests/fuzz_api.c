/*
 * Any bytes as the body of a request, of each kind: it becomes generations that make sense, or one
 * sentence with the status of a client's mistake. And any bytes as what a model says, in two
 * pieces: calls are found or not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "launch/api_calls.h"
#include "launch/api_request.h"
#include "tests/support/tiny_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static tsr_model *model;

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void open_model(void)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/tmp/tsr_fuzz_api_%d.gguf", (int)getpid());
    tiny_model_save(tiny_model_preset("2/1"), 1, path);
    must(tsr_model_open(&model, path) == TSR_OK);
    (void)unlink(path); // it stays mapped
}

static void read_request(const json_t *body, tsr_api_kind kind)
{
    tsr_api_request request = {0};
    tsr_api_error error = {.status = 0};
    json_t *object;

    if (tsr_api_request_read(&request, kind, body, model, 64, 1, &error) == TSR_OK) {
        must(request.n_prompts > 0 && request.generation.n > 0);
        for (int p = 0; p < request.n_prompts; p++) {
            must(request.prompts[p].n_ids > 0 && request.prompts[p].n_ids <= 64);
        }
        must((request.generation.pooling != TSR_POOLING_NONE) == (kind == TSR_API_EMBEDDING));
    } else {
        must(error.status == 400 && error.message[0] != '\0');
        object = tsr_api_error_object(&error);
        must(object != NULL);
        json_decref(object);
    }
    tsr_api_request_clear(&request);
}

static void read_calls(const char *text, size_t n_bytes)
{
    tsr_api_calls calls = {0};
    tsr_text content = {0};

    must(tsr_api_calls_read(&calls, &content, text, n_bytes / 2, false, "", SIZE_MAX) == TSR_OK &&
         tsr_api_calls_read(&calls, &content, text + n_bytes / 2, n_bytes - n_bytes / 2, true, "",
                            SIZE_MAX) == TSR_OK);
    must(calls.found != NULL || content.n_bytes == n_bytes);
    tsr_text_clear(&content);
    tsr_api_calls_clear(&calls);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    const char *text = (const char *)bytes;
    long live;
    json_t *body;

    tsr_log_set_level(TSR_LOG_ERROR);
    if (model == NULL) {
        open_model();
    }
    live = tsr_alloc_live();
    body = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    for (int kind = 0; body != NULL && kind < TSR_API_KIND_COUNT; kind++) {
        read_request(body, (tsr_api_kind)kind);
    }
    json_decref(body);
    read_calls(text, n_bytes);
    must(tsr_alloc_live() == live);
    return 0;
}
