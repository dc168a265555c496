/*
 * launch/args.h - command lines: one table of options a command, from which both the parsing and
 * the help text come.
 *
 * A command keeps its answers in a struct of its own; an option says at which offset of that struct
 * its field lies. Options come in groups, so that commands may share a group. Both "--name value"
 * and "--name=value" are understood; "--" ends the options.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_ARGS_H
#define TSR_LAUNCH_ARGS_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_args_kind {
    TSR_ARGS_FLAG,    /* bool: set when present */
    TSR_ARGS_TEXT,    /* const char *: any text */
    TSR_ARGS_LIST,    /* tsr_args_list: any text, may be given several times */
    TSR_ARGS_CHOICE,  /* const char *: one of `choices` */
    TSR_ARGS_INTEGER, /* int64_t in least..most */
    TSR_ARGS_SEED,    /* uint64_t: any */
    TSR_ARGS_REAL,    /* double in least..most */
    TSR_ARGS_BYTES,   /* uint64_t: "65536", "512M", "1.5GiB"; "auto" is 0 */
    TSR_ARGS_PLACE,   /* tsr_args_place: bytes, and behind a colon where, "4G:/scratch" */
    TSR_ARGS_KIND_COUNT
} tsr_args_kind;

typedef struct tsr_args_place {
    uint64_t n_bytes;
    const char *folder; /* belongs to the command line; NULL: not said */
} tsr_args_place;

typedef struct tsr_args_list {
    const char **values; /* the texts themselves belong to the command line */
    int n;
} tsr_args_list;

typedef struct tsr_args_option {
    const char *name;  /* "--max-tokens"; without dashes it is an operand, taken by its place */
    const char *value; /* what its value is called in the help: "N"; NULL for a flag */
    tsr_args_kind kind;
    size_t at; /* offset of its field in the group's struct */
    double least, most;
    const char *choices; /* "f32|f16|bf16" */
    const char *help;    /* a sentence without its full stop, the default included */
} tsr_args_option;

typedef struct tsr_args_group {
    const char *title;
    const tsr_args_option *options;
    int n_options;
    size_t at; /* offset of the group's struct in the command's */
} tsr_args_group;

typedef struct tsr_args_spec {
    const char *command; /* "generate" */
    const char *usage;   /* "--model M (--prompt TEXT | ...)" */
    const char *about;   /* paragraphs, each on a line of its own */
    const tsr_args_group *groups;
    int n_groups;
    const char *examples; /* whole lines, shown as they are */
} tsr_args_spec;

/*
 * Fills the fields of what the line names and leaves the others as they are. The last one counts
 * when an option that is no list comes twice. *help: the line asks for help, the rest was not
 * looked at. Errors: ARG (in words for the person who typed it), NOMEM. After any end,
 * tsr_args_clear() gives back what lists hold.
 */
TSR_MUST_CHECK tsr_status tsr_args_parse(const tsr_args_spec *spec, int argc, char **argv,
                                         void *into, bool *help);
void tsr_args_clear(const tsr_args_spec *spec, void *into);

/* The whole help of a command, to stdout. */
void tsr_args_help(const tsr_args_spec *spec);

/* The name of `names` [n] that `word` was probably meant to be; NULL if none is near. */
const char *tsr_args_nearest(const char *word, const char *const *names, int n);

#ifdef __cplusplus
}
#endif

#endif
