#include "tests/support/oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/compare.h"
#include "tests/support/tiny_model.h"

enum {
    N_IDS = 96
};

/* The file in which a test keeps its model; the next model takes its place. */
static const char *model_path(void)
{
    static char path[64];

    (void)snprintf(path, sizeof(path), "test_oracle.%ld.gguf", (long)getpid());
    return path;
}

static int drop_model(void **state)
{
    (void)state;
    (void)remove(model_path());
    return 0;
}

static tsr_encoding encoding_named(const char *name)
{
    for (int e = 0; e < TSR_ENCODING_COUNT; e++) {
        if (strcmp(tsr_encoding_describe((tsr_encoding)e)->name, name) == 0) {
            return (tsr_encoding)e;
        }
    }
    fail_msg("no encoding %s", name);
    return TSR_ENCODING_COUNT;
}

static oracle *make(const char *preset, uint64_t seed, const char *encoding)
{
    tiny_model model;

    assert_non_null(tiny_model_preset(preset));
    model = *tiny_model_preset(preset);
    if (strcmp(encoding, "-") != 0) {
        model.encoding = encoding_named(encoding);
        model.down_encoding = model.encoding;
        model.head_encoding = model.encoding;
    }
    tiny_model_save(&model, seed, model_path());
    return oracle_open(model_path());
}

/* One model of golden.txt at work. */
typedef struct golden {
    char label[96];
    oracle *o;
    int n_vocab;
    int32_t ids[N_IDS];
    double *logits; /* [N_IDS][n_vocab] */
    int n_checks;
} golden;

static void golden_drop(golden *g)
{
    free(g->logits);
    oracle_close(g->o);
    *g = (golden){.n_checks = g->n_checks};
}

static void golden_start(golden *g, FILE *from)
{
    char preset[32];
    char encoding[16];
    char approximation[16];
    uint64_t seed;
    int n;

    golden_drop(g);
    assert_int_equal(
        fscanf(from, "%31s %" SCNu64 " %15s %15s", preset, &seed, encoding, approximation), 4);
    (void)snprintf(g->label, sizeof(g->label), "%s %s %s", preset, encoding, approximation);
    g->o = make(preset, seed, encoding);
    oracle_approximate(g->o, strstr(approximation, "int8") != NULL,
                       strstr(approximation, "bf16") != NULL  ? ORACLE_KV_BF16
                       : strstr(approximation, "f16") != NULL ? ORACLE_KV_F16
                                                              : ORACLE_KV_EXACT);
    assert_int_equal(fscanf(from, " ids %d", &n), 1);
    assert_int_equal(n, N_IDS);
    for (int i = 0; i < n; i++) {
        assert_int_equal(fscanf(from, "%" SCNd32, &g->ids[i]), 1);
    }
    g->n_vocab = oracle_n_vocab(g->o);
    g->logits = calloc((size_t)n * (size_t)g->n_vocab, sizeof(double));
    assert_non_null(g->logits);
    oracle_logits(g->o, g->ids, n, n, g->logits);
}

static void close_to(golden *g, const char *what, int position, double got, double want)
{
    g->n_checks++;
    if (!(fabs(got - want) < 1e-8)) {
        fail_msg("%s: %s at position %d is %.12g, not %.12g", g->label, what, position, got, want);
    }
}

static void golden_position(golden *g, FILE *from)
{
    int position;
    int best;
    double margin;
    double mass;
    double got_margin;
    const double *row;

    assert_int_equal(fscanf(from, "%d %d %lf %lf", &position, &best, &margin, &mass), 4);
    row = g->logits + (size_t)position * (size_t)g->n_vocab;
    assert_int_equal(oracle_best(row, g->n_vocab, &got_margin), best);
    close_to(g, "the margin", position, got_margin, margin);
    close_to(g, "the log mass", position, oracle_log_mass(row, g->n_vocab), mass);
}

static void golden_logit(golden *g, FILE *from)
{
    int position;
    int id;
    double value;

    assert_int_equal(fscanf(from, "%d %d %lf", &position, &id, &value), 3);
    close_to(g, "a logit", position, g->logits[(size_t)position * (size_t)g->n_vocab + (size_t)id],
             value);
}

static void golden_greedy(golden *g, FILE *from)
{
    int n_prompt;
    int n;
    int32_t got[64];

    assert_int_equal(fscanf(from, "%d %d", &n_prompt, &n), 2);
    assert_in_range(n, 1, 64);
    oracle_greedy(g->o, g->ids, n_prompt, n, got, NULL);
    for (int i = 0; i < n; i++) {
        int32_t want;

        assert_int_equal(fscanf(from, "%" SCNd32, &want), 1);
        assert_int_equal(got[i], want);
        g->n_checks++;
    }
}

static void the_oracle_agrees_with_an_independent_implementation(void **state)
{
    golden g = {0};
    FILE *from = fopen(TSR_TEST_DATA "/oracle/golden.txt", "r");
    char word[16];
    int n_models = 0;

    (void)state;
    assert_non_null(from);
    while (fscanf(from, "%15s", word) == 1) {
        if (strcmp(word, "model") == 0) {
            golden_start(&g, from);
            n_models++;
        } else if (strcmp(word, "at") == 0) {
            golden_position(&g, from);
        } else if (strcmp(word, "logit") == 0) {
            golden_logit(&g, from);
        } else if (strcmp(word, "greedy") == 0) {
            golden_greedy(&g, from);
        } else {
            fail_msg("golden.txt: a line starts with \"%s\"", word);
        }
    }
    golden_drop(&g);
    assert_int_equal(fclose(from), 0);
    assert_int_equal(n_models, 12 + 12 + 5);
    assert_int_equal(g.n_checks, n_models * 4 * (2 + 4) + 12 * 16);
}

static void feeding_in_pieces_changes_no_bit(void **state)
{
    oracle *o = make("9/3", 3, "-");
    const int n_vocab = oracle_n_vocab(o);
    double *whole = calloc((size_t)(N_IDS * n_vocab), sizeof(double));
    double *pieces = calloc((size_t)(N_IDS * n_vocab), sizeof(double));
    int32_t ids[N_IDS];
    comparison found;

    (void)state;
    assert_non_null(whole);
    assert_non_null(pieces);
    for (int i = 0; i < N_IDS; i++) {
        ids[i] = (i * i * 7 + 3) % n_vocab;
    }
    oracle_logits(o, ids, N_IDS, N_IDS, whole);
    oracle_forget(o);
    for (int at = 0, n = 1; at < N_IDS; at += n, n = n % 7 + 1) {
        n = at + n > N_IDS ? N_IDS - at : n;
        oracle_feed(o, ids + at, n, n, pieces + (size_t)at * (size_t)n_vocab);
    }
    found = compare_f64(pieces, whole, (int64_t)N_IDS * n_vocab, 0.0);
    compare_assert("pieces against the whole", found, 0.0, 0.0);
    oracle_logits(o, ids, 20, 1, pieces);
    found = compare_f64(pieces, whole + 19 * (size_t)n_vocab, n_vocab, 0.0);
    compare_assert("the last position alone", found, 0.0, 0.0);
    free(pieces);
    free(whole);
    oracle_close(o);
}

static void approximations_move_the_logits_a_little(void **state)
{
    static const struct {
        bool int8;
        oracle_kv kv;
        double least; // of the root mean square distance
        double most;
    } cases[] = {
        {false, ORACLE_KV_EXACT, 0.0, 0.0},
        {false, ORACLE_KV_F16, 1e-5, 5e-3},
        {false, ORACLE_KV_BF16, 1e-4, 5e-2},
        {true, ORACLE_KV_EXACT, 1e-3, 0.3},
    };
    oracle *o = make("9/3", 4, "-");
    const int n_vocab = oracle_n_vocab(o);
    double *exact = calloc((size_t)n_vocab, sizeof(double));
    double *moved = calloc((size_t)n_vocab, sizeof(double));
    const int32_t ids[] = {100, 5, 61, 250, 300, 17, 88, 89, 90, 4};

    (void)state;
    assert_non_null(exact);
    assert_non_null(moved);
    oracle_logits(o, ids, 10, 1, exact);
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        double squares = 0.0;

        oracle_approximate(o, cases[c].int8, cases[c].kv);
        oracle_logits(o, ids, 10, 1, moved);
        for (int i = 0; i < n_vocab; i++) {
            squares += (moved[i] - exact[i]) * (moved[i] - exact[i]);
        }
        assert_true(sqrt(squares / n_vocab) >= cases[c].least);
        assert_true(sqrt(squares / n_vocab) <= cases[c].most);
    }
    free(moved);
    free(exact);
    oracle_close(o);
}

static void the_best_is_the_lowest_id_among_equals(void **state)
{
    const double row[] = {-1.0, 2.5, 0.0, 2.5, 2.0};
    const double falling[] = {3.0, 1.0, 2.0};
    double margin;

    (void)state;
    assert_int_equal(oracle_best(row, 5, &margin), 1);
    assert_true(margin == 0.0);
    assert_int_equal(oracle_best(falling, 3, &margin), 0);
    assert_true(margin == 1.0);
    assert_true(fabs(oracle_log_mass((const double[]){1000.0, 1000.0}, 2) - 1000.0 - log(2.0)) <
                1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_oracle_agrees_with_an_independent_implementation, drop_model),
        cmocka_unit_test_teardown(feeding_in_pieces_changes_no_bit, drop_model),
        cmocka_unit_test_teardown(approximations_move_the_logits_a_little, drop_model),
        cmocka_unit_test(the_best_is_the_lowest_id_among_equals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
