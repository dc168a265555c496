#include "launch/serve_stream.h"

#include "base/alloc.h"
#include "launch/out.h"

/* Takes value. */
static tsr_status put_event(tsr_text *out, json_t *value)
{
    tsr_status st = tsr_text_append(out, "data: ", 6);

    if (st == TSR_OK) {
        st = tsr_out_json_append(out, value);
    }
    json_decref(value);
    return st == TSR_OK ? tsr_text_append(out, "\n\n", 2) : st;
}

/* Takes choices and usage. */
static json_t *chunk(const tsr_api_answer *a, json_t *choices, json_t *usage)
{
    const bool chat = a->request->kind == TSR_API_CHAT;
    json_t *object = json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", a->id, "object",
                               chat ? "chat.completion.chunk" : "text_completion", "created",
                               (json_int_t)a->created, "model", a->name, "choices", choices);

    if (a->request->stream_usage) {
        (void)!json_object_set_new(object, "usage", usage != NULL ? usage : json_null());
    } else {
        json_decref(usage);
    }
    return object;
}

/* One choice of a chunk. Takes delta and logprobs. */
static tsr_status put_choice(tsr_text *out, const tsr_api_answer *a, int choice, json_t *delta,
                             json_t *logprobs, const char *reason)
{
    const char *key = a->request->kind == TSR_API_CHAT ? "delta" : "text";
    json_t *object = json_pack("[{s:i, s:o, s:o, s:o}]", "index", choice, key, delta, "logprobs",
                               logprobs != NULL ? logprobs : json_null(), "finish_reason",
                               reason != NULL ? json_string(reason) : json_null());

    return put_event(out, chunk(a, object, NULL));
}

static json_t *delta_of(const tsr_api_answer *a, const char *text, size_t n_bytes)
{
    json_t *value = tsr_out_json_text(text, n_bytes);

    return a->request->kind == TSR_API_CHAT ? json_pack("{s:o}", "content", value) : value;
}

/* A call comes as a whole. */
static json_t *delta_of_call(const json_t *calls, size_t i)
{
    json_t *call = json_pack("{s:I}", "index", (json_int_t)i);

    (void)!json_object_update(call, json_array_get(calls, i));
    return json_pack("{s:[o]}", "tool_calls", call);
}

static tsr_status write_choice(tsr_stream_cursor *at, const tsr_api_answer *a, int choice,
                               tsr_text *out)
{
    const tsr_api_choice *c = &a->choices[choice];
    const bool chat = a->request->kind == TSR_API_CHAT;
    const bool more = c->text.n_bytes > at->n_bytes || c->likely.n_tokens > at->n_likely;
    const bool calls = json_array_size(c->calls.found) > at->n_calls;

    if (!at->has_begun && (more || calls || c->reason[0] != '\0')) {
        at->has_begun = true;
        if (chat) {
            TSR_TRY(put_choice(out, a, choice,
                               json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL,
                               NULL));
        } else if (a->request->echo) {
            TSR_TRY(put_choice(out, a, choice, tsr_api_answer_prompt_text(a, choice), NULL, NULL));
        }
    }
    if (more) {
        json_t *logprobs =
            a->request->logprobs >= 0 ? tsr_api_answer_logprobs(a, choice, at->n_likely) : NULL;

        TSR_TRY(put_choice(out, a, choice,
                           delta_of(a, c->text.bytes != NULL ? c->text.bytes + at->n_bytes : "",
                                    c->text.n_bytes - at->n_bytes),
                           logprobs, NULL));
        at->n_bytes = c->text.n_bytes;
        at->n_likely = c->likely.n_tokens;
    }
    for (; at->n_calls < json_array_size(c->calls.found); at->n_calls++) {
        TSR_TRY(put_choice(out, a, choice, delta_of_call(c->calls.found, at->n_calls), NULL, NULL));
    }
    if (c->reason[0] != '\0' && !at->has_ended && !a->failed) {
        at->has_ended = true;
        return put_choice(out, a, choice, chat ? json_object() : json_string(""), NULL, c->reason);
    }
    return TSR_OK;
}

tsr_status tsr_stream_write(tsr_stream *s, const tsr_api_answer *a, tsr_text *out)
{
    if (s->cursors == NULL) {
        s->cursors = tsr_alloc((size_t)a->n_choices, sizeof(*s->cursors));
        if (s->cursors == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for a stream");
        }
    }
    for (int i = 0; i < a->n_choices; i++) {
        TSR_TRY(write_choice(&s->cursors[i], a, i, out));
    }
    if (!tsr_api_answer_is_whole(a) || s->is_over) {
        return TSR_OK;
    }
    s->is_over = true;
    if (a->failed) {
        TSR_TRY(put_event(out, tsr_api_error_object(&a->error)));
    } else if (a->request->stream_usage) {
        TSR_TRY(put_event(out, chunk(a, json_array(), tsr_api_answer_usage(a))));
    }
    return tsr_text_append(out, "data: [DONE]\n\n", 14);
}

void tsr_stream_clear(tsr_stream *s)
{
    tsr_free(s->cursors);
    *s = (tsr_stream){0};
}
