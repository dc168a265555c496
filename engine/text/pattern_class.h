/*
 * engine/text/pattern_class.h - the characters that a part of a pattern stands for; private to
 * engine/text/pattern*.c.
 */
#ifndef TSR_ENGINE_TEXT_PATTERN_CLASS_H
#define TSR_ENGINE_TEXT_PATTERN_CLASS_H

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is left of a pattern. */
typedef struct tsr_pattern_reader {
    const char *at;
    const char *end;
    int depth; /* of groups and classes */
} tsr_pattern_reader;

enum {
    TSR_PATTERN_MOST_DEPTH = 100
};

TSR_MUST_CHECK tsr_status tsr_pattern_write(tsr_text *out, const char *zero_ended);

/* Append one code point so that it stands for itself, within brackets and without. */
TSR_MUST_CHECK tsr_status tsr_pattern_write_char(tsr_text *out, uint32_t code_point);

/*
 * Append what the class at `[` stands for, as something that matches one character, and step behind
 * it. Errors: UNSUPPORTED, NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_pattern_class(tsr_text *out, tsr_pattern_reader *reader);

/*
 * The escape at `\`, if it stands for a set of characters: \s, \p{L} and the like. Appended as
 * something that matches one character, and stepped over.
 *
 *   found  false: it is no such escape, and nothing has happened
 */
TSR_MUST_CHECK tsr_status tsr_pattern_set(tsr_text *out, tsr_pattern_reader *reader, bool *found);

/*
 * The code point of the escape at `\`, if it is one, and step over it.
 *
 *   found  false: it is no such escape, and nothing has happened
 */
TSR_MUST_CHECK tsr_status tsr_pattern_char(uint32_t *code_point, tsr_pattern_reader *reader,
                                           bool *found);

#ifdef __cplusplus
}
#endif

#endif
