#include "engine/adjust.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/ops.h"
#include "tests/support/dice.h"
#include "tests/support/sampler_rows.h"
#include "tests/support/torture.h"

enum {
    VOCAB = 40,
    MOST_TOKENS = 120
};

static const tsr_adjust_settings off = {.repetition = 1.0F};

/* What the settings make of a row, token by token and by definition. */
static void change_plainly(const tsr_adjust_settings *s, const int32_t *tokens, int n_prompt, int n,
                           float *logits)
{
    for (int id = 0; id < VOCAB; id++) {
        double add = 0.0;
        int n_seen = 0;
        int n_generated = 0;

        for (int i = 0; i < n; i++) {
            n_seen += tokens[i] == id ? 1 : 0;
            n_generated += tokens[i] == id && i >= n_prompt ? 1 : 0;
        }
        for (int i = 0; i < s->n_biases; i++) {
            add += s->bias_ids[i] == id ? (double)s->biases[i] : 0.0;
        }
        add -= n_generated > 0 ? (double)s->presence : 0.0;
        add -= n_generated * (double)s->frequency;
        for (int i = 0; i < s->n_banned; i++) {
            add = s->banned[i] == id && n - n_prompt < s->ban_until ? -(double)INFINITY : add;
        }
        if (n_seen > 0) {
            logits[id] = logits[id] > 0 ? logits[id] / s->repetition : logits[id] * s->repetition;
        }
        logits[id] += (float)add;
    }
}

static int change(tsr_adjust *a, float *logits)
{
    int32_t ids[MOST_TOKENS + VOCAB];
    float factors[MOST_TOKENS + VOCAB];
    float adds[MOST_TOKENS + VOCAB];
    const int n = tsr_adjust_list(a, ids, factors, adds);

    assert_true(n <= tsr_adjust_most(a));
    for (int i = 0; i < n; i++) {
        assert_true(i == 0 || ids[i] > ids[i - 1]);
        logits[ids[i]] = tsr_adjust_apply(logits[ids[i]], factors[i], adds[i]);
    }
    return n;
}

static void the_list_is_what_the_settings_say_however_tokens_come(void **state)
{
    const int32_t bias_ids[] = {7, 3, 39, 0};
    const float biases[] = {2.5F, -4.0F, 100.0F, 0.25F};
    const int32_t banned[] = {2, 7, 2};
    uint64_t dice = 5;

    (void)state;
    for (int turn = 0; turn < 500; turn++) {
        tsr_adjust_settings s = off;
        int32_t tokens[MOST_TOKENS];
        float want[VOCAB], got[VOCAB];
        const int n_prompt = 1 + dice_below(&dice, 60);
        int n = n_prompt;
        tsr_adjust *a = NULL;

        s.repetition = dice_below(&dice, 3) > 0 ? (float)(0.5 + 2.0 * dice_unit(&dice)) : 1.0F;
        s.presence = dice_below(&dice, 2) == 0 ? 0.0F : (float)(2.0 * dice_unit(&dice) - 1.0);
        s.frequency = dice_below(&dice, 2) == 0 ? 0.0F : (float)(2.0 * dice_unit(&dice) - 1.0);
        s.bias_ids = bias_ids;
        s.biases = biases;
        s.n_biases = dice_below(&dice, 5);
        s.banned = banned;
        s.n_banned = dice_below(&dice, 4);
        s.ban_until = dice_below(&dice, 8);
        for (int i = 0; i < MOST_TOKENS; i++) {
            tokens[i] = dice_below(&dice, VOCAB);
        }
        assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_OK);
        while (n < MOST_TOKENS) {
            for (int id = 0; id < VOCAB; id++) {
                want[id] = got[id] = (float)(8.0 * dice_unit(&dice) - 4.0);
            }
            assert_int_equal(tsr_adjust_count(a, tokens, n_prompt, n), TSR_OK);
            change_plainly(&s, tokens, n_prompt, n, want);
            (void)change(a, got);
            assert_memory_equal(want, got, sizeof(got));
            n += dice_below(&dice, 4) == 0 ? dice_below(&dice, 40) : 1;
        }
        tsr_adjust_destroy(a);
    }
}

static void settings_that_change_nothing_are_not_wanted(void **state)
{
    const int32_t id = 3;
    const float bias = 1.0F;
    tsr_adjust_settings s = off;
    tsr_adjust *a = NULL;
    float logits[VOCAB] = {0};

    (void)state;
    assert_false(tsr_adjust_is_wanted(&s));
    s.banned = &id;
    s.n_banned = 1;
    assert_false(tsr_adjust_is_wanted(&s));
    s.ban_until = 1;
    assert_true(tsr_adjust_is_wanted(&s));
    s = off;
    s.bias_ids = &id;
    s.biases = &bias;
    s.n_biases = 1;
    assert_true(tsr_adjust_is_wanted(&s));
    s = off;
    s.presence = 0.5F;
    assert_true(tsr_adjust_is_wanted(&s));
    // Of a prompt alone there is nothing to penalise by presence: no entry is sent.
    assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_OK);
    assert_int_equal(tsr_adjust_count(a, &id, 1, 1), TSR_OK);
    assert_int_equal(change(a, logits), 0);
    tsr_adjust_destroy(a);
}

static void values_out_of_range_are_refused_in_words(void **state)
{
    const int32_t ids[] = {3, 40};
    const int32_t twice[] = {3, 3};
    const int32_t negative = -1;
    const float fine[] = {1.0F, 1.0F};
    const float bad[] = {NAN, INFINITY, -INFINITY, 1001.0F, -1001.0F};
    tsr_adjust_settings s = off;
    tsr_adjust *a = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        s = off;
        s.repetition = bad[i];
        assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
        s = off;
        s.presence = bad[i];
        assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
        s = off;
        s.frequency = bad[i];
        assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
        s = off;
        s.bias_ids = ids;
        s.biases = &bad[i];
        s.n_biases = 1;
        assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
        assert_non_null(strstr(tsr_status_message(), "bias of token 3"));
    }
    s = off;
    s.repetition = 0.0F;
    assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
    s.repetition = -1.0F;
    assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
    assert_non_null(strstr(tsr_status_message(), "repetition penalty is -1"));
    s = (tsr_adjust_settings){.repetition = 1, .bias_ids = ids, .biases = fine, .n_biases = 2};
    assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
    assert_non_null(strstr(tsr_status_message(), "token 40"));
    s.bias_ids = twice;
    assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
    s.bias_ids = &negative;
    s.n_biases = 1;
    assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
    s.n_biases = -1;
    assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
    s = (tsr_adjust_settings){.repetition = 1, .banned = &negative, .n_banned = 1, .ban_until = 1};
    assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_ERR_ARG);
    assert_null(a);
}

/* The changed row's samples against the distribution of the row changed by definition. */
static void samples_have_the_shares_of_the_changed_row(void **state)
{
    enum {
        N = 8,
        N_SAMPLES = 20000
    };
    const int32_t tokens[] = {0, 1, 2, 2, 2, 5}; // the first two are the prompt
    const int32_t bias_ids[] = {3, 4};
    const float biases[] = {1.5F, -0.75F};
    const int32_t banned[] = {6};
    const tsr_adjust_settings s = {.repetition = 1.3F,
                                   .presence = 0.4F,
                                   .frequency = 0.3F,
                                   .bias_ids = bias_ids,
                                   .biases = biases,
                                   .n_biases = 2,
                                   .banned = banned,
                                   .n_banned = 1,
                                   .ban_until = 5};
    const tsr_sampling sampling = {.temperature = 0.9F, .top_p = 1.0F, .seed = 77};
    float want[VOCAB] = {1.0F, -0.5F, 1.5F, -1.0F, 0.8F, 0.3F, 2.0F, 0.0F};
    float got[VOCAB];
    double p[N];
    int seen[N] = {0};
    double chi = 0.0;
    tsr_adjust *a = NULL;
    row r;

    (void)state;
    memcpy(got, want, sizeof(got));
    assert_int_equal(tsr_adjust_create(&a, &s, VOCAB), TSR_OK);
    assert_int_equal(tsr_adjust_count(a, tokens, 2, 6), TSR_OK);
    (void)change(a, got);
    tsr_adjust_destroy(a);
    change_plainly(&s, tokens, 2, 6, want);
    exact_probabilities(p, want, N, &sampling);
    make_row(&r, got, N, &sampling);
    for (int i = 0; i < N_SAMPLES; i++) {
        seen[pick_whole(&sampling, &r, i)]++;
    }
    assert_int_equal(seen[6], 0); // banned, though it was the best
    for (int i = 0; i < N; i++) {
        const double expected = p[i] * N_SAMPLES;

        if (i != 6) {
            assert_true(expected >= 5.0);
            chi += (seen[i] - expected) * (seen[i] - expected) / expected;
        }
    }
    assert_true(chi < 22.46); // six degrees of freedom: one in a thousand
}

static void the_op_does_the_same_bits_and_says_what_was(void **state)
{
    enum {
        ROWS = 3,
        FIRST = 100
    };
    tsr_device *dev = NULL;
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    float logits[ROWS * (VOCAB + 5)]; // rows lie further apart than they are long
    float kept[ROWS * (VOCAB + 5)];
    float factors[ROWS * VOCAB], adds[ROWS * VOCAB], before[ROWS * VOCAB];
    int32_t rows[ROWS * VOCAB], ids[ROWS * VOCAB];
    tsr_tensor x = {logits, TSR_DTYPE_F32, TSR_DEVICE_CPU, ROWS, VOCAB, VOCAB + 5};
    uint64_t dice = 9;
    int n = 0;

    (void)state;
    assert_int_equal(tsr_device_open(&dev, &options), TSR_OK);
    for (int i = 0; i < ROWS * (VOCAB + 5); i++) {
        kept[i] = logits[i] = (float)(20.0 * dice_unit(&dice) - 10.0);
    }
    kept[3] = logits[3] = NAN;
    kept[4] = logits[4] = -INFINITY;
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < VOCAB; c++) {
            if (c < 6 || dice_below(&dice, 2) == 0) {
                rows[n] = r;
                ids[n] = FIRST + c;
                factors[n] = (float)(0.2 + 3.0 * dice_unit(&dice));
                adds[n++] = c == 5 ? -INFINITY : (float)(4.0 * dice_unit(&dice) - 2.0);
            }
        }
    }
    assert_int_equal(
        tsr_adjust_logits(dev, x, tsr_tensor_of(before, TSR_DTYPE_F32, TSR_DEVICE_CPU, 1, n),
                          tsr_tensor_of(rows, TSR_DTYPE_I32, TSR_DEVICE_CPU, 1, n),
                          tsr_tensor_of(ids, TSR_DTYPE_I32, TSR_DEVICE_CPU, 1, n),
                          tsr_tensor_of(factors, TSR_DTYPE_F32, TSR_DEVICE_CPU, 1, n),
                          tsr_tensor_of(adds, TSR_DTYPE_F32, TSR_DEVICE_CPU, 1, n), FIRST),
        TSR_OK);
    for (int i = 0; i < n; i++) {
        float *at = &kept[rows[i] * (VOCAB + 5) + ids[i] - FIRST];

        assert_memory_equal(&before[i], at, sizeof(float));
        *at = tsr_adjust_apply(*at, factors[i], adds[i]);
    }
    assert_memory_equal(logits, kept, sizeof(kept)); // what has no entry is as it was
    tsr_device_close(dev);
}

static tsr_status use_once(void *ctx)
{
    const int32_t tokens[30] = {1, 2, 3, 4, 5, 6, 7, 8};
    tsr_adjust_settings s = off;
    tsr_adjust *a = NULL;
    tsr_status st;

    (void)ctx;
    s.repetition = 1.5F;
    TSR_TRY(tsr_adjust_create(&a, &s, VOCAB));
    st = tsr_adjust_count(a, tokens, 8, 30);
    tsr_adjust_destroy(a);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_true(torture(use_once, NULL) >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_list_is_what_the_settings_say_however_tokens_come),
        cmocka_unit_test(settings_that_change_nothing_are_not_wanted),
        cmocka_unit_test(values_out_of_range_are_refused_in_words),
        cmocka_unit_test(samples_have_the_shares_of_the_changed_row),
        cmocka_unit_test(the_op_does_the_same_bits_and_says_what_was),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("adjust", tests, NULL, NULL);
}
