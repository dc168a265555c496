#include "engine/request.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

enum {
    FIRST_ROOM = 64, // tokens that can be generated before the list has to grow
    MOST_STOP_IDS = 1024
};

tsr_status tsr_request_create(tsr_request **out, const int32_t *prompt, int64_t n_prompt,
                              int max_tokens)
{
    const int64_t capacity = n_prompt + (max_tokens < FIRST_ROOM ? max_tokens : FIRST_ROOM);
    tsr_request *request;

    if (n_prompt <= 0) {
        return tsr_fail(TSR_ERR_ARG, "a prompt of %lld tokens, at least 1 is needed",
                        (long long)n_prompt);
    }
    if (max_tokens < 0) {
        return tsr_fail(TSR_ERR_ARG, "max_tokens is %d, it must be 0 or more", max_tokens);
    }
    request = tsr_alloc(1, sizeof(*request));
    if (request == NULL) {
        goto fail;
    }
    request->tokens = tsr_alloc((size_t)capacity, sizeof(*request->tokens));
    if (request->tokens == NULL) {
        goto fail;
    }
    memcpy(request->tokens, prompt, (size_t)n_prompt * sizeof(*prompt));
    request->n_prompt = n_prompt;
    request->n_tokens = n_prompt;
    request->capacity = capacity;
    request->max_tokens = max_tokens;
    request->sampling.top_p = 1.0f;
    request->lane = -1;
    request->prefix = -1;
    request->ticket = -1;
    *out = request;
    return TSR_OK;

fail:
    tsr_request_destroy(request);
    return tsr_fail(TSR_ERR_NOMEM, "request: no memory for a prompt of %lld tokens",
                    (long long)n_prompt);
}

tsr_status tsr_request_copy(tsr_request **out, const tsr_request *from)
{
    tsr_request *r = NULL;

    TSR_TRY(tsr_request_create(&r, from->tokens, from->n_tokens, from->max_tokens));
    r->n_prompt = from->n_prompt;
    r->id = from->id;
    r->priority = from->priority;
    r->sampling = from->sampling;
    r->ignore_end = from->ignore_end;
    r->keep_stop = from->keep_stop;
    r->submitted_ns = from->submitted_ns;
    r->deadline_ns = from->deadline_ns;
    if (from->n_stop_ids > 0) {
        r->stop_ids = tsr_alloc((size_t)from->n_stop_ids, sizeof(*r->stop_ids));
        if (r->stop_ids == NULL) {
            tsr_request_destroy(r);
            return tsr_fail(TSR_ERR_NOMEM, "request: no memory for %d stop ids", from->n_stop_ids);
        }
        memcpy(r->stop_ids, from->stop_ids, (size_t)from->n_stop_ids * sizeof(*r->stop_ids));
        r->n_stop_ids = from->n_stop_ids;
    }
    *out = r;
    return TSR_OK;
}

tsr_status tsr_request_stop_at(tsr_request *request, const int32_t *ids, int n, int n_vocab)
{
    if (n < 0 || n > MOST_STOP_IDS) {
        return tsr_fail(TSR_ERR_ARG, "%d stop ids, %d are possible", n, MOST_STOP_IDS);
    }
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= n_vocab) {
            return tsr_fail(TSR_ERR_ARG, "stop id %d is not in [0, %d)", (int)ids[i], n_vocab);
        }
    }
    if (n > 0) {
        request->stop_ids = tsr_alloc((size_t)n, sizeof(*request->stop_ids));
        if (request->stop_ids == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "request: no memory for %d stop ids", n);
        }
        memcpy(request->stop_ids, ids, (size_t)n * sizeof(*ids));
        request->n_stop_ids = n;
    }
    return TSR_OK;
}

bool tsr_request_stops_at(const tsr_request *request, int32_t token)
{
    for (int i = 0; i < request->n_stop_ids; i++) {
        if (request->stop_ids[i] == token) {
            return true;
        }
    }
    return false;
}

tsr_status tsr_request_append(tsr_request *request, int32_t token)
{
    if (request->n_tokens == request->capacity) {
        const int64_t capacity = request->capacity * 2;
        int32_t *tokens =
            tsr_alloc_resize(request->tokens, (size_t)capacity, sizeof(*request->tokens));

        if (tokens == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "request: no memory for %lld tokens",
                            (long long)capacity);
        }
        request->tokens = tokens;
        request->capacity = capacity;
    }
    request->tokens[request->n_tokens++] = token;
    return TSR_OK;
}

void tsr_request_destroy(tsr_request *request)
{
    if (request == NULL) {
        return;
    }
    assert(request->blocks.n_blocks == 0);
    tsr_free(request->stop_ids);
    tsr_free(request->tokens);
    tsr_free(request);
}

const char *tsr_request_reason_name(tsr_request_reason reason)
{
    static const char *const names[TSR_REASON_COUNT] = {
        [TSR_REASON_NONE] = "none",         [TSR_REASON_STOP] = "stop",
        [TSR_REASON_LENGTH] = "length",     [TSR_REASON_CANCELLED] = "cancelled",
        [TSR_REASON_DEADLINE] = "deadline", [TSR_REASON_FAILED] = "error",
    };

    return (unsigned)reason < TSR_REASON_COUNT ? names[reason] : "unknown";
}

bool tsr_request_is_before(tsr_request_order order, const tsr_request *a, const tsr_request *b)
{
    const bool by_standing = order == TSR_REQUEST_BY_STANDING;
    const int64_t a_key = by_standing ? a->standing_ns : a->deadline_ns;
    const int64_t b_key = by_standing ? b->standing_ns : b->deadline_ns;

    return a_key != b_key ? a_key < b_key : a->arrival < b->arrival;
}

void tsr_request_put_last(tsr_request_queue *queue, tsr_request *request)
{
    request->previous = queue->last;
    request->next = NULL;
    if (queue->last != NULL) {
        queue->last->next = request;
    } else {
        queue->first = request;
    }
    queue->last = request;
    queue->n_requests++;
}

void tsr_request_take_out(tsr_request_queue *queue, tsr_request *request)
{
    if (request->previous != NULL) {
        request->previous->next = request->next;
    } else {
        queue->first = request->next;
    }
    if (request->next != NULL) {
        request->next->previous = request->previous;
    } else {
        queue->last = request->previous;
    }
    request->previous = NULL;
    request->next = NULL;
    queue->n_requests--;
}
