/*
 * Products whose every element is the CPU's, bit for bit, whatever the number of rows.
 *
 * Over int8 activations the dot product of a group of columns is an integer, exact in any order:
 * threads take the groups of a panel side by side. Only what is left, two fused multiply-adds a
 * group, is done in the promised order, by a thread an element. Over f32 activations all of a row's
 * columns are in that order.
 */
#include "kernels/codes.cuh"

#include "kernels/matmul_fast.cuh"
#include "kernels/matmul_large.cuh"

enum {
    THREADS = 128
};

/* ---- x in int8
 * ----------------------------------------------------------------------------------- */

/* A warp a group, a lane a column. */
static __global__ void quantise(tsr_codes_rows to, tsr_rows<const float> x, int64_t n_cols)
{
    const int64_t row = blockIdx.x;
    const int64_t group = (int64_t)blockIdx.y * (THREADS / TSR_WARP) + threadIdx.x / TSR_WARP;
    const int lane = threadIdx.x % TSR_WARP;
    const int64_t c = group * TSR_TILE_COLS + lane;

    if (group < to.n_groups) { // the same for a whole warp
        const float value = c < n_cols ? x[row][c] : 0.0F;

        tsr_codes_write(to.codes, to.floats, row * to.n_groups + group, value);
    }
}

tsr_status tsr_codes_round(tsr_device *dev, const tsr_codes_rows &to, tsr_tensor x)
{
    const dim3 grid((unsigned)x.n_rows, tsr_blocks(to.n_groups, THREADS / TSR_WARP));

    if (to.n_groups > 0) {
        quantise<<<grid, THREADS, 0, tsr_cuda_queue(dev)>>>(to, tsr_rows_of<const float>(x),
                                                            x.n_cols);
        TSR_CUDA_LAUNCHED();
    }
    return TSR_OK;
}

/* ---- integer dot products
 * ------------------------------------------------------------------------ */

/* The codes of columns 16 half + 4 j .. + 3 of row r, a signed byte each. */
template <tsr_format F>
static __device__ __forceinline__ int codes_of(const char *tile, int r, int j, int half)
{
    if (F == TSR_FORMAT_Q8 || F == TSR_FORMAT_Q8_WIDE) {
        return *(const int *)(tile + 64 * (4 * half + j) + 4 * r);
    }
    const uint32_t bytes = *(const uint32_t *)(tile + 64 * j + 4 * r);

    return (int)tsr_nibble_codes<F>((half != 0 ? bytes >> 4 : bytes) & 0x0F0F0F0FU);
}

/* acc with one group added: the dot product of row r of a tile with a row of x, `floats` of that
 * group. */
template <tsr_format F>
static __device__ __forceinline__ float add_group(float acc, const char *tile, int r,
                                                  const int *dots, const float *floats)
{
    if (F == TSR_FORMAT_Q8_WIDE) {
        for (int half = 0; half < 2; half++) {
            const char *scales = tile + 512 + 128 * half + 4 * r;

            acc = fmaf((float)dots[half], tsr_float_at(scales) * floats[0], acc);
            acc = fmaf(tsr_float_at(scales + 64), floats[2 + half], acc);
        }
        return acc;
    }
    if (F == TSR_FORMAT_Q8) {
        return fmaf((float)dots[0], tsr_half_at(tile + 512 + 2 * r) * floats[0], acc);
    }
    if (F == TSR_FORMAT_Q4) {
        acc = fmaf((float)dots[0], tsr_half_at(tile + 256 + 2 * r) * floats[0], acc);
        return fmaf(tsr_half_at(tile + 288 + 2 * r), floats[1], acc);
    }
    acc = fmaf((float)dots[0], tsr_float_at(tile + 256 + 4 * r) * floats[0], acc);
    if (F == TSR_FORMAT_Q4_WIDE) {
        return fmaf(tsr_float_at(tile + 320 + 4 * r), floats[1], acc);
    }
    return acc;
}

/* What a product writes, and where its grains end. */
struct output {
    void *data; /* double when there are grains, else float */
    int64_t stride;
    const float *bias;
    int64_t n_rows; /* of W */
    int64_t grain_tiles;
    int64_t tiles_apart, bias_apart; /* of one expert from the next: bytes, and elements */

    __device__ __forceinline__ float bias_of(int64_t m) const
    {
        return bias[blockIdx.y * bias_apart + m];
    }
};

/* A sum that is whole, or grain by grain on the grid of 2^-28 (kernels/ops.h). */
struct total {
    double sum = 1.5 * 0x1p24;

    __device__ void add_grain(float part)
    {
        sum = fma((double)part, 1.0 + 0x1p-52, sum);
    }
    __device__ void write(const output &out, int64_t x_row, int64_t m, float acc) const
    {
        if (out.grain_tiles > 0) {
            ((double *)out.data)[x_row * out.stride + m] = sum - 1.5 * 0x1p24;
        } else {
            ((float *)out.data)[x_row * out.stride + m] =
                out.bias != NULL ? acc + out.bias_of(m) : acc;
        }
    }
};

/* A block takes a panel with R rows of x, CHUNK tiles at a time: dot products by (row, tile), then
 * sums by (row, row of x). */
template <tsr_format F, int R>
static __global__ void __launch_bounds__(THREADS)
    multiply_int8(output out, const char *tiles, tsr_codes_rows x, tsr_slices slices)
{
    constexpr int CHUNK = R == 16 ? 16 : 32;
    constexpr int DOTS = F == TSR_FORMAT_Q8_WIDE ? 2 : 1;
    __shared__ __align__(16) int8_t x_codes[R][CHUNK * TSR_TILE_COLS];
    __shared__ int dots[R][CHUNK][TSR_PANEL_ROWS][DOTS];
    const char *panel = tiles + blockIdx.y * out.tiles_apart +
                        (size_t)blockIdx.x * (size_t)x.n_groups * tsr_tile_bytes(F);
    const int64_t first_row = slices.first(R);
    const int n_rows = slices.count(R);
    const int r = threadIdx.x % TSR_PANEL_ROWS;
    const int slot = threadIdx.x / TSR_PANEL_ROWS;
    constexpr int SLOTS = THREADS / TSR_PANEL_ROWS;
    constexpr int SUMS = (R + SLOTS - 1) / SLOTS; // a thread's rows of x: slot, slot + SLOTS ...
    float acc[SUMS];
    total totals[SUMS];

    for (int i = 0; i < SUMS; i++) {
        acc[i] = 0.0F;
    }
    for (int64_t first = 0; n_rows > 0 && first < x.n_groups; first += CHUNK) {
        const int n_tiles = x.n_groups - first < CHUNK ? (int)(x.n_groups - first) : CHUNK;
        const int n_words = n_tiles * (TSR_TILE_COLS / 4);

        for (int i = threadIdx.x; i < R * n_words; i += THREADS) {
            const int64_t row = first_row + (i / n_words < n_rows ? i / n_words : 0);

            ((int *)x_codes[i / n_words])[i % n_words] =
                ((const int *)(x.codes + (row * x.n_groups + first) * TSR_TILE_COLS))[i % n_words];
        }
        __syncthreads();
        for (int t = slot; t < n_tiles; t += SLOTS) {
            const char *tile = panel + (size_t)(first + t) * tsr_tile_bytes(F);
            int dot[R][DOTS] = {};

            // With sixteen rows at once the registers of both halves would be too many.
#pragma unroll(R == 16 && DOTS == 1 ? 1 : 2)
            for (int half = 0; half < 2; half++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const int codes = codes_of<F>(tile, r, j, half);

#pragma unroll
                    for (int i = 0; i < R; i++) {
                        const int *words = (const int *)&x_codes[i][t * TSR_TILE_COLS];

                        dot[i][half % DOTS] =
                            __dp4a(codes, words[4 * half + j], dot[i][half % DOTS]);
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < R; i++) {
#pragma unroll
                for (int d = 0; d < DOTS; d++) {
                    dots[i][t][r][d] = dot[i][d];
                }
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < SUMS; i++) {
            const int64_t row = first_row + slot + i * SLOTS;
            const int n_added = slot + i * SLOTS < n_rows ? n_tiles : 0;

            for (int t = 0; t < n_added; t++) {
                acc[i] = add_group<F>(acc[i], panel + (size_t)(first + t) * tsr_tile_bytes(F), r,
                                      dots[slot + i * SLOTS][t][r],
                                      x.floats +
                                          (row * x.n_groups + first + t) * TSR_CODES_GROUP_FLOATS);
                if (out.grain_tiles > 0 &&
                    ((first + t + 1) % out.grain_tiles == 0 || first + t + 1 == x.n_groups)) {
                    totals[i].add_grain(acc[i]);
                    acc[i] = 0.0F;
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < SUMS; i++) {
        const int64_t row = first_row + slot + i * SLOTS;
        const int64_t m = (int64_t)blockIdx.x * TSR_PANEL_ROWS + r;

        if (slot + i * SLOTS < n_rows && m < out.n_rows) {
            totals[i].write(out, row, m, acc[i]);
        }
    }
}

/* ---- x as it is
 * ---------------------------------------------------------------------------------- */

/* A thread an element: a block takes a panel with eight rows of x. */
template <tsr_format F>
static __global__ void __launch_bounds__(THREADS)
    multiply_f32(output out, const char *tiles, tsr_rows<const float> x, tsr_slices slices,
                 int64_t n_cols)
{
    constexpr int R = THREADS / TSR_PANEL_ROWS;
    const int64_t n_tiles = (n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS;
    const char *tile = tiles + blockIdx.y * out.tiles_apart +
                       (size_t)blockIdx.x * (size_t)n_tiles * tsr_tile_bytes(F);
    const int r = threadIdx.x % TSR_PANEL_ROWS;
    const int in_slice = (int)threadIdx.x / TSR_PANEL_ROWS;
    const int64_t row = slices.first(R) + in_slice;
    const int64_t m = (int64_t)blockIdx.x * TSR_PANEL_ROWS + r;
    float acc = 0.0F;
    total sum;

    if (in_slice < slices.count(R) && m < out.n_rows) {
        const float *from = x[row];

        for (int64_t t = 0; t < n_tiles; t++, tile += tsr_tile_bytes(F)) {
            const int64_t first = t * TSR_TILE_COLS;
            const int n = n_cols - first < TSR_TILE_COLS ? (int)(n_cols - first) : TSR_TILE_COLS;

#pragma unroll 4
            for (int c = 0; c < n; c++) {
                acc = fmaf(tsr_tile_element<F>(tile, r, c), from[first + c], acc);
            }
            if (out.grain_tiles > 0 && ((t + 1) % out.grain_tiles == 0 || t + 1 == n_tiles)) {
                sum.add_grain(acc);
                acc = 0.0F;
            }
        }
        sum.write(out, row, m, acc);
    }
}

/* ---- launches
 * ------------------------------------------------------------------------------------ */

template <tsr_format F>
static void launch_int8(cudaStream_t queue, const output &out, const tsr_weight *w,
                        const tsr_codes_rows &x, const tsr_slices &slices)
{
    const unsigned n_panels = tsr_blocks(w->n_rows, TSR_PANEL_ROWS);
    const char *tiles = (const char *)w->tiles;

    if (slices.most_rows == 1) {
        multiply_int8<F, 1><<<slices.grid(n_panels, 1), THREADS, 0, queue>>>(out, tiles, x, slices);
    } else if (slices.most_rows <= 4) {
        multiply_int8<F, 4><<<slices.grid(n_panels, 4), THREADS, 0, queue>>>(out, tiles, x, slices);
    } else {
        multiply_int8<F, 16>
            <<<slices.grid(n_panels, 16), THREADS, 0, queue>>>(out, tiles, x, slices);
    }
}

static tsr_status multiply(tsr_device *dev, const tsr_expert_product *product, tsr_tensor x,
                           const tsr_codes_rows &quantised, const tsr_slices &slices, bool int8)
{
    const tsr_weight *w = &product->weights->first;
    const tsr_tensor bias = product->weights->bias;
    const cudaStream_t queue = tsr_cuda_queue(dev);
    const output out = {product->out.data,
                        product->out.stride,
                        (const float *)bias.data,
                        w->n_rows,
                        (w->grain_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS,
                        product->weights->apart_bytes,
                        bias.stride};

    if (w->n_rows == 0) {
        return TSR_OK;
    }
    if (int8) {
#define INT8(format)                                           \
    if constexpr ((format) >= TSR_FORMAT_Q4) {                 \
        launch_int8<format>(queue, out, w, quantised, slices); \
    }
        TSR_FOR_FORMAT(w->format, INT8);
#undef INT8
    } else {
        const dim3 grid =
            slices.grid(tsr_blocks(w->n_rows, TSR_PANEL_ROWS), THREADS / TSR_PANEL_ROWS);

#define F32(format)                                    \
    multiply_f32<format><<<grid, THREADS, 0, queue>>>( \
        out, (const char *)w->tiles, tsr_rows_of<const float>(x), slices, x.n_cols)
        TSR_FOR_FORMAT(w->format, F32);
#undef F32
    }
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

extern "C" size_t tsr_matmul_cuda_scratch(int n_threads, const tsr_ops_limits *limits)
{
    const int64_t n_rows = larger(limits->n_rows, limits->n_expert_rows);
    const int64_t few = limits->n_rows < TSR_FEW_ROWS ? limits->n_rows : (int64_t)TSR_FEW_ROWS;
    const size_t exact = tsr_ops_codes_bytes(n_rows, limits->n_cols);
    const size_t fast = tsr_matmul_fast_scratch(larger(few, limits->n_expert_rows), limits->n_cols);
    const size_t large = tsr_matmul_large_scratch(limits->n_rows, limits->n_cols);
    const size_t most = exact > fast ? exact : fast;

    (void)n_threads;
    return most > large ? most : large;
}

/* x as products take it. */
struct factor {
    tsr_tensor x;         // data NULL: it is there as codes only
    tsr_codes_rows codes; // codes NULL: not rounded yet
};

/* In the CPU's order of sums. */
static tsr_status multiply_exactly(tsr_device *dev, const tsr_expert_product *products,
                                   int n_products, factor from, const tsr_slices &slices,
                                   tsr_activations activations)
{
    const size_t needed = tsr_ops_codes_bytes(from.x.n_rows, from.x.n_cols);
    bool is_int8[TSR_MAX_PRODUCTS];

    for (int p = 0; p < n_products; p++) {
        is_int8[p] = activations == TSR_ACTIVATIONS_INT8 &&
                     tsr_weight_is_quantised(products[p].weights->first.format);
        if (is_int8[p] && from.codes.codes == NULL) {
            if (needed > dev->scratch_bytes) {
                return tsr_fail(TSR_ERR_ARG,
                                "matmul: %zu bytes of scratch are needed, %zu are reserved", needed,
                                dev->scratch_bytes);
            }
            from.codes = tsr_codes_in(dev->scratch, from.x.n_rows, from.x.n_cols);
            TSR_TRY(tsr_codes_round(dev, from.codes, from.x));
        }
    }
    for (int p = 0; p < n_products; p++) {
        TSR_TRY(multiply(dev, &products[p], from.x, from.codes, slices, is_int8[p]));
    }
    return TSR_OK;
}

/* All but products of many rows, which cuBLASLt takes. */
static tsr_status multiply_few(tsr_device *dev, const tsr_expert_product *products, int n_products,
                               const factor &from, const tsr_slices &slices,
                               tsr_activations activations)
{
    bool is_free = !dev->deterministic;

    for (int p = 0; p < n_products && is_free; p++) {
        is_free = tsr_matmul_fast_can(products[p].weights->first.format, activations);
    }
    return is_free ? tsr_matmul_fast(dev, products, n_products, from.x,
                                     from.codes.codes != NULL ? &from.codes : NULL, slices)
                   : multiply_exactly(dev, products, n_products, from, slices, activations);
}

/* Products as those of one expert. */
struct lone_products {
    tsr_expert_weights weights[TSR_MAX_PRODUCTS];
    tsr_expert_product all[TSR_MAX_PRODUCTS];

    lone_products(const tsr_product *products, int n_products)
    {
        for (int p = 0; p < n_products; p++) {
            weights[p] = tsr_expert_weights{*products[p].weight, 0, products[p].bias};
            all[p] = tsr_expert_product{&weights[p], products[p].out};
        }
    }
};

extern "C" tsr_status tsr_matmul_cuda(tsr_device *dev, const tsr_product *products, int n_products,
                                      tsr_tensor x, tsr_activations activations)
{
    const lone_products lone(products, n_products);
    const tsr_slices slices = {NULL, 1, x.n_rows, x.n_rows};
    const bool is_large = x.n_rows > TSR_FEW_ROWS;
    const factor from = {x, {}};
    bool is_free = is_large && !dev->deterministic && x.n_cols > 0;

    for (int p = 0; p < n_products; p++) {
        is_free = is_free && tsr_matmul_large_can(products[p].weight->format, activations);
    }
    if (is_free) {
        return tsr_matmul_large(dev, products, n_products, x, activations);
    }
    return is_large ? multiply_exactly(dev, lone.all, n_products, from, slices, activations)
                    : multiply_few(dev, lone.all, n_products, from, slices, activations);
}

extern "C" tsr_status tsr_matmul_codes_cuda(tsr_device *dev, const tsr_product *products,
                                            int n_products, tsr_codes x)
{
    const lone_products lone(products, n_products);
    const tsr_slices slices = {NULL, 1, x.n_rows, x.n_rows};
    const tsr_tensor shape = {NULL, TSR_DTYPE_F32, dev->kind, x.n_rows, x.n_cols, x.n_cols};
    const factor from = {shape, tsr_codes_in(x.data, x.n_rows, x.n_cols)};

    return multiply_few(dev, lone.all, n_products, from, slices, TSR_ACTIVATIONS_INT8);
}

extern "C" tsr_status tsr_matmul_experts_cuda(tsr_device *dev, const tsr_expert_product *products,
                                              int n_products, tsr_tensor x, tsr_tensor start,
                                              int64_t most_rows, tsr_activations activations)
{
    const tsr_slices slices = {(const int32_t *)start.data, start.n_cols - 1, x.n_rows, most_rows};
    const factor from = {x, {}};

    return multiply_few(dev, products, n_products, from, slices, activations);
}
