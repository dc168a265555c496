/*
 * Attributes, items and slices of values.
 */
#include "engine/jinja/jrun.h"

tsr_status tsr_jattribute_undefined(tsr_jrun *run, const tsr_jvalue *v)
{
    return tsr_jvalue_fail(run, "%.*s", (int)v->as.text->n_bytes, v->as.text->bytes);
}

/* ---- attributes and items ----------------------------------------------------------------------
 */

static tsr_status missing(tsr_jrun *run, const tsr_jvalue *of, const tsr_jvalue *key,
                          tsr_jvalue *out)
{
    if (key->kind == TSR_J_TEXT) {
        const int n = key->as.text->n_bytes < 80 ? (int)key->as.text->n_bytes : 80;

        return tsr_jvalue_undefined(run, out, "'%s object' has no attribute '%.*s'",
                                    tsr_jvalue_type(of), n, key->as.text->bytes);
    }
    return tsr_jvalue_undefined(run, out, "%s object has no such element", tsr_jvalue_type(of));
}

static tsr_status loop_attribute(tsr_jrun *run, tsr_jloop *loop, const tsr_jvalue *name,
                                 tsr_jvalue *out)
{
    const int64_t index0 = loop->index0;
    bool there;

    if (tsr_jvalue_is_text(name, "index0")) {
        *out = tsr_jvalue_int(index0);
    } else if (tsr_jvalue_is_text(name, "index")) {
        *out = tsr_jvalue_int(index0 + 1);
    } else if (tsr_jvalue_is_text(name, "first")) {
        *out = tsr_jvalue_bool(index0 == 0);
    } else if (tsr_jvalue_is_text(name, "depth0")) {
        *out = tsr_jvalue_int(loop->depth0);
    } else if (tsr_jvalue_is_text(name, "depth")) {
        *out = tsr_jvalue_int(loop->depth0 + 1);
    } else if (tsr_jvalue_is_text(name, "last") || tsr_jvalue_is_text(name, "nextitem")) {
        TSR_TRY(tsr_jexec_peek(run, loop, &there, out));
        if (tsr_jvalue_is_text(name, "last")) {
            *out = tsr_jvalue_bool(!there);
        } else if (!there) {
            return tsr_jvalue_undefined(run, out, "there is no next item");
        }
    } else if (tsr_jvalue_is_text(name, "previtem")) {
        if (!loop->has_previous) {
            return tsr_jvalue_undefined(run, out, "there is no previous item");
        }
        *out = loop->previous;
    } else if (tsr_jvalue_is_text(name, "length") || tsr_jvalue_is_text(name, "revindex") ||
               tsr_jvalue_is_text(name, "revindex0")) {
        int64_t length;

        TSR_TRY(tsr_jexec_fetch_all(run, loop));
        length = loop->ready->n_items;
        *out = tsr_jvalue_int(tsr_jvalue_is_text(name, "length")     ? length
                              : tsr_jvalue_is_text(name, "revindex") ? length - index0
                                                                     : length - index0 - 1);
    } else {
        const tsr_jvalue of = {TSR_J_LOOP, {false}};

        return missing(run, &of, name, out);
    }
    return TSR_OK;
}

static tsr_status macro_attribute(tsr_jrun *run, const tsr_jmacro *macro, const tsr_jvalue *name,
                                  bool *found, tsr_jvalue *out)
{
    *found = true;
    if (tsr_jvalue_is_text(name, "name")) {
        *out = macro->node->name != NULL ? tsr_jvalue_text(macro->node->name) : tsr_jvalue_none();
    } else if (tsr_jvalue_is_text(name, "catch_kwargs")) {
        *out = tsr_jvalue_bool(macro->node->takes_kwargs);
    } else if (tsr_jvalue_is_text(name, "catch_varargs")) {
        *out = tsr_jvalue_bool(macro->node->takes_varargs);
    } else if (tsr_jvalue_is_text(name, "caller")) {
        *out = tsr_jvalue_bool(macro->node->takes_caller);
    } else if (tsr_jvalue_is_text(name, "arguments")) {
        tsr_jlist *list;

        TSR_TRY(tsr_jvalue_new_list(run, &list));
        for (int i = 0; i < macro->node->n_kids; i++) {
            TSR_TRY(tsr_jvalue_append(run, list, tsr_jvalue_text(macro->node->kids[i]->name)));
        }
        *out = tsr_jvalue_list(TSR_J_TUPLE, list);
    } else {
        *found = false;
    }
    return TSR_OK;
}

/* What an object has under a name that is none of its items: methods, parts. */
static tsr_status own_attribute(tsr_jrun *run, const tsr_jvalue *of, const tsr_jvalue *name,
                                bool *found, tsr_jvalue *out)
{
    const tsr_jvalue *member;

    *found = false;
    switch (of->kind) {
    case TSR_J_LOOP:
        if (!tsr_jvalue_is_text(name, "cycle") && !tsr_jvalue_is_text(name, "changed")) {
            TSR_TRY(loop_attribute(run, of->as.loop, name, out));
            *found = true;
            return TSR_OK;
        }
        break;
    case TSR_J_NAMESPACE:
        TSR_TRY(tsr_jvalue_get(run, &member, of->as.dict, name));
        *found = member != NULL;
        if (*found) {
            *out = *member;
        }
        return TSR_OK;
    case TSR_J_MACRO:
        return macro_attribute(run, of->as.macro, name, found, out);
    case TSR_J_TUPLE:
        if (of->as.list->names != NULL &&
            (tsr_jvalue_is_text(name, "grouper") || tsr_jvalue_is_text(name, "list"))) {
            *out = of->as.list->items[tsr_jvalue_is_text(name, "list") ? 1 : 0];
            *found = true;
            return TSR_OK;
        }
        break;
    case TSR_J_CYCLER:
        if (tsr_jvalue_is_text(name, "current")) {
            *out = of->as.list->items[of->as.list->at];
            *found = true;
            return TSR_OK;
        }
        break;
    default:
        break;
    }
    return tsr_jmethods_find(run, of, name->as.text, found, out);
}

/* a[i] of what has numbered items; *found = false: no such item. */
static tsr_status numbered_item(tsr_jrun *run, const tsr_jvalue *of, int64_t i, bool *found,
                                tsr_jvalue *out)
{
    const int64_t n = tsr_jvalue_length(of);

    i = i < 0 ? i + n : i;
    *found = i >= 0 && i < n;
    if (!*found) {
        return TSR_OK;
    }
    if (of->kind == TSR_J_TEXT) {
        const size_t first = tsr_jtext_offset(of->as.text, i);
        int32_t c;

        TSR_TRY(tsr_jvalue_work(run, of->as.text->n_bytes / 64));
        return tsr_jtext_part_value(run, out, of->as.text, first,
                                    first + tsr_jtext_character(of->as.text, first, &c));
    }
    if (of->kind == TSR_J_RANGE) {
        *out = tsr_jvalue_int(of->as.range->start + i * of->as.range->step);
    } else {
        *out = of->as.list->items[i];
    }
    return TSR_OK;
}

/* Where a slice of n items begins and ends, and its step: as Python's slice.indices(). */
static tsr_status slice_bounds(tsr_jrun *run, const tsr_jlist *slice, int64_t n, int64_t *start,
                               int64_t *stop, int64_t *step)
{
    for (int i = 0; i < 3; i++) {
        if (slice->items[i].kind != TSR_J_NONE && !tsr_jvalue_is_whole(&slice->items[i])) {
            return tsr_jvalue_fail(run, "a slice wants whole numbers");
        }
    }
    *step = slice->items[2].kind == TSR_J_NONE ? 1 : tsr_jvalue_whole(&slice->items[2]);
    if (*step == 0) {
        return tsr_jvalue_fail(run, "a slice cannot go in steps of zero");
    }
    for (int i = 0; i < 2; i++) {
        const int64_t least = *step > 0 ? 0 : -1;
        const int64_t most = *step > 0 ? n : n - 1;
        int64_t at = i == 0 ? (*step > 0 ? 0 : n - 1) : (*step > 0 ? n : -1);

        if (slice->items[i].kind != TSR_J_NONE) {
            at = tsr_jvalue_whole(&slice->items[i]);
            at = at < 0 && at >= -n ? at + n : at < 0 ? least : at;
            at = at < least ? least : at > most ? most : at;
        }
        *(i == 0 ? start : stop) = at;
    }
    return TSR_OK;
}

static tsr_status slice_range(tsr_jrun *run, const tsr_jrange *of, int64_t start, int64_t stop,
                              int64_t step, tsr_jvalue *out)
{
    const int64_t span = step > 0 ? stop - start : start - stop; // both lie within the range
    const int64_t width = step > 0 ? step : -step;
    tsr_jrange *range;
    void *made;

    if (step > INT32_MAX || step < -INT32_MAX || of->step > INT32_MAX || of->step < -INT32_MAX) {
        return tsr_jvalue_fail(run, "a range cut in steps beyond any range");
    }
    TSR_TRY(tsr_jmemory_take(&run->memory, &made, sizeof(*range)));
    range = made;
    range->start = of->start + start * of->step;
    range->stop = of->start + stop * of->step;
    range->step = of->step * step;
    range->n_items = span > 0 ? (span - 1) / width + 1 : 0;
    out->kind = TSR_J_RANGE;
    out->as.range = range;
    return TSR_OK;
}

static tsr_status take_slice(tsr_jrun *run, const tsr_jvalue *of, const tsr_jlist *slice,
                             tsr_jvalue *out)
{
    int64_t start = 0;
    int64_t stop = 0;
    int64_t step = 1;
    tsr_jlist *items;
    tsr_jlist *list;

    TSR_TRY(slice_bounds(run, slice, tsr_jvalue_length(of), &start, &stop, &step));
    if (of->kind == TSR_J_TEXT && step == 1) {
        const size_t first = tsr_jtext_offset(of->as.text, start);

        TSR_TRY(tsr_jvalue_work(run, of->as.text->n_bytes / 64));
        return tsr_jtext_part_value(run, out, of->as.text, first,
                                    stop > start ? tsr_jtext_offset(of->as.text, stop) : first);
    }
    if (of->kind == TSR_J_RANGE) {
        return slice_range(run, of->as.range, start, stop, step, out);
    }
    TSR_TRY(tsr_jvalue_items(run, &items, of));
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    // A step beyond the length ends at once: no sum can overflow.
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
        TSR_TRY(tsr_jvalue_append(run, list, items->items[i]));
        if (step > items->n_items || step < -items->n_items) {
            break;
        }
        i += step;
    }
    if (of->kind == TSR_J_TEXT) {
        tsr_jbuilder b = {0};

        for (int64_t i = 0; i < list->n_items; i++) {
            TSR_TRY(tsr_jtext_put_text(run, &b, list->items[i].as.text));
        }
        return tsr_jtext_finish_value(run, &b, out);
    }
    *out = tsr_jvalue_list(of->kind == TSR_J_TUPLE ? TSR_J_TUPLE : TSR_J_LIST, list);
    return TSR_OK;
}

static bool has_numbers(const tsr_jvalue *v)
{
    return v->kind == TSR_J_TEXT || v->kind == TSR_J_LIST || v->kind == TSR_J_TUPLE ||
           v->kind == TSR_J_RANGE;
}

/* of[key] by the object's own items. */
static tsr_status subscript(tsr_jrun *run, const tsr_jvalue *of, const tsr_jvalue *key, bool *found,
                            tsr_jvalue *out)
{
    *found = false;
    if (of->kind == TSR_J_DICT) {
        const tsr_jvalue *value;

        TSR_TRY(tsr_jvalue_get(run, &value, of->as.dict, key));
        *found = value != NULL;
        if (*found) {
            *out = *value;
        }
    } else if (has_numbers(of) && tsr_jvalue_is_whole(key)) {
        return numbered_item(run, of, tsr_jvalue_whole(key), found, out);
    } else if (has_numbers(of) && key->kind == TSR_J_SLICE) {
        *found = true;
        return take_slice(run, of, key->as.list, out);
    }
    return TSR_OK;
}

tsr_status tsr_jattribute_item(tsr_jrun *run, const tsr_jvalue *of, const tsr_jvalue *key,
                               tsr_jvalue *out)
{
    bool found;

    if (of->kind == TSR_J_UNDEFINED) {
        return tsr_jattribute_undefined(run, of);
    }
    TSR_TRY(subscript(run, of, key, &found, out));
    if (!found && key->kind == TSR_J_SLICE) {
        return tsr_jvalue_fail(run, "'%s' object cannot be cut into slices", tsr_jvalue_type(of));
    }
    if (!found && key->kind == TSR_J_TEXT) {
        TSR_TRY(own_attribute(run, of, key, &found, out));
    }
    return found ? TSR_OK : missing(run, of, key, out);
}

tsr_status tsr_jattribute_named(tsr_jrun *run, const tsr_jvalue *of, const tsr_jtext *name,
                                tsr_jvalue *out)
{
    const tsr_jvalue key = tsr_jvalue_text(name);
    bool found;

    if (of->kind == TSR_J_UNDEFINED) {
        return tsr_jattribute_undefined(run, of);
    }
    TSR_TRY(own_attribute(run, of, &key, &found, out));
    if (!found) {
        TSR_TRY(subscript(run, of, &key, &found, out));
    }
    return found ? TSR_OK : missing(run, of, &key, out);
}
