#include "engine/jinja/jmemory.h"

#include <stdalign.h>
#include <string.h>

#include "base/alloc.h"

enum {
    CHUNK_BYTES = 32 << 10,
    LARGE_BYTES = 8 << 10, // from here on a block gets a chunk of its own size
    ALIGN = alignof(max_align_t)
};

struct tsr_jmemory_chunk {
    tsr_jmemory_chunk *before;
    size_t n_bytes; // of `bytes`
    size_t used;
    alignas(max_align_t) char bytes[];
};

static size_t aligned(size_t n_bytes)
{
    return (n_bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static tsr_status too_much(const tsr_jmemory *memory)
{
    return tsr_fail(TSR_ERR_FORMAT, "the chat template wants more than %zu MB of memory",
                    memory->most_bytes >> 20);
}

tsr_status tsr_jmemory_take(tsr_jmemory *memory, void **out, size_t n_bytes)
{
    tsr_jmemory_chunk *chunk = memory->last;

    if (n_bytes > memory->most_bytes) {
        return too_much(memory);
    }
    n_bytes = aligned(n_bytes);
    if (chunk == NULL || chunk->n_bytes - chunk->used < n_bytes) {
        const size_t room = n_bytes < LARGE_BYTES ? CHUNK_BYTES : n_bytes;

        if (memory->n_bytes + room > memory->most_bytes) {
            return too_much(memory);
        }
        chunk = tsr_alloc(1, sizeof(*chunk) + room);
        if (chunk == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for a chat template");
        }
        chunk->n_bytes = room;
        chunk->before = memory->last;
        memory->last = chunk;
        memory->n_bytes += room;
    }
    *out = chunk->bytes + chunk->used;
    chunk->used += n_bytes;
    return TSR_OK;
}

tsr_status tsr_jmemory_grow(tsr_jmemory *memory, void **block, size_t old_bytes, size_t new_bytes)
{
    tsr_jmemory_chunk *chunk = memory->last;
    void *moved = NULL;

    if (*block != NULL && chunk != NULL && new_bytes <= memory->most_bytes &&
        (char *)*block + aligned(old_bytes) == chunk->bytes + chunk->used &&
        aligned(new_bytes) - aligned(old_bytes) <= chunk->n_bytes - chunk->used) {
        chunk->used += aligned(new_bytes) - aligned(old_bytes);
        return TSR_OK;
    }
    TSR_TRY(tsr_jmemory_take(memory, &moved, new_bytes));
    if (old_bytes > 0) {
        memcpy(moved, *block, old_bytes);
    }
    *block = moved;
    return TSR_OK;
}

void tsr_jmemory_clear(tsr_jmemory *memory)
{
    while (memory->last != NULL) {
        tsr_jmemory_chunk *chunk = memory->last;

        memory->last = chunk->before;
        tsr_free(chunk);
    }
    memory->n_bytes = 0;
}
