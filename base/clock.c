#define _POSIX_C_SOURCE 200809L

#include "base/clock.h"

#include <time.h>

int64_t tsr_clock_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void tsr_clock_sleep_us(int64_t us)
{
    const struct timespec span = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

    (void)nanosleep(&span, NULL); // cut short by a signal: the caller looks at the clock anyway
}
