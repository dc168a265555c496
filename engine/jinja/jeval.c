#include <string.h>

#include "engine/jinja/jrun.h"

enum {
    MOST_DEPTH = 2000 // as in jexec.c, which counts along
};

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

    if (v->kind == TSR_J_UNDEFINED) {
        return tsr_jattribute_undefined(run, v);
    }
    if (!tsr_jvalue_is_number(v)) {
        return tsr_jvalue_fail(run, "bad operand type for unary %c: '%s'", negative ? '-' : '+',
                               tsr_jvalue_type(v));
    }
    if (v->kind == TSR_J_FLOAT) {
        *out = tsr_jvalue_float(negative ? -v->as.real : v->as.real);
        return TSR_OK;
    }
    return negative ? tsr_jarithmetic_do(run, TSR_JN_SUBTRACT, &zero, v, out)
                    : tsr_jarithmetic_add(run, &zero, v, out);
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
        return tsr_jattribute_named(run, &of, node->name, out);
    case TSR_JN_ITEM:
        TSR_TRY(tsr_jeval_node(run, scope, node->b, &key));
        return tsr_jattribute_item(run, &of, &key, out);
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
        return tsr_jarithmetic_do(run, node->kind, &a, &b, out);
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
