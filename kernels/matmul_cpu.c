#include "kernels/matmul_cpu.h"

#include <string.h>

enum {
    ALONE_ELEMENTS = 4096 /* up to so many are quantised by one thread: meeting takes as long */
};

static const tsr_matmul_loops plain = {TSR_X_BLOCK_PLAIN, tsr_quantise_plain, tsr_matmul_int8_plain,
                                       tsr_matmul_f32_plain};
#if defined(__x86_64__)
static const tsr_matmul_loops avx2 = {TSR_X_BLOCK_AVX2, tsr_quantise_avx2, tsr_matmul_int8_avx2,
                                      tsr_matmul_f32_avx2};
static const tsr_matmul_loops avx512 = {TSR_X_BLOCK_AVX512, tsr_quantise_avx512,
                                        tsr_matmul_int8_avx512, tsr_matmul_f32_avx512};
#endif

static const tsr_matmul_loops *loops_for(tsr_isa isa)
{
#if defined(__x86_64__)
    if (isa == TSR_ISA_AVX512_VNNI) {
        return &avx512;
    }
    if (isa == TSR_ISA_AVX2_FMA) {
        return &avx2;
    }
#endif
    (void)isa;
    return &plain;
}

/* ---- scratch ------------------------------------------------------------------------------- */

static int64_t groups_across(int64_t n_cols)
{
    return (n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS;
}

static size_t x_scratch(int64_t n_rows, int64_t n_cols)
{
    return (size_t)n_rows * (size_t)groups_across(n_cols) * TSR_X_GROUP_BYTES;
}

static size_t thread_scratch(int64_t n_cols)
{
    const size_t opened = (size_t)groups_across(n_cols) * TSR_OPEN_TILE_BYTES;

    return opened > TSR_F32_SCRATCH_BYTES ? opened : TSR_F32_SCRATCH_BYTES;
}

size_t tsr_matmul_cpu_scratch(int n_threads, const tsr_ops_limits *limits)
{
    return x_scratch(limits->n_rows, limits->n_cols) +
           (size_t)n_threads * thread_scratch(limits->n_cols);
}

/* ---- shares of the work -------------------------------------------------------------------- */

typedef struct work {
    const tsr_matmul_loops *loops;
    tsr_cpu_pool *pool;
    tsr_product products[TSR_MAX_PRODUCTS]; /* those that have rows */
    int n_products;
    tsr_activations activations;
    int64_t n_cols;
    int64_t n_bytes; /* of all panels */
    tsr_x_blocks x;
    bool quantise_together;
    uint8_t *thread_scratch;
    size_t thread_scratch_bytes;
} work;

static int64_t panels_of(const tsr_weight *w)
{
    return (w->n_rows + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS;
}

/* Both products can be computed by the same loops in one go. */
static bool alike(const tsr_weight *a, const tsr_weight *b)
{
    return a->format == b->format && a->grain_cols == b->grain_cols;
}

static void compute(const work *w, const tsr_panel_run *run)
{
    if (run->n_panels == 0) {
        return;
    }
    if (tsr_weight_is_quantised(run->format) && w->activations == TSR_ACTIVATIONS_INT8) {
        w->loops->int8(run, &w->x);
    } else {
        w->loops->f32(run, &w->x);
    }
}

/* Panels [first, end) of a product go to the end of the run. */
static void add_stretch(tsr_panel_run *run, const tsr_product *product, int64_t first, int64_t end)
{
    const tsr_weight *w = product->weight;
    const int64_t lane = TSR_PANEL_ROWS * first;
    const float *bias = product->bias.data;

    run->stretches[run->n_stretches++] = (tsr_panel_stretch){
        .tiles = (const uint8_t *)w->tiles + first * run->panel_bytes,
        .groups =
            w->groups == NULL ? NULL : w->groups + first * tsr_weight_table_floats(w->n_groups),
        .n_groups = w->n_groups,
        .out = (char *)product->out.data + (size_t)lane * tsr_dtype_bytes(product->out.dtype),
        .bias = bias == NULL ? NULL : bias + lane,
        .out_stride = product->out.stride,
        .n_panels = end - first,
        .n_lanes = w->n_rows - lane,
    };
    run->n_panels += end - first;
}

/*
 * The panels of all products lie on one line, as long as their bytes; thread t of n has those that
 * begin in [t, t + 1) / n of it. Neighbours that are alike are computed as one run.
 */
static void compute_share(const work *w, int thread, int n_threads)
{
    tsr_panel_run run = {.n_panels = 0};
    int64_t before = 0; // bytes of the products that have been passed
    int64_t from;
    int64_t to;

    tsr_cpu_pool_split(w->n_bytes, thread, n_threads, &from, &to);
    for (int p = 0; p < w->n_products; p++) {
        const tsr_product *product = &w->products[p];
        const tsr_weight *weight = product->weight;
        const int64_t panel_bytes = (int64_t)tsr_weight_panel_bytes(weight->format, w->n_cols);
        const int64_t n_panels = panels_of(weight);
        int64_t first = (from - before + panel_bytes - 1) / panel_bytes;
        int64_t end = (to - before + panel_bytes - 1) / panel_bytes;

        first = from <= before ? 0 : first;
        end = to <= before ? 0 : end < n_panels ? end : n_panels;
        before += n_panels * panel_bytes;
        if (p == 0 || !alike(weight, w->products[p - 1].weight)) {
            compute(w, &run);
            run = (tsr_panel_run){
                .format = weight->format,
                .n_cols = w->n_cols,
                .panel_bytes = panel_bytes,
                .grain_cols = weight->grain_cols,
                .scratch = w->thread_scratch + (size_t)thread * w->thread_scratch_bytes,
            };
        }
        if (first < end) {
            add_stretch(&run, product, first, end);
        }
    }
    compute(w, &run);
}

static void work_on_share(void *ctx, int thread, int n_threads)
{
    const work *w = ctx;

    if (w->quantise_together) {
        int64_t first;
        int64_t end;

        tsr_cpu_pool_split(w->x.n_blocks, thread, n_threads, &first, &end);
        w->loops->quantise(&w->x, w->n_cols, first, end);
        tsr_cpu_pool_barrier(w->pool, thread);
    }
    compute_share(w, thread, n_threads);
}

/* ---- the op -------------------------------------------------------------------------------- */

/* A sum over no columns: zeros, and the bias. */
static void fill_empty(const tsr_product *product)
{
    const tsr_tensor *out = &product->out;
    const float *bias = product->bias.data;

    for (int64_t r = 0; r < out->n_rows; r++) {
        for (int64_t c = 0; c < out->n_cols; c++) {
            const int64_t at = r * out->stride + c;

            if (out->dtype == TSR_DTYPE_F64) {
                ((double *)out->data)[at] = 0.0;
            } else {
                ((float *)out->data)[at] = bias == NULL ? 0.0F : bias[c];
            }
        }
    }
}

tsr_status tsr_matmul_cpu(tsr_device *dev, const tsr_product *products, int n_products,
                          tsr_tensor x, tsr_activations activations)
{
    const int n_threads = tsr_cpu_pool_n_threads(dev->pool);
    const size_t x_bytes = x_scratch(x.n_rows, x.n_cols);
    const size_t needed = x_bytes + (size_t)n_threads * thread_scratch(x.n_cols);
    bool quantise = false;
    work w = {
        .loops = loops_for(dev->isa),
        .pool = dev->pool,
        .activations = activations,
        .n_cols = x.n_cols,
    };

    for (int p = 0; p < n_products; p++) {
        const tsr_weight *weight = products[p].weight;

        if (x.n_cols == 0) {
            fill_empty(&products[p]);
        } else if (weight->n_rows > 0) {
            w.products[w.n_products++] = products[p];
            w.n_bytes += (int64_t)tsr_weight_bytes(weight->format, weight->n_rows, x.n_cols);
            quantise = quantise || (activations == TSR_ACTIVATIONS_INT8 &&
                                    tsr_weight_is_quantised(weight->format));
        }
    }
    if (w.n_products == 0 || x.n_rows == 0) {
        return TSR_OK;
    }
    if (dev->scratch_bytes < needed) {
        return tsr_fail(TSR_ERR_ARG, "matmul: %lld rows of %lld need %zu bytes of scratch, not %zu",
                        (long long)x.n_rows, (long long)x.n_cols, needed, dev->scratch_bytes);
    }
    w.x = (tsr_x_blocks){
        .n_rows = x.n_rows,
        .n_blocks = (x.n_rows + w.loops->rows_per_block - 1) / w.loops->rows_per_block,
        .x = x.data,
        .x_stride = x.stride,
        .quantised = dev->scratch,
    };
    w.thread_scratch = (uint8_t *)dev->scratch + x_bytes;
    w.thread_scratch_bytes = thread_scratch(x.n_cols);
    if (quantise && x.n_rows * x.n_cols <= ALONE_ELEMENTS) {
        w.loops->quantise(&w.x, x.n_cols, 0, w.x.n_blocks);
    } else {
        w.quantise_together = quantise;
    }
    tsr_cpu_pool_run(dev->pool, work_on_share, &w);
    return TSR_OK;
}
