#include "engine/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/sampler_rows.h"

static const tsr_sampling plain = {.temperature = 1.0f, .top_p = 1.0f, .seed = 7};

/* ---- the generator ---- */

static void philox_gives_the_known_answers(void **state)
{
    /* kat_vectors of Random123, the library of the paper's authors: philox4x32, 10 rounds */
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint32_t out[4];

        tsr_sampler_philox(out, known[i].counter, known[i].key);
        assert_memory_equal(out, known[i].out, sizeof(out));
    }
}

static void a_uniform_number_is_53_bits_of_seed_position_and_stream(void **state)
{
    const uint64_t seed = 0x299f31d0a4093822u;
    const int64_t position = 0x05a308d3243f6a88;
    const uint32_t counter[4] = {0x243f6a88, 0x05a308d3, 9, 0};
    const uint32_t key[2] = {0xa4093822, 0x299f31d0};
    uint32_t out[4];

    (void)state;
    assert_true(tsr_sampler_uniform(0, 0, 0) ==
                (double)(0xe169c58d6627e8d5u >> 11) / 9007199254740992.0);
    tsr_sampler_philox(out, counter, key);
    assert_true(tsr_sampler_uniform(seed, position, 9) ==
                (double)(((uint64_t)out[1] << 32 | out[0]) >> 11) / 9007199254740992.0);
}

/* Upper 0.1 % of the chi-square distribution (Wilson and Hilferty, PNAS 1931). */
static double chi_square_limit(int n_free)
{
    const double k = 2.0 / (9.0 * n_free);

    return n_free * pow(1.0 - k + 3.0902 * sqrt(k), 3.0);
}

static void uniform_numbers_are_uniform(void **state)
{
    enum {
        N_BINS = 64,
        N = 64000
    };
    int bins[N_BINS] = {0};
    double chi = 0.0;

    (void)state;
    for (int i = 0; i < N; i++) {
        const double u = tsr_sampler_uniform((uint64_t)(i % 8), i / 8, 0);

        assert_true(u >= 0.0 && u < 1.0);
        bins[(int)(u * N_BINS)]++;
    }
    for (int b = 0; b < N_BINS; b++) {
        chi += pow(bins[b] - N / N_BINS, 2.0) / (N / N_BINS);
    }
    assert_true(chi < chi_square_limit(N_BINS - 1));
}

/* ---- distributions ---- */

static void assert_distribution(const tsr_sampling *sampling, const float *logits, int n,
                                int n_kept)
{
    enum {
        N_SAMPLES = 20000
    };
    int seen[MAX_VOCAB] = {0};
    double p[MAX_VOCAB];
    double chi = 0.0;
    int n_possible = 0;
    row r;

    make_row(&r, logits, n, sampling);
    exact_probabilities(p, logits, n, sampling);
    for (int i = 0; i < N_SAMPLES; i++) {
        seen[pick_whole(sampling, &r, i)]++;
    }
    for (int i = 0; i < n; i++) {
        if (p[i] == 0.0) {
            assert_int_equal(seen[i], 0);
        } else {
            assert_true(p[i] * N_SAMPLES >= 5.0); // else chi-square does not apply
            chi += pow(seen[i] - p[i] * N_SAMPLES, 2.0) / (p[i] * N_SAMPLES);
            n_possible++;
        }
    }
    assert_int_equal(n_possible, n_kept);
    assert_true(n_possible == 1 || chi < chi_square_limit(n_possible - 1));
}

/* p at temperature 1: 0.30 0.05 0.20 0.02 0.10 0.08 0.15 0.10 */
static const double shares[8] = {0.30, 0.05, 0.20, 0.02, 0.10, 0.08, 0.15, 0.10};

static void share_logits(float *logits)
{
    for (int i = 0; i < 8; i++) {
        logits[i] = (float)log(shares[i]) + 3.0f;
    }
}

static void each_filter_keeps_its_tokens_with_their_shares(void **state)
{
    float logits[8];
    const struct {
        tsr_sampling sampling;
        int n_kept;
    } cases[] = {
        {{1.0f, 0, 1.0f, 0.0f, 0.0f, 1}, 8},
        {{0.7f, 0, 1.0f, 0.0f, 0.0f, 2}, 8},
        {{2.5f, 0, 1.0f, 0.0f, 0.0f, 3}, 8},
        {{1.0f, 3, 1.0f, 0.0f, 0.0f, 4}, 3},
        {{1.0f, 5, 1.0f, 0.0f, 0.0f, 5}, 5},    // of two with 0.10 the lower id is within
        {{1.0f, 0, 0.7f, 0.0f, 0.0f, 6}, 4},    // 0.30 + 0.20 + 0.15 < 0.7
        {{1.0f, 0, 0.29f, 0.0f, 0.0f, 7}, 1},   // the best alone
        {{1.0f, 0, 1.0f, 0.3f, 0.0f, 8}, 5},    // 0.09 and more
        {{1.0f, 0, 1.0f, 0.9f, 0.0f, 9}, 1},    //
        {{1.0f, 3, 0.7f, 0.0f, 0.0f, 10}, 2},   // of 0.65: 0.50 is 0.77
        {{1.0f, 6, 0.95f, 0.35f, 0.0f, 11}, 3}, // min-p cuts below 0.105
        {{1.5f, 5, 0.8f, 0.1f, 0.0f, 12}, 4},
        {{1.0f, 2000, 1.0f, 0.0f, 0.0f, 13}, 8}, // more than there are
        // Entropy 1.85; surprises 1.20 1.61 1.90 2.30 2.30 2.53 3.00 3.91: 0.15 is nearest.
        {{1.0f, 0, 1.0f, 0.0f, 0.14f, 14}, 1},
        {{1.0f, 0, 1.0f, 0.0f, 0.3f, 15}, 2},  // and 0.20
        {{1.0f, 0, 1.0f, 0.0f, 0.4f, 16}, 3},  // and the first 0.10
        {{1.0f, 0, 1.0f, 0.0f, 0.5f, 17}, 4},  // and the second
        {{1.0f, 0, 1.0f, 0.0f, 0.6f, 18}, 5},  // and 0.30
        {{1.0f, 0, 1.0f, 0.0f, 0.95f, 19}, 7}, // all but 0.02
        {{0.8f, 5, 0.9f, 0.1f, 0.5f, 20}, 3},  // behind the other filters
    };

    (void)state;
    share_logits(logits);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_distribution(&cases[i].sampling, logits, 8, cases[i].n_kept);
    }
}

static void among_equals_the_lower_ids_stay(void **state)
{
    const float equal[6] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
    tsr_sampling top_k = plain;
    tsr_sampling top_p = plain;
    tsr_sampling both = plain;
    tsr_sampling greedy = plain;
    row r;

    (void)state;
    top_k.top_k = 2;
    top_p.top_p = 0.4f; // 3 of 6: two have a third only
    both.top_k = 4;
    both.top_p = 0.5f; // just reached by 2 of 4
    greedy.temperature = 0.0f;
    assert_distribution(&top_k, equal, 6, 2);
    assert_distribution(&both, equal, 6, 2);
    assert_distribution(&top_p, equal, 6, 3);
    make_row(&r, equal, 6, &greedy);
    assert_int_equal(pick_whole(&greedy, &r, 0), 0);
    make_row(&r, equal, 6, &top_k);
    for (int i = 0; i < 100; i++) {
        assert_in_range(pick_whole(&top_k, &r, i), 0, 1);
    }
}

static void candidates_wanted_follow_the_settings(void **state)
{
    tsr_sampling s = plain;

    (void)state;
    assert_int_equal(tsr_sampler_n_candidates(&s), 64);
    assert_true(tsr_sampler_may_ask(&s));
    s.top_k = 40;
    assert_int_equal(tsr_sampler_n_candidates(&s), 40);
    assert_false(tsr_sampler_may_ask(&s));
    s.top_k = 1024;
    assert_int_equal(tsr_sampler_n_candidates(&s), 1024);
    assert_false(tsr_sampler_may_ask(&s));
    s.top_k = 1025;
    assert_int_equal(tsr_sampler_n_candidates(&s), 64);
    assert_true(tsr_sampler_may_ask(&s));
    s.temperature = 0.0f;
    assert_int_equal(tsr_sampler_n_candidates(&s), 1);
    assert_false(tsr_sampler_may_ask(&s));
}

/* ---- edges ---- */

static void extreme_settings_mean_what_they_say(void **state)
{
    float logits[8];
    const struct {
        tsr_sampling sampling;
        bool best_only;
    } cases[] = {
        {{1e-7f, 0, 1.0f, 0.0f, 0.0f, 1}, true},  {{1e-30f, 0, 1.0f, 0.0f, 0.0f, 1}, true},
        {{1e-45f, 0, 1.0f, 0.0f, 0.0f, 1}, true}, {{1.0f, 0, 1e-30f, 0.0f, 0.0f, 1}, true},
        {{1.0f, 0, 1.0f, 1.0f, 0.0f, 1}, true},   {{1.0f, 1, 1.0f, 0.0f, 0.0f, 1}, true},
        {{0.0f, 0, 1.0f, 0.0f, 0.0f, 1}, true},   {{1e30f, 0, 1.0f, 0.0f, 0.0f, 1}, false},
        {{3e38f, 0, 1.0f, 0.0f, 0.0f, 1}, false},
    };

    (void)state;
    share_logits(logits);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int seen[8] = {0};
        row r;

        assert_int_equal(tsr_sampler_check(&cases[i].sampling), TSR_OK);
        make_row(&r, logits, 8, &cases[i].sampling);
        for (int k = 0; k < 8000; k++) {
            seen[pick_whole(&cases[i].sampling, &r, k)]++;
        }
        for (int t = 1; t < 8; t++) {
            assert_true(cases[i].best_only ? seen[t] == 0 : abs(seen[t] - 1000) < 150);
        }
    }
}

static void impossible_tokens_are_never_picked(void **state)
{
    const float logits[4] = {-INFINITY, 0.0f, -INFINITY, 0.5f};
    tsr_sampling many = plain;
    row r;

    (void)state;
    assert_true(tsr_sampler_log_mass(NULL, 0, 1.0) == -(double)INFINITY);
    many.top_k = 4;
    make_row(&r, logits, 4, &plain);
    for (int i = 0; i < 2000; i++) {
        assert_true(pick_whole(&plain, &r, i) % 2 == 1);
        assert_true(pick_whole(&many, &r, i) % 2 == 1);
    }
}

static void when_nothing_is_possible_the_lowest_id_is_taken(void **state)
{
    const float nothing[5] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    const float certain[5] = {0.0f, 1.0f, INFINITY, 2.0f, INFINITY};
    tsr_candidates some;
    int32_t token = -1;
    row r;

    (void)state;
    make_row(&r, nothing, 5, &plain);
    assert_int_equal(pick_whole(&plain, &r, 3), 0);
    some = first_of(&r, 2);
    assert_int_equal(tsr_sampler_pick(&plain, 3, &some, &token), TSR_SAMPLER_DECIDED);
    assert_int_equal(token, 0);
    make_row(&r, certain, 5, &plain);
    assert_int_equal(pick_whole(&plain, &r, 3), 2);
}

static void a_vocabulary_of_one_needs_no_choice(void **state)
{
    const float logits[1] = {-3.5f};
    row r;

    (void)state;
    make_row(&r, logits, 1, &plain);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(pick_whole(&plain, &r, i), 0);
    }
}

static void a_rounded_mass_never_leads_past_the_row(void **state)
{
    const float logits[3] = {0.0f, 0.0f, -INFINITY};
    row r;

    (void)state;
    make_row(&r, logits, 3, &plain);
    r.log_mass += 0.5; // far more than any rounding
    for (int i = 0; i < 1000; i++) {
        assert_in_range(pick_whole(&plain, &r, i), 0, 1);
    }
}

static void a_token_depends_on_its_own_seed_and_position_alone(void **state)
{
    enum {
        N = 200
    };
    int32_t forward[N];
    float logits[8];
    tsr_sampling other = plain;
    int n_differ = 0;
    row r;

    (void)state;
    share_logits(logits);
    make_row(&r, logits, 8, &plain);
    other.seed = plain.seed + 1;
    for (int i = 0; i < N; i++) {
        forward[i] = pick_whole(&plain, &r, i);
    }
    for (int i = N - 1; i >= 0; i--) {
        n_differ += pick_whole(&other, &r, i) != forward[i] ? 1 : 0;
        assert_int_equal(pick_whole(&plain, &r, i), forward[i]);
    }
    assert_true(n_differ > N / 2); // another seed is another text: 1 - sum of squares is 0.82
}

static void masses_of_units_add_up(void **state)
{
    const float parts[] = {2.0f, 3.0f, -INFINITY, 0.0f, 5.0f, 1.5f, -200.0f, 1.0f};
    const double sharpness = 0.5;

    (void)state;
    /* 3 e^1 + 1.5 e^2.5 + e^-100 */
    assert_true(fabs(tsr_sampler_log_mass(parts, 4, sharpness) -
                     log(3.0 * exp(1.0) + 1.5 * exp(2.5))) < 1e-14);
    assert_true(fabs(tsr_sampler_log_mass(parts, 4, 400.0) - (2000.0 + log(1.5))) < 1e-9);
}

static void settings_out_of_range_are_refused(void **state)
{
    const tsr_sampling bad[] = {
        {-0.1f, 0, 1.0f, 0.0f, 0.0f, 0},    {NAN, 0, 1.0f, 0.0f, 0.0f, 0},
        {INFINITY, 0, 1.0f, 0.0f, 0.0f, 0}, {1.0f, -1, 1.0f, 0.0f, 0.0f, 0},
        {1.0f, 0, 0.0f, 0.0f, 0.0f, 0},     {1.0f, 0, 1.1f, 0.0f, 0.0f, 0},
        {1.0f, 0, NAN, 0.0f, 0.0f, 0},      {1.0f, 0, 1.0f, 1.5f, 0.0f, 0},
        {1.0f, 0, 1.0f, 0.0f, NAN, 0},      {1.0f, 0, 1.0f, 0.0f, -0.1f, 0},
        {1.0f, 0, 1.0f, 0.0f, 1.1f, 0},     {1.0f, 0, 1.0f, -0.5f, 0.0f, 0},
        {1.0f, 0, 1.0f, NAN, 0.0f, 0},
    };

    (void)state;
    assert_int_equal(tsr_sampler_check(&plain), TSR_OK);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(tsr_sampler_check(&bad[i]), TSR_ERR_ARG);
        assert_true(strlen(tsr_status_message()) > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(a_uniform_number_is_53_bits_of_seed_position_and_stream),
        cmocka_unit_test(uniform_numbers_are_uniform),
        cmocka_unit_test(each_filter_keeps_its_tokens_with_their_shares),
        cmocka_unit_test(among_equals_the_lower_ids_stay),
        cmocka_unit_test(candidates_wanted_follow_the_settings),
        cmocka_unit_test(extreme_settings_mean_what_they_say),
        cmocka_unit_test(impossible_tokens_are_never_picked),
        cmocka_unit_test(when_nothing_is_possible_the_lowest_id_is_taken),
        cmocka_unit_test(a_vocabulary_of_one_needs_no_choice),
        cmocka_unit_test(a_rounded_mass_never_leads_past_the_row),
        cmocka_unit_test(a_token_depends_on_its_own_seed_and_position_alone),
        cmocka_unit_test(masses_of_units_add_up),
        cmocka_unit_test(settings_out_of_range_are_refused),
    };

    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
