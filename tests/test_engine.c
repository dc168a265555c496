/*
 * The promise of the engine, on 1, 2, 3 and 4 ranks: logits close to the oracle's, and tokens that
 * are the same bit for bit whatever the number of ranks, the batch, the size of prompt chunks and
 * the room in the cache.
 *
 * The run on one rank writes what it got to a file (argv[1]); runs on more ranks hold theirs to it.
 */
#include "engine/tessera.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "parallel/world.h"
#include "tests/support/oracle.h"
#include "tests/support/tiny_model.h"

enum {
    N_PROMPTS = 16,
    N_NEW = 20,
    MOST_NEW = 60, // where memory is to run short
    LONGEST_PROMPT = 150,
    MOST_VOCAB = 512
};

/* What one generation gave. */
typedef struct outcome {
    int32_t ids[MOST_NEW];
    int n_ids;
    float logits[MOST_VOCAB]; /* of the last prompt position */
    double logprobs[LONGEST_PROMPT];
    int n_scores;
    char reason[16];
} outcome;

typedef struct way {
    const char *name;
    tsr_engine_options options;
    bool together; /* all prompts at once, or one after the other */
} way;

static tsr_world *world;
static const char *golden_path;
static char model_path[64];
static int n_new = N_NEW;
static int32_t prompts[N_PROMPTS][LONGEST_PROMPT];
static int prompt_tokens[N_PROMPTS];
static int n_vocab;
static outcome first[N_PROMPTS];
static outcome again[N_PROMPTS];

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
static tsr_generation wish(int i, outcome *o)
{
    return (tsr_generation){
        .prompt = prompts[i],
        .n_prompt = prompt_tokens[i],
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
        .ctx = o,
    };
}

static void must(tsr_status st)
{
    if (st != TSR_OK) {
        tsr_world_abort(world,
                        st); // a test that fails on one rank must not leave the others waiting
    }
}

static void run_to_the_end(tsr_engine *engine)
{
    bool busy = true;

    while (busy) {
        must(tsr_engine_step(engine, &busy));
    }
}

/* All ranks together. On the leader `into` holds what came out. */
static tsr_engine_stats run_way(const way *w, outcome *into)
{
    tsr_engine_options options = w->options;
    tsr_engine *engine = NULL;
    tsr_engine_stats stats;
    int64_t id;

    options.model_path = model_path;
    options.n_threads = options.n_threads == 0 ? 1 : options.n_threads;
    must(tsr_engine_create(&engine, world, &options));
    if (tsr_engine_is_leader(engine)) {
        memset(into, 0, N_PROMPTS * sizeof(*into));
        for (int i = 0; i < N_PROMPTS; i++) {
            const tsr_generation g = wish(i, &into[i]);

            must(tsr_engine_submit(engine, &g, &id));
            if (!w->together) {
                run_to_the_end(engine);
            }
        }
        run_to_the_end(engine);
        stats = tsr_engine_describe(engine);
        must(tsr_engine_stop(engine));
    } else {
        must(tsr_engine_follow(engine));
        stats = tsr_engine_describe(engine);
    }
    tsr_engine_destroy(engine);
    return stats;
}

static void make_model(const tiny_model *m, uint64_t seed)
{
    uint64_t state = seed;

    n_vocab = m->vocab;
    (void)snprintf(model_path, sizeof(model_path), "/tmp/tsr_test_engine_%d.gguf", (int)getpid());
    must(tsr_world_broadcast(world, model_path, sizeof(model_path)));
    if (tsr_world_is_leader(world)) {
        tiny_model_save(m, seed, model_path);
    }
    for (int i = 0; i < N_PROMPTS; i++) {
        prompt_tokens[i] = i == 0 ? 1 : 1 + (i * 37) % LONGEST_PROMPT;
        for (int t = 0; t < prompt_tokens[i]; t++) {
            state = state * 6364136223846793005U + 1442695040888963407U;
            prompts[i][t] = (int32_t)((state >> 33) % (uint64_t)m->vocab);
        }
    }
    must(tsr_world_agree(world, TSR_OK)); // the file is there
}

static void drop_model(void)
{
    must(tsr_world_agree(world, TSR_OK)); // nobody reads it any more
    if (tsr_world_is_leader(world)) {
        (void)unlink(model_path);
    }
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
    for (int t = 0; t < LONGEST_PROMPT; t++) {
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
        make_model(tiny_model_preset(models[m]), 11);
        (void)run_way(&alone, first);
        for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
            (void)run_way(&ways[w], again);
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

        make_model(tiny_model_preset(model), 12);
        (void)run_way(&one, first);
        for (int w = 0; w < 2; w++) {
            (void)run_way(&ways[w], again);
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
    make_model(tiny_model_preset("9/3"), 12);
    stats = run_way(&roomy, first);
    // Room for 16 blocks of 16 tokens: the longest sequence (210) needs 14, all sixteen together
    // some 130.
    cramped.options.kv_memory_bytes = 16 * stats.kv_block_bytes;
    must(tsr_world_max(world, (int64_t *)&cramped.options.kv_memory_bytes));
    stats = run_way(&cramped, again);
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
        const tiny_model *model = tiny_model_preset(models[m]);

        make_model(model, 13);
        (void)run_way(&exact, first);
        if (tsr_world_is_leader(world)) {
            oracle *o = oracle_open(model_path);
            double *logits =
                malloc((size_t)LONGEST_PROMPT * (size_t)model->vocab * sizeof(*logits));

            assert_non_null(logits);
            for (int i = 0; i < N_PROMPTS; i++) {
                const double *last = logits + (size_t)(prompt_tokens[i] - 1) * (size_t)model->vocab;

                oracle_logits(o, prompts[i], prompt_tokens[i], prompt_tokens[i], logits);
                for (int v = 0; v < model->vocab; v++) {
                    if (!(fabs((double)first[i].logits[v] - last[v]) < 2e-3)) {
                        fail_msg("%s: prompt %d, token %d: logit %.6f, oracle %.6f", models[m], i,
                                 v, (double)first[i].logits[v], last[v]);
                    }
                }
                for (int t = 0; t + 1 < first[i].n_scores; t++) {
                    const double *row = logits + (size_t)t * (size_t)model->vocab;

                    assert_true(fabs(row[prompts[i][t + 1]] - oracle_log_mass(row, model->vocab) -
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
    make_model(tiny_model_preset("9/3"), 14);
    (void)run_way(&exact, first);
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
    const bool writes = tsr_world_size(world) == 1;
    FILE *golden = NULL;

    (void)state;
    if (tsr_world_is_leader(world)) {
        golden = fopen(golden_path, writes ? "wb" : "rb");
        if (golden == NULL) {
            must(tsr_fail(TSR_ERR_IO, "%s: the run on one rank writes it", golden_path));
        }
    }
    for (int m = 0; m < N_MODELS; m++) {
        const way ways[] = {{"int8", {.max_batch_tokens = 100}, true},
                            {"f32", {.kv_dtype = "bf16", .activations = "f32"}, true},
                            {kv_types[m % 4], {.kv_dtype = kv_types[m % 4]}, true}};

        make_model(tiny_model_preset(models[m]), 15);
        for (int w = 0; w < 3; w++) {
            (void)run_way(&ways[w], first);
            if (!tsr_world_is_leader(world)) {
                continue;
            }
            if (writes) {
                assert_int_equal(fwrite(first, sizeof(first), 1, golden), 1);
            } else {
                assert_int_equal(fread(again, sizeof(again), 1, golden), 1);
                assert_same_outcomes(models[m], ways[w].name);
            }
        }
        drop_model();
    }
    if (golden != NULL) {
        assert_int_equal(fclose(golden), 0);
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
    int n_failed;

    if (argc != 2 || tsr_world_open(&world) != TSR_OK) {
        (void)fprintf(stderr, "usage: [mpirun -n N] test_engine GOLDEN_FILE\n");
        return 2;
    }
    golden_path = argv[1];
    n_failed = cmocka_run_group_tests_name("engine", tests, NULL, NULL);
    if (n_failed > 0) {
        _exit(1); // ranks that wait for this one are ended by the launcher
    }
    tsr_world_close(world);
    return 0;
}
