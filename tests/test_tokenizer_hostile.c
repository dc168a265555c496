/* Metadata that is missing, lies or contradicts itself: refused in words, and nothing read that is
 * not there. */
#include "engine/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/gguf_writer.h"

static const char *const abc[] = {"a", "b", "c", "ab"};
static const char *const ab[] = {"a b"};

/* What a file says; a part that is NULL is left out. */
typedef struct claim {
    const char *model;
    const char *pre;
    size_t n_tokens;
    const char *const *tokens;
    size_t n_types;
    const int32_t *types;
    size_t n_merges;
    const char *const *merges;
} claim;

static tsr_status create(const claim *says)
{
    const long live = tsr_alloc_live();
    tsr_tokenizer *tok = NULL;
    tsr_gguf *gguf;
    gguf_writer w;
    size_t n_bytes;
    const uint8_t *bytes;
    tsr_status st;

    gguf_writer_init(&w);
    if (says->model != NULL) {
        gguf_writer_string(&w, "tokenizer.ggml.model", says->model);
    }
    if (says->pre != NULL) {
        gguf_writer_string(&w, "tokenizer.ggml.pre", says->pre);
    }
    if (says->tokens != NULL) {
        gguf_writer_strings(&w, "tokenizer.ggml.tokens", says->n_tokens, says->tokens);
    }
    if (says->types != NULL) {
        gguf_writer_i32s(&w, "tokenizer.ggml.token_type", says->n_types, says->types);
    }
    if (says->merges != NULL) {
        gguf_writer_strings(&w, "tokenizer.ggml.merges", says->n_merges, says->merges);
    }
    bytes = gguf_writer_finish(&w, &n_bytes);
    assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_OK);
    st = tsr_tokenizer_create(&tok, gguf);
    assert_true((st == TSR_OK) == (tok != NULL));
    tsr_tokenizer_destroy(tok);
    tsr_gguf_close(gguf);
    gguf_writer_clear(&w);
    assert_int_equal(tsr_alloc_live(), live);
    return st;
}

static void expect(tsr_status st, const char *word, claim says)
{
    assert_int_equal(create(&says), st);
    if (word != NULL) {
        if (strstr(tsr_status_message(), word) == NULL) {
            print_error("\"%s\" is not in \"%s\"\n", word, tsr_status_message());
        }
        assert_non_null(strstr(tsr_status_message(), word));
    }
}

static void a_file_without_a_part_of_its_tokenizer_is_refused(void **state)
{
    (void)state;
    expect(TSR_OK, NULL, (claim){"gpt2", "gpt-2", 4, abc, 0, NULL, 1, ab});
    expect(TSR_ERR_FORMAT, "tokenizer.ggml.model", (claim){NULL, "gpt-2", 4, abc, 0, NULL, 1, ab});
    expect(TSR_ERR_FORMAT, "tokenizer.ggml.tokens",
           (claim){"gpt2", "gpt-2", 0, NULL, 0, NULL, 1, ab});
    expect(TSR_ERR_FORMAT, "tokenizer.ggml.tokens",
           (claim){"gpt2", "gpt-2", 0, abc, 0, NULL, 1, ab});
    expect(TSR_ERR_FORMAT, "tokenizer.ggml.merges",
           (claim){"gpt2", "gpt-2", 4, abc, 0, NULL, 0, NULL});
    expect(TSR_OK, NULL, (claim){"gpt2", "gpt-2", 4, abc, 0, NULL, 0, ab}); // no merges is no fault
    expect(TSR_OK, NULL,
           (claim){"gpt2", NULL, 4, abc, 0, NULL, 1, ab}); // taken as "default", with a warning
}

static void sentencepiece_wants_a_score_of_each_token(void **state)
{
    (void)state;
    expect(TSR_ERR_FORMAT, "tokenizer.ggml.scores",
           (claim){"llama", NULL, 4, abc, 0, NULL, 0, NULL});
}

static void other_kinds_of_tokenizer_are_refused_by_name(void **state)
{
    const char *const other[] = {"bert", "t5", "rwkv", "", "gpt2x", "gpt"};

    (void)state;
    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
        expect(TSR_ERR_UNSUPPORTED, other[i], (claim){other[i], "gpt-2", 4, abc, 0, NULL, 1, ab});
    }
    expect(TSR_ERR_UNSUPPORTED, "klingon", (claim){"gpt2", "klingon", 4, abc, 0, NULL, 1, ab});
}

static void merges_must_name_and_make_tokens(void **state)
{
    static const char *const bad[] = {"a x", "x b", "b a", "ab",   "a ",
                                      " b",  "",    " ",   "a  b", "a b c"};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        expect(TSR_ERR_FORMAT, "merges", (claim){"gpt2", "gpt-2", 4, abc, 0, NULL, 1, &bad[i]});
    }
}

static void a_merge_said_twice_counts_once(void **state)
{
    static const char *const twice[] = {"a b", "a b"};

    (void)state;
    expect(TSR_OK, NULL, (claim){"gpt2", "gpt-2", 4, abc, 0, NULL, 2, twice});
}

static void two_tokens_may_not_have_one_text(void **state)
{
    static const char *const twice[] = {"a", "b", "a"};
    static const char *const empty[] = {"a", "b", "", "", "ab"};

    (void)state;
    expect(TSR_ERR_FORMAT, "tokens 0 and 2", (claim){"gpt2", "gpt-2", 3, twice, 0, NULL, 0, ab});
    expect(TSR_OK, NULL,
           (claim){"gpt2", "gpt-2", 5, empty, 0, NULL, 1, ab}); // without text: any number
}

static void token_types_must_be_as_many_as_tokens_and_may_be_any_number(void **state)
{
    static const int32_t types[] = {INT32_MIN, -1, 0, INT32_MAX, 7};

    (void)state;
    expect(TSR_ERR_FORMAT, "token_type", (claim){"gpt2", "gpt-2", 4, abc, 3, types, 1, ab});
    expect(TSR_ERR_FORMAT, "token_type", (claim){"gpt2", "gpt-2", 4, abc, 5, types, 1, ab});
    expect(TSR_OK, NULL, (claim){"gpt2", "gpt-2", 4, abc, 4, types, 1, ab});
}

static void keys_of_another_kind_count_as_missing(void **state)
{
    const char *const keys[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"};

    (void)state;
    for (int wrong = 0; wrong < 2; wrong++) {
        tsr_tokenizer *tok = NULL;
        tsr_gguf *gguf;
        gguf_writer w;
        size_t n_bytes;
        const uint8_t *bytes;

        gguf_writer_init(&w);
        gguf_writer_string(&w, "tokenizer.ggml.model", "gpt2");
        gguf_writer_string(&w, "tokenizer.ggml.pre", "gpt-2");
        gguf_writer_i32s(&w, keys[wrong], 3, (const int32_t[]){1, 2, 3});
        gguf_writer_strings(&w, keys[1 - wrong], wrong == 1 ? 4 : 1, wrong == 1 ? abc : ab);
        bytes = gguf_writer_finish(&w, &n_bytes);
        assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_OK);
        assert_int_equal(tsr_tokenizer_create(&tok, gguf), TSR_ERR_FORMAT);
        tsr_gguf_close(gguf);
        gguf_writer_clear(&w);
    }
}

static void a_vocabulary_that_claims_more_than_the_file_holds_is_refused(void **state)
{
    const uint64_t claims[] = {UINT64_C(1) << 31, UINT64_C(1) << 61, UINT64_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
        tsr_gguf *gguf = NULL;
        gguf_writer w;
        size_t n_bytes;
        const uint8_t *bytes;

        gguf_writer_init(&w);
        gguf_writer_key(&w, "tokenizer.ggml.tokens", GGUF_KIND_ARRAY);
        gguf_writer_raw_u32(&w, GGUF_KIND_STRING);
        gguf_writer_raw_u64(&w, claims[i]);
        gguf_writer_raw_u64(&w, 1);
        gguf_writer_raw(&w, "a", 1);
        bytes = gguf_writer_finish(&w, &n_bytes);
        assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_ERR_FORMAT);
        assert_null(gguf);
        gguf_writer_clear(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_without_a_part_of_its_tokenizer_is_refused),
        cmocka_unit_test(sentencepiece_wants_a_score_of_each_token),
        cmocka_unit_test(other_kinds_of_tokenizer_are_refused_by_name),
        cmocka_unit_test(merges_must_name_and_make_tokens),
        cmocka_unit_test(a_merge_said_twice_counts_once),
        cmocka_unit_test(two_tokens_may_not_have_one_text),
        cmocka_unit_test(token_types_must_be_as_many_as_tokens_and_may_be_any_number),
        cmocka_unit_test(keys_of_another_kind_count_as_missing),
        cmocka_unit_test(a_vocabulary_that_claims_more_than_the_file_holds_is_refused),
    };

    return cmocka_run_group_tests_name("tokenizer_hostile", tests, NULL, NULL);
}
