#include "kv/prefix_index_state.h"

enum {
    NONE = TSR_PREFIX_NONE
};

/* Children are linked both ways, one deeper. */
static bool verify_children(const tsr_prefix_index *index, int32_t parent, int *n_seen)
{
    const int depth = tsr_prefix_index_depth(index, parent);
    int32_t before = NONE;

    for (int32_t id = tsr_prefix_index_below(index, parent); id != NONE;
         id = index->nodes[id].next) {
        const tsr_prefix_node *n = &index->nodes[id];

        if (n->parent != parent || n->depth != depth + 1 || n->previous != before ||
            ++*n_seen > index->n_nodes) {
            return false;
        }
        before = id;
    }
    return true;
}

static bool verify_node(const tsr_prefix_index *index, int32_t id)
{
    const tsr_prefix_node *n = &index->nodes[id];
    const bool is_full = n->n_tokens == index->groups.block_tokens;
    int n_blocks = 0;

    for (int g = 0; g < index->groups.n; g++) {
        const int32_t block = tsr_prefix_index_blocks_of(index, id)[g];

        if (block == TSR_BLOCK_NONE ? index->groups.behind[g] == INT32_MAX
                                    : index->node_of[block] != id + 1) {
            return false;
        }
        n_blocks += block != TSR_BLOCK_NONE ? 1 : 0;
    }
    return n->n_tokens >= 1 && n->n_tokens <= index->groups.block_tokens && n->n_holders >= 0 &&
           n_blocks == n->n_blocks &&
           (n_blocks > 0 || n->first_child != NONE || n->n_holders > 0) &&
           (n->first_child == NONE || is_full) &&
           (!is_full || tsr_prefix_index_find_full(index, n->parent,
                                                   tsr_prefix_index_tokens_of(index, id)) == id);
}

bool tsr_prefix_index_verify(const tsr_prefix_index *index)
{
    int n_nodes = 0;
    int n_held = 0;
    int n_seen = 0;
    int n_blocks = 0;

    if (!verify_children(index, NONE, &n_seen)) {
        return false;
    }
    for (int32_t id = 0; id < index->n_room; id++) {
        if (index->nodes[id].depth > 0) {
            if (!verify_node(index, id) || !verify_children(index, id, &n_seen)) {
                return false;
            }
            n_nodes++;
            n_held += index->nodes[id].n_holders;
            n_blocks += index->nodes[id].n_blocks;
        }
    }
    for (int32_t block = 0; block < index->n_ids; block++) {
        n_blocks -= index->node_of[block] != 0 ? 1 : 0;
    }
    return n_nodes == index->n_nodes && n_seen == n_nodes && n_held == index->n_held &&
           n_blocks == 0;
}
