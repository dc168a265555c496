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
TSR_INLINE i16 i16_load_quarters(const char *const p[4]) /* 16 bytes each */
{
    const __m512i a = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p[0]));
    const __m512i b = _mm512_inserti32x4(a, _mm_loadu_si128((const __m128i *)p[1]), 1);
    const __m512i c = _mm512_inserti32x4(b, _mm_loadu_si128((const __m128i *)p[2]), 2);

    return _mm512_inserti32x4(c, _mm_loadu_si128((const __m128i *)p[3]), 3);
}
TSR_INLINE void i16_turn_quarters(i16 x[4]) /* lane 4 k + j of x[i] becomes 4 k + i of x[j] */
{
    const __m512i a = _mm512_unpacklo_epi32(x[0], x[1]);
    const __m512i b = _mm512_unpacklo_epi32(x[2], x[3]);
    const __m512i c = _mm512_unpackhi_epi32(x[0], x[1]);
    const __m512i d = _mm512_unpackhi_epi32(x[2], x[3]);

    x[0] = _mm512_unpacklo_epi64(a, b);
    x[1] = _mm512_unpackhi_epi64(a, b);
    x[2] = _mm512_unpacklo_epi64(c, d);
    x[3] = _mm512_unpackhi_epi64(c, d);
}
TSR_INLINE i16 i16_part_halves(i16 a) /* the low half of each lane, then the high ones */
{
    const __m512i lows =
        _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28, 26, 24,
                         22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);

    return _mm512_permutexvar_epi16(lows, a);
}
TSR_INLINE i16 i16_part_bytes(i16 a) /* likewise the four bytes */
{
    const __m512i apart =
        _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6,
                                                                    10, 14, 3, 7, 11, 15)));

    return _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), apart);
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
TSR_INLINE __m256i tsr_avx2_two(const char *low, const char *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)),
                                   _mm_loadu_si128((const __m128i *)high), 1);
}
TSR_INLINE i16 i16_load_quarters(const char *const p[4]) /* 16 bytes each */
{
    return (i16){tsr_avx2_two(p[0], p[1]), tsr_avx2_two(p[2], p[3])};
}
TSR_INLINE void tsr_avx2_turn(__m256i x[4])
{
    const __m256i a = _mm256_unpacklo_epi32(x[0], x[1]);
    const __m256i b = _mm256_unpacklo_epi32(x[2], x[3]);
    const __m256i c = _mm256_unpackhi_epi32(x[0], x[1]);
    const __m256i d = _mm256_unpackhi_epi32(x[2], x[3]);

    x[0] = _mm256_unpacklo_epi64(a, b);
    x[1] = _mm256_unpackhi_epi64(a, b);
    x[2] = _mm256_unpacklo_epi64(c, d);
    x[3] = _mm256_unpackhi_epi64(c, d);
}
TSR_INLINE void i16_turn_quarters(i16 x[4]) /* lane 4 k + j of x[i] becomes 4 k + i of x[j] */
{
    __m256i low[4] = {x[0].low, x[1].low, x[2].low, x[3].low};
    __m256i high[4] = {x[0].high, x[1].high, x[2].high, x[3].high};

    tsr_avx2_turn(low);
    tsr_avx2_turn(high);
    for (int i = 0; i < 4; i++) {
        x[i] = (i16){low[i], high[i]};
    }
}
TSR_INLINE __m256i tsr_avx2_part_halves(__m256i a)
{
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));

    return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(a, order), 0xD8);
}
TSR_INLINE i16 i16_part_halves(i16 a) /* the low half of each lane, then the high ones */
{
    const __m256i low = tsr_avx2_part_halves(a.low);
    const __m256i high = tsr_avx2_part_halves(a.high);

    return (i16){_mm256_permute2x128_si256(low, high, 0x20),
                 _mm256_permute2x128_si256(low, high, 0x31)};
}
TSR_INLINE __m256i tsr_avx2_part_bytes(__m256i a)
{
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));

    return _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(a, order),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
TSR_INLINE i16 i16_part_bytes(i16 a) /* likewise the four bytes */
{
    const __m256i low = tsr_avx2_part_bytes(a.low);
    const __m256i high = tsr_avx2_part_bytes(a.high);
    const __m256i even = _mm256_unpacklo_epi64(low, high);
    const __m256i odd = _mm256_unpackhi_epi64(low, high);

    return (i16){_mm256_permute2x128_si256(even, odd, 0x20),
                 _mm256_permute2x128_si256(even, odd, 0x31)};
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
TSR_INLINE i16 i16_load_quarters(const char *const p[4]) /* 16 bytes each */
{
    i16 r;
    for (int k = 0; k < 4; k++) {
        memcpy(&r.lane[4 * k], p[k], 16);
    }
    return r;
}
TSR_INLINE void i16_turn_quarters(i16 x[4]) /* lane 4 k + j of x[i] becomes 4 k + i of x[j] */
{
    for (int k = 0; k < TSR_LANES; k += 4) {
        for (int i = 0; i < 4; i++) {
            for (int j = i + 1; j < 4; j++) {
                const int32_t lane = x[i].lane[k + j];

                x[i].lane[k + j] = x[j].lane[k + i];
                x[j].lane[k + i] = lane;
            }
        }
    }
}
TSR_INLINE i16 i16_part_halves(i16 a) /* the low half of each lane, then the high ones */
{
    uint16_t halves[2 * TSR_LANES];
    uint16_t apart[2 * TSR_LANES];

    memcpy(halves, &a, sizeof(halves));
    for (int i = 0; i < 2 * TSR_LANES; i++) {
        apart[i % 2 * TSR_LANES + i / 2] = halves[i];
    }
    memcpy(&a, apart, sizeof(a));
    return a;
}
TSR_INLINE i16 i16_part_bytes(i16 a) /* likewise the four bytes */
{
    uint8_t bytes[4 * TSR_LANES];
    uint8_t apart[4 * TSR_LANES];

    memcpy(bytes, &a, sizeof(bytes));
    for (int i = 0; i < 4 * TSR_LANES; i++) {
        apart[i % 4 * TSR_LANES + i / 4] = bytes[i];
    }
    memcpy(&a, apart, sizeof(a));
    return a;
}

#endif

#endif
