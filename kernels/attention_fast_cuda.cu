/*
 * Attention on tensor cores (after Dao, arXiv 2307.08691). A warp has sixteen queries and goes over
 * tiles of keys and values with a running softmax; tiles come from the pages by cp.async, one ahead
 * of the arithmetic. A query is a row of one query head: rows of all heads that read the same KV
 * head are queries of one block, so keys and values are read once for the whole group.
 *
 * A prompt's block has 16 queries a warp, and every warp goes over all keys. In a run of a sequence
 * with a single row, which is what decoding has, the warps share the tokens of a tile. Which of the
 * two a sequence takes, and in what order its positions are added, depends on itself alone.
 *
 * Queries, and the weights of values, are rounded to the type of the products: what the cache holds
 * for f16 and bf16, f16 for codes of 8 bits. These become f16, without loss, on their way from one
 * part of shared memory to another; their scales multiply scores and weights.
 */
#include "kernels/attention_fast.cuh"

#include "kernels/attention_blocks.cuh"
#include "kernels/attention_latent.cuh"
#include "kernels/kv_codes.cuh"
#include "kernels/kv_elements.cuh"

enum {
    RUN = TSR_ATTENTION_RUN,
    QUERIES = TSR_ATTENTION_QUERIES
};

/* All tiles of what the block sees, for the warp's queries; of each the tokens [from, to), N at
 * once. */
template <int DIM, int N, bool CODED, class T>
static __device__ __forceinline__ void
attend(tsr_softmax<DIM> &state, T *shared, const T *own_q, const tsr_attention_work &w,
       const tsr_attention_block &b, const tsr_attention_queries &mine, int from, int to)
{
    typedef tsr_attention_plan<DIM> plan;
    const int32_t *slots = w.batch.slots_of(b.first_row);
    const int first_p = b.first_pos + b.row(0, w.group);
    const int last_p = b.first_pos + b.row(b.n - 1, w.group);
    const int low = b.low;
    const int high = b.high;
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

/* Blocks: (tile of queries, KV head). The last tiles of a prompt see most and come first. */
template <int DIM, class T, bool CODED>
static __global__ void __launch_bounds__(tsr_attention_plan<DIM>::THREADS,
                                         tsr_attention_plan<DIM>::BLOCKS)
    attend_prompt(tsr_attention_work w)
{
    extern __shared__ __align__(16) char memory[];
    T *own_q = (T *)memory + (int)threadIdx.x / TSR_WARP * QUERIES * DIM;
    T *stages = (T *)memory + tsr_attention_plan<DIM>::ROWS * DIM;
    tsr_attention_block b;

    if (!tsr_find_prompt(b, w, tsr_attention_plan<DIM>::ROWS)) {
        return;
    }
    const int warp_first = (int)threadIdx.x / TSR_WARP * QUERIES;
    const tsr_attention_queries mine = tsr_queries_of(w, b, warp_first);
    tsr_softmax<DIM> state;

    tsr_load_queries<DIM, tsr_attention_plan<DIM>::THREADS>(
        (T *)memory, w, b, tsr_attention_plan<DIM>::ROWS, (w.kv.key_dim + 15) / 16 * 16);
    attend<DIM, tsr_attention_plan<DIM>::AT_ONCE, CODED>(state, stages, own_q, w, b, mine, 0,
                                                         tsr_attention_plan<DIM>::TOKENS);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (mine.position[half] >= 0) {
            const int row = b.first_row + mine.position[half] - b.first_pos;
            const tsr_joined all =
                tsr_join(state.sum[half], state.largest[half], w, row, mine.head[half]);
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
    const int lane = (int)threadIdx.x % TSR_WARP;
    tsr_attention_block b;

    if (!tsr_find_run(b, w)) {
        return;
    }
    const tsr_attention_queries mine = tsr_queries_of(w, b, 0);
    tsr_softmax<DIM> state;

    tsr_load_queries<DIM, tsr_attention_plan<DIM>::THREADS>((T *)memory, w, b, QUERIES,
                                                            (w.kv.key_dim + 15) / 16 * 16);
    attend<DIM, QUERIES, CODED>(
        state, (T *)memory + tsr_attention_plan<DIM>::ROWS * DIM, (const T *)memory, w, b, mine,
        (int)threadIdx.x / TSR_WARP * QUERIES, ((int)threadIdx.x / TSR_WARP + 1) * QUERIES);

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
    const bool is_whole = tsr_is_only_run(b, w);

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
                tsr_join(sum, most, w, b.first_row, head).of(o, d);
        } else {
            float *to = w.run(b.seq, head, (int)blockIdx.z);

            if (d == 0) {
                to[0] = most;
                to[1] = sum;
            }
            to[2 + d] = o;
        }
    }
}

/* ---- launches
 * ------------------------------------------------------------------------------------ */

bool tsr_attention_fast_can(const tsr_kv_view *kv)
{
    const tsr_kv_layout *layout = kv->layout;

    const int most = layout->latent ? TSR_KV_LAYOUT_MOST_DIM : 256;
    const bool is_half = tsr_kv_bits(layout->type) == 16;

    return (is_half || (tsr_kv_bits(layout->type) == 8 && !layout->latent)) && !layout->by_token &&
           layout->key_dim % 8 == 0 && layout->value_dim % 8 == 0 && layout->key_dim <= most &&
           layout->value_dim <= (layout->latent ? TSR_ATTENTION_LATENT_VALUES : most) &&
           kv->block_bytes % 16 == 0 && (uintptr_t)kv->pool % 16 == 0 &&
           (uintptr_t)kv->host_pool % 16 == 0;
}

template <int DIM, class T, bool CODED> static tsr_attention_kernels kernels_for(void)
{
    typedef tsr_attention_plan<DIM> plan;

    return tsr_attention_kernels{attend_prompt<DIM, T, CODED>,
                                 attend_run<DIM, T, CODED>,
                                 tsr_merge_runs<2>,
                                 plan::ROWS,
                                 plan::THREADS,
                                 plan::shared_bytes(CODED)};
}

template <class T, bool CODED> static tsr_attention_kernels kernels_of(const tsr_kv_layout *layout)
{
    const int dim = layout->key_dim > layout->value_dim ? layout->key_dim : layout->value_dim;

    return dim <= 64    ? kernels_for<64, T, CODED>()
           : dim <= 128 ? kernels_for<128, T, CODED>()
                        : kernels_for<256, T, CODED>();
}

static tsr_attention_kernels kernels_to_run(const tsr_kv_layout *layout)
{
    const bool is_bf16 = layout->type == TSR_KV_TYPE_BF16;

    return layout->latent                    ? tsr_attention_latent(is_bf16)
           : is_bf16                         ? kernels_of<__nv_bfloat16, false>(layout)
           : layout->type == TSR_KV_TYPE_F16 ? kernels_of<__half, false>(layout)
                                             : kernels_of<__half, true>(layout);
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
    TSR_TRY(tsr_attention_run(dev, w, kernels_to_run(layout), batch, q.n_rows, room));
    return is_turned ? tsr_kv_codes_turn(dev, out, out, shape->n_heads, layout->value_dim,
                                         tsr_kv_code_value_unit(layout), 1.0F)
                     : TSR_OK;
}
