#include "engine/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/torture.h"
#include "tests/support/toy_vocab.h"

/* ---- a tokenizer made on the spot --------------------------------------------------------------
 */

static tsr_status make_from(tsr_tokenizer **out, gguf_writer *w)
{
    size_t n_bytes;
    const uint8_t *bytes = gguf_writer_finish(w, &n_bytes);
    tsr_gguf *gguf;
    tsr_status st = tsr_gguf_open_bytes(&gguf, bytes, n_bytes);

    if (st == TSR_OK) {
        st = tsr_tokenizer_create(out, gguf);
        tsr_gguf_close(gguf); // the tokenizer must not look into it any more
    }
    return st;
}

static tsr_tokenizer *make(const toy_vocab *vocab)
{
    tsr_tokenizer *tok = NULL;
    gguf_writer w;

    gguf_writer_init(&w);
    toy_vocab_write(&w, vocab);
    assert_int_equal(make_from(&tok, &w), TSR_OK);
    gguf_writer_clear(&w);
    return tok;
}

static void expect_n(const tsr_tokenizer *tok, const char *text, size_t n_bytes, bool match_special,
                     int n, const int32_t *ids)
{
    tsr_ids list = {0};

    assert_int_equal(tsr_tokenizer_encode(tok, &list, text, n_bytes, match_special), TSR_OK);
    assert_int_equal(list.n_ids, n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(list.ids[i], ids[i]);
    }
    tsr_ids_clear(&list);
}

#define EXPECT(tok, text, match_special, ...)                  \
    do {                                                       \
        const int32_t ids_[] = {__VA_ARGS__};                  \
        expect_n(tok, text, sizeof(text) - 1, match_special,   \
                 (int)(sizeof(ids_) / sizeof(ids_[0])), ids_); \
    } while (0)

/* ---- merging -----------------------------------------------------------------------------------
 */

static void the_pair_of_lowest_rank_merges_first(void **state)
{
    static const char *const merges[] = {"b c", "a b", "a bc"};
    tsr_tokenizer *tok = make(&(toy_vocab){.pre = "gpt-2", .n_merges = 3, .merges = merges});

    (void)state;
    EXPECT(tok, "abc", false, 258); // b c first, then a bc; and not a b
    EXPECT(tok, "ab", false, 257);
    EXPECT(tok, "abab", false, 257, 257);
    EXPECT(tok, "abcb", false, 258, 'b');
    tsr_tokenizer_destroy(tok);
}

static void among_equals_the_leftmost_pair_merges_first(void **state)
{
    static const char *const merges[] = {"a a", "aa aa"};
    tsr_tokenizer *tok = make(&(toy_vocab){.pre = "gpt-2", .n_merges = 2, .merges = merges});

    (void)state;
    EXPECT(tok, "aaa", false, 256, 'a');
    EXPECT(tok, "aaaaa", false, 257, 'a');
    EXPECT(tok, "aaaaaaa", false, 257, 256, 'a');
    tsr_tokenizer_destroy(tok);
}

static void nothing_merges_across_pieces(void **state)
{
    static const char *const merges[] = {"a !", "\xc4\xa0 a", "a 1"};
    tsr_tokenizer *tok = make(&(toy_vocab){.pre = "smollm", .n_merges = 3, .merges = merges});

    (void)state;
    EXPECT(tok, "a!", false, 'a', '!');
    EXPECT(tok, "a1", false, 'a', '1');
    EXPECT(tok, " a", false, 257);
    tsr_tokenizer_destroy(tok);
}

/* The same by the plainest way there is: look at all pairs, merge the best, start again. */
static int merge_plainly(int32_t *ids, int n, int n_merges, const int32_t (*pairs)[2])
{
    for (;;) {
        int best = n_merges;
        int best_at = 0;

        for (int i = 0; i + 1 < n; i++) {
            for (int r = 0; r < best; r++) {
                if (pairs[r][0] == ids[i] && pairs[r][1] == ids[i + 1]) {
                    best = r;
                    best_at = i;
                }
            }
        }
        if (best == n_merges) {
            return n;
        }
        ids[best_at] = 256 + best;
        memmove(&ids[best_at + 1], &ids[best_at + 2], (size_t)(n - best_at - 2) * sizeof(*ids));
        n--;
    }
}

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

enum {
    N_MERGES = 60,
    N_LETTERS = 3,
    TEXT_BYTES = 64
};

typedef struct random_merges {
    int32_t pairs[N_MERGES][2];
    char texts[N_MERGES][2 * TEXT_BYTES]; /* "left right" */
    const char *merges[N_MERGES];
    char parts[256 + N_MERGES][TEXT_BYTES]; /* the text of each id */
} random_merges;

/* Merges of letters and of what earlier ones made; no two make the same text. */
static void draw_merges(random_merges *drawn, uint32_t *seed)
{
    for (int i = 0; i < 256; i++) {
        drawn->parts[i][0] = (char)i;
        drawn->parts[i][1] = 0;
    }
    for (int n = 0; n < N_MERGES;) {
        char sides[2][TEXT_BYTES];
        bool fresh = true;

        for (int side = 0; side < 2; side++) {
            const int32_t pick = (int32_t)(next_random(seed) % (uint32_t)(N_LETTERS + n));

            drawn->pairs[n][side] = pick < N_LETTERS ? 'a' + pick : 256 + pick - N_LETTERS;
            memcpy(sides[side], drawn->parts[drawn->pairs[n][side]], TEXT_BYTES);
        }
        if (strlen(sides[0]) + strlen(sides[1]) > 20) {
            continue;
        }
        (void)snprintf(drawn->texts[n], sizeof(drawn->texts[n]), "%s %s", sides[0], sides[1]);
        (void)snprintf(drawn->parts[256 + n], TEXT_BYTES, "%.20s%.20s", sides[0], sides[1]);
        for (int i = 0; i < n; i++) {
            fresh = fresh && strcmp(drawn->parts[256 + i], drawn->parts[256 + n]) != 0;
        }
        drawn->merges[n] = drawn->texts[n];
        n += fresh;
    }
}

static void random_merges_of_random_texts_agree_with_the_plain_way(void **state)
{
    enum {
        N_TEXT = 300
    };
    static random_merges drawn;
    uint32_t seed = 1;

    (void)state;
    for (int round = 0; round < 20; round++) {
        tsr_tokenizer *tok;

        draw_merges(&drawn, &seed);
        tok = make(&(toy_vocab){.pre = "gpt-2", .n_merges = N_MERGES, .merges = drawn.merges});
        for (int t = 0; t < 20; t++) {
            char text[N_TEXT];
            int32_t ids[N_TEXT];
            const int n_text = 1 + (int)(next_random(&seed) % N_TEXT);
            int n_ids;

            for (int i = 0; i < n_text; i++) {
                text[i] = (char)('a' + next_random(&seed) % N_LETTERS);
                ids[i] = text[i];
            }
            n_ids = merge_plainly(ids, n_text, N_MERGES, (const int32_t(*)[2])drawn.pairs);
            expect_n(tok, text, (size_t)n_text, false, n_ids, ids);
        }
        tsr_tokenizer_destroy(tok);
    }
}

static void a_megabyte_of_one_letter_merges_at_once(void **state)
{
    static const char *const merges[] = {"a a", "aa aa", "aaaa aaaa"};
    tsr_tokenizer *tok = make(&(toy_vocab){.pre = "gpt-2", .n_merges = 3, .merges = merges});
    const size_t n_bytes = 1 << 20;
    char *text = malloc(n_bytes);
    tsr_ids ids = {0};

    (void)state;
    assert_non_null(text);
    memset(text, 'a', n_bytes);
    assert_int_equal(tsr_tokenizer_encode(tok, &ids, text, n_bytes, true), TSR_OK);
    assert_int_equal(ids.n_ids, n_bytes / 8);
    for (int64_t i = 0; i < ids.n_ids; i++) {
        assert_int_equal(ids.ids[i], 258);
    }
    tsr_ids_clear(&ids);
    free(text);
    tsr_tokenizer_destroy(tok);
}

/* ---- bytes -------------------------------------------------------------------------------------
 */

static void every_byte_that_has_a_token_comes_back_as_it_was(void **state)
{
    tsr_tokenizer *tok = make(&(toy_vocab){.pre = "llama-bpe"});
    char all[512];
    tsr_ids ids = {0};
    tsr_text text = {0};

    (void)state;
    for (int i = 0; i < 512; i++) {
        all[i] =
            (char)(i < 256 ? i : 511 - i); // stray continuation bytes, broken characters, all of it
    }
    assert_int_equal(tsr_tokenizer_encode(tok, &ids, all, sizeof(all), true), TSR_OK);
    assert_int_equal(ids.n_ids, 512);
    for (int i = 0; i < 512; i++) {
        assert_int_equal(ids.ids[i], (uint8_t)all[i]);
        assert_int_equal(tsr_tokenizer_decode(tok, NULL, &text, ids.ids[i], false), TSR_OK);
    }
    assert_int_equal(text.n_bytes, 512);
    assert_memory_equal(text.bytes, all, 512);
    tsr_text_clear(&text);
    tsr_ids_clear(&ids);
    tsr_tokenizer_destroy(tok);
}

static void bytes_without_a_token_are_dropped_and_their_neighbours_meet(void **state)
{
    static const char *const merges[] = {". ."};
    tsr_tokenizer *tok =
        make(&(toy_vocab){.pre = "gpt-2", .n_merges = 1, .merges = merges, .without = "\x04\xf1"});

    (void)state;
    EXPECT(tok, ".\x04.", false, 256);
    EXPECT(tok,
           "a\xf1"
           "b",
           false, 'a', 'b');
    expect_n(tok, "\x04\x04", 2, false, 0, NULL);
    expect_n(tok, "", 0, false, 0, NULL);
    EXPECT(tok, "a\0b", false, 'a', 0, 'b');
    tsr_tokenizer_destroy(tok);
}

/* ---- special tokens ----------------------------------------------------------------------------
 */

static const toy_token special[] = {{"<|a|>", 3},  {"<|a|>b", 3}, {"<|", 3}, {"  ", 4},
                                    {"<user>", 4}, {"word", 1},   {"x", 1}};

enum {
    CONTROL = 256,
    CONTROL_LONGER,
    CONTROL_SHORT,
    TWO_SPACES,
    USER,
    WORD
};

static tsr_tokenizer *make_special(const char *pre)
{
    return make(&(toy_vocab){.pre = pre, .n_extra = 6, .extra = special});
}

static void control_tokens_are_matched_only_where_the_caller_allows_them(void **state)
{
    tsr_tokenizer *tok = make_special("gpt-2");

    (void)state;
    EXPECT(tok, "z<|a|>z", true, 'z', CONTROL, 'z');
    EXPECT(tok, "z<|a|>z", false, 'z', '<', '|', 'a', '|', '>', 'z');
    EXPECT(tok, " <|a|> ", true, ' ', CONTROL, ' '); // no space is eaten around it
    tsr_tokenizer_destroy(tok);
}

static void the_longest_token_at_the_leftmost_place_is_taken(void **state)
{
    tsr_tokenizer *tok = make_special("gpt-2");

    (void)state;
    EXPECT(tok, "<|a|>b", true, CONTROL_LONGER);
    EXPECT(tok, "<|a|>", true, CONTROL);
    EXPECT(tok, "<|a|", true, CONTROL_SHORT, 'a', '|');
    EXPECT(tok, "<<|", true, '<', CONTROL_SHORT);
    EXPECT(tok, "<|<|a|>", true, CONTROL_SHORT, CONTROL);
    tsr_tokenizer_destroy(tok);
}

static void user_defined_tokens_are_always_matched_and_always_shown(void **state)
{
    tsr_tokenizer *tok = make_special("gpt-2");
    tsr_text text = {0};

    (void)state;
    EXPECT(tok, "<user>", false, USER);
    EXPECT(tok, "<user>", true, USER);
    EXPECT(tok, "a   b", false, 'a', TWO_SPACES, ' ', 'b');
    assert_false(tsr_tokenizer_is_special(tok, USER));
    assert_int_equal(tsr_tokenizer_decode(tok, NULL, &text, TWO_SPACES, false), TSR_OK);
    assert_string_equal(text.bytes, "  ");
    tsr_text_clear(&text);
    tsr_tokenizer_destroy(tok);
}

static void control_tokens_are_shown_only_when_asked_for(void **state)
{
    tsr_tokenizer *tok = make_special("gpt-2");
    tsr_text text = {0};

    (void)state;
    assert_true(tsr_tokenizer_is_special(tok, CONTROL));
    assert_int_equal(tsr_tokenizer_decode(tok, NULL, &text, CONTROL, false), TSR_OK);
    assert_int_equal(text.n_bytes, 0);
    assert_int_equal(tsr_tokenizer_decode(tok, NULL, &text, CONTROL, true), TSR_OK);
    assert_string_equal(text.bytes, "<|a|>");
    assert_int_equal(tsr_tokenizer_decode(tok, NULL, &text, -1, true), TSR_ERR_ARG);
    assert_int_equal(tsr_tokenizer_decode(tok, NULL, &text, 256 + 6, true), TSR_ERR_ARG);
    assert_string_equal(text.bytes, "<|a|>");
    tsr_text_clear(&text);
    tsr_tokenizer_destroy(tok);
}

static void a_piece_that_is_a_token_is_taken_whole_only_by_models_that_do_so(void **state)
{
    const toy_token extra[] = {{"word", 1}, {"\xc4\xa0word", 1}, {"sign", 3}};
    const toy_vocab vocab = {.pre = "llama-bpe", .n_extra = 3, .extra = extra};
    tsr_tokenizer *whole = make(&vocab);
    tsr_tokenizer *merging = make(&(toy_vocab){.pre = "qwen2", .n_extra = 3, .extra = extra});

    (void)state;
    EXPECT(whole, "word word", false, 256, 257);
    EXPECT(merging, "word", false, 'w', 'o', 'r', 'd');
    EXPECT(whole, "sign", false, 's', 'i', 'g', 'n'); // text must not become a control token
    EXPECT(whole, "sign", true, 258);
    tsr_tokenizer_destroy(merging);
    tsr_tokenizer_destroy(whole);
}

static void text_never_becomes_a_control_token_of_one_letter(void **state)
{
    const toy_token extra[] = {{"!", 3}};
    tsr_tokenizer *tok =
        make(&(toy_vocab){.pre = "gpt-2", .n_extra = 1, .extra = extra, .without = "!"});

    (void)state;
    EXPECT(tok, "a!", false, 'a'); // the byte has no token of its own
    EXPECT(tok, "a!", true, 'a', 256);
    tsr_tokenizer_destroy(tok);
}

static void thousands_of_special_tokens_cost_no_more_than_a_few(void **state)
{
    enum {
        N = 6000,
        N_BYTES = 1 << 20
    };
    toy_token *many = calloc(N, sizeof(*many));
    char(*texts)[32] = calloc(N, sizeof(*texts));
    char *text = malloc(N_BYTES);
    tsr_tokenizer *tok;
    tsr_ids ids = {0};

    (void)state;
    assert_true(many != NULL && texts != NULL && text != NULL);
    for (int i = 0; i < N; i++) {
        (void)snprintf(texts[i], sizeof(texts[i]), "<|reserved_%d|>", i);
        many[i] = (toy_token){texts[i], 3};
    }
    tok = make(&(toy_vocab){.pre = "gpt-2", .n_extra = N, .extra = many});
    for (size_t i = 0; i < N_BYTES; i++) {
        text[i] = "<|reserved_"[i % 11]; // all but a match, at every eleventh byte
    }
    assert_int_equal(tsr_tokenizer_encode(tok, &ids, text, N_BYTES, true), TSR_OK);
    assert_int_equal(ids.n_ids, N_BYTES);
    expect_n(tok, "<|reserved_5999|>", 17, true, 1, &(int32_t){256 + 5999});
    expect_n(tok, "<|reserved_10|>", 15, true, 1, &(int32_t){256 + 10});
    tsr_ids_clear(&ids);
    tsr_tokenizer_destroy(tok);
    free(text);
    free(texts);
    free(many);
}

/* ---- what the metadata says --------------------------------------------------------------------
 */

static void ends_are_told_by_the_metadata_and_by_the_usual_names(void **state)
{
    const toy_token extra[] = {
        {"<|im_end|>", 3}, {"<|endoftext|>", 1}, {"<stop>", 3}, {"<turn>", 3}};
    const toy_vocab vocab = {.pre = "gpt-2", .n_extra = 4, .extra = extra};
    tsr_tokenizer *tok = NULL;
    gguf_writer w;

    (void)state;
    gguf_writer_init(&w);
    toy_vocab_write(&w, &vocab);
    gguf_writer_u32(&w, "tokenizer.ggml.eos_token_id", 258);
    gguf_writer_u32(&w, "tokenizer.ggml.eot_token_id", 259);
    gguf_writer_u32(&w, "tokenizer.ggml.bos_token_id", 257);
    gguf_writer_bool(&w, "tokenizer.ggml.add_bos_token", true);
    assert_int_equal(make_from(&tok, &w), TSR_OK);
    assert_int_equal(tsr_tokenizer_n_vocab(tok), 260);
    assert_true(tsr_tokenizer_is_end(tok, 256));  // by name
    assert_false(tsr_tokenizer_is_end(tok, 257)); // the name, but no control token
    assert_true(tsr_tokenizer_is_end(tok, 258));
    assert_true(tsr_tokenizer_is_end(tok, 259));
    assert_false(tsr_tokenizer_is_end(tok, 'a'));
    assert_false(tsr_tokenizer_is_end(tok, -1));
    assert_false(tsr_tokenizer_is_end(tok, 260));
    assert_int_equal(tsr_tokenizer_eos(tok), 258);
    assert_int_equal(tsr_tokenizer_bos(tok), 257);
    assert_true(tsr_tokenizer_adds_bos(tok));
    assert_int_equal(tsr_tokenizer_find(tok, "<stop>"), 258);
    assert_int_equal(tsr_tokenizer_find(tok, "<st"), -1);
    assert_int_equal(tsr_tokenizer_find(tok, ""), -1);
    tsr_tokenizer_destroy(tok);
    gguf_writer_clear(&w);
}

static void ids_outside_the_vocabulary_count_as_missing(void **state)
{
    const uint32_t bad[] = {256, 0x7fffffff, 0x80000000u, 0xffffffffu};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        tsr_tokenizer *tok = NULL;
        gguf_writer w;

        gguf_writer_init(&w);
        toy_vocab_write(&w, &(toy_vocab){.pre = "gpt-2"});
        gguf_writer_u32(&w, "tokenizer.ggml.eos_token_id", bad[i]);
        gguf_writer_u32(&w, "tokenizer.ggml.eom_token_id", bad[i]);
        gguf_writer_u32(&w, "tokenizer.ggml.bos_token_id", bad[i]);
        gguf_writer_bool(&w, "tokenizer.ggml.add_bos_token", true);
        assert_int_equal(make_from(&tok, &w), TSR_OK);
        assert_int_equal(tsr_tokenizer_eos(tok), -1);
        assert_int_equal(tsr_tokenizer_bos(tok), -1);
        assert_false(tsr_tokenizer_adds_bos(tok)); // there is none to add
        tsr_tokenizer_destroy(tok);
        gguf_writer_clear(&w);
    }
}

static void bos_is_wanted_as_the_file_says_or_else_as_its_kind_of_model_does(void **state)
{
    static const struct {
        const char *pre;
        int says; /* -1: nothing */
        bool wanted;
    } cases[] = {
        {"llama-bpe", -1, true}, {"llama-bpe", 0, false}, {"qwen2", -1, false}, {"qwen2", 1, true}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_tokenizer *tok = NULL;
        gguf_writer w;

        gguf_writer_init(&w);
        toy_vocab_write(&w, &(toy_vocab){.pre = cases[i].pre});
        gguf_writer_u32(&w, "tokenizer.ggml.bos_token_id", 7);
        if (cases[i].says >= 0) {
            gguf_writer_bool(&w, "tokenizer.ggml.add_bos_token", cases[i].says == 1);
        }
        assert_int_equal(make_from(&tok, &w), TSR_OK);
        assert_int_equal(tsr_tokenizer_adds_bos(tok), cases[i].wanted);
        tsr_tokenizer_destroy(tok);
        gguf_writer_clear(&w);
    }
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static tsr_status make_and_use(void *w)
{
    tsr_tokenizer *tok = NULL;
    tsr_ids ids = {0};
    tsr_text text = {0};
    tsr_status st = make_from(&tok, w);

    if (st == TSR_OK) {
        st = tsr_ids_append(&ids, 7);
    }
    if (st == TSR_OK) {
        st = tsr_tokenizer_encode(tok, &ids, "<|a|> some words word", 21, true);
        assert_true(st == TSR_OK ? ids.n_ids > 1 : ids.n_ids == 1);
    }
    if (st == TSR_OK) {
        st = tsr_tokenizer_decode(tok, NULL, &text, WORD, false);
    }
    tsr_text_clear(&text);
    tsr_ids_clear(&ids);
    tsr_tokenizer_destroy(tok);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    gguf_writer w;

    (void)state;
    gguf_writer_init(&w);
    toy_vocab_write(&w, &(toy_vocab){.pre = "llama-bpe", .n_extra = 6, .extra = special});
    assert_true(torture(make_and_use, &w) > 15);
    gguf_writer_clear(&w);
    tsr_tokenizer_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pair_of_lowest_rank_merges_first),
        cmocka_unit_test(among_equals_the_leftmost_pair_merges_first),
        cmocka_unit_test(nothing_merges_across_pieces),
        cmocka_unit_test(random_merges_of_random_texts_agree_with_the_plain_way),
        cmocka_unit_test(a_megabyte_of_one_letter_merges_at_once),
        cmocka_unit_test(every_byte_that_has_a_token_comes_back_as_it_was),
        cmocka_unit_test(bytes_without_a_token_are_dropped_and_their_neighbours_meet),
        cmocka_unit_test(control_tokens_are_matched_only_where_the_caller_allows_them),
        cmocka_unit_test(the_longest_token_at_the_leftmost_place_is_taken),
        cmocka_unit_test(user_defined_tokens_are_always_matched_and_always_shown),
        cmocka_unit_test(control_tokens_are_shown_only_when_asked_for),
        cmocka_unit_test(a_piece_that_is_a_token_is_taken_whole_only_by_models_that_do_so),
        cmocka_unit_test(text_never_becomes_a_control_token_of_one_letter),
        cmocka_unit_test(thousands_of_special_tokens_cost_no_more_than_a_few),
        cmocka_unit_test(ends_are_told_by_the_metadata_and_by_the_usual_names),
        cmocka_unit_test(ids_outside_the_vocabulary_count_as_missing),
        cmocka_unit_test(bos_is_wanted_as_the_file_says_or_else_as_its_kind_of_model_does),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
