/*
 * engine/jinja/jmemory.h - memory that is taken bit by bit and given back at once.
 *
 * A template's tree and all that one rendering makes live in such memories, so nothing in between
 * has an owner to be kept. There is a most that a memory may take: hostile templates end there.
 */
#ifndef TSR_ENGINE_JINJA_JMEMORY_H
#define TSR_ENGINE_JINJA_JMEMORY_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_jmemory_chunk tsr_jmemory_chunk;

/* Start with {.most_bytes = ...}. */
typedef struct tsr_jmemory {
    tsr_jmemory_chunk *last;
    size_t n_bytes; /* in all */
    size_t most_bytes;
} tsr_jmemory;

/* n_bytes zeroed bytes, aligned for anything. Errors: NOMEM, FORMAT (beyond the most). */
TSR_MUST_CHECK tsr_status tsr_jmemory_take(tsr_jmemory *memory, void **out, size_t n_bytes);

/*
 * *block becomes new_bytes long; what it holds is kept, what is new is undefined. In place when
 * nothing was taken since. Errors: as above; then *block is as it was.
 */
TSR_MUST_CHECK tsr_status tsr_jmemory_grow(tsr_jmemory *memory, void **block, size_t old_bytes,
                                           size_t new_bytes);

void tsr_jmemory_clear(tsr_jmemory *memory); /* gives all back; may be used again */

#ifdef __cplusplus
}
#endif

#endif
