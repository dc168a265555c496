/*
 * "%d of %s" % (1, x), as Python's printf.
 */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "engine/jinja/jform.h"

typedef struct percent {
    const tsr_jtext *format;
    size_t at;
    const tsr_jvalue *values;
    int64_t n_used;
} percent;

static tsr_status next_value(tsr_jrun *run, percent *p, tsr_jvalue *out)
{
    if (p->values->kind == TSR_J_TUPLE) {
        if (p->n_used == p->values->as.list->n_items) {
            return tsr_jvalue_fail(run, "not enough arguments for format string");
        }
        *out = p->values->as.list->items[p->n_used++];
        return TSR_OK;
    }
    if (p->n_used++ > 0) {
        return tsr_jvalue_fail(run, "not enough arguments for format string");
    }
    *out = *p->values;
    return TSR_OK;
}

static char character(const percent *p)
{
    return p->at < p->format->n_bytes ? p->format->bytes[p->at] : 0;
}

/* Digits, or '*': the next value. */
static tsr_status take_count(tsr_jrun *run, percent *p, int64_t *out)
{
    tsr_jvalue v;

    if (character(p) == '*') {
        p->at++;
        TSR_TRY(next_value(run, p, &v));
        TSR_TRY(tsr_jcall_whole(run, &v, 0, out));
    } else {
        for (*out = 0; isdigit((unsigned char)character(p)) && *out < TSR_JFORM_MOST_WIDTH;
             p->at++) {
            *out = *out * 10 + (character(p) - '0');
        }
    }
    return *out <= TSR_JFORM_MOST_WIDTH ? TSR_OK
                                        : tsr_jvalue_fail(run, "a width of %lld", (long long)*out);
}

/* (name) behind the %: the value of that name. */
static tsr_status take_named(tsr_jrun *run, percent *p, tsr_jvalue *out)
{
    const size_t first = ++p->at;
    const tsr_jvalue *found = NULL;
    tsr_jvalue key;

    while (p->at < p->format->n_bytes && character(p) != ')') {
        p->at++;
    }
    TSR_TRY(tsr_jtext_part_value(run, &key, p->format, first, p->at));
    p->at++;
    if (p->values->kind != TSR_J_DICT) {
        return tsr_jvalue_fail(run, "format requires a mapping");
    }
    TSR_TRY(tsr_jvalue_get(run, &found, p->values->as.dict, &key));
    if (found == NULL) {
        return tsr_jvalue_fail(run, "there is no value called '%.*s'", (int)key.as.text->n_bytes,
                               key.as.text->bytes);
    }
    *out = *found;
    return TSR_OK;
}

static tsr_status put_percent(tsr_jrun *run, tsr_jbuilder *b, tsr_jform *f, const tsr_jvalue *v)
{
    const tsr_jtext *text;
    tsr_jbuilder shown = {0};

    switch (f->type) {
    case 's':
        TSR_TRY(tsr_jshow_text(run, &text, v));
        return tsr_jform_text(run, b, f, text, f->align == '<' ? '<' : '>');
    case 'r':
    case 'a':
        TSR_TRY(tsr_jshow_repr(run, &shown, v));
        TSR_TRY(tsr_jtext_finish(run, &shown, &text));
        return tsr_jform_text(run, b, f, text, f->align == '<' ? '<' : '>');
    case 'c':
        if (v->kind == TSR_J_TEXT && tsr_jtext_n_characters(v->as.text) == 1) {
            return tsr_jform_text(run, b, f, v->as.text, f->align == '<' ? '<' : '>');
        }
        break;
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        if (tsr_jvalue_is_whole(v)) {
            return tsr_jform_whole(run, b, f, tsr_jvalue_whole(v));
        }
        if (v->kind == TSR_J_FLOAT && fabs(v->as.real) < 9.2e18 && strchr("diu", f->type) != NULL) {
            return tsr_jform_whole(run, b, f, (int64_t)v->as.real);
        }
        break;
    default:
        if (tsr_jvalue_is_number(v) && f->type != 0 && strchr("eEfFgG", f->type) != NULL) {
            return tsr_jform_real(run, b, f, tsr_jvalue_real(v));
        }
    }
    return tsr_jvalue_fail(run, "%%%c format: not for '%s'", f->type != 0 ? f->type : '?',
                           tsr_jvalue_type(v));
}

static tsr_status one_percent(tsr_jrun *run, tsr_jbuilder *b, percent *p)
{
    tsr_jform f = {.fill = " ", .fill_bytes = 1, .precision = -1};
    tsr_jvalue v;
    bool named = false;

    p->at++; // %
    if (character(p) == '(') {
        TSR_TRY(take_named(run, p, &v));
        named = true;
    }
    for (; character(p) != 0 && strchr("-+ #0", character(p)) != NULL; p->at++) {
        switch (character(p)) {
        case '-':
            f.align = '<';
            break;
        case '0':
            f.fill = "0";
            break;
        case '#':
            f.alternate = true;
            break;
        default:
            f.sign = f.sign == '+' ? '+' : character(p);
        }
    }
    TSR_TRY(take_count(run, p, &f.width));
    if (f.width < 0) {
        f.align = '<';
        f.width = -f.width;
    }
    if (character(p) == '.') {
        p->at++;
        TSR_TRY(take_count(run, p, &f.precision));
        f.precision = f.precision < 0 ? 0 : f.precision;
    }
    f.type = character(p);
    p->at++;
    if (f.type == '%') {
        return tsr_jtext_put(run, b, "%", 1);
    }
    if (f.align == '<' || strchr("srac", f.type) != NULL) {
        f.fill = " ";
    } else if (f.fill[0] == '0') {
        f.align = '=';
    }
    if (!named) {
        TSR_TRY(next_value(run, p, &v));
    }
    return put_percent(run, b, &f, &v);
}

tsr_status tsr_jformat_percent(tsr_jrun *run, const tsr_jtext *format, const tsr_jvalue *values,
                               tsr_jvalue *out)
{
    percent p = {.format = format, .values = values};
    tsr_jbuilder b = {0};

    while (p.at < format->n_bytes) {
        if (format->bytes[p.at] == '%') {
            TSR_TRY(one_percent(run, &b, &p));
        } else {
            const char *next = memchr(format->bytes + p.at, '%', format->n_bytes - p.at);
            const size_t end = next != NULL ? (size_t)(next - format->bytes) : format->n_bytes;

            TSR_TRY(tsr_jtext_put_part(run, &b, format, p.at, end));
            p.at = end;
        }
    }
    if (values->kind == TSR_J_TUPLE
            ? p.n_used < values->as.list->n_items
            : p.n_used == 0 && values->kind != TSR_J_DICT && values->kind != TSR_J_LIST &&
                  values->kind != TSR_J_UNDEFINED && values->kind != TSR_J_RANGE) {
        return tsr_jvalue_fail(run, "not all arguments converted during string formatting");
    }
    return tsr_jtext_finish_value(run, &b, out);
}
