/*
 * engine/text/postprocessor.h - the tokens that a tokenizer.json puts around a text.
 */
#ifndef TSR_ENGINE_TEXT_POSTPROCESSOR_H
#define TSR_ENGINE_TEXT_POSTPROCESSOR_H

#include <jansson.h>

#include "base/ids.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Append to both lists what stands before and after a text that is alone (not one of a pair).
 *
 *   json  the post_processor; NULL or null: nothing
 *
 * Errors: FORMAT (another type; an id that is not in [0, n_tokens); a text that stands in it not
 * once), UNSUPPORTED (a kind that is not known), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_postprocessor_read(tsr_ids *before, tsr_ids *after,
                                                 const json_t *json, int32_t n_tokens);

#ifdef __cplusplus
}
#endif

#endif
