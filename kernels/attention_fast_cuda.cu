/*
 * Attention on tensor cores (after Dao, arXiv 2307.08691). A warp has sixteen queries and goes over
 * tiles of keys and values with a running softmax; tiles come from the pages by cp.async, one ahead
 * of the arithmetic. A query is a row of one query head: rows of all heads that read the same KV
 * head are queries of one block, so keys and values are read once for the whole group.
 *
 * A prompt's block has 16 queries a warp, and every warp goes over all keys. A sequence with a
 * single row, which is what decoding has, is cut into runs of TSR_ATTENTION_RUN positions, a block
 * each, and its warps share the tokens of a tile; a second kernel merges the runs by log-sum-exp.
 * Which of the two a sequence takes, and in what order its positions are added, depends on itself
 * alone.
 *
 * Queries, and the weights of values, are rounded to the type of the products: what the cache holds
 * for f16 and bf16, f16 for codes, whose scales multiply scores and weights.
 */
#include "kernels/attention_fast.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/batch.cuh"

enum {
    RUN = TSR_ATTENTION_RUN,
    QUERIES = 16, // a warp
    MERGE_THREADS = 128
};

static constexpr float LOG2_E = 1.44269504F;

struct work {
    tsr_rows<float> out;
    tsr_rows<const float> q;
    tsr_kv_place kv;
    tsr_batch_rows batch;
    int n_heads, group, first_head, n_tiles; // n_tiles: 16-query tiles of a group's heads
    float scale, softcap, slopes_scale;
    int window;
    const float *slopes, *sinks;
    float *runs; // [sequences from first_seq on, heads, n_runs] of (largest, sum, output)
    int n_runs, first_seq;

    __device__ float *run(int seq, int head, int i) const
    {
        return runs +
               ((int64_t)((seq - first_seq) * n_heads + head) * n_runs + i) * (kv.value_dim + 2);
    }
    __device__ int first_seen(int position) const
    {
        return window > 0 && position >= window ? position - window + 1 : 0;
    }
    __device__ bool is_own(int head, int kv_head) const
    {
        return head >= 0 && head < n_heads && head < (kv_head + 1) * group - first_head;
    }
};

/* ---- elements
 * ------------------------------------------------------------------------------------ */

static __device__ __forceinline__ uint32_t pair_of(float low, float high, __half)
{
    const __half2 both = __floats2half2_rn(low, high);

    return *(const uint32_t *)&both;
}
static __device__ __forceinline__ uint32_t pair_of(float low, float high, __nv_bfloat16)
{
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);

    return *(const uint32_t *)&both;
}
static __device__ __forceinline__ void multiply(float d[4], const uint32_t a[4],
                                                const uint32_t b[2], __half)
{
    tsr_mma_f16(d, a, b);
}
static __device__ __forceinline__ void multiply(float d[4], const uint32_t a[4],
                                                const uint32_t b[2], __nv_bfloat16)
{
    tsr_mma_bf16(d, a, b);
}

/* What a block is made of, for heads of up to DIM. */
template <int DIM> struct plan {
    static constexpr int TOKENS = DIM > 128 ? 32 : 64;      // a tile
    static constexpr int AT_ONCE = DIM > 128 ? 16 : TOKENS; // what registers have room for
    static constexpr int WARPS = TOKENS / 16;               // so that each may have 16 of them
    static constexpr int THREADS = WARPS * TSR_WARP;
    static constexpr int ROWS = WARPS * QUERIES;
    static constexpr int STAGE = 2 * DIM * TOKENS; // elements of keys and values
};

/* Index of the 16 bytes number `chunk` of a row of N: neighbouring rows keep theirs in other banks,
 * so that eight rows are read at once. */
template <int N> static __device__ __forceinline__ int place_of(int row, int chunk)
{
    constexpr int MOVED = N < 8 ? N : 8;

    return row * N + (chunk ^ row / (8 / MOVED) % MOVED);
}

/* ---- tiles
 * --------------------------------------------------------------------------------------- */

/* Begin to copy tokens [first, first + TOKENS) of one KV head; zeros for those outside [low, high),
 * which may lie nowhere. Keys [DIM][TOKENS], values [TOKENS][DIM]. */
template <int DIM, class T>
static __device__ __forceinline__ void copy_tile(T *stage, const tsr_kv_place &kv,
                                                 const int32_t *slots, int kv_head, int first,
                                                 int low, int high)
{
    constexpr int TOKENS = plan<DIM>::TOKENS;
    constexpr int THREADS = plan<DIM>::THREADS;
    constexpr int CHUNKS = TOKENS / 8;
    const int n_dims = (kv.key_dim + 15) / 16 * 16;
    const int n_chunks = kv.padded_dim / 8;
    uint4 *keys = (uint4 *)stage;
    uint4 *values = (uint4 *)(stage + DIM * TOKENS);
    // A thread keeps to its eight tokens: one look at the table.
    const int at = (int)threadIdx.x % CHUNKS * 8;
    const bool is_there = first + at < high && first + at + 8 > low;
    const int token = is_there ? first + at : low;
    const T *from = (const T *)kv.keys(slots[token / kv.block_tokens], kv_head) +
                    token % kv.block_tokens / 8 * 8;

    for (int d = (int)threadIdx.x / CHUNKS; d < n_dims; d += THREADS / CHUNKS) {
        const bool is_wanted = is_there && d < kv.key_dim;

        tsr_copy16(&keys[place_of<CHUNKS>(d, at / 8)], from + (is_wanted ? d * kv.block_tokens : 0),
                   is_wanted);
    }
    for (int i = threadIdx.x; i < TOKENS * n_chunks; i += THREADS) {
        const int t = i / n_chunks;
        const int chunk = i % n_chunks;
        const bool is_wanted = first + t >= low && first + t < high;
        const int seen = is_wanted ? first + t : low;
        const char *row =
            (const char *)kv.keys(slots[seen / kv.block_tokens], kv_head) + kv.key_bytes;

        tsr_copy16(&values[place_of<DIM / 8>(t, chunk)],
                   (const T *)row + seen % kv.block_tokens * kv.padded_dim + 8 * chunk, is_wanted);
    }
}

/* B fragments of sixteen rows and sixteen columns out of rows of N chunks: two for each half of the
 * columns. */
template <int N, class T>
static __device__ __forceinline__ void load_b(uint32_t b[4], const T *tile, int row, int column)
{
    const int lane = (int)threadIdx.x % TSR_WARP;

    tsr_load_matrices4_transposed(b, (const uint4 *)tile +
                                         place_of<N>(row + lane % 16, column / 8 + lane / 16));
}

/* A warp's sixteen queries and what they have seen. A lane has two of them, lane / 4 and that + 8.
 */
template <int DIM> struct softmax {
    float o[DIM / 8][4];
    float largest[2]; // of scores times log2(e)
    float sum[2];     // over the lane's own columns, until finish()

    __device__ softmax()
    {
#pragma unroll
        for (int n = 0; n < DIM / 8; n++) {
            o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.0F;
        }
        largest[0] = largest[1] = -INFINITY;
        sum[0] = sum[1] = 0.0F;
    }

    /* Scores of N more positions: they become weights, and what there is so far is scaled. */
    template <int N> __device__ void take(float (*s)[4])
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = largest[half];

#pragma unroll
            for (int n = 0; n < N / 8; n++) {
                most = fmaxf(most, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
            }
            most = fmaxf(most, __shfl_xor_sync(TSR_WHOLE_WARP, most, 1));
            most = fmaxf(most, __shfl_xor_sync(TSR_WHOLE_WARP, most, 2));
            const float base = most == -INFINITY ? 0.0F : most; // nothing is seen yet
            const float factor = tsr_fast_exp2(largest[half] - base);

            largest[half] = most;
            sum[half] *= factor;
#pragma unroll
            for (int n = 0; n < N / 8; n++) {
                s[n][2 * half] = tsr_fast_exp2(s[n][2 * half] - base);
                s[n][2 * half + 1] = tsr_fast_exp2(s[n][2 * half + 1] - base);
                sum[half] += s[n][2 * half] + s[n][2 * half + 1];
            }
#pragma unroll
            for (int n = 0; n < DIM / 8; n++) {
                o[n][2 * half] *= factor;
                o[n][2 * half + 1] *= factor;
            }
        }
    }

    __device__ void finish()
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            sum[half] += __shfl_xor_sync(TSR_WHOLE_WARP, sum[half], 1);
            sum[half] += __shfl_xor_sync(TSR_WHOLE_WARP, sum[half], 2);
        }
    }
};

/* The two queries of a lane: where they stand, and whose they are. */
struct queries {
    int position[2]; // -1: there is no such query
    int head[2];
};

/* Soft cap, slope and what is not seen. */
template <int N>
static __device__ __forceinline__ void bend(float (*s)[4], const work &w, const queries &mine,
                                            int first, bool is_whole)
{
    const bool is_bent = w.softcap > 0 || w.slopes != NULL;
    const float factor = is_bent ? w.scale : w.scale * LOG2_E;
    const int column = first + (int)threadIdx.x % 4 * 2;

#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int t = column + 8 * n + r % 2;
            const int p = mine.position[r / 2];
            float x = s[n][r] * factor;

            if (is_bent) {
                if (w.softcap > 0) { // tanh y = 1 - 2 / (e^2y + 1)
                    const float e = tsr_fast_exp2(x * (2.0F * LOG2_E) / w.softcap);

                    x = w.softcap - 2.0F * w.softcap / (e + 1.0F);
                }
                if (w.slopes != NULL && p >= 0) {
                    const float slope = w.slopes[mine.head[r / 2]];

                    x += w.slopes_scale > 0
                             ? w.slopes_scale *
                                   __bfloat162float(__float2bfloat16_rn(
                                       slope * __bfloat162float(__float2bfloat16_rn((float)t))))
                             : slope * (float)(t - p);
                }
                x *= LOG2_E;
            }
            s[n][r] = is_whole || (t <= p && t >= w.first_seen(p)) ? x : -INFINITY;
        }
    }
}

/* One tile: sixteen queries over N tokens from `at` on. */
template <int DIM, int N, class T>
static __device__ __forceinline__ void
attend_tile(softmax<DIM> &state, const T *own_q, const T *stage, const work &w, const queries &mine,
            int first, int at, bool is_whole)
{
    constexpr int TOKENS = plan<DIM>::TOKENS;
    const int lane = (int)threadIdx.x % TSR_WARP;
    const T *values = stage + DIM * TOKENS;
    float s[N / 8][4];

#pragma unroll
    for (int n = 0; n < N / 8; n++) {
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0F;
    }
#pragma unroll
    for (int k = 0; k < DIM; k += 16) {
        if (k < w.kv.key_dim) {
            uint32_t a[4];

            tsr_load_matrices4(a, (const uint4 *)own_q +
                                      place_of<DIM / 8>(lane % 16, k / 8 + lane / 16));
#pragma unroll
            for (int n = 0; n < N; n += 16) {
                uint32_t b[4];

                load_b<TOKENS / 8>(b, stage, k, at + n);
                multiply(s[n / 8], a, b, T());
                multiply(s[n / 8 + 1], a, b + 2, T());
            }
        }
    }
    bend<N>(s, w, mine, first + at, is_whole);
    state.template take<N>(s);
#pragma unroll
    for (int k = 0; k < N; k += 16) { // a pair of columns of scores is a pair of columns of A
        const uint32_t a[4] = {pair_of(s[k / 8][0], s[k / 8][1], T()),
                               pair_of(s[k / 8][2], s[k / 8][3], T()),
                               pair_of(s[k / 8 + 1][0], s[k / 8 + 1][1], T()),
                               pair_of(s[k / 8 + 1][2], s[k / 8 + 1][3], T())};

#pragma unroll
        for (int n = 0; n < DIM; n += 16) {
            if (n < w.kv.value_dim) {
                uint32_t b[4];

                load_b<DIM / 8>(b, values, at + k, n);
                multiply(state.o[n / 8], a, b, T());
                multiply(state.o[n / 8 + 1], a, b + 2, T());
            }
        }
    }
}

/* ---- a block
 * ------------------------------------------------------------------------------------- */

/* Query i of a block's: sequence rows times heads of a group, head by head. */
struct block_queries {
    int kv_head, first_row, n_rows; // of the sequence
    int first_pos;
    int first, n; // queries of this block

    __device__ int row(int i, int group) const
    {
        return (first + i) / group;
    }
    __device__ int head(int i, const work &w) const
    {
        return kv_head * w.group - w.first_head + (first + i) % w.group;
    }
    __device__ bool has(int i, const work &w) const
    {
        return i < n && w.is_own(head(i, w), kv_head);
    }
};

template <int DIM, class T>
static __device__ __forceinline__ void load_queries(T *to, const work &w, const block_queries &b,
                                                    int n)
{
    const int n_pairs = (w.kv.key_dim + 15) / 16 * 8;

    for (int i = threadIdx.x; i < n * n_pairs; i += plan<DIM>::THREADS) {
        const int row = i / n_pairs;
        const int d = i % n_pairs * 2;
        const bool is_there = b.has(row, w) && d < w.kv.key_dim;
        const float *from =
            is_there ? w.q[b.first_row + b.row(row, w.group)] + b.head(row, w) * w.kv.key_dim + d
                     : NULL;

        ((uint32_t *)to)[place_of<DIM / 8>(row, d / 8) * 4 + d % 8 / 2] =
            is_there ? pair_of(from[0], from[1], T()) : 0;
    }
}

/* All tiles of [low, high), for the warp's queries; of each the tokens [from, to), N at once. */
template <int DIM, int N, class T>
static __device__ __forceinline__ void
attend(softmax<DIM> &state, T *shared, const T *own_q, const work &w, const block_queries &b,
       const queries &mine, int low, int high, int from, int to)
{
    constexpr int TOKENS = plan<DIM>::TOKENS;
    const int32_t *slots = w.batch.slots_of(b.first_row);
    const int first_p = b.first_pos + b.row(0, w.group);
    const int last_p = b.first_pos + b.row(b.n - 1, w.group);
    int stage = 0;

    copy_tile<DIM>(shared, w.kv, slots, b.kv_head, low / TOKENS * TOKENS, low, high);
    tsr_copies_end_group();
    for (int first = low / TOKENS * TOKENS; first < high; first += TOKENS, stage ^= 1) {
        if (first + TOKENS < high) {
            copy_tile<DIM>(shared + (stage ^ 1) * plan<DIM>::STAGE, w.kv, slots, b.kv_head,
                           first + TOKENS, low, high);
        }
        tsr_copies_end_group();
        tsr_copies_wait<1>();
        __syncthreads(); // all threads' copies are there
        for (int at = from; at < to; at += N) {
            attend_tile<DIM, N>(state, own_q, shared + stage * plan<DIM>::STAGE, w, mine, first, at,
                                first + TOKENS - 1 <= first_p && first >= w.first_seen(last_p));
        }
        __syncthreads(); // nobody reads what comes next over it
    }
    tsr_copies_wait<0>();
    state.finish();
}

static __device__ __forceinline__ queries queries_of(const work &w, const block_queries &b,
                                                     int first)
{
    queries mine;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int i = first + (int)threadIdx.x % TSR_WARP / 4 + 8 * half;

        mine.position[half] = b.has(i, w) ? b.first_pos + b.row(i, w.group) : -1;
        mine.head[half] = b.head(i, w);
    }
    return mine;
}

/* What a sink adds to a sum, and what it scales the rest by. */
static __device__ __forceinline__ float with_sink(float &sum, float largest, const float *sinks,
                                                  int head)
{
    if (sinks == NULL) {
        return 1.0F;
    }
    const float sink = sinks[head] * LOG2_E;
    const float most = fmaxf(sink, largest);
    const float factor = tsr_fast_exp2(largest - most);

    sum = sum * factor + tsr_fast_exp2(sink - most);
    return factor;
}

/* The sequence that has a tile, and the tile's number in it: sequences with one row have none here.
 * Every warp looks for itself. */
static __device__ __forceinline__ int find_tile(int &tile, const tsr_batch_rows &batch, int group,
                                                int n_queries)
{
    const int lane = (int)threadIdx.x % TSR_WARP;

    for (int first = 0; first < batch.n_seqs; first += TSR_WARP) {
        const int s = first + lane;
        const int n_rows = s < batch.n_seqs ? batch.row_start[s + 1] - batch.row_start[s] : 0;
        const int own = n_rows > 1 ? (n_rows * group + n_queries - 1) / n_queries : 0;
        int sum = own;

        for (int step = 1; step < TSR_WARP; step *= 2) {
            const int other = __shfl_up_sync(TSR_WHOLE_WARP, sum, step);

            sum += lane >= step ? other : 0;
        }
        const unsigned beyond = __ballot_sync(TSR_WHOLE_WARP, sum > tile);

        if (beyond != 0) {
            const int found = __ffs((int)beyond) - 1;

            tile -= __shfl_sync(TSR_WHOLE_WARP, sum - own, found);
            return first + found;
        }
        tile -= __shfl_sync(TSR_WHOLE_WARP, sum, TSR_WARP - 1);
    }
    return -1;
}

/* Blocks: (tile of queries, KV head). The last tiles of a prompt see most and come first. */
template <int DIM, class T>
static __global__ void __launch_bounds__(plan<DIM>::THREADS) attend_prompt(work w)
{
    extern __shared__ __align__(16) char memory[];
    T *own_q = (T *)memory + (int)threadIdx.x / TSR_WARP * QUERIES * DIM;
    T *stages = (T *)memory + plan<DIM>::ROWS * DIM;
    int tile = (int)(gridDim.x - 1 - blockIdx.x);
    const int seq = find_tile(tile, w.batch, w.group, plan<DIM>::ROWS);

    if (seq < 0) { // the same for the whole block
        return;
    }
    block_queries b;

    b.kv_head = (int)blockIdx.y;
    b.first_row = w.batch.row_start[seq];
    b.n_rows = w.batch.row_start[seq + 1] - b.first_row;
    b.first_pos = w.batch.first_pos[seq];
    b.first = tile * plan<DIM>::ROWS;
    b.n = b.n_rows * w.group - b.first < plan<DIM>::ROWS ? b.n_rows * w.group - b.first
                                                         : plan<DIM>::ROWS;
    const int warp_first = (int)threadIdx.x / TSR_WARP * QUERIES;
    const queries mine = queries_of(w, b, warp_first);
    softmax<DIM> state;

    load_queries<DIM>((T *)memory, w, b, plan<DIM>::ROWS);
    attend<DIM, plan<DIM>::AT_ONCE>(
        state, stages, own_q, w, b, mine, w.first_seen(b.first_pos + b.row(0, w.group)),
        b.first_pos + b.row(b.n - 1, w.group) + 1, 0, plan<DIM>::TOKENS);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (mine.position[half] >= 0) {
            float *to = w.out[b.first_row + mine.position[half] - b.first_pos] +
                        mine.head[half] * w.kv.value_dim;
            float sum = state.sum[half];
            float factor = with_sink(sum, state.largest[half], w.sinks, mine.head[half]);

            factor /= sum;
#pragma unroll
            for (int n = 0; n < DIM; n += 8) {
                const int d = n + (int)threadIdx.x % 4 * 2;

                if (d < w.kv.value_dim) { // a multiple of 8
                    to[d] = state.o[n / 8][2 * half] * factor;
                    to[d + 1] = state.o[n / 8][2 * half + 1] * factor;
                }
            }
        }
    }
}

/* Blocks: (sequence, KV head and tile of its group's heads, run). */
template <int DIM, class T>
static __global__ void __launch_bounds__(plan<DIM>::THREADS) attend_run(work w)
{
    extern __shared__ __align__(16) char memory[];
    constexpr int WARPS = plan<DIM>::WARPS;
    const int seq = w.first_seq + (int)blockIdx.x;
    const int lane = (int)threadIdx.x % TSR_WARP;
    block_queries b;

    b.first_row = w.batch.row_start[seq];
    b.n_rows = w.batch.row_start[seq + 1] - b.first_row;
    b.first_pos = w.batch.first_pos[seq];
    const int first_seen = w.first_seen(b.first_pos);
    const int run = first_seen / RUN + (int)blockIdx.z;

    if (b.n_rows != 1 || run * RUN > b.first_pos) { // the same for the whole block
        return;
    }
    b.kv_head = (int)blockIdx.y / w.n_tiles;
    b.first = (int)blockIdx.y % w.n_tiles * QUERIES;
    b.n = w.group - b.first < QUERIES ? w.group - b.first : QUERIES;
    const queries mine = queries_of(w, b, 0);
    const int low = run * RUN > first_seen ? run * RUN : first_seen;
    const int high = (run + 1) * RUN < b.first_pos + 1 ? (run + 1) * RUN : b.first_pos + 1;
    softmax<DIM> state;

    load_queries<DIM>((T *)memory, w, b, QUERIES);
    attend<DIM, QUERIES>(state, (T *)memory + plan<DIM>::ROWS * DIM, (const T *)memory, w, b, mine,
                         low, high, (int)threadIdx.x / TSR_WARP * QUERIES,
                         ((int)threadIdx.x / TSR_WARP + 1) * QUERIES);

    // The warps' parts: [warp][query] of (largest, sum, output).
    float *parts = (float *)((T *)memory + plan<DIM>::ROWS * DIM);
    constexpr int PART = DIM + 2;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        float *part = parts + ((int)threadIdx.x / TSR_WARP * QUERIES + lane / 4 + 8 * half) * PART;

        if (lane % 4 == 0) {
            part[0] = state.largest[half];
            part[1] = state.sum[half];
        }
#pragma unroll
        for (int n = 0; n < DIM; n += 8) {
            part[2 + n + lane % 4 * 2] = state.o[n / 8][2 * half];
            part[2 + n + lane % 4 * 2 + 1] = state.o[n / 8][2 * half + 1];
        }
    }
    __syncthreads();
    const bool is_whole = b.first_pos / RUN == first_seen / RUN;

    for (int i = threadIdx.x; i < b.n * w.kv.value_dim; i += plan<DIM>::THREADS) {
        const int query = i / w.kv.value_dim;
        const int d = i % w.kv.value_dim;
        const int head = b.head(query, w);
        float most = parts[query * PART];
        float sum = 0.0F;
        float o = 0.0F;

        if (!b.has(query, w)) {
            continue;
        }
        for (int warp = 1; warp < WARPS; warp++) {
            most = fmaxf(most, parts[(warp * QUERIES + query) * PART]);
        }
        for (int warp = 0; warp < WARPS; warp++) {
            const float *part = parts + (warp * QUERIES + query) * PART;
            const float factor = tsr_fast_exp2(part[0] - most);

            sum += part[1] * factor;
            o += part[2 + d] * factor;
        }
        if (is_whole) {
            const float factor = with_sink(sum, most, w.sinks, head);

            w.out[b.first_row][head * w.kv.value_dim + d] = o * factor / sum;
        } else {
            float *to = w.run(seq, head, (int)blockIdx.z);

            if (d == 0) {
                to[0] = most;
                to[1] = sum;
            }
            to[2 + d] = o;
        }
    }
}

/* Blocks: (sequence, head). The runs of a sequence that has one row and more than one run. */
static __global__ void __launch_bounds__(MERGE_THREADS) merge_runs(work w)
{
    __shared__ float factors[MERGE_THREADS];
    __shared__ float sums[MERGE_THREADS];
    const int seq = w.first_seq + (int)blockIdx.x;
    const int head = (int)blockIdx.y;
    const int row = w.batch.row_start[seq];
    const int position = w.batch.first_pos[seq];
    const int n_runs = position / RUN - w.first_seen(position) / RUN + 1;

    if (w.batch.row_start[seq + 1] - row != 1 || n_runs == 1) { // the same for the whole block
        return;
    }
    float most = -INFINITY;
    float sum = 0.0F;
    float o[2] = {0.0F, 0.0F}; // of dimensions threadIdx.x and that + MERGE_THREADS

    for (int i = threadIdx.x; i < n_runs; i += MERGE_THREADS) {
        most = fmaxf(most, w.run(seq, head, i)[0]);
    }
    most = tsr_block_largest<MERGE_THREADS>(most);
    for (int first = 0; first < n_runs; first += MERGE_THREADS) {
        const int n = n_runs - first < MERGE_THREADS ? n_runs - first : MERGE_THREADS;

        if ((int)threadIdx.x < n) {
            const float *run = w.run(seq, head, first + (int)threadIdx.x);

            factors[threadIdx.x] = tsr_fast_exp2(run[0] - most);
            sums[threadIdx.x] = run[1] * factors[threadIdx.x];
        }
        __syncthreads();
        for (int i = 0; i < n; i++) {
            const float *run = w.run(seq, head, first + i) + 2;

            sum += sums[i];
            for (int j = 0; j < 2; j++) {
                const int d = (int)threadIdx.x + j * MERGE_THREADS;

                o[j] += d < w.kv.value_dim ? run[d] * factors[i] : 0.0F;
            }
        }
        __syncthreads();
    }
    const float factor = with_sink(sum, most, w.sinks, head);

    for (int j = 0; j < 2; j++) {
        const int d = (int)threadIdx.x + j * MERGE_THREADS;

        if (d < w.kv.value_dim) {
            w.out[row][head * w.kv.value_dim + d] = o[j] * factor / sum;
        }
    }
}

/* ---- launches
 * ------------------------------------------------------------------------------------ */

bool tsr_attention_fast_can(const tsr_kv_view *kv, const tsr_attention_shape *shape)
{
    const tsr_kv_layout *layout = kv->layout;

    return (layout->type == TSR_KV_TYPE_F16 || layout->type == TSR_KV_TYPE_BF16) &&
           !layout->latent && kv->host_pool == NULL && shape->stride == 0 &&
           layout->key_dim % 8 == 0 && layout->value_dim % 8 == 0 && layout->key_dim <= 256 &&
           layout->value_dim <= 256 && kv->block_bytes % 16 == 0 && (uintptr_t)kv->pool % 16 == 0;
}

/* More shared memory than kernels have by themselves must be asked for. */
template <class K>
static tsr_status launch(K *kernel, dim3 grid, unsigned n_threads, size_t shared_bytes,
                         cudaStream_t queue, const work &w)
{
    TSR_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      (int)shared_bytes));
    kernel<<<grid, n_threads, shared_bytes, queue>>>(w);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

template <int DIM, class T>
static tsr_status attend_as(tsr_device *dev, work &w, const tsr_batch *batch, int64_t n_rows)
{
    const cudaStream_t queue = tsr_cuda_queue(dev);
    const size_t shared_bytes = (size_t)(plan<DIM>::ROWS * DIM + 2 * plan<DIM>::STAGE) * sizeof(T);
    const int n_groups = (w.first_head + w.n_heads + w.group - 1) / w.group;
    const size_t a_seq =
        (size_t)w.n_runs * (size_t)w.n_heads * (size_t)(w.kv.value_dim + 2) * sizeof(float);
    const int64_t seqs_a_turn =
        w.n_runs == 1 ? batch->n_seqs : (int64_t)(dev->scratch_bytes / a_seq);

    if (seqs_a_turn == 0) {
        return tsr_fail(TSR_ERR_ARG, "attention: %zu bytes of scratch are needed, %zu are reserved",
                        a_seq, dev->scratch_bytes);
    }
    if (batch->most_rows != 1) {
        // As many tiles as there can be: one more for each sequence whose last is not full.
        const int64_t n_tiles = n_rows * w.group / plan<DIM>::ROWS + batch->n_seqs;

        TSR_TRY(launch(attend_prompt<DIM, T>, dim3((unsigned)n_tiles, (unsigned)n_groups),
                       plan<DIM>::THREADS, shared_bytes, queue, w));
    }
    for (int64_t first = 0; first < batch->n_seqs; first += seqs_a_turn) {
        const int64_t n = batch->n_seqs - first < seqs_a_turn ? batch->n_seqs - first : seqs_a_turn;

        w.first_seq = (int)first;
        TSR_TRY(launch(attend_run<DIM, T>,
                       dim3((unsigned)n, (unsigned)(n_groups * w.n_tiles), (unsigned)w.n_runs),
                       plan<DIM>::THREADS, shared_bytes, queue, w));
        if (w.n_runs > 1) {
            merge_runs<<<dim3((unsigned)n, (unsigned)w.n_heads), MERGE_THREADS, 0, queue>>>(w);
            TSR_CUDA_LAUNCHED();
        }
    }
    return TSR_OK;
}

template <class T>
static tsr_status attend_of(tsr_device *dev, work &w, const tsr_batch *batch, int64_t n_rows)
{
    const int dim = w.kv.key_dim > w.kv.value_dim ? w.kv.key_dim : w.kv.value_dim;

    return dim <= 64    ? attend_as<64, T>(dev, w, batch, n_rows)
           : dim <= 128 ? attend_as<128, T>(dev, w, batch, n_rows)
                        : attend_as<256, T>(dev, w, batch, n_rows);
}

tsr_status tsr_attention_fast(tsr_device *dev, tsr_tensor out, tsr_tensor q, const tsr_kv_view *kv,
                              const tsr_batch *batch, const tsr_attention_shape *shape)
{
    const int64_t all_runs = (batch->longest + RUN - 1) / RUN;
    const int64_t seen_runs = shape->window > 0 ? (shape->window + RUN - 2) / RUN + 1 : all_runs;
    work w = {};

    w.out = tsr_rows_of<float>(out);
    w.q = tsr_rows_of<const float>(q);
    w.kv = tsr_kv_place_of(kv);
    w.batch = tsr_batch_rows_of(batch);
    w.n_heads = shape->n_heads;
    w.group = shape->group;
    w.first_head = shape->first_head;
    w.n_tiles = (shape->group + QUERIES - 1) / QUERIES;
    w.scale = shape->scale;
    w.softcap = shape->softcap;
    w.slopes_scale = shape->slopes_scale;
    w.window = shape->window < INT32_MAX ? (int)shape->window : 0;
    w.slopes = (const float *)shape->slopes.data;
    w.sinks = (const float *)shape->sinks.data;
    w.runs = (float *)dev->scratch;
    w.n_runs = (int)(seen_runs < all_runs ? seen_runs : all_runs);
    return kv->layout->type == TSR_KV_TYPE_BF16 ? attend_of<__nv_bfloat16>(dev, w, batch, q.n_rows)
                                                : attend_of<__half>(dev, w, batch, q.n_rows);
}
