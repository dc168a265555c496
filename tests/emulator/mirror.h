/*
 * tests/emulator/mirror.h - what a test has to know of the GPU that mirror.c puts behind it.
 */
#ifndef TSR_TESTS_EMULATOR_MIRROR_H
#define TSR_TESTS_EMULATOR_MIRROR_H

#include <stdbool.h>

/* Need its ops not give the CPU's bits? */
bool mirror_is_fast(void);

#endif
