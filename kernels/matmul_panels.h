/*
 * kernels/matmul_panels.h - where the loops of the CPU's matrix product read and write; compiled
 * for each instruction set. Private to the room.
 */
#ifndef TSR_KERNELS_MATMUL_PANELS_H
#define TSR_KERNELS_MATMUL_PANELS_H

#include <stddef.h>

#include "kernels/grain.h"
#include "kernels/matmul_cpu.h"
#include "kernels/simd_int8.h"

#if defined(__clang__)
#define TSR_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TSR_UNROLL _Pragma("GCC unroll 32")
#endif

/* How sums of grains are kept: kernels/ops.h. */

/* One panel of the work, wherever it comes from. */
typedef struct tsr_panel_place {
    const uint8_t *tiles;
    const float *groups;
    void *out;
    const float *bias;
    int64_t out_stride;
    int n_lanes;
} tsr_panel_place;

TSR_INLINE tsr_panel_place tsr_panel_find(const tsr_panel_run *run, int64_t i)
{
    const tsr_panel_stretch *in = run->stretches;
    const size_t out_bytes = run->grain_cols > 0 ? sizeof(double) : sizeof(float);
    int64_t lanes;

    while (i >= in->n_panels) {
        i -= in->n_panels;
        in++;
    }
    lanes = in->n_lanes - TSR_PANEL_ROWS * i;
    return (tsr_panel_place){
        in->tiles + i * run->panel_bytes,
        in->groups == NULL ? NULL : in->groups + i * tsr_weight_table_floats(in->n_groups),
        (char *)in->out + (size_t)(TSR_PANEL_ROWS * i) * out_bytes,
        in->bias == NULL ? NULL : in->bias + TSR_PANEL_ROWS * i,
        in->out_stride,
        lanes < TSR_PANEL_ROWS ? (int)lanes : TSR_PANEL_ROWS,
    };
}

/* A panel's outputs for a row will be written soon. */
TSR_INLINE void tsr_panel_expect(const tsr_panel_place *to, int64_t row, bool wide)
{
    if (wide) {
        const double *out = (const double *)to->out + row * to->out_stride;

        __builtin_prefetch(out, 1);
        __builtin_prefetch(out + 8, 1);
    } else {
        __builtin_prefetch((const float *)to->out + row * to->out_stride, 1);
    }
}

TSR_INLINE void tsr_panel_put_f32(const tsr_panel_place *to, int64_t row, v16 sum)
{
    float *out = (float *)to->out + row * to->out_stride;

    if (to->n_lanes == TSR_PANEL_ROWS) {
        v16_store(out, to->bias == NULL ? sum : v16_add(sum, v16_load(to->bias)));
    } else {
        v16_store_some(out,
                       to->bias == NULL ? sum : v16_add(sum, v16_load_some(to->bias, to->n_lanes)),
                       to->n_lanes);
    }
}

TSR_INLINE void tsr_panel_put_f64(const tsr_panel_place *to, int64_t row, w16 sums)
{
    double *out = (double *)to->out + row * to->out_stride;

    if (to->n_lanes == TSR_PANEL_ROWS) {
        w16_store_less(out, sums, TSR_GRAIN_START);
    } else {
        double lanes[TSR_PANEL_ROWS];

        w16_store_less(lanes, sums, TSR_GRAIN_START);
        memcpy(out, lanes, (size_t)to->n_lanes * sizeof(*out));
    }
}

#endif
