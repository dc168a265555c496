#include "launch/reply.h"

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
        tsr_free(set->replies[i].ids);
        tsr_free(set->replies[i].text);
    }
    tsr_free(set->replies);
    *set = (tsr_reply_set){0};
}

static bool append_id(tsr_reply *reply, int32_t id)
{
    if (reply->n_ids == reply->room_ids) {
        const int64_t room = reply->room_ids > 0 ? 2 * reply->room_ids : 64;
        int32_t *more = tsr_alloc_resize(reply->ids, (size_t)room, sizeof(*more));

        if (more == NULL) {
            return false;
        }
        reply->ids = more;
        reply->room_ids = room;
    }
    reply->ids[reply->n_ids++] = id;
    return true;
}

static bool append_text(tsr_reply *reply, const char *text, size_t n_bytes)
{
    if (n_bytes > reply->room_bytes - reply->n_bytes) {
        const size_t room = 2 * reply->room_bytes + n_bytes + 256;
        char *more = tsr_alloc_resize(reply->text, room, 1);

        if (more == NULL) {
            return false;
        }
        reply->text = more;
        reply->room_bytes = room;
    }
    if (n_bytes > 0) {
        memcpy(reply->text + reply->n_bytes, text, n_bytes);
        reply->n_bytes += n_bytes;
    }
    return true;
}

static double per_second(int64_t n, double seconds)
{
    return n > 0 && seconds > 0.0 ? (double)n / seconds : 0.0;
}

static json_t *reply_object(const tsr_reply *reply)
{
    json_t *timings = json_pack(
        "{s:o, s:o, s:o, s:o}", "load_ms", tsr_out_json_real(reply->set->load_s * 1e3), "ttft_ms",
        tsr_out_json_real(reply->first_token_s * 1e3), "prompt_tok_per_s",
        tsr_out_json_real(per_second(reply->n_prompt, reply->prompt_s)), "generation_tok_per_s",
        tsr_out_json_real(per_second(reply->n_ids - 1, reply->generation_s)));

    return json_pack("{s:o, s:o, s:o, s:s, s:o}", "prompt_ids",
                     tsr_out_json_ids(reply->prompt, reply->n_prompt), "ids",
                     tsr_out_json_ids(reply->ids, reply->n_ids), "text",
                     tsr_out_json_text(reply->text != NULL ? reply->text : "", reply->n_bytes),
                     "finish_reason", reply->reason, "timings", timings);
}

/* What of a reply has not been seen yet. */
static void show_text(tsr_reply *reply)
{
    if (reply->n_shown < reply->n_bytes) {
        tsr_out_text(reply->text + reply->n_shown, reply->n_bytes - reply->n_shown);
        reply->n_shown = reply->n_bytes;
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
    if (reply->n_bytes == 0 || reply->text[reply->n_bytes - 1] != '\n') {
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
            if (reply->n_shown == 0 && (reply->n_bytes > 0 || reply->reason[0] != '\0')) {
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
    bool kept = true;

    if (event->kind == TSR_EVENT_TOKEN) {
        kept = append_id(reply, event->token) && append_text(reply, event->text, event->text_bytes);
        reply->last_token_ns = tsr_clock_ns();
        if (reply->n_ids == 1) {
            reply->first_token_s = (double)(reply->last_token_ns - reply->submitted_ns) / 1e9;
        }
    } else if (event->kind == TSR_EVENT_END) {
        kept = append_text(reply, event->text, event->text_bytes);
        (void)snprintf(reply->reason, sizeof(reply->reason), "%s", event->reason);
        if (strcmp(event->reason, "error") == 0) {
            fail_set(reply->set, TSR_ERR_DEVICE, reply->title, event->message);
        }
        reply->first_token_s = event->first_token_s;
        reply->prompt_s = event->prompt_s;
        reply->generation_s = event->generation_s;
        reply->set->n_ended++;
    }
    if (!kept) {
        fail_set(reply->set, TSR_ERR_NOMEM, reply->title, "no memory for its text");
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
            if (reply->n_ids > 0) {
                reply->generation_s =
                    (double)(reply->last_token_ns - reply->submitted_ns) / 1e9 - reply->prompt_s;
            }
        }
    }
    show(set);
}
