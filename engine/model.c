#include "engine/model.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/chat.h"
#include "engine/family.h"
#include "engine/file_map.h"
#include "engine/model_state.h"
#include "engine/packed.h"
#include "engine/weights.h"

enum {
    SHORT_BYTES = TSR_MODEL_SHORT_BYTES,
    MOST_ENDS = TSR_MODEL_MOST_ENDS,
    PATH_BYTES = 4096
};

static void describe_scaling(tsr_model *model)
{
    const tsr_rope_turns *t = &model->config.ropes[0];

    switch (t->scaling) {
    case TSR_ROPE_SCALING_FACTORS:
        (void)snprintf(model->scaling, SHORT_BYTES, "%s",
                       model->config.rope_switch > 0 ? "factors for short and for long texts"
                                                     : "factors in the file");
        break;
    case TSR_ROPE_SCALING_LINEAR:
        (void)snprintf(model->scaling, SHORT_BYTES, "linear %g", t->factor);
        break;
    case TSR_ROPE_SCALING_YARN:
    case TSR_ROPE_SCALING_LLAMA3:
        (void)snprintf(model->scaling, SHORT_BYTES, "%s %g (original %lld)",
                       t->scaling == TSR_ROPE_SCALING_YARN ? "yarn" : "llama3", t->factor,
                       (long long)t->original_context);
        break;
    default:
        (void)snprintf(model->scaling, SHORT_BYTES, "none");
        break;
    }
}

static void describe_tokenizer(tsr_model *model)
{
    const tsr_gguf *gguf = tsr_checkpoint_gguf(model->checkpoint);
    tsr_gguf_text kind = {"none", 4};
    tsr_gguf_text pre = {"default", 7};

    if (gguf == NULL) {
        (void)snprintf(model->tokenizer_name, SHORT_BYTES, "%s",
                       model->tokenizer == NULL ? "none" : "tokenizer.json");
        return;
    }
    (void)tsr_gguf_string(gguf, "tokenizer.ggml.model", &kind);
    (void)tsr_gguf_string(gguf, "tokenizer.ggml.pre", &pre);
    (void)snprintf(model->tokenizer_name, SHORT_BYTES, "%.*s (%.*s)",
                   kind.n_bytes < 24 ? (int)kind.n_bytes : 24, kind.bytes,
                   pre.n_bytes < 24 ? (int)pre.n_bytes : 24, pre.bytes);
}

/* ---- a folder ------------------------------------------------------------------------------ */

/* A file of the folder; map->mapping is NULL when there is none. */
static tsr_status map_file(tsr_file_map *map, const tsr_model *model, const char *name)
{
    char path[PATH_BYTES];

    *map = (tsr_file_map){0};
    if (!tsr_checkpoint_path(model->checkpoint, name, path, sizeof(path)) ||
        access(path, F_OK) != 0) {
        return TSR_OK;
    }
    return tsr_file_map_open(map, path, name);
}

/* Without a tokenizer that is known a model still runs, on ids. */
static tsr_status open_json_tokenizer(tsr_model *model)
{
    tsr_file_map json;
    tsr_file_map config;
    tsr_status st;

    TSR_TRY(map_file(&json, model, "tokenizer.json"));
    st = map_file(&config, model, "tokenizer_config.json");
    if (st == TSR_OK && json.mapping != NULL) {
        st = tsr_tokenizer_open_json(&model->tokenizer, json.mapping, json.n_bytes, config.mapping,
                                     config.n_bytes);
    } else if (st == TSR_OK) {
        st = tsr_fail(TSR_ERR_UNSUPPORTED, "the folder has no tokenizer.json");
    }
    tsr_file_map_close(&json);
    tsr_file_map_close(&config);
    if (st == TSR_ERR_UNSUPPORTED) {
        tsr_log_warn("the model runs on ids only, not on text: %s", tsr_status_message());
        return TSR_OK;
    }
    return st;
}

/* eos_token_id: one number or a list. */
static tsr_status read_ends(tsr_model *model, const tsr_hf_keys *keys)
{
    const json_t *ends = json_object_get(keys->object, "eos_token_id");
    const size_t n = json_is_array(ends) ? json_array_size(ends) : ends != NULL ? 1 : 0;

    for (size_t i = 0; i < n && !json_is_null(ends); i++) {
        const json_t *end = json_is_array(ends) ? json_array_get(ends, i) : ends;

        if (!json_is_integer(end) || json_integer_value(end) < 0 ||
            json_integer_value(end) > INT32_MAX || model->n_ends == MOST_ENDS) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: eos_token_id is no list of up to %d ids",
                            keys->label, MOST_ENDS);
        }
        model->ends[model->n_ends++] = (int32_t)json_integer_value(end);
    }
    return TSR_OK;
}

/* chat_template.jinja, or what tokenizer_config.json says. */
static tsr_status read_template(tsr_model *model)
{
    tsr_text_view text = {"", 0};
    tsr_file_map file;

    TSR_TRY(map_file(&file, model, "chat_template.jinja"));
    if (file.mapping != NULL) {
        text = (tsr_text_view){file.mapping, file.n_bytes};
    } else if (model->tokenizer != NULL) {
        text = tsr_tokenizer_chat_template(model->tokenizer);
    }
    model->template_text = tsr_alloc_text(text.n_bytes > 0 ? text.bytes : "", text.n_bytes);
    tsr_file_map_close(&file);
    return TSR_OK;
}

static tsr_status open_folder(tsr_model *model, bool mute)
{
    const tsr_hf_keys generation = tsr_checkpoint_generation(model->checkpoint);
    const tsr_hf_keys config = tsr_checkpoint_config(model->checkpoint);
    const char *name = "";

    TSR_TRY(read_ends(model, &generation));
    if (model->n_ends == 0) {
        TSR_TRY(read_ends(model, &config));
    }
    TSR_TRY(tsr_hf_text(&config, "_name_or_path", &name));
    model->name = tsr_alloc_text(name, strlen(name));
    if (!mute) {
        TSR_TRY(open_json_tokenizer(model));
    }
    return read_template(model);
}

/* ---- either -------------------------------------------------------------------------------- */

static char *text_of_key(const tsr_gguf *gguf, const char *key)
{
    tsr_gguf_text text = {"", 0};

    (void)tsr_gguf_string(gguf, key, &text);
    return tsr_alloc_text(text.bytes, text.n_bytes);
}

static tsr_status open_gguf(tsr_model *model, bool mute)
{
    const tsr_gguf *gguf = tsr_checkpoint_gguf(model->checkpoint);

    if (!mute) {
        TSR_TRY(tsr_tokenizer_create(&model->tokenizer, gguf));
    }
    model->name = text_of_key(gguf, "general.name");
    model->template_text = text_of_key(gguf, "tokenizer.chat_template");
    return TSR_OK;
}

static tsr_status check_vocabulary(const tsr_model *model)
{
    const int n_tokens = model->tokenizer == NULL ? 0 : tsr_tokenizer_n_vocab(model->tokenizer);

    if (n_tokens > model->config.shape.n_vocab) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "the tokenizer has %d tokens and the embedding only %lld rows", n_tokens,
                        (long long)model->config.shape.n_vocab);
    }
    return TSR_OK;
}

/* What templates write for special tokens: copies that end with a 0. */
static tsr_status read_token_texts(tsr_model *model)
{
    tsr_text *const texts[] = {&model->bos, &model->eos, &model->pad};
    int32_t ids[3];

    if (model->tokenizer == NULL) {
        return TSR_OK;
    }
    ids[0] = tsr_tokenizer_bos(model->tokenizer);
    ids[1] = tsr_tokenizer_eos(model->tokenizer);
    ids[2] = tsr_tokenizer_pad(model->tokenizer);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        if (ids[i] >= 0) {
            const tsr_text_view word = tsr_tokenizer_text(model->tokenizer, ids[i]);

            TSR_TRY(tsr_text_append(texts[i], word.bytes, word.n_bytes));
        }
    }
    return TSR_OK;
}

static tsr_status open_model(tsr_model **out, const char *path, bool mute)
{
    tsr_model *model = tsr_alloc(1, sizeof(*model));
    tsr_status st = TSR_OK;

    if (model == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a model");
    }
    TSR_TRY_GOTO(st, fail, tsr_checkpoint_open(&model->checkpoint, path));
    TSR_TRY_GOTO(st, fail, tsr_config_read(&model->config, model->checkpoint));
    TSR_TRY_GOTO(st, fail,
                 tsr_checkpoint_gguf(model->checkpoint) != NULL ? open_gguf(model, mute)
                                                                : open_folder(model, mute));
    TSR_TRY_GOTO(st, fail, check_vocabulary(model));
    TSR_TRY_GOTO(st, fail, read_token_texts(model));
    if (model->name == NULL || model->template_text == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for the model's texts");
        goto fail;
    }
    describe_scaling(model);
    describe_tokenizer(model);
    *out = model;
    return TSR_OK;

fail:
    tsr_model_close(model);
    return st;
}

tsr_status tsr_model_open(tsr_model **out, const char *path)
{
    return open_model(out, path, false);
}

tsr_status tsr_model_open_mute(tsr_model **out, const char *path)
{
    return open_model(out, path, true);
}

void tsr_model_close(tsr_model *model)
{
    if (model == NULL) {
        return;
    }
    tsr_text_clear(&model->pad);
    tsr_text_clear(&model->eos);
    tsr_text_clear(&model->bos);
    tsr_free(model->template_text);
    tsr_free(model->name);
    tsr_tokenizer_destroy(model->tokenizer);
    tsr_config_clear(&model->config);
    tsr_checkpoint_close(model->checkpoint);
    tsr_free(model);
}

const tsr_checkpoint *tsr_model_checkpoint(const tsr_model *model)
{
    return model->checkpoint;
}

const tsr_config *tsr_model_config(const tsr_model *model)
{
    return &model->config;
}

const tsr_tokenizer *tsr_model_tokenizer(const tsr_model *model)
{
    return model->tokenizer;
}

bool tsr_model_is_end(const tsr_model *model, int32_t id)
{
    for (int i = 0; i < model->n_ends; i++) {
        if (model->ends[i] == id) {
            return true;
        }
    }
    return model->tokenizer != NULL && tsr_tokenizer_is_end(model->tokenizer, id);
}

/* ---- facts -------------------------------------------------------------------------------------
 */

static uint64_t count_parameters(const tsr_model *model)
{
    uint64_t n_parameters = 0;

    for (int i = 0; i < tsr_checkpoint_count(model->checkpoint); i++) {
        n_parameters += (uint64_t)tsr_packed_count(&model->config.packing,
                                                   tsr_checkpoint_at(model->checkpoint, i));
    }
    return n_parameters;
}

tsr_model_facts tsr_model_describe(const tsr_model *model)
{
    const tsr_config *c = &model->config;
    const tsr_gguf *gguf = tsr_checkpoint_gguf(model->checkpoint);
    const int64_t n_merges = gguf == NULL ? 0 : tsr_gguf_array_count(gguf, "tokenizer.ggml.merges");
    const tsr_tokenizer *tokenizer = model->tokenizer;

    return (tsr_model_facts){
        .name = model->name,
        .architecture = c->family->name,
        .n_layers = c->n_layers,
        .dim = c->shape.dim,
        .n_heads = c->shape.n_heads,
        .n_kv_heads = c->shape.n_kv_heads,
        .head_dim = c->shape.head_dim,
        .ff_dim = c->shape.ff_dim,
        .n_vocab = c->shape.n_vocab,
        .context = c->context,
        .norm_eps = (double)c->norm_eps,
        .rope_base = c->n_ropes > 0 ? c->ropes[0].base : 0,
        .rope_pairs = c->n_ropes == 0                         ? "none"
                      : c->rope_pairs == TSR_ROPE_INTERLEAVED ? "interleaved"
                                                              : "halves",
        .rope_scaling = model->scaling,
        .tied_head = c->tied_head,
        .qkv_bias = (c->biases & TSR_ROLE_BIT(TSR_ROLE_Q)) != 0 ||
                    (gguf != NULL && tsr_gguf_find(gguf, "blk.0.attn_q.bias") != NULL),
        .n_tensors = tsr_checkpoint_count(model->checkpoint),
        .n_parameters = count_parameters(model),
        .file_bytes = tsr_checkpoint_file_bytes(model->checkpoint),
        .tokenizer = model->tokenizer_name,
        .n_tokens = tokenizer == NULL ? 0 : tsr_tokenizer_n_vocab(tokenizer),
        .n_merges = n_merges > 0 ? (int)n_merges : 0,
        .bos = tokenizer == NULL ? -1 : tsr_tokenizer_bos(tokenizer),
        .eos = model->n_ends > 0   ? model->ends[0]
               : tokenizer == NULL ? -1
                                   : tsr_tokenizer_eos(tokenizer),
        .chat_form = tsr_chat_form_name(model->template_text, strlen(model->template_text)),
        .chat_template = model->template_text,
    };
}

bool tsr_model_kv_at(const tsr_model *model, int i, tsr_model_kv *out)
{
    const tsr_config *c = &model->config;
    const tsr_kv_layout layout = {
        .n_layers = c->n_kv_layers,
        .n_kv_heads = (int)c->shape.n_kv_heads,
        .key_dim = c->shape.head_dim,
        .value_dim = c->shape.head_dim,
        .block_tokens = 64,
        .type = (tsr_kv_type)i,
    };

    if (i < 0 || i >= TSR_KV_TYPE_COUNT) {
        return false;
    }
    out->type = tsr_kv_type_name(layout.type);
    out->bytes_per_token = (tsr_kv_layout_block_bytes(&layout) + 63) / 64;
    return true;
}

bool tsr_model_reach_at(const tsr_model *model, int i, tsr_model_reach *out)
{
    const tsr_config *c = &model->config;
    int64_t known[TSR_CONFIG_GROUPS];
    int n_known = 0;

    // Groups of the same reach follow one another.
    for (int g = 0; g < c->n_groups; g++) {
        if (g == 0 || c->reach[g] != known[n_known - 1]) {
            known[n_known++] = c->reach[g];
        }
    }
    if (i < 0 || i >= n_known) {
        return false;
    }
    *out = (tsr_model_reach){.n_positions = known[i]};
    for (int layer = 0; layer < c->n_layers; layer++) {
        const tsr_layer_config *l = &c->layers[layer];

        out->n_layers += l->makes_kv && c->reach[l->group] == known[i] ? 1 : 0;
    }
    return true;
}

bool tsr_model_encoding_at(const tsr_model *model, int i, tsr_model_encoding *out)
{
    const tsr_packing *packing = &model->config.packing;

    for (int e = 0; e <= TSR_ENCODING_COUNT; e++) { // the last: codes of packed weights
        tsr_model_encoding found = {.name = e == TSR_ENCODING_COUNT
                                                ? tsr_packing_name(packing)
                                                : tsr_encoding_describe((tsr_encoding)e)->name};

        for (int t = 0; t < tsr_checkpoint_count(model->checkpoint); t++) {
            const tsr_stored_tensor *tensor = tsr_checkpoint_at(model->checkpoint, t);

            if (tensor->encoding == (tsr_encoding)e) {
                found.n_tensors++;
                found.n_elements += (uint64_t)tsr_packed_count(packing, tensor);
                found.n_bytes += tensor->n_bytes;
            }
        }
        if (found.n_tensors > 0 && i-- == 0) {
            *out = found;
            return true;
        }
    }
    return false;
}

/* The same of config.json. */
static bool config_at(const tsr_model *model, int i, char *key, size_t key_bytes, char *value,
                      size_t value_bytes)
{
    const tsr_hf_keys keys = tsr_checkpoint_config(model->checkpoint);
    const char *name;
    const json_t *one;

    json_object_foreach((json_t *)(uintptr_t)keys.object, name, one)
    {
        if (i-- == 0) {
            const size_t n =
                json_dumpb(one, value, value_bytes - 1, JSON_ENCODE_ANY | JSON_COMPACT);

            (void)snprintf(key, key_bytes, "%s", name);
            value[n < value_bytes ? n : value_bytes - 1] = '\0';
            return true;
        }
    }
    return false;
}

bool tsr_model_metadata_at(const tsr_model *model, int i, char *key, size_t key_bytes, char *value,
                           size_t value_bytes)
{
    const tsr_gguf *gguf = tsr_checkpoint_gguf(model->checkpoint);
    tsr_gguf_text name;

    if (gguf == NULL) {
        return config_at(model, i, key, key_bytes, value, value_bytes);
    }
    if (i < 0 || i >= tsr_gguf_key_count(gguf)) {
        return false;
    }
    name = tsr_gguf_key_name(gguf, i);
    (void)snprintf(key, key_bytes, "%.*s", name.n_bytes < 256 ? (int)name.n_bytes : 256,
                   name.bytes);
    tsr_gguf_key_value(gguf, i, value, value_bytes);
    return true;
}

tsr_status tsr_model_share_of(const tsr_model *model, int rank, int n_ranks, tsr_model_share *out)
{
    const tsr_config *c = &model->config;
    tsr_shard shard;
    size_t weight_bytes;

    if (n_ranks < 1 || rank < 0 || rank >= n_ranks) {
        return tsr_fail(TSR_ERR_ARG, "rank %d of %d ranks", rank, n_ranks);
    }
    shard = tsr_shard_of(&c->shape, rank, n_ranks);
    TSR_TRY(tsr_weights_measure(&weight_bytes, model->checkpoint, c, &shard, TSR_FORMAT_COUNT,
                                TSR_DEVICE_CPU));
    *out = (tsr_model_share){
        .first_head = shard.heads.first,
        .n_heads = shard.heads.count,
        .first_kv_head = shard.kv_heads.first,
        .n_kv_heads = shard.kv_heads.count,
        .first_ff = shard.ff.first,
        .n_ff = shard.ff.count,
        .first_vocab = shard.vocab.first,
        .n_vocab = shard.vocab.count,
        .weight_bytes = weight_bytes,
        .kv_bytes_per_token =
            (uint64_t)(2 * c->n_kv_layers * shard.kv_heads.count *
                       (tsr_config_key_dim(c) + (c->kv_low > 0 ? 0 : tsr_config_value_dim(c)))),
    };
    return TSR_OK;
}
