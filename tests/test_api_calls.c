#include "launch/api_calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/torture.h"

#define PARIS "{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}"
#define ROME "{\"name\": \"weather\", \"parameters\": {\"city\": \"Rome\", \"days\": 3}}"

/* What comes of a text: content, and the calls as NAME ARGUMENTS; ... */
typedef struct example {
    const char *said;
    const char *content;
    const char *calls;
} example;

static const char paris[] = "weather {\"city\":\"Paris\"};";
static const char both[] = "weather {\"city\":\"Paris\"};weather {\"city\":\"Rome\",\"days\":3};";

static const example examples[] = {
    {"", "", ""},
    {"Just words. ", "Just words. ", ""},
    {"  \n", "  \n", ""},
    {"1 < 2 <tool", "1 < 2 <tool", ""},
    {"<tool_call>\n" PARIS "\n</tool_call>", "", paris},
    {"<tool_call>" PARIS "</tool_call>\n<tool_call>" ROME "</tool_call>\n", "", both},
    {"Let me look.\n\n<tool_call>" PARIS "</tool_call>", "Let me look.", paris},
    {"<tool_call>" PARIS "</tool_call> And so on.", " And so on.", paris},
    {"<tool_call>" PARIS, "", paris}, /* ended before it was closed */
    {"<tool_call>" PARIS "</tool_call", "<tool_call>" PARIS "</tool_call", ""},
    {"a <tool_call>no JSON</tool_call> b", "a <tool_call>no JSON</tool_call> b", ""},
    {"<tool_call>{\"name\": 1}</tool_call>", "<tool_call>{\"name\": 1}</tool_call>", ""},
    {"<tool_call>[]</tool_call><tool_call>" PARIS "</tool_call>", "<tool_call>[]</tool_call>",
     paris},
    {PARIS, "", paris},
    {" " PARIS "; " ROME " ", "", both},
    {PARIS "\n" ROME, "", both},
    {"<|python_tag|>" ROME, "", "weather {\"city\":\"Rome\",\"days\":3};"},
    {"[TOOL_CALLS] [" PARIS ", " ROME "]", "", both},
    {"[" PARIS "]", "", paris},
    {"[TOOL_CALLS]", "[TOOL_CALLS]", ""},
    {"{\"city\": \"Paris\"}", "{\"city\": \"Paris\"}", ""},
    {"[1, 2] are numbers", "[1, 2] are numbers", ""},
    {"{} <tool_call>" PARIS "</tool_call>", "{}", paris},
    {PARIS " is a call", PARIS " is a call", ""},
    {"{\"name\": \"f\", \"arguments\": \"{}\"}", "", "f {};"},
    {"<b>bold</b>", "<b>bold</b>", ""},
};

static void write_calls(tsr_text *out, const json_t *calls)
{
    const json_t *call;
    size_t i;

    json_array_foreach(calls, i, call)
    {
        const json_t *function = json_object_get(call, "function");
        const char *words[] = {json_string_value(json_object_get(function, "name")), " ",
                               json_string_value(json_object_get(function, "arguments")), ";"};

        assert_int_equal(strlen(json_string_value(json_object_get(call, "id"))), 9);
        for (int w = 0; w < 4; w++) {
            if (words[w][0] != '\0') {
                assert_int_equal(tsr_text_append(out, words[w], strlen(words[w])), TSR_OK);
            }
        }
    }
}

static const char *text_of(const tsr_text *text)
{
    return text->bytes != NULL ? text->bytes : "";
}

static void calls_are_found_however_the_text_is_cut(void **state)
{
    (void)state;
    for (size_t e = 0; e < sizeof(examples) / sizeof(examples[0]); e++) {
        const char *said = examples[e].said;
        const size_t n = strlen(said);

        for (size_t piece = 1; piece <= n + 1; piece++) {
            tsr_api_calls calls = {0};
            tsr_text content = {0};
            tsr_text found = {0};

            for (size_t at = 0; at < n; at += piece) {
                assert_int_equal(tsr_api_calls_read(&calls, &content, said + at,
                                                    at + piece < n ? piece : n - at, false, "x",
                                                    SIZE_MAX),
                                 TSR_OK);
                // What was given as content stays so.
                assert_true(strncmp(text_of(&content), examples[e].content, content.n_bytes) == 0);
            }
            assert_int_equal(tsr_api_calls_read(&calls, &content, "", 0, true, "x", SIZE_MAX),
                             TSR_OK);
            write_calls(&found, calls.found);
            assert_string_equal(text_of(&content), examples[e].content);
            assert_string_equal(text_of(&found), examples[e].calls);
            tsr_text_clear(&found);
            tsr_text_clear(&content);
            tsr_api_calls_clear(&calls);
        }
    }
}

static void words_are_not_held_back(void **state)
{
    static const char said[] = "Words, and ";
    tsr_api_calls calls = {0};
    tsr_text content = {0};

    (void)state;
    assert_int_equal(
        tsr_api_calls_read(&calls, &content, said, sizeof(said) - 1, false, "x", SIZE_MAX), TSR_OK);
    assert_string_equal(content.bytes, "Words, and"); // space could stand before a call
    tsr_text_clear(&content);
    tsr_api_calls_clear(&calls);
}

static void ids_differ_and_calls_can_be_limited(void **state)
{
    static const char said[] = PARIS ROME PARIS;

    (void)state;
    for (size_t most = 1; most <= 3; most++) {
        tsr_api_calls calls = {0};
        tsr_text content = {0};

        assert_int_equal(
            tsr_api_calls_read(&calls, &content, said, sizeof(said) - 1, true, "seed", most),
            TSR_OK);
        assert_int_equal(json_array_size(calls.found), most);
        for (size_t i = 1; i < most; i++) {
            assert_string_not_equal(
                json_string_value(json_object_get(json_array_get(calls.found, i), "id")),
                json_string_value(json_object_get(json_array_get(calls.found, i - 1), "id")));
        }
        tsr_text_clear(&content);
        tsr_api_calls_clear(&calls);
    }
}

static tsr_status read_one(void *ctx)
{
    static const char said[] = "Look: <tool_call>" PARIS "</tool_call>";
    tsr_api_calls calls = {0};
    tsr_text content = {0};
    const tsr_status st =
        tsr_api_calls_read(&calls, &content, said, sizeof(said) - 1, true, "x", SIZE_MAX);

    (void)ctx;
    tsr_text_clear(&content);
    tsr_api_calls_clear(&calls);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_in_range(torture(read_one, NULL), 3, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_are_found_however_the_text_is_cut),
        cmocka_unit_test(words_are_not_held_back),
        cmocka_unit_test(ids_differ_and_calls_can_be_limited),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("api_calls", tests, NULL, NULL);
}
