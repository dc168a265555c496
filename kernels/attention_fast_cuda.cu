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
 * for f16 and bf16, f16 for codes of 8 bits. These become f16, without loss, on their way from one
 * part of shared memory to another; their scales multiply scores and weights.
 */
#include "kernels/attention_fast.cuh"

#include "kernels/attention_softmax.cuh"
#include "kernels/kv_codes.cuh"
#include "kernels/kv_elements.cuh"

enum {
    RUN = TSR_ATTENTION_RUN,
    QUERIES = TSR_ATTENTION_QUERIES,
    MERGE_THREADS = 128
};

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
    __device__ int head(int i, const tsr_attention_work &w) const
    {
        return kv_head * w.group - w.first_head + (first + i) % w.group;
    }
    __device__ bool has(int i, const tsr_attention_work &w) const
    {
        return i < n && w.is_own(head(i, w), kv_head);
    }
};

template <int DIM, class T>
static __device__ __forceinline__ void load_queries(T *to, const tsr_attention_work &w,
                                                    const block_queries &b, int n)
{
    const int n_pairs = (w.kv.key_dim + 15) / 16 * 8;

    for (int i = threadIdx.x; i < n * n_pairs; i += tsr_attention_plan<DIM>::THREADS) {
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

/* All tiles of [low, high), for the warp's queries; of each the tokens [from, to), N at once. */
template <int DIM, int N, bool CODED, class T>
static __device__ __forceinline__ void attend(tsr_softmax<DIM> &state, T *shared, const T *own_q,
                                              const tsr_attention_work &w, const block_queries &b,
                                              const tsr_attention_queries &mine, int low, int high,
                                              int from, int to)
{
    typedef tsr_attention_plan<DIM> plan;
    const int32_t *slots = w.batch.slots_of(b.first_row);
    const int first_p = b.first_pos + b.row(0, w.group);
    const int last_p = b.first_pos + b.row(b.n - 1, w.group);
    char *codes = (char *)(shared + plan::STAGE);
    int stage = 0;
    const auto copy = [&](int which, int first) {
        if constexpr (CODED) {
            tsr_copy_codes<DIM>(codes + which * plan::CODED_STAGE, w.kv, slots, b.kv_head, first,
                                low, high);
        } else {
            tsr_copy_tile<DIM>(shared + which * plan::STAGE, w.kv, slots, b.kv_head, first, low,
                               high);
        }
        tsr_copies_end_group();
    };

    copy(0, low / plan::TOKENS * plan::TOKENS);
    for (int first = low / plan::TOKENS * plan::TOKENS; first < high;
         first += plan::TOKENS, stage ^= 1) {
        const bool is_whole = first + plan::TOKENS - 1 <= first_p && first >= w.first_seen(last_p);
        const T *tile = shared + stage * plan::STAGE;
        const uint16_t *scales = NULL;

        if (first + plan::TOKENS < high) {
            copy(stage ^ 1, first + plan::TOKENS);
            tsr_copies_wait<1>();
        } else {
            tsr_copies_wait<0>();
        }
        __syncthreads(); // all threads' copies are there
        if constexpr (CODED) {
            const char *bytes = codes + stage * plan::CODED_STAGE;

            tsr_widen_rows<plan::TOKENS / 16>(shared, bytes, (w.kv.key_dim + 15) / 16 * 16,
                                              plan::TOKENS / 16, plan::THREADS, w.is_fp8);
            tsr_widen_rows<DIM / 16>(shared + DIM * plan::TOKENS, bytes + DIM * plan::TOKENS,
                                     plan::TOKENS, w.kv.padded_dim / 16, plan::THREADS, w.is_fp8);
            tile = shared;
            scales = (const uint16_t *)(bytes + plan::STAGE);
            __syncthreads();
        }
        for (int at = from; at < to; at += N) {
            tsr_attend_tile<DIM, N>(state, own_q, tile, scales, w, mine, first, at, is_whole);
        }
        __syncthreads(); // nobody reads what comes next over it
    }
    state.finish();
}

static __device__ __forceinline__ tsr_attention_queries queries_of(const tsr_attention_work &w,
                                                                   const block_queries &b,
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
struct joined {
    float own, before;
    const float *others; // NULL: nothing was seen before

    __device__ float of(float sum, int d) const
    {
        return others == NULL ? sum * own : sum * own + others[d] * before;
    }
};

static __device__ __forceinline__ joined join(float sum, float largest, const tsr_attention_work &w,
                                              int row, int head)
{
    const bool has_before = w.has_before && w.before_l[row][head] > 0.0F;
    const float earlier = has_before ? w.before_m[row][head] * TSR_ATTENTION_LOG2_E : -INFINITY;
    const float sink = w.sinks != NULL ? w.sinks[head] * TSR_ATTENTION_LOG2_E : -INFINITY;
    const float most = fmaxf(fmaxf(sink, earlier), largest);
    joined all;

    all.own = tsr_fast_exp2(largest - most);
    all.before = tsr_fast_exp2(earlier - most);
    all.others = has_before ? w.before_o[row] + head * w.kv.value_dim : NULL;
    sum = sum * all.own + tsr_fast_exp2(sink - most) +
          (has_before ? w.before_l[row][head] * all.before : 0.0F);
    all.own /= sum;
    all.before /= sum;
    return all;
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
template <int DIM, class T, bool CODED>
static __global__ void __launch_bounds__(tsr_attention_plan<DIM>::THREADS,
                                         tsr_attention_plan<DIM>::BLOCKS)
    attend_prompt(tsr_attention_work w)
{
    extern __shared__ __align__(16) char memory[];
    T *own_q = (T *)memory + (int)threadIdx.x / TSR_WARP * QUERIES * DIM;
    T *stages = (T *)memory + tsr_attention_plan<DIM>::ROWS * DIM;
    int tile = (int)(gridDim.x - 1 - blockIdx.x);
    const int seq = find_tile(tile, w.batch, w.group, tsr_attention_plan<DIM>::ROWS);

    if (seq < 0) { // the same for the whole block
        return;
    }
    block_queries b;

    b.kv_head = (int)blockIdx.y;
    b.first_row = w.batch.row_start[seq];
    b.n_rows = w.batch.row_start[seq + 1] - b.first_row;
    b.first_pos = w.batch.first_pos[seq];
    b.first = tile * tsr_attention_plan<DIM>::ROWS;
    b.n = b.n_rows * w.group - b.first < tsr_attention_plan<DIM>::ROWS
              ? b.n_rows * w.group - b.first
              : tsr_attention_plan<DIM>::ROWS;
    const int warp_first = (int)threadIdx.x / TSR_WARP * QUERIES;
    const tsr_attention_queries mine = queries_of(w, b, warp_first);
    tsr_softmax<DIM> state;

    load_queries<DIM>((T *)memory, w, b, tsr_attention_plan<DIM>::ROWS);
    attend<DIM, tsr_attention_plan<DIM>::AT_ONCE, CODED>(
        state, stages, own_q, w, b, mine, w.first_seen(b.first_pos + b.row(0, w.group)),
        b.first_pos + b.row(b.n - 1, w.group) + 1, 0, tsr_attention_plan<DIM>::TOKENS);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (mine.position[half] >= 0) {
            const int row = b.first_row + mine.position[half] - b.first_pos;
            const joined all = join(state.sum[half], state.largest[half], w, row, mine.head[half]);
            float *to = w.out[row] + mine.head[half] * w.kv.value_dim;

#pragma unroll
            for (int n = 0; n < DIM; n += 8) {
                const int d = n + (int)threadIdx.x % 4 * 2;

                if (d < w.kv.value_dim) { // a multiple of 8
                    to[d] = all.of(state.o[n / 8][2 * half], d);
                    to[d + 1] = all.of(state.o[n / 8][2 * half + 1], d + 1);
                }
            }
        }
    }
}

/* Blocks: (sequence, KV head and tile of its group's heads, run). */
template <int DIM, class T, bool CODED>
static __global__ void __launch_bounds__(tsr_attention_plan<DIM>::THREADS,
                                         tsr_attention_plan<DIM>::BLOCKS)
    attend_run(tsr_attention_work w)
{
    extern __shared__ __align__(16) char memory[];
    constexpr int WARPS = tsr_attention_plan<DIM>::WARPS;
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
    const tsr_attention_queries mine = queries_of(w, b, 0);
    const int low = run * RUN > first_seen ? run * RUN : first_seen;
    const int high = (run + 1) * RUN < b.first_pos + 1 ? (run + 1) * RUN : b.first_pos + 1;
    tsr_softmax<DIM> state;

    load_queries<DIM>((T *)memory, w, b, QUERIES);
    attend<DIM, QUERIES, CODED>(state, (T *)memory + tsr_attention_plan<DIM>::ROWS * DIM,
                                (const T *)memory, w, b, mine, low, high,
                                (int)threadIdx.x / TSR_WARP * QUERIES,
                                ((int)threadIdx.x / TSR_WARP + 1) * QUERIES);

    // The warps' parts: [warp][query] of (largest, sum, output).
    float *parts = (float *)((T *)memory + tsr_attention_plan<DIM>::ROWS * DIM);
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

    for (int i = threadIdx.x; i < b.n * w.kv.value_dim; i += tsr_attention_plan<DIM>::THREADS) {
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
            w.out[b.first_row][head * w.kv.value_dim + d] =
                join(sum, most, w, b.first_row, head).of(o, d);
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
static __global__ void __launch_bounds__(MERGE_THREADS) merge_runs(tsr_attention_work w)
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
    const joined all = join(sum, most, w, row, head);

    for (int j = 0; j < 2; j++) {
        const int d = (int)threadIdx.x + j * MERGE_THREADS;

        if (d < w.kv.value_dim) {
            w.out[row][head * w.kv.value_dim + d] = all.of(o[j], d);
        }
    }
}

/* ---- launches
 * ------------------------------------------------------------------------------------ */

bool tsr_attention_fast_can(const tsr_kv_view *kv, const tsr_attention_shape *shape)
{
    const tsr_kv_layout *layout = kv->layout;

    return (layout->type == TSR_KV_TYPE_F16 || layout->type == TSR_KV_TYPE_BF16 ||
            tsr_kv_bits(layout->type) == 8) &&
           !layout->latent && shape->stride == 0 && layout->key_dim % 8 == 0 &&
           layout->value_dim % 8 == 0 && layout->key_dim <= 256 && layout->value_dim <= 256 &&
           kv->block_bytes % 16 == 0 && (uintptr_t)kv->pool % 16 == 0 &&
           (uintptr_t)kv->host_pool % 16 == 0;
}

/* More shared memory than kernels have by themselves must be asked for. */
template <class K>
static tsr_status launch(K *kernel, dim3 grid, unsigned n_threads, size_t shared_bytes,
                         cudaStream_t queue, const tsr_attention_work &w)
{
    TSR_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      (int)shared_bytes));
    kernel<<<grid, n_threads, shared_bytes, queue>>>(w);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

template <int DIM, class T, bool CODED>
static tsr_status attend_as(tsr_device *dev, tsr_attention_work &w, const tsr_batch *batch,
                            int64_t n_rows, size_t room)
{
    const cudaStream_t queue = tsr_cuda_queue(dev);
    const size_t shared_bytes = tsr_attention_plan<DIM>::shared_bytes(CODED);
    const int n_groups = (w.first_head + w.n_heads + w.group - 1) / w.group;
    const size_t a_seq =
        (size_t)w.n_runs * (size_t)w.n_heads * (size_t)(w.kv.value_dim + 2) * sizeof(float);
    const int64_t seqs_a_turn = w.n_runs == 1 ? batch->n_seqs : (int64_t)(room / a_seq);

    if (seqs_a_turn == 0) {
        return tsr_fail(TSR_ERR_ARG, "attention: %zu bytes of scratch are needed, %zu are reserved",
                        a_seq, room);
    }
    if (batch->most_rows != 1) {
        // As many tiles as there can be: one more for each sequence whose last is not full.
        const int64_t n_tiles = n_rows * w.group / tsr_attention_plan<DIM>::ROWS + batch->n_seqs;

        TSR_TRY(launch(attend_prompt<DIM, T, CODED>, dim3((unsigned)n_tiles, (unsigned)n_groups),
                       tsr_attention_plan<DIM>::THREADS, shared_bytes, queue, w));
    }
    for (int64_t first = 0; first < batch->n_seqs; first += seqs_a_turn) {
        const int64_t n = batch->n_seqs - first < seqs_a_turn ? batch->n_seqs - first : seqs_a_turn;

        w.first_seq = (int)first;
        TSR_TRY(launch(attend_run<DIM, T, CODED>,
                       dim3((unsigned)n, (unsigned)(n_groups * w.n_tiles), (unsigned)w.n_runs),
                       tsr_attention_plan<DIM>::THREADS, shared_bytes, queue, w));
        if (w.n_runs > 1) {
            merge_runs<<<dim3((unsigned)n, (unsigned)w.n_heads), MERGE_THREADS, 0, queue>>>(w);
            TSR_CUDA_LAUNCHED();
        }
    }
    return TSR_OK;
}

template <class T, bool CODED>
static tsr_status attend_of(tsr_device *dev, tsr_attention_work &w, const tsr_batch *batch,
                            int64_t n_rows, size_t room)
{
    const int dim = w.kv.key_dim > w.kv.value_dim ? w.kv.key_dim : w.kv.value_dim;

    return dim <= 64    ? attend_as<64, T, CODED>(dev, w, batch, n_rows, room)
           : dim <= 128 ? attend_as<128, T, CODED>(dev, w, batch, n_rows, room)
                        : attend_as<256, T, CODED>(dev, w, batch, n_rows, room);
}

tsr_status tsr_attention_fast(tsr_device *dev, tsr_tensor out, tsr_tensor q, const tsr_kv_view *kv,
                              const tsr_batch *batch, const tsr_attention_shape *shape)
{
    const int64_t all_runs = (batch->longest + RUN - 1) / RUN;
    const int64_t seen_runs = shape->window > 0 ? (shape->window + RUN - 2) / RUN + 1 : all_runs;
    const tsr_kv_layout *layout = kv->layout;
    const bool is_turned = layout->type == TSR_KV_TYPE_INT8;
    const size_t turned_bytes = is_turned ? (size_t)(q.n_rows * q.n_cols) * sizeof(float) : 0;
    const size_t room = dev->scratch_bytes - turned_bytes;
    tsr_attention_work w = {};

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
    w.has_before = shape->before != NULL;
    if (w.has_before) {
        w.before_o = tsr_rows_of<const float>(shape->before->o);
        w.before_m = tsr_rows_of<const float>(shape->before->m);
        w.before_l = tsr_rows_of<const float>(shape->before->l);
    }
    w.n_runs = (int)(seen_runs < all_runs ? seen_runs : all_runs);
    w.is_fp8 = layout->type == TSR_KV_TYPE_FP8;
    if (turned_bytes > dev->scratch_bytes) {
        return tsr_fail(TSR_ERR_ARG, "attention: %zu bytes of scratch are needed, %zu are reserved",
                        turned_bytes, dev->scratch_bytes);
    }
    w.runs = (float *)((char *)dev->scratch + turned_bytes);
    if (is_turned) { // queries turn with the keys, and outputs turn back
        const tsr_tensor turned =
            tsr_tensor_of(dev->scratch, TSR_DTYPE_F32, q.on, q.n_rows, q.n_cols);

        TSR_TRY(tsr_kv_codes_turn(dev, turned, q, shape->n_heads, layout->key_dim,
                                  tsr_kv_code_key_unit(layout), 1.0F));
        w.q = tsr_rows_of<const float>(turned);
    }
    if (layout->type == TSR_KV_TYPE_BF16) {
        TSR_TRY((attend_of<__nv_bfloat16, false>(dev, w, batch, q.n_rows, room)));
    } else if (layout->type == TSR_KV_TYPE_F16) {
        TSR_TRY((attend_of<__half, false>(dev, w, batch, q.n_rows, room)));
    } else {
        TSR_TRY((attend_of<__half, true>(dev, w, batch, q.n_rows, room)));
    }
    return is_turned ? tsr_kv_codes_turn(dev, out, out, shape->n_heads, layout->value_dim,
                                         tsr_kv_code_value_unit(layout), 1.0F)
                     : TSR_OK;
}
