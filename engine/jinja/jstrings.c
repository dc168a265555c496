/*
 * Filters of strings.
 */
#include <string.h>

#include "engine/jinja/jrun.h"

static tsr_status text_of(tsr_jrun *run, const tsr_jvalue *v, const tsr_jtext **out)
{
    return tsr_jshow_text(run, out, v);
}

static tsr_status recase(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                         tsr_jtext_case how, tsr_jvalue *out)
{
    const tsr_jtext *text;
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "upper", "", 0, args, &none));
    TSR_TRY(text_of(run, v, &text));
    TSR_TRY(tsr_jtext_recase(run, &text, text, how));
    *out = tsr_jvalue_text(text);
    return TSR_OK;
}

static tsr_status do_upper(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return recase(run, v, args, TSR_JTEXT_UPPER, out);
}

static tsr_status do_lower(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return recase(run, v, args, TSR_JTEXT_LOWER, out);
}

static tsr_status do_capitalize(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                                tsr_jvalue *out)
{
    return recase(run, v, args, TSR_JTEXT_CAPITALIZE, out);
}

/* Each word with a capital: a word begins behind space, a hyphen or an opening bracket. */
static tsr_status do_title(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    const tsr_jtext *text;
    tsr_jbuilder b = {0};
    tsr_jvalue none;
    size_t first = 0;
    int32_t c;

    TSR_TRY(tsr_jcall_bind(run, "title", "", 0, args, &none));
    TSR_TRY(text_of(run, v, &text));
    for (size_t at = 0; at <= text->n_bytes;) {
        const size_t n = at < text->n_bytes ? tsr_jtext_character(text, at, &c) : 1;
        const bool between = at == text->n_bytes || tsr_jtext_is_space(c) ||
                             (c > 0 && c < 0x80 && strchr("-({[<", c) != NULL);

        if (between) {
            const tsr_jtext *word;

            TSR_TRY(tsr_jtext_part(run, &word, text, first, at));
            TSR_TRY(tsr_jtext_recase(run, &word, word, TSR_JTEXT_CAPITALIZE));
            TSR_TRY(tsr_jtext_put_text(run, &b, word));
            TSR_TRY(tsr_jtext_put_part(run, &b, text, at, at < text->n_bytes ? at + n : at));
            first = at + n;
        }
        at += n;
    }
    return tsr_jtext_finish_value(run, &b, out);
}

static tsr_status do_trim(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    const tsr_jtext *chars = NULL;
    const tsr_jtext *text;
    tsr_jvalue a;

    TSR_TRY(tsr_jcall_bind(run, "trim", "chars", 0, args, &a));
    if (tsr_jcall_given(&a) && a.kind != TSR_J_NONE) {
        TSR_TRY(tsr_jcall_text(run, &a, "", &chars));
    }
    TSR_TRY(text_of(run, v, &text));
    TSR_TRY(tsr_jtext_strip(run, &text, text, chars, true, true));
    *out = tsr_jvalue_text(text);
    return TSR_OK;
}

static tsr_status do_replace(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    const tsr_jtext *text;
    const tsr_jtext *old;
    const tsr_jtext *new;
    tsr_jbuilder b = {0};
    tsr_jvalue a[3];
    int64_t most = -1;
    size_t at = 0;

    TSR_TRY(tsr_jcall_bind(run, "replace", "old new count", 2, args, a));
    if (a[2].kind != TSR_J_NONE) {
        TSR_TRY(tsr_jcall_whole(run, &a[2], -1, &most));
    }
    TSR_TRY(text_of(run, v, &text));
    TSR_TRY(text_of(run, &a[0], &old));
    TSR_TRY(text_of(run, &a[1], &new));
    TSR_TRY(tsr_jvalue_work(run, text->n_bytes / 64));
    for (; most != 0; most--) {
        size_t hit = tsr_jtext_find(text, old, at);
        int32_t c;

        if (hit == SIZE_MAX) {
            break;
        }
        TSR_TRY(tsr_jvalue_work(run, 1));
        TSR_TRY(tsr_jtext_put_part(run, &b, text, at, hit));
        TSR_TRY(tsr_jtext_put_text(run, &b, new));
        at = hit + old->n_bytes;
        if (old->n_bytes == 0) { // between all characters
            if (at == text->n_bytes) {
                break;
            }
            hit = at + tsr_jtext_character(text, at, &c);
            TSR_TRY(tsr_jtext_put_part(run, &b, text, at, hit));
            at = hit;
        }
    }
    TSR_TRY(tsr_jtext_put_part(run, &b, text, at, text->n_bytes));
    return tsr_jtext_finish_value(run, &b, out);
}

static tsr_status do_indent(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    const tsr_jtext *text;
    const tsr_jtext *margin;
    tsr_jbuilder spaces = {0};
    tsr_jbuilder b = {0};
    tsr_jvalue a[3];
    int64_t width;
    bool blank;
    size_t first = 0;
    int32_t c;

    TSR_TRY(tsr_jcall_bind(run, "indent", "width first blank", 0, args, a));
    if (v->kind != TSR_J_TEXT) {
        return tsr_jvalue_fail(run, "indent wants a string, not '%s'", tsr_jvalue_type(v));
    }
    text = v->as.text;
    if (tsr_jcall_given(&a[0]) && a[0].kind == TSR_J_TEXT) {
        margin = a[0].as.text;
    } else {
        TSR_TRY(tsr_jcall_whole(run, &a[0], 4, &width));
        for (int64_t i = 0; i < width; i++) {
            TSR_TRY(tsr_jvalue_work(run, 1));
            TSR_TRY(tsr_jtext_put(run, &spaces, " ", 1));
        }
        TSR_TRY(tsr_jtext_finish(run, &spaces, &margin));
    }
    blank = tsr_jcall_given(&a[2]) && tsr_jvalue_truth(&a[2]);
    if (tsr_jcall_given(&a[1]) && tsr_jvalue_truth(&a[1])) {
        TSR_TRY(tsr_jtext_put_text(run, &b, margin));
    }
    for (size_t at = 0; at <= text->n_bytes;) {
        const size_t behind = at == text->n_bytes ? at + 1 : tsr_jtext_line_break(text, at);

        if (behind > at) { // a line ends; one line end at the very end is kept
            if (first > 0) {
                TSR_TRY(tsr_jtext_put_words(run, &b, "\n"));
                if (at > first || blank) {
                    TSR_TRY(tsr_jtext_put_text(run, &b, margin));
                }
            }
            TSR_TRY(tsr_jtext_put_part(run, &b, text, first, at));
            first = behind;
            at = behind;
        } else {
            at += tsr_jtext_character(text, at, &c);
        }
    }
    return tsr_jtext_finish_value(run, &b, out);
}

static tsr_status do_truncate(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                              tsr_jvalue *out)
{
    const tsr_jtext *text;
    const tsr_jtext *end;
    tsr_jbuilder b = {0};
    tsr_jvalue a[4];
    int64_t length;
    int64_t leeway;
    size_t cut;

    TSR_TRY(tsr_jcall_bind(run, "truncate", "length killwords end leeway", 0, args, a));
    TSR_TRY(tsr_jcall_whole(run, &a[0], 255, &length));
    TSR_TRY(tsr_jcall_text(run, &a[2], "...", &end));
    if (a[3].kind == TSR_J_NONE) {
        a[3].kind = TSR_J_KIND_COUNT;
    }
    TSR_TRY(tsr_jcall_whole(run, &a[3], 5, &leeway));
    if (v->kind != TSR_J_TEXT || length < tsr_jtext_n_characters(end) || leeway < 0) {
        return tsr_jvalue_fail(run, "truncate wants a string, and no less than what ends it");
    }
    text = v->as.text;
    if (tsr_jtext_n_characters(text) <= length + leeway) {
        *out = *v;
        return TSR_OK;
    }
    cut = tsr_jtext_offset(text, length - tsr_jtext_n_characters(end));
    if (!(tsr_jcall_given(&a[1]) && tsr_jvalue_truth(&a[1]))) {
        size_t space = cut;

        while (space > 0 && text->bytes[space - 1] != ' ') {
            space--;
        }
        cut = space > 0 ? space - 1 : cut;
    }
    TSR_TRY(tsr_jtext_put_part(run, &b, text, 0, cut));
    TSR_TRY(tsr_jtext_put_text(run, &b, end));
    return tsr_jtext_finish_value(run, &b, out);
}

static tsr_status do_wordcount(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                               tsr_jvalue *out)
{
    const tsr_jtext *text;
    tsr_jvalue none;
    int64_t n = 0;
    bool inside = false;
    int32_t c;

    TSR_TRY(tsr_jcall_bind(run, "wordcount", "", 0, args, &none));
    TSR_TRY(text_of(run, v, &text));
    for (size_t at = 0; at < text->n_bytes;) {
        const size_t bytes = tsr_jtext_character(text, at, &c);
        const tsr_jtext one = {.bytes = text->bytes + at, .n_bytes = bytes};
        const bool word = c == '_' || tsr_jtext_is(&one, TSR_JTEXT_ALNUM);

        n += word && !inside ? 1 : 0;
        inside = word;
        at += bytes;
    }
    *out = tsr_jvalue_int(n);
    return TSR_OK;
}

static tsr_status do_center(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    static const tsr_jtext name = {.bytes = "center", .n_bytes = 6};
    const tsr_jtext *text;
    tsr_jvalue of;
    tsr_jvalue method;
    tsr_jvalue width;
    tsr_jargs passed = {.values = &width, .n = 1};
    bool found;

    TSR_TRY(tsr_jcall_bind(run, "center", "width", 0, args, &width));
    if (!tsr_jcall_given(&width)) {
        width = tsr_jvalue_int(80);
    }
    TSR_TRY(text_of(run, v, &text));
    of = tsr_jvalue_text(text);
    TSR_TRY(tsr_jmethods_find(run, &of, &name, &found, &method));
    return tsr_jmethods_call(run, method.as.method, &passed, out);
}

static tsr_status do_format(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    const tsr_jtext *text;
    tsr_jlist *list;
    tsr_jvalue values;

    if (args->n > 0 && args->n_named > 0) {
        return tsr_jvalue_fail(run, "format takes arguments by place or by name, not both");
    }
    TSR_TRY(text_of(run, v, &text));
    if (args->n_named > 0) {
        tsr_jdict *dict;

        TSR_TRY(tsr_jvalue_new_dict(run, &dict));
        for (int i = 0; i < args->n_named; i++) {
            TSR_TRY(tsr_jvalue_set(run, dict, tsr_jvalue_text(args->names[i]), args->named[i]));
        }
        values = tsr_jvalue_dict(TSR_J_DICT, dict);
    } else {
        TSR_TRY(tsr_jvalue_new_list(run, &list));
        for (int i = 0; i < args->n; i++) {
            TSR_TRY(tsr_jvalue_append(run, list, args->values[i]));
        }
        values = tsr_jvalue_list(TSR_J_TUPLE, list);
    }
    return tsr_jformat_percent(run, text, &values, out);
}

static tsr_status do_escape(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    const tsr_jtext *text;
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "escape", "", 0, args, &none));
    TSR_TRY(text_of(run, v, &text));
    if (!text->markup) {
        TSR_TRY(tsr_jshow_html(run, &text, text));
    }
    *out = tsr_jvalue_text(text);
    return TSR_OK;
}

static tsr_status do_forceescape(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                                 tsr_jvalue *out)
{
    const tsr_jtext *text;
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "forceescape", "", 0, args, &none));
    TSR_TRY(text_of(run, v, &text));
    TSR_TRY(tsr_jshow_html(run, &text, text));
    *out = tsr_jvalue_text(text);
    return TSR_OK;
}

static tsr_status do_safe(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    const tsr_jtext *text;
    const tsr_jtext *part;
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "safe", "", 0, args, &none));
    TSR_TRY(text_of(run, v, &text));
    TSR_TRY(tsr_jtext_part(run, &part, text, 0, text->n_bytes));
    ((tsr_jtext *)(uintptr_t)part)->markup = true; // a part is new
    *out = tsr_jvalue_text(part);
    return TSR_OK;
}

static tsr_status do_string(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    const tsr_jtext *text;
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "string", "", 0, args, &none));
    TSR_TRY(text_of(run, v, &text));
    *out = tsr_jvalue_text(text);
    return TSR_OK;
}

static tsr_status put_quoted(tsr_jrun *run, tsr_jbuilder *b, const tsr_jtext *text, bool query)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < text->n_bytes; i++) {
        const unsigned char c = (unsigned char)text->bytes[i];
        const char code[] = {'%', hex[c >> 4], hex[c & 15]};
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || (c != 0 && strchr("_.-~", c) != NULL) ||
                           (c == '/' && !query);

        if (plain) {
            TSR_TRY(tsr_jtext_put_part(run, b, text, i, i + 1));
        } else if (c == ' ' && query) {
            TSR_TRY(tsr_jtext_put(run, b, "+", 1));
        } else {
            TSR_TRY(tsr_jtext_put(run, b, code, 3));
        }
    }
    return TSR_OK;
}

static tsr_status do_urlencode(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                               tsr_jvalue *out)
{
    const tsr_jtext *text;
    tsr_jbuilder b = {0};
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "urlencode", "", 0, args, &none));
    if (v->kind != TSR_J_DICT) {
        TSR_TRY(text_of(run, v, &text));
        TSR_TRY(put_quoted(run, &b, text, false));
        return tsr_jtext_finish_value(run, &b, out);
    }
    for (int64_t i = 0; i < v->as.dict->n_items; i++) {
        TSR_TRY(tsr_jtext_put_words(run, &b, i > 0 ? "&" : ""));
        TSR_TRY(text_of(run, &v->as.dict->keys[i], &text));
        TSR_TRY(put_quoted(run, &b, text, true));
        TSR_TRY(tsr_jtext_put_words(run, &b, "="));
        TSR_TRY(text_of(run, &v->as.dict->values[i], &text));
        TSR_TRY(put_quoted(run, &b, text, true));
    }
    return tsr_jtext_finish_value(run, &b, out);
}

const tsr_jfilter tsr_jstrings_filters[] = {
    {"upper", do_upper},
    {"lower", do_lower},
    {"capitalize", do_capitalize},
    {"title", do_title},
    {"trim", do_trim},
    {"replace", do_replace},
    {"indent", do_indent},
    {"truncate", do_truncate},
    {"wordcount", do_wordcount},
    {"center", do_center},
    {"format", do_format},
    {"escape", do_escape},
    {"e", do_escape},
    {"forceescape", do_forceescape},
    {"safe", do_safe},
    {"string", do_string},
    {"urlencode", do_urlencode},
    {NULL, NULL},
};
