#include <string.h>

#include "base/alloc.h"
#include "engine/chat.h"
#include "engine/model_state.h"

static tsr_status need_tokenizer(const tsr_model *model)
{
    return model->tokenizer != NULL
               ? TSR_OK
               : tsr_fail(TSR_ERR_UNSUPPORTED, "the model has no tokenizer that is known");
}

tsr_status tsr_model_tokenize(const tsr_model *model, const char *text, size_t n_bytes,
                              bool match_special, int32_t **ids, int64_t *n_ids)
{
    tsr_ids list = {0};
    tsr_status st;

    TSR_TRY(need_tokenizer(model));
    st = tsr_tokenizer_encode(model->tokenizer, &list, text, n_bytes, match_special);
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
    tsr_status st;

    TSR_TRY(need_tokenizer(model));
    st = tsr_text_append(&whole, "", 0);
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

tsr_status tsr_model_token_text(const tsr_model *model, int32_t id, char **text, size_t *n_bytes)
{
    tsr_text whole = {0};
    tsr_status st;

    TSR_TRY(need_tokenizer(model));
    st = tsr_text_append(&whole, "", 0);
    if (st == TSR_OK) {
        st = tsr_tokenizer_decode(model->tokenizer, NULL, &whole, id, true);
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
    tsr_status st;

    TSR_TRY(need_tokenizer(model));
    st = append_all(&list, tsr_tokenizer_before(model->tokenizer));
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
    tsr_status st;

    TSR_TRY(need_tokenizer(model));
    st = tsr_chat_render(&rendered, &said, model->template_text, strlen(model->template_text),
                         &tokens, messages, n_messages);
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

    TSR_TRY(need_tokenizer(model));
    TSR_TRY_GOTO(st, done,
                 tsr_chat_render_json(&rendered, &said, model->template_text,
                                      strlen(model->template_text), &tokens, json, json_bytes));
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
