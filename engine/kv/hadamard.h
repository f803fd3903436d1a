#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace asymserve {

/// x [n] times the orthonormal Hadamard matrix, in blocks of the largest powers of two: 80 = 64 +
/// 16. Its own inverse. Host and device; x[i] is a float that can be assigned.
template <typename Values>
constexpr void HadamardInPlace(const Values& x, int32_t n) {
  int32_t first = 0;
  while (n > 0) {
    const auto size = static_cast<int32_t>(std::bit_floor(static_cast<uint32_t>(n)));
    for (int32_t half = 1; half < size; half *= 2) {
      for (int32_t i = first; i < first + size; i += 2 * half) {
        for (int32_t j = i; j < i + half; ++j) {
          const float a = x[j];
          const float b = x[j + half];
          x[j] = a + b;
          x[j + half] = a - b;
        }
      }
    }
    const float norm = 1.0f / std::sqrt(static_cast<float>(size));
    for (int32_t i = first; i < first + size; ++i) x[i] *= norm;
    first += size;
    n -= size;
  }
}

}  // namespace asymserve
