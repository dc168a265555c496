/* Texts of which some runs are plain: what control tokens are found in the rest. */
#include "engine/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/gguf_writer.h"
#include "tests/support/toy_vocab.h"

enum {
    CONTROL = 256,
    CONTROL_LONGER,
    CONTROL_SHORT,
    TWO_SPACES,
    USER
};

static tsr_tokenizer *tok;

static int make(void **state)
{
    static const toy_token special[] = {
        {"<|a|>", 3}, {"<|a|>b", 3}, {"<|", 3}, {"  ", 4}, {"<user>", 4}};
    gguf_writer w;
    size_t n_bytes;
    const uint8_t *bytes;
    tsr_gguf *gguf;

    (void)state;
    gguf_writer_init(&w);
    toy_vocab_write(&w, &(toy_vocab){.pre = "gpt-2", .n_extra = 5, .extra = special});
    bytes = gguf_writer_finish(&w, &n_bytes);
    assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_OK);
    assert_int_equal(tsr_tokenizer_create(&tok, gguf), TSR_OK);
    tsr_gguf_close(gguf);
    gguf_writer_clear(&w);
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    tsr_tokenizer_destroy(tok);
    return 0;
}

static void expect_marked(const char *text, const tsr_text_run *plain, int n_plain, int n,
                          const int32_t *ids)
{
    tsr_ids list = {0};

    assert_int_equal(tsr_tokenizer_encode_marked(tok, &list, text, strlen(text), plain, n_plain),
                     TSR_OK);
    assert_int_equal(list.n_ids, n);
    assert_memory_equal(list.ids, ids, (size_t)n * sizeof(*ids));
    tsr_ids_clear(&list);
}

#define EXPECT_MARKED(text, start, n_bytes, ...)                                    \
    do {                                                                            \
        const int32_t ids_[] = {__VA_ARGS__};                                       \
        const tsr_text_run run_ = {start, n_bytes};                                 \
        expect_marked(text, &run_, 1, (int)(sizeof(ids_) / sizeof(ids_[0])), ids_); \
    } while (0)

static void a_control_token_with_a_byte_in_a_plain_run_is_none(void **state)
{
    (void)state;
    EXPECT_MARKED("z<|a|>z", 0, 0, 'z', CONTROL, 'z');
    EXPECT_MARKED("z<|a|>z", 0, 7, 'z', '<', '|', 'a', '|', '>', 'z');
    EXPECT_MARKED("z<|a|>z", 1, 1, 'z', '<', '|', 'a', '|', '>', 'z');
    EXPECT_MARKED("z<|a|>z", 0, 1, 'z', CONTROL,
                  'z'); // the runs around it end where it begins
    EXPECT_MARKED("z<|a|>z", 6, 1, 'z', CONTROL, 'z');
    // A shorter one may fit where the longest does not.
    EXPECT_MARKED("<|a|>b", 5, 1, CONTROL, 'b');
    EXPECT_MARKED("<|a|>b", 3, 1, CONTROL_SHORT, 'a', '|', '>', 'b');
}

static void user_defined_tokens_are_matched_in_and_across_plain_runs(void **state)
{
    (void)state;
    EXPECT_MARKED("<|<user><|", 0, 10, '<', '|', USER, '<', '|');
    EXPECT_MARKED("<|<user><|", 4, 1, CONTROL_SHORT, USER, CONTROL_SHORT);
    EXPECT_MARKED("a   <|", 2, 1, 'a', TWO_SPACES, ' ', CONTROL_SHORT);
}

/* Marks anywhere: the ids are those of the pieces between the control tokens that are left. */
static void runs_in_any_number_are_kept_apart(void **state)
{
    static const char text[] = "<|a|><|a|><|a|><|a|><|a|>";

    (void)state;
    for (unsigned kept = 0; kept < 32; kept++) {
        tsr_text_run plain[5];
        int32_t ids[25];
        int n_plain = 0;
        int n = 0;

        for (unsigned i = 0; i < 5; i++) {
            if ((kept >> i & 1) == 0) {
                ids[n++] = CONTROL;
                continue;
            }
            plain[n_plain++] = (tsr_text_run){5 * i, 5};
            for (int b = 0; b < 5; b++) {
                ids[n++] = text[b];
            }
        }
        expect_marked(text, plain, n_plain, n, ids);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_control_token_with_a_byte_in_a_plain_run_is_none),
        cmocka_unit_test(user_defined_tokens_are_matched_in_and_across_plain_runs),
        cmocka_unit_test(runs_in_any_number_are_kept_apart),
    };

    return cmocka_run_group_tests_name("tokenizer_marked", tests, make, unmake);
}
