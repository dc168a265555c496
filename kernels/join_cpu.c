#include "kernels/backend.h"

/*
 * On a CPU one after another; a backend that can do it at once falls back on this where it cannot.
 * Rows are rounded where they are multiplied, by the thread that does it.
 */

static tsr_status norm(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight,
                       tsr_tensor bias, const tsr_joining *j)
{
    return j->is_layernorm ? dev->backend->layernorm(dev, out, x, weight, bias, j->eps)
                           : dev->backend->rmsnorm(dev, out, x, weight, j->eps);
}

tsr_status tsr_join_cpu(tsr_device *dev, tsr_tensor x, const tsr_joining *j)
{
    const tsr_backend *b = dev->backend;
    const int dim = (int)x.n_cols;

    if (j->n_parts > 0 && j->post_weight.data == NULL && j->scale == 1) {
        TSR_TRY(b->add_sums(dev, x, j->parts, j->n_parts, j->bias));
    } else if (j->n_parts > 0) {
        TSR_TRY(b->narrow(dev, j->spare, j->parts, j->n_parts, j->bias));
        if (j->post_weight.data != NULL) {
            TSR_TRY(norm(dev, j->spare, j->spare, j->post_weight, j->post_bias, j));
        }
        TSR_TRY(b->add_scaled(dev, x, j->spare, j->scale));
    }
    if (j->out.data == NULL) {
        return TSR_OK;
    }
    return j->next_weight.data != NULL ? norm(dev, j->out, x, j->next_weight, j->next_bias, j)
                                       : b->copy_heads(dev, j->out, dim, 0, x, dim, 0, dim);
}

static tsr_status refuse(const char *op)
{
    return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: a CPU rounds rows where it multiplies them", op);
}

tsr_status tsr_matmul_codes_cpu(tsr_device *dev, const tsr_product *products, int n_products,
                                tsr_codes x)
{
    (void)dev, (void)products, (void)n_products, (void)x;
    return refuse("matmul_codes");
}

tsr_status tsr_activate_codes_cpu(tsr_device *dev, tsr_codes codes, tsr_tensor out, tsr_tensor gate,
                                  tsr_tensor up, tsr_activation activation)
{
    (void)dev, (void)codes, (void)out, (void)gate, (void)up, (void)activation;
    return refuse("activate_codes");
}
