/*
 * launch/api_request.h - a request of the OpenAI form (platform.openai.com/docs/api-reference) made
 * into generations: the body of /v1/completions, /v1/chat/completions or /v1/embeddings, or just
 * {"prompt": ...}.
 *
 * What the form leaves open is as there: temperature 1, 16 tokens of a completion, as many as there
 * is room for of a chat. Keys of our own beside it: top_k, min_p, typical_p, repetition_penalty,
 * min_tokens, ignore_eos, stop_token_ids, include_stop_str_in_output, use_beam_search,
 * length_penalty, early_stopping, priority, timeout; pooling of embeddings. A key that is not known
 * is refused: who sent it wants something that would not happen.
 *
 * Threads: none of its own.
 */
#ifndef TSR_LAUNCH_API_REQUEST_H
#define TSR_LAUNCH_API_REQUEST_H

#include <jansson.h>

#include "base/status.h"
#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_api_kind {
    TSR_API_COMPLETION,
    TSR_API_CHAT,
    TSR_API_EMBEDDING,
    TSR_API_KIND_COUNT
} tsr_api_kind;

enum {
    TSR_API_MOST_PROMPTS = 256, /* of one request */
    TSR_API_MOST_CHOICES = 128, /* of one prompt */
    TSR_API_MOST_STOPS = 16
};

/* What is wrong with a request, as the form says it. */
typedef struct tsr_api_error {
    int status;       /* of HTTP: 400, 404, 500, ... */
    const char *type; /* "invalid_request_error", ... */
    char param[64];   /* the key it is about; "" if none */
    char message[400];
} tsr_api_error;

/* One prompt of a request. */
typedef struct tsr_api_prompt {
    int32_t *ids; /* owned: handed out by the model */
    int64_t n_ids;
} tsr_api_prompt;

typedef struct tsr_api_request {
    tsr_api_kind kind;
    tsr_generation generation; /* all but prompt, on_event and ctx; its lists lie in the request */
    tsr_api_prompt *prompts;   /* owned, [n_prompts] */
    int n_prompts;
    int logprobs; /* -1: not asked for; else how many of the likeliest */
    bool echo;
    bool stream;
    bool stream_usage;
    bool may_call;   /* it was told of tools: calls are to be found in its answers */
    bool many_calls; /* more than one in an answer */
    bool base64;     /* how the numbers of embeddings are given */
    char *model;     /* owned: the name it asks for; NULL: none */

    json_t *stops; /* owned: the texts that generation.stops point into */
    const char **stop_texts;
    size_t *stop_bytes;
    int32_t *bias_ids;
    float *biases;
    int32_t *stop_ids;
} tsr_api_request;

/*
 * Reads the body of a request. seed: for a request that names none.
 * On failure *error says what is wrong, and the status is one of: ARG, NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_api_request_read(tsr_api_request *out, tsr_api_kind kind,
                                               const json_t *body, const tsr_model *model,
                                               int64_t context, uint64_t seed,
                                               tsr_api_error *error);
void tsr_api_request_clear(tsr_api_request *request); /* fine on {0} */

/* The status of HTTP for what an engine says to a request. */
int tsr_api_error_status(tsr_status status);

/* {"error": {"message", "type", "param", "code"}}; NULL when memory is short. */
json_t *tsr_api_error_object(const tsr_api_error *error);

void tsr_api_error_set(tsr_api_error *error, int status, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#ifdef __cplusplus
}
#endif

#endif
