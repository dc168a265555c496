/*
 * base/alloc.h - the only door to the heap.
 *
 * Everything is zeroed, sizes are checked against overflow, and one hook can make the n-th
 * allocation fail, which is how the tests torture every create().
 *
 * Threads: safe from any.
 */
#ifndef TSR_BASE_ALLOC_H
#define TSR_BASE_ALLOC_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* n zeroed elements of elem_bytes each; NULL when there is no room or the product overflows.
 * n = 0 gives a pointer that may be freed and not read. */
void *tsr_alloc(size_t n, size_t elem_bytes);

/* Resize to n elements, keeping what fits; bytes past the old size are undefined.
 * NULL leaves the old block as it was. */
void *tsr_alloc_resize(void *block, size_t n, size_t elem_bytes);

/* A copy of n_bytes of text with a 0 behind it. */
char *tsr_alloc_text(const char *text, size_t n_bytes);

void tsr_free(void *block); /* NULL is fine */

/*
 * Whole pages straight from the system, zeroed, 2 MiB aligned and advised to be huge; memory is
 * taken only when first touched. For weights, caches and activations. NULL when there is no room.
 */
void *tsr_alloc_pages(size_t n_bytes);
void tsr_free_pages(void *pages, size_t n_bytes); /* n_bytes as it was asked for; NULL is fine */

/* For tests: blocks of either kind that are alive, and their bytes: of the heap as it rounds them
 * up, of pages as they were asked for. */
long tsr_alloc_live(void);
size_t tsr_alloc_live_bytes(void);

/* For tests: let the nth allocation from now fail (1 is the next), and only it; 0 switches off. */
void tsr_alloc_fail_nth(long nth);

#ifdef __cplusplus
}
#endif

#endif
