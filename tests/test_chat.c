#include "engine/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/support/torture.h"

enum {
    MAX_MESSAGES = 16
};

static int read_messages(tsr_chat_message *messages, const json_t *list)
{
    const int n = (int)json_array_size(list);

    assert_in_range(n, 1, MAX_MESSAGES);
    for (int i = 0; i < n; i++) {
        const json_t *message = json_array_get(list, (size_t)i);

        messages[i].role = json_string_value(json_object_get(message, "role"));
        messages[i].content = json_string_value(json_object_get(message, "content"));
    }
    return n;
}

/* tests/data/chat/rendered.json: what a real template engine made of each template, see make.py
 * there. */
static void every_known_form_gives_what_the_template_itself_gives(void **state)
{
    json_t *cases = json_load_file(TSR_TEST_DATA "/chat/rendered.json", 0, NULL);
    const json_t *one;
    size_t i;

    (void)state;
    assert_true(json_array_size(cases) >= 40);
    json_array_foreach(cases, i, one)
    {
        const json_t *template_text = json_object_get(one, "template");
        tsr_chat_message messages[MAX_MESSAGES];
        const int n = read_messages(messages, json_object_get(one, "messages"));
        tsr_text text = {0};

        assert_int_equal(tsr_chat_render(&text, NULL, json_string_value(template_text),
                                         json_string_length(template_text), NULL, messages, n),
                         TSR_OK);
        if (strcmp(text.bytes, json_string_value(json_object_get(one, "text"))) != 0) {
            print_error("case %zu, %s\n", i, json_string_value(json_object_get(one, "name")));
        }
        assert_string_equal(text.bytes, json_string_value(json_object_get(one, "text")));
        tsr_text_clear(&text);
    }
    json_decref(cases);
}

static const tsr_chat_message hello = {"user", "hello"};

static const char chatml[] =
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}";

static void a_template_that_fails_is_refused_in_words_and_nothing_is_appended(void **state)
{
    static const struct {
        const char *text;
        tsr_status st;
        const char *says;
    } other[] = {
        {"", TSR_ERR_UNSUPPORTED, "no chat template"},
        {"a\n{% if %}", TSR_ERR_FORMAT, "line 2"},
        {"{{ raise_exception('roles must alternate') }}", TSR_ERR_ARG, "roles must alternate"},
        {"{{ messages[0].content.wings.span }}", TSR_ERR_FORMAT, "wings"},
        {"{% include 'secrets' %}", TSR_ERR_FORMAT, "include"},
    };
    tsr_text text = {0};

    (void)state;
    assert_int_equal(tsr_text_append(&text, "before", 6), TSR_OK);
    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
        assert_int_equal(
            tsr_chat_render(&text, NULL, other[i].text, strlen(other[i].text), NULL, &hello, 1),
            other[i].st);
        assert_non_null(strstr(tsr_status_message(), other[i].says));
        assert_string_equal(text.bytes, "before");
    }
    tsr_text_clear(&text);
}

static void a_conversation_needs_messages_of_known_roles(void **state)
{
    const tsr_chat_message unknown[] = {{"user", "a"}, {"wizard", "b"}};
    tsr_text text = {0};

    (void)state;
    assert_int_equal(tsr_chat_render(&text, NULL, chatml, strlen(chatml), NULL, unknown, 2),
                     TSR_ERR_ARG);
    assert_non_null(strstr(tsr_status_message(), "wizard"));
    assert_int_equal(tsr_chat_render(&text, NULL, chatml, strlen(chatml), NULL, &hello, 0),
                     TSR_ERR_ARG);
    assert_null(text.bytes);
}

static void the_text_is_appended(void **state)
{
    tsr_text text = {0};

    (void)state;
    assert_int_equal(tsr_text_append(&text, "> ", 2), TSR_OK);
    assert_int_equal(tsr_chat_render(&text, NULL, chatml, strlen(chatml), NULL, &hello, 1), TSR_OK);
    assert_string_equal(text.bytes, "> <|im_start|>user\nhello<|im_end|>");
    tsr_text_clear(&text);
}

/* A template is a file's word: cut anywhere, it must be read to its end and no further. */
static void a_template_cut_anywhere_is_never_read_past_its_end(void **state)
{
    json_t *cases = json_load_file(TSR_TEST_DATA "/chat/rendered.json", 0, NULL);

    (void)state;
    for (size_t i = 0; i < json_array_size(cases); i += 7) {
        const char *whole =
            json_string_value(json_object_get(json_array_get(cases, i), "template"));

        for (size_t n = 0; n < strlen(whole); n++) {
            char *cut = malloc(n > 0 ? n : 1); // of just this size, for the sanitizer
            tsr_text text = {0};
            tsr_status st;

            assert_non_null(cut);
            memcpy(cut, whole, n);
            st = tsr_chat_render(&text, NULL, cut, n, NULL, &hello, 1);
            assert_true(st == TSR_OK || st == TSR_ERR_UNSUPPORTED || st == TSR_ERR_FORMAT);
            tsr_text_clear(&text);
            free(cut);
        }
    }
    json_decref(cases);
}

static tsr_status render(void *unused)
{
    tsr_text text = {0};
    const tsr_status st = tsr_chat_render(&text, NULL, chatml, strlen(chatml), NULL, &hello, 1);

    (void)unused;
    tsr_text_clear(&text);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_true(torture(render, NULL) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_known_form_gives_what_the_template_itself_gives),
        cmocka_unit_test(a_template_that_fails_is_refused_in_words_and_nothing_is_appended),
        cmocka_unit_test(a_conversation_needs_messages_of_known_roles),
        cmocka_unit_test(the_text_is_appended),
        cmocka_unit_test(a_template_cut_anywhere_is_never_read_past_its_end),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}
