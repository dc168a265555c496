/*
 * base/text.h - a growing run of bytes.
 */
#ifndef TSR_BASE_TEXT_H
#define TSR_BASE_TEXT_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Owned by the caller. Start with {0}; always with a 0 behind it once appended to; one clear. */
typedef struct tsr_text {
    char *bytes;
    size_t n_bytes;
    size_t capacity;
} tsr_text;

/* Bytes that lie with somebody else. */
typedef struct tsr_text_view {
    const char *bytes;
    size_t n_bytes;
} tsr_text_view;

/* Some bytes of a text. */
typedef struct tsr_text_run {
    size_t start;
    size_t n_bytes;
} tsr_text_run;

/* Errors: NOMEM; the text is then as it was. */
TSR_MUST_CHECK tsr_status tsr_text_append(tsr_text *text, const char *bytes, size_t n_bytes);

void tsr_text_clear(tsr_text *text); /* frees; the text is {0} again */

#ifdef __cplusplus
}
#endif

#endif
