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

static int make_index(void **state)
{
    return tsr_prefix_index_create((tsr_prefix_index **)state, N, BT) == TSR_OK ? 0 : -1;
}

static int drop_index(void **state)
{
    tsr_prefix_index_destroy(*state);
    return 0;
}

static int32_t add(tsr_prefix_index *index, int32_t parent, int32_t block, const int32_t *tokens,
                   int n, bool is_new)
{
    bool was_new = !is_new;
    const int32_t node = tsr_prefix_index_add(index, parent, block, tokens, n, &was_new);

    assert_int_equal(was_new, is_new);
    assert_true(tsr_prefix_index_verify(index));
    return node;
}

static void assert_found(const tsr_prefix_index *index, const int32_t *tokens, int64_t n,
                         int64_t n_most, int32_t node, int n_blocks, int64_t n_tokens)
{
    const tsr_prefix_match match = tsr_prefix_index_find(index, tokens, n, n_most);

    assert_int_equal(match.node, node);
    assert_int_equal(match.n_blocks, n_blocks);
    assert_int_equal(match.n_tokens, n_tokens);
}

static const int32_t text[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static void what_was_added_is_found_as_far_as_it_is_the_same(void **state)
{
    const int32_t other[] = {1, 2, 3, 4, 5, 6, 99, 8, 9, 10, 11, 12};
    tsr_prefix_index *index = *state;

    assert_found(index, text, 12, 11, NONE, 0, 0);
    assert_int_equal(add(index, NONE, 7, text, 4, true), 7);
    assert_int_equal(add(index, 7, 3, text + 4, 4, true), 3);
    assert_int_equal(add(index, 3, 5, text + 8, 2, true), 5); // a partial one
    assert_found(index, text, 16, 15, 5, 3, 10);
    assert_found(index, text, 10, 9, 5, 3, 9); // the last token is not to be found
    assert_found(index, text, 9, 8, 3, 2, 8);
    assert_found(index, text, 8, 7, 3, 2, 7); // a part of a full block, to be copied
    assert_found(index, text, 6, 5, 3, 2, 5);
    assert_found(index, text, 5, 4, 7, 1, 4);
    assert_found(index, text, 1, 0, NONE, 0, 0);
    assert_found(index, other, 12, 11, 3, 2, 6); // the common part
    assert_found(index, other + 1, 11, 10, NONE, 0, 0);
    assert_int_equal(tsr_prefix_index_n_nodes(index), 3);
    {
        int32_t ids[3];

        tsr_prefix_index_path(index, 5, ids, 3);
        assert_int_equal(ids[0], 7);
        assert_int_equal(ids[1], 3);
        assert_int_equal(ids[2], 5);
    }
    assert_int_equal(tsr_prefix_index_ancestor(index, 5, 1), 7);
    assert_int_equal(tsr_prefix_index_ancestor(index, 5, 0), NONE);
    assert_int_equal(tsr_prefix_index_ancestor(index, 3, 2), 3);
}

static void the_same_tokens_behind_others_are_another_block(void **state)
{
    const int32_t same[] = {9, 9, 9, 9};
    const int32_t start[] = {1, 2, 3, 4};
    const int32_t twice[] = {1, 2, 3, 4, 9, 9, 9, 9, 1};
    tsr_prefix_index *index = *state;

    assert_int_equal(add(index, NONE, 0, same, 4, true), 0);
    assert_int_equal(add(index, NONE, 1, start, 4, true), 1);
    assert_found(index, twice, 9, 8, 1, 1, 4);
    assert_int_equal(add(index, 1, 2, same, 4, true), 2);
    assert_found(index, twice, 9, 8, 2, 2, 8);
}

static void what_is_known_is_not_added_twice(void **state)
{
    tsr_prefix_index *index = *state;

    assert_int_equal(add(index, NONE, 7, text, 4, true), 7);
    assert_int_equal(add(index, NONE, 8, text, 4, false), 7);
    assert_int_equal(add(index, 7, 9, text + 4, 3, true), 9);
    assert_int_equal(add(index, 7, 10, text + 4, 2, false), 9);   // a beginning of that
    assert_int_equal(add(index, 7, 11, text + 4, 4, true), 11);   // more than that
    assert_int_equal(add(index, NONE, 9, text + 4, 3, false), 9); // a node already
    assert_int_equal(tsr_prefix_index_n_nodes(index), 3);
}

static void texts_that_collide_never_share(void **state)
{
    const int32_t other[] = {1, 2, 3, 5, 5, 6, 7, 8, 9};
    tsr_prefix_index *index = *state;

    tsr_prefix_index_mask_hash(index, 0); // now all of them do
    assert_int_equal(add(index, NONE, 7, text, 4, true), 7);
    assert_int_equal(add(index, 7, 3, text + 4, 4, true), 3);
    assert_int_equal(add(index, NONE, 4, other, 4, true), 4);
    assert_found(index, other, 9, 8, 4, 1, 4); // the second blocks are the same, the first are not
    assert_int_equal(add(index, 4, 5, other + 4, 4, true), 5);
    assert_found(index, other, 9, 8, 5, 2, 8);
    assert_found(index, text, 9, 8, 3, 2, 8);
}

static void the_one_used_longest_ago_goes_first_and_of_a_chain_the_deepest(void **state)
{
    static const int32_t order[] = {11, 10, 2, 1, 0};
    const int32_t other[] = {21, 22, 23, 24, 25, 26, 27, 28};
    tsr_prefix_index *index = *state;
    int32_t block;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(add(index, i - 1, i, text + 4 * i, 4, true), i);
    }
    assert_int_equal(add(index, NONE, 10, other, 4, true), 10);
    assert_int_equal(add(index, 10, 11, other + 4, 4, true), 11);
    tsr_prefix_index_hold(index, 2); // the older chain is used once more
    assert_int_equal(tsr_prefix_index_n_unheld(index), 2);
    assert_int_equal(tsr_prefix_index_n_idle(index, 2), 0);
    assert_int_equal(tsr_prefix_index_n_idle(index, 11), 2);
    tsr_prefix_index_release(index, 2);
    for (int i = 0; i < 5; i++) {
        assert_true(tsr_prefix_index_forget(index, &block));
        assert_int_equal(block, order[i]);
        assert_true(tsr_prefix_index_verify(index));
    }
    assert_false(tsr_prefix_index_forget(index, &block));
    assert_found(index, text, 9, 8, NONE, 0, 0);
}

static void what_is_held_stays_and_all_above_it(void **state)
{
    tsr_prefix_index *index = *state;
    int32_t block = NONE;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(add(index, i - 1, i, text + 4 * i, 4, true), i);
    }
    tsr_prefix_index_hold(index, 1);
    tsr_prefix_index_hold(index, 1);
    tsr_prefix_index_hold(index, NONE);
    assert_int_equal(tsr_prefix_index_n_holders(index, 1), 2);
    assert_true(tsr_prefix_index_forget(index, &block));
    assert_int_equal(block, 2);
    assert_false(tsr_prefix_index_forget(index, &block));
    tsr_prefix_index_release(index, 1);
    assert_false(tsr_prefix_index_forget(index, &block));
    tsr_prefix_index_release(index, 1);
    tsr_prefix_index_release(index, NONE);
    assert_true(tsr_prefix_index_forget(index, &block));
    assert_int_equal(block, 1);
}

static void a_cut_takes_all_that_is_below(void **state)
{
    const int32_t branch[] = {50, 51, 52, 53};
    tsr_prefix_index *index = *state;
    int32_t blocks[N];

    for (int i = 0; i < 4; i++) {
        assert_int_equal(add(index, i - 1, i, text + 4 * i, 4, true), i);
    }
    assert_int_equal(add(index, 1, 20, branch, 4, true), 20);
    assert_int_equal(add(index, 0, 21, branch, 3, true), 21);
    assert_int_equal(tsr_prefix_index_cut(index, 40, blocks), 0);
    assert_int_equal(tsr_prefix_index_cut(index, 1, blocks), 4); // 1, 2, 3 and 20
    assert_int_equal(blocks[3], 1);
    assert_true(tsr_prefix_index_verify(index));
    assert_int_equal(tsr_prefix_index_n_nodes(index), 2);
    assert_found(index, text, 16, 15, 0, 1, 4);
    assert_int_equal(tsr_prefix_index_depth(index, 2), 0);
}

/* ---- against a plain list of texts ---- */

typedef struct known {
    int32_t parent;
    int32_t tokens[BT];
    int n_tokens; // 0: no node
    int n_holders;
} known;

static known all[N];

/* How many of tokens [n] the chain down to this node begins with; all of the blocks above must fit
 * whole. */
static int64_t fits(int32_t id, const int32_t *tokens, int64_t n)
{
    const int64_t before = all[id].parent == NONE ? 0 : fits(all[id].parent, tokens, n);
    int depth = 0;
    int64_t same = 0;

    for (int32_t p = all[id].parent; p != NONE; p = all[p].parent) {
        depth++;
    }
    if (before < (int64_t)depth * BT) {
        return 0;
    }
    while (same < all[id].n_tokens && before + same < n &&
           all[id].tokens[same] == tokens[before + same]) {
        same++;
    }
    return before + same;
}

static bool is_kept(int32_t id)
{
    for (int32_t c = 0; c < N; c++) {
        if (all[c].n_tokens > 0 && all[c].parent == id && is_kept(c)) {
            return true;
        }
    }
    return all[id].n_holders > 0;
}

static void check(const tsr_prefix_index *index, uint64_t *dice)
{
    int32_t tokens[5 * BT];
    const int n = 1 + dice_below(dice, 5 * BT);
    int64_t longest = 0;
    int n_nodes = 0;
    int n_unheld = 0;
    tsr_prefix_match match;

    for (int i = 0; i < n; i++) {
        tokens[i] = dice_below(dice, 2);
    }
    for (int32_t id = 0; id < N; id++) {
        if (all[id].n_tokens > 0) {
            const int64_t same = fits(id, tokens, n - 1);

            longest = same > longest ? same : longest;
            n_nodes++;
            n_unheld += is_kept(id) ? 0 : 1;
        }
    }
    match = tsr_prefix_index_find(index, tokens, n, n - 1);
    assert_int_equal(match.n_tokens, longest);
    assert_int_equal(match.n_blocks, (longest + BT - 1) / BT);
    assert_true(match.node == NONE || fits(match.node, tokens, n - 1) == longest);
    assert_int_equal(tsr_prefix_index_n_nodes(index), n_nodes);
    assert_int_equal(tsr_prefix_index_n_unheld(index), n_unheld);
    assert_true(tsr_prefix_index_verify(index));
}

static void random_texts_are_found_like_in_a_plain_list(void **state)
{
    tsr_prefix_index *index = *state;
    uint64_t dice = 11;
    int n_forgotten = 0;

    memset(all, 0, sizeof(all));
    tsr_prefix_index_mask_hash(index, 3); // plenty of collisions
    for (int turn = 0; turn < 20000; turn++) {
        const int32_t id = dice_below(&dice, N);
        const int what = dice_below(&dice, 8);

        if (what < 4 && all[id].n_tokens == 0) {
            int32_t parent = dice_below(&dice, N + 6);
            known k = {.n_tokens = dice_below(&dice, 3) == 0 ? 1 + dice_below(&dice, BT) : BT};
            bool is_new;

            k.parent = parent < N && all[parent].n_tokens == BT ? parent : NONE;
            for (int i = 0; i < k.n_tokens; i++) {
                k.tokens[i] = dice_below(&dice, 2);
            }
            if (tsr_prefix_index_add(index, k.parent, id, k.tokens, k.n_tokens, &is_new) == id) {
                assert_true(is_new);
                all[id] = k;
            }
        } else if (what == 4 && all[id].n_tokens > 0) {
            tsr_prefix_index_hold(index, id);
            all[id].n_holders++;
        } else if (what <= 6 && all[id].n_holders > 0) {
            tsr_prefix_index_release(index, id);
            all[id].n_holders--;
        } else if (what == 7 && all[id].n_tokens > 0 && dice_below(&dice, 4) == 0) {
            int32_t blocks[N];

            if (dice_below(&dice, 4) > 0) {
                if (tsr_prefix_index_forget(index, &blocks[0])) {
                    assert_false(is_kept(blocks[0]));
                    all[blocks[0]].n_tokens = 0;
                    n_forgotten++;
                }
            } else if (!is_kept(id)) {
                for (int n = tsr_prefix_index_cut(index, id, blocks); n > 0; n--) {
                    all[blocks[n - 1]].n_tokens = 0;
                }
            }
        }
        if (turn % 5 == 0) {
            check(index, &dice);
        }
    }
    assert_true(n_forgotten > 100);
}

static tsr_status make_and_drop(void *ctx)
{
    tsr_prefix_index *index = NULL;

    (void)ctx;
    TSR_TRY(tsr_prefix_index_create(&index, 10, 16));
    tsr_prefix_index_destroy(index);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    tsr_prefix_index *index = NULL;

    (void)state;
    assert_int_equal(torture(make_and_drop, NULL), 5);
    assert_int_equal(tsr_prefix_index_create(&index, 0, 16), TSR_ERR_ARG);
    assert_int_equal(tsr_prefix_index_create(&index, 10, 0), TSR_ERR_ARG);
    assert_null(index);
    tsr_prefix_index_destroy(NULL);
}

#define WITH_INDEX(test) cmocka_unit_test_setup_teardown(test, make_index, drop_index)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_INDEX(what_was_added_is_found_as_far_as_it_is_the_same),
        WITH_INDEX(the_same_tokens_behind_others_are_another_block),
        WITH_INDEX(what_is_known_is_not_added_twice),
        WITH_INDEX(texts_that_collide_never_share),
        WITH_INDEX(the_one_used_longest_ago_goes_first_and_of_a_chain_the_deepest),
        WITH_INDEX(what_is_held_stays_and_all_above_it),
        WITH_INDEX(a_cut_takes_all_that_is_below),
        WITH_INDEX(random_texts_are_found_like_in_a_plain_list),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("prefix_index", tests, NULL, NULL);
}
