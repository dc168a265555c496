/*
 * kv/block_table.h - the blocks of one sequence, in order.
 *
 * Layers that see as far back as one another form a *group*, and a block has the keys and values of
 * one group. So a sequence has columns: position p lies in column p / block_tokens, which has a
 * block for each group. Of a group whose layers see a window only, the columns that no row can
 * reach any more are *left*: their blocks are given back, and the table has holes at its front.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_KV_BLOCK_TABLE_H
#define TSR_KV_BLOCK_TABLE_H

#include "kv/block_pool.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_BLOCK_NONE = -1,      /* in the place of an id: that block was left */
    TSR_BLOCK_MOST_GROUPS = 8 /* of layers */
};

typedef struct tsr_block_groups {
    int n;
    int block_tokens;
    /* [n] How many columns before the one of a row its layers can see, 1 or more; INT32_MAX: all.
     */
    int32_t behind[TSR_BLOCK_MOST_GROUPS];
} tsr_block_groups;

typedef struct tsr_block_table {
    int32_t *ids; /* owned, [n_columns * groups->n]: of column c, group g at c * groups->n + g */
    int n_columns;
    int n_blocks;  /* that are not NONE */
    int floor;     /* a column: of each group those before `floor` - behind have been left */
    int capacity;  /* of ids */
} tsr_block_table; /* start with {0} */

/* How a group whose rows see the last `reach` positions (0: all) is described. One column at least:
 * so that whoever has columns has blocks of every group. */
static inline int32_t tsr_block_groups_behind(int64_t reach, int block_tokens)
{
    const int64_t n = reach > 1 ? (reach - 1 + block_tokens - 1) / block_tokens : 1;

    return reach == 0 || n > INT32_MAX ? INT32_MAX : (int32_t)n;
}

/* The first column of a group that is kept for a floor. */
static inline int tsr_block_groups_first(const tsr_block_groups *groups, int group, int floor)
{
    return floor > groups->behind[group] ? floor - groups->behind[group] : 0;
}

/* The column that is the floor when n_tokens are in the cache: whoever has it can go back to where
 * that column begins, or by one token. */
static inline int tsr_block_groups_floor(const tsr_block_groups *groups, int64_t n_tokens)
{
    return n_tokens > 0 ? (int)((n_tokens - 1) / groups->block_tokens) : 0;
}

/* How many columns n_tokens tokens take. */
static inline int64_t tsr_block_table_blocks_for(int64_t n_tokens, int block_tokens)
{
    return (n_tokens + block_tokens - 1) / block_tokens;
}

/* The most blocks that a sequence which has n_columns needs beside them, a column at a time, until
 * it has n_tokens tokens: the blocks of that many more columns, or of what a window sees. */
int64_t tsr_block_groups_most(const tsr_block_groups *groups, int64_t n_tokens, int64_t n_columns);

/* The blocks held when n_cached tokens are in the cache and there is room for n_tokens. */
int64_t tsr_block_groups_held(const tsr_block_groups *groups, int64_t n_cached, int64_t n_tokens);

/* The longest sequence that so many blocks hold, in whole columns and at most most_tokens. */
int64_t tsr_block_groups_longest(const tsr_block_groups *groups, int64_t n_blocks,
                                 int64_t most_tokens);

/* The list can take n_columns in all without memory. Errors: NOMEM (as it was). */
TSR_MUST_CHECK tsr_status tsr_block_table_reserve(tsr_block_table *table,
                                                  const tsr_block_groups *groups, int n_columns);

/*
 * Make room for n_tokens tokens in all: take the blocks that are missing, none beyond them.
 * On failure the table is as it was. Errors: FULL, NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_block_table_grow(tsr_block_table *table, tsr_block_pool *pool,
                                               const tsr_block_groups *groups, int64_t n_tokens);

/*
 * Take part in n_columns columns that others hold (ids [n_columns * groups->n], NONE among them):
 * they come behind those that are there, each block with one owner more. So a table is forked by
 * sharing its first columns with an empty one. The floor is the caller's to set. On failure the
 * table is as it was. Errors: NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_block_table_share(tsr_block_table *table, tsr_block_pool *pool,
                                                const tsr_block_groups *groups, const int32_t *ids,
                                                int n_columns);

/*
 * Keep the first n_keep columns and give the others back, the last one first. Those that became
 * free by it are written to freed [blocks behind n_keep] (NULL: not wanted); returns how many they
 * are. The floor stays, unless nothing is kept.
 */
int tsr_block_table_cut(tsr_block_table *table, tsr_block_pool *pool,
                        const tsr_block_groups *groups, int n_keep, int32_t *freed);

/* The floor rises: what is left by it is written to `left` [n_blocks], the first columns first; its
 * owner is the caller's to take off. Returns how many they are. */
int tsr_block_table_leave(tsr_block_table *table, const tsr_block_groups *groups, int floor,
                          int32_t *left);

/* Is all there that rows from n_tokens on see? */
bool tsr_block_table_goes_on_from(const tsr_block_table *table, const tsr_block_groups *groups,
                                  int64_t n_tokens);

/* How many blocks the first n_columns hold. */
int tsr_block_table_n_before(const tsr_block_table *table, const tsr_block_groups *groups,
                             int n_columns);

/* Give every block back and free the list; the table is {0} again. */
void tsr_block_table_clear(tsr_block_table *table, tsr_block_pool *pool,
                           const tsr_block_groups *groups);

#ifdef __cplusplus
}
#endif

#endif
