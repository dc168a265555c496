/*
 * kernels/attention_blocks.cuh - what the kernels of attention on tensor cores share: which queries
 * a block has and what they see, sinks, the merging of runs, and launches. Private to CUDA files.
 *
 * Sequences with more than one row are taken by blocks of a number of queries, each over all that
 * these see; the last tiles of a prompt see most and come first. A sequence with a single row is
 * cut into runs of TSR_ATTENTION_RUN positions, a block each for sixteen heads of a group; a second
 * kernel merges the runs by log-sum-exp.
 */
#ifndef TSR_KERNELS_ATTENTION_BLOCKS_CUH
#define TSR_KERNELS_ATTENTION_BLOCKS_CUH

#include "kernels/attention_softmax.cuh"

enum {
    TSR_ATTENTION_MERGE_THREADS = 128
};

/* ---- a block --------------------------------------------------------------------------------- */

/* Query i of a block's: sequence rows times heads of a group, head by head. */
struct tsr_attention_block {
    int seq, kv_head;
    int first_row, n_rows, first_pos; // of the sequence
    int first, n;                     // queries of this block
    int low, high;                    // positions that they see

    __device__ int row(int i, int group) const
    {
        return (first + i) / group;
    }
    __device__ int head(int i, const tsr_attention_work &w) const
    {
        return kv_head * w.group - w.first_head + (first + i) % w.group;
    }
    __device__ bool has(int i, const tsr_attention_work &w) const
    {
        return i < n && w.is_own(head(i, w), kv_head);
    }
    __device__ void take(int sequence, const tsr_batch_rows &batch)
    {
        seq = sequence;
        first_row = batch.row_start[seq];
        n_rows = batch.row_start[seq + 1] - first_row;
        first_pos = batch.first_pos[seq];
    }
};

/* The sequence that has a tile, and the tile's number in it: sequences with one row have none here.
 * Every warp looks for itself. */
static __device__ __forceinline__ int tsr_find_tile(int &tile, const tsr_batch_rows &batch,
                                                    int group, int n_queries)
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

/* Blocks (tile of n_queries, KV head). False, for the whole block, where there is no such tile. */
static __device__ __forceinline__ bool tsr_find_prompt(tsr_attention_block &b,
                                                       const tsr_attention_work &w, int n_queries)
{
    int tile = (int)(gridDim.x - 1 - blockIdx.x);
    const int seq = tsr_find_tile(tile, w.batch, w.group, n_queries);

    if (seq < 0) {
        return false;
    }
    b.take(seq, w.batch);
    b.kv_head = (int)blockIdx.y;
    b.first = tile * n_queries;
    b.n = b.n_rows * w.group - b.first < n_queries ? b.n_rows * w.group - b.first : n_queries;
    b.low = w.first_seen(b.first_pos + b.row(0, w.group));
    b.high = b.first_pos + b.row(b.n - 1, w.group) + 1;
    return true;
}

/* Blocks (sequence, KV head and tile of its group's heads, run). False where there is nothing to
 * do. */
static __device__ __forceinline__ bool tsr_find_run(tsr_attention_block &b,
                                                    const tsr_attention_work &w)
{
    b.take(w.first_seq + (int)blockIdx.x, w.batch);

    const int first_seen = w.first_seen(b.first_pos);
    const int run = first_seen / TSR_ATTENTION_RUN + (int)blockIdx.z;
    const int start = run * TSR_ATTENTION_RUN;

    if (b.n_rows != 1 || start > b.first_pos) {
        return false;
    }
    b.kv_head = (int)blockIdx.y / w.n_tiles;
    b.first = (int)blockIdx.y % w.n_tiles * TSR_ATTENTION_QUERIES;
    b.n = w.group - b.first < TSR_ATTENTION_QUERIES ? w.group - b.first : TSR_ATTENTION_QUERIES;
    b.low = start > first_seen ? start : first_seen;
    b.high =
        start + TSR_ATTENTION_RUN < b.first_pos + 1 ? start + TSR_ATTENTION_RUN : b.first_pos + 1;
    return true;
}

/* Is the run of a block the only one of its sequence? */
static __device__ __forceinline__ bool tsr_is_only_run(const tsr_attention_block &b,
                                                       const tsr_attention_work &w)
{
    return b.first_pos / TSR_ATTENTION_RUN == w.first_seen(b.first_pos) / TSR_ATTENTION_RUN;
}

/* Queries [0, n) as elements of products, rows of DIM of which the first n_dims, a multiple of 16,
 * are used; zeros for what is not there. */
template <int DIM, int THREADS, class T>
static __device__ __forceinline__ void tsr_load_queries(T *to, const tsr_attention_work &w,
                                                        const tsr_attention_block &b, int n,
                                                        int n_dims)
{
    const int n_pairs = n_dims / 2;

    for (int i = threadIdx.x; i < n * n_pairs; i += THREADS) {
        const int row = i / n_pairs;
        const int d = i % n_pairs * 2;
        const bool is_there = b.has(row, w) && d < w.kv.key_dim;
        const float *from =
            is_there ? w.q[b.first_row + b.row(row, w.group)] + b.head(row, w) * w.kv.key_dim + d
                     : NULL;

        ((uint32_t *)to)[tsr_place_of<DIM / 8>(row, d / 8) * 4 + d % 8 / 2] =
            is_there ? tsr_pair_of(from[0], from[1], T()) : 0;
    }
}

/* The lane's two of the warp's sixteen queries from the first on. */
static __device__ __forceinline__ tsr_attention_queries tsr_queries_of(const tsr_attention_work &w,
                                                                       const tsr_attention_block &b,
                                                                       int first)
{
    tsr_attention_queries mine;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int i = first + (int)threadIdx.x % TSR_WARP / 4 + 8 * half;

        mine.position[half] = b.has(i, w) ? b.first_pos + b.row(i, w.group) : -1;
        mine.head[half] = b.head(i, w);
    }
    return mine;
}

/* What was seen before and a sink join what a query has seen: a dimension of the output becomes
 * own * its sum + others[d] * before. */
struct tsr_joined {
    float own, before;
    const float *others; // NULL: nothing was seen before

    __device__ float of(float sum, int d) const
    {
        return others == NULL ? sum * own : sum * own + others[d] * before;
    }
};

static __device__ __forceinline__ tsr_joined tsr_join(float sum, float largest,
                                                      const tsr_attention_work &w, int row,
                                                      int head)
{
    const bool has_before = w.has_before && w.before_l[row][head] > 0.0F;
    const float earlier = has_before ? w.before_m[row][head] * TSR_ATTENTION_LOG2_E : -INFINITY;
    const float sink = w.sinks != NULL ? w.sinks[head] * TSR_ATTENTION_LOG2_E : -INFINITY;
    const float most = fmaxf(fmaxf(sink, earlier), largest);
    tsr_joined all;

    all.own = tsr_fast_exp2(largest - most);
    all.before = tsr_fast_exp2(earlier - most);
    all.others = has_before ? w.before_o[row] + head * w.kv.value_dim : NULL;
    sum = sum * all.own + tsr_fast_exp2(sink - most) +
          (has_before ? w.before_l[row][head] * all.before : 0.0F);
    all.own /= sum;
    all.before /= sum;
    return all;
}

/* ---- merging --------------------------------------------------------------------------------- */

/* Blocks: (sequence, head). The runs of a sequence that has one row and more than one run; values
 * of up to DIMS * MERGE_THREADS dimensions. */
template <int DIMS>
static __global__ void __launch_bounds__(TSR_ATTENTION_MERGE_THREADS)
    tsr_merge_runs(tsr_attention_work w)
{
    constexpr int THREADS = TSR_ATTENTION_MERGE_THREADS;
    __shared__ float factors[THREADS];
    __shared__ float sums[THREADS];
    const int seq = w.first_seq + (int)blockIdx.x;
    const int head = (int)blockIdx.y;
    const int row = w.batch.row_start[seq];
    const int position = w.batch.first_pos[seq];
    const int n_runs =
        position / TSR_ATTENTION_RUN - w.first_seen(position) / TSR_ATTENTION_RUN + 1;

    if (w.batch.row_start[seq + 1] - row != 1 || n_runs == 1) { // the same for the whole block
        return;
    }
    float most = -INFINITY;
    float sum = 0.0F;
    float o[DIMS] = {}; // of dimensions threadIdx.x, that + THREADS, ...

    for (int i = threadIdx.x; i < n_runs; i += THREADS) {
        most = fmaxf(most, w.run(seq, head, i)[0]);
    }
    most = tsr_block_largest<THREADS>(most);
    for (int first = 0; first < n_runs; first += THREADS) {
        const int n = n_runs - first < THREADS ? n_runs - first : THREADS;

        if ((int)threadIdx.x < n) {
            const float *run = w.run(seq, head, first + (int)threadIdx.x);

            factors[threadIdx.x] = tsr_fast_exp2(run[0] - most);
            sums[threadIdx.x] = run[1] * factors[threadIdx.x];
        }
        __syncthreads();
        for (int i = 0; i < n; i++) {
            const float *run = w.run(seq, head, first + i) + 2;

            sum += sums[i];
#pragma unroll
            for (int j = 0; j < DIMS; j++) {
                const int d = (int)threadIdx.x + j * THREADS;

                o[j] += d < w.kv.value_dim ? run[d] * factors[i] : 0.0F;
            }
        }
        __syncthreads();
    }
    const tsr_joined all = tsr_join(sum, most, w, row, head);

#pragma unroll
    for (int j = 0; j < DIMS; j++) {
        const int d = (int)threadIdx.x + j * THREADS;

        if (d < w.kv.value_dim) {
            w.out[row][head * w.kv.value_dim + d] = all.of(o[j], d);
        }
    }
}

/* ---- launches -------------------------------------------------------------------------------- */

typedef void tsr_attention_kernel(tsr_attention_work w);

/* The kernels of one kind of cache. */
struct tsr_attention_kernels {
    tsr_attention_kernel *prompt, *run, *merge;
    int n_queries; // a block of prompts
    unsigned n_threads;
    size_t shared_bytes;
};

/* More shared memory than kernels have by themselves must be asked for. */
static inline tsr_status tsr_attention_launch(tsr_attention_kernel *kernel, dim3 grid,
                                              const tsr_attention_kernels &all, cudaStream_t queue,
                                              const tsr_attention_work &w)
{
    TSR_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      (int)all.shared_bytes));
    kernel<<<grid, all.n_threads, all.shared_bytes, queue>>>(w);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* All rows; `room` bytes from w.runs on are there for runs. */
static inline tsr_status tsr_attention_run(tsr_device *dev, tsr_attention_work &w,
                                           const tsr_attention_kernels &all, const tsr_batch *batch,
                                           int64_t n_rows, size_t room)
{
    const cudaStream_t queue = tsr_cuda_queue(dev);
    const unsigned n_groups = (unsigned)((w.first_head + w.n_heads + w.group - 1) / w.group);
    const size_t a_seq =
        (size_t)w.n_runs * (size_t)w.n_heads * (size_t)(w.kv.value_dim + 2) * sizeof(float);
    const int64_t seqs_a_turn = w.n_runs == 1 ? batch->n_seqs : (int64_t)(room / a_seq);

    if (seqs_a_turn == 0) {
        return tsr_fail(TSR_ERR_ARG, "attention: %zu bytes of scratch are needed, %zu are reserved",
                        a_seq, room);
    }
    if (batch->most_rows != 1) {
        // As many tiles as there can be: one more for each sequence whose last is not full.
        const int64_t n_tiles = n_rows * w.group / all.n_queries + batch->n_seqs;

        TSR_TRY(tsr_attention_launch(all.prompt, dim3((unsigned)n_tiles, n_groups), all, queue, w));
    }
    for (int64_t first = 0; first < batch->n_seqs; first += seqs_a_turn) {
        const int64_t n = batch->n_seqs - first < seqs_a_turn ? batch->n_seqs - first : seqs_a_turn;

        w.first_seq = (int)first;
        TSR_TRY(tsr_attention_launch(
            all.run, dim3((unsigned)n, n_groups * (unsigned)w.n_tiles, (unsigned)w.n_runs), all,
            queue, w));
        if (w.n_runs > 1) {
            all.merge<<<dim3((unsigned)n, (unsigned)w.n_heads), TSR_ATTENTION_MERGE_THREADS, 0,
                        queue>>>(w);
            TSR_CUDA_LAUNCHED();
        }
    }
    return TSR_OK;
}

#endif
