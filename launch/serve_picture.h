/*
 * launch/serve_picture.h - what the engine looks like: its ranks, their memory, and whose each
 * block of the cache is. The engine's thread looks at it now and then; others ask what was seen.
 *
 * Threads: as told at each call.
 */
#ifndef TSR_LAUNCH_SERVE_PICTURE_H
#define TSR_LAUNCH_SERVE_PICTURE_H

#include <jansson.h>

#include "base/text.h"
#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_picture tsr_picture;

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_picture_create(tsr_picture **out);
void tsr_picture_destroy(tsr_picture *picture); /* NULL is fine */

/* The engine's thread, between steps. Looks again when it is time to: a second after the last look
 * while it is busy, once when it is not, and at blocks only while somebody watches. Without memory
 * it stays as it was. */
void tsr_picture_look(tsr_picture *picture, tsr_engine *engine, bool busy);

/* Any thread: the engine's part of /metrics (Prometheus exposition format 0.0.4). Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_picture_write(tsr_picture *picture, tsr_text *out);

/*
 * Any thread: {"engine": {...}, "ranks": [...]}, for the page; NULL when memory is short. Of each
 * rank's tiers, "owners" has runs of the blocks that lie there, in the order of their ids: a
 * generation's number (-1: nobody's, kept for prompts that begin alike), how many, and so on.
 * Whoever asks is watching for some seconds.
 */
json_t *tsr_picture_object(tsr_picture *picture);

#ifdef __cplusplus
}
#endif

#endif
