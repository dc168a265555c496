/*
 * engine/text/regex.h - what a pattern matches in a text, with PCRE2.
 *
 * Threads: read-only after create; a tsr_regex_work belongs to one at a time.
 */
#ifndef TSR_ENGINE_TEXT_REGEX_H
#define TSR_ENGINE_TEXT_REGEX_H

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_regex tsr_regex;

/*
 * A pattern as engine/text/pattern.h reads it.
 * Errors: UNSUPPORTED (no pattern, or one that PCRE2 does not know), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_regex_create(tsr_regex **out, const char *pattern, size_t n_bytes);
void tsr_regex_destroy(tsr_regex *regex);

/* Room for a match, of whatever pattern. Start with {0}; clear when done. */
typedef struct tsr_regex_work {
    void *heap;
    void *found;
} tsr_regex_work;

void tsr_regex_work_clear(tsr_regex_work *work);

/*
 * The next match at or after `from`: [*start, *end), which may be empty. Without one both are
 * n_bytes + 1.
 *
 *   text  valid UTF-8
 *
 * Errors: UNSUPPORTED (more steps than any sound pattern takes), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_regex_find(const tsr_regex *regex, tsr_regex_work *work,
                                         const char *text, size_t n_bytes, size_t from,
                                         size_t *start, size_t *end);

#ifdef __cplusplus
}
#endif

#endif
