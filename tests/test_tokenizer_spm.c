/*
 * tests/test_tokenizer_spm.c - GGUF's kind `llama`. The vocabulary is small enough for the merges
 * to be followed by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "engine/tokenizer.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/torture.h"

#define SIGN "\xe2\x96\x81"

enum {
    FIRST_BYTE = 3,
    FIRST_PIECE = FIRST_BYTE + 256,
    N_PIECES = 15,
    N_TOKENS = FIRST_PIECE + N_PIECES
};

/* Their ids follow FIRST_PIECE. */
static const struct {
    const char *text;
    float score;
    int32_t type;
} pieces[N_PIECES] = {
    {SIGN, -10, 1}, {"a", -11, 1},       {"b", -12, 1},        {"c", -13, 1},      {"ab", -2, 1},
    {"bc", -1, 1},  {SIGN "a", -3, 1},   {"abc", -4, 1},       {SIGN SIGN, -5, 1}, {"aa", -6, 1},
    {"<u>", 0, 4},  {SIGN "abc", -7, 1}, {"\xc3\xa9", -14, 1}, {"ca", -1, 1},      {"cab", -8, 1},
};

enum {
    SPACE = FIRST_PIECE,
    A,
    B,
    C,
    AB,
    BC,
    SPACE_A,
    ABC,
    TWO_SPACES,
    AA,
    USER,
    SPACE_ABC,
    E_ACUTE,
    CA,
    CAB
};

static tsr_status make(tsr_tokenizer **out, int add_space)
{
    static char names[256][8];
    const char *tokens[N_TOKENS] = {"<unk>", "<s>", "</s>"};
    float scores[N_TOKENS] = {0};
    int32_t types[N_TOKENS] = {2, 3, 3};
    const uint8_t *bytes;
    gguf_writer w;
    tsr_gguf *gguf;
    size_t n_bytes;
    tsr_status st;

    for (int byte = 0; byte < 256; byte++) {
        (void)snprintf(names[byte], sizeof(names[byte]), "<0x%02X>", (unsigned)byte);
        tokens[FIRST_BYTE + byte] = names[byte];
        types[FIRST_BYTE + byte] = 6;
    }
    for (int i = 0; i < N_PIECES; i++) {
        tokens[FIRST_PIECE + i] = pieces[i].text;
        scores[FIRST_PIECE + i] = pieces[i].score;
        types[FIRST_PIECE + i] = pieces[i].type;
    }
    gguf_writer_init(&w);
    gguf_writer_string(&w, "tokenizer.ggml.model", "llama");
    gguf_writer_strings(&w, "tokenizer.ggml.tokens", N_TOKENS, tokens);
    gguf_writer_f32s(&w, "tokenizer.ggml.scores", N_TOKENS, scores);
    gguf_writer_i32s(&w, "tokenizer.ggml.token_type", N_TOKENS, types);
    gguf_writer_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    gguf_writer_u32(&w, "tokenizer.ggml.eos_token_id", 2);
    if (add_space >= 0) {
        gguf_writer_bool(&w, "tokenizer.ggml.add_space_prefix", add_space != 0);
    }
    bytes = gguf_writer_finish(&w, &n_bytes);
    st = tsr_gguf_open_bytes(&gguf, bytes, n_bytes);
    if (st == TSR_OK) {
        st = tsr_tokenizer_create(out, gguf);
        tsr_gguf_close(gguf);
    }
    gguf_writer_clear(&w);
    return st;
}

static void expect(int add_space, const char *text, int n_expected, const int32_t *expected)
{
    tsr_tokenizer *tok;
    tsr_token_stream stream = {0};
    tsr_text back = {0};
    tsr_ids ids = {0};

    assert_int_equal(make(&tok, add_space), TSR_OK);
    assert_int_equal(tsr_tokenizer_encode(tok, &ids, text, strlen(text), true), TSR_OK);
    assert_int_equal(ids.n_ids, n_expected);
    for (int i = 0; i < n_expected; i++) {
        assert_int_equal(ids.ids[i], expected[i]);
        assert_int_equal(tsr_tokenizer_decode(tok, &stream, &back, ids.ids[i], true), TSR_OK);
    }
    assert_int_equal(back.n_bytes, strlen(text));
    assert_memory_equal(back.bytes, text, back.n_bytes);
    tsr_text_clear(&back);
    tsr_ids_clear(&ids);
    tsr_tokenizer_destroy(tok);
}

#define EXPECT(add_space, text, ...)                                                   \
    expect(add_space, text, (int)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), \
           (int32_t[]){__VA_ARGS__})

static void the_pair_of_the_highest_score_merges_first(void **state)
{
    (void)state;
    EXPECT(0, "abc", ABC); // "bc" first, which with "a" is "abc"
    EXPECT(0, "ab", AB);
    EXPECT(0, "aab", A, AB); // "ab" before "aa"
    EXPECT(0, "bca", BC, A); // "bc" and "ca" have one score: the left one
    EXPECT(0, "cab", CAB);   // "ca" first; "ca" and "b" are "cab"
    EXPECT(0, "aaa", AA, A); // the left pair of two that are the same
}

static void a_space_goes_before_a_text_and_comes_off_again(void **state)
{
    (void)state;
    EXPECT(1, "abc", SPACE_ABC);
    EXPECT(-1, "abc", SPACE_ABC);    // what is not said is so
    EXPECT(1, " a", SPACE, SPACE_A); // "<sign>a" has a higher score than two signs
    EXPECT(1, "a  b", SPACE_A, TWO_SPACES, B);
    EXPECT(1, "a<u>", SPACE_A, USER);
}

static void what_has_no_token_becomes_its_bytes(void **state)
{
    (void)state;
    EXPECT(0, "a\nz", A, FIRST_BYTE + '\n', FIRST_BYTE + 'z');
    EXPECT(0, "\xc3\xa9\xc3\xa8", E_ACUTE, FIRST_BYTE + 0xc3, FIRST_BYTE + 0xa8);
    EXPECT(0,
           "\xff"
           "ab",
           FIRST_BYTE + 0xff, AB);
    EXPECT(0, "<0x41>", FIRST_BYTE + '<', FIRST_BYTE + '0', FIRST_BYTE + 'x', FIRST_BYTE + '4',
           FIRST_BYTE + '1', FIRST_BYTE + '>'); // the name of a byte's token is no byte
}

static void bos_is_wanted_unless_the_file_says_otherwise(void **state)
{
    tsr_tokenizer *tok;

    (void)state;
    assert_int_equal(make(&tok, -1), TSR_OK);
    assert_true(tsr_tokenizer_adds_bos(tok));
    assert_int_equal(tsr_tokenizer_before(tok)->n_ids, 1);
    assert_int_equal(tsr_tokenizer_after(tok)->n_ids, 0);
    assert_true(tsr_tokenizer_is_end(tok, 2));
    tsr_tokenizer_destroy(tok);
}

static tsr_status make_and_encode(void *ignored)
{
    tsr_tokenizer *tok = NULL;
    tsr_ids ids = {0};
    tsr_status st = make(&tok, 1);

    (void)ignored;
    if (st == TSR_OK) {
        st = tsr_tokenizer_encode(tok, &ids, "abc \xc3\xa8<u>", 9, true);
    }
    tsr_ids_clear(&ids);
    tsr_tokenizer_destroy(tok);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_true(torture(make_and_encode, NULL) > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pair_of_the_highest_score_merges_first),
        cmocka_unit_test(a_space_goes_before_a_text_and_comes_off_again),
        cmocka_unit_test(what_has_no_token_becomes_its_bytes),
        cmocka_unit_test(bos_is_wanted_unless_the_file_says_otherwise),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
