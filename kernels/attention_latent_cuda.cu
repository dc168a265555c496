/*
 * Attention on tensor cores over a latent layout, whose values are the first dimensions of the
 * keys: a tile of keys comes from the pages once and is both operands. As products of queries with
 * keys want its rows (dimensions) turned, ldmatrix transposes; as weights times values want them as
 * they lie, it does not.
 *
 * A block has sixteen queries. Its warps share a tile's tokens for the scores, which meet in shared
 * memory; then each warp takes the softmax of all of them, and its quarter of the value's
 * dimensions: sixteen queries by 512 of them are what the registers of four warps hold.
 */
#include "kernels/attention_latent.cuh"

enum {
    QUERIES = TSR_ATTENTION_QUERIES,
    DIM = TSR_KV_LAYOUT_MOST_DIM,
    TOKENS = 32, // a tile
    WARPS = 4,
    THREADS = WARPS * TSR_WARP,
    OWN_TOKENS = TOKENS / WARPS,
    OWN_DIM = TSR_ATTENTION_LATENT_VALUES / WARPS,
    CHUNKS = TOKENS / 8,     // of 16 bytes, in a row of a tile
    SCORES_ROW = TOKENS + 8, // floats: rows of a fragment lie in other banks
    BLOCKS = 2               // on an SM
};

/* Shared memory: queries, two tiles, scores. */
template <class T> struct room {
    T queries[QUERIES * DIM];
    T tiles[2][DIM * TOKENS];
    float scores[QUERIES * SCORES_ROW];
};

/* Dimensions of a key, as products take them: two steps of sixteen at once. */
static __device__ __forceinline__ int padded(int key_dim)
{
    return (key_dim + 31) / 32 * 32;
}

/* Begin to copy tokens [first, first + TOKENS), eight at once; zeros where none of eight is among
 * [low, high), which may lie nowhere. */
template <class T>
static __device__ __forceinline__ void copy_tile(T *tile, const tsr_kv_place &kv,
                                                 const int32_t *slots, const tsr_attention_block &b,
                                                 int first)
{
    const int at = (int)threadIdx.x % CHUNKS * 8; // a thread keeps to its eight
    const bool is_there = first + at < b.high && first + at + 8 > b.low;
    const int token = is_there ? (first + at > b.low ? first + at : b.low) : b.low;
    const T *from = (const T *)kv.keys(slots[token / kv.block_tokens], b.kv_head) +
                    token % kv.block_tokens / 8 * 8;

    for (int d = (int)threadIdx.x / CHUNKS; d < padded(kv.key_dim); d += THREADS / CHUNKS) {
        const bool is_wanted = is_there && d < kv.key_dim;

        tsr_copy16((uint4 *)tile + tsr_place_of<CHUNKS>(d, at / 8),
                   from + (is_wanted ? d * kv.block_tokens : 0), is_wanted);
    }
    tsr_copies_end_group();
}

/* Zeros for tokens outside [low, high) that came with others: as values they would meet weights of
 * zero, and may be anything. */
template <class T>
static __device__ __forceinline__ void clear_others(T *tile, const tsr_kv_place &kv,
                                                    const tsr_attention_block &b, int first)
{
    for (int i = threadIdx.x; i < kv.value_dim * TOKENS; i += THREADS) {
        const int d = i / TOKENS;
        const int t = i % TOKENS;

        if (first + t < b.low || first + t >= b.high) {
            tile[tsr_place_of<CHUNKS>(d, t / 8) * 8 + t % 8] = T(0.0F);
        }
    }
}

/* The warp's tokens against all queries, into the scores that warps share. */
template <class T>
static __device__ __forceinline__ void
score_tile(room<T> &r, const T *tile, const tsr_attention_work &w,
           const tsr_attention_queries &mine, int first, bool is_whole)
{
    const int lane = (int)threadIdx.x % TSR_WARP;
    const int warp = (int)threadIdx.x / TSR_WARP;
    float s[2][4] = {}; // of every other sixteen dimensions

    for (int k = 0; k < padded(w.kv.key_dim); k += 32) {
        uint32_t keys[4];

        tsr_load_matrices4_transposed(keys,
                                      (const uint4 *)tile + tsr_place_of<CHUNKS>(k + lane, warp));
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t q[4];

            tsr_load_matrices4(q,
                               (const uint4 *)r.queries +
                                   tsr_place_of<DIM / 8>(lane % 16, k / 8 + 2 * half + lane / 16));
            tsr_multiply_halves(s[half], q, keys + 2 * half, T());
        }
    }
    float sum[1][4];

#pragma unroll
    for (int i = 0; i < 4; i++) {
        sum[0][i] = s[0][i] + s[1][i];
    }
    tsr_bend_scores<OWN_TOKENS>(sum, w, mine, first + warp * OWN_TOKENS, is_whole);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float *to =
            r.scores + (lane / 4 + 8 * half) * SCORES_ROW + warp * OWN_TOKENS + lane % 4 * 2;

        *(float2 *)to = make_float2(sum[0][2 * half], sum[0][2 * half + 1]);
    }
}

/* All scores of a tile become weights, and the warp's dimensions of the values are added. */
template <class T>
static __device__ __forceinline__ void add_tile(tsr_softmax<OWN_DIM> &state, const room<T> &r,
                                                const T *tile, const tsr_attention_work &w)
{
    const int lane = (int)threadIdx.x % TSR_WARP;
    const int first_dim = (int)threadIdx.x / TSR_WARP * OWN_DIM;
    float s[TOKENS / 8][4];

#pragma unroll
    for (int n = 0; n < TOKENS / 8; n++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float2 two = *(const float2 *)(r.scores + (lane / 4 + 8 * half) * SCORES_ROW +
                                                 8 * n + lane % 4 * 2);

            s[n][2 * half] = two.x;
            s[n][2 * half + 1] = two.y;
        }
    }
    state.template take<TOKENS>(s);
#pragma unroll
    for (int k = 0; k < TOKENS; k += 16) { // a pair of columns of scores is a pair of columns of A
        const uint32_t a[4] = {tsr_pair_of(s[k / 8][0], s[k / 8][1], T()),
                               tsr_pair_of(s[k / 8][2], s[k / 8][3], T()),
                               tsr_pair_of(s[k / 8 + 1][0], s[k / 8 + 1][1], T()),
                               tsr_pair_of(s[k / 8 + 1][2], s[k / 8 + 1][3], T())};

#pragma unroll
        for (int n = 0; n < OWN_DIM; n += 16) {
            if (first_dim + n < w.kv.value_dim) {
                uint32_t b[4];

                tsr_load_matrices4(
                    b, (const uint4 *)tile +
                           tsr_place_of<CHUNKS>(first_dim + n + lane / 16 * 8 + lane % 8,
                                                k / 8 + lane / 8 % 2));
                tsr_multiply_halves(state.o[n / 8], a, b, T());
                tsr_multiply_halves(state.o[n / 8 + 1], a, b + 2, T());
            }
        }
    }
}

/* All tiles of what the block sees. */
template <class T>
static __device__ __forceinline__ void attend(tsr_softmax<OWN_DIM> &state, room<T> &r,
                                              const tsr_attention_work &w,
                                              const tsr_attention_block &b)
{
    const int32_t *slots = w.batch.slots_of(b.first_row);
    const tsr_attention_queries mine = tsr_queries_of(w, b, 0);
    const int first_p = b.first_pos + b.row(0, w.group);
    const int last_p = b.first_pos + b.row(b.n - 1, w.group);
    int stage = 0;

    tsr_load_queries<DIM, THREADS>(r.queries, w, b, QUERIES, padded(w.kv.key_dim));
    copy_tile(r.tiles[0], w.kv, slots, b, b.low / TOKENS * TOKENS);
    for (int first = b.low / TOKENS * TOKENS; first < b.high; first += TOKENS, stage ^= 1) {
        const bool is_whole = first + TOKENS - 1 <= first_p && first >= w.first_seen(last_p);
        T *tile = r.tiles[stage];

        if (first + TOKENS < b.high) {
            copy_tile(r.tiles[stage ^ 1], w.kv, slots, b, first + TOKENS);
            tsr_copies_wait<1>();
        } else {
            tsr_copies_wait<0>();
        }
        __syncthreads(); // all threads' copies are there
        if (first < b.low || first + TOKENS > b.high) {
            clear_others(tile, w.kv, b, first);
            __syncthreads();
        }
        score_tile(r, tile, w, mine, first, is_whole);
        __syncthreads();
        add_tile(state, r, tile, w);
        __syncthreads(); // nobody reads what comes next over it
    }
    state.finish();
}

/* The lane's outputs of the half-th of its queries, each as `as` makes it. */
template <class F>
static __device__ __forceinline__ void put(float *to, const tsr_softmax<OWN_DIM> &state, int half,
                                           int value_dim, F as)
{
    const int first = (int)threadIdx.x / TSR_WARP * OWN_DIM + (int)threadIdx.x % 4 * 2;

#pragma unroll
    for (int n = 0; n < OWN_DIM; n += 8) {
        if (first + n < value_dim) { // a multiple of 8
            to[first + n] = as(state.o[n / 8][2 * half], first + n);
            to[first + n + 1] = as(state.o[n / 8][2 * half + 1], first + n + 1);
        }
    }
}

/* Blocks as tsr_find_prompt() or tsr_find_run() has them. */
template <class T, bool PROMPT>
static __global__ void __launch_bounds__(THREADS, BLOCKS) attend_latent(tsr_attention_work w)
{
    extern __shared__ __align__(16) char memory[];
    room<T> &r = *(room<T> *)memory;
    tsr_attention_block b;
    tsr_softmax<OWN_DIM> state;

    if (!(PROMPT ? tsr_find_prompt(b, w, QUERIES) : tsr_find_run(b, w))) {
        return;
    }
    attend(state, r, w, b);

    const tsr_attention_queries mine = tsr_queries_of(w, b, 0);
    const bool is_whole = PROMPT || tsr_is_only_run(b, w);

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int head = mine.head[half];

        if (mine.position[half] < 0) {
            continue;
        }
        if (is_whole) {
            const int row = b.first_row + mine.position[half] - b.first_pos;
            const tsr_joined all = tsr_join(state.sum[half], state.largest[half], w, row, head);

            put(w.out[row] + head * w.kv.value_dim, state, half, w.kv.value_dim,
                [&](float sum, int d) { return all.of(sum, d); });
        } else {
            float *run = w.run(b.seq, head, (int)blockIdx.z);

            if (threadIdx.x < TSR_WARP && threadIdx.x % 4 == 0) {
                run[0] = state.largest[half];
                run[1] = state.sum[half];
            }
            put(run + 2, state, half, w.kv.value_dim, [](float sum, int) { return sum; });
        }
    }
}

template <class T> static tsr_attention_kernels kernels_of(void)
{
    return tsr_attention_kernels{
        attend_latent<T, true>,
        attend_latent<T, false>,
        tsr_merge_runs<TSR_ATTENTION_LATENT_VALUES / TSR_ATTENTION_MERGE_THREADS>,
        QUERIES,
        THREADS,
        sizeof(room<T>)};
}

tsr_attention_kernels tsr_attention_latent(bool is_bf16)
{
    return is_bf16 ? kernels_of<__nv_bfloat16>() : kernels_of<__half>();
}
