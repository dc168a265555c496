/* Small vocabularies of six kinds of models, encoded by another implementation:
 * tests/data/tokenizer/tiny_*.json. */
#include "engine/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/support/gguf_writer.h"

static void write_strings(gguf_writer *w, const char *key, const json_t *list)
{
    const size_t n = json_array_size(list);
    const char **texts = calloc(n, sizeof(*texts));

    assert_non_null(texts);
    for (size_t i = 0; i < n; i++) {
        texts[i] = json_string_value(json_array_get(list, i));
        assert_non_null(texts[i]);
    }
    gguf_writer_strings(w, key, n, texts);
    free(texts);
}

static tsr_tokenizer *make(const json_t *json)
{
    const json_t *types = json_object_get(json, "types");
    int32_t numbers[1024];
    tsr_tokenizer *tok = NULL;
    tsr_gguf *gguf;
    gguf_writer w;
    size_t n_bytes;
    const uint8_t *bytes;

    assert_in_range(json_array_size(types), 1, 1024);
    for (size_t i = 0; i < json_array_size(types); i++) {
        numbers[i] = (int32_t)json_integer_value(json_array_get(types, i));
    }
    gguf_writer_init(&w);
    gguf_writer_string(&w, "tokenizer.ggml.model", "gpt2");
    gguf_writer_string(&w, "tokenizer.ggml.pre", json_string_value(json_object_get(json, "pre")));
    write_strings(&w, "tokenizer.ggml.tokens", json_object_get(json, "tokens"));
    write_strings(&w, "tokenizer.ggml.merges", json_object_get(json, "merges"));
    gguf_writer_i32s(&w, "tokenizer.ggml.token_type", json_array_size(types), numbers);
    bytes = gguf_writer_finish(&w, &n_bytes);
    assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_OK);
    assert_int_equal(tsr_tokenizer_create(&tok, gguf), TSR_OK);
    tsr_gguf_close(gguf);
    gguf_writer_clear(&w);
    return tok;
}

static void compare(const tsr_tokenizer *tok, const json_t *line)
{
    const json_t *text = json_object_get(line, "text");
    const json_t *ids = json_object_get(line, "ids");
    const json_t *decoded = json_object_get(line, "decoded");
    tsr_ids list = {0};
    tsr_text back = {0};

    assert_int_equal(
        tsr_tokenizer_encode(tok, &list, json_string_value(text), json_string_length(text), true),
        TSR_OK);
    assert_int_equal(list.n_ids, json_array_size(ids));
    assert_int_equal(tsr_text_append(&back, "", 0), TSR_OK);
    for (int64_t i = 0; i < list.n_ids; i++) {
        assert_int_equal(list.ids[i], json_integer_value(json_array_get(ids, (size_t)i)));
        assert_int_equal(tsr_tokenizer_decode(tok, NULL, &back, list.ids[i], true), TSR_OK);
    }
    assert_int_equal(back.n_bytes, json_string_length(decoded));
    assert_memory_equal(back.bytes, json_string_value(decoded), back.n_bytes);
    tsr_ids_clear(&list);
    tsr_text_clear(&back);
}

static void check(const char *path)
{
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, NULL);
    const json_t *line;
    tsr_tokenizer *tok;
    size_t i;

    assert_non_null(json);
    tok = make(json);
    assert_true(json_array_size(json_object_get(json, "encode")) >= 19);
    json_array_foreach(json_object_get(json, "encode"), i, line)
    {
        compare(tok, line);
    }
    tsr_tokenizer_destroy(tok);
    json_decref(json);
}

#define MODEL(name)                                                    \
    static void name##_gives_the_tokens_of_the_reference(void **state) \
    {                                                                  \
        (void)state;                                                   \
        check(TSR_TEST_DATA "/tokenizer/tiny_" #name ".json");         \
    }

MODEL(gpt2)
MODEL(cohere)
MODEL(falcon7b)
MODEL(qwen2)
MODEL(llama3)
MODEL(bloom)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_gives_the_tokens_of_the_reference),
        cmocka_unit_test(cohere_gives_the_tokens_of_the_reference),
        cmocka_unit_test(falcon7b_gives_the_tokens_of_the_reference),
        cmocka_unit_test(qwen2_gives_the_tokens_of_the_reference),
        cmocka_unit_test(llama3_gives_the_tokens_of_the_reference),
        cmocka_unit_test(bloom_gives_the_tokens_of_the_reference),
    };

    return cmocka_run_group_tests_name("tokenizer_reference", tests, NULL, NULL);
}
