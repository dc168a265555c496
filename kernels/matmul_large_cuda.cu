/*
 * Products with many rows of x, bound by arithmetic: by cuBLASLt, on tensor cores, over 16-bit
 * numbers summed in f32.
 *
 * Weights lie in tiles (kernels/weight.h), most of them in fewer bits. As many panels as there is
 * scratch for are unpacked into 16-bit rows, multiplied, and the next ones take their place: so the
 * weights of a step cost their own bytes and twice two bytes an element more, whatever the number
 * of rows. What is bf16 stays so; everything else becomes f16.
 *
 * In f16 a row of x is divided by a power of two, so that its largest lies below 2, and the result
 * is multiplied by it: nothing overflows, and what is lost below 2^-24 is lost beside it.
 */
#include "kernels/matmul_large.cuh"

#include "kernels/blas_cuda.h"
#include "kernels/tiles.cuh"

enum {
    THREADS = 256,
    ALIGN = 256,
    WEIGHT_BYTES = 32 << 20 // of unpacked weights, if there is scratch for them
};

template <class T> static __device__ __forceinline__ T rounded(float x);
template <> __device__ __forceinline__ __half rounded(float x)
{
    return __float2half_rn(x);
}
template <> __device__ __forceinline__ __nv_bfloat16 rounded(float x)
{
    return __float2bfloat16_rn(x);
}

/* A block a tile: 16 rows of 32 columns, each thread two neighbours, so that a warp writes two
 * rows' whole 64 bytes. */
template <tsr_format F, class T>
static __global__ void __launch_bounds__(THREADS)
    unpack(T *to, const char *tiles, int64_t n_tiles, int64_t n_cols)
{
    const int64_t panel = blockIdx.x;
    const int64_t t = blockIdx.y;
    const char *tile = tiles + (panel * n_tiles + t) * tsr_tile_bytes(F);
    const int r = (int)threadIdx.x / (TSR_TILE_COLS / 2);
    const int c = (int)threadIdx.x % (TSR_TILE_COLS / 2) * 2;
    T *row = to + ((panel * TSR_PANEL_ROWS + r) * n_tiles + t) * TSR_TILE_COLS;

    for (int i = c; i < c + 2; i++) { // tiles may hold anything behind the last column
        row[i] =
            rounded<T>(t * TSR_TILE_COLS + i < n_cols ? tsr_tile_element<F>(tile, r, i) : 0.0F);
    }
}

/* A block a row. scales[row]: what the row was divided by. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    round_rows(T *to, float *scales, tsr_rows<const float> x, int64_t n_cols, int64_t padded_cols)
{
    const int64_t row = blockIdx.x;
    const float *from = x[row];
    float largest = 0.0F;
    float scale = 1.0F;

    if (scales != NULL) { // the same for all
        for (int64_t c = threadIdx.x; c < n_cols; c += THREADS) {
            largest = fmaxf(largest, fabsf(from[c]));
        }
        largest = tsr_block_largest<THREADS>(largest);
        // The power of two at or below it; of what is 0, tiny or infinite none.
        if (largest >= 0x1p-100F && largest <= 0x1p100F) {
            scale = __int_as_float(__float_as_int(largest) & 0x7F800000);
        }
        if (threadIdx.x == 0) {
            scales[row] = scale;
        }
    }
    for (int64_t c = threadIdx.x; c < padded_cols; c += THREADS) {
        to[row * padded_cols + c] = rounded<T>(c < n_cols ? from[c] / scale : 0.0F);
    }
}

/* Where results go: rows [first, first + n) of the weight, from sums [rows of x, n_summed]. */
struct result {
    void *data;
    int64_t stride;
    const float *bias; // or NULL
    bool is_double;
    const float *sums;
    const float *scales; // or NULL
    int64_t first, n, n_summed;
};

static __global__ void __launch_bounds__(THREADS) finish(result out)
{
    const int64_t row = blockIdx.x;

    TSR_EACH_COLUMN(c, out.n)
    {
        const float scale = out.scales != NULL ? out.scales[row] : 1.0F;
        const float sum = out.sums[row * out.n_summed + c] * scale;
        const int64_t at = row * out.stride + out.first + c;

        if (out.is_double) {
            ((double *)out.data)[at] = (double)sum;
        } else {
            ((float *)out.data)[at] = out.bias != NULL ? sum + out.bias[out.first + c] : sum;
        }
    }
}

bool tsr_matmul_large_can(tsr_format format, tsr_activations activations)
{
    return format != TSR_FORMAT_F32 && activations == TSR_ACTIVATIONS_INT8;
}

static size_t aligned(size_t n_bytes)
{
    return (n_bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static int64_t padded(int64_t n_cols)
{
    return (n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS * TSR_TILE_COLS;
}

/* Of x in 16 bits, its scales, and cuBLAS's workspace. */
static size_t fixed_bytes(int64_t n_rows, int64_t n_cols)
{
    return TSR_BLAS_WORKSPACE_BYTES + aligned((size_t)n_rows * sizeof(float)) +
           aligned((size_t)n_rows * (size_t)padded(n_cols) * sizeof(__half));
}

/* Of a panel of unpacked weights, and of the sums that it gives. */
static size_t panel_bytes(int64_t n_rows, int64_t n_cols)
{
    return TSR_PANEL_ROWS *
           ((size_t)padded(n_cols) * sizeof(__half) + (size_t)n_rows * sizeof(float));
}

size_t tsr_matmul_large_scratch(int64_t n_rows, int64_t n_cols)
{
    const size_t a_panel = TSR_PANEL_ROWS * (size_t)padded(n_cols) * sizeof(__half);
    const size_t n_panels = n_cols > 0 && a_panel < WEIGHT_BYTES ? WEIGHT_BYTES / a_panel : 1;

    if (n_rows <= TSR_FEW_ROWS) {
        return 0; // it is never called
    }
    return fixed_bytes(n_rows, n_cols) + n_panels * panel_bytes(n_rows, n_cols) + 2 * ALIGN;
}

/* Scratch of one product. */
struct places {
    char *workspace;
    float *scales;
    void *x;
    char *panels;
    int64_t most_panels; // at once
};

static tsr_status place(places *to, tsr_device *dev, int64_t n_rows, int64_t n_cols)
{
    const size_t fixed = fixed_bytes(n_rows, n_cols);
    const size_t least = fixed + panel_bytes(n_rows, n_cols) + ALIGN;

    if (dev->scratch_bytes < least) {
        return tsr_fail(TSR_ERR_ARG, "matmul: %zu bytes of scratch are needed, %zu are reserved",
                        least, dev->scratch_bytes);
    }
    to->workspace = (char *)dev->scratch;
    to->scales = (float *)(to->workspace + TSR_BLAS_WORKSPACE_BYTES);
    to->x = (char *)to->scales + aligned((size_t)n_rows * sizeof(float));
    to->panels = (char *)dev->scratch + fixed;
    to->most_panels = (int64_t)((dev->scratch_bytes - fixed - ALIGN) / panel_bytes(n_rows, n_cols));
    return TSR_OK;
}

template <tsr_format F>
static void launch_unpack(cudaStream_t queue, void *to, const char *tiles, int64_t n_panels,
                          int64_t n_cols)
{
    const int64_t n_tiles = padded(n_cols) / TSR_TILE_COLS;
    const dim3 grid((unsigned)n_panels, (unsigned)n_tiles);

    if constexpr (F == TSR_FORMAT_BF16) {
        unpack<F><<<grid, THREADS, 0, queue>>>((__nv_bfloat16 *)to, tiles, n_tiles, n_cols);
    } else {
        unpack<F><<<grid, THREADS, 0, queue>>>((__half *)to, tiles, n_tiles, n_cols);
    }
}

/* A product over x that lies in `at`, band by band of its rows. */
static tsr_status multiply(tsr_device *dev, const tsr_product *product, const places &at,
                           int64_t n_rows, int64_t n_cols)
{
    const tsr_weight *w = product->weight;
    const bool is_bf16 = w->format == TSR_FORMAT_BF16;
    const int64_t n_panels = (w->n_rows + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS;
    const cudaStream_t queue = tsr_cuda_queue(dev);

    for (int64_t first = 0; first < n_panels; first += at.most_panels) {
        const int64_t n = n_panels - first < at.most_panels ? n_panels - first : at.most_panels;
        const int64_t m = n * TSR_PANEL_ROWS;
        const int64_t left = w->n_rows - first * TSR_PANEL_ROWS;
        float *sums =
            (float *)(at.panels + aligned((size_t)m * (size_t)padded(n_cols) * sizeof(__half)));
        const result out = {product->out.data,
                            product->out.stride,
                            (const float *)product->bias.data,
                            w->grain_cols > 0,
                            sums,
                            is_bf16 ? NULL : at.scales,
                            first * TSR_PANEL_ROWS,
                            left < m ? left : m,
                            m};
        tsr_blas_product large;
        const char *tiles =
            (const char *)w->tiles + (size_t)first * tsr_weight_panel_bytes(w->format, n_cols);

#define UNPACK(format) launch_unpack<format>(queue, at.panels, tiles, n, n_cols)
        TSR_FOR_FORMAT(w->format, UNPACK);
#undef UNPACK
        TSR_CUDA_LAUNCHED();
        large.out = sums;
        large.w = at.panels;
        large.x = at.x;
        large.m = m;
        large.n_rows = n_rows;
        large.n_cols = padded(n_cols);
        large.is_bf16 = is_bf16;
        large.workspace = at.workspace;
        TSR_TRY(tsr_blas_multiply(dev, &large));
        finish<<<tsr_grid_of(n_rows, out.n), TSR_ROW_THREADS, 0, queue>>>(out);
        TSR_CUDA_LAUNCHED();
    }
    return TSR_OK;
}

tsr_status tsr_matmul_large(tsr_device *dev, const tsr_product *products, int n_products,
                            tsr_tensor x, tsr_activations activations)
{
    const tsr_rows<const float> from = tsr_rows_of<const float>(x);
    const cudaStream_t queue = tsr_cuda_queue(dev);
    int rounded_as = -1; // is_bf16 of what x lies there as
    places at = {};

    (void)activations;
    TSR_TRY(place(&at, dev, x.n_rows, x.n_cols));
    for (int p = 0; p < n_products; p++) {
        const bool is_bf16 = products[p].weight->format == TSR_FORMAT_BF16;

        if (products[p].weight->n_rows == 0) {
            continue;
        }
        if (rounded_as != (int)is_bf16) {
            if (is_bf16) {
                round_rows<<<(unsigned)x.n_rows, THREADS, 0, queue>>>(
                    (__nv_bfloat16 *)at.x, (float *)NULL, from, x.n_cols, padded(x.n_cols));
            } else {
                round_rows<<<(unsigned)x.n_rows, THREADS, 0, queue>>>(
                    (__half *)at.x, at.scales, from, x.n_cols, padded(x.n_cols));
            }
            TSR_CUDA_LAUNCHED();
            rounded_as = (int)is_bf16;
        }
        TSR_TRY(multiply(dev, &products[p], at, x.n_rows, x.n_cols));
    }
    return TSR_OK;
}
