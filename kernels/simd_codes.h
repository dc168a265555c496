/*
 * kernels/simd_codes.h - sixteen codes of the cache at once, the three ways of kernels/simd.h.
 * Private to the room.
 */
#ifndef TSR_KERNELS_SIMD_CODES_H
#define TSR_KERNELS_SIMD_CODES_H

#include "kernels/simd.h"

#if defined(TSR_ISA_AVX512)

TSR_INLINE v16 v16_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
TSR_INLINE v16 v16_butterfly(v16 a, int half) /* lanes half apart become their sum and difference */
{
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512 other = _mm512_permutexvar_ps(_mm512_xor_si512(lanes, _mm512_set1_epi32(half)), a);

    return _mm512_mask_sub_ps(_mm512_add_ps(a, other),
                              _mm512_test_epi32_mask(lanes, _mm512_set1_epi32(half)), other, a);
}
TSR_INLINE v16 v16_negative(v16 a) /* 1 where the sign bit is set, 0 elsewhere */
{
    return _mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_castps_si512(a), 31));
}
TSR_INLINE i16 i16_load_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
TSR_INLINE i16 i16_low(i16 a, int n) /* a >> n, without sign */
{
    return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n));
}
TSR_INLINE i16 i16_load_bits(const uint8_t *p, int bits) /* lane i from bit bits * i on, 4 or 2 */
{
    uint32_t words[2];

    memcpy(words, p, bits == 4 ? 8 : 4);
    if (bits == 4) {
        const __m512i both = _mm512_mask_blend_epi32(0xFF00, _mm512_set1_epi32((int)words[0]),
                                                     _mm512_set1_epi32((int)words[1]));

        return _mm512_srlv_epi32(
            both, _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28));
    }
    return _mm512_srlv_epi32(
        _mm512_set1_epi32((int)words[0]),
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
}
TSR_INLINE v16 v16_look_up(v16 table, i16 index) /* by the lowest four bits */
{
    return _mm512_permutexvar_ps(index, table);
}

#elif defined(TSR_ISA_AVX2)

TSR_INLINE v16 v16_load_i8(const int8_t *p)
{
    const __m128i x = _mm_loadu_si128((const __m128i *)p);

    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)))};
}
TSR_INLINE __m256 tsr_avx2_butterfly(__m256 a, int half)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i bit = _mm256_set1_epi32(half);
    const __m256 other = _mm256_permutevar8x32_ps(a, _mm256_xor_si256(lanes, bit));
    const __m256i upper = _mm256_cmpeq_epi32(_mm256_and_si256(lanes, bit), bit);

    return _mm256_blendv_ps(_mm256_add_ps(a, other), _mm256_sub_ps(other, a),
                            _mm256_castsi256_ps(upper));
}
TSR_INLINE v16 v16_butterfly(v16 a, int half) /* lanes half apart become their sum and difference */
{
    if (half == 8) {
        return (v16){_mm256_add_ps(a.low, a.high), _mm256_sub_ps(a.low, a.high)};
    }
    return (v16){tsr_avx2_butterfly(a.low, half), tsr_avx2_butterfly(a.high, half)};
}
TSR_INLINE __m256 tsr_avx2_negative(__m256 a)
{
    return _mm256_cvtepi32_ps(_mm256_srli_epi32(_mm256_castps_si256(a), 31));
}
TSR_INLINE v16 v16_negative(v16 a) /* 1 where the sign bit is set, 0 elsewhere */
{
    return (v16){tsr_avx2_negative(a.low), tsr_avx2_negative(a.high)};
}
TSR_INLINE i16 i16_load_u8(const uint8_t *p)
{
    const __m128i x = _mm_loadu_si128((const __m128i *)p);

    return (i16){_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8))};
}
TSR_INLINE i16 i16_low(i16 a, int n) /* a >> n, without sign */
{
    const __m128i count = _mm_cvtsi32_si128(n);

    return (i16){_mm256_srl_epi32(a.low, count), _mm256_srl_epi32(a.high, count)};
}
TSR_INLINE i16 i16_load_bits(const uint8_t *p, int bits) /* lane i from bit bits * i on, 4 or 2 */
{
    uint32_t words[2];

    memcpy(words, p, bits == 4 ? 8 : 4);
    if (bits == 4) {
        const __m256i by = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);

        return (i16){_mm256_srlv_epi32(_mm256_set1_epi32((int)words[0]), by),
                     _mm256_srlv_epi32(_mm256_set1_epi32((int)words[1]), by)};
    }
    return (i16){_mm256_srlv_epi32(_mm256_set1_epi32((int)words[0]),
                                   _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14)),
                 _mm256_srlv_epi32(_mm256_set1_epi32((int)words[0]),
                                   _mm256_setr_epi32(16, 18, 20, 22, 24, 26, 28, 30))};
}
TSR_INLINE __m256 tsr_avx2_look_up(v16 table, __m256i index)
{
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.low, index),
                            _mm256_permutevar8x32_ps(table.high, index),
                            _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
TSR_INLINE v16 v16_look_up(v16 table, i16 index) /* by the lowest four bits */
{
    return (v16){tsr_avx2_look_up(table, index.low), tsr_avx2_look_up(table, index.high)};
}

#else

TSR_INLINE v16 v16_load_i8(const int8_t *p)
{
    v16 r;
    TSR_EACH_LANE r.lane[i] = (float)p[i];
    return r;
}
TSR_INLINE v16 v16_butterfly(v16 a, int half) /* lanes half apart become their sum and difference */
{
    v16 r;
    TSR_EACH_LANE r.lane[i] =
        (i & half) != 0 ? a.lane[i ^ half] - a.lane[i] : a.lane[i] + a.lane[i ^ half];
    return r;
}
TSR_INLINE v16 v16_negative(v16 a) /* 1 where the sign bit is set, 0 elsewhere */
{
    TSR_EACH_LANE a.lane[i] = signbit(a.lane[i]) ? 1.0F : 0.0F;
    return a;
}
TSR_INLINE i16 i16_load_u8(const uint8_t *p)
{
    i16 r;
    TSR_EACH_LANE r.lane[i] = p[i];
    return r;
}
TSR_INLINE i16 i16_low(i16 a, int n) /* a >> n, without sign */
{
    TSR_EACH_LANE a.lane[i] = (int32_t)((uint32_t)a.lane[i] >> n);
    return a;
}
TSR_INLINE i16 i16_load_bits(const uint8_t *p, int bits) /* lane i from bit bits * i on, 4 or 2 */
{
    i16 r;
    TSR_EACH_LANE r.lane[i] = p[i * bits / 8] >> (i * bits % 8);
    return r;
}
TSR_INLINE v16 v16_look_up(v16 table, i16 index) /* by the lowest four bits */
{
    v16 r;
    TSR_EACH_LANE r.lane[i] = table.lane[index.lane[i] & 15];
    return r;
}

#endif

#endif
