#pragma once

#include <bit>
#include <cstdint>

namespace asymserve {

/// exp(x) for x <= 0, within 3e-7 relative; 0 below -87. In plain arithmetic, so that a compiler
/// turns loops over it into vector code: a dozen times faster than std::exp.
inline float FastExp(float x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  const float clamped = x > -87.0f ? x : -87.0f;
  const float whole = clamped * kLog2E + kRound;
  const float exponent = whole - kRound;
  const float r = (clamped - exponent * 0.693359375f) + exponent * 2.12194440e-4f;
  float p = 1.9875691e-4f;
  p = p * r + 1.3981999e-3f;
  p = p * r + 8.3334519e-3f;
  p = p * r + 4.1665796e-2f;
  p = p * r + 1.6666666e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const auto bits = std::bit_cast<int32_t>(whole) << 23;  // the exponent's own bits
  const float scaled = std::bit_cast<float>(std::bit_cast<int32_t>(p) + bits);
  return x > -87.0f ? scaled : x <= -87.0f ? 0.0f : x;  // NaN stays NaN
}

}  // namespace asymserve
