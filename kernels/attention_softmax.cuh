/*
 * kernels/attention_softmax.cuh - a warp's sixteen queries over one tile of keys and values.
 * Private to CUDA files.
 */
#ifndef TSR_KERNELS_ATTENTION_SOFTMAX_CUH
#define TSR_KERNELS_ATTENTION_SOFTMAX_CUH

#include "kernels/attention_tiles.cuh"

static constexpr float TSR_ATTENTION_LOG2_E = 1.44269504F;

/* What attention is asked for, as kernels take it. */
struct tsr_attention_work {
    tsr_rows<float> out;
    tsr_rows<const float> q;
    tsr_kv_place kv;
    tsr_batch_rows batch;
    int n_heads, group, first_head, n_tiles; // n_tiles: 16-query tiles of a group's heads
    float scale, softcap, slopes_scale;
    int window;
    bool is_fp8; // codes: which
    const float *slopes, *sinks;
    bool has_before; // what rows have seen of earlier positions
    tsr_rows<const float> before_o, before_m, before_l;
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

/* A warp's sixteen queries and what they have seen. A lane has two of them, lane / 4 and that + 8.
 */
template <int DIM> struct tsr_softmax {
    float o[DIM / 8][4];
    float largest[2]; // of scores times log2(e)
    float sum[2];     // over the lane's own columns, until finish()

    __device__ tsr_softmax()
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
struct tsr_attention_queries {
    int position[2]; // -1: there is no such query
    int head[2];
};

/* Soft cap, slope and what is not seen. */
template <int N>
static __device__ __forceinline__ void tsr_bend_scores(float (*s)[4], const tsr_attention_work &w,
                                                       const tsr_attention_queries &mine, int first,
                                                       bool is_whole)
{
    const bool is_bent = w.softcap > 0 || w.slopes != NULL;
    const float factor = is_bent ? w.scale : w.scale * TSR_ATTENTION_LOG2_E;
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
                    const float e = tsr_fast_exp2(x * (2.0F * TSR_ATTENTION_LOG2_E) / w.softcap);

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
                x *= TSR_ATTENTION_LOG2_E;
            }
            s[n][r] = is_whole || (t <= p && t >= w.first_seen(p)) ? x : -INFINITY;
        }
    }
}

/* Scores or weights times the scales of their tokens. */
template <int N>
static __device__ __forceinline__ void tsr_scale_scores(float (*s)[4], const uint16_t *scales,
                                                        float factor)
{
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
        const uint32_t two = *(const uint32_t *)&scales[8 * n + (int)threadIdx.x % 4 * 2];
        const float low = __uint_as_float(two << 16) * factor;
        const float high = __uint_as_float(two & 0xFFFF0000U) * factor;

#pragma unroll
        for (int r = 0; r < 4; r += 2) { // what is not seen weighs nothing, whatever its scale is
            s[n][r] = s[n][r] != 0 ? s[n][r] * low : 0.0F;
            s[n][r + 1] = s[n][r + 1] != 0 ? s[n][r + 1] * high : 0.0F;
        }
    }
}

/* One tile: sixteen queries over N tokens from `at` on; scales [2][TOKENS] or NULL. */
template <int DIM, int N, class T>
static __device__ __forceinline__ void
tsr_attend_tile(tsr_softmax<DIM> &state, const T *own_q, const T *stage, const uint16_t *scales,
                const tsr_attention_work &w, const tsr_attention_queries &mine, int first, int at,
                bool is_whole)
{
    constexpr int TOKENS = tsr_attention_plan<DIM>::TOKENS;
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
                                      tsr_place_of<DIM / 8>(lane % 16, k / 8 + lane / 16));
#pragma unroll
            for (int n = 0; n < N; n += 16) {
                uint32_t b[4];

                tsr_load_b<TOKENS / 8>(b, stage, k, at + n);
                tsr_multiply_halves(s[n / 8], a, b, T());
                tsr_multiply_halves(s[n / 8 + 1], a, b + 2, T());
            }
        }
    }
    if (scales != NULL) {
        tsr_scale_scores<N>(s, scales + at, w.is_fp8 ? 256.0F : 1.0F);
    }
    tsr_bend_scores<N>(s, w, mine, first + at, is_whole);
    state.template take<N>(s);
    if (scales != NULL) {
        tsr_scale_scores<N>(s, scales + TOKENS + at, w.is_fp8 ? 256.0F : 1.0F);
    }
#pragma unroll
    for (int k = 0; k < N; k += 16) { // a pair of columns of scores is a pair of columns of A
        const uint32_t a[4] = {tsr_pair_of(s[k / 8][0], s[k / 8][1], T()),
                               tsr_pair_of(s[k / 8][2], s[k / 8][3], T()),
                               tsr_pair_of(s[k / 8 + 1][0], s[k / 8 + 1][1], T()),
                               tsr_pair_of(s[k / 8 + 1][2], s[k / 8 + 1][3], T())};

#pragma unroll
        for (int n = 0; n < DIM; n += 16) {
            if (n < w.kv.value_dim) {
                uint32_t b[4];

                tsr_load_b<DIM / 8>(b, values, at + k, n);
                tsr_multiply_halves(state.o[n / 8], a, b, T());
                tsr_multiply_halves(state.o[n / 8 + 1], a, b + 2, T());
            }
        }
    }
}

#endif
