/*
 * Keys and values as codes, with the CPU's bits: the same sums and roundings. A warp has a vector,
 * in shared memory, and its lanes the dimensions.
 *
 * Keys that have means (kernels/kv_code.h) are written by a block a sequence and head, sixteen at
 * a time, because each sixteen need the mean of those before them. All other vectors are by
 * themselves.
 */
#include "kernels/kv_codes.cuh"

#include "kernels/kv_elements.cuh"

enum {
    WARPS = 4, // a vector each
    THREADS = WARPS * TSR_WARP,
    GROUP = TSR_KV_LAYOUT_GROUP,
    GROUP_WARPS = GROUP / 2, // each has two keys of a group, one after the other
    GROUP_THREADS = GROUP_WARPS * TSR_WARP,
    MOST_DIM = TSR_KV_LAYOUT_MOST_DIM,
    REFITS = 2 // of scale and codes to each other
};

static __device__ __forceinline__ int own_lane()
{
    return (int)threadIdx.x % TSR_WARP;
}

/* ---- a warp's vector: all lanes together, and all have read it when a function ends -----------
 */

/* x [dim] = H x in shared memory (tsr_kv_code_turn). */
static __device__ void turn(float *x, int dim, int unit)
{
    const float norm = 1.0F / sqrtf((float)unit);

    __syncwarp();
    for (int half = 1; half < unit; half *= 2) {
        for (int i = own_lane(); i < dim / 2; i += TSR_WARP) {
            const int k = i / half * 2 * half + i % half;
            const float a = x[k];
            const float b = x[k + half];

            x[k] = a + b;
            x[k + half] = a - b;
        }
        __syncwarp();
    }
    for (int d = own_lane(); d < dim; d += TSR_WARP) {
        x[d] *= norm;
    }
    __syncwarp();
}

/* Eight chains, as the CPU takes it. */
template <class F> static __device__ __forceinline__ float sum_of_squares(int dim, F element)
{
    float sum = 0.0F;

    for (int d = own_lane() % 8; d < dim; d += 8) {
        const float x = element(d);

        sum += x * x;
    }
    for (int step = 4; step > 0; step /= 2) {
        sum += __shfl_xor_sync(TSR_WHOLE_WARP, sum, step);
    }
    return sum;
}

/* The largest magnitude; of what is not finite the first. */
static __device__ float largest(const float *x, int dim)
{
    bool is_sound = true;
    float most = 0.0F;

    for (int d = own_lane(); d < dim; d += TSR_WARP) {
        is_sound = is_sound && isfinite(x[d]);
        most = fmaxf(most, fabsf(x[d]));
    }
    most = tsr_warp_largest(most);
    if (__all_sync(TSR_WHOLE_WARP, is_sound) == 0) {
        for (int d = 0; d < dim; d++) {
            if (!isfinite(x[d])) {
                return fabsf(x[d]);
            }
        }
    }
    return most;
}

/* Bits shifted to the right, to nearest, ties to even. */
static __device__ __forceinline__ uint32_t shift_rounded(uint32_t bits, int by)
{
    const uint32_t half = (1U << (by - 1)) - 1 + (bits >> by & 1);

    return (bits + half) >> by;
}

/* tsr_dtype_to_fp8() */
static __device__ uint8_t to_e4m3(float value)
{
    const uint32_t bits = __float_as_uint(value);
    const uint32_t sign = bits >> 24 & 0x80U;
    const uint32_t magnitude = bits & 0x7FFFFFFFU;
    const int exponent = (int)(magnitude >> 23) - 120;

    if (magnitude > 0x7F800000U) {
        return (uint8_t)(sign | 0x7FU);
    }
    if (magnitude >= 0x43E00000U) {
        return (uint8_t)(sign | 0x7EU); // 448 and above
    }
    if (exponent < -4) {
        return (uint8_t)sign;
    }
    return (uint8_t)(sign | (exponent <= 0
                                 ? shift_rounded((magnitude & 0x7FFFFFU) | 0x800000U, 21 - exponent)
                                 : shift_rounded(magnitude - (120U << 23), 20)));
}

/* tsr_dtype_to_bf16() */
static __device__ __forceinline__ uint16_t to_bf16(float value)
{
    const uint32_t bits = __float_as_uint(value);

    return (bits & 0x7FFFFFFFU) > 0x7F800000U ? (uint16_t)(bits >> 16 | 0x40U)
                                              : __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

/* absmax / levels, up to the next bf16, so that nothing is cut off. */
static __device__ __forceinline__ uint16_t scale_up(float absmax, float levels)
{
    const uint16_t scale = to_bf16(absmax / levels);

    return __uint_as_float((uint32_t)scale << 16) * levels < absmax ? (uint16_t)(scale + 1) : scale;
}

static __device__ __forceinline__ float inverse_of(float scale)
{
    const float over = scale > 0.0F ? 1.0F / scale : 0.0F;

    return over < INFINITY ? over : 0.0F; // a vector of nearly nothing is zeros
}

/* Codes of fp8 or int8; gives the scale. */
static __device__ uint16_t round_to_bytes(uint8_t *codes, const float *x, int dim, bool is_int)
{
    const uint16_t bits = scale_up(largest(x, dim), is_int ? 127.0F : 448.0F);
    const float inverse = inverse_of(__uint_as_float((uint32_t)bits << 16));

    for (int d = own_lane(); d < dim; d += TSR_WARP) {
        const float z = x[d] * inverse;

        codes[d] = is_int ? (uint8_t)(int8_t)rintf(fmaxf(-127.0F, fminf(z, 127.0F))) : to_e4m3(z);
    }
    __syncwarp();
    return bits;
}

/* Codes of int4 or int2; gives the scale. */
static __device__ uint16_t round_to_levels(uint8_t *codes, const float *x, int dim, int bits,
                                           const float *levels)
{
    const int n_levels = 1 << bits;
    const float squares = sum_of_squares(dim, [&](int d) { return x[d]; });
    const auto level = [&](int d) { return levels[codes[d]]; };
    float scale = sqrtf(squares / (float)dim);

    for (int n = 0; n < REFITS; n++) {
        const float inverse = inverse_of(scale);
        float xy = 0.0F;

        for (int d = own_lane(); d < dim; d += TSR_WARP) {
            const float z = x[d] * inverse;
            int code = 0;

            for (int i = 0; i < n_levels - 1; i++) {
                code += z > 0.5F * (levels[i] + levels[i + 1]);
            }
            codes[d] = (uint8_t)code;
        }
        __syncwarp();
        for (int d = 0; d < dim; d++) {
            xy += x[d] * level(d);
        }
        scale = fmaxf(0.0F, xy / sum_of_squares(dim, level));
        __syncwarp();
    }
    // The least squares code is shorter than x by what is lost, and scores would shrink with it.
    return to_bf16(sqrtf(squares / sum_of_squares(dim, level)));
}

/* tsr_kv_code_round() of what is turned already, without a mean. */
static __device__ uint16_t round_vector(uint8_t *codes, const float *x, int dim, tsr_kv_type type,
                                        const float *levels)
{
    __syncwarp();
    if (!(largest(x, dim) < INFINITY)) { // the same for the whole warp
        for (int d = own_lane(); d < dim; d += TSR_WARP) {
            codes[d] = 0;
        }
        __syncwarp();
        return 0x7FC0;
    }
    return type >= TSR_KV_TYPE_INT4 ? round_to_levels(codes, x, dim, tsr_kv_bits(type), levels)
                                    : round_to_bytes(codes, x, dim, type == TSR_KV_TYPE_INT8);
}

/* The codes of a token as one string of bits; byte i of n_bytes goes to to[i * stride], zeros where
 * the vector has ended. */
static __device__ void pack(char *to, int stride, int n_bytes, const uint8_t *codes, int dim,
                            int bits)
{
    const int a_byte = 8 / bits;

    for (int i = own_lane(); i < n_bytes; i += TSR_WARP) {
        uint32_t byte = 0;

        for (int j = 0; j < a_byte && i * a_byte + j < dim; j++) {
            byte |= (uint32_t)codes[i * a_byte + j] << (j * bits);
        }
        to[i * stride] = (char)byte;
    }
    __syncwarp();
}

/* ---- vectors by themselves ------------------------------------------------------------------- */

/* What is written, as kernels take it. */
struct writing {
    tsr_kv_place kv;
    tsr_kv_type type;
    tsr_kv_levels levels;
    tsr_rows<const float> k, v;
    tsr_batch_rows batch;
    int64_t n_rows;
    int key_unit, value_unit;
    const tsr_kv_drift *drift; // of keys that have means
};

static __device__ void put_key(const writing &w, char *keys, int at, const uint8_t *codes,
                               uint16_t scale)
{
    const int bits = tsr_kv_bits(w.type);

    pack(keys + at * w.kv.token_step, w.kv.dim_step, (w.kv.key_dim * bits + 7) / 8, codes,
         w.kv.key_dim, bits);
    if (own_lane() == 0) {
        ((uint16_t *)(keys + w.kv.key_codes))[at] = scale;
    }
}

static __device__ void put_value(const writing &w, char *keys, int at, const uint8_t *codes,
                                 uint16_t scale)
{
    const int bits = tsr_kv_bits(w.type);
    const int row_bytes = w.kv.padded_dim * bits / 8;
    char *values = keys + w.kv.key_bytes;

    pack(values + at * row_bytes, 1, row_bytes, codes, w.kv.value_dim, bits);
    if (own_lane() == 0) {
        ((uint16_t *)(values + w.kv.value_codes))[at] = scale;
    }
}

/* A warp a row and KV head: its key, unless it has a mean, and its value. */
static __global__ void __launch_bounds__(THREADS) write_codes(writing w)
{
    __shared__ float vectors[WARPS][MOST_DIM];
    __shared__ uint8_t codes[WARPS][MOST_DIM];
    __shared__ float levels[TSR_KV_LEVELS];
    const int warp = (int)threadIdx.x / TSR_WARP;
    const int64_t row = (int64_t)blockIdx.x * WARPS + warp;
    const int head = (int)blockIdx.y;
    const bool is_turned = w.type >= TSR_KV_TYPE_INT8;
    float *x = vectors[warp];

    w.levels.store(levels);
    __syncthreads();
    if (row >= w.n_rows || !w.batch.has(row)) { // whole warps
        return;
    }
    const int64_t position = w.batch.position_of(row);
    const int at = (int)(position % w.kv.block_tokens);
    char *keys = (char *)w.kv.own_keys(w.batch.slot_of(row, position, w.kv.block_tokens), head);

    for (int which = w.kv.mean_bytes > 0 ? 1 : 0; which < (w.kv.is_latent ? 1 : 2); which++) {
        const int dim = which == 0 ? w.kv.key_dim : w.kv.value_dim;
        const float *from = (which == 0 ? w.k : w.v)[row] + head * dim;

        for (int d = own_lane(); d < dim; d += TSR_WARP) {
            x[d] = from[d];
        }
        if (is_turned) {
            turn(x, dim, which == 0 ? w.key_unit : w.value_unit);
        }
        const uint16_t scale = round_vector(codes[warp], x, dim, w.type, levels);

        if (which == 0) {
            put_key(w, keys, at, codes[warp], scale);
        } else {
            put_value(w, keys, at, codes[warp], scale);
        }
    }
}

/* ---- keys that have means -------------------------------------------------------------------- */

/* What the keys of a block's sequence pass through. */
struct bench {
    float vectors[GROUP][MOST_DIM];
    float mean[MOST_DIM]; // split
    const char *before;   // the block of the group before, at its keys
    uint8_t codes[GROUP_WARPS][MOST_DIM];
    float levels[TSR_KV_LEVELS];
};

/* A split pair as it is n positions later (tsr_kv_drift_turn). */
static __device__ __forceinline__ float2 drift_by(const tsr_kv_drift *drift, int pair, float2 x,
                                                  int n)
{
    const int at = (n < 0 ? -n : n) - 1;

    if (n == 0) {
        return x;
    }
    const float c = drift->cosines[pair][at];
    const float s = n < 0 ? -drift->sines[pair][at] : drift->sines[pair][at];

    return make_float2(x.x * c - x.y * s, x.x * s + x.y * c);
}

static __device__ __forceinline__ float2 pair_of(const tsr_kv_drift *drift, int pair,
                                                 const float *x)
{
    const int second = drift->second[pair];

    return make_float2(x[drift->first[pair]], second < 0 ? 0.0F : x[second]);
}

/* The keys of the group of tokens from `at` on, without their means and no longer turned, by all
 * warps; zeros for what is not a number (tsr_kv_code_key). */
static __device__ void decode_group(bench &b, const writing &w, const char *keys, int at)
{
    const int bits = tsr_kv_bits(w.type);

    for (int t = (int)threadIdx.x / TSR_WARP; t < GROUP; t += GROUP_WARPS) {
        const float magnitude = tsr_kv_scale(tsr_kv_key_scales(w.kv, keys)[at + t]);
        const float scale = magnitude < INFINITY ? magnitude : 0.0F;

        for (int d = own_lane(); d < w.kv.key_dim; d += TSR_WARP) {
            const uint32_t byte =
                (uint8_t)keys[d * bits / 8 * w.kv.dim_step + (at + t) * w.kv.token_step];

            b.vectors[t][d] = scale * b.levels[byte >> d * bits % 8 & (TSR_KV_LEVELS - 1)];
        }
        turn(b.vectors[t], w.kv.key_dim, w.key_unit);
    }
}

/* The mean of a group, from that of the one before it and from its keys, which are decoded: tokens
 * from `at` on; `is_first`: it is the sequence's first. */
static __device__ void mean_after(bench &b, const writing &w, const char *keys, int at,
                                  bool is_first)
{
    const int n_pairs = (w.kv.key_dim + 1) / 2;
    const char *record = tsr_kv_mean(w.kv, keys, at);
    const float scale = __uint_as_float((uint32_t) * (const uint16_t *)record << 16);
    const int8_t *codes = (const int8_t *)record + sizeof(uint16_t);
    const uint16_t *scales = tsr_kv_key_scales(w.kv, keys);
    const int first = is_first ? 1 : 0;

    for (int j = threadIdx.x; j < n_pairs; j += GROUP_THREADS) {
        float2 mean = make_float2(scale * (float)codes[j], scale * (float)codes[n_pairs + j]);
        float2 sum = make_float2(0.0F, 0.0F);

        mean = drift_by(w.drift, j, mean, GROUP);
        for (int t = first; t < GROUP; t++) {
            const float2 x = drift_by(w.drift, j, pair_of(w.drift, j, b.vectors[t]), GROUP - 1 - t);
            const bool is_centred = scales[at + t] >> 15 != 0;

            sum.x += is_centred ? x.x + mean.x : x.x;
            sum.y += is_centred ? x.y + mean.y : x.y;
        }
        const float2 newest =
            make_float2(sum.x / (float)(GROUP - first), sum.y / (float)(GROUP - first));

        b.mean[j] = is_first ? newest.x : 0.75F * mean.x + 0.25F * newest.x;
        b.mean[n_pairs + j] = is_first ? newest.y : 0.75F * mean.y + 0.25F * newest.y;
    }
}

/* b.mean into the record of the group of token `at`. By all threads; ends with a barrier. */
static __device__ void put_mean(bench &b, const writing &w, char *keys, int at)
{
    const int n = (w.kv.key_dim + 1) / 2 * 2;
    char *record = tsr_kv_mean(w.kv, keys, at);

    __syncthreads();
    if (threadIdx.x < TSR_WARP) {
        const uint16_t scale = round_to_bytes(b.codes[0], b.mean, n, true);

        for (int i = own_lane(); i < n; i += TSR_WARP) {
            record[sizeof(scale) + i] = (char)b.codes[0][i];
        }
        if (own_lane() == 0) {
            *(uint16_t *)record = scale;
        }
    }
    __syncthreads();
}

/* One key, less its group's mean: token `at` of a block, in the vectors x and `here`. By a warp. */
static __device__ void put_centred(bench &b, const writing &w, char *keys, int at, const float *k,
                                   float *x, float *here)
{
    const int dim = w.kv.key_dim;
    const int n_pairs = (dim + 1) / 2;
    uint8_t *codes = b.codes[threadIdx.x / TSR_WARP];
    uint16_t sign = 0;

    for (int j = own_lane(); j < n_pairs; j += TSR_WARP) {
        const float2 mean =
            drift_by(w.drift, j, make_float2(b.mean[j], b.mean[n_pairs + j]), at % GROUP + 1);

        here[w.drift->first[j]] = mean.x;
        if (w.drift->second[j] >= 0) {
            here[w.drift->second[j]] = mean.y;
        }
    }
    for (int d = own_lane(); d < dim; d += TSR_WARP) {
        x[d] = k[d];
    }
    turn(here, dim, w.key_unit);
    turn(x, dim, w.key_unit);
    // Where x is not finite neither is less, and it stays.
    if (sum_of_squares(dim, [&](int d) { return x[d] - here[d]; }) <
        sum_of_squares(dim, [&](int d) { return x[d]; })) {
        __syncwarp();
        for (int d = own_lane(); d < dim; d += TSR_WARP) {
            x[d] -= here[d];
        }
        sign = 0x8000U;
    }
    const uint16_t scale = round_vector(codes, x, dim, w.type, b.levels);

    put_key(w, keys, at, codes, scale | sign);
}

/* A block a sequence and KV head: its rows in order, a group at a time. */
static __global__ void __launch_bounds__(GROUP_THREADS) write_centred(writing w)
{
    __shared__ bench b;
    const int seq = (int)blockIdx.x;
    const int head = (int)blockIdx.y;
    const int warp = (int)threadIdx.x / TSR_WARP;
    const int dim = w.kv.key_dim;
    const int n_pairs = (dim + 1) / 2;
    const int32_t *slots = w.batch.tables[w.batch.lanes[seq]];
    const int first_row = w.batch.row_start[seq];
    const int n_rows = w.batch.row_start[seq + 1] - first_row;
    const int first_pos = w.batch.first_pos[seq];
    const auto keys_at = [&](int position) {
        return (char *)w.kv.own_keys(slots[position / w.kv.block_tokens], head);
    };
    const auto key_of = [&](int position) {
        return w.k[first_row + (position - first_pos)] + head * dim;
    };

    w.levels.store(b.levels);
    for (int from = first_pos, end; from < first_pos + n_rows; from = end) {
        char *keys = keys_at(from);
        const int at = from % w.kv.block_tokens;

        end = from / GROUP * GROUP + GROUP;
        end = end < first_pos + n_rows ? end : first_pos + n_rows;
        if (threadIdx.x == 0 && from > 0) { // only read, so it may lie in host memory
            b.before = (const char *)w.kv.keys(slots[(from - 1) / w.kv.block_tokens], head);
        }
        __syncthreads(); // what was written before is there, and is read no more
        if (from == 0) { // the first key is the mean of its own group
            for (int j = threadIdx.x; j < n_pairs; j += GROUP_THREADS) {
                const float2 mean = drift_by(w.drift, j, pair_of(w.drift, j, key_of(0)), -1);

                b.mean[j] = mean.x;
                b.mean[n_pairs + j] = mean.y;
            }
            put_mean(b, w, keys, at);
        } else if (from % GROUP == 0) {
            const int within = (from - GROUP) % w.kv.block_tokens;

            decode_group(b, w, b.before, within);
            __syncthreads();
            mean_after(b, w, b.before, within, from == GROUP);
            put_mean(b, w, keys, at);
        }
        const char *record = tsr_kv_mean(w.kv, keys, at);
        const float scale = __uint_as_float((uint32_t) * (const uint16_t *)record << 16);

        for (int i = threadIdx.x; i < 2 * n_pairs; i += GROUP_THREADS) {
            b.mean[i] = scale * (float)(int8_t)record[sizeof(uint16_t) + i];
        }
        __syncthreads();
        for (int p = from + warp; p < end; p += GROUP_WARPS) {
            put_centred(b, w, keys, at + p - from, key_of(p), b.vectors[warp],
                        b.vectors[GROUP_WARPS + warp]);
        }
    }
}

/* ---- launches -------------------------------------------------------------------------------- */

/* A warp a row and head. */
static __global__ void __launch_bounds__(THREADS)
    turn_rows(tsr_rows<float> to, tsr_rows<const float> from, int64_t n_rows, int dim, int unit,
              float factor)
{
    __shared__ float vectors[WARPS][MOST_DIM];
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / TSR_WARP;
    const int first = (int)blockIdx.y * dim;
    float *x = vectors[threadIdx.x / TSR_WARP];

    if (row >= n_rows) { // whole warps
        return;
    }
    for (int d = own_lane(); d < dim; d += TSR_WARP) {
        x[d] = from[row][first + d] * factor;
    }
    turn(x, dim, unit);
    for (int d = own_lane(); d < dim; d += TSR_WARP) {
        to[row][first + d] = x[d];
    }
}

tsr_status tsr_kv_codes_turn(tsr_device *dev, tsr_tensor to, tsr_tensor from, int n_heads, int dim,
                             int unit, float factor)
{
    const dim3 grid(tsr_blocks(from.n_rows, WARPS), (unsigned)n_heads);

    turn_rows<<<grid, THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(to), tsr_rows_of<const float>(from), from.n_rows, dim, unit, factor);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

tsr_status tsr_kv_codes_write(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor k, tsr_tensor v,
                              const tsr_batch *batch)
{
    const tsr_kv_layout *layout = kv->layout;
    const bool is_centred = tsr_kv_layout_is_centred(layout);
    const cudaStream_t queue = tsr_cuda_queue(dev);
    writing w = {};

    w.kv = tsr_kv_place_of(kv);
    w.type = layout->type;
    w.levels = tsr_kv_levels_of(layout->type);
    w.k = tsr_rows_of<const float>(k);
    w.v = tsr_rows_of<const float>(v);
    w.batch = tsr_batch_rows_of(batch);
    w.n_rows = k.n_rows;
    w.key_unit = tsr_kv_code_key_unit(layout);
    w.value_unit = tsr_kv_code_value_unit(layout);
    w.drift = kv->drift;
    write_codes<<<dim3(tsr_blocks(k.n_rows, WARPS), (unsigned)layout->n_kv_heads), THREADS, 0,
                  queue>>>(w);
    TSR_CUDA_LAUNCHED();
    if (is_centred) {
        write_centred<<<dim3((unsigned)batch->n_seqs, (unsigned)layout->n_kv_heads), GROUP_THREADS,
                        0, queue>>>(w);
        TSR_CUDA_LAUNCHED();
    }
    return TSR_OK;
}
