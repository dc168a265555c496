/*
 * Filters of single values, and how a filter is found.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/jinja/jrun.h"

enum {
    NUMBER_BYTES = 400
};

static tsr_status do_default(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    tsr_jvalue a[2];
    const tsr_jtext *nothing;

    TSR_TRY(tsr_jcall_bind(run, "default", "default_value boolean", 0, args, a));
    *out = *v;
    if (v->kind == TSR_J_UNDEFINED ||
        (tsr_jcall_given(&a[1]) && tsr_jvalue_truth(&a[1]) && !tsr_jvalue_truth(v))) {
        TSR_TRY(tsr_jtext_words(run, &nothing, ""));
        *out = tsr_jcall_given(&a[0]) ? a[0] : tsr_jvalue_text(nothing);
    }
    return TSR_OK;
}

static tsr_status do_length(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    tsr_jvalue none;
    int64_t n;

    TSR_TRY(tsr_jcall_bind(run, "length", "", 0, args, &none));
    if (v->kind == TSR_J_LOOP) {
        TSR_TRY(tsr_jexec_fetch_all(run, v->as.loop));
        n = v->as.loop->ready->n_items;
    } else {
        n = tsr_jvalue_length(v);
    }
    *out = tsr_jvalue_int(n);
    return n >= 0 ? TSR_OK
                  : tsr_jvalue_fail(run, "object of type '%s' has no len()", tsr_jvalue_type(v));
}

static tsr_status do_abs(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args, tsr_jvalue *out)
{
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "abs", "", 0, args, &none));
    if (!tsr_jvalue_is_number(v) || (tsr_jvalue_is_whole(v) && tsr_jvalue_whole(v) == INT64_MIN)) {
        return tsr_jvalue_fail(run, "abs wants a number, not '%s'", tsr_jvalue_type(v));
    }
    *out = v->kind == TSR_J_FLOAT ? tsr_jvalue_float(fabs(v->as.real))
                                  : tsr_jvalue_int(llabs(tsr_jvalue_whole(v)));
    return TSR_OK;
}

/* ---- numbers from text -------------------------------------------------------------------------
 */

/* Without the space around it and the underscores between digits; false: too long, or no number. */
static bool number_text(const tsr_jtext *text, char out[NUMBER_BYTES])
{
    size_t first = 0;
    size_t end = text->n_bytes;
    size_t n = 0;
    int32_t c;

    while (first < end && (text->bytes[first] == ' ' ||
                           (text->bytes[first] >= '\t' && text->bytes[first] <= '\r'))) {
        first++;
    }
    while (end > first && tsr_jtext_character_before(text, end, &c) == 1 && tsr_jtext_is_space(c)) {
        end--;
    }
    for (size_t at = first; at < end; at++) {
        const char byte = text->bytes[at];

        if (byte == '_') {
            if (n == 0 || out[n - 1] < '0' || at + 1 == end || text->bytes[at + 1] == '_') {
                return false;
            }
            continue;
        }
        if (n + 1 == NUMBER_BYTES || byte == 0 || byte == ' ' || (byte >= '\t' && byte <= '\r')) {
            return false;
        }
        out[n++] = byte;
    }
    out[n] = 0;
    return n > 0;
}

static bool parse_real(const tsr_jtext *text, double *out)
{
    char number[NUMBER_BYTES];
    char *end;

    // Python knows no hexadecimal floats.
    if (!number_text(text, number) || strpbrk(number, "xXpP(") != NULL) {
        return false;
    }
    *out = strtod(number, &end);
    return *end == 0;
}

static bool parse_whole(const tsr_jtext *text, int64_t base, int64_t *out)
{
    char number[NUMBER_BYTES];
    const char *digits = number;
    bool negative = false;
    char *end;

    if (!number_text(text, number)) {
        return false;
    }
    if (*digits == '-' || *digits == '+') {
        negative = *digits++ == '-';
    }
    if (digits[0] == '0' && digits[1] != 0 && digits[2] != 0) {
        const char letter = (char)(digits[1] | 0x20);
        const int64_t named = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : -1;

        if (named == base || (named > 0 && base == 0)) {
            digits += 2;
            base = named;
        }
    }
    base = base == 0 ? 10 : base;
    if (*digits == '-' || *digits == '+' || *digits == 0 ||
        (base == 16 && digits[0] == '0' && (digits[1] | 0x20) == 'x')) {
        return false;
    }
    errno = 0;
    *out = strtoll(digits, &end, (int)base);
    *out = negative ? -*out : *out;
    return *end == 0 && errno == 0;
}

static tsr_status do_int(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args, tsr_jvalue *out)
{
    tsr_jvalue a[2];
    int64_t base;
    int64_t whole;
    double real = NAN;

    TSR_TRY(tsr_jcall_bind(run, "int", "default base", 0, args, a));
    TSR_TRY(tsr_jcall_whole(run, &a[1], 10, &base));
    if (v->kind == TSR_J_UNDEFINED) {
        return tsr_jvalue_fail(run, "%.*s", (int)v->as.text->n_bytes, v->as.text->bytes);
    }
    if (base != 0 && (base < 2 || base > 36)) {
        return tsr_jvalue_fail(run, "numbers to the base of %lld", (long long)base);
    }
    if (v->kind == TSR_J_TEXT && parse_whole(v->as.text, base, &whole)) {
        *out = tsr_jvalue_int(whole);
        return TSR_OK;
    }
    if (tsr_jvalue_is_whole(v)) {
        *out = tsr_jvalue_int(tsr_jvalue_whole(v));
        return TSR_OK;
    }
    if (v->kind == TSR_J_FLOAT) {
        real = v->as.real;
    } else if (v->kind != TSR_J_TEXT || !parse_real(v->as.text, &real)) {
        real = NAN;
    }
    if (isnan(real)) {
        *out = tsr_jcall_given(&a[0]) ? a[0] : tsr_jvalue_int(0);
        return TSR_OK;
    }
    if (!(fabs(real) < 9.2e18)) {
        return tsr_jvalue_fail(run, "a number beyond 64 bits");
    }
    *out = tsr_jvalue_int((int64_t)real);
    return TSR_OK;
}

static tsr_status do_float(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    tsr_jvalue a;
    double real = 0;

    TSR_TRY(tsr_jcall_bind(run, "float", "default", 0, args, &a));
    if (v->kind == TSR_J_UNDEFINED) {
        return tsr_jvalue_fail(run, "%.*s", (int)v->as.text->n_bytes, v->as.text->bytes);
    }
    if (tsr_jvalue_is_number(v)) {
        real = tsr_jvalue_real(v);
    } else if (v->kind != TSR_J_TEXT || !parse_real(v->as.text, &real)) {
        *out = tsr_jcall_given(&a) ? a : tsr_jvalue_float(0);
        return TSR_OK;
    }
    *out = tsr_jvalue_float(real);
    return TSR_OK;
}

static tsr_status do_round(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    tsr_jvalue a[2];
    const tsr_jtext *method;
    int64_t precision;
    double scale;
    double real;

    TSR_TRY(tsr_jcall_bind(run, "round", "precision method", 0, args, a));
    TSR_TRY(tsr_jcall_whole(run, &a[0], 0, &precision));
    TSR_TRY(tsr_jcall_text(run, &a[1], "common", &method));
    if (!tsr_jvalue_is_number(v) || precision < -300 || precision > 300) {
        return tsr_jvalue_fail(run, "round wants a number, not '%s'", tsr_jvalue_type(v));
    }
    scale = pow(10, (double)precision);
    real = tsr_jvalue_real(v);
    if (method->n_bytes == 4 && memcmp(method->bytes, "ceil", 4) == 0) {
        *out = tsr_jvalue_float(ceil(real * scale) / scale);
    } else if (method->n_bytes == 5 && memcmp(method->bytes, "floor", 5) == 0) {
        *out = tsr_jvalue_float(floor(real * scale) / scale);
    } else if (method->n_bytes != 6 || memcmp(method->bytes, "common", 6) != 0) {
        return tsr_jvalue_fail(run, "method must be common, ceil or floor");
    } else if (tsr_jvalue_is_whole(v) && precision >= 0) {
        *out = tsr_jvalue_int(tsr_jvalue_whole(v));
    } else if (precision < 0) {
        const double rounded = nearbyint(real * scale) / scale;

        *out =
            tsr_jvalue_is_whole(v) ? tsr_jvalue_int((int64_t)rounded) : tsr_jvalue_float(rounded);
    } else {
        char digits[2 * NUMBER_BYTES];

        // Printing rounds the exact value, halves to even: what Python's round() does.
        (void)snprintf(digits, sizeof(digits), "%.*f", (int)precision, real);
        *out = tsr_jvalue_float(strtod(digits, NULL));
    }
    return TSR_OK;
}

static tsr_status do_filesizeformat(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                                    tsr_jvalue *out)
{
    static const char letters[] = "kMGTPEZY";
    tsr_jbuilder b = {0};
    char text[NUMBER_BYTES];
    tsr_jvalue a;
    double bytes;
    double base;
    double unit;
    bool binary;
    int i = 0;

    TSR_TRY(tsr_jcall_bind(run, "filesizeformat", "binary", 0, args, &a));
    binary = tsr_jcall_given(&a) && tsr_jvalue_truth(&a);
    if (tsr_jvalue_is_number(v)) {
        bytes = tsr_jvalue_real(v);
    } else if (v->kind != TSR_J_TEXT || !parse_real(v->as.text, &bytes)) {
        return tsr_jvalue_fail(run, "filesizeformat wants a number");
    }
    base = binary ? 1024 : 1000;
    unit = base * base;
    if (bytes == 1 || bytes < base) {
        (void)snprintf(text, sizeof(text), bytes == 1 ? "%.0f Byte" : "%.0f Bytes", trunc(bytes));
    } else {
        while (i < 7 && !(bytes < unit)) {
            unit *= base;
            i++;
        }
        (void)snprintf(text, sizeof(text), "%.1f %c%sB", base * bytes / unit,
                       binary && i == 0 ? 'K' : letters[i], binary ? "i" : "");
    }
    TSR_TRY(tsr_jtext_put_words(run, &b, text));
    return tsr_jtext_finish_value(run, &b, out);
}

/* ---- others ------------------------------------------------------------------------------------
 */

static tsr_status do_attr(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    const tsr_jtext *name;
    tsr_jvalue a;

    TSR_TRY(tsr_jcall_bind(run, "attr", "name", 1, args, &a));
    TSR_TRY(tsr_jcall_text(run, &a, "", &name));
    if (v->kind == TSR_J_DICT) { // only what it has besides its items
        bool found;

        TSR_TRY(tsr_jmethods_find(run, v, name, &found, out));
        return found ? TSR_OK
                     : tsr_jvalue_undefined(run, out, "'dict object' has no attribute '%.*s'",
                                            (int)name->n_bytes, name->bytes);
    }
    return tsr_jattribute_named(run, v, name, out);
}

/* What transformers put in the place of Jinja's own: json.dumps with ensure_ascii off. */
static tsr_status do_tojson(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    tsr_jbuilder spaces = {0};
    tsr_jbuilder b = {0};
    tsr_jshow_json_style style = {0};
    tsr_jvalue a[4];

    TSR_TRY(tsr_jcall_bind(run, "tojson", "ensure_ascii indent separators sort_keys", 0, args, a));
    style.ascii = tsr_jcall_given(&a[0]) && tsr_jvalue_truth(&a[0]);
    style.sort_keys = tsr_jcall_given(&a[3]) && tsr_jvalue_truth(&a[3]);
    if (tsr_jcall_given(&a[1]) && a[1].kind == TSR_J_TEXT) {
        style.indent = a[1].as.text;
    } else if (tsr_jcall_given(&a[1]) && a[1].kind != TSR_J_NONE) {
        int64_t width;

        TSR_TRY(tsr_jcall_whole(run, &a[1], 0, &width));
        for (int64_t i = 0; i < width; i++) {
            TSR_TRY(tsr_jvalue_work(run, 1));
            TSR_TRY(tsr_jtext_put(run, &spaces, " ", 1));
        }
        TSR_TRY(tsr_jtext_finish(run, &spaces, &style.indent));
    }
    if (tsr_jcall_given(&a[2]) && a[2].kind != TSR_J_NONE) {
        tsr_jlist *pair;

        TSR_TRY(tsr_jvalue_items(run, &pair, &a[2]));
        if (pair->n_items != 2) {
            return tsr_jvalue_fail(run, "tojson wants two separators");
        }
        TSR_TRY(tsr_jcall_text(run, &pair->items[0], "", &style.item));
        TSR_TRY(tsr_jcall_text(run, &pair->items[1], "", &style.key));
    } else {
        TSR_TRY(tsr_jtext_words(run, &style.item, style.indent != NULL ? "," : ", "));
        TSR_TRY(tsr_jtext_words(run, &style.key, ": "));
    }
    TSR_TRY(tsr_jshow_json(run, &b, v, &style));
    return tsr_jtext_finish_value(run, &b, out);
}

static const tsr_jfilter filters[] = {
    {"default", do_default}, {"d", do_default},     {"length", do_length},
    {"count", do_length},    {"abs", do_abs},       {"int", do_int},
    {"float", do_float},     {"round", do_round},   {"filesizeformat", do_filesizeformat},
    {"attr", do_attr},       {"tojson", do_tojson}, {NULL, NULL},
};

tsr_status tsr_jfilters_apply(tsr_jrun *run, const tsr_jtext *name, const tsr_jvalue *value,
                              const tsr_jargs *args, tsr_jvalue *out)
{
    static const tsr_jfilter *const tables[] = {filters, tsr_jstrings_filters, tsr_jlists_filters,
                                                tsr_jsort_filters};
    const tsr_jvalue of = *value; // *out may be the same

    TSR_TRY(tsr_jvalue_work(run, 1));
    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
        for (const tsr_jfilter *f = tables[t]; f->name != NULL; f++) {
            if (strlen(f->name) == name->n_bytes &&
                memcmp(f->name, name->bytes, name->n_bytes) == 0) {
                return f->apply(run, &of, args, out);
            }
        }
    }
    return tsr_jvalue_fail(run, "there is no filter called '%.*s'",
                           name->n_bytes < 40 ? (int)name->n_bytes : 40, name->bytes);
}
