#include "engine/text/pattern_names.h"

#include <stddef.h>
#include <string.h>

/* A name and the members of a class that it stands for. */
typedef struct named {
    const char *name; /* in small letters without signs */
    const char *members;
} named;

static const named sets[] = {
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"alpha", "\\p{Alphabetic}"},
    {"ascii", "\\x{0}-\\x{7F}"},
    {"blank", "\\p{Zs}\\t"},
    {"cntrl", "\\p{Cc}"},
    {"digit", "\\p{Nd}"},
    {"graph", "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}"},
    {"lower", "\\p{Lowercase}"},
    {"print", "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}\\p{Zs}"},
    {"punct", "\\p{P}\\p{S}"},
    {"space", TSR_PATTERN_SPACES},
    {"upper", "\\p{Uppercase}"},
    {"word", TSR_PATTERN_WORD},
    {"xdigit", TSR_PATTERN_HEX},
};

/* Long names of general categories, which PCRE2 knows by their short ones. */
static const named categories[] = {
    {"letter", "L"},
    {"casedletter", "L&"},
    {"lc", "L&"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"combiningmark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"punct", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"surrogate", "Cs"},
    {"privateuse", "Co"},
    {"unassigned", "Cn"},
};

static const char *const scripts[] = {
    "arabic",    "armenian", "bengali",  "bopomofo", "cyrillic",  "devanagari", "ethiopic",
    "georgian",  "greek",    "gujarati", "gurmukhi", "han",       "hangul",     "hebrew",
    "hiragana",  "kannada",  "katakana", "khmer",    "lao",       "latin",      "malayalam",
    "mongolian", "myanmar",  "oriya",    "sinhala",  "syriac",    "tamil",      "telugu",
    "thaana",    "thai",     "tibetan",  "common",   "inherited",
};

static const char *find_name(const named *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].name, name) == 0) {
            return list[i].members;
        }
    }
    return NULL;
}

const char *tsr_pattern_names_set(const char *name)
{
    return find_name(sets, sizeof(sets) / sizeof(sets[0]), name);
}

const char *tsr_pattern_names_category(const char *name)
{
    return find_name(categories, sizeof(categories) / sizeof(categories[0]), name);
}

bool tsr_pattern_names_script(const char *name)
{
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        if (strcmp(scripts[i], name) == 0) {
            return true;
        }
    }
    return false;
}
