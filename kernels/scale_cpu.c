#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

#include <math.h>
#include <string.h>

typedef struct job {
    const tsr_row_loops *loops;
    tsr_tensor x, y;
    float factor, cap;
} job;

static void scale_rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        j->loops->scale(tsr_rows_cpu_f32(j->x, r), j->x.n_cols, j->factor, j->cap);
    }
}

tsr_status tsr_scale_cpu(tsr_device *dev, tsr_tensor x, float factor, float cap)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops), x, x, factor, cap};

    tsr_rows_cpu_run(dev, x.n_rows, cap > 0 ? x.n_cols : x.n_cols / 8, scale_rows, &j);
    return TSR_OK;
}

static void clip_rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        float *x = tsr_rows_cpu_f32(j->x, r);

        for (int64_t c = 0; c < j->x.n_cols; c++) {
            x[c] = x[c] > j->cap ? j->cap : x[c] < -j->cap ? -j->cap : x[c];
        }
    }
}

tsr_status tsr_clip_cpu(tsr_device *dev, tsr_tensor x, float limit)
{
    const job j = {.x = x, .cap = limit};

    tsr_rows_cpu_run(dev, x.n_rows, x.n_cols / 8, clip_rows, &j);
    return TSR_OK;
}

static void add_rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    (void)thread;
    for (int64_t r = first; r < end; r++) {
        j->loops->add_scaled(tsr_rows_cpu_f32(j->x, r), tsr_rows_cpu_f32(j->y, r), j->x.n_cols,
                             j->factor);
    }
}

tsr_status tsr_add_scaled_cpu(tsr_device *dev, tsr_tensor x, tsr_tensor y, float factor)
{
    const job j = {TSR_ISA_PICK(dev->isa, tsr_row_loops), x, y, factor, 0};

    tsr_rows_cpu_run(dev, x.n_rows, x.n_cols / 8, add_rows, &j);
    return TSR_OK;
}

tsr_status tsr_sigmoid_cpu(tsr_device *dev, tsr_tensor x)
{
    (void)dev;
    for (int64_t r = 0; r < x.n_rows; r++) {
        float *value = tsr_rows_cpu_f32(x, r);

        *value = (float)(1 / (1 + exp(-(double)*value)));
    }
    return TSR_OK;
}

tsr_status tsr_clear_cpu(tsr_device *dev, tsr_tensor x)
{
    const size_t elem_bytes = tsr_dtype_bytes(x.dtype);

    (void)dev;
    for (int64_t r = 0; r < x.n_rows; r++) {
        memset((char *)x.data + (size_t)(r * x.stride) * elem_bytes, 0,
               (size_t)x.n_cols * elem_bytes);
    }
    return TSR_OK;
}
