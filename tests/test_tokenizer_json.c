/*
 * tests/test_tokenizer_json.c - tokenizer.json, held to what the library that writes it makes of
 * the same texts: tests/data/models (tokenizers of many families) and
 * tests/data/tokenizer/rules.jsonl (the same with other parts than their own, see make_rules.py
 * there).
 */
#include <dirent.h>
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
#include "engine/tokenizer.h"
#include "tests/support/torture.h"

#define MODELS TSR_TEST_DATA "/models/"

enum {
    MOST_PATH = 512,
    N_FOLDERS = 43,
    MOST_LINE = 1 << 20
};

static char *read_file(const char *folder, const char *name, size_t *n_bytes)
{
    char path[MOST_PATH];
    FILE *from;
    char *bytes = malloc(1 << 20);

    (void)snprintf(path, sizeof(path), MODELS "%s/%s", folder, name);
    from = fopen(path, "rb");
    assert_non_null(bytes);
    assert_non_null(from);
    *n_bytes = fread(bytes, 1, 1 << 20, from);
    (void)fclose(from);
    return bytes;
}

static tsr_tokenizer *open_folder(const char *folder)
{
    size_t n_json;
    size_t n_config;
    char *json = read_file(folder, "tokenizer.json", &n_json);
    char *config = read_file(folder, "tokenizer_config.json", &n_config);
    tsr_tokenizer *tok = NULL;

    assert_int_equal(tsr_tokenizer_open_json(&tok, json, n_json, config, n_config), TSR_OK);
    free(config);
    free(json);
    return tok;
}

static void assert_ids(const json_t *expected, const int32_t *ids, int64_t n_ids)
{
    assert_int_equal(n_ids, json_array_size(expected));
    for (int64_t i = 0; i < n_ids; i++) {
        assert_int_equal(ids[i], json_integer_value(json_array_get(expected, (size_t)i)));
    }
}

/* Token by token. */
static void assert_decoded(const tsr_tokenizer *tok, const json_t *expected, const tsr_ids *ids,
                           bool show_special)
{
    tsr_token_stream stream = {0};
    tsr_text text = {0};

    assert_int_equal(tsr_text_append(&text, "", 0), TSR_OK);
    for (int64_t i = 0; i < ids->n_ids; i++) {
        assert_int_equal(tsr_tokenizer_decode(tok, &stream, &text, ids->ids[i], show_special),
                         TSR_OK);
    }
    // The library writes U+FFFD for bytes that are no text; what comes of them here is theirs.
    if (tsr_tokenizer_whole_utf8(text.bytes, text.n_bytes) == text.n_bytes &&
        strstr(json_string_value(expected), "\xef\xbf\xbd") == NULL) {
        assert_int_equal(text.n_bytes, json_string_length(expected));
        assert_memory_equal(text.bytes, json_string_value(expected), text.n_bytes);
    }
    tsr_text_clear(&text);
}

static void append_all(tsr_ids *list, const tsr_ids *more)
{
    for (int64_t i = 0; i < more->n_ids; i++) {
        assert_int_equal(tsr_ids_append(list, more->ids[i]), TSR_OK);
    }
}

static void check_case(const tsr_tokenizer *tok, const json_t *line)
{
    const json_t *text = json_object_get(line, "text");
    tsr_ids ids = {0};
    tsr_ids around = {0};

    assert_int_equal(
        tsr_tokenizer_encode(tok, &ids, json_string_value(text), json_string_length(text), true),
        TSR_OK);
    append_all(&around, tsr_tokenizer_before(tok));
    append_all(&around, &ids);
    append_all(&around, tsr_tokenizer_after(tok));
    assert_ids(json_object_get(line, "ids_without_special"), ids.ids, ids.n_ids);
    assert_ids(json_object_get(line, "ids"), around.ids, around.n_ids);
    assert_decoded(tok, json_object_get(line, "decoded"), &ids, true);
    assert_decoded(tok, json_object_get(line, "decoded_skip_special"), &around, false);
    tsr_ids_clear(&around);
    tsr_ids_clear(&ids);
}

static void check_folder(const char *folder)
{
    char path[MOST_PATH];
    tsr_tokenizer *tok = open_folder(folder);
    json_t *reference;
    const json_t *line;
    size_t i;

    (void)snprintf(path, sizeof(path), MODELS "%s/tokenizer_reference.json", folder);
    reference = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_true(json_array_size(json_object_get(reference, "encode")) >= 20);
    json_array_foreach(json_object_get(reference, "encode"), i, line)
    {
        check_case(tok, line);
    }
    json_decref(reference);
    tsr_tokenizer_destroy(tok);
}

static void every_family_gives_the_tokens_and_the_text_of_its_reference(void **state)
{
    DIR *folders = opendir(MODELS);
    const struct dirent *entry;
    int n_folders = 0;

    (void)state;
    assert_non_null(folders);
    while ((entry = readdir(folders)) != NULL) {
        char path[MOST_PATH];
        FILE *reference;

        (void)snprintf(path, sizeof(path), MODELS "%s/tokenizer_reference.json", entry->d_name);
        reference = fopen(path, "rb");
        if (reference != NULL) {
            (void)fclose(reference);
            check_folder(entry->d_name);
            n_folders++;
        }
    }
    (void)closedir(folders);
    assert_true(n_folders >= N_FOLDERS);
    assert_int_equal(tsr_alloc_live(), 0);
}

/* ---- other parts -------------------------------------------------------------------------------
 */

/* The tokenizer of a line: its base with what it sets. */
static tsr_tokenizer *open_changed(const json_t *line)
{
    char path[MOST_PATH];
    json_t *set = json_object_get(line, "set");
    json_t *own;
    tsr_tokenizer *tok = NULL;
    tsr_status st;
    char *text;

    (void)snprintf(path, sizeof(path), MODELS "%s/tokenizer.json",
                   json_string_value(json_object_get(line, "base")));
    own = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_non_null(own);
    (void)json_object_update(json_object_get(own, "model"), json_object_get(set, "model"));
    (void)json_object_del(set, "model");
    (void)json_object_update(own, set);
    text = json_dumps(own, 0);
    st = tsr_tokenizer_open_json(&tok, text, strlen(text), NULL, 0);
    if (st != TSR_OK) {
        print_error("%s\n", tsr_status_message());
    }
    assert_int_equal(st, TSR_OK);
    free(text);
    json_decref(own);
    return tok;
}

static void every_rule_gives_the_tokens_and_the_text_of_the_library(void **state)
{
    FILE *from = fopen(TSR_TEST_DATA "/tokenizer/rules.jsonl", "r");
    char *line = malloc(MOST_LINE);
    int n_lines = 0;

    (void)state;
    assert_non_null(from);
    assert_non_null(line);
    while (fgets(line, MOST_LINE, from) != NULL) {
        json_t *read = json_loads(line, JSON_ALLOW_NUL, NULL);
        tsr_tokenizer *tok = open_changed(read);
        const json_t *given;
        size_t i;

        json_array_foreach(json_object_get(read, "cases"), i, given)
        {
            const json_t *text = json_object_get(given, "text");
            tsr_ids ids = {0};

            assert_int_equal(tsr_tokenizer_encode(tok, &ids, json_string_value(text),
                                                  json_string_length(text), true),
                             TSR_OK);
            assert_ids(json_object_get(given, "ids"), ids.ids, ids.n_ids);
            assert_decoded(tok, json_object_get(given, "decoded"), &ids, true);
            tsr_ids_clear(&ids);
        }
        tsr_tokenizer_destroy(tok);
        json_decref(read);
        n_lines++;
    }
    free(line);
    (void)fclose(from);
    assert_true(n_lines > 100);
}

/* ---- what the library does not say -------------------------------------------------------------
 */

static void in_plain_text_no_control_token_is_recognised(void **state)
{
    static const char *const folders[] = {"llama2", "mpt", "llama3", "qwen2", "gemma"};

    (void)state;
    for (size_t f = 0; f < sizeof(folders) / sizeof(folders[0]); f++) {
        tsr_tokenizer *tok = open_folder(folders[f]);

        for (int32_t id = 0; id < tsr_tokenizer_n_vocab(tok); id++) {
            const tsr_text_view text = tsr_tokenizer_text(tok, id);
            tsr_ids ids = {0};

            if (!tsr_tokenizer_is_special(tok, id)) {
                continue;
            }
            assert_int_equal(tsr_tokenizer_encode(tok, &ids, text.bytes, text.n_bytes, true),
                             TSR_OK);
            assert_int_equal(ids.n_ids, 1);
            assert_int_equal(ids.ids[0], id);
            ids.n_ids = 0;
            assert_int_equal(tsr_tokenizer_encode(tok, &ids, text.bytes, text.n_bytes, false),
                             TSR_OK);
            for (int64_t i = 0; i < ids.n_ids; i++) {
                assert_int_not_equal(ids.ids[i], id);
            }
            tsr_ids_clear(&ids);
        }
        tsr_tokenizer_destroy(tok);
    }
}

static void bytes_that_are_no_text_come_back_as_they_were(void **state)
{
    static const char *const folders[] = {"llama2", "mpt", "llama3", "qwen2", "gemma", "falcon7b"};
    static const char text[] = "a\xff\xfe b\xc3 c\xe4\xb8 d\xf0\x9f\x99\x82\x80";

    (void)state;
    for (size_t f = 0; f < sizeof(folders) / sizeof(folders[0]); f++) {
        tsr_tokenizer *tok = open_folder(folders[f]);
        tsr_token_stream stream = {0};
        tsr_text back = {0};
        tsr_ids ids = {0};

        assert_int_equal(tsr_tokenizer_encode(tok, &ids, text, sizeof(text) - 1, true), TSR_OK);
        for (int64_t i = 0; i < ids.n_ids; i++) {
            assert_int_equal(tsr_tokenizer_decode(tok, &stream, &back, ids.ids[i], true), TSR_OK);
        }
        assert_int_equal(back.n_bytes, sizeof(text) - 1);
        assert_memory_equal(back.bytes, text, back.n_bytes);
        tsr_text_clear(&back);
        tsr_ids_clear(&ids);
        tsr_tokenizer_destroy(tok);
    }
}

static void a_text_that_goes_on_keeps_its_first_space(void **state)
{
    tsr_tokenizer *tok = open_folder("llama2");
    tsr_token_stream begins = {0};
    tsr_token_stream goes_on = {.begun = true};
    tsr_text text = {0};
    const int32_t id = tsr_tokenizer_find(tok, "\xe2\x96\x81the");

    (void)state;
    assert_true(id >= 0);
    assert_int_equal(tsr_tokenizer_decode(tok, &begins, &text, id, true), TSR_OK);
    assert_string_equal(text.bytes, "the");
    assert_int_equal(tsr_tokenizer_decode(tok, &begins, &text, id, true), TSR_OK);
    assert_string_equal(text.bytes, "the the");
    assert_int_equal(tsr_tokenizer_decode(tok, &goes_on, &text, id, true), TSR_OK);
    assert_int_equal(tsr_tokenizer_decode(tok, NULL, &text, id, true), TSR_OK);
    assert_string_equal(text.bytes, "the the the the");
    tsr_text_clear(&text);
    tsr_tokenizer_destroy(tok);
}

static void the_config_names_the_tokens_and_more_may_end_a_text(void **state)
{
    tsr_tokenizer *tok = open_folder("llama3");

    (void)state;
    assert_int_equal(tsr_tokenizer_bos(tok), 505);
    assert_int_equal(tsr_tokenizer_eos(tok), 506);
    assert_int_equal(tsr_tokenizer_pad(tok), -1);
    assert_true(tsr_tokenizer_adds_bos(tok));
    assert_true(tsr_tokenizer_is_end(tok, 506));
    assert_true(tsr_tokenizer_is_end(tok, 507)); // by its name, <|eot_id|>
    assert_false(tsr_tokenizer_is_end(tok, 511));
    assert_false(tsr_tokenizer_is_end(tok, 600));
    assert_int_equal(tsr_tokenizer_add_end(tok, 511), TSR_OK);
    assert_int_equal(tsr_tokenizer_add_end(tok, 600), TSR_OK); // the embedding may be larger
    assert_int_equal(tsr_tokenizer_add_end(tok, -1), TSR_ERR_ARG);
    assert_true(tsr_tokenizer_is_end(tok, 511));
    assert_true(tsr_tokenizer_is_end(tok, 600));
    assert_false(tsr_tokenizer_is_end(tok, 601));
    assert_true(tsr_tokenizer_chat_template(tok).n_bytes == 0 ||
                tsr_tokenizer_chat_template(tok).bytes != NULL);
    tsr_tokenizer_destroy(tok);
}

static void a_class_that_adds_bos_by_its_settings_is_believed(void **state)
{
    static const struct {
        const char *config;
        int n_before;
        int n_after;
    } cases[] = {
        {"{\"tokenizer_class\": \"LlamaTokenizer\", \"bos_token\": \"<s>\", \"eos_token\": "
         "\"</s>\"}",
         1, 0},
        {"{\"tokenizer_class\": \"LlamaTokenizerFast\", \"bos_token\": {\"content\": \"<s>\"}, "
         "\"eos_token\": \"</s>\", \"add_bos_token\": false, \"add_eos_token\": true}",
         0, 1},
        {"{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"bos_token\": \"<s>\", "
         "\"add_bos_token\": false}",
         1, 0}, // it does not look at it
        {"{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"x\"}, "
         "{\"name\": \"default\", \"template\": \"y\"}]}",
         1, 0},
    };
    size_t n_json;
    char *json = read_file("llama2", "tokenizer.json", &n_json);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_tokenizer *tok;

        assert_int_equal(
            tsr_tokenizer_open_json(&tok, json, n_json, cases[i].config, strlen(cases[i].config)),
            TSR_OK);
        assert_int_equal(tsr_tokenizer_before(tok)->n_ids, cases[i].n_before);
        assert_int_equal(tsr_tokenizer_after(tok)->n_ids, cases[i].n_after);
        if (i == 3) {
            assert_int_equal(tsr_tokenizer_chat_template(tok).n_bytes, 1);
            assert_memory_equal(tsr_tokenizer_chat_template(tok).bytes, "y", 1);
        }
        tsr_tokenizer_destroy(tok);
    }
    free(json);
}

static tsr_status live(void *json)
{
    static const char config[] = "{\"bos_token\": \"a\", \"chat_template\": \"t\"}";
    tsr_token_stream stream = {0};
    tsr_tokenizer *tok = NULL;
    tsr_text text = {0};
    tsr_ids ids = {0};
    tsr_status st = tsr_tokenizer_open_json(&tok, json, strlen(json), config, sizeof(config) - 1);

    if (st == TSR_OK) {
        st = tsr_tokenizer_encode(tok, &ids, "ab \xc3\xa9<x> c1\xff", 12, true);
    }
    for (int64_t i = 0; i < ids.n_ids && st == TSR_OK; i++) {
        st = tsr_tokenizer_decode(tok, &stream, &text, ids.ids[i], true);
    }
    tsr_text_clear(&text);
    tsr_ids_clear(&ids);
    tsr_tokenizer_destroy(tok);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    static char bpe[] =
        "{\"added_tokens\": [{\"id\": 5, \"content\": \"<x>\", \"normalized\": true}],"
        "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKC\"}, "
        "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"q+\"}, \"content\": \"k\"}]},"
        "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
        "\"Metaspace\"}, "
        "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a-z&&[^c]]\"}, \"behavior\": "
        "\"Contiguous\"}]},"
        "\"post_processor\": {\"type\": \"BertProcessing\", \"cls\": [\"a\", 0], \"sep\": [\"b\", "
        "1]},"
        "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Metaspace\"}, "
        "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": "
        "\" \", \"start\": 1, \"stop\": 1}]},"
        "\"model\": {\"type\": \"BPE\", \"unk_token\": \"c\", \"vocab\": {\"a\": 0, \"b\": 1, "
        "\"ab\": 2, \"c\": 3, \"\xe2\x96\x81\": 4}, \"merges\": [[\"a\", \"b\"]]}}";
    static char unigram[] =
        "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": [[\"a\", -1], [\"ab\", -2], "
        "[\"b\", -1.5]]}, \"decoder\": {\"type\": \"BPEDecoder\"}}";

    (void)state;
    assert_true(torture(live, bpe) > 30);
    assert_true(torture(live, unigram) > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_gives_the_tokens_and_the_text_of_its_reference),
        cmocka_unit_test(every_rule_gives_the_tokens_and_the_text_of_the_library),
        cmocka_unit_test(in_plain_text_no_control_token_is_recognised),
        cmocka_unit_test(bytes_that_are_no_text_come_back_as_they_were),
        cmocka_unit_test(a_text_that_goes_on_keeps_its_first_space),
        cmocka_unit_test(the_config_names_the_tokens_and_more_may_end_a_text),
        cmocka_unit_test(a_class_that_adds_bos_by_its_settings_is_believed),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
