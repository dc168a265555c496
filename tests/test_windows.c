/*
 * Layers that see a window only keep no more than that: models of the families that have such
 * layers, in a device pool with nothing below it that could never hold a whole sequence, give the
 * tokens that they give with all the memory that is wanted; with memory below it as well.
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

#include "engine/leader.h"
#include "tests/support/dice.h"
#include "tests/support/generations.h"

enum {
    N_ASKED = 4,
    CHOICES = 3,
    MOST_NEW = 300,
    MOST_RANKS = 3,
    BT = 16
};

typedef struct windowed {
    const char *name;
    bool is_mixed; /* some layers see everything */
    int n_groups;
} windowed;

static const windowed models[] = {
    {"mistral", false, 1}, /* 24 positions in all layers */
    {"x_local", false, 1}, /* 12 */
    {"phi3", false, 1},    /* 40, of 256 */
    {"gemma2", true, 2},   /* 20 in every second */
    {"gemma3", true, 7},   /* 20 in six of seven */
    {"gpt_oss", true, 2},  /* 24 and a sink in every second */
    {"x_yoco", true, 4},   /* 16 in the first half; the second reads one layer's keys */
};

typedef struct outcome {
    int32_t ids[CHOICES][MOST_NEW];
    int32_t n_ids[CHOICES];
    char reason[CHOICES][12];
} outcome;

static outcome roomy[N_ASKED];
static outcome tight[N_ASKED];
static uint64_t own_block_bytes;
static tsr_block_groups groups;
static int64_t longest; /* tokens of a sequence in the end */
static tsr_memory_stats memory[MOST_RANKS];

static void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = ctx;

    if (event->kind == TSR_EVENT_TOKEN) {
        assert_true(o->n_ids[event->choice] < MOST_NEW);
        o->ids[event->choice][o->n_ids[event->choice]++] = event->token;
    } else if (event->kind == TSR_EVENT_END) {
        (void)snprintf(o->reason[event->choice], sizeof(o->reason[0]), "%s", event->reason);
    }
}

/* A long prompt; a short one that is gone on with for long; three samples; three beams. */
static void ask_all(tsr_engine *engine, outcome *to)
{
    static const int n_prompt[N_ASKED] = {150, 9, 60, 40};
    static const int n_new[N_ASKED] = {180, MOST_NEW, 120, 90};

    for (int i = 0; i < N_ASKED; i++) {
        int32_t prompt[150];
        uint64_t dice = 77 + (uint64_t)i / 2; // the first two begin alike, and so do the others
        int64_t id;
        const tsr_generation wish = {
            .prompt = prompt,
            .n_prompt = n_prompt[i],
            .max_tokens = n_new[i],
            .temperature = i == 2 ? 0.9F : 0,
            .seed = 500,
            .n = i == 2 ? CHOICES : 1,
            .beams = i == 3 ? CHOICES : 0,
            .ignore_end = true,
            .on_event = note_event,
            .ctx = &to[i],
        };

        for (int t = 0; t < n_prompt[i]; t++) {
            prompt[t] = 3 + dice_below(&dice, 200);
        }
        must(tsr_engine_submit(engine, &wish, &id));
    }
}

/* Blocks on each rank; 0 on the device: all that is wanted. */
typedef struct room {
    int64_t n_device, n_host, n_disk;
} room;

/* All together, in this room. All ranks; returns how many were put back on the way. */
static int64_t run(const windowed *m, const room *r, bool prefix_cache, outcome *to)
{
    const uint64_t bytes = own_block_bytes > 0 ? own_block_bytes : 1; // a rank without heads
    const uint64_t slot_bytes = (bytes + 4095) / 4096 * 4096;
    char path[512];
    tsr_engine_options options = {
        .model_path = path,
        .n_threads = 1,
        .block_tokens = BT,
        .max_batch_tokens = 40,
        .max_sequences = 5,
        .target_itl_ms = 1e6, // the machine's speed has no say in what a step holds
        .no_prefix_cache = !prefix_cache,
        .kv_memory_bytes = (uint64_t)r->n_device * bytes,
        .kv_host_bytes = r->n_host > 0 ? (uint64_t)(r->n_host + 2) * bytes : 0,
        .kv_disk_bytes = r->n_disk > 0 ? (uint64_t)(r->n_disk + 2) * slot_bytes : 0,
    };
    tsr_engine *engine = NULL;
    tsr_engine_stats stats;

    (void)snprintf(path, sizeof(path), "%s/models/%s", TSR_TEST_DATA, m->name);
    memset(to, 0, N_ASKED * sizeof(*to));
    must(tsr_engine_create(&engine, world, &options));
    groups = tsr_settings_groups(&engine->settings, tsr_model_config(engine->model));
    longest = engine->settings.context < 330 ? engine->settings.context : 330;
    if (tsr_engine_is_leader(engine)) {
        bool busy = true;

        ask_all(engine, to);
        while (busy) {
            must(tsr_engine_step(engine, &busy));
            assert_true(r->n_device == 0 || tsr_scheduler_verify(engine->leader->scheduler));
        }
        must(tsr_engine_memory(engine, memory));
        assert_int_equal(tsr_engine_describe(engine).n_blocks_free,
                         tsr_engine_describe(engine).n_blocks);
    }
    stats = end_engine(engine);
    own_block_bytes = stats.kv_block_bytes;
    return stats.n_preempted;
}

static void assert_same(const char *model, const char *how)
{
    for (int i = 0; i < N_ASKED * CHOICES; i++) {
        const outcome *a = &roomy[i / CHOICES];
        const outcome *b = &tight[i / CHOICES];
        const int c = i % CHOICES;

        for (int t = 0; t < a->n_ids[c]; t++) {
            if (a->ids[c][t] != b->ids[c][t]) {
                fail_msg("%s, %s: answer %d of %d: token %d of %d is %d and %d (%s)", model, how, c,
                         i / CHOICES, t, a->n_ids[c], a->ids[c][t], b->ids[c][t], b->reason[c]);
            }
        }
        assert_int_equal(a->n_ids[c], b->n_ids[c]);
        assert_string_equal(a->reason[c], b->reason[c]);
    }
}

static void hold(const windowed *m, const char *how, room r, bool prefix_cache, bool puts_back)
{
    const int64_t n_preempted = run(m, &r, prefix_cache, tight);

    if (tsr_world_is_leader(world)) {
        assert_same(m->name, how);
        assert_true(!puts_back || n_preempted > 0);
        for (int rank = 0; rank < tsr_world_size(world); rank++) {
            assert_true(memory[rank].block_bytes == 0 ||
                        memory[rank].most_blocks[TSR_MEMORY_DEVICE] <= r.n_device);
        }
    }
}

static void a_window_is_all_that_is_kept_and_no_token_changes(void **state)
{
    (void)state;
    if (tsr_world_is_leader(world)) {
        open_golden();
    }
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        const windowed *m = &models[i];
        const room all = {0};
        int64_t n_least, n_whole;

        own_block_bytes = 0;
        (void)run(m, &all, true, roomy);
        n_least = tsr_block_groups_most(&groups, longest, 0);
        n_whole = tsr_block_table_blocks_for(longest, BT);
        assert_int_equal(groups.n, m->n_groups);
        // Of the layers that see everything, all; of the others what they see and two columns.
        assert_true(m->is_mixed ? n_least < n_whole * groups.n && n_least > n_whole
                                : 3 * n_least < n_whole);
        if (tsr_world_is_leader(world)) {
            assert_string_equal(roomy[1].reason[0], "length");
            assert_int_equal(roomy[1].n_ids[0] + 9, longest < 309 ? longest : 309);
            memcpy(tight, roomy, sizeof(tight));
            pass_golden(roomy, tight, sizeof(roomy));
            assert_same(m->name, "on one rank");
        }
        hold(m, "room for one", (room){n_least, 0, 0}, true, true);
        hold(m, "room for one, nothing is kept for others", (room){n_least, 0, 0}, false, true);
        hold(m, "room for two or three", (room){5 * n_least / 2, 0, 0}, true, false);
        hold(m, "tiers", (room){4 * groups.n, n_least, 3 * n_least}, true, false);
    }
    if (tsr_world_is_leader(world)) {
        close_golden();
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_is_all_that_is_kept_and_no_token_changes),
    };

    return run_generations(argc, argv, "windows", tests, sizeof(tests) / sizeof(tests[0]));
}
