#include "kernels/ops_check.h"

/* ---- around the layers ----------------------------------------------------------------------- */

tsr_status tsr_embed(tsr_device *dev, tsr_tensor sums, tsr_tensor ids, const tsr_weight *table,
                     int64_t first_id, bool add)
{
    TSR_TRY(tsr_ops_check_weight(dev, "embed", table));
    TSR_TRY(tsr_ops_check_tensor(dev, "embed", "ids", ids, TSR_DTYPE_I32, 1, TSR_OPS_ANY));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "embed", "sums", sums, TSR_DTYPE_F64, ids.n_cols, table->n_cols));
    if (tsr_ops_check_empty(sums)) {
        return TSR_OK;
    }
    return dev->backend->embed(dev, sums, ids, table, first_id, add);
}

static tsr_status check_parts(const tsr_device *dev, const char *op, int64_t n_rows, int64_t n_cols,
                              const tsr_tensor *parts, int n_parts)
{
    if (n_parts < 1 || n_parts > TSR_MAX_PARTS) {
        return tsr_fail(TSR_ERR_ARG, "%s: %d parts; 1 to %d are possible", op, n_parts,
                        TSR_MAX_PARTS);
    }
    for (int p = 0; p < n_parts; p++) {
        TSR_TRY(tsr_ops_check_tensor(dev, op, "a part", parts[p], TSR_DTYPE_F64, n_rows, n_cols));
    }
    return TSR_OK;
}

tsr_status tsr_narrow(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts, int n_parts,
                      tsr_tensor bias)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "narrow", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    TSR_TRY(check_parts(dev, "narrow", x.n_rows, x.n_cols, parts, n_parts));
    TSR_TRY(tsr_ops_check_optional(dev, "narrow", "bias", bias, TSR_DTYPE_F32, 1, x.n_cols));
    if (tsr_ops_check_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->narrow(dev, x, parts, n_parts, bias);
}

tsr_status tsr_add_sums(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts, int n_parts,
                        tsr_tensor bias)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "add_sums", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    TSR_TRY(check_parts(dev, "add_sums", x.n_rows, x.n_cols, parts, n_parts));
    TSR_TRY(tsr_ops_check_optional(dev, "add_sums", "bias", bias, TSR_DTYPE_F32, 1, x.n_cols));
    if (tsr_ops_check_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->add_sums(dev, x, parts, n_parts, bias);
}

tsr_status tsr_add_scaled(tsr_device *dev, tsr_tensor x, tsr_tensor y, float factor)
{
    TSR_TRY(
        tsr_ops_check_tensor(dev, "add_scaled", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, "add_scaled", "y", y, TSR_DTYPE_F32, x.n_rows, x.n_cols));
    if (tsr_ops_check_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->add_scaled(dev, x, y, factor);
}

tsr_status tsr_scale(tsr_device *dev, tsr_tensor x, float factor, float cap)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "scale", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    if (!(cap >= 0)) {
        return tsr_fail(TSR_ERR_ARG, "scale: a cap of %g", (double)cap);
    }
    if (tsr_ops_check_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->scale(dev, x, factor, cap);
}

tsr_status tsr_clip(tsr_device *dev, tsr_tensor x, float limit)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "clip", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    if (!(limit > 0)) {
        return tsr_fail(TSR_ERR_ARG, "clip: a limit of %g", (double)limit);
    }
    if (tsr_ops_check_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->clip(dev, x, limit);
}

/* Rows of a norm's weight: one for all rows of x, or one for each of p rows that follow one
 * another.
 */
static tsr_status check_norm(const tsr_device *dev, const char *op, tsr_tensor out, tsr_tensor x,
                             tsr_tensor weight)
{
    TSR_TRY(tsr_ops_check_tensor(dev, op, "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, op, "out", out, TSR_DTYPE_F32, x.n_rows, x.n_cols));
    TSR_TRY(tsr_ops_check_tensor(dev, op, "weight", weight, TSR_DTYPE_F32, TSR_OPS_ANY, x.n_cols));
    if (weight.n_rows < 1 || x.n_rows % weight.n_rows != 0) {
        return tsr_fail(TSR_ERR_ARG, "%s: weight has %lld rows, x has %lld", op,
                        (long long)weight.n_rows, (long long)x.n_rows);
    }
    return TSR_OK;
}

tsr_status tsr_rmsnorm(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight, float eps)
{
    TSR_TRY(check_norm(dev, "rmsnorm", out, x, weight));
    if (tsr_ops_check_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->rmsnorm(dev, out, x, weight, eps);
}

tsr_status tsr_layernorm(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight,
                         tsr_tensor bias, float eps)
{
    TSR_TRY(check_norm(dev, "layernorm", out, x, weight));
    TSR_TRY(tsr_ops_check_optional(dev, "layernorm", "bias", bias, TSR_DTYPE_F32, weight.n_rows,
                                   x.n_cols));
    if (tsr_ops_check_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->layernorm(dev, out, x, weight, bias, eps);
}

static tsr_status check_heads(const char *op, int64_t n_cols, int head_dim)
{
    return head_dim >= 1 && n_cols % head_dim == 0
               ? TSR_OK
               : tsr_fail(TSR_ERR_ARG, "%s: x has %lld columns, which are not heads of %d", op,
                          (long long)n_cols, head_dim);
}

tsr_status tsr_square_sums(tsr_device *dev, tsr_tensor sums, tsr_tensor x, int head_dim)
{
    TSR_TRY(
        tsr_ops_check_tensor(dev, "square_sums", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, "square_sums", "sums", sums, TSR_DTYPE_F64, x.n_rows, 1));
    TSR_TRY(check_heads("square_sums", x.n_cols, head_dim));
    if (x.n_rows == 0) {
        return TSR_OK;
    }
    return dev->backend->square_sums(dev, sums, x, head_dim);
}

tsr_status tsr_rmsnorm_shared(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts, int n_parts,
                              tsr_tensor weight, int64_t n_whole, float eps)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "rmsnorm_shared", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY,
                                 TSR_OPS_ANY));
    TSR_TRY(check_parts(dev, "rmsnorm_shared", x.n_rows, 1, parts, n_parts));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "rmsnorm_shared", "weight", weight, TSR_DTYPE_F32, 1, x.n_cols));
    if (n_whole < x.n_cols) {
        return tsr_fail(TSR_ERR_ARG, "rmsnorm_shared: %lld of %lld columns are here",
                        (long long)x.n_cols, (long long)n_whole);
    }
    if (tsr_ops_check_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->rmsnorm_shared(dev, x, parts, n_parts, weight, n_whole, eps);
}

tsr_status tsr_ops_check_activate(const tsr_device *dev, tsr_tensor out, tsr_tensor gate,
                                  tsr_tensor up, tsr_tensor weights, tsr_activation activation)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "activate", "gate", gate, TSR_DTYPE_F32, TSR_OPS_ANY,
                                 TSR_OPS_ANY));
    TSR_TRY(
        tsr_ops_check_optional(dev, "activate", "up", up, TSR_DTYPE_F32, gate.n_rows, gate.n_cols));
    TSR_TRY(
        tsr_ops_check_optional(dev, "activate", "weights", weights, TSR_DTYPE_F32, 1, gate.n_rows));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "activate", "out", out, TSR_DTYPE_F32, gate.n_rows, gate.n_cols));
    if (activation < 0 || activation >= TSR_ACTIVATION_COUNT ||
        (activation == TSR_ACTIVATION_SWIGLU_CLAMPED && up.data == NULL &&
         !tsr_ops_check_empty(gate))) {
        return tsr_fail(TSR_ERR_ARG, "activate: no activation %d %s a second factor",
                        (int)activation, up.data == NULL ? "without" : "with");
    }
    return TSR_OK;
}

tsr_status tsr_activate(tsr_device *dev, tsr_tensor out, tsr_tensor gate, tsr_tensor up,
                        tsr_tensor weights, tsr_activation activation)
{
    TSR_TRY(tsr_ops_check_activate(dev, out, gate, up, weights, activation));
    if (tsr_ops_check_empty(out)) {
        return TSR_OK;
    }
    return dev->backend->activate(dev, out, gate, up, weights, activation);
}

tsr_status tsr_sigmoid(tsr_device *dev, tsr_tensor x)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "sigmoid", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, 1));
    if (tsr_ops_check_empty(x)) {
        return TSR_OK;
    }
    return dev->backend->sigmoid(dev, x);
}

/* ---- heads ----------------------------------------------------------------------------------- */

tsr_status tsr_rope_angles(tsr_device *dev, tsr_tensor angles, tsr_tensor positions,
                           tsr_tensor frequencies, float scale)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "rope_angles", "positions", positions, TSR_DTYPE_I32, 1,
                                 TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, "rope_angles", "frequencies", frequencies, TSR_DTYPE_F64, 1,
                                 TSR_OPS_ANY));
    TSR_TRY(tsr_ops_check_tensor(dev, "rope_angles", "angles", angles, TSR_DTYPE_F32,
                                 positions.n_cols, 2 * frequencies.n_cols));
    if (tsr_ops_check_empty(angles)) {
        return TSR_OK;
    }
    return dev->backend->rope_angles(dev, angles, positions, frequencies, scale);
}

tsr_status tsr_ops_check_rope(const tsr_device *dev, tsr_tensor x, tsr_tensor angles, int head_dim,
                              int first, tsr_rope_pairs pairs)
{
    TSR_TRY(tsr_ops_check_tensor(dev, "rope", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    TSR_TRY(
        tsr_ops_check_tensor(dev, "rope", "angles", angles, TSR_DTYPE_F32, x.n_rows, TSR_OPS_ANY));
    TSR_TRY(check_heads("rope", x.n_cols, head_dim));
    if (angles.n_cols % 2 != 0 || first < 0 || angles.n_cols + first > head_dim) {
        return tsr_fail(TSR_ERR_ARG, "rope: %lld dimensions from %d on turn in heads of %d",
                        (long long)angles.n_cols, first, head_dim);
    }
    if (pairs != TSR_ROPE_INTERLEAVED && pairs != TSR_ROPE_HALVES) {
        return tsr_fail(TSR_ERR_ARG, "rope: no pairs %d", (int)pairs);
    }
    return TSR_OK;
}

tsr_status tsr_rope(tsr_device *dev, tsr_tensor x, tsr_tensor angles, int head_dim, int first,
                    tsr_rope_pairs pairs)
{
    TSR_TRY(tsr_ops_check_rope(dev, x, angles, head_dim, first, pairs));
    if (tsr_ops_check_empty(x) || tsr_ops_check_empty(angles)) {
        return TSR_OK;
    }
    return dev->backend->rope(dev, x, angles, head_dim, first, pairs);
}

tsr_status tsr_copy_heads(tsr_device *dev, tsr_tensor out, int out_dim, int to, tsr_tensor x,
                          int x_dim, int from, int n)
{
    TSR_TRY(
        tsr_ops_check_tensor(dev, "copy_heads", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    TSR_TRY(check_heads("copy_heads", x.n_cols, x_dim));
    TSR_TRY(tsr_ops_check_tensor(dev, "copy_heads", "out", out, TSR_DTYPE_F32, x.n_rows,
                                 x.n_cols / x_dim * out_dim));
    if (n < 0 || to < 0 || from < 0 || to + n > out_dim || from + n > x_dim) {
        return tsr_fail(TSR_ERR_ARG, "copy_heads: %d dimensions from %d of %d to %d of %d", n, from,
                        x_dim, to, out_dim);
    }
    if (tsr_ops_check_empty(x) || n == 0) {
        return TSR_OK;
    }
    return dev->backend->copy_heads(dev, out, out_dim, to, x, x_dim, from, n);
}
