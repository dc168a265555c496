/*
 * kernels/round_weight.h - weights in fewer bits than their file has: rounding at load.
 *
 * A group is 32 or 128 columns of one row that share a scale.
 *   Q8    d = absmax / 127 as a half, q to nearest
 *   Q4    d and m as halves; of several ranges near [min, max] the one whose squared error is least
 *   FP8   d = absmax / 448 in f32, e to nearest even
 *
 * Threads: none of its own.
 */
#ifndef TSR_KERNELS_ROUND_WEIGHT_H
#define TSR_KERNELS_ROUND_WEIGHT_H

#include "kernels/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * n values, 32 or 128, to n / 32 runs for tsr_weight_put_run(). format: Q4, Q8 or FP8.
 * Returns the sum of squared errors; NaN or infinity when a value is none that can be rounded.
 */
double tsr_round_weight(tsr_format format, tsr_encoding_run *runs, const float *values, int n);

#ifdef __cplusplus
}
#endif

#endif
