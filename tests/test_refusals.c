/*
 * Generations that cannot be: each is refused in words, and leaves the engine as it was. One that
 * can be, with every wish, gives back all it took, whichever allocation fails.
 */
#include "tests/support/generations.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/torture.h"

static char last_reason[16];
static int n_ends;
static bool was_last;

static void note_event(void *ctx, const tsr_event *event)
{
    (void)ctx;
    assert_int_equal(event->kind, TSR_EVENT_END);
    (void)snprintf(last_reason, sizeof(last_reason), "%s", event->reason);
    was_last = event->last;
    n_ends++;
}

static void refuses(tsr_engine *engine, const char *words, tsr_generation g)
{
    int64_t id;

    g.prompt = prompts[0];
    g.n_prompt = prompt_tokens[0];
    g.max_tokens = 3;
    g.on_event = note_event;
    assert_int_equal(tsr_engine_submit(engine, &g, &id), TSR_ERR_ARG);
    if (strstr(tsr_tessera_message(), words) == NULL) {
        fail_msg("'%s' is not in '%s'", words, tsr_tessera_message());
    }
}

static void refuse_all(tsr_engine *engine)
{
    static const char *many[10000];
    static const int32_t ids[] = {5, 100000};
    static const int32_t negative[] = {-1};
    static const int32_t twice[] = {5, 5};
    static const float fine[] = {1, 1};
    static const float nan_bias[] = {NAN};
    static const char *const empty[] = {""};
    static int32_t stop_list[2000];

    for (int i = 0; i < 10000; i++) {
        many[i] = "stop";
    }
    refuses(engine, "stop strings", (tsr_generation){.stops = many, .n_stops = 10000});
    refuses(engine, "stop strings", (tsr_generation){.stops = many, .n_stops = -1});
    refuses(engine, "empty", (tsr_generation){.stops = empty, .n_stops = 1});
    refuses(engine, "stop id 100000", (tsr_generation){.stop_ids = ids, .n_stop_ids = 2});
    refuses(engine, "stop id -1", (tsr_generation){.stop_ids = negative, .n_stop_ids = 1});
    refuses(engine, "2000 stop ids", (tsr_generation){.stop_ids = stop_list, .n_stop_ids = 2000});
    refuses(engine, "stop ids", (tsr_generation){.n_stop_ids = -2, .min_tokens = 3});
    refuses(engine, "token 100000",
            (tsr_generation){.bias_ids = ids, .biases = fine, .n_biases = 2});
    refuses(engine, "bias", (tsr_generation){.bias_ids = ids, .biases = nan_bias, .n_biases = 1});
    refuses(engine, "two biases",
            (tsr_generation){.bias_ids = twice, .biases = fine, .n_biases = 2});
    refuses(engine, "biases", (tsr_generation){.n_biases = -1});
    refuses(engine, "repetition penalty", (tsr_generation){.repetition_penalty = -1});
    refuses(engine, "repetition penalty", (tsr_generation){.repetition_penalty = NAN});
    refuses(engine, "presence penalty", (tsr_generation){.presence_penalty = INFINITY});
    refuses(engine, "frequency penalty", (tsr_generation){.frequency_penalty = NAN});
    refuses(engine, "typical_p", (tsr_generation){.typical_p = 1.5F});
    refuses(engine, "min_tokens", (tsr_generation){.min_tokens = -1});
    refuses(engine, "best", (tsr_generation){.want_logprobs = true, .n_top = -1});
    refuses(engine, "best", (tsr_generation){.want_logprobs = true, .n_top = TSR_MOST_TOP + 1});
}

static void refuse_answers(tsr_engine *engine)
{
    refuses(engine, "samples", (tsr_generation){.n = -1});
    refuses(engine, "samples", (tsr_generation){.n = 1 << 20});
    refuses(engine, "best 3 of 2", (tsr_generation){.n = 3, .best_of = 2});
    refuses(engine, "5000 beams", (tsr_generation){.beams = 5000});
    refuses(engine, "beams", (tsr_generation){.beams = -1});
    refuses(engine, "3 answers of 2 beams", (tsr_generation){.n = 3, .beams = 2});
    refuses(engine, "best_of is of samples", (tsr_generation){.best_of = 2, .beams = 2});
    refuses(engine, "beams are not sampled", (tsr_generation){.beams = 2, .temperature = 1});
    refuses(engine, "length penalty", (tsr_generation){.beams = 2, .length_penalty = NAN});
    refuses(engine, "length penalty", (tsr_generation){.beams = 2, .length_penalty = 11});
    refuses(engine, "stopping", (tsr_generation){.beams = 2, .stopping = TSR_STOPPING_COUNT});
}

static const int32_t bias_ids[] = {END_TOKEN, 40, 17};
static const float biases[] = {3.0F, -2.0F, 1.5F};
static const char *const stops[] = {"e", "T", "ab"};

/* A generation with every wish, and its end before it has begun. */
static tsr_status submit_and_cancel(tsr_engine *engine, tsr_generation g)
{
    bool busy;
    int64_t id;

    g.prompt = prompts[0];
    g.n_prompt = prompt_tokens[0];
    g.max_tokens = 20;
    g.on_event = note_event;
    g.bias_ids = bias_ids;
    g.biases = biases;
    g.n_biases = 3;
    g.repetition_penalty = 1.2F;
    g.stops = stops;
    g.n_stops = 3;
    g.stop_ids = bias_ids;
    g.n_stop_ids = 2;
    g.min_tokens = 3;
    g.want_logprobs = true;
    g.n_top = 5;
    TSR_TRY(tsr_engine_submit(engine, &g, &id));
    tsr_engine_cancel(engine, id);
    n_ends = 0;
    must(tsr_engine_step(engine, &busy));
    return TSR_OK;
}

static tsr_status one_sample(void *engine)
{
    return submit_and_cancel(engine, (tsr_generation){.temperature = 1});
}

static tsr_status best_samples(void *engine)
{
    return submit_and_cancel(engine, (tsr_generation){.n = 2, .best_of = 5});
}

static tsr_status all_samples(void *engine)
{
    return submit_and_cancel(engine, (tsr_generation){.n = 4});
}

static tsr_status beams(void *engine)
{
    return submit_and_cancel(engine, (tsr_generation){.n = 2, .beams = 4});
}

static void torture_all(tsr_engine *engine)
{
    static const struct {
        tsr_status (*attempt)(void *engine);
        int n_ends;
    } cases[] = {{one_sample, 1}, {best_samples, 2}, {all_samples, 4}, {beams, 1}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(cases[i].attempt(engine), TSR_OK);
        assert_string_equal(last_reason, "cancelled");
        assert_int_equal(n_ends, cases[i].n_ends);
        assert_true(was_last);
        assert_true(torture(cases[i].attempt, engine) > 8); // nothing leaks
    }
}

static void what_cannot_be_is_refused_in_words_and_leaks_nothing(void **state)
{
    const tsr_engine_options options = {.model_path = model_path, .n_threads = 1};
    tsr_engine *engine = NULL;
    bool busy = true;

    (void)state;
    make_model("2/1", 27, 1, 20);
    must(tsr_engine_create(&engine, world, &options));
    if (tsr_engine_is_leader(engine)) {
        refuse_all(engine);
        refuse_answers(engine);
        torture_all(engine);
        must(tsr_engine_step(engine, &busy));
        assert_false(busy);
    }
    (void)end_engine(engine);
    drop_model();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_is_refused_in_words_and_leaks_nothing),
    };

    return run_generations(argc, argv, "refusals", tests, sizeof(tests) / sizeof(tests[0]));
}
