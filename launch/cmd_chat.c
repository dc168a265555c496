#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "base/text.h"
#include "launch/chat_words.h"
#include "launch/commands.h"
#include "launch/decoding.h"
#include "launch/line.h"
#include "launch/out.h"
#include "launch/sampling.h"
#include "launch/session.h"
#include "launch/signals.h"

typedef struct chat_options {
    const char *system;
    int64_t max_tokens;
    tsr_sampling_options sampling;
    tsr_decoding_options decoding;
    tsr_session_options session;
} chat_options;

#define FIELD(name) offsetof(chat_options, name)

static const tsr_args_option answer_table[] = {
    {"--system", "TEXT", TSR_ARGS_TEXT, FIELD(system), 0, 0, NULL,
     "the instruction before the conversation (default: the template's own)"},
    {"--max-tokens", "N", TSR_ARGS_INTEGER, FIELD(max_tokens), 1, INT32_MAX, NULL,
     "tokens of one answer at most (default 512)"},
};

/* One answer while it comes. */
typedef struct answer {
    tsr_text text;
    bool for_terminal;
    bool ended;
    char reason[16];
    char message[256];
    tsr_status st;
    tsr_chat *chat;
} answer;

typedef struct chatting {
    const chat_options *options;
    const tsr_decoding *decoding;
    tsr_chat chat;
    tsr_engine *engine; /* borrowed, as the next */
    tsr_line *line;
    bool interrupted; /* by the last thing that was typed: Ctrl-C on an empty line */
} chatting;

/* ---- an answer ------------------------------------------------------------------------------ */

static void show(answer *a, const char *text, size_t n_bytes)
{
    const size_t n_before = a->text.n_bytes;

    if (n_bytes == 0 || a->st != TSR_OK) {
        return;
    }
    a->st = tsr_text_append(&a->text, text, n_bytes);
    if (a->st == TSR_OK && a->for_terminal) {
        tsr_out_words(a->text.bytes + n_before);
    } else {
        tsr_out_text(text, n_bytes);
    }
    tsr_out_flush();
}

static void on_event(void *ctx, const tsr_event *event)
{
    answer *a = ctx;

    if (event->kind == TSR_EVENT_TOKEN || event->kind == TSR_EVENT_END) {
        show(a, event->text, event->text_bytes);
    }
    if (event->kind == TSR_EVENT_END) {
        a->ended = true;
        (void)snprintf(a->reason, sizeof(a->reason), "%s", event->reason);
        (void)snprintf(a->message, sizeof(a->message), "%s",
                       event->message != NULL ? event->message : "");
        a->chat->n_answers++;
        a->chat->n_prompt += event->n_prompt;
        a->chat->n_reused += event->n_cached_tokens;
        a->chat->prompt_s += event->prompt_s;
        a->chat->n_generated += event->n_generated;
        a->chat->generation_s += event->generation_s;
    }
}

/* Step until the answer has ended. Ctrl-C at a terminal ends it, and it alone. */
static tsr_status let_it_come(chatting *c, answer *a, int64_t id)
{
    bool busy = true;

    while (busy && !a->ended && a->st == TSR_OK && !tsr_out_ended()) {
        const tsr_status st = tsr_engine_step(c->engine, &busy);

        if (st == TSR_ERR_CANCELLED && tsr_line_is_edited(c->line) &&
            tsr_signals_take_interrupt()) {
            tsr_engine_cancel(c->engine, id);
        } else {
            TSR_TRY(st);
        }
    }
    return a->st;
}

static tsr_status give_answer(chatting *c, answer *a, const int32_t *prompt, int64_t n_prompt)
{
    tsr_generation generation = {
        .prompt = prompt,
        .n_prompt = n_prompt,
        .max_tokens = (int)c->options->max_tokens,
        .on_event = on_event,
        .ctx = a,
    };
    int64_t id;
    tsr_status st;

    tsr_sampling_apply(&c->options->sampling, &generation);
    tsr_decoding_put(&generation, &c->options->decoding, c->decoding);
    TSR_TRY(tsr_engine_submit(c->engine, &generation, &id));
    st = let_it_come(c, a, id);
    if (a->text.n_bytes == 0 || a->text.bytes[a->text.n_bytes - 1] != '\n') {
        tsr_out_text("\n", 1);
    }
    tsr_out_flush();
    return st;
}

/* What is worth knowing about how an answer ended. */
static void say_end(const chatting *c, const answer *a)
{
    if (strcmp(a->reason, "error") == 0) {
        tsr_log_say("the answer ended early: %s", a->message);
    } else if (!tsr_line_is_edited(c->line) || c->options->session.quiet) {
        return;
    } else if (strcmp(a->reason, "length") == 0) {
        tsr_log_say("(the answer ended at its limit; see --max-tokens and --ctx)");
    } else if (strcmp(a->reason, "cancelled") == 0) {
        tsr_log_say("(stopped)");
    }
}

/* Tokens that a prompt may have, so that a fair part of the context is left for the answer. */
static int64_t most_prompt(const chatting *c)
{
    const int64_t quarter = c->chat.room / 4 > 0 ? c->chat.room / 4 : 1;

    return c->chat.room - (c->options->max_tokens < quarter ? c->options->max_tokens : quarter);
}

static tsr_status answer_last(chatting *c)
{
    tsr_conversation *conversation = &c->chat.conversation;
    const int n_left_out = conversation->n_left_out;
    answer a = {.for_terminal = tsr_line_is_edited(c->line), .chat = &c->chat};
    int32_t *prompt = NULL;
    int64_t n_prompt;
    tsr_status st;

    TSR_TRY(tsr_conversation_ids(conversation, tsr_engine_model(c->engine), most_prompt(c), &prompt,
                                 &n_prompt));
    if (conversation->n_left_out > n_left_out) {
        tsr_log_say("the conversation has outgrown the context of %lld tokens: its oldest %s left "
                    "out (%d of %d)",
                    (long long)c->chat.room,
                    conversation->n_left_out == 1 ? "turn is" : "turns are",
                    conversation->n_left_out, tsr_conversation_n_turns(conversation));
    }
    st = give_answer(c, &a, prompt, n_prompt);
    tsr_tessera_free(prompt);
    if (st == TSR_OK) {
        say_end(c, &a);
        st = tsr_conversation_add(conversation, "assistant", a.text.bytes, a.text.n_bytes);
    }
    tsr_text_clear(&a.text);
    return st;
}

static tsr_status take_message(chatting *c, const char *text, size_t n_bytes)
{
    tsr_status st;

    TSR_TRY(tsr_conversation_add(&c->chat.conversation, "user", text, n_bytes));
    st = answer_last(c);
    if (st == TSR_ERR_FULL || st == TSR_ERR_UNSUPPORTED || st == TSR_ERR_ARG) {
        tsr_conversation_drop_last(&c->chat.conversation);
        tsr_log_say("%s", tsr_status_message());
        return TSR_OK;
    }
    return st;
}

/* ---- the conversation ----------------------------------------------------------------------- */

static tsr_status take_line(chatting *c, const tsr_text *line)
{
    if (strspn(line->bytes, " \t\n") == line->n_bytes) {
        return TSR_OK;
    }
    if (memchr(line->bytes, '\0', line->n_bytes) != NULL) {
        tsr_log_say("that line holds a zero byte: it is no text");
        return TSR_OK;
    }
    if (line->bytes[0] == '/' && line->bytes[1] != '/') {
        return tsr_chat_words_follow(&c->chat, line->bytes);
    }
    if (line->bytes[0] == '/') {
        return take_message(c, line->bytes + 1, line->n_bytes - 1);
    }
    return take_message(c, line->bytes, line->n_bytes);
}

static tsr_status talk(chatting *c)
{
    tsr_text line = {0};
    tsr_status st = TSR_OK;

    while (st == TSR_OK && !c->chat.quits && !tsr_out_ended()) {
        tsr_line_end end;
        bool again = false;

        st = tsr_line_read(c->line, &line, &end);
        if (st != TSR_OK) {
            break;
        }
        if (end == TSR_LINE_TYPED) {
            st = take_line(c, &line);
        } else if (end == TSR_LINE_TOO_LONG) {
            tsr_log_say("that line is too long: at most %d MiB", TSR_LINE_MOST_BYTES >> 20);
        } else if (end == TSR_LINE_INTERRUPT && !c->interrupted) {
            tsr_log_say("(Ctrl-C once more, Ctrl-D or /quit ends)");
            again = true;
        } else if (end != TSR_LINE_CLEARED) {
            c->chat.quits = true;
        }
        c->interrupted = again;
    }
    tsr_text_clear(&line);
    return st;
}

/* Can the model talk at all? Better said before the first message than after it. */
static tsr_status check_template(const tsr_model *model)
{
    const tsr_chat_message message = {"user", "?"};
    int32_t *ids;
    int64_t n_ids;

    TSR_TRY(tsr_model_conversation_ids(model, &message, 1, &ids, &n_ids));
    tsr_tessera_free(ids);
    return TSR_OK;
}

static tsr_status lead(tsr_engine *engine, void *ctx)
{
    chatting *c = ctx;
    const tsr_engine_stats stats = tsr_engine_describe(engine);

    c->engine = engine;
    c->chat.engine = engine;
    c->chat.room = stats.longest;
    TSR_TRY(check_template(tsr_engine_model(engine)));
    TSR_TRY(tsr_conversation_begin(&c->chat.conversation, c->options->system));
    TSR_TRY(tsr_line_open(&c->line));
    if (tsr_line_is_edited(c->line) && !c->options->session.quiet) {
        const tsr_session_words crew = tsr_session_crew(engine);

        tsr_log_say("loaded in %.2f s | context %lld tokens | %s | /help shows what can be typed",
                    stats.load_s, (long long)c->chat.room, crew.text);
    }
    return talk(c);
}

static int run(const tsr_call *call, const chat_options *options, const tsr_decoding *decoding)
{
    chatting c = {.options = options, .decoding = decoding};
    const tsr_status st = tsr_session_run(call, &options->session, TSR_OK, lead, &c);

    tsr_line_close(c.line);
    tsr_conversation_clear(&c.chat.conversation);
    return tsr_call_end(call, st);
}

int tsr_cmd_chat_run(const tsr_call *call)
{
    const tsr_args_group groups[] = {
        {"Conversation", answer_table, sizeof(answer_table) / sizeof(answer_table[0]), 0},
        tsr_sampling_group("How a token is chosen", FIELD(sampling)),
        tsr_decoding_group(FIELD(decoding)),
        tsr_session_group(FIELD(session)),
    };
    const tsr_args_spec spec = {
        .command = "chat",
        .usage = "--model M [--system TEXT] [OPTIONS]",
        .about =
            "A conversation with the model, through its own chat template. At a terminal lines are "
            "edited, the arrow keys and Ctrl-R find earlier ones, Ctrl-C stops an answer or clears "
            "the line, and Ctrl-D ends.\nWhen stdin is no terminal each line is a message; stdout "
            "gets the answers and nothing else.\nWhen the conversation outgrows the context its "
            "oldest turns are left out, the system message never.\nUnder mpirun the first rank "
            "reads stdin as plain lines, and Ctrl-C ends the whole job.\nA line that begins with a "
            "slash is for the program; /help lists what there is: /system, /reset, /stats, /save, "
            "/load, /quit.",
        .groups = groups,
        .n_groups = sizeof(groups) / sizeof(groups[0]),
        .examples = "  tessera chat --model model.gguf\n"
                    "  tessera chat --model model.gguf --system 'Answer in one sentence.' "
                    "--temperature 0.7\n"
                    "  printf 'Hello!\\nTell me more.\\n' | tessera chat --model model.gguf\n"
                    "  mpirun -n 2 tessera chat --model model.gguf\n",
    };
    chat_options options = {
        .max_tokens = 512, .sampling = {.top_p = 1.0}, .decoding = tsr_decoding_defaults()};
    tsr_decoding decoding = {0};
    int exit_status;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    if (options.session.model == NULL) {
        exit_status = tsr_call_usage(call, "which model? --model M is missing");
    } else if (tsr_decoding_read(&decoding, &options.decoding) != TSR_OK) {
        exit_status = tsr_call_usage(call, "%s", tsr_status_message());
    } else {
        exit_status = run(call, &options, &decoding);
    }
    tsr_decoding_clear(&decoding);
    tsr_args_clear(&spec, &options);
    return exit_status;
}
