/*
 * Two hundred requests of every kind: greedy, sampled, penalised, stopped, several samples, the
 * best of some, beams. Alone or together, in any order, cut into any chunks, crowded into any cache
 * and on 1, 2 or 3 ranks: bit for bit the same tokens, texts, log-probabilities and scores.
 *
 * The run on one rank writes what it got to a file (argv[1]); runs on more ranks hold theirs to it.
 */
#include "tests/support/generations.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum {
    N_REQUESTS = 200,
    LONGEST = 40,
    N_NEW = 12,
    N_CHOICES = 4,
    MOST_TEXT = 96
};

typedef struct choice {
    int32_t ids[N_NEW];
    double logprobs[N_NEW];
    int n_ids;
    int n_text;
    char text[MOST_TEXT];
    char reason[16];
    double logprob;
    double score;
} choice;

typedef struct outcome {
    choice choices[N_CHOICES];
    int n_ends;
} outcome;

static outcome first[N_REQUESTS];
static outcome again[N_REQUESTS];
static outcome *into;

static void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = ctx;
    choice *c = &o->choices[event->choice];

    assert_in_range(event->choice, 0, N_CHOICES - 1);
    if (event->kind == TSR_EVENT_TOKEN) {
        assert_in_range(c->n_ids, 0, N_NEW - 1);
        c->logprobs[c->n_ids] = event->logprob;
        c->ids[c->n_ids++] = event->token;
    } else {
        (void)snprintf(c->reason, sizeof(c->reason), "%s", event->reason);
        c->logprob = event->logprob;
        c->score = event->score;
        o->n_ends++;
    }
    assert_true(c->n_text + (int)event->text_bytes <= MOST_TEXT);
    memcpy(c->text + c->n_text, event->text, event->text_bytes);
    c->n_text += (int)event->text_bytes;
}

/* ---- what is asked for ---- */

static const int32_t bias_ids[] = {END_TOKEN, 40, 17};
static const float biases[] = {4.0F, -2.0F, 1.5F};
static const int32_t stop_ids[] = {50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60};
static const char *const stops[] = {"e", "T", "ab", "\xc3", "0", "x", "q"};

static tsr_generation wish(int i)
{
    const int kind = i % 8;
    tsr_generation g = {
        .max_tokens = N_NEW - i % 5,
        .seed = 900 + (uint64_t)i,
        .priority = i % 7 == 0 ? 1 : 0,
        .ignore_end = i % 3 == 0,
        .bias_ids = bias_ids,
        .biases = biases,
        .n_biases = i % 4,
        .repetition_penalty = i % 5 < 2 ? 1.3F : 0,
        .presence_penalty = i % 6 == 0 ? 0.7F : 0,
        .frequency_penalty = i % 7 == 2 ? 0.4F : 0,
        .min_tokens = i % 9 == 4 ? 5 : 0,
        .stop_ids = stop_ids,
        .n_stop_ids = i % 11 == 3 ? 11 : 0,
        .stops = stops,
        .n_stops = i % 6 == 1 ? 7 : 0,
        .include_stop = i % 12 < 6,
        .want_logprobs = i % 2 == 0,
        .n_top = i % 10 == 0 ? 3 : 0,
        .on_event = note_event,
        .ctx = &into[i],
    };

    switch (kind) {
    case 0: // greedy
        break;
    case 1:
        g.temperature = 1;
        break;
    case 2:
        g.temperature = 0.8F;
        g.top_p = 0.9F;
        g.typical_p = i % 16 == 2 ? 0.7F : 0;
        break;
    case 3:
        g.temperature = 1.2F;
        g.n = 4;
        break;
    case 4:
        g.temperature = 0.9F;
        g.top_k = 20;
        g.n = 2;
        g.best_of = 5;
        break;
    default: // beams of 2 to 7
        g.beams = 2 + i % 6;
        g.n = 1 + i % 2;
        g.length_penalty = (i % 4) * 0.5;
        g.stopping = (tsr_stopping)(i % TSR_STOPPING_COUNT);
        break;
    }
    return g;
}

static tsr_engine_stats run(const way *w, outcome *to)
{
    into = to;
    memset(to, 0, N_REQUESTS * sizeof(*to));
    return run_way(w, N_REQUESTS, wish);
}

static void assert_same_outcomes(const char *name)
{
    for (int i = 0; i < N_REQUESTS && tsr_world_is_leader(world); i++) {
        for (int k = 0; k < N_CHOICES; k++) {
            const choice *a = &first[i].choices[k];
            const choice *b = &again[i].choices[k];

            for (int t = 0; t < N_NEW; t++) {
                if (a->ids[t] != b->ids[t]) {
                    fail_msg("%s: request %d, answer %d: token %d is %d and %d", name, i, k, t,
                             a->ids[t], b->ids[t]);
                }
            }
            if (memcmp(a, b, sizeof(*a)) != 0) {
                fail_msg("%s: request %d, answer %d: same tokens; ends (%s and %s), texts or "
                         "log-probabilities differ",
                         name, i, k, a->reason, b->reason);
            }
        }
        assert_int_equal(first[i].n_ends, again[i].n_ends);
    }
}

/* So long a target that the machine's speed has no say in what a step holds. */
static tsr_engine_options sized(int max_batch_tokens)
{
    return (tsr_engine_options){
        .max_batch_tokens = max_batch_tokens, .block_tokens = 16, .target_itl_ms = 1e6};
}

static void nothing_depends_on_company_order_or_chunks(void **state)
{
    const way alone = {"alone", sized(512), false};
    way ways[] = {
        {"planned ahead", sized(100), 3},
        {"all together", sized(512), 1},
        {"the second order, chunks of 16", sized(16), 2},
        {"the third order, chunks of 37", sized(37), 3},
        {"the fourth order, chunks of 100", sized(100), 4},
        {"the fifth order", sized(256), 5},
    };
    int n_stopped = 0;
    int n_ended = 0;

    (void)state;
    ways[0].options.plan_ahead = 1;
    make_model("9/3", 41, N_REQUESTS, LONGEST);
    (void)run(&alone, first);
    for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
        (void)run(&ways[w], again);
        assert_same_outcomes(ways[w].name);
    }
    for (int i = 0; i < N_REQUESTS; i++) {
        n_ended += first[i].n_ends;
        n_stopped += strcmp(first[i].choices[0].reason, "stop") == 0 ? 1 : 0;
    }
    assert_true(!tsr_world_is_leader(world) || (n_stopped > 60 && n_ended > 300));
    drop_model();
}

/* Memory in blocks, and how many sequences may run at once. */
typedef struct room {
    const char *preempt;
    int n_device;
    int n_host;
    int n_disk;
    int n_lanes;
    bool no_prefix_cache;
} room;

static void nothing_depends_on_lanes_or_room(void **state)
{
    // The longest sequence takes 4 blocks, seven beams of it up to 10 with what they share.
    static const room rooms[] = {
        {"recompute", 40, 0, 0, 3, true}, {"recompute", 16, 0, 0, 64, false},
        {"recompute", 8, 0, 0, 5, true},  {"recompute", 4, 0, 0, 64, true},
        {"swap", 12, 40, 0, 64, false},   {"swap", 8, 8, 100, 6, true},
    };
    way crowded = {"crowded", sized(64), 6};
    int64_t n_preempted = 0;
    tsr_engine_stats stats;
    uint64_t block_bytes;

    (void)state;
    make_model("9/3", 41, N_REQUESTS, LONGEST);
    block_bytes = run(&crowded, first).kv_block_bytes;
    must(tsr_world_max(world, (int64_t *)&block_bytes));
    for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
        const room *r = &rooms[i];

        crowded.options.kv_memory_bytes = (uint64_t)r->n_device * block_bytes;
        crowded.options.kv_host_bytes = (uint64_t)r->n_host * block_bytes;
        crowded.options.kv_disk_bytes = (uint64_t)r->n_disk * block_bytes;
        crowded.options.preempt = r->preempt;
        crowded.options.max_sequences = r->n_lanes;
        crowded.options.no_prefix_cache = r->no_prefix_cache;
        crowded.together = i + 7;
        stats = run(&crowded, again);
        n_preempted += stats.n_preempted;
        assert_same_outcomes(r->preempt);
        if (tsr_world_is_leader(world)) {
            assert_int_equal(stats.n_blocks_free, stats.n_blocks);
        }
    }
    assert_true(!tsr_world_is_leader(world) || n_preempted > 100);
    drop_model();
}

static void any_number_of_ranks_gives_the_same_bits(void **state)
{
    static const char *const models[] = {"9/3", "7/1", "qwen2"};
    const way together = {"together", sized(128), 1};

    (void)state;
    if (tsr_world_is_leader(world)) {
        open_golden();
    }
    for (int m = 0; m < 3; m++) {
        make_model(models[m], 42, N_REQUESTS, LONGEST);
        (void)run(&together, first);
        if (tsr_world_is_leader(world)) {
            pass_golden(first, again, sizeof(first));
        }
        if (!writes_golden()) {
            assert_same_outcomes(models[m]);
        }
        drop_model();
    }
    if (tsr_world_is_leader(world)) {
        close_golden();
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_depends_on_company_order_or_chunks),
        cmocka_unit_test(nothing_depends_on_lanes_or_room),
        cmocka_unit_test(any_number_of_ranks_gives_the_same_bits),
    };

    return run_generations(argc, argv, "mixed", tests, sizeof(tests) / sizeof(tests[0]));
}
