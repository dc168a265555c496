/*
 * Filters of what can be walked.
 */
#include <string.h>

#include "engine/jinja/jrun.h"

static tsr_status finish(const tsr_jlist *list, tsr_jkind kind, tsr_jvalue *out)
{
    *out = tsr_jvalue_list(kind, (tsr_jlist *)(uintptr_t)list);
    return TSR_OK;
}

tsr_status tsr_jlists_follow(tsr_jrun *run, const tsr_jvalue *path, const tsr_jvalue *item,
                             const tsr_jvalue *fallback, tsr_jvalue *out)
{
    size_t at = 0;

    *out = *item;
    if (path == NULL || path->kind == TSR_J_NONE || !tsr_jcall_given(path)) {
        return TSR_OK;
    }
    if (path->kind != TSR_J_TEXT) {
        const tsr_jvalue of = *out;

        TSR_TRY(tsr_jattribute_item(run, &of, path, out));
    }
    while (path->kind == TSR_J_TEXT && at <= path->as.text->n_bytes) {
        const tsr_jtext *text = path->as.text;
        const char *dot = memchr(text->bytes + at, '.', text->n_bytes - at);
        const size_t end = dot != NULL ? (size_t)(dot - text->bytes) : text->n_bytes;
        const tsr_jvalue of = *out;
        tsr_jvalue key;
        int64_t number = 0;
        bool digits = end > at && end - at < 10;

        for (size_t i = at; i < end && digits; i++) {
            digits = text->bytes[i] >= '0' && text->bytes[i] <= '9';
            number = number * 10 + (text->bytes[i] - '0');
        }
        if (digits) {
            key = tsr_jvalue_int(number);
        } else {
            TSR_TRY(tsr_jtext_part_value(run, &key, text, at, end));
        }
        TSR_TRY(tsr_jattribute_item(run, &of, &key, out));
        if (out->kind == TSR_J_UNDEFINED && fallback != NULL && tsr_jcall_given(fallback) &&
            fallback->kind != TSR_J_NONE) {
            *out = *fallback;
        }
        at = end + 1;
    }
    if (out->kind == TSR_J_UNDEFINED && fallback != NULL && tsr_jcall_given(fallback) &&
        fallback->kind != TSR_J_NONE) {
        *out = *fallback;
    }
    return TSR_OK;
}

tsr_status tsr_jlists_copy(tsr_jrun *run, tsr_jlist **out, const tsr_jvalue *v)
{
    tsr_jlist *items;

    TSR_TRY(tsr_jvalue_items(run, &items, v));
    TSR_TRY(tsr_jvalue_new_list(run, out));
    for (int64_t i = 0; i < items->n_items; i++) {
        TSR_TRY(tsr_jvalue_append(run, *out, items->items[i]));
    }
    return TSR_OK;
}

tsr_status tsr_jlists_pair(tsr_jrun *run, tsr_jvalue a, tsr_jvalue b, tsr_jvalue *out)
{
    tsr_jlist *pair;

    TSR_TRY(tsr_jvalue_new_list(run, &pair));
    TSR_TRY(tsr_jvalue_append(run, pair, a));
    TSR_TRY(tsr_jvalue_append(run, pair, b));
    return finish(pair, TSR_J_TUPLE, out);
}

/* ---- map and select ----------------------------------------------------------------------------
 */

static tsr_jargs without_first(const tsr_jargs *args, int n)
{
    tsr_jargs rest = *args;

    rest.values += n;
    rest.n -= n;
    return rest;
}

static tsr_status do_map(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args, tsr_jvalue *out)
{
    tsr_jvalue a[2];
    tsr_jlist *items;
    tsr_jlist *list;

    if (args->n == 0) {
        TSR_TRY(tsr_jcall_bind(run, "map", "attribute default", 1, args, a));
    } else if (args->values[0].kind != TSR_J_TEXT) {
        return tsr_jvalue_fail(run, "map wants the name of a filter");
    }
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    items = list;
    if (tsr_jvalue_truth(v)) { // whatever is false is taken for empty
        TSR_TRY(tsr_jvalue_items(run, &items, v));
    }
    for (int64_t i = 0; i < items->n_items; i++) {
        tsr_jvalue mapped;

        if (args->n == 0) {
            TSR_TRY(tsr_jlists_follow(run, &a[0], &items->items[i], &a[1], &mapped));
        } else {
            const tsr_jargs rest = without_first(args, 1);

            TSR_TRY(
                tsr_jfilters_apply(run, args->values[0].as.text, &items->items[i], &rest, &mapped));
        }
        TSR_TRY(tsr_jvalue_append(run, list, mapped));
    }
    return finish(list, TSR_J_ITERATOR, out);
}

static tsr_status select_items(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                               bool attribute, bool wanted, tsr_jvalue *out)
{
    const int n_own = attribute ? 1 : 0;
    tsr_jlist *items;
    tsr_jlist *list;

    if (args->n < n_own) {
        return tsr_jvalue_fail(run, "selectattr wants the name of an attribute");
    }
    if (args->n > n_own && args->values[n_own].kind != TSR_J_TEXT) {
        return tsr_jvalue_fail(run, "select wants the name of a test");
    }
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    items = list;
    if (tsr_jvalue_truth(v)) {
        TSR_TRY(tsr_jvalue_items(run, &items, v));
    }
    for (int64_t i = 0; i < items->n_items; i++) {
        tsr_jvalue tested;
        bool holds;

        TSR_TRY(tsr_jlists_follow(run, attribute ? &args->values[0] : NULL, &items->items[i], NULL,
                                  &tested));
        if (args->n > n_own) {
            const tsr_jargs rest = without_first(args, n_own + 1);

            TSR_TRY(tsr_jtests_apply(run, args->values[n_own].as.text, &tested, &rest, &holds));
        } else {
            holds = tsr_jvalue_truth(&tested);
        }
        if (holds == wanted) {
            TSR_TRY(tsr_jvalue_append(run, list, items->items[i]));
        }
    }
    return finish(list, TSR_J_ITERATOR, out);
}

static tsr_status do_select(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    return select_items(run, v, args, false, true, out);
}

static tsr_status do_reject(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    return select_items(run, v, args, false, false, out);
}

static tsr_status do_selectattr(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                                tsr_jvalue *out)
{
    return select_items(run, v, args, true, true, out);
}

static tsr_status do_rejectattr(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                                tsr_jvalue *out)
{
    return select_items(run, v, args, true, false, out);
}

/* ---- all together ------------------------------------------------------------------------------
 */

static tsr_status do_join(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    const tsr_jtext *between;
    tsr_jbuilder b = {0};
    tsr_jvalue a[2];
    tsr_jlist *items;

    TSR_TRY(tsr_jcall_bind(run, "join", "d attribute", 0, args, a));
    if (tsr_jcall_given(&a[0])) {
        TSR_TRY(tsr_jshow_text(run, &between, &a[0]));
    } else {
        TSR_TRY(tsr_jtext_words(run, &between, ""));
    }
    TSR_TRY(tsr_jvalue_items(run, &items, v));
    for (int64_t i = 0; i < items->n_items; i++) {
        tsr_jvalue item;

        if (i > 0) {
            TSR_TRY(tsr_jtext_put_text(run, &b, between));
        }
        TSR_TRY(tsr_jlists_follow(run, &a[1], &items->items[i], NULL, &item));
        TSR_TRY(tsr_jshow_str(run, &b, &item));
    }
    return tsr_jtext_finish_value(run, &b, out);
}

static tsr_status do_sum(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args, tsr_jvalue *out)
{
    tsr_jvalue a[2];
    tsr_jlist *items;

    TSR_TRY(tsr_jcall_bind(run, "sum", "attribute start", 0, args, a));
    TSR_TRY(tsr_jvalue_items(run, &items, v));
    *out = tsr_jcall_given(&a[1]) ? a[1] : tsr_jvalue_int(0);
    if (out->kind == TSR_J_TEXT) {
        return tsr_jvalue_fail(run, "sum does not add strings; join does");
    }
    for (int64_t i = 0; i < items->n_items; i++) {
        const tsr_jvalue before = *out;
        tsr_jvalue item;

        TSR_TRY(tsr_jlists_follow(run, &a[0], &items->items[i], NULL, &item));
        TSR_TRY(tsr_jarithmetic_add(run, &before, &item, out));
    }
    return TSR_OK;
}

/* Lists of `n` items each; the last one is filled up. */
static tsr_status do_batch(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    tsr_jvalue a[2];
    tsr_jlist *items;
    tsr_jlist *list;
    tsr_jlist *row = NULL;
    int64_t n;

    TSR_TRY(tsr_jcall_bind(run, "batch", "linecount fill_with", 1, args, a));
    TSR_TRY(tsr_jcall_whole(run, &a[0], 1, &n));
    if (n < 1) {
        return tsr_jvalue_fail(run, "batches of %lld items", (long long)n);
    }
    TSR_TRY(tsr_jvalue_items(run, &items, v));
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int64_t i = 0; i < items->n_items; i++) {
        if (i % n == 0) {
            TSR_TRY(tsr_jvalue_new_list(run, &row));
            TSR_TRY(tsr_jvalue_append(run, list, tsr_jvalue_list(TSR_J_LIST, row)));
        }
        TSR_TRY(tsr_jvalue_append(run, row, items->items[i]));
    }
    while (row != NULL && row->n_items < n && tsr_jcall_given(&a[1]) && a[1].kind != TSR_J_NONE) {
        TSR_TRY(tsr_jvalue_append(run, row, a[1]));
    }
    return finish(list, TSR_J_ITERATOR, out);
}

/* `n` lists, as equal as they go. */
static tsr_status do_slice(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    tsr_jvalue a[2];
    tsr_jlist *items;
    tsr_jlist *list;
    int64_t n;
    int64_t at = 0;

    TSR_TRY(tsr_jcall_bind(run, "slice", "slices fill_with", 1, args, a));
    TSR_TRY(tsr_jcall_whole(run, &a[0], 1, &n));
    if (n < 1) {
        return tsr_jvalue_fail(run, "%lld slices", (long long)n);
    }
    TSR_TRY(tsr_jvalue_items(run, &items, v));
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int64_t i = 0; i < n; i++) {
        const int64_t more = items->n_items % n;
        const int64_t wanted = items->n_items / n + (i < more ? 1 : 0);
        tsr_jlist *row;

        TSR_TRY(tsr_jvalue_new_list(run, &row));
        for (int64_t k = 0; k < wanted; k++) {
            TSR_TRY(tsr_jvalue_append(run, row, items->items[at++]));
        }
        if (tsr_jcall_given(&a[1]) && a[1].kind != TSR_J_NONE && i >= more) {
            TSR_TRY(tsr_jvalue_append(run, row, a[1]));
        }
        TSR_TRY(tsr_jvalue_append(run, list, tsr_jvalue_list(TSR_J_LIST, row)));
    }
    return finish(list, TSR_J_ITERATOR, out);
}

static tsr_status do_reverse(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    tsr_jbuilder b = {0};
    tsr_jlist *items;
    tsr_jlist *list;
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "reverse", "", 0, args, &none));
    TSR_TRY(tsr_jvalue_items(run, &items, v));
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int64_t i = items->n_items - 1; i >= 0; i--) {
        if (v->kind == TSR_J_TEXT) {
            TSR_TRY(tsr_jtext_put_text(run, &b, items->items[i].as.text));
        } else {
            TSR_TRY(tsr_jvalue_append(run, list, items->items[i]));
        }
    }
    return v->kind == TSR_J_TEXT ? tsr_jtext_finish_value(run, &b, out)
                                 : finish(list, TSR_J_ITERATOR, out);
}

static tsr_status do_list(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    tsr_jlist *list;
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "list", "", 0, args, &none));
    TSR_TRY(tsr_jlists_copy(run, &list, v));
    return finish(list, TSR_J_LIST, out);
}

static tsr_status do_first(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    tsr_jlist *items;
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "first", "", 0, args, &none));
    if (v->kind == TSR_J_ITERATOR) { // takes one, leaves the rest
        tsr_jlist *list = v->as.list;

        if (list->at < list->n_items) {
            *out = list->items[list->at++];
            return TSR_OK;
        }
        return tsr_jvalue_undefined(run, out, "No first item, sequence was empty.");
    }
    TSR_TRY(tsr_jvalue_items(run, &items, v));
    if (items->n_items == 0) {
        return tsr_jvalue_undefined(run, out, "No first item, sequence was empty.");
    }
    *out = items->items[0];
    return TSR_OK;
}

static tsr_status do_last(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    tsr_jlist *items;
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "last", "", 0, args, &none));
    if (v->kind == TSR_J_ITERATOR) {
        return tsr_jvalue_fail(run, "'generator' object is not reversible");
    }
    TSR_TRY(tsr_jvalue_items(run, &items, v));
    if (items->n_items == 0) {
        return tsr_jvalue_undefined(run, out, "No last item, sequence was empty.");
    }
    *out = items->items[items->n_items - 1];
    return TSR_OK;
}

static tsr_status do_items(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    tsr_jlist *list;
    tsr_jvalue none;

    TSR_TRY(tsr_jcall_bind(run, "items", "", 0, args, &none));
    if (v->kind != TSR_J_DICT && v->kind != TSR_J_UNDEFINED) {
        return tsr_jvalue_fail(run, "Can only get item pairs from a mapping.");
    }
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int64_t i = 0; v->kind == TSR_J_DICT && i < v->as.dict->n_items; i++) {
        tsr_jvalue pair;

        TSR_TRY(tsr_jlists_pair(run, v->as.dict->keys[i], v->as.dict->values[i], &pair));
        TSR_TRY(tsr_jvalue_append(run, list, pair));
    }
    return finish(list, TSR_J_ITERATOR, out);
}

const tsr_jfilter tsr_jlists_filters[] = {
    {"map", do_map},
    {"select", do_select},
    {"reject", do_reject},
    {"selectattr", do_selectattr},
    {"rejectattr", do_rejectattr},
    {"join", do_join},
    {"sum", do_sum},
    {"batch", do_batch},
    {"slice", do_slice},
    {"reverse", do_reverse},
    {"list", do_list},
    {"first", do_first},
    {"last", do_last},
    {"items", do_items},
    {NULL, NULL},
};
