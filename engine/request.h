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
    TSR_REQUEST_RESTING, /* waiting, with tokens in the cache */
    TSR_REQUEST_RUNNING,
    TSR_REQUEST_ENDED,
    TSR_REQUEST_STATE_COUNT
} tsr_request_state;

typedef enum tsr_request_reason {
    TSR_REASON_NONE,
    TSR_REASON_STOP,   /* the model ended its answer */
    TSR_REASON_LENGTH, /* max_tokens or the context is full */
    TSR_REASON_CANCELLED,
    TSR_REASON_DEADLINE, /* its time was over before it was done */
    TSR_REASON_FAILED,
    TSR_REASON_COUNT
} tsr_request_reason;

/* What requests can be put in order by; among equals the one that came first is before. */
typedef enum tsr_request_order {
    TSR_REQUEST_BY_STANDING,
    TSR_REQUEST_BY_DEADLINE,
    TSR_REQUEST_ORDER_COUNT
} tsr_request_order;

typedef struct tsr_request {
    int64_t id;
    int priority; /* higher goes first; 0 is usual */
    tsr_sampling sampling;
    int max_tokens;    /* to generate; 0: none (scoring only) */
    bool ignore_end;   /* go on after an end token */
    int32_t *stop_ids; /* owned, [n_stop_ids]: tokens that end the answer as well */
    int n_stop_ids;
    bool keep_stop; /* such a token is kept */
    bool score; /* the logits of every prompt position are wanted, with the next token as target */
    bool pools; /* the hidden state of every prompt position is wanted */

    int32_t *tokens; /* owned, [capacity]: the prompt, then what was generated */
    int64_t n_prompt;
    int64_t n_tokens;
    int64_t capacity;

    tsr_request_state state;
    tsr_request_reason reason;
    char error[160];  /* FAILED: why, in words */
    int64_t n_cached; /* tokens whose keys and values are in the cache */
    int64_t n_scored; /* score, pools: prompt positions that have been computed for it */
    bool is_held;     /* its next token is not known yet: tsr_scheduler_give() */
    int lane;         /* while running; else -1 */
    tsr_block_table blocks;
    int n_told;     /* of `blocks`, how many first columns its lane has as they are, */
    int floor_told; /* and the floor that this has been told */
    int32_t prefix; /* the node of the prefix index that it holds, or TSR_PREFIX_NONE */
    int n_indexed;  /* its first so many columns are nodes down to that one, or to the one above */
    int64_t n_reused; /* tokens of the prompt that were in the cache when it first ran */
    bool wakes;       /* running, but its blocks may be on their way into device memory yet */
    int64_t ticket;   /* of that; -1: the ranks are yet to be told */
    bool copies;      /* in the step being planned: its last column starts as a copy */
    int32_t copy_from[TSR_BLOCK_MOST_GROUPS]; /* of these blocks, each with an owner for that */

    int64_t submitted_ns;   /* set by whoever submits it, as is the deadline */
    int64_t deadline_ns;    /* 0: none */
    int64_t first_token_ns; /* 0 until there is one */
    int64_t last_token_ns;
    int64_t longest_gap_ns; /* between two of its tokens */
    int64_t ended_ns;
    int n_preempted; /* how often it was put back */

    int64_t arrival;                      /* how many were submitted before it */
    int64_t standing_ns;                  /* lower goes first; see scheduler.h */
    int heap_at[TSR_REQUEST_ORDER_COUNT]; /* request_heap.h: place + 1; 0: in no such heap */

    struct tsr_request *previous; /* in the queue it is in */
    struct tsr_request *next;
    void *user; /* the engine's */
} tsr_request;

/* A copy of the prompt; memory for what is generated comes as it is needed. The sampling is greedy
 * (temperature 0, top_p 1). Errors: ARG (empty prompt, max_tokens < 0), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_request_create(tsr_request **out, const int32_t *prompt,
                                             int64_t n_prompt, int max_tokens);

/* A new request that wants what `from` wants, scores of the prompt aside, and has come as far: its
 * tokens, none of them in the cache. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_request_copy(tsr_request **out, const tsr_request *from);

/* Further tokens that end its answer, copied; once. Errors: ARG (an id not in [0, n_vocab), too
 * many), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_request_stop_at(tsr_request *request, const int32_t *ids, int n,
                                              int n_vocab);
bool tsr_request_stops_at(const tsr_request *request, int32_t token);

/* One more token. Errors: NOMEM (the request is as it was). */
TSR_MUST_CHECK tsr_status tsr_request_append(tsr_request *request, int32_t token);

/* The request must hold no blocks. NULL is fine. */
void tsr_request_destroy(tsr_request *request);

/* Must it compute prompt positions that the cache may have? */
static inline bool tsr_request_reads_all(const tsr_request *request)
{
    return (request->score || request->pools) && request->n_scored < request->n_prompt;
}

/* "stop", "length", "cancelled", "deadline", "error". */
const char *tsr_request_reason_name(tsr_request_reason reason);

bool tsr_request_is_before(tsr_request_order order, const tsr_request *a, const tsr_request *b);

/* Requests in a line, linked both ways so that any can leave it at once. Start with {0}. A request
 * is in one queue at most. */
typedef struct tsr_request_queue {
    tsr_request *first;
    tsr_request *last;
    int n_requests;
} tsr_request_queue;

void tsr_request_put_last(tsr_request_queue *queue, tsr_request *request);
void tsr_request_take_out(tsr_request_queue *queue, tsr_request *request); /* it is in there */

#ifdef __cplusplus
}
#endif

#endif
