/*
 * engine/jinja/jtree.h - a template as a tree.
 */
#ifndef TSR_ENGINE_JINJA_JTREE_H
#define TSR_ENGINE_JINJA_JTREE_H

#include "engine/jinja/jvalue.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_jnode_kind {
    /* expressions */
    TSR_JN_CONSTANT, /* value */
    TSR_JN_NAME,     /* name */
    TSR_JN_TUPLE,    /* kids, as LIST and CONCAT (~) */
    TSR_JN_LIST,
    TSR_JN_CONCAT,
    TSR_JN_DICT,   /* kids: key, value, key, value ... */
    TSR_JN_CHOICE, /* b if a else c (may be NULL) */
    TSR_JN_OR,     /* a, b */
    TSR_JN_AND,
    TSR_JN_NOT, /* a, as NEGATIVE and POSITIVE */
    TSR_JN_NEGATIVE,
    TSR_JN_POSITIVE,
    TSR_JN_COMPARE, /* a and kids; words[i]: how it is compared with kids[i] */
    TSR_JN_ADD,     /* a, b */
    TSR_JN_SUBTRACT,
    TSR_JN_MULTIPLY,
    TSR_JN_DIVIDE,
    TSR_JN_FLOOR,
    TSR_JN_MODULO,
    TSR_JN_POWER,
    TSR_JN_ATTRIBUTE, /* a.name */
    TSR_JN_ITEM,      /* a[b] */
    TSR_JN_SLICE,     /* a:b:c, each may be NULL */
    TSR_JN_CALL,      /* a(arguments) */
    TSR_JN_FILTER,    /* a | name(arguments); a is NULL at the head of a filter block */
    TSR_JN_TEST,      /* a is name(arguments) */
    /* statements; a body is a BLOCK or NULL */
    TSR_JN_BLOCK,        /* kids, in order */
    TSR_JN_DATA,         /* value */
    TSR_JN_PRINT,        /* kids */
    TSR_JN_IF,           /* a, then b, else c */
    TSR_JN_FOR,          /* for a in b if c: body; else d */
    TSR_JN_SET,          /* a = b */
    TSR_JN_SET_BLOCK,    /* a = body, through the filters b (may be NULL) */
    TSR_JN_MACRO,        /* name, kids (names), defaults of the last ones in `named`; body */
    TSR_JN_CALL_BLOCK,   /* a (a CALL), kids and `named` as in a macro; body */
    TSR_JN_FILTER_BLOCK, /* b: filters; body */
    TSR_JN_WITH,         /* kids: target, value, target, value ...; body */
    TSR_JN_SCOPE,        /* body, with names of its own */
    TSR_JN_BREAK,
    TSR_JN_CONTINUE,
    TSR_JN_MEMBER, /* target of an assignment: name.word */
    TSR_JN_KIND_COUNT
} tsr_jnode_kind;

typedef struct tsr_jnode tsr_jnode;
struct tsr_jnode {
    tsr_jnode_kind kind;
    int line;
    bool flag; /* FOR: recursive; MACRO: takes any arguments ... */
    bool takes_varargs, takes_kwargs, takes_caller; /* MACRO, CALL_BLOCK: its body names them */
    tsr_jvalue value;
    const tsr_jtext *name;
    tsr_jnode *a, *b, *c, *d;
    tsr_jnode *body;
    tsr_jnode **kids; /* [n_kids]; of CALL, FILTER and TEST: the arguments */
    int n_kids;
    const char **words;            /* [n_kids] */
    const tsr_jtext **named_names; /* [n_named] arguments by name; of a macro: defaults */
    tsr_jnode **named;
    int n_named;
    tsr_jnode *star, *stars; /* *a and **a */
};

#ifdef __cplusplus
}
#endif

#endif
