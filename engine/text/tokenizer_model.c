#include "engine/text/tokenizer_model.h"

#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/json_field.h"

static const char OF[] = "model";

/* ---- BPE ---------------------------------------------------------------------------------------
 */

/* "left right", or ["left", "right"] */
static tsr_status read_merge(tsr_bpe_rule *rule, const tsr_vocab *vocab, const json_t *merge,
                             size_t prefix_bytes)
{
    const json_t *const pair[] = {json_array_get(merge, 0), json_array_get(merge, 1)};
    const char *text = json_string_value(merge);
    const char *space = text != NULL ? strchr(text, ' ') : NULL;

    if (space != NULL && strchr(space + 1, ' ') == NULL) {
        return tsr_bpe_rule_read(rule, vocab, (tsr_text_view){text, (size_t)(space - text)},
                                 (tsr_text_view){space + 1, strlen(space + 1)}, prefix_bytes);
    }
    if (json_array_size(merge) != 2 || !json_is_string(pair[0]) || !json_is_string(pair[1])) {
        return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: merges: \"%.80s\" is not two tokens",
                        text != NULL ? text : "");
    }
    return tsr_bpe_rule_read(
        rule, vocab, (tsr_text_view){json_string_value(pair[0]), json_string_length(pair[0])},
        (tsr_text_view){json_string_value(pair[1]), json_string_length(pair[1])}, prefix_bytes);
}

static tsr_status make_bpe(tsr_tokenizer *tok, const json_t *merges, const tsr_bpe_options *options)
{
    const size_t n_merges = json_array_size(merges);
    tsr_bpe_rule *rules;
    tsr_status st = TSR_OK;

    if (n_merges > INT32_MAX / 4) {
        return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: %zu merges, more than any model",
                        n_merges);
    }
    rules = tsr_alloc(n_merges, sizeof(*rules));
    if (rules == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "%zu merges", n_merges);
    }
    for (size_t i = 0; i < n_merges && st == TSR_OK; i++) {
        rules[i].rank = (uint32_t)i;
        st = read_merge(&rules[i], tok->vocab, json_array_get(merges, i), options->prefix.n_bytes);
    }
    if (st == TSR_OK) {
        st = tsr_bpe_create(&tok->bpe, tok->vocab, options, rules, (uint32_t)n_merges);
    }
    tsr_free(rules);
    return st;
}

static bool has_all_letters(const tsr_vocab *vocab)
{
    for (int byte = 0; byte < 256; byte++) {
        char letter[2];
        const int n = tsr_byte_alphabet_write(letter, (uint8_t)byte);

        if (tsr_vocab_find_plain(vocab, letter, (size_t)n) < 0) {
            return false;
        }
    }
    return true;
}

/* Bytes that would become letters only to be looked up by them need not, if that is all that comes
 * of it. */
static bool may_take_bytes(const tsr_tokenizer *tok, const tsr_bpe_options *options)
{
    return tsr_pretokenizer_ends_in_letters(tok->pre) && options->prefix.n_bytes == 0 &&
           options->suffix.n_bytes == 0 &&
           ((options->unknown < 0 && !options->falls_back) || has_all_letters(tok->vocab));
}

static tsr_status read_unknown(int32_t *unknown, const tsr_vocab *vocab, const json_t *model)
{
    tsr_text_view text = {NULL, 0};

    *unknown = -1;
    TSR_TRY(tsr_json_field_text(&text, model, "unk_token", OF));
    if (text.bytes == NULL) {
        return TSR_OK;
    }
    *unknown = tsr_vocab_find(vocab, text, (tsr_text_view){"", 0});
    return *unknown >= 0
               ? TSR_OK
               : tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: the unk_token \"%.40s\" is no token",
                          text.bytes);
}

static tsr_status read_bpe(tsr_tokenizer *tok, const json_t *model)
{
    const json_t *dropout = json_object_get(model, "dropout");
    tsr_bpe_options options = {.last_counts = true};
    const json_t *merges;

    if (json_is_number(dropout) && json_number_value(dropout) > 0) {
        tsr_log_warn("tokenizer.json: dropout is for training; no merge is left out here");
    }
    TSR_TRY(tsr_json_field_list(&merges, model, "merges", OF));
    TSR_TRY(tsr_json_field_bool(&options.keeps_whole, model, "ignore_merges", OF));
    TSR_TRY(tsr_json_field_bool(&options.falls_back, model, "byte_fallback", OF));
    TSR_TRY(tsr_json_field_bool(&options.fuses_unknown, model, "fuse_unk", OF));
    TSR_TRY(tsr_json_field_text(&options.prefix, model, "continuing_subword_prefix", OF));
    TSR_TRY(tsr_json_field_text(&options.suffix, model, "end_of_word_suffix", OF));
    if (options.prefix.n_bytes > TSR_BPE_MOST_AFFIX ||
        options.suffix.n_bytes > TSR_BPE_MOST_AFFIX) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "tokenizer.json: a prefix or suffix of a token has more than %d bytes",
                        TSR_BPE_MOST_AFFIX);
    }
    TSR_TRY(read_unknown(&options.unknown, tok->vocab, model));
    options.of_bytes = may_take_bytes(tok, &options);
    if (options.of_bytes) {
        tsr_pretokenizer_leave_bytes(tok->pre);
    }
    return make_bpe(tok, merges, &options);
}

/* ---- Unigram -----------------------------------------------------------------------------------
 */

static tsr_status read_unigram(tsr_tokenizer *tok, const json_t *model)
{
    const json_t *vocab = json_object_get(model, "vocab");
    const size_t n_scores = json_array_size(vocab);
    int64_t unknown = -1;
    bool falls_back = false;
    tsr_status st = TSR_OK;
    double *scores;

    TSR_TRY(tsr_json_field_int(&unknown, model, "unk_id", OF));
    TSR_TRY(tsr_json_field_bool(&falls_back, model, "byte_fallback", OF));
    if (unknown < -1 || unknown >= (int64_t)n_scores) {
        return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: unk_id %lld of %zu tokens",
                        (long long)unknown, n_scores);
    }
    scores = tsr_alloc(n_scores, sizeof(*scores));
    if (scores == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "scores of %zu tokens", n_scores);
    }
    for (size_t i = 0; i < n_scores && st == TSR_OK; i++) {
        const json_t *score = json_array_get(json_array_get(vocab, i), 1);

        scores[i] = json_number_value(score);
        if (!json_is_number(score)) {
            st = tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: the score of token %zu is no number", i);
        }
    }
    if (st == TSR_OK) {
        st = tsr_unigram_create(&tok->unigram, tok->vocab, scores, (int32_t)n_scores,
                                (int32_t)unknown, falls_back);
    }
    tsr_free(scores);
    return st;
}

tsr_status tsr_tokenizer_read_model(tsr_tokenizer *tok, const json_t *model)
{
    const tsr_text_view type = tsr_json_field_type(model);
    const bool is_list = json_is_array(json_object_get(model, "vocab"));

    // Old files do not name the type: a list has scores, and merges make it BPE.
    if (tsr_json_field_is(type, "Unigram") || (type.n_bytes == 0 && is_list)) {
        return is_list ? read_unigram(tok, model)
                       : tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: Unigram without a list of "
                                                  "tokens and scores");
    }
    if (tsr_json_field_is(type, "BPE") ||
        (type.n_bytes == 0 && json_object_get(model, "merges") != NULL)) {
        return !is_list ? read_bpe(tok, model)
                        : tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: BPE without ids of its tokens");
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "tokenizer.json: a model \"%.40s\"; known are BPE and Unigram", type.bytes);
}
