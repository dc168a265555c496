#include "engine/row_sort.h"

#include <math.h>
#include <string.h>

enum {
    DIGIT_BITS = 11, // three digits of a float
    N_DIGITS = 3,
    N_VALUES = 1 << DIGIT_BITS
};

/* Numbers that rise where logits fall. */
static uint32_t key_of(float logit)
{
    const float plain = isnan(logit) ? -INFINITY : logit + 0.0F; // -0 becomes 0
    uint32_t bits;

    memcpy(&bits, &plain, sizeof(bits));
    return bits >> 31 != 0 ? bits : ~bits & 0x7fffffffu;
}

static float logit_of(uint32_t key)
{
    const uint32_t bits = key >> 31 != 0 ? key : ~key & 0x7fffffffu;
    float logit;

    memcpy(&logit, &bits, sizeof(logit));
    return logit;
}

/* The digit of a pair (key, id). */
static size_t digit_of(uint64_t pair, int digit)
{
    return (size_t)(pair >> (32 + digit * DIGIT_BITS)) & (N_VALUES - 1);
}

void tsr_row_sort(int32_t *ids, float *sorted, const float *logits, size_t n, uint64_t *work)
{
    uint64_t *from = work;
    uint64_t *to = work + n;
    size_t ends[N_DIGITS][N_VALUES] = {{0}};

    for (size_t i = 0; i < n; i++) {
        from[i] = (uint64_t)key_of(logits[i]) << 32 | i;
        for (int d = 0; d < N_DIGITS; d++) {
            ends[d][digit_of(from[i], d)]++;
        }
    }
    // Each pass keeps the order of the one before among equal digits, and the first that of the
    // ids.
    for (int d = 0; d < N_DIGITS; d++) {
        uint64_t *other = from;
        size_t first = 0;

        for (int value = 0; value < N_VALUES; value++) {
            const size_t count = ends[d][value];

            ends[d][value] = first;
            first += count;
        }
        for (size_t i = 0; i < n; i++) {
            to[ends[d][digit_of(from[i], d)]++] = from[i];
        }
        from = to;
        to = other;
    }
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(from[i] & 0xffffffffu);
        sorted[i] = logit_of((uint32_t)(from[i] >> 32));
    }
}
