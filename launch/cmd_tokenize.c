#include <string.h>

#include "base/alloc.h"
#include "engine/tessera.h"
#include "launch/args_number.h"
#include "launch/commands.h"
#include "launch/input.h"
#include "launch/out.h"

typedef struct tokenize_options {
    const char *model;
    bool special;
    bool json;
} tokenize_options;

#define FIELD(name) offsetof(tokenize_options, name)

static const tsr_args_option tokenize_table[] = {
    {"--model", "M", TSR_ARGS_TEXT, FIELD(model), 0, 0, NULL, "the model: a GGUF file"},
    {"--special", NULL, TSR_ARGS_FLAG, FIELD(special), 0, 0, NULL,
     "recognise special tokens such as <|im_end|> in the text (default: they are plain text)"},
    {"--json", NULL, TSR_ARGS_FLAG, FIELD(json), 0, 0, NULL, "print {\"ids\": [...]}"},
};
static const tsr_args_group tokenize_group = {"Options", tokenize_table, 3, 0};
static const tsr_args_spec tokenize_spec = {
    .command = "tokenize",
    .usage = "--model M [--special] [--json] < TEXT",
    .about = "Reads text on stdin, every byte of it, and prints its token ids. No token is added "
             "at the beginning or the end.",
    .groups = &tokenize_group,
    .n_groups = 1,
    .examples = "  printf 'Hello world' | tessera tokenize --model model.gguf\n"
                "  tessera tokenize --model model.gguf --json < book.txt > book.json\n",
};

static const tsr_args_option detokenize_table[] = {
    {"--model", "M", TSR_ARGS_TEXT, FIELD(model), 0, 0, NULL, "the model: a GGUF file"},
    {"--special", NULL, TSR_ARGS_FLAG, FIELD(special), 0, 0, NULL,
     "show special tokens such as <|im_end|> (default: they have no text)"},
    {"--json", NULL, TSR_ARGS_FLAG, FIELD(json), 0, 0, NULL, "print {\"text\": \"...\"}"},
};
static const tsr_args_group detokenize_group = {"Options", detokenize_table, 3, 0};
static const tsr_args_spec detokenize_spec = {
    .command = "detokenize",
    .usage = "--model M [--special] [--json] < IDS",
    .about = "Reads token ids on stdin, separated by spaces, commas or newlines, or the JSON that "
             "tokenize prints, and prints their text, byte for byte.",
    .groups = &detokenize_group,
    .n_groups = 1,
    .examples = "  echo 19556 905 | tessera detokenize --model model.gguf\n"
                "  tessera tokenize --model model.gguf --json < a | tessera detokenize --model "
                "model.gguf\n",
};

static tsr_status print_ids(const int32_t *ids, int64_t n_ids, bool json)
{
    if (json) {
        return tsr_out_json(json_pack("{s:o}", "ids", tsr_out_json_ids(ids, n_ids)));
    }
    for (int64_t i = 0; i < n_ids; i++) {
        tsr_out_print(i > 0 ? " %d" : "%d", (int)ids[i]);
    }
    tsr_out_print("\n");
    return TSR_OK;
}

static tsr_status tokenize(const tokenize_options *options)
{
    tsr_model *model = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    int64_t n_ids = 0;
    size_t n_bytes = 0;
    tsr_status st;

    TSR_TRY_GOTO(st, fail, tsr_model_open(&model, options->model));
    TSR_TRY_GOTO(st, fail, tsr_input_read("-", &text, &n_bytes));
    TSR_TRY_GOTO(st, fail,
                 tsr_model_tokenize(model, text, n_bytes, options->special, &ids, &n_ids));
    st = print_ids(ids, n_ids, options->json);

fail:
    tsr_tessera_free(ids);
    tsr_free(text);
    tsr_model_close(model);
    return st;
}

static tsr_status ids_of_array(const json_t *array, int32_t **ids, int64_t *n_ids)
{
    const size_t n = json_array_size(array);
    int32_t *found = tsr_alloc(n, sizeof(*found));

    if (found == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %zu ids", n);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(array, i);

        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX) {
            tsr_free(found);
            return tsr_fail(TSR_ERR_FORMAT, "entry %zu of the ids is not a token id", i);
        }
        found[i] = (int32_t)json_integer_value(id);
    }
    *ids = found;
    *n_ids = (int64_t)n;
    return TSR_OK;
}

/* Ids as tokenize prints them, in either form. */
static tsr_status read_ids(const char *text, size_t n_bytes, int32_t **ids, int64_t *n_ids)
{
    const char *first = text + strspn(text, " \t\r\n");
    json_error_t fault;
    json_t *root;
    const json_t *array;
    tsr_status st;

    if (*first == '\0' && first == text + n_bytes) {
        *ids = NULL; // no ids are no text, as no text is no ids
        *n_ids = 0;
        return TSR_OK;
    }
    if (*first != '{' && *first != '[') {
        return tsr_args_number_ids("stdin", text, n_bytes, ids, n_ids);
    }
    root = json_loadb(text, n_bytes, 0, &fault);
    if (root == NULL) {
        return tsr_fail(TSR_ERR_FORMAT, "stdin is not JSON: %s (line %d)", fault.text, fault.line);
    }
    array = json_is_object(root) ? json_object_get(root, "ids") : root;
    st = json_is_array(array) ? ids_of_array(array, ids, n_ids)
                              : tsr_fail(TSR_ERR_FORMAT, "the JSON on stdin has no list \"ids\"");
    json_decref(root);
    return st;
}

static tsr_status detokenize(const tokenize_options *options)
{
    tsr_model *model = NULL;
    char *line = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    int64_t n_ids = 0;
    size_t n_bytes = 0;
    tsr_status st;

    TSR_TRY_GOTO(st, fail, tsr_model_open(&model, options->model));
    TSR_TRY_GOTO(st, fail, tsr_input_read("-", &line, &n_bytes));
    TSR_TRY_GOTO(st, fail, read_ids(line, n_bytes, &ids, &n_ids));
    TSR_TRY_GOTO(st, fail,
                 tsr_model_detokenize(model, ids, n_ids, options->special, &text, &n_bytes));
    if (options->json) {
        st = tsr_out_json(json_pack("{s:o}", "text", tsr_out_json_text(text, n_bytes)));
    } else {
        tsr_out_text(text, n_bytes);
        if (tsr_out_on_terminal()) {
            tsr_out_print("\n");
        }
    }

fail:
    tsr_tessera_free(text);
    tsr_free(ids);
    tsr_free(line);
    tsr_model_close(model);
    return st;
}

static int run(const tsr_call *call, const tsr_args_spec *spec,
               tsr_status (*work)(const tokenize_options *options))
{
    tokenize_options options = {0};
    int exit_status;

    if (!tsr_call_parse(call, spec, &options, &exit_status)) {
        return exit_status;
    }
    if (options.model == NULL) {
        return tsr_call_usage(call, "which model? --model M is missing");
    }
    return tsr_call_end(call, call->speaks ? work(&options) : TSR_OK);
}

int tsr_cmd_tokenize_run(const tsr_call *call)
{
    return run(call, &tokenize_spec, tokenize);
}

int tsr_cmd_detokenize_run(const tsr_call *call)
{
    return run(call, &detokenize_spec, detokenize);
}
