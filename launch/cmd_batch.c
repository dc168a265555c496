#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "launch/api_answer.h"
#include "launch/batch_lines.h"
#include "launch/batch_results.h"
#include "launch/commands.h"
#include "launch/session.h"

enum {
    EXIT_LATER = 75,  // EX_TEMPFAIL of sysexits.h: run me again
    DEFAULT_AHEAD = 2 // lines under way for each sequence that may run
};

static const int64_t TELL_EVERY_S = 60;
static const int64_t GRACE_S = 30; // before the time is over nothing new is begun

typedef struct batch_options {
    const char *in;
    const char *out;
    int64_t time_limit_s;
    int64_t in_flight;
    tsr_session_options session;
} batch_options;

#define FIELD(name) offsetof(batch_options, name)

static const tsr_args_option options_table[] = {
    {"IN", NULL, TSR_ARGS_TEXT, FIELD(in), 0, 0, NULL,
     "a file with a request on each line; -: stdin"},
    {"OUT", NULL, TSR_ARGS_TEXT, FIELD(out), 0, 0, NULL,
     "where the results go, a line each as they are done; what is there already is not done again; "
     "-: stdout"},
    {"--time-limit", "S", TSR_ARGS_INTEGER, FIELD(time_limit_s), 1, INT32_MAX, NULL,
     "end after S seconds with exit status 75 if lines are left: run it again and it goes on "
     "(default: when the Slurm job ends, where SLURM_JOB_END_TIME tells)"},
    {"--in-flight", "N", TSR_ARGS_INTEGER, FIELD(in_flight), 1, 1000000, NULL,
     "lines that are under way at once (default: twice --max-sequences)"},
};

typedef struct batch batch;

/* One line under way. */
typedef struct job {
    batch *batch;
    struct job *previous;
    struct job *next;
    int64_t line;
    char *custom_id; /* owned; NULL: none */
    tsr_api_request request;
    tsr_api_answer answer;
    struct job_prompt {
        struct job *job;
        int index;
    } * prompts; /* owned, [request.n_prompts]: contexts of their events */
} job;

struct batch {
    const batch_options *options;
    tsr_engine *engine;
    char name[256]; /* of the model */
    int64_t context;
    tsr_batch_lines *lines;
    tsr_batch_results *results;
    job *first; /* under way */
    int64_t n_in_flight;
    int64_t most_in_flight;
    bool has_read_all;

    int64_t began_ns;
    int64_t told_ns; /* when progress was last said in a line */
    int64_t end_ns;  /* 0: no limit */
    int64_t n_lines; /* looked at */
    int64_t n_done;  /* written now */
    int64_t n_failed;
    int64_t n_skipped; /* done before */
    int64_t n_prompt;
    int64_t n_generated;
};

/* ---- a line ---------------------------------------------------------------------------------- */

static void drop_job(job *j)
{
    if (j->previous != NULL) {
        j->previous->next = j->next;
    } else if (j->batch->first == j) {
        j->batch->first = j->next;
    }
    if (j->next != NULL) {
        j->next->previous = j->previous;
    }
    tsr_api_answer_clear(&j->answer);
    tsr_api_request_clear(&j->request);
    tsr_free(j->prompts);
    tsr_free(j->custom_id);
    tsr_free(j);
}

static tsr_status write_error(batch *b, int64_t line, const char *custom_id,
                              const tsr_api_error *error)
{
    b->n_done++;
    b->n_failed++;
    return tsr_batch_results_add(b->results, line, custom_id, error->status,
                                 tsr_api_error_object(error));
}

static void note_event(void *ctx, const tsr_event *event)
{
    const struct job_prompt *p = ctx;

    tsr_api_answer_note(&p->job->answer, p->index, event);
}

/* The kind of request that a line holds, and its body. */
static tsr_status open_line(const json_t *line, tsr_api_kind *kind, const json_t **body,
                            tsr_api_error *error)
{
    const char *url = json_string_value(json_object_get(line, "url"));
    const char *method = json_string_value(json_object_get(line, "method"));

    const json_t *custom_id = json_object_get(line, "custom_id");

    *kind = TSR_API_COMPLETION;
    *body = json_object_get(line, "body");
    if (!json_is_object(line)) {
        tsr_api_error_set(error, 400, "", "the line is no JSON object");
        return TSR_ERR_ARG;
    }
    if (custom_id != NULL && !json_is_string(custom_id)) {
        tsr_api_error_set(error, 400, "custom_id", "'custom_id' must be a string");
        return TSR_ERR_ARG;
    }
    if (*body == NULL && url == NULL) { // just a request
        *kind = json_object_get(line, "messages") != NULL ? TSR_API_CHAT : TSR_API_COMPLETION;
        *body = line;
        return TSR_OK;
    }
    if (url != NULL && strcmp(url, "/v1/chat/completions") == 0) {
        *kind = TSR_API_CHAT;
    } else if (url != NULL && strcmp(url, "/v1/embeddings") == 0) {
        *kind = TSR_API_EMBEDDING;
    } else if (url == NULL || strcmp(url, "/v1/completions") != 0) {
        tsr_api_error_set(error, 404, "url",
                          "'url' must be /v1/chat/completions, /v1/completions or /v1/embeddings");
        return TSR_ERR_ARG;
    }
    if (method != NULL && strcmp(method, "POST") != 0) {
        tsr_api_error_set(error, 405, "method", "'method' must be POST");
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

static tsr_status submit(batch *b, job *j, tsr_api_error *error)
{
    tsr_generation g = j->request.generation;
    tsr_status st = TSR_OK;
    int64_t id;

    g.on_event = note_event;
    for (int p = 0; p < j->request.n_prompts && st == TSR_OK; p++) {
        j->prompts[p] = (struct job_prompt){j, p};
        g.prompt = j->request.prompts[p].ids;
        g.n_prompt = j->request.prompts[p].n_ids;
        g.ctx = &j->prompts[p];
        st = tsr_engine_submit(b->engine, &g, &id);
        if (st != TSR_OK) {
            tsr_api_error_set(error, st == TSR_ERR_NOMEM ? 500 : 400, "", "%s",
                              tsr_tessera_message());
            if (p > 0) { // those before it are on their way: it fails when they are done
                j->answer.n_open -= j->request.n_prompts - p;
                j->answer.failed = true;
                j->answer.error = *error;
                return TSR_OK;
            }
        }
    }
    return st;
}

/* The seed of a line is its number's where it names none: run again, it gives the same. */
static tsr_status begin(batch *b, job *j, json_t *line, tsr_api_error *error)
{
    const tsr_model *model = tsr_engine_model(b->engine);
    const json_t *body = NULL;
    tsr_api_kind kind;

    TSR_TRY(open_line(line, &kind, &body, error));
    if (body == line) { // what names the line is no key of a request
        (void)json_object_del(line, "custom_id");
    }
    TSR_TRY(
        tsr_api_request_read(&j->request, kind, body, model, b->context, (uint64_t)j->line, error));
    if (j->request.stream) {
        tsr_api_error_set(error, 400, "stream", "'stream' must be false in a batch");
        return TSR_ERR_ARG;
    }
    j->prompts = tsr_alloc((size_t)j->request.n_prompts, sizeof(*j->prompts));
    if (j->prompts == NULL ||
        tsr_api_answer_init(&j->answer, &j->request, model, b->name) != TSR_OK) {
        tsr_api_error_set(error, 500, "", "no memory for the line");
        return TSR_ERR_NOMEM;
    }
    (void)snprintf(j->answer.id, sizeof(j->answer.id), "%s-%" PRId64,
                   kind == TSR_API_CHAT ? "chatcmpl" : "cmpl", j->line);
    j->answer.created = (int64_t)time(NULL);
    return submit(b, j, error);
}

static tsr_status take_line(batch *b, const char *text, size_t n_bytes, int64_t number)
{
    json_t *line = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    const char *custom_id = json_string_value(json_object_get(line, "custom_id"));
    tsr_api_error error = {.status = 0};
    job *j = tsr_alloc(1, sizeof(*j));
    tsr_status st = TSR_OK;
    bool done = false;

    if (j == NULL) {
        json_decref(line);
        return tsr_fail(TSR_ERR_NOMEM, "no memory for line %lld", (long long)number);
    }
    j->batch = b;
    j->line = number;
    st = tsr_batch_results_find(b->results, number, custom_id, &done);
    if (custom_id != NULL) {
        j->custom_id = tsr_alloc_text(custom_id, strlen(custom_id));
    }
    if (st == TSR_OK && !done) {
        if (line == NULL) {
            tsr_api_error_set(&error, 400, "", "the line is no JSON");
        } else if (begin(b, j, line, &error) == TSR_OK) {
            j->next = b->first;
            if (b->first != NULL) {
                b->first->previous = j;
            }
            b->first = j;
            b->n_in_flight++;
            json_decref(line);
            return TSR_OK;
        }
        st = write_error(b, number, j->custom_id, &error);
    }
    b->n_skipped += done ? 1 : 0;
    drop_job(j);
    json_decref(line);
    return st;
}

/* ---- the run --------------------------------------------------------------------------------- */

static bool is_late(const batch *b)
{
    return b->end_ns != 0 && tsr_clock_ns() > b->end_ns;
}

static tsr_status fill(batch *b)
{
    while (!b->has_read_all && b->n_in_flight < b->most_in_flight && !is_late(b)) {
        const char *text;
        size_t n_bytes;
        int64_t number;

        TSR_TRY(tsr_batch_lines_next(b->lines, b->n_in_flight == 0, &text, &n_bytes, &number,
                                     &b->has_read_all));
        if (text == NULL) {
            return TSR_OK;
        }
        b->n_lines++;
        TSR_TRY(take_line(b, text, n_bytes, number));
    }
    return TSR_OK;
}

static tsr_status write_whole_ones(batch *b)
{
    job *next;

    for (job *j = b->first; j != NULL; j = next) {
        next = j->next;
        if (!tsr_api_answer_is_whole(&j->answer)) {
            continue;
        }
        for (int i = 0; i < j->answer.n_choices; i++) {
            b->n_generated += j->answer.choices[i].n_generated;
        }
        b->n_prompt += j->answer.n_prompt;
        b->n_done++;
        b->n_failed += j->answer.failed ? 1 : 0;
        TSR_TRY(tsr_batch_results_add(b->results, j->line, j->custom_id,
                                      j->answer.failed ? j->answer.error.status : 200,
                                      tsr_api_answer_object(&j->answer)));
        b->n_in_flight--;
        drop_job(j);
    }
    return TSR_OK;
}

/* A bar on a terminal, a line a minute elsewhere: in the log of a cluster's job, say. */
static void show_progress(batch *b)
{
    const int64_t now_ns = tsr_clock_ns();
    const int64_t total = tsr_batch_lines_count(b->lines);
    const int64_t done = b->n_done + b->n_skipped;
    const double s = (double)(now_ns - b->began_ns) / 1e9;
    const double left_s = b->n_done > 0 ? s / (double)b->n_done * (double)(total - done) : 0;
    char what[120];

    if (total > 0 && done < total) {
        (void)snprintf(what, sizeof(what), "%lld of %lld lines, %.0f tokens/s, %.0f:%02.0f left",
                       (long long)done, (long long)total, s > 0 ? (double)b->n_generated / s : 0.0,
                       (double)(int64_t)(left_s / 60),
                       left_s - 60 * (double)(int64_t)(left_s / 60));
        tsr_log_progress(what, (uint64_t)done, (uint64_t)total);
        if (!tsr_log_on_terminal() && !b->options->session.quiet &&
            now_ns - b->told_ns > TELL_EVERY_S * 1000000000) {
            b->told_ns = now_ns;
            tsr_log_say("%s", what);
        }
    }
}

static void say_summary(const batch *b)
{
    const tsr_session_words crew = tsr_session_crew(b->engine);
    const double s = (double)(tsr_clock_ns() - b->began_ns) / 1e9;

    tsr_log_progress("", 1, 1);
    tsr_log_say("%lld lines done, %lld of them with an error, %lld done before | prompts %lld "
                "tokens | generated %lld tokens, %.1f/s | %.1f s | %s",
                (long long)b->n_done, (long long)b->n_failed, (long long)b->n_skipped,
                (long long)b->n_prompt, (long long)b->n_generated,
                s > 0 ? (double)b->n_generated / s : 0.0, s, crew.text);
}

static tsr_status work(batch *b)
{
    bool busy = true;

    for (;;) {
        TSR_TRY(fill(b));
        if (b->n_in_flight == 0) {
            return TSR_OK;
        }
        TSR_TRY(tsr_engine_step(b->engine, &busy));
        TSR_TRY(write_whole_ones(b));
        show_progress(b);
        if (b->end_ns != 0 && tsr_clock_ns() > b->end_ns + GRACE_S / 2 * 1000000000) {
            return TSR_OK; // what is under way is computed again next time
        }
    }
}

static tsr_status lead(tsr_engine *engine, void *ctx)
{
    batch *b = ctx;
    tsr_status st;

    b->engine = engine;
    tsr_session_model_name(b->options->session.model, b->name, sizeof(b->name));
    b->context = tsr_engine_describe(engine).context;
    b->began_ns = b->told_ns = tsr_clock_ns();
    st = work(b);
    while (b->first != NULL) {
        drop_job(b->first);
    }
    if (!b->options->session.quiet && (st == TSR_OK || st == TSR_ERR_CANCELLED)) {
        say_summary(b);
    }
    return st;
}

/* When to stop beginning lines. */
static int64_t end_of_time(const batch_options *options)
{
    const int64_t slurm_s = tsr_env_slurm_end_s();
    int64_t left_s = options->time_limit_s;

    if (left_s == 0 && slurm_s == 0) {
        return 0;
    }
    if (left_s == 0) {
        left_s = slurm_s - (int64_t)time(NULL);
    }
    left_s = left_s > 2 * GRACE_S ? left_s - GRACE_S : left_s / 2;
    return tsr_clock_ns() + (left_s > 0 ? left_s : 1) * 1000000000;
}

static int run(const tsr_call *call, const batch_options *options)
{
    tsr_session_options session = options->session;
    batch b = {.options = options, .end_ns = end_of_time(options)};
    tsr_status st = TSR_OK;
    int exit_status;

    b.most_in_flight =
        options->in_flight > 0
            ? options->in_flight
            : DEFAULT_AHEAD * (session.max_sequences > 0 ? session.max_sequences : 64);
    if (session.target_itl_ms == 0) {
        session.target_itl_ms = TSR_SESSION_UNHURRIED_MS; // nobody watches the tokens come
    }
    if (call->speaks) {
        st = tsr_batch_lines_open(&b.lines, options->in);
        st = st == TSR_OK ? tsr_batch_results_open(&b.results, options->out) : st;
    }
    st = tsr_session_run(call, &session, st, lead, &b);
    exit_status = tsr_call_end(call, st);
    if (exit_status == TSR_EXIT_DONE && call->speaks && !b.has_read_all) {
        tsr_log_say("the time is over before the lines were: run it again and it goes on");
        exit_status = EXIT_LATER;
    }
    tsr_batch_results_close(b.results);
    tsr_batch_lines_close(b.lines);
    return exit_status;
}

int tsr_cmd_batch_run(const tsr_call *call)
{
    const tsr_args_group groups[] = {
        {"Files", options_table, sizeof(options_table) / sizeof(options_table[0]), 0},
        tsr_session_group(FIELD(session)),
    };
    const tsr_args_spec spec = {
        .command = "batch",
        .usage = "--model M IN OUT [OPTIONS]",
        .about =
            "Answers a file of requests. A line of IN is one of OpenAI's batch form "
            "({\"custom_id\", "
            "\"method\", \"url\", \"body\"}, url /v1/chat/completions or /v1/completions) or just "
            "a "
            "body ({\"prompt\": ...} or {\"messages\": ...}); a line of OUT is a result of that "
            "form, in the order in which they are done.\nKilled, and run again with the same "
            "files, it goes on where it was. A request that names no seed gets its line's "
            "number.\nAsked "
            "to end by SIGTERM or SIGINT it ends at once, with status 143 or 130; what was under "
            "way is "
            "computed again in the next run.",
        .groups = groups,
        .n_groups = 2,
        .examples = "  tessera batch --model model.gguf in.jsonl out.jsonl\n"
                    "  mpirun -n 2 tessera batch --model model.gguf in.jsonl out.jsonl\n"
                    "  sbatch examples/batch.slurm model.gguf in.jsonl out.jsonl\n",
    };
    batch_options options = {0};
    int exit_status;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    if (options.session.model == NULL) {
        return tsr_call_usage(call, "which model? --model M is missing");
    }
    if (options.in == NULL || options.out == NULL) {
        return tsr_call_usage(call, "which files? Give IN and OUT");
    }
    return run(call, &options);
}
