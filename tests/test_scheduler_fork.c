#include "engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/scheduler_rig.h"

static void init(rig *g, const tsr_scheduler_options *options)
{
    rig_init(g, options);
    g->ranks.shares = true;
}

/* A request that begins with the first n_kept tokens of another and then goes on with n_more of its
 * own; all are its prompt. */
static tsr_request *branch_of(const tsr_request *parent, int64_t id, int64_t n_kept, int64_t n_more,
                              int max_tokens)
{
    int32_t tokens[MAX_PROMPT];
    uint64_t dice = (uint64_t)id;
    tsr_request *r = NULL;

    assert_true(n_kept <= parent->n_tokens && n_kept + n_more <= MAX_PROMPT);
    for (int64_t i = 0; i < n_kept + n_more; i++) {
        tokens[i] = i < n_kept ? parent->tokens[i] : dice_below(&dice, VOCAB);
    }
    assert_int_equal(tsr_request_create(&r, tokens, n_kept + n_more, max_tokens), TSR_OK);
    r->id = id;
    r->ignore_end = true;
    return r;
}

static tsr_request *fork_at(rig *g, const tsr_request *parent, int64_t id, int64_t n_kept,
                            int64_t n_more, int max_tokens)
{
    tsr_request *child = branch_of(parent, id, n_kept, n_more, max_tokens);

    child->submitted_ns = g->now_ns;
    assert_int_equal(tsr_scheduler_fork(g->scheduler, parent, child, n_kept), TSR_OK);
    assert_true(tsr_scheduler_verify(g->scheduler));
    return child;
}

static int n_held(const rig *g)
{
    return g->options.n_blocks - tsr_scheduler_n_free_blocks(g->scheduler);
}

static void a_child_takes_part_in_its_parents_blocks_and_copies_only_the_tail(void **state)
{
    rig g = {0};
    tsr_request *parent, *child;

    (void)state;
    init(&g, &roomy);
    parent = rig_submit(&g, 1, 18, 20); // in blocks of 4
    while (parent->n_cached < 18) {
        assert_true(rig_step(&g));
    }
    assert_int_equal(n_held(&g), 5);
    child = fork_at(&g, parent, 2, 18, 1, 20);
    assert_int_equal(child->n_cached, 18);
    assert_int_equal(child->state, TSR_REQUEST_RUNNING);
    assert_int_equal(n_held(&g), 5); // nothing yet
    assert_true(rig_plan(&g));
    assert_int_equal(g.step.n_rows, 2); // a token each
    assert_int_equal(g.step.n_copied, 1);
    assert_int_equal(g.step.n_appended, 6); // five to the child's lane, the tail once more
    rig_run(&g);
    assert_int_equal(n_held(&g), 6);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(parent->blocks.ids[i], child->blocks.ids[i]);
    }
    assert_int_not_equal(parent->blocks.ids[4], child->blocks.ids[4]);
    assert_true(rig_step(&g));
    assert_int_equal(g.step.n_copied, 0);
    rig_finish(&g);
    assert_int_equal(g.ranks.n_copied, 1);
    rig_clear(&g);
}

static void of_all_that_share_a_tail_the_last_to_write_needs_no_copy(void **state)
{
    rig g = {0};
    tsr_request *parent;

    (void)state;
    init(&g, &roomy);
    parent = rig_submit(&g, 1, 7, 10);
    assert_true(rig_step(&g));
    for (int i = 0; i < 3; i++) {
        (void)fork_at(&g, parent, 2 + i, 7, 1, 10);
    }
    assert_int_equal(n_held(&g), 2);
    assert_true(rig_step(&g));
    assert_int_equal(g.step.n_seqs, 4);
    assert_int_equal(g.step.n_copied, 3); // in the very step, not one after the other
    assert_int_equal(n_held(&g), 1 + 4);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_child_may_branch_off_anywhere_in_the_middle(void **state)
{
    rig g = {0};
    tsr_request *parent;

    (void)state;
    for (int64_t n_kept = 1; n_kept <= 20; n_kept++) {
        tsr_request *child;
        int64_t n_cached;

        init(&g, &roomy);
        parent = rig_submit(&g, 1, 18, 20);
        for (int i = 0; i < 5; i++) {
            assert_true(rig_step(&g));
        }
        assert_true(parent->n_cached >= 19);
        n_cached = n_kept < parent->n_cached ? n_kept : parent->n_cached;
        child = fork_at(&g, parent, 2, n_kept, 3, 5);
        assert_int_equal(child->n_cached, n_cached);
        assert_int_equal(child->blocks.n_blocks, (n_cached + 3) / 4);
        rig_finish(&g);
        rig_clear(&g);
    }
}

static void a_child_of_just_its_parents_tokens_computes_the_last_again(void **state)
{
    rig g = {0};

    (void)state;
    for (int64_t n_prompt = 7; n_prompt <= 8; n_prompt++) { // a tail, and a full block
        tsr_request *parent, *child;

        init(&g, &roomy);
        parent = rig_submit(&g, 1, n_prompt, 10);
        assert_true(rig_step(&g));
        child = fork_at(&g, parent, 2, n_prompt, 0, 10);
        assert_int_equal(child->n_cached, n_prompt - 1);
        assert_true(rig_step(&g));
        assert_int_equal(g.step.n_copied, 1);
        assert_int_equal(child->n_tokens, n_prompt + 1);
        assert_int_equal(child->tokens[n_prompt], parent->tokens[n_prompt]);
        rig_finish(&g);
        rig_clear(&g);
    }
}

static void a_child_may_have_generated_tokens_already(void **state)
{
    rig g = {0};
    tsr_request *parent, *child;

    (void)state;
    init(&g, &roomy);
    parent = rig_submit(&g, 1, 6, 12);
    for (int i = 0; i < 4; i++) {
        assert_true(rig_step(&g));
    }
    child = branch_of(parent, 2, 6, 0, 12);
    for (int64_t i = 6; i < parent->n_tokens; i++) {
        assert_int_equal(tsr_request_append(child, parent->tokens[i]), TSR_OK);
    }
    child->submitted_ns = g.now_ns;
    assert_int_equal(tsr_scheduler_fork(g.scheduler, parent, child, parent->n_tokens), TSR_OK);
    assert_int_equal(child->n_cached, parent->n_cached);
    assert_true(rig_step(&g));
    assert_int_equal(child->n_tokens, parent->n_tokens);
    rig_finish(&g);
    rig_clear(&g);
}

static void a_child_without_a_lane_rests_with_its_blocks(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *parent, *child;

    (void)state;
    options.max_seqs = 1;
    init(&g, &options);
    parent = rig_submit(&g, 1, 18, 6);
    while (parent->n_cached < 18) {
        assert_true(rig_step(&g));
    }
    child = fork_at(&g, parent, 2, 18, 2, 6);
    assert_int_equal(child->state, TSR_REQUEST_RESTING);
    while (parent->state != TSR_REQUEST_ENDED) {
        assert_true(rig_step(&g));
        assert_int_equal(child->n_cached, 18);
    }
    assert_int_equal(n_held(&g), 5); // the child's alone, now
    assert_true(rig_step(&g));
    assert_int_equal(g.step.n_rows, 2);
    assert_int_equal(g.step.n_left, 1);
    assert_int_equal(g.step.n_copied, 0); // the parent is gone: its tail is written on
    rig_finish(&g);
    rig_clear(&g);
}

static void whoever_rests_loses_its_blocks_before_anybody_is_put_back(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *parent, *child;

    (void)state;
    options.max_seqs = 1;
    options.n_blocks = 8;
    init(&g, &options);
    parent = rig_submit(&g, 1, 16, 16); // grows into all eight
    while (parent->n_cached < 22) {
        assert_true(rig_step(&g));
    }
    child = fork_at(&g, parent, 2, 22, 1, 4);
    while (parent->state != TSR_REQUEST_ENDED) { // copies its tail once, then needs the child's
        assert_true(rig_step(&g));
    }
    assert_int_equal(child->state, TSR_REQUEST_WAITING);
    assert_int_equal(parent->n_preempted, 0);
    rig_finish(&g);
    rig_clear(&g);
}

static void the_child_of_one_that_has_ended_starts_from_nothing(void **state)
{
    rig g = {0};
    tsr_request *parent, *child;

    (void)state;
    init(&g, &roomy);
    parent = rig_submit(&g, 1, 6, 1);
    assert_true(rig_step(&g));
    assert_int_equal(parent->state, TSR_REQUEST_ENDED);
    child = fork_at(&g, parent, 2, 6, 3, 4);
    assert_int_equal(child->state, TSR_REQUEST_WAITING);
    assert_int_equal(child->n_cached, 0);
    rig_finish(&g);
    rig_clear(&g);
}

/* ---- becoming another ---- */

static void a_sequence_becomes_another_where_they_differ(void **state)
{
    rig g = {0};
    tsr_request *all[3];
    int32_t tail, last;

    (void)state;
    init(&g, &roomy);
    all[0] = rig_submit(&g, 1, 6, 30);
    assert_true(rig_step(&g));
    for (int i = 1; i < 3; i++) {
        // As beams do: the same prompt, and another token behind it.
        all[i] = branch_of(all[0], 1 + i, 6, 0, 30);
        assert_int_equal(tsr_request_append(all[i], i), TSR_OK);
        all[i]->submitted_ns = g.now_ns;
        assert_int_equal(tsr_scheduler_fork(g.scheduler, all[0], all[i], 6), TSR_OK);
    }
    for (int i = 0; i < 5; i++) {
        assert_true(rig_step(&g));
    }
    tail = all[1]->blocks.ids[1];
    last = all[1]->tokens[6];
    assert_int_equal(all[0]->n_tokens, 12);
    tsr_alloc_fail_nth(1); // it takes none
    assert_int_equal(tsr_scheduler_refork(g.scheduler, all[1], all[0]), TSR_OK);
    assert_int_equal(tsr_scheduler_refork(g.scheduler, all[1], all[2]), TSR_OK);
    tsr_alloc_fail_nth(0);
    assert_true(tsr_scheduler_verify(g.scheduler));
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(all[i]->tokens, all[1]->tokens, 12 * sizeof(int32_t));
        assert_int_equal(all[i]->tokens[6], last);
        assert_int_equal(all[i]->blocks.ids[1], tail);
        assert_int_equal(all[i]->n_told, i == 1 ? 3 : 1); // the first block is the same as ever
    }
    assert_true(rig_plan(&g));
    // Told: the second and third block of both, and the copy of the third that the second to write
    // into it makes; the last to write keeps it.
    assert_int_equal(g.step.n_appended, 5);
    assert_int_equal(g.step.n_copied, 2);
    assert_int_equal(g.step.n_dropped, 4); // those that only the others had
    rig_run(&g);
    while (!tsr_scheduler_is_idle(g.scheduler)) {
        (void)rig_step(&g);
    }
    for (int i = 0; i < 3; i++) {
        tsr_request_destroy(tsr_scheduler_take_ended(g.scheduler));
    }
    assert_int_equal(tsr_scheduler_n_free_blocks(g.scheduler), g.options.n_blocks);
    rig_clear(&g);
}

static void one_that_rests_becomes_another_as_well(void **state)
{
    tsr_scheduler_options options = roomy;
    rig g = {0};
    tsr_request *parent, *child;
    int32_t others;

    (void)state;
    options.max_seqs = 1;
    init(&g, &options);
    parent = rig_submit(&g, 1, 10, 12);
    while (parent->n_tokens < 12) {
        assert_true(rig_step(&g));
    }
    others = (parent->tokens[11] + 1) % VOCAB;
    child = branch_of(parent, 2, 11, 0, 12);
    child->n_prompt = 10;
    assert_int_equal(tsr_request_append(child, others), TSR_OK);
    child->submitted_ns = g.now_ns;
    assert_int_equal(tsr_scheduler_fork(g.scheduler, parent, child, 11), TSR_OK);
    assert_int_equal(child->state, TSR_REQUEST_RESTING);
    assert_int_equal(tsr_scheduler_refork(g.scheduler, parent, child), TSR_OK);
    assert_true(tsr_scheduler_verify(g.scheduler));
    assert_int_equal(child->tokens[11], parent->tokens[11]);
    assert_int_equal(child->n_cached, parent->n_cached);
    child->max_tokens = 12;
    rig_finish(&g);
    rig_clear(&g);
}

/* ---- memory ---- */

static void running_out_of_memory_leaves_all_as_it_was(void **state)
{
    rig g = {0};
    tsr_request *all[2];
    tsr_status st = TSR_ERR_NOMEM;
    int n_failed = 0;

    (void)state;
    init(&g, &roomy);
    all[0] = rig_submit(&g, 1, 6, 20);
    assert_true(rig_step(&g));
    all[1] = branch_of(all[0], 2, 6, 0, 20);
    assert_int_equal(tsr_request_append(all[1], (all[0]->tokens[6] + 1) % VOCAB), TSR_OK);
    for (; st != TSR_OK; n_failed += st == TSR_OK ? 0 : 1) {
        tsr_alloc_fail_nth(n_failed + 1);
        st = tsr_scheduler_fork(g.scheduler, all[0], all[1], 6);
        tsr_alloc_fail_nth(0);
        assert_true(st == TSR_OK || all[1]->blocks.n_blocks == 0);
        assert_true(tsr_scheduler_verify(g.scheduler));
    }
    assert_true(n_failed > 0);
    while (!tsr_scheduler_is_idle(g.scheduler)) {
        (void)rig_step(&g);
    }
    for (int i = 0; i < 2; i++) {
        tsr_request_destroy(tsr_scheduler_take_ended(g.scheduler));
    }
    rig_clear(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_takes_part_in_its_parents_blocks_and_copies_only_the_tail),
        cmocka_unit_test(of_all_that_share_a_tail_the_last_to_write_needs_no_copy),
        cmocka_unit_test(a_child_may_branch_off_anywhere_in_the_middle),
        cmocka_unit_test(a_child_of_just_its_parents_tokens_computes_the_last_again),
        cmocka_unit_test(a_child_may_have_generated_tokens_already),
        cmocka_unit_test(a_child_without_a_lane_rests_with_its_blocks),
        cmocka_unit_test(whoever_rests_loses_its_blocks_before_anybody_is_put_back),
        cmocka_unit_test(the_child_of_one_that_has_ended_starts_from_nothing),
        cmocka_unit_test(a_sequence_becomes_another_where_they_differ),
        cmocka_unit_test(one_that_rests_becomes_another_as_well),
        cmocka_unit_test(running_out_of_memory_leaves_all_as_it_was),
    };

    return cmocka_run_group_tests_name("scheduler_fork", tests, NULL, NULL);
}
