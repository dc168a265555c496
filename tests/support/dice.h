/*
 * tests/support/dice.h - numbers that look random and are the same in every run.
 */
#ifndef TSR_TESTS_SUPPORT_DICE_H
#define TSR_TESTS_SUPPORT_DICE_H

#include <stdint.h>

/* Sixty-four bits (splitmix64: Steele, Lea, Flood, OOPSLA'14); any start is good. */
static inline uint64_t dice_roll(uint64_t *dice)
{
    uint64_t z = *dice += 0x9E3779B97F4A7C15u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* In [0, n), n > 0. */
static inline int dice_below(uint64_t *dice, int n)
{
    return (int)((dice_roll(dice) >> 32) * (uint64_t)n >> 32);
}

/* In [0, 1). */
static inline double dice_unit(uint64_t *dice)
{
    return (double)(dice_roll(dice) >> 11) * 0x1p-53;
}

#endif
