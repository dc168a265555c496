/*
 * launch/api_calls.h - calls of tools in what a model says.
 *
 * Models write them in one of these ways, each call a JSON object with "name" and "arguments" (or
 * "parameters"):
 *   <tool_call>{...}</tool_call>    anywhere in the text, any number of times: Hermes, Qwen
 *   {...}, or {...}; {...}          the whole text, <|python_tag|> before it or not: Llama 3
 *   [TOOL_CALLS][{...}, ...]        the whole text, as that control token is no text: Mistral
 * What looks like a call and is none is content.
 *
 * Threads: none of its own.
 */
#ifndef TSR_LAUNCH_API_CALLS_H
#define TSR_LAUNCH_API_CALLS_H

#include <jansson.h>

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Start with {0}. */
typedef struct tsr_api_calls {
    json_t *found; /* owned, a list of {"id", "type", "function": {"name", "arguments"}}; NULL:
                      none so far */
    tsr_text text; /* said, and from `at` on not known yet to be content or a call */
    size_t at;
    bool is_decided; /* the whole is no call */
} tsr_api_calls;

/*
 * More of a text: what is content for sure is appended to *content, calls that are complete to
 * calls->found. ends: there is no more. seed makes the calls' ids, with their numbers; most: calls
 * beyond so many are dropped. Errors: NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_api_calls_read(tsr_api_calls *calls, tsr_text *content,
                                             const char *bytes, size_t n_bytes, bool ends,
                                             const char *seed, size_t most);
void tsr_api_calls_clear(tsr_api_calls *calls); /* fine on {0} */

#ifdef __cplusplus
}
#endif

#endif
