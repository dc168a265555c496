#include "engine/text/pretokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/alloc.h"
#include "tests/support/torture.h"

typedef struct pieces {
    const char *expected_at; /* where the next piece must begin: pieces tile the text */
    size_t n;
    size_t longest;
    size_t lengths[64]; /* of the first ones */
} pieces;

static tsr_status note(void *state, const char *piece, size_t n_bytes)
{
    pieces *seen = state;

    assert_true(n_bytes > 0);
    assert_ptr_equal(piece, seen->expected_at);
    seen->expected_at = piece + n_bytes;
    if (seen->n < 64) {
        seen->lengths[seen->n] = n_bytes;
    }
    seen->longest = n_bytes > seen->longest ? n_bytes : seen->longest;
    seen->n++;
    return TSR_OK;
}

enum {
    MAX_MADE = 40
};

/* Each is compiled once for all tests. */
static struct {
    char name[32];
    tsr_pretokenizer *made;
} all_made[MAX_MADE];

static const tsr_pretokenizer *made_for(const char *pre)
{
    int i = 0;

    while (all_made[i].made != NULL && strcmp(all_made[i].name, pre) != 0) {
        i++;
        assert_true(i < MAX_MADE);
    }
    if (all_made[i].made == NULL) {
        (void)snprintf(all_made[i].name, sizeof(all_made[i].name), "%s", pre);
        assert_int_equal(tsr_pretokenizer_create(&all_made[i].made, pre, strlen(pre)), TSR_OK);
    }
    return all_made[i].made;
}

static int destroy_all(void **state)
{
    (void)state;
    for (int i = 0; i < MAX_MADE; i++) {
        tsr_pretokenizer_destroy(all_made[i].made);
    }
    return tsr_alloc_live() == 0 ? 0 : -1;
}

/* A text by itself, in room of its own. */
static tsr_status split_once(const tsr_pretokenizer *made, const char *text, size_t n_bytes,
                             tsr_pretokenizer_piece *take, void *state)
{
    tsr_pretokenizer_work work = {0};
    const tsr_status st = tsr_pretokenizer_split(made, &work, TSR_PRETOKENIZER_PLACE_FIRST, text,
                                                 n_bytes, take, state);

    tsr_pretokenizer_work_clear(&work);
    return st;
}

static pieces split(const char *pre, const char *text, size_t n_bytes)
{
    pieces seen = {.expected_at = text};

    assert_int_equal(split_once(made_for(pre), text, n_bytes, note, &seen), TSR_OK);
    assert_ptr_equal(seen.expected_at, text + n_bytes);
    return seen;
}

/* tests/data/tokenizer/pieces.jsonl was cut by another implementation, see make.py there. */
static void every_rule_cuts_as_the_reference_does(void **state)
{
    FILE *lines = fopen(TSR_TEST_DATA "/tokenizer/pieces.jsonl", "rb");
    static char line[65536];
    int n_compared = 0;

    (void)state;
    assert_non_null(lines);
    while (fgets(line, sizeof(line), lines) != NULL) {
        json_t *json = json_loads(line, JSON_ALLOW_NUL, NULL);
        const json_t *text = json_object_get(json, "text");
        const char *pre;
        json_t *lengths;

        assert_non_null(json);
        json_object_foreach(json_object_get(json, "cuts"), pre, lengths)
        {
            const pieces seen = split(pre, json_string_value(text), json_string_length(text));

            if (seen.n != json_array_size(lengths)) {
                print_error("%s: %s\n", pre, line);
            }
            assert_int_equal(seen.n, json_array_size(lengths));
            for (size_t i = 0; i < seen.n && i < 64; i++) {
                if ((json_int_t)seen.lengths[i] != json_integer_value(json_array_get(lengths, i))) {
                    print_error("%s, piece %zu: %s\n", pre, i, line);
                }
                assert_int_equal(seen.lengths[i], json_integer_value(json_array_get(lengths, i)));
            }
            n_compared++;
        }
        json_decref(json);
    }
    (void)fclose(lines);
    assert_true(n_compared > 3000);
}

static const char *const rules[] = {
    "default",   "gpt-2",  "smollm",       "llama-bpe",      "dbrx",        "qwen2",
    "qwen35",    "falcon", "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken",
    "gpt-4o",    "bloom",  "viking",       "bailingmoe",     "seed-coder",  "llama3",
    "starcoder", "refact", "command-r",    "stablelm2",      "olmo",        "mpt",
};

enum {
    N_RULES = sizeof(rules) / sizeof(rules[0]),
    LONG_BYTES = 1 << 18
};

/* Each of these has undone a tokenizer once: time that grows with the square would take minutes
 * here.
 */
static void a_long_text_of_anything_is_cut_at_once(void **state)
{
    static const char *const units[] = {
        "a",    " ",        "\n",           "7",        "A",           "!",
        "\t\r", " \n",      "\xe6\xbc\xa2", "\xcc\x81", "\xff",        "aA",
        "1 ",   "\xd0\x96", "\xc2\xa0",     "'s",       "\xe2\x80\xa8"};
    char *text = malloc(LONG_BYTES + 8);

    (void)state;
    assert_non_null(text);
    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
        const size_t unit = strlen(units[u]);
        size_t n = 0;

        for (; n + unit <= LONG_BYTES; n += unit) {
            memcpy(text + n, units[u], unit);
        }
        // What stands behind a long run decides how much of it must be given back.
        memcpy(text + n, "\xe6\xbc\xa2", 3);
        for (int r = 0; r < N_RULES; r++) {
            const pieces seen = split(rules[r], text, n + 3);

            assert_true(seen.n > 0 && seen.longest <= n + 3);
        }
    }
    free(text);
}

static void a_long_run_of_one_kind_stays_one_piece(void **state)
{
    char *text = malloc(LONG_BYTES);

    (void)state;
    assert_non_null(text);
    memset(text, 'a', LONG_BYTES);
    assert_int_equal(split("smollm", text, LONG_BYTES).n, 1);
    assert_int_equal(split("llama-bpe", text, LONG_BYTES).n, 1);
    memset(text, ' ', LONG_BYTES);
    assert_int_equal(split("smollm", text, LONG_BYTES).n, 1);
    memset(text, '1', LONG_BYTES);
    assert_int_equal(split("smollm", text, LONG_BYTES).n, LONG_BYTES);
    free(text);
}

static void a_byte_of_no_character_is_a_piece_and_the_text_around_it_is_cut_as_usual(void **state)
{
    const char text[] = "ab  \xff\xc3(\xe2\x82";
    const pieces seen = split("gpt-2", text, sizeof(text) - 1);
    const size_t expected[] = {2, 2, 1, 1, 1, 1, 1};

    (void)state;
    assert_int_equal(seen.n, 7);
    assert_memory_equal(seen.lengths, expected, sizeof(expected));
}

static void nothing_gives_no_piece(void **state)
{
    (void)state;
    assert_int_equal(split("smollm", "", 0).n, 0);
}

static tsr_status stop_at_second(void *state, const char *piece, size_t n_bytes)
{
    int *n = state;

    (void)piece;
    (void)n_bytes;
    return ++*n == 2 ? TSR_ERR_CANCELLED : TSR_OK;
}

static void whoever_takes_the_pieces_may_stop(void **state)
{
    tsr_pretokenizer *made;
    int n = 0;

    (void)state;
    assert_int_equal(tsr_pretokenizer_create(&made, "smollm", 6), TSR_OK);
    assert_int_equal(split_once(made, "a b c d", 7, stop_at_second, &n), TSR_ERR_CANCELLED);
    assert_int_equal(n, 2);
    tsr_pretokenizer_destroy(made);
}

static void an_unknown_rule_is_refused_and_the_known_ones_are_named(void **state)
{
    const char *const unknown[] = {"", "smol", "smollm2", "gpt-2 phi-2", " ", "smollm "};
    tsr_pretokenizer *made = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        assert_int_equal(tsr_pretokenizer_create(&made, unknown[i], strlen(unknown[i])),
                         TSR_ERR_UNSUPPORTED);
        assert_null(made);
    }
    for (int r = 0; r < 17; r++) {
        if (strcmp(rules[r], "llama3") != 0) {
            assert_non_null(strstr(tsr_status_message(), rules[r]));
        }
    }
}

static tsr_status make_and_split(void *name)
{
    tsr_pretokenizer *made = NULL;
    pieces seen = {.expected_at = name};
    tsr_status st = tsr_pretokenizer_create(&made, name, strlen(name));

    if (st == TSR_OK) {
        st = split_once(made, name, strlen(name), note, &seen);
    }
    tsr_pretokenizer_destroy(made);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    char name[] = "deepseek-llm";

    (void)state;
    assert_true(torture(make_and_split, name) > 20);
    tsr_pretokenizer_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_cuts_as_the_reference_does),
        cmocka_unit_test(a_long_text_of_anything_is_cut_at_once),
        cmocka_unit_test(a_long_run_of_one_kind_stays_one_piece),
        cmocka_unit_test(a_byte_of_no_character_is_a_piece_and_the_text_around_it_is_cut_as_usual),
        cmocka_unit_test(nothing_gives_no_piece),
        cmocka_unit_test(whoever_takes_the_pieces_may_stop),
        cmocka_unit_test(an_unknown_rule_is_refused_and_the_known_ones_are_named),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("pretokenizer", tests, NULL, destroy_all);
}
