#include "kv/prefix_index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/torture.h"

enum {
    BT = 4, // tokens a block
    N = 60,
    NONE = TSR_PREFIX_NONE
};

static const tsr_block_groups whole = {.n = 1, .block_tokens = BT, .behind = {INT32_MAX}};

/* One group that sees everything, one that sees the column before. */
static const tsr_block_groups mixed = {.n = 2, .block_tokens = BT, .behind = {INT32_MAX, 1}};

/* All see the column before, and no further. */
static const tsr_block_groups window = {.n = 1, .block_tokens = BT, .behind = {1}};

static int make_index(void **state)
{
    return tsr_prefix_index_create((tsr_prefix_index **)state, N, &whole) == TSR_OK ? 0 : -1;
}

static int drop_index(void **state)
{
    tsr_prefix_index_destroy(*state);
    return 0;
}

/* The node of these tokens behind `parent`; is_new: the index takes the block. */
static int32_t add(tsr_prefix_index *index, int32_t parent, int32_t block, const int32_t *tokens,
                   int n, bool is_new)
{
    int32_t taken;
    int n_taken = -1;
    const int32_t node = tsr_prefix_index_add(index, parent, &block, tokens, n, &taken, &n_taken);

    assert_int_equal(n_taken, is_new ? 1 : 0);
    assert_true(!is_new || taken == block);
    assert_true(tsr_prefix_index_verify(index));
    return node;
}

/* What gives up `block` gives up, as a number: the blocks' digits to the base of 100, first first.
 */
static int64_t forget(tsr_prefix_index *index, int32_t block)
{
    int32_t given[N];
    const int n = tsr_prefix_index_forget(index, block, given);
    int64_t all_given = 0;

    assert_true(tsr_prefix_index_verify(index));
    for (int i = 0; i < n; i++) {
        all_given = 100 * all_given + given[i];
    }
    return all_given;
}

static void assert_found(const tsr_prefix_index *index, const int32_t *tokens, int64_t n,
                         int64_t n_most, int32_t node, int n_blocks, int64_t n_tokens)
{
    const tsr_prefix_match match = tsr_prefix_index_find(index, tokens, n, n_most);

    assert_int_equal(match.node, node);
    assert_int_equal(match.n_columns, n_blocks);
    assert_int_equal(match.n_tokens, n_tokens);
}

static const int32_t text[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static void what_was_added_is_found_as_far_as_it_is_the_same(void **state)
{
    const int32_t other[] = {1, 2, 3, 4, 5, 6, 99, 8, 9, 10, 11, 12};
    tsr_prefix_index *index = *state;
    int32_t a, b, c, ids[3];

    assert_found(index, text, 12, 11, NONE, 0, 0);
    a = add(index, NONE, 7, text, 4, true);
    b = add(index, a, 3, text + 4, 4, true);
    c = add(index, b, 5, text + 8, 2, true); // a partial one
    assert_found(index, text, 16, 15, c, 3, 10);
    assert_found(index, text, 10, 9, c, 3, 9); // the last token is not to be found
    assert_found(index, text, 9, 8, b, 2, 8);
    assert_found(index, text, 8, 7, b, 2, 7); // a part of a full column, to be copied
    assert_found(index, text, 6, 5, b, 2, 5);
    assert_found(index, text, 5, 4, a, 1, 4);
    assert_found(index, text, 1, 0, NONE, 0, 0);
    assert_found(index, other, 12, 11, b, 2, 6); // the common part
    assert_found(index, other + 1, 11, 10, NONE, 0, 0);
    assert_int_equal(tsr_prefix_index_n_nodes(index), 3);
    tsr_prefix_index_path(index, c, ids, 3);
    assert_int_equal(ids[0], 7);
    assert_int_equal(ids[1], 3);
    assert_int_equal(ids[2], 5);
    assert_int_equal(tsr_prefix_index_node_of(index, 3), b);
    assert_int_equal(tsr_prefix_index_node_of(index, 4), NONE);
    assert_int_equal(tsr_prefix_index_ancestor(index, c, 1), a);
    assert_int_equal(tsr_prefix_index_ancestor(index, c, 0), NONE);
    assert_int_equal(tsr_prefix_index_ancestor(index, b, 2), b);
}

static void the_same_tokens_behind_others_are_another_column(void **state)
{
    const int32_t same[] = {9, 9, 9, 9};
    const int32_t start[] = {1, 2, 3, 4};
    const int32_t twice[] = {1, 2, 3, 4, 9, 9, 9, 9, 1};
    tsr_prefix_index *index = *state;
    int32_t a, b;

    (void)add(index, NONE, 0, same, 4, true);
    a = add(index, NONE, 1, start, 4, true);
    assert_found(index, twice, 9, 8, a, 1, 4);
    b = add(index, a, 2, same, 4, true);
    assert_found(index, twice, 9, 8, b, 2, 8);
}

static void what_is_known_is_not_added_twice(void **state)
{
    tsr_prefix_index *index = *state;
    const int32_t a = add(index, NONE, 7, text, 4, true);
    int32_t b;

    assert_int_equal(add(index, NONE, 8, text, 4, false), a);
    b = add(index, a, 9, text + 4, 3, true);
    assert_int_equal(add(index, a, 10, text + 4, 2, false), b);    // a beginning of that
    assert_int_not_equal(add(index, a, 11, text + 4, 4, true), b); // more than that
    assert_int_equal(add(index, NONE, 9, text + 4, 3, false), b);  // has a node already
    assert_int_equal(tsr_prefix_index_n_nodes(index), 3);
}

static void texts_that_collide_never_share(void **state)
{
    const int32_t other[] = {1, 2, 3, 5, 5, 6, 7, 8, 9};
    tsr_prefix_index *index = *state;
    int32_t a, b, c, d;

    tsr_prefix_index_mask_hash(index, 0); // now all of them do
    a = add(index, NONE, 7, text, 4, true);
    b = add(index, a, 3, text + 4, 4, true);
    c = add(index, NONE, 4, other, 4, true);
    assert_found(index, other, 9, 8, c, 1, 4); // the second columns are the same, the first are not
    d = add(index, c, 5, other + 4, 4, true);
    assert_found(index, other, 9, 8, d, 2, 8);
    assert_found(index, text, 9, 8, b, 2, 8);
}

static void what_sees_everything_goes_with_all_that_is_below(void **state)
{
    const int32_t branch[] = {50, 51, 52, 53};
    tsr_prefix_index *index = *state;
    int32_t nodes[4];

    for (int i = 0; i < 4; i++) {
        nodes[i] = add(index, i == 0 ? NONE : nodes[i - 1], 1 + i, text + 4 * i, 4, true);
    }
    (void)add(index, nodes[1], 20, branch, 4, true);
    (void)add(index, nodes[0], 21, branch, 3, true);
    assert_int_equal(forget(index, 40), 0);
    assert_int_equal(forget(index, 2), 20040302); // the youngest first, each behind those below it
    assert_int_equal(tsr_prefix_index_n_nodes(index), 2);
    assert_found(index, text, 16, 15, nodes[0], 1, 4);
    assert_int_equal(tsr_prefix_index_node_of(index, 3), NONE);
}

static void without_its_window_a_text_is_not_gone_on_with_there(void **state)
{
    static const int32_t blocks[4][2] = {{10, 30}, {11, 31}, {12, 32}, {13, 33}};
    tsr_prefix_index *index = NULL;
    int32_t nodes[4], taken[2], ids[8];
    int n_taken;

    (void)state;
    assert_int_equal(tsr_prefix_index_create(&index, N, &mixed), TSR_OK);
    for (int i = 0; i < 4; i++) {
        nodes[i] = tsr_prefix_index_add(index, i == 0 ? NONE : nodes[i - 1], blocks[i],
                                        text + 4 * i, 4, taken, &n_taken);
        assert_int_equal(n_taken, 2);
    }
    assert_found(index, text, 16, 15, nodes[3], 4, 15);
    tsr_prefix_index_path(index, nodes[3], ids, 4);
    for (int i = 0; i < 8; i++) { // the second group's first two are not looked at any more
        assert_int_equal(ids[i], i % 2 == 1 && i < 4 ? TSR_BLOCK_NONE : blocks[i / 2][i % 2]);
    }
    assert_int_equal(forget(index, 30), 30);
    assert_found(index, text, 16, 15, nodes[3], 4, 15); // nobody there sees that
    assert_found(index, text, 8, 7, NONE, 0, 0);
    assert_int_equal(forget(index, 32), 32);
    assert_found(index, text, 16, 15, NONE, 0, 0); // 13 to 15 see it, 9 to 12 as well, 5 to 8 30
    assert_int_equal(tsr_prefix_index_n_nodes(index), 4);
    {
        // Somebody has computed it again: what is missing is taken, what is there is not.
        static const int32_t again[3][2] = {{20, 40}, {21, 41}, {22, 42}};

        assert_int_equal(tsr_prefix_index_add(index, NONE, again[0], text, 4, taken, &n_taken),
                         nodes[0]);
        assert_int_equal(n_taken, 1);
        assert_int_equal(taken[0], 40);
        assert_found(index, text, 8, 7, nodes[1], 2, 7);
        assert_int_equal(
            tsr_prefix_index_add(index, nodes[1], again[2], text + 8, 4, taken, &n_taken),
            nodes[2]);
        assert_int_equal(n_taken, 1);
        assert_int_equal(taken[0], 42);
        assert_found(index, text, 16, 15, nodes[3], 4, 15);
        assert_int_equal(tsr_prefix_index_blocks(index, nodes[2])[0], 12);
        assert_int_equal(tsr_prefix_index_blocks(index, nodes[2])[1], 42);
    }
    assert_true(tsr_prefix_index_verify(index));
    assert_int_equal(forget(index, 11), 133312421131); // with all that is below
    assert_int_equal(tsr_prefix_index_n_nodes(index), 1);
    tsr_prefix_index_destroy(index);
}

/* A text of 400 columns, of which two blocks are there at a time: its nodes stay as long as the
 * last one is held, and then they go. */
static void a_long_text_is_known_by_its_last_columns(void **state)
{
    int32_t tokens[400 * BT + 1];
    int32_t node = NONE;
    tsr_prefix_index *index = NULL;

    (void)state;
    for (int i = 0; i < 400 * BT + 1; i++) {
        tokens[i] = i / 7;
    }
    assert_int_equal(tsr_prefix_index_create(&index, 8, &window), TSR_OK);
    for (int c = 0; c < 400; c++) {
        const int32_t was = node;

        node = add(index, node, c % 3, tokens + c * BT, BT, true);
        tsr_prefix_index_hold(index, node);
        tsr_prefix_index_release(index, was);
        if (c >= 2) {
            assert_int_equal(forget(index, (c - 2) % 3), (c - 2) % 3);
        }
        assert_found(index, tokens, (c + 1) * BT + 1, (c + 1) * BT, node, c + 1, (c + 1) * BT);
        assert_int_equal(tsr_prefix_index_n_nodes(index), c + 1);
    }
    assert_found(index, tokens, 300 * BT, 300 * BT - 1, NONE, 0, 0);
    (void)forget(index, 398 % 3);
    assert_found(index, tokens, 400 * BT + 1, 400 * BT, NONE, 0, 0);
    (void)forget(index, 399 % 3);
    assert_int_equal(tsr_prefix_index_n_nodes(index), 400); // held
    assert_int_equal(tsr_prefix_index_n_held(index), 1);
    tsr_prefix_index_release(index, node);
    assert_int_equal(tsr_prefix_index_n_nodes(index), 0);
    assert_true(tsr_prefix_index_verify(index));
    tsr_prefix_index_destroy(index);
}

/* ---- against a plain list of texts ---- */

typedef struct known {
    int32_t parent;
    int32_t tokens[BT];
    int n_tokens; // 0: no node
    int n_holders;
    int32_t blocks[2]; // of the groups of `mixed`; NONE: given up
} known;

typedef struct plain {
    known all[N];    // by the index's numbers
    bool is_used[N]; // blocks
    int n_nodes;
} plain;

static int depth_of(const plain *p, int32_t id)
{
    return id == NONE ? 0 : 1 + depth_of(p, p->all[id].parent);
}

/* Has the second group what rows behind this node look at: its block and the one before? */
static bool goes_on(const plain *p, int32_t id)
{
    const int32_t parent = p->all[id].parent;

    return p->all[id].blocks[1] != NONE && (parent == NONE || p->all[parent].blocks[1] != NONE);
}

/* Of the nodes below `parent` one that begins with most of tokens [n]; *n_same. Others may begin
 * with as many: do any, do all of those go on? */
static int32_t closest(const plain *p, int32_t parent, const int32_t *tokens, int n, int *n_same,
                       bool *any, bool *all)
{
    int32_t best = NONE;

    *n_same = 0;
    *any = false;
    *all = true;
    for (int32_t id = 0; id < N; id++) {
        const known *k = &p->all[id];
        int same = 0;

        while (k->parent == parent && same < k->n_tokens && same < n &&
               k->tokens[same] == tokens[same]) {
            same++;
        }
        if (same > *n_same) {
            *n_same = same;
            *any = false;
            *all = true;
            best = id;
        }
        if (same > 0 && same == *n_same) {
            *any = *any || goes_on(p, id);
            *all = *all && goes_on(p, id);
        }
    }
    return best;
}

static void check(const tsr_prefix_index *index, const plain *p, uint64_t *dice)
{
    int32_t tokens[5 * BT];
    const int n = 1 + dice_below(dice, 5 * BT);
    int64_t longest = 0;
    int64_t longer = 0; // or that, by which of equals was looked at
    int32_t node = NONE;
    int at = 0;
    int n_same = BT;
    tsr_prefix_match match;

    for (int i = 0; i < n; i++) {
        tokens[i] = dice_below(dice, 2);
    }
    while (n_same == BT && at < n - 1) { // whole columns, and a part of one behind the last
        bool any, all;

        node =
            closest(p, node, tokens + at, n - 1 - at < BT ? n - 1 - at : BT, &n_same, &any, &all);
        at += n_same;
        longest = n_same > 0 && all ? at : longest;
        longer = n_same > 0 && any ? at : longest;
    }
    match = tsr_prefix_index_find(index, tokens, n, n - 1);
    assert_true(match.n_tokens == longest || match.n_tokens == longer);
    assert_int_equal(match.n_columns, (match.n_tokens + BT - 1) / BT);
    assert_int_equal(match.n_columns, depth_of(p, match.node));
    assert_true(match.node == NONE || goes_on(p, match.node));
    assert_int_equal(tsr_prefix_index_n_nodes(index), p->n_nodes);
    assert_true(tsr_prefix_index_verify(index));
}

static void add_at_random(tsr_prefix_index *index, plain *p, uint64_t *dice)
{
    int32_t parent = dice_below(dice, N + 6);
    known k = {.n_tokens = dice_below(dice, 3) == 0 ? 1 + dice_below(dice, BT) : BT};
    int32_t taken[2];
    int n_taken, n_same;
    int32_t id, same;
    bool any, all;

    k.parent = parent < N && p->all[parent].n_tokens == BT ? parent : NONE;
    for (int i = 0; i < k.n_tokens; i++) {
        k.tokens[i] = dice_below(dice, 2);
    }
    for (int g = 0; g < 2; g++) {
        k.blocks[g] = dice_below(dice, N / 2) * 2 + g;
        if (p->is_used[k.blocks[g]]) {
            return;
        }
    }
    same = closest(p, k.parent, k.tokens, k.n_tokens, &n_same, &any, &all);
    same = same != NONE && n_same == k.n_tokens ? same : NONE;
    id = tsr_prefix_index_add(index, k.parent, k.blocks, k.tokens, k.n_tokens, taken, &n_taken);
    if (same == NONE) {
        assert_int_equal(n_taken, 2);
        assert_int_equal(p->all[id].n_tokens, 0);
        p->all[id] = k;
        p->n_nodes++;
    } else {
        assert_int_equal(p->all[id].n_tokens >= k.n_tokens, true);
        if (n_taken == 1) { // what was missing
            assert_int_equal(k.n_tokens, BT);
            assert_int_equal(p->all[id].blocks[1], NONE);
            p->all[id].blocks[1] = k.blocks[1];
        }
    }
    for (int i = 0; i < n_taken; i++) {
        p->is_used[taken[i]] = true;
    }
}

/* Is somebody there who holds it, or one below it? */
static bool is_held(const plain *p, int32_t id)
{
    bool held = p->all[id].n_holders > 0;

    for (int32_t c = 0; c < N && !held; c++) {
        held = p->all[c].n_tokens > 0 && p->all[c].parent == id && is_held(p, c);
    }
    return held;
}

static void forget_at_random(tsr_prefix_index *index, plain *p, uint64_t *dice)
{
    const int32_t block = dice_below(dice, N);
    const int32_t id = tsr_prefix_index_node_of(index, block);
    int32_t given[N];
    int n;

    assert_int_equal(id != NONE, p->is_used[block]);
    if (id != NONE && block % 2 == 0 && is_held(p, id)) {
        return; // whoever holds a node has its blocks that see everything
    }
    n = tsr_prefix_index_forget(index, block, given);
    assert_true(id == NONE ? n == 0 : block % 2 == 0 ? n >= 1 : n == 1 && given[0] == block);
    for (int i = 0; i < n; i++) {
        p->is_used[given[i]] = false;
        for (int32_t k = 0; k < N; k++) {
            for (int g = 0; g < 2; g++) {
                if (p->all[k].n_tokens > 0 && p->all[k].blocks[g] == given[i]) {
                    int32_t above = k; // only what lies below the one that was meant goes

                    while (above != NONE && above != id) {
                        above = p->all[above].parent;
                    }
                    assert_int_equal(above, id);
                    p->all[k].blocks[g] = NONE;
                }
            }
        }
    }
    for (int32_t k = 0; k < N; k++) { // without the first block a node is none
        if (p->all[k].n_tokens > 0 && p->all[k].blocks[0] == NONE) {
            assert_int_equal(p->all[k].blocks[1], NONE);
            p->all[k] = (known){.parent = NONE};
            p->n_nodes--;
        }
    }
}

static void random_texts_are_found_like_in_a_plain_list(void **state)
{
    static plain p;
    tsr_prefix_index *index = NULL;
    uint64_t dice = 11;
    int n_held = 0;

    (void)state;
    p = (plain){0};
    assert_int_equal(tsr_prefix_index_create(&index, N, &mixed), TSR_OK);
    tsr_prefix_index_mask_hash(index, 3); // plenty of collisions
    for (int turn = 0; turn < 20000; turn++) {
        const int32_t id = dice_below(&dice, N);
        const int what = dice_below(&dice, 9);

        if (what < 5) {
            add_at_random(index, &p, &dice);
        } else if (what == 5 && p.all[id].n_tokens > 0) {
            tsr_prefix_index_hold(index, id);
            p.all[id].n_holders++;
            n_held++;
        } else if (what <= 7 && p.all[id].n_holders > 0) {
            tsr_prefix_index_release(index, id);
            p.all[id].n_holders--;
        } else if (what == 8) {
            forget_at_random(index, &p, &dice);
        }
        if (turn % 5 == 0) {
            check(index, &p, &dice);
        }
    }
    assert_true(n_held > 100 && p.n_nodes > 5);
    tsr_prefix_index_destroy(index);
}

static tsr_status make_and_drop(void *ctx)
{
    tsr_prefix_index *index = NULL;

    (void)ctx;
    TSR_TRY(tsr_prefix_index_create(&index, 10, &mixed));
    tsr_prefix_index_destroy(index);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    tsr_prefix_index *index = NULL;

    (void)state;
    assert_int_equal(torture(make_and_drop, NULL), 6);
    assert_int_equal(tsr_prefix_index_create(&index, 0, &whole), TSR_ERR_ARG);
    assert_int_equal(tsr_prefix_index_create(&index, 10, &(tsr_block_groups){.n = 1}), TSR_ERR_ARG);
    assert_int_equal(tsr_prefix_index_create(&index, 10, &(tsr_block_groups){.block_tokens = 16}),
                     TSR_ERR_ARG);
    assert_null(index);
    tsr_prefix_index_destroy(NULL);
}

#define WITH_INDEX(test) cmocka_unit_test_setup_teardown(test, make_index, drop_index)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_INDEX(what_was_added_is_found_as_far_as_it_is_the_same),
        WITH_INDEX(the_same_tokens_behind_others_are_another_column),
        WITH_INDEX(what_is_known_is_not_added_twice),
        WITH_INDEX(texts_that_collide_never_share),
        WITH_INDEX(what_sees_everything_goes_with_all_that_is_below),
        cmocka_unit_test(without_its_window_a_text_is_not_gone_on_with_there),
        cmocka_unit_test(a_long_text_is_known_by_its_last_columns),
        cmocka_unit_test(random_texts_are_found_like_in_a_plain_list),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("prefix_index", tests, NULL, NULL);
}
