/*
 * kv/prefix_index_state.h - what the prefix index is made of. Private to prefix_index.c and
 * prefix_index_verify.c.
 */
#ifndef TSR_KV_PREFIX_INDEX_STATE_H
#define TSR_KV_PREFIX_INDEX_STATE_H

#include "kv/prefix_index.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_prefix_node {
    uint64_t hash; /* of all tokens down to here; only of a full column */
    int32_t parent;
    int32_t first_child;    /* the youngest */
    int32_t next, previous; /* its siblings, older and younger; next: among the unused as well */
    int32_t next_in_bucket;
    int32_t depth;    /* 0: no node */
    int32_t n_tokens; /* in it */
    int32_t n_holders;
    int32_t n_blocks; /* that it has */
} tsr_prefix_node;

struct tsr_prefix_index {
    int n_ids;
    tsr_block_groups groups;
    tsr_prefix_node *nodes; /* owned, [n_room] */
    int32_t *blocks;        /* owned, [n_room, groups.n] */
    int32_t *tokens;        /* owned, [n_room, block_tokens] */
    int32_t *node_of;       /* owned, [n_ids]: node + 1 that a block belongs to */
    int n_room;
    int32_t first_unused;
    int32_t *buckets; /* owned, [n_buckets], a power of two */
    size_t n_buckets;
    int32_t first_root; /* the youngest of those without parents */
    int n_nodes;
    int n_held;
    uint64_t hash_mask;
};

/* The node of a full column of tokens below `parent`; NONE. */
int32_t tsr_prefix_index_find_full(const tsr_prefix_index *index, int32_t parent,
                                   const int32_t *tokens);

static inline int32_t *tsr_prefix_index_tokens_of(const tsr_prefix_index *index, int32_t node)
{
    return &index->tokens[(size_t)node * (size_t)index->groups.block_tokens];
}

static inline int32_t *tsr_prefix_index_blocks_of(const tsr_prefix_index *index, int32_t node)
{
    return &index->blocks[(size_t)node * (size_t)index->groups.n];
}

/* The youngest of the nodes below one, or of the first ones. */
static inline int32_t tsr_prefix_index_below(const tsr_prefix_index *index, int32_t parent)
{
    return parent == TSR_PREFIX_NONE ? index->first_root : index->nodes[parent].first_child;
}

#ifdef __cplusplus
}
#endif

#endif
