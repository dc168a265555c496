/*
 * kernels/exp_constants.h - of the one e^x that all twins take, bit for bit: x = n ln 2 + r with ln
 * 2 in two parts, and a polynomial in r (kernels/simd.h, kernels/cuda.cuh). Private to the room.
 */
#ifndef TSR_KERNELS_EXP_CONSTANTS_H
#define TSR_KERNELS_EXP_CONSTANTS_H

#define TSR_EXP_LEAST (-87.0F) /* below it e^x counts as e^-87 */
#define TSR_LOG2_E 1.44269504F
#define TSR_LN2_HIGH 0.693359375F
#define TSR_LN2_LOW (-2.12194440e-4F)

#endif
