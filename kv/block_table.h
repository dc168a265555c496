/*
 * kv/block_table.h - the blocks of one sequence, in order. Position p lies in block p /
 * block_tokens.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_KV_BLOCK_TABLE_H
#define TSR_KV_BLOCK_TABLE_H

#include "kv/block_pool.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_block_table {
    int32_t *ids; /* owned */
    int n_blocks;
    int capacity;
} tsr_block_table; /* start with {0} */

/* The list can take n_blocks blocks in all without memory. Errors: NOMEM (as it was). */
TSR_MUST_CHECK tsr_status tsr_block_table_reserve(tsr_block_table *table, int n_blocks);

/*
 * Make room for n_tokens tokens in all: take the blocks that are missing, none beyond them.
 * On failure the table is as it was. Errors: FULL, NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_block_table_grow(tsr_block_table *table, tsr_block_pool *pool,
                                               int64_t n_tokens, int block_tokens);

/*
 * Take part in n blocks that others hold: they come behind those that are there, each with one
 * owner more. So a table is forked by sharing its first blocks with an empty one. On failure the
 * table is as it was. Errors: NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_block_table_share(tsr_block_table *table, tsr_block_pool *pool,
                                                const int32_t *ids, int n);

/*
 * Keep the first n_keep blocks and give the others back, the last one first. Those that became free
 * by it are written to freed [n_blocks - n_keep] (NULL: not wanted); returns how many they are.
 */
int tsr_block_table_cut(tsr_block_table *table, tsr_block_pool *pool, int n_keep, int32_t *freed);

/* Give every block back and free the list; the table is {0} again. */
void tsr_block_table_clear(tsr_block_table *table, tsr_block_pool *pool);

/* How many blocks n_tokens tokens take. */
static inline int64_t tsr_block_table_blocks_for(int64_t n_tokens, int block_tokens)
{
    return (n_tokens + block_tokens - 1) / block_tokens;
}

#ifdef __cplusplus
}
#endif

#endif
