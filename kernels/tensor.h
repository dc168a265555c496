/*
 * kernels/tensor.h - a borrowed window of rows on device memory.
 */
#ifndef TSR_KERNELS_TENSOR_H
#define TSR_KERNELS_TENSOR_H

#include "kernels/device.h"
#include "kernels/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Elements [n_rows, n_cols]; row r starts at element r * stride. A vector has one row. Passed by
 * value. */
typedef struct tsr_tensor {
    void *data; /* NULL: not there (an optional operand) */
    tsr_dtype dtype;
    tsr_device_kind on;
    int64_t n_rows;
    int64_t n_cols;
    int64_t stride; /* >= n_cols */
} tsr_tensor;

static inline tsr_tensor tsr_tensor_of(void *data, tsr_dtype dtype, tsr_device_kind on,
                                       int64_t n_rows, int64_t n_cols)
{
    const tsr_tensor window = {data, dtype, on, n_rows, n_cols, n_cols};

    return window;
}

/* The first n_rows rows. */
static inline tsr_tensor tsr_tensor_rows(tsr_tensor whole, int64_t n_rows)
{
    whole.n_rows = n_rows;
    return whole;
}

#ifdef __cplusplus
}
#endif

#endif
