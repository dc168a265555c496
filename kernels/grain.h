/*
 * kernels/grain.h - the grid on which sums over ranks are exact (docs/numerics.md). Private to the
 * room.
 */
#ifndef TSR_KERNELS_GRAIN_H
#define TSR_KERNELS_GRAIN_H

#define TSR_GRAIN_START 25165824.0       /* 1.5 * 2^24: the last place is 2^-28 */
#define TSR_GRAIN_FACTOR (1.0 + 0x1p-52) /* off the ties */

#endif
