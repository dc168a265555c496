/*
 * engine/jinja/jlexer.h - a template's text as tokens, white space taken away as Jinja2 does with
 * trim_blocks and lstrip_blocks.
 */
#ifndef TSR_ENGINE_JINJA_JLEXER_H
#define TSR_ENGINE_JINJA_JLEXER_H

#include "engine/jinja/jmemory.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_jtoken_kind {
    TSR_JT_END,
    TSR_JT_DATA,
    TSR_JT_OPEN_PRINT, /* {{ */
    TSR_JT_CLOSE_PRINT,
    TSR_JT_OPEN_TAG, /* {% */
    TSR_JT_CLOSE_TAG,
    TSR_JT_NAME,
    TSR_JT_STRING, /* its meaning, escapes done */
    TSR_JT_INT,
    TSR_JT_FLOAT,
    TSR_JT_SIGN, /* its characters are the text: "//", "(" */
    TSR_JT_KIND_COUNT
} tsr_jtoken_kind;

typedef struct tsr_jtoken {
    tsr_jtoken_kind kind;
    int line;
    const char *bytes;
    size_t n_bytes;
    int64_t number;
    double real;
} tsr_jtoken;

/*
 * tokens  [n] in `memory`, the last one is END; their bytes lie there too.
 * Errors: NOMEM, FORMAT (with the line).
 */
TSR_MUST_CHECK tsr_status tsr_jlexer_read(tsr_jmemory *memory, tsr_jtoken **tokens, int *n,
                                          const char *text, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
