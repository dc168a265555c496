/*
 * The real vocabulary of SmolLM2 against every vector of tests/data/tokenizer and every chat prompt
 * of tests/data/chat. TSR_TEST_MODEL names its GGUF file; without it there is nothing to test.
 */
#include "engine/tokenizer.h"

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
#include "engine/chat.h"

typedef struct model {
    tsr_gguf *gguf;
    tsr_tokenizer *tok;
} model;

static bool same_ids(const tsr_ids *ids, const json_t *expected)
{
    if (expected == NULL || (size_t)ids->n_ids != json_array_size(expected)) {
        return false;
    }
    for (int64_t i = 0; i < ids->n_ids; i++) {
        if (ids->ids[i] != json_integer_value(json_array_get(expected, (size_t)i))) {
            return false;
        }
    }
    return true;
}

/* Call `check` with each line of a file; returns how many there were. */
static int each_line(const char *path, void (*check)(const model *m, const json_t *line),
                     const model *m)
{
    FILE *lines = fopen(path, "rb");
    static char line[65536];
    int n = 0;

    assert_non_null(lines);
    while (fgets(line, sizeof(line), lines) != NULL) {
        json_t *json = json_loads(line, JSON_ALLOW_NUL, NULL);

        assert_non_null(json);
        check(m, json);
        json_decref(json);
        n++;
    }
    (void)fclose(lines);
    return n;
}

static tsr_ids encode(const model *m, const json_t *line)
{
    const json_t *text = json_object_get(line, "text");
    const json_t *special = json_object_get(line, "special");
    tsr_ids ids = {0};

    assert_int_equal(tsr_tokenizer_encode(m->tok, &ids, json_string_value(text),
                                          json_string_length(text),
                                          special == NULL || json_is_true(special)),
                     TSR_OK);
    return ids;
}

static void check_vector(const model *m, const json_t *line)
{
    const json_t *text = json_object_get(line, "text");
    tsr_ids ids = encode(m, line);
    tsr_text back = {0};

    if (!same_ids(&ids, json_object_get(line, "ids"))) {
        print_error("other ids: %s\n", json_string_value(text));
        fail();
    }
    assert_int_equal(tsr_text_append(&back, "", 0), TSR_OK);
    for (int64_t i = 0; i < ids.n_ids; i++) {
        assert_int_equal(tsr_tokenizer_decode(m->tok, NULL, &back, ids.ids[i], true), TSR_OK);
    }
    assert_int_equal(back.n_bytes, json_string_length(text));
    assert_memory_equal(back.bytes, json_string_value(text), back.n_bytes);
    tsr_text_clear(&back);
    tsr_ids_clear(&ids);
}

static void every_vector_gives_its_ids_and_its_text_back(void **state)
{
    assert_int_equal(each_line(TSR_TEST_DATA "/tokenizer/smollm2.jsonl", check_vector, *state),
                     237);
}

static void check_edge(const model *m, const json_t *line)
{
    tsr_ids ids = encode(m, line);

    if (!same_ids(&ids, json_object_get(line, "hf_ids")) &&
        !same_ids(&ids, json_object_get(line, "llamacpp_ids"))) {
        print_error("other ids: %s\n", json_string_value(json_object_get(line, "text")));
        fail();
    }
    tsr_ids_clear(&ids);
}

static void every_edge_case_gives_the_ids_of_one_of_the_references(void **state)
{
    assert_true(each_line(TSR_TEST_DATA "/tokenizer/smollm2_edge.jsonl", check_edge, *state) >= 10);
}

static int read_messages(tsr_chat_message *messages, const json_t *list)
{
    assert_in_range(json_array_size(list), 1, 16);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *message = json_array_get(list, i);

        messages[i].role = json_string_value(json_object_get(message, "role"));
        messages[i].content = json_string_value(json_object_get(message, "content"));
    }
    return (int)json_array_size(list);
}

static void check_chat(const model *m, const json_t *line)
{
    const json_t *list = json_object_get(line, "messages");
    tsr_chat_message messages[16];
    tsr_gguf_text form;
    tsr_text text = {0};
    tsr_ids ids = {0};

    (void)read_messages(messages, list);
    assert_true(tsr_gguf_string(m->gguf, "tokenizer.chat_template", &form));
    assert_int_equal(tsr_chat_render(&text, NULL, form.bytes, form.n_bytes, NULL, messages,
                                     (int)json_array_size(list)),
                     TSR_OK);
    assert_string_equal(text.bytes, json_string_value(json_object_get(line, "text")));
    assert_int_equal(tsr_tokenizer_encode(m->tok, &ids, text.bytes, text.n_bytes, true), TSR_OK);
    assert_true(same_ids(&ids, json_object_get(line, "prompt_ids")));
    tsr_ids_clear(&ids);
    tsr_text_clear(&text);
}

static void every_chat_prompt_is_rendered_byte_for_byte(void **state)
{
    assert_int_equal(each_line(TSR_TEST_DATA "/chat/smollm2.jsonl", check_chat, *state), 5);
}

/* The ids of a conversation, with what is said in it kept plain. */
static tsr_ids ask(const model *m, const tsr_chat_message *messages, int n, tsr_text *text)
{
    tsr_chat_template_said said = {0};
    tsr_gguf_text form;
    tsr_ids ids = {0};

    assert_true(tsr_gguf_string(m->gguf, "tokenizer.chat_template", &form));
    assert_int_equal(tsr_chat_render(text, &said, form.bytes, form.n_bytes, NULL, messages, n),
                     TSR_OK);
    assert_int_equal(tsr_tokenizer_encode_marked(m->tok, &ids, text->bytes, text->n_bytes,
                                                 said.runs, said.n_runs),
                     TSR_OK);
    tsr_free(said.runs);
    return ids;
}

/* A line of the reference that is a chat. */
static void check_question(const model *m, const json_t *line)
{
    const json_t *list = json_object_get(line, "messages");
    tsr_chat_message messages[16];
    tsr_text text = {0};
    tsr_ids ids;

    if (strcmp(json_string_value(json_object_get(line, "kind")), "chat") != 0) {
        return;
    }
    ids = ask(m, messages, read_messages(messages, list), &text);
    assert_true(same_ids(&ids, json_object_get(line, "prompt_ids")));
    tsr_ids_clear(&ids);
    tsr_text_clear(&text);
}

static bool holds_special(const model *m, const char *text)
{
    tsr_ids matched = {0};
    tsr_ids plain = {0};
    bool differ;

    assert_int_equal(tsr_tokenizer_encode(m->tok, &matched, text, strlen(text), true), TSR_OK);
    assert_int_equal(tsr_tokenizer_encode(m->tok, &plain, text, strlen(text), false), TSR_OK);
    differ = matched.n_ids != plain.n_ids;
    tsr_ids_clear(&matched);
    tsr_ids_clear(&plain);
    return differ;
}

/* Every vector's text as what somebody asks. */
static void check_asked_vector(const model *m, const json_t *line)
{
    const char *content = json_string_value(json_object_get(line, "text"));
    const tsr_chat_message messages[] = {{"user", content}, {"assistant", content}, {"user", "So"}};
    tsr_text text = {0};
    tsr_ids whole = {0};
    tsr_ids ids = ask(m, messages, 3, &text);

    assert_int_equal(tsr_tokenizer_encode(m->tok, &whole, text.bytes, text.n_bytes, true), TSR_OK);
    if (!holds_special(m, content)) {
        assert_int_equal(ids.n_ids, whole.n_ids);
        assert_memory_equal(ids.ids, whole.ids, (size_t)ids.n_ids * sizeof(*ids.ids));
    } else {
        assert_true(ids.n_ids > whole.n_ids);
    }
    tsr_ids_clear(&whole);
    tsr_ids_clear(&ids);
    tsr_text_clear(&text);
}

static void a_conversation_has_the_ids_of_its_whole_text(void **state)
{
    assert_int_equal(each_line(TSR_TEST_DATA "/reference/greedy.jsonl", check_question, *state),
                     10);
    assert_true(each_line(TSR_TEST_DATA "/tokenizer/smollm2.jsonl", check_asked_vector, *state) >
                10);
}

static void the_model_ends_where_it_says(void **state)
{
    const model *m = *state;

    assert_int_equal(tsr_tokenizer_n_vocab(m->tok), 49152);
    assert_int_equal(tsr_tokenizer_bos(m->tok), 1);
    assert_int_equal(tsr_tokenizer_eos(m->tok), 2);
    assert_false(tsr_tokenizer_adds_bos(m->tok));
    assert_true(tsr_tokenizer_is_end(m->tok, 0));
    assert_true(tsr_tokenizer_is_end(m->tok, 2));
    assert_false(tsr_tokenizer_is_end(m->tok, 1));
    assert_int_equal(tsr_tokenizer_find(m->tok, "<|im_start|>"), 1);
}

static int open_model(void **state)
{
    static model m;

    *state = &m;
    return tsr_gguf_open(&m.gguf, getenv("TSR_TEST_MODEL")) == TSR_OK &&
                   tsr_tokenizer_create(&m.tok, m.gguf) == TSR_OK
               ? 0
               : -1;
}

static int close_model(void **state)
{
    model *m = *state;

    tsr_tokenizer_destroy(m->tok);
    tsr_gguf_close(m->gguf);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_gives_its_ids_and_its_text_back),
        cmocka_unit_test(every_edge_case_gives_the_ids_of_one_of_the_references),
        cmocka_unit_test(every_chat_prompt_is_rendered_byte_for_byte),
        cmocka_unit_test(a_conversation_has_the_ids_of_its_whole_text),
        cmocka_unit_test(the_model_ends_where_it_says),
    };

    if (getenv("TSR_TEST_MODEL") == NULL || *getenv("TSR_TEST_MODEL") == '\0') {
        print_message("skipped: TSR_TEST_MODEL names no SmolLM2 model file\n");
        return 77;
    }
    return cmocka_run_group_tests_name("tokenizer_model", tests, open_model, close_model);
}
