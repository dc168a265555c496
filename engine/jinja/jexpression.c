/*
 * Expressions, each function one level of the grammar: the later, the tighter it binds.
 */
#include <string.h>

#include "engine/jinja/jparser.h"

static tsr_status two(tsr_jparser *p, tsr_jnode **out, tsr_jnode_kind kind, tsr_jnode *a,
                      tsr_jnode *b)
{
    TSR_TRY(tsr_jparser_node(p, out, kind));
    (*out)->a = a;
    (*out)->b = b;
    return TSR_OK;
}

/* ---- what stands by itself ---------------------------------------------------------------------
 */

static tsr_status read_strings(tsr_jparser *p, tsr_jnode **out)
{
    const tsr_jtoken *first = p->at;
    const tsr_jtext *text;
    size_t n_bytes = 0;
    size_t used = 0;
    void *joined;

    TSR_TRY(tsr_jparser_node(p, out, TSR_JN_CONSTANT));
    for (; p->at->kind == TSR_JT_STRING; p->at++) {
        n_bytes += p->at->n_bytes;
    }
    if (p->at - first == 1) {
        TSR_TRY(tsr_jparser_text(p, &text, first->bytes, first->n_bytes));
    } else {
        TSR_TRY(tsr_jmemory_take(p->memory, &joined, n_bytes + 1));
        for (const tsr_jtoken *token = first; token < p->at; token++) {
            memcpy((char *)joined + used, token->bytes, token->n_bytes);
            used += token->n_bytes;
        }
        TSR_TRY(tsr_jparser_text(p, &text, joined, n_bytes));
    }
    (*out)->value = tsr_jvalue_text(text);
    return TSR_OK;
}

/* A body that names one of these makes its macro take it. */
static void note_name(tsr_jparser *p)
{
    if (p->macro != NULL) {
        p->macro->takes_varargs |= tsr_jparser_is_name(p, "varargs");
        p->macro->takes_kwargs |= tsr_jparser_is_name(p, "kwargs");
        p->macro->takes_caller |= tsr_jparser_is_name(p, "caller");
    }
}

static tsr_status read_name(tsr_jparser *p, tsr_jnode **out, bool members)
{
    TSR_TRY(tsr_jparser_node(p, out, TSR_JN_CONSTANT));
    if (tsr_jparser_skip_name(p, "true") || tsr_jparser_skip_name(p, "True")) {
        (*out)->value = tsr_jvalue_bool(true);
    } else if (tsr_jparser_skip_name(p, "false") || tsr_jparser_skip_name(p, "False")) {
        (*out)->value = tsr_jvalue_bool(false);
    } else if (tsr_jparser_skip_name(p, "none") || tsr_jparser_skip_name(p, "None")) {
        (*out)->value = tsr_jvalue_none();
    } else {
        (*out)->kind = TSR_JN_NAME;
        note_name(p);
        TSR_TRY(tsr_jparser_take_name(p, &(*out)->name));
        if (members && tsr_jparser_skip_sign(p, ".")) {
            const tsr_jtext *word;

            TSR_TRY(tsr_jparser_take_name(p, &word));
            (*out)->kind = TSR_JN_MEMBER;
            (*out)->value = tsr_jvalue_text(word);
        }
    }
    return TSR_OK;
}

/* [a, b, c] or {a: b, c: d}, behind the first bracket. */
static tsr_status read_collection(tsr_jparser *p, tsr_jnode **out, bool dict)
{
    const char *end = dict ? "}" : "]";
    tsr_jparser_list list = {0};
    tsr_jnode *item;

    TSR_TRY(tsr_jparser_node(p, out, dict ? TSR_JN_DICT : TSR_JN_LIST));
    while (!tsr_jparser_is_sign(p, end)) {
        if (list.n > 0) {
            TSR_TRY(tsr_jparser_expect_sign(p, ","));
        }
        if (tsr_jparser_is_sign(p, end)) {
            break;
        }
        TSR_TRY(tsr_jparser_expression(p, &item, true));
        TSR_TRY(tsr_jparser_append(p, &list, item));
        if (dict) {
            TSR_TRY(tsr_jparser_expect_sign(p, ":"));
            TSR_TRY(tsr_jparser_expression(p, &item, true));
            TSR_TRY(tsr_jparser_append(p, &list, item));
        }
    }
    (*out)->kids = list.nodes;
    (*out)->n_kids = list.n;
    return tsr_jparser_expect_sign(p, end);
}

tsr_status tsr_jparser_primary(tsr_jparser *p, tsr_jnode **out, bool members)
{
    const tsr_jtoken *token = p->at;

    switch (token->kind) {
    case TSR_JT_NAME:
        return read_name(p, out, members);
    case TSR_JT_STRING:
        return read_strings(p, out);
    case TSR_JT_INT:
    case TSR_JT_FLOAT:
        TSR_TRY(tsr_jparser_node(p, out, TSR_JN_CONSTANT));
        (*out)->value = token->kind == TSR_JT_INT ? tsr_jvalue_int(token->number)
                                                  : tsr_jvalue_float(token->real);
        p->at++;
        return TSR_OK;
    default:
        if (tsr_jparser_skip_sign(p, "(")) {
            TSR_TRY(tsr_jparser_tuple(p, out, true, NULL, true));
            return tsr_jparser_expect_sign(p, ")");
        }
        if (tsr_jparser_skip_sign(p, "[")) {
            return read_collection(p, out, false);
        }
        if (tsr_jparser_skip_sign(p, "{")) {
            return read_collection(p, out, true);
        }
        return tsr_jparser_want(p, "an expression");
    }
}

/* ---- what follows ------------------------------------------------------------------------------
 */

static tsr_status read_slice_part(tsr_jparser *p, tsr_jnode **out)
{
    *out = NULL;
    if (tsr_jparser_is_sign(p, ":") || tsr_jparser_is_sign(p, "]") || tsr_jparser_is_sign(p, ",")) {
        return TSR_OK;
    }
    return tsr_jparser_expression(p, out, true);
}

/* One thing between brackets: an expression or a slice. */
static tsr_status read_subscript(tsr_jparser *p, tsr_jnode **out)
{
    tsr_jnode *first;

    TSR_TRY(read_slice_part(p, &first));
    if (!tsr_jparser_skip_sign(p, ":")) {
        *out = first;
        return first != NULL ? TSR_OK : tsr_jparser_want(p, "an expression");
    }
    TSR_TRY(tsr_jparser_node(p, out, TSR_JN_SLICE));
    (*out)->a = first;
    TSR_TRY(read_slice_part(p, &(*out)->b));
    if (tsr_jparser_skip_sign(p, ":")) {
        TSR_TRY(read_slice_part(p, &(*out)->c));
    }
    return TSR_OK;
}

static tsr_status read_brackets(tsr_jparser *p, tsr_jnode **out, tsr_jnode *of)
{
    tsr_jparser_list list = {0};
    tsr_jnode *subscript;

    TSR_TRY(two(p, out, TSR_JN_ITEM, of, NULL));
    while (!tsr_jparser_is_sign(p, "]")) {
        if (list.n > 0) {
            TSR_TRY(tsr_jparser_expect_sign(p, ","));
        }
        TSR_TRY(read_subscript(p, &subscript));
        TSR_TRY(tsr_jparser_append(p, &list, subscript));
    }
    if (list.n == 1) {
        (*out)->b = list.nodes[0];
    } else {
        TSR_TRY(tsr_jparser_node(p, &(*out)->b, TSR_JN_TUPLE));
        (*out)->b->kids = list.nodes;
        (*out)->b->n_kids = list.n;
    }
    return tsr_jparser_expect_sign(p, "]");
}

static tsr_status read_dot(tsr_jparser *p, tsr_jnode **out, tsr_jnode *of)
{
    if (p->at->kind == TSR_JT_INT) {
        tsr_jnode *number;

        TSR_TRY(tsr_jparser_primary(p, &number, false));
        return two(p, out, TSR_JN_ITEM, of, number);
    }
    TSR_TRY(two(p, out, TSR_JN_ATTRIBUTE, of, NULL));
    return tsr_jparser_take_name(p, &(*out)->name);
}

static tsr_status add_named(tsr_jparser *p, tsr_jnode *call, int *capacity)
{
    const tsr_jtext *name;

    TSR_TRY(tsr_jparser_take_name(p, &name));
    TSR_TRY(tsr_jparser_expect_sign(p, "="));
    if (call->n_named == *capacity) {
        const int wanted = *capacity < 4 ? 4 : 2 * *capacity;
        const size_t old_bytes = (size_t)*capacity * sizeof(void *);
        const size_t new_bytes = (size_t)wanted * sizeof(void *);
        void *names = (void *)call->named_names;
        void *nodes = call->named;

        TSR_TRY(tsr_jmemory_grow(p->memory, &names, old_bytes, new_bytes));
        TSR_TRY(tsr_jmemory_grow(p->memory, &nodes, old_bytes, new_bytes));
        call->named_names = names;
        call->named = nodes;
        *capacity = wanted;
    }
    call->named_names[call->n_named] = name;
    TSR_TRY(tsr_jparser_expression(p, &call->named[call->n_named], true));
    call->n_named++;
    return TSR_OK;
}

/* (a, b, name=c, *d, **e), all of it, into call. */
static tsr_status read_arguments(tsr_jparser *p, tsr_jnode *call)
{
    tsr_jparser_list list = {0};
    tsr_jnode *argument;
    int capacity = 0;
    bool first = true;

    TSR_TRY(tsr_jparser_expect_sign(p, "("));
    while (!tsr_jparser_is_sign(p, ")")) {
        if (!first) {
            TSR_TRY(tsr_jparser_expect_sign(p, ","));
            if (tsr_jparser_is_sign(p, ")")) {
                break;
            }
        }
        first = false;
        if (tsr_jparser_is_sign(p, "*") && call->star == NULL && call->stars == NULL) {
            p->at++;
            TSR_TRY(tsr_jparser_expression(p, &call->star, true));
        } else if (tsr_jparser_is_sign(p, "**") && call->stars == NULL) {
            p->at++;
            TSR_TRY(tsr_jparser_expression(p, &call->stars, true));
        } else if (p->at->kind == TSR_JT_NAME && tsr_jparser_is_next(p, TSR_JT_SIGN, "=") &&
                   call->stars == NULL) {
            TSR_TRY(add_named(p, call, &capacity));
        } else if (call->star == NULL && call->stars == NULL && call->n_named == 0) {
            TSR_TRY(tsr_jparser_expression(p, &argument, true));
            TSR_TRY(tsr_jparser_append(p, &list, argument));
        } else {
            return tsr_jparser_fail(p, "the arguments of a call are in no order");
        }
    }
    call->kids = list.nodes;
    call->n_kids = list.n;
    return tsr_jparser_expect_sign(p, ")");
}

static tsr_status read_call(tsr_jparser *p, tsr_jnode **out, tsr_jnode *of)
{
    TSR_TRY(two(p, out, TSR_JN_CALL, of, NULL));
    return read_arguments(p, *out);
}

static tsr_status read_postfix(tsr_jparser *p, tsr_jnode **node)
{
    for (;;) {
        tsr_jnode *of = *node;

        if (tsr_jparser_skip_sign(p, ".")) {
            TSR_TRY(read_dot(p, node, of));
        } else if (tsr_jparser_skip_sign(p, "[")) {
            TSR_TRY(read_brackets(p, node, of));
        } else if (tsr_jparser_is_sign(p, "(")) {
            TSR_TRY(read_call(p, node, of));
        } else {
            return TSR_OK;
        }
    }
}

/* name.name.name as one name. */
static tsr_status take_dotted(tsr_jparser *p, const tsr_jtext **out)
{
    const tsr_jtoken *first = p->at;
    const tsr_jtext *last;

    TSR_TRY(tsr_jparser_take_name(p, out));
    while (tsr_jparser_skip_sign(p, ".")) {
        TSR_TRY(tsr_jparser_take_name(p, &last));
        // No filter or test has a dot in its name: any text that says which will do.
        TSR_TRY(tsr_jparser_text(p, out, first->bytes,
                                 (size_t)(last->bytes + last->n_bytes - first->bytes)));
    }
    return TSR_OK;
}

tsr_status tsr_jparser_filters(tsr_jparser *p, tsr_jnode **out, tsr_jnode *node, bool bare)
{
    while (bare || tsr_jparser_skip_sign(p, "|")) {
        tsr_jnode *filter;

        TSR_TRY(two(p, &filter, TSR_JN_FILTER, node, NULL));
        TSR_TRY(take_dotted(p, &filter->name));
        if (tsr_jparser_is_sign(p, "(")) {
            TSR_TRY(read_arguments(p, filter));
        }
        node = filter;
        bare = false;
    }
    *out = node;
    return TSR_OK;
}

/* The test behind `is`. */
static tsr_status read_test(tsr_jparser *p, tsr_jnode **out, tsr_jnode *of)
{
    const bool negated = tsr_jparser_skip_name(p, "not");
    tsr_jnode *test;

    TSR_TRY(two(p, &test, TSR_JN_TEST, of, NULL));
    TSR_TRY(take_dotted(p, &test->name));
    if (tsr_jparser_is_sign(p, "(")) {
        TSR_TRY(read_arguments(p, test));
    } else if ((p->at->kind == TSR_JT_NAME && !tsr_jparser_is_name(p, "else") &&
                !tsr_jparser_is_name(p, "or") && !tsr_jparser_is_name(p, "and")) ||
               p->at->kind == TSR_JT_STRING || p->at->kind == TSR_JT_INT ||
               p->at->kind == TSR_JT_FLOAT || tsr_jparser_is_sign(p, "[") ||
               tsr_jparser_is_sign(p, "{")) {
        tsr_jparser_list list = {0};
        tsr_jnode *argument;

        if (tsr_jparser_is_name(p, "is")) {
            return tsr_jparser_fail(p, "two tests in a row");
        }
        TSR_TRY(tsr_jparser_primary(p, &argument, false));
        TSR_TRY(read_postfix(p, &argument));
        TSR_TRY(tsr_jparser_append(p, &list, argument));
        test->kids = list.nodes;
        test->n_kids = list.n;
    }
    *out = test;
    return negated ? two(p, out, TSR_JN_NOT, test, NULL) : TSR_OK;
}

static tsr_status read_filters_and_tests(tsr_jparser *p, tsr_jnode **node)
{
    for (;;) {
        tsr_jnode *of = *node;

        if (tsr_jparser_is_sign(p, "|")) {
            TSR_TRY(tsr_jparser_filters(p, node, of, false));
        } else if (tsr_jparser_skip_name(p, "is")) {
            TSR_TRY(read_test(p, node, of));
        } else if (tsr_jparser_is_sign(p, "(")) {
            TSR_TRY(read_call(p, node, of));
        } else {
            return TSR_OK;
        }
    }
}

/* ---- operators ---------------------------------------------------------------------------------
 */

static tsr_status read_unary(tsr_jparser *p, tsr_jnode **out, bool filters)
{
    const bool minus = tsr_jparser_skip_sign(p, "-");

    if (minus || tsr_jparser_skip_sign(p, "+")) {
        tsr_jnode *of;

        TSR_TRY(tsr_jparser_enter(p));
        TSR_TRY(read_unary(p, &of, false));
        p->depth--;
        TSR_TRY(two(p, out, minus ? TSR_JN_NEGATIVE : TSR_JN_POSITIVE, of, NULL));
    } else {
        TSR_TRY(tsr_jparser_primary(p, out, false));
    }
    TSR_TRY(read_postfix(p, out));
    return filters ? read_filters_and_tests(p, out) : TSR_OK;
}

typedef struct operator_of {
    const char *sign;
    tsr_jnode_kind kind;
} operator_of;

static const operator_of powers[] = {{"**", TSR_JN_POWER}, {NULL, TSR_JN_KIND_COUNT}};
static const operator_of products[] = {{"*", TSR_JN_MULTIPLY},
                                       {"/", TSR_JN_DIVIDE},
                                       {"//", TSR_JN_FLOOR},
                                       {"%", TSR_JN_MODULO},
                                       {NULL, TSR_JN_KIND_COUNT}};
static const operator_of sums[] = {
    {"+", TSR_JN_ADD}, {"-", TSR_JN_SUBTRACT}, {NULL, TSR_JN_KIND_COUNT}};

static tsr_status read_operand(tsr_jparser *p, tsr_jnode **out)
{
    return read_unary(p, out, true);
}

static tsr_status read_left(tsr_jparser *p, tsr_jnode **out, const operator_of *known,
                            tsr_status (*operand)(tsr_jparser *p, tsr_jnode **out))
{
    TSR_TRY(operand(p, out));
    for (;;) {
        const operator_of *op = known;
        tsr_jnode *a = *out;
        tsr_jnode *b;

        while (op->sign != NULL && !tsr_jparser_skip_sign(p, op->sign)) {
            op++;
        }
        if (op->sign == NULL) {
            return TSR_OK;
        }
        TSR_TRY(operand(p, &b));
        TSR_TRY(two(p, out, op->kind, a, b));
    }
}

static tsr_status read_power(tsr_jparser *p, tsr_jnode **out)
{
    return read_left(p, out, powers, read_operand);
}

static tsr_status read_product(tsr_jparser *p, tsr_jnode **out)
{
    return read_left(p, out, products, read_power);
}

static tsr_status read_concat(tsr_jparser *p, tsr_jnode **out)
{
    tsr_jparser_list list = {0};
    tsr_jnode *part;

    TSR_TRY(read_product(p, out));
    if (!tsr_jparser_is_sign(p, "~")) {
        return TSR_OK;
    }
    TSR_TRY(tsr_jparser_append(p, &list, *out));
    while (tsr_jparser_skip_sign(p, "~")) {
        TSR_TRY(read_product(p, &part));
        TSR_TRY(tsr_jparser_append(p, &list, part));
    }
    TSR_TRY(tsr_jparser_node(p, out, TSR_JN_CONCAT));
    (*out)->kids = list.nodes;
    (*out)->n_kids = list.n;
    return TSR_OK;
}

static tsr_status read_sum(tsr_jparser *p, tsr_jnode **out)
{
    return read_left(p, out, sums, read_concat);
}

/* The comparison that stands here, skipped; NULL: none. */
static const char *skip_comparison(tsr_jparser *p)
{
    static const char *const signs[] = {"==", "!=", "<=", ">=", "<", ">"};

    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++) {
        if (tsr_jparser_skip_sign(p, signs[i])) {
            return signs[i];
        }
    }
    if (tsr_jparser_skip_name(p, "in")) {
        return "in";
    }
    if (tsr_jparser_is_name(p, "not") && tsr_jparser_is_next(p, TSR_JT_NAME, "in")) {
        p->at += 2;
        return "not in";
    }
    return NULL;
}

static tsr_status read_compare(tsr_jparser *p, tsr_jnode **out)
{
    const char *how;
    tsr_jparser_list list = {0};
    tsr_jparser_list words = {0}; // of texts, kept as nodes' values
    tsr_jnode *first;
    void *memory;

    TSR_TRY(read_sum(p, &first));
    *out = first;
    while ((how = skip_comparison(p)) != NULL) {
        tsr_jnode *operand;
        tsr_jnode *word;

        TSR_TRY(read_sum(p, &operand));
        TSR_TRY(tsr_jparser_append(p, &list, operand));
        TSR_TRY(tsr_jparser_node(p, &word, TSR_JN_CONSTANT));
        TSR_TRY(tsr_jparser_text(p, &word->name, how, strlen(how)));
        TSR_TRY(tsr_jparser_append(p, &words, word));
    }
    if (list.n == 0) {
        return TSR_OK;
    }
    TSR_TRY(two(p, out, TSR_JN_COMPARE, first, NULL));
    TSR_TRY(tsr_jmemory_take(p->memory, &memory, (size_t)list.n * sizeof(char *)));
    (*out)->words = memory;
    for (int i = 0; i < list.n; i++) {
        (*out)->words[i] = words.nodes[i]->name->bytes;
    }
    (*out)->kids = list.nodes;
    (*out)->n_kids = list.n;
    return TSR_OK;
}

static tsr_status read_not(tsr_jparser *p, tsr_jnode **out)
{
    if (tsr_jparser_skip_name(p, "not")) {
        tsr_jnode *of;

        TSR_TRY(tsr_jparser_enter(p));
        TSR_TRY(read_not(p, &of));
        p->depth--;
        return two(p, out, TSR_JN_NOT, of, NULL);
    }
    return read_compare(p, out);
}

static tsr_status read_and(tsr_jparser *p, tsr_jnode **out)
{
    TSR_TRY(read_not(p, out));
    while (tsr_jparser_skip_name(p, "and")) {
        tsr_jnode *a = *out;
        tsr_jnode *b;

        TSR_TRY(read_not(p, &b));
        TSR_TRY(two(p, out, TSR_JN_AND, a, b));
    }
    return TSR_OK;
}

static tsr_status read_or(tsr_jparser *p, tsr_jnode **out)
{
    TSR_TRY(read_and(p, out));
    while (tsr_jparser_skip_name(p, "or")) {
        tsr_jnode *a = *out;
        tsr_jnode *b;

        TSR_TRY(read_and(p, &b));
        TSR_TRY(two(p, out, TSR_JN_OR, a, b));
    }
    return TSR_OK;
}

tsr_status tsr_jparser_expression(tsr_jparser *p, tsr_jnode **out, bool choices)
{
    TSR_TRY(tsr_jparser_enter(p));
    TSR_TRY(read_or(p, out));
    while (choices && tsr_jparser_skip_name(p, "if")) {
        tsr_jnode *yes = *out;
        tsr_jnode *choice;

        TSR_TRY(two(p, &choice, TSR_JN_CHOICE, NULL, yes));
        TSR_TRY(read_or(p, &choice->a));
        if (tsr_jparser_skip_name(p, "else")) {
            TSR_TRY(tsr_jparser_expression(p, &choice->c, true));
        }
        *out = choice;
    }
    p->depth--;
    return TSR_OK;
}
