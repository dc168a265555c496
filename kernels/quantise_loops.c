#include "kernels/matmul_cpu.h"

#include "kernels/simd_int8.h"

/* Below this the largest of a group counts as nothing: 127 / largest would overflow. */
#define LEAST_LARGEST 0x1p-120F

/* One row's group of up to 32 columns; the block that it belongs to has `rows` rows. */
TSR_INLINE void quantise_group(uint8_t *group, int64_t rows, int64_t r, v16 low, v16 high)
{
    const v16 nothing = v16_set1(0.0F);
    const float largest = v16_largest(v16_max(v16_abs(low), v16_abs(high)));
    // 0 x is NaN where x is not finite, and else adds nothing.
    const float finite = v16_sum(v16_add(v16_mul(low, nothing), v16_mul(high, nothing)));
    const bool sound = finite == 0.0F;
    float d = sound ? largest / 127.0F : NAN;
    const float to_codes = sound && largest >= LEAST_LARGEST ? 127.0F / largest : 0.0F;
    const v16 scale = v16_set1(to_codes);
    const i16 q_low = v16_round(sound ? v16_mul(low, scale) : nothing);
    const i16 q_high = v16_round(sound ? v16_mul(high, scale) : nothing);
    const int32_t sum_low = i16_total(q_low);
    const int32_t sum_high = i16_total(q_high);
    float *f = (float *)(group + 32 * rows) + r;
    int32_t *n = (int32_t *)(group + 48 * rows) + r;

    i16_store_i8((int8_t *)group + 32 * r, q_low);
    i16_store_i8((int8_t *)group + 32 * r + 16, q_high);
    f[0] = d;
    f[rows] = d * (float)(sum_low + sum_high);
    f[2 * rows] = d * (float)sum_low;
    f[3 * rows] = d * (float)sum_high;
    n[0] = -128 * (sum_low + sum_high);
    n[rows] = -128 * sum_low;
    n[2 * rows] = -128 * sum_high;
}

static void quantise_row(uint8_t *group, int64_t rows, int64_t r, const float *x, int64_t n_cols)
{
    const int64_t step = TSR_X_GROUP_BYTES * rows;
    int64_t c = 0;

    for (; c + TSR_TILE_COLS <= n_cols; c += TSR_TILE_COLS, group += step) {
        quantise_group(group, rows, r, v16_load(x + c), v16_load(x + c + 16));
    }
    if (c < n_cols) {
        const int left = (int)(n_cols - c);
        const v16 nothing = v16_set1(0.0F);

        quantise_group(group, rows, r, v16_load_some(x + c, left < 16 ? left : 16),
                       left > 16 ? v16_load_some(x + c + 16, left - 16) : nothing);
    }
}

void TSR_ISA_NAME(tsr_quantise)(const tsr_x_blocks *x, int64_t n_cols, int64_t first, int64_t end)
{
    const int64_t n_groups = (n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS;

    for (int64_t b = first; b < end; b++) {
        const int64_t row = tsr_x_block_first(x, b);
        const int64_t rows = tsr_x_block_first(x, b + 1) - row;
        uint8_t *to = x->quantised + row * n_groups * TSR_X_GROUP_BYTES;

        for (int64_t r = 0; r < rows; r++) {
            quantise_row(to, rows, r, x->x + (row + r) * x->x_stride, n_cols);
        }
    }
}
