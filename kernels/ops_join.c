#include "kernels/ops_check.h"

static tsr_status check_codes(const char *op, tsr_codes codes, int64_t n_rows, int64_t n_cols)
{
    return codes.data != NULL && codes.n_rows == n_rows && codes.n_cols == n_cols &&
                   n_rows <= TSR_FEW_ROWS
               ? TSR_OK
               : tsr_fail(TSR_ERR_ARG, "%s: codes are [%lld, %lld], not [%lld, %lld] of %d at most",
                          op, (long long)codes.n_rows, (long long)codes.n_cols, (long long)n_rows,
                          (long long)n_cols, TSR_FEW_ROWS);
}

tsr_status tsr_join(tsr_device *dev, tsr_tensor x, const tsr_joining *j)
{
    const struct {
        const char *name;
        tsr_tensor t;
    } vectors[] = {{"bias", j->bias},
                   {"post_weight", j->post_weight},
                   {"post_bias", j->post_bias},
                   {"next_weight", j->next_weight},
                   {"next_bias", j->next_bias}};
    const bool needs_spare = j->n_parts > 0 && (j->post_weight.data != NULL || j->scale != 1);

    TSR_TRY(tsr_ops_check_tensor(dev, "join", "x", x, TSR_DTYPE_F32, TSR_OPS_ANY, TSR_OPS_ANY));
    if (j->n_parts < 0 || j->n_parts > TSR_MAX_PARTS) {
        return tsr_fail(TSR_ERR_ARG, "join: %d parts; up to %d are possible", j->n_parts,
                        TSR_MAX_PARTS);
    }
    for (int p = 0; p < j->n_parts; p++) {
        TSR_TRY(tsr_ops_check_tensor(dev, "join", "a part", j->parts[p], TSR_DTYPE_F64, x.n_rows,
                                     x.n_cols));
    }
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        TSR_TRY(tsr_ops_check_optional(dev, "join", vectors[i].name, vectors[i].t, TSR_DTYPE_F32, 1,
                                       x.n_cols));
    }
    TSR_TRY(tsr_ops_check_optional(dev, "join", "out", j->out, TSR_DTYPE_F32, x.n_rows, x.n_cols));
    if (needs_spare) {
        TSR_TRY(tsr_ops_check_tensor(dev, "join", "spare", j->spare, TSR_DTYPE_F32, x.n_rows,
                                     x.n_cols));
    }
    if (j->codes.data != NULL) {
        TSR_TRY(check_codes("join", j->codes, x.n_rows, j->out.data == NULL ? -1 : x.n_cols));
    }
    return tsr_ops_check_empty(x) ? TSR_OK : dev->backend->join(dev, x, j);
}

size_t tsr_ops_codes_bytes(int64_t n_rows, int64_t n_cols)
{
    const size_t n_groups = (size_t)((n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS);

    // A byte a column and four floats a group; kernels read up to 16 rows behind the last.
    return (size_t)(n_rows + 16) * n_groups * (TSR_TILE_COLS + 4 * sizeof(float));
}

bool tsr_matmul_takes_codes(const tsr_device *dev, const tsr_product *products, int n_products,
                            int64_t n_rows, tsr_activations activations)
{
    bool takes = dev->kind == TSR_DEVICE_CUDA && activations == TSR_ACTIVATIONS_INT8 &&
                 n_rows <= TSR_FEW_ROWS;

    for (int p = 0; p < n_products; p++) {
        takes = takes && tsr_weight_is_quantised(products[p].weight->format);
    }
    return takes;
}

tsr_status tsr_matmul_codes(tsr_device *dev, const tsr_product *products, int n_products,
                            tsr_codes x)
{
    if (n_products < 1 || n_products > TSR_MAX_PRODUCTS) {
        return tsr_fail(TSR_ERR_ARG, "matmul_codes: %d products; 1 to %d are possible", n_products,
                        TSR_MAX_PRODUCTS);
    }
    for (int p = 0; p < n_products; p++) {
        const tsr_weight *w = products[p].weight;

        TSR_TRY(tsr_ops_check_product(dev, &products[p], x.n_rows, x.n_cols));
        if (!tsr_weight_is_quantised(w->format)) {
            return tsr_fail(TSR_ERR_ARG, "matmul_codes: weights of %s have no codes",
                            tsr_weight_format_name(w->format));
        }
    }
    if (x.n_rows == 0) {
        return TSR_OK;
    }
    TSR_TRY(check_codes("matmul_codes", x, x.n_rows, x.n_cols));
    return dev->backend->matmul_codes(dev, products, n_products, x);
}

tsr_status tsr_activate_codes(tsr_device *dev, tsr_codes codes, tsr_tensor out, tsr_tensor gate,
                              tsr_tensor up, tsr_activation activation)
{
    TSR_TRY(tsr_ops_check_activate(dev, out, gate, up, (tsr_tensor){0}, activation));
    if (tsr_ops_check_empty(out)) {
        return TSR_OK;
    }
    TSR_TRY(check_codes("activate_codes", codes, out.n_rows, out.n_cols));
    return dev->backend->activate_codes(dev, codes, out, gate, up, activation);
}
