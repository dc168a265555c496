/*
 * Attention with the CPU's sums, for every type and layout of the cache and all that can be asked
 * for, in two steps. A block takes a row, up to HEADS query heads that share a KV head, and a run
 * of TSR_ATTENTION_RUN positions: scores by a thread a position, softmax, then the weighted sum of
 * values by a thread a dimension. What a run gives (largest score, sum, output) goes to scratch,
 * and a second kernel merges the runs of a row in ascending order. So long contexts keep the whole
 * GPU busy with one row, and a row's result depends on neither its company nor the number of blocks
 * at work.
 */
#include "kernels/attention_fast.cuh"
#include "kernels/kv_codes.cuh"
#include "kernels/kv_elements.cuh"

enum {
    RUN = TSR_ATTENTION_RUN,
    THREADS = RUN, // one a position
    MERGE_THREADS = 64,
    GROUP = TSR_KV_LAYOUT_GROUP,
    MAX_DIM = TSR_KV_LAYOUT_MOST_DIM,
    HEADS = 4 // query heads a block: a float4
};

/* What attention is asked for, as kernels take it. */
struct work {
    tsr_rows<float> out;
    tsr_rows<const float> q; // to be multiplied by `scale`; turned, if the keys are
    tsr_rows<const float> unturned;
    float scale, unturned_scale;
    tsr_kv_place kv;
    const tsr_kv_drift *drift; // of keys that have means
    tsr_kv_levels levels;
    tsr_batch_rows batch;
    int n_heads, group, first_head, chunks_a_group;
    float softcap, slopes_scale;
    int64_t window, stride, local; // as tsr_attention_shape has them
    const float *slopes, *sinks;
    bool has_before; // what rows have seen of earlier positions
    tsr_rows<const float> before_o, before_m, before_l;
    float *parts; // [rows from first_row on, heads, n_runs] of (largest, sum, output)
    int64_t n_runs, first_row;

    __device__ float *part(int64_t row, int head, int64_t run) const
    {
        return parts + (((row - first_row) * n_heads + head) * n_runs + run) * (kv.value_dim + 2);
    }
    __device__ int64_t first_seen(int64_t position) const
    {
        return window > 0 && position >= window ? position - window + 1 : 0;
    }
    /* The first position of those of which every one is seen. */
    __device__ int64_t first_near(int64_t position) const
    {
        const int64_t first = first_seen(position);
        const int64_t near = position - local + 1;

        return stride == 0 || near < first ? first : near;
    }
};

/* The heads of a block: those of the whole group; some may belong to other ranks, or to another
 * group, and are worked at and not kept. */
struct block_heads {
    int first, n, end;

    __device__ bool has(int h) const
    {
        return first + h >= 0 && first + h < n && first + h < end;
    }
};

/*
 * The i-th run of a row, as the row sees it: token t is at position start + t * step, and tokens
 * [first, end) of it are seen. Without a stride a run is RUN positions. With one, far runs come
 * first, of RUN * stride positions each, of which a row sees those at its own place in the stride,
 * as far as they lie before those of which it sees every one; then near ones.
 */
struct sight {
    int start, step;
    int first, end;
};

static __device__ __forceinline__ int token_from(const sight &s, int64_t position)
{
    const int64_t away =
        position > s.start ? (position - s.start + (int64_t)s.step - 1) / s.step : 0;

    return away < RUN ? (int)away : RUN;
}

/* How many there are; some may see nothing. */
static __device__ __forceinline__ int64_t far_runs(const work &w, int64_t position)
{
    const int64_t first = w.first_seen(position);
    const int64_t near = w.first_near(position);
    const int64_t length = RUN * w.stride;

    return w.stride == 0 || near <= first ? 0 : (near + length - 1) / length - first / length;
}
static __device__ __forceinline__ int64_t runs_of(const work &w, int64_t position)
{
    const int64_t n_near =
        w.stride > 0 && w.local == 0 ? 0 : position / RUN - w.first_near(position) / RUN + 1;

    return far_runs(w, position) + n_near;
}

static __device__ __forceinline__ sight sight_of(const work &w, int64_t position, int64_t run)
{
    const int64_t n_far = far_runs(w, position);
    const int64_t near = w.first_near(position);
    const bool is_far = run < n_far;
    sight s;

    s.step = is_far ? (int)w.stride : 1;
    s.start = (int)(is_far ? (w.first_seen(position) / (RUN * w.stride) + run) * RUN * w.stride +
                                 position % w.stride
                           : (near / RUN + run - n_far) * RUN);
    s.first = token_from(s, is_far ? w.first_seen(position) : near);
    s.end = token_from(s, is_far ? near : position + 1);
    return s;
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* Four heads' queries [dim], multiplied. */
static __device__ __forceinline__ void load_queries(float4 *to, const float *row, float scale,
                                                    const block_heads &heads, int dim)
{
    for (int i = threadIdx.x; i < HEADS * dim; i += THREADS) {
        const int h = i / dim;

        ((float *)&to[i % dim])[h] =
            heads.has(h) ? row[(heads.first + h) * dim + i % dim] * scale : 0.0F;
    }
}

/* The same of keys that have means, split. */
static __device__ __forceinline__ void load_pairs(float4 *to, const work &w, const float *row,
                                                  const block_heads &heads)
{
    const int n_pairs = (w.kv.key_dim + 1) / 2;

    for (int i = threadIdx.x; i < HEADS * 2 * n_pairs; i += THREADS) {
        const int h = i / (2 * n_pairs);
        const int j = i % (2 * n_pairs);
        const int d = j < n_pairs ? w.drift->first[j] : w.drift->second[j - n_pairs];

        ((float *)&to[j])[h] = heads.has(h) && d >= 0
                                   ? row[(heads.first + h) * w.kv.key_dim + d] * w.unturned_scale
                                   : 0.0F;
    }
}

static __device__ __forceinline__ float4 add_products(float4 q, float k, float4 sum)
{
    return make_float4(fmaf(q.x, k, sum.x), fmaf(q.y, k, sum.y), fmaf(q.z, k, sum.z),
                       fmaf(q.w, k, sum.w));
}

/* q . mean, the mean turned on to the token: cos a (q1 m1 + q2 m2) + sin a (q2 m1 - q1 m2); by
 * token, as the CPU has them, q1 (cos a m1 - sin a m2) + q2 (sin a m1 + cos a m2). */
static __device__ __forceinline__ float4 of_mean(const work &w, const float4 *pairs,
                                                 const char *keys, int at)
{
    const int n_pairs = (w.kv.key_dim + 1) / 2;
    const char *mean = tsr_kv_mean(w.kv, keys, at);
    const float scale = __uint_as_float((uint32_t) * (const uint16_t *)mean << 16);
    const int8_t *codes = (const int8_t *)mean + sizeof(uint16_t);
    float4 first = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    float4 second = first;

    for (int j = 0; j < n_pairs; j++) {
        const float m1 = (float)codes[j] * scale;
        const float m2 = (float)codes[n_pairs + j] * scale;
        const float c = w.drift->cosines[j][at % GROUP];
        const float s = w.drift->sines[j][at % GROUP];
        const float4 q1 = pairs[j];
        const float4 q2 = pairs[n_pairs + j];

        if (w.kv.is_by_token) {
            first = add_products(q1, m1 * c - m2 * s, first);
            second = add_products(q2, fmaf(m1, s, m2 * c), second);
        } else {
            const float4 dots = make_float4(fmaf(q2.x, m2, q1.x * m1), fmaf(q2.y, m2, q1.y * m1),
                                            fmaf(q2.z, m2, q1.z * m1), fmaf(q2.w, m2, q1.w * m1));
            const float4 crosses = make_float4(q2.x * m1 - q1.x * m2, q2.y * m1 - q1.y * m2,
                                               q2.z * m1 - q1.z * m2, q2.w * m1 - q1.w * m2);

            first = add_products(dots, c, first);
            second = add_products(crosses, s, second);
        }
    }
    return make_float4(first.x + second.x, first.y + second.y, first.z + second.z,
                       first.w + second.w);
}

/* Token `at` of a block against four queries. */
template <tsr_kv_type KV>
static __device__ __forceinline__ float4 score(const work &w, const float4 *queries,
                                               const float4 *pairs, const char *keys, int at,
                                               const float *levels)
{
    float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);

    for (int d = 0; d < w.kv.key_dim; d++) {
        sum = add_products(queries[d], tsr_kv_key<KV>(w.kv, keys, at, d, levels), sum);
    }
    if constexpr (tsr_kv_bits(KV) <= 8) {
        const uint16_t bits = tsr_kv_key_scales(w.kv, keys)[at];
        const float scale = tsr_kv_scale(bits);

        sum = make_float4(sum.x * scale, sum.y * scale, sum.z * scale, sum.w * scale);
        if (tsr_kv_bits(KV) < 8 && w.kv.mean_bytes > 0) {
            sum = add_products(of_mean(w, pairs, keys, at), (float)(bits >> 15), sum);
        }
    }
    return sum;
}

/* Soft cap and slope. */
static __device__ __forceinline__ float bend(const work &w, float x, int head, int64_t t,
                                             int64_t position)
{
    const float slope = w.slopes == NULL ? 0.0F : w.slopes[head];

    if (w.slopes != NULL && w.slopes_scale > 0.0F) {
        return x + w.slopes_scale * __bfloat162float(__float2bfloat16_rn(
                                        slope * __bfloat162float(__float2bfloat16_rn((float)t))));
    }
    if (w.softcap > 0.0F) { // tanh y = 1 - 2 / (e^2y + 1), where e^2y does not overflow
        const float e = tsr_exp(-fmaxf(x * -2.0F / w.softcap, -80.0F));

        x = w.softcap - (w.softcap + w.softcap) / (e + 1.0F);
    }
    return w.slopes == NULL ? x : fmaf(slope, (float)(t - position), x);
}

/* ---- a run ----------------------------------------------------------------------------------- */

/* The softmax of a run: scores of a thread's token become its weights; each head's largest score
 * and sum go to its part. Ends with a barrier. */
static __device__ __forceinline__ void soften(const work &w, float (*weights)[RUN], float4 scores,
                                              bool is_seen, int64_t row, const block_heads &heads)
{
    __shared__ float largests[HEADS];
    const float s[HEADS] = {scores.x, scores.y, scores.z, scores.w};

#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        const float largest = tsr_block_largest<THREADS>(is_seen ? s[h] : -INFINITY);

        weights[h][threadIdx.x] = is_seen ? tsr_exp(s[h] - largest) : 0.0F;
        if (threadIdx.x == 0) {
            largests[h] = largest;
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
        if (threadIdx.x % TSR_SUM_LANES == 0 && heads.has(h)) {
            float *part = w.part(row, heads.first + h, blockIdx.z);

            part[0] = largests[h];
            part[1] = sum;
        }
    }
    __syncthreads();
}

/* A thread a head and dimension, each over the tokens that are seen in their order. */
template <tsr_kv_type KV>
static __device__ __forceinline__ void
gather(const work &w, const float (*weights)[RUN], const int32_t *slots, int kv_head,
       const sight &seen, int64_t row, const block_heads &heads, const float *levels)
{
    const int block_tokens = w.kv.block_tokens;
    // Tokens of a block at once, so that the table is looked at once for them.
    const int at_once = seen.step == 1 ? block_tokens : 1; // a near run begins with a block

    for (int i = threadIdx.x; i < HEADS * w.kv.value_dim; i += THREADS) {
        const int h = i / w.kv.value_dim;
        const int d = i % w.kv.value_dim;
        float sum = 0.0F;

        if (!heads.has(h)) {
            continue;
        }
        for (int from = seen.first, end; from < seen.end; from = end) {
            const int position = seen.start + from * seen.step;
            const char *keys = (const char *)w.kv.keys(slots[position / block_tokens], kv_head);
            const int at = position % block_tokens - from;

            end = from / at_once * at_once + at_once;
            end = end < seen.end ? end : seen.end;
#pragma unroll 4
            for (int t = from; t < end; t++) {
                sum = fmaf(weights[h][t], tsr_kv_value<KV>(w.kv, keys, at + t, d, levels), sum);
            }
        }
        w.part(row, heads.first + h, blockIdx.z)[2 + d] = sum;
    }
}

/* Blocks: (row, chunk of heads, run of the row). A chunk is HEADS heads of one KV head or fewer. */
template <tsr_kv_type KV> static __global__ void __launch_bounds__(THREADS, 3) attend_run(work w)
{
    __shared__ float4 queries[MAX_DIM]; // of four heads
    __shared__ float4 pairs[tsr_kv_bits(KV) < 8 ? MAX_DIM : 1];
    __shared__ float levels[TSR_KV_LEVELS];
    __shared__ float weights[HEADS][RUN];
    const int64_t row = w.first_row + blockIdx.x;
    const int kv_head = (int)blockIdx.y / w.chunks_a_group;
    const int64_t position = w.batch.position_of(row);
    const int32_t *slots = w.batch.slots_of(row);
    block_heads heads;

    if (blockIdx.z >= runs_of(w, position)) { // the same for the whole block
        return;
    }
    const sight seen = sight_of(w, position, blockIdx.z);

    heads.first = kv_head * w.group + (int)blockIdx.y % w.chunks_a_group * HEADS - w.first_head;
    heads.n = w.n_heads;
    heads.end = (kv_head + 1) * w.group - w.first_head;
    if (seen.first >= seen.end) {
        if (threadIdx.x < HEADS && heads.has(threadIdx.x)) {
            w.part(row, heads.first + (int)threadIdx.x, blockIdx.z)[1] = 0.0F;
        }
        return;
    }
    load_queries(queries, w.q[row], w.scale, heads, w.kv.key_dim);
    if constexpr (tsr_kv_bits(KV) < 8) {
        w.levels.store(levels);
        if (w.kv.mean_bytes > 0) {
            load_pairs(pairs, w, w.unturned[row], heads);
        }
    }
    __syncthreads();

    const int t = (int)threadIdx.x;
    const bool is_seen = t >= seen.first && t < seen.end;
    const int own = is_seen ? seen.start + t * seen.step : 0; // the thread's token
    const int at = own % w.kv.block_tokens;
    const char *keys =
        is_seen ? (const char *)w.kv.keys(slots[own / w.kv.block_tokens], kv_head) : NULL;
    float4 scores = make_float4(0.0F, 0.0F, 0.0F, 0.0F);

    if (is_seen) {
        scores = score<KV>(w, queries, pairs, keys, at, levels);
        if (w.softcap > 0.0F || w.slopes != NULL) {
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float *x = h == 0 ? &scores.x : h == 1 ? &scores.y : h == 2 ? &scores.z : &scores.w;

                *x = heads.has(h) ? bend(w, *x, heads.first + h, own, position) : *x;
            }
        }
    }
    soften(w, weights, scores, is_seen, row, heads);
    if constexpr (tsr_kv_bits(KV) <= 8) {
        if (is_seen) {
            const float scale = tsr_kv_scale(tsr_kv_value_scales(w.kv, keys)[at]);

            for (int h = 0; h < HEADS; h++) {
                weights[h][t] *= scale;
            }
        }
        __syncthreads();
    }
    gather<KV>(w, weights, slots, kv_head, seen, row, heads, levels);
}

/* ---- merging --------------------------------------------------------------------------------- */

/* What is there so far of a head, and one dimension of its output. */
struct merged {
    float largest, sum, o;

    __device__ void add(float run_largest, float run_sum, float run_o)
    {
        const float new_largest = largest > run_largest ? largest : run_largest;
        const float old_factor = tsr_exp(largest - new_largest);
        const float run_factor = tsr_exp(run_largest - new_largest);

        sum = fmaf(run_sum, run_factor, sum * old_factor);
        o = fmaf(run_o, run_factor, o * old_factor);
        largest = new_largest;
    }
};

/* A block a row and head, a thread a dimension. */
static __global__ void __launch_bounds__(MERGE_THREADS) merge_runs(work w)
{
    const int64_t row = w.first_row + blockIdx.x;
    const int head = (int)blockIdx.y;
    const int64_t position = w.batch.position_of(row);
    const int64_t n_runs = runs_of(w, position);

    for (int d = threadIdx.x; d < w.kv.value_dim; d += MERGE_THREADS) {
        const bool begins = !w.has_before || w.before_l[row][head] == 0.0F;
        merged m = {0.0F, 0.0F, 0.0F};

        if (!begins) {
            m = merged{w.before_m[row][head], w.before_l[row][head],
                       w.before_o[row][head * w.kv.value_dim + d]};
        }
        for (int64_t i = 0; i < n_runs; i++) {
            const float *part = w.part(row, head, i);

            if (part[1] == 0.0F) { // nothing is seen of it
                continue;
            }
            if (m.sum == 0.0F) {
                m = merged{part[0], part[1], part[2 + d]};
            } else {
                m.add(part[0], part[1], part[2 + d]);
            }
        }
        if (w.sinks != NULL) {
            m.add(w.sinks[head], 1.0F, 0.0F);
        }
        w.out[row][head * w.kv.value_dim + d] = m.o / m.sum;
    }
}

/* ---- launches -------------------------------------------------------------------------------- */

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Runs of a row, at most. */
static int64_t most_runs(int64_t longest, const tsr_attention_shape *shape)
{
    const int64_t all = ceil_div(longest, RUN);
    const int64_t reach = shape->stride > 0   ? shape->local
                          : shape->window > 0 ? shape->window
                                              : longest;
    const int64_t near = reach >= longest ? all : ceil_div(reach + RUN - 1, RUN);
    const int64_t far = shape->stride > 0 ? ceil_div(longest, RUN * shape->stride) : 0;

    return far + (near < all ? near : all);
}

static size_t row_bytes(int64_t n_runs, int n_heads, int value_dim)
{
    return (size_t)n_runs * (size_t)n_heads * (size_t)(value_dim + 2) * sizeof(float);
}

extern "C" size_t tsr_attention_cuda_scratch(int n_threads, const tsr_ops_limits *limits)
{
    // With a stride of one and as many local positions every run may be there twice.
    const size_t a_row =
        row_bytes(2 * ceil_div(limits->context, RUN), limits->n_heads, limits->head_dim);
    const size_t all = a_row * (size_t)limits->n_rows;
    const size_t most = (size_t)64 << 20; // rows beyond it are taken in turns
    // Beside it, queries that are turned.
    const size_t queries =
        (size_t)limits->n_rows * (size_t)limits->n_heads * (size_t)limits->head_dim * sizeof(float);

    (void)n_threads;
    return queries + (all < most ? all : a_row > most ? a_row : most);
}

static tsr_status attend(tsr_device *dev, work &w, tsr_kv_type type, int64_t n_rows, size_t room)
{
    const size_t a_row = row_bytes(w.n_runs, w.n_heads, w.kv.value_dim);
    const int64_t rows_a_turn = (int64_t)(room / a_row);
    const int n_groups = (w.first_head + w.n_heads + w.group - 1) / w.group;
    const cudaStream_t queue = tsr_cuda_queue(dev);

    if (rows_a_turn == 0) {
        return tsr_fail(TSR_ERR_ARG, "attention: %zu bytes of scratch are needed, %zu are reserved",
                        a_row, room);
    }
    for (; w.first_row < n_rows; w.first_row += rows_a_turn) {
        const int64_t n = n_rows - w.first_row < rows_a_turn ? n_rows - w.first_row : rows_a_turn;
        const dim3 grid((unsigned)n, (unsigned)(n_groups * w.chunks_a_group), (unsigned)w.n_runs);

#define ATTEND(KV) attend_run<KV><<<grid, THREADS, 0, queue>>>(w)
        TSR_FOR_KV_TYPE(type, ATTEND);
#undef ATTEND
        merge_runs<<<dim3((unsigned)n, (unsigned)w.n_heads), MERGE_THREADS, 0, queue>>>(w);
        TSR_CUDA_LAUNCHED();
    }
    return TSR_OK;
}

extern "C" tsr_status tsr_attention_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor q,
                                         const tsr_kv_view *kv, const tsr_batch *batch,
                                         const tsr_attention_shape *shape)
{
    const tsr_kv_layout *layout = kv->layout;
    const bool is_turned = tsr_kv_type_is_turned(layout->type);
    const size_t turned_bytes = is_turned ? (size_t)(q.n_rows * q.n_cols) * sizeof(float) : 0;
    work w = {};

    if (!dev->deterministic && tsr_attention_fast_can(kv)) {
        return tsr_attention_fast(dev, out, q, kv, batch, shape);
    }
    if (turned_bytes > dev->scratch_bytes) {
        return tsr_fail(TSR_ERR_ARG, "attention: %zu bytes of scratch are needed, %zu are reserved",
                        turned_bytes, dev->scratch_bytes);
    }
    w.out = tsr_rows_of<float>(out);
    w.q = tsr_rows_of<const float>(q);
    w.unturned = w.q;
    w.scale = shape->scale;
    w.unturned_scale = shape->scale;
    w.kv = tsr_kv_place_of(kv);
    w.drift = kv->drift;
    w.levels = tsr_kv_levels_of(layout->type);
    w.batch = tsr_batch_rows_of(batch);
    w.n_heads = shape->n_heads;
    w.group = shape->group;
    w.first_head = shape->first_head;
    w.chunks_a_group = (shape->group + HEADS - 1) / HEADS;
    w.softcap = shape->softcap;
    w.slopes_scale = shape->slopes_scale;
    w.window = shape->window;
    w.stride = shape->stride;
    w.local = shape->local;
    w.slopes = (const float *)shape->slopes.data;
    w.sinks = (const float *)shape->sinks.data;
    w.has_before = shape->before != NULL;
    if (w.has_before) {
        w.before_o = tsr_rows_of<const float>(shape->before->o);
        w.before_m = tsr_rows_of<const float>(shape->before->m);
        w.before_l = tsr_rows_of<const float>(shape->before->l);
    }
    w.parts = (float *)((char *)dev->scratch + turned_bytes);
    w.n_runs = most_runs(batch->longest, shape);
    if (is_turned) { // queries turn with the keys, and outputs turn back
        const tsr_tensor turned =
            tsr_tensor_of(dev->scratch, TSR_DTYPE_F32, q.on, q.n_rows, q.n_cols);

        TSR_TRY(tsr_kv_codes_turn(dev, turned, q, shape->n_heads, layout->key_dim,
                                  tsr_kv_code_key_unit(layout), shape->scale));
        w.q = tsr_rows_of<const float>(turned);
        w.scale = 1.0F;
    }
    TSR_TRY(attend(dev, w, layout->type, q.n_rows, dev->scratch_bytes - turned_bytes));
    return is_turned ? tsr_kv_codes_turn(dev, out, out, shape->n_heads, layout->value_dim,
                                         tsr_kv_code_value_unit(layout), 1.0F)
                     : TSR_OK;
}

extern "C" tsr_status tsr_attention_part_cuda(tsr_device *dev, const tsr_attention_piece *piece,
                                              tsr_tensor q, const tsr_kv_view *kv,
                                              const tsr_batch *batch,
                                              const tsr_attention_shape *shape, int64_t first_run,
                                              int64_t n_runs)
{
    (void)dev, (void)piece, (void)q, (void)kv, (void)batch, (void)shape, (void)first_run;
    (void)n_runs;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "attention_part: that is for the CPU beside a GPU");
}
