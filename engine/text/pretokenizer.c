#include "engine/text/pretokenizer.h"

#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/pretokenizer_step.h"

tsr_status tsr_pretokenizer_add(tsr_pretokenizer *pre, tsr_cut_step **out)
{
    if (pre->n_steps == TSR_PRETOKENIZER_MOST_STEPS) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "a pre-tokenizer of more than %d steps",
                        TSR_PRETOKENIZER_MOST_STEPS);
    }
    *out = &pre->steps[pre->n_steps++];
    return TSR_OK;
}

void tsr_pretokenizer_destroy(tsr_pretokenizer *pretokenizer)
{
    if (pretokenizer == NULL) {
        return;
    }
    for (int i = 0; i < pretokenizer->n_steps; i++) {
        tsr_finder_clear(&pretokenizer->steps[i].finder);
    }
    tsr_free(pretokenizer);
}

bool tsr_pretokenizer_keeps_whole(const tsr_pretokenizer *pretokenizer)
{
    return pretokenizer->keeps_whole;
}

bool tsr_pretokenizer_wants_bos(const tsr_pretokenizer *pretokenizer)
{
    return pretokenizer->wants_bos;
}

bool tsr_pretokenizer_ends_in_letters(const tsr_pretokenizer *pretokenizer)
{
    const int n = pretokenizer->n_steps;
    int n_letters = 0;

    for (int i = 0; i < n; i++) {
        n_letters += pretokenizer->steps[i].kind == TSR_CUT_KIND_LETTERS;
    }
    return n_letters == 1 && pretokenizer->steps[n - 1].kind == TSR_CUT_KIND_LETTERS;
}

void tsr_pretokenizer_leave_bytes(tsr_pretokenizer *pretokenizer)
{
    pretokenizer->n_steps--;
}

void tsr_pretokenizer_work_clear(tsr_pretokenizer_work *work)
{
    for (int i = 0; i < work->n_rewritten; i++) {
        tsr_text_clear(&work->rewritten[i]);
    }
    tsr_free(work->rewritten);
    tsr_regex_work_clear(&work->regex);
    *work = (tsr_pretokenizer_work){0};
}

/* ---- cutting -----------------------------------------------------------------------------------
 */

typedef struct cut {
    const tsr_pretokenizer *pre;
    tsr_pretokenizer_work *work;
    tsr_pretokenizer_piece *take;
    void *state;
} cut;

static tsr_status cut_by(const cut *c, int step, tsr_pretokenizer_place place, const char *text,
                         size_t n_bytes);

/* Where a part of a piece stands that begins at `start` of it. */
static tsr_pretokenizer_place place_of(tsr_pretokenizer_place place, size_t start)
{
    return place == TSR_PRETOKENIZER_PLACE_FIRST && start > 0 ? TSR_PRETOKENIZER_PLACE_BEHIND
                                                              : place;
}

/* A piece that a step has made, on its way to the next. */
typedef struct parts {
    const cut *c;
    int step;
    tsr_pretokenizer_place place;
    const char *text;
    size_t n_bytes;
    size_t start; /* of what is held back */
    size_t end;
    bool holds;
    bool held_found; /* was it found? */
} parts;

static tsr_status hand_on(const parts *p, size_t start, size_t end)
{
    if (end == start) {
        return TSR_OK;
    }
    return cut_by(p->c, p->step + 1, place_of(p->place, start), p->text + start, end - start);
}

static tsr_status hand_on_held(parts *p)
{
    const bool holds = p->holds;

    p->holds = false;
    return holds ? hand_on(p, p->start, p->end) : TSR_OK;
}

static void hold(parts *p, size_t start, size_t end)
{
    p->start = start;
    p->end = end;
    p->holds = true;
}

/* Take what was found, or what lies between two such places. */
static tsr_status take_part(parts *p, tsr_cut_behavior behavior, size_t start, size_t end,
                            bool found)
{
    const bool before = p->held_found;

    p->held_found = found;
    switch (behavior) {
    case TSR_CUT_BEHAVIOR_REMOVED:
        return found ? TSR_OK : hand_on(p, start, end);
    case TSR_CUT_BEHAVIOR_CONTIGUOUS:
        if (p->holds && found == before) {
            p->end = end;
            return TSR_OK;
        }
        break;
    case TSR_CUT_BEHAVIOR_PREVIOUS:
        if (p->holds && found && !before) {
            p->end = end;
            return TSR_OK;
        }
        break;
    case TSR_CUT_BEHAVIOR_NEXT:
        if (p->holds && before && !found) {
            p->holds = false;
            return hand_on(p, p->start, end);
        }
        break;
    case TSR_CUT_BEHAVIOR_ISOLATED:
    default:
        return hand_on(p, start, end);
    }
    TSR_TRY(hand_on_held(p));
    if (behavior == TSR_CUT_BEHAVIOR_NEXT && !found) {
        return hand_on(p, start, end);
    }
    hold(p, start, end);
    return TSR_OK;
}

static tsr_status split(const cut *c, int step, tsr_pretokenizer_place place, const char *text,
                        size_t n_bytes)
{
    const tsr_cut_step *s = &c->pre->steps[step];
    parts p = {.c = c, .step = step, .place = place, .text = text, .n_bytes = n_bytes};
    tsr_finder_place at = {0};
    size_t done = 0;

    for (;;) {
        size_t start = 0;
        size_t end = 0;

        TSR_TRY(tsr_finder_next(&s->finder, &c->work->regex, &at, text, n_bytes, &start, &end));
        if (start > n_bytes) {
            break;
        }
        if (start > done) {
            TSR_TRY(take_part(&p, s->behavior, done, start, s->invert));
        }
        TSR_TRY(take_part(&p, s->behavior, start, end, !s->invert));
        done = end;
    }
    if (done < n_bytes) {
        TSR_TRY(take_part(&p, s->behavior, done, n_bytes, s->invert));
    }
    return hand_on_held(&p);
}

/* Spaces as another character, and one before the piece where the rule wants it. */
static tsr_status rewrite_spaces(tsr_text *out, const tsr_cut_step *s, tsr_pretokenizer_place place,
                                 const char *text, size_t n_bytes)
{
    const bool wants =
        (s->prepend == TSR_CUT_PREPEND_ALWAYS && place != TSR_PRETOKENIZER_PLACE_WITHIN) ||
        (s->prepend == TSR_CUT_PREPEND_FIRST && place == TSR_PRETOKENIZER_PLACE_FIRST);
    const bool has =
        text[0] == ' ' || (n_bytes >= s->sign_bytes && memcmp(text, s->sign, s->sign_bytes) == 0);

    if (wants && !has) {
        TSR_TRY(tsr_text_append(out, s->sign, s->sign_bytes));
    }
    for (size_t at = 0; at < n_bytes;) {
        const char *space = memchr(text + at, ' ', n_bytes - at);
        const size_t end = space != NULL ? (size_t)(space - text) : n_bytes;

        TSR_TRY(tsr_text_append(out, text + at, end - at));
        if (space != NULL) {
            TSR_TRY(tsr_text_append(out, s->sign, s->sign_bytes));
        }
        at = end + 1;
    }
    return TSR_OK;
}

static tsr_status rewrite_letters(tsr_text *out, const char *text, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        char letter[2];
        const int n = tsr_byte_alphabet_write(letter, (uint8_t)text[i]);

        TSR_TRY(tsr_text_append(out, letter, (size_t)n));
    }
    return TSR_OK;
}

static tsr_status rewrite(const cut *c, int step, tsr_pretokenizer_place place, const char *text,
                          size_t n_bytes)
{
    const tsr_cut_step *s = &c->pre->steps[step];
    tsr_text *out = &c->work->rewritten[step];

    out->n_bytes = 0;
    if (s->kind == TSR_CUT_KIND_SPACE) {
        if (text[0] == ' ' || place == TSR_PRETOKENIZER_PLACE_WITHIN) {
            return cut_by(c, step + 1, place, text, n_bytes);
        }
        TSR_TRY(tsr_text_append(out, " ", 1));
        TSR_TRY(tsr_text_append(out, text, n_bytes));
    } else if (s->kind == TSR_CUT_KIND_LETTERS) {
        TSR_TRY(rewrite_letters(out, text, n_bytes));
    } else {
        TSR_TRY(rewrite_spaces(out, s, place, text, n_bytes));
    }
    return cut_by(c, step + 1, place, out->bytes, out->n_bytes);
}

static tsr_status split_by_length(const cut *c, int step, tsr_pretokenizer_place place,
                                  const char *text, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes;) {
        size_t end = at;

        for (int64_t i = 0; i < c->pre->steps[step].length && end < n_bytes; i++) {
            const int n = tsr_utf8_measure(text + end, n_bytes - end);

            end += n > 0 ? (size_t)n : 1;
        }
        TSR_TRY(cut_by(c, step + 1, place_of(place, at), text + at, end - at));
        at = end;
    }
    return TSR_OK;
}

/* Cut a text by this step and each piece by those after it. */
static tsr_status cut_by(const cut *c, int step, tsr_pretokenizer_place place, const char *text,
                         size_t n_bytes)
{
    if (step == c->pre->n_steps) {
        return c->take(c->state, text, n_bytes);
    }
    switch (c->pre->steps[step].kind) {
    case TSR_CUT_KIND_SPLIT:
        return split(c, step, place, text, n_bytes);
    case TSR_CUT_KIND_LENGTH:
        return split_by_length(c, step, place, text, n_bytes);
    default:
        return rewrite(c, step, place, text, n_bytes);
    }
}

static tsr_status make_room(tsr_pretokenizer_work *work, const tsr_pretokenizer *pre)
{
    if (work->n_rewritten < pre->n_steps) {
        tsr_pretokenizer_work_clear(work);
        work->rewritten = tsr_alloc((size_t)pre->n_steps, sizeof(*work->rewritten));
        if (work->rewritten == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no room to cut a text");
        }
        work->n_rewritten = pre->n_steps;
    }
    return TSR_OK;
}

/* A byte that is no character, in its letter where the rule writes letters. */
static tsr_status take_byte(const tsr_pretokenizer *pre, tsr_pretokenizer_piece *take, void *state,
                            const char *byte)
{
    char letter[2];

    for (int i = 0; i < pre->n_steps; i++) {
        if (pre->steps[i].kind == TSR_CUT_KIND_LETTERS) {
            return take(state, letter, (size_t)tsr_byte_alphabet_write(letter, (uint8_t)*byte));
        }
    }
    return take(state, byte, 1);
}

tsr_status tsr_pretokenizer_split(const tsr_pretokenizer *pretokenizer, tsr_pretokenizer_work *work,
                                  tsr_pretokenizer_place place, const char *text, size_t n_bytes,
                                  tsr_pretokenizer_piece *take, void *state)
{
    const cut c = {.pre = pretokenizer, .work = work, .take = take, .state = state};

    TSR_TRY(make_room(work, pretokenizer));
    for (size_t at = 0; at < n_bytes;) {
        const size_t valid = tsr_utf8_valid(text + at, n_bytes - at);

        if (valid > 0) {
            TSR_TRY(
                cut_by(&c, 0, at == 0 ? place : TSR_PRETOKENIZER_PLACE_WITHIN, text + at, valid));
            at += valid;
        } else {
            TSR_TRY(take_byte(pretokenizer, take, state, text + at));
            at++;
        }
    }
    return TSR_OK;
}
