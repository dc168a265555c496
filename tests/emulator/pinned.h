/*
 * tests/emulator/pinned.h - host memory that copies may use while the host goes on, and that
 * kernels may touch.
 */
#ifndef TSR_TESTS_EMULATOR_PINNED_H
#define TSR_TESTS_EMULATOR_PINNED_H

#include <stdbool.h>
#include <stddef.h>

void *pinned_take(size_t n_bytes); /* full of 0xFF; NULL when there is no room */
bool pinned_give_back(void *memory);
bool pinned_holds(const void *memory, size_t n_bytes);

#endif
