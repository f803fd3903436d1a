#pragma once

#include <bit>
#include <cstdint>

#include "engine/base/float16.h"

// The arithmetic of scalar quantization, one group of values at a time. Host and device: no
// allocation, no library call whose result could differ, a fixed order of operations
// (-ffp-contract=off), so that the CPU and a GPU choose the same codes. always_inline: what kernel
// files use must leave no copy compiled for their instruction set behind.

namespace asymserve {

/// Rounds to nearest even; |x| < 2^22.
[[gnu::always_inline]] constexpr float RoundToEven(float x) {
  const float shifted = x + 12582912.0f;
  return shifted - 12582912.0f;
}

/// x, and one NaN for all of them: which one arithmetic gives differs between a CPU and a GPU.
[[gnu::always_inline]] constexpr float OneNan(float x) {
  const bool is_nan = (std::bit_cast<uint32_t>(x) & 0x7FFFFFFFu) > 0x7F800000u;
  return is_nan ? std::bit_cast<float>(0x7FC00000u) : x;
}

/// x' = zero + scale * code.
struct Levels {
  float scale;
  float zero;
};

/// The code in [0, 2^bits) whose level is nearest. A zero scale and NaN give code 0.
constexpr uint8_t NearestCode(float x, Levels levels, int32_t bits) {
  const auto top = static_cast<float>((1 << bits) - 1);
  const float t = (x - levels.zero) / levels.scale;
  if (!(levels.scale > 0.0f) || !(t > 0.0f)) return 0;
  return static_cast<uint8_t>(t < top ? RoundToEven(t) : top);
}

/// KIVI's quantizer: zero = smallest value, scale = range / (2^bits - 1), both as fp16. `stride`
/// elements from one value to the next; x[i] is a float.
template <typename Values>
constexpr Levels MinMaxLevels(const Values& x, int32_t count, int64_t stride, int32_t bits) {
  float low = x[0];
  float high = x[0];
  for (int32_t i = 1; i < count; ++i) {
    const float value = x[i * stride];
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  constexpr float kLargestHalf = 65504.0f;
  const float scale = (high - low) / static_cast<float>((1 << bits) - 1);
  return {HalfToFloat(FloatToHalf(scale < kLargestHalf ? scale : kLargestHalf)),
          HalfToFloat(FloatToHalf(OneNan(low)))};
}

/// Scale and mean of evenly spaced, centred levels: x' = mean + scale * (code - (2^bits - 1) / 2).
struct CentredLevels {
  float scale;
  float mean;

  [[gnu::always_inline]] constexpr Levels ToLevels(int32_t bits) const {
    return {scale, mean - scale * (static_cast<float>((1 << bits) - 1) * 0.5f)};
  }
};

/// Levels that minimize the squared error of a group: a start from the range, then `kFitRounds`
/// times nearest codes and least squares for scale and mean.
template <typename Values>
constexpr CentredLevels FitLevels(const Values& x, int32_t count, int64_t stride, int32_t bits) {
  constexpr int32_t kFitRounds = 4;
  const float centre = static_cast<float>((1 << bits) - 1) * 0.5f;
  float sum = 0.0f;
  float low = x[0];
  float high = x[0];
  for (int32_t i = 0; i < count; ++i) {
    const float value = x[i * stride];
    sum = sum + value;
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  const float mean = sum / static_cast<float>(count);
  CentredLevels fit = {(high - low) / (2.0f * centre) * (bits == 1 ? 0.6f : 0.8f), mean};
  for (int32_t round = 0; round < kFitRounds && fit.scale > 0.0f; ++round) {
    const Levels levels = fit.ToLevels(bits);
    float code_sum = 0.0f;
    float square_sum = 0.0f;
    float product_sum = 0.0f;
    for (int32_t i = 0; i < count; ++i) {
      const float value = x[i * stride];
      const float level = static_cast<float>(NearestCode(value, levels, bits)) - centre;
      code_sum = code_sum + level;
      square_sum = square_sum + level * level;
      product_sum = product_sum + level * (value - mean);
    }
    const auto n = static_cast<float>(count);
    const float variance = square_sum - code_sum * code_sum / n;
    const float scale = variance > 0.0f ? product_sum / variance : 0.0f;
    if (!(scale > 0.0f)) break;
    fit = {scale, mean - scale * (code_sum / n)};
  }
  return fit;
}

/// 2^(-i/16), i in [0, 16).
struct SixteenthPowers {
  float of[16] = {1.0f,        0.95760328f, 0.91700404f, 0.87812608f, 0.84089642f, 0.80524516f,
                  0.77110541f, 0.73841307f, 0.70710678f, 0.67712777f, 0.64841978f, 0.62092891f,
                  0.59460356f, 0.56939432f, 0.54525387f, 0.52213689f};
};
inline constexpr SixteenthPowers kSixteenthPowers;
#ifdef __CUDACC__
static __constant__ const SixteenthPowers kDeviceSixteenthPowers;  // a device has no host tables
#endif

/// An 8-bit scale relative to the largest of its page: 2^(-code/16), code in [0, 255].
[[gnu::always_inline]] constexpr float ScaleFromCode(uint8_t code) {
#ifdef __CUDA_ARCH__
  const float power = kDeviceSixteenthPowers.of[code % 16];
#else
  const float power = kSixteenthPowers.of[code % 16];
#endif
  return power * std::bit_cast<float>((127u - code / 16u) << 23);
}

/// The code whose scale is nearest to ratio = scale / largest in the logarithm.
constexpr uint8_t ScaleToCode(float ratio) {
  constexpr float kHalfStep = 0.97857206f;  // 2^(-1/32)
  int32_t low = 0;
  int32_t high = 255;
  while (low < high) {  // the first code whose scale, half a step down, is not above the ratio
    const int32_t middle = (low + high) / 2;
    if (ratio >= ScaleFromCode(static_cast<uint8_t>(middle)) * kHalfStep) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return static_cast<uint8_t>(low);
}

}  // namespace asymserve
