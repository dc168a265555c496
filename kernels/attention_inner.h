/*
 * kernels/attention_inner.h - the innermost loops of attention: scores of a few queries, and sums
 * of values, over a few vectors, for each type of the cache. A part of attention_loops.c.
 */
#ifndef TSR_KERNELS_ATTENTION_INNER_H
#define TSR_KERNELS_ATTENTION_INNER_H

#include "kernels/attention_loops.h"
#include "kernels/kv_code.h"
#include "kernels/simd_codes.h"

// Sums stay in registers only if their loops are gone early: clang unrolls in time only when it is
// told to do so wholly.
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

// How many queries and how many vectors (of tokens, or of dimensions) are worked at once: as many
// sums as registers hold. X(queries, vectors, element type).
#if defined(TSR_ISA_AVX512)
enum {
    MAX_QUERIES = 6
};
#define VECTORS_FOR(n_queries) ((void)(n_queries), 4)
#define TILES_OF(X, n, type) X(n, 1, type) X(n, 2, type) X(n, 4, type)
#define TILES(X, type)   \
    TILES_OF(X, 1, type) \
    TILES_OF(X, 2, type) \
    TILES_OF(X, 3, type) \
    TILES_OF(X, 4, type) \
    TILES_OF(X, 5, type) \
    TILES_OF(X, 6, type)
#elif defined(TSR_ISA_AVX2)
enum {
    MAX_QUERIES = 6
};
#define VECTORS_FOR(n_queries) ((n_queries) == 1 ? 4 : (n_queries) == 2 ? 2 : 1)
#define TILES(X, type) \
    X(1, 1, type)      \
    X(1, 2, type)      \
    X(1, 4, type)      \
    X(2, 1, type)      \
    X(2, 2, type)      \
    X(3, 1, type)      \
    X(4, 1, type)      \
    X(5, 1, type)      \
    X(6, 1, type)
#else
enum {
    MAX_QUERIES = 1
};
#define VECTORS_FOR(n_queries) ((void)(n_queries), 1)
#define TILES(X, type) X(1, 1, type)
#endif

enum {
    DIMS_A_STEP = 8,     // key_dim is a multiple
    TOKENS_A_BLOCK = 64, // values of so many stay in the nearest cache while all queries pass
    LINE_BYTES = 64
};

/* Bits of an element in the cache. */
TSR_INLINE int64_t bits_of(tsr_kv_type kv)
{
    return kv == TSR_KV_TYPE_F32                             ? 32
           : kv == TSR_KV_TYPE_F16 || kv == TSR_KV_TYPE_BF16 ? 16
           : kv == TSR_KV_TYPE_FP8 || kv == TSR_KV_TYPE_INT8 ? 8
           : kv == TSR_KV_TYPE_INT4                          ? 4
                                                             : 2;
}

/* Sixteen elements from the i-th on, of a type of which each has its own bytes. */
TSR_INLINE v16 load(const void *p, int64_t i, tsr_kv_type kv)
{
    switch (kv) {
    case TSR_KV_TYPE_F16:
        return v16_load_f16((const uint16_t *)p + i);
    case TSR_KV_TYPE_BF16:
        return v16_load_bf16((const uint16_t *)p + i);
    case TSR_KV_TYPE_FP8:
        return v16_load_fp8((const uint8_t *)p + i);
    case TSR_KV_TYPE_INT8:
        return v16_load_i8((const int8_t *)p + i);
    default:
        return v16_load((const float *)p + i);
    }
}

/* ---- strings of bits: dimension d of 16 keys, dimensions of a value ---------------------------
 */

/* Dimensions whose codes are loaded at once, as one number a token. */
TSR_INLINE int dims_at_once(tsr_kv_type kv)
{
    return kv == TSR_KV_TYPE_INT4 ? 2 : kv == TSR_KV_TYPE_INT2 ? 4 : 1;
}

TSR_INLINE i16 load_codes(const void *keys, int d, int64_t stride, tsr_kv_type kv)
{
    return i16_load_u8((const uint8_t *)keys + d * bits_of(kv) / 8 * stride);
}

TSR_INLINE v16 key_level(i16 codes, int d, v16 levels, tsr_kv_type kv)
{
    return v16_look_up(levels, i16_low(codes, d % dims_at_once(kv) * (int)bits_of(kv)));
}

TSR_INLINE v16 load_value(const void *values, int64_t i, v16 levels, tsr_kv_type kv)
{
    if (!tsr_kv_type_has_levels(kv)) {
        return load(values, i, kv);
    }
    return v16_look_up(
        levels, i16_load_bits((const uint8_t *)values + i * bits_of(kv) / 8, (int)bits_of(kv)));
}

TSR_INLINE v16 levels_of(tsr_kv_type kv)
{
    return tsr_kv_type_has_levels(kv) ? v16_load(tsr_kv_code_levels(kv)) : v16_set1(0.0F);
}

/* Ask for memory that will be needed in a few microseconds. Into the second level, which has the
 * queues to wait for it; asking for it in the first stalls the loads of the present work. */
TSR_INLINE void ask_for(const char *from, int64_t n_bytes)
{
    for (int64_t i = 0; i < n_bytes; i += LINE_BYTES) {
        __builtin_prefetch(from + i, 0, 2);
    }
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* sums += q[d] k[d]; codes of d are those loaded last; `step` is d % DIMS_A_STEP. */
TSR_INLINE void score_dim(int n_queries, int n_vectors, tsr_kv_type kv,
                          const tsr_attention_run *run, const float *q, int first, int d, int step,
                          v16 levels, i16 *codes, v16 sums[MAX_QUERIES][4])
{
    v16 k[4];

    UNROLL
    for (int j = 0; j < n_vectors; j++) {
        if (tsr_kv_type_has_levels(kv) && step % dims_at_once(kv) == 0) {
            codes[j] = load_codes(run->keys[first + j], d, run->key_stride, kv);
        }
        k[j] = tsr_kv_type_has_levels(kv)
                   ? key_level(codes[j], step, levels, kv)
                   : load(run->keys[first + j], (int64_t)d * run->key_stride, kv);
    }
    UNROLL
    for (int i = 0; i < n_queries; i++) {
        const v16 x = v16_set1(q[i * run->key_dim + d]);

        UNROLL
        for (int j = 0; j < n_vectors; j++) {
            sums[i][j] = v16_fma(x, k[j], sums[i][j]);
        }
    }
}

/* Scores of n_queries from `q` on over n_vectors groups of 16 tokens from group `first` on. */
TSR_INLINE void score(int n_queries, int n_vectors, tsr_kv_type kv, const tsr_attention_run *run,
                      const float *q, float *scores, int first, bool ask)
{
    const int key_dim = run->key_dim;
    const v16 levels = levels_of(kv);
    const i16 no_codes = v16_round(v16_set1(0.0F)); // known to be loaded before use
    i16 codes[4] = {no_codes, no_codes, no_codes, no_codes};
    v16 sums[MAX_QUERIES][4];
    int d0 = 0;

    UNROLL
    for (int i = 0; i < n_queries; i++) {
        UNROLL
        for (int j = 0; j < n_vectors; j++) {
            sums[i][j] = v16_set1(0.0F);
        }
    }
    for (; d0 + DIMS_A_STEP <= key_dim; d0 += DIMS_A_STEP) {
        if (ask) { // a share of the values of these groups
            const int64_t step_bytes = DIMS_A_STEP * TSR_LANES * bits_of(kv) / 8;

            UNROLL
            for (int j = 0; j < n_vectors; j++) {
                ask_for((const char *)run->values[first + j] + d0 / DIMS_A_STEP * step_bytes,
                        step_bytes);
            }
        }
        if (tsr_kv_type_has_levels(kv)) { // shifts by constants
            UNROLL
            for (int step = 0; step < DIMS_A_STEP; step++) {
                score_dim(n_queries, n_vectors, kv, run, q, first, d0 + step, step, levels, codes,
                          sums);
            }
        } else {
            for (int step = 0; step < DIMS_A_STEP; step++) {
                score_dim(n_queries, n_vectors, kv, run, q, first, d0 + step, 0, levels, codes,
                          sums);
            }
        }
    }
    for (int step = 0; d0 + step < key_dim; step++) {
        score_dim(n_queries, n_vectors, kv, run, q, first, d0 + step, step, levels, codes, sums);
    }
    UNROLL
    for (int i = 0; i < n_queries; i++) {
        UNROLL
        for (int j = 0; j < n_vectors; j++) {
            v16_store(scores + i * TSR_ATTENTION_RUN + (first + j) * TSR_LANES, sums[i][j]);
        }
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* A piece of memory for each group, all keys of a run together. Groups of one block lie side by
 * side, so what lies behind one another there is dealt out to them. */
TSR_INLINE const char *key_piece(const tsr_attention_run *run, int g, tsr_kv_type kv)
{
    const int64_t within = (int64_t)g * TSR_LANES % run->key_stride;
    const int64_t elem_bytes = (bits_of(kv) + 7) / 8;

    return run->keys[g] == NULL ? NULL
                                : (const char *)run->keys[g] - within * elem_bytes +
                                      within * run->key_dim * bits_of(kv) / 8;
}

/* o += e v over tokens [from, to) of n_queries, n_vectors of dimensions from `dim` on. By row: the
 * tokens of this run and of the next lie by themselves. */
TSR_INLINE void gather(int n_queries, int n_vectors, tsr_kv_type kv, bool by_row,
                       const tsr_attention_run *run, const float *e, float *o, int64_t part_floats,
                       int dim, int from, int to, const tsr_attention_run *then)
{
    const v16 levels = levels_of(kv);
    v16 sums[MAX_QUERIES][4];

    UNROLL
    for (int i = 0; i < n_queries; i++) {
        UNROLL
        for (int j = 0; j < n_vectors; j++) {
            sums[i][j] = v16_load(o + i * part_floats + dim + j * TSR_LANES);
        }
    }
    for (int t0 = from; t0 < to;) {
        const int g = t0 / TSR_LANES;
        const int t1 = (g + 1) * TSR_LANES < to ? (g + 1) * TSR_LANES : to;
        const char *next = then != NULL && !by_row ? key_piece(then, g, kv) : NULL;
        const int64_t next_bytes = run->key_dim * bits_of(kv) / 8;

        for (; t0 < t1; t0++) {
            const int t = t0;
            const void *values = by_row ? run->value_rows[t] : run->values[g];
            const int64_t row = by_row ? dim : (int64_t)(t - g * TSR_LANES) * run->padded_dim + dim;
            v16 v[4];

            if (next != NULL) {
                ask_for(next + (t - g * TSR_LANES) * next_bytes, next_bytes);
            } else if (by_row && then != NULL && then->key_rows[t] != NULL) {
                ask_for(then->key_rows[t], next_bytes);
            }
            UNROLL
            for (int j = 0; j < n_vectors; j++) {
                v[j] = load_value(values, row + j * TSR_LANES, levels, kv);
            }
            UNROLL
            for (int i = 0; i < n_queries; i++) {
                const v16 weight = v16_set1(e[i * TSR_ATTENTION_RUN + t]);

                UNROLL
                for (int j = 0; j < n_vectors; j++) {
                    sums[i][j] = v16_fma(weight, v[j], sums[i][j]);
                }
            }
        }
    }
    UNROLL
    for (int i = 0; i < n_queries; i++) {
        UNROLL
        for (int j = 0; j < n_vectors; j++) {
            v16_store(o + i * part_floats + dim + j * TSR_LANES, sums[i][j]);
        }
    }
}

/* ---- a copy of both for each tile and type ----------------------------------------------------
 */

#define TILE(n_queries, n_vectors, type)                                                         \
    static void score_##n_queries##_##n_vectors##_##type(                                        \
        const tsr_attention_run *run, const float *q, float *scores, int first, bool ask)        \
    {                                                                                            \
        score(n_queries, n_vectors, TSR_KV_TYPE_##type, run, q, scores, first, ask);             \
    }                                                                                            \
    static void gather_##n_queries##_##n_vectors##_##type(                                       \
        const tsr_attention_run *run, const float *e, float *o, int64_t part_floats, int dim,    \
        int from, int to, const tsr_attention_run *then)                                         \
    {                                                                                            \
        if (run->value_rows != NULL) {                                                           \
            gather(n_queries, n_vectors, TSR_KV_TYPE_##type, true, run, e, o, part_floats, dim,  \
                   from, to, then);                                                              \
        } else {                                                                                 \
            gather(n_queries, n_vectors, TSR_KV_TYPE_##type, false, run, e, o, part_floats, dim, \
                   from, to, then);                                                              \
        }                                                                                        \
    }
TILES(TILE, F32)
TILES(TILE, F16)
TILES(TILE, BF16)
TILES(TILE, FP8)
TILES(TILE, INT8)
TILES(TILE, INT4)
TILES(TILE, INT2)

typedef void score_fn(const tsr_attention_run *run, const float *q, float *scores, int first,
                      bool ask);
typedef void gather_fn(const tsr_attention_run *run, const float *e, float *o, int64_t part_floats,
                       int dim, int from, int to, const tsr_attention_run *then);

#define SCORE(n_queries, n_vectors, type) \
    [TSR_KV_TYPE_##type][n_queries][n_vectors] = score_##n_queries##_##n_vectors##_##type,
#define GATHER(n_queries, n_vectors, type) \
    [TSR_KV_TYPE_##type][n_queries][n_vectors] = gather_##n_queries##_##n_vectors##_##type,

static score_fn *const score_tiles[TSR_KV_TYPE_COUNT][MAX_QUERIES + 1][5] = {
    TILES(SCORE, F32) TILES(SCORE, F16) TILES(SCORE, BF16) TILES(SCORE, FP8) TILES(SCORE, INT8)
        TILES(SCORE, INT4) TILES(SCORE, INT2)};
static gather_fn *const gather_tiles[TSR_KV_TYPE_COUNT][MAX_QUERIES + 1][5] = {
    TILES(GATHER, F32) TILES(GATHER, F16) TILES(GATHER, BF16) TILES(GATHER, FP8) TILES(GATHER, INT8)
        TILES(GATHER, INT4) TILES(GATHER, INT2)};

#endif
