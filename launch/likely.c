#include "launch/likely.h"

#include <string.h>

#include "base/alloc.h"
#include "launch/out.h"

/* Room for n elements; *room is what there is. NULL: there is no memory. */
static void *grown(void *block, int *room, int n, size_t elem_bytes)
{
    const int wanted = *room >= n ? *room : n < 32 ? 64 : 2 * n;
    void *to = *room >= n ? block : tsr_alloc_resize(block, (size_t)wanted, elem_bytes);

    *room = to != NULL ? wanted : *room;
    return to;
}

tsr_status tsr_likely_append(tsr_likely *likely, int32_t id, double logprob,
                             const tsr_top_token *top, int n_top)
{
    tsr_likely_token *tokens =
        grown(likely->tokens, &likely->tokens_room, likely->n_tokens + 1, sizeof(*likely->tokens));

    if (tokens == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d log-probabilities", likely->n_tokens + 1);
    }
    likely->tokens = tokens;
    if (n_top > 0) {
        tsr_top_token *all =
            grown(likely->top, &likely->top_room, likely->n_top + n_top, sizeof(*likely->top));

        if (all == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for %d log-probabilities",
                            likely->n_top + n_top);
        }
        likely->top = all;
        memcpy(all + likely->n_top, top, (size_t)n_top * sizeof(*all));
    }
    tokens[likely->n_tokens++] =
        (tsr_likely_token){.id = id, .logprob = logprob, .top_at = likely->n_top, .n_top = n_top};
    likely->n_top += n_top;
    return TSR_OK;
}

void tsr_likely_clear(tsr_likely *likely)
{
    tsr_free(likely->tokens);
    tsr_free(likely->top);
    *likely = (tsr_likely){0};
}

static json_t *token_object(const tsr_model *model, int32_t id, double logprob)
{
    char *text = NULL;
    size_t n_bytes = 0;
    json_t *words;

    if (tsr_model_token_text(model, id, &text, &n_bytes) != TSR_OK) {
        n_bytes = 0; // the vocabulary may be larger than the tokenizer's
    }
    words = tsr_out_json_text(text != NULL ? text : "", n_bytes);
    tsr_tessera_free(text);
    return json_pack("{s:i, s:o, s:o}", "id", (int)id, "text", words, "logprob",
                     tsr_out_json_real(logprob));
}

json_t *tsr_likely_json(const tsr_likely *likely, const tsr_model *model)
{
    json_t *list = json_array();

    for (int i = 0; i < likely->n_tokens; i++) {
        const tsr_likely_token *token = &likely->tokens[i];
        json_t *object = token_object(model, token->id, token->logprob);
        json_t *top = json_array();

        for (int k = 0; k < token->n_top; k++) {
            const tsr_top_token *candidate = &likely->top[token->top_at + k];

            if (json_array_append_new(
                    top, token_object(model, candidate->id, candidate->logprob)) != 0) {
                json_decref(top);
                top = NULL;
            }
        }
        if (json_object_set_new(object, "top", top) != 0 ||
            json_array_append_new(list, object) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}
