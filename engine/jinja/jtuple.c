/*
 * Several expressions with commas between them, and what can be assigned to.
 */
#include "engine/jinja/jparser.h"

static bool ends_tuple(const tsr_jparser *p, const char *end)
{
    return p->at->kind == TSR_JT_CLOSE_PRINT || p->at->kind == TSR_JT_CLOSE_TAG ||
           tsr_jparser_is_sign(p, ")") || (end != NULL && tsr_jparser_is_name(p, end));
}

/* Several of what `item` reads, with commas between them. */
static tsr_status read_list(tsr_jparser *p, tsr_jnode **out, const char *end, bool may_be_empty,
                            tsr_status (*item)(tsr_jparser *p, tsr_jnode **out))
{
    tsr_jparser_list list = {0};
    tsr_jnode *one = NULL;
    bool tuple = false;

    do {
        if (ends_tuple(p, end)) {
            break;
        }
        TSR_TRY(item(p, &one));
        TSR_TRY(tsr_jparser_append(p, &list, one));
        tuple = tuple || tsr_jparser_is_sign(p, ",");
    } while (tsr_jparser_skip_sign(p, ","));
    if (!tuple && list.n == 1) {
        *out = list.nodes[0];
        return TSR_OK;
    }
    if (!tuple && !may_be_empty) {
        return tsr_jparser_want(p, "an expression");
    }
    TSR_TRY(tsr_jparser_node(p, out, TSR_JN_TUPLE));
    (*out)->kids = list.nodes;
    (*out)->n_kids = list.n;
    return TSR_OK;
}

static tsr_status read_choice(tsr_jparser *p, tsr_jnode **out)
{
    return tsr_jparser_expression(p, out, true);
}

static tsr_status read_no_choice(tsr_jparser *p, tsr_jnode **out)
{
    return tsr_jparser_expression(p, out, false);
}

tsr_status tsr_jparser_tuple(tsr_jparser *p, tsr_jnode **out, bool choices, const char *end,
                             bool may_be_empty)
{
    return read_list(p, out, end, may_be_empty, choices ? read_choice : read_no_choice);
}

static tsr_status read_plain_target(tsr_jparser *p, tsr_jnode **out)
{
    return tsr_jparser_primary(p, out, false);
}

static tsr_status read_member_target(tsr_jparser *p, tsr_jnode **out)
{
    return tsr_jparser_primary(p, out, true);
}

static bool can_be_assigned(const tsr_jnode *node)
{
    if (node->kind == TSR_JN_TUPLE || node->kind == TSR_JN_LIST) {
        for (int i = 0; i < node->n_kids; i++) {
            if (!can_be_assigned(node->kids[i])) {
                return false;
            }
        }
        return true;
    }
    return node->kind == TSR_JN_NAME || node->kind == TSR_JN_MEMBER;
}

tsr_status tsr_jparser_target(tsr_jparser *p, tsr_jnode **out, const char *end, bool members)
{
    TSR_TRY(tsr_jparser_enter(p));
    TSR_TRY(read_list(p, out, end, false, members ? read_member_target : read_plain_target));
    p->depth--;
    return can_be_assigned(*out) ? TSR_OK : tsr_jparser_fail(p, "only names can be assigned to");
}
