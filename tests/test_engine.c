/*
 * The promise of the engine, on 1, 2, 3 and 4 ranks: logits close to the oracle's, and tokens that
 * are the same bit for bit whatever the number of ranks, the batch, the size of prompt chunks and
 * the room in the cache.
 *
 * The run on one rank writes what it got to a file (argv[1]); runs on more ranks hold theirs to it.
 */
#include "tests/support/generations.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/oracle.h"

enum {
    N_PROMPTS = 16,
    N_NEW = 20,
    MOST_NEW = 60, // where memory is to run short
    MOST_VOCAB = 512
};

/* What one generation gave. */
typedef struct outcome {
    int32_t ids[MOST_NEW];
    int n_ids;
    float logits[MOST_VOCAB]; /* of the last prompt position */
    double logprobs[MOST_PROMPT_TOKENS];
    int n_scores;
    char reason[16];
} outcome;

static int n_new = N_NEW;
static outcome first[N_PROMPTS];
static outcome again[N_PROMPTS];
static outcome *into;

static void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = ctx;

    switch (event->kind) {
    case TSR_EVENT_TOKEN:
        if (o->n_ids < MOST_NEW) {
            o->ids[o->n_ids] = event->token;
        }
        o->n_ids++;
        break;
    case TSR_EVENT_LOGITS:
        memcpy(o->logits, event->logits, (size_t)n_vocab * sizeof(*o->logits));
        break;
    case TSR_EVENT_SCORE:
        o->logprobs[event->position] = event->logprob;
        o->n_scores++;
        break;
    default:
        (void)snprintf(o->reason, sizeof(o->reason), "%s", event->reason);
        break;
    }
}

/* Prompts of 1 to 150 tokens; each third one is sampled, each fourth scored. */
static tsr_generation wish(int i)
{
    return (tsr_generation){
        .max_tokens = n_new,
        .temperature = i % 3 == 2 ? 0.9F : 0,
        .top_p = i % 2 == 0 ? 0.95F : 1,
        .top_k = i == 5 ? 7 : 0,
        .min_p = i == 8 ? 0.05F : 0,
        .seed = 1000 + (uint64_t)i,
        .ignore_end = true,
        .score = i % 4 == 1,
        .want_logits = true,
        .on_event = note_event,
        .ctx = &into[i],
    };
}

/* All ranks together. On the leader `to` holds what came out. */
static tsr_engine_stats run(const way *w, outcome *to)
{
    into = to;
    memset(to, 0, N_PROMPTS * sizeof(*to));
    return run_way(w, N_PROMPTS, wish);
}

static void make(const char *model, uint64_t seed)
{
    make_model(model, seed, N_PROMPTS, MOST_PROMPT_TOKENS);
}

/* Where two outcomes part, in words; NULL if they do not. */
static const char *difference(const outcome *a, const outcome *b)
{
    static char words[128];

    for (int t = 0; t < n_new; t++) {
        if (a->ids[t] != b->ids[t]) {
            (void)snprintf(words, sizeof(words), "token %d is %d and %d", t, a->ids[t], b->ids[t]);
            return words;
        }
    }
    for (int v = 0; v < MOST_VOCAB; v++) {
        if (memcmp(&a->logits[v], &b->logits[v], sizeof(float)) != 0) {
            (void)snprintf(words, sizeof(words), "logit %d is %.9g and %.9g", v,
                           (double)a->logits[v], (double)b->logits[v]);
            return words;
        }
    }
    for (int t = 0; t < MOST_PROMPT_TOKENS; t++) {
        if (memcmp(&a->logprobs[t], &b->logprobs[t], sizeof(double)) != 0) {
            (void)snprintf(words, sizeof(words), "log-probability %d is %.17g and %.17g", t,
                           a->logprobs[t], b->logprobs[t]);
            return words;
        }
    }
    return memcmp(a, b, sizeof(*a)) == 0 ? NULL : "counts or reasons differ";
}

static void assert_same_outcomes(const char *model, const char *name)
{
    for (int i = 0; i < N_PROMPTS; i++) {
        const char *words = difference(&first[i], &again[i]);

        if (words != NULL) {
            fail_msg("%s, %s: prompt %d of %d tokens: %s", model, name, i, prompt_tokens[i], words);
        }
    }
}

static const char *const models[] = {"9/3",  "8/8", "7/1",    "2/1",  "biases", "qwen2",
                                     "wide", "odd", "linear", "yarn", "llama3", "k-quants"};

enum {
    N_MODELS = sizeof(models) / sizeof(models[0])
};

static const way alone = {"alone", {.max_batch_tokens = 512}, false};

static void tokens_do_not_depend_on_batch_chunks_threads_or_room(void **state)
{
    const way ways[] = {
        {"all together", {.max_batch_tokens = 512}, true},
        {"in chunks of 16", {.max_batch_tokens = 16}, true},
        {"in chunks of 37", {.max_batch_tokens = 37}, false},
        {"three threads, blocks of 16", {.n_threads = 3, .block_tokens = 16}, true},
        {"two at a time", {.max_sequences = 2}, true},
    };

    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        make(models[m], 11);
        (void)run(&alone, first);
        for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
            (void)run(&ways[w], again);
            if (tsr_world_is_leader(world)) {
                assert_same_outcomes(models[m], ways[w].name);
            }
        }
        drop_model();
    }
}

static const char *const kv_types[] = {"fp8", "int8", "int4", "int2"};

static void any_type_of_cache_gives_the_same_tokens_in_any_batch(void **state)
{
    (void)state;
    for (int t = 0; t < 4; t++) {
        const char *model = models[t * 3 % N_MODELS];
        const way one = {kv_types[t], {.kv_dtype = kv_types[t], .max_batch_tokens = 512}, false};
        const way ways[] = {
            {kv_types[t], {.kv_dtype = kv_types[t], .max_batch_tokens = 37}, true},
            {kv_types[t], {.kv_dtype = kv_types[t], .block_tokens = 16, .n_threads = 3}, true}};

        make(model, 12);
        (void)run(&one, first);
        for (int w = 0; w < 2; w++) {
            (void)run(&ways[w], again);
            if (tsr_world_is_leader(world)) {
                assert_same_outcomes(model, ways[w].name);
            }
        }
        drop_model();
    }
}

static void a_cache_too_small_for_all_changes_nothing(void **state)
{
    // So long a target that the machine's speed has no say in what a step holds.
    const tsr_engine_options options = {
        .block_tokens = 16, .max_batch_tokens = 64, .target_itl_ms = 1e6};
    way cramped = {"cramped", options, true};
    way roomy = {"roomy", options, true};
    tsr_engine_stats stats;

    (void)state;
    n_new = MOST_NEW;
    make("9/3", 12);
    stats = run(&roomy, first);
    // Room for 16 blocks of 16 tokens: the longest sequence (210) needs 14, all sixteen together
    // some 130.
    cramped.options.kv_memory_bytes = 16 * stats.kv_block_bytes;
    must(tsr_world_max(world, (int64_t *)&cramped.options.kv_memory_bytes));
    stats = run(&cramped, again);
    if (tsr_world_is_leader(world)) {
        assert_true(stats.n_blocks >= 14 && stats.n_blocks < 60);
        assert_true(stats.n_preempted > 0);
        assert_int_equal(stats.n_blocks_free, stats.n_blocks);
        assert_same_outcomes("9/3", "cramped");
    }
    n_new = N_NEW;
    drop_model();
}

static void logits_are_the_oracles(void **state)
{
    const way exact = {"exact", {.kv_dtype = "f32", .activations = "f32"}, true};

    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        make(models[m], 13);
        (void)run(&exact, first);
        if (tsr_world_is_leader(world)) {
            oracle *o = oracle_open(model_path);
            double *logits = malloc((size_t)MOST_PROMPT_TOKENS * (size_t)n_vocab * sizeof(*logits));

            assert_non_null(logits);
            for (int i = 0; i < N_PROMPTS; i++) {
                const double *last = logits + (size_t)(prompt_tokens[i] - 1) * (size_t)n_vocab;

                oracle_logits(o, prompts[i], prompt_tokens[i], prompt_tokens[i], logits);
                for (int v = 0; v < n_vocab; v++) {
                    if (!(fabs((double)first[i].logits[v] - last[v]) < 2e-3)) {
                        fail_msg("%s: prompt %d, token %d: logit %.6f, oracle %.6f", models[m], i,
                                 v, (double)first[i].logits[v], last[v]);
                    }
                }
                for (int t = 0; t + 1 < first[i].n_scores; t++) {
                    const double *row = logits + (size_t)t * (size_t)n_vocab;

                    assert_true(fabs(row[prompts[i][t + 1]] - oracle_log_mass(row, n_vocab) -
                                     first[i].logprobs[t]) < 2e-3);
                }
                assert_int_equal(first[i].n_scores, i % 4 == 1 ? prompt_tokens[i] : 0);
                assert_int_equal(first[i].n_ids, N_NEW);
            }
            free(logits);
            oracle_close(o);
        }
        drop_model();
    }
}

static void greedy_tokens_are_the_oracles(void **state)
{
    const way exact = {"exact", {.kv_dtype = "f32", .activations = "f32"}, true};

    (void)state;
    make("9/3", 14);
    (void)run(&exact, first);
    if (tsr_world_is_leader(world)) {
        oracle *o = oracle_open(model_path);
        int n_compared = 0;

        for (int i = 0; i < N_PROMPTS; i += 3) { // greedy ones
            int32_t ids[N_NEW];
            double margins[N_NEW];

            oracle_greedy(o, prompts[i], prompt_tokens[i], N_NEW, ids, margins);
            for (int t = 0; t < N_NEW && margins[t] > 5e-3; t++) {
                assert_int_equal(first[i].ids[t], ids[t]);
                n_compared++;
            }
        }
        assert_true(n_compared > 60);
        oracle_close(o);
    }
    drop_model();
}

static void any_number_of_ranks_gives_the_same_bits(void **state)
{
    const way both[] = {{"int8", {.max_batch_tokens = 100}, true},
                        {"f32", {.kv_dtype = "bf16", .activations = "f32"}, true}};
    const bool leads = tsr_world_is_leader(world);

    (void)state;
    if (leads) {
        open_golden();
    }
    for (int m = 0; m < N_MODELS; m++) {
        const way ways[] = {
            both[0], both[1], {kv_types[m % 4], {.kv_dtype = kv_types[m % 4]}, true}};

        make(models[m], 15);
        for (int w = 0; w < 3; w++) {
            (void)run(&ways[w], first);
            if (leads) {
                pass_golden(first, again, sizeof(first));
            }
            if (leads && !writes_golden()) {
                assert_same_outcomes(models[m], ways[w].name);
            }
        }
        drop_model();
    }
    if (leads) {
        close_golden();
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_the_oracles),
        cmocka_unit_test(greedy_tokens_are_the_oracles),
        cmocka_unit_test(tokens_do_not_depend_on_batch_chunks_threads_or_room),
        cmocka_unit_test(any_type_of_cache_gives_the_same_tokens_in_any_batch),
        cmocka_unit_test(a_cache_too_small_for_all_changes_nothing),
        cmocka_unit_test(any_number_of_ranks_gives_the_same_bits),
    };

    return run_generations(argc, argv, "engine", tests, sizeof(tests) / sizeof(tests[0]));
}
