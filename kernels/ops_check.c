#include "kernels/ops_check.h"

tsr_status tsr_ops_check_tensor(const tsr_device *dev, const char *op, const char *name,
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
    if (n_rows != TSR_OPS_ANY && t.n_rows != n_rows) {
        return tsr_fail(TSR_ERR_ARG, "%s: %s has %lld rows; %lld are expected", op, name,
                        (long long)t.n_rows, (long long)n_rows);
    }
    if (n_cols != TSR_OPS_ANY && t.n_cols != n_cols) {
        return tsr_fail(TSR_ERR_ARG, "%s: %s has %lld columns; %lld are expected", op, name,
                        (long long)t.n_cols, (long long)n_cols);
    }
    if (t.data == NULL && !tsr_ops_check_empty(t)) {
        return tsr_fail(TSR_ERR_ARG, "%s: %s is [%lld, %lld] and has no memory", op, name,
                        (long long)t.n_rows, (long long)t.n_cols);
    }
    return TSR_OK;
}

tsr_status tsr_ops_check_optional(const tsr_device *dev, const char *op, const char *name,
                                  tsr_tensor t, tsr_dtype dtype, int64_t n_rows, int64_t n_cols)
{
    return t.data == NULL ? TSR_OK : tsr_ops_check_tensor(dev, op, name, t, dtype, n_rows, n_cols);
}

tsr_status tsr_ops_check_weight(const tsr_device *dev, const char *op, const tsr_weight *w)
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
    if (w->n_rows > 0 && w->n_cols > 0 && tsr_weight_is_mixed(w->format) &&
        (w->groups == NULL || w->on != TSR_DEVICE_CPU)) {
        return tsr_fail(TSR_ERR_ARG, "%s: a weight of format %s %s", op,
                        tsr_weight_format_name(w->format),
                        w->groups == NULL ? "without its groups" : "that is not the host's");
    }
    return TSR_OK;
}
