/* Stands in until the products are merged. */
#include <string.h>

#include "kernels/backend.h"

tsr_status tsr_matmul_cpu(tsr_device *dev, const tsr_product *products, int n_products,
                          tsr_tensor x, tsr_activations activations)
{
    (void)dev, (void)products, (void)n_products, (void)x, (void)activations;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "matmul");
}
size_t tsr_matmul_cpu_scratch(int n_threads, const tsr_ops_limits *limits)
{
    (void)n_threads, (void)limits;
    return 0;
}
void tsr_weight_unpack_row(const tsr_weight *weight, int64_t row, float *out)
{
    for (int64_t c = 0; c < weight->n_cols; c++) {
        const int64_t tiles = (weight->n_cols + 31) / 32;
        out[c] = ((const float *)
                      weight->tiles)[(row / 16 * tiles + c / 32) * 512 + c % 32 * 16 + row % 16];
    }
}
