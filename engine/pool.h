/*
 * engine/pool.h - one vector for a whole prompt: its hidden states, pooled and made of length 1.
 * Private to the room.
 *
 * Every rank has the same hidden states, so the leader takes its own. They are added in the order
 * of their positions, in double: a vector depends neither on how the prompt was cut nor on the
 * ranks.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_ENGINE_POOL_H
#define TSR_ENGINE_POOL_H

#include "engine/group.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_pool_create(tsr_pool **out, const tsr_engine *e, tsr_pooling how);
void tsr_pool_destroy(tsr_pool *pool); /* NULL is fine */

/* The step has run: its rows of generations that pool are taken; a prompt's last one gives its
 * EMBEDDING event. */
TSR_MUST_CHECK tsr_status tsr_pool_rows(tsr_engine *e);

#ifdef __cplusplus
}
#endif

#endif
