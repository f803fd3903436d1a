#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "engine/base/float16.h"

namespace asymserve {

/// Sixteen lanes in plain C++. The reference for the other instruction sets: each function of
/// theirs returns the same bits.
struct PortableSimd {
  struct F32 {
    float lane[16];
  };
  struct I32 {
    int32_t lane[16];
  };
  struct U8 {
    uint8_t byte[64];
  };

  // Rows (and panels) that the kernels keep in registers at once.
  static constexpr int kQuantRows = 1;
  static constexpr int kFloatRows = 1;
  static constexpr int kFloatPanels = 1;
  static constexpr int kScoreRows = 1;
  static constexpr int kValueRows = 1;
  static constexpr int kIntRows = 1;

  // ---- Floats ---------------------------------------------------------------------------------

  template <typename Function>
  static F32 Map(Function function) {
    F32 result;  // NOLINT(cppcoreguidelines-pro-type-member-init): all set below
    for (int i = 0; i < 16; ++i) result.lane[i] = function(i);
    return result;
  }
  static F32 Zero() { return Set(0.0f); }
  static F32 Set(float value) {
    return Map([&](int) { return value; });
  }
  static F32 Load(const float* p) {
    return Map([&](int i) { return p[i]; });
  }
  /// The first `n` lanes, zero in the others; n in [0, 16].
  static F32 LoadFirst(const float* p, int n) {
    return Map([&](int i) { return i < n ? p[i] : 0.0f; });
  }
  static void Store(float* p, F32 a) { std::memcpy(p, a.lane, sizeof(a.lane)); }
  static void StoreFirst(float* p, F32 a, int n) {
    for (int i = 0; i < n; ++i) p[i] = a.lane[i];
  }
  static F32 Add(F32 a, F32 b) {
    return Map([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static F32 Sub(F32 a, F32 b) {
    return Map([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static F32 Mul(F32 a, F32 b) {
    return Map([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static F32 Div(F32 a, F32 b) {
    return Map([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  /// a * b + c, rounded once.
  static F32 Fma(F32 a, F32 b, F32 c) {
    return Map([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
  }
  /// a > b ? a : b, so b where either is NaN.
  static F32 Larger(F32 a, F32 b) {
    return Map([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  /// a < b ? a : b, so b where either is NaN.
  static F32 Smaller(F32 a, F32 b) {
    return Map([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  /// Where value < best: best = value and index = i.
  static void KeepSmaller(F32 value, int32_t i, F32& best, I32& index) {
    for (int lane = 0; lane < 16; ++lane) {
      if (!(value.lane[lane] < best.lane[lane])) continue;
      best.lane[lane] = value.lane[lane];
      index.lane[lane] = i;
    }
  }
  /// always_inline: g++ takes a function that only prefetches for one without effect.
  [[gnu::always_inline]] static void Prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
  static F32 KeepFirst(F32 a, int n, F32 other) {
    return Map([&](int i) { return i < n ? a.lane[i] : other.lane[i]; });
  }
  /// Lanes i and i + 8, then i and i + 4, i and i + 2, i and i + 1.
  static float ReduceAdd(F32 a) {
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) a.lane[i] = a.lane[i] + a.lane[i + width];
    }
    return a.lane[0];
  }
  /// No lane may be NaN.
  static float ReduceLargest(F32 a) {
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) {
        a.lane[i] = a.lane[i] > a.lane[i + width] ? a.lane[i] : a.lane[i + width];
      }
    }
    return a.lane[0];
  }

  // ---- 16-bit floats --------------------------------------------------------------------------

  static F32 LoadHalf(const uint16_t* p) {
    return Map([&](int i) { return HalfToFloat(p[i]); });
  }
  static F32 LoadHalfFirst(const uint16_t* p, int n) {
    return Map([&](int i) { return i < n ? HalfToFloat(p[i]) : 0.0f; });
  }
  static F32 LoadBrain(const uint16_t* p) {
    return Map([&](int i) { return BrainToFloat(p[i]); });
  }
  /// Rounds to nearest even; values too large become infinite.
  static void StoreHalf(uint16_t* p, F32 a) {
    for (int i = 0; i < 16; ++i) p[i] = FloatToHalf(a.lane[i]);
  }

  // ---- Integers -------------------------------------------------------------------------------

  template <typename Function>
  static I32 MapInt(Function function) {
    I32 result;  // NOLINT(cppcoreguidelines-pro-type-member-init): all set below
    for (int i = 0; i < 16; ++i) result.lane[i] = function(i);
    return result;
  }
  static I32 LoadInt(const int32_t* p) {
    return MapInt([&](int i) { return p[i]; });
  }
  static I32 SetInt(int32_t value) {
    return MapInt([&](int) { return value; });
  }
  static I32 AddInt(I32 a, I32 b) {
    return MapInt([&](int i) {
      return static_cast<int32_t>(static_cast<uint32_t>(a.lane[i]) +
                                  static_cast<uint32_t>(b.lane[i]));
    });
  }
  static I32 SubInt(I32 a, I32 b) {
    return MapInt([&](int i) {
      return static_cast<int32_t>(static_cast<uint32_t>(a.lane[i]) -
                                  static_cast<uint32_t>(b.lane[i]));
    });
  }
  static I32 AndInt(I32 a, I32 b) {
    return MapInt([&](int i) { return a.lane[i] & b.lane[i]; });
  }
  static I32 LargerInt(I32 a, I32 b) {
    return MapInt([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  template <int kShift>
  static I32 ShiftLeftInt(I32 a) {
    return MapInt(
        [&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.lane[i]) << kShift); });
  }
  /// Copies the sign.
  template <int kShift>
  static I32 ShiftRightInt(I32 a) {
    return MapInt([&](int i) { return a.lane[i] >> kShift; });
  }
  static int32_t ReduceAddInt(I32 a) {
    int32_t sum = 0;
    for (const int32_t value : a.lane) sum += value;
    return sum;
  }
  static int32_t ReduceLargestInt(I32 a) {
    int32_t largest = a.lane[0];
    for (const int32_t value : a.lane) largest = value > largest ? value : largest;
    return largest;
  }
  /// Rounds to nearest even; |a| < 2^22.
  static I32 ToInt(F32 a) { return SubInt(Bits(Add(a, Set(12582912.0f))), SetInt(0x4B400000)); }
  static F32 ToFloat(I32 a) {
    return Map([&](int i) { return static_cast<float>(a.lane[i]); });
  }
  static I32 Bits(F32 a) { return std::bit_cast<I32>(a); }
  static F32 FromBits(I32 a) { return std::bit_cast<F32>(a); }
  static F32 LoadUint8(const uint8_t* p) {
    return Map([&](int i) { return static_cast<float>(p[i]); });
  }
  /// (p[i] >> kShift) & 15
  template <int kShift>
  static I32 LoadNibbles(const uint8_t* p) {
    return MapInt([&](int i) { return p[i] >> kShift & 15; });
  }
  /// table.lane[index.lane[i]], indices in [0, 16).
  static F32 Lookup(F32 table, I32 index) {
    return Map([&](int i) { return table.lane[index.lane[i]]; });
  }
  static F32 LoadInt8(const int8_t* p) {
    return Map([&](int i) { return static_cast<float>(p[i]); });
  }
  /// The low bytes.
  static void StoreInt8(int8_t* p, I32 a) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.lane[i]);
  }

  // ---- Codes: 64 unsigned bytes ---------------------------------------------------------------

  template <typename Function>
  static U8 MapCodes(Function function) {
    U8 result;  // NOLINT(cppcoreguidelines-pro-type-member-init): all set below
    for (int i = 0; i < 64; ++i) result.byte[i] = static_cast<uint8_t>(function(i));
    return result;
  }
  static U8 LoadCodes(const uint8_t* p) {
    return MapCodes([&](int i) { return p[i]; });
  }
  /// (a >> kShift) & kMask in each byte; a negative shift is to the left. kMask keeps none of the
  /// bits that a shift of wider words would bring in from the neighbour.
  template <int kShift, uint8_t kMask>
  static U8 Field(const U8& a) {
    return MapCodes([&](int i) {
      if constexpr (kShift >= 0) {
        return a.byte[i] >> kShift & kMask;
      } else {
        return a.byte[i] << -kShift & kMask;
      }
    });
  }
  static U8 Or(const U8& a, const U8& b) {
    return MapCodes([&](int i) { return a.byte[i] | b.byte[i]; });
  }
  /// Four bytes, sixteen times.
  static U8 RepeatFour(const void* p) {
    uint8_t four[4];
    std::memcpy(four, p, sizeof(four));
    return MapCodes([&](int i) { return four[i % 4]; });
  }
  /// Bytes 4n + r = p[r * stride + n], n < 16, r < 4.
  static U8 InterleaveFour(const uint8_t* p, int64_t stride) {
    return MapCodes([&](int i) { return p[i % 4 * stride + i / 4]; });
  }
  /// The first 4n bytes of a, the others of b; n in [0, 16].
  static U8 KeepFirstFours(const U8& a, int n, const U8& b) {
    return MapCodes([&](int i) { return i < 4 * n ? a.byte[i] : b.byte[i]; });
  }
  /// table[index.byte[i]], indices in [0, 16).
  static U8 LookupBytes(const int8_t* table, const U8& index) {
    return MapCodes([&](int i) { return table[index.byte[i]]; });
  }
  /// Sums modulo 256.
  static U8 AddBytes(const U8& a, const U8& b) {
    return MapCodes([&](int i) { return a.byte[i] + b.byte[i]; });
  }
  /// Lane n: sum + a[4n + i] * b[4n + i] over i < 4, exact; a unsigned of at most kBits bits (7 or
  /// 8), b signed in [-127, 127].
  template <int kBits>
  static I32 DotFours(I32 sum, const U8& a, const U8& b) {
    for (int i = 0; i < 64; ++i) sum.lane[i / 4] += a.byte[i] * static_cast<int8_t>(b.byte[i]);
    return sum;
  }
  /// out[0..3] = the largest lanes of a, b, c, d.
  static void LargestOfFour(const I32& a, const I32& b, const I32& c, const I32& d, int32_t* out) {
    out[0] = ReduceLargestInt(a);
    out[1] = ReduceLargestInt(b);
    out[2] = ReduceLargestInt(c);
    out[3] = ReduceLargestInt(d);
  }
  /// out[0..3] = the sums over the lanes of a, b, c, d.
  static void ReduceFour(const I32& a, const I32& b, const I32& c, const I32& d, int32_t* out) {
    out[0] = ReduceAddInt(a);
    out[1] = ReduceAddInt(b);
    out[2] = ReduceAddInt(c);
    out[3] = ReduceAddInt(d);
  }

  // ---- 64 sums of 16 bits ---------------------------------------------------------------------

  struct S16 {
    int16_t lane[64];
  };
  static S16 ZeroSums() { return {}; }
  /// sums[i] += a[i] + b[i], signed bytes.
  static void AddSigned(S16& sums, const U8& a, const U8& b) {
    for (int i = 0; i < 64; ++i) {
      const int both = static_cast<int8_t>(a.byte[i]) + static_cast<int8_t>(b.byte[i]);
      sums.lane[i] = static_cast<int16_t>(sums.lane[i] + both);
    }
  }
  /// out[k] = sums 16 k ... 16 k + 15.
  static void SumsToFloat(const S16& sums, F32 (&out)[4]) {
    for (int k = 0; k < 4; ++k) {
      out[k] = Map([&](int i) { return static_cast<float>(sums.lane[16 * k + i]); });
    }
  }
  /// Lane n: start + sum over tiles j in [kFirst, kFirst + kCount) and i < 4 of
  /// tiles[j][4 n + i] * x[4 j + i], exact. Codes have at most kBits bits, |x| <= 127.
  template <int kBits, int kFirst, int kCount>
  static I32 Dot(const U8 (&tiles)[8], const int8_t* x, I32 start) {
    for (int j = kFirst; j < kFirst + kCount; ++j) {
      for (int n = 0; n < 16; ++n) {
        for (int i = 0; i < 4; ++i) {
          start.lane[n] += tiles[j].byte[4 * n + i] * x[4 * j + i];
        }
      }
    }
    return start;
  }
};

}  // namespace asymserve
