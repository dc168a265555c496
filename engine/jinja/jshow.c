#include "engine/jinja/jshow.h"

#include <math.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_DIGITS = 17,
    FIXED_FROM = -4, // decimal exponents that are written without an e
    FIXED_TO = 16
};

void tsr_jshow_real(char text[TSR_JSHOW_REAL_BYTES], double real)
{
    char e[TSR_JSHOW_REAL_BYTES]; // d.ddde+xx
    char digits[TSR_JSHOW_REAL_BYTES];
    int n_digits = 0;
    int exponent;
    char *at = text;

    if (isnan(real) || isinf(real)) {
        (void)snprintf(text, TSR_JSHOW_REAL_BYTES, "%s",
                       isnan(real) ? "nan"
                       : real > 0  ? "inf"
                                   : "-inf");
        return;
    }
    for (int n = 0; n < MOST_DIGITS; n++) {
        (void)snprintf(e, sizeof(e), "%.*e", n, real);
        if (strtod(e, NULL) == real) {
            break;
        }
    }
    exponent = (int)strtol(strchr(e, 'e') + 1, NULL, 10);
    for (const char *p = e; *p != 'e'; p++) {
        if (*p >= '0' && *p <= '9') {
            digits[n_digits++] = *p;
        }
    }
    if (signbit(real)) {
        *at++ = '-';
    }
    if (exponent < FIXED_FROM || exponent >= FIXED_TO) {
        *at++ = digits[0];
        if (n_digits > 1) {
            *at++ = '.';
        }
        for (int i = 1; i < n_digits; i++) {
            *at++ = digits[i];
        }
        (void)snprintf(at, (size_t)(text + TSR_JSHOW_REAL_BYTES - at), "e%c%02d",
                       exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    for (int i = exponent < 0 ? exponent : 0; i < n_digits || i <= exponent + 1; i++) {
        if (i == exponent + 1 || (exponent < 0 && i == exponent + 1)) {
            *at++ = '.';
        }
        *at++ = i >= 0 && i < n_digits ? digits[i] : '0';
    }
    *at = 0;
}

/* ---- as Python prints --------------------------------------------------------------------------
 */

static tsr_status repr_at(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v, int depth);

static tsr_status put_format(tsr_jrun *run, tsr_jbuilder *b, const char *format, long long number)
    __attribute__((format(printf, 3, 0)));
static tsr_status put_format(tsr_jrun *run, tsr_jbuilder *b, const char *format, long long number)
{
    char text[64];

    (void)snprintf(text, sizeof(text), format, number);
    return tsr_jtext_put_words(run, b, text);
}

static tsr_status put_number(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v)
{
    char text[TSR_JSHOW_REAL_BYTES];

    if (v->kind == TSR_J_INT) {
        return put_format(run, b, "%lld", (long long)v->as.number);
    }
    tsr_jshow_real(text, v->as.real);
    return tsr_jtext_put_words(run, b, text);
}

static tsr_status repr_text(tsr_jrun *run, tsr_jbuilder *b, const tsr_jtext *text)
{
    const bool single = memchr(text->bytes, '\'', text->n_bytes) == NULL;
    const bool plain = memchr(text->bytes, '"', text->n_bytes) == NULL;
    const char quote = !single && plain ? '"' : '\'';
    int32_t c;

    TSR_TRY(tsr_jtext_put_words(run, b, text->markup ? "Markup(" : ""));
    TSR_TRY(tsr_jtext_put(run, b, &quote, 1));
    for (size_t at = 0; at < text->n_bytes;) {
        const size_t n = tsr_jtext_character(text, at, &c);

        if (c == quote || c == '\\') {
            const char escaped[] = {'\\', (char)c};

            TSR_TRY(tsr_jtext_put(run, b, escaped, 2));
        } else if (c == '\n' || c == '\r' || c == '\t') {
            TSR_TRY(tsr_jtext_put_words(run, b, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t"));
        } else if (c < 0) {
            TSR_TRY(put_format(run, b, "\\x%02llx", (unsigned char)text->bytes[at]));
        } else if (!tsr_jtext_is_printable(c)) {
            TSR_TRY(put_format(run, b,
                               c < 0x100     ? "\\x%02llx"
                               : c < 0x10000 ? "\\u%04llx"
                                             : "\\U%08llx",
                               c));
        } else {
            TSR_TRY(tsr_jtext_put_part(run, b, text, at, at + n));
        }
        at += n;
    }
    TSR_TRY(tsr_jtext_put(run, b, &quote, 1));
    return tsr_jtext_put_words(run, b, text->markup ? ")" : "");
}

static tsr_status repr_list(tsr_jrun *run, tsr_jbuilder *b, const tsr_jlist *list, const char *open,
                            const char *close, int depth)
{
    TSR_TRY(tsr_jtext_put_words(run, b, open));
    for (int64_t i = 0; i < list->n_items; i++) {
        TSR_TRY(tsr_jtext_put_words(run, b, i > 0 ? ", " : ""));
        TSR_TRY(repr_at(run, b, &list->items[i], depth + 1));
    }
    return tsr_jtext_put_words(run, b, close);
}

static tsr_status repr_dict(tsr_jrun *run, tsr_jbuilder *b, const tsr_jdict *dict, int depth)
{
    TSR_TRY(tsr_jtext_put_words(run, b, "{"));
    for (int64_t i = 0; i < dict->n_items; i++) {
        TSR_TRY(tsr_jtext_put_words(run, b, i > 0 ? ", " : ""));
        TSR_TRY(repr_at(run, b, &dict->keys[i], depth + 1));
        TSR_TRY(tsr_jtext_put_words(run, b, ": "));
        TSR_TRY(repr_at(run, b, &dict->values[i], depth + 1));
    }
    return tsr_jtext_put_words(run, b, "}");
}

static tsr_status repr_range(tsr_jrun *run, tsr_jbuilder *b, const tsr_jrange *range)
{
    TSR_TRY(put_format(run, b, "range(%lld", range->start));
    TSR_TRY(put_format(run, b, ", %lld", range->stop));
    if (range->step != 1) {
        TSR_TRY(put_format(run, b, ", %lld", range->step));
    }
    return tsr_jtext_put_words(run, b, ")");
}

static tsr_status repr_at(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v, int depth)
{
    TSR_TRY(tsr_jvalue_work(run, 1));
    if (depth > TSR_JVALUE_MOST_DEPTH) {
        return tsr_jvalue_fail(run, "values within values, too deep to print");
    }
    switch (v->kind) {
    case TSR_J_UNDEFINED:
        return tsr_jtext_put_words(run, b, "Undefined");
    case TSR_J_NONE:
        return tsr_jtext_put_words(run, b, "None");
    case TSR_J_BOOL:
        return tsr_jtext_put_words(run, b, v->as.truth ? "True" : "False");
    case TSR_J_INT:
    case TSR_J_FLOAT:
        return put_number(run, b, v);
    case TSR_J_TEXT:
        return repr_text(run, b, v->as.text);
    case TSR_J_LIST:
        return repr_list(run, b, v->as.list, "[", "]", depth);
    case TSR_J_TUPLE:
        return repr_list(run, b, v->as.list, "(", v->as.list->n_items == 1 ? ",)" : ")", depth);
    case TSR_J_VIEW:
        TSR_TRY(tsr_jtext_put_words(run, b, v->as.list->names));
        return repr_list(run, b, v->as.list, "([", "])", depth);
    case TSR_J_DICT:
        return repr_dict(run, b, v->as.dict, depth);
    case TSR_J_RANGE:
        return repr_range(run, b, v->as.range);
    case TSR_J_NAMESPACE:
        TSR_TRY(tsr_jtext_put_words(run, b, "<Namespace "));
        TSR_TRY(repr_dict(run, b, v->as.dict, depth));
        return tsr_jtext_put_words(run, b, ">");
    default: // things that Python shows with an address
        TSR_TRY(tsr_jtext_put_words(run, b, "<"));
        TSR_TRY(tsr_jtext_put_words(run, b, tsr_jvalue_type(v)));
        return tsr_jtext_put_words(run, b, ">");
    }
}

tsr_status tsr_jshow_repr(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v)
{
    return repr_at(run, b, v, 0);
}

tsr_status tsr_jshow_str(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v)
{
    if (v->kind == TSR_J_TEXT) {
        return tsr_jtext_put_text(run, b, v->as.text);
    }
    return v->kind == TSR_J_UNDEFINED ? TSR_OK : repr_at(run, b, v, 0);
}

tsr_status tsr_jshow_text(tsr_jrun *run, const tsr_jtext **out, const tsr_jvalue *v)
{
    tsr_jbuilder b = {0};

    if (v->kind == TSR_J_TEXT) {
        *out = v->as.text;
        return TSR_OK;
    }
    TSR_TRY(tsr_jshow_str(run, &b, v));
    return tsr_jtext_finish(run, &b, out);
}

/* ---- JSON --------------------------------------------------------------------------------------
 */

static tsr_status put_unit(tsr_jrun *run, tsr_jbuilder *b, uint32_t unit)
{
    return put_format(run, b, "\\u%04llx", unit);
}

static tsr_status json_text(tsr_jrun *run, tsr_jbuilder *b, const tsr_jtext *text, bool ascii)
{
    static const char escaped[] = "\"\\\n\r\t\b\f";
    static const char letters[] = "\"\\nrtbf";
    size_t plain = 0; // from here to `at` nothing needs escaping
    int32_t c;

    TSR_TRY(tsr_jtext_put_words(run, b, "\""));
    for (size_t at = 0; at < text->n_bytes;) {
        const size_t n = tsr_jtext_character(text, at, &c);
        const char *special = c > 0 && c < 0x80 ? strchr(escaped, c) : NULL;

        if (special != NULL || (c >= 0 && c < 0x20) || (ascii && c >= 0x7f)) {
            TSR_TRY(tsr_jtext_put_part(run, b, text, plain, at));
            if (special != NULL) {
                const char two[] = {'\\', letters[special - escaped]};

                TSR_TRY(tsr_jtext_put(run, b, two, 2));
            } else if (c >= 0x10000) {
                TSR_TRY(put_unit(run, b, 0xD800U + (((uint32_t)c - 0x10000U) >> 10)));
                TSR_TRY(put_unit(run, b, 0xDC00U + (((uint32_t)c - 0x10000U) & 0x3FFU)));
            } else if (c == 0x7f) {
                TSR_TRY(tsr_jtext_put_part(run, b, text, at, at + n));
            } else {
                TSR_TRY(put_unit(run, b, (uint32_t)c));
            }
            plain = at + n;
        }
        at += n;
    }
    TSR_TRY(tsr_jtext_put_part(run, b, text, plain, text->n_bytes));
    return tsr_jtext_put_words(run, b, "\"");
}

static tsr_status json_at(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v,
                          const tsr_jshow_json_style *style, int depth);

static tsr_status json_break(tsr_jrun *run, tsr_jbuilder *b, const tsr_jshow_json_style *style,
                             int depth)
{
    if (style->indent == NULL) {
        return TSR_OK;
    }
    TSR_TRY(tsr_jtext_put_words(run, b, "\n"));
    for (int i = 0; i < depth; i++) {
        TSR_TRY(tsr_jtext_put_text(run, b, style->indent));
    }
    return TSR_OK;
}

static tsr_status json_list(tsr_jrun *run, tsr_jbuilder *b, const tsr_jlist *list,
                            const tsr_jshow_json_style *style, int depth)
{
    if (list->n_items == 0) {
        return tsr_jtext_put_words(run, b, "[]");
    }
    TSR_TRY(tsr_jtext_put_words(run, b, "["));
    for (int64_t i = 0; i < list->n_items; i++) {
        if (i > 0) {
            TSR_TRY(tsr_jtext_put_text(run, b, style->item));
        }
        TSR_TRY(json_break(run, b, style, depth + 1));
        TSR_TRY(json_at(run, b, &list->items[i], style, depth + 1));
    }
    TSR_TRY(json_break(run, b, style, depth));
    return tsr_jtext_put_words(run, b, "]");
}

static tsr_status json_key(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *key,
                           const tsr_jshow_json_style *style)
{
    if (key->kind == TSR_J_TEXT) {
        return json_text(run, b, key->as.text, style->ascii);
    }
    if (key->kind != TSR_J_NONE && !tsr_jvalue_is_number(key)) {
        return tsr_jvalue_fail(run, "a key of JSON must be a string, not '%s'",
                               tsr_jvalue_type(key));
    }
    TSR_TRY(tsr_jtext_put_words(run, b, "\""));
    TSR_TRY(json_at(run, b, key, style, 0));
    return tsr_jtext_put_words(run, b, "\"");
}

/* The order in which keys are written. */
static tsr_status key_order(tsr_jrun *run, int64_t *order, const tsr_jdict *dict, bool sorted)
{
    for (int64_t i = 0; i < dict->n_items; i++) {
        int64_t at = i;

        while (sorted && at > 0) {
            int before;

            TSR_TRY(tsr_jvalue_compare(run, &before, &dict->keys[i], &dict->keys[order[at - 1]]));
            if (before >= 0) {
                break;
            }
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    return TSR_OK;
}

static tsr_status json_dict(tsr_jrun *run, tsr_jbuilder *b, const tsr_jdict *dict,
                            const tsr_jshow_json_style *style, int depth)
{
    void *order;

    if (dict->n_items == 0) {
        return tsr_jtext_put_words(run, b, "{}");
    }
    TSR_TRY(tsr_jmemory_take(&run->memory, &order, (size_t)dict->n_items * sizeof(int64_t)));
    TSR_TRY(key_order(run, order, dict, style->sort_keys));
    TSR_TRY(tsr_jtext_put_words(run, b, "{"));
    for (int64_t i = 0; i < dict->n_items; i++) {
        const int64_t at = ((const int64_t *)order)[i];

        if (i > 0) {
            TSR_TRY(tsr_jtext_put_text(run, b, style->item));
        }
        TSR_TRY(json_break(run, b, style, depth + 1));
        TSR_TRY(json_key(run, b, &dict->keys[at], style));
        TSR_TRY(tsr_jtext_put_text(run, b, style->key));
        TSR_TRY(json_at(run, b, &dict->values[at], style, depth + 1));
    }
    TSR_TRY(json_break(run, b, style, depth));
    return tsr_jtext_put_words(run, b, "}");
}

static tsr_status json_at(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v,
                          const tsr_jshow_json_style *style, int depth)
{
    TSR_TRY(tsr_jvalue_work(run, 1));
    if (depth > TSR_JVALUE_MOST_DEPTH) {
        return tsr_jvalue_fail(run, "values within values, too deep for JSON");
    }
    switch (v->kind) {
    case TSR_J_NONE:
        return tsr_jtext_put_words(run, b, "null");
    case TSR_J_BOOL:
        return tsr_jtext_put_words(run, b, v->as.truth ? "true" : "false");
    case TSR_J_FLOAT:
        if (isnan(v->as.real) || isinf(v->as.real)) {
            return tsr_jtext_put_words(run, b,
                                       isnan(v->as.real) ? "NaN"
                                       : v->as.real > 0  ? "Infinity"
                                                         : "-Infinity");
        }
        return put_number(run, b, v);
    case TSR_J_INT:
        return put_number(run, b, v);
    case TSR_J_TEXT:
        return json_text(run, b, v->as.text, style->ascii);
    case TSR_J_LIST:
    case TSR_J_TUPLE:
        return json_list(run, b, v->as.list, style, depth);
    case TSR_J_DICT:
        return json_dict(run, b, v->as.dict, style, depth);
    default:
        return tsr_jvalue_fail(run, "a value of type %s is not JSON", tsr_jvalue_type(v));
    }
}

tsr_status tsr_jshow_json(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v,
                          const tsr_jshow_json_style *style)
{
    return json_at(run, b, v, style, 0);
}

tsr_status tsr_jshow_html(tsr_jrun *run, const tsr_jtext **out, const tsr_jtext *text)
{
    tsr_jbuilder b = {0};
    tsr_jtext *made;

    for (size_t at = 0; at < text->n_bytes; at++) {
        const char *word = text->bytes[at] == '&'    ? "&amp;"
                           : text->bytes[at] == '<'  ? "&lt;"
                           : text->bytes[at] == '>'  ? "&gt;"
                           : text->bytes[at] == '\'' ? "&#39;"
                           : text->bytes[at] == '"'  ? "&#34;"
                                                     : NULL;

        if (word != NULL) {
            TSR_TRY(tsr_jtext_put_words(run, &b, word));
        } else {
            TSR_TRY(tsr_jtext_put_part(run, &b, text, at, at + 1));
        }
    }
    TSR_TRY(tsr_jtext_finish(run, &b, out));
    made = (tsr_jtext *)(uintptr_t)*out; // just made here
    made->markup = true;
    return TSR_OK;
}
