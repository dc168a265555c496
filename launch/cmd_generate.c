#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "launch/answers.h"
#include "launch/args_number.h"
#include "launch/commands.h"
#include "launch/decoding.h"
#include "launch/input.h"
#include "launch/out.h"
#include "launch/reply.h"
#include "launch/sampling.h"
#include "launch/session.h"

typedef struct generate_options {
    tsr_args_list texts;
    tsr_args_list files;
    tsr_args_list ids;
    bool chat;
    const char *system;
    int64_t max_tokens;
    tsr_sampling_options sampling;
    bool ignore_end;
    int64_t priority;
    double deadline_s;
    bool json;
    tsr_decoding_options decoding;
    tsr_answers_options answers;
    tsr_session_options session;
} generate_options;

#define FIELD(name) offsetof(generate_options, name)

static const tsr_args_option prompt_table[] = {
    {"--prompt", "TEXT", TSR_ARGS_LIST, FIELD(texts), 0, 0, NULL, "the text to go on from"},
    {"--prompt-file", "F", TSR_ARGS_LIST, FIELD(files), 0, 0, NULL,
     "a file with the text, read as it is, its last newline included; - is stdin"},
    {"--prompt-ids", "LIST", TSR_ARGS_LIST, FIELD(ids), 0, 0, NULL,
     "token ids such as 1,2,3, taken as they are"},
    {"--chat", NULL, TSR_ARGS_FLAG, FIELD(chat), 0, 0, NULL,
     "the prompt is a person's message: put it into the model's own chat template"},
    {"--system", "TEXT", TSR_ARGS_TEXT, FIELD(system), 0, 0, NULL,
     "with --chat: the instruction before it (default: the template's own)"},
};

static const tsr_args_option answer_table[] = {
    {"--max-tokens", "N", TSR_ARGS_INTEGER, FIELD(max_tokens), 1, INT32_MAX, NULL,
     "tokens to generate at most (default 256)"},
    {"--ignore-eos", NULL, TSR_ARGS_FLAG, FIELD(ignore_end), 0, 0, NULL,
     "go on after an end token, to --max-tokens"},
    {"--priority", "N", TSR_ARGS_INTEGER, FIELD(priority), -1000, 1000, NULL,
     "higher goes before what else waits; a step of it is worth ten seconds of waiting (default "
     "0)"},
    {"--deadline", "S", TSR_ARGS_REAL, FIELD(deadline_s), 0, 1e9, NULL,
     "seconds after which an answer ends as far as it is; 0: none (default 0)"},
    {"--json", NULL, TSR_ARGS_FLAG, FIELD(json), 0, 0, NULL,
     "one JSON object a prompt, a line each: prompt_ids, ids, text, finish_reason, timings "
     "(load_ms, ttft_ms, prompt_tok_per_s, generation_tok_per_s, itl_ms, itl_max_ms), choices "
     "(index, "
     "ids, text, finish_reason, logprob, score, logprobs)"},
};

typedef struct prompt_text {
    char *text; /* NULL for ids */
    size_t n_bytes;
    char title[64]; /* of what has no file */
} prompt_text;

typedef struct generating {
    const generate_options *options;
    const tsr_args_list *list; /* the one that was given */
    prompt_text *texts;        /* [list->n], on the leader */
    tsr_decoding decoding;     /* borrowed */
    tsr_reply_set replies;
    double wall_s;
} generating;

/* ---- prompts -------------------------------------------------------------------------------- */

static tsr_status read_text(const generating *g, int i, prompt_text *out)
{
    const char *value = g->list->values[i];

    if (g->list == &g->options->files) {
        return tsr_input_read(value, &out->text, &out->n_bytes);
    }
    (void)snprintf(out->title, sizeof(out->title), "prompt %d", i + 1);
    if (g->list == &g->options->texts) {
        out->n_bytes = strlen(value);
        out->text = tsr_alloc_text(value, out->n_bytes);
        if (out->text == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for prompt %d", i + 1);
        }
    }
    return TSR_OK;
}

static tsr_status read_texts(generating *g)
{
    g->texts = tsr_alloc((size_t)g->list->n, sizeof(*g->texts));
    if (g->texts == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d prompts", g->list->n);
    }
    TSR_TRY(tsr_reply_set_make(&g->replies, g->list->n, tsr_answers_n(&g->options->answers),
                               g->options->json));
    for (int i = 0; i < g->list->n; i++) {
        prompt_text *out = &g->texts[i];

        TSR_TRY(read_text(g, i, out));
        g->replies.replies[i].title =
            g->list == &g->options->files ? g->list->values[i] : out->title;
        if (g->options->chat && out->text != NULL && memchr(out->text, '\0', out->n_bytes)) {
            return tsr_fail(TSR_ERR_ARG, "%s holds a zero byte: that is no message for --chat",
                            g->replies.replies[i].title);
        }
    }
    return TSR_OK;
}

static tsr_status make_prompt(const tsr_model *model, const generating *g, int i, tsr_reply *reply)
{
    const prompt_text *from = &g->texts[i];

    if (g->list == &g->options->ids) {
        const char *value = g->list->values[i];

        reply->prompt_is_ours = true;
        return tsr_args_number_ids("--prompt-ids", value, strlen(value), &reply->prompt,
                                   &reply->n_prompt);
    }
    if (g->options->chat) {
        return tsr_model_chat_ids(model, g->options->system, from->text, &reply->prompt,
                                  &reply->n_prompt);
    }
    return tsr_model_prompt_ids(model, from->text, from->n_bytes, &reply->prompt, &reply->n_prompt);
}

/* The prompt's text, where each answer will follow. */
static tsr_status echo_prompt(const tsr_model *model, tsr_reply *reply)
{
    char *text;
    size_t n_bytes;
    tsr_status st = TSR_OK;

    TSR_TRY(tsr_model_detokenize(model, reply->prompt, reply->n_prompt, false, &text, &n_bytes));
    for (int i = 0; i < reply->n_choices && st == TSR_OK; i++) {
        st = tsr_text_append(&reply->choices[i].text, text, n_bytes);
    }
    tsr_tessera_free(text);
    return st;
}

static tsr_status submit(tsr_engine *engine, const generating *g, tsr_reply *reply)
{
    const generate_options *options = g->options;
    tsr_generation generation = {
        .prompt = reply->prompt,
        .n_prompt = reply->n_prompt,
        .max_tokens = (int)options->max_tokens,
        .ignore_end = options->ignore_end,
        .priority = (int)options->priority,
        .deadline_s = options->deadline_s,
        .on_event = tsr_reply_on_event,
        .ctx = reply,
    };
    int64_t id;

    if (reply->n_prompt == 0) {
        return tsr_fail(TSR_ERR_ARG, "the prompt is empty: there is nothing to go on from");
    }
    tsr_sampling_apply(&options->sampling, &generation);
    tsr_decoding_put(&generation, &options->decoding, &g->decoding);
    tsr_answers_put(&generation, &options->answers);
    generation.want_logprobs = options->json; // a choice says how likely it was as a whole
    generation.score = options->decoding.echo && options->json;
    if (options->decoding.echo && !options->json) {
        TSR_TRY(echo_prompt(tsr_engine_model(engine), reply));
    }
    reply->submitted_ns = tsr_clock_ns();
    return tsr_engine_submit(engine, &generation, &id);
}

/* The same failure, with the name of the prompt it is about. */
static tsr_status about(const generating *g, const tsr_reply *reply, tsr_status st)
{
    char message[512];

    if (st == TSR_OK || g->replies.n == 1) {
        return st;
    }
    (void)snprintf(message, sizeof(message), "%s", tsr_status_message());
    return tsr_fail(st, "%s: %s", reply->title, message);
}

/* ---- the run -------------------------------------------------------------------------------- */

static double rate(double n, double seconds)
{
    return n > 0 && seconds > 0 ? n / seconds : 0;
}

static void say_summary(const tsr_engine *engine, const generating *g)
{
    const tsr_session_words crew = tsr_session_crew(engine);
    const tsr_reply *first = &g->replies.replies[0];
    int64_t n_prompt = 0;
    int64_t n_generated = 0;

    if (g->replies.n == 1) {
        tsr_log_say("loaded in %.2f s | first token after %.3f s | prompt %lld tokens, %.1f/s | "
                    "generated %lld tokens, %.1f/s | %s",
                    g->replies.load_s, first->first_token_s, (long long)first->n_prompt,
                    rate((double)(first->n_prompt - first->n_cached_tokens), first->prompt_s),
                    (long long)first->n_generated,
                    rate((double)(first->n_generated - first->n_choices), first->generation_s),
                    crew.text);
        return;
    }
    for (int i = 0; i < g->replies.n; i++) {
        n_prompt += g->replies.replies[i].n_prompt;
        n_generated += g->replies.replies[i].n_generated;
    }
    tsr_log_say("loaded in %.2f s | first token after %.3f s | %d prompts, %lld tokens | generated "
                "%lld tokens | %.2f s in all, %.1f generated/s | %s",
                g->replies.load_s, first->first_token_s, g->replies.n, (long long)n_prompt,
                (long long)n_generated, g->wall_s, rate((double)n_generated, g->wall_s), crew.text);
}

static tsr_status lead(tsr_engine *engine, void *ctx)
{
    generating *g = ctx;
    const int64_t start_ns = tsr_clock_ns();
    tsr_status st = TSR_OK;
    bool busy = true;

    g->replies.load_s = tsr_engine_describe(engine).load_s;
    g->replies.model = tsr_engine_model(engine);
    g->replies.with_logprobs = g->options->decoding.logprobs >= 0;
    g->replies.with_prompt = g->options->decoding.echo;
    g->replies.with_score = tsr_answers_are_scored(&g->options->answers);
    for (int i = 0; i < g->replies.n; i++) {
        tsr_reply *reply = &g->replies.replies[i];

        TSR_TRY(about(g, reply, make_prompt(tsr_engine_model(engine), g, i, reply)));
    }
    for (int i = 0; i < g->replies.n; i++) {
        tsr_reply *reply = &g->replies.replies[i];

        TSR_TRY(about(g, reply, submit(engine, g, reply)));
    }
    while (st == TSR_OK && busy && g->replies.n_ended < g->replies.n && !tsr_out_ended()) {
        st = tsr_engine_step(engine, &busy);
    }
    g->wall_s = (double)(tsr_clock_ns() - start_ns) / 1e9;
    if (st == TSR_OK || st == TSR_ERR_CANCELLED) {
        tsr_reply_set_finish(&g->replies);
        if (!g->options->session.quiet) {
            if (tsr_env_under_mpi()) {
                tsr_clock_sleep_us(30000); // mpirun carries two streams; let the text be first
            }
            say_summary(engine, g);
        }
    }
    if (st == TSR_OK && g->replies.st != TSR_OK) {
        return tsr_fail(g->replies.st, "%s", g->replies.message);
    }
    return st;
}

/* A fault of the line that the table of options cannot see; NULL if there is none. */
static const char *fault_of_line(const generate_options *options, tsr_decoding *decoding)
{
    const char *fault = tsr_answers_fault(&options->answers, options->sampling.temperature);
    const int kinds =
        (options->texts.n > 0 ? 1 : 0) + (options->files.n > 0 ? 1 : 0) + (options->ids.n > 0);

    if (options->session.model == NULL) {
        return "which model? --model M is missing";
    }
    if (kinds == 0) {
        return "which prompt? Give --prompt TEXT, --prompt-file F or --prompt-ids 1,2,3";
    }
    if (kinds > 1) {
        return "--prompt, --prompt-file and --prompt-ids do not go together";
    }
    if (options->chat && options->ids.n > 0) {
        return "--chat wants text; --prompt-ids are taken as they are";
    }
    if (options->system != NULL && !options->chat) {
        return "--system needs --chat";
    }
    if (fault != NULL) {
        return fault;
    }
    if (options->decoding.logprobs >= 0 && !options->json) {
        return "--logprobs needs --json";
    }
    for (int i = 0; i < options->ids.n; i++) {
        const char *value = options->ids.values[i];
        int32_t *ids;
        int64_t n_ids;

        if (tsr_args_number_ids("--prompt-ids", value, strlen(value), &ids, &n_ids) != TSR_OK) {
            return tsr_status_message();
        }
        tsr_free(ids);
    }
    return tsr_decoding_read(decoding, &options->decoding) != TSR_OK ? tsr_status_message() : NULL;
}

static int run(const tsr_call *call, const generate_options *options, const tsr_decoding *decoding)
{
    generating g = {.options = options, .decoding = *decoding};
    tsr_session_options session = options->session;
    tsr_status st;

    g.list = options->texts.n > 0   ? &options->texts
             : options->files.n > 0 ? &options->files
                                    : &options->ids;
    if (g.list->n > 1 && session.target_itl_ms == 0) {
        session.target_itl_ms =
            TSR_SESSION_UNHURRIED_MS; // a batch wants to be done soon, as a whole
    }
    st = call->speaks ? read_texts(&g) : TSR_OK;
    st = tsr_session_run(call, &session, st, lead, &g);
    tsr_reply_set_clear(&g.replies);
    for (int i = 0; g.texts != NULL && i < g.list->n; i++) {
        tsr_free(g.texts[i].text);
    }
    tsr_free(g.texts);
    return tsr_call_end(call, st);
}

int tsr_cmd_generate_run(const tsr_call *call)
{
    const tsr_args_group groups[] = {
        {"Prompt (one of the first three; given several times, they run as one batch)",
         prompt_table, sizeof(prompt_table) / sizeof(prompt_table[0]), 0},
        {"Answer", answer_table, sizeof(answer_table) / sizeof(answer_table[0]), 0},
        tsr_sampling_group("How a token is chosen", FIELD(sampling)),
        tsr_decoding_group(FIELD(decoding)),
        tsr_decoding_telling_group(FIELD(decoding)),
        tsr_answers_group(FIELD(answers)),
        tsr_session_group(FIELD(session)),
    };
    const tsr_args_spec spec = {
        .command = "generate",
        .usage = "--model M (--prompt TEXT | --prompt-file F | --prompt-ids 1,2,3) [OPTIONS]",
        .about = "Streams the text that follows a prompt to stdout; a line about times goes to "
                 "stderr. Several prompts are answered in their order, each under a line with its "
                 "name.\nWith mpirun the model is split over the ranks; the text is the same on "
                 "any number of them.",
        .groups = groups,
        .n_groups = sizeof(groups) / sizeof(groups[0]),
        .examples =
            "  tessera generate --model model.gguf --prompt 'Once upon a time' --max-tokens 64\n"
            "  tessera generate --model model.gguf --chat --prompt 'Why is the sky blue?'\n"
            "  mpirun -n 2 tessera generate --model model.gguf --prompt-file a.txt --prompt-file "
            "b.txt --json\n",
    };
    generate_options options = {.max_tokens = 256,
                                .sampling = {.top_p = 1.0},
                                .decoding = tsr_decoding_defaults(),
                                .answers = tsr_answers_defaults()};
    tsr_decoding decoding = {0};
    const char *fault;
    int exit_status;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    fault = fault_of_line(&options, &decoding);
    exit_status =
        fault != NULL ? tsr_call_usage(call, "%s", fault) : run(call, &options, &decoding);
    tsr_decoding_clear(&decoding);
    tsr_args_clear(&spec, &options);
    return exit_status;
}
