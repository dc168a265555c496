/*
 * engine/jinja/jrun.h - carrying out a template: names, calls, filters. Private to the folder.
 *
 *   jeval.c      expressions
 *   jexec.c      statements
 *   jcall.c      macros, functions and how arguments find their parameters
 *   jmethods.c   methods of strings (jwords.c has those that cut), dicts and lists
 *   jattribute.c, jarithmetic.c   what values have, and what can be done with two of them
 *   jfilters.c   filters of values; jlists.c and jsort.c those of lists; jstrings.c of strings
 *   jtests.c     tests
 *   jformat.c    "%d" % x; jbraces.c "{}".format(x); jform.c what both need
 */
#ifndef TSR_ENGINE_JINJA_JRUN_H
#define TSR_ENGINE_JINJA_JRUN_H

#include "engine/jinja/jshow.h"
#include "engine/jinja/jtree.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- names: jexec.c ----------------------------------------------------------------------------
 */

/* Names of one block and, above it, of those around it. */
struct tsr_jscope {
    tsr_jscope *above;
    const tsr_jtext **names;
    tsr_jvalue *values;
    int n;
    int capacity;
};

TSR_MUST_CHECK tsr_status tsr_jexec_scope(tsr_jrun *run, tsr_jscope **out, tsr_jscope *above);
TSR_MUST_CHECK tsr_status tsr_jexec_set(tsr_jrun *run, tsr_jscope *scope, const tsr_jtext *name,
                                        tsr_jvalue value);
const tsr_jvalue *tsr_jexec_find(const tsr_jscope *scope, const tsr_jtext *name); /* NULL: none */

/* What ends a block early. */
typedef enum tsr_jleap {
    TSR_JLEAP_NONE,
    TSR_JLEAP_BREAK,
    TSR_JLEAP_CONTINUE
} tsr_jleap;

TSR_MUST_CHECK tsr_status tsr_jexec_block(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *block,
                                          tsr_jleap *leap);
/* The text that a block makes, in a scope that is there for it. */
TSR_MUST_CHECK tsr_status tsr_jexec_capture(tsr_jrun *run, tsr_jscope *scope,
                                            const tsr_jnode *block, const tsr_jtext **out);
/* A `for` once more, over other items: its text. */
TSR_MUST_CHECK tsr_status tsr_jexec_again(tsr_jrun *run, const tsr_jloop *loop,
                                          const tsr_jvalue *items, tsr_jvalue *out);

/* A `for` that is being carried out. */
struct tsr_jloop {
    const tsr_jnode *node;
    tsr_jscope *scope;  /* around it */
    tsr_jlist *source;  /* what it walks */
    tsr_jlist *one_way; /* not NULL: an iterator, whose place moves along */
    int64_t next;       /* of source */
    tsr_jlist *ready;   /* items that passed its condition, fetched ahead */
    int64_t at;         /* of ready: the next to be taken */
    int64_t index0;
    int depth0;
    tsr_jvalue previous, current;
    bool has_previous, has_changed;
    tsr_jvalue changed;
};

/* The item after `at`, looked at ahead; *there = false: none. */
TSR_MUST_CHECK tsr_status tsr_jexec_peek(tsr_jrun *run, tsr_jloop *loop, bool *there,
                                         tsr_jvalue *out);
TSR_MUST_CHECK tsr_status tsr_jexec_fetch_all(tsr_jrun *run, tsr_jloop *loop);

/* ---- expressions: jeval.c ----------------------------------------------------------------------
 */

TSR_MUST_CHECK tsr_status tsr_jeval_node(tsr_jrun *run, tsr_jscope *scope, const tsr_jnode *node,
                                         tsr_jvalue *out);
/* The filters of a block or macro upon a text. */
TSR_MUST_CHECK tsr_status tsr_jeval_filters(tsr_jrun *run, tsr_jscope *scope,
                                            const tsr_jnode *filters, tsr_jvalue *value);

/* ---- values: jattribute.c, jarithmetic.c -------------------------------------------------------
 */

/* The fault of using what is undefined. */
tsr_status tsr_jattribute_undefined(tsr_jrun *run, const tsr_jvalue *v);
/* of.name and of[key]. */
TSR_MUST_CHECK tsr_status tsr_jattribute_named(tsr_jrun *run, const tsr_jvalue *of,
                                               const tsr_jtext *name, tsr_jvalue *out);
TSR_MUST_CHECK tsr_status tsr_jattribute_item(tsr_jrun *run, const tsr_jvalue *of,
                                              const tsr_jvalue *key, tsr_jvalue *out);
TSR_MUST_CHECK tsr_status tsr_jarithmetic_add(tsr_jrun *run, const tsr_jvalue *a,
                                              const tsr_jvalue *b, tsr_jvalue *out);
/* kind: ADD to POWER. */
TSR_MUST_CHECK tsr_status tsr_jarithmetic_do(tsr_jrun *run, tsr_jnode_kind kind,
                                             const tsr_jvalue *a, const tsr_jvalue *b,
                                             tsr_jvalue *out);

/* ---- calls: jcall.c ----------------------------------------------------------------------------
 */

struct tsr_jmacro {
    const tsr_jnode *node; /* MACRO or CALL_BLOCK */
    tsr_jscope *scope;     /* where it was made */
};

TSR_MUST_CHECK tsr_status tsr_jcall_value(tsr_jrun *run, const tsr_jvalue *what,
                                          const tsr_jargs *args, tsr_jvalue *out);
/* Arguments as they are written. `caller` may be NULL. */
TSR_MUST_CHECK tsr_status tsr_jcall_arguments(tsr_jrun *run, tsr_jscope *scope,
                                              const tsr_jnode *node, const tsr_jvalue *caller,
                                              tsr_jargs *out);
/*
 * Which argument is which parameter: "width first blank", the first `least` of which must be given.
 * values[i].kind is KIND_COUNT for one that is not. Errors: FORMAT (too many, unknown, twice).
 */
TSR_MUST_CHECK tsr_status tsr_jcall_bind(tsr_jrun *run, const char *who, const char *parameters,
                                         int least, const tsr_jargs *args, tsr_jvalue *values);
static inline bool tsr_jcall_given(const tsr_jvalue *v)
{
    return v->kind != TSR_J_KIND_COUNT;
}
/* The whole number or text that a parameter must be, or `fallback` when it is not given. */
TSR_MUST_CHECK tsr_status tsr_jcall_whole(tsr_jrun *run, const tsr_jvalue *v, int64_t fallback,
                                          int64_t *out);
TSR_MUST_CHECK tsr_status tsr_jcall_text(tsr_jrun *run, const tsr_jvalue *v, const char *fallback,
                                         const tsr_jtext **out);

/* The function called `name`: range, dict, namespace ... ; false: none. */
bool tsr_jcall_function(const tsr_jtext *name, tsr_jvalue *out);

bool tsr_jcall_is_calendar(const tsr_jvalue *v); /* strftime_now? */

/* ---- what can be called by name ----------------------------------------------------------------
 */

/* Is there such a method? Then it is made a value. */
TSR_MUST_CHECK tsr_status tsr_jmethods_find(tsr_jrun *run, const tsr_jvalue *of,
                                            const tsr_jtext *name, bool *found, tsr_jvalue *out);
TSR_MUST_CHECK tsr_status tsr_jmethods_call(tsr_jrun *run, const tsr_jmethod *method,
                                            const tsr_jargs *args, tsr_jvalue *out);

typedef tsr_status tsr_jfilter_fn(tsr_jrun *run, const tsr_jvalue *value, const tsr_jargs *args,
                                  tsr_jvalue *out);
typedef struct tsr_jfilter {
    const char *name;
    tsr_jfilter_fn *apply;
} tsr_jfilter;
/* item.a.b.0 for the path "a.b.0"; path NULL or not given: the item itself. */
TSR_MUST_CHECK tsr_status tsr_jlists_follow(tsr_jrun *run, const tsr_jvalue *path,
                                            const tsr_jvalue *item, const tsr_jvalue *fallback,
                                            tsr_jvalue *out);
TSR_MUST_CHECK tsr_status tsr_jlists_copy(tsr_jrun *run, tsr_jlist **out, const tsr_jvalue *v);
TSR_MUST_CHECK tsr_status tsr_jlists_pair(tsr_jrun *run, tsr_jvalue a, tsr_jvalue b,
                                          tsr_jvalue *out); /* a tuple */

extern const tsr_jfilter tsr_jsort_filters[];
extern const tsr_jfilter tsr_jlists_filters[]; /* end with {NULL, NULL} */
extern const tsr_jfilter tsr_jstrings_filters[];
extern const tsr_jfilter tsr_jwords_methods[]; /* of strings; value is the string */

TSR_MUST_CHECK tsr_status tsr_jfilters_apply(tsr_jrun *run, const tsr_jtext *name,
                                             const tsr_jvalue *value, const tsr_jargs *args,
                                             tsr_jvalue *out);
TSR_MUST_CHECK tsr_status tsr_jtests_apply(tsr_jrun *run, const tsr_jtext *name,
                                           const tsr_jvalue *value, const tsr_jargs *args,
                                           bool *out);

TSR_MUST_CHECK tsr_status tsr_jformat_percent(tsr_jrun *run, const tsr_jtext *format,
                                              const tsr_jvalue *values, tsr_jvalue *out);
TSR_MUST_CHECK tsr_status tsr_jbraces_format(tsr_jrun *run, const tsr_jtext *format,
                                             const tsr_jargs *args, tsr_jvalue *out);

#ifdef __cplusplus
}
#endif

#endif
