/*
 * engine/text/pattern_names.h - sets of characters by their names; private to
 * engine/text/pattern*.c.
 */
#ifndef TSR_ENGINE_TEXT_PATTERN_NAMES_H
#define TSR_ENGINE_TEXT_PATTERN_NAMES_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The models mean Unicode's White_Space by \s; PCRE2's own also has U+180E. By \w they mean what
 * Unicode TR 18 says; PCRE2's own lacks marks and connectors.
 */
#define TSR_PATTERN_SPACES                                                                      \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}" \
    "\\x{205F}\\x{3000}"
#define TSR_PATTERN_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
/* \w that is not within brackets. */
#define TSR_PATTERN_WORD_ALONE TSR_PATTERN_WORD "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
#define TSR_PATTERN_HEX "0-9A-Fa-f"

/* All three take a name in small letters without signs. */

/* The members of a class that the name of a set stands for ("alpha"); NULL if it is none. */
const char *tsr_pattern_names_set(const char *name);

/* The short name of a general category ("Lu" for "uppercaseletter"); NULL if it is none. */
const char *tsr_pattern_names_category(const char *name);

/* Is it the name of a script? PCRE2 means by such a name also what the script shares with others,
 * if it is not told otherwise. */
bool tsr_pattern_names_script(const char *name);

#ifdef __cplusplus
}
#endif

#endif
