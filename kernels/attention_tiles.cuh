/*
 * kernels/attention_tiles.cuh - tiles of keys and values on their way from the pages to tensor
 * cores. Private to CUDA files.
 */
#ifndef TSR_KERNELS_ATTENTION_TILES_CUH
#define TSR_KERNELS_ATTENTION_TILES_CUH

#include "kernels/batch.cuh"
#include "kernels/tiles.cuh"

enum {
    TSR_ATTENTION_QUERIES = 16 /* a warp */
};

/* ---- elements
 * ------------------------------------------------------------------------------------ */

static __device__ __forceinline__ uint32_t tsr_pair_of(float low, float high, __half)
{
    const __half2 both = __floats2half2_rn(low, high);

    return *(const uint32_t *)&both;
}
static __device__ __forceinline__ uint32_t tsr_pair_of(float low, float high, __nv_bfloat16)
{
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);

    return *(const uint32_t *)&both;
}
/* What a block is made of, for heads of up to DIM. */
template <int DIM> struct tsr_attention_plan {
    static constexpr int TOKENS = DIM > 128 ? 32 : 64;      // a tile
    static constexpr int AT_ONCE = DIM > 128 ? 16 : TOKENS; // what registers have room for
    static constexpr int WARPS = TOKENS / 16;               // so that each may have 16 of them
    static constexpr int THREADS = WARPS * TSR_WARP;
    static constexpr int ROWS = WARPS * TSR_ATTENTION_QUERIES;
    static constexpr int BLOCKS =
        DIM > 64 ? 2 : 3; // on an SM: what registers and shared memory allow
    static constexpr int STAGE = 2 * DIM * TOKENS; // elements of keys and values
    // Codes: two stages of bytes with their scales, and the elements that one of them becomes.
    static constexpr int CODED_STAGE = STAGE + 2 * TOKENS * (int)sizeof(uint16_t);
    static constexpr size_t shared_bytes(bool is_coded)
    {
        return (size_t)(ROWS * DIM) * 2 + (is_coded ? 2 * STAGE + 2 * CODED_STAGE : 2 * 2 * STAGE);
    }
};

/* Index of the 16 bytes number `chunk` of a row of N: neighbouring rows keep theirs in other banks,
 * so that eight rows are read at once. */
template <int N> static __device__ __forceinline__ int tsr_place_of(int row, int chunk)
{
    constexpr int MOVED = N < 8 ? N : 8;

    return row * N + (chunk ^ row / (8 / MOVED) % MOVED);
}

/* ---- tiles
 * --------------------------------------------------------------------------------------- */

/* Begin to copy tokens [first, first + TOKENS) of one KV head; zeros for those outside [low, high),
 * which may lie nowhere. Keys [DIM][TOKENS], values [TOKENS][DIM]. */
template <int DIM, class T>
static __device__ __forceinline__ void tsr_copy_tile(T *stage, const tsr_kv_place &kv,
                                                     const int32_t *slots, int kv_head, int first,
                                                     int low, int high)
{
    constexpr int TOKENS = tsr_attention_plan<DIM>::TOKENS;
    constexpr int THREADS = tsr_attention_plan<DIM>::THREADS;
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

        tsr_copy16(&keys[tsr_place_of<CHUNKS>(d, at / 8)],
                   from + (is_wanted ? d * kv.block_tokens : 0), is_wanted);
    }
    for (int i = threadIdx.x; i < TOKENS * n_chunks; i += THREADS) {
        const int t = i / n_chunks;
        const int chunk = i % n_chunks;
        const bool is_wanted = first + t >= low && first + t < high;
        const int seen = is_wanted ? first + t : low;
        const char *row =
            (const char *)kv.keys(slots[seen / kv.block_tokens], kv_head) + kv.key_bytes;

        tsr_copy16(&values[tsr_place_of<DIM / 8>(t, chunk)],
                   (const T *)row + seen % kv.block_tokens * kv.padded_dim + 8 * chunk, is_wanted);
    }
}

/* The same of codes, as they lie: keys [DIM][TOKENS], values [TOKENS][DIM], scales of keys and of
 * values [TOKENS]. */
template <int DIM>
static __device__ __forceinline__ void tsr_copy_codes(char *stage, const tsr_kv_place &kv,
                                                      const int32_t *slots, int kv_head, int first,
                                                      int low, int high)
{
    constexpr int TOKENS = tsr_attention_plan<DIM>::TOKENS;
    constexpr int THREADS = tsr_attention_plan<DIM>::THREADS;
    constexpr int CHUNKS = TOKENS / 16;
    const int n_chunks = kv.padded_dim / 16;
    const int at = (int)threadIdx.x % CHUNKS * 16;
    const bool is_there = first + at < high && first + at + 16 > low;
    const int token = is_there ? first + at : low;
    const char *from = (const char *)kv.keys(slots[token / kv.block_tokens], kv_head);
    const int in_block = token % kv.block_tokens / 16 * 16;

    for (int d = (int)threadIdx.x / CHUNKS; d < (kv.key_dim + 15) / 16 * 16;
         d += THREADS / CHUNKS) {
        const bool is_wanted = is_there && d < kv.key_dim;

        tsr_copy16(stage + d * TOKENS + at, from + (is_wanted ? d * kv.block_tokens : 0) + in_block,
                   is_wanted);
    }
    for (int i = threadIdx.x; i < TOKENS * n_chunks; i += THREADS) {
        const int t = i / n_chunks;
        const bool is_wanted = first + t >= low && first + t < high;
        const int seen = is_wanted ? first + t : low;
        const char *row =
            (const char *)kv.keys(slots[seen / kv.block_tokens], kv_head) + kv.key_bytes;

        tsr_copy16(stage + DIM * TOKENS + t * DIM + i % n_chunks * 16,
                   row + seen % kv.block_tokens * kv.padded_dim + i % n_chunks * 16, is_wanted);
    }
    if ((int)threadIdx.x < 4 * CHUNKS) { // eight scales each: of keys, then of values
        const int t = (int)threadIdx.x % (2 * CHUNKS) * 8;
        const bool of_values = (int)threadIdx.x >= 2 * CHUNKS;
        const bool is_wanted = first + t < high && first + t + 8 > low;
        const int seen = is_wanted ? first + t : low;
        const char *head = (const char *)kv.keys(slots[seen / kv.block_tokens], kv_head);
        const char *scales = of_values ? head + kv.key_bytes + kv.padded_dim * kv.block_tokens
                                       : head + kv.key_dim * kv.block_tokens;

        tsr_copy16(stage + tsr_attention_plan<DIM>::STAGE + (int)threadIdx.x * 16,
                   scales + seen % kv.block_tokens / 8 * 16, is_wanted);
    }
}

/* Four codes as halves; e4m3 are 256 times smaller. */
static __device__ __forceinline__ uint2 tsr_widen(uint32_t codes, bool is_fp8)
{
    uint2 both;

    if (is_fp8) {
        both.x = tsr_two_e4m3(codes & 0xFF, codes >> 8 & 0xFF);
        both.y = tsr_two_e4m3(codes >> 16 & 0xFF, codes >> 24);
    } else {
        both.x = tsr_pair_of((float)(int8_t)codes, (float)(int8_t)(codes >> 8), __half());
        both.y = tsr_pair_of((float)(int8_t)(codes >> 16), (float)(int8_t)(codes >> 24), __half());
    }
    return both;
}

/* Of rows with room for N sixteens of codes the first n, into rows as tsr_attend_tile() reads them.
 */
template <int N>
static __device__ __forceinline__ void tsr_widen_rows(__half *to, const char *from, int n_rows,
                                                      int n, int n_threads, bool is_fp8)
{
    for (int i = threadIdx.x; i < n_rows * n; i += n_threads) {
        const uint4 codes = *(const uint4 *)(from + (i / n * N + i % n) * 16);

#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint2 low = tsr_widen(half == 0 ? codes.x : codes.z, is_fp8);
            const uint2 high = tsr_widen(half == 0 ? codes.y : codes.w, is_fp8);

            ((uint4 *)to)[tsr_place_of<2 * N>(i / n, i % n * 2 + half)] =
                make_uint4(low.x, low.y, high.x, high.y);
        }
    }
}

/* B fragments of sixteen rows and sixteen columns out of rows of N chunks: two for each half of the
 * columns. */
template <int N, class T>
static __device__ __forceinline__ void tsr_load_b(uint32_t b[4], const T *tile, int row, int column)
{
    const int lane = (int)threadIdx.x % TSR_WARP;

    tsr_load_matrices4_transposed(b, (const uint4 *)tile +
                                         tsr_place_of<N>(row + lane % 16, column / 8 + lane / 16));
}

#endif
