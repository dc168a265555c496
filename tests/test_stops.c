#include "engine/stops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/torture.h"

/* Where the first match ends and how long it is, by definition; 0: nowhere. */
static size_t find_plainly(const char *const *stops, const size_t *n_bytes, int n, const char *text,
                           size_t n_text, size_t *match_bytes)
{
    for (size_t end = 1; end <= n_text; end++) {
        *match_bytes = 0;
        for (int i = 0; i < n; i++) {
            if (n_bytes[i] <= end && n_bytes[i] > *match_bytes &&
                memcmp(text + end - n_bytes[i], stops[i], n_bytes[i]) == 0) {
                *match_bytes = n_bytes[i];
            }
        }
        if (*match_bytes > 0) {
            return end;
        }
    }
    return 0;
}

/* The longest ending of the text that begins some stop, by definition. */
static size_t held_plainly(const char *const *stops, const size_t *n_bytes, int n, const char *text,
                           size_t n_text)
{
    size_t most = 0;

    for (int i = 0; i < n; i++) {
        for (size_t k = most + 1; k <= n_bytes[i] && k <= n_text; k++) {
            most = memcmp(text + n_text - k, stops[i], k) == 0 ? k : most;
        }
    }
    return most;
}

enum {
    MOST = 6,
    LONGEST = 7,
    TEXT = 60
};

/* Random stops and texts over few letters, so that matches and near misses abound. */
static void any_cut_of_a_text_gives_what_the_whole_gives(void **state)
{
    uint64_t dice = 3;
    int n_matched = 0;

    (void)state;
    for (int turn = 0; turn < 3000; turn++) {
        char bytes[MOST][LONGEST];
        const char *stops[MOST];
        size_t n_bytes[MOST];
        char text[TEXT];
        const int n = 1 + dice_below(&dice, MOST);
        const int n_letters = 2 + dice_below(&dice, 3);
        tsr_stops *s = NULL;
        size_t length, want, used;

        for (int i = 0; i < n; i++) {
            stops[i] = bytes[i];
            n_bytes[i] = (size_t)(1 + dice_below(&dice, LONGEST));
            for (size_t b = 0; b < n_bytes[i]; b++) {
                bytes[i][b] = (char)(0xfe + dice_below(&dice, n_letters)); // 0 and 255 among them
            }
        }
        for (int i = 0; i < TEXT; i++) {
            text[i] = (char)(0xfe + dice_below(&dice, n_letters + 1));
        }
        assert_int_equal(tsr_stops_create(&s, stops, n_bytes, n), TSR_OK);
        want = find_plainly(stops, n_bytes, n, text, TEXT, &length);
        n_matched += want > 0 ? 1 : 0;
        for (size_t cut = 0; cut <= TEXT; cut++) {
            int at = 0;
            size_t got = 0;
            size_t match = 0;

            if (tsr_stops_feed(s, &at, text, cut, &used, &match)) {
                got = used;
            } else {
                assert_int_equal(used, cut);
                assert_int_equal(tsr_stops_held(s, at), held_plainly(stops, n_bytes, n, text, cut));
                if (tsr_stops_feed(s, &at, text + cut, TEXT - cut, &used, &match)) {
                    got = cut + used;
                }
            }
            assert_int_equal(got, want);
            assert_true(want == 0 || match == length);
        }
        tsr_stops_destroy(s);
    }
    assert_true(n_matched > 1000 && n_matched < 2900);
}

static void a_byte_at_a_time_finds_what_spans_characters(void **state)
{
    const char *const stops[] = {"\x82\xac!", "END"}; // within a euro sign
    const char text[] = "1 \xe2\x82\xac EN \xe2\x82\xac!END";
    tsr_stops *s = NULL;
    int at = 0;
    size_t used, match;
    size_t i = 0;

    (void)state;
    assert_int_equal(tsr_stops_create(&s, stops, NULL, 2), TSR_OK);
    while (!tsr_stops_feed(s, &at, text + i, 1, &used, &match)) {
        i++;
    }
    assert_int_equal(match, 3);
    assert_int_equal(text[i], '!');
    tsr_stops_destroy(s);
}

static void what_cannot_be_looked_for_is_refused(void **state)
{
    static const char *many[10000];
    static char long_one[TSR_STOPS_MOST_BYTES + 2];
    const char *const empty[] = {"a", ""};
    const char *const too_long[] = {long_one};
    tsr_stops *s = NULL;

    (void)state;
    for (int i = 0; i < 10000; i++) {
        many[i] = "x";
    }
    memset(long_one, 'y', sizeof(long_one) - 1);
    assert_int_equal(tsr_stops_create(&s, many, NULL, 10000), TSR_ERR_ARG);
    assert_non_null(strstr(tsr_status_message(), "10000 stop strings"));
    assert_int_equal(tsr_stops_create(&s, many, NULL, 0), TSR_ERR_ARG);
    assert_int_equal(tsr_stops_create(&s, many, NULL, -1), TSR_ERR_ARG);
    assert_int_equal(tsr_stops_create(&s, empty, NULL, 2), TSR_ERR_ARG);
    assert_non_null(strstr(tsr_status_message(), "empty"));
    assert_int_equal(tsr_stops_create(&s, too_long, NULL, 1), TSR_ERR_ARG);
    assert_null(s);
    long_one[TSR_STOPS_MOST_BYTES] = '\0';
    assert_int_equal(tsr_stops_create(&s, too_long, NULL, 1), TSR_OK);
    tsr_stops_destroy(s);
    tsr_stops_destroy(NULL);
}

static tsr_status make_once(void *ctx)
{
    const char *const stops[] = {"one", "two", "one two"};
    tsr_stops *s;

    (void)ctx;
    TSR_TRY(tsr_stops_create(&s, stops, NULL, 3));
    tsr_stops_destroy(s);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_true(torture(make_once, NULL) >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_cut_of_a_text_gives_what_the_whole_gives),
        cmocka_unit_test(a_byte_at_a_time_finds_what_spans_characters),
        cmocka_unit_test(what_cannot_be_looked_for_is_refused),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("stops", tests, NULL, NULL);
}
