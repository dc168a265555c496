#include "engine/sampler.h"

#include <assert.h>
#include <math.h>

enum {
    USUAL_CANDIDATES = 64, // decide nearly every row of a model that has something to say
    MOST_CANDIDATES = 1024,
    PHILOX_ROUNDS = 10
};

/* By how much a mass that is summed from all tokens may differ from the one that the ranks summed
 * in f32. Only widens what counts as possible. */
static const double MASS_SLACK = 1e-4;

/* Past this a temperature is greedy in all but name, and log_mass would lose its fraction. */
static const double MOST_SHARPNESS = 1e8;

tsr_status tsr_sampler_check(const tsr_sampling *sampling)
{
    if (!isfinite(sampling->temperature) || sampling->temperature < 0.0f) {
        return tsr_fail(TSR_ERR_ARG, "temperature is %g, it must be 0 or more",
                        (double)sampling->temperature);
    }
    if (sampling->top_k < 0) {
        return tsr_fail(TSR_ERR_ARG, "top_k is %d, it must be 0 (all) or more", sampling->top_k);
    }
    if (!(sampling->top_p > 0.0f && sampling->top_p <= 1.0f)) {
        return tsr_fail(TSR_ERR_ARG, "top_p is %g, it must be above 0 and at most 1",
                        (double)sampling->top_p);
    }
    if (!(sampling->min_p >= 0.0f && sampling->min_p <= 1.0f)) {
        return tsr_fail(TSR_ERR_ARG, "min_p is %g, it must be in [0, 1]", (double)sampling->min_p);
    }
    if (!(sampling->typical_p >= 0.0f && sampling->typical_p <= 1.0f)) {
        return tsr_fail(TSR_ERR_ARG, "typical_p is %g, it must be in [0, 1]",
                        (double)sampling->typical_p);
    }
    return TSR_OK;
}

static bool is_greedy(const tsr_sampling *sampling)
{
    return sampling->temperature == 0.0f || sampling->top_k == 1;
}

int tsr_sampler_n_candidates(const tsr_sampling *sampling)
{
    if (is_greedy(sampling)) {
        return 1;
    }
    return sampling->top_k > 0 && sampling->top_k <= MOST_CANDIDATES ? sampling->top_k
                                                                     : USUAL_CANDIDATES;
}

bool tsr_sampler_may_ask(const tsr_sampling *sampling)
{
    return !is_greedy(sampling) && (sampling->top_k == 0 || sampling->top_k > MOST_CANDIDATES);
}

float tsr_sampler_sharpness(const tsr_sampling *sampling)
{
    return sampling->temperature == 0.0f
               ? 1.0f
               : (float)fmin(1.0 / (double)sampling->temperature, MOST_SHARPNESS);
}

/* ---- picking ----
 *
 * Weights are exp((logit - best) * sharpness), so the best has 1. Candidates are a beginning of the
 * whole falling row; what lies past them is known by its sum only. So the set that the filters keep
 * and its mass are known as ranges, which close to a point when the candidates suffice. Every sum
 * is taken over the row from its front, one by one: with more candidates the same bits come out.
 */

typedef struct range {
    double low;
    double high;
} range;

typedef struct row {
    const tsr_candidates *candidates;
    double sharpness;
    int n_ready;
    double ready[USUAL_CANDIDATES]; // the first weights, each taken once
} row;

static double weight(row *r, int i)
{
    const tsr_candidates *c = r->candidates;
    double w;

    if (i < r->n_ready) {
        return r->ready[i];
    }
    w = exp(((double)c->logits[i] - (double)c->logits[0]) * r->sharpness);
    if (i == r->n_ready && i < USUAL_CANDIDATES) {
        r->ready[r->n_ready++] = w;
    }
    return w;
}

static double mass_of_first(row *r, int n)
{
    double mass = 0.0;

    for (int i = 0; i < n; i++) {
        mass += weight(r, i);
    }
    return mass;
}

/* The fewest tokens from the front, at most n, whose mass is >= need; n + 1 when n do not reach it.
 */
static int count_reaching(row *r, int n, double need)
{
    double mass = 0.0;

    for (int i = 0; i < n; i++) {
        mass += weight(r, i);
        if (mass >= need) {
            return i + 1;
        }
    }
    return n + 1;
}

/* The first of n tokens with which the mass exceeds `threshold`; n when none does. */
static int index_exceeding(row *r, int n, double threshold)
{
    double mass = 0.0;

    for (int i = 0; i < n; i++) {
        mass += weight(r, i);
        if (mass > threshold) {
            return i;
        }
    }
    return n;
}

/* How many tokens the filters keep, between low and high; n + 1 stands for "more than n". */
typedef struct kept {
    int low;
    int high;
    range mass; // of the kept
} kept;

static kept apply_filters(const tsr_sampling *sampling, row *r, double total)
{
    const tsr_candidates *c = r->candidates;
    const int n = c->n;
    const bool has_top_k = sampling->top_k > 0;
    const int limit = has_top_k && sampling->top_k < n ? sampling->top_k : n;
    const bool open = !c->all && !(has_top_k && sampling->top_k <= n);
    const double last = weight(r, n - 1); // nothing past the candidates weighs more
    kept keep = {.low = open ? n + 1 : limit, .high = open ? n + 1 : limit};
    range mass = {total, total};
    double most;

    if (has_top_k) {
        mass.low = mass_of_first(r, limit);
        mass.high =
            open ? fmin(fmax(total, mass.low), mass.low + (sampling->top_k - n) * last) : mass.low;
        mass.high *= open ? 1.0 + MASS_SLACK : 1.0;
    }
    most = mass.high * (1.0 + MASS_SLACK);
    if (sampling->top_p < 1.0f) {
        const double p = (double)sampling->top_p;
        const int low = count_reaching(r, limit, p * mass.low);
        const int high = count_reaching(r, limit, p * mass.high);

        keep.low = low < keep.low ? low : keep.low;
        keep.high = high < keep.high ? high : keep.high;
        // Without its last token the set has less than p of the mass.
        most = fmin(most, (p * mass.high + last) * (1.0 + MASS_SLACK));
    }
    if (sampling->min_p > 0.0f) {
        int m = 0;

        while (m < limit && weight(r, m) >= (double)sampling->min_p) {
            m++;
        }
        if (m < limit) {
            keep.low = m < keep.low ? m : keep.low;
            keep.high = m < keep.high ? m : keep.high;
        }
    }
    if (!has_top_k && sampling->top_p >= 1.0f && sampling->min_p <= 0.0f) {
        keep.mass = mass; // nothing is cut: the sum of all, whoever summed it
    } else {
        keep.mass.low = mass_of_first(r, keep.low <= n ? keep.low : n);
        keep.mass.high = keep.high <= n ? mass_of_first(r, keep.high) : fmax(most, keep.mass.low);
    }
    return keep;
}

/* The first of tokens [begin, end) with which their mass exceeds the uniform number's part of it.
 */
static int index_among(row *r, int begin, int end, double uniform)
{
    double mass = 0.0;
    double reached = 0.0;
    int i;

    for (i = begin; i < end; i++) {
        mass += weight(r, i);
    }
    for (i = begin; i < end - 1; i++) {
        reached += weight(r, i);
        if (reached > uniform * mass) {
            break;
        }
    }
    return i;
}

/*
 * Of the first n tokens those whose surprise is nearest to the entropy, until they have typical_p
 * of the mass: surprise rises along the row, so they are a run [*begin, *end). Of two equally near
 * the likelier is first.
 */
static void typical_run(row *r, int n, double typical_p, int *begin, int *end)
{
    const double mass = mass_of_first(r, n);
    double entropy = 0.0;
    double reached = 0.0;
    int left, right;

    for (int i = 0; i < n && weight(r, i) > 0.0; i++) {
        entropy -= weight(r, i) / mass * log(weight(r, i) / mass);
    }
    for (right = 0; right < n && -log(weight(r, right) / mass) < entropy; right++) {
    }
    left = right; // what is kept is [left, right)
    while (reached < typical_p * mass && right - left < n) {
        const double above = left > 0 ? entropy + log(weight(r, left - 1) / mass) : INFINITY;
        const double below = right < n ? -log(weight(r, right) / mass) - entropy : INFINITY;

        if (left > 0 && above <= below) {
            reached += weight(r, --left);
        } else {
            reached += weight(r, right++);
        }
    }
    *begin = left;
    *end = right;
}

tsr_sampler_verdict tsr_sampler_pick(const tsr_sampling *sampling, int64_t position,
                                     const tsr_candidates *candidates, int32_t *token)
{
    row r = {.candidates = candidates, .sharpness = (double)tsr_sampler_sharpness(sampling)};
    const int n = candidates->n;
    double total, uniform;
    kept keep;
    int first, last;

    assert(n >= 1);
    // An infinite best has no distribution: certain, or nothing is possible and ids decide.
    if (is_greedy(sampling) || !isfinite(candidates->logits[0])) {
        *token = candidates->ids[0];
        return TSR_SAMPLER_DECIDED;
    }
    total = exp(candidates->log_mass - (double)candidates->logits[0] * r.sharpness);
    uniform = tsr_sampler_uniform(sampling->seed, position, 0);
    keep = apply_filters(sampling, &r, total);

    if (sampling->typical_p > 0.0f && sampling->typical_p < 1.0f) {
        if (keep.low != keep.high || keep.high > n) {
            return TSR_SAMPLER_UNDECIDED; // the entropy is of all that is kept
        }
        typical_run(&r, keep.high, (double)sampling->typical_p, &first, &last);
        *token = candidates->ids[index_among(&r, first, last, uniform)];
        return TSR_SAMPLER_DECIDED;
    }
    first = index_exceeding(&r, keep.low < n ? keep.low : n, uniform * keep.mass.low);
    last = index_exceeding(&r, keep.high < n ? keep.high : n, uniform * keep.mass.high);
    if (keep.high > n && last >= n) {
        return TSR_SAMPLER_UNDECIDED;
    }
    if (keep.low == keep.high && last >= keep.high) {
        // The ranks' sum may exceed this one by a rounding: then it is the last one possible.
        for (last = keep.high - 1; last > 0 && weight(&r, last) <= 0.0; last--) {
        }
        first = last;
    }
    if (first != last) {
        return TSR_SAMPLER_UNDECIDED;
    }
    *token = candidates->ids[first];
    return TSR_SAMPLER_DECIDED;
}

/* ---- numbers ---- */

/* Constants and rounds: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
 * SC'11. */
void tsr_sampler_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        const uint64_t left = (uint64_t)c0 * 0xD2511F53u;
        const uint64_t right = (uint64_t)c2 * 0xCD9E8D57u;

        c0 = (uint32_t)(right >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)right;
        c2 = (uint32_t)(left >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)left;
        k0 += 0x9E3779B9u; // the golden ratio
        k1 += 0xBB67AE85u; // the square root of 3, less 1
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

double tsr_sampler_uniform(uint64_t seed, int64_t position, uint32_t stream)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {(uint32_t)position, (uint32_t)((uint64_t)position >> 32), stream,
                                 0};
    uint32_t out[4];

    tsr_sampler_philox(out, counter, key);
    return (double)(((uint64_t)out[1] << 32 | out[0]) >> 11) * 0x1p-53;
}

uint64_t tsr_sampler_seed_of(uint64_t seed, int i)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {(uint32_t)i, 0, 0, 1}; // no position's: those end with 0
    uint32_t out[4];

    if (i == 0) {
        return seed;
    }
    tsr_sampler_philox(out, counter, key);
    return (uint64_t)out[1] << 32 | out[0];
}

double tsr_sampler_log_mass(const float *parts, int64_t n_units, double sharpness)
{
    double best = -(double)INFINITY;
    double mass = 0.0;

    for (int64_t i = 0; i < n_units; i++) {
        best = fmax(best, (double)parts[2 * i]);
    }
    if (!isfinite(best)) {
        return best;
    }
    for (int64_t i = 0; i < n_units; i++) {
        mass += (double)parts[2 * i + 1] * exp(((double)parts[2 * i] - best) * sharpness);
    }
    return best * sharpness + log(mass);
}
