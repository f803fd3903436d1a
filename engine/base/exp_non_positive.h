#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

// Included by device code and by kernels: no other header of ours.

namespace asymserve {

/// exp(x) for x <= 0 to about 1e-7, never more than 1, and 1 for 0; below -87 as for that. Written
/// so that compilers vectorize it; the same bits on every machine because nothing is fused.
constexpr float ExpNonPositive(float x) {
  x = std::max(x, -87.0f);
  const float scaled = x * 1.44269504f;
  const float rounded = (scaled + 12582912.0f) - 12582912.0f;  // nearest integer
  const float r = (x - rounded * 0.693359375f) - rounded * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t power = (static_cast<int32_t>(rounded) + 127) << 23;
  return p * std::bit_cast<float>(power);
}

}  // namespace asymserve
