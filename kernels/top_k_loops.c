#include "kernels/top_k_loops.h"

#include "kernels/simd.h"

/* ---- masses ---------------------------------------------------------------------------------- */

/* The last n columns of a unit, with -infinity behind them. */
static v16 load_last(const float *x, int n)
{
    float lanes[TSR_LANES];

    for (int i = 0; i < TSR_LANES; i++) {
        lanes[i] = i < n ? x[i] : -INFINITY;
    }
    return v16_load(lanes);
}

static void mass(float *out, const float *x, int64_t n, float sharpness)
{
    const int64_t whole = n / TSR_LANES * TSR_LANES;
    const v16 sharp = v16_set1(sharpness);
    v16 largest = v16_set1(-INFINITY);
    v16 sum = v16_set1(0.0F);
    v16 m;

    // Of a NaN and a number v16_max gives its second operand.
    for (int64_t c = 0; c < whole; c += TSR_LANES) {
        largest = v16_max(v16_load(x + c), largest);
    }
    if (whole < n) {
        largest = v16_max(load_last(x + whole, (int)(n - whole)), largest);
    }
    out[0] = v16_largest(largest);
    out[1] = 0.0F;
    if (out[0] == -INFINITY) {
        return;
    }
    m = v16_set1(out[0]);
    for (int64_t c = 0; c < whole; c += TSR_LANES) {
        sum = v16_add(sum, v16_exp(v16_mul(v16_sub(v16_load(x + c), m), sharp)));
    }
    if (whole < n) {
        const v16 last = load_last(x + whole, (int)(n - whole));

        sum = v16_add(sum, v16_exp(v16_mul(v16_sub(last, m), sharp)));
    }
    out[1] = v16_sum(sum);
}

/* ---- candidates ------------------------------------------------------------------------------ */

static uint64_t key_of(float logit, int64_t column)
{
    const float plain = logit != logit ? -INFINITY : logit + 0.0F; // -0 becomes 0: they are equal
    uint32_t bits;

    memcpy(&bits, &plain, sizeof(bits));
    bits ^= bits >> 31 != 0 ? 0xFFFFFFFFU : 0x80000000U;
    return (uint64_t)bits << 32 | (0xFFFFFFFFU - (uint32_t)column);
}

static float logit_of(uint64_t key)
{
    uint32_t bits = (uint32_t)(key >> 32);
    float logit;

    bits ^= bits >> 31 != 0 ? 0x80000000U : 0xFFFFFFFFU;
    memcpy(&logit, &bits, sizeof(logit));
    return logit;
}

static void swap(uint64_t *a, uint64_t *b)
{
    const uint64_t kept = *a;

    *a = *b;
    *b = kept;
}

static uint64_t middle_of(uint64_t a, uint64_t b, uint64_t c)
{
    const uint64_t low = a < b ? a : b;
    const uint64_t high = a < b ? b : a;

    return c < low ? low : c > high ? high : c;
}

/* Bring the k largest of n to the front. All keys differ. */
static void select_best(uint64_t *keys, int n, int k)
{
    int first = 0;
    int last = n - 1;

    while (first < last) {
        const uint64_t pivot = middle_of(keys[first], keys[first + (last - first) / 2], keys[last]);
        int i = first;
        int j = last;

        while (i <= j) {
            while (keys[i] > pivot) {
                i++;
            }
            while (keys[j] < pivot) {
                j--;
            }
            if (i <= j) {
                swap(&keys[i++], &keys[j--]);
            }
        }
        if (k - 1 <= j) {
            last = j;
        } else if (k - 1 >= i) {
            first = i;
        } else {
            return;
        }
    }
}

/* Throw out all but the k best. */
static void prune(tsr_top_k_best *best)
{
    uint64_t least;

    if (best->n < best->k) {
        return;
    }
    select_best(best->keys, best->n, best->k);
    best->n = best->k;
    least = best->keys[0];
    for (int i = 1; i < best->n; i++) {
        least = best->keys[i] < least ? best->keys[i] : least;
    }
    best->least = logit_of(least);
    best->full = true;
}

static void add(tsr_top_k_best *best, uint64_t key)
{
    if (best->n == best->n_room) {
        prune(best);
    }
    best->keys[best->n++] = key;
}

static void scan(tsr_top_k_best *best, const float *x, int64_t column, int64_t n)
{
    int64_t c = 0;
    v16 least;

    for (; c < n && !best->full; c++) {
        add(best, key_of(x[c], column + c));
        if (best->n == best->n_room) {
            prune(best);
        }
    }
    // Columns ascend, so an equal logit comes too late: only what is above the least counts.
    least = v16_set1(best->least);
    for (; c + TSR_LANES <= n; c += TSR_LANES) {
        uint32_t above = v16_above(v16_load(x + c), least);

        if (above == 0) {
            continue;
        }
        if (best->n + TSR_LANES > best->n_room) {
            prune(best);
            least = v16_set1(best->least);
        }
        for (; above != 0; above &= above - 1) {
            const int64_t i = c + __builtin_ctz(above);

            best->keys[best->n++] = key_of(x[i], column + i);
        }
    }
    for (; c < n; c++) {
        if (x[c] > best->least) {
            add(best, key_of(x[c], column + c));
        }
    }
}

static void join(tsr_top_k_best *best, const tsr_top_k_best *other)
{
    for (int i = 0; i < other->n; i++) {
        add(best, other->keys[i]);
    }
}

static void sift(uint64_t *keys, int at, int n)
{
    // The least is at the root: taking it away to the end leaves falling order.
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && keys[child + 1] < keys[child]) {
            child++;
        }
        if (keys[at] <= keys[child]) {
            return;
        }
        swap(&keys[at], &keys[child]);
    }
}

static void sort(tsr_top_k_best *best)
{
    prune(best);
    for (int i = best->n / 2 - 1; i >= 0; i--) {
        sift(best->keys, i, best->n);
    }
    for (int n = best->n - 1; n > 0; n--) {
        swap(&best->keys[0], &best->keys[n]);
        sift(best->keys, 0, n);
    }
}

const tsr_top_k_loops TSR_ISA_NAME(tsr_top_k_loops) = {
    .mass = mass,
    .scan = scan,
    .join = join,
    .sort = sort,
};
