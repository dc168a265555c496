/*
 * engine/remote/remote.h - the engine of a client: the calls of engine/tessera.h where the ranks
 * are other processes. Private to the room.
 *
 * Threads: one drives it.
 */
#ifndef TSR_ENGINE_REMOTE_REMOTE_H
#define TSR_ENGINE_REMOTE_REMOTE_H

#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_remote tsr_remote;

void tsr_remote_destroy(tsr_remote *remote); /* NULL is fine */
tsr_status tsr_remote_submit(tsr_remote *remote, const tsr_generation *generation, int64_t *id);
void tsr_remote_cancel(tsr_remote *remote, int64_t id);
tsr_status tsr_remote_step(tsr_remote *remote, bool *busy);
tsr_engine_stats tsr_remote_describe(const tsr_remote *remote);
tsr_status tsr_remote_memory(const tsr_remote *remote, tsr_memory_stats *ranks);
tsr_status tsr_remote_blocks(tsr_remote *remote, int64_t *owners, uint8_t *places);
bool tsr_remote_is_serving(const tsr_remote *remote);
void tsr_remote_wake(tsr_remote *remote); /* threads: any */

#ifdef __cplusplus
}
#endif

#endif
