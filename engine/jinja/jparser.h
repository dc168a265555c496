/*
 * engine/jinja/jparser.h - a template's tokens as a tree, by the grammar of Jinja2 with its loop
 * controls and the `generation` block of chat templates. What would read another template
 * (extends, include, import) is refused.
 */
#ifndef TSR_ENGINE_JINJA_JPARSER_H
#define TSR_ENGINE_JINJA_JPARSER_H

#include "engine/jinja/jlexer.h"
#include "engine/jinja/jtree.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The tree lies in `memory` and borrows nothing of text. Errors: NOMEM, FORMAT (with the line). */
TSR_MUST_CHECK tsr_status tsr_jparser_read(tsr_jmemory *memory, tsr_jnode **out, const char *text,
                                           size_t n_bytes);

/* ---- jexpression.c, jtuple.c, jparser.c
 * -----------------------------------------------------------
 */

typedef struct tsr_jparser {
    tsr_jmemory *memory;
    const tsr_jtoken *at;
    int depth;
    int n_loops;      /* that are open, for break and continue */
    tsr_jnode *macro; /* the macro or call block whose body is read; NULL: none */
} tsr_jparser;

/* Nodes that are being collected. */
typedef struct tsr_jparser_list {
    tsr_jnode **nodes;
    int n;
    int capacity;
} tsr_jparser_list;

tsr_status tsr_jparser_fail(const tsr_jparser *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* "expected ..., got ..." */
tsr_status tsr_jparser_want(const tsr_jparser *p, const char *what);

TSR_MUST_CHECK tsr_status tsr_jparser_node(tsr_jparser *p, tsr_jnode **out, tsr_jnode_kind kind);
TSR_MUST_CHECK tsr_status tsr_jparser_append(tsr_jparser *p, tsr_jparser_list *list,
                                             tsr_jnode *node);
TSR_MUST_CHECK tsr_status tsr_jparser_text(tsr_jparser *p, const tsr_jtext **out, const char *bytes,
                                           size_t n_bytes);

bool tsr_jparser_is_sign(const tsr_jparser *p, const char *sign);
bool tsr_jparser_is_name(const tsr_jparser *p, const char *name);
bool tsr_jparser_is_next(const tsr_jparser *p, tsr_jtoken_kind kind, const char *words);
bool tsr_jparser_skip_sign(tsr_jparser *p, const char *sign); /* was it there? */
bool tsr_jparser_skip_name(tsr_jparser *p, const char *name);
TSR_MUST_CHECK tsr_status tsr_jparser_expect_sign(tsr_jparser *p, const char *sign);
TSR_MUST_CHECK tsr_status tsr_jparser_take_name(tsr_jparser *p, const tsr_jtext **out);

/* How far parsing may nest: enter, and leave by p->depth--. */
TSR_MUST_CHECK tsr_status tsr_jparser_enter(tsr_jparser *p);

/* A name, a literal or what stands in brackets. members: name.word too. */
TSR_MUST_CHECK tsr_status tsr_jparser_primary(tsr_jparser *p, tsr_jnode **out, bool members);
/* choices: `b if a else c` may stand here. */
TSR_MUST_CHECK tsr_status tsr_jparser_expression(tsr_jparser *p, tsr_jnode **out, bool choices);
/* An expression, or several with commas between them as a tuple; it ends before `end` (a name; may
 * be NULL) at the latest. */
TSR_MUST_CHECK tsr_status tsr_jparser_tuple(tsr_jparser *p, tsr_jnode **out, bool choices,
                                            const char *end, bool may_be_empty);
/* What can be assigned to. members: name.word too. */
TSR_MUST_CHECK tsr_status tsr_jparser_target(tsr_jparser *p, tsr_jnode **out, const char *end,
                                             bool members);
/* name(arguments) | name ... upon `node`; the first bar is there unless `bare`. */
TSR_MUST_CHECK tsr_status tsr_jparser_filters(tsr_jparser *p, tsr_jnode **out, tsr_jnode *node,
                                              bool bare);

#ifdef __cplusplus
}
#endif

#endif
