/*
 * kv/block_pool.h - ids of cache blocks and who counts on them. Bookkeeping only: where a block
 * lies is kv/kv_store.h.
 *
 * A block is held by at least one owner (a sequence's table, a copy under way) or free. One of its
 * owners may be the prefix index, which *keeps* it for others to come. A block that is kept and has
 * no other owner is *idle*: the idle ones stand in a line, by how long they have been it, and can
 * be given up whenever blocks are wanted. Ids are virtual: every rank keeps its own part of block
 * `id` wherever it likes.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_KV_BLOCK_POOL_H
#define TSR_KV_BLOCK_POOL_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_block_pool tsr_block_pool;

/* Errors: ARG (n_blocks <= 0), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_block_pool_create(tsr_block_pool **out, int n_blocks);
size_t tsr_block_pool_book_bytes(int n_blocks);    /* that the books of so many blocks take */
void tsr_block_pool_destroy(tsr_block_pool *pool); /* NULL is fine */

/* A free block becomes the caller's, with one owner. The one given back last is taken first. FULL:
 * none is free (no message). */
TSR_MUST_CHECK tsr_status tsr_block_pool_take(tsr_block_pool *pool, int32_t *id);

void tsr_block_pool_share(tsr_block_pool *pool, int32_t id); /* one more owner */

/* One owner less; true when that was the last one and the block is free now. */
bool tsr_block_pool_drop(tsr_block_pool *pool, int32_t id);

/* The prefix index becomes an owner of a block that somebody has, or is none any more (true: the
 * block is free now). */
void tsr_block_pool_keep(tsr_block_pool *pool, int32_t id);
bool tsr_block_pool_let_go(tsr_block_pool *pool, int32_t id);

/* The block that has been idle longest; -1: none is. */
int32_t tsr_block_pool_oldest_idle(const tsr_block_pool *pool);
bool tsr_block_pool_is_idle(const tsr_block_pool *pool, int32_t id);
bool tsr_block_pool_is_kept(const tsr_block_pool *pool, int32_t id);

int tsr_block_pool_n_blocks(const tsr_block_pool *pool);
int tsr_block_pool_n_free(const tsr_block_pool *pool);
int tsr_block_pool_n_idle(const tsr_block_pool *pool);
int tsr_block_pool_n_owners(const tsr_block_pool *pool, int32_t id);

/* Is everything as it must be: free + held = total, no id twice among the free, none free with
 * owners, just the idle ones in their line? For tests and debug builds. */
bool tsr_block_pool_verify(const tsr_block_pool *pool);

#ifdef __cplusplus
}
#endif

#endif
