/*
 * launch/memory_words.h - what the ranks' memory for keys and values held and moved, for a person
 * and as JSON.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_MEMORY_WORDS_H
#define TSR_LAUNCH_MEMORY_WORDS_H

#include <jansson.h>

#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A table on stderr: a rank's tiers, a line each, and below them what its sequences found there.
 * Leader, between steps. Errors: those of tsr_engine_memory(). */
TSR_MUST_CHECK tsr_status tsr_memory_words_say(tsr_engine *engine);

/* The same as a list of objects, one a rank; the caller owns it. Errors: likewise. */
TSR_MUST_CHECK tsr_status tsr_memory_words_json(tsr_engine *engine, json_t **out);

/* Has any rank memory below its device's? */
bool tsr_memory_words_has_tiers(const tsr_engine *engine);

#ifdef __cplusplus
}
#endif

#endif
