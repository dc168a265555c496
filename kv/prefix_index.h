/*
 * kv/prefix_index.h - finds blocks by the tokens in them, so that what is in the cache already need
 * not be computed again.
 *
 * A block's keys and values depend on its own tokens and on all before them. So the index is a
 * forest: a *node* is a block whose tokens are known, below the node of the block before it. Full
 * blocks are found by a hash of their tokens chained from the first on (XXH3; see xxhash.com); what
 * the hash finds is compared token by token, so that two texts which collide never share. The last
 * block of a sequence may be a node while it is partly filled; such a one, or a part of a full one,
 * is found among the youngest nodes below the last that fits.
 *
 * Who uses a chain of nodes holds the last one; a node that is held, or above one that is, stays.
 * The others are forgotten when their blocks are needed: the one used longest ago first, and of one
 * chain the deepest first, so that no node is ever left without those above it.
 *
 * A node is named by its block's id; NONE stands above the first. The index says what to share and
 * what to give back; owners of blocks are counted by its caller (kv/block_pool.h), one for each
 * node.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_KV_PREFIX_INDEX_H
#define TSR_KV_PREFIX_INDEX_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_PREFIX_NONE = -1
};

typedef struct tsr_prefix_index tsr_prefix_index;

/* Errors: ARG, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_prefix_index_create(tsr_prefix_index **out, int n_blocks,
                                                  int block_tokens);
size_t tsr_prefix_index_bytes(int n_blocks, int block_tokens); /* of its arrays */
void tsr_prefix_index_destroy(tsr_prefix_index *index);        /* NULL is fine */

/* The beginning of some tokens that is known. */
typedef struct tsr_prefix_match {
    int32_t node;     /* of its last block; NONE: nothing is */
    int n_blocks;     /* nodes from the first to that one */
    int64_t n_tokens; /* that fit; in the last block perhaps not all that it has */
} tsr_prefix_match;

/* For tokens [n_tokens], of which n_most are to be found at most. */
tsr_prefix_match tsr_prefix_index_find(const tsr_prefix_index *index, const int32_t *tokens,
                                       int64_t n_tokens, int64_t n_most);

/* The nodes of a chain: ids [n_blocks] down to `node`, which is the n_blocks-th. */
void tsr_prefix_index_path(const tsr_prefix_index *index, int32_t node, int32_t *ids, int n_blocks);

/* The node `depth` blocks from the beginning of a chain, or its last one if it is shorter than
 * that. */
int32_t tsr_prefix_index_ancestor(const tsr_prefix_index *index, int32_t node, int depth);

/* How many blocks from the beginning: 1 for a first block; 0 for NONE, and for a block that is no
 * node. */
int tsr_prefix_index_depth(const tsr_prefix_index *index, int32_t node);

/* How many nodes of a chain are held by nobody. */
int tsr_prefix_index_n_idle(const tsr_prefix_index *index, int32_t node);

/*
 * `block` has these tokens [n_tokens, at most a block of them] and comes behind the full node
 * `parent`. *is_new: it is a node now, and the index wants to be one of its owners. False: the same
 * is known already, or it is a node as it is. Returns the node with these tokens.
 */
int32_t tsr_prefix_index_add(tsr_prefix_index *index, int32_t parent, int32_t block,
                             const int32_t *tokens, int n_tokens, bool *is_new);

/* One who uses the chain down to this node more, or less. NONE is fine. */
void tsr_prefix_index_hold(tsr_prefix_index *index, int32_t node);
void tsr_prefix_index_release(tsr_prefix_index *index, int32_t node);

/* Forget the node that is missed least; *block is the caller's to give back. False: all are held.
 */
bool tsr_prefix_index_forget(tsr_prefix_index *index, int32_t *block);

/* Forget a node and all below it, none of which is held: written to blocks [n_blocks of the index],
 * the caller's to give back. Returns how many; 0 if it is no node. */
int tsr_prefix_index_cut(tsr_prefix_index *index, int32_t node, int32_t *blocks);

int tsr_prefix_index_n_nodes(const tsr_prefix_index *index);
int tsr_prefix_index_n_unheld(const tsr_prefix_index *index); /* that could be forgotten */
int tsr_prefix_index_n_holders(const tsr_prefix_index *index, int32_t node); /* of just this one */

/* For tests: only these bits of each hash count, from an empty index on; 0: all collide. */
void tsr_prefix_index_mask_hash(tsr_prefix_index *index, uint64_t mask);

/* Is everything as it must be? For tests and debug builds. */
bool tsr_prefix_index_verify(const tsr_prefix_index *index);

#ifdef __cplusplus
}
#endif

#endif
