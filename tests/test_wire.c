/*
 * What clients and the leader say to each other: it arrives as it was, however it is cut, and what
 * nobody has said is refused.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "engine/remote/kept.h"

static void ignore_event(void *ctx, const tsr_event *event)
{
    (void)ctx;
    (void)event;
}

static const int32_t prompt[] = {1, 2, 3, 4, 5};
static const int32_t so_far[] = {7, 8};
static const int32_t bias_ids[] = {9, 10, 11};
static const float biases[] = {0.5F, -1.25F, 100};
static const char *const stops[] = {"ab", "", "\n\n"};

static tsr_generation example(void)
{
    return (tsr_generation){
        .prompt = prompt,
        .n_prompt = 5,
        .max_tokens = 77,
        .temperature = 0.7F,
        .top_k = 3,
        .top_p = 0.9F,
        .min_p = 0.1F,
        .seed = UINT64_MAX,
        .priority = -4,
        .deadline_s = 2.5,
        .ignore_end = true,
        .n = 3,
        .best_of = 4,
        .length_penalty = -0.3,
        .stopping = TSR_STOPPING_NEVER,
        .typical_p = 0.6F,
        .repetition_penalty = 1.1F,
        .presence_penalty = 0.2F,
        .frequency_penalty = 0.3F,
        .bias_ids = bias_ids,
        .biases = biases,
        .n_biases = 3,
        .min_tokens = 6,
        .stop_ids = prompt,
        .n_stop_ids = 2,
        .stops = stops,
        .n_stops = 3,
        .include_stop = true,
        .want_logprobs = true,
        .n_top = 5,
        .pooling = TSR_POOLING_LAST,
        .so_far = so_far,
        .n_so_far = 2,
        .so_far_logprob = -3.25,
        .on_event = ignore_event,
    };
}

static void put(tsr_text *out, const tsr_generation *g)
{
    tsr_wire w = tsr_wire_write(out, TSR_WIRE_SUBMIT);
    tsr_generation copy = *g;

    tsr_wire_generation(&w, &copy, NULL);
    assert_int_equal(tsr_wire_finish(&w), TSR_OK);
    assert_int_equal(out->n_bytes % 8, 0);
}

static void a_generation_arrives_as_it_was(void **state)
{
    const tsr_generation g = example();
    tsr_generation got = {0};
    tsr_wire_stops got_stops;
    tsr_text out = {0};
    size_t used;
    tsr_wire w;

    (void)state;
    put(&out, &g);
    assert_int_equal(tsr_wire_read(&w, &used, out.bytes, out.n_bytes), TSR_OK);
    assert_int_equal(used, out.n_bytes);
    assert_int_equal(w.kind, TSR_WIRE_SUBMIT);
    tsr_wire_generation(&w, &got, &got_stops);
    assert_int_equal(tsr_wire_check(&w), TSR_OK);

    assert_memory_equal(got.prompt, prompt, sizeof(prompt));
    assert_memory_equal(got.so_far, so_far, sizeof(so_far));
    assert_memory_equal(got.bias_ids, bias_ids, sizeof(bias_ids));
    assert_memory_equal(got.biases, biases, sizeof(biases));
    assert_memory_equal(got.stop_ids, prompt, 2 * sizeof(*prompt));
    for (int i = 0; i < 3; i++) {
        assert_string_equal(got.stops[i], stops[i]);
        assert_int_equal(got.stop_bytes[i], strlen(stops[i]));
    }
    // The rest field by field: pointers aside, and what is not passed on.
    got.prompt = g.prompt;
    got.so_far = g.so_far;
    got.bias_ids = g.bias_ids;
    got.biases = g.biases;
    got.stop_ids = g.stop_ids;
    got.stops = g.stops;
    got.stop_bytes = NULL;
    got.on_event = g.on_event;
    assert_int_equal(got.n_prompt, g.n_prompt);
    assert_memory_equal(&got, &g, offsetof(tsr_generation, ignore_end) + 1);
    assert_int_equal(got.n, g.n);
    assert_int_equal(got.best_of, g.best_of);
    assert_int_equal(got.beams, g.beams);
    assert_true(got.length_penalty == g.length_penalty && got.stopping == g.stopping);
    assert_true(got.typical_p == g.typical_p && got.repetition_penalty == g.repetition_penalty);
    assert_true(got.presence_penalty == g.presence_penalty &&
                got.frequency_penalty == g.frequency_penalty);
    assert_true(got.n_biases == 3 && got.n_stop_ids == 2 && got.n_stops == 3 && got.n_so_far == 2);
    assert_true(got.min_tokens == 6 && got.include_stop && got.want_logprobs && got.n_top == 5);
    assert_true(got.pooling == TSR_POOLING_LAST);
    assert_true(!got.score && !got.want_logits && got.so_far_logprob == g.so_far_logprob);
    tsr_text_clear(&out);
}

static void an_event_arrives_as_it_was(void **state)
{
    const tsr_top_token top[] = {{3, -0.5}, {4, -1.5}};
    const float logits[] = {1, 2, 3};
    tsr_event e = {.kind = TSR_EVENT_LOGITS,
                   .choice = 2,
                   .last = true,
                   .token = 5,
                   .text = "a\0b",
                   .text_bytes = 3,
                   .position = 6,
                   .logprob = -7,
                   .score = 8,
                   .top = top,
                   .n_top = 2,
                   .best = 9,
                   .logits = logits,
                   .n_values = 3,
                   .reason = "stop",
                   .status = TSR_ERR_FULL,
                   .n_prompt = 10,
                   .n_cached_tokens = 11,
                   .n_generated = 12,
                   .first_token_s = 13,
                   .prompt_s = 14,
                   .generation_s = 15,
                   .mean_gap_s = 16,
                   .longest_gap_s = 17};
    tsr_event got = {0};
    tsr_text out = {0};
    tsr_wire w = tsr_wire_write(&out, TSR_WIRE_EVENT);
    size_t used;

    (void)state;
    tsr_wire_event(&w, &e);
    assert_int_equal(tsr_wire_finish(&w), TSR_OK);
    assert_int_equal(tsr_wire_read(&w, &used, out.bytes, out.n_bytes), TSR_OK);
    tsr_wire_event(&w, &got);
    assert_int_equal(tsr_wire_check(&w), TSR_OK);
    assert_int_equal(got.n_values, 3);
    assert_true(got.kind == e.kind && got.choice == 2 && got.last && got.token == 5);
    assert_memory_equal(got.text, "a\0b", 4);
    assert_true(got.text_bytes == 3 && got.position == 6 && got.logprob == -7 && got.score == 8);
    assert_true(got.n_top == 2 && got.top[1].id == 4 && got.top[1].logprob == -1.5);
    assert_true(got.best == 9 && got.status == TSR_ERR_FULL && got.message == NULL);
    assert_memory_equal(got.logits, logits, sizeof(logits));
    assert_string_equal(got.reason, "stop");
    assert_true(got.n_prompt == 10 && got.n_cached_tokens == 11 && got.n_generated == 12);
    assert_true(got.first_token_s == 13 && got.prompt_s == 14 && got.generation_s == 15 &&
                got.mean_gap_s == 16 && got.longest_gap_s == 17);
    tsr_text_clear(&out);
}

static void an_embedding_and_a_map_arrive_too(void **state)
{
    const float vector[] = {0.5F, -0.5F};
    const int64_t all_owners[] = {7, -1, 8};
    const uint8_t all_places[] = {1, 2, 3, 4, 0, 6};
    const int64_t *owners = all_owners;
    const uint8_t *places = all_places;
    tsr_event e = {.kind = TSR_EVENT_EMBEDDING, .embedding = vector, .n_values = 2};
    tsr_event got = {0};
    tsr_text out = {0};
    tsr_wire w = tsr_wire_write(&out, TSR_WIRE_EVENT);
    int64_t n_owners = 3;
    int64_t n_places = 6;
    size_t used;
    size_t first;

    (void)state;
    tsr_wire_event(&w, &e);
    assert_int_equal(tsr_wire_finish(&w), TSR_OK);
    w = tsr_wire_write(&out, TSR_WIRE_BLOCKS);
    tsr_wire_blocks(&w, &owners, &n_owners, &places, &n_places);
    assert_int_equal(tsr_wire_finish(&w), TSR_OK);

    n_owners = n_places = 0;
    assert_int_equal(tsr_wire_read(&w, &first, out.bytes, out.n_bytes), TSR_OK);
    tsr_wire_event(&w, &got);
    assert_int_equal(tsr_wire_check(&w), TSR_OK);
    assert_true(got.n_values == 2 && got.kind == TSR_EVENT_EMBEDDING && got.logits == NULL);
    assert_memory_equal(got.embedding, vector, sizeof(vector));
    assert_int_equal(tsr_wire_read(&w, &used, out.bytes + first, out.n_bytes - first), TSR_OK);
    tsr_wire_blocks(&w, &owners, &n_owners, &places, &n_places);
    assert_int_equal(tsr_wire_check(&w), TSR_OK);
    assert_true(n_owners == 3 && n_places == 6);
    assert_memory_equal(owners, all_owners, sizeof(all_owners));
    assert_memory_equal(places, all_places, sizeof(all_places));
    tsr_text_clear(&out);
}

static void a_frame_is_there_when_all_of_it_is(void **state)
{
    const tsr_generation g = example();
    tsr_text out = {0};
    size_t used;
    tsr_wire w;

    (void)state;
    put(&out, &g);
    for (size_t n = 0; n < out.n_bytes; n++) {
        assert_int_equal(tsr_wire_read(&w, &used, out.bytes, n), TSR_OK);
        assert_int_equal(used, 0);
    }
    tsr_text_clear(&out);
}

/* Numbers of the frame's head or its fields are what nobody says. */
static void what_makes_no_sense_is_refused(void **state)
{
    const tsr_generation g = example();
    const int64_t odd[] = {-1, INT64_MAX, INT64_MIN, (int64_t)INT_MAX + 1, 1 << 20};
    tsr_text out = {0};
    int n_refused = 0;
    size_t used;
    tsr_wire w;

    (void)state;
    put(&out, &g);
    for (size_t at = 0; at < out.n_bytes; at += 8) {
        for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
            char before[8];
            tsr_generation got = {0};
            tsr_wire_stops got_stops;

            memcpy(before, out.bytes + at, 8);
            memcpy(out.bytes + at, &odd[i], 8);
            if (tsr_wire_read(&w, &used, out.bytes, out.n_bytes) != TSR_OK) {
                n_refused++;
            } else if (used > 0) {
                tsr_wire_generation(&w, &got, &got_stops);
                n_refused += tsr_wire_check(&w) != TSR_OK ? 1 : 0;
            }
            memcpy(out.bytes + at, before, 8);
        }
    }
    assert_in_range(n_refused, 50, 5 * (int)out.n_bytes / 8);
    tsr_text_clear(&out);
}

static tsr_status keep_and_submit(void *ctx)
{
    const tsr_generation g = example();
    tsr_kept *kept = NULL;
    tsr_text out = {0};
    tsr_status st = tsr_kept_create(&kept, &g);

    (void)ctx;
    st = st == TSR_OK ? tsr_kept_submit(kept, &out) : st;
    tsr_kept_destroy(kept);
    tsr_text_clear(&out);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    for (long nth = 1; nth < 100; nth++) {
        const long live = tsr_alloc_live();
        tsr_status st;

        tsr_alloc_fail_nth(nth);
        st = keep_and_submit(NULL);
        tsr_alloc_fail_nth(0);
        assert_int_equal(tsr_alloc_live(), live);
        if (st == TSR_OK) {
            assert_true(nth > 4);
            return;
        }
        assert_int_equal(st, TSR_ERR_NOMEM);
    }
    fail();
}

/* ---- what a client keeps ---- */

static tsr_event token(int choice, int32_t id, double logprob)
{
    return (tsr_event){
        .kind = TSR_EVENT_TOKEN, .choice = choice, .token = id, .logprob = logprob, .text = ""};
}

/* The i-th frame of a text, as a generation. */
static int64_t read_submit(const tsr_text *out, int i, tsr_generation *g, tsr_wire_stops *into)
{
    size_t at = 0;
    int64_t name = 0;

    for (;;) {
        size_t used;
        tsr_wire w;

        assert_int_equal(tsr_wire_read(&w, &used, out->bytes + at, out->n_bytes - at), TSR_OK);
        if (used == 0) {
            return -1;
        }
        at += used;
        if (i-- == 0) {
            tsr_wire_int64(&w, &name);
            tsr_wire_generation(&w, g, into);
            assert_int_equal(tsr_wire_check(&w), TSR_OK);
            return name;
        }
    }
}

static void samples_go_on_each_by_itself(void **state)
{
    tsr_generation g = example();
    tsr_event end = {.kind = TSR_EVENT_END, .choice = 1, .reason = "stop", .text = ""};
    tsr_event event;
    tsr_wire_stops into;
    tsr_generation got;
    tsr_kept *k = NULL;
    tsr_text out = {0};

    (void)state;
    g.best_of = 0;
    g.n_so_far = 0;
    assert_int_equal(tsr_kept_create(&k, &g), TSR_OK);
    k->name = 3 * TSR_KEPT_NAMES;
    assert_int_equal(tsr_kept_submit(k, &out), TSR_OK);
    assert_int_equal(read_submit(&out, 0, &got, &into), k->name);
    assert_int_equal(got.n, 3);
    for (int i = 0; i < 3; i++) {
        event = token(i, 20 + i, -1 - i);
        assert_true(tsr_kept_hear(k, k->name, &event));
    }
    event = token(2, 32, -10);
    assert_true(tsr_kept_hear(k, k->name, &event));
    assert_true(tsr_kept_hear(k, k->name, &end));
    assert_false(end.last);

    out.n_bytes = 0;
    assert_int_equal(tsr_kept_submit(k, &out), TSR_OK);
    assert_int_equal(read_submit(&out, 0, &got, &into), k->name + 1);
    assert_true(got.n == 1 && got.seed == g.seed && got.n_so_far == 1 && got.so_far[0] == 20);
    assert_int_equal(read_submit(&out, 1, &got, &into), k->name + 3);
    assert_true(got.n_so_far == 2 && got.so_far[1] == 32 && got.so_far_logprob == -13);
    assert_true(got.seed != g.seed && got.max_tokens == g.max_tokens && got.deadline_s <= 2.5);
    assert_int_equal(read_submit(&out, 2, &got, &into), -1);

    event = token(0, 33, 0); // under its own name it is the third
    assert_true(tsr_kept_hear(k, k->name + 3, &event));
    assert_int_equal(event.choice, 2);
    assert_false(tsr_kept_hear(k, k->name, &event)); // and under that of all it is nobody's
    end.choice = 0;
    assert_true(tsr_kept_hear(k, k->name + 1, &end));
    assert_false(end.last);
    end.choice = 0;
    assert_true(tsr_kept_hear(k, k->name + 3, &end));
    assert_true(end.last && end.choice == 2);
    tsr_kept_destroy(k);
    tsr_text_clear(&out);
}

static void what_is_told_at_the_end_is_told_once(void **state)
{
    tsr_generation g = example(); // the best 3 of 4
    tsr_wire_stops into;
    tsr_generation got;
    tsr_event event;
    tsr_kept *k = NULL;
    tsr_text out = {0};

    (void)state;
    g.n_so_far = 0;
    assert_int_equal(tsr_kept_create(&k, &g), TSR_OK);
    event = token(0, 5, -1);
    assert_true(tsr_kept_hear(k, 0, &event));
    event = token(0, 6, -1);
    assert_true(tsr_kept_hear(k, 0, &event));
    assert_int_equal(tsr_kept_submit(k, &out), TSR_OK);
    assert_int_equal(read_submit(&out, 0, &got, &into), 0);
    assert_true(got.best_of == 4 && got.n_so_far == 0);
    for (int i = 0; i < 4; i++) {
        event = token(0, 5 + i, -1);
        assert_int_equal(tsr_kept_hear(k, 0, &event), i >= 2);
    }
    event = token(5, 1, 0); // there is no such choice
    assert_false(tsr_kept_hear(k, 0, &event));
    tsr_kept_destroy(k);
    tsr_text_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_generation_arrives_as_it_was),
        cmocka_unit_test(an_event_arrives_as_it_was),
        cmocka_unit_test(an_embedding_and_a_map_arrive_too),
        cmocka_unit_test(a_frame_is_there_when_all_of_it_is),
        cmocka_unit_test(what_makes_no_sense_is_refused),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
        cmocka_unit_test(samples_go_on_each_by_itself),
        cmocka_unit_test(what_is_told_at_the_end_is_told_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
