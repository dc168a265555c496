/*
 * engine/text/pretokenizer_step.h - what a rule is made of; private to engine/text/pretokenizer*.c.
 */
#ifndef TSR_ENGINE_TEXT_PRETOKENIZER_STEP_H
#define TSR_ENGINE_TEXT_PRETOKENIZER_STEP_H

#include "engine/text/finder.h"
#include "engine/text/pretokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_cut_kind {
    TSR_CUT_KIND_SPLIT,      /* at what the finder finds */
    TSR_CUT_KIND_SPACE,      /* a space goes before a piece that has none */
    TSR_CUT_KIND_LETTERS,    /* bytes become letters */
    TSR_CUT_KIND_SPACE_SIGN, /* spaces become another character, and one may go before the piece */
    TSR_CUT_KIND_LENGTH,     /* so many characters each */
    TSR_CUT_KIND_COUNT
} tsr_cut_kind;

/* What becomes of the places that were found. */
typedef enum tsr_cut_behavior {
    TSR_CUT_BEHAVIOR_ISOLATED,   /* each is a piece, as is what lies between */
    TSR_CUT_BEHAVIOR_REMOVED,    /* they are left out */
    TSR_CUT_BEHAVIOR_CONTIGUOUS, /* neighbours are one piece */
    TSR_CUT_BEHAVIOR_PREVIOUS,   /* each belongs to what stands before it */
    TSR_CUT_BEHAVIOR_NEXT,       /* or behind it */
    TSR_CUT_BEHAVIOR_COUNT
} tsr_cut_behavior;

typedef enum tsr_cut_prepend {
    TSR_CUT_PREPEND_ALWAYS,
    TSR_CUT_PREPEND_FIRST, /* only before the first piece of a text */
    TSR_CUT_PREPEND_NEVER
} tsr_cut_prepend;

typedef struct tsr_cut_step {
    tsr_cut_kind kind;
    tsr_cut_behavior behavior;
    bool invert; /* what was not found counts as found, and the other way round */
    tsr_finder finder;
    char sign[4]; /* of TSR_CUT_KIND_SPACE_SIGN */
    size_t sign_bytes;
    tsr_cut_prepend prepend;
    int64_t length; /* of TSR_CUT_KIND_LENGTH */
} tsr_cut_step;

enum {
    TSR_PRETOKENIZER_MOST_STEPS = 32
};

struct tsr_pretokenizer {
    bool keeps_whole;
    bool wants_bos;
    int n_steps;
    tsr_cut_step steps[TSR_PRETOKENIZER_MOST_STEPS]; /* what they hold is owned */
};

/* One more step, all zero; FORMAT if there are too many. */
TSR_MUST_CHECK tsr_status tsr_pretokenizer_add(tsr_pretokenizer *pre, tsr_cut_step **out);

/* GPT-2's own pattern, which ByteLevel means. */
extern const char *const tsr_pretokenizer_gpt2;

#ifdef __cplusplus
}
#endif

#endif
