#include <string.h>

#include "engine/jinja/jrun.h"

enum {
    MOST_DEPTH = 2000, // of blocks and expressions within each other, macros' included
    MOST_AGAIN = 100
};

/* ---- names -------------------------------------------------------------------------------------
 */

tsr_status tsr_jexec_scope(tsr_jrun *run, tsr_jscope **out, tsr_jscope *above)
{
    void *made;

    TSR_TRY(tsr_jmemory_take(&run->memory, &made, sizeof(tsr_jscope)));
    *out = made;
    (*out)->above = above;
    return TSR_OK;
}

tsr_status tsr_jexec_set(tsr_jrun *run, tsr_jscope *scope, const tsr_jtext *name, tsr_jvalue value)
{
    for (int i = 0; i < scope->n; i++) {
        if (tsr_jtext_equal(scope->names[i], name)) {
            scope->values[i] = value;
            return TSR_OK;
        }
    }
    if (scope->n == scope->capacity) {
        const int wanted = scope->capacity < 4 ? 4 : 2 * scope->capacity;
        void *names = (void *)scope->names;
        void *values = scope->values;

        TSR_TRY(tsr_jmemory_grow(&run->memory, &names,
                                 (size_t)scope->capacity * sizeof(*scope->names),
                                 (size_t)wanted * sizeof(*scope->names)));
        TSR_TRY(tsr_jmemory_grow(&run->memory, &values,
                                 (size_t)scope->capacity * sizeof(*scope->values),
                                 (size_t)wanted * sizeof(*scope->values)));
        scope->names = names;
        scope->values = values;
        scope->capacity = wanted;
    }
    scope->names[scope->n] = name;
    scope->values[scope->n++] = value;
    return TSR_OK;
}

const tsr_jvalue *tsr_jexec_find(const tsr_jscope *scope, const tsr_jtext *name)
{
    for (; scope != NULL; scope = scope->above) {
        for (int i = 0; i < scope->n; i++) {
            if (tsr_jtext_equal(scope->names[i], name)) {
                return &scope->values[i];
            }
        }
    }
    return NULL;
}

static tsr_status assign(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *target,
                         tsr_jvalue value)
{
    tsr_jlist *items;
    const tsr_jvalue *owner;

    switch (target->kind) {
    case TSR_JN_NAME:
        return tsr_jexec_set(run, scope, target->name, value);
    case TSR_JN_MEMBER:
        owner = tsr_jexec_find(scope, target->name);
        if (owner == NULL || owner->kind != TSR_J_NAMESPACE) {
            return tsr_jvalue_fail(run,
                                   "only a namespace has attributes that can be set, and "
                                   "'%.*s' is none",
                                   (int)target->name->n_bytes, target->name->bytes);
        }
        return tsr_jvalue_set(run, owner->as.dict, target->value, value);
    default:
        TSR_TRY(tsr_jvalue_items(run, &items, &value));
        if (items->n_items != target->n_kids) {
            return tsr_jvalue_fail(run, "%lld values for %d names", (long long)items->n_items,
                                   target->n_kids);
        }
        for (int i = 0; i < target->n_kids; i++) {
            TSR_TRY(assign(run, scope, target->kids[i], items->items[i]));
        }
        return TSR_OK;
    }
}

/* ---- blocks ------------------------------------------------------------------------------------
 */

tsr_status tsr_jexec_capture(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *block,
                             const tsr_jtext **out)
{
    tsr_jbuilder made = {0};
    tsr_jbuilder *before = run->out;
    tsr_jleap leap = TSR_JLEAP_NONE;

    run->out = &made;
    TSR_TRY(tsr_jexec_block(run, scope, block, &leap));
    run->out = before;
    return tsr_jtext_finish(run, &made, out);
}

static tsr_status print(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node)
{
    for (int i = 0; i < node->n_kids; i++) {
        tsr_jvalue value;

        TSR_TRY(tsr_jeval_node(run, scope, node->kids[i], &value));
        TSR_TRY(tsr_jshow_str(run, run->out, &value));
    }
    return TSR_OK;
}

static tsr_status capture_value(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node,
                                tsr_jvalue *out)
{
    const tsr_jtext *text;
    tsr_jscope *inner;

    TSR_TRY(tsr_jexec_scope(run, &inner, scope));
    TSR_TRY(tsr_jexec_capture(run, inner, node->body, &text));
    *out = tsr_jvalue_text(text);
    return node->b != NULL ? tsr_jeval_filters(run, inner, node->b, out) : TSR_OK;
}

static tsr_status make_macro(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node,
                             tsr_jvalue *out)
{
    void *made;
    tsr_jmacro *macro;

    TSR_TRY(tsr_jmemory_take(&run->memory, &made, sizeof(*macro)));
    macro = made;
    macro->node = node;
    macro->scope = scope;
    out->kind = TSR_J_MACRO;
    out->as.macro = macro;
    return TSR_OK;
}

static tsr_status call_block(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node)
{
    tsr_jvalue caller;
    tsr_jvalue what;
    tsr_jvalue result;
    tsr_jargs args;

    TSR_TRY(make_macro(run, scope, node, &caller));
    TSR_TRY(tsr_jeval_node(run, scope, node->a->a, &what));
    TSR_TRY(tsr_jcall_arguments(run, scope, node->a, &caller, &args));
    TSR_TRY(tsr_jcall_value(run, &what, &args, &result));
    return tsr_jshow_str(run, run->out, &result);
}

static tsr_status with(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node, tsr_jleap *leap)
{
    tsr_jscope *inner;

    TSR_TRY(tsr_jexec_scope(run, &inner, scope));
    for (int i = 0; i < node->n_kids; i += 2) {
        tsr_jvalue value;

        TSR_TRY(tsr_jeval_node(run, scope, node->kids[i + 1], &value));
        TSR_TRY(assign(run, inner, node->kids[i], value));
    }
    return tsr_jexec_block(run, inner, node->body, leap);
}

/* ---- loops -------------------------------------------------------------------------------------
 */

/* One item more into loop->ready, if there is one that passes. */
static tsr_status fetch(tsr_jrun *run, tsr_jloop *loop, bool *there)
{
    *there = false;
    while (!*there && loop->next < loop->source->n_items) {
        const tsr_jvalue item = loop->source->items[loop->next++];
        bool passes = true;

        if (loop->one_way != NULL) {
            loop->one_way->at = loop->next;
        }
        if (loop->node->c != NULL) {
            tsr_jscope *inner;
            tsr_jvalue test;

            TSR_TRY(tsr_jexec_scope(run, &inner, loop->scope));
            TSR_TRY(assign(run, inner, loop->node->a, item));
            TSR_TRY(tsr_jeval_node(run, inner, loop->node->c, &test));
            passes = tsr_jvalue_truth(&test);
        }
        if (passes) {
            TSR_TRY(tsr_jvalue_append(run, loop->ready, item));
            *there = true;
        }
    }
    return TSR_OK;
}

tsr_status tsr_jexec_peek(tsr_jrun *run, tsr_jloop *loop, bool *there, tsr_jvalue *out)
{
    *there = loop->at < loop->ready->n_items;
    if (!*there) {
        TSR_TRY(fetch(run, loop, there));
    }
    if (*there) {
        *out = loop->ready->items[loop->at];
    }
    return TSR_OK;
}

tsr_status tsr_jexec_fetch_all(tsr_jrun *run, tsr_jloop *loop)
{
    bool there = true;

    while (there) {
        TSR_TRY(fetch(run, loop, &there));
    }
    return TSR_OK;
}

static tsr_status run_loop(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node,
                           const tsr_jvalue *items, int depth0)
{
    static const tsr_jtext loop_name = {.bytes = "loop", .n_bytes = 4};
    tsr_jvalue value = {TSR_J_LOOP, {false}};
    tsr_jscope *inner;
    tsr_jloop *loop;
    bool there;
    bool finished = false;
    void *made;

    TSR_TRY(tsr_jmemory_take(&run->memory, &made, sizeof(*loop)));
    loop = made;
    loop->node = node;
    loop->scope = scope;
    loop->depth0 = depth0;
    loop->index0 = -1;
    if (items->kind == TSR_J_ITERATOR) {
        loop->one_way = items->as.list;
        loop->source = items->as.list;
        loop->next = items->as.list->at;
    } else {
        TSR_TRY(tsr_jvalue_items(run, &loop->source, items));
    }
    TSR_TRY(tsr_jvalue_new_list(run, &loop->ready));
    value.as.loop = loop;
    for (;;) {
        tsr_jleap leap = TSR_JLEAP_NONE;
        tsr_jvalue item;

        TSR_TRY(tsr_jexec_peek(run, loop, &there, &item));
        if (!there) {
            break;
        }
        loop->at++;
        loop->index0++;
        loop->previous = loop->current;
        loop->has_previous = loop->index0 > 0;
        loop->current = item;
        TSR_TRY(tsr_jexec_scope(run, &inner, scope));
        TSR_TRY(tsr_jexec_set(run, inner, &loop_name, value));
        TSR_TRY(assign(run, inner, node->a, item));
        TSR_TRY(tsr_jexec_block(run, inner, node->body, &leap));
        finished = finished || leap == TSR_JLEAP_NONE;
        if (leap == TSR_JLEAP_BREAK) {
            break;
        }
    }
    if (!finished &&
        node->d != NULL) { // unlike Python's: for loops whose body never came to its end
        tsr_jleap leap = TSR_JLEAP_NONE;

        TSR_TRY(tsr_jexec_scope(run, &inner, scope));
        return tsr_jexec_block(run, inner, node->d, &leap);
    }
    return TSR_OK;
}

tsr_status tsr_jexec_again(tsr_jrun *run, const tsr_jloop *loop, const tsr_jvalue *items,
                           tsr_jvalue *out)
{
    tsr_jbuilder made = {0};
    tsr_jbuilder *before = run->out;

    if (!loop->node->flag) {
        return tsr_jvalue_fail(run, "only a loop that is marked 'recursive' can be called");
    }
    if (++run->macro_depth > MOST_AGAIN) {
        return tsr_jvalue_fail(run, "a loop calls itself more than %d deep", MOST_AGAIN);
    }
    run->out = &made;
    TSR_TRY(run_loop(run, loop->scope, loop->node, items, loop->depth0 + 1));
    run->out = before;
    run->macro_depth--;
    return tsr_jtext_finish_value(run, &made, out);
}

/* ---- statements --------------------------------------------------------------------------------
 */

static tsr_status execute(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node, tsr_jleap *leap)
{
    tsr_jscope *inner;
    tsr_jvalue value;

    run->line = node->line;
    switch (node->kind) {
    case TSR_JN_DATA:
        return tsr_jtext_put_text(run, run->out, node->value.as.text);
    case TSR_JN_PRINT:
        return print(run, scope, node);
    case TSR_JN_IF:
        for (; node != NULL && node->kind == TSR_JN_IF; node = node->c) {
            TSR_TRY(tsr_jeval_node(run, scope, node->a, &value));
            if (tsr_jvalue_truth(&value)) {
                return tsr_jexec_block(run, scope, node->b, leap);
            }
        }
        return node != NULL ? tsr_jexec_block(run, scope, node, leap) : TSR_OK;
    case TSR_JN_FOR:
        TSR_TRY(tsr_jeval_node(run, scope, node->b, &value));
        return run_loop(run, scope, node, &value, 0);
    case TSR_JN_SET:
        TSR_TRY(tsr_jeval_node(run, scope, node->b, &value));
        return assign(run, scope, node->a, value);
    case TSR_JN_SET_BLOCK:
        TSR_TRY(capture_value(run, scope, node, &value));
        return assign(run, scope, node->a, value);
    case TSR_JN_MACRO:
        TSR_TRY(make_macro(run, scope, node, &value));
        return tsr_jexec_set(run, scope, node->name, value);
    case TSR_JN_CALL_BLOCK:
        return call_block(run, scope, node);
    case TSR_JN_FILTER_BLOCK:
        TSR_TRY(capture_value(run, scope, node, &value));
        return tsr_jshow_str(run, run->out, &value);
    case TSR_JN_WITH:
        return with(run, scope, node, leap);
    case TSR_JN_SCOPE:
        TSR_TRY(tsr_jexec_scope(run, &inner, scope));
        return tsr_jexec_block(run, inner, node->body, leap);
    case TSR_JN_BREAK:
    case TSR_JN_CONTINUE:
        *leap = node->kind == TSR_JN_BREAK ? TSR_JLEAP_BREAK : TSR_JLEAP_CONTINUE;
        return TSR_OK;
    default:
        return tsr_jvalue_fail(run, "an expression where a statement should be");
    }
}

tsr_status tsr_jexec_block(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *block,
                           tsr_jleap *leap)
{
    if (++run->depth > MOST_DEPTH) {
        return tsr_jvalue_fail(run, "more than %d blocks and expressions within each other",
                               MOST_DEPTH);
    }
    for (int i = 0; i < block->n_kids && *leap == TSR_JLEAP_NONE; i++) {
        TSR_TRY(tsr_jvalue_work(run, 1));
        TSR_TRY(execute(run, scope, block->kids[i], leap));
    }
    run->depth--;
    return TSR_OK;
}
