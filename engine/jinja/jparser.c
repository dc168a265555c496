#include "engine/jinja/jparser.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    MOST_DEPTH = 100,
    MESSAGE_BYTES = 200
};

tsr_status tsr_jparser_fail(const tsr_jparser *p, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return tsr_fail(TSR_ERR_FORMAT, "the chat template, line %d: %s", p->at->line, message);
}

tsr_status tsr_jparser_want(const tsr_jparser *p, const char *what)
{
    static const char *const names[TSR_JT_KIND_COUNT] = {
        [TSR_JT_END] = "the end of the template",
        [TSR_JT_DATA] = "plain text",
        [TSR_JT_OPEN_PRINT] = "'{{'",
        [TSR_JT_CLOSE_PRINT] = "'}}'",
        [TSR_JT_OPEN_TAG] = "'{%'",
        [TSR_JT_CLOSE_TAG] = "'%}'",
        [TSR_JT_STRING] = "a string",
        [TSR_JT_INT] = "a number",
        [TSR_JT_FLOAT] = "a number",
    };

    if (p->at->kind == TSR_JT_NAME || p->at->kind == TSR_JT_SIGN) {
        return tsr_jparser_fail(p, "%s is expected, not '%.*s'", what,
                                (int)(p->at->n_bytes < 40 ? p->at->n_bytes : 40), p->at->bytes);
    }
    return tsr_jparser_fail(p, "%s is expected, not %s", what, names[p->at->kind]);
}

tsr_status tsr_jparser_node(tsr_jparser *p, tsr_jnode **out, tsr_jnode_kind kind)
{
    void *made;

    TSR_TRY(tsr_jmemory_take(p->memory, &made, sizeof(tsr_jnode)));
    *out = made;
    (*out)->kind = kind;
    (*out)->line = p->at->line;
    return TSR_OK;
}

tsr_status tsr_jparser_append(tsr_jparser *p, tsr_jparser_list *list, tsr_jnode *node)
{
    if (list->n == list->capacity) {
        const int wanted = list->capacity < 4 ? 4 : 2 * list->capacity;
        void *nodes = list->nodes;

        TSR_TRY(tsr_jmemory_grow(p->memory, &nodes, (size_t)list->capacity * sizeof(tsr_jnode *),
                                 (size_t)wanted * sizeof(tsr_jnode *)));
        list->nodes = nodes;
        list->capacity = wanted;
    }
    list->nodes[list->n++] = node;
    return TSR_OK;
}

tsr_status tsr_jparser_text(tsr_jparser *p, const tsr_jtext **out, const char *bytes,
                            size_t n_bytes)
{
    void *made;
    tsr_jtext *text;

    TSR_TRY(tsr_jmemory_take(p->memory, &made, sizeof(tsr_jtext)));
    text = made;
    text->bytes = bytes;
    text->n_bytes = n_bytes;
    *out = text;
    return TSR_OK;
}

static bool is(const tsr_jtoken *token, tsr_jtoken_kind kind, const char *words)
{
    return token->kind == kind && token->n_bytes == strlen(words) &&
           memcmp(token->bytes, words, token->n_bytes) == 0;
}

bool tsr_jparser_is_sign(const tsr_jparser *p, const char *sign)
{
    return is(p->at, TSR_JT_SIGN, sign);
}

bool tsr_jparser_is_name(const tsr_jparser *p, const char *name)
{
    return is(p->at, TSR_JT_NAME, name);
}

bool tsr_jparser_is_next(const tsr_jparser *p, tsr_jtoken_kind kind, const char *words)
{
    return p->at->kind != TSR_JT_END && is(p->at + 1, kind, words);
}

bool tsr_jparser_skip_sign(tsr_jparser *p, const char *sign)
{
    const bool there = tsr_jparser_is_sign(p, sign);

    p->at += there ? 1 : 0;
    return there;
}

bool tsr_jparser_skip_name(tsr_jparser *p, const char *name)
{
    const bool there = tsr_jparser_is_name(p, name);

    p->at += there ? 1 : 0;
    return there;
}

tsr_status tsr_jparser_expect_sign(tsr_jparser *p, const char *sign)
{
    char what[16];

    if (tsr_jparser_skip_sign(p, sign)) {
        return TSR_OK;
    }
    (void)snprintf(what, sizeof(what), "'%s'", sign);
    return tsr_jparser_want(p, what);
}

tsr_status tsr_jparser_take_name(tsr_jparser *p, const tsr_jtext **out)
{
    if (p->at->kind != TSR_JT_NAME) {
        return tsr_jparser_want(p, "a name");
    }
    TSR_TRY(tsr_jparser_text(p, out, p->at->bytes, p->at->n_bytes));
    p->at++;
    return TSR_OK;
}

tsr_status tsr_jparser_enter(tsr_jparser *p)
{
    if (++p->depth > MOST_DEPTH) {
        return tsr_jparser_fail(p, "more than %d expressions or blocks within each other",
                                MOST_DEPTH);
    }
    return TSR_OK;
}

/* ---- statements --------------------------------------------------------------------------------
 */

static tsr_status read_body(tsr_jparser *p, tsr_jnode **out, const char *const *ends);

static tsr_status close_tag(tsr_jparser *p)
{
    if (p->at->kind != TSR_JT_CLOSE_TAG) {
        return tsr_jparser_want(p, "'%}'");
    }
    p->at++;
    return TSR_OK;
}

/* A body behind the tag that opens it, up to one of `ends` (which is left to be read). */
static tsr_status read_block(tsr_jparser *p, tsr_jnode **out, const char *const *ends)
{
    (void)tsr_jparser_skip_sign(p, ":");
    TSR_TRY(close_tag(p));
    TSR_TRY(read_body(p, out, ends));
    return p->at->kind != TSR_JT_END
               ? TSR_OK
               : tsr_jparser_fail(p, "the template ends before '%s'", ends[0]);
}

static tsr_status read_block_to(tsr_jparser *p, tsr_jnode **out, const char *end)
{
    const char *const ends[] = {end, NULL};

    TSR_TRY(read_block(p, out, ends));
    p->at++;
    return TSR_OK;
}

static tsr_status read_if(tsr_jparser *p, tsr_jnode *node)
{
    static const char *const ends[] = {"endif", "elif", "else", NULL};

    // One node for each elif, the next hanging on the one before.
    for (;;) {
        TSR_TRY(tsr_jparser_tuple(p, &node->a, false, NULL, false));
        TSR_TRY(read_block(p, &node->b, ends));
        if (!tsr_jparser_is_name(p, "elif")) {
            break;
        }
        TSR_TRY(tsr_jparser_node(p, &node->c, TSR_JN_IF));
        node = node->c;
        p->at++;
    }
    if (tsr_jparser_skip_name(p, "else")) {
        return read_block_to(p, &node->c, "endif");
    }
    p->at++;
    return TSR_OK;
}

static tsr_status read_for(tsr_jparser *p, tsr_jnode *node)
{
    static const char *const ends[] = {"endfor", "else", NULL};

    TSR_TRY(tsr_jparser_target(p, &node->a, "in", false));
    if (!tsr_jparser_skip_name(p, "in")) {
        return tsr_jparser_want(p, "'in'");
    }
    TSR_TRY(tsr_jparser_tuple(p, &node->b, false, "recursive", false));
    if (tsr_jparser_skip_name(p, "if")) {
        TSR_TRY(tsr_jparser_expression(p, &node->c, true));
    }
    node->flag = tsr_jparser_skip_name(p, "recursive");
    p->n_loops++;
    TSR_TRY(read_block(p, &node->body, ends));
    p->n_loops--;
    if (tsr_jparser_skip_name(p, "else")) {
        return read_block_to(p, &node->d, "endfor");
    }
    p->at++;
    return TSR_OK;
}

static tsr_status read_set(tsr_jparser *p, tsr_jnode *node)
{
    TSR_TRY(tsr_jparser_target(p, &node->a, NULL, true));
    if (tsr_jparser_skip_sign(p, "=")) {
        return tsr_jparser_tuple(p, &node->b, true, NULL, false);
    }
    node->kind = TSR_JN_SET_BLOCK;
    TSR_TRY(tsr_jparser_filters(p, &node->b, NULL, false));
    return read_block_to(p, &node->body, "endset");
}

/* (a, b=1) of a macro or call block. */
static tsr_status read_signature(tsr_jparser *p, tsr_jnode *node)
{
    tsr_jparser_list names = {0};
    tsr_jparser_list defaults = {0};

    TSR_TRY(tsr_jparser_expect_sign(p, "("));
    while (!tsr_jparser_is_sign(p, ")")) {
        tsr_jnode *one = NULL;

        if (names.n > 0) {
            TSR_TRY(tsr_jparser_expect_sign(p, ","));
        }
        TSR_TRY(tsr_jparser_node(p, &one, TSR_JN_NAME));
        TSR_TRY(tsr_jparser_take_name(p, &one->name));
        TSR_TRY(tsr_jparser_append(p, &names, one));
        if (tsr_jparser_skip_sign(p, "=")) {
            TSR_TRY(tsr_jparser_expression(p, &one, true));
            TSR_TRY(tsr_jparser_append(p, &defaults, one));
        } else if (defaults.n > 0) {
            return tsr_jparser_fail(p, "a parameter without a default behind one that has it");
        }
    }
    node->kids = names.nodes;
    node->n_kids = names.n;
    node->named = defaults.nodes;
    node->n_named = defaults.n;
    return tsr_jparser_expect_sign(p, ")");
}

/* The body of a macro: another's loops cannot be left from it, and what it names counts for it. */
static tsr_status read_macro_body(tsr_jparser *p, tsr_jnode *node, const char *end)
{
    tsr_jnode *outer = p->macro;
    const int n_loops = p->n_loops;

    p->macro = node;
    p->n_loops = 0;
    TSR_TRY(read_block_to(p, &node->body, end));
    p->macro = outer;
    p->n_loops = n_loops;
    return TSR_OK;
}

static tsr_status read_macro(tsr_jparser *p, tsr_jnode *node)
{
    TSR_TRY(tsr_jparser_take_name(p, &node->name));
    TSR_TRY(read_signature(p, node));
    return read_macro_body(p, node, "endmacro");
}

static tsr_status read_call_block(tsr_jparser *p, tsr_jnode *node)
{
    if (tsr_jparser_is_sign(p, "(")) {
        TSR_TRY(read_signature(p, node));
    }
    TSR_TRY(tsr_jparser_expression(p, &node->a, true));
    if (node->a->kind != TSR_JN_CALL) {
        return tsr_jparser_fail(p, "a call block that calls nothing");
    }
    return read_macro_body(p, node, "endcall");
}

static tsr_status read_filter_block(tsr_jparser *p, tsr_jnode *node)
{
    TSR_TRY(tsr_jparser_filters(p, &node->b, NULL, true));
    return read_block_to(p, &node->body, "endfilter");
}

static tsr_status read_with(tsr_jparser *p, tsr_jnode *node)
{
    tsr_jparser_list list = {0};

    while (p->at->kind != TSR_JT_CLOSE_TAG) {
        tsr_jnode *one = NULL;

        if (list.n > 0) {
            TSR_TRY(tsr_jparser_expect_sign(p, ","));
        }
        TSR_TRY(tsr_jparser_target(p, &one, NULL, false));
        TSR_TRY(tsr_jparser_append(p, &list, one));
        TSR_TRY(tsr_jparser_expect_sign(p, "="));
        TSR_TRY(tsr_jparser_expression(p, &one, true));
        TSR_TRY(tsr_jparser_append(p, &list, one));
    }
    node->kids = list.nodes;
    node->n_kids = list.n;
    return read_block_to(p, &node->body, "endwith");
}

static tsr_status read_print(tsr_jparser *p, tsr_jnode *node)
{
    tsr_jparser_list list = {0};

    while (p->at->kind != TSR_JT_CLOSE_TAG) {
        tsr_jnode *one = NULL;

        if (list.n > 0) {
            TSR_TRY(tsr_jparser_expect_sign(p, ","));
        }
        TSR_TRY(tsr_jparser_expression(p, &one, true));
        TSR_TRY(tsr_jparser_append(p, &list, one));
    }
    node->kids = list.nodes;
    node->n_kids = list.n;
    return TSR_OK;
}

/* What chat templates put around an answer, for training: here only a scope of its own. */
static tsr_status read_generation(tsr_jparser *p, tsr_jnode *node)
{
    return read_block_to(p, &node->body, "endgeneration");
}

static tsr_status read_named_block(tsr_jparser *p, tsr_jnode *node)
{
    TSR_TRY(tsr_jparser_take_name(p, &node->name));
    (void)tsr_jparser_skip_name(p, "scoped");
    (void)tsr_jparser_skip_name(p, "required");
    TSR_TRY(read_block_to(p, &node->body, "endblock"));
    if (p->at->kind == TSR_JT_NAME) {
        p->at++;
    }
    return TSR_OK;
}

static tsr_status read_leap(tsr_jparser *p, tsr_jnode *node)
{
    (void)node;
    return p->n_loops > 0 ? TSR_OK : tsr_jparser_fail(p, "break or continue outside of a loop");
}

static const struct {
    const char *name;
    tsr_jnode_kind kind;
    tsr_status (*read)(tsr_jparser *p, tsr_jnode *node);
} statements[] = {
    {"if", TSR_JN_IF, read_if},
    {"for", TSR_JN_FOR, read_for},
    {"set", TSR_JN_SET, read_set},
    {"macro", TSR_JN_MACRO, read_macro},
    {"call", TSR_JN_CALL_BLOCK, read_call_block},
    {"filter", TSR_JN_FILTER_BLOCK, read_filter_block},
    {"with", TSR_JN_WITH, read_with},
    {"print", TSR_JN_PRINT, read_print},
    {"generation", TSR_JN_SCOPE, read_generation},
    {"block", TSR_JN_SCOPE, read_named_block},
    {"break", TSR_JN_BREAK, read_leap},
    {"continue", TSR_JN_CONTINUE, read_leap},
};

static tsr_status read_statement(tsr_jparser *p, tsr_jnode **out)
{
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
        if (tsr_jparser_is_name(p, statements[i].name)) {
            TSR_TRY(tsr_jparser_enter(p));
            TSR_TRY(tsr_jparser_node(p, out, statements[i].kind));
            p->at++;
            TSR_TRY(statements[i].read(p, *out));
            p->depth--;
            return close_tag(p);
        }
    }
    if (p->at->kind != TSR_JT_NAME) {
        return tsr_jparser_want(p, "the name of a tag");
    }
    return tsr_jparser_fail(p, "the tag '%.*s' is not known here",
                            (int)(p->at->n_bytes < 40 ? p->at->n_bytes : 40), p->at->bytes);
}

static bool is_one_of(const tsr_jparser *p, const char *const *names)
{
    for (; names != NULL && *names != NULL; names++) {
        if (tsr_jparser_is_name(p, *names)) {
            return true;
        }
    }
    return false;
}

static tsr_status read_body(tsr_jparser *p, tsr_jnode **out, const char *const *ends)
{
    tsr_jparser_list list = {0};

    TSR_TRY(tsr_jparser_node(p, out, TSR_JN_BLOCK));
    while (p->at->kind != TSR_JT_END) {
        tsr_jnode *one = NULL;

        if (p->at->kind == TSR_JT_DATA) {
            const tsr_jtext *text;

            TSR_TRY(tsr_jparser_node(p, &one, TSR_JN_DATA));
            TSR_TRY(tsr_jparser_text(p, &text, p->at->bytes, p->at->n_bytes));
            one->value = tsr_jvalue_text(text);
            p->at++;
        } else if (p->at->kind == TSR_JT_OPEN_PRINT) {
            tsr_jparser_list single = {0};
            tsr_jnode *printed;

            TSR_TRY(tsr_jparser_node(p, &one, TSR_JN_PRINT));
            p->at++;
            TSR_TRY(tsr_jparser_tuple(p, &printed, true, NULL, false));
            TSR_TRY(tsr_jparser_append(p, &single, printed));
            one->kids = single.nodes;
            one->n_kids = 1;
            if (p->at->kind != TSR_JT_CLOSE_PRINT) {
                return tsr_jparser_want(p, "'}}'");
            }
            p->at++;
        } else {
            p->at++; // {%
            if (is_one_of(p, ends)) {
                break;
            }
            TSR_TRY(read_statement(p, &one));
        }
        TSR_TRY(tsr_jparser_append(p, &list, one));
    }
    (*out)->kids = list.nodes;
    (*out)->n_kids = list.n;
    return TSR_OK;
}

tsr_status tsr_jparser_read(tsr_jmemory *memory, tsr_jnode **out, const char *text, size_t n_bytes)
{
    tsr_jparser p = {.memory = memory};
    tsr_jtoken *tokens;
    int n;

    TSR_TRY(tsr_jlexer_read(memory, &tokens, &n, text, n_bytes));
    p.at = tokens;
    return read_body(&p, out, NULL);
}
