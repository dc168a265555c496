/*
 * Conversations with models of folders: what their templates write, from chat_template.jinja or
 * tokenizer_config.json, and the ids of it, against the library that made the folders
 * (tests/data/models/README.md).
 */
#include "engine/tessera.h"

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

enum {
    PATH_BYTES = 512
};

/* The text and the ids are those, or the template refuses in those words. */
static void check_conversation(const tsr_model *model, const json_t *one, const char *name)
{
    const json_t *wanted = json_object_get(one, "ids");
    const json_t *refusal = json_object_get(one, "error");
    char *request = json_dumps(json_object_get(one, "input"), JSON_COMPACT);
    char *text = NULL;
    int32_t *ids = NULL;
    size_t n_bytes = 0;
    int64_t n_ids = 0;
    const tsr_status st =
        tsr_model_chat_request_ids(model, request, strlen(request), &text, &n_bytes, &ids, &n_ids);

    if (refusal != NULL) {
        assert_int_equal(st, TSR_ERR_ARG);
        assert_non_null(strstr(tsr_tessera_message(), json_string_value(refusal)));
        assert_null(text);
        assert_null(ids);
    } else {
        if (st != TSR_OK) {
            fail_msg("%s: %s", name, tsr_tessera_message());
        }
        assert_string_equal(text, json_string_value(json_object_get(one, "rendered")));
        assert_int_equal(n_ids, json_array_size(wanted));
        for (int64_t k = 0; k < n_ids; k++) {
            assert_int_equal(ids[k], json_integer_value(json_array_get(wanted, (size_t)k)));
        }
    }
    tsr_tessera_free(ids);
    tsr_tessera_free(text);
    free(request);
}

/* Returns how many of its conversations were looked at. */
static size_t check_folder(const char *name)
{
    char path[PATH_BYTES];
    tsr_model *model = NULL;
    json_t *reference;
    const json_t *cases;
    size_t n_cases;

    (void)snprintf(path, sizeof(path), "%s/models/%s/tokenizer_reference.json", TSR_TEST_DATA,
                   name);
    reference = json_load_file(path, JSON_ALLOW_NUL, NULL);
    cases = json_object_get(reference, "chat");
    n_cases = json_array_size(cases);
    if (n_cases > 0) {
        (void)snprintf(path, sizeof(path), "%s/models/%s", TSR_TEST_DATA, name);
        assert_int_equal(tsr_model_open(&model, path), TSR_OK);
    }
    for (size_t i = 0; i < n_cases; i++) {
        check_conversation(model, json_array_get(cases, i), name);
    }
    tsr_model_close(model);
    json_decref(reference);
    return n_cases;
}

static void conversations_become_the_ids_that_the_folders_library_gives(void **state)
{
    DIR *dir = opendir(TSR_TEST_DATA "/models");
    size_t n_cases = 0;

    (void)state;
    assert_non_null(dir);
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        n_cases += entry->d_name[0] == '.' ? 0 : check_folder(entry->d_name);
    }
    (void)closedir(dir);
    assert_true(n_cases >= 40);
}

static void a_folder_without_a_template_is_refused_in_words(void **state)
{
    const tsr_chat_message hello = {"user", "hello"};
    tsr_model *model = NULL;
    int32_t *ids = NULL;
    int64_t n_ids = 0;

    (void)state;
    assert_int_equal(tsr_model_open(&model, TSR_TEST_DATA "/models/gpt2"), TSR_OK);
    assert_int_equal(tsr_model_conversation_ids(model, &hello, 1, &ids, &n_ids),
                     TSR_ERR_UNSUPPORTED);
    assert_non_null(strstr(tsr_tessera_message(), "no chat template"));
    assert_null(ids);
    tsr_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations_become_the_ids_that_the_folders_library_gives),
        cmocka_unit_test(a_folder_without_a_template_is_refused_in_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
