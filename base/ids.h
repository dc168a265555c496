/*
 * base/ids.h - a growing list of token ids.
 */
#ifndef TSR_BASE_IDS_H
#define TSR_BASE_IDS_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Owned by the caller. Start with {0}; any number of appends; one clear. */
typedef struct tsr_ids {
    int32_t *ids;
    int64_t n_ids;
    int64_t capacity;
} tsr_ids;

/* Errors: NOMEM; the list is then as it was. */
TSR_MUST_CHECK tsr_status tsr_ids_append(tsr_ids *list, int32_t id);

void tsr_ids_clear(tsr_ids *list); /* frees; the list is {0} again */

#ifdef __cplusplus
}
#endif

#endif
