/* Bookkeeping and storage together, under operations at random, held to a simple model: a sequence
 * is its tokens, and every rank must read just those, wherever the blocks are. What fails is made
 * smaller and printed. test_scheduler_memory N does N operations instead of a million. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "kernels/task_queue.h"
#include "tests/support/dice.h"
#include "tests/support/scratch.h"
#include "tests/support/store_ranks.h"

enum {
    N_VOCAB = 1000,
    END_TOKEN = 7,
    MOST_LIVE = 12,
    MOST_TOKENS = 160,
    N_STORIES = 6,
    EPISODE_OPS = 1500,
    DRAIN_STEPS = 3000,
    SHRINK_S = 60,
    TRIES = 3 // threads of the storage make some failures rare
};

typedef enum op_kind {
    OP_SUBMIT,
    OP_STEP,
    OP_BRANCH, // a child with other tokens
    OP_SAMPLE, // a child with the same prompt and another token behind it
    OP_REFORK,
    OP_CANCEL,
    OP_STOP,
    OP_FAULT,
    OP_KIND_COUNT
} op_kind;

static const char *const op_names[OP_KIND_COUNT] = {"submit", "step",   "branch", "sample",
                                                    "refork", "cancel", "stop",   "fault"};

/* What the numbers mean depends on what there is, so that any operation can be left out. */
typedef struct op {
    op_kind kind;
    uint32_t a, b, c;
} op;

typedef struct counts {
    int64_t n_ops, n_rows, n_appended, n_freed, n_left, n_copied, n_down, n_up, n_hits, n_forks,
        n_forgotten, n_ended, n_cancelled, n_put_back, n_faults, n_spoilt;
} counts;

typedef struct world {
    tsr_scheduler_options options;
    tsr_scheduler *scheduler;
    tsr_step step;
    store_ranks ranks;
    int64_t now_ns;
    int64_t next_id;
    tsr_request *live[MOST_LIVE];
    int n_live;
    int32_t stories[N_STORIES][MOST_TOKENS]; // what prompts begin with
    int story_tokens[N_STORIES];
    counts n;
    char why[240];
} world;

#define CHECK(w, condition)                                                                      \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            (void)snprintf((w)->why, sizeof((w)->why), "test_scheduler_memory.c:%d: not so: %s", \
                           __LINE__, #condition);                                                \
            return false;                                                                        \
        }                                                                                        \
    } while (0)

static bool token_ends(void *ctx, int32_t token)
{
    (void)ctx;
    return token == END_TOKEN;
}

/* ---- a world, by a number ---- */

/* Layers that see everything, windows, or some of both. */
static void choose_groups(tsr_block_groups *groups, int64_t *reach, uint64_t *dice)
{
    *groups = (tsr_block_groups){.n = 1 + dice_below(dice, 3)};
    for (int g = 0; g < groups->n; g++) {
        reach[g] = dice_below(dice, 2) == 0 ? 0 : 1 + dice_below(dice, 50);
        groups->behind[g] = tsr_block_groups_behind(reach[g], STORE_BLOCK_TOKENS);
    }
}

static bool make_world(world *w, uint64_t seed)
{
    uint64_t dice = seed;
    store_room room = {.n_device = 4 + dice_below(&dice, 14)};
    tsr_block_groups groups;
    tsr_step_limits limits;

    *w = (world){0};
    if (dice_below(&dice, 8) > 0) {
        room.n_host = 1 + dice_below(&dice, 10);
        room.n_disk = dice_below(&dice, 3) > 0 ? 1 + dice_below(&dice, 16) : 0;
    }
    choose_groups(&groups, room.reach, &dice);
    room.n_device *= groups.n;
    room.n_host *= groups.n;
    room.n_disk *= groups.n;
    w->options = (tsr_scheduler_options){
        .groups = groups,
        .max_batch_tokens = 12 + dice_below(&dice, 60),
        .max_seqs = 1 + dice_below(&dice, 6),
        .block_tokens = STORE_BLOCK_TOKENS,
        .n_blocks = room.n_device + room.n_host + room.n_disk,
        .n_device_blocks = room.n_host + room.n_disk > 0 ? room.n_device : 0,
        .n_host_blocks = room.n_host,
        .block_bytes = 768,
        .preempt = (tsr_preempt)dice_below(&dice, TSR_PREEMPT_COUNT),
        .prefix_cache = dice_below(&dice, 5) > 0,
        .context = MOST_TOKENS,
        .n_vocab = N_VOCAB,
    };
    CHECK(w, tsr_scheduler_create(&w->scheduler, &w->options) == TSR_OK);
    limits = tsr_scheduler_step_limits(w->scheduler);
    CHECK(w, tsr_step_init(&w->step, &limits) == TSR_OK);
    if (!store_ranks_open(&w->ranks, 1 + dice_below(&dice, STORE_RANKS), &limits, &room,
                          scratch_folder())) {
        (void)snprintf(w->why, sizeof(w->why), "%s", w->ranks.why);
        return false;
    }
    for (int s = 0; s < N_STORIES; s++) {
        w->story_tokens[s] = 16 + dice_below(&dice, MOST_TOKENS - 40);
        for (int i = 0; i < w->story_tokens[s]; i++) {
            w->stories[s][i] = s > 0 && i < 20 ? w->stories[0][i] : dice_below(&dice, N_VOCAB);
        }
    }
    return true;
}

static void drop_world(world *w)
{
    tsr_request *r;

    while (w->scheduler != NULL && (r = tsr_scheduler_take_ended(w->scheduler)) != NULL) {
    }
    tsr_scheduler_destroy(w->scheduler);
    for (int i = 0; i < w->n_live; i++) {
        tsr_request_destroy(w->live[i]);
    }
    tsr_step_clear(&w->step);
    store_ranks_close(&w->ranks);
}

/* ---- operations ---- */

/* Whoever has ended has the tokens it must have; its text may be gone on with. */
static bool take_ended(world *w)
{
    tsr_request *r;

    while ((r = tsr_scheduler_take_ended(w->scheduler)) != NULL) {
        const int story = (int)(r->id % N_STORIES);

        for (int64_t i = r->n_prompt; i < r->n_tokens; i++) {
            const int32_t next = store_ranks_next(r->tokens, i, N_VOCAB);

            // One more than that is what a sample begins with.
            CHECK(w, r->tokens[i] == next || r->tokens[i] == (next + 1) % N_VOCAB);
        }
        CHECK(w, r->blocks.n_blocks == 0 && r->lane == -1 && r->n_reused <= r->n_prompt);
        if (r->n_tokens < MOST_TOKENS - 40) {
            w->story_tokens[story] = (int)r->n_tokens;
            memcpy(w->stories[story], r->tokens, (size_t)r->n_tokens * sizeof(*r->tokens));
        }
        w->n.n_ended++;
        w->n.n_cancelled += r->reason == TSR_REASON_CANCELLED ? 1 : 0;
        w->n.n_hits += r->n_reused > 0 ? 1 : 0;
        w->n.n_put_back += r->n_preempted;
        for (int i = 0; i < w->n_live; i++) {
            if (w->live[i] == r) {
                w->live[i] = w->live[--w->n_live];
                break;
            }
        }
        tsr_request_destroy(r);
    }
    return true;
}

static bool do_submit(world *w, const op *o)
{
    const int story = (int)(o->a % N_STORIES);
    int n_prompt = 1 + (int)(o->b % (uint32_t)w->story_tokens[story]);
    int32_t tokens[MOST_TOKENS];
    uint64_t dice = o->c;
    tsr_request *r = NULL;
    tsr_status st;

    if (w->n_live == MOST_LIVE) {
        return true;
    }
    memcpy(tokens, w->stories[story], (size_t)n_prompt * sizeof(*tokens));
    for (int more = dice_below(&dice, 24); more > 0; more--) {
        tokens[n_prompt++] = dice_below(&dice, N_VOCAB);
    }
    CHECK(w, tsr_request_create(&r, tokens, n_prompt, dice_below(&dice, 90)) == TSR_OK);
    r->id = w->next_id++;
    r->ignore_end = dice_below(&dice, 2) == 0;
    r->score = dice_below(&dice, 8) == 0;
    r->priority = dice_below(&dice, 3);
    r->submitted_ns = w->now_ns;
    st = tsr_scheduler_submit(w->scheduler, r);
    if (st != TSR_OK) {
        tsr_request_destroy(r);
        CHECK(w, st == TSR_ERR_UNSUPPORTED); // longer than all there is
        return true;
    }
    w->live[w->n_live++] = r;
    return true;
}

static bool do_step(world *w)
{
    int64_t n_free = tsr_scheduler_n_free_blocks(w->scheduler);
    bool busy;

    w->now_ns += 1000;
    busy = tsr_scheduler_plan(w->scheduler, &w->step, w->now_ns);
    CHECK(w, tsr_scheduler_verify(w->scheduler));
    n_free -= tsr_scheduler_n_free_blocks(w->scheduler);
    w->n.n_forgotten += w->step.n_dropped > 0 && n_free > 0 ? 1 : 0;
    if (busy) {
        CHECK(w, w->step.n_rows <= w->options.max_batch_tokens);
        if (!store_ranks_run(&w->ranks, w->scheduler, &w->step)) {
            (void)snprintf(w->why, sizeof(w->why), "%s", w->ranks.why);
            return false;
        }
        if (w->ranks.report.is_spoilt) {
            tsr_scheduler_void(w->scheduler, w->now_ns);
        } else {
            tsr_scheduler_commit(w->scheduler, &w->step, w->ranks.next, token_ends, NULL,
                                 w->now_ns);
        }
        if (w->options.n_device_blocks > 0) {
            tsr_scheduler_note_report(w->scheduler, &w->ranks.report);
        }
        CHECK(w, tsr_scheduler_verify(w->scheduler));
    }
    return take_ended(w);
}

static bool add_child(world *w, const tsr_request *parent, tsr_request *child, int64_t n_kept)
{
    child->id = w->next_id++;
    child->ignore_end = true;
    child->submitted_ns = w->now_ns;
    if (tsr_scheduler_fork(w->scheduler, parent, child, n_kept) != TSR_OK) {
        tsr_request_destroy(child); // longer than all there is
        return true;
    }
    w->live[w->n_live++] = child;
    w->n.n_forks++;
    CHECK(w, tsr_scheduler_verify(w->scheduler));
    return true;
}

static bool do_branch(world *w, const op *o)
{
    const tsr_request *parent = w->n_live > 0 ? w->live[o->a % (uint32_t)w->n_live] : NULL;
    int32_t tokens[MOST_TOKENS];
    uint64_t dice = o->c;
    tsr_request *child = NULL;
    int64_t n;

    if (parent == NULL || w->n_live == MOST_LIVE || parent->n_tokens > MOST_TOKENS - 30) {
        return true;
    }
    n = 1 + o->b % (uint32_t)parent->n_tokens;
    memcpy(tokens, parent->tokens, (size_t)n * sizeof(*tokens));
    for (int more = dice_below(&dice, 20); more > 0; more--) {
        tokens[n++] = dice_below(&dice, N_VOCAB);
    }
    CHECK(w, tsr_request_create(&child, tokens, n, dice_below(&dice, 30)) == TSR_OK);
    return add_child(w, parent, child, 1 + o->b % (uint32_t)parent->n_tokens);
}

static bool do_sample(world *w, const op *o)
{
    const tsr_request *parent = w->n_live > 0 ? w->live[o->a % (uint32_t)w->n_live] : NULL;
    tsr_request *child = NULL;

    if (parent == NULL || w->n_live == MOST_LIVE || parent->n_tokens > MOST_TOKENS - 2 ||
        parent->max_tokens < 2) {
        return true;
    }
    CHECK(w, tsr_request_create(&child, parent->tokens, parent->n_prompt, parent->max_tokens) ==
                 TSR_OK);
    CHECK(w, tsr_request_append(child,
                                (store_ranks_next(child->tokens, child->n_prompt, N_VOCAB) + 1) %
                                    N_VOCAB) == TSR_OK);
    return add_child(w, parent, child, parent->n_prompt);
}

static bool do_refork(world *w, const op *o)
{
    tsr_request *alike[MOST_LIVE];
    uint64_t dice = o->b;
    int n = 0;

    for (int i = 0; i < w->n_live; i++) {
        const tsr_request *first = w->live[(o->a + (uint32_t)i) % (uint32_t)w->n_live];

        if (n == 0 || (first->n_tokens == alike[0]->n_tokens &&
                       first->n_prompt == alike[0]->n_prompt && first->score == alike[0]->score)) {
            alike[n++] = w->live[(o->a + (uint32_t)i) % (uint32_t)w->n_live];
        }
    }
    if (n < 2) {
        return true;
    }
    for (int i = 0; i < n; i++) {
        const int from = dice_below(&dice, n);

        if (from != i) {
            CHECK(w, tsr_scheduler_refork(w->scheduler, alike[from], alike[i]) == TSR_OK);
        }
    }
    w->n.n_forks++;
    CHECK(w, tsr_scheduler_verify(w->scheduler));
    return true;
}

static bool do_op(world *w, const op *o)
{
    w->n.n_ops++;
    switch (o->kind) {
    case OP_SUBMIT:
        return do_submit(w, o);
    case OP_BRANCH:
        return do_branch(w, o);
    case OP_SAMPLE:
        return do_sample(w, o);
    case OP_REFORK:
        return do_refork(w, o);
    case OP_CANCEL:
    case OP_STOP:
        if (w->n_live > 0) {
            tsr_request *r = w->live[o->a % (uint32_t)w->n_live];

            if (o->kind == OP_CANCEL) {
                tsr_scheduler_cancel(w->scheduler, r);
            } else {
                tsr_scheduler_stop(w->scheduler, r);
            }
            CHECK(w, tsr_scheduler_verify(w->scheduler));
            return take_ended(w);
        }
        return true;
    case OP_FAULT:
        // Copies fail now and then; the disk for a while.
        tsr_task_queue_fail((tsr_task_kind)(o->a % TSR_TASK_KIND_COUNT), 1 + o->b % 30,
                            o->a % TSR_TASK_KIND_COUNT == TSR_TASK_COPY ? 1 : 1 + o->c % 12);
        w->n.n_faults++;
        return true;
    default:
        return do_step(w);
    }
}

/* All end, and nothing is left over. */
static bool drain(world *w)
{
    for (int n = 0; !tsr_scheduler_is_idle(w->scheduler); n++) {
        CHECK(w, n < DRAIN_STEPS);
        if (!do_step(w)) {
            return false;
        }
    }
    CHECK(w, w->n_live == 0);
    CHECK(w, tsr_scheduler_n_free_blocks(w->scheduler) == w->options.n_blocks);
    return true;
}

/* ---- episodes ---- */

static bool play(uint64_t seed, const op *ops, int n_ops, counts *n, char why[240])
{
    world w;
    bool is_sound = make_world(&w, seed);

    for (int i = 0; is_sound && i < n_ops; i++) {
        is_sound = do_op(&w, &ops[i]);
    }
    tsr_task_queue_fail(TSR_TASK_COPY, 1, 0);
    is_sound = is_sound && drain(&w);
    if (n != NULL && w.scheduler != NULL) {
        const counts c = w.n;
        int64_t n_down, n_up;

        store_ranks_moves(&w.ranks, &n_down, &n_up);
        *n = (counts){n->n_ops + c.n_ops,
                      n->n_rows + w.ranks.n_rows,
                      n->n_appended + w.ranks.n_appended,
                      n->n_freed + w.ranks.n_dropped,
                      n->n_left + w.ranks.n_left,
                      n->n_copied + w.ranks.n_copied,
                      n->n_down + n_down,
                      n->n_up + n_up,
                      n->n_hits + c.n_hits,
                      n->n_forks + c.n_forks,
                      n->n_forgotten + c.n_forgotten,
                      n->n_ended + c.n_ended,
                      n->n_cancelled + c.n_cancelled,
                      n->n_put_back + c.n_put_back,
                      n->n_faults + c.n_faults,
                      n->n_spoilt + w.ranks.n_spoilt};
    }
    if (!is_sound) {
        memcpy(why, w.why, sizeof(w.why));
    }
    drop_world(&w);
    return is_sound;
}

static bool still_fails(uint64_t seed, const op *ops, int n_ops, char why[240])
{
    for (int i = 0; i < TRIES; i++) {
        if (!play(seed, ops, n_ops, NULL, why)) {
            return true;
        }
    }
    return false;
}

/* Leave out runs of operations, long ones first, as long as it fails without them, for a while. */
static int shrink(uint64_t seed, op *ops, int n_ops, char why[240])
{
    const int64_t until_ns = tsr_clock_ns() + SHRINK_S * (int64_t)1000000000;
    op *fewer = tsr_alloc((size_t)n_ops, sizeof(*fewer));

    for (int run = n_ops / 2; fewer != NULL && run > 0; run = run > 1 ? (run + 1) / 2 : 0) {
        for (int at = 0; at < n_ops && tsr_clock_ns() < until_ns;) {
            const int end = at + run < n_ops ? at + run : n_ops;
            const int n = n_ops - (end - at);

            memcpy(fewer, ops, (size_t)at * sizeof(*ops));
            memcpy(fewer + at, ops + end, (size_t)(n_ops - end) * sizeof(*ops));
            if (still_fails(seed, fewer, n, why)) {
                memcpy(ops, fewer, (size_t)n * sizeof(*ops));
                n_ops = n;
            } else {
                at = end;
            }
        }
    }
    tsr_free(fewer);
    return n_ops;
}

static void draw(op *ops, int n_ops, uint64_t *dice)
{
    static const int shares[OP_KIND_COUNT] = {10, 76, 3, 3, 3, 2, 1, 2};

    for (int i = 0; i < n_ops; i++) {
        int at = dice_below(dice, 100);
        int kind = 0;

        for (; at >= shares[kind]; kind++) {
            at -= shares[kind];
        }
        ops[i] = (op){(op_kind)kind, (uint32_t)dice_below(dice, INT32_MAX),
                      (uint32_t)dice_below(dice, INT32_MAX), (uint32_t)dice_below(dice, INT32_MAX)};
    }
}

static int64_t n_wanted = 1000000;

/* Of those that the sentence at the head of this file counts. */
static int64_t total(const counts *n)
{
    return n->n_ops + n->n_rows + n->n_appended + n->n_freed + n->n_left + n->n_copied + n->n_down +
           n->n_up;
}

static void under_any_operations_every_rank_reads_what_was_written(void **state)
{
    static op ops[EPISODE_OPS];
    counts n = {0};
    char why[240] = "";

    (void)state;
    tsr_log_set_level(TSR_LOG_ERROR); // what the storage warns of is meant here
    for (uint64_t seed = 1; total(&n) < n_wanted; seed++) {
        uint64_t dice = seed * 7919;

        draw(ops, EPISODE_OPS, &dice);
        if (!play(seed, ops, EPISODE_OPS, &n, why)) {
            int n_ops;

            print_error("seed %llu, %d operations: %s\n", (unsigned long long)seed, EPISODE_OPS,
                        why);
            n_ops = shrink(seed, ops, EPISODE_OPS, why);
            print_error("seed %llu, %d operations: %s\n", (unsigned long long)seed, n_ops, why);
            for (int i = 0; i < n_ops && i < 200; i++) {
                print_error("  %s %u %u %u\n", op_names[ops[i].kind], ops[i].a, ops[i].b, ops[i].c);
            }
            fail();
        }
    }
    print_message(
        "%lld operations: %lld asked for, %lld rows written, %lld blocks told, %lld freed, "
        "%lld copied,\n  %lld moved down and %lld up, %lld lanes left, %lld put back, %lld "
        "forked, %lld ended of which %lld cancelled,\n  %lld found in the cache, %lld times "
        "something forgotten, %lld faults, %lld steps void\n",
        (long long)total(&n), (long long)n.n_ops, (long long)n.n_rows, (long long)n.n_appended,
        (long long)n.n_freed, (long long)n.n_copied, (long long)n.n_down, (long long)n.n_up,
        (long long)n.n_left, (long long)n.n_put_back, (long long)n.n_forks, (long long)n.n_ended,
        (long long)n.n_cancelled, (long long)n.n_hits, (long long)n.n_forgotten,
        (long long)n.n_faults, (long long)n.n_spoilt);
    assert_true(n.n_freed > 0 && n.n_copied > 0 && n.n_down > 0 && n.n_up > 0 && n.n_hits > 0 &&
                n.n_forks > 0 && n.n_forgotten > 0 && n.n_cancelled > 0 && n.n_put_back > 0 &&
                n.n_faults > 0);
    tsr_log_set_level(TSR_LOG_WARN);
}

int main(int n_words, char **words)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(under_any_operations_every_rank_reads_what_was_written),
    };

    n_wanted = n_words > 1 ? strtoll(words[1], NULL, 10) : n_wanted;
    return cmocka_run_group_tests_name("scheduler_memory", tests, scratch_make, scratch_remove);
}
