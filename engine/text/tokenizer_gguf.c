#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/text/tokenizer_parts.h"

static const char *const KEY_TOKENS = "tokenizer.ggml.tokens";
static const char *const KEY_TYPES = "tokenizer.ggml.token_type";
static const char *const KEY_MERGES = "tokenizer.ggml.merges";
static const char *const KEY_SCORES = "tokenizer.ggml.scores";

static tsr_text_view text_of(const char *zero_ended)
{
    return (tsr_text_view){zero_ended, strlen(zero_ended)};
}

static bool same(tsr_text_view text, const char *zero_ended)
{
    return text.n_bytes == strlen(zero_ended) && memcmp(text.bytes, zero_ended, text.n_bytes) == 0;
}

/* ---- vocabulary --------------------------------------------------------------------------------
 */

/* tokens [n_tokens] */
static tsr_status read_tokens(tsr_vocab_token *tokens, const tsr_gguf *gguf, int32_t n_tokens)
{
    const int64_t n_types = tsr_gguf_array_count(gguf, KEY_TYPES);

    if (n_types >= 0 && n_types != n_tokens) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has %lld elements, %s has %d", KEY_TYPES,
                        (long long)n_types, KEY_TOKENS, n_tokens);
    }
    for (int32_t id = 0; id < n_tokens; id++) {
        int64_t type = TSR_TOKEN_KIND_NORMAL;

        if (!tsr_gguf_array_string(gguf, KEY_TOKENS, id, &tokens[id].text)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: element %d cannot be read", KEY_TOKENS, id);
        }
        if (n_types >= 0 && !tsr_gguf_array_int(gguf, KEY_TYPES, id, &type)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s holds no whole numbers", KEY_TYPES);
        }
        if (type < TSR_TOKEN_KIND_NORMAL || type > TSR_TOKEN_KIND_BYTE) {
            type = TSR_TOKEN_KIND_NORMAL;
        }
        tokens[id].kind = (tsr_token_kind)type;
    }
    return TSR_OK;
}

static tsr_status make_vocab(tsr_tokenizer *tok, const tsr_gguf *gguf)
{
    const int64_t n_tokens = tsr_gguf_array_count(gguf, KEY_TOKENS);
    tsr_vocab_token *tokens;
    tsr_status st;

    if (n_tokens <= 0) {
        return tsr_fail(TSR_ERR_FORMAT, "no vocabulary: %s is missing or empty", KEY_TOKENS);
    }
    if (n_tokens > TSR_VOCAB_MOST_TOKENS) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has %lld elements, more than any model", KEY_TOKENS,
                        (long long)n_tokens);
    }
    tokens = tsr_alloc((size_t)n_tokens, sizeof(*tokens));
    if (tokens == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "vocabulary of %lld tokens", (long long)n_tokens);
    }
    st = read_tokens(tokens, gguf, (int32_t)n_tokens);
    if (st == TSR_OK) {
        st = tsr_vocab_create(&tok->vocab, tokens, n_tokens);
    }
    tsr_free(tokens);
    return st;
}

static tsr_status make_special(tsr_tokenizer *tok)
{
    const int32_t n_tokens = tsr_vocab_n_tokens(tok->vocab);
    tsr_special_token *special = tsr_alloc((size_t)n_tokens, sizeof(*special));
    tsr_status st;
    int n = 0;

    if (special == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "special tokens of %d", n_tokens);
    }
    for (int32_t id = 0; id < n_tokens; id++) {
        const bool is_control = tsr_vocab_is_control(tok->vocab, id);

        if (is_control || tsr_vocab_kind(tok->vocab, id) == TSR_TOKEN_KIND_USER_DEFINED) {
            special[n++] = (tsr_special_token){.text = tsr_vocab_text(tok->vocab, id),
                                               .id = id,
                                               .marks = is_control ? TSR_SPECIAL_CONTROL
                                                                   : TSR_SPECIAL_DEFINED};
        }
    }
    st = tsr_special_create(&tok->special, special, n);
    tsr_free(special);
    return st;
}

/* ---- byte-level BPE ----------------------------------------------------------------------------
 */

/* rules [n_merges] */
static tsr_status read_merges(tsr_bpe_rule *rules, const tsr_gguf *gguf, const tsr_vocab *vocab,
                              uint32_t n_merges)
{
    for (uint32_t rank = 0; rank < n_merges; rank++) {
        tsr_text_view left;
        tsr_text_view right;
        const char *space;

        if (!tsr_gguf_array_string(gguf, KEY_MERGES, rank, &left)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: element %u cannot be read", KEY_MERGES, rank);
        }
        space = left.n_bytes > 1 ? memchr(left.bytes + 1, ' ', left.n_bytes - 1) : NULL;
        if (space == NULL) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: \"%.*s\" is not two tokens", KEY_MERGES,
                            (int)(left.n_bytes < 80 ? left.n_bytes : 80), left.bytes);
        }
        right.bytes = space + 1;
        right.n_bytes = left.n_bytes - (size_t)(right.bytes - left.bytes);
        left.n_bytes = (size_t)(space - left.bytes);
        TSR_TRY(tsr_bpe_rule_read(&rules[rank], vocab, left, right, 0));
        rules[rank].rank = rank;
    }
    return TSR_OK;
}

static tsr_status make_pretokenizer(tsr_tokenizer *tok, const tsr_gguf *gguf)
{
    tsr_text_view name;

    if (!tsr_gguf_string(gguf, "tokenizer.ggml.pre", &name)) {
        tsr_log_warn("the model file does not name its pre-tokenizer (tokenizer.ggml.pre): "
                     "\"default\" is taken, which may not be the model's own");
        name = text_of("default");
    }
    return tsr_pretokenizer_create(&tok->pre, name.bytes, name.n_bytes);
}

static tsr_status make_byte_level(tsr_tokenizer *tok, const tsr_gguf *gguf)
{
    const int64_t n_merges = tsr_gguf_array_count(gguf, KEY_MERGES);
    const tsr_bpe_options options = {
        .of_bytes = true, .keeps_whole = tsr_pretokenizer_keeps_whole(tok->pre), .unknown = -1};
    tsr_bpe_rule *rules;
    tsr_status st;

    if (n_merges < 0) {
        return tsr_fail(TSR_ERR_FORMAT, "no merges: %s is missing", KEY_MERGES);
    }
    if (n_merges > INT32_MAX / 4) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has %lld elements, more than any model", KEY_MERGES,
                        (long long)n_merges);
    }
    rules = tsr_alloc((size_t)n_merges, sizeof(*rules));
    if (rules == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "%lld merges", (long long)n_merges);
    }
    st = read_merges(rules, gguf, tok->vocab, (uint32_t)n_merges);
    if (st == TSR_OK) {
        st = tsr_bpe_create(&tok->bpe, tok->vocab, &options, rules, (uint32_t)n_merges);
    }
    tsr_free(rules);
    return st == TSR_OK ? tsr_token_decoder_create_bytes(&tok->decoder, tok->vocab) : st;
}

/* ---- SentencePiece -----------------------------------------------------------------------------
 */

static tsr_status read_scores(float *scores, const tsr_gguf *gguf, int32_t n_tokens)
{
    if (tsr_gguf_array_count(gguf, KEY_SCORES) != n_tokens) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has %lld elements, %s has %d", KEY_SCORES,
                        (long long)tsr_gguf_array_count(gguf, KEY_SCORES), KEY_TOKENS, n_tokens);
    }
    for (int32_t id = 0; id < n_tokens; id++) {
        double score;

        if (!tsr_gguf_array_float(gguf, KEY_SCORES, id, &score) || isnan(score)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: element %d is no number", KEY_SCORES, id);
        }
        scores[id] = (float)score;
    }
    return TSR_OK;
}

static int32_t find_unknown(const tsr_vocab *vocab)
{
    for (int32_t id = 0; id < tsr_vocab_n_tokens(vocab); id++) {
        if (tsr_vocab_kind(vocab, id) == TSR_TOKEN_KIND_UNKNOWN) {
            return id;
        }
    }
    return -1;
}

static tsr_status make_spm(tsr_tokenizer *tok, const tsr_gguf *gguf)
{
    const int32_t n_tokens = tsr_vocab_n_tokens(tok->vocab);
    const tsr_bpe_options options = {
        .falls_back = true, .fuses_unknown = true, .unknown = find_unknown(tok->vocab)};
    float *scores = tsr_alloc((size_t)n_tokens, sizeof(*scores));
    tsr_bpe_rule *rules = NULL;
    uint32_t n_rules = 0;
    bool adds_space = true;
    tsr_status st;

    if (scores == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "scores of %d tokens", n_tokens);
    }
    (void)tsr_gguf_bool(gguf, "tokenizer.ggml.add_space_prefix", &adds_space);
    st = read_scores(scores, gguf, n_tokens);
    st = st == TSR_OK ? tsr_spm_rules(&rules, &n_rules, tok->vocab, scores) : st;
    st = st == TSR_OK ? tsr_bpe_create(&tok->bpe, tok->vocab, &options, rules, n_rules) : st;
    tsr_free(rules);
    tsr_free(scores);
    TSR_TRY(st);
    TSR_TRY(tsr_normalizer_create_spm(&tok->normalizer, adds_space));
    TSR_TRY(tsr_pretokenizer_create_json(&tok->pre, NULL)); // a text is one piece
    return tsr_token_decoder_create_spm(&tok->decoder, tok->vocab, adds_space);
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

/* An id of the metadata, -1 if it is missing or no token. */
static int32_t read_id(const tsr_tokenizer *tok, const tsr_gguf *gguf, const char *key)
{
    int64_t id;

    if (!tsr_gguf_int(gguf, key, &id)) {
        return -1;
    }
    if (id < 0 || id >= tsr_vocab_n_tokens(tok->vocab)) {
        tsr_log_warn("%s is %lld, but the vocabulary has %d tokens: taken as missing", key,
                     (long long)id, tsr_vocab_n_tokens(tok->vocab));
        return -1;
    }
    return (int32_t)id;
}

static tsr_status read_around(tsr_tokenizer *tok, const tsr_gguf *gguf, bool wants_bos)
{
    bool wants_eos = false;

    (void)tsr_gguf_bool(gguf, "tokenizer.ggml.add_bos_token", &wants_bos);
    (void)tsr_gguf_bool(gguf, "tokenizer.ggml.add_eos_token", &wants_eos);
    if (wants_bos && tok->bos >= 0) {
        TSR_TRY(tsr_ids_append(&tok->before, tok->bos));
    }
    return wants_eos && tok->eos >= 0 ? tsr_ids_append(&tok->after, tok->eos) : TSR_OK;
}

static tsr_status read_all(tsr_tokenizer *tok, const tsr_gguf *gguf, bool is_spm)
{
    static const char *const ends[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};

    TSR_TRY(is_spm ? TSR_OK : make_pretokenizer(tok, gguf));
    TSR_TRY(make_vocab(tok, gguf));
    TSR_TRY(make_special(tok));
    TSR_TRY(is_spm ? make_spm(tok, gguf) : make_byte_level(tok, gguf));
    tok->bos = read_id(tok, gguf, "tokenizer.ggml.bos_token_id");
    tok->eos = read_id(tok, gguf, "tokenizer.ggml.eos_token_id");
    tok->pad = read_id(tok, gguf, "tokenizer.ggml.padding_token_id");
    TSR_TRY(tsr_tokenizer_mark_ends(tok));
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        const int32_t id = read_id(tok, gguf, ends[i]);

        TSR_TRY(id >= 0 ? tsr_tokenizer_add_end(tok, id) : TSR_OK);
    }
    return read_around(tok, gguf, is_spm || tsr_pretokenizer_wants_bos(tok->pre));
}

tsr_status tsr_tokenizer_create(tsr_tokenizer **out, const tsr_gguf *gguf)
{
    tsr_text_view kind;
    tsr_tokenizer *tok;
    tsr_status st;

    if (!tsr_gguf_string(gguf, "tokenizer.ggml.model", &kind)) {
        return tsr_fail(TSR_ERR_FORMAT, "no tokenizer: tokenizer.ggml.model is missing");
    }
    if (!same(kind, "gpt2") && !same(kind, "llama")) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "tokenizer.ggml.model is \"%.*s\"; known are gpt2 (byte-level BPE) and "
                        "llama (SentencePiece's BPE)",
                        (int)(kind.n_bytes < 40 ? kind.n_bytes : 40), kind.bytes);
    }
    TSR_TRY(tsr_tokenizer_create_empty(&tok));
    st = read_all(tok, gguf, same(kind, "llama"));
    if (st != TSR_OK) {
        tsr_tokenizer_destroy(tok);
        return st;
    }
    *out = tok;
    return TSR_OK;
}
