#include <string.h>

#include "base/alloc.h"
#include "engine/text/json_field.h"
#include "engine/text/postprocessor.h"
#include "engine/text/tokenizer_model.h"

static const char OF[] = "tokenizer_config.json";

static tsr_status read_json(json_t **out, const char *name, const char *bytes, size_t n_bytes)
{
    json_error_t error;

    *out = json_loadb(bytes, n_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (*out == NULL && json_error_code(&error) == json_error_out_of_memory) {
        return tsr_fail(TSR_ERR_NOMEM, "no room to read %s of %zu bytes", name, n_bytes);
    }
    if (*out == NULL) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: line %d: %s", name, error.line, error.text);
    }
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return tsr_fail(TSR_ERR_FORMAT, "%s is no object", name);
    }
    return TSR_OK;
}

/* ---- tokenizer_config.json ---------------------------------------------------------------------
 */

/* The token that is named "text" or {"content": "text"}; -1 if there is none. */
static int32_t read_named(const tsr_tokenizer *tok, const json_t *config, const char *key)
{
    const json_t *name = json_object_get(config, key);

    if (json_is_object(name)) {
        name = json_object_get(name, "content");
    }
    return json_is_string(name)
               ? tsr_vocab_find(tok->vocab,
                                (tsr_text_view){json_string_value(name), json_string_length(name)},
                                (tsr_text_view){"", 0})
               : -1;
}

/* A text, or a list of {"name", "template"} of which "default" is meant. */
static tsr_status read_template(tsr_tokenizer *tok, const json_t *config)
{
    const json_t *value = json_object_get(config, "chat_template");
    const json_t *named;
    size_t i;

    if (json_is_array(value)) {
        const json_t *list = value;

        value = json_object_get(json_array_get(list, 0), "template");
        json_array_foreach(list, i, named)
        {
            const char *name = json_string_value(json_object_get(named, "name"));

            if (name != NULL && strcmp(name, "default") == 0) {
                value = json_object_get(named, "template");
            }
        }
    }
    if (!json_is_string(value)) {
        return TSR_OK;
    }
    tok->chat_template_bytes = json_string_length(value);
    tok->chat_template = tsr_alloc_text(json_string_value(value), tok->chat_template_bytes);
    return tok->chat_template != NULL
               ? TSR_OK
               : tsr_fail(TSR_ERR_NOMEM, "a chat template of %zu bytes", tok->chat_template_bytes);
}

/*
 * Some classes of tokenizer make what goes around a text anew from their settings, whatever the
 * post_processor says (github.com/huggingface/transformers, update_post_processor() of the fast
 * tokenizers).
 */
static tsr_status read_around(tsr_tokenizer *tok, const json_t *config)
{
    static const struct {
        const char *name;
        bool adds_bos;
    } classes[] = {{"LlamaTokenizer", true},     {"LlamaTokenizerFast", true},
                   {"CodeLlamaTokenizer", true}, {"CodeLlamaTokenizerFast", true},
                   {"GemmaTokenizer", true},     {"GemmaTokenizerFast", true},
                   {"CohereTokenizer", true},    {"CohereTokenizerFast", true},
                   {"GPTNeoXTokenizer", false},  {"GPTNeoXTokenizerFast", false}};
    tsr_text_view name = {"", 0};

    TSR_TRY(tsr_json_field_text(&name, config, "tokenizer_class", OF));
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (tsr_json_field_is(name, classes[i].name)) {
            bool adds_bos = classes[i].adds_bos;
            bool adds_eos = false;

            TSR_TRY(tsr_json_field_bool(&adds_bos, config, "add_bos_token", OF));
            TSR_TRY(tsr_json_field_bool(&adds_eos, config, "add_eos_token", OF));
            tsr_ids_clear(&tok->before);
            tsr_ids_clear(&tok->after);
            TSR_TRY(adds_bos && tok->bos >= 0 ? tsr_ids_append(&tok->before, tok->bos) : TSR_OK);
            TSR_TRY(adds_eos && tok->eos >= 0 ? tsr_ids_append(&tok->after, tok->eos) : TSR_OK);
        }
    }
    return TSR_OK;
}

static tsr_status read_config(tsr_tokenizer *tok, const json_t *config)
{
    tok->bos = read_named(tok, config, "bos_token");
    tok->eos = read_named(tok, config, "eos_token");
    tok->pad = read_named(tok, config, "pad_token");
    TSR_TRY(read_template(tok, config));
    return read_around(tok, config);
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static tsr_status read_all(tsr_tokenizer *tok, const json_t *json, const json_t *config)
{
    TSR_TRY(tsr_normalizer_create_json(&tok->normalizer, json_object_get(json, "normalizer")));
    TSR_TRY(tsr_pretokenizer_create_json(&tok->pre, json_object_get(json, "pre_tokenizer")));
    TSR_TRY(tsr_tokenizer_read_vocab(tok, json, config));
    TSR_TRY(tsr_tokenizer_read_model(tok, json_object_get(json, "model")));
    TSR_TRY(
        tsr_token_decoder_create_json(&tok->decoder, tok->vocab, json_object_get(json, "decoder")));
    TSR_TRY(tsr_postprocessor_read(&tok->before, &tok->after,
                                   json_object_get(json, "post_processor"),
                                   tsr_vocab_n_tokens(tok->vocab)));
    TSR_TRY(read_config(tok, config));
    return tsr_tokenizer_mark_ends(tok);
}

tsr_status tsr_tokenizer_open_json(tsr_tokenizer **out, const char *json, size_t n_bytes,
                                   const char *config_json, size_t n_config_bytes)
{
    json_t *read = NULL;
    json_t *config = NULL;
    tsr_tokenizer *tok = NULL;
    tsr_status st;

    st = read_json(&read, "tokenizer.json", json, n_bytes);
    if (st == TSR_OK && config_json != NULL) {
        st = read_json(&config, "tokenizer_config.json", config_json, n_config_bytes);
    }
    st = st == TSR_OK ? tsr_tokenizer_create_empty(&tok) : st;
    st = st == TSR_OK ? read_all(tok, read, config) : st;
    json_decref(config);
    json_decref(read);
    if (st != TSR_OK) {
        tsr_tokenizer_destroy(tok);
        return st;
    }
    *out = tok;
    return TSR_OK;
}
