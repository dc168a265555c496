#include <string.h>

#include "base/alloc.h"
#include "engine/text/json_field.h"
#include "engine/text/tokenizer_model.h"

static const char OF[] = "added_tokens";

enum {
    MOST_SPECIAL_BYTES = 4096 // of an added token
};

/* The tokens by their ids, while they are gathered. */
typedef struct gathered {
    tsr_vocab_token *tokens; // [n_tokens], owned, as the next
    uint32_t *marks;         // [n_tokens] 0: not added
    int64_t n_tokens;        // the largest id and one
    int64_t n_entries;       // how many there are
} gathered;

static tsr_status bad_id(int64_t id, int64_t n_entries)
{
    return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: id %lld in a vocabulary of %lld tokens",
                    (long long)id, (long long)n_entries);
}

/* Ids may have holes, but not so large ones that a small file asks for a huge table. */
static tsr_status count_id(gathered *g, const json_t *id)
{
    const int64_t number = json_is_integer(id) ? json_integer_value(id) : -1;

    if (number < 0 || number >= TSR_VOCAB_MOST_TOKENS ||
        number > 2 * g->n_entries + INT16_MAX * 4) {
        return bad_id(number, g->n_entries);
    }
    g->n_tokens = number >= g->n_tokens ? number + 1 : g->n_tokens;
    return TSR_OK;
}

static tsr_status count_tokens(gathered *g, json_t *vocab, const json_t *added)
{
    const json_t *token;
    const json_t *id;
    const char *key;
    size_t i;

    g->n_entries =
        (int64_t)(json_is_object(vocab) ? json_object_size(vocab) : json_array_size(vocab)) +
        (int64_t)json_array_size(added);
    if (json_is_array(vocab)) {
        g->n_tokens = (int64_t)json_array_size(vocab);
    }
    json_object_foreach(vocab, key, id)
    {
        TSR_TRY(count_id(g, id));
    }
    json_array_foreach(added, i, token)
    {
        TSR_TRY(count_id(g, json_object_get(token, "id")));
    }
    if (g->n_tokens == 0 || g->n_tokens > TSR_VOCAB_MOST_TOKENS) {
        return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: a vocabulary of %lld tokens",
                        (long long)g->n_tokens);
    }
    return TSR_OK;
}

static tsr_status put(gathered *g, int64_t id, tsr_text_view text, tsr_token_kind kind)
{
    tsr_vocab_token *token = &g->tokens[id];

    if (token->text.bytes != NULL && (token->text.n_bytes != text.n_bytes ||
                                      memcmp(token->text.bytes, text.bytes, text.n_bytes) != 0)) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "tokenizer.json: token %lld is both \"%.40s\" and \"%.40s\"", (long long)id,
                        token->text.bytes, text.bytes);
    }
    *token = (tsr_vocab_token){text, kind};
    return TSR_OK;
}

/* {"text": id, ...} of BPE, [["text", score], ...] of Unigram. */
static tsr_status gather_vocab(gathered *g, json_t *vocab)
{
    const json_t *pair;
    const json_t *id;
    const char *key;
    size_t i;

    json_object_foreach(vocab, key, id)
    {
        TSR_TRY(put(g, json_integer_value(id), (tsr_text_view){key, strlen(key)},
                    TSR_TOKEN_KIND_NORMAL));
    }
    json_array_foreach(vocab, i, pair)
    {
        const json_t *text = json_array_get(pair, 0);

        if (!json_is_string(text)) {
            return tsr_fail(TSR_ERR_FORMAT,
                            "tokenizer.json: entry %zu of the vocabulary is no text and score", i);
        }
        TSR_TRY(put(g, (int64_t)i,
                    (tsr_text_view){json_string_value(text), json_string_length(text)},
                    TSR_TOKEN_KIND_NORMAL));
    }
    return TSR_OK;
}

static tsr_status read_flags(uint32_t *marks, const json_t *token)
{
    static const struct {
        const char *key;
        uint32_t mark;
    } flags[] = {{"special", TSR_SPECIAL_CONTROL},
                 {"normalized", TSR_SPECIAL_NORMALIZED},
                 {"lstrip", TSR_SPECIAL_TAKES_LEFT},
                 {"rstrip", TSR_SPECIAL_TAKES_RIGHT},
                 {"single_word", TSR_SPECIAL_WORD}};

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        bool is_set = (*marks & flags[i].mark) != 0;

        TSR_TRY(tsr_json_field_bool(&is_set, token, flags[i].key, OF));
        *marks = is_set ? *marks | flags[i].mark : *marks & ~flags[i].mark;
    }
    *marks &= ~(uint32_t)TSR_SPECIAL_DEFINED;
    *marks |= (*marks & TSR_SPECIAL_CONTROL) != 0 ? 0 : TSR_SPECIAL_DEFINED;
    return TSR_OK;
}

/* Of an added token that is yet to be put in its place. */
static tsr_token_kind kind_of(const gathered *g, int64_t id)
{
    if ((g->marks[id] & TSR_SPECIAL_CONTROL) != 0) {
        return TSR_TOKEN_KIND_CONTROL;
    }
    return g->tokens[id].text.bytes != NULL && g->tokens[id].kind != TSR_TOKEN_KIND_ADDED
               ? TSR_TOKEN_KIND_USER_DEFINED
               : TSR_TOKEN_KIND_ADDED;
}

static tsr_status gather_added(gathered *g, const json_t *added, const json_t *config)
{
    const json_t *overrides = json_object_get(config, "added_tokens_decoder");
    const json_t *token;
    size_t i;

    json_array_foreach(added, i, token)
    {
        const int64_t id = json_integer_value(json_object_get(token, "id"));
        tsr_text_view content = {"", 0};
        tsr_text_view also = {"", 0};
        const json_t *override;
        char key[24];

        TSR_TRY(tsr_json_field_text(&content, token, "content", OF));
        if (content.n_bytes == 0) {
            continue; // nothing can be found by it
        }
        if (content.n_bytes > MOST_SPECIAL_BYTES) {
            return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: added token %lld has %zu bytes",
                            (long long)id, content.n_bytes);
        }
        TSR_TRY(read_flags(&g->marks[id], token));
        (void)snprintf(key, sizeof(key), "%lld", (long long)id);
        override = json_object_get(overrides, key);
        TSR_TRY(tsr_json_field_text(&also, override, "content", OF));
        if (also.n_bytes == content.n_bytes &&
            memcmp(also.bytes, content.bytes, content.n_bytes) == 0) {
            TSR_TRY(read_flags(&g->marks[id], override));
        }
        TSR_TRY(put(g, id, content, kind_of(g, id)));
    }
    return TSR_OK;
}

/* The special tokens as they are, and those that are sought after normalizing as the normalizer
 * writes them. */
static tsr_status make_special(tsr_tokenizer *tok, const gathered *g)
{
    tsr_special_token *all = tsr_alloc((size_t)g->n_tokens, sizeof(*all));
    tsr_special_token *normalized = tsr_alloc((size_t)g->n_tokens, sizeof(*normalized));
    tsr_text letters = {0};
    tsr_normalizer_work work = {0};
    tsr_status st = TSR_OK;
    int n_normalized = 0;
    int n_all = 0;

    if (all == NULL || normalized == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "special tokens of %lld", (long long)g->n_tokens);
    }
    for (int64_t id = 0; id < g->n_tokens && st == TSR_OK; id++) {
        tsr_text_view text = g->tokens[id].text;
        bool lost;

        if (g->marks[id] == 0) {
            continue;
        }
        all[n_all++] = (tsr_special_token){text, (int32_t)id, g->marks[id]};
        if ((g->marks[id] & TSR_SPECIAL_NORMALIZED) == 0) {
            continue;
        }
        if (tok->normalizer != NULL) {
            st = tsr_normalizer_apply(tok->normalizer, &work, &text, text, true, &lost);
        }
        // Where it lies is told by its offset until all are there: the text moves as it grows.
        normalized[n_normalized++] =
            (tsr_special_token){{NULL, text.n_bytes}, (int32_t)id, g->marks[id]};
        st = st == TSR_OK ? tsr_text_append(&letters, text.bytes, text.n_bytes) : st;
    }
    for (size_t i = 0, at = 0; i < (size_t)n_normalized && st == TSR_OK; i++) {
        normalized[i].text.bytes = letters.bytes + at;
        at += normalized[i].text.n_bytes;
    }
    st = st == TSR_OK ? tsr_special_create(&tok->special, all, n_all) : st;
    if (st == TSR_OK && n_normalized > 0) {
        st = tsr_special_create(&tok->special_normalized, normalized, n_normalized);
    }
    tsr_normalizer_work_clear(&work);
    tsr_text_clear(&letters);
    tsr_free(normalized);
    tsr_free(all);
    return st;
}

tsr_status tsr_tokenizer_read_vocab(tsr_tokenizer *tok, const json_t *json, const json_t *config)
{
    json_t *vocab = json_object_get(json_object_get(json, "model"), "vocab");
    const json_t *added;
    gathered g = {0};
    tsr_status st = TSR_OK;

    TSR_TRY(tsr_json_field_list(&added, json, "added_tokens", "tokenizer.json"));
    if (!json_is_object(vocab) && !json_is_array(vocab)) {
        return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: the model has no vocab");
    }
    TSR_TRY(count_tokens(&g, vocab, added));
    g.tokens = tsr_alloc((size_t)g.n_tokens, sizeof(*g.tokens));
    g.marks = tsr_alloc((size_t)g.n_tokens, sizeof(*g.marks));
    if (g.tokens == NULL || g.marks == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "vocabulary of %lld tokens", (long long)g.n_tokens);
        goto done;
    }
    TSR_TRY_GOTO(st, done, gather_vocab(&g, vocab));
    TSR_TRY_GOTO(st, done, gather_added(&g, added, config));
    for (int64_t id = 0; id < g.n_tokens; id++) { // a hole is a token without text
        g.tokens[id].kind =
            g.tokens[id].text.bytes != NULL ? g.tokens[id].kind : TSR_TOKEN_KIND_UNUSED;
    }
    TSR_TRY_GOTO(st, done, tsr_vocab_create(&tok->vocab, g.tokens, g.n_tokens));
    st = make_special(tok, &g);

done:
    tsr_free(g.marks);
    tsr_free(g.tokens);
    return st;
}
