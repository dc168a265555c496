/*
 * Attention in two steps. A block takes a row, up to HEADS query heads that share a KV head, and a
 * run of TSR_ATTENTION_RUN positions: scores by a thread a position, softmax, then the weighted sum
 * of values by a thread a dimension. What a run gives (largest score, sum, output) goes to scratch,
 * and a second kernel merges the runs of a row in ascending order. So long contexts keep the whole
 * GPU busy with one row, and a row's result depends on neither its company nor the number of blocks
 * at work.
 */
#include "kernels/tiles.cuh"

#include "kernels/attention_fast.cuh"
#include "kernels/batch.cuh"

enum {
    RUN = TSR_ATTENTION_RUN,
    THREADS = RUN, // one a position
    MAX_DIM = TSR_KV_LAYOUT_MOST_DIM,
    HEADS = 4 // query heads a block: a float4
};

static __device__ __forceinline__ float value_of(float x)
{
    return x;
}
static __device__ __forceinline__ float value_of(__half x)
{
    return __half2float(x);
}
static __device__ __forceinline__ float value_of(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

/* What runs leave behind: [rows, heads, runs] of (largest, sum, output [head_dim]). */
struct partials {
    float *data;
    int64_t n_runs;
    int n_heads;
    int head_dim; // of values

    __device__ float *of(int64_t row, int head, int64_t run) const
    {
        return data + ((row * n_heads + head) * n_runs + run) * (head_dim + 2);
    }
};

struct heads {
    int n, group, first;
    float scale;
};

/* Heads of a chunk that belong to another rank, or to another group, are worked at and not kept. */
static __device__ __forceinline__ bool is_own(const heads &heads, int head, int last_head)
{
    return head >= 0 && head < heads.n && head < last_head;
}

/* Blocks: (row, chunk of heads, run). A chunk is HEADS heads of one KV head or fewer. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    attend_run(partials out, tsr_rows<const float> q, tsr_kv_place kv, tsr_batch_rows batch,
               heads heads, int64_t first_row, int chunks_a_group)
{
    __shared__ float4 queries[MAX_DIM]; // of four heads
    __shared__ float weights[HEADS][RUN];
    __shared__ float largests[HEADS];
    const int64_t row = first_row + blockIdx.x;
    const int kv_head = (int)blockIdx.y / chunks_a_group;
    const int in_group = (int)blockIdx.y % chunks_a_group * HEADS;
    // Heads of the whole group; those of other ranks are not here.
    const int first_head = kv_head * heads.group + in_group - heads.first;
    const int last_head = (kv_head + 1) * heads.group - heads.first;
    const int64_t first = (int64_t)blockIdx.z * RUN;
    const int64_t position = batch.position_of(row);
    const int n = position + 1 - first < RUN ? (int)(position + 1 - first) : RUN;
    const int dim = kv.key_dim;
    const int value_dim = kv.value_dim;
    const int32_t *slots = batch.slots_of(row);

    if (n <= 0) { // the same for the whole block
        return;
    }
    for (int i = threadIdx.x; i < HEADS * dim; i += THREADS) {
        const int head = first_head + i / dim;

        ((float *)&queries[i % dim])[i / dim] =
            is_own(heads, head, last_head) ? q[row][head * dim + i % dim] * heads.scale : 0.0F;
    }
    __syncthreads();
    {
        float scores[HEADS] = {};
        const bool is_there = (int)threadIdx.x < n;
        const int64_t at = first + threadIdx.x;

        if (is_there) {
            const T *keys =
                (const T *)kv.keys(slots[at / kv.block_tokens], kv_head) + at % kv.block_tokens;

            for (int d = 0; d < dim; d++) {
                const float key = value_of(keys[d * kv.block_tokens]);
                const float4 query = queries[d];

                scores[0] = fmaf(query.x, key, scores[0]);
                scores[1] = fmaf(query.y, key, scores[1]);
                scores[2] = fmaf(query.z, key, scores[2]);
                scores[3] = fmaf(query.w, key, scores[3]);
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            const float largest = tsr_block_largest<THREADS>(is_there ? scores[h] : -INFINITY);

            weights[h][threadIdx.x] = is_there ? tsr_exp(scores[h] - largest) : 0.0F;
            if (threadIdx.x == 0) {
                largests[h] = largest;
            }
        }
    }
    __syncthreads();
    if (threadIdx.x < HEADS * TSR_SUM_LANES) { // whole warps
        const int h = (int)threadIdx.x / TSR_SUM_LANES;
        float sum = 0.0F;

        for (int t = (int)threadIdx.x % TSR_SUM_LANES; t < RUN; t += TSR_SUM_LANES) {
            sum += weights[h][t];
        }
        sum = tsr_sum_of_lanes(sum);
        if (threadIdx.x % TSR_SUM_LANES == 0 && is_own(heads, first_head + h, last_head)) {
            float *part = out.of(blockIdx.x, first_head + h, blockIdx.z);

            part[0] = largests[h];
            part[1] = sum;
        }
    }
    // A thread a head and dimension, each over all positions in their order.
    for (int i = threadIdx.x; i < HEADS * value_dim; i += THREADS) {
        const int h = i / value_dim;
        const int d = i % value_dim;
        float sum = 0.0F;

        const int n_seen = is_own(heads, first_head + h, last_head) ? n : 0;

        for (int block = 0; block < n_seen; block += kv.block_tokens) { // runs begin with a block
            const T *values =
                (const T *)kv.keys(slots[(first + block) / kv.block_tokens], kv_head) +
                (size_t)dim * kv.block_tokens + d;
            const int end = block + kv.block_tokens < n_seen ? block + kv.block_tokens : n_seen;

            for (int t = block; t < end; t++, values += kv.padded_dim) {
                sum = fmaf(weights[h][t], value_of(*values), sum);
            }
        }
        if (is_own(heads, first_head + h, last_head)) {
            out.of(blockIdx.x, first_head + h, blockIdx.z)[2 + d] = sum;
        }
    }
}

/* A block a row and head, a thread a dimension. */
static __global__ void merge_runs(tsr_rows<float> out, partials runs, tsr_batch_rows batch,
                                  int64_t first_row)
{
    const int64_t row = first_row + blockIdx.x;
    const int head = (int)blockIdx.y;
    const int64_t n_runs = batch.position_of(row) / RUN + 1;

    for (int d = threadIdx.x; d < runs.head_dim; d += (int)blockDim.x) {
        const float *run = runs.of(blockIdx.x, head, 0);
        float largest = run[0];
        float sum = run[1];
        float o = run[2 + d];

        for (int64_t i = 1; i < n_runs; i++) {
            run = runs.of(blockIdx.x, head, i);
            const float new_largest = largest > run[0] ? largest : run[0];
            const float old_factor = tsr_exp(largest - new_largest);
            const float run_factor = tsr_exp(run[0] - new_largest);

            sum = fmaf(run[1], run_factor, sum * old_factor);
            o = fmaf(run[2 + d], run_factor, o * old_factor);
            largest = new_largest;
        }
        out[row][head * runs.head_dim + d] = o / sum;
    }
}

static size_t row_bytes(int64_t longest, int n_heads, int head_dim)
{
    return (size_t)((longest + RUN - 1) / RUN) * (size_t)n_heads * (size_t)(head_dim + 2) *
           sizeof(float);
}

extern "C" size_t tsr_attention_cuda_scratch(int n_threads, const tsr_ops_limits *limits)
{
    const size_t a_row = row_bytes(limits->context, limits->n_heads, limits->head_dim);
    const size_t all = a_row * (size_t)limits->n_rows;
    const size_t most = (size_t)64 << 20; // rows beyond it are taken in turns
    // Beside it, queries that are turned.
    const size_t queries =
        (size_t)limits->n_rows * (size_t)limits->n_heads * (size_t)limits->head_dim * sizeof(float);

    (void)n_threads;
    return queries + (all < most ? all : a_row > most ? a_row : most);
}

extern "C" tsr_status tsr_attention_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor q,
                                         const tsr_kv_view *kv, const tsr_batch *batch,
                                         const tsr_attention_shape *shape)
{
    const size_t a_row = row_bytes(batch->longest, shape->n_heads, kv->layout->value_dim);
    const int64_t n_runs = (batch->longest + RUN - 1) / RUN;
    const int64_t rows_a_turn = (int64_t)(dev->scratch_bytes / a_row);
    const int chunks_a_group = (shape->group + HEADS - 1) / HEADS;
    const int n_groups = (shape->first_head + shape->n_heads + shape->group - 1) / shape->group;
    const partials runs = {(float *)dev->scratch, n_runs, shape->n_heads, kv->layout->value_dim};
    const heads heads = {shape->n_heads, shape->group, shape->first_head, shape->scale};
    const tsr_kv_place place = tsr_kv_place_of(kv);
    const tsr_batch_rows rows = tsr_batch_rows_of(batch);
    const cudaStream_t queue = tsr_cuda_queue(dev);

    if (!dev->deterministic && tsr_attention_fast_can(kv, shape)) {
        return tsr_attention_fast(dev, out, q, kv, batch, shape);
    }
    TSR_TRY(tsr_kv_place_check("attention", kv, false));
    if (shape->softcap != 0 || shape->window != 0 || shape->stride != 0 ||
        shape->slopes.data != NULL || shape->sinks.data != NULL) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "attention: no window, stride, soft cap, slopes or sinks on a GPU yet");
    }
    if (rows_a_turn == 0) {
        return tsr_fail(TSR_ERR_ARG, "attention: %zu bytes of scratch are needed, %zu are reserved",
                        a_row, dev->scratch_bytes);
    }
    for (int64_t first = 0; first < q.n_rows; first += rows_a_turn) {
        const int64_t n = q.n_rows - first < rows_a_turn ? q.n_rows - first : rows_a_turn;
        const dim3 grid((unsigned)n, (unsigned)(n_groups * chunks_a_group), (unsigned)n_runs);

        switch (kv->layout->type) {
        case TSR_KV_TYPE_F32:
            attend_run<float><<<grid, THREADS, 0, queue>>>(runs, tsr_rows_of<const float>(q), place,
                                                           rows, heads, first, chunks_a_group);
            break;
        case TSR_KV_TYPE_F16:
            attend_run<__half><<<grid, THREADS, 0, queue>>>(
                runs, tsr_rows_of<const float>(q), place, rows, heads, first, chunks_a_group);
            break;
        default:
            attend_run<__nv_bfloat16><<<grid, THREADS, 0, queue>>>(
                runs, tsr_rows_of<const float>(q), place, rows, heads, first, chunks_a_group);
            break;
        }
        merge_runs<<<dim3((unsigned)n, (unsigned)shape->n_heads), 64, 0, queue>>>(
            tsr_rows_of<float>(out), runs, rows, first);
        TSR_CUDA_LAUNCHED();
    }
    return TSR_OK;
}

extern "C" tsr_status tsr_attention_part_cuda(tsr_device *dev, const tsr_attention_piece *piece,
                                              tsr_tensor q, const tsr_kv_view *kv,
                                              const tsr_batch *batch,
                                              const tsr_attention_shape *shape, int64_t first_run,
                                              int64_t n_runs)
{
    (void)dev, (void)piece, (void)q, (void)kv, (void)batch, (void)shape, (void)first_run;
    (void)n_runs;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "attention: no pieces of it on a GPU yet");
}

extern "C" tsr_status tsr_attention_merge_cuda(tsr_device *dev, tsr_tensor out,
                                               const tsr_attention_piece *pieces, int n_pieces,
                                               const tsr_kv_layout *layout,
                                               const tsr_attention_shape *shape)
{
    (void)dev, (void)out, (void)pieces, (void)n_pieces, (void)layout, (void)shape;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "attention: no pieces of it on a GPU yet");
}
