#include <math.h>
#include <string.h>

#include "engine/jinja/jrun.h"

enum {
    MOST_DEPTH = 2000 // as in jexec.c, which counts along
};

static tsr_status undefined_fault(tsr_jrun *run, const tsr_jvalue *v)
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

tsr_status tsr_jeval_item(tsr_jrun *run, const tsr_jvalue *of, const tsr_jvalue *key,
                          tsr_jvalue *out)
{
    bool found;

    if (of->kind == TSR_J_UNDEFINED) {
        return undefined_fault(run, of);
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

tsr_status tsr_jeval_attribute(tsr_jrun *run, const tsr_jvalue *of, const tsr_jtext *name,
                               tsr_jvalue *out)
{
    const tsr_jvalue key = tsr_jvalue_text(name);
    bool found;

    if (of->kind == TSR_J_UNDEFINED) {
        return undefined_fault(run, of);
    }
    TSR_TRY(own_attribute(run, of, &key, &found, out));
    if (!found) {
        TSR_TRY(subscript(run, of, &key, &found, out));
    }
    return found ? TSR_OK : missing(run, of, &key, out);
}

/* ---- arithmetic --------------------------------------------------------------------------------
 */

static tsr_status type_fault(tsr_jrun *run, const char *what, const tsr_jvalue *a,
                             const tsr_jvalue *b)
{
    if (a->kind == TSR_J_UNDEFINED || b->kind == TSR_J_UNDEFINED) {
        return undefined_fault(run, a->kind == TSR_J_UNDEFINED ? a : b);
    }
    return tsr_jvalue_fail(run, "'%s' cannot be done with '%s' and '%s'", what, tsr_jvalue_type(a),
                           tsr_jvalue_type(b));
}

static tsr_status beyond(tsr_jrun *run)
{
    return tsr_jvalue_fail(run, "a number beyond 64 bits");
}

static tsr_status join(tsr_jrun *run, const tsr_jtext *a, const tsr_jtext *b, tsr_jvalue *out)
{
    tsr_jbuilder builder = {0};
    const tsr_jtext *made;

    if (a->markup != b->markup) {
        TSR_TRY(tsr_jshow_html(run, a->markup ? &b : &a, a->markup ? b : a));
    }
    TSR_TRY(tsr_jtext_put_text(run, &builder, a));
    TSR_TRY(tsr_jtext_put_text(run, &builder, b));
    TSR_TRY(tsr_jtext_finish(run, &builder, &made));
    if (a->markup) {
        ((tsr_jtext *)(uintptr_t)made)->markup = true; // just made here
    }
    *out = tsr_jvalue_text(made);
    return TSR_OK;
}

tsr_status tsr_jeval_add(tsr_jrun *run, const tsr_jvalue *a, const tsr_jvalue *b, tsr_jvalue *out)
{
    int64_t sum;

    if (tsr_jvalue_is_whole(a) && tsr_jvalue_is_whole(b)) {
        if (__builtin_add_overflow(tsr_jvalue_whole(a), tsr_jvalue_whole(b), &sum)) {
            return beyond(run);
        }
        *out = tsr_jvalue_int(sum);
        return TSR_OK;
    }
    if (tsr_jvalue_is_number(a) && tsr_jvalue_is_number(b)) {
        *out = tsr_jvalue_float(tsr_jvalue_real(a) + tsr_jvalue_real(b));
        return TSR_OK;
    }
    if (a->kind == TSR_J_TEXT && b->kind == TSR_J_TEXT) {
        return join(run, a->as.text, b->as.text, out);
    }
    if (a->kind == b->kind && (a->kind == TSR_J_LIST || a->kind == TSR_J_TUPLE)) {
        tsr_jlist *list;

        TSR_TRY(tsr_jvalue_new_list(run, &list));
        for (int64_t i = 0; i < a->as.list->n_items; i++) {
            TSR_TRY(tsr_jvalue_append(run, list, a->as.list->items[i]));
        }
        for (int64_t i = 0; i < b->as.list->n_items; i++) {
            TSR_TRY(tsr_jvalue_append(run, list, b->as.list->items[i]));
        }
        *out = tsr_jvalue_list(a->kind, list);
        return TSR_OK;
    }
    return type_fault(run, "+", a, b);
}

/* A string or list so many times. */
static tsr_status repeat(tsr_jrun *run, const tsr_jvalue *what, int64_t times, tsr_jvalue *out)
{
    tsr_jbuilder b = {0};
    tsr_jlist *list;

    if (what->kind == TSR_J_TEXT) {
        for (int64_t i = 0; i < times && what->as.text->n_bytes > 0; i++) {
            TSR_TRY(tsr_jvalue_work(run, 1));
            TSR_TRY(tsr_jtext_put_text(run, &b, what->as.text));
        }
        return tsr_jtext_finish_value(run, &b, out);
    }
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int64_t i = 0; i < times && what->as.list->n_items > 0; i++) {
        for (int64_t k = 0; k < what->as.list->n_items; k++) {
            TSR_TRY(tsr_jvalue_append(run, list, what->as.list->items[k]));
        }
    }
    *out = tsr_jvalue_list(what->kind, list);
    return TSR_OK;
}

static bool can_repeat(const tsr_jvalue *v)
{
    return v->kind == TSR_J_TEXT || v->kind == TSR_J_LIST || v->kind == TSR_J_TUPLE;
}

static tsr_status power(tsr_jrun *run, int64_t base, int64_t exponent, tsr_jvalue *out)
{
    int64_t product = 1;

    if (exponent < 0) {
        if (base == 0) {
            return tsr_jvalue_fail(run, "zero to a negative power");
        }
        *out = tsr_jvalue_float(pow((double)base, (double)exponent));
        return TSR_OK;
    }
    if (base == 0 || base == 1 || base == -1) { // whatever the exponent
        *out = tsr_jvalue_int(exponent == 0 ? 1 : base == -1 && exponent % 2 == 0 ? 1 : base);
        return TSR_OK;
    }
    for (int64_t i = 0; i < exponent; i++) { // at most 63 times before it overflows
        if (__builtin_mul_overflow(product, base, &product)) {
            return beyond(run);
        }
    }
    *out = tsr_jvalue_int(product);
    return TSR_OK;
}

/* - * // % ** of whole numbers. */
static tsr_status whole_numbers(tsr_jrun *run, tsr_jnode_kind kind, int64_t a, int64_t b,
                                tsr_jvalue *out)
{
    int64_t result = 0;
    bool over = false;

    switch (kind) {
    case TSR_JN_SUBTRACT:
        over = __builtin_sub_overflow(a, b, &result);
        break;
    case TSR_JN_MULTIPLY:
        over = __builtin_mul_overflow(a, b, &result);
        break;
    case TSR_JN_POWER:
        return power(run, a, b, out);
    default: // // and %: towards minus infinity, the rest having the sign of b
        if (b == 0) {
            return tsr_jvalue_fail(run, "division by zero");
        }
        if (b == -1) { // the one quotient that overflows is here
            over = kind == TSR_JN_FLOOR && __builtin_sub_overflow((int64_t)0, a, &result);
            break;
        }
        result = kind == TSR_JN_FLOOR ? a / b : a % b;
        if (a % b != 0 && (a % b < 0) != (b < 0)) {
            result += kind == TSR_JN_FLOOR ? -1 : b;
        }
    }
    *out = tsr_jvalue_int(result);
    return over ? beyond(run) : TSR_OK;
}

static tsr_status real_numbers(tsr_jrun *run, tsr_jnode_kind kind, double a, double b,
                               tsr_jvalue *out)
{
    double result;

    if (b == 0 && (kind == TSR_JN_DIVIDE || kind == TSR_JN_FLOOR || kind == TSR_JN_MODULO)) {
        return tsr_jvalue_fail(run, "division by zero");
    }
    switch (kind) {
    case TSR_JN_SUBTRACT:
        result = a - b;
        break;
    case TSR_JN_MULTIPLY:
        result = a * b;
        break;
    case TSR_JN_DIVIDE:
        result = a / b;
        break;
    case TSR_JN_FLOOR:
        result = floor(a / b);
        break;
    case TSR_JN_MODULO:
        result = fmod(a, b);
        result += result != 0 && (result < 0) != (b < 0) ? b : 0;
        break;
    default:
        result = pow(a, b);
        if (isnan(result) && !isnan(a) && !isnan(b)) {
            return tsr_jvalue_fail(run, "a power that is no real number");
        }
    }
    *out = tsr_jvalue_float(result);
    return TSR_OK;
}

static tsr_status arithmetic(tsr_jrun *run, tsr_jnode_kind kind, const tsr_jvalue *a,
                             const tsr_jvalue *b, tsr_jvalue *out)
{
    static const char *const signs[TSR_JN_KIND_COUNT] = {
        [TSR_JN_SUBTRACT] = "-", [TSR_JN_MULTIPLY] = "*", [TSR_JN_DIVIDE] = "/",
        [TSR_JN_FLOOR] = "//",   [TSR_JN_MODULO] = "%",   [TSR_JN_POWER] = "**",
    };

    if (kind == TSR_JN_ADD) {
        return tsr_jeval_add(run, a, b, out);
    }
    if (kind == TSR_JN_MODULO && a->kind == TSR_J_TEXT) {
        return tsr_jformat_percent(run, a->as.text, b, out);
    }
    if (kind == TSR_JN_MULTIPLY && can_repeat(a) && tsr_jvalue_is_whole(b)) {
        return repeat(run, a, tsr_jvalue_whole(b), out);
    }
    if (kind == TSR_JN_MULTIPLY && can_repeat(b) && tsr_jvalue_is_whole(a)) {
        return repeat(run, b, tsr_jvalue_whole(a), out);
    }
    if (!tsr_jvalue_is_number(a) || !tsr_jvalue_is_number(b)) {
        return type_fault(run, signs[kind], a, b);
    }
    if (kind != TSR_JN_DIVIDE && tsr_jvalue_is_whole(a) && tsr_jvalue_is_whole(b)) {
        return whole_numbers(run, kind, tsr_jvalue_whole(a), tsr_jvalue_whole(b), out);
    }
    return real_numbers(run, kind, tsr_jvalue_real(a), tsr_jvalue_real(b), out);
}

/* ---- expressions -------------------------------------------------------------------------------
 */

static tsr_status compare(tsr_jrun *run, const char *how, const tsr_jvalue *a, const tsr_jvalue *b,
                          bool *out)
{
    int order;

    if (strcmp(how, "in") == 0 || strcmp(how, "not in") == 0) {
        TSR_TRY(tsr_jvalue_contains(run, out, b, a));
        *out = *out == (how[0] == 'i');
        return TSR_OK;
    }
    if (how[1] == '=' && (how[0] == '=' || how[0] == '!')) {
        TSR_TRY(tsr_jvalue_equal(run, out, a, b));
        *out = *out == (how[0] == '=');
        return TSR_OK;
    }
    TSR_TRY(tsr_jvalue_compare(run, &order, a, b));
    *out = (how[1] == '=' && order == 0) || (how[0] == '<' ? order < 0 : order > 0);
    return TSR_OK;
}

/* a < b <= c: each with the next, until one does not hold. */
static tsr_status comparisons(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node,
                              tsr_jvalue *out)
{
    tsr_jvalue left;
    bool holds = true;

    TSR_TRY(tsr_jeval_node(run, scope, node->a, &left));
    for (int i = 0; holds && i < node->n_kids; i++) {
        tsr_jvalue right;

        TSR_TRY(tsr_jeval_node(run, scope, node->kids[i], &right));
        TSR_TRY(compare(run, node->words[i], &left, &right, &holds));
        left = right;
    }
    *out = tsr_jvalue_bool(holds);
    return TSR_OK;
}

static tsr_status name(tsr_jrun *run, const tsr_jscope *scope, const tsr_jtext *text,
                       tsr_jvalue *out)
{
    const tsr_jvalue *found = tsr_jexec_find(scope, text);

    if (found != NULL) {
        *out = *found;
        return TSR_OK;
    }
    if (tsr_jcall_function(text, out)) {
        return TSR_OK;
    }
    return tsr_jvalue_undefined(run, out, "'%.*s' is undefined",
                                text->n_bytes < 80 ? (int)text->n_bytes : 80, text->bytes);
}

static tsr_status collection(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node,
                             tsr_jvalue *out)
{
    tsr_jlist *list;

    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int i = 0; i < node->n_kids; i++) {
        tsr_jvalue item;

        TSR_TRY(tsr_jeval_node(run, scope, node->kids[i], &item));
        TSR_TRY(tsr_jvalue_append(run, list, item));
    }
    *out = tsr_jvalue_list(node->kind == TSR_JN_TUPLE ? TSR_J_TUPLE : TSR_J_LIST, list);
    return TSR_OK;
}

static tsr_status slice(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node, tsr_jvalue *out)
{
    const tsr_jnode *const parts[] = {node->a, node->b, node->c};
    tsr_jlist *list;

    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int i = 0; i < 3; i++) {
        tsr_jvalue part = tsr_jvalue_none();

        if (parts[i] != NULL) {
            TSR_TRY(tsr_jeval_node(run, scope, parts[i], &part));
        }
        TSR_TRY(tsr_jvalue_append(run, list, part));
    }
    *out = tsr_jvalue_list(TSR_J_SLICE, list);
    return TSR_OK;
}

static tsr_status dict(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node, tsr_jvalue *out)
{
    tsr_jdict *made;

    TSR_TRY(tsr_jvalue_new_dict(run, &made));
    for (int i = 0; i < node->n_kids; i += 2) {
        tsr_jvalue key;
        tsr_jvalue value;

        TSR_TRY(tsr_jeval_node(run, scope, node->kids[i], &key));
        TSR_TRY(tsr_jeval_node(run, scope, node->kids[i + 1], &value));
        TSR_TRY(tsr_jvalue_set(run, made, key, value));
    }
    *out = tsr_jvalue_dict(TSR_J_DICT, made);
    return TSR_OK;
}

static tsr_status concat(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node, tsr_jvalue *out)
{
    tsr_jbuilder b = {0};

    for (int i = 0; i < node->n_kids; i++) {
        tsr_jvalue part;

        TSR_TRY(tsr_jeval_node(run, scope, node->kids[i], &part));
        TSR_TRY(tsr_jshow_str(run, &b, &part));
    }
    return tsr_jtext_finish_value(run, &b, out);
}

static tsr_status signed_number(tsr_jrun *run, const tsr_jvalue *v, bool negative, tsr_jvalue *out)
{
    const tsr_jvalue zero = tsr_jvalue_int(0);

    if (!tsr_jvalue_is_number(v)) {
        return type_fault(run, negative ? "-" : "+", v, v);
    }
    if (v->kind == TSR_J_FLOAT) {
        *out = tsr_jvalue_float(negative ? -v->as.real : v->as.real);
        return TSR_OK;
    }
    return negative ? arithmetic(run, TSR_JN_SUBTRACT, &zero, v, out)
                    : tsr_jeval_add(run, &zero, v, out);
}

tsr_status tsr_jeval_filters(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node,
                             tsr_jvalue *value)
{
    const tsr_jvalue before = *value;
    tsr_jvalue inner = before;
    tsr_jargs args;

    if (node->a != NULL) {
        TSR_TRY(tsr_jeval_filters(run, scope, node->a, &inner));
    }
    TSR_TRY(tsr_jcall_arguments(run, scope, node, NULL, &args));
    return tsr_jfilters_apply(run, node->name, &inner, &args, value);
}

/* What has one operand and something behind it: calls, filters, tests, attributes. */
static tsr_status behind(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node, tsr_jvalue *out)
{
    tsr_jvalue of;
    tsr_jvalue key;
    tsr_jargs args;
    bool holds;

    TSR_TRY(tsr_jeval_node(run, scope, node->a, &of));
    run->line = node->line;
    switch (node->kind) {
    case TSR_JN_ATTRIBUTE:
        return tsr_jeval_attribute(run, &of, node->name, out);
    case TSR_JN_ITEM:
        TSR_TRY(tsr_jeval_node(run, scope, node->b, &key));
        return tsr_jeval_item(run, &of, &key, out);
    case TSR_JN_CALL:
        TSR_TRY(tsr_jcall_arguments(run, scope, node, NULL, &args));
        return tsr_jcall_value(run, &of, &args, out);
    case TSR_JN_FILTER:
        TSR_TRY(tsr_jcall_arguments(run, scope, node, NULL, &args));
        return tsr_jfilters_apply(run, node->name, &of, &args, out);
    case TSR_JN_TEST:
        TSR_TRY(tsr_jcall_arguments(run, scope, node, NULL, &args));
        TSR_TRY(tsr_jtests_apply(run, node->name, &of, &args, &holds));
        *out = tsr_jvalue_bool(holds);
        return TSR_OK;
    case TSR_JN_NOT:
        *out = tsr_jvalue_bool(!tsr_jvalue_truth(&of));
        return TSR_OK;
    default:
        return signed_number(run, &of, node->kind == TSR_JN_NEGATIVE, out);
    }
}

/* What does not need all of its operands. */
static tsr_status choose(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node, tsr_jvalue *out)
{
    tsr_jvalue first;
    bool truth;

    TSR_TRY(tsr_jeval_node(run, scope, node->a, &first));
    truth = tsr_jvalue_truth(&first);
    if (node->kind == TSR_JN_CHOICE) {
        if (!truth && node->c == NULL) {
            return tsr_jvalue_undefined(run, out, "the condition is false and there is no 'else'");
        }
        return tsr_jeval_node(run, scope, truth ? node->b : node->c, out);
    }
    if (truth == (node->kind == TSR_JN_OR)) {
        *out = first;
        return TSR_OK;
    }
    return tsr_jeval_node(run, scope, node->b, out);
}

static tsr_status evaluate(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node, tsr_jvalue *out)
{
    tsr_jvalue a;
    tsr_jvalue b;

    switch (node->kind) {
    case TSR_JN_CONSTANT:
        *out = node->value;
        return TSR_OK;
    case TSR_JN_NAME:
        return name(run, scope, node->name, out);
    case TSR_JN_TUPLE:
    case TSR_JN_LIST:
        return collection(run, scope, node, out);
    case TSR_JN_CONCAT:
        return concat(run, scope, node, out);
    case TSR_JN_DICT:
        return dict(run, scope, node, out);
    case TSR_JN_CHOICE:
    case TSR_JN_OR:
    case TSR_JN_AND:
        return choose(run, scope, node, out);
    case TSR_JN_COMPARE:
        return comparisons(run, scope, node, out);
    case TSR_JN_SLICE:
        return slice(run, scope, node, out);
    case TSR_JN_ADD:
    case TSR_JN_SUBTRACT:
    case TSR_JN_MULTIPLY:
    case TSR_JN_DIVIDE:
    case TSR_JN_FLOOR:
    case TSR_JN_MODULO:
    case TSR_JN_POWER:
        TSR_TRY(tsr_jeval_node(run, scope, node->a, &a));
        TSR_TRY(tsr_jeval_node(run, scope, node->b, &b));
        return arithmetic(run, node->kind, &a, &b, out);
    default:
        return behind(run, scope, node, out);
    }
}

tsr_status tsr_jeval_node(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node, tsr_jvalue *out)
{
    TSR_TRY(tsr_jvalue_work(run, 1));
    if (++run->depth > MOST_DEPTH) {
        return tsr_jvalue_fail(run, "more than %d blocks and expressions within each other",
                               MOST_DEPTH);
    }
    TSR_TRY(evaluate(run, scope, node, out));
    run->depth--;
    return TSR_OK;
}
