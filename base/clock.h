/*
 * base/clock.h - time that only goes forward.
 */
#ifndef TSR_BASE_CLOCK_H
#define TSR_BASE_CLOCK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Nanoseconds since some fixed moment of this machine; the same clock in all its processes. */
int64_t tsr_clock_ns(void);

void tsr_clock_sleep_us(int64_t us);

#ifdef __cplusplus
}
#endif

#endif
