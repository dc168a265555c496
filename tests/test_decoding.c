/*
 * Every way of choosing a token and ending an answer, on 1, 2 and 3 ranks: log-probabilities are
 * the oracle's; tokens, texts and log-probabilities are the same bit for bit whatever the batch,
 * the size of chunks, the room in the cache and the number of ranks.
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
    N_NEW = 48,
    N_TOP = 5,
    LONGEST = 90,
    MOST_TEXT = 512
};

typedef struct likely {
    double logprob;
    tsr_top_token top[N_TOP];
    int n_top;
} likely;

/* What one generation gave. */
typedef struct outcome {
    int32_t ids[N_NEW];
    likely tokens[N_NEW];
    int n_ids;
    likely prompt[LONGEST]; /* of the token behind each position */
    int n_scores;
    char text[MOST_TEXT];
    int n_text;
    char reason[16];
} outcome;

static outcome first[N_PROMPTS];
static outcome again[N_PROMPTS];
static outcome *into;

static void keep_text(outcome *o, const tsr_event *event)
{
    assert_true(o->n_text + (int)event->text_bytes <= MOST_TEXT);
    if (event->text_bytes > 0) {
        memcpy(o->text + o->n_text, event->text, event->text_bytes);
    }
    o->n_text += (int)event->text_bytes;
}

static void keep_likely(likely *to, const tsr_event *event)
{
    to->logprob = event->logprob;
    to->n_top = event->n_top;
    assert_in_range(event->n_top, 0, N_TOP);
    for (int i = 0; i < event->n_top; i++) {
        to->top[i].id = event->top[i].id; // not what lies between the fields
        to->top[i].logprob = event->top[i].logprob;
    }
}

static void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = ctx;

    switch (event->kind) {
    case TSR_EVENT_TOKEN:
        assert_true(o->n_ids < N_NEW);
        o->ids[o->n_ids] = event->token;
        keep_likely(&o->tokens[o->n_ids++], event);
        keep_text(o, event);
        break;
    case TSR_EVENT_SCORE:
        keep_likely(&o->prompt[event->position], event);
        o->n_scores++;
        break;
    default:
        keep_text(o, event);
        (void)snprintf(o->reason, sizeof(o->reason), "%s", event->reason);
        break;
    }
}

static wish_fn *wanted;

static tsr_generation wish(int i)
{
    tsr_generation g = wanted(i);

    g.on_event = note_event;
    g.ctx = &into[i];
    return g;
}

/* All ranks together. On the leader `to` holds what came out. */
static tsr_engine_stats run(const way *w, wish_fn *wants, outcome *to)
{
    into = to;
    wanted = wants;
    memset(to, 0, N_PROMPTS * sizeof(*to));
    return run_way(w, N_PROMPTS, wish);
}

static void make(const char *model, uint64_t seed)
{
    make_model(model, seed, N_PROMPTS, LONGEST);
}

static void assert_same_outcomes(const char *model, const char *name)
{
    for (int i = 0; i < N_PROMPTS; i++) {
        for (int t = 0; t < N_NEW; t++) {
            if (first[i].ids[t] != again[i].ids[t]) {
                fail_msg("%s, %s: prompt %d: token %d is %d and %d", model, name, i, t,
                         first[i].ids[t], again[i].ids[t]);
            }
        }
        if (memcmp(&first[i], &again[i], sizeof(first[i])) != 0) {
            fail_msg("%s, %s: prompt %d: same tokens; texts, log-probabilities or counts differ",
                     model, name, i);
        }
    }
}

/* ---- the same everywhere ---- */

static const int32_t bias_ids[] = {END_TOKEN, 40, 17, 300};
static const float biases[] = {3.0F, -2.0F, 1.5F, 2.5F};
static const int32_t stop_ids[] = {50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60};
static const char *const stops[] = {"e", "T", "ab", "\xc3", "0", "zzz", "x", "q", "9"};

/* Each wish has another mixture. */
static tsr_generation mixed(int i)
{
    return (tsr_generation){
        .max_tokens = N_NEW,
        .temperature = i % 3 == 0   ? 0
                       : i % 3 == 1 ? 1.0F
                                    : 0.8F,
        .top_p = i % 5 == 1 ? 0.9F : 1,
        .top_k = i == 7 ? 20 : 0,
        .typical_p = i % 4 == 2 ? 0.7F : 0,
        .seed = 500 + (uint64_t)i,
        .ignore_end = i % 2 == 0,
        .repetition_penalty = i % 4 < 2 ? 1.3F : 0,
        .presence_penalty = i % 5 == 0 ? 0.7F : 0,
        .frequency_penalty = i % 5 == 2 ? 0.4F : 0,
        .bias_ids = bias_ids,
        .biases = biases,
        .n_biases = i % 3,
        .min_tokens = i % 6 == 3 ? 7 : 0,
        .stop_ids = stop_ids,
        .n_stop_ids = i % 4 == 3 ? 11 : 0,
        .stops = stops,
        .n_stops = i % 4 == 1 ? 9 : 0,
        .include_stop = i % 8 == 3,
        .want_logprobs = i != 4,
        .n_top = i % (N_TOP + 1),
        .score = i % 4 == 1,
    };
}

static const char *const models[] = {"9/3", "7/1", "2/1", "qwen2"};

enum {
    N_MODELS = sizeof(models) / sizeof(models[0])
};

static void nothing_depends_on_batch_chunks_threads_or_room(void **state)
{
    const way alone = {"alone", {.max_batch_tokens = 512}, false};
    const way ways[] = {
        {"all together", {.max_batch_tokens = 512}, true},
        {"in chunks of 16", {.max_batch_tokens = 16}, true},
        {"in chunks of 37", {.max_batch_tokens = 37}, false},
        {"three threads, blocks of 16", {.n_threads = 3, .block_tokens = 16}, true},
        {"two at a time", {.max_sequences = 2}, true},
    };

    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        int n_stopped = 0;

        make(models[m], 21);
        (void)run(&alone, mixed, first);
        for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
            (void)run(&ways[w], mixed, again);
            if (tsr_world_is_leader(world)) {
                assert_same_outcomes(models[m], ways[w].name);
            }
        }
        for (int i = 0; i < N_PROMPTS; i++) {
            n_stopped += strcmp(first[i].reason, "stop") == 0 ? 1 : 0;
        }
        assert_true(!tsr_world_is_leader(world) || (n_stopped >= 2 && n_stopped < N_PROMPTS));
        drop_model();
    }
}

static void being_put_back_changes_nothing(void **state)
{
    way cramped = {"cramped", {.block_tokens = 16, .max_batch_tokens = 64}, true};
    const way roomy = {"roomy", {.block_tokens = 16, .max_batch_tokens = 64}, true};
    int64_t n_preempted = 0;
    tsr_engine_stats stats;
    uint64_t block_bytes;

    (void)state;
    make("9/3", 22);
    stats = run(&roomy, mixed, first);
    block_bytes = stats.kv_block_bytes;
    must(tsr_world_max(world, (int64_t *)&block_bytes));
    for (uint64_t n_blocks = 10; n_blocks <= 14; n_blocks += 2) { // the longest takes 9
        cramped.options.kv_memory_bytes = n_blocks * block_bytes;
        stats = run(&cramped, mixed, again);
        n_preempted += stats.n_preempted;
        if (tsr_world_is_leader(world)) {
            assert_same_outcomes("9/3", "cramped");
        }
    }
    assert_true(!tsr_world_is_leader(world) || n_preempted > 0);
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
        make(models[m], 23);
        for (int w = 0; w < 2; w++) {
            (void)run(&both[w], mixed, first);
            if (leads) {
                pass_golden(first, again, sizeof(first));
            }
            if (leads && !writes_golden()) {
                assert_same_outcomes(models[m], both[w].name);
            }
        }
        drop_model();
    }
    if (leads) {
        close_golden();
    }
}

/* ---- log-probabilities ---- */

/* Everything that must not show in them, and every way to the chosen one: greedy, from candidates,
 * from the whole row. */
static tsr_generation scored(int i)
{
    return (tsr_generation){
        .max_tokens = N_NEW,
        .temperature = i % 4 == 0   ? 0
                       : i % 4 == 1 ? 1.0F
                       : i % 4 == 2 ? 0.7F
                                    : 4.0F,
        .typical_p = i % 8 == 6 ? 0.5F : 0,
        .seed = 9 + (uint64_t)i,
        .ignore_end = true,
        .repetition_penalty = i % 3 == 1 ? 1.5F : 0,
        .frequency_penalty = i % 3 == 2 ? 1.0F : 0,
        .bias_ids = bias_ids,
        .biases = biases,
        .n_biases = i % 5,
        .want_logprobs = true,
        .n_top = N_TOP,
        .score = i % 2 == 0,
    };
}

/* A place's log-probabilities against a row of the oracle; token -1: none is there. */
static void assert_likely(const likely *got, const double *row, int32_t token)
{
    const double mass = oracle_log_mass(row, n_vocab);
    int n_above = 0;

    assert_int_equal(got->n_top, N_TOP);
    if (token >= 0) {
        assert_true(fabs(got->logprob - (row[token] - mass)) < 1e-3);
    }
    for (int k = 0; k < N_TOP; k++) {
        assert_true(fabs(got->top[k].logprob - (row[got->top[k].id] - mass)) < 1e-3);
        assert_true(k == 0 || got->top[k].logprob <= got->top[k - 1].logprob);
    }
    for (int v = 0; v < n_vocab; v++) { // no other is likelier than the last of them
        n_above += row[v] - mass > got->top[N_TOP - 1].logprob + 1e-3 ? 1 : 0;
    }
    assert_true(n_above < N_TOP);
}

static void log_probabilities_are_the_oracles(void **state)
{
    const way exact = {"exact", {.kv_dtype = "f32", .activations = "f32"}, true};
    static const char *const some[] = {"9/3", "7/1"};

    (void)state;
    for (int m = 0; m < 2; m++) {
        make(some[m], 24);
        (void)run(&exact, scored, first);
        if (tsr_world_is_leader(world)) {
            oracle *o = oracle_open(model_path);
            double *logits = malloc((size_t)(LONGEST + N_NEW) * (size_t)n_vocab * sizeof(*logits));

            assert_non_null(logits);
            for (int i = 0; i < N_PROMPTS; i++) {
                int32_t all[LONGEST + N_NEW];
                const int n_prompt = prompt_tokens[i];

                memcpy(all, prompts[i], (size_t)n_prompt * sizeof(*all));
                memcpy(all + n_prompt, first[i].ids, N_NEW * sizeof(*all));
                assert_int_equal(first[i].n_ids, N_NEW);
                oracle_logits(o, all, n_prompt + N_NEW, n_prompt + N_NEW, logits);
                for (int t = 0; t < N_NEW; t++) {
                    assert_likely(&first[i].tokens[t],
                                  logits + (size_t)(n_prompt - 1 + t) * (size_t)n_vocab,
                                  first[i].ids[t]);
                }
                assert_int_equal(first[i].n_scores, i % 2 == 0 ? n_prompt : 0);
                for (int t = 0; t < first[i].n_scores; t++) {
                    assert_likely(&first[i].prompt[t], logits + (size_t)t * (size_t)n_vocab,
                                  t + 1 < n_prompt ? all[t + 1] : -1);
                }
            }
            free(logits);
            oracle_close(o);
        }
        drop_model();
    }
}

/* ---- penalties, biases and ends do what they say ---- */

/* Penalties so large that they leave one thing to happen. */
static tsr_generation forced(int i)
{
    static const int32_t end_and_stop[] = {END_TOKEN, 50};
    static const float large[] = {900.0F, 800.0F};
    tsr_generation g = {.max_tokens = N_NEW, .ignore_end = true, .seed = (uint64_t)i};

    g.temperature = i % 8 < 4 ? 0 : 1.5F;
    g.typical_p = i % 8 < 4 ? 0 : 0.9F; // from the whole row
    switch (i % 4) {
    case 0: // never the same twice
        g.presence_penalty = 1000;
        break;
    case 1: // never a token of the prompt or one twice: negative logits fall to -1000 times
        g.repetition_penalty = 1000;
        break;
    case 2: // the end token would come at once; it comes when it may
        g.ignore_end = false;
        g.min_tokens = 6 + i / 2;
        g.bias_ids = end_and_stop;
        g.biases = large;
        g.n_biases = 1;
        break;
    default: // and so would the stop id: it is kept
        g.min_tokens = 5;
        g.bias_ids = end_and_stop + 1;
        g.biases = large + 1;
        g.n_biases = 1;
        g.stop_ids = end_and_stop + 1;
        g.n_stop_ids = 1;
        g.include_stop = true;
        break;
    }
    return g;
}

static void penalties_and_bans_do_what_they_say(void **state)
{
    const way w = {"together", {.max_batch_tokens = 64}, true};

    (void)state;
    make("9/3", 25);
    (void)run(&w, forced, first);
    for (int i = 0; i < N_PROMPTS && tsr_world_is_leader(world); i++) {
        const outcome *o = &first[i];

        if (i % 4 == 0) {
            assert_int_equal(o->n_ids, N_NEW);
            for (int t = 0; t < N_NEW; t++) {
                for (int u = 0; u < t; u++) {
                    assert_int_not_equal(o->ids[t], o->ids[u]);
                }
            }
        } else if (i % 8 == 1) {
            for (int t = 0; t < N_NEW; t++) {
                for (int u = 0; u < prompt_tokens[i]; u++) {
                    assert_int_not_equal(o->ids[t], prompts[i][u]);
                }
                for (int u = 0; u < t; u++) {
                    assert_int_not_equal(o->ids[t], o->ids[u]);
                }
            }
        } else if (i % 4 == 2) {
            assert_int_equal(o->n_ids, 6 + i / 2);
            assert_string_equal(o->reason, "stop");
            for (int t = 0; t < o->n_ids; t++) {
                assert_int_not_equal(o->ids[t], END_TOKEN);
            }
        } else if (i % 4 == 3) {
            assert_int_equal(o->n_ids, 6);
            assert_int_equal(o->ids[5], 50);
            assert_string_equal(o->reason, "stop");
        }
    }
    drop_model();
}

static char stop_texts[N_PROMPTS][8];
static const char *stop_of[N_PROMPTS];
static size_t stop_bytes[N_PROMPTS];
static bool includes;

static tsr_generation unstopped(int i)
{
    return (tsr_generation){
        .max_tokens = N_NEW, .temperature = 1, .seed = (uint64_t)i, .ignore_end = true};
}

static tsr_generation stopped(int i)
{
    tsr_generation g = unstopped(i);

    g.stops = &stop_of[i];
    g.stop_bytes = &stop_bytes[i];
    g.n_stops = stop_bytes[i] > 0 ? 1 : 0;
    g.include_stop = includes;
    return g;
}

/* Where a stop text first is; n_text if nowhere. */
static int find_stop(const outcome *o, int i)
{
    for (int at = 0; at + (int)stop_bytes[i] <= o->n_text; at++) {
        if (memcmp(o->text + at, stop_texts[i], stop_bytes[i]) == 0) {
            return at;
        }
    }
    return o->n_text;
}

static void text_ends_at_the_stop_wherever_tokens_and_characters_are_cut(void **state)
{
    const way w = {"together", {.max_batch_tokens = 64}, true};

    (void)state;
    make("9/3", 26);
    (void)run(&w, unstopped, first);
    for (int i = 0; i < N_PROMPTS && tsr_world_is_leader(world); i++) {
        // Some bytes from the middle, one more each time: the half of a character and the end of a
        // token among them.
        stop_bytes[i] = (size_t)(1 + i % 7);
        assert_true(first[i].n_text > 16);
        memcpy(stop_texts[i], first[i].text + 5 + i % 5, stop_bytes[i]);
        stop_of[i] = stop_texts[i];
    }
    for (int turn = 0; turn < 2; turn++) {
        includes = turn == 1;
        (void)run(&w, stopped, again);
        for (int i = 0; i < N_PROMPTS && tsr_world_is_leader(world); i++) {
            const int at = find_stop(&first[i], i);

            assert_string_equal(again[i].reason, "stop");
            assert_int_equal(again[i].n_text, at + (includes ? (int)stop_bytes[i] : 0));
            assert_memory_equal(again[i].text, first[i].text, (size_t)again[i].n_text);
            assert_true(again[i].n_ids <= first[i].n_ids);
            assert_memory_equal(again[i].ids, first[i].ids,
                                (size_t)again[i].n_ids * sizeof(first[i].ids[0]));
        }
    }
    drop_model();
}

/* A stop that is begun over and over and never complete holds back text, and loses none. */
static tsr_generation nearly_stopped(int i)
{
    static const char *const never[] = {"\x01\x02never\x03"};
    tsr_generation g = unstopped(i);

    stop_bytes[i]++; // one byte more than what the text has
    stop_texts[i][stop_bytes[i] - 1] = (char)(stop_texts[i][stop_bytes[i] - 1] ^ 0x55);
    g.stops = i % 2 == 0 ? never : &stop_of[i];
    g.stop_bytes = i % 2 == 0 ? NULL : &stop_bytes[i];
    g.n_stops = 1;
    return g;
}

static void text_that_only_looked_like_a_stop_is_not_lost(void **state)
{
    const way w = {"together", {.max_batch_tokens = 64}, true};

    (void)state;
    make("9/3", 26);
    (void)run(&w, unstopped, first);
    for (int i = 0; i < N_PROMPTS && tsr_world_is_leader(world); i++) {
        // The last bytes of the text: held back to its very end.
        stop_bytes[i] = (size_t)(1 + i % 6);
        memset(stop_texts[i], 0, sizeof(stop_texts[i]));
        memcpy(stop_texts[i], first[i].text + first[i].n_text - stop_bytes[i], stop_bytes[i]);
        stop_of[i] = stop_texts[i];
    }
    (void)run(&w, nearly_stopped, again);
    for (int i = 0; i < N_PROMPTS && tsr_world_is_leader(world); i++) {
        if (find_stop(&first[i], i) == first[i].n_text) {
            assert_string_equal(again[i].reason, "length");
            assert_int_equal(again[i].n_text, first[i].n_text);
            assert_memory_equal(again[i].text, first[i].text, (size_t)first[i].n_text);
        }
    }
    drop_model();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_probabilities_are_the_oracles),
        cmocka_unit_test(penalties_and_bans_do_what_they_say),
        cmocka_unit_test(text_ends_at_the_stop_wherever_tokens_and_characters_are_cut),
        cmocka_unit_test(text_that_only_looked_like_a_stop_is_not_lost),
        cmocka_unit_test(nothing_depends_on_batch_chunks_threads_or_room),
        cmocka_unit_test(being_put_back_changes_nothing),
        cmocka_unit_test(any_number_of_ranks_gives_the_same_bits),
    };

    return run_generations(argc, argv, "decoding", tests, sizeof(tests) / sizeof(tests[0]));
}
