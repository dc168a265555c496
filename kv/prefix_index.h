/*
 * kv/prefix_index.h - finds blocks by the tokens in them, so that what is in the cache already need
 * not be computed again.
 *
 * A column's keys and values depend on its own tokens and on all before them. So the index is a
 * forest: a *node* is a column whose tokens are known, below the node of the column before it. Full
 * columns are found by a hash of their tokens chained from the first on (XXH3; see xxhash.com);
 * what the hash finds is compared token by token, so that two texts which collide never share. The
 * last column of a sequence may be a node while it is partly filled; such a one, or a part of a
 * full one, is found among the youngest nodes below the last that fits.
 *
 * A node has a block for each group of layers (kv/block_table.h). Those of a group that sees a
 * window only can be given up one by one: then nothing can be gone on with that would look at them,
 * and what lies further behind still can. A block of a group that sees everything is given up with
 * all below it. A node without blocks stays while there are nodes below it, or somebody holds it.
 *
 * The index says what to share and what to give back; owners of blocks are counted by its caller
 * (kv/block_pool.h keep and let_go), who also knows which are idle. A node is named by a number;
 * NONE stands above the first.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_KV_PREFIX_INDEX_H
#define TSR_KV_PREFIX_INDEX_H

#include "kv/block_table.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_PREFIX_NONE = -1
};

typedef struct tsr_prefix_index tsr_prefix_index;

/* Errors: ARG, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_prefix_index_create(tsr_prefix_index **out, int n_blocks,
                                                  const tsr_block_groups *groups);
/* Of its arrays. Without a group that sees everything they grow with the texts that are kept. */
size_t tsr_prefix_index_bytes(int n_blocks, const tsr_block_groups *groups);
void tsr_prefix_index_destroy(tsr_prefix_index *index); /* NULL is fine */

/* The beginning of some tokens that is known and can be gone on with. */
typedef struct tsr_prefix_match {
    int32_t node;     /* of its last column; NONE: nothing is */
    int n_columns;    /* nodes from the first to that one */
    int64_t n_tokens; /* that fit; in the last column perhaps not all that it has */
} tsr_prefix_match;

/* For tokens [n_tokens], of which n_most are to be found at most. */
tsr_prefix_match tsr_prefix_index_find(const tsr_prefix_index *index, const int32_t *tokens,
                                       int64_t n_tokens, int64_t n_most);

/* What a table has that begins with the first n_columns columns, down to `node`: ids [n_columns,
 * n_groups], NONE where a group does not reach back so far. */
void tsr_prefix_index_path(const tsr_prefix_index *index, int32_t node, int32_t *ids,
                           int n_columns);

/* The node `depth` columns from the beginning of a chain, or its last one if it is shorter than
 * that. */
int32_t tsr_prefix_index_ancestor(const tsr_prefix_index *index, int32_t node, int depth);

/* How many columns from the beginning: 1 for a first one; 0 for NONE. */
int tsr_prefix_index_depth(const tsr_prefix_index *index, int32_t node);

/* The node that a block belongs to; NONE: to none. */
int32_t tsr_prefix_index_node_of(const tsr_prefix_index *index, int32_t block);

/* Its blocks [n_groups], NONE where one was given up. Good until something is added. */
const int32_t *tsr_prefix_index_blocks(const tsr_prefix_index *index, int32_t node);

/*
 * A column behind the full node `parent` has these tokens [n_tokens, at most a column of them] and
 * these blocks [n_groups, none of them NONE]. Returns the node with these tokens: that which has
 * one of the blocks already, one that was known, whose missing blocks are made up for when it is
 * full, or a new one. NONE: there is no memory for one. Blocks of which the index wants to be an
 * owner from now on are written to `taken` [n_groups]; *n_taken is how many.
 */
int32_t tsr_prefix_index_add(tsr_prefix_index *index, int32_t parent, const int32_t *blocks,
                             const int32_t *tokens, int n_tokens, int32_t *taken, int *n_taken);

/* One who goes on from this node more, or less. NONE is fine. */
void tsr_prefix_index_hold(tsr_prefix_index *index, int32_t node);
void tsr_prefix_index_release(tsr_prefix_index *index, int32_t node);

/* Give up a block of a node, and what is of no use without it: nodes that nobody holds. Written to
 * `given` [n_blocks of the index], the caller's to give back. Returns how many; 0 if it is of no
 * node. */
int tsr_prefix_index_forget(tsr_prefix_index *index, int32_t block, int32_t *given);

int tsr_prefix_index_n_nodes(const tsr_prefix_index *index);
int tsr_prefix_index_n_held(const tsr_prefix_index *index); /* holders in all */

/* For tests: only these bits of each hash count, from an empty index on; 0: all collide. */
void tsr_prefix_index_mask_hash(tsr_prefix_index *index, uint64_t mask);

/* Is everything as it must be? For tests and debug builds. */
bool tsr_prefix_index_verify(const tsr_prefix_index *index);

#ifdef __cplusplus
}
#endif

#endif
