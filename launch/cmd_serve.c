#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "launch/commands.h"
#include "launch/input.h"
#include "launch/serve_http.h"
#include "launch/session.h"

enum {
    DEFAULT_PORT = 8000,
    DEFAULT_DRAIN_S = 30,
    DEFAULT_MAX_BODY = 8 << 20,
    MOST_KEYS = 1024,
    FLUSH_US = 200000 // for what clients have not read yet when it ends
};

typedef struct serve_options {
    const char *host;
    int64_t port;
    tsr_args_list keys;
    const char *key_file;
    const char *tls_cert;
    const char *tls_key;
    const char *cors;
    uint64_t max_body;
    int64_t max_connections;
    int64_t idle_s;
    const char *name;
    double drain_s;
    int64_t n_ranks;
    const char *launcher;
    const char *engine_socket;
    tsr_session_options session;
} serve_options;

#define FIELD(name) offsetof(serve_options, name)

static const tsr_args_option options_table[] = {
    {"--host", "ADDRESS", TSR_ARGS_TEXT, FIELD(host), 0, 0, NULL,
     "the address to listen at; 0.0.0.0 is all of them (default 127.0.0.1: this machine only)"},
    {"--port", "N", TSR_ARGS_INTEGER, FIELD(port), 0, 65535, NULL,
     "the port; 0: any free one, which is said (default 8000)"},
    {"--api-key", "KEY", TSR_ARGS_LIST, FIELD(keys), 0, 0, NULL,
     "requests must bring this key; may be given several times (others on this machine can see it: "
     "a file is better)"},
    {"--api-key-file", "F", TSR_ARGS_TEXT, FIELD(key_file), 0, 0, NULL,
     "keys from a file, one on a line"},
    {"--tls-cert", "F", TSR_ARGS_TEXT, FIELD(tls_cert), 0, 0, NULL,
     "serve HTTPS with this certificate (PEM)"},
    {"--tls-key", "F", TSR_ARGS_TEXT, FIELD(tls_key), 0, 0, NULL, "and its key (PEM)"},
    {"--cors", "ORIGIN", TSR_ARGS_TEXT, FIELD(cors), 0, 0, NULL,
     "pages of this origin may call it from browsers; *: all (default: none)"},
    {"--max-body", "BYTES", TSR_ARGS_BYTES, FIELD(max_body), 0, 0, NULL,
     "the largest request (default 8M)"},
    {"--max-connections", "N", TSR_ARGS_INTEGER, FIELD(max_connections), 1, 100000, NULL,
     "clients at once; who comes beyond is told so, with status 503. Each may take 64 KiB "
     "(default 1000)"},
    {"--timeout", "S", TSR_ARGS_INTEGER, FIELD(idle_s), 1, 86400, NULL,
     "a connection on which nothing moves is closed after S seconds (default 60)"},
    {"--served-model-name", "NAME", TSR_ARGS_TEXT, FIELD(name), 0, 0, NULL,
     "how the model is called in requests and answers (default: its file's name)"},
    {"--drain-timeout", "S", TSR_ARGS_REAL, FIELD(drain_s), 0, 86400, NULL,
     "asked to end by a signal, it takes nothing more and finishes what is under way for so long "
     "at "
     "most (default 30; under mpirun, that has a limit of its own)"},
    {"--tensor-parallel-size", "N", TSR_ARGS_INTEGER, FIELD(n_ranks), 1, 4096, NULL,
     "start N ranks as a job of their own and look after them: when one is lost, all are started "
     "again and requests go on where they were (default: this process is the rank, or one of those "
     "under mpirun or srun)"},
    {"--launcher", "WORDS", TSR_ARGS_TEXT, FIELD(launcher), 0, 0, NULL,
     "what starts them, with its options: '-n N' comes behind (default mpirun)"},
    {"--engine-socket", "PATH", TSR_ARGS_TEXT, FIELD(engine_socket), 0, 0, NULL,
     "where other programs of this user may join that engine (default: in a folder of its own)"},
};

typedef struct server {
    const serve_options *options;
    const char **keys; // owned, [n_keys]; their texts are the command line's or key_text's
    int n_keys;
    char *key_text;
    char *cert;
    char *cert_key;
} server;

static tsr_status read_keys(server *s)
{
    size_t n_bytes = 0;

    s->keys = tsr_alloc(MOST_KEYS, sizeof(*s->keys));
    if (s->keys == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for keys");
    }
    for (int i = 0; i < s->options->keys.n && s->n_keys < MOST_KEYS; i++) {
        s->keys[s->n_keys++] = s->options->keys.values[i];
    }
    if (s->options->key_file == NULL) {
        return TSR_OK;
    }
    TSR_TRY(tsr_input_read(s->options->key_file, &s->key_text, &n_bytes));
    for (char *at = s->key_text; *at != '\0' && s->n_keys < MOST_KEYS;) {
        const size_t n = strcspn(at, "\r\n");
        const bool last = at[n] == '\0';

        at[n] = '\0';
        if (n > 0) {
            s->keys[s->n_keys++] = at;
        }
        at += n + (last ? 0 : 1);
    }
    return s->n_keys > 0 ? TSR_OK : tsr_fail(TSR_ERR_ARG, "%s has no key", s->options->key_file);
}

/* What can be wrong before a model is loaded. */
static tsr_status prepare(server *s)
{
    const serve_options *o = s->options;
    size_t n_bytes;

    TSR_TRY(read_keys(s));
    if ((o->tls_cert == NULL) != (o->tls_key == NULL)) {
        return tsr_fail(TSR_ERR_ARG, "--tls-cert and --tls-key go together");
    }
    if (o->tls_cert != NULL) {
        TSR_TRY(tsr_input_read(o->tls_cert, &s->cert, &n_bytes));
        TSR_TRY(tsr_input_read(o->tls_key, &s->cert_key, &n_bytes));
    }
    return TSR_OK;
}

static tsr_status serve(const server *s, tsr_engine *engine, tsr_desk *desk,
                        const tsr_desk_options *shared)
{
    const serve_options *o = s->options;
    char name[256];
    const tsr_session_words crew = tsr_session_crew(engine);
    const tsr_http_options options = {
        .host = o->host,
        .port = (int)o->port,
        .keys = s->keys,
        .n_keys = s->n_keys,
        .cors = o->cors,
        .tls_cert = s->cert,
        .tls_key = s->cert_key,
        .max_body = o->max_body > 0 ? (size_t)o->max_body : DEFAULT_MAX_BODY,
        .max_connections = (int)o->max_connections,
        .idle_s = (int)o->idle_s,
        .name = o->name != NULL ? o->name : name,
        .model = tsr_engine_model(engine),
        .context = tsr_engine_describe(engine).context,
        .desk = desk,
        .metrics = shared->metrics,
        .picture = shared->picture,
    };
    tsr_http *http = NULL;
    tsr_status st;

    if (o->name == NULL) {
        tsr_session_model_name(o->session.model, name, sizeof(name));
    }
    TSR_TRY(tsr_http_open(&http, &options));
    tsr_log_say("%s is served at %s://%s%s%s:%d/v1 | %s%s", options.name,
                s->cert != NULL ? "https" : "http", strchr(o->host, ':') != NULL ? "[" : "",
                o->host, strchr(o->host, ':') != NULL ? "]" : "", tsr_http_port(http), crew.text,
                s->n_keys > 0 ? " | a key is wanted" : "");
    st = tsr_desk_serve(desk, engine);
    tsr_clock_sleep_us(FLUSH_US);
    tsr_http_close(http);
    return st;
}

static tsr_status lead(tsr_engine *engine, void *ctx)
{
    const server *s = ctx;
    tsr_desk_options shared = {.max_waiting = (int)s->options->session.max_queue};
    tsr_desk *desk = NULL;
    tsr_status st = TSR_OK;

    TSR_TRY_GOTO(st, done, tsr_metrics_create(&shared.metrics));
    TSR_TRY_GOTO(st, done, tsr_picture_create(&shared.picture));
    TSR_TRY_GOTO(st, done, tsr_desk_create(&desk, &shared));
    st = serve(s, engine, desk, &shared);

done:
    tsr_desk_destroy(desk);
    tsr_picture_destroy(shared.picture);
    tsr_metrics_destroy(shared.metrics);
    return st;
}

int tsr_cmd_serve_run(const tsr_call *call)
{
    const tsr_args_group groups[] = {
        {"Server", options_table, sizeof(options_table) / sizeof(options_table[0]), 0},
        tsr_session_group(FIELD(session)),
    };
    const tsr_args_spec spec = {
        .command = "serve",
        .usage = "--model M [OPTIONS]",
        .about = "Serves the model with OpenAI's HTTP interface: /v1/chat/completions, "
                 "/v1/completions, /v1/embeddings, /v1/models, streams included; also /tokenize, "
                 "/detokenize, /health, /metrics, and a page at /. /openapi.json describes it all. "
                 "It ends with Ctrl-C or SIGTERM.",
        .groups = groups,
        .n_groups = 2,
        .examples =
            "  tessera serve --model model.gguf\n"
            "  tessera serve --model model.gguf --tensor-parallel-size 2 --port 8080\n"
            "  mpirun -n 2 tessera serve --model model.gguf --api-key-file keys\n"
            "  curl localhost:8000/v1/completions -d '{\"prompt\": \"Once upon a time\"}'\n",
    };
    serve_options options = {.host = "127.0.0.1",
                             .port = DEFAULT_PORT,
                             .max_connections = 1000,
                             .idle_s = 60,
                             .drain_s = DEFAULT_DRAIN_S};
    server s = {.options = &options};
    tsr_session_job job;
    int exit_status;
    tsr_status st;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    if (options.session.model == NULL) {
        exit_status = tsr_call_usage(call, "which model? --model M is missing");
    } else if (options.n_ranks == 0 &&
               (options.launcher != NULL || options.engine_socket != NULL)) {
        exit_status = tsr_call_usage(call, "--launcher and --engine-socket are for ranks that "
                                           "--tensor-parallel-size starts");
    } else {
        job = (tsr_session_job){(int)options.n_ranks, options.launcher, options.engine_socket};
        options.session.job = options.n_ranks > 0 ? &job : NULL;
        options.session.drain_s = options.drain_s;
        st = call->speaks ? prepare(&s) : TSR_OK;
        st = tsr_session_run(call, &options.session, st, lead, &s);
        exit_status = tsr_call_end(call, st);
    }
    tsr_free(s.keys);
    tsr_free(s.key_text);
    tsr_free(s.cert);
    tsr_free(s.cert_key);
    tsr_args_clear(&spec, &options);
    return exit_status;
}
