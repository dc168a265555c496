/*
 * launch/inspect_share.h - what each of n ranks would own, as a table, a picture and JSON.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_INSPECT_SHARE_H
#define TSR_LAUNCH_INSPECT_SHARE_H

#include <jansson.h>

#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

void tsr_inspect_share_print(const tsr_model_share *shares, int n_ranks, int n_heads,
                             int n_kv_heads);
json_t *tsr_inspect_share_json(const tsr_model_share *shares, int n_ranks);

#ifdef __cplusplus
}
#endif

#endif
