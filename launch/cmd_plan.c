#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include "base/alloc.h"
#include "engine/tessera.h"
#include "launch/commands.h"
#include "launch/gpus.h"
#include "launch/out.h"
#include "launch/plan_page.h"
#include "launch/session.h"

enum {
    MOST_ROWS = 16,
    MOST_FIT = 1024, /* ranks that --fit tries */
    TITLE_BYTES = 160
};

typedef struct plan_options {
    const char *model;
    const char *shape;
    const char *weights;
    int64_t n_ranks;
    bool fit;
    int64_t context;
    const char *kv_dtype;
    uint64_t kv_memory_bytes;
    const char *block_tokens;
    int64_t n_threads;
    int64_t max_batch_tokens;
    int64_t max_sequences;
    uint64_t device_bytes;
    const char *gpu;
    uint64_t kv_host_bytes;
    uint64_t kv_disk_bytes;
    bool json;
} plan_options;

#define FIELD(name) offsetof(plan_options, name)

static const tsr_args_option options_table[] = {
    {"--model", "M", TSR_ARGS_TEXT, FIELD(model), 0, 0, NULL, "the model; it is not loaded"},
    {"--shape", "NAME", TSR_ARGS_TEXT, FIELD(shape), 0, 0, NULL,
     "instead of a model the sizes of a well-known one, such as llama-3-8b, falcon-7b or "
     "qwen2.5-7b"},
    {"--weights", "T", TSR_ARGS_CHOICE, FIELD(weights), 0, 0, "q4|q8|f16|bf16",
     "of a shape: how its weights are kept (default bf16)"},
    {"--ranks", "N", TSR_ARGS_INTEGER, FIELD(n_ranks), 1, 4096, NULL,
     "only for N ranks (default: a table of 1 to 16)"},
    {"--fit", NULL, TSR_ARGS_FLAG, FIELD(fit), 0, 0, NULL,
     "only for the fewest ranks that hold a sequence of --ctx tokens"},
    {"--ctx", "N", TSR_ARGS_INTEGER, FIELD(context), 1, INT32_MAX / 2, NULL,
     "tokens of a sequence (default: what the model was made for)"},
    {"--kv-dtype", "T", TSR_ARGS_CHOICE, FIELD(kv_dtype), 0, 0, TSR_SESSION_KV_DTYPES,
     "how keys and values are kept (default f16)"},
    {"--kv-memory", "BYTES", TSR_ARGS_BYTES, FIELD(kv_memory_bytes), 0, 0, NULL,
     "of each rank, that the cache takes at most (default: all that is left)"},
    {"--block-tokens", "N", TSR_ARGS_CHOICE, FIELD(block_tokens), 0, 0, "16|32|64",
     "tokens a block of the cache (default 16)"},
    {"--threads", "N", TSR_ARGS_INTEGER, FIELD(n_threads), 1, 1024, NULL,
     "threads of each rank (default: this machine's cores divided among the ranks)"},
    {"--max-batch-tokens", "N", TSR_ARGS_INTEGER, FIELD(max_batch_tokens), 1, 65536, NULL,
     "tokens that one step computes at most (default 512)"},
    {"--max-sequences", "N", TSR_ARGS_INTEGER, FIELD(max_sequences), 1, 4096, NULL,
     "sequences that run at once at most (default 64)"},
    {"--device-memory", "BYTES", TSR_ARGS_BYTES, FIELD(device_bytes), 0, 0, NULL,
     "memory of each rank's device, such as 24G (default: this machine's free memory divided among "
     "the ranks)"},
    {"--gpu", "NAME", TSR_ARGS_TEXT, FIELD(gpu), 0, 0, NULL,
     "the same as the name of a GPU, one a rank: h100, a100, l40s, 4090, t4 ..."},
    {"--kv-host", "BYTES", TSR_ARGS_BYTES, FIELD(kv_host_bytes), 0, 0, NULL,
     "host memory of each rank beside its device, for blocks of the cache"},
    {"--host-memory", "BYTES", TSR_ARGS_BYTES, FIELD(kv_host_bytes), 0, 0, NULL,
     "the same as --kv-host"},
    {"--kv-disk", "BYTES", TSR_ARGS_BYTES, FIELD(kv_disk_bytes), 0, 0, NULL,
     "and a file on each rank, for those of sequences that wait their turn"},
    {"--json", NULL, TSR_ARGS_FLAG, FIELD(json), 0, 0, NULL, "the same as one JSON object"},
};
static const tsr_args_group group = {"Options", options_table,
                                     sizeof(options_table) / sizeof(options_table[0]), 0};
static const tsr_args_spec spec = {
    .command = "plan",
    .usage = "(--model M | --shape NAME) [--ranks N | --fit] [--ctx N] [--gpu NAME]",
    .about = "What fits, before anything is loaded: bytes a rank of weights, workspace, tables and "
             "cache, the longest context and the most sequences, for 1 to 16 ranks.\n"
             "Ranks may own unequal parts; the busiest one decides and is the one shown. The "
             "workspace is that of ranks on CPUs of one host.",
    .groups = &group,
    .n_groups = 1,
    .examples = "  tessera plan --model model.gguf\n"
                "  tessera plan --shape llama-3-70b --weights q4 --gpu 4090 --ctx 4096\n"
                "  tessera plan --shape qwen2.5-7b --gpu a100-40 --fit --kv-host 64G\n",
};

/* ---- what memory there is ----------------------------------------------------------------------
 */

/* 0: this machine's, divided among the ranks. */
static tsr_status find_device(uint64_t *device_bytes, char *words, const plan_options *options)
{
    if (options->gpu != NULL) {
        TSR_TRY(tsr_gpus_find(device_bytes, options->gpu));
        (void)snprintf(words, TITLE_BYTES, "one %.40s a rank with %s to fill", options->gpu,
                       tsr_out_bytes(*device_bytes).text);
    } else if (options->device_bytes > 0) {
        *device_bytes = options->device_bytes;
        (void)snprintf(words, TITLE_BYTES, "%s a rank", tsr_out_bytes(*device_bytes).text);
    } else {
        *device_bytes = 0;
        (void)snprintf(words, TITLE_BYTES, "this machine's free %s divided among the ranks",
                       tsr_out_bytes(tsr_plan_machine_bytes()).text);
    }
    return TSR_OK;
}

static int threads_for(const plan_options *options, int n_ranks)
{
    const long n_cores = sysconf(_SC_NPROCESSORS_ONLN);

    return options->n_threads > 0 ? (int)options->n_threads
           : n_cores > n_ranks    ? (int)(n_cores / n_ranks)
                                  : 1;
}

/* ---- the rows ----------------------------------------------------------------------------------
 */

static tsr_status make_row(tsr_plan_row *row, tsr_plan_request *request,
                           const plan_options *options, uint64_t device_bytes, int n_ranks)
{
    row->device_bytes =
        device_bytes > 0 ? device_bytes : tsr_plan_machine_bytes() / (uint64_t)n_ranks;
    row->shares = tsr_alloc((size_t)n_ranks, sizeof(*row->shares));
    if (row->shares == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a plan of %d ranks", n_ranks);
    }
    request->device_bytes = row->device_bytes;
    request->options.n_threads = threads_for(options, n_ranks);
    return tsr_plan_of(&row->plan, row->shares, request, n_ranks);
}

static tsr_status make_fit(tsr_plan_row *row, tsr_plan_request *request,
                           const plan_options *options, uint64_t device_bytes)
{
    for (int n_ranks = 1;; n_ranks++) {
        TSR_TRY(make_row(row, request, options, device_bytes, n_ranks));
        if (row->plan.n_sequences > 0 || n_ranks == MOST_FIT) {
            return TSR_OK;
        }
        tsr_free(row->shares);
        row->shares = NULL;
    }
}

static tsr_status make_rows(tsr_plan_row *rows, int *n_rows, tsr_plan_request *request,
                            const plan_options *options, uint64_t device_bytes)
{
    *n_rows = 1;
    if (options->fit) {
        return make_fit(rows, request, options, device_bytes);
    }
    if (options->n_ranks > 0) {
        return make_row(rows, request, options, device_bytes, (int)options->n_ranks);
    }
    *n_rows = MOST_ROWS;
    for (int i = 0; i < MOST_ROWS; i++) {
        TSR_TRY(make_row(&rows[i], request, options, device_bytes, i + 1));
    }
    return TSR_OK;
}

static int find_best(const tsr_plan_row *rows, int n_rows)
{
    for (int i = 0; i < n_rows; i++) {
        if (rows[i].plan.n_sequences > 0) {
            return i;
        }
    }
    return -1;
}

static void write_title(char *title, const plan_options *options, const tsr_model *model)
{
    if (model == NULL) {
        (void)snprintf(title, TITLE_BYTES, "%.60s, weights in %s", options->shape,
                       options->weights != NULL ? options->weights : "bf16");
    } else {
        const tsr_model_facts facts = tsr_model_describe(model);

        (void)snprintf(title, TITLE_BYTES, "%.100s",
                       facts.name[0] != '\0' ? facts.name : options->model);
    }
}

static tsr_status plan(const plan_options *options)
{
    tsr_plan_row rows[MOST_ROWS] = {0};
    char title[TITLE_BYTES];
    char memory[TITLE_BYTES];
    tsr_model *model = NULL;
    uint64_t device_bytes;
    tsr_plan_page page;
    tsr_plan_request request = {
        .shape = options->shape,
        .weights = options->weights,
        .options = {.context = options->context,
                    .kv_dtype = options->kv_dtype,
                    .kv_memory_bytes = options->kv_memory_bytes,
                    .block_tokens = options->block_tokens != NULL
                                        ? (int)strtol(options->block_tokens, NULL, 10)
                                        : 0,
                    .max_batch_tokens = (int)options->max_batch_tokens,
                    .max_sequences = (int)options->max_sequences,
                    .kv_host_bytes = options->kv_host_bytes,
                    .kv_disk_bytes = options->kv_disk_bytes},
    };
    int n_rows = 0;
    tsr_status st;

    TSR_TRY(find_device(&device_bytes, memory, options));
    if (options->model != NULL) {
        TSR_TRY(tsr_model_open(&model, options->model));
        request.model = model;
    }
    TSR_TRY_GOTO(st, done, make_rows(rows, &n_rows, &request, options, device_bytes));
    write_title(title, options, model);
    page = (tsr_plan_page){
        .title = title,
        .memory = memory,
        .kv_dtype = options->kv_dtype != NULL ? options->kv_dtype : "f16",
        .lower_bytes = options->kv_host_bytes + options->kv_disk_bytes,
        .model = options->model,
        .rows = rows,
        .n_rows = n_rows,
        .best = find_best(rows, n_rows),
    };
    if (options->json) {
        st = tsr_out_json(tsr_plan_page_json(&page));
    } else {
        tsr_plan_page_print(&page);
    }

done:
    for (int i = 0; i < MOST_ROWS; i++) {
        tsr_free(rows[i].shares);
    }
    tsr_model_close(model);
    return st;
}

int tsr_cmd_plan_run(const tsr_call *call)
{
    plan_options options = {0};
    int exit_status;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    if ((options.model == NULL) == (options.shape == NULL)) {
        return tsr_call_usage(call, "what is to be planned? Give either --model M or --shape NAME");
    }
    if (options.model != NULL && options.weights != NULL) {
        return tsr_call_usage(call, "--weights is about a --shape: a model's file says its own");
    }
    if (options.n_ranks > 0 && options.fit) {
        return tsr_call_usage(call, "--ranks and --fit do not go together");
    }
    if (options.gpu != NULL && options.device_bytes > 0) {
        return tsr_call_usage(call, "--gpu and --device-memory do not go together");
    }
    return tsr_call_end(call, call->speaks ? plan(&options) : TSR_OK);
}
