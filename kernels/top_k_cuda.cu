/*
 * The best of a row in two steps. First the units' masses are taken, with the whole GPU at
 * work. Then a block a row finds the k-th best by counting digits: the k-th largest of the units'
 * largest logits bounds it from below, so that only about k units are looked at again.
 */
#include "kernels/cuda.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / TSR_WARP,
    UNITS = THREADS / TSR_SUM_LANES,
    MAX_K = 1024, // as kernels/ops.c has it
    DIGIT_BITS = 8,
    N_DIGITS = 1 << DIGIT_BITS
};

/* ---- masses
 * -------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float plain(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

/* Sixteen lanes a unit, as the CPU sums it. */
static __global__ void unit_masses(tsr_rows<float> masses, tsr_rows<const float> logits,
                                   const float *sharpness, int64_t n_cols, int64_t unit_cols,
                                   int64_t n_units)
{
    const int64_t row = blockIdx.x;
    const int64_t unit = (int64_t)blockIdx.y * UNITS + threadIdx.x / TSR_SUM_LANES;
    const int64_t first = unit * unit_cols;
    const int64_t behind = first + unit_cols < n_cols ? first + unit_cols : n_cols;
    const int64_t end = unit < n_units ? behind : 0;
    const int lane = threadIdx.x % TSR_SUM_LANES;
    float largest = -INFINITY;
    float sum = 0.0F;

    for (int64_t c = first + lane; c < end; c += TSR_SUM_LANES) {
        largest = fmaxf(largest, plain(logits[row][c]));
    }
    for (int step = TSR_SUM_LANES / 2; step > 0; step /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(TSR_WHOLE_WARP, largest, step));
    }
    for (int64_t c = first + lane; c < end && largest > -INFINITY; c += TSR_SUM_LANES) {
        sum += tsr_exp((plain(logits[row][c]) - largest) * sharpness[row]);
    }
    sum = tsr_sum_of_lanes(sum);
    if (lane == 0 && unit < n_units) {
        masses[row][2 * unit] = largest;
        masses[row][2 * unit + 1] = sum;
    }
}

/* ---- candidates
 * ---------------------------------------------------------------------------------- */

/* Numbers in the order of logits. -0 becomes 0: they are equal. */
static __device__ __forceinline__ uint32_t order_of(float logit)
{
    const uint32_t bits = __float_as_uint(plain(logit) + 0.0F);

    return bits ^ (bits >> 31 != 0 ? 0xFFFFFFFFU : 0x80000000U);
}

/* By falling logit, then by rising column. */
static __device__ __forceinline__ uint64_t key_of(float logit, int64_t column)
{
    return (uint64_t)order_of(logit) << 32 | (0xFFFFFFFFU - (uint32_t)column);
}

struct search {
    uint32_t counts[N_DIGITS];
    uint64_t prefix; /* the digits found so far */
    uint32_t wanted; /* how many of those with this prefix are to be taken */
    bool is_done;    /* all of them */
};

/* After counting: the digit in which the wanted one lies. */
static __device__ void choose_digit(search *s, int shift)
{
    if (threadIdx.x == 0) {
        uint32_t wanted = s->wanted;
        int digit = N_DIGITS - 1;

        while (s->counts[digit] < wanted) {
            wanted -= s->counts[digit--];
        }
        s->prefix |= (uint64_t)digit << shift;
        s->is_done = s->counts[digit] == wanted;
        s->wanted = wanted;
    }
}

static __device__ __forceinline__ void count(search *s, uint64_t key, int shift)
{
    // The digits above are those found; in the first round there are none.
    if (shift + DIGIT_BITS == 64 ||
        key >> (shift + DIGIT_BITS) == s->prefix >> (shift + DIGIT_BITS)) {
        atomicAdd(&s->counts[key >> shift & (N_DIGITS - 1)], 1U);
    }
}

static __device__ void begin_round(search *s)
{
    for (int i = threadIdx.x; i < N_DIGITS; i += THREADS) {
        s->counts[i] = 0;
    }
    __syncthreads();
}

/* Of `best` [n], a power of two: rising order (Batcher's bitonic sort). */
static __device__ void sort(uint64_t *best, int n)
{
    for (int width = 2; width <= n; width *= 2) {
#pragma unroll 1
        for (int step = width / 2; step > 0; step /= 2) {
            for (int pair = threadIdx.x; pair < n / 2; pair += THREADS) {
                const int i = pair / step * 2 * step + pair % step;
                const uint64_t a = best[i];
                const uint64_t b = best[i + step];
                const bool is_right = (a < b) == ((i & width) == 0);

                best[i] = is_right ? a : b;
                best[i + step] = is_right ? b : a;
            }
            __syncthreads();
        }
    }
}

struct row_of_units {
    const float *logits, *masses;
    int64_t n_cols, unit_cols, n_units;
};

/* Calls fn(key) for all columns of units whose largest reaches `least`. */
template <typename FN>
static __device__ __forceinline__ void each_key(const row_of_units &row, uint32_t least, FN fn)
{
    for (int64_t u = threadIdx.x / TSR_WARP; u < row.n_units; u += WARPS) {
        const bool is_wanted = order_of(row.masses[2 * u]) >= least;
        const int64_t behind = (u + 1) * row.unit_cols;
        const int64_t end = !is_wanted ? 0 : behind < row.n_cols ? behind : row.n_cols;

        for (int64_t c = u * row.unit_cols + threadIdx.x % TSR_WARP; c < end; c += TSR_WARP) {
            fn(key_of(row.logits[c], c));
        }
    }
}

/* The k-th largest of the units' largest logits, or the least there can be. */
static __device__ uint32_t bound_of(search *s, const row_of_units &row, int k)
{
    if (row.n_units <= k) {
        return 0;
    }
    if (threadIdx.x == 0) {
        s->prefix = 0;
        s->wanted = (uint32_t)k;
        s->is_done = false;
    }
#pragma unroll 1
    for (int shift = 64 - DIGIT_BITS; shift >= 32; shift -= DIGIT_BITS) {
        begin_round(s);
        for (int64_t u = threadIdx.x; u < row.n_units; u += THREADS) {
            count(s, (uint64_t)order_of(row.masses[2 * u]) << 32, shift);
        }
        __syncthreads();
        choose_digit(s, shift);
        __syncthreads();
    }
    return (uint32_t)(s->prefix >> 32);
}

/* The least key that is taken, when `wanted` of them are, and there are more. */
static __device__ uint64_t least_key(search *s, const row_of_units &row, uint32_t bound, int wanted)
{
    __syncthreads(); // the last search's results have been read
    if (threadIdx.x == 0) {
        s->prefix = 0;
        s->wanted = (uint32_t)wanted;
        s->is_done = false;
    }
#pragma unroll 1
    for (int shift = 64 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        begin_round(s);
        if (s->is_done) {
            break; // the same for all: it was written before the barrier
        }
        each_key(row, bound, [&](uint64_t key) { count(s, key, shift); });
        __syncthreads();
        choose_digit(s, shift);
        __syncthreads();
    }
    return s->prefix;
}

static __global__ void __launch_bounds__(THREADS)
    best_of_rows(tsr_rows<int32_t> ids, tsr_rows<float> values, tsr_rows<const float> masses,
                 tsr_rows<const float> logits, int k, int64_t n_cols, int64_t unit_cols,
                 int64_t n_units, int64_t first_id)
{
    __shared__ search s;
    __shared__ uint64_t best[MAX_K];
    __shared__ uint32_t n_best;
    const row_of_units row = {logits[blockIdx.x], masses[blockIdx.x], n_cols, unit_cols, n_units};
    const int n_taken = n_cols < k ? (int)n_cols : k;
    uint32_t bound;
    uint64_t least;
    int n_sorted = 1;

    while (n_sorted < n_taken) {
        n_sorted *= 2;
    }
    if (threadIdx.x == 0) {
        n_best = 0;
    }
    for (int i = threadIdx.x; i < n_sorted; i += THREADS) {
        best[i] = 0; // below every key: sorted to the front
    }
    bound = bound_of(&s, row, k);
    least = n_taken == 0 ? 0 : least_key(&s, row, bound, n_taken);
    __syncthreads();
    each_key(row, bound, [&](uint64_t key) {
        if (key >= least && n_taken > 0) {
            best[atomicAdd(&n_best, 1U)] = key;
        }
    });
    __syncthreads();
    sort(best, n_sorted);
    for (int i = threadIdx.x; i < k; i += THREADS) {
        const bool is_there = i < n_taken;
        const int64_t column = is_there ? 0xFFFFFFFFU - (uint32_t)best[n_sorted - 1 - i] : 0;

        ids[blockIdx.x][i] = is_there ? (int32_t)(first_id + column) : -1;
        values[blockIdx.x][i] = is_there ? plain(logits[blockIdx.x][column]) : -INFINITY;
    }
}

extern "C" tsr_status tsr_top_k_cuda(tsr_device *dev, tsr_tensor ids, tsr_tensor values,
                                     tsr_tensor masses, tsr_tensor logits, tsr_tensor sharpness,
                                     int64_t first_id, int64_t unit_cols)
{
    const int64_t n_units = masses.n_cols / 2;
    const dim3 units((unsigned)logits.n_rows, tsr_blocks(n_units, UNITS));

    if (n_units > 0) {
        unit_masses<<<units, THREADS, 0, tsr_cuda_queue(dev)>>>(
            tsr_rows_of<float>(masses), tsr_rows_of<const float>(logits),
            (const float *)sharpness.data, logits.n_cols, unit_cols, n_units);
    }
    best_of_rows<<<(unsigned)logits.n_rows, THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<int32_t>(ids), tsr_rows_of<float>(values), tsr_rows_of<const float>(masses),
        tsr_rows_of<const float>(logits), (int)ids.n_cols, logits.n_cols, unit_cols, n_units,
        first_id);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}
