#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine/jinja/jrun.h"

enum {
    MOST_MACROS = 100, // within each other
    MOST_RANGE = 100000,
    MOST_PARAMETERS = 16,
    TIME_BYTES = 512
};

/* ---- arguments ---------------------------------------------------------------------------------
 */

/* Arguments as they are being collected. */
typedef struct collector {
    tsr_jlist *values;
    tsr_jdict *named;
} collector;

static tsr_status finish_arguments(tsr_jrun *run, const collector *c, tsr_jargs *out)
{
    const tsr_jtext **names;
    void *made;

    TSR_TRY(tsr_jmemory_take(&run->memory, &made, (size_t)c->named->n_items * sizeof(tsr_jtext *)));
    names = made;
    for (int64_t i = 0; i < c->named->n_items; i++) {
        names[i] = c->named->keys[i].as.text;
    }
    *out = (tsr_jargs){.values = c->values->items,
                       .n = (int)c->values->n_items,
                       .names = names,
                       .named = c->named->values,
                       .n_named = (int)c->named->n_items};
    return TSR_OK;
}

static tsr_status add_named(tsr_jrun *run, collector *c, tsr_jvalue name, tsr_jvalue value)
{
    const tsr_jvalue *there;

    if (name.kind != TSR_J_TEXT) {
        return tsr_jvalue_fail(run, "the names of arguments must be strings");
    }
    TSR_TRY(tsr_jvalue_get(run, &there, c->named, &name));
    if (there != NULL) {
        return tsr_jvalue_fail(run, "the argument '%.*s' is given twice",
                               (int)name.as.text->n_bytes, name.as.text->bytes);
    }
    return tsr_jvalue_set(run, c->named, name, value);
}

tsr_status tsr_jcall_arguments(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node,
                               const tsr_jvalue *caller, tsr_jargs *out)
{
    static const tsr_jtext caller_name = {.bytes = "caller", .n_bytes = 6};
    collector c;
    tsr_jvalue value;

    if (node->n_kids == 0 && node->n_named == 0 && node->star == NULL && node->stars == NULL &&
        caller == NULL) {
        *out = (tsr_jargs){0};
        return TSR_OK;
    }
    TSR_TRY(tsr_jvalue_new_list(run, &c.values));
    TSR_TRY(tsr_jvalue_new_dict(run, &c.named));
    for (int i = 0; i < node->n_kids; i++) {
        TSR_TRY(tsr_jeval_node(run, scope, node->kids[i], &value));
        TSR_TRY(tsr_jvalue_append(run, c.values, value));
    }
    for (int i = 0; i < node->n_named; i++) {
        TSR_TRY(tsr_jeval_node(run, scope, node->named[i], &value));
        TSR_TRY(add_named(run, &c, tsr_jvalue_text(node->named_names[i]), value));
    }
    if (node->star != NULL) {
        tsr_jlist *more;

        TSR_TRY(tsr_jeval_node(run, scope, node->star, &value));
        TSR_TRY(tsr_jvalue_items(run, &more, &value));
        for (int64_t i = 0; i < more->n_items; i++) {
            TSR_TRY(tsr_jvalue_append(run, c.values, more->items[i]));
        }
    }
    if (node->stars != NULL) {
        TSR_TRY(tsr_jeval_node(run, scope, node->stars, &value));
        if (value.kind != TSR_J_DICT) {
            return tsr_jvalue_fail(run, "behind ** a dict is wanted, not '%s'",
                                   tsr_jvalue_type(&value));
        }
        for (int64_t i = 0; i < value.as.dict->n_items; i++) {
            TSR_TRY(add_named(run, &c, value.as.dict->keys[i], value.as.dict->values[i]));
        }
    }
    if (caller != NULL) {
        TSR_TRY(add_named(run, &c, tsr_jvalue_text(&caller_name), *caller));
    }
    return finish_arguments(run, &c, out);
}

tsr_status tsr_jcall_bind(tsr_jrun *run, const char *who, const char *parameters, int least,
                          const tsr_jargs *args, tsr_jvalue *values)
{
    const char *names[MOST_PARAMETERS];
    size_t n_bytes[MOST_PARAMETERS];
    int n = 0;

    for (const char *at = parameters; *at != 0; n++) {
        names[n] = at;
        n_bytes[n] = strcspn(at, " ");
        at += n_bytes[n];
        at += *at == ' ' ? 1 : 0;
        values[n].kind = TSR_J_KIND_COUNT;
    }
    if (args->n > n) {
        return tsr_jvalue_fail(run, "%s takes at most %d arguments, not %d", who, n, args->n);
    }
    for (int i = 0; i < args->n; i++) {
        values[i] = args->values[i];
    }
    for (int k = 0; k < args->n_named; k++) {
        int i = 0;

        while (i < n && !(n_bytes[i] == args->names[k]->n_bytes &&
                          memcmp(names[i], args->names[k]->bytes, n_bytes[i]) == 0)) {
            i++;
        }
        if (i == n || tsr_jcall_given(&values[i])) {
            return tsr_jvalue_fail(run, "%s has no argument '%.*s' left", who,
                                   (int)args->names[k]->n_bytes, args->names[k]->bytes);
        }
        values[i] = args->named[k];
    }
    for (int i = 0; i < least; i++) {
        if (!tsr_jcall_given(&values[i])) {
            return tsr_jvalue_fail(run, "%s lacks its argument '%.*s'", who, (int)n_bytes[i],
                                   names[i]);
        }
    }
    return TSR_OK;
}

tsr_status tsr_jcall_whole(tsr_jrun *run, const tsr_jvalue *v, int64_t fallback, int64_t *out)
{
    *out = fallback;
    if (!tsr_jcall_given(v)) {
        return TSR_OK;
    }
    if (!tsr_jvalue_is_whole(v)) {
        return tsr_jvalue_fail(run, "a whole number is wanted, not '%s'", tsr_jvalue_type(v));
    }
    *out = tsr_jvalue_whole(v);
    return TSR_OK;
}

tsr_status tsr_jcall_text(tsr_jrun *run, const tsr_jvalue *v, const char *fallback,
                          const tsr_jtext **out)
{
    if (!tsr_jcall_given(v)) {
        return tsr_jtext_words(run, out, fallback);
    }
    if (v->kind != TSR_J_TEXT) {
        return tsr_jvalue_fail(run, "a string is wanted, not '%s'", tsr_jvalue_type(v));
    }
    *out = v->as.text;
    return TSR_OK;
}

/* ---- macros ------------------------------------------------------------------------------------
 */

static bool is_parameter(const tsr_jnode *node, const tsr_jtext *name)
{
    for (int i = 0; i < node->n_kids; i++) {
        if (tsr_jtext_equal(node->kids[i]->name, name)) {
            return true;
        }
    }
    return false;
}

static const tsr_jvalue *named_argument(const tsr_jargs *args, const tsr_jtext *name)
{
    for (int i = 0; i < args->n_named; i++) {
        if (tsr_jtext_equal(args->names[i], name)) {
            return &args->named[i];
        }
    }
    return NULL;
}

static bool is_word(const tsr_jtext *text, const char *word)
{
    return text->n_bytes == strlen(word) && memcmp(text->bytes, word, text->n_bytes) == 0;
}

/* What is given beyond the parameters: kept where the body asks for it, else refused. */
static tsr_status take_rest(tsr_jrun *run, const tsr_jnode *node, const tsr_jargs *args,
                            tsr_jscope *scope)
{
    static const tsr_jtext varargs = {.bytes = "varargs", .n_bytes = 7};
    static const tsr_jtext kwargs = {.bytes = "kwargs", .n_bytes = 6};
    static const tsr_jtext caller = {.bytes = "caller", .n_bytes = 6};
    tsr_jlist *more;
    tsr_jdict *named;

    if (args->n > node->n_kids && !node->takes_varargs) {
        return tsr_jvalue_fail(run, "a macro takes at most %d arguments, not %d", node->n_kids,
                               args->n);
    }
    TSR_TRY(tsr_jvalue_new_list(run, &more));
    TSR_TRY(tsr_jvalue_new_dict(run, &named));
    for (int i = node->n_kids; i < args->n; i++) {
        TSR_TRY(tsr_jvalue_append(run, more, args->values[i]));
    }
    for (int i = 0; i < args->n_named; i++) {
        if (is_parameter(node, args->names[i])) {
            continue;
        }
        if (is_word(args->names[i], "caller") && node->takes_caller) {
            TSR_TRY(tsr_jexec_set(run, scope, &caller, args->named[i]));
        } else if (node->takes_kwargs) {
            TSR_TRY(tsr_jvalue_set(run, named, tsr_jvalue_text(args->names[i]), args->named[i]));
        } else {
            return tsr_jvalue_fail(run, "a macro has no argument '%.*s'",
                                   (int)args->names[i]->n_bytes, args->names[i]->bytes);
        }
    }
    if (node->takes_caller && !is_parameter(node, &caller) &&
        named_argument(args, &caller) == NULL) {
        tsr_jvalue nobody;

        TSR_TRY(tsr_jvalue_undefined(run, &nobody, "No caller defined"));
        TSR_TRY(tsr_jexec_set(run, scope, &caller, nobody));
    }
    if (node->takes_varargs) {
        TSR_TRY(tsr_jexec_set(run, scope, &varargs, tsr_jvalue_list(TSR_J_TUPLE, more)));
    }
    return node->takes_kwargs
               ? tsr_jexec_set(run, scope, &kwargs, tsr_jvalue_dict(TSR_J_DICT, named))
               : TSR_OK;
}

static tsr_status call_macro(tsr_jrun *run, const tsr_jmacro *macro, const tsr_jargs *args,
                             tsr_jvalue *out)
{
    const tsr_jnode *node = macro->node;
    const int first_default = node->n_kids - node->n_named;
    const int line = run->line;
    const tsr_jtext *text;
    tsr_jscope *scope;

    if (++run->macro_depth > MOST_MACROS) {
        return tsr_jvalue_fail(run, "macros call each other more than %d deep", MOST_MACROS);
    }
    TSR_TRY(tsr_jexec_scope(run, &scope, macro->scope));
    for (int i = 0; i < node->n_kids; i++) {
        const tsr_jtext *name = node->kids[i]->name;
        const tsr_jvalue *named = named_argument(args, name);
        tsr_jvalue value;

        if (i < args->n && named != NULL) {
            return tsr_jvalue_fail(run, "the argument '%.*s' is given twice", (int)name->n_bytes,
                                   name->bytes);
        }
        if (i < args->n) {
            value = args->values[i];
        } else if (named != NULL) {
            value = *named;
        } else if (i >= first_default) {
            TSR_TRY(tsr_jeval_node(run, scope, node->named[i - first_default], &value));
        } else {
            TSR_TRY(tsr_jvalue_undefined(run, &value, "parameter '%.*s' was not provided",
                                         (int)name->n_bytes, name->bytes));
        }
        TSR_TRY(tsr_jexec_set(run, scope, name, value));
    }
    TSR_TRY(take_rest(run, node, args, scope));
    TSR_TRY(tsr_jexec_capture(run, scope, node->body, &text));
    run->macro_depth--;
    run->line = line;
    *out = tsr_jvalue_text(text);
    return TSR_OK;
}

/* ---- functions ---------------------------------------------------------------------------------
 */

static tsr_status make_range(tsr_jrun *run, const tsr_jargs *args, tsr_jvalue *out)
{
    int64_t n[3] = {0, 0, 1};
    tsr_jrange *range;
    void *made;

    if (args->n < 1 || args->n > 3 || args->n_named > 0) {
        return tsr_jvalue_fail(run, "range takes one to three whole numbers");
    }
    for (int i = 0; i < args->n; i++) {
        TSR_TRY(tsr_jcall_whole(run, &args->values[i], 0, &n[args->n == 1 ? 1 : i]));
    }
    if (n[2] == 0) {
        return tsr_jvalue_fail(run, "a range cannot go in steps of zero");
    }
    TSR_TRY(tsr_jmemory_take(&run->memory, &made, sizeof(*range)));
    range = made;
    range->start = n[0];
    range->stop = n[1];
    range->step = n[2];
    if (n[2] > 0 ? n[0] < n[1] : n[0] > n[1]) {
        const uint64_t span =
            n[2] > 0 ? (uint64_t)n[1] - (uint64_t)n[0] : (uint64_t)n[0] - (uint64_t)n[1];
        const uint64_t step = n[2] > 0 ? (uint64_t)n[2] : 0 - (uint64_t)n[2];
        const uint64_t n_items = (span - 1) / step + 1;

        if (n_items > MOST_RANGE) {
            return tsr_jvalue_fail(run, "a range of more than %d numbers", MOST_RANGE);
        }
        range->n_items = (int64_t)n_items;
    }
    out->kind = TSR_J_RANGE;
    out->as.range = range;
    return TSR_OK;
}

/* dict(...) and namespace(...): a mapping or pairs, and names. */
static tsr_status make_dict(tsr_jrun *run, const tsr_jargs *args, tsr_jkind kind, tsr_jvalue *out)
{
    tsr_jdict *dict;

    TSR_TRY(tsr_jvalue_new_dict(run, &dict));
    if (args->n > 1) {
        return tsr_jvalue_fail(run, "a dict is made of one mapping and of names");
    }
    if (args->n == 1 && (args->values[0].kind == TSR_J_DICT)) {
        const tsr_jdict *from = args->values[0].as.dict;

        for (int64_t i = 0; i < from->n_items; i++) {
            TSR_TRY(tsr_jvalue_set(run, dict, from->keys[i], from->values[i]));
        }
    } else if (args->n == 1) {
        tsr_jlist *pairs;

        TSR_TRY(tsr_jvalue_items(run, &pairs, &args->values[0]));
        for (int64_t i = 0; i < pairs->n_items; i++) {
            tsr_jlist *pair;

            TSR_TRY(tsr_jvalue_items(run, &pair, &pairs->items[i]));
            if (pair->n_items != 2) {
                return tsr_jvalue_fail(run, "a dict is made of pairs");
            }
            TSR_TRY(tsr_jvalue_set(run, dict, pair->items[0], pair->items[1]));
        }
    }
    for (int i = 0; i < args->n_named; i++) {
        TSR_TRY(tsr_jvalue_set(run, dict, tsr_jvalue_text(args->names[i]), args->named[i]));
    }
    *out = tsr_jvalue_dict(kind, dict);
    return TSR_OK;
}

static tsr_status call_range(tsr_jrun *run, const tsr_jargs *args, tsr_jvalue *out)
{
    return make_range(run, args, out);
}

static tsr_status call_dict(tsr_jrun *run, const tsr_jargs *args, tsr_jvalue *out)
{
    return make_dict(run, args, TSR_J_DICT, out);
}

static tsr_status call_namespace(tsr_jrun *run, const tsr_jargs *args, tsr_jvalue *out)
{
    return make_dict(run, args, TSR_J_NAMESPACE, out);
}

static tsr_status call_raise(tsr_jrun *run, const tsr_jargs *args, tsr_jvalue *out)
{
    const tsr_jtext *message;
    tsr_jvalue v;

    (void)out;
    TSR_TRY(tsr_jcall_bind(run, "raise_exception", "message", 1, args, &v));
    TSR_TRY(tsr_jshow_text(run, &message, &v));
    return tsr_fail(TSR_ERR_ARG, "the chat template refuses this conversation: %.*s",
                    message->n_bytes < 300 ? (int)message->n_bytes : 300, message->bytes);
}

static tsr_status call_strftime(tsr_jrun *run, const tsr_jargs *args, tsr_jvalue *out)
{
    const time_t now = (time_t)run->clock_s;
    const tsr_jtext *format;
    tsr_jbuilder b = {0};
    struct tm parts;
    tsr_jvalue v;

    TSR_TRY(tsr_jcall_bind(run, "strftime_now", "format", 1, args, &v));
    TSR_TRY(tsr_jcall_text(run, &v, "", &format));
    if (localtime_r(&now, &parts) == NULL) {
        return tsr_jvalue_fail(run, "what day it is cannot be told");
    }
    // A directive at a time: what is between them may be of any length, and has 0 bytes perhaps.
    for (size_t at = 0; at < format->n_bytes;) {
        char directive[8] = "%";
        char text[TIME_BYTES];
        size_t n = 1;

        if (format->bytes[at] != '%' || at + 1 == format->n_bytes) {
            TSR_TRY(tsr_jtext_put_part(run, &b, format, at, at + 1));
            at++;
            continue;
        }
        at++;
        while (n < sizeof(directive) - 2 && at < format->n_bytes &&
               strchr("-_0^#EO:", format->bytes[at]) != NULL && format->bytes[at] != 0) {
            directive[n++] = format->bytes[at++];
        }
        if (at < format->n_bytes) {
            directive[n] = format->bytes[at++];
        }
        if (strcmp(directive, "%f") == 0) {
            (void)snprintf(text, sizeof(text), "000000");
            n = 6;
        } else {
            n = strftime(text, sizeof(text), directive, &parts);
        }
        TSR_TRY(tsr_jtext_put(run, &b, text, n));
    }
    return tsr_jtext_finish_value(run, &b, out);
}

static tsr_status call_cycler(tsr_jrun *run, const tsr_jargs *args, tsr_jvalue *out)
{
    tsr_jlist *list;

    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int i = 0; i < args->n; i++) {
        TSR_TRY(tsr_jvalue_append(run, list, args->values[i]));
    }
    if (list->n_items == 0) {
        return tsr_jvalue_fail(run, "at least one item has to be provided");
    }
    *out = tsr_jvalue_list(TSR_J_CYCLER, list);
    return TSR_OK;
}

static tsr_status call_joiner(tsr_jrun *run, const tsr_jargs *args, tsr_jvalue *out)
{
    const tsr_jtext *between;
    tsr_jlist *list;
    tsr_jvalue v;

    TSR_TRY(tsr_jcall_bind(run, "joiner", "sep", 0, args, &v));
    TSR_TRY(tsr_jcall_text(run, &v, ", ", &between));
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    TSR_TRY(tsr_jvalue_append(run, list, tsr_jvalue_text(between)));
    *out = tsr_jvalue_list(TSR_J_JOINER, list);
    return TSR_OK;
}

static const struct {
    const char *name;
    tsr_status (*call)(tsr_jrun *run, const tsr_jargs *args, tsr_jvalue *out);
} functions[] = {
    {"range", call_range},           {"dict", call_dict},
    {"namespace", call_namespace},   {"raise_exception", call_raise},
    {"strftime_now", call_strftime}, {"cycler", call_cycler},
    {"joiner", call_joiner},
};

bool tsr_jcall_is_calendar(const tsr_jvalue *v)
{
    return v->kind == TSR_J_FUNCTION && functions[v->as.number].call == call_strftime;
}

bool tsr_jcall_function(const tsr_jtext *name, tsr_jvalue *out)
{
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        if (is_word(name, functions[i].name)) {
            out->kind = TSR_J_FUNCTION;
            out->as.number = (int64_t)i;
            return true;
        }
    }
    return false;
}

tsr_status tsr_jcall_value(tsr_jrun *run, const tsr_jvalue *what, const tsr_jargs *args,
                           tsr_jvalue *out)
{
    switch (what->kind) {
    case TSR_J_MACRO:
        return call_macro(run, what->as.macro, args, out);
    case TSR_J_FUNCTION:
        return functions[what->as.number].call(run, args, out);
    case TSR_J_METHOD:
        return tsr_jmethods_call(run, what->as.method, args, out);
    case TSR_J_LOOP:
        if (args->n != 1 || args->n_named > 0) {
            return tsr_jvalue_fail(run, "a loop is called with what it is to walk");
        }
        return tsr_jexec_again(run, what->as.loop, &args->values[0], out);
    case TSR_J_JOINER:
        if (what->as.list->at++ == 0) {
            const tsr_jtext *nothing;

            TSR_TRY(tsr_jtext_words(run, &nothing, ""));
            *out = tsr_jvalue_text(nothing);
        } else {
            *out = what->as.list->items[0];
        }
        return TSR_OK;
    case TSR_J_UNDEFINED:
        return tsr_jvalue_fail(run, "%.*s", (int)what->as.text->n_bytes, what->as.text->bytes);
    default:
        return tsr_jvalue_fail(run, "'%s' object is not callable", tsr_jvalue_type(what));
    }
}
