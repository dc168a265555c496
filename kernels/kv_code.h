/*
 * kernels/kv_code.h - keys and values in 8, 4 and 2 bits. Private to the room.
 *
 * A vector x [dim] of one token and head becomes a scale and one code a dimension; it is final when
 * it is written, and depends on nothing but x and tokens before it.
 *
 *   fp8    x = scale * e4m3;      scale = absmax / 448
 *   int8   H x = scale * code;      scale = absmax / 127
 *   int4   H x = scale * levels[code] (+ H mean);    16 levels, the best for a normal distribution
 *          (Lloyd, IEEE Trans. Inf. Theory 28, 1982)
 *   int2   the same with 4 levels
 *
 * H is an orthonormal Hadamard transform of blocks of the largest power of two that divides dim. It
 * spreads what stands out over all dimensions (Ashkboos et al., arXiv 2404.00456); scores do not
 * change when queries turn with the keys, and outputs are turned back.
 *
 * Keys have much in common (Liu et al., arXiv 2402.02750), above all before they turn with their
 * positions (Hooper et al., arXiv 2401.18079). So a group of 16 has a mean of the decoded keys
 * before it, each turned to where the group begins (kernels/kv_drift.h), and what is taken off a
 * key is that, turned on to its position; but only where the key becomes shorter so. The group's
 * mean is a quarter the mean of the 16 keys before it and three quarters what was before them; the
 * first key is left out, which is often unlike all others, and is the mean of its own group.
 *
 * scale is bf16; in int4 and int2 it makes the code as long as the vector. A vector that is not
 * finite becomes NaN.
 */
#ifndef TSR_KERNELS_KV_CODE_H
#define TSR_KERNELS_KV_CODE_H

#include "kernels/kv_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_kv_code {
    uint16_t scale;                        /* bf16; the sign says: the mean was taken off */
    uint8_t codes[TSR_KV_LAYOUT_MOST_DIM]; /* one a dimension */
} tsr_kv_code;

/* Sixteen levels of a code of int4 or int2; four are there again and again, so that what lies in
 * the upper of four bits does not matter. */
const float *tsr_kv_code_levels(tsr_kv_type type);

/* Dimensions that are turned together: the largest power of two that divides key_dim or value_dim;
 * both in a latent layout, whose values are cut out of the keys. */
int tsr_kv_code_key_unit(const tsr_kv_layout *layout);
int tsr_kv_code_value_unit(const tsr_kv_layout *layout);

/* x [dim] = H x, in place. H is its own inverse. */
void tsr_kv_code_turn(float *x, int dim, int unit);

/* x and the mean are turned already where the type is; mean may be NULL. */
void tsr_kv_code_round(tsr_kv_code *out, const float *x, const float *mean, int dim,
                       tsr_kv_type type);

/* Keys of one head in a block: token `at`. */
void tsr_kv_code_put_key(void *keys, const tsr_kv_layout *layout, int at, const tsr_kv_code *code);

/* Likewise its value. */
void tsr_kv_code_put_value(void *values, const tsr_kv_layout *layout, int at,
                           const tsr_kv_code *code);

/* The key of token `at` without its mean, turned: x [key_dim]. Returns whether a mean was taken
 * off. What is not a number is zeros. */
bool tsr_kv_code_key(float *x, const void *keys, const tsr_kv_layout *layout, int at);

/* The mean of the group that token `at` lies in: split, [key_dim made even]. */
void tsr_kv_code_put_mean(void *keys, const tsr_kv_layout *layout, int at, const float *mean);

/* Where it lies: codes, to be multiplied by the scale. */
const int8_t *tsr_kv_code_mean_at(float *scale, const void *keys, const tsr_kv_layout *layout,
                                  int at);

#ifdef __cplusplus
}
#endif

#endif
