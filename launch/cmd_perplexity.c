#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "launch/args_number.h"
#include "launch/commands.h"
#include "launch/input.h"
#include "launch/out.h"
#include "launch/session.h"

typedef struct perplexity_options {
    const char *file;
    const char *ids;
    bool json;
    tsr_session_options session;
} perplexity_options;

#define FIELD(name) offsetof(perplexity_options, name)

static const tsr_args_option options_table[] = {
    {"FILE", NULL, TSR_ARGS_TEXT, FIELD(file), 0, 0, NULL,
     "the text, read as it is; - is stdin. It must fit the context"},
    {"--ids", "LIST", TSR_ARGS_TEXT, FIELD(ids), 0, 0, NULL,
     "token ids such as 1,2,3 in place of a text"},
    {"--json", NULL, TSR_ARGS_FLAG, FIELD(json), 0, 0, NULL,
     "one object: tokens, mean_nll, perplexity, logprob (of each next token), argmax (the "
     "likeliest token after each position)"},
};

typedef struct scores {
    const perplexity_options *options;
    char *text;
    size_t n_bytes;
    int32_t *ids; /* handed out by the model, or ours when from_list */
    int64_t n_ids;
    bool from_list;
    double *logprob; /* [n_ids - 1] */
    int32_t *argmax; /* [n_ids] */
    int64_t n_scored;
    bool ended;
    bool failed;
} scores;

static void on_event(void *ctx, const tsr_event *event)
{
    scores *s = ctx;

    if (event->kind == TSR_EVENT_SCORE && event->position >= 0 && event->position < s->n_ids) {
        s->argmax[event->position] = event->best;
        if (event->position + 1 < s->n_ids) {
            s->logprob[event->position] = event->logprob;
        }
        s->n_scored++;
        tsr_log_progress("scoring", (uint64_t)s->n_scored, (uint64_t)s->n_ids);
    } else if (event->kind == TSR_EVENT_END) {
        s->ended = true;
        if (strcmp(event->reason, "error") == 0) {
            s->failed = true;
            (void)tsr_fail(TSR_ERR_DEVICE, "%s", event->message);
        }
    }
}

static tsr_status score_all(tsr_engine *engine, scores *s)
{
    const tsr_generation generation = {
        .prompt = s->ids,
        .n_prompt = s->n_ids,
        .score = true,
        .on_event = on_event,
        .ctx = s,
    };
    bool busy = true;
    int64_t id;

    s->logprob = tsr_alloc((size_t)s->n_ids, sizeof(*s->logprob));
    s->argmax = tsr_alloc((size_t)s->n_ids, sizeof(*s->argmax));
    if (s->logprob == NULL || s->argmax == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the scores of %lld tokens",
                        (long long)s->n_ids);
    }
    TSR_TRY(tsr_engine_submit(engine, &generation, &id));
    while (busy && !s->ended) {
        TSR_TRY(tsr_engine_step(engine, &busy));
    }
    tsr_log_progress("scoring", 1, 1);
    if (s->failed) {
        return TSR_ERR_DEVICE; // said in on_event()
    }
    if (s->n_scored != s->n_ids) {
        return tsr_fail(TSR_ERR_DEVICE, "only %lld of %lld positions were scored",
                        (long long)s->n_scored, (long long)s->n_ids);
    }
    return TSR_OK;
}

static json_t *reals(const double *numbers, int64_t n)
{
    json_t *array = json_array();

    for (int64_t i = 0; array != NULL && i < n; i++) {
        if (json_array_append_new(array, tsr_out_json_real(numbers[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static tsr_status report(const scores *s)
{
    const int64_t n = s->n_ids - 1; // predictions: nothing foresees the first token
    double sum = 0.0;
    double mean;

    for (int64_t i = 0; i < n; i++) {
        sum -= s->logprob[i];
    }
    mean = sum / (double)n;
    if (s->options->json) {
        return tsr_out_json(json_pack("{s:I, s:o, s:o, s:o, s:o}", "tokens", (json_int_t)s->n_ids,
                                      "mean_nll", tsr_out_json_real(mean), "perplexity",
                                      tsr_out_json_real(exp(mean)), "logprob", reals(s->logprob, n),
                                      "argmax", tsr_out_json_ids(s->argmax, s->n_ids)));
    }
    tsr_out_print("tokens      %lld\nmean nll    %.6f\nperplexity  %.4f\n", (long long)s->n_ids,
                  mean, exp(mean));
    return TSR_OK;
}

static tsr_status lead(tsr_engine *engine, void *ctx)
{
    scores *s = ctx;

    if (!s->from_list) {
        TSR_TRY(tsr_model_prompt_ids(tsr_engine_model(engine), s->text, s->n_bytes, &s->ids,
                                     &s->n_ids));
    }
    if (s->n_ids < 2) {
        return tsr_fail(TSR_ERR_ARG, "the text has %lld tokens; a score needs two at least",
                        (long long)s->n_ids);
    }
    TSR_TRY(score_all(engine, s));
    return report(s);
}

int tsr_cmd_perplexity_run(const tsr_call *call)
{
    const tsr_args_group groups[] = {
        {"The text", options_table, sizeof(options_table) / sizeof(options_table[0]), 0},
        tsr_session_group(FIELD(session)),
    };
    const tsr_args_spec spec = {
        .command = "perplexity",
        .usage = "--model M (FILE | --ids LIST) [--json] [ENGINE OPTIONS]",
        .about = "How well the model foresees a text: the mean negative log-likelihood of each "
                 "token given all before it (natural logarithm), and the perplexity, which is e "
                 "to that power. Lower is better.",
        .groups = groups,
        .n_groups = 2,
        .examples = "  tessera perplexity --model model.gguf book.txt\n"
                    "  mpirun -n 2 tessera perplexity --model model.gguf book.txt --json\n",
    };
    perplexity_options options = {0};
    scores s = {.options = &options};
    tsr_status st;
    int exit_status;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    if (options.session.model == NULL) {
        return tsr_call_usage(call, "which model? --model M is missing");
    }
    if ((options.file == NULL) == (options.ids == NULL)) {
        return tsr_call_usage(call, "which text? Give one FILE, or --ids LIST");
    }
    s.from_list = options.ids != NULL;
    if (s.from_list && tsr_args_number_ids("--ids", options.ids, strlen(options.ids), &s.ids,
                                           &s.n_ids) != TSR_OK) {
        return tsr_call_usage(call, "%s", tsr_status_message());
    }
    st = call->speaks && !s.from_list ? tsr_input_read(options.file, &s.text, &s.n_bytes) : TSR_OK;
    st = tsr_session_run(call, &options.session, st, lead, &s);
    if (s.from_list) {
        tsr_free(s.ids);
    } else {
        tsr_tessera_free(s.ids);
    }
    tsr_free(s.text);
    tsr_free(s.logprob);
    tsr_free(s.argmax);
    return tsr_call_end(call, st);
}
