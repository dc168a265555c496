#include "kernels/ops.h"

#include <limits.h>

#include "kernels/backend.h"

enum {
    ANY = -1, // a number of rows or columns that is not prescribed
    MAX_TOP_K = 1024
};

static bool is_empty(tsr_tensor t)
{
    return t.n_rows == 0 || t.n_cols == 0;
}

static tsr_status check_tensor(const tsr_device *dev, const char *op, const char *name,
                               tsr_tensor t, tsr_dtype dtype, int64_t n_rows, int64_t n_cols)
{
    if (t.dtype != dtype) {
        return tsr_fail(TSR_ERR_ARG, "%s: %s is of type %d; %s is expected", op, name, (int)t.dtype,
                        tsr_dtype_name(dtype));
    }
    if (t.on != dev->kind) {
        return tsr_fail(TSR_ERR_ARG, "%s: %s lies on a device of kind %d, the op runs on kind %d",
                        op, name, (int)t.on, (int)dev->kind);
    }
    if (t.n_rows < 0 || t.n_cols < 0 || t.stride < t.n_cols) {
        return tsr_fail(TSR_ERR_ARG, "%s: %s is [%lld, %lld] with rows %lld apart", op, name,
                        (long long)t.n_rows, (long long)t.n_cols, (long long)t.stride);
    }
    if (n_rows != ANY && t.n_rows != n_rows) {
        return tsr_fail(TSR_ERR_ARG, "%s: %s has %lld rows; %lld are expected", op, name,
                        (long long)t.n_rows, (long long)n_rows);
    }
    if (n_cols != ANY && t.n_cols != n_cols) {
        return tsr_fail(TSR_ERR_ARG, "%s: %s has %lld columns; %lld are expected", op, name,
                        (long long)t.n_cols, (long long)n_cols);
    }
    if (t.data == NULL && !is_empty(t)) {
        return tsr_fail(TSR_ERR_ARG, "%s: %s is [%lld, %lld] and has no memory", op, name,
                        (long long)t.n_rows, (long long)t.n_cols);
    }
    return TSR_OK;
}

static tsr_status check_weight(const tsr_device *dev, const char *op, const tsr_weight *w)
{
    if (w->on != dev->kind) {
        return tsr_fail(TSR_ERR_ARG,
                        "%s: the weight lies on a device of kind %d, the op runs on kind %d", op,
                        (int)w->on, (int)dev->kind);
    }
    if (w->format < 0 || w->format >= TSR_FORMAT_COUNT || w->n_rows < 0 || w->n_cols < 0) {
        return tsr_fail(TSR_ERR_ARG, "%s: the weight is [%lld, %lld] of format %d", op,
                        (long long)w->n_rows, (long long)w->n_cols, (int)w->format);
    }
    if (w->tiles == NULL && w->n_rows > 0 && w->n_cols > 0) {
        return tsr_fail(TSR_ERR_ARG, "%s: the weight is [%lld, %lld] and has no memory", op,
                        (long long)w->n_rows, (long long)w->n_cols);
    }
    return TSR_OK;
}

/* ---- scratch --------------------------------------------------------------------------------- */

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t tsr_ops_scratch_bytes(tsr_device_kind kind, int n_threads, const tsr_ops_limits *limits)
{
    size_t n_bytes;

    if (kind == TSR_DEVICE_CUDA) {
        return tsr_device_cuda_scratch(n_threads, limits);
    }
    // Ops follow one another: what the hungriest needs is enough for all.
    n_bytes = tsr_embed_cpu_scratch(n_threads, limits);
    n_bytes = larger(n_bytes, tsr_matmul_cpu_scratch(n_threads, limits));
    n_bytes = larger(n_bytes, tsr_attention_cpu_scratch(n_threads, limits));
    return larger(n_bytes, tsr_top_k_cpu_scratch(n_threads, limits));
}

/* ---- around the layers ----------------------------------------------------------------------- */

tsr_status tsr_embed(tsr_device *dev, tsr_tensor sums, tsr_tensor ids, const tsr_weight *table,
                     int64_t first_id)
{
    TSR_TRY(check_weight(dev, "embed", table));
    TSR_TRY(check_tensor(dev, "embed", "ids", ids, TSR_DTYPE_I32, 1, ANY));
    TSR_TRY(check_tensor(dev, "embed", "sums", sums, TSR_DTYPE_F64, ids.n_cols, table->n_cols));
    if (is_empty(sums)) {
        return TSR_OK;
    }
    return dev->backend->embed(dev, sums, ids, table, first_id);
}

static tsr_status check_parts(const tsr_device *dev, const char *op, tsr_tensor x,
                              const tsr_tensor *parts, int n_parts)
{
    if (n_parts < 1 || n_parts > TSR_MAX_PARTS) {
        return tsr_fail(TSR_ERR_ARG, "%s: %d parts; 1 to %d are possible", op, n_parts,
                        TSR_MAX_PARTS);
    }
    for (int p = 0; p < n_parts; p++) {
        TSR_TRY(check_tensor(dev, op, "a part", parts[p], TSR_DTYPE_F64, x.n_rows, x.n_cols));
    }
    return TSR_OK;
}

tsr_status tsr_narrow(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts, int n_parts)
{
    TSR_TRY(check_tensor(dev, "narrow", "x", x, TSR_DTYPE_F32, ANY, ANY));
    TSR_TRY(check_parts(dev, "narrow", x, parts, n_parts));
    if (is_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->narrow(dev, x, parts, n_parts);
}

tsr_status tsr_add_sums(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts, int n_parts,
                        tsr_tensor bias)
{
    TSR_TRY(check_tensor(dev, "add_sums", "x", x, TSR_DTYPE_F32, ANY, ANY));
    TSR_TRY(check_parts(dev, "add_sums", x, parts, n_parts));
    if (bias.data != NULL) {
        TSR_TRY(check_tensor(dev, "add_sums", "bias", bias, TSR_DTYPE_F32, 1, x.n_cols));
    }
    if (is_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->add_sums(dev, x, parts, n_parts, bias);
}

tsr_status tsr_rmsnorm(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight, float eps)
{
    TSR_TRY(check_tensor(dev, "rmsnorm", "x", x, TSR_DTYPE_F32, ANY, ANY));
    TSR_TRY(check_tensor(dev, "rmsnorm", "out", out, TSR_DTYPE_F32, x.n_rows, x.n_cols));
    TSR_TRY(check_tensor(dev, "rmsnorm", "weight", weight, TSR_DTYPE_F32, 1, x.n_cols));
    if (is_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->rmsnorm(dev, out, x, weight, eps);
}

/* ---- products -------------------------------------------------------------------------------- */

static tsr_status check_product(const tsr_device *dev, const tsr_product *product, tsr_tensor x)
{
    const tsr_weight *w = product->weight;
    const bool grained = w->grain_cols > 0;

    TSR_TRY(check_weight(dev, "matmul", w));
    if (w->n_cols != x.n_cols) {
        return tsr_fail(TSR_ERR_ARG, "matmul: the weight has %lld columns, x has %lld",
                        (long long)w->n_cols, (long long)x.n_cols);
    }
    if (w->grain_cols < 0 || (w->grain_cols % TSR_TILE_COLS != 0 && w->grain_cols < w->n_cols)) {
        return tsr_fail(TSR_ERR_ARG,
                        "matmul: grains of %lld columns of %lld; a multiple of %d or all",
                        (long long)w->grain_cols, (long long)w->n_cols, TSR_TILE_COLS);
    }
    TSR_TRY(check_tensor(dev, "matmul", "out", product->out,
                         grained ? TSR_DTYPE_F64 : TSR_DTYPE_F32, x.n_rows, w->n_rows));
    if (product->bias.data != NULL) {
        if (grained) {
            return tsr_fail(TSR_ERR_ARG, "matmul: a bias on sums that are not whole yet");
        }
        TSR_TRY(check_tensor(dev, "matmul", "bias", product->bias, TSR_DTYPE_F32, 1, w->n_rows));
    }
    return TSR_OK;
}

tsr_status tsr_matmul(tsr_device *dev, const tsr_product *products, int n_products, tsr_tensor x,
                      tsr_activations activations)
{
    if (n_products < 1 || n_products > TSR_MAX_PRODUCTS) {
        return tsr_fail(TSR_ERR_ARG, "matmul: %d products; 1 to %d are possible", n_products,
                        TSR_MAX_PRODUCTS);
    }
    if (activations != TSR_ACTIVATIONS_INT8 && activations != TSR_ACTIVATIONS_F32) {
        return tsr_fail(TSR_ERR_ARG, "matmul: no activations %d", (int)activations);
    }
    TSR_TRY(check_tensor(dev, "matmul", "x", x, TSR_DTYPE_F32, ANY, ANY));
    for (int p = 0; p < n_products; p++) {
        TSR_TRY(check_product(dev, &products[p], x));
    }
    if (x.n_rows == 0) {
        return TSR_OK;
    }
    return dev->backend->matmul(dev, products, n_products, x, activations);
}

tsr_status tsr_swiglu(tsr_device *dev, tsr_tensor out, tsr_tensor gate, tsr_tensor up)
{
    TSR_TRY(check_tensor(dev, "swiglu", "gate", gate, TSR_DTYPE_F32, ANY, ANY));
    TSR_TRY(check_tensor(dev, "swiglu", "up", up, TSR_DTYPE_F32, gate.n_rows, gate.n_cols));
    TSR_TRY(check_tensor(dev, "swiglu", "out", out, TSR_DTYPE_F32, gate.n_rows, gate.n_cols));
    if (is_empty(out)) {
        return TSR_OK;
    }
    return dev->backend->swiglu(dev, out, gate, up);
}

/* ---- attention ------------------------------------------------------------------------------- */

tsr_status tsr_rope_angles(tsr_device *dev, tsr_tensor angles, tsr_tensor positions,
                           tsr_tensor frequencies, float scale)
{
    TSR_TRY(check_tensor(dev, "rope_angles", "positions", positions, TSR_DTYPE_I32, 1, ANY));
    TSR_TRY(check_tensor(dev, "rope_angles", "frequencies", frequencies, TSR_DTYPE_F64, 1, ANY));
    TSR_TRY(check_tensor(dev, "rope_angles", "angles", angles, TSR_DTYPE_F32, positions.n_cols,
                         2 * frequencies.n_cols));
    if (is_empty(angles)) {
        return TSR_OK;
    }
    return dev->backend->rope_angles(dev, angles, positions, frequencies, scale);
}

tsr_status tsr_rope(tsr_device *dev, tsr_tensor x, tsr_tensor angles, int head_dim,
                    tsr_rope_pairs pairs)
{
    TSR_TRY(check_tensor(dev, "rope", "x", x, TSR_DTYPE_F32, ANY, ANY));
    TSR_TRY(check_tensor(dev, "rope", "angles", angles, TSR_DTYPE_F32, x.n_rows, ANY));
    if (head_dim < 1 || x.n_cols % head_dim != 0) {
        return tsr_fail(TSR_ERR_ARG, "rope: x has %lld columns, which are not heads of %d",
                        (long long)x.n_cols, head_dim);
    }
    if (angles.n_cols % 2 != 0 || angles.n_cols > head_dim) {
        return tsr_fail(TSR_ERR_ARG, "rope: %lld dimensions turn in heads of %d",
                        (long long)angles.n_cols, head_dim);
    }
    if (pairs != TSR_ROPE_INTERLEAVED && pairs != TSR_ROPE_HALVES) {
        return tsr_fail(TSR_ERR_ARG, "rope: no pairs %d", (int)pairs);
    }
    if (is_empty(x) || is_empty(angles)) {
        return TSR_OK;
    }
    return dev->backend->rope(dev, x, angles, head_dim, pairs);
}

static tsr_status check_kv(const char *op, const tsr_kv_view *kv)
{
    const tsr_kv_layout *layout = kv->layout;

    TSR_TRY(tsr_kv_layout_check(layout));
    if (kv->layer < 0 || kv->layer >= layout->n_layers) {
        return tsr_fail(TSR_ERR_ARG, "%s: layer %d of %d", op, kv->layer, layout->n_layers);
    }
    if (kv->block_bytes < tsr_kv_layout_block_bytes(layout)) {
        return tsr_fail(TSR_ERR_ARG, "%s: blocks of %zu bytes; their layout takes %zu", op,
                        kv->block_bytes, tsr_kv_layout_block_bytes(layout));
    }
    if (kv->block_bytes % tsr_dtype_bytes(layout->dtype) != 0) {
        return tsr_fail(TSR_ERR_ARG, "%s: blocks of %zu bytes do not hold whole elements", op,
                        kv->block_bytes);
    }
    if (kv->pool == NULL && layout->n_kv_heads > 0) {
        return tsr_fail(TSR_ERR_ARG, "%s: the cache has no memory", op);
    }
    return TSR_OK;
}

static tsr_status check_batch(const tsr_device *dev, const char *op, const tsr_batch *batch,
                              const tsr_kv_layout *layout, int64_t n_rows)
{
    const int64_t n_seqs = batch->n_seqs;

    if (n_seqs < 0 || (n_seqs == 0 && n_rows > 0)) {
        return tsr_fail(TSR_ERR_ARG, "%s: %lld rows of %lld sequences", op, (long long)n_rows,
                        (long long)n_seqs);
    }
    if (n_seqs == 0) {
        return TSR_OK;
    }
    TSR_TRY(check_tensor(dev, op, "row_start", batch->row_start, TSR_DTYPE_I32, 1, n_seqs + 1));
    TSR_TRY(check_tensor(dev, op, "first_pos", batch->first_pos, TSR_DTYPE_I32, 1, n_seqs));
    TSR_TRY(check_tensor(dev, op, "lanes", batch->lanes, TSR_DTYPE_I32, 1, n_seqs));
    TSR_TRY(check_tensor(dev, op, "tables", batch->tables, TSR_DTYPE_I32, ANY, ANY));
    if (batch->longest < 1 || batch->longest > INT_MAX ||
        batch->longest > batch->tables.n_cols * layout->block_tokens) {
        return tsr_fail(TSR_ERR_ARG, "%s: a sequence of %lld tokens in tables of %lld blocks of %d",
                        op, (long long)batch->longest, (long long)batch->tables.n_cols,
                        layout->block_tokens);
    }
    return TSR_OK;
}

tsr_status tsr_kv_write(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor k, tsr_tensor v,
                        const tsr_batch *batch)
{
    int64_t n_cols;

    TSR_TRY(check_kv("kv_write", kv));
    n_cols = (int64_t)kv->layout->n_kv_heads * kv->layout->head_dim;
    TSR_TRY(check_tensor(dev, "kv_write", "k", k, TSR_DTYPE_F32, ANY, n_cols));
    TSR_TRY(check_tensor(dev, "kv_write", "v", v, TSR_DTYPE_F32, k.n_rows, n_cols));
    TSR_TRY(check_batch(dev, "kv_write", batch, kv->layout, k.n_rows));
    if (is_empty(k)) {
        return TSR_OK;
    }
    return dev->backend->kv_write(dev, kv, k, v, batch);
}

tsr_status tsr_attention(tsr_device *dev, tsr_tensor out, tsr_tensor q, const tsr_kv_view *kv,
                         const tsr_batch *batch, const tsr_attention_shape *shape)
{
    const tsr_kv_layout *layout = kv->layout;
    int64_t n_cols;

    TSR_TRY(check_kv("attention", kv));
    if (shape->n_heads < 0 || shape->group < 1 || shape->first_head < 0 ||
        shape->first_head >= shape->group) {
        return tsr_fail(TSR_ERR_ARG,
                        "attention: %d heads in groups of %d, the first is number %d of its group",
                        shape->n_heads, shape->group, shape->first_head);
    }
    if (shape->head_dim != layout->head_dim) {
        return tsr_fail(TSR_ERR_ARG, "attention: query heads of %d, kv heads of %d",
                        shape->head_dim, layout->head_dim);
    }
    if ((shape->first_head + (int64_t)shape->n_heads + shape->group - 1) / shape->group >
            layout->n_kv_heads &&
        shape->n_heads > 0) {
        return tsr_fail(TSR_ERR_ARG,
                        "attention: %d heads in groups of %d from %d on read more than %d kv heads",
                        shape->n_heads, shape->group, shape->first_head, layout->n_kv_heads);
    }
    n_cols = (int64_t)shape->n_heads * shape->head_dim;
    TSR_TRY(check_tensor(dev, "attention", "q", q, TSR_DTYPE_F32, ANY, n_cols));
    TSR_TRY(check_tensor(dev, "attention", "out", out, TSR_DTYPE_F32, q.n_rows, n_cols));
    TSR_TRY(check_batch(dev, "attention", batch, layout, q.n_rows));
    if (is_empty(q)) {
        return TSR_OK;
    }
    return dev->backend->attention(dev, out, q, kv, batch, shape);
}

/* ---- the end --------------------------------------------------------------------------------- */

tsr_status tsr_gather_rows(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor rows)
{
    TSR_TRY(check_tensor(dev, "gather_rows", "x", x, TSR_DTYPE_F32, ANY, ANY));
    TSR_TRY(check_tensor(dev, "gather_rows", "rows", rows, TSR_DTYPE_I32, 1, ANY));
    TSR_TRY(check_tensor(dev, "gather_rows", "out", out, TSR_DTYPE_F32, rows.n_cols, x.n_cols));
    if (is_empty(out)) {
        return TSR_OK;
    }
    return dev->backend->gather_rows(dev, out, x, rows);
}

tsr_status tsr_adjust_logits(tsr_device *dev, tsr_tensor logits, tsr_tensor before, tsr_tensor rows,
                             tsr_tensor ids, tsr_tensor factors, tsr_tensor adds, int64_t first_id)
{
    const int64_t n = rows.n_cols;

    TSR_TRY(check_tensor(dev, "adjust_logits", "logits", logits, TSR_DTYPE_F32, ANY, ANY));
    TSR_TRY(check_tensor(dev, "adjust_logits", "rows", rows, TSR_DTYPE_I32, 1, ANY));
    TSR_TRY(check_tensor(dev, "adjust_logits", "ids", ids, TSR_DTYPE_I32, 1, n));
    TSR_TRY(check_tensor(dev, "adjust_logits", "factors", factors, TSR_DTYPE_F32, 1, n));
    TSR_TRY(check_tensor(dev, "adjust_logits", "adds", adds, TSR_DTYPE_F32, 1, n));
    TSR_TRY(check_tensor(dev, "adjust_logits", "before", before, TSR_DTYPE_F32, 1, n));
    if (first_id < 0 || first_id > INT32_MAX - logits.n_cols) {
        return tsr_fail(TSR_ERR_ARG, "adjust_logits: ids from %lld on for %lld columns",
                        (long long)first_id, (long long)logits.n_cols);
    }
    if (n == 0) {
        return TSR_OK;
    }
    return dev->backend->adjust_logits(dev, logits, before, rows, ids, factors, adds, first_id);
}

tsr_status tsr_top_k(tsr_device *dev, tsr_tensor ids, tsr_tensor values, tsr_tensor masses,
                     tsr_tensor logits, tsr_tensor sharpness, int64_t first_id, int64_t unit_cols)
{
    const int64_t n_rows = logits.n_rows;

    TSR_TRY(check_tensor(dev, "top_k", "logits", logits, TSR_DTYPE_F32, ANY, ANY));
    if (unit_cols < 1) {
        return tsr_fail(TSR_ERR_ARG, "top_k: units of %lld columns", (long long)unit_cols);
    }
    if (first_id < 0 || first_id > INT32_MAX - logits.n_cols) {
        return tsr_fail(TSR_ERR_ARG, "top_k: ids from %lld on for %lld columns",
                        (long long)first_id, (long long)logits.n_cols);
    }
    if (ids.n_cols < 1 || ids.n_cols > MAX_TOP_K) {
        return tsr_fail(TSR_ERR_ARG, "top_k: the %lld best; 1 to %d are possible",
                        (long long)ids.n_cols, MAX_TOP_K);
    }
    TSR_TRY(check_tensor(dev, "top_k", "ids", ids, TSR_DTYPE_I32, n_rows, ANY));
    TSR_TRY(check_tensor(dev, "top_k", "values", values, TSR_DTYPE_F32, n_rows, ids.n_cols));
    TSR_TRY(check_tensor(dev, "top_k", "masses", masses, TSR_DTYPE_F32, n_rows,
                         2 * (logits.n_cols / unit_cols + (logits.n_cols % unit_cols != 0))));
    TSR_TRY(check_tensor(dev, "top_k", "sharpness", sharpness, TSR_DTYPE_F32, 1, n_rows));
    if (n_rows == 0) {
        return TSR_OK;
    }
    return dev->backend->top_k(dev, ids, values, masses, logits, sharpness, first_id, unit_cols);
}
