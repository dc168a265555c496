#include "engine/tokenizer.h"

#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/utf8.h"
#include "engine/text/bpe.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/special.h"
#include "engine/text/vocab.h"

struct tsr_tokenizer {
    tsr_vocab *vocab; // owned, as the next three
    tsr_special *special;
    tsr_pretokenizer *pre;
    tsr_bpe *bpe;
    bool *is_end; // [n_tokens], owned
    int32_t bos;
    int32_t eos;
    bool adds_bos;
    tsr_ids before; // owned
    tsr_ids after;
};

/* ---- making ------------------------------------------------------------------------------------
 */

static tsr_gguf_text text_of(const char *zero_ended)
{
    return (tsr_gguf_text){.bytes = zero_ended, .n_bytes = strlen(zero_ended)};
}

static tsr_status check_model(const tsr_gguf *gguf)
{
    tsr_gguf_text model;

    if (!tsr_gguf_string(gguf, "tokenizer.ggml.model", &model)) {
        return tsr_fail(TSR_ERR_FORMAT, "no tokenizer: tokenizer.ggml.model is missing");
    }
    if (model.n_bytes != 4 || memcmp(model.bytes, "gpt2", 4) != 0) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "tokenizer.ggml.model is \"%.*s\"; known is gpt2 (byte-level BPE)",
                        (int)(model.n_bytes < 40 ? model.n_bytes : 40), model.bytes);
    }
    return TSR_OK;
}

static tsr_status make_pretokenizer(tsr_tokenizer *tok, const tsr_gguf *gguf)
{
    tsr_gguf_text name;

    if (!tsr_gguf_string(gguf, "tokenizer.ggml.pre", &name)) {
        tsr_log_warn("the model file does not name its pre-tokenizer (tokenizer.ggml.pre): "
                     "\"default\" is taken, which may not be the model's own");
        name = text_of("default");
    }
    return tsr_pretokenizer_create(&tok->pre, name.bytes, name.n_bytes);
}

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

static void mark_ends(tsr_tokenizer *tok, const tsr_gguf *gguf)
{
    const int32_t told[] = {tok->eos, read_id(tok, gguf, "tokenizer.ggml.eot_token_id"),
                            read_id(tok, gguf, "tokenizer.ggml.eom_token_id")};
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

    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        if (told[i] >= 0) {
            tok->is_end[told[i]] = true;
        }
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const int32_t id = tsr_tokenizer_find(tok, names[i]);

        if (id >= 0 && tsr_vocab_is_control(tok->vocab, id)) {
            tok->is_end[id] = true;
        }
    }
}

tsr_status tsr_tokenizer_create(tsr_tokenizer **out, const tsr_gguf *gguf)
{
    tsr_status st = TSR_OK;
    tsr_tokenizer *tok;

    TSR_TRY(check_model(gguf));
    tok = tsr_alloc(1, sizeof(*tok));
    if (tok == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "tokenizer record");
    }
    TSR_TRY_GOTO(st, fail, make_pretokenizer(tok, gguf));
    TSR_TRY_GOTO(st, fail, tsr_vocab_create(&tok->vocab, gguf));
    TSR_TRY_GOTO(st, fail, tsr_special_create(&tok->special, tok->vocab));
    TSR_TRY_GOTO(st, fail, tsr_bpe_create(&tok->bpe, gguf, tok->vocab));
    tok->is_end = tsr_alloc((size_t)tsr_vocab_n_tokens(tok->vocab), sizeof(*tok->is_end));
    if (tok->is_end == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "tokenizer of %d tokens", tsr_vocab_n_tokens(tok->vocab));
        goto fail;
    }
    tok->bos = read_id(tok, gguf, "tokenizer.ggml.bos_token_id");
    tok->eos = read_id(tok, gguf, "tokenizer.ggml.eos_token_id");
    mark_ends(tok, gguf);
    if (!tsr_gguf_bool(gguf, "tokenizer.ggml.add_bos_token", &tok->adds_bos)) {
        tok->adds_bos = tsr_pretokenizer_wants_bos(tok->pre);
    }
    tok->adds_bos = tok->adds_bos && tok->bos >= 0;
    if (tok->adds_bos) {
        TSR_TRY_GOTO(st, fail, tsr_ids_append(&tok->before, tok->bos));
    }
    *out = tok;
    return TSR_OK;

fail:
    tsr_tokenizer_destroy(tok);
    return st;
}

void tsr_tokenizer_destroy(tsr_tokenizer *tokenizer)
{
    if (tokenizer == NULL) {
        return;
    }
    tsr_ids_clear(&tokenizer->after);
    tsr_ids_clear(&tokenizer->before);
    tsr_free(tokenizer->is_end);
    tsr_bpe_destroy(tokenizer->bpe);
    tsr_special_destroy(tokenizer->special); // looks into the vocabulary, so it goes first
    tsr_vocab_destroy(tokenizer->vocab);
    tsr_pretokenizer_destroy(tokenizer->pre);
    tsr_free(tokenizer);
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
    (void)tokenizer;
    return -1;
}

const tsr_ids *tsr_tokenizer_before(const tsr_tokenizer *tokenizer)
{
    return &tokenizer->before;
}

const tsr_ids *tsr_tokenizer_after(const tsr_tokenizer *tokenizer)
{
    return &tokenizer->after;
}

tsr_text_view tsr_tokenizer_text(const tsr_tokenizer *tokenizer, int32_t id)
{
    return is_token(tokenizer, id) ? tsr_vocab_text(tokenizer->vocab, id) : text_of("");
}

tsr_text_view tsr_tokenizer_chat_template(const tsr_tokenizer *tokenizer)
{
    (void)tokenizer;
    return text_of("");
}

tsr_status tsr_tokenizer_add_end(tsr_tokenizer *tokenizer, int32_t id)
{
    if (!is_token(tokenizer, id)) {
        return tsr_fail(TSR_ERR_ARG, "end token %d does not exist", id);
    }
    tokenizer->is_end[id] = true;
    return TSR_OK;
}

tsr_status tsr_tokenizer_open_json(tsr_tokenizer **out, const char *json, size_t n_bytes,
                                   const char *config_json, size_t n_config_bytes)
{
    (void)out;
    (void)json;
    (void)n_bytes;
    (void)config_json;
    (void)n_config_bytes;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "tokenizer.json is not read yet");
}

bool tsr_tokenizer_adds_bos(const tsr_tokenizer *tokenizer)
{
    return tokenizer->adds_bos;
}

bool tsr_tokenizer_is_end(const tsr_tokenizer *tokenizer, int32_t id)
{
    return is_token(tokenizer, id) && tokenizer->is_end[id];
}

bool tsr_tokenizer_is_special(const tsr_tokenizer *tokenizer, int32_t id)
{
    return is_token(tokenizer, id) && tsr_vocab_is_control(tokenizer->vocab, id);
}

int32_t tsr_tokenizer_find(const tsr_tokenizer *tokenizer, const char *token_text)
{
    return tsr_vocab_find(tokenizer->vocab, text_of(token_text), text_of(""));
}

/* ---- text to tokens ----------------------------------------------------------------------------
 */

typedef struct encoding {
    const tsr_tokenizer *tok;
    tsr_ids *out;
    tsr_bpe_work work;
    tsr_text letters; // the piece as the vocabulary writes it
} encoding;

/* The token that is the whole piece, -1 if there is none. A control token is none: the caller has
 * not allowed them, or the piece would not have come here. */
static tsr_status find_whole(encoding *e, int32_t *id, const char *piece, size_t n_bytes)
{
    *id = -1;
    if (n_bytes > tsr_vocab_longest(e->tok->vocab)) {
        return TSR_OK;
    }
    e->letters.n_bytes = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        char letter[2];
        const int n = tsr_byte_alphabet_write(letter, (uint8_t)piece[i]);

        TSR_TRY(tsr_text_append(&e->letters, letter, (size_t)n));
    }
    *id = tsr_vocab_find(e->tok->vocab,
                         (tsr_gguf_text){.bytes = e->letters.bytes, .n_bytes = e->letters.n_bytes},
                         text_of(""));
    if (*id >= 0 && tsr_vocab_is_control(e->tok->vocab, *id)) {
        *id = -1;
    }
    return TSR_OK;
}

static tsr_status take_piece(void *state, const char *piece, size_t n_bytes)
{
    encoding *e = state;

    if (tsr_pretokenizer_keeps_whole(e->tok->pre)) {
        int32_t id;

        TSR_TRY(find_whole(e, &id, piece, n_bytes));
        if (id >= 0) {
            return tsr_ids_append(e->out, id);
        }
    }
    return tsr_bpe_merge(e->tok->bpe, &e->work, e->out, piece, n_bytes);
}

/* A text, the runs of it in which control tokens are not recognised, and what comes next in it. */
typedef struct marked_text {
    const tsr_special *special;
    const char *text;
    size_t n_bytes;
    const tsr_text_run *plain; // [n_plain]
    int n_plain;
    int n_passed;              // of the plain runs
    tsr_special_match any;     // the first between plain runs
    tsr_special_match defined; // the first user-defined one, wherever
} marked_text;

/* The first match at or after `from` that lies between plain runs. */
static tsr_special_match find_between(marked_text *m, size_t from)
{
    for (; m->n_passed < m->n_plain; m->n_passed++) {
        const tsr_text_run *run = &m->plain[m->n_passed];

        if (from < run->start) {
            const tsr_special_match match =
                tsr_special_find(m->special, m->text, run->start, from, true);

            if (match.id >= 0) {
                return match;
            }
        }
        from = from < run->start + run->n_bytes ? run->start + run->n_bytes : from;
    }
    return tsr_special_find(m->special, m->text, m->n_bytes, from, true);
}

/* What is found is kept until it is passed, so that a text is searched once and no more. */
static tsr_special_match next_special(marked_text *m, size_t at)
{
    if (m->any.start < at || at == 0) {
        m->any = find_between(m, at);
    }
    if (m->defined.start < at || at == 0) {
        m->defined = tsr_special_find(m->special, m->text, m->n_bytes, at, false);
    }
    if (m->defined.start != m->any.start) {
        return m->defined.start < m->any.start ? m->defined : m->any;
    }
    return m->defined.n_bytes > m->any.n_bytes ? m->defined : m->any;
}

static tsr_status encode_all(encoding *e, marked_text *m)
{
    const char *text = m->text;

    for (size_t at = 0; at < m->n_bytes;) {
        const tsr_special_match match = next_special(m, at);

        TSR_TRY(tsr_pretokenizer_split(e->tok->pre, text + at, match.start - at, take_piece, e));
        if (match.id >= 0) {
            TSR_TRY(tsr_ids_append(e->out, match.id));
        }
        at = match.start + match.n_bytes;
    }
    return TSR_OK;
}

tsr_status tsr_tokenizer_encode_marked(const tsr_tokenizer *tokenizer, tsr_ids *out,
                                       const char *text, size_t n_bytes, const tsr_text_run *plain,
                                       int n_plain)
{
    encoding e = {.tok = tokenizer, .out = out};
    marked_text m = {.special = tokenizer->special,
                     .text = text,
                     .n_bytes = n_bytes,
                     .plain = plain,
                     .n_plain = n_plain};
    const int64_t n_before = out->n_ids;
    tsr_status st;

    if (n_bytes > INT32_MAX) {
        return tsr_fail(TSR_ERR_ARG, "a text of %zu bytes is too long: at most %d", n_bytes,
                        INT32_MAX);
    }
    st = encode_all(&e, &m);
    if (st != TSR_OK) {
        out->n_ids = n_before;
    }
    tsr_bpe_work_clear(&e.work);
    tsr_text_clear(&e.letters);
    return st;
}

tsr_status tsr_tokenizer_encode(const tsr_tokenizer *tokenizer, tsr_ids *out, const char *text,
                                size_t n_bytes, bool match_special)
{
    const tsr_text_run whole = {.start = 0, .n_bytes = n_bytes};

    return tsr_tokenizer_encode_marked(tokenizer, out, text, n_bytes, &whole,
                                       match_special ? 0 : 1);
}

/* ---- tokens to text ----------------------------------------------------------------------------
 */

/* Letters of the byte alphabet as the bytes they stand for; anything else as it is. */
static tsr_status append_bytes(tsr_text *out, tsr_gguf_text letters)
{
    for (size_t at = 0; at < letters.n_bytes;) {
        const int n = tsr_utf8_measure(letters.bytes + at, letters.n_bytes - at);
        const int byte = n > 0 ? tsr_byte_alphabet_read(tsr_utf8_decode(letters.bytes + at)) : -1;
        const char as_char = (char)byte;

        if (byte >= 0) {
            TSR_TRY(tsr_text_append(out, &as_char, 1));
        } else {
            TSR_TRY(tsr_text_append(out, letters.bytes + at, n > 0 ? (size_t)n : 1));
        }
        at += n > 0 ? (size_t)n : 1;
    }
    return TSR_OK;
}

tsr_status tsr_tokenizer_decode(const tsr_tokenizer *tokenizer, tsr_token_stream *stream,
                                tsr_text *out, int32_t id, bool show_special)
{
    const size_t n_before = out->n_bytes;
    tsr_gguf_text text;
    tsr_status st;

    (void)stream;
    if (!is_token(tokenizer, id)) {
        return tsr_fail(TSR_ERR_ARG, "token %d does not exist: the vocabulary has %d", id,
                        tsr_vocab_n_tokens(tokenizer->vocab));
    }
    text = tsr_vocab_text(tokenizer->vocab, id);
    if (tsr_vocab_is_control(tokenizer->vocab, id)) {
        return show_special ? tsr_text_append(out, text.bytes, text.n_bytes) : TSR_OK;
    }
    if (tsr_vocab_kind(tokenizer->vocab, id) == TSR_TOKEN_KIND_USER_DEFINED) {
        return tsr_text_append(out, text.bytes, text.n_bytes);
    }
    st = append_bytes(out, text);
    if (st != TSR_OK && out->bytes != NULL) {
        out->n_bytes = n_before;
        out->bytes[n_before] = 0;
    }
    return st;
}

size_t tsr_tokenizer_whole_utf8(const char *bytes, size_t n_bytes)
{
    return tsr_utf8_whole(bytes, n_bytes);
}
