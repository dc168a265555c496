/*
 * Methods of strings that cut, search and join them.
 */
#include <string.h>

#include "engine/jinja/jrun.h"

enum {
    FIRST = 0,
    SECOND = 1
};

static tsr_status append_part(tsr_jrun *run, tsr_jlist *list, const tsr_jtext *text, size_t first,
                              size_t end)
{
    tsr_jvalue part;

    TSR_TRY(tsr_jtext_part_value(run, &part, text, first, end));
    return tsr_jvalue_append(run, list, part);
}

static void reverse(tsr_jlist *list)
{
    for (int64_t i = 0; i < list->n_items / 2; i++) {
        const tsr_jvalue item = list->items[i];

        list->items[i] = list->items[list->n_items - 1 - i];
        list->items[list->n_items - 1 - i] = item;
    }
}

/* ---- split -------------------------------------------------------------------------------------
 */

/* At runs of space, from the left. */
static tsr_status split_space(tsr_jrun *run, tsr_jlist *list, const tsr_jtext *text, int64_t most)
{
    size_t at = 0;
    int32_t c;

    for (;;) {
        size_t end;

        while (at < text->n_bytes) {
            const size_t n = tsr_jtext_character(text, at, &c);

            if (!tsr_jtext_is_space(c)) {
                break;
            }
            at += n;
        }
        if (at == text->n_bytes) {
            return TSR_OK;
        }
        end = at;
        if (most == 0) { // the rest, with the space at its end
            return append_part(run, list, text, at, text->n_bytes);
        }
        while (end < text->n_bytes) {
            const size_t n = tsr_jtext_character(text, end, &c);

            if (tsr_jtext_is_space(c)) {
                break;
            }
            end += n;
        }
        TSR_TRY(append_part(run, list, text, at, end));
        at = end;
        most--;
    }
}

/* The same from the right; the parts come out last one first. */
static tsr_status split_space_back(tsr_jrun *run, tsr_jlist *list, const tsr_jtext *text,
                                   int64_t most)
{
    size_t end = text->n_bytes;
    int32_t c;

    for (;;) {
        size_t at;

        while (end > 0) {
            const size_t n = tsr_jtext_character_before(text, end, &c);

            if (!tsr_jtext_is_space(c)) {
                break;
            }
            end -= n;
        }
        if (end == 0) {
            return TSR_OK;
        }
        at = end;
        if (most == 0) {
            return append_part(run, list, text, 0, end);
        }
        while (at > 0) {
            const size_t n = tsr_jtext_character_before(text, at, &c);

            if (tsr_jtext_is_space(c)) {
                break;
            }
            at -= n;
        }
        TSR_TRY(append_part(run, list, text, at, end));
        end = at;
        most--;
    }
}

static tsr_status split(tsr_jrun *run, const tsr_jtext *text, const tsr_jargs *args, bool back,
                        tsr_jvalue *out)
{
    tsr_jvalue v[2];
    tsr_jlist *list;
    int64_t most;
    size_t at = 0;
    size_t end = text->n_bytes;

    TSR_TRY(tsr_jcall_bind(run, "split", "sep maxsplit", 0, args, v));
    TSR_TRY(tsr_jcall_whole(run, &v[SECOND], -1, &most));
    most = most < 0 ? INT64_MAX : most;
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    TSR_TRY(tsr_jvalue_work(run, text->n_bytes / 64));
    *out = tsr_jvalue_list(TSR_J_LIST, list);
    if (!tsr_jcall_given(&v[FIRST]) || v[FIRST].kind == TSR_J_NONE) {
        if (!back) {
            return split_space(run, list, text, most);
        }
        TSR_TRY(split_space_back(run, list, text, most));
        reverse(list);
        return TSR_OK;
    }
    if (v[FIRST].kind != TSR_J_TEXT || v[FIRST].as.text->n_bytes == 0) {
        return tsr_jvalue_fail(run, "split wants a string that is not empty");
    }
    for (; most > 0; most--) {
        const tsr_jtext *what = v[FIRST].as.text;
        const size_t hit =
            back ? tsr_jtext_find_last(text, what, end) : tsr_jtext_find(text, what, at);

        if (hit == SIZE_MAX) {
            break;
        }
        if (back) {
            TSR_TRY(append_part(run, list, text, hit + what->n_bytes, end));
            end = hit;
        } else {
            TSR_TRY(append_part(run, list, text, at, hit));
            at = hit + what->n_bytes;
        }
    }
    TSR_TRY(append_part(run, list, text, at, end));
    if (back) {
        reverse(list);
    }
    return TSR_OK;
}

static tsr_status do_split(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return split(run, v->as.text, args, false, out);
}

static tsr_status do_rsplit(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    return split(run, v->as.text, args, true, out);
}

static tsr_status do_splitlines(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                                tsr_jvalue *out)
{
    const tsr_jtext *text = v->as.text;
    tsr_jvalue keep;
    tsr_jlist *list;
    size_t first = 0;
    int32_t c;

    TSR_TRY(tsr_jcall_bind(run, "splitlines", "keepends", 0, args, &keep));
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (size_t at = 0; at < text->n_bytes;) {
        const size_t behind = tsr_jtext_line_break(text, at);

        if (behind > at) {
            const bool ends = tsr_jcall_given(&keep) && tsr_jvalue_truth(&keep);

            TSR_TRY(append_part(run, list, text, first, ends ? behind : at));
            first = behind;
            at = behind;
        } else {
            at += tsr_jtext_character(text, at, &c);
        }
    }
    if (first < text->n_bytes) {
        TSR_TRY(append_part(run, list, text, first, text->n_bytes));
    }
    *out = tsr_jvalue_list(TSR_J_LIST, list);
    return TSR_OK;
}

static tsr_status partition(tsr_jrun *run, const tsr_jtext *text, const tsr_jargs *args, bool back,
                            tsr_jvalue *out)
{
    const tsr_jtext *what;
    tsr_jvalue v;
    tsr_jlist *list;
    size_t hit;

    TSR_TRY(tsr_jcall_bind(run, "partition", "sep", 1, args, &v));
    TSR_TRY(tsr_jcall_text(run, &v, "", &what));
    if (what->n_bytes == 0) {
        return tsr_jvalue_fail(run, "partition wants a string that is not empty");
    }
    hit = back ? tsr_jtext_find_last(text, what, text->n_bytes) : tsr_jtext_find(text, what, 0);
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    if (hit == SIZE_MAX) { // all of it, at the end from which nothing was found
        for (int i = 0; i < 3; i++) {
            const bool whole = i == (back ? 2 : 0);

            TSR_TRY(append_part(run, list, text, 0, whole ? text->n_bytes : 0));
        }
    } else {
        TSR_TRY(append_part(run, list, text, 0, hit));
        TSR_TRY(append_part(run, list, text, hit, hit + what->n_bytes));
        TSR_TRY(append_part(run, list, text, hit + what->n_bytes, text->n_bytes));
    }
    *out = tsr_jvalue_list(TSR_J_TUPLE, list);
    return TSR_OK;
}

static tsr_status do_partition(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                               tsr_jvalue *out)
{
    return partition(run, v->as.text, args, false, out);
}

static tsr_status do_rpartition(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                                tsr_jvalue *out)
{
    return partition(run, v->as.text, args, true, out);
}

/* ---- search ------------------------------------------------------------------------------------
 */

/* The bytes of text[start:end]. */
static tsr_status bounds(tsr_jrun *run, const tsr_jtext *text, const tsr_jvalue *start,
                         const tsr_jvalue *stop, size_t *first, size_t *end, bool *empty)
{
    int64_t from = 0;
    int64_t to = INT64_MAX;
    int64_t n;

    *first = 0;
    *end = text->n_bytes;
    *empty = false;
    if (start->kind == TSR_J_KIND_COUNT && stop->kind == TSR_J_KIND_COUNT) {
        return TSR_OK;
    }
    n = tsr_jtext_n_characters(text);
    if (start->kind != TSR_J_NONE) {
        TSR_TRY(tsr_jcall_whole(run, start, 0, &from));
    }
    if (stop->kind != TSR_J_NONE) {
        TSR_TRY(tsr_jcall_whole(run, stop, n, &to));
    }
    from = from < -n ? 0 : from < 0 ? from + n : from;
    to = to < -n ? 0 : to < 0 ? to + n : to > n ? n : to;
    *empty = from > n || from > to;
    *first = tsr_jtext_offset(text, from);
    *end = tsr_jtext_offset(text, to);
    return TSR_OK;
}

typedef enum search {
    SEARCH_FIND,
    SEARCH_RFIND,
    SEARCH_INDEX,
    SEARCH_RINDEX,
    SEARCH_COUNT
} search;

static tsr_status look(tsr_jrun *run, const tsr_jtext *text, const tsr_jargs *args, search how,
                       tsr_jvalue *out)
{
    const tsr_jtext *what;
    tsr_jvalue v[3];
    tsr_jtext part = *text;
    size_t first;
    size_t end;
    size_t hit;
    int64_t n = 0;
    bool empty;

    TSR_TRY(tsr_jcall_bind(run, "find", "sub start end", 1, args, v));
    TSR_TRY(tsr_jcall_text(run, &v[0], "", &what));
    TSR_TRY(tsr_jvalue_work(run, text->n_bytes / 16));
    TSR_TRY(bounds(run, text, &v[1], &v[2], &first, &end, &empty));
    part.n_bytes = end;
    if (how == SEARCH_COUNT) {
        for (size_t at = first; !empty;) {
            at = tsr_jtext_find(&part, what, at);
            if (at == SIZE_MAX) {
                break;
            }
            n++;
            if (what->n_bytes == 0 && at == end) {
                break;
            }
            if (what->n_bytes == 0) {
                int32_t c;

                at += tsr_jtext_character(text, at, &c);
            } else {
                at += what->n_bytes;
            }
        }
        *out = tsr_jvalue_int(n);
        return TSR_OK;
    }
    hit = how == SEARCH_FIND || how == SEARCH_INDEX ? tsr_jtext_find(&part, what, first)
                                                    : tsr_jtext_find_last(&part, what, end);
    if (empty || hit == SIZE_MAX || hit < first) {
        *out = tsr_jvalue_int(-1);
        return how == SEARCH_FIND || how == SEARCH_RFIND
                   ? TSR_OK
                   : tsr_jvalue_fail(run, "substring not found");
    }
    part.n_bytes = hit;
    *out = tsr_jvalue_int(tsr_jtext_n_characters(&part));
    return TSR_OK;
}

static tsr_status do_find(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    return look(run, v->as.text, args, SEARCH_FIND, out);
}

static tsr_status do_rfind(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return look(run, v->as.text, args, SEARCH_RFIND, out);
}

static tsr_status do_index(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return look(run, v->as.text, args, SEARCH_INDEX, out);
}

static tsr_status do_rindex(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    return look(run, v->as.text, args, SEARCH_RINDEX, out);
}

static tsr_status do_count(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return look(run, v->as.text, args, SEARCH_COUNT, out);
}

static tsr_status at_end(tsr_jrun *run, const tsr_jtext *text, const tsr_jargs *args, bool front,
                         tsr_jvalue *out)
{
    tsr_jvalue v[3];
    const tsr_jvalue *words = &v[0];
    int64_t n_words = 1;
    size_t first;
    size_t end;
    bool empty;
    bool found = false;

    TSR_TRY(tsr_jcall_bind(run, "startswith", "prefix start end", 1, args, v));
    TSR_TRY(bounds(run, text, &v[1], &v[2], &first, &end, &empty));
    if (v[0].kind == TSR_J_TUPLE) {
        words = v[0].as.list->items;
        n_words = v[0].as.list->n_items;
    }
    for (int64_t i = 0; i < n_words && !found; i++) {
        const tsr_jtext *word;

        TSR_TRY(tsr_jcall_text(run, &words[i], "", &word));
        found = !empty && word->n_bytes <= end - first &&
                memcmp(text->bytes + (front ? first : end - word->n_bytes), word->bytes,
                       word->n_bytes) == 0;
    }
    *out = tsr_jvalue_bool(found);
    return TSR_OK;
}

static tsr_status do_startswith(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                                tsr_jvalue *out)
{
    return at_end(run, v->as.text, args, true, out);
}

static tsr_status do_endswith(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                              tsr_jvalue *out)
{
    return at_end(run, v->as.text, args, false, out);
}

/* ---- taking away, joining ----------------------------------------------------------------------
 */

static tsr_status strip(tsr_jrun *run, const tsr_jtext *text, const tsr_jargs *args, bool left,
                        bool right, tsr_jvalue *out)
{
    const tsr_jtext *chars = NULL;
    const tsr_jtext *made;
    tsr_jvalue v;

    TSR_TRY(tsr_jcall_bind(run, "strip", "chars", 0, args, &v));
    if (tsr_jcall_given(&v) && v.kind != TSR_J_NONE) {
        TSR_TRY(tsr_jcall_text(run, &v, "", &chars));
    }
    TSR_TRY(tsr_jtext_strip(run, &made, text, chars, left, right));
    *out = tsr_jvalue_text(made);
    return TSR_OK;
}

static tsr_status do_strip(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return strip(run, v->as.text, args, true, true, out);
}

static tsr_status do_lstrip(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    return strip(run, v->as.text, args, true, false, out);
}

static tsr_status do_rstrip(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    return strip(run, v->as.text, args, false, true, out);
}

static tsr_status remove_end(tsr_jrun *run, const tsr_jtext *text, const tsr_jargs *args,
                             bool front, tsr_jvalue *out)
{
    const tsr_jtext *word;
    tsr_jvalue found;
    tsr_jvalue v;

    TSR_TRY(tsr_jcall_bind(run, "removeprefix", "prefix", 1, args, &v));
    TSR_TRY(tsr_jcall_text(run, &v, "", &word));
    TSR_TRY(at_end(run, text, args, front, &found));
    if (!found.as.truth) {
        *out = tsr_jvalue_text(text);
        return TSR_OK;
    }
    return tsr_jtext_part_value(run, out, text, front ? word->n_bytes : 0,
                                front ? text->n_bytes : text->n_bytes - word->n_bytes);
}

static tsr_status do_removeprefix(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                                  tsr_jvalue *out)
{
    return remove_end(run, v->as.text, args, true, out);
}

static tsr_status do_removesuffix(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                                  tsr_jvalue *out)
{
    return remove_end(run, v->as.text, args, false, out);
}

static tsr_status do_join(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    tsr_jbuilder b = {0};
    tsr_jvalue of;
    tsr_jlist *items;

    TSR_TRY(tsr_jcall_bind(run, "join", "iterable", 1, args, &of));
    TSR_TRY(tsr_jvalue_items(run, &items, &of));
    for (int64_t i = 0; i < items->n_items; i++) {
        const tsr_jtext *item;

        TSR_TRY(tsr_jcall_text(run, &items->items[i], "", &item));
        if (i > 0) {
            TSR_TRY(tsr_jtext_put_text(run, &b, v->as.text));
        }
        TSR_TRY(tsr_jtext_put_text(run, &b, item));
    }
    return tsr_jtext_finish_value(run, &b, out);
}

const tsr_jfilter tsr_jwords_methods[] = {
    {"split", do_split},
    {"rsplit", do_rsplit},
    {"splitlines", do_splitlines},
    {"partition", do_partition},
    {"rpartition", do_rpartition},
    {"find", do_find},
    {"rfind", do_rfind},
    {"index", do_index},
    {"rindex", do_rindex},
    {"count", do_count},
    {"startswith", do_startswith},
    {"endswith", do_endswith},
    {"strip", do_strip},
    {"lstrip", do_lstrip},
    {"rstrip", do_rstrip},
    {"removeprefix", do_removeprefix},
    {"removesuffix", do_removesuffix},
    {"join", do_join},
    {NULL, NULL},
};
