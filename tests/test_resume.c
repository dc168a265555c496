/*
 * An answer that was cut off goes on as if nothing had been: from any of its tokens, whatever
 * chooses them and ends it, on 1 and 2 ranks; and one of several samples goes on by itself.
 */
#include "tests/support/generations.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/sampler.h"

enum {
    N_PROMPTS = 16,
    N_NEW = 40,
    N_TOP = 3,
    N_SAMPLES = 3,
    LONGEST = 90,
    MOST_TEXT = 512
};

typedef struct place {
    int32_t id;
    double logprob;
    tsr_top_token top[N_TOP];
    int n_top;
    int text_bytes; // of all text told with it and before
} place;

typedef struct outcome {
    place places[N_NEW];
    int n_places;
    char text[MOST_TEXT];
    int n_text;
    char reason[16];
    double logprob; // of all
    int64_t n_prompt;
    int64_t n_generated;
    int n_ends;
} outcome;

static outcome whole[N_PROMPTS][N_SAMPLES];
static outcome rest[N_PROMPTS][N_SAMPLES];
static outcome (*into)[N_SAMPLES];

static void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = &((outcome *)ctx)[event->choice];

    assert_true(o->n_text + (int)event->text_bytes <= MOST_TEXT);
    if (event->text_bytes > 0) {
        memcpy(o->text + o->n_text, event->text, event->text_bytes);
        o->n_text += (int)event->text_bytes;
    }
    if (event->kind == TSR_EVENT_TOKEN) {
        place *p = &o->places[o->n_places++];

        assert_true(o->n_places <= N_NEW);
        *p = (place){.id = event->token,
                     .logprob = event->logprob,
                     .n_top = event->n_top,
                     .text_bytes = o->n_text};
        for (int i = 0; i < event->n_top; i++) {
            p->top[i] = event->top[i];
        }
    } else if (event->kind == TSR_EVENT_END) {
        (void)snprintf(o->reason, sizeof(o->reason), "%s", event->reason);
        o->logprob = event->logprob;
        o->n_prompt = event->n_prompt;
        o->n_generated = event->n_generated;
        o->n_ends++;
    }
}

static const int32_t bias_ids[] = {END_TOKEN, 40, 17};
static const float biases[] = {3.0F, -2.0F, 1.5F};
static const int32_t stop_ids[] = {50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60};
static const char *const stops[] = {"ab", "e", "T", "\xc3", "zzz", "q", "9"};

/* Each wish has another mixture; some are cut short by the context or by what they say. */
static tsr_generation whole_wish(int i)
{
    return (tsr_generation){
        .max_tokens = N_NEW - i % 3,
        .temperature = i % 3 == 0 ? 0 : 0.9F,
        .top_p = i % 5 == 1 ? 0.9F : 1,
        .seed = 700 + (uint64_t)i,
        .ignore_end = i % 2 == 0,
        .repetition_penalty = i % 4 < 2 ? 1.3F : 0,
        .presence_penalty = i % 5 == 0 ? 0.7F : 0,
        .frequency_penalty = i % 5 == 2 ? 0.4F : 0,
        .bias_ids = bias_ids,
        .biases = biases,
        .n_biases = i % 4,
        .min_tokens = i % 6 == 3 ? 9 : 0,
        .stop_ids = stop_ids,
        .n_stop_ids = i % 4 == 3 ? 11 : 0,
        .stops = stops,
        .n_stops = i % 4 == 1 ? 7 : 0,
        .include_stop = i % 8 == 3 || i % 8 == 1,
        .want_logprobs = i != 4,
        .n_top = i != 4 ? i % (N_TOP + 1) : 0,
        .n = i % 7 == 6 ? N_SAMPLES : 1,
        .on_event = note_event,
        .ctx = into[i],
    };
}

static int cut_at; // tokens that were told before
static int sample; // which of several is gone on with
static int32_t told[N_PROMPTS][N_NEW];

static const outcome *cut_one(int i)
{
    return &whole[i][whole_wish(i).n > 1 ? sample : 0];
}

static int n_told(int i)
{
    return cut_at < cut_one(i)->n_places ? cut_at : cut_one(i)->n_places;
}

static tsr_generation rest_wish(int i)
{
    const outcome *o = cut_one(i);
    tsr_generation g = whole_wish(i);

    g.seed = tsr_sampler_seed_of(g.seed, g.n > 1 ? sample : 0);
    g.n = 1;
    g.so_far = told[i];
    g.n_so_far = n_told(i);
    for (int t = 0; t < n_told(i); t++) {
        told[i][t] = o->places[t].id;
        g.so_far_logprob += o->places[t].logprob;
    }
    return g;
}

static void run(const way *w, wish_fn *wish, outcome (*to)[N_SAMPLES])
{
    into = to;
    memset(to, 0, N_PROMPTS * sizeof(*to));
    (void)run_way(w, N_PROMPTS, wish);
}

static void assert_same_rest(int i)
{
    const outcome *o = cut_one(i);
    const outcome *r = &rest[i][0];
    const int n = n_told(i);
    const int text_bytes = n > 0 ? o->places[n - 1].text_bytes : 0;

    assert_int_equal(r->n_places, o->n_places - n);
    for (int t = 0; t < r->n_places; t++) {
        const place *a = &o->places[n + t];
        const place *b = &r->places[t];

        assert_int_equal(b->id, a->id);
        assert_memory_equal(&b->logprob, &a->logprob, sizeof(a->logprob));
        assert_int_equal(b->n_top, a->n_top);
        for (int k = 0; k < a->n_top; k++) {
            assert_int_equal(b->top[k].id, a->top[k].id);
            assert_memory_equal(&b->top[k].logprob, &a->top[k].logprob, sizeof(double));
        }
        assert_int_equal(text_bytes + b->text_bytes, a->text_bytes);
    }
    assert_int_equal(r->n_text, o->n_text - text_bytes);
    assert_memory_equal(r->text, o->text + text_bytes, (size_t)r->n_text);
    assert_string_equal(r->reason, o->reason);
    assert_memory_equal(&r->logprob, &o->logprob, sizeof(o->logprob));
    assert_int_equal(r->n_prompt, o->n_prompt);
    assert_int_equal(r->n_generated, o->n_generated);
    assert_int_equal(r->n_ends, 1);
}

static void an_answer_goes_on_from_any_of_its_tokens(void **state)
{
    static const int cuts[] = {1, 2, 3, 8, 9, 20, N_NEW - 3, N_NEW};
    const way alone = {"alone", {.max_batch_tokens = 512}, 0};
    const way ways[] = {{"together, in chunks", {.max_batch_tokens = 24}, 1},
                        {"the next step planned ahead", {.plan_ahead = 1}, 1}};
    int n_stopped = 0;

    (void)state;
    make_model("9/3", 31, N_PROMPTS, LONGEST);
    run(&alone, whole_wish, whole);
    for (size_t c = 0; c < sizeof(cuts) / sizeof(cuts[0]); c++) {
        cut_at = cuts[c];
        sample = (int)c % N_SAMPLES;
        run(&ways[c % 2], rest_wish, rest);
        for (int i = 0; i < N_PROMPTS && tsr_world_is_leader(world); i++) {
            assert_same_rest(i);
        }
    }
    for (int i = 0; i < N_PROMPTS; i++) {
        n_stopped += strcmp(whole[i][0].reason, "stop") == 0 ? 1 : 0;
    }
    assert_true(!tsr_world_is_leader(world) || (n_stopped >= 3 && n_stopped < N_PROMPTS));
    drop_model();
}

static void what_cannot_go_on_is_refused(void **state)
{
    static const int32_t prompt[] = {3, 4, 5};
    static const int32_t wrong[] = {1 << 20};
    tsr_generation g = {.prompt = prompt, .n_prompt = 3, .max_tokens = 9, .on_event = note_event};
    tsr_engine_options options = {.model_path = model_path, .n_threads = 1};
    tsr_engine *engine = NULL;
    int64_t id;

    (void)state;
    make_model("9/3", 32, 1, 9);
    options.model_path = model_path;
    must(tsr_engine_create(&engine, world, &options));
    if (tsr_engine_is_leader(engine)) {
        g.so_far = wrong;
        g.n_so_far = 1;
        assert_int_equal(tsr_engine_submit(engine, &g, &id), TSR_ERR_ARG);
        g.so_far = prompt;
        g.n_so_far = -1;
        assert_int_equal(tsr_engine_submit(engine, &g, &id), TSR_ERR_ARG);
        g.n_so_far = 1;
        g.n = 2;
        assert_int_equal(tsr_engine_submit(engine, &g, &id), TSR_ERR_ARG);
        g.n = 1;
        g.beams = 2;
        assert_int_equal(tsr_engine_submit(engine, &g, &id), TSR_ERR_ARG);
        g.beams = 0;
        g.score = true;
        assert_int_equal(tsr_engine_submit(engine, &g, &id), TSR_ERR_ARG);
    }
    (void)end_engine(engine);
    drop_model();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_goes_on_from_any_of_its_tokens),
        cmocka_unit_test(what_cannot_go_on_is_refused),
    };

    return run_generations(argc, argv, "resume", tests, sizeof(tests) / sizeof(tests[0]));
}
