/*
 * engine/jinja/jvalue.h - what a template computes with, and the state of one rendering.
 *
 * Values behave as Python's do, for templates are written for an interpreter in Python: strings are
 * counted in characters, True is 1, dicts keep their order. Whole numbers have 64 bits; what goes
 * beyond is a fault. Strings, lists and dicts never change once a template has seen them.
 *
 * Every string knows which of its bytes somebody *said*: came from a message, a tool or another
 * input rather than from the template. Whatever is made of a string keeps that.
 *
 * All lives in the run's memory. Functions below fail with NOMEM, or FORMAT when a limit is met or
 * Python would raise an error; the message names the template's line.
 */
#ifndef TSR_ENGINE_JINJA_JVALUE_H
#define TSR_ENGINE_JINJA_JVALUE_H

#include "base/text.h"
#include "engine/jinja/jmemory.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_JVALUE_MOST_DEPTH = 100 /* of values within values, where they are walked */
};

typedef struct tsr_jtext {
    const char *bytes;
    size_t n_bytes;
    const tsr_text_run *said; /* [n_said] in order */
    int n_said;
    bool markup; /* safe HTML: what is added to it with + is escaped */
} tsr_jtext;

typedef enum tsr_jkind {
    TSR_J_UNDEFINED,
    TSR_J_NONE,
    TSR_J_BOOL,
    TSR_J_INT,
    TSR_J_FLOAT,
    TSR_J_TEXT,
    TSR_J_LIST,
    TSR_J_TUPLE,
    TSR_J_VIEW, /* what dict.items() and the like give: has a length, no index */
    TSR_J_DICT,
    TSR_J_RANGE,
    TSR_J_SLICE,    /* [a:b:c] between brackets */
    TSR_J_ITERATOR, /* what map, select and the like give: can be walked once */
    TSR_J_NAMESPACE,
    TSR_J_MACRO,
    TSR_J_FUNCTION,
    TSR_J_METHOD,
    TSR_J_LOOP,
    TSR_J_CYCLER,
    TSR_J_JOINER,
    TSR_J_KIND_COUNT
} tsr_jkind;

typedef struct tsr_jlist tsr_jlist;
typedef struct tsr_jdict tsr_jdict;
typedef struct tsr_jrange tsr_jrange;
typedef struct tsr_jmethod tsr_jmethod;
typedef struct tsr_jloop tsr_jloop;
typedef struct tsr_jmacro tsr_jmacro;

typedef struct tsr_jvalue {
    tsr_jkind kind;
    union {
        bool truth;
        int64_t number; /* INT; FUNCTION: which */
        double real;
        const tsr_jtext *text; /* TEXT; UNDEFINED: what is missing, in words */
        tsr_jlist *list; /* LIST, TUPLE, VIEW, ITERATOR, SLICE (three items), CYCLER, JOINER */
        tsr_jdict *dict; /* DICT, NAMESPACE */
        const tsr_jrange *range;
        const tsr_jmethod *method;
        tsr_jloop *loop;
        const tsr_jmacro *macro;
    } as;
} tsr_jvalue;

struct tsr_jlist {
    tsr_jvalue *items;
    int64_t n_items;
    int64_t capacity;
    int64_t at;        /* ITERATOR, CYCLER: the next item; JOINER: times called */
    const char *names; /* VIEW: "dict_items"; TUPLE of groupby: "group" */
};

struct tsr_jdict {
    tsr_jvalue *keys;
    tsr_jvalue *values;
    int64_t n_items;
    int64_t capacity;
};

struct tsr_jrange {
    int64_t start, stop, step;
    int64_t n_items;
};

struct tsr_jmethod {
    tsr_jvalue self;
    const char *name;
};

/* Arguments of a call. */
typedef struct tsr_jargs {
    const tsr_jvalue *values; /* [n] */
    int n;
    const tsr_jtext *const *names; /* [n_named] */
    const tsr_jvalue *named;
    int n_named;
} tsr_jargs;

typedef struct tsr_jscope tsr_jscope; /* jrun.h */
typedef struct tsr_jbuilder tsr_jbuilder;

typedef struct tsr_jrun {
    tsr_jmemory memory;
    int64_t steps_left;
    int depth;         /* of expressions and statements within each other */
    int macro_depth;   /* of macros and loops that call themselves */
    int line;          /* of the template */
    tsr_jbuilder *out; /* where text goes now */
    tsr_jscope *globals;
    int64_t clock_s; /* seconds since 1970 */
    bool calendar;   /* `strftime_now is defined` */
} tsr_jrun;

/* Takes n steps from what is left. */
TSR_MUST_CHECK tsr_status tsr_jvalue_work(tsr_jrun *run, size_t n_steps);

/* A fault of the template, its line put before. Returns FORMAT. */
tsr_status tsr_jvalue_fail(const tsr_jrun *run, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline tsr_jvalue tsr_jvalue_none(void)
{
    tsr_jvalue v = {TSR_J_NONE, {false}};

    return v;
}
static inline tsr_jvalue tsr_jvalue_bool(bool truth)
{
    tsr_jvalue v = {TSR_J_BOOL, {truth}};

    return v;
}
static inline tsr_jvalue tsr_jvalue_int(int64_t number)
{
    tsr_jvalue v = {TSR_J_INT, {false}};

    v.as.number = number;
    return v;
}
static inline tsr_jvalue tsr_jvalue_float(double real)
{
    tsr_jvalue v = {TSR_J_FLOAT, {false}};

    v.as.real = real;
    return v;
}
static inline tsr_jvalue tsr_jvalue_text(const tsr_jtext *text)
{
    tsr_jvalue v = {TSR_J_TEXT, {false}};

    v.as.text = text;
    return v;
}
static inline tsr_jvalue tsr_jvalue_list(tsr_jkind kind, tsr_jlist *list)
{
    tsr_jvalue v = {kind, {false}};

    v.as.list = list;
    return v;
}
static inline tsr_jvalue tsr_jvalue_dict(tsr_jkind kind, tsr_jdict *dict)
{
    tsr_jvalue v = {kind, {false}};

    v.as.dict = dict;
    return v;
}

/* What is missing in words: "'x' is undefined". */
TSR_MUST_CHECK tsr_status tsr_jvalue_undefined(tsr_jrun *run, tsr_jvalue *out, const char *format,
                                               ...) __attribute__((format(printf, 3, 4)));

/* "str", "list", "NoneType" ... as Python calls it. */
const char *tsr_jvalue_type(const tsr_jvalue *v);

bool tsr_jvalue_truth(const tsr_jvalue *v);
bool tsr_jvalue_is_number(const tsr_jvalue *v); /* bool, int or float */
bool tsr_jvalue_is_whole(const tsr_jvalue *v);  /* bool or int */
int64_t tsr_jvalue_whole(const tsr_jvalue *v);  /* of such a one */
double tsr_jvalue_real(const tsr_jvalue *v);    /* of a number */
bool tsr_jvalue_is_text(const tsr_jvalue *v, const char *words);

/* a == b. */
TSR_MUST_CHECK tsr_status tsr_jvalue_equal(tsr_jrun *run, bool *out, const tsr_jvalue *a,
                                           const tsr_jvalue *b);
/* *order < 0, 0, > 0 as a is before, beside or behind b; NaN is beside all. A fault for what cannot
 * be ordered. */
TSR_MUST_CHECK tsr_status tsr_jvalue_compare(tsr_jrun *run, int *order, const tsr_jvalue *a,
                                             const tsr_jvalue *b);
/* needle in haystack. */
TSR_MUST_CHECK tsr_status tsr_jvalue_contains(tsr_jrun *run, bool *out, const tsr_jvalue *haystack,
                                              const tsr_jvalue *needle);

/* ---- lists and dicts ---------------------------------------------------------------------------
 */

TSR_MUST_CHECK tsr_status tsr_jvalue_new_list(tsr_jrun *run, tsr_jlist **out);
TSR_MUST_CHECK tsr_status tsr_jvalue_append(tsr_jrun *run, tsr_jlist *list, tsr_jvalue item);

TSR_MUST_CHECK tsr_status tsr_jvalue_new_dict(tsr_jrun *run, tsr_jdict **out);
/* FORMAT: the key is a list or dict. */
TSR_MUST_CHECK tsr_status tsr_jvalue_set(tsr_jrun *run, tsr_jdict *dict, tsr_jvalue key,
                                         tsr_jvalue value);
/* NULL: no such key (or one that cannot be a key). */
TSR_MUST_CHECK tsr_status tsr_jvalue_get(tsr_jrun *run, const tsr_jvalue **out,
                                         const tsr_jdict *dict, const tsr_jvalue *key);

/* All that walking v gives, as a list of its own or v's; walking an iterator ends it. A fault for
 * what cannot be walked. */
TSR_MUST_CHECK tsr_status tsr_jvalue_items(tsr_jrun *run, tsr_jlist **out, const tsr_jvalue *v);
bool tsr_jvalue_is_iterable(const tsr_jvalue *v);

/* len(v). *n = -1: it has none. */
int64_t tsr_jvalue_length(const tsr_jvalue *v);

#ifdef __cplusplus
}
#endif

#endif
