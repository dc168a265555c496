#include "kernels/ops_check.h"

tsr_status tsr_route(tsr_device *dev, tsr_tensor ids, tsr_tensor weights, tsr_tensor logits,
                     const tsr_routing *r)
{
    if (r->n_experts < 1 || r->n_experts > TSR_ROUTE_MOST || r->n_used < 1 ||
        r->n_used > r->n_experts || r->n_groups < 0 ||
        (r->n_groups > 0 && (r->n_experts % r->n_groups != 0 || r->n_groups_used < 1 ||
                             r->n_groups_used > r->n_groups))) {
        return tsr_fail(TSR_ERR_ARG, "route: %d of %d experts, %d of %d groups", r->n_used,
                        r->n_experts, r->n_groups_used, r->n_groups);
    }
    TSR_TRY(tsr_ops_check_tensor(dev, "route", "logits", logits, TSR_DTYPE_F32, TSR_OPS_ANY,
                                 r->n_experts));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "route", "ids", ids, TSR_DTYPE_I32, logits.n_rows, r->n_used));
    TSR_TRY(tsr_ops_check_tensor(dev, "route", "weights", weights, TSR_DTYPE_F32, logits.n_rows,
                                 r->n_used));
    if (logits.n_rows == 0) {
        return TSR_OK;
    }
    return dev->backend->route(dev, ids, weights, logits, r);
}

tsr_status tsr_clear(tsr_device *dev, tsr_tensor x)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "clear", "x", x, x.dtype, TSR_OPS_ANY, TSR_OPS_ANY));
    if (tsr_ops_check_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->clear(dev, x);
}

tsr_status tsr_scatter_sums(tsr_device *dev, tsr_tensor sums, tsr_tensor parts, tsr_tensor rows,
                            tsr_tensor weights, tsr_tensor bias)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "scatter_sums", "rows", rows, TSR_DTYPE_I32, 1, TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, "scatter_sums", "sums", sums, TSR_DTYPE_F64, TSR_OPS_ANY,
                                 TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, "scatter_sums", "parts", parts, TSR_DTYPE_F64, rows.n_cols,
                                 sums.n_cols));
    TSR_TRY(tsr_ops_check_tensor(dev, "scatter_sums", "weights", weights, TSR_DTYPE_F32, 1,
                                 rows.n_cols));
    TSR_TRY(
        tsr_ops_check_optional(dev, "scatter_sums", "bias", bias, TSR_DTYPE_F32, 1, sums.n_cols));
    if (tsr_ops_check_empty(parts)) {
        return TSR_OK;
    }
    return dev->backend->scatter_sums(dev, sums, parts, rows, weights, bias);
}

/* Where the choices of ids [n, n_used] went. */
static tsr_status check_places(const tsr_device *dev, const char *op, tsr_tensor places,
                               tsr_tensor weights, tsr_tensor ids)
{
    TSR_TRY(tsr_ops_check_tensor(dev, op, "ids", ids, TSR_DTYPE_I32, TSR_OPS_ANY, TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, op, "places", places, TSR_DTYPE_I32, ids.n_rows, ids.n_cols));
    return tsr_ops_check_tensor(dev, op, "weights", weights, TSR_DTYPE_F32, 1,
                                ids.n_rows * ids.n_cols);
}

tsr_status tsr_sort_experts(tsr_device *dev, tsr_tensor start, tsr_tensor rows, tsr_tensor weights,
                            tsr_tensor places, tsr_tensor ids, tsr_tensor chosen)
{
    TSR_TRY(check_places(dev, "sort_experts", places, weights, ids));
    TSR_TRY(tsr_ops_check_tensor(dev, "sort_experts", "chosen", chosen, TSR_DTYPE_F32, ids.n_rows,
                                 ids.n_cols));
    TSR_TRY(tsr_ops_check_tensor(dev, "sort_experts", "rows", rows, TSR_DTYPE_I32, 1,
                                 ids.n_rows * ids.n_cols));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "sort_experts", "start", start, TSR_DTYPE_I32, 1, TSR_OPS_ANY));
    if (start.n_cols < 2) {
        return tsr_fail(TSR_ERR_ARG, "sort_experts: no room for an expert's end");
    }
    return dev->backend->sort_experts(dev, start, rows, weights, places, ids, chosen);
}

static tsr_status check_expert_product(const tsr_device *dev, const tsr_expert_product *product,
                                       int64_t n_experts, tsr_tensor x)
{
    const tsr_weight *w = &product->weights->first;
    const bool grained = w->grain_cols > 0;

    TSR_TRY(tsr_ops_check_weight(dev, "matmul_experts", w));
    if (w->n_cols != x.n_cols || tsr_weight_is_mixed(w->format)) {
        return tsr_fail(
            TSR_ERR_ARG, "matmul_experts: a weight of %lld columns of format %s, x has %lld",
            (long long)w->n_cols, tsr_weight_format_name(w->format), (long long)x.n_cols);
    }
    if (grained && product->weights->bias.data != NULL) {
        return tsr_fail(TSR_ERR_ARG, "matmul_experts: a bias on sums that are not whole yet");
    }
    TSR_TRY(tsr_ops_check_optional(dev, "matmul_experts", "bias", product->weights->bias,
                                   TSR_DTYPE_F32, n_experts, w->n_rows));
    return tsr_ops_check_tensor(dev, "matmul_experts", "out", product->out,
                                grained ? TSR_DTYPE_F64 : TSR_DTYPE_F32, x.n_rows, w->n_rows);
}

tsr_status tsr_matmul_experts(tsr_device *dev, const tsr_expert_product *products, int n_products,
                              tsr_tensor x, tsr_tensor start, int64_t most_rows,
                              tsr_activations activations)
{
    if (n_products < 1 || n_products > TSR_MAX_PRODUCTS || most_rows < 0 ||
        (activations != TSR_ACTIVATIONS_INT8 && activations != TSR_ACTIVATIONS_F32)) {
        return tsr_fail(TSR_ERR_ARG, "matmul_experts: %d products of up to %lld rows, %d",
                        n_products, (long long)most_rows, (int)activations);
    }
    TSR_TRY(tsr_ops_check_tensor(dev, "matmul_experts", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY,
                                 TSR_OPS_ANY));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "matmul_experts", "start", start, TSR_DTYPE_I32, 1, TSR_OPS_ANY));
    for (int p = 0; p < n_products; p++) {
        TSR_TRY(check_expert_product(dev, &products[p], start.n_cols - 1, x));
    }
    if (x.n_rows == 0 || most_rows == 0 || start.n_cols < 2) {
        return TSR_OK;
    }
    return dev->backend->matmul_experts(dev, products, n_products, x, start, most_rows,
                                        activations);
}

tsr_status tsr_add_experts(tsr_device *dev, tsr_tensor sums, tsr_tensor parts, tsr_tensor ids,
                           tsr_tensor places, tsr_tensor weights, tsr_tensor bias, int64_t first,
                           int64_t n_here)
{
    TSR_TRY(check_places(dev, "add_experts", places, weights, ids));
    TSR_TRY(tsr_ops_check_tensor(dev, "add_experts", "sums", sums, TSR_DTYPE_F64, ids.n_rows,
                                 TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, "add_experts", "parts", parts, TSR_DTYPE_F64,
                                 ids.n_rows * ids.n_cols, sums.n_cols));
    TSR_TRY(tsr_ops_check_optional(dev, "add_experts", "bias", bias, TSR_DTYPE_F32, n_here,
                                   sums.n_cols));
    if (tsr_ops_check_empty(sums) || n_here == 0) {
        return TSR_OK;
    }
    return dev->backend->add_experts(dev, sums, parts, ids, places, weights, bias, first, n_here);
}
