/*
 * engine/text/normalizer_step.h - what a normalizer is made of; private to
 * engine/text/normalizer*.c.
 */
#ifndef TSR_ENGINE_TEXT_NORMALIZER_STEP_H
#define TSR_ENGINE_TEXT_NORMALIZER_STEP_H

#include "engine/text/charsmap.h"
#include "engine/text/finder.h"
#include "engine/text/normal_form.h"
#include "engine/text/normalizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_rewrite_kind {
    TSR_REWRITE_KIND_FORM,       /* one of Unicode's normal forms */
    TSR_REWRITE_KIND_LOWER,      /* small letters */
    TSR_REWRITE_KIND_NO_MARKS,   /* without marks of any kind */
    TSR_REWRITE_KIND_NO_ACCENTS, /* without marks that take no room of their own */
    TSR_REWRITE_KIND_STRIP,      /* without white space at its ends */
    TSR_REWRITE_KIND_REPLACE,    /* what the finder finds by the content */
    TSR_REWRITE_KIND_PREPEND,    /* the content goes before a text that is not empty */
    TSR_REWRITE_KIND_CLEAN,      /* BERT's: without control characters, all white space a space */
    TSR_REWRITE_KIND_SPACE_CHINESE, /* BERT's: spaces around Chinese characters */
    TSR_REWRITE_KIND_NMT,           /* without control characters, other white space a space */
    TSR_REWRITE_KIND_CHARSMAP,
    TSR_REWRITE_KIND_LETTERS, /* bytes in the letters of engine/text/byte_alphabet.h */
    TSR_REWRITE_KIND_COUNT
} tsr_rewrite_kind;

typedef struct tsr_rewrite_step {
    tsr_rewrite_kind kind;
    tsr_normal_form form;
    bool strip_left;
    bool strip_right;
    tsr_finder finder;
    char *content; /* owned, as the next */
    size_t content_bytes;
    tsr_charsmap *charsmap;
} tsr_rewrite_step;

enum {
    TSR_NORMALIZER_MOST_STEPS = 64
};

struct tsr_normalizer {
    int n_steps;
    tsr_rewrite_step steps[TSR_NORMALIZER_MOST_STEPS];
};

/* One more step, all zero but for its kind; UNSUPPORTED if there are too many. */
TSR_MUST_CHECK tsr_status tsr_normalizer_add(tsr_normalizer *normalizer, tsr_rewrite_step **out,
                                             tsr_rewrite_kind kind);

#ifdef __cplusplus
}
#endif

#endif
