#include "engine/tokenizer.h"

#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/tokenizer_parts.h"

/* ---- making ------------------------------------------------------------------------------------
 */

tsr_status tsr_tokenizer_create_empty(tsr_tokenizer **out)
{
    tsr_tokenizer *tok = tsr_alloc(1, sizeof(*tok));

    if (tok == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "tokenizer record");
    }
    tok->bos = tok->eos = tok->pad = -1;
    *out = tok;
    return TSR_OK;
}

void tsr_tokenizer_destroy(tsr_tokenizer *tokenizer)
{
    if (tokenizer == NULL) {
        return;
    }
    tsr_free(tokenizer->chat_template);
    tsr_ids_clear(&tokenizer->more_ends);
    tsr_free(tokenizer->is_end);
    tsr_ids_clear(&tokenizer->after);
    tsr_ids_clear(&tokenizer->before);
    tsr_token_decoder_destroy(tokenizer->decoder); // looks into the vocabulary, as the next two
    tsr_unigram_destroy(tokenizer->unigram);
    tsr_bpe_destroy(tokenizer->bpe);
    tsr_pretokenizer_destroy(tokenizer->pre);
    tsr_normalizer_destroy(tokenizer->normalizer);
    tsr_special_destroy(tokenizer->special_normalized);
    tsr_special_destroy(tokenizer->special);
    tsr_vocab_destroy(tokenizer->vocab);
    tsr_free(tokenizer);
}

tsr_status tsr_tokenizer_mark_ends(tsr_tokenizer *tok)
{
    // What models of several families end an answer or a text with, whatever their metadata says.
    static const char *const names[] = {
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|end_of_turn|>",
        "<end_of_turn>",
        "<|END_OF_TURN_TOKEN|>",
        "<end_of_utterance>",
        "</s>",
        "<eos>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    };

    tok->is_end = tsr_alloc((size_t)tsr_vocab_n_tokens(tok->vocab), sizeof(*tok->is_end));
    if (tok->is_end == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "tokenizer of %d tokens", tsr_vocab_n_tokens(tok->vocab));
    }
    if (tok->eos >= 0) {
        tok->is_end[tok->eos] = true;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const int32_t id = tsr_tokenizer_find(tok, names[i]);

        if (id >= 0 && tsr_vocab_is_control(tok->vocab, id)) {
            tok->is_end[id] = true;
        }
    }
    return TSR_OK;
}

/* ---- questions ---------------------------------------------------------------------------------
 */

static bool is_token(const tsr_tokenizer *tok, int32_t id)
{
    return id >= 0 && id < tsr_vocab_n_tokens(tok->vocab);
}

int tsr_tokenizer_n_vocab(const tsr_tokenizer *tokenizer)
{
    return tsr_vocab_n_tokens(tokenizer->vocab);
}

int32_t tsr_tokenizer_bos(const tsr_tokenizer *tokenizer)
{
    return tokenizer->bos;
}

int32_t tsr_tokenizer_eos(const tsr_tokenizer *tokenizer)
{
    return tokenizer->eos;
}

int32_t tsr_tokenizer_pad(const tsr_tokenizer *tokenizer)
{
    return tokenizer->pad;
}

const tsr_ids *tsr_tokenizer_before(const tsr_tokenizer *tokenizer)
{
    return &tokenizer->before;
}

const tsr_ids *tsr_tokenizer_after(const tsr_tokenizer *tokenizer)
{
    return &tokenizer->after;
}

static bool is_among(const tsr_ids *list, int32_t id)
{
    for (int64_t i = 0; i < list->n_ids; i++) {
        if (list->ids[i] == id) {
            return true;
        }
    }
    return false;
}

bool tsr_tokenizer_adds_bos(const tsr_tokenizer *tokenizer)
{
    return tokenizer->bos >= 0 && is_among(&tokenizer->before, tokenizer->bos);
}

tsr_status tsr_tokenizer_add_end(tsr_tokenizer *tokenizer, int32_t id)
{
    if (id < 0) {
        return tsr_fail(TSR_ERR_ARG, "token %d cannot end a generation: there is none", id);
    }
    if (is_token(tokenizer, id)) {
        tokenizer->is_end[id] = true;
        return TSR_OK;
    }
    return is_among(&tokenizer->more_ends, id) ? TSR_OK : tsr_ids_append(&tokenizer->more_ends, id);
}

bool tsr_tokenizer_is_end(const tsr_tokenizer *tokenizer, int32_t id)
{
    return is_token(tokenizer, id) ? tokenizer->is_end[id] : is_among(&tokenizer->more_ends, id);
}

bool tsr_tokenizer_is_special(const tsr_tokenizer *tokenizer, int32_t id)
{
    return is_token(tokenizer, id) && tsr_vocab_is_control(tokenizer->vocab, id);
}

int32_t tsr_tokenizer_find(const tsr_tokenizer *tokenizer, const char *token_text)
{
    return tsr_vocab_find(tokenizer->vocab, (tsr_text_view){token_text, strlen(token_text)},
                          (tsr_text_view){"", 0});
}

tsr_text_view tsr_tokenizer_text(const tsr_tokenizer *tokenizer, int32_t id)
{
    return is_token(tokenizer, id) ? tsr_vocab_text(tokenizer->vocab, id) : (tsr_text_view){"", 0};
}

tsr_text_view tsr_tokenizer_chat_template(const tsr_tokenizer *tokenizer)
{
    return tokenizer->chat_template != NULL
               ? (tsr_text_view){tokenizer->chat_template, tokenizer->chat_template_bytes}
               : (tsr_text_view){"", 0};
}

/* ---- tokens to text ----------------------------------------------------------------------------
 */

tsr_status tsr_tokenizer_decode(const tsr_tokenizer *tokenizer, tsr_token_stream *stream,
                                tsr_text *out, int32_t id, bool show_special)
{
    if (!is_token(tokenizer, id)) {
        return tsr_fail(TSR_ERR_ARG, "token %d does not exist: the vocabulary has %d", id,
                        tsr_vocab_n_tokens(tokenizer->vocab));
    }
    if (!show_special && tsr_vocab_is_control(tokenizer->vocab, id)) {
        return TSR_OK;
    }
    return tsr_token_decoder_append(tokenizer->decoder, stream, out, id);
}

size_t tsr_tokenizer_whole_utf8(const char *bytes, size_t n_bytes)
{
    return tsr_utf8_whole(bytes, n_bytes);
}
