/*
 * launch/api_prompt.h - what a request's answers go on from: its prompts, or its messages as the
 * model's chat template writes them. Private to launch/api_*.c and the server's /tokenize.
 *
 * Threads: none of its own.
 */
#ifndef TSR_LAUNCH_API_PROMPT_H
#define TSR_LAUNCH_API_PROMPT_H

#include "launch/api_value.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "prompt", or "input" of an embedding: a text or ids, or a list of these. Errors: ARG, NOMEM, told
 * in b->error; what is in the request by then is cleared with it. */
TSR_MUST_CHECK tsr_status tsr_api_prompt_read(const tsr_api_body *b, tsr_api_request *request);

/* "messages", with "tools" unless "tool_choice" is "none". Errors: the same. */
TSR_MUST_CHECK tsr_status tsr_api_prompt_read_messages(const tsr_api_body *b,
                                                       tsr_api_request *request);

#ifdef __cplusplus
}
#endif

#endif
