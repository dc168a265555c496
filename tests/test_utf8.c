#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/ids.h"
#include "base/text.h"
#include "tests/support/torture.h"

static size_t encode(char out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

static void every_code_point_but_the_surrogates_is_a_character(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x111000; c++) {
        const int is_character = c < 0x110000 && (c < 0xd800 || c > 0xdfff);
        char bytes[4];
        const size_t n = encode(bytes, c);

        assert_int_equal(tsr_utf8_measure(bytes, n), is_character ? (int)n : TSR_UTF8_INVALID);
        if (is_character) {
            assert_int_equal(tsr_utf8_decode(bytes), c);
            for (size_t short_of = 1; short_of < n; short_of++) {
                assert_int_equal(tsr_utf8_measure(bytes, short_of), TSR_UTF8_UNFINISHED);
            }
        }
    }
}

static void overlong_forms_and_stray_bytes_are_no_characters(void **state)
{
    const char *const bad[] = {"\x80",
                               "\xbf",
                               "\xc0\x80",
                               "\xc1\xbf",
                               "\xe0\x9f\xbf",
                               "\xf0\x8f\xbf\xbf",
                               "\xf5\x80\x80\x80",
                               "\xff",
                               "\xc3(",
                               "\xe2\x82(",
                               "\xf0\x9f\x98("};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(tsr_utf8_measure(bad[i], strlen(bad[i])), TSR_UTF8_INVALID);
    }
}

static void only_an_unfinished_character_at_the_end_is_held_back(void **state)
{
    static const struct {
        const char *text;
        size_t whole;
    } cases[] = {
        {"", 0},
        {"a", 1},
        {"a\xc3", 1},
        {"a\xc3\xa9", 3},
        {"a\xe2\x82", 1},
        {"\xf0\x9f\x98", 0},
        {"\xf0\x9f\x98\x80", 4},
        {"\xf0\x9f\x98\x80\xf0", 4},
        {"a\xff", 2},         /* can never become a character */
        {"a\x80\x80\x80", 4}, /* the same */
        {"\xe0\x80", 2},      /* overlong already */
        {"\xed\xa0", 2},      /* a surrogate already */
        {"\xf4\x90", 2},      /* too large already */
        {"\xc3\xa9\xa9", 3},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(tsr_utf8_whole(cases[i].text, strlen(cases[i].text)), cases[i].whole);
    }
}

static void valid_text_ends_at_the_first_byte_that_is_none(void **state)
{
    const char text[] = "twelve bytes \xc3\xa9 and more \xff rest";

    (void)state;
    assert_int_equal(tsr_utf8_valid(text, sizeof(text) - 1), (size_t)(strchr(text, '\xff') - text));
    assert_int_equal(tsr_utf8_valid(text, 14), 13); // cut within the character
    assert_int_equal(tsr_utf8_valid("", 0), 0);
}

static tsr_status grow_both(void *unused)
{
    tsr_ids ids = {0};
    tsr_text text = {0};
    tsr_status st = TSR_OK;

    (void)unused;
    for (int i = 0; i < 1000 && st == TSR_OK; i++) {
        st = tsr_ids_append(&ids, i);
        if (st == TSR_OK) {
            st = tsr_text_append(&text, "abc", 3);
        }
    }
    if (st == TSR_OK) {
        assert_int_equal(ids.ids[999], 999);
        assert_int_equal(strlen(text.bytes), 3000);
    }
    tsr_ids_clear(&ids);
    tsr_text_clear(&text);
    return st;
}

static void lists_and_texts_grow_and_survive_a_lack_of_memory(void **state)
{
    tsr_text text = {0};

    (void)state;
    assert_true(torture(grow_both, NULL) > 5);
    assert_int_equal(tsr_text_append(&text, "", SIZE_MAX - 3), TSR_ERR_NOMEM);
    assert_null(text.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_but_the_surrogates_is_a_character),
        cmocka_unit_test(overlong_forms_and_stray_bytes_are_no_characters),
        cmocka_unit_test(only_an_unfinished_character_at_the_end_is_held_back),
        cmocka_unit_test(valid_text_ends_at_the_first_byte_that_is_none),
        cmocka_unit_test(lists_and_texts_grow_and_survive_a_lack_of_memory),
    };

    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
