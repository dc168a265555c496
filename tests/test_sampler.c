#include "engine/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/dice.h"

enum {
    MAX_VOCAB = 300,
    UNIT = 32 // columns that a rank sums in f32
};

/* A row as the ranks would give it, the whole of it sorted. */
typedef struct row {
    int n;
    int32_t ids[MAX_VOCAB];
    float logits[MAX_VOCAB];
    double log_mass;
} row;

static const float *sort_logits;

static int by_falling_logit(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a;
    const int32_t k = *(const int32_t *)b;

    if (sort_logits[i] != sort_logits[k]) {
        return sort_logits[i] > sort_logits[k] ? -1 : 1;
    }
    return i < k ? -1 : 1;
}

static void make_row(row *r, const float *logits, int n, const tsr_sampling *sampling)
{
    const float sharpness = tsr_sampler_sharpness(sampling);
    float parts[2 * (MAX_VOCAB / UNIT + 1)];
    int n_units = 0;

    r->n = n;
    for (int i = 0; i < n; i++) {
        r->ids[i] = i;
    }
    sort_logits = logits;
    qsort(r->ids, (size_t)n, sizeof(r->ids[0]), by_falling_logit);
    for (int i = 0; i < n; i++) {
        r->logits[i] = logits[r->ids[i]];
    }
    for (int first = 0; first < n; first += UNIT, n_units++) {
        const int end = first + UNIT < n ? first + UNIT : n;
        float best = -INFINITY;
        float sum = 0.0f;

        for (int i = first; i < end; i++) {
            best = fmaxf(best, logits[i]);
        }
        for (int i = first; i < end && best > -INFINITY; i++) {
            sum += expf((logits[i] - best) * sharpness);
        }
        parts[2 * n_units] = best;
        parts[2 * n_units + 1] = sum;
    }
    r->log_mass = tsr_sampler_log_mass(parts, n_units, (double)sharpness);
}

static tsr_candidates first_of(const row *r, int n)
{
    n = n < r->n ? n : r->n;
    return (tsr_candidates){r->ids, r->logits, n, n == r->n, r->log_mass};
}

static int32_t pick_whole(const tsr_sampling *sampling, const row *r, int64_t position)
{
    const tsr_candidates all = first_of(r, r->n);
    int32_t token = -1;

    assert_int_equal(tsr_sampler_pick(sampling, position, &all, &token), TSR_SAMPLER_DECIDED);
    return token;
}

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

/* The same filters by definition: on probabilities, over all tokens, one after the other. */
static void exact_probabilities(double *p, const float *logits, int n, const tsr_sampling *s)
{
    int32_t order[MAX_VOCAB];
    double total = 0.0;
    int keep = n;

    for (int i = 0; i < n; i++) {
        order[i] = i;
        p[i] = exp((double)logits[i] / (double)s->temperature);
    }
    sort_logits = logits;
    qsort(order, (size_t)n, sizeof(order[0]), by_falling_logit);
    if (s->top_k > 0 && s->top_k < keep) {
        keep = s->top_k;
    }
    for (int i = 0; i < keep; i++) {
        total += p[order[i]];
    }
    if (s->top_p < 1.0f) {
        double mass = 0.0;
        int n_in = 0;

        while (n_in < keep && mass < (double)s->top_p * total) {
            mass += p[order[n_in++]];
        }
        keep = n_in;
    }
    while (keep > 1 && p[order[keep - 1]] < (double)s->min_p * p[order[0]]) {
        keep--;
    }
    total = 0.0;
    for (int i = 0; i < keep; i++) {
        total += p[order[i]];
    }
    for (int i = 0; i < n; i++) {
        p[order[i]] = i < keep ? p[order[i]] / total : 0.0;
    }
}

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
        {{1.0f, 0, 1.0f, 0.0f, 1}, 8},    {{0.7f, 0, 1.0f, 0.0f, 2}, 8},
        {{2.5f, 0, 1.0f, 0.0f, 3}, 8},    {{1.0f, 3, 1.0f, 0.0f, 4}, 3},
        {{1.0f, 5, 1.0f, 0.0f, 5}, 5},    // of two with 0.10 the lower id is within
        {{1.0f, 0, 0.7f, 0.0f, 6}, 4},    // 0.30 + 0.20 + 0.15 < 0.7
        {{1.0f, 0, 0.29f, 0.0f, 7}, 1},   // the best alone
        {{1.0f, 0, 1.0f, 0.3f, 8}, 5},    // 0.09 and more
        {{1.0f, 0, 1.0f, 0.9f, 9}, 1},    //
        {{1.0f, 3, 0.7f, 0.0f, 10}, 2},   // of 0.65: 0.50 is 0.77
        {{1.0f, 6, 0.95f, 0.35f, 11}, 3}, // min-p cuts below 0.105
        {{1.5f, 5, 0.8f, 0.1f, 12}, 4},   {{1.0f, 2000, 1.0f, 0.0f, 13}, 8}, // more than there are
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
    tsr_sampling greedy = plain;
    row r;

    (void)state;
    top_k.top_k = 2;
    top_p.top_p = 0.4f; // 3 of 6: two have a third only
    greedy.temperature = 0.0f;
    assert_distribution(&top_k, equal, 6, 2);
    assert_distribution(&top_p, equal, 6, 3);
    make_row(&r, equal, 6, &greedy);
    assert_int_equal(pick_whole(&greedy, &r, 0), 0);
    make_row(&r, equal, 6, &top_k);
    for (int i = 0; i < 100; i++) {
        assert_in_range(pick_whole(&top_k, &r, i), 0, 1);
    }
}

/* ---- from candidates alone ---- */

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
        {{1e-7f, 0, 1.0f, 0.0f, 1}, true},  {{1e-30f, 0, 1.0f, 0.0f, 1}, true},
        {{1e-45f, 0, 1.0f, 0.0f, 1}, true}, {{1.0f, 0, 1e-30f, 0.0f, 1}, true},
        {{1.0f, 0, 1.0f, 1.0f, 1}, true},   {{1.0f, 1, 1.0f, 0.0f, 1}, true},
        {{0.0f, 0, 1.0f, 0.0f, 1}, true},   {{1e30f, 0, 1.0f, 0.0f, 1}, false},
        {{3e38f, 0, 1.0f, 0.0f, 1}, false},
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
        {-0.1f, 0, 1.0f, 0.0f, 0}, {NAN, 0, 1.0f, 0.0f, 0},  {INFINITY, 0, 1.0f, 0.0f, 0},
        {1.0f, -1, 1.0f, 0.0f, 0}, {1.0f, 0, 0.0f, 0.0f, 0}, {1.0f, 0, 1.1f, 0.0f, 0},
        {1.0f, 0, NAN, 0.0f, 0},   {1.0f, 0, 1.0f, 1.5f, 0}, {1.0f, 0, 1.0f, -0.5f, 0},
        {1.0f, 0, 1.0f, NAN, 0},
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
        cmocka_unit_test(candidates_decide_what_the_whole_row_decides),
        cmocka_unit_test(the_whole_row_is_asked_for_only_when_it_matters),
        cmocka_unit_test(settings_that_never_ask_are_always_decided),
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
