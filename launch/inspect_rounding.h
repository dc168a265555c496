/*
 * launch/inspect_rounding.h - how far each tensor would move with --quantize, as a table and JSON.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_INSPECT_ROUNDING_H
#define TSR_LAUNCH_INSPECT_ROUNDING_H

#include <jansson.h>

#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

/* to  "int8", "int4" or "fp8". Errors: as of tsr_model_round(). */
TSR_MUST_CHECK tsr_status tsr_inspect_rounding_print(const tsr_model *model, const char *to);

/* The caller owns *out; NULL when there is no memory for it. Errors likewise. */
TSR_MUST_CHECK tsr_status tsr_inspect_rounding_json(json_t **out, const tsr_model *model,
                                                    const char *to);

#ifdef __cplusplus
}
#endif

#endif
