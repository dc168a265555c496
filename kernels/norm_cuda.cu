/* Norms, activations, and what else goes element by element along rows. */
#include "kernels/codes.cuh"
#include "kernels/grain.h"
#include "kernels/sums.cuh"

enum {
    NORM_THREADS = 512,
    MOST_STAGED = 47 * 1024 // bytes of shared memory that need not be asked for
};

/* ---- norms
 * --------------------------------------------------------------------------------------- */

/* A block a row, which is held in shared memory when there is room. */
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_rows(tsr_rows<float> out, tsr_rows<const float> x, tsr_rows<const float> weights,
              tsr_rows<const float> biases, int64_t n_weights, int64_t n_cols, bool is_layernorm,
              float eps, bool is_staged)
{
    extern __shared__ float staged[];
    const float *from = x[blockIdx.x];
    const float *weight = weights[blockIdx.x % n_weights];
    const float *bias = biases.data != NULL ? biases[blockIdx.x % n_weights] : NULL;
    float *to = out[blockIdx.x];

    for (int64_t c = threadIdx.x; is_staged && c < n_cols; c += NORM_THREADS) {
        staged[c] = from[c];
    }
    const tsr_norm_of_row norm = tsr_norm_of(is_staged ? staged : from, n_cols, is_layernorm, eps);

    // Nobody reads another's columns any more, so out may be x.
    for (int64_t c = threadIdx.x; c < n_cols; c += NORM_THREADS) {
        to[c] = norm.apply(is_staged ? staged[c] : from[c], weight, bias, c);
    }
}

static tsr_status launch_norm(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight,
                              tsr_tensor bias, bool is_layernorm, float eps)
{
    const size_t n_bytes = (size_t)x.n_cols * sizeof(float);
    const bool is_staged = n_bytes <= MOST_STAGED;

    if (x.n_cols == 0) {
        return TSR_OK;
    }
    norm_rows<<<(unsigned)x.n_rows, NORM_THREADS, is_staged ? n_bytes : 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(out), tsr_rows_of<const float>(x), tsr_rows_of<const float>(weight),
        tsr_rows_of<const float>(bias), weight.n_rows, x.n_cols, is_layernorm, eps, is_staged);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

extern "C" tsr_status tsr_rmsnorm_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                       tsr_tensor weight, float eps)
{
    const tsr_tensor none = {};

    return launch_norm(dev, out, x, weight, none, false, eps);
}

extern "C" tsr_status tsr_layernorm_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                         tsr_tensor weight, tsr_tensor bias, float eps)
{
    return launch_norm(dev, out, x, weight, bias, true, eps);
}

/* What tsr_joining says, as the kernel takes it; the vectors may be NULL. */
struct joining {
    tsr_sum_parts parts;
    const float *bias, *post_weight, *post_bias, *next_weight, *next_bias;
    float scale, eps;
    bool is_layernorm;
    tsr_rows<float> out; // data NULL: not wanted
    tsr_codes_rows codes;
};

/* A block a row, held in shared memory; a thread has the same columns from the first sum to the
 * last norm. */
static __global__ void __launch_bounds__(NORM_THREADS)
    join_rows(tsr_rows<float> xs, joining j, int64_t n_cols)
{
    extern __shared__ float staged[];
    const int64_t row = blockIdx.x;
    float *x = xs[row];
    tsr_norm_of_row norm = {};

    for (int64_t c = threadIdx.x; c < n_cols; c += NORM_THREADS) {
        float v = x[c];

        if (j.parts.n > 0) {
            float sum = (float)j.parts.total(row, c);

            sum = j.bias != NULL ? sum + j.bias[c] : sum;
            if (j.post_weight != NULL) {
                v = sum;
            } else {
                v += j.scale * sum;
                x[c] = v;
            }
        }
        staged[c] = v;
    }
    if (j.parts.n > 0 && j.post_weight != NULL) {
        norm = tsr_norm_of(staged, n_cols, j.is_layernorm, j.eps);
        for (int64_t c = threadIdx.x; c < n_cols; c += NORM_THREADS) {
            const float v = x[c] + j.scale * norm.apply(staged[c], j.post_weight, j.post_bias, c);

            x[c] = v;
            staged[c] = v;
        }
    }
    if (j.out.data == NULL) {
        return; // the whole block
    }
    if (j.next_weight != NULL) {
        norm = tsr_norm_of(staged, n_cols, j.is_layernorm, j.eps);
    }
    // Whole warps, whose lanes are the columns of a group.
    for (int64_t c = threadIdx.x; c - threadIdx.x % TSR_WARP < n_cols; c += NORM_THREADS) {
        float v = 0.0F;

        if (c < n_cols) {
            v = j.next_weight != NULL ? norm.apply(staged[c], j.next_weight, j.next_bias, c)
                                      : staged[c];
            j.out[row][c] = v;
        }
        if (j.codes.codes != NULL) {
            tsr_codes_write(j.codes.codes, j.codes.floats,
                            row * j.codes.n_groups + c / TSR_TILE_COLS, v);
        }
    }
}

extern "C" tsr_status tsr_join_cuda(tsr_device *dev, tsr_tensor x, const tsr_joining *j)
{
    const size_t n_bytes = (size_t)x.n_cols * sizeof(float);
    const tsr_codes_rows codes = tsr_codes_in(j->codes.data, x.n_rows, x.n_cols);
    joining all = {};

    if (n_bytes > MOST_STAGED) {
        TSR_TRY(tsr_join_cpu(dev, x, j));
        return j->codes.data != NULL ? tsr_codes_round(dev, codes, j->out) : TSR_OK;
    }
    all.parts = tsr_sum_parts_of(j->parts, j->n_parts);
    all.bias = (const float *)j->bias.data;
    all.post_weight = (const float *)j->post_weight.data;
    all.post_bias = (const float *)j->post_bias.data;
    all.next_weight = (const float *)j->next_weight.data;
    all.next_bias = (const float *)j->next_bias.data;
    all.scale = j->scale;
    all.eps = j->eps;
    all.is_layernorm = j->is_layernorm;
    all.out = tsr_rows_of<float>(j->out);
    if (j->codes.data != NULL) {
        all.codes = codes;
    }
    join_rows<<<(unsigned)x.n_rows, NORM_THREADS, n_bytes, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), all, x.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* A warp a row: heads one after another. */
static __global__ void square_rows(tsr_rows<double> sums, tsr_rows<const float> x, int head_dim,
                                   int64_t n_cols)
{
    double sum = TSR_GRAIN_START;

    for (int64_t first = 0; first < n_cols; first += head_dim) {
        const float squares = tsr_lane_sum(x[blockIdx.x] + first, head_dim,
                                           [](float v, float acc) { return fmaf(v, v, acc); });

        sum = fma((double)squares, TSR_GRAIN_FACTOR, sum);
    }
    if (threadIdx.x == 0) {
        sums[blockIdx.x][0] = sum - TSR_GRAIN_START;
    }
}

extern "C" tsr_status tsr_square_sums_cuda(tsr_device *dev, tsr_tensor sums, tsr_tensor x,
                                           int head_dim)
{
    square_rows<<<(unsigned)x.n_rows, TSR_WARP, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<double>(sums), tsr_rows_of<const float>(x), head_dim, x.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

static __global__ void norm_shared_rows(tsr_rows<float> x, tsr_sum_parts parts, const float *weight,
                                        int64_t n_cols, int64_t n_whole, float eps)
{
    const double sum = parts.total(blockIdx.x, 0);
    const float scale = 1.0F / sqrtf((float)sum / (float)n_whole + eps);

    TSR_EACH_COLUMN(c, n_cols)
    {
        x[blockIdx.x][c] = x[blockIdx.x][c] * scale * weight[c];
    }
}

extern "C" tsr_status tsr_rmsnorm_shared_cuda(tsr_device *dev, tsr_tensor x,
                                              const tsr_tensor *tensors, int n_parts,
                                              tsr_tensor weight, int64_t n_whole, float eps)
{
    if (x.n_cols == 0) {
        return TSR_OK;
    }
    norm_shared_rows<<<tsr_grid_of(x.n_rows, x.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), tsr_sum_parts_of(tensors, n_parts), (const float *)weight.data,
        x.n_cols, n_whole, eps);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* ---- activations: as kernels/row_loops.c has them, rounding by rounding
 * ----------------------------- */

static __device__ __forceinline__ float times_sigmoid(float x, float z)
{
    // e^88 is within f32, and x / (1 + e^88) is as good as 0.
    return x / (1.0F + tsr_exp(0.0F - fmaxf(z, -88.0F)));
}

static __device__ __forceinline__ float gelu(float x)
{
    const float size = fabsf(x);
    const float z = size * 0.70710678F;
    const float t = 1.0F / fmaf(z, 0.3275911F, 1.0F);
    float p = 1.061405429F;

    p = fmaf(p, t, -1.453152027F);
    p = fmaf(p, t, 1.421413741F);
    p = fmaf(p, t, -0.284496736F);
    p = fmaf(p, t, 0.254829592F);
    return fmaxf(x, 0.0F) - p * t * tsr_exp(x * x * -0.5F) * (size * 0.5F);
}

static __device__ __forceinline__ float least(float x, float bound)
{
    return 0.0F - fmaxf(0.0F - x, -bound);
}

static __device__ __forceinline__ float activated(float g, tsr_activation activation)
{
    switch (activation) {
    case TSR_ACTIVATION_SILU:
        return times_sigmoid(g, g);
    case TSR_ACTIVATION_GELU:
        return gelu(g);
    case TSR_ACTIVATION_GELU_TANH:
        return times_sigmoid(g, fmaf(g * g * g, 0.044715F, g) * 1.5957691F);
    case TSR_ACTIVATION_RELU:
        return fmaxf(g, 0.0F);
    default:
        g = least(g, 7.0F);
        return times_sigmoid(g, g * 1.702F);
    }
}

static __device__ __forceinline__ float gated(float gate, const float *up,
                                              tsr_activation activation)
{
    const float v = activated(gate, activation);

    if (up == NULL) {
        return v;
    }
    return v * (activation == TSR_ACTIVATION_SWIGLU_CLAMPED ? fmaxf(least(*up, 7.0F), -7.0F) + 1.0F
                                                            : *up);
}

static __global__ void activate_rows(tsr_rows<float> out, tsr_rows<const float> gate,
                                     tsr_rows<const float> up, const float *weights, int64_t n_cols,
                                     tsr_activation activation)
{
    const int64_t row = blockIdx.x;
    const float weight = weights != NULL ? weights[row] : 1.0F;

    TSR_EACH_COLUMN(c, n_cols)
    {
        const float v = gated(gate[row][c], up.data != NULL ? up[row] + c : NULL, activation);

        out[row][c] = weight == 1.0F ? v : v * weight;
    }
}

/* A warp a group, a lane a column. */
static __global__ void activate_groups(tsr_codes_rows codes, tsr_rows<float> out,
                                       tsr_rows<const float> gate, tsr_rows<const float> up,
                                       int64_t n_cols, tsr_activation activation)
{
    const int64_t row = blockIdx.x;

    TSR_EACH_COLUMN(c, codes.n_groups * TSR_TILE_COLS)
    {
        float v = 0.0F;

        if (c < n_cols) {
            v = gated(gate[row][c], up.data != NULL ? up[row] + c : NULL, activation);
            out[row][c] = v;
        }
        tsr_codes_write(codes.codes, codes.floats, row * codes.n_groups + c / TSR_TILE_COLS, v);
    }
}

extern "C" tsr_status tsr_activate_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor gate,
                                        tsr_tensor up, tsr_tensor weights,
                                        tsr_activation activation)
{
    activate_rows<<<tsr_grid_of(out.n_rows, out.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(out), tsr_rows_of<const float>(gate), tsr_rows_of<const float>(up),
        (const float *)weights.data, out.n_cols, activation);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

extern "C" tsr_status tsr_activate_codes_cuda(tsr_device *dev, tsr_codes codes, tsr_tensor out,
                                              tsr_tensor gate, tsr_tensor up,
                                              tsr_activation activation)
{
    activate_groups<<<tsr_grid_of(out.n_rows, out.n_cols), TSR_ROW_THREADS, 0,
                      tsr_cuda_queue(dev)>>>(
        tsr_codes_in(codes.data, out.n_rows, out.n_cols), tsr_rows_of<float>(out),
        tsr_rows_of<const float>(gate), tsr_rows_of<const float>(up), out.n_cols, activation);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

static __global__ void sigmoid_rows(tsr_rows<float> x, int64_t n_rows)
{
    const int64_t row = (int64_t)blockIdx.x * TSR_ROW_THREADS + threadIdx.x;

    if (row < n_rows) {
        x[row][0] = (float)(1 / (1 + exp(-(double)x[row][0])));
    }
}

extern "C" tsr_status tsr_sigmoid_cuda(tsr_device *dev, tsr_tensor x)
{
    sigmoid_rows<<<tsr_blocks(x.n_rows, TSR_ROW_THREADS), TSR_ROW_THREADS, 0,
                   tsr_cuda_queue(dev)>>>(tsr_rows_of<float>(x), x.n_rows);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

static __global__ void scale_rows(tsr_rows<float> x, int64_t n_cols, float factor, float cap)
{
    TSR_EACH_COLUMN(c, n_cols)
    {
        const float v = x[blockIdx.x][c] * factor;

        // cap tanh(v / cap) = 2 cap / (1 + e^(-2 v / cap)) - cap
        x[blockIdx.x][c] = cap > 0 ? times_sigmoid(2 * cap, v * (2 / cap)) - cap : v;
    }
}

static __global__ void clip_rows(tsr_rows<float> x, int64_t n_cols, float limit)
{
    TSR_EACH_COLUMN(c, n_cols)
    {
        const float v = x[blockIdx.x][c];

        x[blockIdx.x][c] = v > limit ? limit : v < -limit ? -limit : v;
    }
}

static __global__ void add_scaled_rows(tsr_rows<float> x, tsr_rows<const float> y, int64_t n_cols,
                                       float factor)
{
    TSR_EACH_COLUMN(c, n_cols)
    {
        x[blockIdx.x][c] += factor * y[blockIdx.x][c];
    }
}

extern "C" tsr_status tsr_scale_cuda(tsr_device *dev, tsr_tensor x, float factor, float cap)
{
    scale_rows<<<tsr_grid_of(x.n_rows, x.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), x.n_cols, factor, cap);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

extern "C" tsr_status tsr_clip_cuda(tsr_device *dev, tsr_tensor x, float limit)
{
    clip_rows<<<tsr_grid_of(x.n_rows, x.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), x.n_cols, limit);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

extern "C" tsr_status tsr_add_scaled_cuda(tsr_device *dev, tsr_tensor x, tsr_tensor y, float factor)
{
    add_scaled_rows<<<tsr_grid_of(x.n_rows, x.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), tsr_rows_of<const float>(y), x.n_cols, factor);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}
