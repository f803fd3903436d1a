#pragma once

#include <immintrin.h>

#include <cstdint>

namespace asymserve {

/// PortableSimd's functions for AVX-512 F, BW, DQ, VL, VNNI.
struct Avx512Simd {
  using F32 = __m512;
  using I32 = __m512i;
  using U8 = __m512i;

  static constexpr int kQuantRows = 16;
  static constexpr int kFloatRows = 4;
  static constexpr int kFloatPanels = 4;
  static constexpr int kScoreRows = 6;
  static constexpr int kValueRows = 4;
  static constexpr int kIntRows = 3;

  // ---- Floats ---------------------------------------------------------------------------------

  static __mmask16 First(int n) { return static_cast<__mmask16>((1u << n) - 1); }
  static F32 Zero() { return _mm512_setzero_ps(); }
  static F32 Set(float value) { return _mm512_set1_ps(value); }
  static F32 Load(const float* p) { return _mm512_loadu_ps(p); }
  static F32 LoadFirst(const float* p, int n) { return _mm512_maskz_loadu_ps(First(n), p); }
  static void Store(float* p, F32 a) { _mm512_storeu_ps(p, a); }
  static void StoreFirst(float* p, F32 a, int n) { _mm512_mask_storeu_ps(p, First(n), a); }
  static F32 Add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
  static F32 Sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
  static F32 Mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
  static F32 Div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
  static F32 Fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
  static F32 Larger(F32 a, F32 b) { return _mm512_max_ps(a, b); }
  static F32 Smaller(F32 a, F32 b) { return _mm512_min_ps(a, b); }
  static void KeepSmaller(F32 value, int32_t i, F32& best, I32& index) {
    const __mmask16 smaller = _mm512_cmp_ps_mask(value, best, _CMP_LT_OQ);
    best = _mm512_mask_mov_ps(best, smaller, value);
    index = _mm512_mask_mov_epi32(index, smaller, _mm512_set1_epi32(i));
  }
  [[gnu::always_inline]] static void Prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
  static F32 KeepFirst(F32 a, int n, F32 other) { return _mm512_mask_mov_ps(other, First(n), a); }
  static float ReduceAdd(F32 a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  static float ReduceLargest(F32 a) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }

  // ---- 16-bit floats --------------------------------------------------------------------------

  static F32 LoadHalf(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F32 LoadHalfFirst(const uint16_t* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(First(n), p));
  }
  static F32 LoadBrain(const uint16_t* p) {
    const __m256i brain = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(brain), 16));
  }
  static void StoreHalf(uint16_t* p, F32 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  // ---- Integers -------------------------------------------------------------------------------

  static I32 LoadInt(const int32_t* p) { return _mm512_loadu_si512(p); }
  static I32 SetInt(int32_t value) { return _mm512_set1_epi32(value); }
  static I32 AddInt(I32 a, I32 b) { return _mm512_add_epi32(a, b); }
  static I32 SubInt(I32 a, I32 b) { return _mm512_sub_epi32(a, b); }
  static I32 AndInt(I32 a, I32 b) { return _mm512_and_si512(a, b); }
  static I32 LargerInt(I32 a, I32 b) { return _mm512_max_epi32(a, b); }
  template <int kShift>
  static I32 ShiftLeftInt(I32 a) {
    return _mm512_slli_epi32(a, kShift);
  }
  template <int kShift>
  static I32 ShiftRightInt(I32 a) {
    return _mm512_srai_epi32(a, kShift);
  }
  static int32_t ReduceAddInt(I32 a) { return _mm512_reduce_add_epi32(a); }
  static int32_t ReduceLargestInt(I32 a) { return _mm512_reduce_max_epi32(a); }
  static I32 ToInt(F32 a) { return _mm512_cvtps_epi32(a); }
  static F32 ToFloat(I32 a) { return _mm512_cvtepi32_ps(a); }
  static I32 Bits(F32 a) { return _mm512_castps_si512(a); }
  static F32 FromBits(I32 a) { return _mm512_castsi512_ps(a); }
  static F32 LoadUint8(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
  }
  template <int kShift>
  static I32 LoadNibbles(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_and_si512(_mm512_srli_epi32(_mm512_cvtepu8_epi32(bytes), kShift),
                            _mm512_set1_epi32(15));
  }
  static F32 Lookup(F32 table, I32 index) { return _mm512_permutexvar_ps(index, table); }
  static F32 LoadInt8(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
  static void StoreInt8(int8_t* p, I32 a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
  }

  // ---- Codes ----------------------------------------------------------------------------------

  static U8 LoadCodes(const uint8_t* p) { return _mm512_loadu_si512(p); }
  template <int kShift, uint8_t kMask>
  static U8 Field(U8 a) {
    const U8 mask = _mm512_set1_epi8(static_cast<char>(kMask));
    if constexpr (kShift > 0) a = _mm512_srli_epi16(a, kShift);
    if constexpr (kShift < 0) a = _mm512_slli_epi16(a, -kShift);
    return _mm512_and_si512(a, mask);
  }
  static U8 Or(U8 a, U8 b) { return _mm512_or_si512(a, b); }
  static U8 RepeatFour(const void* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  static U8 InterleaveFour(const uint8_t* p, int64_t stride) {
    const auto load = [&](int r) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + r * stride));
    };
    const __m128i low01 = _mm_unpacklo_epi8(load(0), load(1));
    const __m128i high01 = _mm_unpackhi_epi8(load(0), load(1));
    const __m128i low23 = _mm_unpacklo_epi8(load(2), load(3));
    const __m128i high23 = _mm_unpackhi_epi8(load(2), load(3));
    const __m256i low =
        _mm256_set_m128i(_mm_unpackhi_epi16(low01, low23), _mm_unpacklo_epi16(low01, low23));
    const __m256i high =
        _mm256_set_m128i(_mm_unpackhi_epi16(high01, high23), _mm_unpacklo_epi16(high01, high23));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
  static U8 KeepFirstFours(U8 a, int n, U8 b) { return _mm512_mask_mov_epi32(b, First(n), a); }
  static U8 LookupBytes(const int8_t* table, U8 index) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), index);
  }
  static U8 AddBytes(U8 a, U8 b) { return _mm512_add_epi8(a, b); }
  template <int kBits>
  static I32 DotFours(I32 sum, U8 a, U8 b) {
    return _mm512_dpbusd_epi32(sum, a, b);
  }
  static void LargestOfFour(I32 a, I32 b, I32 c, I32 d, int32_t* out) {
    FoldFour<LargestInts>(a, b, c, d, out);
  }
  static void ReduceFour(I32 a, I32 b, I32 c, I32 d, int32_t* out) {
    FoldFour<SumOfInts>(a, b, c, d, out);
  }

  // ---- 64 sums of 16 bits ---------------------------------------------------------------------

  /// Of each 128-bit lane's sixteen sums, `low` has the first eight.
  struct S16 {
    __m512i low, high;
  };
  static S16 ZeroSums() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
  static void AddSigned(S16& sums, U8 a, U8 b) {
    const __m512i ones = _mm512_set1_epi8(1);
    sums.low = _mm512_add_epi16(sums.low, _mm512_maddubs_epi16(ones, _mm512_unpacklo_epi8(a, b)));
    sums.high = _mm512_add_epi16(sums.high, _mm512_maddubs_epi16(ones, _mm512_unpackhi_epi8(a, b)));
  }
  static void SumsToFloat(S16 sums, F32 (&out)[4]) {
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    const __m512i halves[2] = {_mm512_permutex2var_epi64(sums.low, first, sums.high),
                               _mm512_permutex2var_epi64(sums.low, second, sums.high)};
    for (int k = 0; k < 2; ++k) {
      out[2 * k] = ToFloat(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(halves[k])));
      out[2 * k + 1] = ToFloat(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(halves[k], 1)));
    }
  }
  template <int kBits, int kFirst, int kCount>
  static I32 Dot(const U8 (&tiles)[8], const int8_t* x, I32 start) {
    for (int j = kFirst; j < kFirst + kCount; ++j) {
      int32_t four;
      __builtin_memcpy(&four, x + 4 * j, sizeof(four));
      start = _mm512_dpbusd_epi32(start, tiles[j], _mm512_set1_epi32(four));
    }
    return start;
  }

 private:
  struct LargestInts {
    static __m512i Of(__m512i a, __m512i b) { return _mm512_max_epi32(a, b); }
    static __m256i Of(__m256i a, __m256i b) { return _mm256_max_epi32(a, b); }
    static __m128i Of(__m128i a, __m128i b) { return _mm_max_epi32(a, b); }
  };
  struct SumOfInts {
    static __m512i Of(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
    static __m256i Of(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
    static __m128i Of(__m128i a, __m128i b) { return _mm_add_epi32(a, b); }
  };
  /// out[0..3] = the lanes of a, b, c, d, each folded into one.
  template <typename Fold>
  static void FoldFour(I32 a, I32 b, I32 c, I32 d, int32_t* out) {
    const __m512i ab = Fold::Of(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd = Fold::Of(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    const __m512i all = Fold::Of(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i eight = Fold::Of(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     Fold::Of(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1)));
  }
};

}  // namespace asymserve
