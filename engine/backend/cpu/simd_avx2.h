#pragma once

#include <immintrin.h>

#include <cstdint>

namespace asymserve {

/// PortableSimd's functions for AVX2, FMA and F16C: sixteen lanes are two registers.
struct Avx2Simd {
  struct F32 {
    __m256 low, high;
  };
  struct I32 {
    __m256i low, high;
  };
  using U8 = I32;

  static constexpr int kQuantRows = 4;
  static constexpr int kFloatRows = 2;
  static constexpr int kFloatPanels = 2;
  static constexpr int kScoreRows = 1;
  static constexpr int kValueRows = 1;
  static constexpr int kIntRows = 1;

  // ---- Floats ---------------------------------------------------------------------------------

  /// All ones in the first `n` of eight lanes.
  static __m256i First(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static F32 Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F32 Set(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static F32 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static F32 LoadFirst(const float* p, int n) {
    return {_mm256_maskload_ps(p, First(n)), _mm256_maskload_ps(p + 8, First(n - 8))};
  }
  static void Store(float* p, F32 a) {
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
  }
  static void StoreFirst(float* p, F32 a, int n) {
    _mm256_maskstore_ps(p, First(n), a.low);
    _mm256_maskstore_ps(p + 8, First(n - 8), a.high);
  }
  static F32 Add(F32 a, F32 b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  static F32 Sub(F32 a, F32 b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  static F32 Mul(F32 a, F32 b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static F32 Div(F32 a, F32 b) {
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
  }
  static F32 Fma(F32 a, F32 b, F32 c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static F32 Larger(F32 a, F32 b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }
  static F32 Smaller(F32 a, F32 b) {
    return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
  }
  static void HalfKeepSmaller(__m256 value, __m256i i, __m256& best, __m256i& index) {
    const __m256 smaller = _mm256_cmp_ps(value, best, _CMP_LT_OQ);
    best = _mm256_blendv_ps(best, value, smaller);
    index = _mm256_blendv_epi8(index, i, _mm256_castps_si256(smaller));
  }
  static void KeepSmaller(F32 value, int32_t i, F32& best, I32& index) {
    HalfKeepSmaller(value.low, _mm256_set1_epi32(i), best.low, index.low);
    HalfKeepSmaller(value.high, _mm256_set1_epi32(i), best.high, index.high);
  }
  [[gnu::always_inline]] static void Prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
  static F32 KeepFirst(F32 a, int n, F32 other) {
    return {_mm256_blendv_ps(other.low, a.low, _mm256_castsi256_ps(First(n))),
            _mm256_blendv_ps(other.high, a.high, _mm256_castsi256_ps(First(n - 8)))};
  }
  static float ReduceAdd(F32 a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  static float ReduceLargest(F32 a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }

  // ---- 16-bit floats --------------------------------------------------------------------------

  static __m128i Load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static F32 LoadHalf(const uint16_t* p) {
    return {_mm256_cvtph_ps(Load128(p)), _mm256_cvtph_ps(Load128(p + 8))};
  }
  static F32 LoadHalfFirst(const uint16_t* p, int n) {
    alignas(32) uint16_t lanes[16] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return LoadHalf(lanes);
  }
  static __m256 EightBrains(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(Load128(p)), 16));
  }
  static F32 LoadBrain(const uint16_t* p) { return {EightBrains(p), EightBrains(p + 8)}; }
  static void StoreHalf(uint16_t* p, F32 a) {
    const __m128i low = _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m128i high = _mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), low);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), high);
  }

  // ---- Integers -------------------------------------------------------------------------------

  static I32 LoadInt(const int32_t* p) {
    const auto* words = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
  }
  static I32 SetInt(int32_t value) { return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)}; }
  static I32 AddInt(I32 a, I32 b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  }
  static I32 SubInt(I32 a, I32 b) {
    return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
  }
  static I32 AndInt(I32 a, I32 b) {
    return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)};
  }
  static I32 LargerInt(I32 a, I32 b) {
    return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)};
  }
  template <int kShift>
  static I32 ShiftLeftInt(I32 a) {
    return {_mm256_slli_epi32(a.low, kShift), _mm256_slli_epi32(a.high, kShift)};
  }
  template <int kShift>
  static I32 ShiftRightInt(I32 a) {
    return {_mm256_srai_epi32(a.low, kShift), _mm256_srai_epi32(a.high, kShift)};
  }
  static int32_t ReduceAddInt(I32 a) {
    const __m256i eight = _mm256_add_epi32(a.low, a.high);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
  }
  static int32_t ReduceLargestInt(I32 a) {
    const __m256i eight = _mm256_max_epi32(a.low, a.high);
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
  }
  static I32 ToInt(F32 a) { return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)}; }
  static F32 ToFloat(I32 a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
  static I32 Bits(F32 a) { return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}; }
  static F32 FromBits(I32 a) { return {_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)}; }
  static F32 LoadUint8(const uint8_t* p) {
    const __m128i bytes = Load128(p);
    return ToFloat({_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))});
  }
  template <int kShift>
  static I32 LoadNibbles(const uint8_t* p) {
    const __m128i bytes = _mm_and_si128(_mm_srli_epi16(Load128(p), kShift), _mm_set1_epi8(15));
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
  }
  static F32 Lookup(F32 table, I32 index) {
    const auto half = [&](__m256i i) {
      const __m256 low = _mm256_permutevar8x32_ps(table.low, i);
      const __m256 high = _mm256_permutevar8x32_ps(table.high, i);
      return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
    };
    return {half(index.low), half(index.high)};
  }
  static F32 LoadInt8(const int8_t* p) {
    const __m128i bytes = Load128(p);
    return ToFloat({_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))});
  }
  static void StoreInt8(int8_t* p, I32 a) {
    const __m256i low_bytes = _mm256_set1_epi32(0xFF);
    const __m256i words =
        _mm256_permute4x64_epi64(_mm256_packus_epi32(_mm256_and_si256(a.low, low_bytes),
                                                     _mm256_and_si256(a.high, low_bytes)),
                                 0xD8);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }

  // ---- Codes ----------------------------------------------------------------------------------

  static U8 LoadCodes(const uint8_t* p) {
    const auto* words = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
  }
  template <int kShift, uint8_t kMask>
  static __m256i HalfField(__m256i a) {
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(kMask));
    if constexpr (kShift > 0) a = _mm256_srli_epi16(a, kShift);
    if constexpr (kShift < 0) a = _mm256_slli_epi16(a, -kShift);
    return _mm256_and_si256(a, mask);
  }
  template <int kShift, uint8_t kMask>
  static U8 Field(U8 a) {
    return {HalfField<kShift, kMask>(a.low), HalfField<kShift, kMask>(a.high)};
  }
  static U8 Or(U8 a, U8 b) {
    return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)};
  }
  static U8 RepeatFour(const void* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    return SetInt(four);
  }
  static U8 InterleaveFour(const uint8_t* p, int64_t stride) {
    const __m128i row[4] = {Load128(p), Load128(p + stride), Load128(p + 2 * stride),
                            Load128(p + 3 * stride)};
    const __m128i low01 = _mm_unpacklo_epi8(row[0], row[1]);
    const __m128i high01 = _mm_unpackhi_epi8(row[0], row[1]);
    const __m128i low23 = _mm_unpacklo_epi8(row[2], row[3]);
    const __m128i high23 = _mm_unpackhi_epi8(row[2], row[3]);
    return {
        _mm256_set_m128i(_mm_unpackhi_epi16(low01, low23), _mm_unpacklo_epi16(low01, low23)),
        _mm256_set_m128i(_mm_unpackhi_epi16(high01, high23), _mm_unpacklo_epi16(high01, high23))};
  }
  static U8 KeepFirstFours(U8 a, int n, U8 b) {
    return {_mm256_blendv_epi8(b.low, a.low, First(n)),
            _mm256_blendv_epi8(b.high, a.high, First(n - 8))};
  }
  static U8 LookupBytes(const int8_t* table, U8 index) {
    const __m256i entries = _mm256_broadcastsi128_si256(Load128(table));
    return {_mm256_shuffle_epi8(entries, index.low), _mm256_shuffle_epi8(entries, index.high)};
  }
  static U8 AddBytes(U8 a, U8 b) {
    return {_mm256_add_epi8(a.low, b.low), _mm256_add_epi8(a.high, b.high)};
  }
  /// Two products of 7 and 7 bits fit 16 bits; the top bit of 8-bit codes goes apart.
  template <int kBits>
  static __m256i HalfDot(__m256i sum, __m256i a, __m256i b) {
    const __m256i ones = _mm256_set1_epi16(1);
    if constexpr (kBits == 8) {
      const __m256i top = HalfField<0, 0x80>(a);
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(top, b), ones));
      a = HalfField<0, 0x7F>(a);
    }
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
  }
  template <int kBits>
  static I32 DotFours(I32 sum, U8 a, U8 b) {
    return {HalfDot<kBits>(sum.low, a.low, b.low), HalfDot<kBits>(sum.high, a.high, b.high)};
  }
  static void LargestOfFour(I32 a, I32 b, I32 c, I32 d, int32_t* out) {
    FoldFour<LargestInts>(a, b, c, d, out);
  }
  static void ReduceFour(I32 a, I32 b, I32 c, I32 d, int32_t* out) {
    FoldFour<SumOfInts>(a, b, c, d, out);
  }

  // ---- 64 sums of 16 bits ---------------------------------------------------------------------

  /// Sums 0-31 and 32-63: of each 128-bit lane's sixteen sums, `low` has the first eight.
  struct S16 {
    __m256i low[2], high[2];
  };
  static S16 ZeroSums() {
    const __m256i zero = _mm256_setzero_si256();
    return {{zero, zero}, {zero, zero}};
  }
  static void AddHalf(__m256i& low, __m256i& high, __m256i a, __m256i b) {
    const __m256i ones = _mm256_set1_epi8(1);
    low = _mm256_add_epi16(low, _mm256_maddubs_epi16(ones, _mm256_unpacklo_epi8(a, b)));
    high = _mm256_add_epi16(high, _mm256_maddubs_epi16(ones, _mm256_unpackhi_epi8(a, b)));
  }
  static void AddSigned(S16& sums, U8 a, U8 b) {
    AddHalf(sums.low[0], sums.high[0], a.low, b.low);
    AddHalf(sums.low[1], sums.high[1], a.high, b.high);
  }
  static F32 Widen(__m128i low, __m128i high) {
    return ToFloat({_mm256_cvtepi16_epi32(low), _mm256_cvtepi16_epi32(high)});
  }
  static void SumsToFloat(const S16& sums, F32 (&out)[4]) {
    for (int k = 0; k < 2; ++k) {
      out[2 * k] = Widen(_mm256_castsi256_si128(sums.low[k]), _mm256_castsi256_si128(sums.high[k]));
      out[2 * k + 1] = Widen(_mm256_extracti128_si256(sums.low[k], 1),
                             _mm256_extracti128_si256(sums.high[k], 1));
    }
  }
  /// Pairs of byte products are summed in 16 bits: as many tiles as cannot overflow
  /// (2 * 127 * (2^kBits - 1) each), then widened. 8-bit codes go as their low seven bits and their
  /// top bit apart: 2 * 127 * 128 < 2^15.
  template <int kBits, int kFirst, int kCount>
  static I32 Dot(const U8 (&tiles)[8], const int8_t* x, I32 start) {
    constexpr int kFit = kBits <= 4 ? 8 : kBits == 5 ? 4 : kBits == 6 ? 2 : 1;
    constexpr int kRun = kFit < kCount ? kFit : kCount;
    const __m256i ones = _mm256_set1_epi16(1);
    for (int run = kFirst; run < kFirst + kCount; run += kRun) {
      I32 pairs = {_mm256_setzero_si256(), _mm256_setzero_si256()};
      for (int j = run; j < run + kRun; ++j) {
        int32_t word;
        __builtin_memcpy(&word, x + 4 * j, sizeof(word));
        const __m256i four = _mm256_set1_epi32(word);
        U8 codes = tiles[j];
        if constexpr (kBits == 8) {
          const U8 top = Field<0, 0x80>(codes);
          codes = Field<0, 0x7F>(codes);
          start.low = _mm256_add_epi32(
              start.low, _mm256_madd_epi16(_mm256_maddubs_epi16(top.low, four), ones));
          start.high = _mm256_add_epi32(
              start.high, _mm256_madd_epi16(_mm256_maddubs_epi16(top.high, four), ones));
        }
        pairs.low = _mm256_add_epi16(pairs.low, _mm256_maddubs_epi16(codes.low, four));
        pairs.high = _mm256_add_epi16(pairs.high, _mm256_maddubs_epi16(codes.high, four));
      }
      start.low = _mm256_add_epi32(start.low, _mm256_madd_epi16(pairs.low, ones));
      start.high = _mm256_add_epi32(start.high, _mm256_madd_epi16(pairs.high, ones));
    }
    return start;
  }

 private:
  struct LargestInts {
    static __m256i Of(__m256i a, __m256i b) { return _mm256_max_epi32(a, b); }
    static __m128i Of(__m128i a, __m128i b) { return _mm_max_epi32(a, b); }
  };
  struct SumOfInts {
    static __m256i Of(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
    static __m128i Of(__m128i a, __m128i b) { return _mm_add_epi32(a, b); }
  };
  /// out[0..3] = the lanes of a, b, c, d, each folded into one.
  template <typename Fold>
  static void FoldFour(I32 a, I32 b, I32 c, I32 d, int32_t* out) {
    const auto pair = [](I32 x, I32 y) {
      const __m256i xs = Fold::Of(x.low, x.high);
      const __m256i ys = Fold::Of(y.low, y.high);
      return Fold::Of(_mm256_unpacklo_epi32(xs, ys), _mm256_unpackhi_epi32(xs, ys));
    };
    const __m256i ab = pair(a, b);
    const __m256i cd = pair(c, d);
    const __m256i all = Fold::Of(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     Fold::Of(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
  }
};

}  // namespace asymserve
