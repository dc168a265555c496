/*
 * "%d of %s" % (1, x) and "{} of {name:>5}".format(1, name=x).
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/jinja/jrun.h"

enum {
    DIGIT_BYTES = 700, // 10^308 and 300 digits behind the point
    MOST_PRECISION = 300,
    MOST_WIDTH = 1 << 20
};

/* How one value is to be written. */
typedef struct form {
    const char *fill; /* one character */
    size_t fill_bytes;
    char align; /* '<', '>', '^', '=' (behind the sign), or 0: as the type has it */
    char sign;  /* '+', ' ' or 0 */
    char group; /* ',', '_' or 0 */
    bool alternate;
    int64_t width;
    int64_t precision; /* -1: none */
    char type;         /* 0: none */
} form;

static tsr_status put_fill(tsr_jrun *run, tsr_jbuilder *b, const form *f, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        TSR_TRY(tsr_jvalue_work(run, 1));
        TSR_TRY(tsr_jtext_put(run, b, f->fill, f->fill_bytes));
    }
    return TSR_OK;
}

/* `prefix` (a sign, 0x) and `body` within the width. */
static tsr_status put_aligned(tsr_jrun *run, tsr_jbuilder *b, const form *f, const char *prefix,
                              const tsr_jtext *body, char align)
{
    const int64_t missing = f->width - tsr_jtext_n_characters(body) - (int64_t)strlen(prefix);
    const int64_t all = missing > 0 ? missing : 0;
    const int64_t left = align == '<' ? 0 : align == '^' ? all / 2 : all;

    if (align != '=') {
        TSR_TRY(put_fill(run, b, f, left));
    }
    TSR_TRY(tsr_jtext_put_words(run, b, prefix));
    if (align == '=') {
        TSR_TRY(put_fill(run, b, f, left));
    }
    TSR_TRY(tsr_jtext_put_text(run, b, body));
    return put_fill(run, b, f, all - left);
}

static tsr_status put_text(tsr_jrun *run, tsr_jbuilder *b, const form *f, const tsr_jtext *text,
                           char align)
{
    if (f->precision >= 0) {
        TSR_TRY(tsr_jtext_part(run, &text, text, 0, tsr_jtext_offset(text, f->precision)));
    }
    return put_aligned(run, b, f, "", text, align);
}

/* Separators between groups of three (four for other bases) digits before the point. */
static void group_digits(char *digits, char separator, int every)
{
    const size_t whole = strspn(digits, "0123456789abcdefABCDEF");
    const size_t n = whole < strcspn(digits, ".") ? whole : strcspn(digits, ".");
    char grouped[DIGIT_BYTES + DIGIT_BYTES / 3];
    size_t used = 0;

    for (size_t i = 0; digits[i] != 0 && used + 2 < sizeof(grouped); i++) {
        if (i > 0 && i < n && (n - i) % (size_t)every == 0) {
            grouped[used++] = separator;
        }
        grouped[used++] = digits[i];
    }
    grouped[used] = 0;
    memcpy(digits, grouped, used + 1);
}

static tsr_status put_digits(tsr_jrun *run, tsr_jbuilder *b, const form *f, bool negative,
                             const char *base, char *digits)
{
    tsr_jtext body = {.bytes = digits};
    char prefix[4];

    if (f->group != 0) {
        group_digits(digits, f->group, base[0] != 0 ? 4 : 3);
    }
    body.n_bytes = strlen(digits);
    (void)snprintf(prefix, sizeof(prefix), "%s%s",
                   negative         ? "-"
                   : f->sign == '+' ? "+"
                   : f->sign == ' ' ? " "
                                    : "",
                   f->alternate ? base : "");
    return put_aligned(run, b, f, prefix, &body, f->align != 0 ? f->align : '>');
}

static tsr_status put_whole(tsr_jrun *run, tsr_jbuilder *b, const form *f, int64_t number)
{
    const uint64_t magnitude = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    char digits[2 * DIGIT_BYTES];
    char plain[80];
    size_t n = 0;
    const uint64_t base = f->type == 'x' || f->type == 'X' ? 16
                          : f->type == 'o'                 ? 8
                          : f->type == 'b'                 ? 2
                                                           : 10;
    uint64_t rest = magnitude;
    size_t at = 0;

    do {
        plain[n++] = (f->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[rest % base];
        rest /= base;
    } while (rest > 0);
    while (at + n < DIGIT_BYTES && (int64_t)(at + n) < f->precision) {
        digits[at++] = '0';
    }
    while (n > 0) {
        digits[at++] = plain[--n];
    }
    digits[at] = 0;
    return put_digits(run, b, f, number < 0,
                      f->type == 'x'   ? "0x"
                      : f->type == 'X' ? "0X"
                      : base == 8      ? "0o"
                      : base == 2      ? "0b"
                                       : "",
                      digits);
}

static tsr_status put_real(tsr_jrun *run, tsr_jbuilder *b, const form *f, double real)
{
    const bool percent = f->type == '%';
    const char type = percent || f->type == 0 ? 'f' : f->type;
    const int precision = f->precision < 0                ? 6
                          : f->precision > MOST_PRECISION ? MOST_PRECISION
                                                          : (int)f->precision;
    const char format[] = {'%',
                           f->alternate ? '#' : '.',
                           f->alternate ? '.' : '*',
                           f->alternate ? '*' : type,
                           f->alternate ? type : 0,
                           0};
    char digits[2 * DIGIT_BYTES];
    const double value = fabs(percent ? real * 100 : real);

    if (isnan(real) || isinf(real)) {
        (void)snprintf(digits, sizeof(digits), "%s",
                       isupper((unsigned char)type) ? (isnan(real) ? "NAN" : "INF")
                       : isnan(real)                ? "nan"
                                                    : "inf");
    } else {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void)snprintf(digits, DIGIT_BYTES, format, precision, value);
#pragma GCC diagnostic pop
    }
    if (percent) {
        (void)strcat(digits, "%");
    }
    return put_digits(run, b, f, signbit(real) != 0 && !isnan(real), "", digits);
}

/* ---- % -----------------------------------------------------------------------------------------
 */

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
        for (*out = 0; isdigit((unsigned char)character(p)) && *out < MOST_WIDTH; p->at++) {
            *out = *out * 10 + (character(p) - '0');
        }
    }
    return *out <= MOST_WIDTH ? TSR_OK : tsr_jvalue_fail(run, "a width of %lld", (long long)*out);
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

static tsr_status put_percent(tsr_jrun *run, tsr_jbuilder *b, form *f, const tsr_jvalue *v)
{
    const tsr_jtext *text;
    tsr_jbuilder shown = {0};

    switch (f->type) {
    case 's':
        TSR_TRY(tsr_jshow_text(run, &text, v));
        return put_text(run, b, f, text, f->align == '<' ? '<' : '>');
    case 'r':
    case 'a':
        TSR_TRY(tsr_jshow_repr(run, &shown, v));
        TSR_TRY(tsr_jtext_finish(run, &shown, &text));
        return put_text(run, b, f, text, f->align == '<' ? '<' : '>');
    case 'c':
        if (v->kind == TSR_J_TEXT && tsr_jtext_n_characters(v->as.text) == 1) {
            return put_text(run, b, f, v->as.text, f->align == '<' ? '<' : '>');
        }
        break;
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        if (tsr_jvalue_is_whole(v)) {
            return put_whole(run, b, f, tsr_jvalue_whole(v));
        }
        if (v->kind == TSR_J_FLOAT && fabs(v->as.real) < 9.2e18 && strchr("diu", f->type) != NULL) {
            return put_whole(run, b, f, (int64_t)v->as.real);
        }
        break;
    default:
        if (tsr_jvalue_is_number(v) && f->type != 0 && strchr("eEfFgG", f->type) != NULL) {
            return put_real(run, b, f, tsr_jvalue_real(v));
        }
    }
    return tsr_jvalue_fail(run, "%%%c format: not for '%s'", f->type != 0 ? f->type : '?',
                           tsr_jvalue_type(v));
}

static tsr_status one_percent(tsr_jrun *run, tsr_jbuilder *b, percent *p)
{
    form f = {.fill = " ", .fill_bytes = 1, .precision = -1};
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

/* ---- {} ----------------------------------------------------------------------------------------
 */

typedef struct braces {
    const tsr_jargs *args;
    int next;
    bool numbered;
    bool counted;
} braces;

static tsr_status parse_form(tsr_jrun *run, form *f, const tsr_jtext *spec)
{
    size_t at = 0;
    size_t n = 0;
    int32_t c;

    *f = (form){.fill = " ", .fill_bytes = 1, .precision = -1};
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
    for (; at < spec->n_bytes && isdigit((unsigned char)spec->bytes[at]) && f->width < MOST_WIDTH;
         at++) {
        f->width = f->width * 10 + (spec->bytes[at] - '0');
    }
    if (at < spec->n_bytes && (spec->bytes[at] == ',' || spec->bytes[at] == '_')) {
        f->group = spec->bytes[at++];
    }
    if (at < spec->n_bytes && spec->bytes[at] == '.') {
        f->precision = 0;
        for (at++; at < spec->n_bytes && isdigit((unsigned char)spec->bytes[at]) &&
                   f->precision < MOST_WIDTH;
             at++) {
            f->precision = f->precision * 10 + (spec->bytes[at] - '0');
        }
    }
    if (at < spec->n_bytes) {
        f->type = spec->bytes[at++];
    }
    return at == spec->n_bytes && f->width < MOST_WIDTH
               ? TSR_OK
               : tsr_jvalue_fail(run, "a format that is not sound");
}

static tsr_status put_formatted(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v,
                                const tsr_jtext *spec)
{
    form f;

    if (spec->n_bytes == 0) {
        return tsr_jshow_str(run, b, v);
    }
    TSR_TRY(parse_form(run, &f, spec));
    if (v->kind == TSR_J_TEXT && (f.type == 0 || f.type == 's') && f.align != '=' && f.sign == 0) {
        return put_text(run, b, &f, v->as.text, f.align != 0 ? f.align : '<');
    }
    if (v->kind == TSR_J_TEXT && f.align == '=' && f.fill[0] == '0' && spec->bytes[0] == '0') {
        return put_text(run, b, &f, v->as.text, '<'); // "{:05}" of a string
    }
    if (tsr_jvalue_is_whole(v) && (f.type == 0 || strchr("bdnoxX", f.type) != NULL) &&
        f.precision < 0) {
        return put_whole(run, b, &f, tsr_jvalue_whole(v));
    }
    if (tsr_jvalue_is_number(v) && f.type != 0 && strchr("eEfFgG%", f.type) != NULL) {
        return put_real(run, b, &f, tsr_jvalue_real(v));
    }
    if (v->kind == TSR_J_FLOAT && (f.type == 0 || f.type == 'n')) {
        char digits[2 * DIGIT_BYTES];

        if (f.precision >= 0) {
            f.type = 'g';
            return put_real(run, b, &f, v->as.real);
        }
        tsr_jshow_real(digits, fabs(v->as.real));
        return put_digits(run, b, &f, signbit(v->as.real) != 0, "", digits);
    }
    return tsr_jvalue_fail(run, "the format '%.*s' is not for '%s'",
                           spec->n_bytes < 40 ? (int)spec->n_bytes : 40, spec->bytes,
                           tsr_jvalue_type(v));
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
    digits = end > 0 && end < 9;
    for (size_t i = 0; i < end && digits; i++) {
        digits = isdigit((unsigned char)name->bytes[i]) != 0;
        number = number * 10 + (name->bytes[i] - '0');
    }
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
            int64_t index = 0;
            bool all = end > first && end - first < 9;

            for (size_t i = first; i < end && all; i++) {
                all = isdigit((unsigned char)name->bytes[i]) != 0;
                index = index * 10 + (name->bytes[i] - '0');
            }
            key = all ? tsr_jvalue_int(index) : key;
            end += end < name->n_bytes ? 1 : 0;
            TSR_TRY(tsr_jeval_item(run, &of, &key, out));
        } else {
            TSR_TRY(tsr_jeval_attribute(run, &of, key.as.text, out));
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

tsr_status tsr_jformat_braces(tsr_jrun *run, const tsr_jtext *format, const tsr_jargs *args,
                              tsr_jvalue *out)
{
    braces f = {.args = args};
    tsr_jbuilder b = {0};

    TSR_TRY(put_braces(run, &b, &f, format, 0));
    return tsr_jtext_finish_value(run, &b, out);
}
