/*
 * kernels/top_k_loops.h - the best of a row, and the masses of its units. Private to the room; a
 * copy for each instruction set.
 *
 * A candidate is one number that orders as candidates do: the logit's bits, made to ascend as the
 * logits do, above the complement of its column. So any selection gives the same k, however the row
 * was cut.
 */
#ifndef TSR_KERNELS_TOP_K_LOOPS_H
#define TSR_KERNELS_TOP_K_LOOPS_H

#include "kernels/backend.h"

/* The k best of what was seen, and some more: they are thrown out when there is no more room. */
typedef struct tsr_top_k_best {
    uint64_t *keys; /* [n_room], in no order */
    int n_room;     /* more than k + 16 */
    int k;
    int n;
    float least; /* once full: what is not above it cannot be among the best */
    bool full;   /* k have been seen, and the others thrown out once */
} tsr_top_k_best;

typedef struct tsr_top_k_loops {
    /* mass[0] = the largest of x [n], NaN set aside; mass[1] = sum of exp((x - mass[0]) *
     * sharpness) in sixteen lanes (lane c % 16, ascending), the lanes by v16_sum; 0 when all are
     * -infinity. */
    void (*mass)(float *mass, const float *x, int64_t n, float sharpness);

    /* Add columns [column, column + n) to what was seen; columns ascend from call to call. */
    void (*scan)(tsr_top_k_best *best, const float *x, int64_t column, int64_t n);

    /* Add all that another has. */
    void (*join)(tsr_top_k_best *best, const tsr_top_k_best *other);

    /* Keep the k best, in falling order. */
    void (*sort)(tsr_top_k_best *best);
} tsr_top_k_loops;

TSR_ISA_DECLARE(tsr_top_k_loops, tsr_top_k_loops);

#endif
