/*
 * Several answers to a prompt, on 1, 2 and 3 ranks: beams are those of a plain search on the
 * oracle, samples are what each is alone by its own seed, and both share what they have in common.
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

#include "engine/sampler.h"
#include "tests/support/oracle_beam.h"

enum {
    N_PROMPTS = 12,
    LONGEST = 70,
    N_NEW = 24,
    MOST_CHOICES = 8,
    MOST_TEXT = 256
};

typedef struct choice {
    int32_t ids[N_NEW];
    int n_ids;
    double token_sum;
    char text[MOST_TEXT];
    int n_text;
    char reason[16];
    double logprob;
    double score;
} choice;

typedef struct outcome {
    choice choices[MOST_CHOICES];
    int n_ends;
    bool was_last;
} outcome;

static outcome first[N_PROMPTS];
static outcome again[N_PROMPTS];
static outcome *into;
static wish_fn *wanted;

static void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = ctx;
    choice *c = &o->choices[event->choice];

    assert_in_range(event->choice, 0, MOST_CHOICES - 1);
    assert_false(o->was_last);
    assert_string_equal(c->reason, "");
    if (event->kind == TSR_EVENT_TOKEN) {
        assert_in_range(c->n_ids, 0, N_NEW - 1);
        c->ids[c->n_ids++] = event->token;
        c->token_sum += event->logprob;
    } else {
        assert_int_equal(event->kind, TSR_EVENT_END);
        (void)snprintf(c->reason, sizeof(c->reason), "%s", event->reason);
        c->logprob = event->logprob;
        c->score = event->score;
        assert_int_equal(event->n_generated, c->n_ids);
        o->n_ends++;
        o->was_last = event->last;
    }
    assert_true(c->n_text + (int)event->text_bytes <= MOST_TEXT);
    memcpy(c->text + c->n_text, event->text, event->text_bytes);
    c->n_text += (int)event->text_bytes;
}

static tsr_generation wish(int i)
{
    tsr_generation g = wanted(i);

    g.on_event = note_event;
    g.ctx = &into[i];
    return g;
}

static tsr_engine_stats run(const way *w, wish_fn *wants, outcome *to)
{
    into = to;
    wanted = wants;
    memset(to, 0, N_PROMPTS * sizeof(*to));
    return run_way(w, N_PROMPTS, wish);
}

static const way exact = {"exact", {.kv_dtype = "f32", .activations = "f32"}, true};
static const way usual = {"usual", {.max_batch_tokens = 64}, true};

/* ---- beams ---- */

static int32_t stop_ids[N_PROMPTS]; // tokens that come early where they may

static oracle_beam_rules rules_of(int i)
{
    oracle_beam_rules r = {.width = 1 + i % 5,
                           .length_penalty = (i % 4) * 0.5,
                           .stopping = (tsr_stopping)(i % TSR_STOPPING_COUNT),
                           .max_tokens = 6 + i % 7,
                           .end_token = -1,
                           .stop_id = -1,
                           .min_tokens = i % 3 == 2 ? 4 : 0,
                           .repetition = i % 4 == 1 ? 1.4F : 1,
                           .presence = i % 4 == 2 ? 0.5 : 0};

    if (i % 2 == 0) {
        r.end_token = stop_ids[i];
    } else {
        r.stop_id = stop_ids[i];
    }
    return r;
}

static tsr_generation searched(int i)
{
    const oracle_beam_rules r = rules_of(i);

    return (tsr_generation){
        .max_tokens = r.max_tokens,
        .n = (r.width + 1) / 2,
        .beams = r.width,
        .length_penalty = r.length_penalty,
        .stopping = r.stopping,
        .ignore_end = true,
        .stop_ids = &stop_ids[i],
        .n_stop_ids = 1,
        .include_stop = r.stop_id >= 0,
        .min_tokens = r.min_tokens,
        .repetition_penalty = (float)r.repetition,
        .presence_penalty = (float)r.presence,
        .want_logprobs = i % 3 == 0,
    };
}

/* Did the engine find what the oracle did? Returns how many answers were compared: none where the
 * oracle's search was near a tie. */
static int compare_search(oracle *o, int i, const outcome *got)
{
    const oracle_beam_rules rules = rules_of(i);
    const int n = (rules.width + 1) / 2;
    oracle_answer answers[ORACLE_BEAM_WIDTH];
    double margin;

    assert_true(oracle_beam_search(o, prompts[i], prompt_tokens[i], &rules, answers, &margin) >= n);
    assert_int_equal(got->n_ends, n);
    assert_true(got->was_last);
    if (margin < 2e-4) {
        return 0;
    }
    for (int k = 0; k < n; k++) {
        const choice *c = &got->choices[k];

        assert_int_equal(c->n_ids, answers[k].n_ids);
        for (int t = 0; t < c->n_ids; t++) {
            assert_int_equal(c->ids[t], answers[k].ids[t]);
        }
        assert_true(fabs(c->logprob - answers[k].sum) < 1e-3);
        assert_true(fabs(c->score - answers[k].score) < 1e-3);
        assert_string_equal(c->reason, answers[k].is_open ? "length" : "stop");
    }
    return n;
}

static void beams_are_those_of_a_plain_search(void **state)
{
    static const char *const some[] = {"9/3", "7/1", "qwen2"};
    int n_compared = 0;
    int n_stopped = 0;

    (void)state;
    for (int m = 0; m < 3; m++) {
        oracle *o = NULL;

        make_model(some[m], 31, N_PROMPTS, LONGEST);
        o = oracle_open(model_path);
        for (int i = 0; i < N_PROMPTS; i++) {
            int32_t ids[4];

            oracle_greedy(o, prompts[i], prompt_tokens[i], 4, ids, NULL);
            stop_ids[i] = ids[1 + i % 3];
        }
        (void)run(&exact, searched, first);
        for (int i = 0; i < N_PROMPTS && tsr_world_is_leader(world); i++) {
            n_compared += compare_search(o, i, &first[i]);
            n_stopped += strcmp(first[i].choices[0].reason, "stop") == 0 ? 1 : 0;
        }
        oracle_close(o);
        drop_model();
    }
    assert_true(!tsr_world_is_leader(world) || (n_compared > 40 && n_stopped > 8));
}

/* ---- samples ---- */

static int the_sample; // 0 to 3; -1: all four at once

static tsr_generation sampled(int i)
{
    return (tsr_generation){
        .max_tokens = N_NEW,
        .n = the_sample < 0 ? 4 : 0,
        .seed =
            the_sample < 0 ? 70 + (uint64_t)i : tsr_sampler_seed_of(70 + (uint64_t)i, the_sample),
        .temperature = i % 4 == 3 ? 0 : 1.1F,
        .top_p = i % 3 == 0 ? 0.9F : 1,
        .typical_p = i % 5 == 4 ? 0.8F : 0, // from the whole row
        .repetition_penalty = i % 2 == 0 ? 1.2F : 0,
        .min_tokens = i % 6 == 1 ? 5 : 0,
        .ignore_end = i % 3 == 1,
        .want_logprobs = i % 2 == 1,
    };
}

static void each_sample_is_what_it_is_alone(void **state)
{
    const way alone = {"alone", {.max_batch_tokens = 512}, false};
    const way few = {"three at a time", {.max_sequences = 3, .block_tokens = 16}, true};
    int n_different = 0;

    (void)state;
    make_model("9/3", 32, N_PROMPTS, LONGEST);
    the_sample = -1;
    (void)run(&usual, sampled, first);
    (void)run(&few, sampled, again);
    if (tsr_world_is_leader(world)) {
        assert_memory_equal(first, again, sizeof(first));
    }
    for (the_sample = 0; the_sample < 4; the_sample++) {
        (void)run(&alone, sampled, again);
        for (int i = 0; i < N_PROMPTS && tsr_world_is_leader(world); i++) {
            assert_int_equal(first[i].n_ends, 4);
            assert_memory_equal(&first[i].choices[the_sample], &again[i].choices[0],
                                sizeof(choice));
            n_different += memcmp(first[i].choices[0].ids, again[i].choices[0].ids,
                                  sizeof(again[i].choices[0].ids)) != 0
                               ? 1
                               : 0;
        }
    }
    assert_true(!tsr_world_is_leader(world) || n_different == 3 * 9); // all but the greedy ones
    drop_model();
}

static tsr_generation best(int i)
{
    the_sample = -1;
    tsr_generation g = sampled(i);

    g.n = 2;
    g.best_of = 4;
    g.want_logprobs = true;
    return g;
}

static tsr_generation all_of_them(int i)
{
    tsr_generation g = best(i);

    g.n = 4;
    return g;
}

static void the_best_are_the_likeliest_for_each_token(void **state)
{
    (void)state;
    make_model("9/3", 33, N_PROMPTS, LONGEST);
    (void)run(&usual, all_of_them, first);
    (void)run(&usual, best, again);
    for (int i = 0; i < N_PROMPTS && tsr_world_is_leader(world); i++) {
        double means[4];
        int order[4] = {0, 1, 2, 3};

        for (int k = 0; k < 4; k++) {
            const choice *c = &first[i].choices[k];
            const bool ended = strcmp(c->reason, "stop") == 0;

            assert_true(c->score == 0); // told as they came
            assert_true(ended ? c->logprob < c->token_sum : c->logprob == c->token_sum);
            means[k] = c->logprob / (c->n_ids + (ended ? 1 : 0));
        }
        for (int a = 0; a < 4; a++) {
            for (int b = 3; b > a; b--) {
                if (means[order[b]] > means[order[b - 1]]) {
                    const int swap = order[b];

                    order[b] = order[b - 1];
                    order[b - 1] = swap;
                }
            }
        }
        assert_int_equal(again[i].n_ends, 2);
        for (int k = 0; k < 2; k++) {
            const choice *c = &again[i].choices[k];
            const choice *from = &first[i].choices[order[k]];

            assert_true(c->score == means[order[k]]);
            assert_true(c->logprob == from->logprob);
            assert_int_equal(c->n_ids, from->n_ids);
            assert_memory_equal(c->ids, from->ids, sizeof(c->ids));
            assert_int_equal(c->n_text, from->n_text);
            assert_memory_equal(c->text, from->text, sizeof(c->text));
        }
    }
    drop_model();
}

/* ---- what they share ---- */

static bool with_beams;

static tsr_generation sharing(int i)
{
    static int32_t long_prompt[160];

    for (int t = 0; t < 160; t++) {
        long_prompt[t] = (prompts[t % N_PROMPTS][0] + t / N_PROMPTS) % n_vocab;
    }
    return (tsr_generation){.prompt = long_prompt,
                            .n_prompt = 160,
                            .max_tokens = i == 0 ? N_NEW : 1,
                            .n = i == 0 ? 6 : 1,
                            .beams = with_beams && i == 0 ? 6 : 0,
                            .temperature = with_beams ? 0 : 1,
                            .ignore_end = true};
}

static void six_answers_need_little_more_than_one(void **state)
{
    way tight = {"tight", {.block_tokens = 16, .max_batch_tokens = 64}, false};
    tsr_engine_stats stats;
    uint64_t block_bytes;

    (void)state;
    make_model("9/3", 34, N_PROMPTS, LONGEST);
    for (int turn = 0; turn < 2; turn++) {
        with_beams = turn == 1;
        tight.options.kv_memory_bytes = 0;
        block_bytes = run(&tight, sharing, first).kv_block_bytes;
        must(tsr_world_max(world, (int64_t *)&block_bytes));
        // Ten blocks of the prompt and two of each answer; six that share nothing would take 72.
        tight.options.kv_memory_bytes = 24 * block_bytes;
        stats = run(&tight, sharing, again);
        if (tsr_world_is_leader(world)) {
            assert_int_equal(stats.n_preempted, 0);
            assert_int_equal(stats.n_blocks_free, stats.n_blocks);
            assert_memory_equal(first, again, sizeof(first));
            assert_int_equal(first[0].n_ends, 6);
        }
    }
    drop_model();
}

/* ---- stop strings ---- */

static char stop_text[N_PROMPTS][4];
static const char *stop_of[N_PROMPTS];
static bool with_stops;

static tsr_generation stopped(int i)
{
    return (tsr_generation){.max_tokens = 14,
                            .n = 3,
                            .beams = 3,
                            .length_penalty = 1,
                            .ignore_end = true,
                            .stops = &stop_of[i],
                            .n_stops = with_stops ? 1 : 0,
                            .include_stop = i % 2 == 0,
                            .min_tokens = i % 4 == 3 ? 3 : 0};
}

static void a_beam_ends_at_a_stop_string(void **state)
{
    int n_stopped = 0;

    (void)state;
    make_model("9/3", 35, N_PROMPTS, LONGEST);
    with_stops = false;
    (void)run(&usual, stopped, first);
    for (int i = 0; i < N_PROMPTS; i++) { // some letter of the best answer
        const char *text = first[i].choices[0].text;
        int at = 3 + i % 3;

        while (at < first[i].choices[0].n_text && (text[at] < 'a' || text[at] > 'z')) {
            at++;
        }
        stop_text[i][0] = at < first[i].choices[0].n_text ? text[at] : 'e';
        stop_of[i] = stop_text[i];
    }
    with_stops = true;
    (void)run(&usual, stopped, again);
    for (int i = 0; i < N_PROMPTS && tsr_world_is_leader(world); i++) {
        for (int k = 0; k < 3 && i % 4 != 3; k++) {
            const choice *c = &again[i].choices[k];
            const char *found = memchr(c->text, stop_text[i][0], (size_t)c->n_text);

            if (strcmp(c->reason, "stop") == 0) {
                n_stopped++;
                assert_true(i % 2 == 0 ? found == c->text + c->n_text - 1 : found == NULL);
            } else {
                assert_null(found);
            }
        }
    }
    assert_true(!tsr_world_is_leader(world) || n_stopped > 6);
    drop_model();
}

/* ---- ended from outside ---- */

static void a_search_that_is_cancelled_gives_what_it_has(void **state)
{
    const tsr_engine_options options = {.model_path = model_path, .n_threads = 1};
    tsr_generation g = {.max_tokens = N_NEW,
                        .beams = 3,
                        .n = 3,
                        .ignore_end = true,
                        .on_event = note_event,
                        .ctx = &first[0]};
    tsr_engine *engine = NULL;

    (void)state;
    make_model("9/3", 36, N_PROMPTS, LONGEST);
    must(tsr_engine_create(&engine, world, &options));
    if (tsr_engine_is_leader(engine)) {
        bool busy = true;
        int64_t id;

        memset(first, 0, sizeof(first));
        g.prompt = prompts[1];
        g.n_prompt = prompt_tokens[1];
        must(tsr_engine_submit(engine, &g, &id));
        for (int i = 0; i < 6; i++) {
            must(tsr_engine_step(engine, &busy));
        }
        tsr_engine_cancel(engine, id);
        while (busy) {
            must(tsr_engine_step(engine, &busy));
        }
        assert_int_equal(first[0].n_ends, 3);
        assert_true(first[0].was_last);
        for (int k = 0; k < 3; k++) {
            assert_string_equal(first[0].choices[k].reason, "cancelled");
            assert_int_equal(first[0].choices[k].n_ids, 6);
        }
        assert_int_equal(tsr_engine_describe(engine).n_blocks_free,
                         tsr_engine_describe(engine).n_blocks);
    }
    (void)end_engine(engine);
    drop_model();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beams_are_those_of_a_plain_search),
        cmocka_unit_test(each_sample_is_what_it_is_alone),
        cmocka_unit_test(the_best_are_the_likeliest_for_each_token),
        cmocka_unit_test(six_answers_need_little_more_than_one),
        cmocka_unit_test(a_beam_ends_at_a_stop_string),
        cmocka_unit_test(a_search_that_is_cancelled_gives_what_it_has),
    };

    return run_generations(argc, argv, "answers", tests, sizeof(tests) / sizeof(tests[0]));
}
