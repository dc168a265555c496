#include "kernels/machine_loops.h"

#include "kernels/simd_int8.h"

/* n rounds over n * TSR_MACHINE_READ_FLOATS floats, in a few streams at once, as the products read
 * their weights. */
float TSR_ISA_NAME(tsr_machine_read)(const float *memory, size_t n)
{
    const size_t apart = n * 4 * TSR_LANES;
    v16 sums[TSR_MACHINE_READ_STREAMS];

    for (int s = 0; s < TSR_MACHINE_READ_STREAMS; s++) {
        sums[s] = v16_set1(0);
    }
    for (size_t i = 0; i < apart; i += 4 * TSR_LANES) {
        for (int s = 0; s < TSR_MACHINE_READ_STREAMS; s++) {
            const float *at = memory + (size_t)s * apart + i;

            for (int v = 0; v < 4; v++) {
                sums[s] = v16_max(sums[s], v16_load(at + v * TSR_LANES));
            }
        }
    }
    return v16_largest(v16_max(v16_max(sums[0], sums[1]), v16_max(sums[2], sums[3])));
}

float TSR_ISA_NAME(tsr_machine_int8)(size_t n)
{
    static const uint8_t bytes[64] = {1, 2, 3};
    static const int8_t x[4 * TSR_MACHINE_CHAINS] = {1, -1};
    const b64 weights = b64_load(bytes);
    dots4 sums[TSR_MACHINE_CHAINS];
    float all = 0;

    for (int c = 0; c < TSR_MACHINE_CHAINS; c++) {
        sums[c] = dots4_zero();
    }
    for (size_t i = 0; i < n; i++) {
        for (int c = 0; c < TSR_MACHINE_CHAINS; c++) {
            sums[c] = dots4_add(sums[c], weights, &x[4 * c]);
        }
    }
    for (int c = 0; c < TSR_MACHINE_CHAINS; c++) {
        all += v16_sum(dots4_value(sums[c]));
    }
    return all;
}

float TSR_ISA_NAME(tsr_machine_f32)(size_t n)
{
    const v16 factor = v16_set1(0.999F);
    v16 sums[TSR_MACHINE_CHAINS];
    float all = 0;

    for (int c = 0; c < TSR_MACHINE_CHAINS; c++) {
        sums[c] = v16_set1((float)c);
    }
    for (size_t i = 0; i < n; i++) {
        for (int c = 0; c < TSR_MACHINE_CHAINS; c++) {
            sums[c] = v16_fma(sums[c], factor, factor);
        }
    }
    for (int c = 0; c < TSR_MACHINE_CHAINS; c++) {
        all += v16_sum(sums[c]);
    }
    return all;
}
