#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/tokenizer_parts.h"

typedef struct encoding {
    const tsr_tokenizer *tok;
    tsr_ids *out;
    bool match_normalized_control; /* no part of the text is plain */
    tsr_bpe_work bpe;
    tsr_unigram_work unigram;
    tsr_pretokenizer_work pre;
    tsr_normalizer_work normalizer;
} encoding;

static void encoding_clear(encoding *e)
{
    tsr_bpe_work_clear(&e->bpe);
    tsr_unigram_work_clear(&e->unigram);
    tsr_pretokenizer_work_clear(&e->pre);
    tsr_normalizer_work_clear(&e->normalizer);
}

/* ---- between special tokens --------------------------------------------------------------------
 */

static tsr_status take_piece(void *state, const char *piece, size_t n_bytes)
{
    encoding *e = state;

    return e->tok->bpe != NULL
               ? tsr_bpe_merge(e->tok->bpe, &e->bpe, e->out, piece, n_bytes)
               : tsr_unigram_split(e->tok->unigram, &e->unigram, e->out, piece, n_bytes);
}

static tsr_status cut(encoding *e, tsr_pretokenizer_place place, const char *text, size_t n_bytes)
{
    return tsr_pretokenizer_split(e->tok->pre, &e->pre, place, text, n_bytes, take_piece, e);
}

/* The token that was found, but one that takes the spaces before it and finds nothing left: what
 * stood before has taken all that it is made of. */
static tsr_status append_match(encoding *e, const tsr_special_match *match, size_t done)
{
    return match->takes_left && done >= match->end ? TSR_OK : tsr_ids_append(e->out, match->id);
}

/* A text that has been normalized: the special tokens that are sought in such, and what lies
 * between them. */
static tsr_status encode_normalized(encoding *e, tsr_pretokenizer_place place, tsr_text_view text)
{
    const tsr_special_filter filter = {.control = e->match_normalized_control,
                                       .normalized = true,
                                       .normalized_control = e->match_normalized_control};
    size_t done = 0;

    if (e->tok->special_normalized == NULL) {
        return cut(e, place, text.bytes, text.n_bytes);
    }
    for (size_t from = 0; from <= text.n_bytes;) {
        const tsr_special_match match = tsr_special_find(e->tok->special_normalized, text.bytes,
                                                         text.n_bytes, from, text.n_bytes, filter);

        if (done < match.start) {
            TSR_TRY(cut(e,
                        done > 0 && place == TSR_PRETOKENIZER_PLACE_FIRST
                            ? TSR_PRETOKENIZER_PLACE_BEHIND
                            : place,
                        text.bytes + done, match.start - done));
        }
        if (match.id < 0) {
            break;
        }
        TSR_TRY(append_match(e, &match, done));
        done = match.end;
        from = match.next;
    }
    return TSR_OK;
}

/* What lies between special tokens: its runs of whole characters are normalized one by one. */
static tsr_status encode_between(encoding *e, tsr_pretokenizer_place place, const char *text,
                                 size_t n_bytes)
{
    if (e->tok->normalizer == NULL && e->tok->special_normalized == NULL) {
        return cut(e, place, text, n_bytes);
    }
    for (size_t at = 0; at < n_bytes;) {
        const size_t valid = tsr_utf8_valid(text + at, n_bytes - at);
        tsr_text_view run = {text + at, valid};
        bool lost = false;

        if (valid == 0) { // a byte that is no character
            TSR_TRY(cut(e, TSR_PRETOKENIZER_PLACE_WITHIN, text + at, 1));
            place = TSR_PRETOKENIZER_PLACE_WITHIN;
            at++;
            continue;
        }
        if (e->tok->normalizer != NULL) {
            TSR_TRY(tsr_normalizer_apply(e->tok->normalizer, &e->normalizer, &run, run,
                                         place != TSR_PRETOKENIZER_PLACE_WITHIN, &lost));
        }
        if (lost && place == TSR_PRETOKENIZER_PLACE_FIRST) {
            place = TSR_PRETOKENIZER_PLACE_BEHIND;
        }
        TSR_TRY(encode_normalized(e, place, run));
        at += valid;
    }
    return TSR_OK;
}

/* ---- special tokens ----------------------------------------------------------------------------
 */

/* A text, the runs of it in which control tokens are not recognised, and what comes next in it. */
typedef struct marked_text {
    const tsr_special *special;
    const char *text;
    size_t n_bytes;
    const tsr_text_run *plain; // [n_plain]
    int n_plain;
    int n_passed;              // of the plain runs
    bool has_any;              // the next two have been sought
    tsr_special_match any;     // the first between plain runs
    tsr_special_match defined; // the first user-defined one, wherever
} marked_text;

/* The first match at or after `from` that lies between plain runs. */
static tsr_special_match find_between(marked_text *m, size_t from)
{
    // In a text with plain runs the control tokens that are sought after normalizing are sought
    // here, where it is still known what is plain.
    const tsr_special_filter filter = {.control = true, .normalized_control = m->n_plain > 0};

    for (; m->n_passed < m->n_plain; m->n_passed++) {
        const tsr_text_run *run = &m->plain[m->n_passed];

        if (from < run->start) {
            const tsr_special_match match =
                tsr_special_find(m->special, m->text, m->n_bytes, from, run->start, filter);

            if (match.id >= 0) {
                return match;
            }
        }
        from = from < run->start + run->n_bytes ? run->start + run->n_bytes : from;
    }
    return tsr_special_find(m->special, m->text, m->n_bytes, from, m->n_bytes, filter);
}

/* What is found is kept until it is passed, so that a text is searched once and no more. */
static tsr_special_match next_special(marked_text *m, size_t from)
{
    const tsr_special_filter defined = {0};

    if (!m->has_any || (m->any.id >= 0 && m->any.at < from)) {
        m->any = find_between(m, from);
    }
    if (!m->has_any || (m->defined.id >= 0 && m->defined.at < from)) {
        m->defined = m->n_plain > 0 ? tsr_special_find(m->special, m->text, m->n_bytes, from,
                                                       m->n_bytes, defined)
                                    : m->any;
    }
    m->has_any = true;
    if (m->n_plain == 0 || m->defined.id < 0 || m->any.id < 0) {
        return m->defined.id < 0 || m->n_plain == 0 ? m->any : m->defined;
    }
    if (m->defined.at != m->any.at) {
        return m->defined.at < m->any.at ? m->defined : m->any;
    }
    return m->defined.next > m->any.next ? m->defined : m->any;
}

static tsr_status encode_all(encoding *e, marked_text *m)
{
    size_t done = 0;

    for (size_t from = 0; from < m->n_bytes;) {
        const tsr_special_match match = next_special(m, from);

        if (done < match.start) {
            TSR_TRY(encode_between(
                e, done == 0 ? TSR_PRETOKENIZER_PLACE_FIRST : TSR_PRETOKENIZER_PLACE_BEHIND,
                m->text + done, match.start - done));
        }
        if (match.id < 0) {
            return TSR_OK;
        }
        TSR_TRY(append_match(e, &match, done));
        done = match.end;
        from = match.next;
    }
    return done < m->n_bytes
               ? encode_between(e, TSR_PRETOKENIZER_PLACE_BEHIND, m->text + done, m->n_bytes - done)
               : TSR_OK;
}

tsr_status tsr_tokenizer_encode_marked(const tsr_tokenizer *tokenizer, tsr_ids *out,
                                       const char *text, size_t n_bytes, const tsr_text_run *plain,
                                       int n_plain)
{
    encoding e = {.tok = tokenizer, .out = out, .match_normalized_control = n_plain == 0};
    marked_text m = {.special = tokenizer->special,
                     .text = text,
                     .n_bytes = n_bytes,
                     .plain = plain,
                     .n_plain = n_plain};
    const int64_t n_before = out->n_ids;
    tsr_status st;

    if (n_bytes > INT32_MAX / 4) {
        return tsr_fail(TSR_ERR_ARG, "a text of %zu bytes is too long: at most %d", n_bytes,
                        INT32_MAX / 4);
    }
    st = encode_all(&e, &m);
    if (st != TSR_OK) {
        out->n_ids = n_before;
    }
    encoding_clear(&e);
    return st;
}

tsr_status tsr_tokenizer_encode(const tsr_tokenizer *tokenizer, tsr_ids *out, const char *text,
                                size_t n_bytes, bool match_special)
{
    const tsr_text_run whole = {.start = 0, .n_bytes = n_bytes};

    return tsr_tokenizer_encode_marked(tokenizer, out, text, n_bytes, &whole,
                                       match_special ? 0 : 1);
}
