#include "kernels/backend.h"

tsr_status tsr_rope_write_cpu(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor q, tsr_tensor k,
                              tsr_tensor v, tsr_tensor angles, int first, tsr_rope_pairs pairs,
                              const tsr_batch *batch)
{
    const int head_dim = kv->layout->key_dim;

    TSR_TRY(tsr_rope_cpu(dev, q, angles, head_dim, first, pairs));
    TSR_TRY(tsr_rope_cpu(dev, k, angles, head_dim, first, pairs));
    return tsr_kv_write_cpu(dev, kv, k, v, batch);
}
