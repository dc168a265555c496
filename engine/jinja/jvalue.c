#include "engine/jinja/jvalue.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/jinja/jtext.h"

enum {
    MESSAGE_BYTES = 400
};

tsr_status tsr_jvalue_work(tsr_jrun *run, size_t n_steps)
{
    if (n_steps > (size_t)run->steps_left) {
        run->steps_left = 0;
        return tsr_fail(TSR_ERR_FORMAT, "the chat template, line %d: it takes too many steps",
                        run->line);
    }
    run->steps_left -= (int64_t)n_steps;
    return TSR_OK;
}

tsr_status tsr_jvalue_fail(const tsr_jrun *run, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return tsr_fail(TSR_ERR_FORMAT, "the chat template, line %d: %s", run->line, message);
}

tsr_status tsr_jvalue_undefined(tsr_jrun *run, tsr_jvalue *out, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    TSR_TRY(tsr_jtext_copy(run, &out->as.text, message, strlen(message), false));
    out->kind = TSR_J_UNDEFINED;
    return TSR_OK;
}

const char *tsr_jvalue_type(const tsr_jvalue *v)
{
    static const char *const names[TSR_J_KIND_COUNT] = {
        [TSR_J_UNDEFINED] = "Undefined", [TSR_J_NONE] = "NoneType",
        [TSR_J_BOOL] = "bool",           [TSR_J_INT] = "int",
        [TSR_J_FLOAT] = "float",         [TSR_J_TEXT] = "str",
        [TSR_J_LIST] = "list",           [TSR_J_TUPLE] = "tuple",
        [TSR_J_VIEW] = "dict view",      [TSR_J_DICT] = "dict",
        [TSR_J_RANGE] = "range",         [TSR_J_SLICE] = "slice",
        [TSR_J_ITERATOR] = "generator",  [TSR_J_NAMESPACE] = "Namespace",
        [TSR_J_MACRO] = "Macro",         [TSR_J_FUNCTION] = "function",
        [TSR_J_METHOD] = "method",       [TSR_J_LOOP] = "LoopContext",
        [TSR_J_CYCLER] = "Cycler",       [TSR_J_JOINER] = "Joiner",
    };

    return names[v->kind];
}

bool tsr_jvalue_truth(const tsr_jvalue *v)
{
    switch (v->kind) {
    case TSR_J_UNDEFINED:
    case TSR_J_NONE:
        return false;
    case TSR_J_BOOL:
        return v->as.truth;
    case TSR_J_INT:
        return v->as.number != 0;
    case TSR_J_FLOAT:
        return v->as.real != 0;
    default:
        // A namespace has no length and is always true, as is whatever else has none.
        return tsr_jvalue_length(v) != 0;
    }
}

bool tsr_jvalue_is_whole(const tsr_jvalue *v)
{
    return v->kind == TSR_J_INT || v->kind == TSR_J_BOOL;
}

bool tsr_jvalue_is_number(const tsr_jvalue *v)
{
    return tsr_jvalue_is_whole(v) || v->kind == TSR_J_FLOAT;
}

int64_t tsr_jvalue_whole(const tsr_jvalue *v)
{
    return v->kind == TSR_J_BOOL ? (v->as.truth ? 1 : 0) : v->as.number;
}

double tsr_jvalue_real(const tsr_jvalue *v)
{
    return v->kind == TSR_J_FLOAT ? v->as.real : (double)tsr_jvalue_whole(v);
}

bool tsr_jvalue_is_text(const tsr_jvalue *v, const char *words)
{
    return v->kind == TSR_J_TEXT && v->as.text->n_bytes == strlen(words) &&
           memcmp(v->as.text->bytes, words, v->as.text->n_bytes) == 0;
}

int64_t tsr_jvalue_length(const tsr_jvalue *v)
{
    switch (v->kind) {
    case TSR_J_UNDEFINED:
        return 0;
    case TSR_J_TEXT:
        return tsr_jtext_n_characters(v->as.text);
    case TSR_J_LIST:
    case TSR_J_TUPLE:
    case TSR_J_VIEW:
        return v->as.list->n_items;
    case TSR_J_DICT:
        return v->as.dict->n_items;
    case TSR_J_RANGE:
        return v->as.range->n_items;
    default:
        return -1;
    }
}

/* ---- equal and before --------------------------------------------------------------------------
 */

static tsr_status equal_at(tsr_jrun *run, bool *out, const tsr_jvalue *a, const tsr_jvalue *b,
                           int depth);

static tsr_status equal_lists(tsr_jrun *run, bool *out, const tsr_jlist *a, const tsr_jlist *b,
                              int depth)
{
    *out = a->n_items == b->n_items;
    for (int64_t i = 0; *out && i < a->n_items; i++) {
        TSR_TRY(equal_at(run, out, &a->items[i], &b->items[i], depth + 1));
    }
    return TSR_OK;
}

static tsr_status equal_dicts(tsr_jrun *run, bool *out, const tsr_jdict *a, const tsr_jdict *b,
                              int depth)
{
    *out = a->n_items == b->n_items;
    for (int64_t i = 0; *out && i < a->n_items; i++) {
        const tsr_jvalue *other;

        TSR_TRY(tsr_jvalue_get(run, &other, b, &a->keys[i]));
        *out = other != NULL;
        if (*out) {
            TSR_TRY(equal_at(run, out, &a->values[i], other, depth + 1));
        }
    }
    return TSR_OK;
}

static tsr_status equal_at(tsr_jrun *run, bool *out, const tsr_jvalue *a, const tsr_jvalue *b,
                           int depth)
{
    TSR_TRY(tsr_jvalue_work(run, 1));
    if (depth > TSR_JVALUE_MOST_DEPTH) {
        return tsr_jvalue_fail(run, "values within values, too deep to compare");
    }
    if (tsr_jvalue_is_number(a) && tsr_jvalue_is_number(b)) {
        *out = tsr_jvalue_is_whole(a) && tsr_jvalue_is_whole(b)
                   ? tsr_jvalue_whole(a) == tsr_jvalue_whole(b)
                   : tsr_jvalue_real(a) == tsr_jvalue_real(b);
        return TSR_OK;
    }
    *out = false;
    if (a->kind != b->kind) {
        return TSR_OK;
    }
    switch (a->kind) {
    case TSR_J_UNDEFINED:
    case TSR_J_NONE:
        *out = true;
        return TSR_OK;
    case TSR_J_TEXT:
        *out = tsr_jtext_equal(a->as.text, b->as.text);
        return TSR_OK;
    case TSR_J_LIST:
    case TSR_J_TUPLE:
        return equal_lists(run, out, a->as.list, b->as.list, depth);
    case TSR_J_DICT:
        return equal_dicts(run, out, a->as.dict, b->as.dict, depth);
    case TSR_J_RANGE: {
        const tsr_jrange *r = a->as.range;
        const tsr_jrange *s = b->as.range;

        *out =
            r->n_items == s->n_items &&
            (r->n_items == 0 || (r->start == s->start && (r->n_items == 1 || r->step == s->step)));
        return TSR_OK;
    }
    case TSR_J_FUNCTION:
        *out = a->as.number == b->as.number;
        return TSR_OK;
    default:
        *out = a->as.list == b->as.list; // the same thing
        return TSR_OK;
    }
}

tsr_status tsr_jvalue_equal(tsr_jrun *run, bool *out, const tsr_jvalue *a, const tsr_jvalue *b)
{
    return equal_at(run, out, a, b, 0);
}

static tsr_status compare_at(tsr_jrun *run, int *order, const tsr_jvalue *a, const tsr_jvalue *b,
                             int depth)
{
    TSR_TRY(tsr_jvalue_work(run, 1));
    if (tsr_jvalue_is_number(a) && tsr_jvalue_is_number(b)) {
        if (tsr_jvalue_is_whole(a) && tsr_jvalue_is_whole(b)) {
            const int64_t x = tsr_jvalue_whole(a);
            const int64_t y = tsr_jvalue_whole(b);

            *order = (x > y) - (x < y);
        } else {
            const double x = tsr_jvalue_real(a);
            const double y = tsr_jvalue_real(b);

            *order = (x > y) - (x < y);
        }
        return TSR_OK;
    }
    if (a->kind == TSR_J_TEXT && b->kind == TSR_J_TEXT) {
        *order = tsr_jtext_compare(a->as.text, b->as.text);
        return TSR_OK;
    }
    if (a->kind == b->kind && (a->kind == TSR_J_LIST || a->kind == TSR_J_TUPLE) &&
        depth < TSR_JVALUE_MOST_DEPTH) {
        const tsr_jlist *x = a->as.list;
        const tsr_jlist *y = b->as.list;

        for (int64_t i = 0; i < x->n_items && i < y->n_items; i++) {
            bool same;

            TSR_TRY(tsr_jvalue_equal(run, &same, &x->items[i], &y->items[i]));
            if (!same) {
                return compare_at(run, order, &x->items[i], &y->items[i], depth + 1);
            }
        }
        *order = (x->n_items > y->n_items) - (x->n_items < y->n_items);
        return TSR_OK;
    }
    if (a->kind == TSR_J_UNDEFINED || b->kind == TSR_J_UNDEFINED) {
        const tsr_jtext *what = a->kind == TSR_J_UNDEFINED ? a->as.text : b->as.text;

        return tsr_jvalue_fail(run, "%.*s", (int)what->n_bytes, what->bytes);
    }
    return tsr_jvalue_fail(run, "'%s' and '%s' have no order", tsr_jvalue_type(a),
                           tsr_jvalue_type(b));
}

tsr_status tsr_jvalue_compare(tsr_jrun *run, int *order, const tsr_jvalue *a, const tsr_jvalue *b)
{
    return compare_at(run, order, a, b, 0);
}

tsr_status tsr_jvalue_contains(tsr_jrun *run, bool *out, const tsr_jvalue *haystack,
                               const tsr_jvalue *needle)
{
    const tsr_jvalue *found;
    tsr_jlist *items;

    *out = false;
    switch (haystack->kind) {
    case TSR_J_TEXT:
        if (needle->kind != TSR_J_TEXT) {
            return tsr_jvalue_fail(run, "'in <string>' wants a string on its left, not '%s'",
                                   tsr_jvalue_type(needle));
        }
        TSR_TRY(tsr_jvalue_work(run, haystack->as.text->n_bytes / 64));
        *out = tsr_jtext_find(haystack->as.text, needle->as.text, 0) != SIZE_MAX;
        return TSR_OK;
    case TSR_J_DICT:
        if (needle->kind == TSR_J_LIST || needle->kind == TSR_J_DICT) {
            return tsr_jvalue_fail(run, "a '%s' cannot be a key", tsr_jvalue_type(needle));
        }
        TSR_TRY(tsr_jvalue_get(run, &found, haystack->as.dict, needle));
        *out = found != NULL;
        return TSR_OK;
    default:
        TSR_TRY(tsr_jvalue_items(run, &items, haystack));
        for (int64_t i = 0; !*out && i < items->n_items; i++) {
            TSR_TRY(tsr_jvalue_equal(run, out, &items->items[i], needle));
        }
        return TSR_OK;
    }
}

/* ---- lists and dicts ---------------------------------------------------------------------------
 */

tsr_status tsr_jvalue_new_list(tsr_jrun *run, tsr_jlist **out)
{
    void *made;

    TSR_TRY(tsr_jmemory_take(&run->memory, &made, sizeof(tsr_jlist)));
    *out = made;
    return TSR_OK;
}

tsr_status tsr_jvalue_append(tsr_jrun *run, tsr_jlist *list, tsr_jvalue item)
{
    if (list->n_items == list->capacity) {
        const int64_t wanted = list->capacity < 4 ? 4 : 2 * list->capacity;
        void *items = list->items;

        TSR_TRY(tsr_jmemory_grow(&run->memory, &items, (size_t)list->capacity * sizeof(item),
                                 (size_t)wanted * sizeof(item)));
        list->items = items;
        list->capacity = wanted;
    }
    list->items[list->n_items++] = item;
    return tsr_jvalue_work(run, 1);
}

tsr_status tsr_jvalue_new_dict(tsr_jrun *run, tsr_jdict **out)
{
    void *made;

    TSR_TRY(tsr_jmemory_take(&run->memory, &made, sizeof(tsr_jdict)));
    *out = made;
    return TSR_OK;
}

static tsr_status find_key(tsr_jrun *run, int64_t *out, const tsr_jdict *dict,
                           const tsr_jvalue *key)
{
    *out = -1;
    TSR_TRY(tsr_jvalue_work(run, (size_t)dict->n_items / 4));
    for (int64_t i = 0; i < dict->n_items; i++) {
        bool same = false;

        if (key->kind == TSR_J_TEXT) { // nearly always; no call for each
            same = dict->keys[i].kind == TSR_J_TEXT &&
                   tsr_jtext_equal(dict->keys[i].as.text, key->as.text);
        } else {
            TSR_TRY(tsr_jvalue_equal(run, &same, &dict->keys[i], key));
        }
        if (same) {
            *out = i;
            return TSR_OK;
        }
    }
    return TSR_OK;
}

tsr_status tsr_jvalue_set(tsr_jrun *run, tsr_jdict *dict, tsr_jvalue key, tsr_jvalue value)
{
    int64_t at;

    if (key.kind == TSR_J_LIST || key.kind == TSR_J_DICT) {
        return tsr_jvalue_fail(run, "a '%s' cannot be a key", tsr_jvalue_type(&key));
    }
    TSR_TRY(find_key(run, &at, dict, &key));
    if (at >= 0) {
        dict->values[at] = value;
        return TSR_OK;
    }
    if (dict->n_items == dict->capacity) {
        const int64_t wanted = dict->capacity < 4 ? 4 : 2 * dict->capacity;
        const size_t old_bytes = (size_t)dict->capacity * sizeof(key);
        const size_t new_bytes = (size_t)wanted * sizeof(key);
        void *keys = dict->keys;
        void *values = dict->values;

        TSR_TRY(tsr_jmemory_grow(&run->memory, &keys, old_bytes, new_bytes));
        TSR_TRY(tsr_jmemory_grow(&run->memory, &values, old_bytes, new_bytes));
        dict->keys = keys;
        dict->values = values;
        dict->capacity = wanted;
    }
    dict->keys[dict->n_items] = key;
    dict->values[dict->n_items++] = value;
    return TSR_OK;
}

tsr_status tsr_jvalue_get(tsr_jrun *run, const tsr_jvalue **out, const tsr_jdict *dict,
                          const tsr_jvalue *key)
{
    int64_t at = -1;

    if (key->kind != TSR_J_LIST && key->kind != TSR_J_DICT) {
        TSR_TRY(find_key(run, &at, dict, key));
    }
    *out = at >= 0 ? &dict->values[at] : NULL;
    return TSR_OK;
}

bool tsr_jvalue_is_iterable(const tsr_jvalue *v)
{
    switch (v->kind) {
    case TSR_J_UNDEFINED:
    case TSR_J_TEXT:
    case TSR_J_LIST:
    case TSR_J_TUPLE:
    case TSR_J_VIEW:
    case TSR_J_DICT:
    case TSR_J_RANGE:
    case TSR_J_ITERATOR:
    case TSR_J_LOOP:
        return true;
    default:
        return false;
    }
}

static tsr_status characters_of(tsr_jrun *run, tsr_jlist *list, const tsr_jtext *text)
{
    int32_t c;

    for (size_t at = 0; at < text->n_bytes;) {
        const size_t n = tsr_jtext_character(text, at, &c);
        tsr_jvalue one;

        TSR_TRY(tsr_jtext_part_value(run, &one, text, at, at + n));
        TSR_TRY(tsr_jvalue_append(run, list, one));
        at += n;
    }
    return TSR_OK;
}

tsr_status tsr_jvalue_items(tsr_jrun *run, tsr_jlist **out, const tsr_jvalue *v)
{
    tsr_jlist *list;

    if (v->kind == TSR_J_LIST || v->kind == TSR_J_TUPLE || v->kind == TSR_J_VIEW) {
        *out = v->as.list;
        return TSR_OK;
    }
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    switch (v->kind) {
    case TSR_J_UNDEFINED:
        break;
    case TSR_J_TEXT:
        TSR_TRY(characters_of(run, list, v->as.text));
        break;
    case TSR_J_DICT:
        for (int64_t i = 0; i < v->as.dict->n_items; i++) {
            TSR_TRY(tsr_jvalue_append(run, list, v->as.dict->keys[i]));
        }
        break;
    case TSR_J_RANGE:
        for (int64_t i = 0; i < v->as.range->n_items; i++) {
            TSR_TRY(tsr_jvalue_append(run, list,
                                      tsr_jvalue_int(v->as.range->start + i * v->as.range->step)));
        }
        break;
    case TSR_J_ITERATOR:
        for (; v->as.list->at < v->as.list->n_items; v->as.list->at++) {
            TSR_TRY(tsr_jvalue_append(run, list, v->as.list->items[v->as.list->at]));
        }
        break;
    default:
        return tsr_jvalue_fail(run, "'%s' object is not iterable", tsr_jvalue_type(v));
    }
    *out = list;
    return TSR_OK;
}
