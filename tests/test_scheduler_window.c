/* Layers that see a window only: what sequences hold of them, planned without ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "engine/scheduler.h"

enum {
    N_VOCAB = 1000,
    BT = 16,
    LONG = 131072, // tokens of a long text
    CHUNK = 2048   // rows a step
};

typedef struct desk {
    tsr_scheduler_options options;
    tsr_scheduler *scheduler;
    tsr_step step;
    int32_t next[8];
    int64_t now_ns;
} desk;

/* Groups that see so far back each (0: everything). */
static tsr_block_groups groups_of(int n, const int64_t *reach)
{
    tsr_block_groups groups = {.n = n, .block_tokens = BT};

    for (int g = 0; g < n; g++) {
        groups.behind[g] = tsr_block_groups_behind(reach[g], BT);
    }
    return groups;
}

static void open_desk(desk *d, tsr_block_groups groups, int n_blocks, bool prefix_cache)
{
    tsr_step_limits limits;

    *d = (desk){.options = {
                    .groups = groups,
                    .max_batch_tokens = CHUNK,
                    .max_seqs = 8,
                    .block_tokens = BT,
                    .n_blocks = n_blocks,
                    .prefix_cache = prefix_cache,
                    .context = LONG + 4096,
                    .n_vocab = N_VOCAB,
                }};
    assert_int_equal(tsr_scheduler_create(&d->scheduler, &d->options), TSR_OK);
    limits = tsr_scheduler_step_limits(d->scheduler);
    assert_int_equal(tsr_step_init(&d->step, &limits), TSR_OK);
}

static void close_desk(desk *d)
{
    tsr_scheduler_destroy(d->scheduler);
    tsr_step_clear(&d->step);
}

static bool never(void *ctx, int32_t token)
{
    (void)ctx;
    (void)token;
    return false;
}

static int32_t token_at(int64_t text, int64_t i)
{
    return (int32_t)((text * 7919 + i * 31 + i / 97) % N_VOCAB);
}

/* A text's first n tokens. */
static tsr_request *ask(desk *d, int64_t text, int64_t n, int max_tokens)
{
    int32_t *prompt = tsr_alloc((size_t)n, sizeof(*prompt));
    tsr_request *r = NULL;

    for (int64_t i = 0; i < n; i++) {
        prompt[i] = token_at(text, i);
    }
    assert_int_equal(tsr_request_create(&r, prompt, n, max_tokens), TSR_OK);
    tsr_free(prompt);
    r->id = text;
    r->submitted_ns = d->now_ns;
    assert_int_equal(tsr_scheduler_submit(d->scheduler, r), TSR_OK);
    return r;
}

/* One step, in which every sequence goes on with its text. False: there was none. */
static bool take_step(desk *d)
{
    if (!tsr_scheduler_plan(d->scheduler, &d->step, ++d->now_ns)) {
        return false;
    }
    for (int s = 0; s < d->step.n_seqs; s++) {
        const tsr_request *r = tsr_scheduler_request_of(d->scheduler, s);

        d->next[s] = token_at(r->id, r->n_tokens);
    }
    tsr_scheduler_commit(d->scheduler, &d->step, d->next, never, NULL, ++d->now_ns);
    return true;
}

/* Until all have ended; most: the blocks that were ever held by sequences. */
static int run(desk *d)
{
    int most = 0;
    tsr_request *r;

    for (int n = 0; take_step(d); n++) {
        int n_held = 0;

        assert_true(n < 20000);
        if (n % 100 == 0) {
            assert_true(tsr_scheduler_verify(d->scheduler));
        }
        for (int s = 0; s < d->step.n_seqs; s++) {
            const tsr_request *planned = tsr_scheduler_request_of(d->scheduler, s);

            n_held += planned->blocks.n_blocks;
        }
        most = n_held > most ? n_held : most;
    }
    assert_true(tsr_scheduler_verify(d->scheduler));
    assert_true(tsr_scheduler_is_idle(d->scheduler));
    assert_int_equal(tsr_scheduler_n_free_blocks(d->scheduler), d->options.n_blocks);
    while ((r = tsr_scheduler_take_ended(d->scheduler)) != NULL) {
        assert_int_equal(r->reason, TSR_REASON_LENGTH);
        assert_int_equal(r->n_preempted, 0);
        tsr_request_destroy(r);
    }
    return most;
}

static void a_long_text_of_a_windowed_model_holds_its_window(void **state)
{
    const int64_t reach[] = {4096};
    const int n_chunk = CHUNK / BT;
    desk d;

    (void)state;
    for (int prefix_cache = 0; prefix_cache < 2; prefix_cache++) {
        // What the next row sees, the column before which it may go back to, and a chunk's rows.
        open_desk(&d, groups_of(1, reach), 4096 / BT + 1 + n_chunk, prefix_cache == 1);
        (void)ask(&d, 1, LONG, 300);
        assert_int_equal(run(&d), 4096 / BT + 1);
        close_desk(&d);
    }
}

static void a_long_text_of_a_mixed_model_holds_all_of_the_global_layers_alone(void **state)
{
    /* as Gemma 3 has it: one layer in six sees everything, the others 1,024 positions */
    const int64_t reach[] = {0, 1024, 1024, 1024, 1024, 1024};
    const int n_global = (LONG + 300) / BT + 1;
    const int n_local = 5 * (1024 / BT + 1);
    desk d;

    (void)state;
    for (int prefix_cache = 0; prefix_cache < 2; prefix_cache++) {
        open_desk(&d, groups_of(6, reach), n_global + n_local + 6 * CHUNK / BT, prefix_cache == 1);
        (void)ask(&d, 1, LONG, 300);
        {
            const int most = run(&d);

            assert_true(most <= n_global + n_local);
            assert_true(most >= n_global + n_local - 6); // and not less: it needs those
        }
        close_desk(&d);
    }
}

static void it_gets_along_with_no_more_than_what_it_must_hold(void **state)
{
    const int64_t reach[] = {100, 0};
    const tsr_block_groups groups = groups_of(2, reach);
    const int n_least = (int)tsr_block_groups_most(&groups, 5000, 0);
    desk d;

    (void)state;
    // 313 columns of one, 7 + 2 of the other: its rows go in one column at a time in the end.
    assert_int_equal(n_least, 313 + 9);
    open_desk(&d, groups, n_least, true);
    (void)ask(&d, 1, 4000, 1000);
    (void)run(&d);
    close_desk(&d);
    // One block less, and it is refused, with what would fit.
    open_desk(&d, groups, n_least - 1, true);
    {
        int32_t *prompt = tsr_alloc(5000, sizeof(*prompt));
        tsr_request *r = NULL;

        assert_int_equal(tsr_request_create(&r, prompt, 5000, 1), TSR_OK);
        assert_int_equal(tsr_scheduler_submit(d.scheduler, r), TSR_ERR_UNSUPPORTED);
        assert_non_null(strstr(tsr_status_message(), "at most 4992 tokens fit"));
        tsr_request_destroy(r);
        tsr_free(prompt);
    }
    close_desk(&d);
}

static void a_sequence_that_outgrows_the_pool_fails_and_windows_never_do(void **state)
{
    const int64_t mixed[] = {64, 0};
    const int64_t window[] = {64};
    desk d;
    tsr_request *r;

    (void)state;
    open_desk(&d, groups_of(2, mixed), 40, false);
    (void)ask(&d, 1, 100, 2000);
    while (take_step(&d)) {
        assert_true(tsr_scheduler_verify(d.scheduler));
    }
    r = tsr_scheduler_take_ended(d.scheduler);
    assert_int_equal(r->reason, TSR_REASON_FAILED);
    // 34 of one and 4 + 2 of the other.
    assert_int_equal(r->n_cached, 0);
    assert_int_equal(r->n_tokens, 34 * BT + 1);
    tsr_request_destroy(r);
    close_desk(&d);
    open_desk(&d, groups_of(1, window), 6, false);
    (void)ask(&d, 1, 100, 2000);
    assert_int_equal(run(&d), 4 + 1);
    close_desk(&d);
}

static void what_was_left_is_found_again_while_nobody_needs_its_room(void **state)
{
    const int64_t reach[] = {0, 128};
    const int64_t window[] = {128};
    desk d;
    tsr_request *r;

    (void)state;
    // Room for all: a text that begins alike for 3,000 tokens is gone on with there, though the
    // first has moved far beyond.
    open_desk(&d, groups_of(2, reach), 2 * 600, true);
    (void)ask(&d, 1, 5000, 20);
    (void)run(&d);
    r = ask(&d, 1, 3000, 1);
    assert_true(take_step(&d));
    assert_int_equal(r->n_reused, 2999);
    (void)run(&d);
    close_desk(&d);
    // Little room: what was left went first. The end of the text, and what it sees, is there.
    open_desk(&d, groups_of(1, window), 20, true);
    (void)ask(&d, 1, 5000, 20);
    (void)run(&d);
    r = ask(&d, 1, 3000, 1);
    assert_true(take_step(&d));
    assert_int_equal(r->n_reused, 0);
    (void)run(&d);
    close_desk(&d);
    open_desk(&d, groups_of(1, window), 20, true);
    (void)ask(&d, 1, 5000, 20);
    (void)run(&d);
    r = ask(&d, 1, 5200, 1); // the conversation goes on
    assert_true(take_step(&d));
    assert_int_equal(r->n_reused, 5019); // all but its last token was in the cache
    (void)run(&d);
    close_desk(&d);
}

static void a_fork_goes_on_where_its_window_is_and_else_begins_anew(void **state)
{
    const int64_t reach[] = {64, 0};
    tsr_request *parent, *near, *far;
    desk d;

    (void)state;
    open_desk(&d, groups_of(2, reach), 400, false);
    parent = ask(&d, 1, 1000, 50);
    while (parent->n_cached < 1000) {
        assert_true(take_step(&d));
    }
    assert_int_equal(tsr_request_copy(&near, parent), TSR_OK);
    assert_int_equal(tsr_request_copy(&far, parent), TSR_OK);
    assert_int_equal(tsr_scheduler_fork(d.scheduler, parent, near, parent->n_tokens), TSR_OK);
    assert_int_equal(tsr_scheduler_fork(d.scheduler, parent, far, 500), TSR_OK);
    assert_int_equal(near->n_cached,
                     parent->n_cached < near->n_tokens ? parent->n_cached : near->n_tokens - 1);
    assert_int_equal(near->blocks.n_blocks, parent->blocks.n_blocks);
    assert_int_equal(far->n_cached, 0); // what its row 500 would see has been left
    assert_int_equal(far->blocks.n_blocks, 0);
    assert_true(tsr_scheduler_verify(d.scheduler));
    (void)run(&d);
    close_desk(&d);
}

static void a_refork_takes_over_tokens_whose_blocks_are_gone(void **state)
{
    const int64_t reach[] = {64};
    tsr_request *one, *other;
    desk d;

    (void)state;
    open_desk(&d, groups_of(1, reach), 40, false);
    one = ask(&d, 1, 100, 400);
    assert_true(take_step(&d));
    assert_int_equal(tsr_request_copy(&other, one), TSR_OK);
    other->id = 2; // goes on with another text
    assert_int_equal(tsr_scheduler_fork(d.scheduler, one, other, one->n_tokens), TSR_OK);
    while (one->n_tokens < 300) { // where they part no row looks any more
        assert_true(take_step(&d));
    }
    assert_int_equal(one->n_tokens, other->n_tokens);
    assert_int_not_equal(one->tokens[150], other->tokens[150]);
    assert_int_equal(one->blocks.ids[0], TSR_BLOCK_NONE);
    assert_int_equal(tsr_scheduler_refork(d.scheduler, one, other), TSR_OK);
    assert_memory_equal(one->tokens, other->tokens, (size_t)one->n_tokens * sizeof(int32_t));
    assert_true(tsr_scheduler_verify(d.scheduler));
    (void)run(&d);
    close_desk(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_text_of_a_windowed_model_holds_its_window),
        cmocka_unit_test(a_long_text_of_a_mixed_model_holds_all_of_the_global_layers_alone),
        cmocka_unit_test(it_gets_along_with_no_more_than_what_it_must_hold),
        cmocka_unit_test(a_sequence_that_outgrows_the_pool_fails_and_windows_never_do),
        cmocka_unit_test(what_was_left_is_found_again_while_nobody_needs_its_room),
        cmocka_unit_test(a_fork_goes_on_where_its_window_is_and_else_begins_anew),
        cmocka_unit_test(a_refork_takes_over_tokens_whose_blocks_are_gone),
    };

    return cmocka_run_group_tests_name("scheduler_window", tests, NULL, NULL);
}
