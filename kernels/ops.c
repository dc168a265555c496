#include "kernels/ops.h"

#include <limits.h>
#include <math.h>

#include "kernels/ops_check.h"

enum {
    MAX_TOP_K = 1024
};

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

/* ---- products -------------------------------------------------------------------------------- */

tsr_status tsr_ops_check_product(const tsr_device *dev, const tsr_product *product, int64_t n_rows,
                                 int64_t n_cols)
{
    const tsr_weight *w = product->weight;
    const bool grained = w->grain_cols > 0;

    TSR_TRY(tsr_ops_check_weight(dev, "matmul", w));
    if (w->n_cols != n_cols) {
        return tsr_fail(TSR_ERR_ARG, "matmul: the weight has %lld columns, x has %lld",
                        (long long)w->n_cols, (long long)n_cols);
    }
    if (w->grain_cols < 0 || (w->grain_cols % TSR_TILE_COLS != 0 && w->grain_cols < w->n_cols)) {
        return tsr_fail(TSR_ERR_ARG,
                        "matmul: grains of %lld columns of %lld; a multiple of %d or all",
                        (long long)w->grain_cols, (long long)w->n_cols, TSR_TILE_COLS);
    }
    TSR_TRY(tsr_ops_check_tensor(dev, "matmul", "out", product->out,
                                 grained ? TSR_DTYPE_F64 : TSR_DTYPE_F32, n_rows, w->n_rows));
    if (product->bias.data != NULL) {
        if (grained) {
            return tsr_fail(TSR_ERR_ARG, "matmul: a bias on sums that are not whole yet");
        }
        TSR_TRY(tsr_ops_check_tensor(dev, "matmul", "bias", product->bias, TSR_DTYPE_F32, 1,
                                     w->n_rows));
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
    TSR_TRY(tsr_ops_check_tensor(dev, "matmul", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    for (int p = 0; p < n_products; p++) {
        TSR_TRY(tsr_ops_check_product(dev, &products[p], x.n_rows, x.n_cols));
    }
    if (x.n_rows == 0) {
        return TSR_OK;
    }
    return dev->backend->matmul(dev, products, n_products, x, activations);
}

/* ---- attention ------------------------------------------------------------------------------- */

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
    if (kv->block_bytes % sizeof(float) != 0) {
        return tsr_fail(TSR_ERR_ARG, "%s: blocks of %zu bytes do not hold whole elements", op,
                        kv->block_bytes);
    }
    if (kv->pool == NULL && kv->host_pool == NULL && layout->n_kv_heads > 0) {
        return tsr_fail(TSR_ERR_ARG, "%s: the cache has no memory", op);
    }
    if (tsr_kv_layout_is_centred(layout) &&
        (kv->drift == NULL || kv->drift->key_dim != layout->key_dim)) {
        return tsr_fail(TSR_ERR_ARG, "%s: nothing says how keys of %d in %s change with positions",
                        op, layout->key_dim, tsr_kv_type_name(layout->type));
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
    TSR_TRY(
        tsr_ops_check_tensor(dev, op, "row_start", batch->row_start, TSR_DTYPE_I32, 1, n_seqs + 1));
    TSR_TRY(tsr_ops_check_tensor(dev, op, "first_pos", batch->first_pos, TSR_DTYPE_I32, 1, n_seqs));
    TSR_TRY(tsr_ops_check_tensor(dev, op, "lanes", batch->lanes, TSR_DTYPE_I32, 1, n_seqs));
    TSR_TRY(tsr_ops_check_tensor(dev, op, "tables", batch->tables, TSR_DTYPE_I32, TSR_OPS_ANY,
                                 TSR_OPS_ANY));
    if (batch->longest < 1 || batch->longest > INT_MAX ||
        batch->longest > batch->tables.n_cols * layout->block_tokens) {
        return tsr_fail(TSR_ERR_ARG, "%s: a sequence of %lld tokens in tables of %lld blocks of %d",
                        op, (long long)batch->longest, (long long)batch->tables.n_cols,
                        layout->block_tokens);
    }
    return TSR_OK;
}

static tsr_status check_write(const tsr_device *dev, const char *op, const tsr_kv_view *kv,
                              tsr_tensor k, tsr_tensor v, const tsr_batch *batch)
{
    const tsr_kv_layout *layout = kv->layout;
    const int64_t n_heads = layout->n_kv_heads;

    TSR_TRY(check_kv(op, kv));
    TSR_TRY(tsr_ops_check_tensor(dev, op, "k", k, TSR_DTYPE_F32, TSR_OPS_ANY,
                                 n_heads * layout->key_dim));
    if (layout->latent) {
        if (v.data != NULL) {
            return tsr_fail(TSR_ERR_ARG, "%s: values beside latent keys", op);
        }
    } else {
        TSR_TRY(tsr_ops_check_tensor(dev, op, "v", v, TSR_DTYPE_F32, k.n_rows,
                                     n_heads * layout->value_dim));
    }
    TSR_TRY(check_batch(dev, op, batch, layout, k.n_rows));
    return TSR_OK;
}

tsr_status tsr_kv_write(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor k, tsr_tensor v,
                        const tsr_batch *batch)
{
    TSR_TRY(check_write(dev, "kv_write", kv, k, v, batch));
    if (tsr_ops_check_empty(k)) {
        return TSR_OK;
    }
    return dev->backend->kv_write(dev, kv, k, v, batch);
}

tsr_status tsr_rope_write(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor q, tsr_tensor k,
                          tsr_tensor v, tsr_tensor angles, int first, tsr_rope_pairs pairs,
                          const tsr_batch *batch)
{
    TSR_TRY(check_write(dev, "rope_write", kv, k, v, batch));
    TSR_TRY(tsr_ops_check_rope(dev, q, angles, kv->layout->key_dim, first, pairs));
    TSR_TRY(tsr_ops_check_rope(dev, k, angles, kv->layout->key_dim, first, pairs));
    if (tsr_ops_check_empty(q) || tsr_ops_check_empty(k) || tsr_ops_check_empty(angles)) {
        TSR_TRY(tsr_rope(dev, q, angles, kv->layout->key_dim, first, pairs));
        TSR_TRY(tsr_rope(dev, k, angles, kv->layout->key_dim, first, pairs));
        return tsr_kv_write(dev, kv, k, v, batch);
    }
    return dev->backend->rope_write(dev, kv, q, k, v, angles, first, pairs, batch);
}

/* What is asked of attention can be asked, and the heads are there. */
static tsr_status check_attention(const tsr_device *dev, const char *op,
                                  const tsr_kv_layout *layout, const tsr_attention_shape *shape)
{
    if (shape->n_heads < 0 || shape->group < 1 || shape->first_head < 0 ||
        shape->first_head >= shape->group) {
        return tsr_fail(TSR_ERR_ARG,
                        "%s: %d heads in groups of %d, the first is number %d of its group", op,
                        shape->n_heads, shape->group, shape->first_head);
    }
    if ((shape->first_head + (int64_t)shape->n_heads + shape->group - 1) / shape->group >
            layout->n_kv_heads &&
        shape->n_heads > 0) {
        return tsr_fail(TSR_ERR_ARG,
                        "%s: %d heads in groups of %d from %d on read more than %d kv heads", op,
                        shape->n_heads, shape->group, shape->first_head, layout->n_kv_heads);
    }
    if (!(shape->softcap >= 0 && shape->softcap < INFINITY)) {
        return tsr_fail(TSR_ERR_ARG, "%s: a soft cap of %g", op, (double)shape->softcap);
    }
    if (shape->window < 0 || shape->stride < 0 || shape->local < 0 ||
        (shape->local > 0 && shape->stride == 0)) {
        return tsr_fail(
            TSR_ERR_ARG, "%s: a window of %lld, a stride of %lld and %lld local positions", op,
            (long long)shape->window, (long long)shape->stride, (long long)shape->local);
    }
    if (shape->stride > 0 && !layout->by_token) {
        return tsr_fail(TSR_ERR_ARG, "%s: a stride of %lld over keys that do not lie by token", op,
                        (long long)shape->stride);
    }
    if (!(shape->slopes_scale >= 0) || (shape->slopes_scale > 0 && shape->softcap > 0)) {
        return tsr_fail(TSR_ERR_ARG, "%s: slopes scaled by %g and a soft cap of %g", op,
                        (double)shape->slopes_scale, (double)shape->softcap);
    }
    if (shape->slopes.data != NULL) {
        TSR_TRY(tsr_ops_check_tensor(dev, op, "slopes", shape->slopes, TSR_DTYPE_F32, 1,
                                     shape->n_heads));
    }
    if (shape->sinks.data != NULL) {
        TSR_TRY(
            tsr_ops_check_tensor(dev, op, "sinks", shape->sinks, TSR_DTYPE_F32, 1, shape->n_heads));
    }
    return TSR_OK;
}

tsr_status tsr_attention(tsr_device *dev, tsr_tensor out, tsr_tensor q, const tsr_kv_view *kv,
                         const tsr_batch *batch, const tsr_attention_shape *shape)
{
    const tsr_kv_layout *layout = kv->layout;
    const int64_t n_heads = shape->n_heads;

    TSR_TRY(check_kv("attention", kv));
    TSR_TRY(check_attention(dev, "attention", layout, shape));
    TSR_TRY(tsr_ops_check_tensor(dev, "attention", "q", q, TSR_DTYPE_F32, TSR_OPS_ANY,
                                 n_heads * layout->key_dim));
    TSR_TRY(tsr_ops_check_tensor(dev, "attention", "out", out, TSR_DTYPE_F32, q.n_rows,
                                 n_heads * layout->value_dim));
    TSR_TRY(check_batch(dev, "attention", batch, layout, q.n_rows));
    if (tsr_ops_check_empty(q)) {
        return TSR_OK;
    }
    return dev->backend->attention(dev, out, q, kv, batch, shape);
}

static tsr_status check_piece(const tsr_device *dev, const char *op,
                              const tsr_attention_piece *piece, int64_t n_rows, int64_t n_columns,
                              int64_t value_dim)
{
    TSR_TRY(
        tsr_ops_check_tensor(dev, op, "o", piece->o, TSR_DTYPE_F32, n_rows, n_columns * value_dim));
    TSR_TRY(tsr_ops_check_tensor(dev, op, "m", piece->m, TSR_DTYPE_F32, n_rows, n_columns));
    return tsr_ops_check_tensor(dev, op, "l", piece->l, TSR_DTYPE_F32, n_rows, n_columns);
}

tsr_status tsr_attention_part(tsr_device *dev, const tsr_attention_piece *piece, tsr_tensor q,
                              const tsr_kv_view *kv, const tsr_batch *batch,
                              const tsr_attention_shape *shape, int64_t first_run, int64_t n_runs)
{
    const tsr_kv_layout *layout = kv->layout;

    TSR_TRY(check_kv("attention_part", kv));
    TSR_TRY(check_attention(dev, "attention_part", layout, shape));
    if (first_run < 0 || n_runs < 0 || first_run > INT_MAX || n_runs > INT_MAX) {
        return tsr_fail(TSR_ERR_ARG, "attention_part: %lld runs from %lld on", (long long)n_runs,
                        (long long)first_run);
    }
    TSR_TRY(tsr_ops_check_tensor(dev, "attention_part", "q", q, TSR_DTYPE_F32, TSR_OPS_ANY,
                                 (int64_t)shape->n_heads * layout->key_dim));
    TSR_TRY(check_piece(dev, "attention_part", piece, q.n_rows, n_runs * shape->n_heads,
                        layout->value_dim));
    TSR_TRY(check_batch(dev, "attention_part", batch, layout, q.n_rows));
    if (tsr_ops_check_empty(q) || n_runs == 0) {
        return TSR_OK;
    }
    return dev->backend->attention_part(dev, piece, q, kv, batch, shape, first_run, n_runs);
}

tsr_status tsr_attention_merge(tsr_device *dev, tsr_tensor out, const tsr_attention_piece *pieces,
                               int n_pieces, const tsr_kv_layout *layout,
                               const tsr_attention_shape *shape)
{
    TSR_TRY(tsr_kv_layout_check(layout));
    TSR_TRY(check_attention(dev, "attention_merge", layout, shape));
    TSR_TRY(tsr_ops_check_tensor(dev, "attention_merge", "out", out, TSR_DTYPE_F32, TSR_OPS_ANY,
                                 (int64_t)shape->n_heads * layout->value_dim));
    if (n_pieces < 1) {
        return tsr_fail(TSR_ERR_ARG, "attention_merge: %d pieces", n_pieces);
    }
    if (tsr_ops_check_empty(out)) {
        return TSR_OK;
    }
    for (int i = 0; i < n_pieces; i++) {
        const int64_t n_columns = pieces[i].l.n_cols;

        if (n_columns % shape->n_heads != 0) {
            return tsr_fail(TSR_ERR_ARG, "attention_merge: %lld columns of runs of %d heads",
                            (long long)n_columns, shape->n_heads);
        }
        TSR_TRY(check_piece(dev, "attention_merge", &pieces[i], out.n_rows, n_columns,
                            layout->value_dim));
    }
    return dev->backend->attention_merge(dev, out, pieces, n_pieces, layout, shape);
}

/* ---- the end --------------------------------------------------------------------------------- */

tsr_status tsr_gather_rows(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor rows)
{
    TSR_TRY(
        tsr_ops_check_tensor(dev, "gather_rows", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, "gather_rows", "rows", rows, TSR_DTYPE_I32, 1, TSR_OPS_ANY));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "gather_rows", "out", out, TSR_DTYPE_F32, rows.n_cols, x.n_cols));
    if (tsr_ops_check_empty(out)) {
        return TSR_OK;
    }
    return dev->backend->gather_rows(dev, out, x, rows);
}

tsr_status tsr_adjust_logits(tsr_device *dev, tsr_tensor logits, tsr_tensor before, tsr_tensor rows,
                             tsr_tensor ids, tsr_tensor factors, tsr_tensor adds, int64_t first_id)
{
    const int64_t n = rows.n_cols;

    TSR_TRY(tsr_ops_check_tensor(dev, "adjust_logits", "logits", logits, TSR_DTYPE_F32, TSR_OPS_ANY,
                                 TSR_OPS_ANY));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "adjust_logits", "rows", rows, TSR_DTYPE_I32, 1, TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, "adjust_logits", "ids", ids, TSR_DTYPE_I32, 1, n));
    TSR_TRY(tsr_ops_check_tensor(dev, "adjust_logits", "factors", factors, TSR_DTYPE_F32, 1, n));
    TSR_TRY(tsr_ops_check_tensor(dev, "adjust_logits", "adds", adds, TSR_DTYPE_F32, 1, n));
    TSR_TRY(tsr_ops_check_tensor(dev, "adjust_logits", "before", before, TSR_DTYPE_F32, 1, n));
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

    TSR_TRY(tsr_ops_check_tensor(dev, "top_k", "logits", logits, TSR_DTYPE_F32, TSR_OPS_ANY,
                                 TSR_OPS_ANY));
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
    TSR_TRY(tsr_ops_check_tensor(dev, "top_k", "ids", ids, TSR_DTYPE_I32, n_rows, TSR_OPS_ANY));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "top_k", "values", values, TSR_DTYPE_F32, n_rows, ids.n_cols));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "top_k", "masses", masses, TSR_DTYPE_F32, n_rows,
                             2 * (logits.n_cols / unit_cols + (logits.n_cols % unit_cols != 0))));
    TSR_TRY(tsr_ops_check_tensor(dev, "top_k", "sharpness", sharpness, TSR_DTYPE_F32, 1, n_rows));
    if (n_rows == 0) {
        return TSR_OK;
    }
    return dev->backend->top_k(dev, ids, values, masses, logits, sharpness, first_id, unit_cols);
}
