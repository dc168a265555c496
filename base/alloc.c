#include "base/alloc.h"

#include <stdatomic.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>

enum {
    HUGE_PAGE_BYTES = 2 << 20
};

static atomic_long live;
static atomic_size_t live_bytes;
static atomic_long countdown; // allocations left until the one that fails; 0: none will

static bool must_fail(void)
{
    // The common case is one relaxed load: no allocation pays for the tests.
    if (atomic_load_explicit(&countdown, memory_order_relaxed) <= 0) {
        return false;
    }
    return atomic_fetch_sub(&countdown, 1) == 1;
}

static void *counted(void *block, size_t n_bytes)
{
    if (block != NULL) {
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&live_bytes, n_bytes, memory_order_relaxed);
    }
    return block;
}

static void *counted_heap(void *block)
{
    return counted(block, block == NULL ? 0 : malloc_usable_size(block));
}

static void uncount(size_t n_bytes)
{
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&live_bytes, n_bytes, memory_order_relaxed);
}

void *tsr_alloc(size_t n, size_t elem_bytes)
{
    size_t n_bytes;

    // calloc checks the product too, but under a sanitizer an absurd one ends the program.
    if (must_fail() || __builtin_mul_overflow(n, elem_bytes, &n_bytes)) {
        return NULL;
    }
    return counted_heap(calloc(n_bytes > 0 ? n_bytes : 1, 1));
}

void *tsr_alloc_resize(void *block, size_t n, size_t elem_bytes)
{
    const size_t before = block == NULL ? 0 : malloc_usable_size(block);
    size_t n_bytes;
    void *resized;

    if (must_fail() || __builtin_mul_overflow(n, elem_bytes, &n_bytes)) {
        return NULL;
    }
    resized = realloc(block, n_bytes > 0 ? n_bytes : 1);
    if (resized != NULL && block != NULL) {
        uncount(before);
    }
    return counted_heap(resized);
}

char *tsr_alloc_text(const char *text, size_t n_bytes)
{
    char *copy;

    if (n_bytes == SIZE_MAX) {
        return NULL;
    }
    copy = tsr_alloc(n_bytes + 1, 1);
    if (copy != NULL && n_bytes > 0) {
        memcpy(copy, text, n_bytes);
    }
    return copy;
}

void tsr_free(void *block)
{
    if (block != NULL) {
        uncount(malloc_usable_size(block));
        free(block);
    }
}

static size_t whole_huge_pages(size_t n_bytes)
{
    return (n_bytes + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
}

void *tsr_alloc_pages(size_t n_bytes)
{
    const size_t want = whole_huge_pages(n_bytes > 0 ? n_bytes : 1);
    char *mapped;
    char *aligned;
    size_t head;

    if (must_fail() || n_bytes > SIZE_MAX / 2) {
        return NULL;
    }
    mapped = mmap(NULL, want + HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
        return NULL;
    }
    // Map one huge page too many and give back both ends: mmap itself aligns to 4 KiB only.
    head = (HUGE_PAGE_BYTES - (uintptr_t)mapped % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    aligned = mapped + head;
    if (head > 0) {
        (void)munmap(mapped, head);
    }
    (void)munmap(aligned + want, HUGE_PAGE_BYTES - head);
    (void)madvise(aligned, want, MADV_HUGEPAGE); // only advice: small pages do as well
    return counted(aligned, n_bytes);
}

void tsr_free_pages(void *pages, size_t n_bytes)
{
    if (pages != NULL) {
        uncount(n_bytes);
        (void)munmap(pages, whole_huge_pages(n_bytes > 0 ? n_bytes : 1));
    }
}

long tsr_alloc_live(void)
{
    return atomic_load(&live);
}

size_t tsr_alloc_live_bytes(void)
{
    return atomic_load(&live_bytes);
}

void tsr_alloc_fail_nth(long nth)
{
    atomic_store(&countdown, nth);
}
