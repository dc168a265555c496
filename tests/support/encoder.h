/*
 * tests/support/encoder.h - numbers into the encodings of a model file, the simple way.
 *
 * Plain rounding to the nearest level: good enough for models that never learned anything. The
 * bit layouts are those of kernels/encoding.h.
 */
#ifndef TSR_TESTS_SUPPORT_ENCODER_H
#define TSR_TESTS_SUPPORT_ENCODER_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/encoding.h"

/* Numbers that are the same on every machine: exact arithmetic from a 64-bit seed. */
typedef struct test_random {
    uint64_t state;
} test_random;

uint64_t test_random_bits(test_random *random);

/* Bell-shaped, mean 0, variance 1, never beyond 3.5. */
double test_random_normal(test_random *random);

/* In [low, high). */
double test_random_between(test_random *random, double low, double high);

/* Is there an encoder from values? True for the plain ones and Q4_0 to Q8_0. */
bool encoder_takes_values(tsr_encoding encoding);

/* One row of n values, a multiple of the encoding's group. */
void encoder_row(tsr_encoding encoding, void *out, const float *values, int64_t n);

/* One row of n random values with mean near 0 and about this spread, for the others: every
 * field of every group takes many different values. */
void encoder_random_row(tsr_encoding encoding, void *out, double spread, int64_t n,
                        test_random *random);

#endif
