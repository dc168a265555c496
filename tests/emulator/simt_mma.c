#include "tests/emulator/simt_inside.h"

#include "kernels/dtype.h"

/*
 * Fragments as the PTX manual draws them for mma.m16n8k16 with 16-bit and mma.m16n8k32 with 8-bit
 * elements: with group = lane / 4 and member = lane % 4, register r of A holds row group + 8 (r %
 * 2) and, from column e member + (r / 2) 4 e on, e elements, where e = 2 or 4 fill a register;
 * register r of B column group and the rows likewise; register r of C and D row group + 8 (r / 2),
 * column 2 member + r % 2. Sums are taken in f32, in ascending order: hardware may add in another.
 */
enum {
    M = 16,
    N = 8
};

static float element(simt_mma_kind kind, uint32_t bits, uint32_t i)
{
    const uint16_t half = (uint16_t)(bits >> (16 * i));

    return kind == SIMT_MMA_BF16 ? tsr_dtype_from_bf16(half) : tsr_dtype_from_f16(half);
}

static float as_f32(uint32_t bits)
{
    union {
        uint32_t bits;
        float value;
    } both = {.bits = bits};

    return both.value;
}

static uint32_t bits_of(float value)
{
    union {
        float value;
        uint32_t bits;
    } both = {.value = value};

    return both.bits;
}

static void multiply_halves(simt_mma_kind kind, simt_mma_lane *const *lanes)
{
    float a[M][16];
    float b[N][16];

    for (uint32_t lane = 0; lane < SIMT_LANES; lane++) {
        const uint32_t group = lane / 4;
        const uint32_t column = lane % 4 * 2;

        for (uint32_t i = 0; i < 2; i++) {
            for (uint32_t r = 0; r < 4; r++) {
                a[group + r % 2 * 8][column + r / 2 * 8 + i] = element(kind, lanes[lane]->a[r], i);
            }
            for (uint32_t r = 0; r < 2; r++) {
                b[group][column + r * 8 + i] = element(kind, lanes[lane]->b[r], i);
            }
        }
    }
    for (uint32_t lane = 0; lane < SIMT_LANES; lane++) {
        for (uint32_t r = 0; r < 4; r++) {
            const uint32_t row = lane / 4 + r / 2 * 8;
            const uint32_t column = lane % 4 * 2 + r % 2;
            float sum = 0.0F;

            for (uint32_t k = 0; k < 16; k++) {
                sum += a[row][k] * b[column][k];
            }
            lanes[lane]->d[r] = bits_of(sum + as_f32(lanes[lane]->c[r]));
        }
    }
}

static void multiply_bytes(simt_mma_lane *const *lanes)
{
    int8_t a[M][32];
    int8_t b[N][32];

    for (uint32_t lane = 0; lane < SIMT_LANES; lane++) {
        const uint32_t group = lane / 4;
        const uint32_t column = lane % 4 * 4;

        for (uint32_t i = 0; i < 4; i++) {
            for (uint32_t r = 0; r < 4; r++) {
                a[group + r % 2 * 8][column + r / 2 * 16 + i] =
                    (int8_t)(lanes[lane]->a[r] >> 8 * i);
            }
            for (uint32_t r = 0; r < 2; r++) {
                b[group][column + r * 16 + i] = (int8_t)(lanes[lane]->b[r] >> 8 * i);
            }
        }
    }
    for (uint32_t lane = 0; lane < SIMT_LANES; lane++) {
        for (uint32_t r = 0; r < 4; r++) {
            const uint32_t row = lane / 4 + r / 2 * 8;
            const uint32_t column = lane % 4 * 2 + r % 2;
            uint32_t sum = lanes[lane]->c[r];

            for (uint32_t k = 0; k < 32; k++) {
                sum += (uint32_t)((int32_t)a[row][k] * (int32_t)b[column][k]);
            }
            lanes[lane]->d[r] = sum;
        }
    }
}

void simt_multiply(simt_mma_kind kind, simt_mma_lane *const *lanes)
{
    if (kind == SIMT_MMA_S8) {
        multiply_bytes(lanes);
    } else {
        multiply_halves(kind, lanes);
    }
}
