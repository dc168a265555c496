/*
 * kernels/simd_int8.h - integer dot products of sixteen weight rows, three ways; companion of
 * kernels/simd.h. Private to the room.
 *
 * A dword of a vector holds four columns of one weight row; four bytes of x are given to all
 * sixteen. All sums are exact, so how they are taken is each set's own affair:
 *   AVX-512  vpdpbusd: unsigned weights by signed x. Signed weights w go in as w + 128 and the sum
 *            starts at -128 * sum(x), which the quantiser keeps beside x
 *   AVX2     vpmaddubsw. 4-bit weights: int16 sums, 8 * 2 * 15 * 127 fits. Signed ones: |w| by x
 *            with the sign of w; then to int32 at once
 *
 *   b64     64 bytes: 16 rows x 4 columns
 *   dots4   16 running sums over 4-bit weights       dots8   the same over signed bytes
 */
#ifndef TSR_KERNELS_SIMD_INT8_H
#define TSR_KERNELS_SIMD_INT8_H

#include "kernels/simd.h"

/* Keeps a value in the register where it is: gcc would otherwise re-associate exact sums into
 * longer live ranges, and spill. */
#if defined(TSR_ISA_AVX512)
#define TSR_PIN(v) __asm__("" : "+v"(v))
#elif defined(TSR_ISA_AVX2)
#define TSR_PIN(v) __asm__("" : "+x"(v))
#endif

TSR_INLINE int32_t tsr_four_bytes(const int8_t *p)
{
    int32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

#if defined(TSR_ISA_AVX512)
/* ---- AVX-512 VNNI ------------------------------------------------------------------------------
 */

typedef __m512i b64;
typedef __m512i dots4;
typedef __m512i dots8;

TSR_INLINE b64 b64_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}
TSR_INLINE b64 b64_low(b64 a) /* the low nibbles */
{
    return _mm512_and_si512(a, _mm512_set1_epi8(15));
}
TSR_INLINE b64 b64_high(b64 a)
{
    return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15));
}
TSR_INLINE void b64_store(uint8_t *p, b64 a)
{
    _mm512_storeu_si512(p, a);
}
TSR_INLINE b64 b64_signed(b64 a) /* made ready for dots8_add */
{
    return _mm512_xor_si512(a, _mm512_set1_epi8(-128));
}
TSR_INLINE b64 b64_lookup(b64 codes, const int8_t *table) /* of sixteen values */
{
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table)),
                               codes);
}
TSR_INLINE dots4 dots4_zero(void)
{
    return _mm512_setzero_si512();
}
TSR_INLINE dots4 dots4_add(dots4 sum, b64 w, const int8_t *x)
{
    sum = _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(tsr_four_bytes(x)));
    TSR_PIN(sum);
    return sum;
}
TSR_INLINE v16 dots4_value(dots4 sum)
{
    return _mm512_cvtepi32_ps(sum);
}
TSR_INLINE dots8 dots8_start(const int32_t *minus_128_sum)
{
    return _mm512_set1_epi32(*minus_128_sum);
}
TSR_INLINE dots8 dots8_add(dots8 sum, b64 w, const int8_t *x)
{
    return dots4_add(sum, w, x);
}
TSR_INLINE v16 dots8_value(dots8 sum)
{
    return _mm512_cvtepi32_ps(sum);
}
TSR_INLINE int32_t i16_total(i16 a)
{
    return _mm512_reduce_add_epi32(a);
}
TSR_INLINE void i16_store_i8(int8_t *p, i16 a) /* -128 <= a <= 127 */
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a));
}

/* Element by element: the 4 bits from bit `shift` of each dword, and its byte from there with its
 * sign. */
TSR_INLINE i16 b64_nibbles(b64 a, int shift)
{
    return _mm512_and_si512(_mm512_srli_epi32(a, (unsigned)shift), _mm512_set1_epi32(15));
}
TSR_INLINE i16 b64_bytes(b64 a, int shift)
{
    return _mm512_srai_epi32(_mm512_slli_epi32(a, (unsigned)(24 - shift)), 24);
}

#elif defined(TSR_ISA_AVX2)
/* ---- AVX2 --------------------------------------------------------------------------------------
 */

typedef struct b64 {
    __m256i low, high; /* rows 0..7, 8..15 */
} b64;
typedef struct dots4 {
    __m256i low, high; /* two int16 a row */
} dots4;
typedef struct dots8 {
    __m256i low, high; /* int32 */
} dots8;

TSR_INLINE b64 b64_load(const uint8_t *p)
{
    return (b64){_mm256_loadu_si256((const __m256i *)p),
                 _mm256_loadu_si256((const __m256i *)(p + 32))};
}
TSR_INLINE b64 b64_low(b64 a)
{
    const __m256i mask = _mm256_set1_epi8(15);

    return (b64){_mm256_and_si256(a.low, mask), _mm256_and_si256(a.high, mask)};
}
TSR_INLINE b64 b64_high(b64 a)
{
    return b64_low((b64){_mm256_srli_epi16(a.low, 4), _mm256_srli_epi16(a.high, 4)});
}
TSR_INLINE void b64_store(uint8_t *p, b64 a)
{
    _mm256_storeu_si256((__m256i *)p, a.low);
    _mm256_storeu_si256((__m256i *)(p + 32), a.high);
}
TSR_INLINE b64 b64_signed(b64 a)
{
    return a;
}
TSR_INLINE b64 b64_lookup(b64 codes, const int8_t *table)
{
    const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));

    return (b64){_mm256_shuffle_epi8(both, codes.low), _mm256_shuffle_epi8(both, codes.high)};
}
TSR_INLINE dots4 dots4_zero(void)
{
    return (dots4){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
TSR_INLINE dots4 dots4_add(dots4 sum, b64 w, const int8_t *x)
{
    const __m256i four = _mm256_set1_epi32(tsr_four_bytes(x));

    sum.low = _mm256_add_epi16(sum.low, _mm256_maddubs_epi16(w.low, four));
    TSR_PIN(sum.low);
    sum.high = _mm256_add_epi16(sum.high, _mm256_maddubs_epi16(w.high, four));
    TSR_PIN(sum.high);
    return sum;
}
TSR_INLINE v16 dots4_value(dots4 sum)
{
    const __m256i ones = _mm256_set1_epi16(1);

    return (v16){_mm256_cvtepi32_ps(_mm256_madd_epi16(sum.low, ones)),
                 _mm256_cvtepi32_ps(_mm256_madd_epi16(sum.high, ones))};
}
TSR_INLINE dots8 dots8_start(const int32_t *minus_128_sum)
{
    (void)minus_128_sum;
    return (dots8){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
TSR_INLINE __m256i tsr_avx2_dot8(__m256i w, __m256i four)
{
    const __m256i pairs =
        _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(four, w)); // 2 * 128 * 127 fits

    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
TSR_INLINE dots8 dots8_add(dots8 sum, b64 w, const int8_t *x)
{
    const __m256i four = _mm256_set1_epi32(tsr_four_bytes(x));

    sum.low = _mm256_add_epi32(sum.low, tsr_avx2_dot8(w.low, four));
    TSR_PIN(sum.low);
    sum.high = _mm256_add_epi32(sum.high, tsr_avx2_dot8(w.high, four));
    TSR_PIN(sum.high);
    return sum;
}
TSR_INLINE v16 dots8_value(dots8 sum)
{
    return (v16){_mm256_cvtepi32_ps(sum.low), _mm256_cvtepi32_ps(sum.high)};
}
TSR_INLINE int32_t i16_total(i16 a)
{
    const __m256i eight = _mm256_add_epi32(a.low, a.high);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));

    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
}
TSR_INLINE void i16_store_i8(int8_t *p, i16 a)
{
    const __m256i words = _mm256_packs_epi32(a.low, a.high); // quarters 0 2 1 3
    const __m256i in_order = _mm256_permute4x64_epi64(words, 0xD8);

    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(_mm256_castsi256_si128(in_order),
                                                   _mm256_extracti128_si256(in_order, 1)));
}

TSR_INLINE i16 b64_nibbles(b64 a, int shift)
{
    const __m256i mask = _mm256_set1_epi32(15);

    return (i16){_mm256_and_si256(_mm256_srli_epi32(a.low, shift), mask),
                 _mm256_and_si256(_mm256_srli_epi32(a.high, shift), mask)};
}
TSR_INLINE i16 b64_bytes(b64 a, int shift)
{
    return (i16){_mm256_srai_epi32(_mm256_slli_epi32(a.low, 24 - shift), 24),
                 _mm256_srai_epi32(_mm256_slli_epi32(a.high, 24 - shift), 24)};
}

#else
/* ---- plain C -----------------------------------------------------------------------------------
 */

typedef struct b64 {
    int8_t byte[64];
} b64;
typedef i16 dots4;
typedef i16 dots8;

TSR_INLINE b64 b64_load(const uint8_t *p)
{
    b64 r;
    memcpy(r.byte, p, sizeof(r.byte));
    return r;
}
TSR_INLINE b64 b64_low(b64 a)
{
    for (int i = 0; i < 64; i++) {
        a.byte[i] = (int8_t)(a.byte[i] & 15);
    }
    return a;
}
TSR_INLINE b64 b64_high(b64 a)
{
    for (int i = 0; i < 64; i++) {
        a.byte[i] = (int8_t)((uint8_t)a.byte[i] >> 4);
    }
    return a;
}
TSR_INLINE void b64_store(uint8_t *p, b64 a)
{
    memcpy(p, a.byte, sizeof(a.byte));
}
TSR_INLINE b64 b64_signed(b64 a)
{
    return a;
}
TSR_INLINE b64 b64_lookup(b64 codes, const int8_t *table)
{
    for (int i = 0; i < 64; i++) {
        codes.byte[i] = table[codes.byte[i]];
    }
    return codes;
}
TSR_INLINE dots4 dots4_zero(void)
{
    dots4 r;
    TSR_EACH_LANE r.lane[i] = 0;
    return r;
}
TSR_INLINE dots4 dots4_add(dots4 sum, b64 w, const int8_t *x)
{
    TSR_EACH_LANE sum.lane[i] += w.byte[4 * i] * x[0] + w.byte[4 * i + 1] * x[1] +
                                 w.byte[4 * i + 2] * x[2] + w.byte[4 * i + 3] * x[3];
    return sum;
}
TSR_INLINE v16 dots4_value(dots4 sum)
{
    return i16_to_v16(sum);
}
TSR_INLINE dots8 dots8_start(const int32_t *minus_128_sum)
{
    (void)minus_128_sum;
    return dots4_zero();
}
TSR_INLINE dots8 dots8_add(dots8 sum, b64 w, const int8_t *x)
{
    return dots4_add(sum, w, x);
}
TSR_INLINE v16 dots8_value(dots8 sum)
{
    return i16_to_v16(sum);
}
TSR_INLINE int32_t i16_total(i16 a)
{
    int32_t total = 0;
    TSR_EACH_LANE total += a.lane[i];
    return total;
}
TSR_INLINE void i16_store_i8(int8_t *p, i16 a)
{
    TSR_EACH_LANE p[i] = (int8_t)a.lane[i];
}
TSR_INLINE i16 b64_nibbles(b64 a, int shift)
{
    i16 r;
    TSR_EACH_LANE r.lane[i] = (uint8_t)a.byte[4 * i + shift / 8] >> shift % 8 & 15;
    return r;
}
TSR_INLINE i16 b64_bytes(b64 a, int shift)
{
    i16 r;
    TSR_EACH_LANE r.lane[i] = a.byte[4 * i + shift / 8];
    return r;
}
#endif

#endif
