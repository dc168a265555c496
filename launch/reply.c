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

tsr_status tsr_reply_set_make(tsr_reply_set *set, int n, bool json)
{
    *set = (tsr_reply_set){.n = n, .json = json};
    set->replies = tsr_alloc((size_t)n, sizeof(*set->replies));
    if (set->replies == NULL) {
        set->n = 0;
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d replies", n);
    }
    for (int i = 0; i < n; i++) {
        set->replies[i].set = set;
    }
    return TSR_OK;
}

void tsr_reply_set_clear(tsr_reply_set *set)
{
    for (int i = 0; i < set->n; i++) {
        if (set->replies[i].prompt_is_ours) {
            tsr_free(set->replies[i].prompt);
        } else {
            tsr_tessera_free(set->replies[i].prompt);
        }
        tsr_ids_clear(&set->replies[i].ids);
        tsr_text_clear(&set->replies[i].text);
        tsr_likely_clear(&set->replies[i].likely);
        tsr_likely_clear(&set->replies[i].likely_prompt);
    }
    tsr_free(set->replies);
    *set = (tsr_reply_set){0};
}

static double per_second(int64_t n, double seconds)
{
    return n > 0 && seconds > 0.0 ? (double)n / seconds : 0.0;
}

static json_t *text_value(const tsr_reply *reply)
{
    return tsr_out_json_text(reply->text.bytes != NULL ? reply->text.bytes : "",
                             reply->text.n_bytes);
}

static json_t *choice_object(const tsr_reply *reply)
{
    json_t *object = json_pack("{s:i, s:o, s:o, s:s, s:o}", "index", 0, "ids",
                               tsr_out_json_ids(reply->ids.ids, reply->ids.n_ids), "text",
                               text_value(reply), "finish_reason", reply->reason, "logprob",
                               tsr_out_json_real(tsr_likely_sum(&reply->likely)));

    if (reply->set->with_logprobs &&
        json_object_set_new(object, "logprobs",
                            tsr_likely_json(&reply->likely, reply->set->model)) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *reply_object(const tsr_reply *reply)
{
    json_t *timings = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o}", "load_ms", tsr_out_json_real(reply->set->load_s * 1e3),
        "ttft_ms", tsr_out_json_real(reply->first_token_s * 1e3), "prompt_tok_per_s",
        tsr_out_json_real(per_second(reply->n_prompt, reply->prompt_s)), "generation_tok_per_s",
        tsr_out_json_real(per_second(reply->ids.n_ids - 1, reply->generation_s)), "itl_ms",
        tsr_out_json_real(reply->mean_gap_s * 1e3), "itl_max_ms",
        tsr_out_json_real(reply->longest_gap_s * 1e3));

    json_t *object = json_pack("{s:o, s:o, s:o, s:s, s:o, s:[o]}", "prompt_ids",
                               tsr_out_json_ids(reply->prompt, reply->n_prompt), "ids",
                               tsr_out_json_ids(reply->ids.ids, reply->ids.n_ids), "text",
                               text_value(reply), "finish_reason", reply->reason, "timings",
                               timings, "choices", choice_object(reply));

    if (reply->set->with_prompt &&
        json_object_set_new(object, "prompt_logprobs",
                            tsr_likely_json(&reply->likely_prompt, reply->set->model)) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

/* What of a reply has not been seen yet. */
static void show_text(tsr_reply *reply)
{
    if (reply->n_shown < reply->text.n_bytes) {
        tsr_out_text(reply->text.bytes + reply->n_shown, reply->text.n_bytes - reply->n_shown);
        reply->n_shown = reply->text.n_bytes;
        tsr_out_flush();
    }
}

static void show_title(const tsr_reply_set *set, int turn)
{
    if (set->n > 1) {
        tsr_out_print("%s==> %s <==\n", turn > 0 ? "\n" : "", set->replies[turn].title);
    }
}

static void show_end(tsr_reply *reply)
{
    if (reply->set->json) {
        if (tsr_out_json(reply_object(reply)) != TSR_OK) {
            fail_set(reply->set, TSR_ERR_NOMEM, reply->title, tsr_status_message());
        }
        return;
    }
    if (reply->text.n_bytes == 0 || reply->text.bytes[reply->text.n_bytes - 1] != '\n') {
        tsr_out_print("\n");
    }
    tsr_out_flush();
}

/* Moves on as far as the replies are complete, and streams the first that is not. */
static void show(tsr_reply_set *set)
{
    while (set->turn < set->n) {
        tsr_reply *reply = &set->replies[set->turn];

        if (!set->json) {
            if (reply->n_shown == 0 && (reply->text.n_bytes > 0 || reply->reason[0] != '\0')) {
                show_title(set, set->turn);
            }
            show_text(reply);
        }
        if (reply->reason[0] == '\0') {
            return;
        }
        show_end(reply);
        set->turn++;
    }
}

void tsr_reply_on_event(void *ctx, const tsr_event *event)
{
    tsr_reply *reply = ctx;
    tsr_status st = TSR_OK;

    if (event->kind == TSR_EVENT_TOKEN) {
        st = tsr_ids_append(&reply->ids, event->token);
        if (st == TSR_OK) {
            st = tsr_text_append(&reply->text, event->text, event->text_bytes);
        }
        if (st == TSR_OK && reply->set->json) {
            st = tsr_likely_append(&reply->likely, event->token, event->logprob, event->top,
                                   event->n_top);
        }
        reply->last_token_ns = tsr_clock_ns();
        if (reply->ids.n_ids == 1) {
            reply->first_token_s = (double)(reply->last_token_ns - reply->submitted_ns) / 1e9;
        }
    } else if (event->kind == TSR_EVENT_SCORE) {
        if (reply->likely_prompt.n_tokens == 0) { // nothing says how likely the first was
            st = tsr_likely_append(&reply->likely_prompt, reply->prompt[0], -INFINITY, NULL, 0);
        }
        if (st == TSR_OK && event->token >= 0) {
            st = tsr_likely_append(&reply->likely_prompt, event->token, event->logprob, event->top,
                                   event->n_top);
        }
    } else if (event->kind == TSR_EVENT_END) {
        st = tsr_text_append(&reply->text, event->text, event->text_bytes);
        (void)snprintf(reply->reason, sizeof(reply->reason), "%s", event->reason);
        if (strcmp(event->reason, "error") == 0) {
            fail_set(reply->set, TSR_ERR_DEVICE, reply->title, event->message);
        }
        reply->first_token_s = event->first_token_s;
        reply->prompt_s = event->prompt_s;
        reply->generation_s = event->generation_s;
        reply->mean_gap_s = event->mean_gap_s;
        reply->longest_gap_s = event->longest_gap_s;
        reply->set->n_ended++;
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

        if (reply->reason[0] == '\0') {
            (void)snprintf(reply->reason, sizeof(reply->reason), "cancelled");
            reply->prompt_s = reply->first_token_s; // as good as can be known from here
            if (reply->ids.n_ids > 0) {
                reply->generation_s =
                    (double)(reply->last_token_ns - reply->submitted_ns) / 1e9 - reply->prompt_s;
            }
        }
    }
    show(set);
}
