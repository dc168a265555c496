/*
 * tests/support/device.h - a device to test on, and windows whose surroundings are watched.
 */
#ifndef TSR_TESTS_SUPPORT_DEVICE_H
#define TSR_TESTS_SUPPORT_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/env.h"
#include "kernels/backend.h"

enum {
    MISSING_SET = 77, // what a test returns for "not on this machine"
    POISON = 0xFF     // bytes of NaN in every float type, and of -1 in integers
};

/* Tests of ops run once more with the emulated GPU behind them (tests/emulator/mirror.c), where a
 * multiply-add takes as long as a thousand do here. */
#ifdef TSR_TEST_EMULATED
#include "tests/emulator/mirror.h"
#define IS_EMULATED true
#define IS_FAST mirror_is_fast() // and rounds otherwise than the CPU
#else
#define IS_EMULATED false
#define IS_FAST false
#endif

/* True, in words, when TSR_ISA asks for what this machine lacks. */
static inline bool isa_is_missing(void)
{
    tsr_isa isa;

    if (tsr_device_cpu_choose(&isa, tsr_env_text(TSR_ENV_ISA)) == TSR_OK) {
        return false;
    }
    (void)printf("passed over: %s\n", tsr_status_message());
    return true;
}

/* A device whose scratch is enough for ops within `limits`. */
static inline tsr_device *open_device(int n_threads, const tsr_ops_limits *limits)
{
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = n_threads};
    tsr_device *dev = NULL;

    assert_int_equal(tsr_device_open(&dev, &options), TSR_OK);
    assert_int_equal(
        tsr_device_reserve_scratch(dev, tsr_ops_scratch_bytes(TSR_DEVICE_CPU, n_threads, limits)),
        TSR_OK);
    return dev;
}

/* The next of a fixed sequence of numbers in [-1, 1). */
static inline float next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005U + 1442695040888963407U;
    return (float)(int32_t)(*seed >> 32) * 0x1p-31F;
}

enum {
    MARGIN_COLS = 3 // the stride is so much more than the columns
};

/* A poisoned window with room between its rows, and rows before and behind it. */
static inline tsr_tensor make_window(tsr_dtype dtype, int64_t n_rows, int64_t n_cols)
{
    const size_t elem_bytes = tsr_dtype_bytes(dtype);
    const int64_t stride = n_cols + MARGIN_COLS;
    const size_t n_bytes = (size_t)((n_rows + 2) * stride) * elem_bytes;
    char *memory = tsr_alloc(n_bytes, 1);
    tsr_tensor t = tsr_tensor_of(NULL, dtype, TSR_DEVICE_CPU, n_rows, n_cols);

    assert_non_null(memory);
    memset(memory, POISON, n_bytes);
    t.data = memory + (size_t)stride * elem_bytes;
    t.stride = stride;
    return t;
}

static inline float *f32_row(tsr_tensor t, int64_t row)
{
    return (float *)t.data + row * t.stride;
}
static inline double *f64_row(tsr_tensor t, int64_t row)
{
    return (double *)t.data + row * t.stride;
}
static inline int32_t *i32_row(tsr_tensor t, int64_t row)
{
    return (int32_t *)t.data + row * t.stride;
}

/* A window of random numbers. */
static inline tsr_tensor make_random(tsr_dtype dtype, int64_t n_rows, int64_t n_cols,
                                     uint64_t *seed)
{
    const tsr_tensor t = make_window(dtype, n_rows, n_cols);

    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t c = 0; c < n_cols; c++) {
            if (dtype == TSR_DTYPE_F64) {
                f64_row(t, r)[c] = (double)next_random(seed) * 3;
            } else {
                f32_row(t, r)[c] = next_random(seed) * 3;
            }
        }
    }
    return t;
}

/* An i32 vector of these numbers; made whole, without margin. */
static inline tsr_tensor make_ints(const int32_t *ints, int64_t n)
{
    const tsr_tensor t = make_window(TSR_DTYPE_I32, 1, n);

    memcpy(t.data, ints, (size_t)n * sizeof(*ints));
    return t;
}

/* Asserts that nothing around a window was written, and frees it. */
static inline void free_window(tsr_tensor t)
{
    const size_t elem_bytes = tsr_dtype_bytes(t.dtype);
    char *memory = (char *)t.data - (size_t)t.stride * elem_bytes;

    for (int64_t r = -1; r <= t.n_rows; r++) {
        const bool whole = r < 0 || r == t.n_rows;
        const unsigned char *row =
            (const unsigned char *)memory + (size_t)((r + 1) * t.stride) * elem_bytes;

        for (size_t i = whole ? 0 : (size_t)t.n_cols * elem_bytes;
             i < (size_t)t.stride * elem_bytes; i++) {
            assert_int_equal(row[i], POISON);
        }
    }
    tsr_free(memory);
}

/* Fails unless the rows of f32 differ by at most `most` anywhere. */
static inline void assert_near_rows(tsr_tensor a, tsr_tensor b, double most)
{
    assert_int_equal(a.n_rows, b.n_rows);
    assert_int_equal(a.n_cols, b.n_cols);
    for (int64_t r = 0; r < a.n_rows; r++) {
        for (int64_t c = 0; c < a.n_cols; c++) {
            const double got = (double)f32_row(a, r)[c];
            const double expected = (double)f32_row(b, r)[c];

            if (!(got - expected <= most && expected - got <= most)) {
                fail_msg("row %lld, column %lld: %g, not %g", (long long)r, (long long)c, got,
                         expected);
            }
        }
    }
}

static inline void assert_same_rows(tsr_tensor a, tsr_tensor b)
{
    assert_int_equal(a.n_rows, b.n_rows);
    assert_int_equal(a.n_cols, b.n_cols);
    for (int64_t r = 0; r < a.n_rows; r++) {
        const size_t elem_bytes = tsr_dtype_bytes(a.dtype);

        assert_memory_equal((char *)a.data + (size_t)(r * a.stride) * elem_bytes,
                            (char *)b.data + (size_t)(r * b.stride) * elem_bytes,
                            (size_t)a.n_cols * elem_bytes);
    }
}

#endif
