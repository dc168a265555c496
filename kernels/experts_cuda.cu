/* Mixtures of experts: which of them a row takes, rows by expert, and their parts. The products are
 * those of matmul_cuda.cu. */
#include <float.h>

#include "kernels/cuda.cuh"
#include "kernels/grain.h"

enum {
    WARPS = 4,
    THREADS = WARPS * TSR_WARP
};

/* ---- routes
 * -------------------------------------------------------------------------------------- */

/* A logit and its number; the larger logit comes first, of equals the lower number. */
struct candidate {
    float logit;
    int number;

    __device__ __forceinline__ bool is_behind(const candidate &other) const
    {
        return other.logit > logit || (other.logit == logit && other.number < number);
    }
};

/* The first of all by that order, over a warp; a NaN is none of them. */
template <class Logit>
static __device__ __forceinline__ candidate first_of(int n, const Logit &logit)
{
    candidate best = {-INFINITY, n};

    for (int i = (int)threadIdx.x; i < n; i += TSR_WARP) {
        const candidate next = {logit(i), i};

        best = best.is_behind(next) ? next : best;
    }
    for (int step = TSR_WARP / 2; step > 0; step /= 2) {
        const candidate other = {__shfl_xor_sync(TSR_WHOLE_WARP, best.logit, step),
                                 __shfl_xor_sync(TSR_WHOLE_WARP, best.number, step)};

        best = best.is_behind(other) ? other : best;
    }
    return best;
}

/* A warp a row. Twice a choice of the best, one after another: of groups, then of experts. */
static __global__ void __launch_bounds__(TSR_WARP)
    route_rows(tsr_rows<int32_t> ids, tsr_rows<float> weights, tsr_rows<const float> logits,
               tsr_routing r)
{
    __shared__ float left[TSR_ROUTE_MOST]; // logits of what may still be chosen, else NaN
    __shared__ float best_of_group[TSR_ROUTE_MOST];
    __shared__ double masses[TSR_ROUTE_MOST];
    const float *row = logits[blockIdx.x];
    const int lane = (int)threadIdx.x;
    const float most = first_of(r.n_experts, [row](int i) { return row[i]; }).logit;
    const int group_size = r.n_groups > 0 ? r.n_experts / r.n_groups : r.n_experts;
    double mass = 0.0;

    for (int i = lane; i < r.n_experts; i += TSR_WARP) {
        left[i] = r.n_groups > 0 ? -FLT_MAX : fmaxf(row[i], -INFINITY);
        masses[i] = exp((double)(row[i] - most));
    }
    for (int g = lane; g < r.n_groups; g += TSR_WARP) {
        best_of_group[g] = -INFINITY;
        for (int i = 0; i < group_size; i++) {
            best_of_group[g] = fmaxf(best_of_group[g], row[g * group_size + i]);
        }
    }
    __syncwarp();
    for (int k = 0; k < (r.n_groups > 0 ? r.n_groups_used : 0); k++) {
        const int g = first_of(r.n_groups, [](int i) { return best_of_group[i]; }).number;

        for (int i = lane; i < group_size; i += TSR_WARP) {
            left[g * group_size + i] = fmaxf(row[g * group_size + i], -INFINITY);
        }
        __syncwarp();
        if (lane == 0) {
            best_of_group[g] = NAN;
        }
        __syncwarp();
    }
    for (int k = 0; k < r.n_used; k++) {
        const int e = first_of(r.n_experts, [](int i) { return left[i]; }).number;

        __syncwarp();
        if (lane == 0) {
            ids[blockIdx.x][k] = e;
            left[e] = NAN;
        }
        mass += masses[e];
        __syncwarp();
    }
    // Over the chosen or over all and then normalised is the same.
    if (r.before && !r.normalise) {
        mass = 0.0;
        for (int i = 0; i < r.n_experts; i++) { // in the CPU's order
            mass += masses[i];
        }
    }
    for (int k = lane; k < r.n_used; k += TSR_WARP) {
        weights[blockIdx.x][k] = (float)(masses[ids[blockIdx.x][k]] / mass * (double)r.scale);
    }
}

extern "C" tsr_status tsr_route_cuda(tsr_device *dev, tsr_tensor ids, tsr_tensor weights,
                                     tsr_tensor logits, const tsr_routing *routing)
{
    route_rows<<<(unsigned)logits.n_rows, TSR_WARP, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<int32_t>(ids), tsr_rows_of<float>(weights), tsr_rows_of<const float>(logits),
        *routing);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* ---- rows by expert
 * ------------------------------------------------------------------------------ */

struct choices {
    tsr_rows<const int32_t> ids;
    tsr_rows<const float> weights;
    int64_t n, n_used;

    __device__ __forceinline__ int expert(int64_t i) const
    {
        return ids[i / n_used][i % n_used];
    }
};

/* A warp an expert, and one for the end of the last: it counts what comes before, then puts what is
 * its own behind. */
static __global__ void __launch_bounds__(THREADS)
    sort_choices(int32_t *start, int32_t *rows, float *weights, tsr_rows<int32_t> places,
                 choices all, int n_experts)
{
    const int e = (int)(blockIdx.x * WARPS + threadIdx.x / TSR_WARP);
    const int lane = (int)threadIdx.x % TSR_WARP;
    int64_t before = 0;

    if (e > n_experts) {
        return; // the whole warp
    }
    for (int64_t i = lane; i - lane < all.n; i += TSR_WARP) {
        before += __popc(__ballot_sync(TSR_WHOLE_WARP, i < all.n && all.expert(i) < e));
    }
    if (lane == 0) {
        start[e] = (int32_t)before;
    }
    for (int64_t i = lane; e < n_experts && i - lane < all.n; i += TSR_WARP) {
        const bool is_own = i < all.n && all.expert(i) == e;
        const uint32_t own = __ballot_sync(TSR_WHOLE_WARP, is_own);

        if (is_own) {
            const int64_t place = before + __popc(own & ((1U << lane) - 1));

            rows[place] = (int32_t)(i / all.n_used);
            weights[place] = all.weights[i / all.n_used][i % all.n_used];
            places[i / all.n_used][i % all.n_used] = (int32_t)place;
        }
        before += __popc(own);
    }
}

extern "C" tsr_status tsr_sort_experts_cuda(tsr_device *dev, tsr_tensor start, tsr_tensor rows,
                                            tsr_tensor weights, tsr_tensor places, tsr_tensor ids,
                                            tsr_tensor chosen)
{
    const choices all = {tsr_rows_of<const int32_t>(ids), tsr_rows_of<const float>(chosen),
                         ids.n_rows * ids.n_cols, ids.n_cols};

    sort_choices<<<tsr_blocks(start.n_cols, WARPS), THREADS, 0, tsr_cuda_queue(dev)>>>(
        (int32_t *)start.data, (int32_t *)rows.data, (float *)weights.data,
        tsr_rows_of<int32_t>(places), all, (int)(start.n_cols - 1));
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* ---- their parts
 * --------------------------------------------------------------------------------- */

/* Of a row those that are here: a row's sum is one thread's, so that nothing depends on others. */
static __global__ void add_parts(tsr_rows<double> sums, tsr_rows<const double> parts,
                                 tsr_rows<const int32_t> ids, tsr_rows<const int32_t> places,
                                 const float *weights, tsr_rows<const float> bias, int64_t n_used,
                                 int64_t first, int64_t n_here, int64_t n_cols)
{
    const int64_t row = blockIdx.x;

    TSR_EACH_COLUMN(c, n_cols)
    {
        double sum = sums[row][c];

        for (int64_t k = 0; k < n_used; k++) {
            const int64_t e = ids[row][k] - first;
            const int32_t place = places[row][k];

            if (e >= 0 && e < n_here) {
                sum += parts[place][c];
                if (bias.data != NULL) {
                    const float term = weights[place] * bias[e][c];

                    sum += fma((double)term, TSR_GRAIN_FACTOR, TSR_GRAIN_START) - TSR_GRAIN_START;
                }
            }
        }
        sums[row][c] = sum;
    }
}

extern "C" tsr_status tsr_add_experts_cuda(tsr_device *dev, tsr_tensor sums, tsr_tensor parts,
                                           tsr_tensor ids, tsr_tensor places, tsr_tensor weights,
                                           tsr_tensor bias, int64_t first, int64_t n_here)
{
    add_parts<<<tsr_grid_of(sums.n_rows, sums.n_cols), TSR_ROW_THREADS, 0, tsr_cuda_queue(dev)>>>(
        tsr_rows_of<double>(sums), tsr_rows_of<const double>(parts),
        tsr_rows_of<const int32_t>(ids), tsr_rows_of<const int32_t>(places),
        (const float *)weights.data, tsr_rows_of<const float>(bias), ids.n_cols, first, n_here,
        sums.n_cols);
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}
