#include "engine/text/token_decoder.h"

#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/token_decoder_step.h"

/* ---- making ------------------------------------------------------------------------------------
 */

tsr_status tsr_token_decoder_add(tsr_token_decoder *decoder, tsr_decode_step **out,
                                 tsr_decode_kind kind)
{
    if (decoder->n_steps == TSR_TOKEN_DECODER_MOST_STEPS) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "a decoder of more than %d steps",
                        TSR_TOKEN_DECODER_MOST_STEPS);
    }
    *out = &decoder->steps[decoder->n_steps++];
    (*out)->kind = kind;
    return TSR_OK;
}

tsr_status tsr_decode_step_content(tsr_decode_step *step, tsr_text_view content)
{
    tsr_free(step->content);
    step->content = tsr_alloc_text(content.bytes != NULL ? content.bytes : "", content.n_bytes);
    step->content_bytes = content.n_bytes;
    return step->content != NULL ? TSR_OK : tsr_fail(TSR_ERR_NOMEM, "a text of the decoder");
}

tsr_status tsr_token_decoder_create_bytes(tsr_token_decoder **out, const tsr_vocab *vocab)
{
    tsr_token_decoder *decoder = tsr_alloc(1, sizeof(*decoder));
    tsr_decode_step *step = NULL;
    tsr_status st = TSR_OK;

    if (decoder == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "decoder record");
    }
    decoder->vocab = vocab;
    decoder->keeps_special = true;
    TSR_TRY_GOTO(st, fail, tsr_token_decoder_add(decoder, &step, TSR_DECODE_KIND_BYTES));
    TSR_TRY_GOTO(st, fail, tsr_token_decoder_fill(decoder));
    *out = decoder;
    return TSR_OK;

fail:
    tsr_token_decoder_destroy(decoder);
    return st;
}

tsr_status tsr_token_decoder_create_spm(tsr_token_decoder **out, const tsr_vocab *vocab,
                                        bool strips)
{
    tsr_token_decoder *decoder = tsr_alloc(1, sizeof(*decoder));
    tsr_decode_step *step = NULL;
    tsr_status st = TSR_OK;

    if (decoder == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "decoder record");
    }
    decoder->vocab = vocab;
    decoder->keeps_special = true;
    TSR_TRY_GOTO(st, fail, tsr_token_decoder_add(decoder, &step, TSR_DECODE_KIND_SIGN));
    TSR_TRY_GOTO(st, fail, tsr_decode_step_content(step, (tsr_text_view){"\xe2\x96\x81", 3}));
    TSR_TRY_GOTO(st, fail, tsr_token_decoder_add(decoder, &step, TSR_DECODE_KIND_FALLBACK));
    if (strips) {
        decoder->whole.n_start = 1;
        TSR_TRY_GOTO(st, fail, tsr_decode_step_content(&decoder->whole, (tsr_text_view){" ", 1}));
    }
    TSR_TRY_GOTO(st, fail, tsr_token_decoder_fill(decoder));
    *out = decoder;
    return TSR_OK;

fail:
    tsr_token_decoder_destroy(decoder);
    return st;
}

void tsr_token_decoder_destroy(tsr_token_decoder *decoder)
{
    if (decoder == NULL) {
        return;
    }
    for (int i = 0; i < decoder->n_steps; i++) {
        tsr_finder_clear(&decoder->steps[i].finder);
        tsr_free(decoder->steps[i].content);
    }
    tsr_free(decoder->whole.content);
    tsr_free(decoder->suffix);
    tsr_free(decoder->letters);
    tsr_free(decoder->starts);
    tsr_free(decoder);
}

/* ---- one token by itself -----------------------------------------------------------------------
 */

/* The bytes that letters of the alphabet stand for. A text that has others, too, is as it is, or
 * those letters are. */
static tsr_status write_bytes(tsr_text *out, tsr_text_view text, bool letter_by_letter)
{
    const size_t n_before = out->n_bytes;

    for (size_t at = 0; at < text.n_bytes;) {
        const int n = tsr_utf8_measure(text.bytes + at, text.n_bytes - at);
        const int byte = n > 0 ? tsr_byte_alphabet_read(tsr_utf8_decode(text.bytes + at)) : -1;
        const size_t n_char = n > 0 ? (size_t)n : 1;
        const char as_char = (char)byte;

        if (byte < 0 && !letter_by_letter) {
            out->n_bytes = n_before;
            return tsr_text_append(out, text.bytes, text.n_bytes);
        }
        TSR_TRY(byte >= 0 ? tsr_text_append(out, &as_char, 1)
                          : tsr_text_append(out, text.bytes + at, n_char));
        at += n_char;
    }
    return TSR_OK;
}

static int hex_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The byte that "<0x0A>" stands for; -1 for any other text. */
static int byte_of(tsr_text_view text)
{
    const bool is_one = text.n_bytes == 6 && memcmp(text.bytes, "<0x", 3) == 0 &&
                        text.bytes[5] == '>' && hex_of(text.bytes[3]) >= 0 &&
                        hex_of(text.bytes[4]) >= 0;

    return is_one ? hex_of(text.bytes[3]) * 16 + hex_of(text.bytes[4]) : -1;
}

static tsr_status write_sign(tsr_text *out, const tsr_decode_step *step, tsr_text_view text,
                             bool first)
{
    for (size_t at = 0; at < text.n_bytes;) {
        if (text.n_bytes - at >= step->content_bytes &&
            memcmp(text.bytes + at, step->content, step->content_bytes) == 0) {
            if (!first || !step->drops_first) {
                TSR_TRY(tsr_text_append(out, " ", 1));
            }
            at += step->content_bytes;
        } else {
            TSR_TRY(tsr_text_append(out, text.bytes + at++, 1));
        }
    }
    return TSR_OK;
}

static bool begins_with(tsr_text_view text, const tsr_decode_step *step)
{
    return text.n_bytes >= step->content_bytes &&
           memcmp(text.bytes, step->content, step->content_bytes) == 0;
}

static bool ends_with(tsr_text_view text, const tsr_decode_step *step)
{
    return text.n_bytes >= step->content_bytes &&
           memcmp(text.bytes + text.n_bytes - step->content_bytes, step->content,
                  step->content_bytes) == 0;
}

static tsr_status write_stripped(tsr_text *out, const tsr_decode_step *step, tsr_text_view text)
{
    for (int i = 0; i < step->n_start && begins_with(text, step); i++) {
        text.bytes += step->content_bytes;
        text.n_bytes -= step->content_bytes;
    }
    for (int i = 0; i < step->n_stop && ends_with(text, step); i++) {
        text.n_bytes -= step->content_bytes;
    }
    return tsr_text_append(out, text.bytes, text.n_bytes);
}

/* A token in a text, and the room to work it out in. */
typedef struct working {
    tsr_text texts[2];
    tsr_regex_work regex;
} working;

static void working_clear(working *w)
{
    tsr_text_clear(&w->texts[0]);
    tsr_text_clear(&w->texts[1]);
    tsr_regex_work_clear(&w->regex);
}

static tsr_status take_step(const tsr_token_decoder *d, const tsr_decode_step *step, working *w,
                            tsr_text *out, tsr_text_view text, bool first)
{
    switch (step->kind) {
    case TSR_DECODE_KIND_BYTES:
        return write_bytes(out, text, d->keeps_special);
    case TSR_DECODE_KIND_REPLACE:
        return tsr_finder_replace(&step->finder, &w->regex, out, text,
                                  (tsr_text_view){step->content, step->content_bytes});
    case TSR_DECODE_KIND_SUFFIX:
        text.n_bytes -= ends_with(text, step) ? step->content_bytes : 0;
        return write_sign(out, step, text, false);
    case TSR_DECODE_KIND_SIGN:
        return write_sign(out, step, text, first);
    case TSR_DECODE_KIND_STRIP:
        return write_stripped(out, step, text);
    default:
        return tsr_text_append(out, text.bytes, text.n_bytes);
    }
}

/* The text of a token, in `w` or in the vocabulary. */
static tsr_status work_out(const tsr_token_decoder *d, working *w, tsr_text_view *out, int32_t id,
                           bool first)
{
    const tsr_token_kind kind = tsr_vocab_kind(d->vocab, id);

    *out = tsr_vocab_text(d->vocab, id);
    if (d->keeps_special &&
        (tsr_vocab_is_control(d->vocab, id) || kind == TSR_TOKEN_KIND_USER_DEFINED)) {
        return TSR_OK;
    }
    for (int i = 0; i < d->n_steps; i++) {
        tsr_text *made = &w->texts[i % 2];

        made->n_bytes = 0;
        TSR_TRY(tsr_text_append(made, "", 0));
        if (d->steps[i].kind == TSR_DECODE_KIND_FALLBACK && byte_of(*out) >= 0) {
            const char byte = (char)byte_of(*out);

            TSR_TRY(tsr_text_append(made, &byte, 1));
            *out = (tsr_text_view){made->bytes, made->n_bytes};
            return TSR_OK; // it is no text of its own for the steps behind
        }
        TSR_TRY(take_step(d, &d->steps[i], w, made, *out, first));
        *out = (tsr_text_view){made->bytes, made->n_bytes};
    }
    return TSR_OK;
}

tsr_status tsr_token_decoder_fill(tsr_token_decoder *decoder)
{
    const int32_t n_tokens = tsr_vocab_n_tokens(decoder->vocab);
    tsr_text all = {0};
    working w = {0};
    tsr_status st = tsr_text_append(&all, "", 0);

    decoder->starts = tsr_alloc((size_t)n_tokens + 1, sizeof(*decoder->starts));
    if (decoder->starts == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "texts of %d tokens", n_tokens);
    }
    for (int32_t id = 0; id < n_tokens && st == TSR_OK; id++) {
        tsr_text_view text;

        st = work_out(decoder, &w, &text, id, false);
        if (st == TSR_OK) {
            st = tsr_text_append(&all, text.bytes, text.n_bytes);
            decoder->starts[id + 1] = all.n_bytes;
        }
    }
    working_clear(&w);
    decoder->letters = all.bytes;
    return st;
}

/* ---- tokens in a text --------------------------------------------------------------------------
 */

/* Take from the front of the text what is left out at the beginning of all. */
static void strip_start(const tsr_token_decoder *d, tsr_token_stream *stream, tsr_text_view *text)
{
    while (stream->strips && text->n_bytes > 0) {
        stream->strips = stream->n_stripped < d->whole.n_start && begins_with(*text, &d->whole);
        if (stream->strips) {
            stream->n_stripped++;
            text->bytes += d->whole.content_bytes;
            text->n_bytes -= d->whole.content_bytes;
        }
    }
}

/* Append the text but for what would be left out if this were the end of all. */
static tsr_status append_held(const tsr_token_decoder *d, tsr_token_stream *stream, tsr_text *out,
                              tsr_text_view text)
{
    const size_t n_content = d->whole.content_bytes;
    int n_trailing = 0;
    int n_released = stream->n_held;

    while (n_trailing < d->whole.n_stop && ends_with(text, &d->whole)) {
        n_trailing++;
        text.n_bytes -= n_content;
    }
    if (text.n_bytes == 0) { // only such characters: those that were held come first
        n_released = stream->n_held + n_trailing - d->whole.n_stop;
        n_released = n_released > 0 ? n_released : 0;
    }
    for (int i = 0; i < n_released; i++) {
        TSR_TRY(tsr_text_append(out, d->whole.content, n_content));
    }
    stream->n_held += n_trailing - n_released;
    return tsr_text_append(out, text.bytes, text.n_bytes);
}

static tsr_status append_whole(const tsr_token_decoder *d, tsr_token_stream *stream, tsr_text *out,
                               tsr_text_view text, tsr_text_view token)
{
    if (stream->owes_space || (d->spaces_between && stream->begun)) {
        TSR_TRY(tsr_text_append(out, " ", 1));
    }
    stream->owes_space =
        d->suffix != NULL && token.n_bytes >= d->suffix_bytes &&
        memcmp(token.bytes + token.n_bytes - d->suffix_bytes, d->suffix, d->suffix_bytes) == 0;
    stream->strips = stream->strips || (!stream->begun && d->whole.n_start > 0);
    stream->begun = true;
    strip_start(d, stream, &text);
    return d->whole.n_stop > 0 ? append_held(d, stream, out, text)
                               : tsr_text_append(out, text.bytes, text.n_bytes);
}

static bool drops_first(const tsr_token_decoder *d)
{
    for (int i = 0; i < d->n_steps; i++) {
        if (d->steps[i].drops_first) {
            return true;
        }
    }
    return false;
}

tsr_status tsr_token_decoder_append(const tsr_token_decoder *decoder, tsr_token_stream *stream,
                                    tsr_text *out, int32_t id)
{
    const size_t n_before = out->n_bytes;
    tsr_text_view text = {decoder->letters + decoder->starts[id],
                          decoder->starts[id + 1] - decoder->starts[id]};
    tsr_token_stream next;
    working w = {0};
    tsr_status st = TSR_OK;

    if (stream == NULL) {
        return tsr_text_append(out, text.bytes, text.n_bytes);
    }
    next = *stream;
    if (!stream->begun && drops_first(decoder)) {
        st = work_out(decoder, &w, &text, id, true);
    }
    if (st == TSR_OK) {
        st = append_whole(decoder, &next, out, text, tsr_vocab_text(decoder->vocab, id));
    }
    working_clear(&w);
    if (st == TSR_OK) {
        *stream = next;
    } else if (out->bytes != NULL) {
        out->n_bytes = n_before;
        out->bytes[n_before] = 0;
    }
    return st;
}
