/*
 * engine/text/pattern.h - a pattern as tokenizer.json writes it, for PCRE2.
 *
 * Tokenizers mean Oniguruma's patterns (github.com/kkos/oniguruma, doc/RE). What PCRE2 reads
 * otherwise is written anew: classes within classes and what they have in common ([a-z&&[^aeiou]]),
 * \s, \w, \b, \h and \v, (?m), {,n}, and {n,m}+, which repeats and does not hold on.
 */
#ifndef TSR_ENGINE_TEXT_PATTERN_H
#define TSR_ENGINE_TEXT_PATTERN_H

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Append the pattern as PCRE2 is to read it, with PCRE2_UTF, PCRE2_UCP and PCRE2_MULTILINE. The
 * result may still be no pattern: PCRE2 says so then.
 * Errors: UNSUPPORTED (no pattern, or one that has no counterpart), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_pattern_translate(tsr_text *out, const char *pattern, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
