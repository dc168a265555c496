#include "engine/model.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/chat.h"
#include "engine/weights.h"

enum {
    SHORT_BYTES = 64
};

struct tsr_model {
    tsr_gguf *gguf;
    tsr_config config;
    tsr_tokenizer *tokenizer; /* NULL when mute */
    tsr_gguf_text template_text;
    char *name; /* owned texts of the facts */
    char *template_copy;
    tsr_text bos, eos, pad; /* texts of these tokens; NULL bytes: none */
    char scaling[SHORT_BYTES];
    char tokenizer_name[SHORT_BYTES];
};

static char *text_of_key(const tsr_gguf *gguf, const char *key)
{
    tsr_gguf_text text = {"", 0};

    (void)tsr_gguf_string(gguf, key, &text);
    return tsr_alloc_text(text.bytes, text.n_bytes);
}

static void describe_scaling(tsr_model *model)
{
    const tsr_config *c = &model->config;

    if (c->rope_has_factors) {
        (void)snprintf(model->scaling, SHORT_BYTES, "factors in the file");
    } else if (c->rope_scaling == TSR_ROPE_SCALING_LINEAR) {
        (void)snprintf(model->scaling, SHORT_BYTES, "linear %g", c->rope_factor);
    } else if (c->rope_scaling == TSR_ROPE_SCALING_YARN) {
        (void)snprintf(model->scaling, SHORT_BYTES, "yarn %g (original %lld)", c->rope_factor,
                       (long long)c->rope_original_context);
    } else {
        (void)snprintf(model->scaling, SHORT_BYTES, "none");
    }
}

static void describe_tokenizer(tsr_model *model)
{
    tsr_gguf_text kind = {"none", 4};
    tsr_gguf_text pre = {"default", 7};

    (void)tsr_gguf_string(model->gguf, "tokenizer.ggml.model", &kind);
    (void)tsr_gguf_string(model->gguf, "tokenizer.ggml.pre", &pre);
    (void)snprintf(model->tokenizer_name, SHORT_BYTES, "%.*s (%.*s)",
                   kind.n_bytes < 24 ? (int)kind.n_bytes : 24, kind.bytes,
                   pre.n_bytes < 24 ? (int)pre.n_bytes : 24, pre.bytes);
}

static tsr_status check_vocabulary(const tsr_model *model)
{
    const int n_tokens = tsr_tokenizer_n_vocab(model->tokenizer);

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
    const int32_t ids[] = {tsr_tokenizer_bos(model->tokenizer), tsr_tokenizer_eos(model->tokenizer),
                           tsr_tokenizer_pad(model->tokenizer)};
    tsr_text *const texts[] = {&model->bos, &model->eos, &model->pad};

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
    TSR_TRY_GOTO(st, fail, tsr_gguf_open(&model->gguf, path));
    TSR_TRY_GOTO(st, fail, tsr_config_read(&model->config, model->gguf));
    if (!mute) {
        TSR_TRY_GOTO(st, fail, tsr_tokenizer_create(&model->tokenizer, model->gguf));
        TSR_TRY_GOTO(st, fail, check_vocabulary(model));
        TSR_TRY_GOTO(st, fail, read_token_texts(model));
    }
    model->template_text = (tsr_gguf_text){"", 0};
    (void)tsr_gguf_string(model->gguf, "tokenizer.chat_template", &model->template_text);
    model->name = text_of_key(model->gguf, "general.name");
    model->template_copy = text_of_key(model->gguf, "tokenizer.chat_template");
    if (model->name == NULL || model->template_copy == NULL) {
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
    tsr_free(model->template_copy);
    tsr_free(model->name);
    tsr_tokenizer_destroy(model->tokenizer);
    tsr_config_clear(&model->config);
    tsr_gguf_close(model->gguf);
    tsr_free(model);
}

const tsr_gguf *tsr_model_gguf(const tsr_model *model)
{
    return model->gguf;
}

const tsr_config *tsr_model_config(const tsr_model *model)
{
    return &model->config;
}

const tsr_tokenizer *tsr_model_tokenizer(const tsr_model *model)
{
    return model->tokenizer;
}

/* ---- facts -------------------------------------------------------------------------------------
 */

static uint64_t elements_of(const tsr_gguf_tensor *tensor)
{
    return (uint64_t)(tensor->shape[0] * tensor->shape[1] * tensor->shape[2] * tensor->shape[3]);
}

static uint64_t count_parameters(const tsr_gguf *gguf)
{
    uint64_t n_parameters = 0;

    for (int i = 0; i < tsr_gguf_tensor_count(gguf); i++) {
        n_parameters += elements_of(tsr_gguf_tensor_at(gguf, i));
    }
    return n_parameters;
}

tsr_model_facts tsr_model_describe(const tsr_model *model)
{
    const tsr_config *c = &model->config;
    const int64_t n_merges = tsr_gguf_array_count(model->gguf, "tokenizer.ggml.merges");

    return (tsr_model_facts){
        .name = model->name,
        .architecture = c->family->architecture,
        .n_layers = c->n_layers,
        .dim = c->shape.dim,
        .n_heads = c->shape.n_heads,
        .n_kv_heads = c->shape.n_kv_heads,
        .head_dim = c->shape.head_dim,
        .ff_dim = c->shape.ff_dim,
        .n_vocab = c->shape.n_vocab,
        .context = c->context,
        .norm_eps = (double)c->norm_eps,
        .rope_base = c->rope_base,
        .rope_pairs = c->family->rope_pairs == TSR_ROPE_INTERLEAVED ? "interleaved" : "halves",
        .rope_scaling = model->scaling,
        .tied_head = c->tied_head,
        .qkv_bias = tsr_gguf_find(model->gguf, "blk.0.attn_q.bias") != NULL,
        .n_tensors = tsr_gguf_tensor_count(model->gguf),
        .n_parameters = count_parameters(model->gguf),
        .file_bytes = tsr_gguf_file_bytes(model->gguf),
        .tokenizer = model->tokenizer_name,
        .n_tokens = tsr_tokenizer_n_vocab(model->tokenizer),
        .n_merges = n_merges > 0 ? (int)n_merges : 0,
        .bos = tsr_tokenizer_bos(model->tokenizer),
        .eos = tsr_tokenizer_eos(model->tokenizer),
        .chat_form = tsr_chat_form_name(model->template_copy, model->template_text.n_bytes),
        .chat_template = model->template_copy,
    };
}

bool tsr_model_encoding_at(const tsr_model *model, int i, tsr_model_encoding *out)
{
    for (int e = 0; e < TSR_ENCODING_COUNT; e++) {
        tsr_model_encoding found = {.name = tsr_encoding_describe((tsr_encoding)e)->name};

        for (int t = 0; t < tsr_gguf_tensor_count(model->gguf); t++) {
            const tsr_gguf_tensor *tensor = tsr_gguf_tensor_at(model->gguf, t);

            if (tensor->encoding == (tsr_encoding)e) {
                found.n_tensors++;
                found.n_elements += elements_of(tensor);
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

bool tsr_model_metadata_at(const tsr_model *model, int i, char *key, size_t key_bytes, char *value,
                           size_t value_bytes)
{
    tsr_gguf_text name;

    if (i < 0 || i >= tsr_gguf_key_count(model->gguf)) {
        return false;
    }
    name = tsr_gguf_key_name(model->gguf, i);
    (void)snprintf(key, key_bytes, "%.*s", name.n_bytes < 256 ? (int)name.n_bytes : 256,
                   name.bytes);
    tsr_gguf_key_value(model->gguf, i, value, value_bytes);
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
    TSR_TRY(tsr_weights_measure(&weight_bytes, model->gguf, c, &shard));
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
            (uint64_t)(4 * c->n_layers * shard.kv_heads.count * c->shape.head_dim),
    };
    return TSR_OK;
}

/* ---- text --------------------------------------------------------------------------------------
 */

tsr_status tsr_model_tokenize(const tsr_model *model, const char *text, size_t n_bytes,
                              bool match_special, int32_t **ids, int64_t *n_ids)
{
    tsr_ids list = {0};
    const tsr_status st =
        tsr_tokenizer_encode(model->tokenizer, &list, text, n_bytes, match_special);

    if (st != TSR_OK) {
        tsr_ids_clear(&list);
        return st;
    }
    *ids = list.ids;
    *n_ids = list.n_ids;
    return TSR_OK;
}

tsr_status tsr_model_detokenize(const tsr_model *model, const int32_t *ids, int64_t n_ids,
                                bool show_special, char **text, size_t *n_bytes)
{
    tsr_text whole = {0};
    tsr_token_stream stream = {0};
    tsr_status st = tsr_text_append(&whole, "", 0);

    for (int64_t i = 0; i < n_ids && st == TSR_OK; i++) {
        st = tsr_tokenizer_decode(model->tokenizer, &stream, &whole, ids[i], show_special);
    }
    if (st != TSR_OK) {
        tsr_text_clear(&whole);
        return st;
    }
    *text = whole.bytes;
    *n_bytes = whole.n_bytes;
    return TSR_OK;
}

static tsr_status append_all(tsr_ids *list, const tsr_ids *more)
{
    for (int64_t i = 0; i < more->n_ids; i++) {
        TSR_TRY(tsr_ids_append(list, more->ids[i]));
    }
    return TSR_OK;
}

/* The text's ids, between those that the model wants around a prompt. */
tsr_status tsr_model_prompt_ids(const tsr_model *model, const char *text, size_t n_bytes,
                                int32_t **ids, int64_t *n_ids)
{
    tsr_ids list = {0};
    tsr_status st = append_all(&list, tsr_tokenizer_before(model->tokenizer));

    if (st == TSR_OK) {
        st = tsr_tokenizer_encode(model->tokenizer, &list, text, n_bytes, true);
    }
    if (st == TSR_OK) {
        st = append_all(&list, tsr_tokenizer_after(model->tokenizer));
    }
    if (st != TSR_OK) {
        tsr_ids_clear(&list);
        return st;
    }
    *ids = list.ids;
    *n_ids = list.n_ids;
    return TSR_OK;
}

static tsr_chat_template_tokens tokens_of(const tsr_model *model)
{
    return (tsr_chat_template_tokens){
        .bos = model->bos.bytes, .eos = model->eos.bytes, .pad = model->pad.bytes};
}

/* The ids of a rendered conversation. Its template has written BOS where the model wants it; in
 * what was said no control token is recognised. */
static tsr_status rendered_ids(const tsr_model *model, const tsr_text *rendered,
                               const tsr_chat_template_said *said, int32_t **ids, int64_t *n_ids)
{
    tsr_ids list = {0};
    const tsr_status st = tsr_tokenizer_encode_marked(model->tokenizer, &list, rendered->bytes,
                                                      rendered->n_bytes, said->runs, said->n_runs);

    if (st != TSR_OK) {
        tsr_ids_clear(&list);
        return st;
    }
    *ids = list.ids;
    *n_ids = list.n_ids;
    return TSR_OK;
}

tsr_status tsr_model_conversation_ids(const tsr_model *model, const tsr_chat_message *messages,
                                      int n_messages, int32_t **ids, int64_t *n_ids)
{
    const tsr_chat_template_tokens tokens = tokens_of(model);
    tsr_chat_template_said said = {0};
    tsr_text rendered = {0};
    tsr_status st = tsr_chat_render(&rendered, &said, model->template_text.bytes,
                                    model->template_text.n_bytes, &tokens, messages, n_messages);

    if (st == TSR_OK) {
        st = rendered_ids(model, &rendered, &said, ids, n_ids);
    }
    tsr_free(said.runs);
    tsr_text_clear(&rendered);
    return st;
}

tsr_status tsr_model_chat_request_ids(const tsr_model *model, const char *json, size_t json_bytes,
                                      char **text, size_t *n_bytes, int32_t **ids, int64_t *n_ids)
{
    const tsr_chat_template_tokens tokens = tokens_of(model);
    tsr_chat_template_said said = {0};
    tsr_text rendered = {0};
    tsr_status st;

    TSR_TRY_GOTO(st, done,
                 tsr_chat_render_json(&rendered, &said, model->template_text.bytes,
                                      model->template_text.n_bytes, &tokens, json, json_bytes));
    if (ids != NULL) {
        TSR_TRY_GOTO(st, done, rendered_ids(model, &rendered, &said, ids, n_ids));
    }
    if (text != NULL) {
        *text = rendered.bytes;
        *n_bytes = rendered.n_bytes;
        rendered = (tsr_text){0};
    }

done:
    tsr_free(said.runs);
    tsr_text_clear(&rendered);
    return st;
}

tsr_status tsr_model_chat_ids(const tsr_model *model, const char *system, const char *user,
                              int32_t **ids, int64_t *n_ids)
{
    const tsr_chat_message messages[] = {{"system", system}, {"user", user}};
    const int first = system == NULL ? 1 : 0;

    return tsr_model_conversation_ids(model, messages + first, 2 - first, ids, n_ids);
}
