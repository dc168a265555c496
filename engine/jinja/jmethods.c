#include "engine/jinja/jrun.h"

#include <string.h>

enum {
    LONGEST_NAME = 40
};

static tsr_status no_arguments(tsr_jrun *run, const tsr_jargs *args)
{
    return args->n + args->n_named == 0
               ? TSR_OK
               : tsr_jvalue_fail(run, "a method that takes no argument is given one");
}

/* ---- strings -----------------------------------------------------------------------------------
 */

static tsr_status recase(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                         tsr_jtext_case how, tsr_jvalue *out)
{
    const tsr_jtext *made;

    TSR_TRY(no_arguments(run, args));
    TSR_TRY(tsr_jtext_recase(run, &made, v->as.text, how));
    *out = tsr_jvalue_text(made);
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

static tsr_status do_title(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return recase(run, v, args, TSR_JTEXT_TITLE, out);
}

static tsr_status do_swapcase(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                              tsr_jvalue *out)
{
    return recase(run, v, args, TSR_JTEXT_SWAP, out);
}

static tsr_status is_all(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                         tsr_jtext_class what, tsr_jvalue *out)
{
    TSR_TRY(no_arguments(run, args));
    *out = tsr_jvalue_bool(tsr_jtext_is(v->as.text, what));
    return TSR_OK;
}

static tsr_status do_isalpha(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    return is_all(run, v, args, TSR_JTEXT_ALPHA, out);
}

static tsr_status do_isdigit(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    return is_all(run, v, args, TSR_JTEXT_DIGIT, out);
}

static tsr_status do_isalnum(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    return is_all(run, v, args, TSR_JTEXT_ALNUM, out);
}

static tsr_status do_isspace(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    return is_all(run, v, args, TSR_JTEXT_SPACE, out);
}

static tsr_status do_islower(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    return is_all(run, v, args, TSR_JTEXT_LOWERCASE, out);
}

static tsr_status do_isupper(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    return is_all(run, v, args, TSR_JTEXT_UPPERCASE, out);
}

static tsr_status do_isascii(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    bool ascii = true;

    TSR_TRY(no_arguments(run, args));
    for (size_t i = 0; i < v->as.text->n_bytes; i++) {
        ascii = ascii && (unsigned char)v->as.text->bytes[i] < 0x80;
    }
    *out = tsr_jvalue_bool(ascii);
    return TSR_OK;
}

static tsr_status do_replace(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    tsr_jvalue a[3];

    TSR_TRY(tsr_jcall_bind(run, "replace", "old new count", 2, args, a));
    if (a[0].kind != TSR_J_TEXT || a[1].kind != TSR_J_TEXT) {
        return tsr_jvalue_fail(run, "replace wants strings");
    }
    {
        static const tsr_jtext name = {.bytes = "replace", .n_bytes = 7};

        return tsr_jfilters_apply(run, &name, v, args, out);
    }
}

/* width characters, filled with `fill` at the left and the right. */
static tsr_status pad(tsr_jrun *run, const tsr_jtext *text, const tsr_jargs *args, int left_share,
                      tsr_jvalue *out)
{
    const tsr_jtext *fill;
    tsr_jbuilder b = {0};
    tsr_jvalue v[2];
    int64_t width;
    int64_t missing;
    int64_t left;

    TSR_TRY(tsr_jcall_bind(run, "center", "width fillchar", 1, args, v));
    TSR_TRY(tsr_jcall_whole(run, &v[0], 0, &width));
    TSR_TRY(tsr_jcall_text(run, &v[1], " ", &fill));
    if (tsr_jtext_n_characters(fill) != 1) {
        return tsr_jvalue_fail(run, "the character to fill with must be one");
    }
    missing = width - tsr_jtext_n_characters(text);
    missing = missing > 0 ? missing : 0;
    // Python puts the odd one of the two sides left when the width is odd.
    left = left_share == 2 ? missing : left_share == 0 ? 0 : missing / 2 + (missing & width & 1);
    for (int64_t i = 0; i < missing; i++) {
        if (i == left) {
            TSR_TRY(tsr_jtext_put_text(run, &b, text));
        }
        TSR_TRY(tsr_jvalue_work(run, 1));
        TSR_TRY(tsr_jtext_put_text(run, &b, fill));
    }
    if (left == missing) {
        TSR_TRY(tsr_jtext_put_text(run, &b, text));
    }
    return tsr_jtext_finish_value(run, &b, out);
}

static tsr_status do_center(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    return pad(run, v->as.text, args, 1, out);
}

static tsr_status do_ljust(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return pad(run, v->as.text, args, 0, out);
}

static tsr_status do_rjust(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return pad(run, v->as.text, args, 2, out);
}

static tsr_status do_zfill(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    const tsr_jtext *text = v->as.text;
    const size_t sign =
        text->n_bytes > 0 && (text->bytes[0] == '-' || text->bytes[0] == '+') ? 1 : 0;
    tsr_jbuilder b = {0};
    tsr_jvalue a;
    int64_t width;

    TSR_TRY(tsr_jcall_bind(run, "zfill", "width", 1, args, &a));
    TSR_TRY(tsr_jcall_whole(run, &a, 0, &width));
    TSR_TRY(tsr_jtext_put_part(run, &b, text, 0, sign));
    for (int64_t n = tsr_jtext_n_characters(text); n < width; n++) {
        TSR_TRY(tsr_jvalue_work(run, 1));
        TSR_TRY(tsr_jtext_put(run, &b, "0", 1));
    }
    TSR_TRY(tsr_jtext_put_part(run, &b, text, sign, text->n_bytes));
    return tsr_jtext_finish_value(run, &b, out);
}

static tsr_status do_format(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    return tsr_jbraces_format(run, v->as.text, args, out);
}

static const tsr_jfilter text_methods[] = {
    {"upper", do_upper},           {"lower", do_lower},
    {"capitalize", do_capitalize}, {"casefold", do_lower},
    {"title", do_title},           {"swapcase", do_swapcase},
    {"isalpha", do_isalpha},       {"isdigit", do_isdigit},
    {"isdecimal", do_isdigit},     {"isnumeric", do_isdigit},
    {"isalnum", do_isalnum},       {"isspace", do_isspace},
    {"islower", do_islower},       {"isupper", do_isupper},
    {"isascii", do_isascii},       {"replace", do_replace},
    {"center", do_center},         {"ljust", do_ljust},
    {"rjust", do_rjust},           {"zfill", do_zfill},
    {"format", do_format},         {NULL, NULL},
};

/* ---- dicts and lists ---------------------------------------------------------------------------
 */

static tsr_status view(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args, const char *name,
                       tsr_jvalue *out)
{
    const tsr_jdict *dict = v->as.dict;
    tsr_jlist *list;

    TSR_TRY(no_arguments(run, args));
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int64_t i = 0; i < dict->n_items; i++) {
        tsr_jvalue item = name[5] == 'k' ? dict->keys[i] : dict->values[i];

        if (name[5] == 'i') {
            tsr_jlist *pair;

            TSR_TRY(tsr_jvalue_new_list(run, &pair));
            TSR_TRY(tsr_jvalue_append(run, pair, dict->keys[i]));
            TSR_TRY(tsr_jvalue_append(run, pair, dict->values[i]));
            item = tsr_jvalue_list(TSR_J_TUPLE, pair);
        }
        TSR_TRY(tsr_jvalue_append(run, list, item));
    }
    list->names = name;
    *out = tsr_jvalue_list(TSR_J_VIEW, list);
    return TSR_OK;
}

static tsr_status do_items(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return view(run, v, args, "dict_items", out);
}

static tsr_status do_keys(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    return view(run, v, args, "dict_keys", out);
}

static tsr_status do_values(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                            tsr_jvalue *out)
{
    return view(run, v, args, "dict_values", out);
}

static tsr_status do_get(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args, tsr_jvalue *out)
{
    const tsr_jvalue *found;
    tsr_jvalue a[2];

    TSR_TRY(tsr_jcall_bind(run, "get", "key default", 1, args, a));
    if (args->n_named > 0) {
        return tsr_jvalue_fail(run, "get takes no arguments by name");
    }
    if (a[0].kind == TSR_J_LIST || a[0].kind == TSR_J_DICT) {
        return tsr_jvalue_fail(run, "a '%s' cannot be a key", tsr_jvalue_type(&a[0]));
    }
    TSR_TRY(tsr_jvalue_get(run, &found, v->as.dict, &a[0]));
    *out = found != NULL ? *found : tsr_jcall_given(&a[1]) ? a[1] : tsr_jvalue_none();
    return TSR_OK;
}

/* Nothing changes what it has been given, so a copy is the thing itself. */
static tsr_status do_copy(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    TSR_TRY(no_arguments(run, args));
    *out = *v;
    return TSR_OK;
}

static tsr_status list_search(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args, bool count,
                              tsr_jvalue *out)
{
    tsr_jvalue what;
    int64_t n = 0;

    TSR_TRY(tsr_jcall_bind(run, "index", "value", 1, args, &what));
    for (int64_t i = 0; i < v->as.list->n_items; i++) {
        bool same;

        TSR_TRY(tsr_jvalue_equal(run, &same, &v->as.list->items[i], &what));
        if (same && !count) {
            *out = tsr_jvalue_int(i);
            return TSR_OK;
        }
        n += same ? 1 : 0;
    }
    *out = tsr_jvalue_int(n);
    return count ? TSR_OK : tsr_jvalue_fail(run, "the value is not in the list");
}

static tsr_status do_index(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return list_search(run, v, args, false, out);
}

static tsr_status do_count(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    return list_search(run, v, args, true, out);
}

static const tsr_jfilter dict_methods[] = {
    {"items", do_items}, {"keys", do_keys}, {"values", do_values},
    {"get", do_get},     {"copy", do_copy}, {NULL, NULL},
};

static const tsr_jfilter list_methods[] = {
    {"index", do_index}, {"count", do_count}, {"copy", do_copy}, {NULL, NULL}};

/* ---- loops and cyclers -------------------------------------------------------------------------
 */

static tsr_status do_cycle(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    if (args->n == 0) {
        return tsr_jvalue_fail(run, "no items for cycling given");
    }
    *out = args->values[v->as.loop->index0 % args->n];
    return TSR_OK;
}

static tsr_status do_changed(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    tsr_jloop *loop = v->as.loop;
    tsr_jvalue now;
    tsr_jlist *list;
    bool same = false;

    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int i = 0; i < args->n; i++) {
        TSR_TRY(tsr_jvalue_append(run, list, args->values[i]));
    }
    now = tsr_jvalue_list(TSR_J_TUPLE, list);
    if (loop->has_changed) {
        TSR_TRY(tsr_jvalue_equal(run, &same, &now, &loop->changed));
    }
    loop->has_changed = true;
    loop->changed = now;
    *out = tsr_jvalue_bool(!same);
    return TSR_OK;
}

static tsr_status do_next(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                          tsr_jvalue *out)
{
    tsr_jlist *list = v->as.list;

    TSR_TRY(no_arguments(run, args));
    *out = list->items[list->at];
    list->at = (list->at + 1) % list->n_items;
    return TSR_OK;
}

static tsr_status do_reset(tsr_jrun *run, const tsr_jvalue *v, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    TSR_TRY(no_arguments(run, args));
    v->as.list->at = 0;
    *out = tsr_jvalue_none();
    return TSR_OK;
}

static const tsr_jfilter loop_methods[] = {
    {"cycle", do_cycle}, {"changed", do_changed}, {NULL, NULL}};
static const tsr_jfilter cycler_methods[] = {{"next", do_next}, {"reset", do_reset}, {NULL, NULL}};

/* ---- finding -----------------------------------------------------------------------------------
 */

static const tsr_jfilter *find_in(const tsr_jfilter *table, const tsr_jtext *name)
{
    for (; table->name != NULL; table++) {
        if (strlen(table->name) == name->n_bytes &&
            memcmp(table->name, name->bytes, name->n_bytes) == 0) {
            return table;
        }
    }
    return NULL;
}

static const tsr_jfilter *find_method(const tsr_jvalue *of, const tsr_jtext *name)
{
    const tsr_jfilter *found;

    switch (of->kind) {
    case TSR_J_TEXT:
        found = find_in(tsr_jwords_methods, name);
        return found != NULL ? found : find_in(text_methods, name);
    case TSR_J_DICT:
        return find_in(dict_methods, name);
    case TSR_J_LIST:
        return find_in(list_methods, name);
    case TSR_J_TUPLE:
        found = find_in(list_methods, name);
        return found != NULL && found->apply != do_copy ? found : NULL;
    case TSR_J_LOOP:
        return find_in(loop_methods, name);
    case TSR_J_CYCLER:
        return find_in(cycler_methods, name);
    default:
        return NULL;
    }
}

/* Methods that would change what they belong to: there, and not to be used. */
static bool is_forbidden(const tsr_jvalue *of, const tsr_jtext *name)
{
    static const char *const of_dicts[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    static const char *const of_lists[] = {"append", "clear",  "pop",    "reverse", "insert",
                                           "sort",   "extend", "remove", NULL};
    const char *const *names = of->kind == TSR_J_DICT   ? of_dicts
                               : of->kind == TSR_J_LIST ? of_lists
                                                        : NULL;

    for (; names != NULL && *names != NULL; names++) {
        if (strlen(*names) == name->n_bytes && memcmp(*names, name->bytes, name->n_bytes) == 0) {
            return true;
        }
    }
    return false;
}

tsr_status tsr_jmethods_find(tsr_jrun *run, const tsr_jvalue *of, const tsr_jtext *name,
                             bool *found, tsr_jvalue *out)
{
    const tsr_jfilter *entry = find_method(of, name);
    tsr_jmethod *method;
    void *made;

    *found = true;
    if (entry == NULL) {
        *found = is_forbidden(of, name);
        return *found ? tsr_jvalue_undefined(run, out, "'%.*s' would change a %s, which is unsafe",
                                             LONGEST_NAME < name->n_bytes ? LONGEST_NAME
                                                                          : (int)name->n_bytes,
                                             name->bytes, tsr_jvalue_type(of))
                      : TSR_OK;
    }
    TSR_TRY(tsr_jmemory_take(&run->memory, &made, sizeof(*method)));
    method = made;
    method->self = *of;
    method->name = entry->name;
    out->kind = TSR_J_METHOD;
    out->as.method = method;
    return TSR_OK;
}

tsr_status tsr_jmethods_call(tsr_jrun *run, const tsr_jmethod *method, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    const tsr_jtext name = {.bytes = method->name, .n_bytes = strlen(method->name)};

    return find_method(&method->self, &name)->apply(run, &method->self, args, out);
}
