/* Sums over ranks, rows and logits by number, and copies. */
#include "kernels/cuda.cuh"
#include "kernels/grain.h"
#include "kernels/sums.cuh"

/* ---- sums over ranks
 * ----------------------------------------------------------------------------- */

static __global__ void narrow_rows(tsr_rows<float> x, tsr_sum_parts p, const float *bias,
                                   int64_t n_cols)
{
    const int64_t row = blockIdx.x;

    TSR_EACH_COLUMN(c, n_cols)
    {
        const float sum = (float)p.total(row, c);

        x[row][c] = bias != NULL ? sum + bias[c] : sum;
    }
}

static __global__ void add_sums_rows(tsr_rows<float> x, tsr_sum_parts p, const float *bias,
                                     int64_t n_cols)
{
    const int64_t row = blockIdx.x;

    TSR_EACH_COLUMN(c, n_cols)
    {
        const float sum = (float)p.total(row, c);

        x[row][c] += bias != NULL ? sum + bias[c] : sum;
    }
}

extern "C" tsr_status tsr_narrow_cuda(tsr_device *dev, tsr_tensor x, const tsr_tensor *tensors,
                                      int n_parts, tsr_tensor bias)
{
    narrow_rows<<<tsr_grid_of(x.n_rows, x.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), tsr_sum_parts_of(tensors, n_parts), (const float *)bias.data,
        x.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

extern "C" tsr_status tsr_add_sums_cuda(tsr_device *dev, tsr_tensor x, const tsr_tensor *tensors,
                                        int n_parts, tsr_tensor bias)
{
    add_sums_rows<<<tsr_grid_of(x.n_rows, x.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(x), tsr_sum_parts_of(tensors, n_parts), (const float *)bias.data,
        x.n_cols);
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

    TSR_EACH_COLUMN(c, n_cols)
    {
        out[blockIdx.x][c] = is_there ? x[row][c] : NAN;
    }
}

extern "C" tsr_status tsr_gather_rows_cuda(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                           tsr_tensor rows)
{
    gather<<<tsr_grid_of(out.n_rows, out.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
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
    const int64_t i = (int64_t)blockIdx.x * TSR_ROW_THREADS + threadIdx.x;

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

    adjust<<<tsr_blocks(all.n, TSR_ROW_THREADS), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(logits), all, first_id, logits.n_rows, logits.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* ---- experts
 * ------------------------------------------------------------------------------------- */

/* A part belongs to one row of sums and no row has two, so blocks do not meet. */
static __global__ void scatter(tsr_rows<double> sums, tsr_rows<const double> parts,
                               const int32_t *rows, const float *weights, const float *bias,
                               int64_t n_rows, int64_t n_cols)
{
    const int64_t row = rows[blockIdx.x];

    if (row >= 0 && row < n_rows) {
        TSR_EACH_COLUMN(c, n_cols)
        {
            double sum = sums[row][c] + parts[blockIdx.x][c];

            if (bias != NULL) {
                const float term = weights[blockIdx.x] * bias[c];

                sum += fma((double)term, TSR_GRAIN_FACTOR, TSR_GRAIN_START) - TSR_GRAIN_START;
            }
            sums[row][c] = sum;
        }
    }
}

extern "C" tsr_status tsr_scatter_sums_cuda(tsr_device *dev, tsr_tensor sums, tsr_tensor parts,
                                            tsr_tensor rows, tsr_tensor weights, tsr_tensor bias)
{
    scatter<<<tsr_grid_of(parts.n_rows, parts.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<double>(sums), tsr_rows_of<const double>(parts), (const int32_t *)rows.data,
        (const float *)weights.data, (const float *)bias.data, sums.n_rows, sums.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* ---- copies
 * -------------------------------------------------------------------------------------- */

static __global__ void clear_rows(char *data, int64_t stride_bytes, int64_t n_bytes)
{
    TSR_EACH_COLUMN(c, n_bytes)
    {
        data[(int64_t)blockIdx.x * stride_bytes + c] = 0;
    }
}

extern "C" tsr_status tsr_clear_cuda(tsr_device *dev, tsr_tensor x)
{
    const int64_t elem_bytes = (int64_t)tsr_dtype_bytes(x.dtype);

    clear_rows<<<tsr_grid_of(x.n_rows, x.n_cols * elem_bytes), TSR_ROW_THREADS, 0,
                 tsr_cuda_queue(dev)>>>((char *)x.data, x.stride * elem_bytes,
                                        x.n_cols * elem_bytes);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

static __global__ void copy_heads(tsr_rows<float> out, int out_dim, int to, tsr_rows<const float> x,
                                  int x_dim, int from, int n, int64_t n_elems)
{
    TSR_EACH_COLUMN(i, n_elems)
    {
        const int64_t head = i / n;
        const int64_t d = i % n;

        out[blockIdx.x][head * out_dim + to + d] = x[blockIdx.x][head * x_dim + from + d];
    }
}

extern "C" tsr_status tsr_copy_heads_cuda(tsr_device *dev, tsr_tensor out, int out_dim, int to,
                                          tsr_tensor x, int x_dim, int from, int n)
{
    const int64_t n_elems = x.n_cols / x_dim * n;

    if (n_elems == 0 || x.n_rows == 0) {
        return TSR_OK;
    }
    copy_heads<<<tsr_grid_of(x.n_rows, n_elems), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<float>(out), out_dim, to, tsr_rows_of<const float>(x), x_dim, from, n, n_elems);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}
