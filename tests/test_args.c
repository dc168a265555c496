#include "launch/args.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "launch/args_number.h"
#include "tests/support/torture.h"

typedef struct shared {
    uint64_t memory;
    const char *kind;
} shared;

typedef struct answers {
    const char *file;
    bool loud;
    const char *name;
    tsr_args_list words;
    int64_t count;
    uint64_t seed;
    double heat;
    shared more;
} answers;

static const tsr_args_option own_table[] = {
    {"FILE", NULL, TSR_ARGS_TEXT, offsetof(answers, file), 0, 0, NULL, "a file"},
    {"--loud", NULL, TSR_ARGS_FLAG, offsetof(answers, loud), 0, 0, NULL, "louder"},
    {"--name", "T", TSR_ARGS_TEXT, offsetof(answers, name), 0, 0, NULL, "a name"},
    {"--word", "T", TSR_ARGS_LIST, offsetof(answers, words), 0, 0, NULL, "words"},
    {"--count", "N", TSR_ARGS_INTEGER, offsetof(answers, count), -5, 100, NULL, "how many"},
    {"--seed", "S", TSR_ARGS_SEED, offsetof(answers, seed), 0, 0, NULL, "where chance starts"},
    {"--heat", "T", TSR_ARGS_REAL, offsetof(answers, heat), 0, 2, NULL, "how hot"},
};
static const tsr_args_option shared_table[] = {
    {"--memory", "B", TSR_ARGS_BYTES, offsetof(shared, memory), 0, 0, NULL, "how much"},
    {"--kind", "K", TSR_ARGS_CHOICE, offsetof(shared, kind), 0, 0, "f32|f16", "which"},
};
static const tsr_args_group groups[] = {
    {"Own", own_table, 7, 0},
    {"Shared", shared_table, 2, offsetof(answers, more)},
};
static const tsr_args_spec spec = {"test", "[FILE]", "About.", groups, 2, NULL};

/* Parses words up to NULL. */
static tsr_status parse(answers *out, bool *help, char **words)
{
    int n = 0;

    while (words[n] != NULL) {
        n++;
    }
    return tsr_args_parse(&spec, n, words, out, help);
}

#define PARSE(out, help, ...) parse((out), (help), (char *[]){__VA_ARGS__, NULL})

static void every_kind_of_value_reaches_its_field_in_both_forms(void **state)
{
    answers a = {.count = 7};
    bool help;

    (void)state;
    assert_int_equal(PARSE(&a, &help, "--loud", "--name", "x=y", "--count=-5", "the file",
                           "--seed=18446744073709551615", "--heat", "1.5e0", "--memory=1.5K",
                           "--kind", "f16"),
                     TSR_OK);
    assert_false(help);
    assert_true(a.loud);
    assert_string_equal(a.name, "x=y");
    assert_int_equal(a.count, -5);
    assert_string_equal(a.file, "the file");
    assert_true(a.seed == UINT64_MAX);
    assert_true(a.heat == 1.5);
    assert_int_equal(a.more.memory, 1536);
    assert_string_equal(a.more.kind, "f16");
}

static void what_is_not_given_stays_and_the_last_one_counts(void **state)
{
    answers a = {.count = 7, .heat = 0.5};
    bool help;

    (void)state;
    assert_int_equal(PARSE(&a, &help, "--heat=1", "--heat=2"), TSR_OK);
    assert_int_equal(a.count, 7);
    assert_true(a.heat == 2.0);
}

static void lists_keep_every_value_in_order(void **state)
{
    answers a = {0};
    bool help;

    (void)state;
    assert_int_equal(PARSE(&a, &help, "--word", "one", "--word=", "--word", "--three"), TSR_OK);
    assert_int_equal(a.words.n, 3);
    assert_string_equal(a.words.values[0], "one");
    assert_string_equal(a.words.values[1], "");
    assert_string_equal(a.words.values[2], "--three");
    tsr_args_clear(&spec, &a);
    assert_null(a.words.values);
}

static void two_dashes_end_the_options_and_one_dash_is_a_word(void **state)
{
    answers a = {0};
    bool help;

    (void)state;
    assert_int_equal(PARSE(&a, &help, "--", "--loud"), TSR_OK);
    assert_false(a.loud);
    assert_string_equal(a.file, "--loud");
    a.file = NULL;
    assert_int_equal(PARSE(&a, &help, "-"), TSR_OK);
    assert_string_equal(a.file, "-");
}

static void help_wins_over_what_follows_it(void **state)
{
    answers a = {0};
    bool help = false;

    (void)state;
    assert_int_equal(PARSE(&a, &help, "--loud", "--help", "--nonsense"), TSR_OK);
    assert_true(help);
    assert_int_equal(PARSE(&a, &help, "-h"), TSR_OK);
    assert_true(help);
}

static void wrong(const char *expected, char **words)
{
    answers a = {0};
    bool help;

    assert_int_equal(parse(&a, &help, words), TSR_ERR_ARG);
    if (strstr(tsr_status_message(), expected) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", tsr_status_message(), expected);
    }
    tsr_args_clear(&spec, &a);
}

#define WRONG(expected, ...) wrong((expected), (char *[]){__VA_ARGS__, NULL})

static void a_line_that_is_wrong_is_told_so_in_words(void **state)
{
    (void)state;
    WRONG("did you mean --count?", "--cuont", "1");
    WRONG("did you mean --memory?", "--mem=1");
    WRONG("unknown option -q", "-q");
    WRONG("unknown option --completely-different", "--completely-different");
    WRONG("--name needs a value: --name T", "--name");
    WRONG("--name needs a value", "--name", "--loud");
    WRONG("--loud takes no value", "--loud=yes");
    WRONG("one word too many", "a", "b");
    WRONG("--kind wants one of f32|f16, not 'f8'", "--kind=f8");
    WRONG("not 'f32|f16'", "--kind=f32|f16");
}

static void numbers_are_checked_to_the_last_character(void **state)
{
    static char *const integers[] = {"",    "x",   "1x", " 1",  "1 ",
                                     "1.0", "--1", "-",  "0x1", "99999999999999999999"};
    static char *const reals[] = {"", "x", "nan", "inf", "1e999", "0x1p1", "1,5", "-0.1", "2.01"};
    static char *const sizes[] = {"",    "0",   "-1",    "K",   "1KB", "1Q",
                                  "1kk", "1.5", "1..5K", "nan", "9e9", "99999999999999999999T"};
    int64_t integer = 42;
    double real = 42.0;
    uint64_t size = 42;
    uint64_t seed = 42;

    (void)state;
    for (size_t i = 0; i < sizeof(integers) / sizeof(integers[0]); i++) {
        assert_int_equal(
            tsr_args_number_integer("--n", integers[i], INT64_MIN, INT64_MAX, &integer),
            TSR_ERR_ARG);
    }
    for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) {
        assert_int_equal(tsr_args_number_real("--n", reals[i], 0.0, 2.0, &real), TSR_ERR_ARG);
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (strcmp(sizes[i], "1.5") != 0) { // one byte and a half is one byte
            assert_int_equal(tsr_args_number_bytes("--n", sizes[i], &size), TSR_ERR_ARG);
        }
    }
    assert_int_equal(tsr_args_number_seed("--n", "-1", &seed), TSR_ERR_ARG);
    assert_int_equal(tsr_args_number_seed("--n", "18446744073709551616", &seed), TSR_ERR_ARG);
    assert_int_equal(integer, 42);
    assert_true(real == 42.0);
    assert_int_equal(size, 42);
    assert_int_equal(seed, 42);
    assert_int_equal(tsr_args_number_integer("--n", "101", 0, 100, &integer), TSR_ERR_ARG);
    assert_int_equal(tsr_args_number_integer("--n", "100", 0, 100, &integer), TSR_OK);
    assert_int_equal(integer, 100);
}

static void bytes_count_in_powers_of_1024(void **state)
{
    static const struct {
        const char *text;
        uint64_t n_bytes;
    } cases[] = {
        {"auto", 0},           {"1", 1},       {"65536", 65536},    {"7B", 7},
        {"2K", 2048},          {"2KiB", 2048}, {"512M", 536870912}, {"1.5GiB", 1610612736},
        {"2T", 2199023255552},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t n_bytes = 99;

        assert_int_equal(tsr_args_number_bytes("--n", cases[i].text, &n_bytes), TSR_OK);
        assert_int_equal(n_bytes, cases[i].n_bytes);
    }
}

static void ids_are_separated_by_anything_usual(void **state)
{
    static const char text[] = " 1,2\n\n3\t2147483647, ";
    static const int32_t expected[] = {1, 2, 3, INT32_MAX};
    int32_t *ids = NULL;
    int64_t n_ids = 0;

    (void)state;
    assert_int_equal(tsr_args_number_ids("--ids", text, strlen(text), &ids, &n_ids), TSR_OK);
    assert_int_equal(n_ids, 4);
    assert_memory_equal(ids, expected, sizeof(expected));
    tsr_free(ids);
}

static void ids_that_are_none_are_refused(void **state)
{
    static const char *const texts[] = {"", " ,\n", "1,x", "-1", "2147483648", "1.5", "1;2", "0x1"};
    int32_t *ids = NULL;
    int64_t n_ids = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(tsr_args_number_ids("--ids", texts[i], strlen(texts[i]), &ids, &n_ids),
                         TSR_ERR_ARG);
        assert_null(ids);
    }
}

static tsr_status parse_a_list(void *ctx)
{
    answers a = {0};
    bool help;
    const tsr_status st = PARSE(&a, &help, "--word", "one", "--word", "two");

    (void)ctx;
    tsr_args_clear(&spec, &a);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_int_equal(torture(parse_a_list, NULL), 1); // one block for all values of a list
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_value_reaches_its_field_in_both_forms),
        cmocka_unit_test(what_is_not_given_stays_and_the_last_one_counts),
        cmocka_unit_test(lists_keep_every_value_in_order),
        cmocka_unit_test(two_dashes_end_the_options_and_one_dash_is_a_word),
        cmocka_unit_test(help_wins_over_what_follows_it),
        cmocka_unit_test(a_line_that_is_wrong_is_told_so_in_words),
        cmocka_unit_test(numbers_are_checked_to_the_last_character),
        cmocka_unit_test(bytes_count_in_powers_of_1024),
        cmocka_unit_test(ids_are_separated_by_anything_usual),
        cmocka_unit_test(ids_that_are_none_are_refused),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("args", tests, NULL, NULL);
}
