/*
 * Products with 1 to 16 rows of x, bound by the memory that the weights lie in: every weight is
 * read once, in pieces of 16 bytes, and goes from its register straight into tensor cores. Tiles
 * were laid out for it (kernels/weight.h): the word of row r and columns 4 j .. 4 j + 3 is what
 * mma.m16n8k32 wants of lane (r, j), so nothing is sorted.
 *
 * A lane's piece is of four rows (eight, for halves), while a fragment has two rows of a lane: so a
 * warp takes two panels (four) at once, and each instruction some rows of every panel. The warps of
 * a block share the columns, and a block's sums are added in shared memory.
 *
 * Over codes x is int8 in groups of 32, as everywhere. Over halves and e4m3 it is the sum of two
 * halves, which keeps 16 of an f32's 24 bits (21 in f16): the second half is one more column for
 * the tensor cores, whose time is not what counts here.
 */
#include "kernels/matmul_fast.cuh"

#include "kernels/codes.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * TSR_WARP,
    COLUMNS = 8 // rows of x that one instruction takes
};

/* x in scratch. Codes: int8 [rows, 32 n_groups] and floats [rows, 4 n_groups]. Halves: [rows,
 * n_groups] of 32 high parts and 32 low ones, column m + 4 i of the 32 at 8 m + i. */
struct operand {
    char *codes;
    float *floats;
    int64_t n_groups;
};

/* Up to four weights of one format with the same x; blocks [first[p], first[p + 1]) are product
 * p's. */
struct outputs {
    void *data[TSR_MAX_PRODUCTS];
    int64_t stride[TSR_MAX_PRODUCTS];
    const float *bias[TSR_MAX_PRODUCTS];
    const char *tiles[TSR_MAX_PRODUCTS];
    int64_t tiles_apart[TSR_MAX_PRODUCTS]; // of one expert from the next, bytes
    int64_t bias_apart[TSR_MAX_PRODUCTS];  // elements
    int64_t n_rows[TSR_MAX_PRODUCTS];      // of W
    bool is_double[TSR_MAX_PRODUCTS];      // a sum over ranks
    unsigned first[TSR_MAX_PRODUCTS + 1];
    int n;
};

/* ---- x
 * ------------------------------------------------------------------------------------------- */

template <class T> static __device__ __forceinline__ T half_of(float x);
template <> __device__ __forceinline__ __half half_of(float x)
{
    return __float2half_rn(x);
}
template <> __device__ __forceinline__ __nv_bfloat16 half_of(float x)
{
    return __float2bfloat16_rn(x);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    split_x(operand to, tsr_rows<const float> x, int64_t n_cols)
{
    const int64_t row = blockIdx.x;
    const int64_t c = (int64_t)blockIdx.y * THREADS + threadIdx.x;

    if (c < to.n_groups * TSR_TILE_COLS) {
        const float value = c < n_cols ? x[row][c] : 0.0F;
        const T high = half_of<T>(value);
        const int in_group = (int)(c % TSR_TILE_COLS);
        T *group = (T *)to.codes + (row * to.n_groups + c / TSR_TILE_COLS) * 2 * TSR_TILE_COLS +
                   in_group % 4 * 8 + in_group / 4;

        group[0] = high;
        // Nothing is left of what is not finite, or has no half beside it.
        group[TSR_TILE_COLS] =
            isfinite((float)high) ? half_of<T>(value - (float)high) : half_of<T>(0.0F);
    }
}

/* ---- sums of a block
 * ----------------------------------------------------------------------------- */

static __device__ __forceinline__ int product_of(const outputs &out)
{
    int p = 0;

    while (p + 1 < out.n && blockIdx.x >= out.first[p + 1]) {
        p++;
    }
    return p;
}

/* Row i of a slice of MOST. */
template <int MOST>
static __device__ __forceinline__ void write(const outputs &out, int p, int64_t m, int i,
                                             const tsr_slices &slices, float sum)
{
    if (m < out.n_rows[p] && i < slices.count(MOST)) {
        const int64_t at = (slices.first(MOST) + i) * out.stride[p] + m;

        if (out.is_double[p]) {
            ((double *)out.data[p])[at] = (double)sum;
        } else {
            ((float *)out.data[p])[at] =
                out.bias[p] != NULL ? sum + out.bias[p][blockIdx.y * out.bias_apart[p] + m] : sum;
        }
    }
}

/* The N sums of every lane over all warps, in the order of warps: element i of lane l is handed to
 * put(l, i, sum), by some thread. */
template <int N, class Put>
static __device__ __forceinline__ void add_warps(const float *own, const Put &put)
{
    __shared__ float all[WARPS][N][TSR_WARP];
    const int warp = (int)threadIdx.x / TSR_WARP;
    const int lane = (int)threadIdx.x % TSR_WARP;

#pragma unroll
    for (int i = 0; i < N; i++) {
        all[warp][i][lane] = own[i];
    }
    __syncthreads();
    for (int i = warp; i < N; i += WARPS) {
        float sum = all[0][i][lane];

        for (int w = 1; w < WARPS; w++) {
            sum += all[w][i][lane];
        }
        put(lane, i, sum);
    }
}

/* ---- codes
 * --------------------------------------------------------------------------------------- */

/* What a lane holds of a tile: the codes of rows 4 (lane / 4 % 4) .. + 3 in its columns, their
 * scales and minima. */
template <tsr_format F> struct piece {
    static constexpr bool IS_WIDE = F == TSR_FORMAT_Q8_WIDE;
    static constexpr bool IS_BYTES = F == TSR_FORMAT_Q8 || IS_WIDE;
    static constexpr bool HAS_HALVES = F == TSR_FORMAT_Q4 || F == TSR_FORMAT_Q8;
    static constexpr bool HAS_MINIMA =
        F == TSR_FORMAT_Q4 || F == TSR_FORMAT_Q4_WIDE || F == TSR_FORMAT_Q8_WIDE;
    uint4 codes[IS_BYTES ? 2 : 1];
    uint4 scales[IS_WIDE ? 2 : 1]; // of halves the first two words
    uint4 minima[IS_WIDE ? 2 : 1];

    __device__ __forceinline__ void load(const char *tile, int quad, int member)
    {
        codes[0] = __ldcs((const uint4 *)(tile + 64 * member + 16 * quad));
        if (IS_BYTES) {
            codes[IS_BYTES] = __ldcs((const uint4 *)(tile + 64 * (4 + member) + 16 * quad));
        }
        const char *behind = tile + (IS_BYTES ? 512 : 256);

        for (int half = 0; half < (IS_WIDE ? 2 : 1); half++, behind += 128) {
            if (HAS_HALVES) {
                *(uint2 *)&scales[half] = __ldcs((const uint2 *)(behind + 8 * quad));
                if (HAS_MINIMA) {
                    *(uint2 *)&minima[half] = __ldcs((const uint2 *)(behind + 32 + 8 * quad));
                }
            } else {
                scales[half] = __ldcs((const uint4 *)(behind + 16 * quad));
                if (HAS_MINIMA) {
                    minima[half] = __ldcs((const uint4 *)(behind + 64 + 16 * quad));
                }
            }
        }
    }

    /* Row i of the four: columns 4 m .. and 16 + 4 m .., a signed byte each. */
    __device__ __forceinline__ uint32_t low(int i) const
    {
        return IS_BYTES ? (&codes[0].x)[i] : tsr_nibble_codes<F>((&codes[0].x)[i] & 0x0F0F0F0FU);
    }
    __device__ __forceinline__ uint32_t high(int i) const
    {
        return IS_BYTES ? (&codes[IS_BYTES].x)[i]
                        : tsr_nibble_codes<F>((&codes[0].x)[i] >> 4 & 0x0F0F0F0FU);
    }
    static __device__ __forceinline__ float number(const uint4 &from, int i)
    {
        return HAS_HALVES ? __half2float(((const __half *)&from)[i]) : ((const float *)&from)[i];
    }
};

/* sums[column block][row of four][0, 1] += one tile with COLUMNS rows of x, from its group t on. */
template <tsr_format F, int N>
static __device__ __forceinline__ void add_tile(float (*sums)[4][2], const piece<F> &w,
                                                const operand &x, int64_t t)
{
    const int group = (int)threadIdx.x % TSR_WARP / 4;
    const int member = (int)threadIdx.x % 4;

#pragma unroll
    for (int n = 0; n < N; n++) {
        const int64_t at = (n * COLUMNS + group) * x.n_groups + t;
        const char *codes = x.codes + at * TSR_TILE_COLS + 4 * member;
        const uint32_t b[2] = {__ldg((const uint32_t *)codes),
                               __ldg((const uint32_t *)(codes + 16))};
        float4 floats[2]; // of the two rows of x whose sums this lane gets

        for (int i = 0; i < 2; i++) {
            const int64_t row = (n * COLUMNS + 2 * member + i) * x.n_groups + t;

            floats[i] = __ldg((const float4 *)(x.floats + row * TSR_CODES_GROUP_FLOATS));
        }
#pragma unroll
        for (int half = 0; half < 2; half++) { // rows 0 and 1, then 2 and 3
            const uint32_t a[4] = {w.low(2 * half), w.low(2 * half + 1), w.high(2 * half),
                                   w.high(2 * half + 1)};
            int32_t dots[4] = {0, 0, 0, 0};
            int32_t more[4] = {0, 0, 0, 0};

            if (piece<F>::IS_WIDE) {
                const uint32_t first[4] = {a[0], a[1], 0, 0};
                const uint32_t second[4] = {0, 0, a[2], a[3]};

                tsr_mma_s8(dots, first, b);
                tsr_mma_s8(more, second, b);
            } else {
                tsr_mma_s8(dots, a, b);
            }
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const int row = 2 * half + r / 2;
                float &sum = sums[n][row][r % 2];
                const float4 &f = floats[r % 2];

                sum = fmaf((float)dots[r], w.number(w.scales[0], row) * f.x, sum);
                if (piece<F>::IS_WIDE) {
                    sum = fmaf(w.number(w.minima[0], row), f.z, sum);
                    sum =
                        fmaf((float)more[r], w.number(w.scales[piece<F>::IS_WIDE], row) * f.x, sum);
                    sum = fmaf(w.number(w.minima[piece<F>::IS_WIDE], row), f.w, sum);
                } else if (piece<F>::HAS_MINIMA) {
                    sum = fmaf(w.number(w.minima[0], row), f.y, sum);
                }
            }
        }
    }
}

/* Blocks that must find room on a multiprocessor: two, where the registers allow it. */
template <tsr_format F, int N> struct together {
    static constexpr bool IS_WIDE = piece<F>::IS_BYTES || (F == TSR_FORMAT_Q4_WIDE && N == 2);
    static constexpr int BLOCKS = IS_WIDE ? 1 : 2;
};

/* A block takes two panels with N times COLUMNS rows of x. */
template <tsr_format F, int N>
static __global__ void __launch_bounds__(THREADS, together<F, N>::BLOCKS)
    multiply_codes(outputs out, operand x, tsr_slices slices)
{
    constexpr int AT_ONCE = 4;                                      // tiles under way
    const int64_t skipped = slices.first(N * COLUMNS) * x.n_groups; // groups of x
    const int lane = (int)threadIdx.x % TSR_WARP;
    const int p = product_of(out);
    const int64_t first_panel = (int64_t)(blockIdx.x - out.first[p]) * 2;
    const int64_t n_panels = (out.n_rows[p] + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS;
    const int64_t panel =
        first_panel + lane / 16 < n_panels ? first_panel + lane / 16 : first_panel;
    const char *tiles =
        out.tiles[p] + blockIdx.y * out.tiles_apart[p] + panel * x.n_groups * tsr_tile_bytes(F);
    float sums[N][4][2] = {};

    if (slices.count(N * COLUMNS) == 0) {
        return; // the whole block
    }

    for (int64_t t = threadIdx.x / TSR_WARP * AT_ONCE; t < x.n_groups; t += WARPS * AT_ONCE) {
        piece<F> pieces[AT_ONCE];

#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (t + i < x.n_groups) {
                pieces[i].load(tiles + (t + i) * tsr_tile_bytes(F), lane / 4 % 4, lane % 4);
            }
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (t + i < x.n_groups) { // the same for a whole warp
                add_tile<F, N>(sums, pieces[i], x, skipped + t + i);
            }
        }
    }
    add_warps<N * 8>(&sums[0][0][0], [&](int l, int i, float sum) {
        const int64_t m = (first_panel + l / 16) * TSR_PANEL_ROWS + l / 4 % 4 * 4 + i / 2 % 4;

        write<N * COLUMNS>(out, p, m, i / 8 * COLUMNS + l % 4 * 2 + i % 2, slices, sum);
    });
}

/* ---- halves
 * -------------------------------------------------------------------------------------- */

template <tsr_format F> struct halves {
    typedef __half type;
};
template <> struct halves<TSR_FORMAT_BF16> {
    typedef __nv_bfloat16 type;
};

/* Rows 8 (lane / 4 % 2) .. + 7 of columns m + 4 i, as pairs of rows. */
template <tsr_format F>
static __device__ __forceinline__ void load_column(uint32_t pairs[4], const char *tile, int column,
                                                   int half)
{
    if (F == TSR_FORMAT_FP8) {
        const uint2 codes = __ldcs((const uint2 *)(tile + 16 * column + 8 * half));

        for (int j = 0; j < 4; j++) {
            const uint32_t two = (j < 2 ? codes.x : codes.y) >> (16 * (j % 2));

            pairs[j] = tsr_two_e4m3(two & 0xFF, two >> 8 & 0xFF);
        }
    } else {
        const uint4 both = __ldcs((const uint4 *)(tile + 32 * column + 16 * half));

        pairs[0] = both.x;
        pairs[1] = both.y;
        pairs[2] = both.z;
        pairs[3] = both.w;
    }
}

/* A block takes four panels with N times COLUMNS rows of x. */
template <tsr_format F, int N>
static __global__ void __launch_bounds__(THREADS)
    multiply_halves(outputs out, operand x, tsr_slices slices)
{
    typedef typename halves<F>::type T;
    constexpr int PANELS = 4;
    const int64_t skipped = slices.first(N * COLUMNS) * x.n_groups; // groups of x
    const int lane = (int)threadIdx.x % TSR_WARP;
    const int half = lane / 4 % 2;
    const int p = product_of(out);
    const int64_t first_panel = (int64_t)(blockIdx.x - out.first[p]) * PANELS;
    const int64_t n_panels = (out.n_rows[p] + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS;
    const int64_t panel = first_panel + lane / 8 < n_panels ? first_panel + lane / 8 : first_panel;
    const char *tiles =
        out.tiles[p] + blockIdx.y * out.tiles_apart[p] + panel * x.n_groups * tsr_tile_bytes(F);
    float sums[N][4][4] = {}; // of rows 2 j and 2 j + 1 of the eight

    if (slices.count(N * COLUMNS) == 0) {
        return; // the whole block
    }

    for (int64_t t = threadIdx.x / TSR_WARP; t < x.n_groups; t += WARPS) {
        const char *tile = tiles + t * tsr_tile_bytes(F);
        uint32_t columns[8][4];
        float dots[N][4][4];

#pragma unroll
        for (int i = 0; i < 8; i++) {
            load_column<F>(columns[i], tile, lane % 4 + 4 * i, half);
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
            const uint4 *from = (const uint4 *)x.codes +
                                ((n * COLUMNS + lane / 4) * x.n_groups + skipped + t) * 8 +
                                lane % 4;
            const uint4 parts[2] = {__ldg(from), __ldg(from + 4)}; // high, low

#pragma unroll
            for (int j = 0; j < 4; j++) {
                float *sum = F == TSR_FORMAT_FP8 ? dots[n][j] : sums[n][j];

                if (F == TSR_FORMAT_FP8) {
                    sum[0] = sum[1] = sum[2] = sum[3] = 0.0F;
                }
#pragma unroll
                for (int k = 0; k < 8; k += 4) {
                    const uint32_t a[4] = {
                        __byte_perm(columns[k][j], columns[k + 1][j], 0x5410),
                        __byte_perm(columns[k][j], columns[k + 1][j], 0x7632),
                        __byte_perm(columns[k + 2][j], columns[k + 3][j], 0x5410),
                        __byte_perm(columns[k + 2][j], columns[k + 3][j], 0x7632)};

#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        const uint32_t b[2] = {k == 0 ? parts[i].x : parts[i].z,
                                               k == 0 ? parts[i].y : parts[i].w};

                        tsr_multiply_halves(sum, a, b, T());
                    }
                }
            }
        }
        if (F == TSR_FORMAT_FP8) {
            const float4 *scales = (const float4 *)(tile + 512 + 32 * half);
            const float4 d[2] = {__ldcs(scales), __ldcs(scales + 1)};

#pragma unroll
            for (int i = 0; i < N * 16; i++) {
                const int row = i / 4 % 4 * 2 + i % 4 / 2;

                (&sums[0][0][0])[i] = fmaf((&dots[0][0][0])[i], (&d[row / 4].x)[row % 4] * 256.0F,
                                           (&sums[0][0][0])[i]);
            }
        }
    }
    add_warps<N * 16>(&sums[0][0][0], [&](int l, int i, float sum) {
        const int64_t m =
            (first_panel + l / 8) * TSR_PANEL_ROWS + l / 4 % 2 * 8 + i / 4 % 4 * 2 + i % 4 / 2;

        write<N * COLUMNS>(out, p, m, i / 16 * COLUMNS + l % 4 * 2 + i % 2, slices, sum);
    });
}

/* ---- launches
 * ------------------------------------------------------------------------------------ */

bool tsr_matmul_fast_can(tsr_format format, tsr_activations activations)
{
    return tsr_weight_is_quantised(format)
               ? activations == TSR_ACTIVATIONS_INT8
               : format == TSR_FORMAT_F16 || format == TSR_FORMAT_BF16 || format == TSR_FORMAT_FP8;
}

static int64_t groups_of(int64_t n_cols)
{
    return (n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS;
}

/* Both kinds of x take as much: 128 bytes a group and row are enough for either. A slice that is
 * not full reads what lies behind its rows; nothing comes of it, for the columns of an instruction
 * do not mix. */
size_t tsr_matmul_fast_scratch(int64_t n_rows, int64_t n_cols)
{
    return (size_t)(n_rows + TSR_CODES_BEHIND) * (size_t)groups_of(n_cols) * 4 * TSR_TILE_COLS;
}

template <tsr_format F, int N>
static void launch(cudaStream_t queue, unsigned n_blocks, const outputs &out, const operand &x,
                   const tsr_slices &slices)
{
    const dim3 grid = slices.grid(n_blocks, N * COLUMNS);

    if constexpr (F >= TSR_FORMAT_Q4) {
        multiply_codes<F, N><<<grid, THREADS, 0, queue>>>(out, x, slices);
    } else if constexpr (F != TSR_FORMAT_F32) {
        multiply_halves<F, N><<<grid, THREADS, 0, queue>>>(out, x, slices);
    }
}

/* All products of one format that are among them, in one launch. */
static tsr_status multiply_format(tsr_device *dev, tsr_format format,
                                  const tsr_expert_product *products, int n_products,
                                  const operand &x, const tsr_slices &slices)
{
    const int64_t panels_a_block = tsr_weight_is_quantised(format) ? 2 : 4;
    const cudaStream_t queue = tsr_cuda_queue(dev);
    outputs out = {};

    for (int i = 0; i < n_products; i++) {
        const tsr_expert_weights *from = products[i].weights;
        const tsr_weight *w = &from->first;

        if (w->format == format && w->n_rows > 0) {
            out.data[out.n] = products[i].out.data;
            out.stride[out.n] = products[i].out.stride;
            out.bias[out.n] = (const float *)from->bias.data;
            out.bias_apart[out.n] = from->bias.stride;
            out.tiles[out.n] = (const char *)w->tiles;
            out.tiles_apart[out.n] = from->apart_bytes;
            out.n_rows[out.n] = w->n_rows;
            out.is_double[out.n] = w->grain_cols > 0;
            out.first[out.n + 1] =
                out.first[out.n] + tsr_blocks(w->n_rows, panels_a_block * TSR_PANEL_ROWS);
            out.n++;
        }
    }
    if (out.n == 0) {
        return TSR_OK;
    }
#define FEW(f)                                                     \
    do {                                                           \
        if (slices.most_rows <= COLUMNS) {                         \
            launch<f, 1>(queue, out.first[out.n], out, x, slices); \
        } else {                                                   \
            launch<f, 2>(queue, out.first[out.n], out, x, slices); \
        }                                                          \
    } while (0)
    TSR_FOR_FORMAT(format, FEW);
#undef FEW
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

/* What the weights of a format want of x. */
typedef enum kind {
    CODES,
    F16_HALVES,
    BF16_HALVES,
    N_KINDS
} kind;

static kind kind_of(tsr_format format)
{
    return tsr_weight_is_quantised(format) ? CODES
           : format == TSR_FORMAT_BF16     ? BF16_HALVES
                                           : F16_HALVES;
}

static tsr_status prepare(tsr_device *dev, const operand &to, kind what, tsr_tensor x)
{
    const cudaStream_t queue = tsr_cuda_queue(dev);
    const tsr_rows<const float> rows = tsr_rows_of<const float>(x);
    const dim3 grid((unsigned)x.n_rows, tsr_blocks(to.n_groups, WARPS));

    static_assert((int)WARPS * (int)TSR_TILE_COLS == (int)THREADS, "a thread a column");
    if (to.n_groups == 0) {
        return TSR_OK;
    }
    if (what == CODES) {
        const tsr_codes_rows codes = {(int8_t *)to.codes, to.floats, to.n_groups};

        return tsr_codes_round(dev, codes, x);
    }
    if (what == BF16_HALVES) {
        split_x<__nv_bfloat16><<<grid, THREADS, 0, queue>>>(to, rows, x.n_cols);
    } else {
        split_x<__half><<<grid, THREADS, 0, queue>>>(to, rows, x.n_cols);
    }
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}

tsr_status tsr_matmul_fast(tsr_device *dev, const tsr_expert_product *products, int n_products,
                           tsr_tensor x, const tsr_codes_rows *codes, const tsr_slices &slices)
{
    const size_t needed = tsr_matmul_fast_scratch(x.n_rows, x.n_cols);
    const tsr_codes_rows in =
        codes != NULL ? *codes : tsr_codes_in(dev->scratch, x.n_rows, x.n_cols);
    const operand to = {(char *)in.codes, in.floats, in.n_groups};

    if (codes == NULL && needed > dev->scratch_bytes) {
        return tsr_fail(TSR_ERR_ARG, "matmul: %zu bytes of scratch are needed, %zu are reserved",
                        needed, dev->scratch_bytes);
    }
    for (int k = 0; k < N_KINDS; k++) {
        bool is_ready = codes != NULL;
        unsigned done = 0; // a bit a format

        for (int i = 0; i < n_products; i++) {
            const tsr_format format = products[i].weights->first.format;

            if (kind_of(format) != (kind)k || (done >> format & 1) != 0) {
                continue;
            }
            if (!is_ready) {
                TSR_TRY(prepare(dev, to, (kind)k, x));
                is_ready = true;
            }
            done |= 1U << format;
            TSR_TRY(multiply_format(dev, format, products, n_products, to, slices));
        }
    }
    return TSR_OK;
}
