/*
 * engine/request.h - one prompt's life: its tokens so far, what it wants, and what became of it.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_ENGINE_REQUEST_H
#define TSR_ENGINE_REQUEST_H

#include "engine/sampler.h"
#include "kv/block_table.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_request_state {
    TSR_REQUEST_WAITING, /* new, or put back for want of memory: none of its tokens are in the cache
                          */
    TSR_REQUEST_RUNNING,
    TSR_REQUEST_ENDED,
    TSR_REQUEST_STATE_COUNT
} tsr_request_state;

typedef enum tsr_request_reason {
    TSR_REASON_NONE,
    TSR_REASON_STOP,   /* the model ended its answer */
    TSR_REASON_LENGTH, /* max_tokens or the context is full */
    TSR_REASON_CANCELLED,
    TSR_REASON_FAILED,
    TSR_REASON_COUNT
} tsr_request_reason;

typedef struct tsr_request {
    int64_t id;
    tsr_sampling sampling;
    int max_tokens;  /* to generate; 0: none (scoring only) */
    bool ignore_end; /* go on after an end token */
    bool score; /* the logits of every prompt position are wanted, with the next token as target */

    int32_t *tokens; /* owned, [capacity]: the prompt, then what was generated */
    int64_t n_prompt;
    int64_t n_tokens;
    int64_t capacity;

    tsr_request_state state;
    tsr_request_reason reason;
    int64_t n_cached; /* tokens whose keys and values are in the cache */
    int lane;         /* while running */
    tsr_block_table blocks;

    int64_t submitted_ns;
    int64_t first_token_ns; /* 0 until there is one */
    int64_t ended_ns;
    int n_preempted; /* how often it was put back */

    struct tsr_request *next; /* the scheduler's queues */
    void *user;               /* the engine's */
} tsr_request;

/* A copy of the prompt with room for max_tokens more. Errors: ARG (empty prompt), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_request_create(tsr_request **out, const int32_t *prompt,
                                             int64_t n_prompt, int max_tokens);

/* The request must hold no blocks. NULL is fine. */
void tsr_request_destroy(tsr_request *request);

const char *
tsr_request_reason_name(tsr_request_reason reason); /* "stop", "length", "cancelled", "error" */

#ifdef __cplusplus
}
#endif

#endif
