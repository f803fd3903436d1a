#include "engine/kv/plane_code.h"

#include <algorithm>
#include <array>

#include "engine/kv/codec.h"

namespace asymserve {
namespace {

constexpr int32_t kEntries = 16;
constexpr int32_t kChannels = 4;

uint8_t NearestEntry(const float* codebook, const float* x) {
  std::array<float, kEntries> distance = {};
  for (int32_t c = 0; c < kChannels; ++c) {
    for (int32_t entry = 0; entry < kEntries; ++entry) {
      const float difference = x[c] - codebook[c * kEntries + entry];
      distance[static_cast<size_t>(entry)] += difference * difference;
    }
  }
  return static_cast<uint8_t>(std::min_element(distance.begin(), distance.end()) -
                              distance.begin());
}

}  // namespace

void EncodePlanes(const PlaneCode& code, int32_t planes, const float* z, uint8_t* codes) {
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): written before it is read
  std::array<float, kMaxKvHeadSize> left;
  std::copy_n(z, code.head_size, left.begin());
  for (int32_t p = 0; p < planes; ++p) {
    const float* codebook = code.codebook(p);
    float* x = left.data() + kChannels * code.subvector[static_cast<size_t>(p)];
    codes[p] = NearestEntry(codebook, x);
    for (int32_t c = 0; c < kChannels; ++c) x[c] -= codebook[c * kEntries + codes[p]];
  }
}

void TimesMatrix(const float* x, const float* matrix, int32_t n, float* out) {
  std::fill_n(out, n, 0.0f);
  for (int32_t i = 0; i < n; ++i) {
    const float factor = x[i];
    const float* row = matrix + static_cast<int64_t>(i) * n;
    for (int32_t j = 0; j < n; ++j) out[j] += factor * row[j];
  }
}

}  // namespace asymserve
