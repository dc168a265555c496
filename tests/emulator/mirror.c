/*
 * Puts a GPU behind the tests of the ops without a change to them: linked with --wrap, opening a
 * device gives one whose windows lie in host memory, as the tests make them, and whose ops copy
 * every operand to the emulated GPU, call the op there, and copy the results back.
 *
 * A copy is as large as its window and no larger, so the emulator sees every access beside it. Each
 * op runs twice, in two orders of threads and blocks, and must give the same bits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/backend.h"
#include "tests/emulator/mirror.h"
#include "tests/emulator/simt.h"

tsr_status __real_tsr_device_open(tsr_device **out, const tsr_device_options *options);
tsr_status __wrap_tsr_device_open(tsr_device **out, const tsr_device_options *options);
size_t __real_tsr_ops_scratch_bytes(tsr_device_kind kind, int n_threads,
                                    const tsr_ops_limits *limits);
size_t __wrap_tsr_ops_scratch_bytes(tsr_device_kind kind, int n_threads,
                                    const tsr_ops_limits *limits);

enum {
    MAX_OPERANDS = 16
};

/* A stretch of host memory and where it is on the GPU. */
typedef struct copy {
    void *host;
    void *gpu;
    size_t n_bytes;
    char *before; /* what the host's held when the op was called */
    bool is_result;
} copy;

/* EMULATOR_FAST: whether the GPU is one that need not give the CPU's bits. */
bool mirror_is_fast(void)
{
    const char *wanted = getenv("EMULATOR_FAST");

    return wanted != NULL && strcmp(wanted, "1") == 0;
}

static tsr_device *gpu;
static const tsr_backend *host_backend;
static copy copies[MAX_OPERANDS];
static int n_copies;

static void must(bool is_well, const char *what)
{
    if (!is_well) {
        (void)fprintf(stderr, "mirror: %s: %s\n", what, tsr_status_message());
        exit(SIMT_EXIT);
    }
}

/* ---- copies
 * -------------------------------------------------------------------------------------- */

static void *put(const void *host, size_t n_bytes, bool is_result)
{
    copy *c = &copies[n_copies++];

    *c = (copy){.host = (void *)(uintptr_t)host, .n_bytes = n_bytes, .is_result = is_result};
    if (n_bytes == 0) {
        return NULL;
    }
    c->gpu = tsr_device_alloc(gpu, n_bytes);
    c->before = malloc(n_bytes);
    must(c->gpu != NULL && c->before != NULL, "out of memory");
    memcpy(c->before, host, n_bytes);
    must(tsr_device_upload(gpu, c->gpu, host, n_bytes) == TSR_OK, "upload");
    return c->gpu;
}

static tsr_tensor put_window(tsr_tensor t, bool is_result)
{
    const bool is_empty = t.n_rows == 0 || t.n_cols == 0;
    const size_t n_elems = is_empty ? 0 : (size_t)((t.n_rows - 1) * t.stride + t.n_cols);

    if (t.data == NULL) {
        t.on = TSR_DEVICE_CUDA;
        return t;
    }
    t.data = put(t.data, n_elems * tsr_dtype_bytes(t.dtype), is_result);
    t.on = TSR_DEVICE_CUDA;
    return t;
}

static tsr_weight put_weight(const tsr_weight *w)
{
    tsr_weight on_gpu = *w;

    on_gpu.on = TSR_DEVICE_CUDA;
    on_gpu.tiles = put(w->tiles, tsr_weight_bytes(w->format, w->n_rows, w->n_cols), false);
    return on_gpu;
}

/* The blocks that tables lead to. */
static tsr_kv_view put_kv(const tsr_kv_view *kv, const tsr_batch *batch, bool is_result)
{
    tsr_kv_view on_gpu = *kv;
    int32_t largest = 0;

    for (int64_t lane = 0; lane < batch->tables.n_rows; lane++) {
        for (int64_t b = 0; b < batch->tables.n_cols; b++) {
            const int32_t slot =
                ((const int32_t *)batch->tables.data)[lane * batch->tables.stride + b];

            largest = slot > largest ? slot : largest;
        }
    }
    on_gpu.pool = put(kv->pool, ((size_t)largest + 1) * kv->block_bytes, is_result);
    return on_gpu;
}

static tsr_batch put_batch(const tsr_batch *batch)
{
    tsr_batch on_gpu = *batch;

    on_gpu.row_start = put_window(batch->row_start, false);
    on_gpu.first_pos = put_window(batch->first_pos, false);
    on_gpu.lanes = put_window(batch->lanes, false);
    on_gpu.tables = put_window(batch->tables, false);
    return on_gpu;
}

/* The results of the first run go to the host, those of the second are compared with them. */
static void take_results(bool is_second)
{
    for (int i = 0; i < n_copies; i++) {
        copy *c = &copies[i];
        char *got;

        if (c->n_bytes == 0 || !c->is_result) {
            continue;
        }
        got = malloc(c->n_bytes);
        must(got != NULL, "out of memory");
        must(tsr_device_download(gpu, got, c->gpu, c->n_bytes) == TSR_OK, "download");
        if (!is_second) {
            memcpy(c->host, got, c->n_bytes);
        } else {
            must(memcmp(c->host, got, c->n_bytes) == 0,
                 "an op gives other bits when its threads run in another order");
        }
        free(got);
    }
}

static void begin_second_run(void)
{
    for (int i = 0; i < n_copies; i++) {
        if (copies[i].n_bytes > 0) {
            must(tsr_device_upload(gpu, copies[i].gpu, copies[i].before, copies[i].n_bytes) ==
                     TSR_OK,
                 "upload");
        }
    }
}

static void free_copies(void)
{
    for (int i = 0; i < n_copies; i++) {
        tsr_device_free(gpu, copies[i].gpu, copies[i].n_bytes);
        free(copies[i].before);
    }
    n_copies = 0;
}

/* The order of a second run: whichever the first was not. */
static simt_order other_order(simt_order order)
{
    return order == SIMT_REVERSE ? SIMT_RANDOM : SIMT_REVERSE;
}

#define RUN_TWICE(dev, call)                                                     \
    do {                                                                         \
        const simt_order order_ = simt_get_order();                              \
        tsr_status st_;                                                          \
        prepare_scratch(dev);                                                    \
        st_ = (call);                                                            \
        if (st_ == TSR_OK) {                                                     \
            take_results(false);                                                 \
            begin_second_run();                                                  \
            simt_set_order(other_order(order_), (uint32_t)simt_so_far().blocks); \
            must((call) == TSR_OK, "the second run of an op");                   \
            take_results(true);                                                  \
            simt_set_order(order_, (uint32_t)simt_so_far().blocks);              \
        }                                                                        \
        free_copies();                                                           \
        return st_;                                                              \
    } while (0)

/* As much scratch on the GPU as the test gave the device, or none. */
static void prepare_scratch(const tsr_device *dev)
{
    static size_t reserved;

    if (dev->scratch_bytes > reserved) {
        gpu->scratch_bytes = reserved;
        must(tsr_device_reserve_scratch(gpu, dev->scratch_bytes) == TSR_OK, "scratch");
        reserved = dev->scratch_bytes;
    }
    gpu->scratch_bytes = dev->scratch_bytes;
}

/* Tests that hold all instruction sets to plain C thereby hold the GPU to it. */
#define ON_PLAIN_C(op, dev, ...)                       \
    do {                                               \
        if ((dev)->isa == TSR_ISA_PLAIN_C) {           \
            return host_backend->op(dev, __VA_ARGS__); \
        }                                              \
    } while (0)

/* ---- ops
 * ----------------------------------------------------------------------------------------- */

static tsr_status embed(tsr_device *dev, tsr_tensor sums, tsr_tensor ids, const tsr_weight *table,
                        int64_t first_id, bool add)
{
    ON_PLAIN_C(embed, dev, sums, ids, table, first_id, add);
    const tsr_weight w = put_weight(table);
    const tsr_tensor out = put_window(sums, true);
    const tsr_tensor which = put_window(ids, false);

    RUN_TWICE(dev, tsr_embed(gpu, out, which, &w, first_id, add));
}

static tsr_status narrow(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts, int n_parts,
                         tsr_tensor bias)
{
    ON_PLAIN_C(narrow, dev, x, parts, n_parts, bias);
    const tsr_tensor out = put_window(x, true);
    const tsr_tensor added = put_window(bias, false);
    tsr_tensor on_gpu[TSR_MAX_PARTS];

    for (int i = 0; i < n_parts; i++) {
        on_gpu[i] = put_window(parts[i], false);
    }
    RUN_TWICE(dev, tsr_narrow(gpu, out, on_gpu, n_parts, added));
}

static tsr_status add_sums(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts, int n_parts,
                           tsr_tensor bias)
{
    ON_PLAIN_C(add_sums, dev, x, parts, n_parts, bias);
    const tsr_tensor out = put_window(x, true);
    const tsr_tensor added = put_window(bias, false);
    tsr_tensor on_gpu[TSR_MAX_PARTS];

    for (int i = 0; i < n_parts; i++) {
        on_gpu[i] = put_window(parts[i], false);
    }
    RUN_TWICE(dev, tsr_add_sums(gpu, out, on_gpu, n_parts, added));
}

static tsr_status rmsnorm(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight,
                          float eps)
{
    ON_PLAIN_C(rmsnorm, dev, out, x, weight, eps);
    const tsr_tensor to = put_window(out, true);
    const tsr_tensor from = out.data == x.data ? to : put_window(x, false);
    const tsr_tensor w = put_window(weight, false);

    RUN_TWICE(dev, tsr_rmsnorm(gpu, to, from, w, eps));
}

static tsr_status matmul(tsr_device *dev, const tsr_product *products, int n_products, tsr_tensor x,
                         tsr_activations activations)
{
    ON_PLAIN_C(matmul, dev, products, n_products, x, activations);
    const tsr_tensor from = put_window(x, false);
    tsr_weight weights[TSR_MAX_PRODUCTS];
    tsr_product on_gpu[TSR_MAX_PRODUCTS];

    for (int p = 0; p < n_products; p++) {
        weights[p] = put_weight(products[p].weight);
        on_gpu[p].weight = &weights[p];
        on_gpu[p].out = put_window(products[p].out, true);
        on_gpu[p].bias = put_window(products[p].bias, false);
    }
    RUN_TWICE(dev, tsr_matmul(gpu, on_gpu, n_products, from, activations));
}

static tsr_status join(tsr_device *dev, tsr_tensor x, const tsr_joining *j)
{
    ON_PLAIN_C(join, dev, x, j);
    const tsr_tensor to = put_window(x, true);
    tsr_tensor on_gpu[TSR_MAX_PARTS];
    tsr_joining all = *j;

    for (int i = 0; i < j->n_parts; i++) {
        on_gpu[i] = put_window(j->parts[i], false);
    }
    all.parts = on_gpu;
    all.bias = put_window(j->bias, false);
    all.post_weight = put_window(j->post_weight, false);
    all.post_bias = put_window(j->post_bias, false);
    all.next_weight = put_window(j->next_weight, false);
    all.next_bias = put_window(j->next_bias, false);
    all.out = put_window(j->out, true);
    all.spare = put_window(j->spare, false); // a GPU may leave it as it is
    RUN_TWICE(dev, tsr_join(gpu, to, &all));
}

static tsr_status route(tsr_device *dev, tsr_tensor ids, tsr_tensor weights, tsr_tensor logits,
                        const tsr_routing *routing)
{
    ON_PLAIN_C(route, dev, ids, weights, logits, routing);
    const tsr_tensor i = put_window(ids, true);
    const tsr_tensor w = put_window(weights, true);
    const tsr_tensor x = put_window(logits, false);

    RUN_TWICE(dev, tsr_route(gpu, i, w, x, routing));
}

static tsr_status sort_experts(tsr_device *dev, tsr_tensor start, tsr_tensor rows,
                               tsr_tensor weights, tsr_tensor places, tsr_tensor ids,
                               tsr_tensor chosen)
{
    ON_PLAIN_C(sort_experts, dev, start, rows, weights, places, ids, chosen);
    const tsr_tensor s = put_window(start, true);
    const tsr_tensor r = put_window(rows, true);
    const tsr_tensor w = put_window(weights, true);
    const tsr_tensor p = put_window(places, true);
    const tsr_tensor i = put_window(ids, false);
    const tsr_tensor c = put_window(chosen, false);

    RUN_TWICE(dev, tsr_sort_experts(gpu, s, r, w, p, i, c));
}

static tsr_status matmul_experts(tsr_device *dev, const tsr_expert_product *products,
                                 int n_products, tsr_tensor x, tsr_tensor start, int64_t most_rows,
                                 tsr_activations activations)
{
    ON_PLAIN_C(matmul_experts, dev, products, n_products, x, start, most_rows, activations);
    const tsr_tensor from = put_window(x, false);
    const tsr_tensor starts = put_window(start, false);
    tsr_expert_weights weights[TSR_MAX_PRODUCTS];
    tsr_expert_product on_gpu[TSR_MAX_PRODUCTS];

    for (int p = 0; p < n_products; p++) {
        const tsr_expert_weights *w = products[p].weights;
        const size_t behind = (size_t)((start.n_cols - 2) * w->apart_bytes);

        weights[p] = *w;
        weights[p].first.on = TSR_DEVICE_CUDA;
        weights[p].first.tiles = put(
            w->first.tiles,
            behind + tsr_weight_bytes(w->first.format, w->first.n_rows, w->first.n_cols), false);
        weights[p].bias = put_window(w->bias, false);
        on_gpu[p] = (tsr_expert_product){&weights[p], put_window(products[p].out, true)};
    }
    RUN_TWICE(dev,
              tsr_matmul_experts(gpu, on_gpu, n_products, from, starts, most_rows, activations));
}

static tsr_status add_experts(tsr_device *dev, tsr_tensor sums, tsr_tensor parts, tsr_tensor ids,
                              tsr_tensor places, tsr_tensor weights, tsr_tensor bias, int64_t first,
                              int64_t n_here)
{
    ON_PLAIN_C(add_experts, dev, sums, parts, ids, places, weights, bias, first, n_here);
    const tsr_tensor to = put_window(sums, true);
    const tsr_tensor from = put_window(parts, false);
    const tsr_tensor i = put_window(ids, false);
    const tsr_tensor p = put_window(places, false);
    const tsr_tensor w = put_window(weights, false);
    const tsr_tensor b = put_window(bias, false);

    RUN_TWICE(dev, tsr_add_experts(gpu, to, from, i, p, w, b, first, n_here));
}

static tsr_status activate(tsr_device *dev, tsr_tensor out, tsr_tensor gate, tsr_tensor up,
                           tsr_tensor weights, tsr_activation activation)
{
    ON_PLAIN_C(activate, dev, out, gate, up, weights, activation);
    const tsr_tensor to = put_window(out, true);
    const tsr_tensor g = out.data == gate.data ? to : put_window(gate, false);
    const tsr_tensor u = put_window(up, false);
    const tsr_tensor w = put_window(weights, false);

    RUN_TWICE(dev, tsr_activate(gpu, to, g, u, w, activation));
}

static tsr_status add_scaled(tsr_device *dev, tsr_tensor x, tsr_tensor y, float factor)
{
    ON_PLAIN_C(add_scaled, dev, x, y, factor);
    const tsr_tensor out = put_window(x, true);
    const tsr_tensor from = put_window(y, false);

    RUN_TWICE(dev, tsr_add_scaled(gpu, out, from, factor));
}

static tsr_status scale(tsr_device *dev, tsr_tensor x, float factor, float cap)
{
    ON_PLAIN_C(scale, dev, x, factor, cap);
    const tsr_tensor out = put_window(x, true);

    RUN_TWICE(dev, tsr_scale(gpu, out, factor, cap));
}

static tsr_status clip(tsr_device *dev, tsr_tensor x, float limit)
{
    ON_PLAIN_C(clip, dev, x, limit);
    const tsr_tensor out = put_window(x, true);

    RUN_TWICE(dev, tsr_clip(gpu, out, limit));
}

static tsr_status layernorm(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight,
                            tsr_tensor bias, float eps)
{
    ON_PLAIN_C(layernorm, dev, out, x, weight, bias, eps);
    const tsr_tensor to = put_window(out, true);
    const tsr_tensor from = out.data == x.data ? to : put_window(x, false);
    const tsr_tensor w = put_window(weight, false);
    const tsr_tensor b = put_window(bias, false);

    RUN_TWICE(dev, tsr_layernorm(gpu, to, from, w, b, eps));
}

static tsr_status square_sums(tsr_device *dev, tsr_tensor sums, tsr_tensor x, int head_dim)
{
    ON_PLAIN_C(square_sums, dev, sums, x, head_dim);
    const tsr_tensor out = put_window(sums, true);
    const tsr_tensor from = put_window(x, false);

    RUN_TWICE(dev, tsr_square_sums(gpu, out, from, head_dim));
}

static tsr_status rmsnorm_shared(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts,
                                 int n_parts, tsr_tensor weight, int64_t n_whole, float eps)
{
    ON_PLAIN_C(rmsnorm_shared, dev, x, parts, n_parts, weight, n_whole, eps);
    const tsr_tensor out = put_window(x, true);
    const tsr_tensor w = put_window(weight, false);
    tsr_tensor on_gpu[TSR_MAX_PARTS];

    for (int i = 0; i < n_parts; i++) {
        on_gpu[i] = put_window(parts[i], false);
    }
    RUN_TWICE(dev, tsr_rmsnorm_shared(gpu, out, on_gpu, n_parts, w, n_whole, eps));
}

static tsr_status clear(tsr_device *dev, tsr_tensor x)
{
    ON_PLAIN_C(clear, dev, x);
    const tsr_tensor out = put_window(x, true);

    RUN_TWICE(dev, tsr_clear(gpu, out));
}

static tsr_status scatter_sums(tsr_device *dev, tsr_tensor sums, tsr_tensor parts, tsr_tensor rows,
                               tsr_tensor weights, tsr_tensor bias)
{
    ON_PLAIN_C(scatter_sums, dev, sums, parts, rows, weights, bias);
    const tsr_tensor out = put_window(sums, true);
    const tsr_tensor from = put_window(parts, false);
    const tsr_tensor r = put_window(rows, false);
    const tsr_tensor w = put_window(weights, false);
    const tsr_tensor b = put_window(bias, false);

    RUN_TWICE(dev, tsr_scatter_sums(gpu, out, from, r, w, b));
}

static tsr_status copy_heads(tsr_device *dev, tsr_tensor out, int out_dim, int to, tsr_tensor x,
                             int x_dim, int from, int n)
{
    ON_PLAIN_C(copy_heads, dev, out, out_dim, to, x, x_dim, from, n);
    const tsr_tensor target = put_window(out, true);
    const tsr_tensor source = put_window(x, false);

    RUN_TWICE(dev, tsr_copy_heads(gpu, target, out_dim, to, source, x_dim, from, n));
}

static tsr_status rope_angles(tsr_device *dev, tsr_tensor angles, tsr_tensor positions,
                              tsr_tensor frequencies, float scale)
{
    ON_PLAIN_C(rope_angles, dev, angles, positions, frequencies, scale);
    const tsr_tensor out = put_window(angles, true);
    const tsr_tensor at = put_window(positions, false);
    const tsr_tensor f = put_window(frequencies, false);

    RUN_TWICE(dev, tsr_rope_angles(gpu, out, at, f, scale));
}

static tsr_status rope(tsr_device *dev, tsr_tensor x, tsr_tensor angles, int head_dim, int first,
                       tsr_rope_pairs pairs)
{
    ON_PLAIN_C(rope, dev, x, angles, head_dim, first, pairs);
    const tsr_tensor heads = put_window(x, true);
    const tsr_tensor turns = put_window(angles, false);

    RUN_TWICE(dev, tsr_rope(gpu, heads, turns, head_dim, first, pairs));
}

static tsr_status kv_write(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor k, tsr_tensor v,
                           const tsr_batch *batch)
{
    ON_PLAIN_C(kv_write, dev, kv, k, v, batch);
    const tsr_kv_view view = put_kv(kv, batch, true);
    const tsr_tensor keys = put_window(k, false);
    const tsr_tensor values = put_window(v, false);
    const tsr_batch rows = put_batch(batch);

    RUN_TWICE(dev, tsr_kv_write(gpu, &view, keys, values, &rows));
}

static tsr_status rope_write(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor q, tsr_tensor k,
                             tsr_tensor v, tsr_tensor angles, int first, tsr_rope_pairs pairs,
                             const tsr_batch *batch)
{
    ON_PLAIN_C(rope_write, dev, kv, q, k, v, angles, first, pairs, batch);
    const tsr_kv_view view = put_kv(kv, batch, true);
    const tsr_tensor queries = put_window(q, true);
    const tsr_tensor keys = put_window(k, true);
    const tsr_tensor values = put_window(v, false);
    const tsr_tensor turns = put_window(angles, false);
    const tsr_batch rows = put_batch(batch);

    RUN_TWICE(dev, tsr_rope_write(gpu, &view, queries, keys, values, turns, first, pairs, &rows));
}

static tsr_status attention(tsr_device *dev, tsr_tensor out, tsr_tensor q, const tsr_kv_view *kv,
                            const tsr_batch *batch, const tsr_attention_shape *shape)
{
    ON_PLAIN_C(attention, dev, out, q, kv, batch, shape);
    const tsr_kv_view view = put_kv(kv, batch, false);
    const tsr_tensor to = put_window(out, true);
    const tsr_tensor queries = put_window(q, false);
    const tsr_batch rows = put_batch(batch);
    tsr_attention_shape asked = *shape;

    asked.slopes = put_window(shape->slopes, false);
    asked.sinks = put_window(shape->sinks, false);
    RUN_TWICE(dev, tsr_attention(gpu, to, queries, &view, &rows, &asked));
}

static tsr_status gather_rows(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor rows)
{
    ON_PLAIN_C(gather_rows, dev, out, x, rows);
    const tsr_tensor to = put_window(out, true);
    const tsr_tensor from = put_window(x, false);
    const tsr_tensor which = put_window(rows, false);

    RUN_TWICE(dev, tsr_gather_rows(gpu, to, from, which));
}

static tsr_status adjust_logits(tsr_device *dev, tsr_tensor logits, tsr_tensor before,
                                tsr_tensor rows, tsr_tensor ids, tsr_tensor factors,
                                tsr_tensor adds, int64_t first_id)
{
    ON_PLAIN_C(adjust_logits, dev, logits, before, rows, ids, factors, adds, first_id);
    const tsr_tensor x = put_window(logits, true);
    const tsr_tensor was = put_window(before, true);
    const tsr_tensor r = put_window(rows, false);
    const tsr_tensor i = put_window(ids, false);
    const tsr_tensor f = put_window(factors, false);
    const tsr_tensor a = put_window(adds, false);

    RUN_TWICE(dev, tsr_adjust_logits(gpu, x, was, r, i, f, a, first_id));
}

static tsr_status top_k(tsr_device *dev, tsr_tensor ids, tsr_tensor values, tsr_tensor masses,
                        tsr_tensor logits, tsr_tensor sharpness, int64_t first_id,
                        int64_t unit_cols)
{
    ON_PLAIN_C(top_k, dev, ids, values, masses, logits, sharpness, first_id, unit_cols);
    const tsr_tensor i = put_window(ids, true);
    const tsr_tensor v = put_window(values, true);
    const tsr_tensor m = put_window(masses, true);
    const tsr_tensor x = put_window(logits, false);
    const tsr_tensor s = put_window(sharpness, false);

    RUN_TWICE(dev, tsr_top_k(gpu, i, v, m, x, s, first_id, unit_cols));
}

/* ---- the device
 * ---------------------------------------------------------------------------------- */

size_t __wrap_tsr_ops_scratch_bytes(tsr_device_kind kind, int n_threads,
                                    const tsr_ops_limits *limits)
{
    const size_t cpu = __real_tsr_ops_scratch_bytes(kind, n_threads, limits);
    const size_t cuda = __real_tsr_ops_scratch_bytes(TSR_DEVICE_CUDA, n_threads, limits);

    return cpu > cuda ? cpu : cuda;
}

tsr_status __wrap_tsr_device_open(tsr_device **out, const tsr_device_options *options)
{
    const tsr_device_options first_gpu = {
        .kind = TSR_DEVICE_CUDA, .n_threads = 1, .deterministic = !mirror_is_fast()};
    static tsr_backend mirrored;

    TSR_TRY(__real_tsr_device_open(out, options));
    if (options->kind != TSR_DEVICE_CPU) {
        return TSR_OK;
    }
    if (gpu == NULL) {
        must(__real_tsr_device_open(&gpu, &first_gpu) == TSR_OK, "opening the GPU");
    }
    host_backend = (*out)->backend;
    mirrored = *host_backend;
    mirrored.embed = embed;
    mirrored.narrow = narrow;
    mirrored.add_sums = add_sums;
    mirrored.rmsnorm = rmsnorm;
    mirrored.matmul = matmul;
    mirrored.activate = activate;
    mirrored.join = join;
    mirrored.route = route;
    mirrored.sort_experts = sort_experts;
    mirrored.matmul_experts = matmul_experts;
    mirrored.add_experts = add_experts;
    mirrored.add_scaled = add_scaled;
    mirrored.scale = scale;
    mirrored.clip = clip;
    mirrored.layernorm = layernorm;
    mirrored.square_sums = square_sums;
    mirrored.rmsnorm_shared = rmsnorm_shared;
    mirrored.clear = clear;
    mirrored.scatter_sums = scatter_sums;
    mirrored.copy_heads = copy_heads;
    mirrored.rope_angles = rope_angles;
    mirrored.rope = rope;
    mirrored.kv_write = kv_write;
    mirrored.rope_write = rope_write;
    mirrored.attention = attention;
    mirrored.gather_rows = gather_rows;
    mirrored.adjust_logits = adjust_logits;
    mirrored.top_k = top_k;
    (*out)->backend = &mirrored;
    return TSR_OK;
}
