/*
 * engine/jinja/jform.h - one value in a given width, alignment and number of digits. Private to the
 * folder.
 */
#ifndef TSR_ENGINE_JINJA_JFORM_H
#define TSR_ENGINE_JINJA_JFORM_H

#include "engine/jinja/jrun.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_JFORM_DIGIT_BYTES = 700, /* 10^308 and 300 digits behind the point */
    TSR_JFORM_MOST_WIDTH = 1 << 20
};

/* How one value is to be written. */
typedef struct tsr_jform {
    const char *fill; /* one character */
    size_t fill_bytes;
    char align; /* '<', '>', '^', '=' (behind the sign), or 0: as the type has it */
    char sign;  /* '+', ' ' or 0 */
    char group; /* ',', '_' or 0 */
    bool alternate;
    int64_t width;
    int64_t precision; /* -1: none */
    char type;         /* 0: none */
} tsr_jform;

TSR_MUST_CHECK tsr_status tsr_jform_text(tsr_jrun *run, tsr_jbuilder *b, const tsr_jform *f,
                                         const tsr_jtext *text, char align);
/* type: d, x, X, o or b, else decimal. */
TSR_MUST_CHECK tsr_status tsr_jform_whole(tsr_jrun *run, tsr_jbuilder *b, const tsr_jform *f,
                                          int64_t number);
/* type: e, E, f, F, g, G or %. */
TSR_MUST_CHECK tsr_status tsr_jform_real(tsr_jrun *run, tsr_jbuilder *b, const tsr_jform *f,
                                         double real);
/* Digits that are there already, of a number to the base that `base` ("0x" or "") says; changed,
 * having room for twice DIGIT_BYTES. */
TSR_MUST_CHECK tsr_status tsr_jform_digits(tsr_jrun *run, tsr_jbuilder *b, const tsr_jform *f,
                                           bool negative, const char *base, char *digits);

#ifdef __cplusplus
}
#endif

#endif
