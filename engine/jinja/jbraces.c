/*
 * "{} of {name:>5}".format(1, name=x).
 */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "engine/jinja/jform.h"

typedef struct braces {
    const tsr_jargs *args;
    int next;
    bool numbered;
    bool counted;
} braces;

static tsr_status parse_form(tsr_jrun *run, tsr_jform *f, const tsr_jtext *spec)
{
    size_t at = 0;
    size_t n = 0;
    int32_t c;

    *f = (tsr_jform){.fill = " ", .fill_bytes = 1, .precision = -1};
    if (spec->n_bytes > 0) {
        n = tsr_jtext_character(spec, 0, &c);
    }
    if (n < spec->n_bytes && strchr("<>=^", spec->bytes[n]) != NULL && spec->bytes[n] != 0) {
        f->fill = spec->bytes;
        f->fill_bytes = n;
        f->align = spec->bytes[n];
        at = n + 1;
    } else if (spec->n_bytes > 0 && spec->bytes[0] != 0 && strchr("<>=^", spec->bytes[0]) != NULL) {
        f->align = spec->bytes[0];
        at = 1;
    }
    if (at < spec->n_bytes && spec->bytes[at] != 0 && strchr("+- ", spec->bytes[at]) != NULL) {
        f->sign = spec->bytes[at] == '-' ? 0 : spec->bytes[at];
        at++;
    }
    if (at < spec->n_bytes && spec->bytes[at] == '#') {
        f->alternate = true;
        at++;
    }
    if (at < spec->n_bytes && spec->bytes[at] == '0') {
        if (f->align == 0) {
            f->fill = "0";
            f->fill_bytes = 1;
            f->align = '=';
        }
        at++;
    }
    for (; at < spec->n_bytes && isdigit((unsigned char)spec->bytes[at]) &&
           f->width < TSR_JFORM_MOST_WIDTH;
         at++) {
        f->width = f->width * 10 + (spec->bytes[at] - '0');
    }
    if (at < spec->n_bytes && (spec->bytes[at] == ',' || spec->bytes[at] == '_')) {
        f->group = spec->bytes[at++];
    }
    if (at < spec->n_bytes && spec->bytes[at] == '.') {
        f->precision = 0;
        for (at++; at < spec->n_bytes && isdigit((unsigned char)spec->bytes[at]) &&
                   f->precision < TSR_JFORM_MOST_WIDTH;
             at++) {
            f->precision = f->precision * 10 + (spec->bytes[at] - '0');
        }
    }
    if (at < spec->n_bytes) {
        f->type = spec->bytes[at++];
    }
    return at == spec->n_bytes && f->width < TSR_JFORM_MOST_WIDTH
               ? TSR_OK
               : tsr_jvalue_fail(run, "a format that is not sound");
}

static tsr_status put_formatted(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v,
                                const tsr_jtext *spec)
{
    tsr_jform f;

    if (spec->n_bytes == 0) {
        return tsr_jshow_str(run, b, v);
    }
    TSR_TRY(parse_form(run, &f, spec));
    if (v->kind == TSR_J_TEXT && (f.type == 0 || f.type == 's') && f.align != '=' && f.sign == 0) {
        return tsr_jform_text(run, b, &f, v->as.text, f.align != 0 ? f.align : '<');
    }
    if (v->kind == TSR_J_TEXT && f.align == '=' && f.fill[0] == '0' && spec->bytes[0] == '0') {
        return tsr_jform_text(run, b, &f, v->as.text, '<'); // "{:05}" of a string
    }
    if (tsr_jvalue_is_whole(v) && (f.type == 0 || strchr("bdnoxX", f.type) != NULL) &&
        f.precision < 0) {
        return tsr_jform_whole(run, b, &f, tsr_jvalue_whole(v));
    }
    if (tsr_jvalue_is_number(v) && f.type != 0 && strchr("eEfFgG%", f.type) != NULL) {
        return tsr_jform_real(run, b, &f, tsr_jvalue_real(v));
    }
    if (v->kind == TSR_J_FLOAT && (f.type == 0 || f.type == 'n')) {
        char digits[2 * TSR_JFORM_DIGIT_BYTES];

        if (f.precision >= 0) {
            f.type = 'g';
            return tsr_jform_real(run, b, &f, v->as.real);
        }
        tsr_jshow_real(digits, fabs(v->as.real));
        return tsr_jform_digits(run, b, &f, signbit(v->as.real) != 0, "", digits);
    }
    return tsr_jvalue_fail(run, "the format '%.*s' is not for '%s'",
                           spec->n_bytes < 40 ? (int)spec->n_bytes : 40, spec->bytes,
                           tsr_jvalue_type(v));
}

/* Are bytes [first, end) a small whole number? */
static bool is_number(const tsr_jtext *text, size_t first, size_t end, int64_t *out)
{
    *out = 0;
    for (size_t i = first; i < end; i++) {
        if (!isdigit((unsigned char)text->bytes[i]) || i - first > 8) {
            return false;
        }
        *out = *out * 10 + (text->bytes[i] - '0');
    }
    return end > first;
}

/* The value that a field names: "", "0", "name", and behind it .attribute and [item]. */
static tsr_status field_value(tsr_jrun *run, braces *f, const tsr_jtext *name, tsr_jvalue *out)
{
    size_t end = 0;
    int64_t number = 0;
    bool digits;

    while (end < name->n_bytes && name->bytes[end] != '.' && name->bytes[end] != '[') {
        end++;
    }
    digits = is_number(name, 0, end, &number);
    f->counted |= end == 0;
    f->numbered |= digits;
    if (f->counted && f->numbered) {
        return tsr_jvalue_fail(run, "fields with and without a number");
    }
    if (end == 0 || digits) {
        number = end == 0 ? f->next++ : number;
        if (number >= f->args->n) {
            return tsr_jvalue_fail(run, "a format wants more arguments than there are");
        }
        *out = f->args->values[number];
    } else {
        int i = 0;

        while (i < f->args->n_named && !(f->args->names[i]->n_bytes == end &&
                                         memcmp(f->args->names[i]->bytes, name->bytes, end) == 0)) {
            i++;
        }
        if (i == f->args->n_named) {
            return tsr_jvalue_fail(run, "a format names the argument '%.*s', which is missing",
                                   (int)end, name->bytes);
        }
        *out = f->args->named[i];
    }
    while (end < name->n_bytes) {
        const bool bracket = name->bytes[end] == '[';
        const size_t first = ++end;
        const tsr_jvalue of = *out;
        tsr_jvalue key;

        while (end < name->n_bytes &&
               (bracket ? name->bytes[end] != ']'
                        : name->bytes[end] != '.' && name->bytes[end] != '[')) {
            end++;
        }
        TSR_TRY(tsr_jtext_part_value(run, &key, name, first, end));
        if (bracket) {
            key = is_number(name, first, end, &number) ? tsr_jvalue_int(number) : key;
            end += end < name->n_bytes ? 1 : 0;
            TSR_TRY(tsr_jattribute_item(run, &of, &key, out));
        } else {
            TSR_TRY(tsr_jattribute_named(run, &of, key.as.text, out));
        }
    }
    return TSR_OK;
}

static tsr_status put_braces(tsr_jrun *run, tsr_jbuilder *b, braces *f, const tsr_jtext *format,
                             int depth);

/* One field, [first, end) being what stands between its braces. */
static tsr_status put_field(tsr_jrun *run, tsr_jbuilder *b, braces *f, const tsr_jtext *format,
                            size_t first, size_t end, int depth)
{
    const tsr_jtext *name;
    const tsr_jtext *spec;
    tsr_jbuilder inner = {0};
    tsr_jvalue v;
    char conversion = 0;
    size_t at = first;
    size_t colon;

    while (at < end && format->bytes[at] != ':' && format->bytes[at] != '!') {
        at += format->bytes[at] == '[' && memchr(format->bytes + at, ']', end - at) != NULL
                  ? (size_t)((const char *)memchr(format->bytes + at, ']', end - at) -
                             (format->bytes + at))
                  : 1;
    }
    colon = at;
    if (at < end && format->bytes[at] == '!') {
        conversion = at + 1 < end ? format->bytes[at + 1] : 0;
        colon = at + 2;
        if (conversion == 0 || strchr("sra", conversion) == NULL ||
            (colon < end && format->bytes[colon] != ':')) {
            return tsr_jvalue_fail(run, "a format that is not sound");
        }
    }
    TSR_TRY(tsr_jtext_part(run, &name, format, first, at));
    TSR_TRY(field_value(run, f, name, &v));
    if (conversion != 0) {
        tsr_jbuilder shown = {0};

        TSR_TRY(conversion == 's' ? tsr_jshow_str(run, &shown, &v)
                                  : tsr_jshow_repr(run, &shown, &v));
        TSR_TRY(tsr_jtext_finish_value(run, &shown, &v));
    }
    TSR_TRY(tsr_jtext_part(run, &spec, format, colon < end ? colon + 1 : end, end));
    TSR_TRY(put_braces(run, &inner, f, spec, depth + 1));
    TSR_TRY(tsr_jtext_finish(run, &inner, &spec));
    return put_formatted(run, b, &v, spec);
}

static tsr_status put_braces(tsr_jrun *run, tsr_jbuilder *b, braces *f, const tsr_jtext *format,
                             int depth)
{
    for (size_t at = 0; at < format->n_bytes;) {
        const char c = format->bytes[at];
        size_t end = at + 1;
        int open = 1;

        if (c != '{' && c != '}') {
            TSR_TRY(tsr_jtext_put_part(run, b, format, at, end));
            at = end;
            continue;
        }
        if (end < format->n_bytes && format->bytes[end] == c) {
            TSR_TRY(tsr_jtext_put(run, b, &c, 1));
            at += 2;
            continue;
        }
        while (c == '{' && end < format->n_bytes && open > 0) {
            open += format->bytes[end] == '{' ? 1 : format->bytes[end] == '}' ? -1 : 0;
            end++;
        }
        if (open > 0 || depth > 1) {
            return tsr_jvalue_fail(run, "a format with a single brace");
        }
        TSR_TRY(put_field(run, b, f, format, at + 1, end - 1, depth));
        at = end;
    }
    return TSR_OK;
}

tsr_status tsr_jbraces_format(tsr_jrun *run, const tsr_jtext *format, const tsr_jargs *args,
                              tsr_jvalue *out)
{
    braces f = {.args = args};
    tsr_jbuilder b = {0};

    TSR_TRY(put_braces(run, &b, &f, format, 0));
    return tsr_jtext_finish_value(run, &b, out);
}
