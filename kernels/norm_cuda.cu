/* Norms, activations, and what else goes element by element along rows. */
#include "kernels/cuda.cuh"
#include "kernels/grain.h"

enum {
    NORM_THREADS = 512,
    MOST_STAGED = 47 * 1024 // bytes of shared memory that need not be asked for
};

/* ---- norms
 * --------------------------------------------------------------------------------------- */

/* The sum over c of f(row[c]) as the CPU takes it, in sixteen lanes; by the first warp of a block.
 */
template <typename F>
static __device__ __forceinline__ float lane_sum(const float *row, int64_t n, F add)
{
    float sum = 0.0F;

#pragma unroll 8
    for (int64_t c = threadIdx.x % TSR_SUM_LANES; c < n; c += TSR_SUM_LANES) {
        sum = add(row[c], sum);
    }
    return tsr_sum_of_lanes(sum);
}

/* A block a row, which is held in shared memory when there is room. */
template <bool IS_LAYERNORM>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_rows(tsr_rows<float> out, tsr_rows<const float> x, tsr_rows<const float> weights,
              tsr_rows<const float> biases, int64_t n_weights, int64_t n_cols, float eps,
              bool is_staged)
{
    extern __shared__ float staged[];
    __shared__ float mean;
    __shared__ float total;
    const float *from = x[blockIdx.x];
    const float *weight = weights[blockIdx.x % n_weights];
    const float *bias = biases.data != NULL ? biases[blockIdx.x % n_weights] : NULL;
    float *to = out[blockIdx.x];

    for (int64_t c = threadIdx.x; is_staged && c < n_cols; c += NORM_THREADS) {
        staged[c] = from[c];
    }
    __syncthreads();
    if (threadIdx.x < TSR_WARP) {
        const float *row = is_staged ? staged : from;
        float m = 0.0F;

        if (IS_LAYERNORM) {
            m = lane_sum(row, n_cols, [](float v, float sum) { return sum + v; }) / (float)n_cols;
        }
        const float sum =
            lane_sum(row, n_cols, [m](float v, float acc) { return fmaf(v - m, v - m, acc); });

        if (threadIdx.x == 0) {
            mean = m;
            total = sum;
        }
    }
    __syncthreads();
    const float scale = 1.0F / sqrtf(total / (float)n_cols + eps);

    // Nobody reads another's columns any more, so out may be x.
    for (int64_t c = threadIdx.x; c < n_cols; c += NORM_THREADS) {
        const float v = is_staged ? staged[c] : from[c];
        const float normed = (IS_LAYERNORM ? v - mean : v) * scale;

        to[c] = bias != NULL ? fmaf(normed, weight[c], bias[c]) : normed * weight[c];
    }
}

template <bool IS_LAYERNORM>
static tsr_status launch_norm(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight,
                              tsr_tensor bias, float eps)
{
    const size_t n_bytes = (size_t)x.n_cols * sizeof(float);
    const bool is_staged = n_bytes <= MOST_STAGED;

    if (x.n_cols == 0) {
        return TSR_OK;
    }
    norm_rows<IS_LAYERNORM>
        <<<(unsigned)x.n_rows, NORM_THREADS, is_staged ? n_bytes : 0, tsr_cuda_queue(dev)>>>(
            tsr_rows_of<float>(out), tsr_rows_of<const float>(x), tsr_rows_of<const float>(weight),
            tsr_rows_of<const float>(bias), weight.n_rows, x.n_cols, eps, is_staged);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

extern "C" tsr_status tsr_rmsnorm_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                       tsr_tensor weight, float eps)
{
    const tsr_tensor none = {};

    return launch_norm<false>(dev, out, x, weight, none, eps);
}

extern "C" tsr_status tsr_layernorm_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                         tsr_tensor weight, tsr_tensor bias, float eps)
{
    return launch_norm<true>(dev, out, x, weight, bias, eps);
}

/* A warp a row: heads one after another. */
static __global__ void square_rows(tsr_rows<double> sums, tsr_rows<const float> x, int head_dim,
                                   int64_t n_cols)
{
    double sum = TSR_GRAIN_START;

    for (int64_t first = 0; first < n_cols; first += head_dim) {
        const float squares = lane_sum(x[blockIdx.x] + first, head_dim,
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

struct square_parts {
    tsr_rows<const double> of[TSR_MAX_PARTS];
    int n;
};

static __global__ void norm_shared_rows(tsr_rows<float> x, square_parts parts, const float *weight,
                                        int64_t n_cols, int64_t n_whole, float eps)
{
    double sum = 0.0;

#pragma unroll
    for (int p = 0; p < TSR_MAX_PARTS; p++) {
        sum += p < parts.n ? parts.of[p][blockIdx.x][0] : 0.0;
    }
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
    square_parts parts;

    parts.n = n_parts;
    for (int p = 0; p < TSR_MAX_PARTS; p++) {
        parts.of[p] = tsr_rows_of<const double>(tensors[p < n_parts ? p : 0]);
    }
    if (x.n_cols == 0) {
        return TSR_OK;
    }
    norm_shared_rows<<<tsr_grid_of(x.n_rows, x.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), parts, (const float *)weight.data, x.n_cols, n_whole, eps);
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

static __global__ void activate_rows(tsr_rows<float> out, tsr_rows<const float> gate,
                                     tsr_rows<const float> up, const float *weights, int64_t n_cols,
                                     tsr_activation activation)
{
    const int64_t row = blockIdx.x;
    const float weight = weights != NULL ? weights[row] : 1.0F;

    TSR_EACH_COLUMN(c, n_cols)
    {
        float v = activated(gate[row][c], activation);

        if (up.data != NULL) {
            const float u = up[row][c];

            v *= activation == TSR_ACTIVATION_SWIGLU_CLAMPED ? fmaxf(least(u, 7.0F), -7.0F) + 1.0F
                                                             : u;
        }
        out[row][c] = weight == 1.0F ? v : v * weight;
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
