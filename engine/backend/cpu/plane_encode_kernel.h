#pragma once

#include <cstdint>

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/unroll.h"

namespace asymserve {

/// Encodes a page of one head with a learned code (kv/plane_code.h), sixteen tokens in the lanes:
/// the operations of EncodeBlock in their order, so that the codes are the same, bit for bit.
template <typename V>
struct PlaneEncode {
  using F32 = typename V::F32;
  using I32 = typename V::I32;
  static constexpr int kVectors = kPageTokens / 16;

  /// out [D][64] = x [64][D] - mean.
  static void Centre(const PlaneEncoder& e, const float* x, float* out) {
    for (int32_t d = 0; d < e.head_size; ++d) {
      for (int32_t t = 0; t < kPageTokens; ++t) {
        out[d * kPageTokens + t] = x[int64_t{t} * e.head_size + d] - e.mean[d];
      }
    }
  }

  /// z [D][64] = x [D][64] times encode [D][D] for every token, four channels at a time.
  static void Transform(const PlaneEncoder& e, const float* x, float* z) {
    for (int32_t j = 0; j < e.head_size; j += 4) {
      F32 sum[4][kVectors];
      Unroll<4>([&](auto c) __attribute__((always_inline)) {
        Unroll<kVectors>([&](auto i)
                             __attribute__((always_inline)) { sum[c.value][i.value] = V::Zero(); });
      });
      for (int32_t d = 0; d < e.head_size; ++d) {
        F32 value[kVectors];
        Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
          value[i.value] = V::Load(x + d * kPageTokens + 16 * i.value);
        });
        Unroll<4>([&](auto c) __attribute__((always_inline)) {
          const F32 factor = V::Set(e.encode[int64_t{d} * e.head_size + j + c.value]);
          Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
            F32& s = sum[c.value][i.value];
            s = V::Add(s, V::Mul(value[i.value], factor));
          });
        });
      }
      Unroll<4>([&](auto c) __attribute__((always_inline)) {
        Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
          V::Store(z + (j + c.value) * kPageTokens + 16 * i.value, sum[c.value][i.value]);
        });
      });
    }
  }

  /// The entries nearest to what is left of a subvector of N times sixteen tokens, which are then
  /// subtracted. `left`: its first channel.
  template <int N>
  static void Nearest(const float* codebook, float* left, I32 (&chosen)[N]) {
    F32 x[N][4];
    F32 best[N];
    Unroll<N>([&](auto n) __attribute__((always_inline)) {
      Unroll<4>([&](auto c) __attribute__((always_inline)) {
        x[n.value][c.value] = V::Load(left + c.value * kPageTokens + 16 * n.value);
      });
      best[n.value] = Distance(codebook, 0, x[n.value]);
      chosen[n.value] = V::SetInt(0);
    });
    for (int32_t entry = 1; entry < 16; ++entry) {
      Unroll<N>([&](auto n) __attribute__((always_inline)) {
        V::KeepSmaller(Distance(codebook, entry, x[n.value]), entry, best[n.value],
                       chosen[n.value]);
      });
    }
    Unroll<4>([&](auto c) __attribute__((always_inline)) {
      const F32 table = V::Load(codebook + 16 * c.value);
      Unroll<N>([&](auto n) __attribute__((always_inline)) {
        const F32 entry = V::Lookup(table, chosen[n.value]);
        V::Store(left + c.value * kPageTokens + 16 * n.value, V::Sub(x[n.value][c.value], entry));
      });
    });
  }

  [[gnu::always_inline]] static F32 Distance(const float* codebook, int32_t entry,
                                             const F32 (&x)[4]) {
    F32 sum = V::Zero();
    for (int c = 0; c < 4; ++c) {
      const F32 difference = V::Sub(x[c], V::Set(codebook[16 * c + entry]));
      const F32 square = V::Mul(difference, difference);
      sum = c == 0 ? square : V::Add(sum, square);
    }
    return sum;
  }

  static void Run(const PlaneEncoder& e, const float* x, uint8_t* base, uint8_t* refinement) {
    float centred[kMaxHeadSize * kPageTokens];
    float z[kMaxHeadSize * kPageTokens];
    Centre(e, x, centred);
    Transform(e, centred, z);
    for (int32_t p = 0; p < e.planes; p += 2) {
      uint8_t* out = p < e.base_planes ? base + int64_t{p} / 2 * kPageTokens
                                       : refinement + int64_t{p - e.base_planes} / 2 * kPageTokens;
      I32 low[kVectors];
      I32 high[kVectors];
      Nearest(e.codebooks + int64_t{p} * 64, z + int64_t{4} * e.subvector[p] * kPageTokens, low);
      Nearest(e.codebooks + int64_t{p + 1} * 64, z + int64_t{4} * e.subvector[p + 1] * kPageTokens,
              high);
      Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
        const I32 pair = V::AddInt(low[i.value], V::template ShiftLeftInt<4>(high[i.value]));
        V::StoreInt8(reinterpret_cast<int8_t*>(out) + 16 * i.value, pair);
      });
    }
  }
};

}  // namespace asymserve
