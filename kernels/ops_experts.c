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
