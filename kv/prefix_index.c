#include "kv/prefix_index.h"

#include <assert.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/alloc.h"

enum {
    NONE = TSR_PREFIX_NONE,
    MOST_SIBLINGS = 256 // looked at for a part of a block
};

typedef struct node {
    uint64_t hash;     // of all tokens down to here; only of a full block
    int64_t last_used; // by the index's count of uses
    int32_t parent;
    int32_t first_child;    // the youngest
    int32_t next, previous; // its siblings, older and younger
    int32_t next_in_bucket;
    int32_t place;    // in the heap, or NONE
    int32_t depth;    // 0: no node
    int32_t n_tokens; // in it
    int32_t n_holders;
    int32_t n_held_below; // children that are held, or have somebody held below
} node;

struct tsr_prefix_index {
    int n_blocks;
    int block_tokens;
    node *nodes;      // owned, [n_blocks]
    int32_t *tokens;  // owned, [n_blocks, block_tokens]
    int32_t *buckets; // owned, [n_buckets], a power of two
    size_t n_buckets;
    int32_t *heap; // owned, [n_blocks]: nodes without children that nobody holds
    int n_heap;
    int32_t first_root; // the youngest of those without parents
    int n_nodes;
    int n_held; // nodes that are held, or above one that is
    int64_t n_uses;
    uint64_t hash_mask;
};

/* A power of two. */
static size_t buckets_for(int n_blocks)
{
    size_t n = 16;

    while (n < (size_t)n_blocks) {
        n *= 2;
    }
    return n;
}

size_t tsr_prefix_index_bytes(int n_blocks, int block_tokens)
{
    const tsr_prefix_index *index = NULL;

    return (size_t)n_blocks * (sizeof(*index->nodes) + sizeof(*index->heap) +
                               (size_t)block_tokens * sizeof(*index->tokens)) +
           buckets_for(n_blocks) * sizeof(*index->buckets);
}

tsr_status tsr_prefix_index_create(tsr_prefix_index **out, int n_blocks, int block_tokens)
{
    tsr_prefix_index *index;
    size_t n_tokens;

    if (n_blocks < 1 || block_tokens < 1) {
        return tsr_fail(TSR_ERR_ARG, "prefix index: %d blocks of %d tokens", n_blocks,
                        block_tokens);
    }
    n_tokens = (size_t)n_blocks * (size_t)block_tokens;
    index = tsr_alloc(1, sizeof(*index));
    if (index == NULL) {
        goto fail;
    }
    index->n_blocks = n_blocks;
    index->block_tokens = block_tokens;
    index->first_root = NONE;
    index->hash_mask = UINT64_MAX;
    index->n_buckets = buckets_for(n_blocks);
    index->nodes = tsr_alloc((size_t)n_blocks, sizeof(*index->nodes));
    index->tokens = tsr_alloc(n_tokens, sizeof(*index->tokens));
    index->buckets = tsr_alloc(index->n_buckets, sizeof(*index->buckets));
    index->heap = tsr_alloc((size_t)n_blocks, sizeof(*index->heap));
    if (index->nodes == NULL || index->tokens == NULL || index->buckets == NULL ||
        index->heap == NULL) {
        goto fail;
    }
    for (size_t i = 0; i < index->n_buckets; i++) {
        index->buckets[i] = NONE;
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
    tsr_free(index->heap);
    tsr_free(index->buckets);
    tsr_free(index->tokens);
    tsr_free(index->nodes);
    tsr_free(index);
}

/* ---- the heap of those that may be forgotten ---- */

static bool is_sooner(const tsr_prefix_index *index, int32_t a, int32_t b)
{
    const node *x = &index->nodes[a];
    const node *y = &index->nodes[b];

    if (x->last_used != y->last_used) {
        return x->last_used < y->last_used;
    }
    return x->depth != y->depth ? x->depth > y->depth : a < b;
}

static void set_place(tsr_prefix_index *index, int at, int32_t id)
{
    index->heap[at] = id;
    index->nodes[id].place = at;
}

/* The node at this place goes up or down to where it belongs. */
static void sift(tsr_prefix_index *index, int at)
{
    const int32_t id = index->heap[at];

    for (; at > 0 && is_sooner(index, id, index->heap[(at - 1) / 2]); at = (at - 1) / 2) {
        set_place(index, at, index->heap[(at - 1) / 2]);
    }
    for (;;) {
        int below = 2 * at + 1;

        if (below + 1 < index->n_heap &&
            is_sooner(index, index->heap[below + 1], index->heap[below])) {
            below++;
        }
        if (below >= index->n_heap || !is_sooner(index, index->heap[below], id)) {
            break;
        }
        set_place(index, at, index->heap[below]);
        at = below;
    }
    set_place(index, at, id);
}

static void leave_heap(tsr_prefix_index *index, int32_t id)
{
    const int at = index->nodes[id].place;
    const int32_t last = index->heap[--index->n_heap];

    index->nodes[id].place = NONE;
    if (last != id) {
        set_place(index, at, last);
        sift(index, at);
    }
}

static bool is_held(const node *n)
{
    return n->n_holders > 0 || n->n_held_below > 0;
}

/* Into the heap or out of it, as it is now. */
static void settle(tsr_prefix_index *index, int32_t id)
{
    const node *n = &index->nodes[id];
    const bool belongs = n->first_child == NONE && !is_held(n);

    if (belongs && n->place == NONE) {
        set_place(index, index->n_heap++, id);
        sift(index, index->n_heap - 1);
    } else if (!belongs && n->place != NONE) {
        leave_heap(index, id);
    }
}

/* ---- finding ---- */

static const int32_t *tokens_of(const tsr_prefix_index *index, int32_t id)
{
    return &index->tokens[(size_t)id * (size_t)index->block_tokens];
}

static uint64_t hash_of(const tsr_prefix_index *index, int32_t parent, const int32_t *tokens)
{
    const uint64_t seed = parent == NONE ? 0 : index->nodes[parent].hash;

    return XXH3_64bits_withSeed(tokens, (size_t)index->block_tokens * sizeof(*tokens), seed) &
           index->hash_mask;
}

static int32_t find_full(const tsr_prefix_index *index, int32_t parent, const int32_t *tokens)
{
    const uint64_t hash = hash_of(index, parent, tokens);
    int32_t id = index->buckets[hash & (index->n_buckets - 1)];

    while (id != NONE && (index->nodes[id].hash != hash || index->nodes[id].parent != parent ||
                          memcmp(tokens_of(index, id), tokens,
                                 (size_t)index->block_tokens * sizeof(*tokens)) != 0)) {
        id = index->nodes[id].next_in_bucket;
    }
    return id;
}

static int32_t youngest_below(const tsr_prefix_index *index, int32_t parent)
{
    return parent == NONE ? index->first_root : index->nodes[parent].first_child;
}

/* The node below `parent` that begins with most of `tokens`; *n_common: with how many. */
static int32_t find_part(const tsr_prefix_index *index, int32_t parent, const int32_t *tokens,
                         int n_most, int *n_common)
{
    int32_t best = NONE;
    int32_t id = youngest_below(index, parent);

    *n_common = 0;
    for (int n = 0; id != NONE && n < MOST_SIBLINGS && *n_common < n_most; n++) {
        const int32_t *has = tokens_of(index, id);
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

tsr_prefix_match tsr_prefix_index_find(const tsr_prefix_index *index, const int32_t *tokens,
                                       int64_t n_tokens, int64_t n_most)
{
    const int bt = index->block_tokens;
    tsr_prefix_match match = {.node = NONE};
    int32_t next = NONE;

    while (match.n_tokens + bt <= n_tokens && match.n_tokens < n_most) {
        next = find_full(index, match.node, tokens + match.n_tokens);
        if (next == NONE) {
            break;
        }
        match.node = next;
        match.n_blocks++;
        match.n_tokens += bt;
    }
    if (match.n_tokens > n_most) {
        match.n_tokens = n_most; // the last block is not wanted whole
    } else if (match.n_tokens < n_most) {
        const int64_t rest = n_most - match.n_tokens;
        int n_common;

        next = find_part(index, match.node, tokens + match.n_tokens, rest < bt ? (int)rest : bt,
                         &n_common);
        if (next != NONE) {
            match.node = next;
            match.n_blocks++;
            match.n_tokens += n_common;
        }
    }
    return match;
}

void tsr_prefix_index_path(const tsr_prefix_index *index, int32_t node_id, int32_t *ids,
                           int n_blocks)
{
    for (int i = n_blocks - 1; i >= 0; i--) {
        ids[i] = node_id;
        node_id = index->nodes[node_id].parent;
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

int tsr_prefix_index_n_idle(const tsr_prefix_index *index, int32_t id)
{
    int n = 0;

    for (; id != NONE && !is_held(&index->nodes[id]); id = index->nodes[id].parent) {
        n++;
    }
    return n;
}

/* ---- adding ---- */

int32_t tsr_prefix_index_add(tsr_prefix_index *index, int32_t parent, int32_t block,
                             const int32_t *tokens, int n_tokens, bool *is_new)
{
    node *n = &index->nodes[block];
    const bool is_full = n_tokens == index->block_tokens;
    int32_t *first = parent == NONE ? &index->first_root : &index->nodes[parent].first_child;
    int n_common = 0;
    int32_t same;

    assert(n_tokens >= 1 && n_tokens <= index->block_tokens);
    assert(parent == NONE || index->nodes[parent].n_tokens == index->block_tokens);
    *is_new = false;
    if (n->depth > 0) {
        return block;
    }
    same = is_full ? find_full(index, parent, tokens)
                   : find_part(index, parent, tokens, n_tokens, &n_common);
    if (same != NONE && (is_full || n_common == n_tokens)) {
        return same;
    }
    *n = (node){.parent = parent,
                .first_child = NONE,
                .next = *first,
                .previous = NONE,
                .next_in_bucket = NONE,
                .place = NONE,
                .depth = tsr_prefix_index_depth(index, parent) + 1,
                .n_tokens = n_tokens,
                .last_used = ++index->n_uses};
    memcpy(&index->tokens[(size_t)block * (size_t)index->block_tokens], tokens,
           (size_t)n_tokens * sizeof(*tokens));
    if (is_full) {
        int32_t *bucket;

        n->hash = hash_of(index, parent, tokens);
        bucket = &index->buckets[n->hash & (index->n_buckets - 1)];
        n->next_in_bucket = *bucket;
        *bucket = block;
    }
    if (*first != NONE) {
        index->nodes[*first].previous = block;
    }
    *first = block;
    index->n_nodes++;
    settle(index, block);
    if (parent != NONE) {
        settle(index, parent);
    }
    *is_new = true;
    return block;
}

/* ---- holding ---- */

void tsr_prefix_index_hold(tsr_prefix_index *index, int32_t id)
{
    bool was_held;

    if (id == NONE) {
        return;
    }
    was_held = is_held(&index->nodes[id]);
    index->nodes[id].n_holders++;
    while (!was_held) {
        index->n_held++;
        settle(index, id);
        id = index->nodes[id].parent;
        if (id == NONE) {
            return;
        }
        was_held = is_held(&index->nodes[id]);
        index->nodes[id].n_held_below++;
    }
}

void tsr_prefix_index_release(tsr_prefix_index *index, int32_t id)
{
    const int64_t now = ++index->n_uses;

    if (id == NONE) {
        return;
    }
    assert(index->nodes[id].n_holders > 0);
    index->nodes[id].n_holders--;
    while (!is_held(&index->nodes[id])) {
        index->n_held--;
        index->nodes[id].last_used = now;
        settle(index, id);
        id = index->nodes[id].parent;
        if (id == NONE) {
            return;
        }
        index->nodes[id].n_held_below--;
    }
}

/* ---- forgetting ---- */

/* A node without children, held by nobody. */
static void remove_leaf(tsr_prefix_index *index, int32_t id)
{
    node *n = &index->nodes[id];
    const int32_t parent = n->parent;

    assert(n->depth > 0 && n->first_child == NONE && !is_held(n));
    leave_heap(index, id);
    if (n->n_tokens == index->block_tokens) {
        int32_t *at = &index->buckets[n->hash & (index->n_buckets - 1)];

        while (*at != id) {
            at = &index->nodes[*at].next_in_bucket;
        }
        *at = n->next_in_bucket;
    }
    if (n->previous != NONE) {
        index->nodes[n->previous].next = n->next;
    } else if (parent != NONE) {
        index->nodes[parent].first_child = n->next;
    } else {
        index->first_root = n->next;
    }
    if (n->next != NONE) {
        index->nodes[n->next].previous = n->previous;
    }
    if (parent != NONE) {
        // Whoever used this one used that one as well.
        if (index->nodes[parent].last_used < n->last_used) {
            index->nodes[parent].last_used = n->last_used;
            if (index->nodes[parent].place != NONE) {
                sift(index, index->nodes[parent].place);
            }
        }
        settle(index, parent);
    }
    *n = (node){0};
    index->n_nodes--;
}

bool tsr_prefix_index_forget(tsr_prefix_index *index, int32_t *block)
{
    if (index->n_heap == 0) {
        return false;
    }
    *block = index->heap[0];
    remove_leaf(index, *block);
    return true;
}

int tsr_prefix_index_cut(tsr_prefix_index *index, int32_t id, int32_t *blocks)
{
    int n = 0;

    if (index->nodes[id].depth == 0) {
        return 0;
    }
    for (;;) {
        int32_t leaf = id;

        while (index->nodes[leaf].first_child != NONE) {
            leaf = index->nodes[leaf].first_child;
        }
        remove_leaf(index, leaf);
        blocks[n++] = leaf;
        if (leaf == id) {
            return n;
        }
    }
}

/* ---- questions ---- */

int tsr_prefix_index_n_nodes(const tsr_prefix_index *index)
{
    return index->n_nodes;
}

int tsr_prefix_index_n_unheld(const tsr_prefix_index *index)
{
    return index->n_nodes - index->n_held;
}

int tsr_prefix_index_n_holders(const tsr_prefix_index *index, int32_t id)
{
    return index->nodes[id].n_holders;
}

void tsr_prefix_index_mask_hash(tsr_prefix_index *index, uint64_t mask)
{
    index->hash_mask = mask;
}

/* Children are linked both ways, one deeper, and those held among them are counted. */
static bool verify_children(const tsr_prefix_index *index, int32_t parent, int *n_seen)
{
    const int depth = tsr_prefix_index_depth(index, parent);
    int32_t before = NONE;
    int n_held = 0;

    for (int32_t id = youngest_below(index, parent); id != NONE; id = index->nodes[id].next) {
        const node *n = &index->nodes[id];

        if (n->parent != parent || n->depth != depth + 1 || n->previous != before ||
            ++*n_seen > index->n_nodes) {
            return false;
        }
        n_held += is_held(n) ? 1 : 0;
        before = id;
    }
    return parent == NONE || n_held == index->nodes[parent].n_held_below;
}

static bool verify_node(const tsr_prefix_index *index, int32_t id)
{
    const node *n = &index->nodes[id];
    const bool is_full = n->n_tokens == index->block_tokens;
    const bool belongs = n->first_child == NONE && !is_held(n);

    if (n->n_tokens < 1 || n->n_tokens > index->block_tokens || n->n_holders < 0 ||
        (n->first_child != NONE && !is_full) || belongs != (n->place != NONE)) {
        return false;
    }
    if (belongs && (n->place >= index->n_heap || index->heap[n->place] != id ||
                    (n->place > 0 && is_sooner(index, id, index->heap[(n->place - 1) / 2])))) {
        return false;
    }
    return !is_full || find_full(index, n->parent, tokens_of(index, id)) == id;
}

bool tsr_prefix_index_verify(const tsr_prefix_index *index)
{
    int n_nodes = 0;
    int n_held = 0;
    int n_heap = 0;
    int n_seen = 0;

    if (!verify_children(index, NONE, &n_seen)) {
        return false;
    }
    for (int32_t id = 0; id < index->n_blocks; id++) {
        if (index->nodes[id].depth > 0) {
            if (!verify_node(index, id) || !verify_children(index, id, &n_seen)) {
                return false;
            }
            n_nodes++;
            n_held += is_held(&index->nodes[id]) ? 1 : 0;
            n_heap += index->nodes[id].place != NONE ? 1 : 0;
        }
    }
    return n_nodes == index->n_nodes && n_seen == n_nodes && n_held == index->n_held &&
           n_heap == index->n_heap;
}
