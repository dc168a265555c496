/*
 * kernels/simd.h - sixteen lanes of f32, three ways: AVX-512, AVX2 + FMA, plain C. Private to the
 * room.
 *
 * Vector code is written once against this page and compiled once for each instruction set
 * (kernels/CMakeLists.txt, tsr_isa_sources); the set is chosen at run time. Every operation here
 * rounds alike in all three, lane by lane, and sums over lanes follow one tree, so that machines
 * agree bit for bit.
 *
 *   v16   16 x f32        i16   16 x i32        w16   16 x f64
 *
 * A file compiled this way gives each external function the set's name: void
 * TSR_ISA_NAME(attend)(...) becomes attend_avx2 and so on.
 */
#ifndef TSR_KERNELS_SIMD_H
#define TSR_KERNELS_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/exp_constants.h"
#include "kernels/dtype.h"

#if defined(TSR_ISA_AVX512)
#define TSR_ISA_NAME(name) name##_avx512
#elif defined(TSR_ISA_AVX2)
#define TSR_ISA_NAME(name) name##_avx2
#else
#define TSR_ISA_NAME(name) name##_plain
#endif

#define TSR_INLINE static inline __attribute__((always_inline, unused))

enum {
    TSR_LANES = 16
};

/* e^x by 2^n * p(r), |r| <= ln 2 / 2; Taylor coefficients 1/k!, about 2 ulp. */

#if defined(TSR_ISA_AVX512)
/* ---- AVX-512: one register ---------------------------------------------------------------------
 */
#include <immintrin.h>

typedef __m512 v16;
typedef __m512i i16;
typedef struct w16 {
    __m512d low, high;
} w16;

TSR_INLINE v16 v16_set1(float x)
{
    return _mm512_set1_ps(x);
}
TSR_INLINE v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
TSR_INLINE void v16_store(float *p, v16 x)
{
    _mm512_storeu_ps(p, x);
}
TSR_INLINE v16 v16_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
TSR_INLINE void v16_store_f16(uint16_t *p, v16 x)
{
    _mm256_storeu_si256((__m256i *)p,
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
TSR_INLINE v16 v16_load_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
/* e4m3 through halves, whose exponents reach as far: v / 256 is a half with the same bits. NaN is
 * not looked for. */
TSR_INLINE v16 v16_load_fp8(const uint8_t *p)
{
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)), 8);
    const __m256i rest = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7F)), 7);

    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_or_si256(sign, rest)), _mm512_set1_ps(256.0F));
}
TSR_INLINE v16 v16_lookup(const float *table, i16 at) /* table[at[i]], 0 <= at[i] < 16 */
{
    return _mm512_permutexvar_ps(at, _mm512_loadu_ps(table));
}
TSR_INLINE v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
TSR_INLINE v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
TSR_INLINE v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
TSR_INLINE v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
TSR_INLINE v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}
TSR_INLINE v16 v16_fma(v16 a, v16 b, v16 c) /* a * b + c, rounded once */
{
    return _mm512_fmadd_ps(a, b, c);
}
TSR_INLINE v16 v16_abs(v16 a)
{
    return _mm512_abs_ps(a);
}
TSR_INLINE v16 v16_choose(v16 a, v16 b, v16 by) /* a where by > 0, b elsewhere */
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(by, _mm512_setzero_ps(), _CMP_GT_OQ), b, a);
}
TSR_INLINE i16 v16_round(v16 a) /* to nearest, ties to even; |a| < 2^31 */
{
    return _mm512_cvtps_epi32(a);
}
TSR_INLINE v16 i16_to_v16(i16 a)
{
    return _mm512_cvtepi32_ps(a);
}
TSR_INLINE i16 i16_add(i16 a, i16 b)
{
    return _mm512_add_epi32(a, b);
}
TSR_INLINE void i16_store(int32_t *p, i16 a)
{
    _mm512_storeu_si512(p, a);
}
TSR_INLINE v16 v16_scale2(v16 a, i16 n) /* a * 2^n for -126 <= n <= 127 */
{
    return _mm512_mul_ps(
        a, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23)));
}
TSR_INLINE v16 v16_load_some(const float *p, int n) /* the first n lanes; the others 0 */
{
    return _mm512_maskz_loadu_ps((__mmask16)((1U << n) - 1U), p);
}
TSR_INLINE void v16_store_some(float *p, v16 x, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1U << n) - 1U), x);
}
TSR_INLINE w16 w16_set1(double x)
{
    return (w16){_mm512_set1_pd(x), _mm512_set1_pd(x)};
}
TSR_INLINE w16 w16_load(const double *p)
{
    return (w16){_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)};
}
TSR_INLINE void w16_store(double *p, w16 a)
{
    _mm512_storeu_pd(p, a.low);
    _mm512_storeu_pd(p + 8, a.high);
}
TSR_INLINE w16 w16_fma_v16(v16 a, double b, w16 c) /* (f64)a * b + c, rounded once */
{
    const __m512d factor = _mm512_set1_pd(b);

    c.low = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(a)), factor, c.low);
    c.high = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1)), factor, c.high);
    return c;
}
TSR_INLINE void w16_store_less(double *p, w16 a, double b) /* p = a - b */
{
    _mm512_storeu_pd(p, _mm512_sub_pd(a.low, _mm512_set1_pd(b)));
    _mm512_storeu_pd(p + 8, _mm512_sub_pd(a.high, _mm512_set1_pd(b)));
}
TSR_INLINE float v16_sum(v16 a)
{
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
TSR_INLINE float v16_largest(v16 a)
{
    return _mm512_reduce_max_ps(a);
}

TSR_INLINE uint32_t v16_above(v16 a, v16 b) /* bit i: lane i of a is greater than that of b */
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}

#elif defined(TSR_ISA_AVX2)
/* ---- AVX2: two registers -----------------------------------------------------------------------
 */
#include <immintrin.h>

typedef struct v16 {
    __m256 low, high;
} v16;
typedef struct i16 {
    __m256i low, high;
} i16;
typedef struct w16 {
    __m256d part[4];
} w16;

TSR_INLINE v16 v16_set1(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
TSR_INLINE v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
TSR_INLINE void v16_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.low);
    _mm256_storeu_ps(p + 8, x.high);
}
TSR_INLINE v16 v16_load_f16(const uint16_t *p)
{
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
TSR_INLINE void v16_store_f16(uint16_t *p, v16 x)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(x.high, _MM_FROUND_TO_NEAREST_INT));
}
TSR_INLINE __m256 tsr_avx2_bf16(const uint16_t *p)
{
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
TSR_INLINE v16 v16_load_bf16(const uint16_t *p)
{
    return (v16){tsr_avx2_bf16(p), tsr_avx2_bf16(p + 8)};
}
TSR_INLINE __m256 tsr_avx2_fp8(__m128i wide)
{
    const __m128i sign = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x80)), 8);
    const __m128i rest = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x7F)), 7);

    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(sign, rest)), _mm256_set1_ps(256.0F));
}
TSR_INLINE v16 v16_load_fp8(const uint8_t *p)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)p);

    return (v16){tsr_avx2_fp8(_mm_cvtepu8_epi16(bytes)),
                 tsr_avx2_fp8(_mm_cvtepu8_epi16(_mm_srli_si128(bytes, 8)))};
}
TSR_INLINE v16 v16_lookup(const float *table, i16 at)
{
    return (v16){_mm256_i32gather_ps(table, at.low, 4), _mm256_i32gather_ps(table, at.high, 4)};
}
TSR_INLINE v16 v16_add(v16 a, v16 b)
{
    return (v16){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
TSR_INLINE v16 v16_sub(v16 a, v16 b)
{
    return (v16){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
TSR_INLINE v16 v16_mul(v16 a, v16 b)
{
    return (v16){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
TSR_INLINE v16 v16_div(v16 a, v16 b)
{
    return (v16){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
TSR_INLINE v16 v16_max(v16 a, v16 b)
{
    return (v16){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
TSR_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
TSR_INLINE v16 v16_abs(v16 a)
{
    const __m256 sign = _mm256_set1_ps(-0.0F);

    return (v16){_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
TSR_INLINE v16 v16_choose(v16 a, v16 b, v16 by) /* a where by > 0, b elsewhere */
{
    const __m256 zero = _mm256_setzero_ps();

    return (v16){_mm256_blendv_ps(b.low, a.low, _mm256_cmp_ps(by.low, zero, _CMP_GT_OQ)),
                 _mm256_blendv_ps(b.high, a.high, _mm256_cmp_ps(by.high, zero, _CMP_GT_OQ))};
}
TSR_INLINE i16 v16_round(v16 a)
{
    return (i16){_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)};
}
TSR_INLINE v16 i16_to_v16(i16 a)
{
    return (v16){_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
}
TSR_INLINE i16 i16_add(i16 a, i16 b)
{
    return (i16){_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
TSR_INLINE void i16_store(int32_t *p, i16 a)
{
    _mm256_storeu_si256((__m256i *)p, a.low);
    _mm256_storeu_si256((__m256i *)(p + 8), a.high);
}
TSR_INLINE __m256 tsr_avx2_exponent(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
TSR_INLINE v16 v16_scale2(v16 a, i16 n)
{
    return (v16){_mm256_mul_ps(a.low, tsr_avx2_exponent(n.low)),
                 _mm256_mul_ps(a.high, tsr_avx2_exponent(n.high))};
}
TSR_INLINE v16 v16_load_some(const float *p, int n)
{
    float lanes[TSR_LANES] = {0};

    memcpy(lanes, p, (size_t)n * sizeof(*p));
    return v16_load(lanes);
}
TSR_INLINE void v16_store_some(float *p, v16 x, int n)
{
    float lanes[TSR_LANES];

    v16_store(lanes, x);
    memcpy(p, lanes, (size_t)n * sizeof(*p));
}
TSR_INLINE w16 w16_set1(double x)
{
    const __m256d all = _mm256_set1_pd(x);

    return (w16){{all, all, all, all}};
}
TSR_INLINE w16 w16_load(const double *p)
{
    return (w16){{_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4), _mm256_loadu_pd(p + 8),
                  _mm256_loadu_pd(p + 12)}};
}
TSR_INLINE void w16_store(double *p, w16 a)
{
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_pd(p + 4 * i, a.part[i]);
    }
}
TSR_INLINE w16 w16_fma_v16(v16 a, double b, w16 c)
{
    const __m256d factor = _mm256_set1_pd(b);

    c.part[0] = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(a.low)), factor, c.part[0]);
    c.part[1] =
        _mm256_fmadd_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(a.low, 1)), factor, c.part[1]);
    c.part[2] = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(a.high)), factor, c.part[2]);
    c.part[3] =
        _mm256_fmadd_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(a.high, 1)), factor, c.part[3]);
    return c;
}
TSR_INLINE void w16_store_less(double *p, w16 a, double b)
{
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_pd(p + 4 * i, _mm256_sub_pd(a.part[i], _mm256_set1_pd(b)));
    }
}
TSR_INLINE float v16_sum(v16 a)
{
    const __m256 h = _mm256_add_ps(a.low, a.high);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
TSR_INLINE float v16_largest(v16 a)
{
    const __m256 h = _mm256_max_ps(a.low, a.high);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
TSR_INLINE uint32_t v16_above(v16 a, v16 b)
{
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, _CMP_GT_OQ));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, _CMP_GT_OQ));

    return (uint32_t)low | (uint32_t)high << 8;
}

#else
/* ---- plain C: the one to believe ---------------------------------------------------------------
 */

typedef struct v16 {
    float lane[TSR_LANES];
} v16;
typedef struct i16 {
    int32_t lane[TSR_LANES];
} i16;
typedef struct w16 {
    double lane[TSR_LANES];
} w16;

#define TSR_EACH_LANE for (int i = 0; i < TSR_LANES; i++)

TSR_INLINE v16 v16_set1(float x)
{
    v16 r;
    TSR_EACH_LANE r.lane[i] = x;
    return r;
}
TSR_INLINE v16 v16_load(const float *p)
{
    v16 r;
    memcpy(r.lane, p, sizeof(r.lane));
    return r;
}
TSR_INLINE void v16_store(float *p, v16 x)
{
    memcpy(p, x.lane, sizeof(x.lane));
}
TSR_INLINE v16 v16_load_f16(const uint16_t *p)
{
    v16 r;
    TSR_EACH_LANE r.lane[i] = tsr_dtype_from_f16(p[i]);
    return r;
}
TSR_INLINE void v16_store_f16(uint16_t *p, v16 x)
{
    TSR_EACH_LANE p[i] = tsr_dtype_to_f16(x.lane[i]);
}
TSR_INLINE v16 v16_load_bf16(const uint16_t *p)
{
    v16 r;
    TSR_EACH_LANE r.lane[i] = tsr_dtype_from_bf16(p[i]);
    return r;
}
TSR_INLINE v16 v16_load_fp8(const uint8_t *p)
{
    v16 r;
    TSR_EACH_LANE r.lane[i] = tsr_dtype_from_fp8(p[i]);
    return r;
}
TSR_INLINE v16 v16_lookup(const float *table, i16 at)
{
    v16 r;
    TSR_EACH_LANE r.lane[i] = table[at.lane[i]];
    return r;
}
TSR_INLINE v16 v16_add(v16 a, v16 b)
{
    TSR_EACH_LANE a.lane[i] += b.lane[i];
    return a;
}
TSR_INLINE v16 v16_sub(v16 a, v16 b)
{
    TSR_EACH_LANE a.lane[i] -= b.lane[i];
    return a;
}
TSR_INLINE v16 v16_mul(v16 a, v16 b)
{
    TSR_EACH_LANE a.lane[i] *= b.lane[i];
    return a;
}
TSR_INLINE v16 v16_div(v16 a, v16 b)
{
    TSR_EACH_LANE a.lane[i] /= b.lane[i];
    return a;
}
TSR_INLINE v16 v16_max(v16 a, v16 b) /* b where either is NaN, as the instruction does */
{
    TSR_EACH_LANE a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}
TSR_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    TSR_EACH_LANE c.lane[i] = fmaf(a.lane[i], b.lane[i], c.lane[i]);
    return c;
}
TSR_INLINE v16 v16_abs(v16 a)
{
    TSR_EACH_LANE a.lane[i] = fabsf(a.lane[i]);
    return a;
}
TSR_INLINE v16 v16_choose(v16 a, v16 b, v16 by) /* a where by > 0, b elsewhere */
{
    TSR_EACH_LANE a.lane[i] = by.lane[i] > 0 ? a.lane[i] : b.lane[i];
    return a;
}
TSR_INLINE i16 v16_round(v16 a)
{
    i16 r;
    TSR_EACH_LANE r.lane[i] = (int32_t)rintf(a.lane[i]);
    return r;
}
TSR_INLINE v16 i16_to_v16(i16 a)
{
    v16 r;
    TSR_EACH_LANE r.lane[i] = (float)a.lane[i];
    return r;
}
TSR_INLINE i16 i16_add(i16 a, i16 b)
{
    TSR_EACH_LANE a.lane[i] += b.lane[i];
    return a;
}
TSR_INLINE void i16_store(int32_t *p, i16 a)
{
    memcpy(p, a.lane, sizeof(a.lane));
}
TSR_INLINE v16 v16_scale2(v16 a, i16 n)
{
    TSR_EACH_LANE a.lane[i] *= ldexpf(1.0F, n.lane[i]);
    return a;
}
TSR_INLINE v16 v16_load_some(const float *p, int n)
{
    v16 r = v16_set1(0.0F);
    memcpy(r.lane, p, (size_t)n * sizeof(*p));
    return r;
}
TSR_INLINE void v16_store_some(float *p, v16 x, int n)
{
    memcpy(p, x.lane, (size_t)n * sizeof(*p));
}
TSR_INLINE w16 w16_set1(double x)
{
    w16 r;
    TSR_EACH_LANE r.lane[i] = x;
    return r;
}
TSR_INLINE w16 w16_load(const double *p)
{
    w16 r;
    memcpy(r.lane, p, sizeof(r.lane));
    return r;
}
TSR_INLINE void w16_store(double *p, w16 a)
{
    memcpy(p, a.lane, sizeof(a.lane));
}
TSR_INLINE w16 w16_fma_v16(v16 a, double b, w16 c)
{
    TSR_EACH_LANE c.lane[i] = fma((double)a.lane[i], b, c.lane[i]);
    return c;
}
TSR_INLINE void w16_store_less(double *p, w16 a, double b)
{
    TSR_EACH_LANE p[i] = a.lane[i] - b;
}
TSR_INLINE float v16_sum(v16 a) /* lanes 8 apart, then 4, 2, 1 */
{
    for (int half = TSR_LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            a.lane[i] += a.lane[i + half];
        }
    }
    return a.lane[0];
}
TSR_INLINE float v16_largest(v16 a)
{
    float largest = a.lane[0];
    TSR_EACH_LANE largest = a.lane[i] > largest ? a.lane[i] : largest;
    return largest;
}
TSR_INLINE uint32_t v16_above(v16 a, v16 b)
{
    uint32_t bits = 0;
    TSR_EACH_LANE bits |= (uint32_t)(a.lane[i] > b.lane[i]) << i;
    return bits;
}
#endif

/* ---- made of the above -------------------------------------------------------------------------
 */

/* e^x for x <= 88; below TSR_EXP_LEAST it is e^TSR_EXP_LEAST, about 1e-38. */
TSR_INLINE v16 v16_exp(v16 x)
{
    static const float taylor[] = {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F};
    const v16 bounded = v16_max(x, v16_set1(TSR_EXP_LEAST));
    const i16 n = v16_round(v16_mul(bounded, v16_set1(TSR_LOG2_E)));
    const v16 whole = i16_to_v16(n);
    v16 r = v16_fma(whole, v16_set1(-TSR_LN2_HIGH), bounded);
    v16 p = v16_set1(taylor[0]);

    r = v16_fma(whole, v16_set1(-TSR_LN2_LOW), r);
    for (int i = 1; i < 7; i++) {
        p = v16_fma(p, r, v16_set1(taylor[i]));
    }
    return v16_scale2(p, n);
}

#endif
