/*
 * launch/api_value.h - the values of a request's body, each looked up by its key and checked.
 * Private to launch/api_*.c.
 *
 * A key that is not there, or null, leaves what it would set as it is. A value that is wrong gives
 * ARG, and *error says what it must be.
 *
 * Threads: none of its own.
 */
#ifndef TSR_LAUNCH_API_VALUE_H
#define TSR_LAUNCH_API_VALUE_H

#include "launch/api_request.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One body on its way into a request; all borrowed. */
typedef struct tsr_api_body {
    const json_t *body;
    const tsr_model *model;
    int64_t context;
    tsr_api_error *error;
} tsr_api_body;

/* Return ARG and NOMEM, told. */
tsr_status tsr_api_value_refuse(const tsr_api_body *b, const char *key, const char *wanted);
tsr_status tsr_api_value_no_memory(const tsr_api_body *b);

const json_t *tsr_api_value_of(const tsr_api_body *b, const char *key); /* NULL: none, or null */

TSR_MUST_CHECK tsr_status tsr_api_value_real(const tsr_api_body *b, const char *key, double least,
                                             double most, double *out);
TSR_MUST_CHECK tsr_status tsr_api_value_float(const tsr_api_body *b, const char *key, double least,
                                              double most, float *out);
TSR_MUST_CHECK tsr_status tsr_api_value_int(const tsr_api_body *b, const char *key, int64_t least,
                                            int64_t most, int *out);
TSR_MUST_CHECK tsr_status tsr_api_value_bool(const tsr_api_body *b, const char *key, bool *out);

#ifdef __cplusplus
}
#endif

#endif
