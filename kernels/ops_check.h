/*
 * kernels/ops_check.h - how ops look at their operands before anything is computed. Private to the
 * room.
 */
#ifndef TSR_KERNELS_OPS_CHECK_H
#define TSR_KERNELS_OPS_CHECK_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_OPS_ANY = -1 /* a number of rows or columns that is not prescribed */
};

static inline bool tsr_ops_check_empty(tsr_tensor t)
{
    return t.n_rows == 0 || t.n_cols == 0;
}

/* Type, device, shape and memory of one operand. Errors: ARG. */
TSR_MUST_CHECK tsr_status tsr_ops_check_tensor(const tsr_device *dev, const char *op,
                                               const char *name, tsr_tensor t, tsr_dtype dtype,
                                               int64_t n_rows, int64_t n_cols);

/* The same of one that may be absent. */
TSR_MUST_CHECK tsr_status tsr_ops_check_optional(const tsr_device *dev, const char *op,
                                                 const char *name, tsr_tensor t, tsr_dtype dtype,
                                                 int64_t n_rows, int64_t n_cols);

TSR_MUST_CHECK tsr_status tsr_ops_check_weight(const tsr_device *dev, const char *op,
                                               const tsr_weight *w);

/* What tsr_matmul() asks of a product with x [n_rows, n_cols]. */
TSR_MUST_CHECK tsr_status tsr_ops_check_product(const tsr_device *dev, const tsr_product *product,
                                                int64_t n_rows, int64_t n_cols);

/* What tsr_activate() asks of its operands. */
TSR_MUST_CHECK tsr_status tsr_ops_check_activate(const tsr_device *dev, tsr_tensor out,
                                                 tsr_tensor gate, tsr_tensor up, tsr_tensor weights,
                                                 tsr_activation activation);

/* What tsr_rope() asks of its operands. */
TSR_MUST_CHECK tsr_status tsr_ops_check_rope(const tsr_device *dev, tsr_tensor x, tsr_tensor angles,
                                             int head_dim, int first, tsr_rope_pairs pairs);

#ifdef __cplusplus
}
#endif

#endif
