/*
 * engine/row_sort.h - a whole row of logits in the order in which it is sampled. Pure: no state, no
 * device.
 */
#ifndef TSR_ENGINE_ROW_SORT_H
#define TSR_ENGINE_ROW_SORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ids [n] and sorted [n] become the tokens by falling logit and their logits; lower id first among
 * equals. What is not a number counts as -infinity, -0 as 0. work [2 * n]; nothing overlaps. A
 * radix sort: its time depends on n alone.
 */
void tsr_row_sort(int32_t *ids, float *sorted, const float *logits, size_t n, uint64_t *work);

#ifdef __cplusplus
}
#endif

#endif
