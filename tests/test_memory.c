/*
 * Memory that is short changes no token: device pools of a fraction of what the sequences want,
 * with a host pool and a file below them, on 1 to 4 ranks whose pools are of unequal size;
 * sequences longer than the device pool; cancellations; copies and disks that fail.
 *
 * The run on one rank writes what it got to a file (argv[1]); runs on more ranks hold theirs to it.
 */
#include "engine/tessera.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/log.h"
#include "kernels/task_queue.h"
#include "tests/support/dice.h"
#include "tests/support/generations.h"

enum {
    N_PROMPTS = 24,
    MOST_NEW = 500,
    MOST_RANKS = 4
};

typedef struct outcome {
    int32_t ids[MOST_NEW];
    int32_t n_ids;
    char reason[12];
} outcome;

typedef struct room {
    const char *name;
    int n_device, n_host, n_disk; /* blocks on each rank; rank r has r more on the device */
} room;

static outcome roomy[N_PROMPTS]; /* with all the memory that is wanted */
static outcome tight[N_PROMPTS];
static outcome *into;
static int n_new;
static int n_prompts = N_PROMPTS;
static tsr_memory_stats memory[MOST_RANKS];

static void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = ctx;

    if (event->kind == TSR_EVENT_TOKEN) {
        assert_true(o->n_ids < MOST_NEW);
        o->ids[o->n_ids++] = event->token;
    } else if (event->kind == TSR_EVENT_END) {
        (void)snprintf(o->reason, sizeof(o->reason), "%s", event->reason);
    }
}

static tsr_generation wish(int i)
{
    return (tsr_generation){
        .prompt = prompts[i],
        .n_prompt = prompt_tokens[i],
        .max_tokens = n_new - i % 5,
        .temperature = i % 3 == 2 ? 0.9F : 0,
        .seed = 500 + (uint64_t)i,
        .ignore_end = true,
        .on_event = note_event,
        .ctx = &into[i],
    };
}

/* Options for a rank with so many blocks; {0} room: all that is wanted. */
static tsr_engine_options options_for(const room *r, uint64_t block_bytes)
{
    const uint64_t slot_bytes = (block_bytes + 4095) / 4096 * 4096;
    tsr_engine_options options = {
        .model_path = model_path,
        .n_threads = 1,
        .block_tokens = 16,
        .max_batch_tokens = 48,
        .context = 1024,
        .target_itl_ms = 1e6, // the machine's speed has no say in what a step holds
    };

    if (r->n_device > 0) {
        const uint64_t n_device = (uint64_t)(r->n_device + tsr_world_rank(world));

        options.kv_memory_bytes = block_bytes == 0 ? 1 : n_device * block_bytes;
        options.kv_host_bytes = r->n_host == 0     ? 0
                                : block_bytes == 0 ? 1
                                                   : (uint64_t)(r->n_host + 2) * block_bytes;
        options.kv_disk_bytes = r->n_disk == 0     ? 0
                                : block_bytes == 0 ? 1
                                                   : (uint64_t)(r->n_disk + 2) * slot_bytes;
    }
    return options;
}

/* Generates them all; cancels some on the way when dice are given. */
static void generate(tsr_engine *engine, int n, uint64_t *dice)
{
    int64_t ids[N_PROMPTS];
    bool busy = true;

    for (int i = 0; i < n; i++) {
        const tsr_generation g = wish(i);

        must(tsr_engine_submit(engine, &g, &ids[i]));
    }
    while (busy) {
        if (dice != NULL && dice_below(dice, 8) == 0) {
            tsr_engine_cancel(engine, ids[dice_below(dice, n)]);
        }
        must(tsr_engine_step(engine, &busy));
    }
}

static uint64_t own_block_bytes;

/* All ranks together. */
static tsr_engine_stats run(const room *r, outcome *to, int n, uint64_t *dice)
{
    const tsr_engine_options options = options_for(r, own_block_bytes);
    tsr_engine *engine = NULL;

    into = to;
    memset(to, 0, N_PROMPTS * sizeof(*to));
    must(tsr_engine_create(&engine, world, &options));
    if (tsr_engine_is_leader(engine)) {
        generate(engine, n, dice);
        must(tsr_engine_memory(engine, memory));
    }
    return end_engine(engine);
}

/* Prompts of 10 to 100 tokens, and what they give with all the memory that is wanted. */
static void begin(const char *model, int new_tokens)
{
    const room all = {"all", 0, 0, 0};

    n_new = new_tokens;
    make_model(model, 21, N_PROMPTS, 90);
    for (int i = 0; i < N_PROMPTS; i++) {
        for (; prompt_tokens[i] < 10; prompt_tokens[i]++) {
            prompts[i][prompt_tokens[i]] = 7 + i;
        }
    }
    own_block_bytes = 0;
    own_block_bytes = run(&all, roomy, n_prompts, NULL).kv_block_bytes;
}

static void assert_same(const char *name)
{
    for (int i = 0; i < n_prompts; i++) {
        for (int t = 0; t < roomy[i].n_ids; t++) {
            if (roomy[i].ids[t] != tight[i].ids[t]) {
                fail_msg("%s: prompt %d: token %d of %d is %d and %d (%s)", name, i, t,
                         roomy[i].n_ids, roomy[i].ids[t], tight[i].ids[t], tight[i].reason);
            }
        }
        assert_int_equal(roomy[i].n_ids, tight[i].n_ids);
        assert_string_equal(roomy[i].reason, tight[i].reason);
    }
}

static int64_t n_moves(void)
{
    int64_t n = 0;

    for (int rank = 0; rank < tsr_world_size(world); rank++) {
        for (int from = 0; from < TSR_MEMORY_TIER_COUNT; from++) {
            for (int to = 0; to < TSR_MEMORY_TIER_COUNT; to++) {
                n += memory[rank].n_moves[from][to];
            }
        }
    }
    return n;
}

static void assert_clean(const tsr_engine_stats *stats)
{
    assert_int_equal(stats->n_blocks_free, stats->n_blocks);
    for (int rank = 0; rank < tsr_world_size(world); rank++) {
        assert_int_equal(memory[rank].n_lost, 0);
    }
}

/* What a run with tiers gave is what was given without. */
static void hold(const room *r, int64_t least_moves)
{
    const tsr_engine_stats stats = run(r, tight, n_prompts, NULL);

    if (tsr_world_is_leader(world)) {
        assert_clean(&stats);
        assert_same(r->name);
        if (n_moves() < least_moves) {
            fail_msg("%s: %lld blocks were moved, %lld at least were to be", r->name,
                     (long long)n_moves(), (long long)least_moves);
        }
    }
}

/* The longest sequence has 90 + 60 tokens: 10 blocks; all of them together some 200. */
static const room rooms[] = {
    {"an eighth, host", 26, 200, 0},
    {"a tenth, disk", 20, 0, 220},
    {"a sixteenth, host and disk", 13, 60, 200},
    {"hardly anything, host", 6, 40, 0},
    {"hardly anything, host and disk", 6, 12, 200},
    {"too little for all", 20, 20, 20},
};

static void tokens_do_not_depend_on_where_blocks_lie_meanwhile(void **state)
{
    (void)state;
    begin("9/3", 60);
    for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
        hold(&rooms[i], 1);
    }
    if (tsr_world_is_leader(world)) {
        open_golden();
        memcpy(tight, roomy, sizeof(tight));
        pass_golden(roomy, tight, sizeof(roomy));
        close_golden();
        assert_same("on one rank");
    }
    drop_model();
}

static void ranks_without_heads_take_part(void **state)
{
    const room r = {"ranks without heads", 16, 100, 100};

    (void)state;
    begin("2/1", 40);
    hold(&r, 1);
    drop_model();
}

static void a_sequence_of_eight_times_the_device_pool_goes_on(void **state)
{
    const room r = {"long", 4, 80, 0}; // up to 90 + 500 tokens: 37 blocks

    (void)state;
    n_prompts = 4;
    begin("9/3", MOST_NEW);
    hold(&r, 60);
    n_prompts = N_PROMPTS;
    drop_model();
}

static void cancelled_requests_leave_nothing_behind(void **state)
{
    const room r = {"cancelled", 13, 30, 60};
    uint64_t dice = 4;

    (void)state;
    begin("2/1", 30);
    for (int round = 0; round < 12; round++) {
        const tsr_engine_stats stats = run(&r, tight, N_PROMPTS, &dice);

        if (tsr_world_is_leader(world)) {
            assert_clean(&stats);
            for (int i = 0; i < N_PROMPTS; i++) {
                assert_true(strcmp(tight[i].reason, "cancelled") == 0 ||
                            tight[i].n_ids == roomy[i].n_ids);
                assert_memory_equal(tight[i].ids, roomy[i].ids,
                                    (size_t)tight[i].n_ids * sizeof(tight[i].ids[0]));
            }
        }
    }
    drop_model();
}

static void copies_that_fail_now_and_then_change_nothing(void **state)
{
    (void)state;
    begin("2/1", 30);
    for (int nth = 1; nth < 200; nth = nth * 3 / 2 + 1) {
        for (int kind = 0; kind < TSR_TASK_KIND_COUNT; kind++) {
            const room r = {"faults", 8, 20, 100};

            tsr_task_queue_fail((tsr_task_kind)kind, nth, 2);
            hold(&r, 0);
            tsr_task_queue_fail((tsr_task_kind)kind, 1, 0);
        }
    }
    drop_model();
}

static void a_disk_that_fails_for_good_costs_time_and_no_token(void **state)
{
    (void)state;
    begin("2/1", 30);
    tsr_log_set_level(TSR_LOG_ERROR);
    for (int kind = TSR_TASK_READ; kind <= TSR_TASK_WRITE; kind++) {
        for (int nth = 1; nth <= 61; nth += 20) {
            const room r = {"a failing disk", 8, 6, 100};

            if (tsr_world_rank(world) == tsr_world_size(world) - 1) {
                tsr_task_queue_fail((tsr_task_kind)kind, nth, 1000000);
            }
            (void)run(&r, tight, N_PROMPTS, NULL);
            tsr_task_queue_fail((tsr_task_kind)kind, 1, 0);
            if (tsr_world_is_leader(world)) {
                assert_same(r.name);
            }
        }
    }
    tsr_log_set_level(TSR_LOG_WARN);
    drop_model();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_do_not_depend_on_where_blocks_lie_meanwhile),
        cmocka_unit_test(ranks_without_heads_take_part),
        cmocka_unit_test(a_sequence_of_eight_times_the_device_pool_goes_on),
        cmocka_unit_test(cancelled_requests_leave_nothing_behind),
        cmocka_unit_test(copies_that_fail_now_and_then_change_nothing),
        cmocka_unit_test(a_disk_that_fails_for_good_costs_time_and_no_token),
    };

    return run_generations(argc, argv, "memory", tests, sizeof(tests) / sizeof(tests[0]));
}
