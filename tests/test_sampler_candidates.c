#include "engine/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/dice.h"
#include "tests/support/sampler_rows.h"

static const tsr_sampling plain = {.temperature = 1.0f, .top_p = 1.0f, .seed = 7};

static tsr_sampling any_sampling(uint64_t *dice)
{
    tsr_sampling s = {.temperature = (float)(0.05 + 2.0 * dice_unit(dice)), .top_p = 1.0f};

    if (dice_below(dice, 2) == 0) {
        s.top_k = 1 + dice_below(dice, MAX_VOCAB + 50);
    }
    if (dice_below(dice, 2) == 0) {
        s.top_p = (float)(0.02 + 0.98 * dice_unit(dice));
    }
    if (dice_below(dice, 2) == 0) {
        s.min_p = (float)(0.5 * dice_unit(dice));
    }
    s.seed = dice_roll(dice);
    return s;
}

/* Peaked or flat, now and then with equal and with impossible tokens. */
static void any_logits(float *logits, int n, uint64_t *dice)
{
    const double spread = 20.0 * dice_unit(dice);
    const int grain = dice_below(dice, 2);

    for (int i = 0; i < n; i++) {
        const double x = spread * (dice_unit(dice) + dice_unit(dice) * dice_unit(dice)) - 5.0;

        logits[i] = grain == 0 ? (float)x : (float)(rint(x * 2.0) / 2.0);
        if (dice_below(dice, 40) == 0) {
            logits[i] = -INFINITY;
        }
    }
    logits[dice_below(dice, n)] = 1.0f;
}

static void candidates_decide_what_the_whole_row_decides(void **state)
{
    static const int counts[] = {1, 2, 5, 20, 64, 299};
    long n_decided = 0;
    long n_undecided = 0;
    uint64_t dice = 11;

    (void)state;
    for (int turn = 0; turn < 4000; turn++) {
        const tsr_sampling sampling = any_sampling(&dice);
        float logits[MAX_VOCAB];
        row r;

        any_logits(logits, MAX_VOCAB, &dice);
        make_row(&r, logits, MAX_VOCAB, &sampling);
        for (int64_t position = 0; position < 4; position++) {
            const int32_t whole = pick_whole(&sampling, &r, position);

            assert_true(logits[whole] > -INFINITY);
            for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++) {
                const tsr_candidates some = first_of(&r, counts[k]);
                int32_t token = -1;

                if (tsr_sampler_pick(&sampling, position, &some, &token) == TSR_SAMPLER_DECIDED) {
                    assert_int_equal(token, whole);
                    n_decided++;
                } else {
                    assert_int_equal(token, -1);
                    n_undecided++;
                }
            }
        }
    }
    assert_true(n_decided > 40000);
    assert_true(n_undecided > 4000);
}

static int place_of(const row *r, int32_t token)
{
    int i = 0;

    while (r->ids[i] != token) {
        i++;
    }
    return i;
}

static void the_whole_row_is_asked_for_only_when_it_matters(void **state)
{
    uint64_t dice = 12;
    int n_undecided = 0;

    (void)state;
    for (int turn = 0; turn < 3000; turn++) {
        float logits[MAX_VOCAB];
        double p[MAX_VOCAB];
        tsr_sampling unfiltered = plain;
        tsr_sampling top_p = plain;
        tsr_candidates some;
        int32_t token;
        int n_kept = 0;
        row r;

        any_logits(logits, MAX_VOCAB, &dice);
        unfiltered.seed = top_p.seed = dice_roll(&dice);
        make_row(&r, logits, MAX_VOCAB, &unfiltered);
        some = first_of(&r, 64);

        // Nothing cut: undecided if and only if the token is not among the candidates.
        token = pick_whole(&unfiltered, &r, turn);
        assert_int_equal(tsr_sampler_pick(&unfiltered, turn, &some, &token),
                         place_of(&r, token) < 64 ? TSR_SAMPLER_DECIDED : TSR_SAMPLER_UNDECIDED);

        // A top-p set within the candidates is always decided.
        top_p.top_p = (float)(0.05 + 0.9 * dice_unit(&dice));
        exact_probabilities(p, logits, MAX_VOCAB, &top_p);
        for (int i = 0; i < MAX_VOCAB; i++) {
            n_kept += p[i] > 0.0 ? 1 : 0;
        }
        if (n_kept < 64) {
            assert_int_equal(tsr_sampler_pick(&top_p, turn, &some, &token), TSR_SAMPLER_DECIDED);
        } else {
            n_undecided += tsr_sampler_pick(&top_p, turn, &some, &token) == TSR_SAMPLER_UNDECIDED;
        }
    }
    assert_true(n_undecided > 100);
}

static void settings_that_never_ask_are_always_decided(void **state)
{
    uint64_t dice = 13;
    int n_tried = 0;

    (void)state;
    for (int turn = 0; turn < 4000; turn++) {
        const tsr_sampling sampling = any_sampling(&dice);
        tsr_candidates some;
        float logits[MAX_VOCAB];
        int32_t token;
        row r;

        if (tsr_sampler_may_ask(&sampling)) {
            continue;
        }
        any_logits(logits, MAX_VOCAB, &dice);
        make_row(&r, logits, MAX_VOCAB, &sampling);
        some = first_of(&r, tsr_sampler_n_candidates(&sampling));
        assert_int_equal(tsr_sampler_pick(&sampling, turn, &some, &token), TSR_SAMPLER_DECIDED);
        n_tried++;
    }
    assert_true(n_tried > 1000);
}

static void typical_p_decides_from_candidates_when_other_filters_leave_no_more(void **state)
{
    const tsr_sampling alone = {.temperature = 1.1f, .top_p = 1.0f, .typical_p = 0.6f, .seed = 5};
    tsr_sampling cut = alone;
    float logits[MAX_VOCAB];
    uint64_t dice = 31;
    row r;

    (void)state;
    cut.top_k = 20;
    for (int i = 0; i < MAX_VOCAB; i++) {
        logits[i] = (float)(9.0 * dice_unit(&dice));
    }
    make_row(&r, logits, MAX_VOCAB, &alone);
    for (int64_t position = 0; position < 300; position++) {
        const tsr_candidates twenty = first_of(&r, 20);
        int32_t token = -1;

        assert_int_equal(tsr_sampler_pick(&alone, position, &twenty, &token),
                         TSR_SAMPLER_UNDECIDED);
        assert_int_equal(tsr_sampler_pick(&cut, position, &twenty, &token), TSR_SAMPLER_DECIDED);
        assert_int_equal(token, pick_whole(&cut, &r, position));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(candidates_decide_what_the_whole_row_decides),
        cmocka_unit_test(the_whole_row_is_asked_for_only_when_it_matters),
        cmocka_unit_test(settings_that_never_ask_are_always_decided),
        cmocka_unit_test(typical_p_decides_from_candidates_when_other_filters_leave_no_more),
    };

    return cmocka_run_group_tests_name("sampler_candidates", tests, NULL, NULL);
}
