#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "launch/bench_run.h"
#include "launch/commands.h"
#include "launch/memory_words.h"
#include "launch/out.h"
#include "launch/session.h"

typedef struct bench_options {
    int64_t repeat;
    bool json;
    tsr_session_options session;
} bench_options;

#define FIELD(name) offsetof(bench_options, name)

static const tsr_args_option options_table[] = {
    {"--repeat", "N", TSR_ARGS_INTEGER, FIELD(repeat), 1, 100, NULL,
     "parts of each measurement, of which the median is shown (default 3)"},
    {"--json", NULL, TSR_ARGS_FLAG, FIELD(json), 0, 0, NULL,
     "one object; its \"results\" is a list of what, batch, context, tok_per_s, share_of_limit, "
     "host_share; \"attention\" one of sees, seen, us, us_of_everything"},
};

/* What is measured, in this order. */
static const tsr_bench_task tasks[] = {
    {"prompt", 1, 512, 1, true},   {"generate", 1, 0, 96, false}, {"generate", 1, 2048, 96, false},
    {"batch", 1, 128, 64, false},  {"batch", 4, 128, 64, false},  {"batch", 8, 128, 64, false},
    {"batch", 16, 128, 64, false}, {"batch", 32, 128, 64, false},
};

enum {
    N_TASKS = sizeof(tasks) / sizeof(tasks[0])
};

typedef struct machine {
    double read_bytes_per_s;
    double macs_per_s;
} machine;

/* A result beside what the machine allows. */
typedef struct row {
    tsr_bench_result result;
    bool by_memory; /* is reading the narrower way, or arithmetic? */
    double reached; /* bytes or operations a second */
    double share;
} row;

/*
 * A step reads the weights once, and the keys and values of each sequence; it multiplies the
 * weights with each of its tokens. Whichever takes the machine longer is the limit.
 */
static row judge(const tsr_engine *engine, const machine *m, const tsr_bench_task *task,
                 const tsr_bench_result *result)
{
    const tsr_engine_stats stats = tsr_engine_describe(engine);
    const double n_tokens = task->prompt ? (double)result->context : (double)result->batch;
    const double heads = task->prompt ? 1.0 : n_tokens; // only the last prompt row needs logits
    const double n_bytes =
        (double)stats.token_bytes + (task->prompt ? 0.0
                                                  : (double)result->batch * result->mean_context *
                                                        (double)stats.kv_token_bytes);
    const double n_macs = n_tokens * (double)stats.token_macs + heads * (double)stats.head_macs;
    const double step_s = n_tokens / result->tok_per_s;
    const double read_s = n_bytes / m->read_bytes_per_s;
    const double compute_s = n_macs / m->macs_per_s;
    row r = {.result = *result, .by_memory = read_s > compute_s};

    r.reached = (r.by_memory ? n_bytes : 2.0 * n_macs) / step_s;
    r.share = (r.by_memory ? read_s : compute_s) / step_s;
    return r;
}

static json_t *row_json(const tsr_bench_task *task, const row *r)
{
    return json_pack("{s:s, s:i, s:I, s:o, s:o, s:s, s:o, s:o}", "what", task->what, "batch",
                     r->result.batch, "context", (json_int_t)r->result.context, "tok_per_s",
                     tsr_out_json_real(r->result.tok_per_s), "share_of_limit",
                     tsr_out_json_real(r->share), "limit", r->by_memory ? "memory" : "arithmetic",
                     r->by_memory ? "gb_per_s" : "gop_per_s", tsr_out_json_real(r->reached / 1e9),
                     "host_share", tsr_out_json_real(r->result.host_share));
}

static void print_row(const tsr_bench_task *task, const row *r)
{
    tsr_out_print("%-10s %5d %8lld %10.1f   %-10s %9.1f %-6s %5.0f %% %6.2f %%\n", task->what,
                  r->result.batch, (long long)r->result.context, r->result.tok_per_s,
                  r->by_memory ? "memory" : "arithmetic", r->reached / 1e9,
                  r->by_memory ? "GB/s" : "Gop/s", r->share * 100.0, r->result.host_share * 100.0);
    tsr_out_flush();
}

static void print_head(const tsr_engine *engine, const machine *m)
{
    const tsr_engine_stats stats = tsr_engine_describe(engine);
    const tsr_model_facts facts = tsr_model_describe(tsr_engine_model(engine));

    tsr_out_print("%s | %s | %s | %s\n", facts.name, tsr_session_crew(engine).text, stats.device,
                  stats.comm);
    tsr_out_print("this machine, measured now: reads %.1f GB/s, computes %.1f Gop/s\n\n",
                  m->read_bytes_per_s / 1e9, 2.0 * m->macs_per_s / 1e9);
    tsr_out_print("%-10s %5s %8s %10s   %-10s %16s %7s %8s\n", "what", "batch", "context",
                  "tokens/s", "limit", "reached", "share", "host");
    tsr_out_flush();
}

/* "window 512", "each 4th, the last 32" */
static void name_way(char *text, size_t n_bytes, const tsr_attention_cost *c)
{
    if (c->stride > 0 && c->local > 0) {
        (void)snprintf(text, n_bytes, "1 in %lld, the last %lld", (long long)c->stride,
                       (long long)c->local);
    } else if (c->stride > 0) {
        (void)snprintf(text, n_bytes, "1 in %lld", (long long)c->stride);
    } else if (c->window > 0) {
        (void)snprintf(text, n_bytes, "the last %lld", (long long)c->window);
    } else {
        (void)snprintf(text, n_bytes, "everything");
    }
}

static json_t *cost_json(const char *name, const tsr_attention_cost *c)
{
    return json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "sees", name, "layers",
                     c->n_layers, "window", (json_int_t)c->window, "stride", (json_int_t)c->stride,
                     "local", (json_int_t)c->local, "context", (json_int_t)c->context, "seen",
                     (json_int_t)c->seen, "seen_bytes", (json_int_t)c->seen_bytes, "us",
                     tsr_out_json_real(c->seen_s * 1e6), "us_of_everything",
                     tsr_out_json_real(c->full_s * 1e6));
}

static void print_cost(const char *name, const tsr_attention_cost *c)
{
    tsr_out_print("%-24s %6d %9lld %7.2f %% %10s %10.1f %12.1f %7.2f %%\n", name, c->n_layers,
                  (long long)c->seen, 100.0 * (double)c->seen / (double)c->context,
                  tsr_out_bytes(c->seen_bytes).text, c->seen_s * 1e6, c->full_s * 1e6,
                  100.0 * c->seen_s / c->full_s);
}

/* What layers cost that do not see everything, beside what they would if they did; nothing when all
 * layers do. */
static tsr_status measure_attention(tsr_engine *engine, json_t *list)
{
    tsr_attention_cost c;
    char name[64];
    bool begun = list != NULL;

    for (int i = 0; tsr_engine_attention_cost(engine, i, &c) == TSR_OK; i++) {
        if (c.window == 0 && c.stride == 0) {
            continue;
        }
        name_way(name, sizeof(name), &c);
        if (!begun) {
            tsr_out_print("\nattention of one row at position %lld, a layer, on the first rank\n"
                          "%-24s %6s %19s %10s %10s %12s %9s\n",
                          (long long)c.context, "sees", "layers", "positions", "reads", "us",
                          "us, were it all", "of it");
            begun = true;
        }
        if (list == NULL) {
            print_cost(name, &c);
        } else if (json_array_append_new(list, cost_json(name, &c)) != 0) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for the results");
        }
    }
    return TSR_OK;
}

static json_t *report_json(const tsr_engine *engine, const machine *m, json_t *results,
                           json_t *memory, json_t *attention)
{
    const tsr_engine_stats stats = tsr_engine_describe(engine);
    const tsr_model_facts facts = tsr_model_describe(tsr_engine_model(engine));

    return json_pack("{s:o, s:i, s:i, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "model",
                     tsr_out_json_text(facts.name, strlen(facts.name)), "ranks", stats.n_ranks,
                     "threads", stats.n_threads, "device", stats.device, "comm", stats.comm,
                     "load_ms", tsr_out_json_real(stats.load_s * 1e3), "machine_gb_per_s",
                     tsr_out_json_real(m->read_bytes_per_s / 1e9), "machine_gop_per_s",
                     tsr_out_json_real(2.0 * m->macs_per_s / 1e9), "results", results, "memory",
                     memory, "attention", attention);
}

static tsr_status run_tasks(tsr_engine *engine, const bench_options *options, const machine *m,
                            json_t *results)
{
    for (int i = 0; i < N_TASKS && !tsr_out_ended(); i++) {
        tsr_bench_result result;
        row r;

        tsr_log_progress("measuring", (uint64_t)i, N_TASKS);
        TSR_TRY(tsr_bench_run(engine, &tasks[i], (int)options->repeat, &result));
        r = judge(engine, m, &tasks[i], &result);
        tsr_log_progress("measuring", 1, 1);
        if (!options->json) {
            print_row(&tasks[i], &r);
        } else if (json_array_append_new(results, row_json(&tasks[i], &r)) != 0) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for the results");
        }
    }
    return TSR_OK;
}

static tsr_status lead(tsr_engine *engine, void *ctx)
{
    const bench_options *options = ctx;
    machine m;
    json_t *results;
    json_t *memory = NULL;
    json_t *attention = options->json ? json_array() : NULL;
    tsr_status st;

    TSR_TRY(tsr_engine_measure(engine, &m.read_bytes_per_s, &m.macs_per_s));
    if (!options->json) {
        print_head(engine, &m);
    }
    results = json_array();
    if (results == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the results");
    }
    st = run_tasks(engine, options, &m, results);
    if (st == TSR_OK) {
        st = measure_attention(engine, attention);
    }
    if (st == TSR_OK && options->json) {
        st = tsr_memory_words_json(engine, &memory);
    } else if (st == TSR_OK && tsr_memory_words_has_tiers(engine) && !options->session.verbose) {
        st = tsr_memory_words_say(engine); // --verbose says it in any case
    }
    if (st != TSR_OK || !options->json) {
        json_decref(attention);
        json_decref(results);
        return st;
    }
    return tsr_out_json(report_json(engine, &m, results, memory, attention));
}

int tsr_cmd_bench_run(const tsr_call *call)
{
    const tsr_args_group groups[] = {
        {"Measurement", options_table, sizeof(options_table) / sizeof(options_table[0]), 0},
        tsr_session_group(FIELD(session)),
    };
    const tsr_args_spec spec = {
        .command = "bench",
        .usage = "--model M [--repeat N] [--json] [ENGINE OPTIONS]",
        .about =
            "Tokens a second: of a prompt of 512 tokens, of generation with an empty context and "
            "with 2,048 tokens of it, and of 1, 4, 8, 16 and 32 sequences at once (prompts of 128 "
            "tokens; "
            "the generated tokens of all are counted).\nBeside each stands what it reached of the "
            "narrower of two limits, which are measured on all ranks at the start: reading memory, "
            "and multiplying. Under host stands how much of the time the ranks waited for the "
            "leader: to "
            "plan, to choose tokens, to give them out.\nOf layers that see only some positions (a "
            "window, each n-th) it is told how many they see, and what that costs beside seeing "
            "everything.",
        .groups = groups,
        .n_groups = 2,
        .examples = "  tessera bench --model model.gguf\n"
                    "  mpirun -n 2 tessera bench --model model.gguf --json\n",
    };
    bench_options options = {
        .repeat = 3,
        .session = {.target_itl_ms = TSR_SESSION_UNHURRIED_MS, .no_prefix_cache = true}};
    int exit_status;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    if (options.session.model == NULL) {
        return tsr_call_usage(call, "which model? --model M is missing");
    }
    return tsr_call_end(call, tsr_session_run(call, &options.session, TSR_OK, lead, &options));
}
