#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/unroll.h"

namespace asymserve {

/// Everything that is neither a product nor attention. Sums go by sixteen lanes, element i in lane
/// i % 16, then through V::ReduceAdd's tree: one order for every instruction set.
template <typename V>
struct Elementwise {
  using F32 = typename V::F32;
  using I32 = typename V::I32;

  /// e^x to about 1 ulp: x = n ln 2 + r, polynomial in r (Cephes, expf.c), times 2^n in two steps
  /// so that results round correctly into the subnormals. NaN gives NaN, -inf gives 0.
  [[gnu::always_inline]] static F32 Exp(F32 x) {
    x = V::Smaller(V::Set(89.0f), V::Larger(V::Set(-104.0f), x));
    const F32 shifter = V::Set(12582912.0f);  // 1.5 * 2^23: the sum's low bits are the integer
    const F32 shifted = V::Fma(x, V::Set(1.44269504f), shifter);
    const F32 n = V::Sub(shifted, shifter);
    F32 r = V::Fma(n, V::Set(-0.693359375f), x);
    r = V::Fma(n, V::Set(2.12194440e-4f), r);
    F32 p = V::Set(1.9875691500e-4f);
    p = V::Fma(p, r, V::Set(1.3981999507e-3f));
    p = V::Fma(p, r, V::Set(8.3334519073e-3f));
    p = V::Fma(p, r, V::Set(4.1665795894e-2f));
    p = V::Fma(p, r, V::Set(1.6666665459e-1f));
    p = V::Fma(p, r, V::Set(5.0000001201e-1f));
    p = V::Fma(p, V::Mul(r, r), r);
    p = V::Add(p, V::Set(1.0f));
    const I32 exponent = V::SubInt(V::Bits(shifted), V::SetInt(0x4B400000));
    const I32 half = V::template ShiftRightInt<1>(exponent);
    return V::Mul(V::Mul(p, PowerOfTwo(half)), PowerOfTwo(V::SubInt(exponent, half)));
  }

  [[gnu::always_inline]] static F32 PowerOfTwo(I32 n) {
    return V::FromBits(V::template ShiftLeftInt<23>(V::AddInt(n, V::SetInt(127))));
  }

  static void ExpAll(float* out, const float* x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
      const int lanes = Lanes(n - i);
      V::StoreFirst(out + i, Exp(V::LoadFirst(x + i, lanes)), lanes);
    }
  }

  static int Lanes(int64_t left) { return left < 16 ? static_cast<int>(left) : 16; }

  /// 1 / rms(x).
  static float InverseRms(const float* x, int64_t n, float epsilon) {
    F32 squares = V::Zero();
    for (int64_t i = 0; i < n; i += 16) {
      const F32 value = V::LoadFirst(x + i, Lanes(n - i));
      squares = V::Fma(value, value, squares);
    }
    const float mean = V::ReduceAdd(squares) / static_cast<float>(n);
    return 1.0f / __builtin_sqrtf(mean + epsilon);
  }

  static void RmsNorm(float* out, const float* x, const float* weight, int64_t n, float epsilon) {
    const F32 inverse = V::Set(InverseRms(x, n, epsilon));
    for (int64_t i = 0; i < n; i += 16) {
      const int lanes = Lanes(n - i);
      const F32 scaled = V::Mul(V::LoadFirst(x + i, lanes), inverse);
      V::StoreFirst(out + i, V::Mul(scaled, V::LoadFirst(weight + i, lanes)), lanes);
    }
  }

  static void Add(float* sum, const float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) sum[i] += x[i];
  }

  static void SwiGlu(float* out, const float* gate, const float* up, int64_t n) {
    const F32 one = V::Set(1.0f);
    for (int64_t i = 0; i < n; i += 16) {
      const int lanes = Lanes(n - i);
      const F32 g = V::LoadFirst(gate + i, lanes);
      const F32 silu = V::Div(g, V::Add(one, Exp(V::Sub(V::Zero(), g))));
      V::StoreFirst(out + i, V::Mul(silu, V::LoadFirst(up + i, lanes)), lanes);
    }
  }

  static void ToHalf(uint16_t* out, const float* x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
      const int lanes = Lanes(n - i);
      uint16_t half[16];
      V::StoreHalf(half, V::LoadFirst(x + i, lanes));
      for (int lane = 0; lane < lanes; ++lane) {
        const uint16_t value = half[lane];
        out[i + lane] = (value & 0x7FFF) == 0x7C00 ? uint16_t{0x7E00} : value;
      }
    }
  }

  /// (first, second) turned by the angle whose cosine and sine are given.
  static void Rotate(float& first, float& second, float cosine, float sine) {
    const float x = first;
    const float y = second;
    first = __builtin_fmaf(x, cosine, -(y * sine));
    second = __builtin_fmaf(y, cosine, x * sine);
  }

  static void RotateHead(float* head, const float* rope, int32_t size, bool interleaved) {
    const int32_t pairs = size / 2;
    if (interleaved) {
      for (int32_t i = 0; i < pairs; ++i) {
        Rotate(head[2 * i], head[2 * i + 1], rope[i], rope[pairs + i]);
      }
    } else {
      for (int32_t i = 0; i < pairs; ++i)
        Rotate(head[i], head[pairs + i], rope[i], rope[pairs + i]);
    }
  }

  static void PrepareQkv(const QkvRow& row) {
    const int32_t size = row.head_size;
    if (row.bias != nullptr) {
      Add(row.qkv, row.bias, int64_t{row.heads + 2 * row.kv_heads} * size);
    }
    for (int32_t head = 0; head < row.heads + row.kv_heads; ++head) {
      float* values = row.qkv + int64_t{head} * size;
      const float* norm = head < row.heads ? row.q_norm : row.k_norm;
      if (norm != nullptr) RmsNorm(values, values, norm, size, row.norm_epsilon);
      if (row.rope != nullptr) RotateHead(values, row.rope, size, row.interleaved);
    }
  }

  /// Fixed point for x [n]: x is about unit * round(x * factor), in [-top, top]; returns the
  /// factor. A largest magnitude below 1e-30 counts as zero; NaN or infinity anywhere makes the
  /// unit NaN.
  static float FixedPoint(const float* x, int32_t n, float top, float* unit) {
    const I32 magnitude = V::SetInt(0x7FFFFFFF);
    I32 largest = V::SetInt(0);
    for (int32_t i = 0; i < n; i += 16) {
      largest =
          V::LargerInt(largest, V::AndInt(V::Bits(V::LoadFirst(x + i, Lanes(n - i))), magnitude));
    }
    const int32_t bits = V::ReduceLargestInt(largest);
    float amax;
    __builtin_memcpy(&amax, &bits, sizeof(amax));
    if (bits >= 0x7F800000) {
      *unit = __builtin_nanf("");
      return 0.0f;
    }
    const bool zero = amax < 1e-30f;
    *unit = zero ? 0.0f : amax / top;
    return zero ? 0.0f : top / amax;
  }

  /// x in [-16256, 16256] as 128 high + low, low in [-64, 63]; returns high.
  [[gnu::always_inline]] static I32 StoreSigned(I32 x, int8_t* high, int8_t* low) {
    const I32 top = V::template ShiftRightInt<7>(V::AddInt(x, V::SetInt(64)));
    V::StoreInt8(high, top);
    V::StoreInt8(low, V::SubInt(x, V::template ShiftLeftInt<7>(top)));
    return top;
  }

  /// x in [0, 2^14) as 128 high + low.
  [[gnu::always_inline]] static void StoreSevenBits(I32 x, uint8_t* high, uint8_t* low) {
    const I32 mask = V::SetInt(127);
    V::StoreInt8(reinterpret_cast<int8_t*>(high), V::AndInt(V::template ShiftRightInt<7>(x), mask));
    V::StoreInt8(reinterpret_cast<int8_t*>(low), V::AndInt(x, mask));
  }

  /// The first `rows` rows of a row tile: per block of 32, scale = amax / 127 and q = round(x /
  /// scale), to nearest even. Blocks below 1e-30 count as zero; a block with a NaN or an infinity
  /// gets scale NaN. What it leaves in the rows behind them is of no use.
  static void Quantize(ActivationBlock* tile, const float* x, int64_t stride, int rows,
                       int64_t blocks) {
    constexpr int kFewRows = 2;  // a group of four lanes would be half empty
    if (rows <= kFewRows) {
      for (int r = 0; r < rows; ++r) QuantizeRow(tile, r, x + r * stride, blocks);
      return;
    }
    for (int64_t b = 0; b < blocks; ++b) QuantizeBlock(tile[b], x + b * kQuantBlock, stride, rows);
  }

 private:
  /// 16 blocks of 32 inputs, of any rows: where each is, and where its codes go.
  struct QuantLanes {
    const float* x[kTileRows];
    int8_t* q[kTileRows];
  };
  struct QuantResults {
    alignas(64) float scale[kTileRows] = {};
    alignas(64) int32_t sums[2][kTileRows] = {};  // of the codes of 16 inputs

    [[gnu::always_inline]] void Put(int lane, ActivationBlock& block, int row) const {
      const int32_t low = sums[0][lane], high = sums[1][lane];
      block.scale[row] = scale[lane];
      block.scaled_sum[row] = scale[lane] * static_cast<float>(low + high);
      block.negative_sum[row] = -(low + high);
      block.negative_half[0][row] = -low;
      block.negative_half[1][row] = -high;
    }
  };

  /// One row, 16 of its blocks at a time.
  static void QuantizeRow(ActivationBlock* tile, int row, const float* x, int64_t blocks) {
    for (int64_t first = 0; first < blocks; first += kTileRows) {
      const int64_t left = blocks - first;
      const int count = left < kTileRows ? static_cast<int>(left) : kTileRows;
      QuantLanes lanes;  // NOLINT(cppcoreguidelines-pro-type-member-init): set below
      for (int i = 0; i < kTileRows; ++i) {
        const int64_t b = first + (i < count ? i : count - 1);
        lanes.x[i] = x + b * kQuantBlock;
        lanes.q[i] = tile[b].q[row];
      }
      QuantResults results;
      QuantizeLanes(lanes, count, results);
      for (int i = 0; i < count; ++i) results.Put(i, tile[first + i], row);
    }
  }

  /// One block of the first `rows` rows.
  static void QuantizeBlock(ActivationBlock& block, const float* x, int64_t stride, int rows) {
    QuantLanes lanes;  // NOLINT(cppcoreguidelines-pro-type-member-init): set below
    for (int r = 0; r < kTileRows; ++r) {
      lanes.x[r] = x + (r < rows ? r : rows - 1) * stride;
      lanes.q[r] = block.q[r];
    }
    QuantResults results;
    QuantizeLanes(lanes, rows, results);
    for (int r = 0; r < kTileRows; ++r) results.Put(r, block, r);
  }

  /// The first `count` lanes, in groups of four: a last group that is not full repeats the last
  /// lane, which writes the same codes again.
  [[gnu::always_inline]] static void QuantizeLanes(const QuantLanes& lanes, int count,
                                                   QuantResults& results) {
    constexpr int kGroup = 4;
    const int end = (count + kGroup - 1) / kGroup * kGroup;
    alignas(64) int32_t largest[kTileRows] = {};
    for (int i = 0; i < end; i += kGroup) {
      I32 magnitude[kGroup];
      Unroll<kGroup>([&](auto j) __attribute__((always_inline)) {
        magnitude[j.value] = LargerMagnitude(lanes.x[i + j.value]);
      });
      V::LargestOfFour(magnitude[0], magnitude[1], magnitude[2], magnitude[3], largest + i);
    }
    alignas(64) float inverse[kTileRows];
    SetScales(largest, end, results.scale, inverse);
    for (int i = 0; i < end; i += kGroup) {
      I32 low[kGroup], high[kGroup];
      Unroll<kGroup>([&](auto j) __attribute__((always_inline)) {
        const int at = i + j.value;
        low[j.value] = Rounded(lanes.x[at], inverse[at]);
        high[j.value] = Rounded(lanes.x[at] + 16, inverse[at]);
        V::StoreInt8(lanes.q[at], low[j.value]);
        V::StoreInt8(lanes.q[at] + 16, high[j.value]);
      });
      V::ReduceFour(low[0], low[1], low[2], low[3], results.sums[0] + i);
      V::ReduceFour(high[0], high[1], high[2], high[3], results.sums[1] + i);
    }
  }

  /// Lane i: the bits of the larger magnitude of x[i] and x[i + 16].
  [[gnu::always_inline]] static I32 LargerMagnitude(const float* x) {
    const I32 magnitude = V::SetInt(0x7FFFFFFF);
    return V::LargerInt(V::AndInt(V::Bits(V::Load(x)), magnitude),
                        V::AndInt(V::Bits(V::Load(x + 16)), magnitude));
  }

  /// From the bits of each lane's largest magnitude: its scale, and what its inputs are multiplied
  /// with, 0 where the scale is 0 or NaN. Of lanes before `end`.
  [[gnu::always_inline]] static void SetScales(const int32_t (&largest)[kTileRows], int end,
                                               float (&scale)[kTileRows],
                                               float (&inverse)[kTileRows]) {
    const F32 amax = V::FromBits(V::LoadInt(largest));
    V::Store(scale, V::Div(amax, V::Set(127.0f)));
    V::Store(inverse, V::Div(V::Set(127.0f), amax));
    constexpr int32_t kInfinity = 0x7F800000;
    constexpr int32_t kSmallest = 0x0DA24260;  // 1e-30
    for (int i = 0; i < end; ++i) {
      const bool usable = largest[i] >= kSmallest && largest[i] < kInfinity;
      if (usable) continue;
      scale[i] = largest[i] >= kInfinity ? __builtin_nanf("") : 0.0f;
      inverse[i] = 0;
    }
  }

  [[gnu::always_inline]] static I32 Rounded(const float* x, float inverse) {
    if (inverse == 0) return V::SetInt(0);
    return V::ToInt(V::Mul(V::Load(x), V::Set(inverse)));
  }
};

}  // namespace asymserve
