/*
 * Filters of what can be walked that ask what comes first, or what is the same.
 */
#include <string.h>

#include "engine/jinja/jrun.h"

static tsr_status finish(const tsr_jlist *list, tsr_jkind kind, tsr_jvalue *out)
{
    *out = tsr_jvalue_list(kind, (tsr_jlist *)(uintptr_t)list);
    return TSR_OK;
}

/* A key to sort by: in small letters, unless case counts. */
static tsr_status sort_key(tsr_jrun *run, const tsr_jvalue *path, const tsr_jvalue *item,
                           bool case_counts, tsr_jvalue *out)
{
    TSR_TRY(tsr_jlists_follow(run, path, item, NULL, out));
    if (out->kind == TSR_J_TEXT && !case_counts) {
        const tsr_jtext *small;

        TSR_TRY(tsr_jtext_recase(run, &small, out->as.text, TSR_JTEXT_LOWER));
        *out = tsr_jvalue_text(small);
    }
    return TSR_OK;
}

/* "a,b": a tuple of keys, as sort has it. */
static tsr_status sort_keys(tsr_jrun *run, const tsr_jvalue *paths, const tsr_jvalue *item,
                            bool case_counts, tsr_jvalue *out)
{
    tsr_jlist *keys;

    if (paths->kind != TSR_J_TEXT ||
        memchr(paths->as.text->bytes, ',', paths->as.text->n_bytes) == NULL) {
        return sort_key(run, paths, item, case_counts, out);
    }
    TSR_TRY(tsr_jvalue_new_list(run, &keys));
    for (size_t at = 0; at <= paths->as.text->n_bytes;) {
        const char *comma = memchr(paths->as.text->bytes + at, ',', paths->as.text->n_bytes - at);
        const size_t end =
            comma != NULL ? (size_t)(comma - paths->as.text->bytes) : paths->as.text->n_bytes;
        tsr_jvalue path;
        tsr_jvalue key;

        TSR_TRY(tsr_jtext_part_value(run, &path, paths->as.text, at, end));
        TSR_TRY(sort_key(run, &path, item, case_counts, &key));
        TSR_TRY(tsr_jvalue_append(run, keys, key));
        at = end + 1;
    }
    return finish(keys, TSR_J_LIST, out);
}

/* ---- sorting -----------------------------------------------------------------------------------
 */

/* Stable: merges runs of twice the length each time. */
static tsr_status sort_items(tsr_jrun *run, tsr_jlist *items, tsr_jlist *keys, bool reverse)
{
    const int64_t n = items->n_items;
    void *memory;
    tsr_jvalue *from[2] = {items->items, keys->items};
    tsr_jvalue *to[2];

    TSR_TRY(tsr_jmemory_take(&run->memory, &memory, 2 * (size_t)n * sizeof(tsr_jvalue)));
    to[0] = memory;
    to[1] = to[0] + n;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t first = 0; first < n; first += 2 * width) {
            const int64_t middle = first + width < n ? first + width : n;
            const int64_t end = middle + width < n ? middle + width : n;
            int64_t a = first;
            int64_t b = middle;

            for (int64_t i = first; i < end; i++) {
                bool left = b == end;

                if (a < middle && b < end) {
                    int order;

                    TSR_TRY(tsr_jvalue_compare(run, &order, &from[1][a], &from[1][b]));
                    left = reverse ? order >= 0 : order <= 0;
                }
                for (int k = 0; k < 2; k++) {
                    to[k][i] = from[k][left ? a : b];
                }
                if (left) {
                    a++;
                } else {
                    b++;
                }
            }
        }
        for (int k = 0; k < 2; k++) {
            tsr_jvalue *swap = from[k];

            from[k] = to[k];
            to[k] = swap;
        }
    }
    items->items = from[0];
    keys->items = from[1];
    items->capacity = n; // whichever of the two it is, it has room for no more
    keys->capacity = n;
    return TSR_OK;
}

static bool given_and_true(const tsr_jvalue *v)
{
    return tsr_jcall_given(v) && tsr_jvalue_truth(v);
}

/* Items in the order of their keys; the keys too, if keys is not NULL. */
static tsr_status sorted(tsr_jrun *run, const tsr_jvalue *v, const tsr_jvalue *path, bool cased,
                         bool reverse, tsr_jlist **out, tsr_jlist **sorted_keys)
{
    tsr_jlist *keys;

    TSR_TRY(tsr_jlists_copy(run, out, v));
    TSR_TRY(tsr_jvalue_new_list(run, &keys));
    for (int64_t i = 0; i < (*out)->n_items; i++) {
        tsr_jvalue key;

        TSR_TRY(sort_keys(run, path, &(*out)->items[i], cased, &key));
        TSR_TRY(tsr_jvalue_append(run, keys, key));
    }
    TSR_TRY(sort_items(run, *out, keys, reverse));
    if (sorted_keys != NULL) {
        *sorted_keys = keys;
    }
    return TSR_OK;
}

static tsr_status do_sort(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    tsr_jvalue a[3];
    tsr_jlist *list;

    TSR_TRY(tsr_jcall_bind(run, "sort", "reverse case_sensitive attribute", 0, args, a));
    TSR_TRY(sorted(run, v, &a[2], given_and_true(&a[1]), given_and_true(&a[0]), &list, NULL));
    return finish(list, TSR_J_LIST, out);
}

static tsr_status do_dictsort(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                              tsr_jvalue *out)
{
    tsr_jvalue a[3];
    tsr_jvalue index;
    tsr_jvalue pairs;
    tsr_jlist *list;

    TSR_TRY(tsr_jcall_bind(run, "dictsort", "case_sensitive by reverse", 0, args, a));
    if (v->kind != TSR_J_DICT) {
        return tsr_jvalue_fail(run, "dictsort wants a dict, not '%s'", tsr_jvalue_type(v));
    }
    if (tsr_jcall_given(&a[1]) && !tsr_jvalue_is_text(&a[1], "key") &&
        !tsr_jvalue_is_text(&a[1], "value")) {
        return tsr_jvalue_fail(run, "dictsort goes by 'key' or by 'value'");
    }
    index = tsr_jvalue_int(tsr_jcall_given(&a[1]) && tsr_jvalue_is_text(&a[1], "value") ? 1 : 0);
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int64_t i = 0; i < v->as.dict->n_items; i++) {
        tsr_jvalue pair;

        TSR_TRY(tsr_jlists_pair(run, v->as.dict->keys[i], v->as.dict->values[i], &pair));
        TSR_TRY(tsr_jvalue_append(run, list, pair));
    }
    pairs = tsr_jvalue_list(TSR_J_LIST, list);
    TSR_TRY(sorted(run, &pairs, &index, given_and_true(&a[0]), given_and_true(&a[2]), &list, NULL));
    return finish(list, TSR_J_LIST, out);
}

static tsr_status do_groupby(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    tsr_jvalue a[3];
    tsr_jlist *items;
    tsr_jlist *keys;
    tsr_jlist *groups;
    tsr_jlist *members = NULL;

    TSR_TRY(tsr_jcall_bind(run, "groupby", "attribute default case_sensitive", 1, args, a));
    TSR_TRY(sorted(run, v, &a[0], given_and_true(&a[2]), false, &items, &keys));
    TSR_TRY(tsr_jvalue_new_list(run, &groups));
    for (int64_t i = 0; i < items->n_items; i++) {
        bool same = false;

        if (i > 0) {
            TSR_TRY(tsr_jvalue_equal(run, &same, &keys->items[i], &keys->items[i - 1]));
        }
        if (!same) {
            tsr_jvalue group;
            tsr_jvalue key;

            TSR_TRY(tsr_jvalue_new_list(run, &members));
            TSR_TRY(tsr_jlists_follow(run, &a[0], &items->items[i], &a[1], &key));
            TSR_TRY(tsr_jlists_pair(run, key, tsr_jvalue_list(TSR_J_LIST, members), &group));
            group.as.list->names = "group";
            TSR_TRY(tsr_jvalue_append(run, groups, group));
        }
        TSR_TRY(tsr_jvalue_append(run, members, items->items[i]));
    }
    return finish(groups, TSR_J_LIST, out);
}

static tsr_status do_unique(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    tsr_jvalue a[2];
    tsr_jlist *items;
    tsr_jlist *list;
    tsr_jdict *seen;

    TSR_TRY(tsr_jcall_bind(run, "unique", "case_sensitive attribute", 0, args, a));
    TSR_TRY(tsr_jvalue_items(run, &items, v));
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    TSR_TRY(tsr_jvalue_new_dict(run, &seen));
    for (int64_t i = 0; i < items->n_items; i++) {
        const tsr_jvalue *before;
        tsr_jvalue key;

        TSR_TRY(sort_key(run, &a[1], &items->items[i], given_and_true(&a[0]), &key));
        TSR_TRY(tsr_jvalue_get(run, &before, seen, &key));
        if (before == NULL) {
            TSR_TRY(tsr_jvalue_set(run, seen, key, tsr_jvalue_none()));
            TSR_TRY(tsr_jvalue_append(run, list, items->items[i]));
        }
    }
    return finish(list, TSR_J_ITERATOR, out);
}

static tsr_status extreme(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args, bool largest,
                          tsr_jvalue *out)
{
    tsr_jvalue a[2];
    tsr_jvalue best_key = tsr_jvalue_none();
    tsr_jlist *items;

    TSR_TRY(tsr_jcall_bind(run, "min", "case_sensitive attribute", 0, args, a));
    TSR_TRY(tsr_jvalue_items(run, &items, v));
    if (items->n_items == 0) {
        return tsr_jvalue_undefined(run, out, "No aggregated item, sequence was empty.");
    }
    for (int64_t i = 0; i < items->n_items; i++) {
        tsr_jvalue key;
        int order = largest ? 1 : -1;

        TSR_TRY(sort_key(run, &a[1], &items->items[i], given_and_true(&a[0]), &key));
        if (i > 0) {
            TSR_TRY(tsr_jvalue_compare(run, &order, &key, &best_key));
        }
        if (largest ? order > 0 : order < 0) {
            best_key = key;
            *out = items->items[i];
        }
    }
    return TSR_OK;
}

static tsr_status do_min(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args, tsr_jvalue *out)
{
    return extreme(run, v, args, false, out);
}

static tsr_status do_max(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args, tsr_jvalue *out)
{
    return extreme(run, v, args, true, out);
}

const tsr_jfilter tsr_jsort_filters[] = {
    {"sort", do_sort},     {"dictsort", do_dictsort}, {"groupby", do_groupby},
    {"unique", do_unique}, {"min", do_min},           {"max", do_max},
    {NULL, NULL},
};
