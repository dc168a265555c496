#include "tests/support/oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/support/compare.h"
#include "tests/support/real_model.h"

enum {
    N_VOCAB = 49152,
    N_STEPS = 48,
    MOST_IDS = 1024
};

/* tests/data/reference/greedy.jsonl, all lines. */
static json_t *read_lines(void)
{
    FILE *from = fopen(TSR_TEST_DATA "/reference/greedy.jsonl", "r");
    json_t *lines = json_array();
    json_t *line;

    assert_non_null(from);
    while ((line = json_loadf(from, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
        assert_int_equal(json_array_append_new(lines, line), 0);
    }
    assert_int_equal(fclose(from), 0);
    assert_int_equal(json_array_size(lines), 10);
    return lines;
}

static const json_t *line_named(const json_t *lines, const char *name)
{
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);

        if (strcmp(json_string_value(json_object_get(line, "name")), name) == 0) {
            return line;
        }
    }
    fail_msg("no line %s", name);
    return NULL;
}

/* Append a list of ids; returns how many there are now. */
static int append_ids(int32_t *ids, int n, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        assert_true(n < MOST_IDS);
        ids[n++] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return n;
}

static void all_logits_after_a_prompt_are_those_of_the_reference(void **state)
{
    json_t *lines = read_lines();
    oracle *o = oracle_open(real_model_path());
    FILE *from = fopen(TSR_TEST_DATA "/reference/logits_text_short.f32", "rb");
    double *got = calloc(N_VOCAB, sizeof(*got));
    double *want = calloc(N_VOCAB, sizeof(*want));
    int32_t ids[MOST_IDS];
    int n;

    (void)state;
    assert_int_equal(oracle_n_vocab(o), N_VOCAB);
    assert_non_null(from);
    assert_non_null(got);
    assert_non_null(want);
    for (int i = 0; i < N_VOCAB; i++) {
        float value;

        assert_int_equal(fread(&value, sizeof(value), 1, from), 1);
        want[i] = (double)value;
    }
    assert_int_equal(fclose(from), 0);
    n = append_ids(ids, 0, json_object_get(line_named(lines, "text_short"), "prompt_ids"));
    oracle_logits(o, ids, n, 1, got);
    // The reference is double too, stored as f32: half a unit of logits below 32 is 1e-6.
    compare_assert("text_short", compare_f64(got, want, N_VOCAB, 2e-6), 1e-12, 2e-6);
    free(want);
    free(got);
    oracle_close(o);
    json_decref(lines);
}

static void the_best_of_every_step_are_those_of_the_reference(void **state)
{
    static const char *const names[] = {"chat_capital", "text_short"};
    json_t *lines = read_lines();
    oracle *o = oracle_open(real_model_path());
    double *logits = calloc((size_t)N_STEPS * N_VOCAB, sizeof(*logits));

    (void)state;
    assert_non_null(logits);
    for (size_t p = 0; p < sizeof(names) / sizeof(names[0]); p++) {
        const json_t *line = line_named(lines, names[p]);
        const json_t *steps = json_object_get(line, "steps");
        int32_t ids[MOST_IDS];
        int n = append_ids(ids, 0, json_object_get(line, "prompt_ids"));

        n = append_ids(ids, n, json_object_get(line, "ids"));
        assert_int_equal(json_array_size(steps), N_STEPS);
        // The last id is what the last step chose: it is not an input.
        oracle_logits(o, ids, n - 1, N_STEPS, logits);
        for (int s = 0; s < N_STEPS; s++) {
            const json_t *top = json_object_get(json_array_get(steps, (size_t)s), "top");
            const double *row = logits + (size_t)s * N_VOCAB;

            assert_int_equal(oracle_best(row, N_VOCAB, NULL), ids[n - N_STEPS + s]);
            for (size_t i = 0; i < json_array_size(top); i++) {
                const json_t *pair = json_array_get(top, i);
                const json_int_t id = json_integer_value(json_array_get(pair, 0));
                const double want = json_real_value(json_array_get(pair, 1));

                assert_in_range(id, 0, N_VOCAB - 1);
                if (!(fabs(row[id] - want) < 2e-6)) { // six places are given
                    fail_msg("%s step %d: the logit of %d is %.9f, not %.6f", names[p], s, (int)id,
                             row[id], want);
                }
            }
        }
    }
    free(logits);
    oracle_close(o);
    json_decref(lines);
}

static void greedy_goes_the_way_of_the_reference(void **state)
{
    json_t *lines = read_lines();
    const json_t *line = line_named(lines, "text_short");
    oracle *o = oracle_open(real_model_path());
    int32_t prompt[MOST_IDS];
    int32_t want[MOST_IDS];
    int32_t got[12];
    double margins[12];
    const int n_prompt = append_ids(prompt, 0, json_object_get(line, "prompt_ids"));

    (void)state;
    assert_int_equal(append_ids(want, 0, json_object_get(line, "ids")), N_STEPS);
    oracle_greedy(o, prompt, n_prompt, 12, got, margins);
    for (int i = 0; i < 12; i++) {
        const json_t *step = json_array_get(json_object_get(line, "steps"), (size_t)i);

        assert_int_equal(got[i], want[i]);
        assert_true(fabs(margins[i] - json_real_value(json_object_get(step, "margin"))) < 2e-6);
    }
    oracle_close(o);
    json_decref(lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_logits_after_a_prompt_are_those_of_the_reference),
        cmocka_unit_test(the_best_of_every_step_are_those_of_the_reference),
        cmocka_unit_test(greedy_goes_the_way_of_the_reference),
    };

    (void)real_model_path(); // skips
    return cmocka_run_group_tests(tests, NULL, NULL);
}
