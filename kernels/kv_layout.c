#include "kernels/kv_layout.h"

enum {
    MAX_HEAD_DIM = 256
};

tsr_status tsr_kv_layout_check(const tsr_kv_layout *layout)
{
    if (layout->n_layers < 1 || layout->n_kv_heads < 0) {
        return tsr_fail(TSR_ERR_ARG, "kv layout: %d layers of %d kv heads", layout->n_layers,
                        layout->n_kv_heads);
    }
    if (layout->head_dim < 8 || layout->head_dim > MAX_HEAD_DIM || layout->head_dim % 8 != 0) {
        return tsr_fail(TSR_ERR_ARG, "kv layout: heads of %d; a multiple of 8 up to %d is needed",
                        layout->head_dim, MAX_HEAD_DIM);
    }
    if (layout->block_tokens != 16 && layout->block_tokens != 32 && layout->block_tokens != 64) {
        return tsr_fail(TSR_ERR_ARG, "kv layout: blocks of %d tokens; 16, 32 or 64 are possible",
                        layout->block_tokens);
    }
    if (layout->dtype != TSR_DTYPE_F32 && layout->dtype != TSR_DTYPE_F16 &&
        layout->dtype != TSR_DTYPE_BF16) {
        return tsr_fail(TSR_ERR_ARG,
                        "kv layout: elements of type %d; f32, f16 or bf16 are possible",
                        (int)layout->dtype);
    }
    return TSR_OK;
}
