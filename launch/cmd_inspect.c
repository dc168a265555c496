#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/env.h"
#include "engine/tessera.h"
#include "launch/commands.h"
#include "launch/inspect_rounding.h"
#include "launch/inspect_share.h"
#include "launch/out.h"

enum {
    KEY_BYTES = 128,
    KEY_COLUMNS = 40,
    VALUE_BYTES = 256
};

typedef struct inspect_options {
    const char *model;
    int64_t n_ranks;
    const char *quantize;
    bool metadata;
    bool env;
    bool devices;
    bool json;
} inspect_options;

#define FIELD(name) offsetof(inspect_options, name)

static const tsr_args_option options_table[] = {
    {"MODEL", NULL, TSR_ARGS_TEXT, FIELD(model), 0, 0, NULL,
     "the model: a GGUF file or a Hugging Face folder"},
    {"--ranks", "N", TSR_ARGS_INTEGER, FIELD(n_ranks), 1, 4096, NULL,
     "also what each of N ranks would own"},
    {"--quantize", "T", TSR_ARGS_CHOICE, FIELD(quantize), 0, 0, "int8|int4|fp8",
     "also how far each tensor would move with that option of the other commands; reads all "
     "weights"},
    {"--metadata", NULL, TSR_ARGS_FLAG, FIELD(metadata), 0, 0, NULL,
     "also every key of the file with its value"},
    {"--env", NULL, TSR_ARGS_FLAG, FIELD(env), 0, 0, NULL,
     "the environment variables that tessera reads, with their values; needs no model"},
    {"--devices", NULL, TSR_ARGS_FLAG, FIELD(devices), 0, 0, NULL,
     "what this build could compute on here, and its free memory; needs no model"},
    {"--json", NULL, TSR_ARGS_FLAG, FIELD(json), 0, 0, NULL, "the same as one JSON object"},
};
static const tsr_args_group group = {"Options", options_table, 7, 0};
static const tsr_args_spec spec = {
    .command = "inspect",
    .usage = "MODEL [--ranks N] [--quantize T] [--metadata] [--env] [--devices] [--json]",
    .about = "What a model file holds: its shape, its tensors by type, its tokenizer and chat "
             "template. Nothing is loaded, so it is quick, but for --quantize.",
    .groups = &group,
    .n_groups = 1,
    .examples = "  tessera inspect model.gguf --ranks 3\n"
                "  tessera inspect --env\n",
};

static json_t *text(const char *words)
{
    return tsr_out_json_text(words, strlen(words));
}

static json_t *encodings_json(const tsr_model *model)
{
    json_t *array = json_array();
    tsr_model_encoding e;

    for (int i = 0; array != NULL && tsr_model_encoding_at(model, i, &e); i++) {
        if (json_array_append_new(array,
                                  json_pack("{s:o, s:i, s:I, s:I}", "type", text(e.name), "tensors",
                                            e.n_tensors, "elements", (json_int_t)e.n_elements,
                                            "bytes", (json_int_t)e.n_bytes)) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *kv_json(const tsr_model *model)
{
    json_t *object = json_object();
    tsr_model_kv kv;

    for (int i = 0; object != NULL && tsr_model_kv_at(model, i, &kv); i++) {
        if (json_object_set_new(object, kv.type, json_integer((json_int_t)kv.bytes_per_token)) !=
            0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static json_t *reach_json(const tsr_model *model)
{
    json_t *array = json_array();
    tsr_model_reach reach;

    for (int i = 0; array != NULL && tsr_model_reach_at(model, i, &reach); i++) {
        if (json_array_append_new(array, json_pack("{s:i, s:I}", "layers", reach.n_layers,
                                                   "positions", (json_int_t)reach.n_positions)) !=
            0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *metadata_json(const tsr_model *model)
{
    json_t *array = json_array();
    char key[KEY_BYTES];
    char value[VALUE_BYTES];

    for (int i = 0;
         array != NULL && tsr_model_metadata_at(model, i, key, sizeof(key), value, sizeof(value));
         i++) {
        if (json_array_append_new(
                array, json_pack("{s:o, s:o}", "key", text(key), "value", text(value))) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *env_json(void)
{
    json_t *array = json_array();

    for (int i = 0; array != NULL && i < TSR_ENV_COUNT; i++) {
        const tsr_env_entry *entry = tsr_env_describe((tsr_env_id)i);

        if (json_array_append_new(array,
                                  json_pack("{s:s, s:o, s:s, s:s}", "name", entry->name, "value",
                                            text(tsr_env_text((tsr_env_id)i)), "default",
                                            entry->fallback, "help", entry->help)) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *devices_json(void)
{
    json_t *array = json_array();
    tsr_engine_device device;

    for (int i = 0; array != NULL && tsr_engine_device_at(i, &device) == TSR_OK; i++) {
        if (json_array_append_new(array, json_pack("{s:o, s:I}", "name", text(device.name),
                                                   "free_bytes", (json_int_t)device.free_bytes)) !=
            0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* What is asked for that is not about a model. */
static bool add_machine(json_t *root, const inspect_options *options)
{
    return (!options->env || json_object_set_new(root, "environment", env_json()) == 0) &&
           (!options->devices || json_object_set_new(root, "devices", devices_json()) == 0);
}

static json_t *shape_json(const tsr_model_facts *f)
{
    return json_pack("{s:i, s:I, s:i, s:i, s:i, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:b, s:b}",
                     "layers", f->n_layers, "dim", (json_int_t)f->dim, "heads", f->n_heads,
                     "kv_heads", f->n_kv_heads, "head_dim", f->head_dim, "ff_dim",
                     (json_int_t)f->ff_dim, "vocabulary", (json_int_t)f->n_vocab, "context",
                     (json_int_t)f->context, "norm_eps", tsr_out_json_real(f->norm_eps),
                     "rope_base", tsr_out_json_real(f->rope_base), "rope_pairs",
                     text(f->rope_pairs), "rope_scaling", text(f->rope_scaling), "tied_head",
                     (int)f->tied_head, "qkv_bias", (int)f->qkv_bias);
}

static json_t *tokenizer_json(const tsr_model_facts *f)
{
    return json_pack("{s:o, s:i, s:i, s:i, s:i}", "kind", text(f->tokenizer), "tokens", f->n_tokens,
                     "merges", f->n_merges, "bos", (int)f->bos, "eos", (int)f->eos);
}

static tsr_status model_json(const tsr_model *model, const inspect_options *options,
                             const tsr_model_share *shares)
{
    const tsr_model_facts f = tsr_model_describe(model);
    json_t *root =
        json_pack("{s:o, s:o, s:o, s:I, s:I, s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
                  text(f.name), "architecture", text(f.architecture), "shape", shape_json(&f),
                  "file_bytes", (json_int_t)f.file_bytes, "parameters", (json_int_t)f.n_parameters,
                  "n_tensors", f.n_tensors, "tensors", encodings_json(model), "kv_bytes_per_token",
                  kv_json(model), "kv_reach", reach_json(model), "tokenizer", tokenizer_json(&f),
                  "chat_form", text(f.chat_form), "chat_template", text(f.chat_template));
    bool whole = root != NULL;

    if (whole && options->quantize != NULL) {
        json_t *rounding = NULL;
        const tsr_status st = tsr_inspect_rounding_json(&rounding, model, options->quantize);

        if (st != TSR_OK) {
            json_decref(root);
            return st;
        }
        whole = json_object_set_new(root, "rounding", rounding) == 0;
    }
    if (whole && shares != NULL) {
        whole = json_object_set_new(root, "ranks",
                                    tsr_inspect_share_json(shares, (int)options->n_ranks)) == 0;
    }
    if (whole && options->metadata) {
        whole = json_object_set_new(root, "metadata", metadata_json(model)) == 0;
    }
    whole = whole && add_machine(root, options);
    if (!whole) {
        json_decref(root);
        root = NULL;
    }
    return tsr_out_json(root);
}

static tsr_status print_devices(void)
{
    tsr_engine_device device;
    tsr_status st;

    tsr_out_print("devices\n");
    for (int i = 0; (st = tsr_engine_device_at(i, &device)) == TSR_OK; i++) {
        tsr_out_print("  %-40s %.1f GB free\n", device.name, (double)device.free_bytes / 1e9);
    }
    return st == TSR_ERR_ARG ? TSR_OK : st; // all have been seen
}

static void print_env(void)
{
    tsr_out_print("environment\n");
    for (int i = 0; i < TSR_ENV_COUNT; i++) {
        const tsr_env_entry *entry = tsr_env_describe((tsr_env_id)i);

        tsr_out_print("  %-12s = %-8s %s (default %s)\n", entry->name, tsr_env_text((tsr_env_id)i),
                      entry->help, entry->fallback[0] != '\0' ? entry->fallback : "empty");
    }
}

static tsr_status print_machine(const inspect_options *options)
{
    if (options->env) {
        print_env();
    }
    if (options->env && options->devices) {
        tsr_out_print("\n");
    }
    return options->devices ? print_devices() : TSR_OK;
}

/* What a sequence keeps: said where it is not everything of all layers. */
static void print_reach(const tsr_model *model)
{
    const int n_layers = tsr_model_describe(model).n_layers;
    tsr_model_reach reach;
    int n_kept = 0;

    for (int i = 0; tsr_model_reach_at(model, i, &reach); i++) {
        n_kept += reach.n_layers;
    }
    if (n_kept < n_layers) {
        tsr_out_print("  %d of %d layers keep keys and values, the others read theirs\n", n_kept,
                      n_layers);
    }
    for (int i = 0; tsr_model_reach_at(model, i, &reach); i++) {
        if (reach.n_positions > 0) {
            tsr_out_print("  %d %s: the last %" PRId64 " positions are kept\n", reach.n_layers,
                          reach.n_layers == 1 ? "layer" : "layers", reach.n_positions);
        } else if (tsr_model_reach_at(model, 1, &(tsr_model_reach){0})) {
            tsr_out_print("  %d %s: all positions are kept\n", reach.n_layers,
                          reach.n_layers == 1 ? "layer" : "layers");
        }
    }
}

static void print_model(const tsr_model *model)
{
    const tsr_model_facts f = tsr_model_describe(model);
    tsr_model_encoding e;
    tsr_model_kv kv;

    tsr_out_words(f.name[0] != '\0' ? f.name : "a model without a name");
    tsr_out_print(": %s, %.1f million parameters in %d tensors, %s\n", f.architecture,
                  (double)f.n_parameters / 1e6, f.n_tensors, tsr_out_bytes(f.file_bytes).text);
    tsr_out_print("\nshape\n");
    tsr_out_print("  layers       %d\n", f.n_layers);
    tsr_out_print("  dim          %" PRId64 ", feed-forward %" PRId64 "%s\n", f.dim, f.ff_dim,
                  f.qkv_bias ? ", q, k and v with biases" : "");
    tsr_out_print("  heads        %d of %d, reading %d key-value heads\n", f.n_heads, f.head_dim,
                  f.n_kv_heads);
    tsr_out_print("  vocabulary   %" PRId64 "%s\n", f.n_vocab,
                  f.tied_head ? ", the output head being the embedding" : "");
    tsr_out_print("  context      %" PRId64 " positions\n", f.context);
    tsr_out_print("  rope         base %g, pairs %s, scaling %s\n", f.rope_base, f.rope_pairs,
                  f.rope_scaling);
    tsr_out_print("  norm eps     %g\n", f.norm_eps);
    tsr_out_print("\ntensors by type\n");
    for (int i = 0; tsr_model_encoding_at(model, i, &e); i++) {
        tsr_out_print("  %-10s %5d tensors  %14" PRIu64 " elements  %10s\n", e.name, e.n_tensors,
                      e.n_elements, tsr_out_bytes(e.n_bytes).text);
    }
    tsr_out_print("\nkeys and values, bytes a token (--kv-dtype)\n");
    for (int i = 0; tsr_model_kv_at(model, i, &kv); i++) {
        tsr_out_print("  %-10s %8" PRIu64 "\n", kv.type, kv.bytes_per_token);
    }
    print_reach(model);
    tsr_out_print("\ntokenizer\n  %s: %d tokens", f.tokenizer, f.n_tokens);
    if (f.n_merges > 0) { // a folder's facts do not count them
        tsr_out_print(", %d merges", f.n_merges);
    }
    if (f.bos >= 0) {
        tsr_out_print(", begin %d", (int)f.bos);
    }
    if (f.eos >= 0) {
        tsr_out_print(", end %d", (int)f.eos);
    }
    tsr_out_print("\n\nchat template\n  form: %s\n", f.chat_form);
    if (f.chat_template[0] != '\0') {
        tsr_out_print("  ");
        tsr_out_words(f.chat_template);
        tsr_out_print("\n");
    }
}

static void print_metadata(const tsr_model *model)
{
    char key[KEY_BYTES];
    char value[VALUE_BYTES];

    tsr_out_print("\nmetadata\n");
    for (int i = 0; tsr_model_metadata_at(model, i, key, sizeof(key), value, sizeof(value)); i++) {
        tsr_out_print("  ");
        tsr_out_words(key);
        tsr_out_print("%*s ", strlen(key) < KEY_COLUMNS ? KEY_COLUMNS - (int)strlen(key) : 0, "");
        tsr_out_words(value);
        tsr_out_print("\n");
    }
}

static tsr_status inspect_model(const inspect_options *options)
{
    tsr_model *model = NULL;
    tsr_model_share *shares = NULL;
    tsr_status st;

    TSR_TRY_GOTO(st, fail, tsr_model_open(&model, options->model));
    if (options->n_ranks > 0) {
        shares = tsr_alloc((size_t)options->n_ranks, sizeof(*shares));
        if (shares == NULL) {
            st = tsr_fail(TSR_ERR_NOMEM, "no memory for %d ranks", (int)options->n_ranks);
            goto fail;
        }
        for (int r = 0; r < options->n_ranks; r++) {
            TSR_TRY_GOTO(st, fail, tsr_model_share_of(model, r, (int)options->n_ranks, &shares[r]));
        }
    }
    if (options->json) {
        st = model_json(model, options, shares);
        goto fail;
    }
    print_model(model);
    if (shares != NULL) {
        const tsr_model_facts f = tsr_model_describe(model);

        tsr_inspect_share_print(shares, (int)options->n_ranks, f.n_heads, f.n_kv_heads);
    }
    if (options->quantize != NULL) {
        TSR_TRY_GOTO(st, fail, tsr_inspect_rounding_print(model, options->quantize));
    }
    if (options->metadata) {
        print_metadata(model);
    }
    if (options->env || options->devices) {
        tsr_out_print("\n");
        TSR_TRY_GOTO(st, fail, print_machine(options));
    }

fail:
    tsr_free(shares);
    tsr_model_close(model);
    return st;
}

static tsr_status inspect(const inspect_options *options)
{
    if (options->model != NULL) {
        return inspect_model(options);
    }
    if (options->json) {
        json_t *root = json_object();

        if (root != NULL && !add_machine(root, options)) {
            json_decref(root);
            root = NULL;
        }
        return tsr_out_json(root);
    }
    return print_machine(options);
}

int tsr_cmd_inspect_run(const tsr_call *call)
{
    inspect_options options = {0};
    int exit_status;

    if (!tsr_call_parse(call, &spec, &options, &exit_status)) {
        return exit_status;
    }
    if (options.model == NULL && !options.env && !options.devices) {
        return tsr_call_usage(call, "which model? Name a GGUF file or a folder");
    }
    if (options.model == NULL &&
        (options.n_ranks > 0 || options.metadata || options.quantize != NULL)) {
        return tsr_call_usage(call,
                              "--ranks, --quantize and --metadata are about a model: name one");
    }
    return tsr_call_end(call, call->speaks ? inspect(&options) : TSR_OK);
}
