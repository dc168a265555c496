/* The ops that go along rows: sums, norm, SwiGLU, rows by number, changes of single logits. */
#include "kernels/cuda.cuh"

enum {
    THREADS = 256,
    NORM_THREADS = 512,
    MOST_STAGED = 47 * 1024 // bytes that need not be asked for
};

/* A block's share of a row, so that one long row keeps many blocks busy. */
static dim3 grid_of(int64_t n_rows, int64_t n_cols)
{
    return dim3((unsigned)n_rows, tsr_blocks(n_cols, 4 * THREADS));
}

#define EACH_COLUMN(c, n_cols)                                                                \
    for (int64_t c = (int64_t)blockIdx.y * 4 * THREADS + threadIdx.x, end_ = c + 4 * THREADS; \
         c < end_ && c < (n_cols); c += THREADS)

/* ---- sums over ranks
 * ----------------------------------------------------------------------------- */

struct parts {
    tsr_rows<const double> of[TSR_MAX_PARTS];
    int n;
};

static parts parts_of(const tsr_tensor *tensors, int n)
{
    parts p;

    p.n = n;
    for (int i = 0; i < TSR_MAX_PARTS; i++) {
        p.of[i] = tsr_rows_of<const double>(tensors[i < n ? i : 0]);
    }
    return p;
}

/* Exact in any order; from zero, so that it is never a negative zero, which would tell the number
 * of ranks. */
static __device__ __forceinline__ double total(const parts &p, int64_t row, int64_t c)
{
    double sum = 0.0;

#pragma unroll
    for (int i = 0; i < TSR_MAX_PARTS; i++) {
        if (i < p.n) {
            sum += p.of[i][row][c];
        }
    }
    return sum;
}

static __global__ void narrow_rows(tsr_rows<float> x, parts p, int64_t n_cols)
{
    const int64_t row = blockIdx.x;

    EACH_COLUMN(c, n_cols)
    {
        x[row][c] = (float)total(p, row, c);
    }
}

static __global__ void add_sums_rows(tsr_rows<float> x, parts p, const float *bias, int64_t n_cols)
{
    const int64_t row = blockIdx.x;

    EACH_COLUMN(c, n_cols)
    {
        const float sum = (float)total(p, row, c);

        x[row][c] += bias != NULL ? sum + bias[c] : sum;
    }
}

extern "C" tsr_status tsr_narrow_cuda(tsr_device *dev, tsr_tensor x, const tsr_tensor *tensors,
                                      int n_parts)
{
    narrow_rows<<<grid_of(x.n_rows, x.n_cols), THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), parts_of(tensors, n_parts), x.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

extern "C" tsr_status tsr_add_sums_cuda(tsr_device *dev, tsr_tensor x, const tsr_tensor *tensors,
                                        int n_parts, tsr_tensor bias)
{
    add_sums_rows<<<grid_of(x.n_rows, x.n_cols), THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), parts_of(tensors, n_parts), (const float *)bias.data, x.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* ---- norm and SwiGLU
 * ----------------------------------------------------------------------------- */

/* A block a row, which is held in shared memory when there is room: sixteen threads sum squares, in
 * the CPU's sixteen lanes. */
static __global__ void __launch_bounds__(NORM_THREADS)
    rmsnorm_rows(tsr_rows<float> out, tsr_rows<const float> x, const float *weight, int64_t n_cols,
                 float eps, bool is_staged)
{
    extern __shared__ float staged[];
    __shared__ float total;
    const float *from = x[blockIdx.x];
    float *to = out[blockIdx.x];

    for (int64_t c = threadIdx.x; is_staged && c < n_cols; c += NORM_THREADS) {
        staged[c] = from[c];
    }
    __syncthreads();
    if (threadIdx.x < TSR_WARP) {
        const float *row = is_staged ? staged : from;
        float sum = 0.0F;

#pragma unroll 8
        for (int64_t c = threadIdx.x % TSR_SUM_LANES; c < n_cols; c += TSR_SUM_LANES) {
            sum = fmaf(row[c], row[c], sum);
        }
        sum = tsr_sum_of_lanes(sum);
        if (threadIdx.x == 0) {
            total = sum;
        }
    }
    __syncthreads();
    const float scale = 1.0F / sqrtf(total / (float)n_cols + eps);

    // Nobody reads another's columns any more, so out may be x.
    for (int64_t c = threadIdx.x; c < n_cols; c += NORM_THREADS) {
        to[c] = (is_staged ? staged[c] : from[c]) * scale * weight[c];
    }
}

extern "C" tsr_status tsr_rmsnorm_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                       tsr_tensor weight, float eps)
{
    const size_t n_bytes = (size_t)x.n_cols * sizeof(float);
    const bool is_staged = n_bytes <= MOST_STAGED;

    if (x.n_cols == 0) {
        return TSR_OK;
    }
    rmsnorm_rows<<<(unsigned)x.n_rows, NORM_THREADS, is_staged ? n_bytes : 0,
                   tsr_cuda_queue(dev)>>>(tsr_rows_of<float>(out), tsr_rows_of<const float>(x),
                                          (const float *)weight.data, x.n_cols, eps, is_staged);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

static __global__ void swiglu_rows(tsr_rows<float> out, tsr_rows<const float> gate,
                                   tsr_rows<const float> up, int64_t n_cols)
{
    const int64_t row = blockIdx.x;

    EACH_COLUMN(c, n_cols)
    {
        const float g = gate[row][c];

        // e^88 is within f32, and gate / (1 + e^88) is as good as 0.
        out[row][c] = g / (1.0F + tsr_exp(0.0F - fmaxf(g, -88.0F))) * up[row][c];
    }
}

extern "C" tsr_status tsr_swiglu_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor gate,
                                      tsr_tensor up)
{
    swiglu_rows<<<grid_of(out.n_rows, out.n_cols), THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(out), tsr_rows_of<const float>(gate), tsr_rows_of<const float>(up),
        out.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* ---- rows and logits by number
 * ------------------------------------------------------------------- */

/* Nobody waits for the GPU to learn of a wild number: its row becomes NaN, which nobody can miss.
 */
static __global__ void gather(tsr_rows<float> out, tsr_rows<const float> x, const int32_t *rows,
                              int64_t n_rows, int64_t n_cols)
{
    const int64_t row = rows[blockIdx.x];
    const bool is_there = row >= 0 && row < n_rows;

    EACH_COLUMN(c, n_cols)
    {
        out[blockIdx.x][c] = is_there ? x[row][c] : NAN;
    }
}

extern "C" tsr_status tsr_gather_rows_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                           tsr_tensor rows)
{
    gather<<<grid_of(out.n_rows, out.n_cols), THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(out), tsr_rows_of<const float>(x), (const int32_t *)rows.data, x.n_rows,
        out.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

struct changes {
    const int32_t *rows, *ids;
    const float *factors, *adds;
    float *before;
    int64_t n;
};

static __global__ void adjust(tsr_rows<float> logits, changes all, int64_t first_id, int64_t n_rows,
                              int64_t n_cols)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (i < all.n) {
        const int64_t row = all.rows[i];
        const int64_t column = all.ids[i] - first_id;

        if (row < 0 || row >= n_rows || column < 0 || column >= n_cols) {
            all.before[i] = NAN; // as with rows by number
        } else {
            const float x = logits[row][column];
            const float turned = x > 0.0F ? x / all.factors[i] : x * all.factors[i];

            all.before[i] = x;
            logits[row][column] = turned + all.adds[i];
        }
    }
}

extern "C" tsr_status tsr_adjust_logits_cuda(tsr_device *dev, tsr_tensor logits, tsr_tensor before,
                                             tsr_tensor rows, tsr_tensor ids, tsr_tensor factors,
                                             tsr_tensor adds, int64_t first_id)
{
    const changes all = {(const int32_t *)rows.data,  (const int32_t *)ids.data,
                         (const float *)factors.data, (const float *)adds.data,
                         (float *)before.data,        rows.n_cols};

    adjust<<<tsr_blocks(all.n, THREADS), THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(logits), all, first_id, logits.n_rows, logits.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}
