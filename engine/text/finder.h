/*
 * engine/text/finder.h - the places of a text that a rule names: those that a pattern matches, a
 * text as it stands, or every character of a kind.
 *
 * Threads: read-only after create.
 */
#ifndef TSR_ENGINE_TEXT_FINDER_H
#define TSR_ENGINE_TEXT_FINDER_H

#include "engine/text/regex.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef bool tsr_finder_kind(uint32_t code_point);

/* One of three. Start with {0}; one clear. */
typedef struct tsr_finder {
    tsr_regex *regex; /* owned, as the literal */
    char *literal;
    size_t literal_bytes;
    tsr_finder_kind *kind;
} tsr_finder;

/* A text as it stands, or a pattern. An empty text is found between any two characters. Errors:
 * UNSUPPORTED (no pattern), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_finder_create(tsr_finder *out, tsr_text_view pattern, bool is_regex);
void tsr_finder_clear(tsr_finder *finder);

/* Where a search stands. Start with {0} for a text's beginning. */
typedef struct tsr_finder_place {
    size_t from;
    size_t last_end;
    bool found_any;
} tsr_finder_place;

/*
 * The next place [*start, *end) of the text, which may be empty but not where the last one ended.
 * Without one both are n_bytes + 1. `text` is valid UTF-8.
 */
TSR_MUST_CHECK tsr_status tsr_finder_next(const tsr_finder *finder, tsr_regex_work *work,
                                          tsr_finder_place *place, const char *text, size_t n_bytes,
                                          size_t *start, size_t *end);

/* Append the text with each place replaced. */
TSR_MUST_CHECK tsr_status tsr_finder_replace(const tsr_finder *finder, tsr_regex_work *work,
                                             tsr_text *out, tsr_text_view text,
                                             tsr_text_view content);

#ifdef __cplusplus
}
#endif

#endif
