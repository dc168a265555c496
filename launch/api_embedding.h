/*
 * launch/api_embedding.h - the vectors of a request for embeddings, as the OpenAI form has them.
 *
 * Threads: none of its own.
 */
#ifndef TSR_LAUNCH_API_EMBEDDING_H
#define TSR_LAUNCH_API_EMBEDDING_H

#include <jansson.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* [dim] numbers as a list, or as base64 (RFC 4648) of their bytes: f32, the least first. NULL when
 * memory is short. */
json_t *tsr_api_embedding_numbers(const float *vector, int64_t dim, bool base64);

#ifdef __cplusplus
}
#endif

#endif
