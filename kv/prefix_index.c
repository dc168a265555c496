#include "kv/prefix_index_state.h"

#include <assert.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/alloc.h"

enum {
    NONE = TSR_PREFIX_NONE,
    MOST_SIBLINGS = 256 // looked at for a part of a column
};

/* ---- memory ---- */

/* Nodes that all have a block of their own, for a group that sees everything, or else to begin
 * with. */
static int room_for(int n_blocks, const tsr_block_groups *groups)
{
    int n_whole = 0;

    for (int g = 0; g < groups->n; g++) {
        n_whole += groups->behind[g] == INT32_MAX ? 1 : 0;
    }
    return n_whole > 1 ? (n_blocks + n_whole - 1) / n_whole : n_blocks;
}

/* A power of two. */
static size_t buckets_for(int n_nodes)
{
    size_t n = 16;

    while (n < (size_t)n_nodes) {
        n *= 2;
    }
    return n;
}

size_t tsr_prefix_index_bytes(int n_blocks, const tsr_block_groups *groups)
{
    const int n_room = room_for(n_blocks, groups);
    const tsr_prefix_index *index = NULL;

    return (size_t)n_room *
               (sizeof(*index->nodes) + (size_t)groups->block_tokens * sizeof(*index->tokens) +
                (size_t)groups->n * sizeof(*index->blocks)) +
           (size_t)n_blocks * sizeof(*index->node_of) +
           buckets_for(n_room) * sizeof(*index->buckets);
}

static void put_in_bucket(tsr_prefix_index *index, int32_t id)
{
    int32_t *bucket = &index->buckets[index->nodes[id].hash & (index->n_buckets - 1)];

    index->nodes[id].next_in_bucket = *bucket;
    *bucket = id;
}

/* Room for so many nodes in all. False: there is no memory, all is as it was. */
static bool make_room(tsr_prefix_index *index, int n_room)
{
    const size_t n = (size_t)n_room;
    const size_t n_buckets = buckets_for(n_room);
    tsr_prefix_node *nodes = tsr_alloc(n, sizeof(*nodes));
    int32_t *blocks = tsr_alloc(n * (size_t)index->groups.n, sizeof(*blocks));
    int32_t *tokens = tsr_alloc(n * (size_t)index->groups.block_tokens, sizeof(*tokens));
    int32_t *buckets = tsr_alloc(n_buckets, sizeof(*buckets));
    const size_t had = (size_t)index->n_room;

    if (nodes == NULL || blocks == NULL || tokens == NULL || buckets == NULL) {
        tsr_free(nodes);
        tsr_free(blocks);
        tsr_free(tokens);
        tsr_free(buckets);
        return false;
    }
    if (had > 0) {
        memcpy(nodes, index->nodes, had * sizeof(*nodes));
        memcpy(blocks, index->blocks, had * (size_t)index->groups.n * sizeof(*blocks));
        memcpy(tokens, index->tokens, had * (size_t)index->groups.block_tokens * sizeof(*tokens));
    }
    tsr_free(index->nodes);
    tsr_free(index->blocks);
    tsr_free(index->tokens);
    tsr_free(index->buckets);
    index->nodes = nodes;
    index->blocks = blocks;
    index->tokens = tokens;
    index->buckets = buckets;
    index->n_buckets = n_buckets;
    memset(buckets, 0xff, n_buckets * sizeof(*buckets)); // NONE
    for (int32_t id = 0; id < index->n_room; id++) {
        if (nodes[id].depth > 0 && nodes[id].n_tokens == index->groups.block_tokens) {
            put_in_bucket(index, id);
        }
    }
    for (int32_t id = n_room - 1; id >= index->n_room; id--) {
        nodes[id].next = index->first_unused;
        index->first_unused = id;
    }
    index->n_room = n_room;
    return true;
}

tsr_status tsr_prefix_index_create(tsr_prefix_index **out, int n_blocks,
                                   const tsr_block_groups *groups)
{
    tsr_prefix_index *index;

    if (n_blocks < 1 || groups->block_tokens < 1 || groups->n < 1 ||
        groups->n > TSR_BLOCK_MOST_GROUPS) {
        return tsr_fail(TSR_ERR_ARG, "prefix index: %d blocks of %d tokens, %d groups", n_blocks,
                        groups->block_tokens, groups->n);
    }
    index = tsr_alloc(1, sizeof(*index));
    if (index == NULL) {
        goto fail;
    }
    index->n_ids = n_blocks;
    index->groups = *groups;
    index->first_root = NONE;
    index->first_unused = NONE;
    index->hash_mask = UINT64_MAX;
    index->node_of = tsr_alloc((size_t)n_blocks, sizeof(*index->node_of));
    if (index->node_of == NULL || !make_room(index, room_for(n_blocks, groups))) {
        goto fail;
    }
    *out = index;
    return TSR_OK;

fail:
    tsr_prefix_index_destroy(index);
    return tsr_fail(TSR_ERR_NOMEM, "prefix index: no memory for the tokens of %d blocks", n_blocks);
}

void tsr_prefix_index_destroy(tsr_prefix_index *index)
{
    if (index == NULL) {
        return;
    }
    tsr_free(index->node_of);
    tsr_free(index->buckets);
    tsr_free(index->tokens);
    tsr_free(index->blocks);
    tsr_free(index->nodes);
    tsr_free(index);
}

/* ---- finding ---- */

static uint64_t hash_of(const tsr_prefix_index *index, int32_t parent, const int32_t *tokens)
{
    const uint64_t seed = parent == NONE ? 0 : index->nodes[parent].hash;

    return XXH3_64bits_withSeed(tokens, (size_t)index->groups.block_tokens * sizeof(*tokens),
                                seed) &
           index->hash_mask;
}

int32_t tsr_prefix_index_find_full(const tsr_prefix_index *index, int32_t parent,
                                   const int32_t *tokens)
{
    const uint64_t hash = hash_of(index, parent, tokens);
    int32_t id = index->buckets[hash & (index->n_buckets - 1)];

    while (id != NONE && (index->nodes[id].hash != hash || index->nodes[id].parent != parent ||
                          memcmp(tsr_prefix_index_tokens_of(index, id), tokens,
                                 (size_t)index->groups.block_tokens * sizeof(*tokens)) != 0)) {
        id = index->nodes[id].next_in_bucket;
    }
    return id;
}

/* The node below `parent` that begins with most of `tokens`; *n_common: with how many. */
static int32_t find_part(const tsr_prefix_index *index, int32_t parent, const int32_t *tokens,
                         int n_most, int *n_common)
{
    int32_t best = NONE;
    int32_t id = tsr_prefix_index_below(index, parent);

    *n_common = 0;
    for (int n = 0; id != NONE && n < MOST_SIBLINGS && *n_common < n_most; n++) {
        const int32_t *has = tsr_prefix_index_tokens_of(index, id);
        const int most = index->nodes[id].n_tokens < n_most ? index->nodes[id].n_tokens : n_most;
        int same = 0;

        while (same < most && has[same] == tokens[same]) {
            same++;
        }
        if (same > *n_common) {
            *n_common = same;
            best = id;
        }
        id = index->nodes[id].next;
    }
    return best;
}

/* A way down: where it has come to, and how many columns of each group end there without a gap. */
typedef struct way {
    tsr_prefix_match at;
    int n_whole[TSR_BLOCK_MOST_GROUPS];
} way;

static void go_down(const tsr_prefix_index *index, way *w, int32_t id, int n_tokens)
{
    const int32_t *blocks = tsr_prefix_index_blocks_of(index, id);

    w->at.node = id;
    w->at.n_columns++;
    w->at.n_tokens += n_tokens;
    for (int g = 0; g < index->groups.n; g++) {
        w->n_whole[g] = blocks[g] != TSR_BLOCK_NONE ? w->n_whole[g] + 1 : 0;
    }
}

/* Is all there that is looked at from here? */
static bool goes_on(const tsr_prefix_index *index, const way *w)
{
    for (int g = 0; g < index->groups.n; g++) {
        const int first = tsr_block_groups_first(&index->groups, g, w->at.n_columns - 1);

        if (w->n_whole[g] < w->at.n_columns - first) {
            return false;
        }
    }
    return true;
}

tsr_prefix_match tsr_prefix_index_find(const tsr_prefix_index *index, const int32_t *tokens,
                                       int64_t n_tokens, int64_t n_most)
{
    const int bt = index->groups.block_tokens;
    tsr_prefix_match found = {.node = NONE};
    way w = {.at = {.node = NONE}};

    while (w.at.n_tokens + bt <= n_tokens && w.at.n_tokens < n_most) {
        const int32_t next = tsr_prefix_index_find_full(index, w.at.node, tokens + w.at.n_tokens);

        if (next == NONE) {
            break;
        }
        go_down(index, &w, next, bt);
        found = goes_on(index, &w) ? w.at : found;
    }
    if (w.at.n_tokens < n_most) {
        const int64_t rest = n_most - w.at.n_tokens;
        int n_common;
        const int32_t next = find_part(index, w.at.node, tokens + w.at.n_tokens,
                                       rest < bt ? (int)rest : bt, &n_common);

        if (next != NONE) {
            go_down(index, &w, next, n_common);
            found = goes_on(index, &w) ? w.at : found;
        }
    }
    if (found.n_tokens > n_most) {
        found.n_tokens = n_most; // the last column is not wanted whole
    }
    return found;
}

void tsr_prefix_index_path(const tsr_prefix_index *index, int32_t id, int32_t *ids, int n_columns)
{
    const tsr_block_groups *groups = &index->groups;

    for (int c = n_columns - 1; c >= 0; c--, id = index->nodes[id].parent) {
        for (int g = 0; g < groups->n; g++) {
            ids[c * groups->n + g] = c >= tsr_block_groups_first(groups, g, n_columns - 1)
                                         ? tsr_prefix_index_blocks_of(index, id)[g]
                                         : TSR_BLOCK_NONE;
        }
    }
}

int32_t tsr_prefix_index_ancestor(const tsr_prefix_index *index, int32_t id, int depth)
{
    while (id != NONE && index->nodes[id].depth > depth) {
        id = index->nodes[id].parent;
    }
    return id;
}

int tsr_prefix_index_depth(const tsr_prefix_index *index, int32_t id)
{
    return id == NONE ? 0 : index->nodes[id].depth;
}

int32_t tsr_prefix_index_node_of(const tsr_prefix_index *index, int32_t block)
{
    return index->node_of[block] - 1;
}

const int32_t *tsr_prefix_index_blocks(const tsr_prefix_index *index, int32_t id)
{
    return tsr_prefix_index_blocks_of(index, id);
}

/* ---- adding ---- */

static void give_block(tsr_prefix_index *index, int32_t id, int group, int32_t block,
                       int32_t *taken, int *n_taken)
{
    tsr_prefix_index_blocks_of(index, id)[group] = block;
    index->nodes[id].n_blocks++;
    index->node_of[block] = id + 1;
    taken[(*n_taken)++] = block;
}

/* A new node without blocks below `parent`. NONE: there is no memory. */
static int32_t make_node(tsr_prefix_index *index, int32_t parent, const int32_t *tokens,
                         int n_tokens)
{
    int32_t *first;
    int32_t id;
    tsr_prefix_node *n;

    if (index->first_unused == NONE &&
        (index->n_room > INT32_MAX / 2 || !make_room(index, 2 * index->n_room))) {
        return NONE;
    }
    id = index->first_unused;
    n = &index->nodes[id];
    index->first_unused = n->next;
    first = parent == NONE ? &index->first_root : &index->nodes[parent].first_child;
    *n = (tsr_prefix_node){.parent = parent,
                           .first_child = NONE,
                           .next = *first,
                           .previous = NONE,
                           .next_in_bucket = NONE,
                           .depth = tsr_prefix_index_depth(index, parent) + 1,
                           .n_tokens = n_tokens};
    memcpy(tsr_prefix_index_tokens_of(index, id), tokens, (size_t)n_tokens * sizeof(*tokens));
    memset(tsr_prefix_index_blocks_of(index, id), 0xff,
           (size_t)index->groups.n * sizeof(*index->blocks)); // NONE
    if (n_tokens == index->groups.block_tokens) {
        n->hash = hash_of(index, parent, tokens);
        put_in_bucket(index, id);
    }
    if (*first != NONE) {
        index->nodes[*first].previous = id;
    }
    *first = id;
    index->n_nodes++;
    return id;
}

int32_t tsr_prefix_index_add(tsr_prefix_index *index, int32_t parent, const int32_t *blocks,
                             const int32_t *tokens, int n_tokens, int32_t *taken, int *n_taken)
{
    const bool is_full = n_tokens == index->groups.block_tokens;
    int n_common = 0;
    int32_t id;

    assert(n_tokens >= 1 && n_tokens <= index->groups.block_tokens);
    assert(parent == NONE || index->nodes[parent].n_tokens == index->groups.block_tokens);
    *n_taken = 0;
    for (int g = 0; g < index->groups.n; g++) {
        if (index->node_of[blocks[g]] != 0) {
            return index->node_of[blocks[g]] - 1;
        }
    }
    id = is_full ? tsr_prefix_index_find_full(index, parent, tokens)
                 : find_part(index, parent, tokens, n_tokens, &n_common);
    if (id != NONE && !is_full && n_common == n_tokens) {
        return id;
    }
    if (id == NONE || !is_full) {
        id = make_node(index, parent, tokens, n_tokens);
    }
    for (int g = 0; g < index->groups.n && id != NONE; g++) {
        if (tsr_prefix_index_blocks_of(index, id)[g] == TSR_BLOCK_NONE) {
            give_block(index, id, g, blocks[g], taken, n_taken);
        }
    }
    return id;
}

/* ---- forgetting ---- */

/* A node without children. */
static void remove_leaf(tsr_prefix_index *index, int32_t id)
{
    tsr_prefix_node *n = &index->nodes[id];

    assert(n->depth > 0 && n->first_child == NONE && n->n_holders == 0 && n->n_blocks == 0);
    if (n->n_tokens == index->groups.block_tokens) {
        int32_t *at = &index->buckets[n->hash & (index->n_buckets - 1)];

        while (*at != id) {
            at = &index->nodes[*at].next_in_bucket;
        }
        *at = n->next_in_bucket;
    }
    if (n->previous != NONE) {
        index->nodes[n->previous].next = n->next;
    } else if (n->parent != NONE) {
        index->nodes[n->parent].first_child = n->next;
    } else {
        index->first_root = n->next;
    }
    if (n->next != NONE) {
        index->nodes[n->next].previous = n->previous;
    }
    *n = (tsr_prefix_node){.next = index->first_unused};
    index->first_unused = id;
    index->n_nodes--;
}

/* From here up: nodes that are of no use any more. */
static void prune(tsr_prefix_index *index, int32_t id)
{
    while (id != NONE && index->nodes[id].first_child == NONE && index->nodes[id].n_blocks == 0 &&
           index->nodes[id].n_holders == 0) {
        const int32_t parent = index->nodes[id].parent;

        remove_leaf(index, id);
        id = parent;
    }
}

static void take_block(tsr_prefix_index *index, int32_t id, int group, int32_t *given, int *n_given)
{
    int32_t *block = &tsr_prefix_index_blocks_of(index, id)[group];

    if (*block != TSR_BLOCK_NONE) {
        given[(*n_given)++] = *block;
        index->node_of[*block] = 0;
        index->nodes[id].n_blocks--;
        *block = TSR_BLOCK_NONE;
    }
}

/* All blocks of a node and of those below it, the deepest first; the nodes below are removed. */
static void empty(tsr_prefix_index *index, int32_t top, int32_t *given, int *n_given)
{
    for (;;) {
        int32_t leaf = top;

        while (index->nodes[leaf].first_child != NONE) {
            leaf = index->nodes[leaf].first_child;
        }
        for (int g = 0; g < index->groups.n; g++) {
            take_block(index, leaf, g, given, n_given);
        }
        if (leaf == top) {
            return;
        }
        remove_leaf(index, leaf);
    }
}

int tsr_prefix_index_forget(tsr_prefix_index *index, int32_t block, int32_t *given)
{
    const int32_t id = index->node_of[block] - 1;
    int n_given = 0;
    int group = 0;

    if (id == NONE) {
        return 0;
    }
    while (tsr_prefix_index_blocks_of(index, id)[group] != block) {
        group++;
    }
    if (index->groups.behind[group] == INT32_MAX) {
        empty(index, id, given, &n_given);
    } else {
        take_block(index, id, group, given, &n_given);
    }
    prune(index, id);
    return n_given;
}

/* ---- holding ---- */

void tsr_prefix_index_hold(tsr_prefix_index *index, int32_t id)
{
    if (id != NONE) {
        index->nodes[id].n_holders++;
        index->n_held++;
    }
}

void tsr_prefix_index_release(tsr_prefix_index *index, int32_t id)
{
    if (id != NONE) {
        assert(index->nodes[id].n_holders > 0);
        index->nodes[id].n_holders--;
        index->n_held--;
        prune(index, id);
    }
}

/* ---- questions ---- */

int tsr_prefix_index_n_nodes(const tsr_prefix_index *index)
{
    return index->n_nodes;
}

int tsr_prefix_index_n_held(const tsr_prefix_index *index)
{
    return index->n_held;
}

void tsr_prefix_index_mask_hash(tsr_prefix_index *index, uint64_t mask)
{
    index->hash_mask = mask;
}
