#include "launch/reply.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "launch/out.h"

static void fail_set(tsr_reply_set *set, tsr_status st, const char *title, const char *message)
{
    if (set->st == TSR_OK) {
        set->st = st;
        (void)snprintf(set->message, sizeof(set->message), "%s%s%s", set->n > 1 ? title : "",
                       set->n > 1 ? ": " : "", message);
    }
}

tsr_status tsr_reply_set_make(tsr_reply_set *set, int n, int n_choices, bool json)
{
    *set = (tsr_reply_set){.n = n, .n_choices = n_choices, .json = json};
    set->replies = tsr_alloc((size_t)n, sizeof(*set->replies));
    if (set->replies == NULL) {
        set->n = 0;
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d replies", n);
    }
    for (int i = 0; i < n; i++) {
        tsr_reply *reply = &set->replies[i];

        reply->set = set;
        reply->choices = tsr_alloc((size_t)n_choices, sizeof(*reply->choices));
        if (reply->choices == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for %d answers", n_choices);
        }
        reply->n_choices = n_choices;
    }
    return TSR_OK;
}

void tsr_reply_set_clear(tsr_reply_set *set)
{
    for (int i = 0; i < set->n; i++) {
        tsr_reply *reply = &set->replies[i];

        if (reply->prompt_is_ours) {
            tsr_free(reply->prompt);
        } else {
            tsr_tessera_free(reply->prompt);
        }
        for (int k = 0; reply->choices != NULL && k < set->n_choices; k++) {
            tsr_ids_clear(&reply->choices[k].ids);
            tsr_text_clear(&reply->choices[k].text);
            tsr_likely_clear(&reply->choices[k].likely);
        }
        tsr_free(reply->choices);
        tsr_likely_clear(&reply->likely_prompt);
    }
    tsr_free(set->replies);
    *set = (tsr_reply_set){0};
}

static double per_second(int64_t n, double seconds)
{
    return n > 0 && seconds > 0.0 ? (double)n / seconds : 0.0;
}

static json_t *text_value(const tsr_reply_choice *c)
{
    return tsr_out_json_text(c->text.bytes != NULL ? c->text.bytes : "", c->text.n_bytes);
}

/* Takes value; NULL: there was no memory. */
static json_t *with(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *choice_object(const tsr_reply *reply, int i)
{
    const tsr_reply_choice *c = &reply->choices[i];
    json_t *object =
        json_pack("{s:i, s:o, s:o, s:s, s:o}", "index", i, "ids",
                  tsr_out_json_ids(c->ids.ids, c->ids.n_ids), "text", text_value(c),
                  "finish_reason", c->reason, "logprob", tsr_out_json_real(c->logprob));

    if (reply->set->with_score) {
        object = with(object, "score", tsr_out_json_real(c->score));
    }
    if (reply->set->with_logprobs) {
        object = with(object, "logprobs", tsr_likely_json(&c->likely, reply->set->model));
    }
    return object;
}

static json_t *choices_array(const tsr_reply *reply)
{
    json_t *array = json_array();

    for (int i = 0; i < reply->n_choices; i++) {
        if (json_array_append_new(array, choice_object(reply, i)) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *reply_object(const tsr_reply *reply)
{
    const tsr_reply_choice *first = &reply->choices[0];
    json_t *timings = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o}", "load_ms", tsr_out_json_real(reply->set->load_s * 1e3),
        "ttft_ms", tsr_out_json_real(reply->first_token_s * 1e3), "prompt_tok_per_s",
        tsr_out_json_real(per_second(reply->n_prompt - reply->n_cached_tokens, reply->prompt_s)),
        "generation_tok_per_s",
        tsr_out_json_real(per_second(reply->n_generated - reply->n_choices, reply->generation_s)),
        "itl_ms", tsr_out_json_real(reply->mean_gap_s * 1e3), "itl_max_ms",
        tsr_out_json_real(reply->longest_gap_s * 1e3));
    json_t *object = json_pack("{s:o, s:I, s:o, s:o, s:s, s:o, s:o}", "prompt_ids",
                               tsr_out_json_ids(reply->prompt, reply->n_prompt), "cached_tokens",
                               (json_int_t)reply->n_cached_tokens, "ids",
                               tsr_out_json_ids(first->ids.ids, first->ids.n_ids), "text",
                               text_value(first), "finish_reason", first->reason, "timings",
                               timings, "choices", choices_array(reply));

    if (reply->set->with_prompt) {
        object = with(object, "prompt_logprobs",
                      tsr_likely_json(&reply->likely_prompt, reply->set->model));
    }
    return object;
}

/* What of an answer has not been seen yet. */
static void show_text(tsr_reply_choice *c)
{
    if (c->n_shown < c->text.n_bytes) {
        tsr_out_text(c->text.bytes + c->n_shown, c->text.n_bytes - c->n_shown);
        c->n_shown = c->text.n_bytes;
        tsr_out_flush();
    }
}

static void show_title(const tsr_reply_set *set)
{
    const char *gap = set->turn > 0 || set->choice_turn > 0 ? "\n" : "";
    const char *title = set->replies[set->turn].title;

    if (set->n_choices > 1) {
        tsr_out_print("%s==> %s%sanswer %d <==\n", gap, set->n > 1 ? title : "",
                      set->n > 1 ? ", " : "", set->choice_turn + 1);
    } else if (set->n > 1) {
        tsr_out_print("%s==> %s <==\n", gap, title);
    }
}

static void show_end(const tsr_reply_choice *c)
{
    if (c->text.n_bytes == 0 || c->text.bytes[c->text.n_bytes - 1] != '\n') {
        tsr_out_print("\n");
    }
    tsr_out_flush();
}

/* Moves on as far as the choices of a reply are complete, and streams the first that is not. False:
 * there is one. */
static bool show_choices(tsr_reply_set *set, tsr_reply *reply)
{
    while (set->choice_turn < reply->n_choices) {
        tsr_reply_choice *c = &reply->choices[set->choice_turn];

        if (c->n_shown == 0 && (c->text.n_bytes > 0 || c->reason[0] != '\0')) {
            show_title(set);
        }
        show_text(c);
        if (c->reason[0] == '\0') {
            return false;
        }
        show_end(c);
        set->choice_turn++;
    }
    return true;
}

static void show(tsr_reply_set *set)
{
    while (set->turn < set->n) {
        tsr_reply *reply = &set->replies[set->turn];

        if ((!set->json && !show_choices(set, reply)) || !reply->ended) {
            return;
        }
        if (set->json && tsr_out_json(reply_object(reply)) != TSR_OK) {
            fail_set(set, TSR_ERR_NOMEM, reply->title, tsr_status_message());
        }
        set->turn++;
        set->choice_turn = 0;
    }
}

/* ---- events --------------------------------------------------------------------------------- */

static tsr_status take_token(tsr_reply *reply, const tsr_event *event)
{
    tsr_reply_choice *c = &reply->choices[event->choice];

    TSR_TRY(tsr_ids_append(&c->ids, event->token));
    TSR_TRY(tsr_text_append(&c->text, event->text, event->text_bytes));
    reply->last_token_ns = tsr_clock_ns();
    if (reply->n_generated++ == 0) {
        reply->first_token_s = (double)(reply->last_token_ns - reply->submitted_ns) / 1e9;
    }
    return reply->set->json ? tsr_likely_append(&c->likely, event->token, event->logprob,
                                                event->top, event->n_top)
                            : TSR_OK;
}

static tsr_status take_score(tsr_reply *reply, const tsr_event *event)
{
    if (reply->likely_prompt.n_tokens == 0) { // nothing says how likely the first was
        TSR_TRY(tsr_likely_append(&reply->likely_prompt, reply->prompt[0], -INFINITY, NULL, 0));
    }
    return event->token >= 0 ? tsr_likely_append(&reply->likely_prompt, event->token,
                                                 event->logprob, event->top, event->n_top)
                             : TSR_OK;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static tsr_status take_end(tsr_reply *reply, const tsr_event *event)
{
    tsr_reply_choice *c = &reply->choices[event->choice];

    (void)snprintf(c->reason, sizeof(c->reason), "%s", event->reason);
    c->logprob = event->logprob;
    c->score = event->score;
    if (strcmp(event->reason, "error") == 0) {
        fail_set(reply->set, TSR_ERR_DEVICE, reply->title, event->message);
    }
    if (event->choice == 0) {
        reply->first_token_s = event->first_token_s;
        reply->prompt_s = event->prompt_s;
        reply->n_cached_tokens = event->n_cached_tokens;
    }
    reply->generation_s = larger(reply->generation_s, event->generation_s);
    reply->mean_gap_s = larger(reply->mean_gap_s, event->mean_gap_s);
    reply->longest_gap_s = larger(reply->longest_gap_s, event->longest_gap_s);
    if (event->last) {
        reply->ended = true;
        reply->set->n_ended++;
        while (reply->choices[reply->n_choices - 1].reason[0] == '\0') {
            reply->n_choices--; // a search that ended early had no more
        }
    }
    return tsr_text_append(&c->text, event->text, event->text_bytes);
}

void tsr_reply_on_event(void *ctx, const tsr_event *event)
{
    tsr_reply *reply = ctx;
    tsr_status st = TSR_OK;

    switch (event->kind) {
    case TSR_EVENT_TOKEN:
        st = take_token(reply, event);
        break;
    case TSR_EVENT_SCORE:
        st = take_score(reply, event);
        break;
    case TSR_EVENT_END:
        st = take_end(reply, event);
        break;
    default:
        break;
    }
    if (st != TSR_OK) {
        fail_set(reply->set, st, reply->title, tsr_status_message());
    }
    show(reply->set);
}

void tsr_reply_set_finish(tsr_reply_set *set)
{
    for (int i = 0; i < set->n; i++) {
        tsr_reply *reply = &set->replies[i];

        if (reply->ended) {
            continue;
        }
        reply->ended = true;
        for (int k = 0; k < reply->n_choices; k++) {
            if (reply->choices[k].reason[0] == '\0') {
                (void)snprintf(reply->choices[k].reason, sizeof(reply->choices[k].reason),
                               "cancelled");
            }
        }
        reply->prompt_s = reply->first_token_s; // as good as can be known from here
        if (reply->n_generated > 0) {
            reply->generation_s =
                (double)(reply->last_token_ns - reply->submitted_ns) / 1e9 - reply->prompt_s;
        }
    }
    show(set);
}
