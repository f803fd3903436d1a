#include "engine/quality/k_means.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "engine/base/philox.h"

namespace asymserve {
namespace {

constexpr size_t kEntries = 16;
constexpr size_t kChannels = 4;
constexpr size_t kBlock = 64;  // points whose sums are taken together

using Point = std::array<float, kChannels>;

Point At(const Points& points, size_t i) {
  return {points.channel[0][i], points.channel[1][i], points.channel[2][i], points.channel[3][i]};
}

[[gnu::always_inline]] inline float Distance(const Point& x, const float* codebook, size_t entry) {
  float distance = 0.0f;
  for (size_t c = 0; c < kChannels; ++c) {
    const float difference = x[c] - codebook[c * kEntries + entry];
    distance += difference * difference;
  }
  return distance;
}

/// The first point of a random place in the cumulated distances.
size_t Draw(std::span<const float> distances, std::span<const float> weight, double uniform) {
  const auto share = [&](size_t i) {
    return static_cast<double>(weight.empty() ? distances[i] : distances[i] * weight[i]);
  };
  std::vector<double> sums;
  double total = 0;
  for (size_t begin = 0; begin < distances.size(); begin += kBlock) {
    double sum = 0;
    const size_t end = std::min(begin + kBlock, distances.size());
    for (size_t i = begin; i < end; ++i) sum += share(i);
    sums.push_back(sum);
    total += sum;
  }
  double left = uniform * total;
  size_t block = 0;
  while (block + 1 < sums.size() && left >= sums[block]) left -= sums[block++];
  const size_t end = std::min((block + 1) * kBlock, distances.size());
  for (size_t i = block * kBlock; i + 1 < end; ++i) {
    left -= share(i);
    if (left < 0) return i;
  }
  return end - 1;
}

Codebook SpreadPoints(const Points& points, uint64_t seed) {
  Codebook codebook;
  std::vector<float> distances(points.count(), 1.0f);
  for (size_t entry = 0; entry < kEntries; ++entry) {
    const double uniform = PhiloxUniform(seed, 0, static_cast<uint32_t>(entry));
    const Point chosen = At(points, Draw(distances, points.weight, uniform));
    for (size_t c = 0; c < kChannels; ++c) codebook[c * kEntries + entry] = chosen[c];
    const float* x0 = points.channel[0].data();
    const float* x1 = points.channel[1].data();
    const float* x2 = points.channel[2].data();
    const float* x3 = points.channel[3].data();
    for (size_t i = 0; i < distances.size(); ++i) {
      const float distance = Distance({x0[i], x1[i], x2[i], x3[i]}, codebook.data(), entry);
      distances[i] = entry == 0 || distance < distances[i] ? distance : distances[i];
    }
  }
  return codebook;
}

void MoveToMeans(const Points& points, std::span<const int32_t> entries, Codebook& codebook) {
  std::array<std::array<double, kChannels>, kEntries> sums = {};
  std::array<double, kEntries> counts = {};
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto entry = static_cast<size_t>(entries[i]);
    const Point x = At(points, i);
    const double weight = points.weight.empty() ? 1 : static_cast<double>(points.weight[i]);
    for (size_t c = 0; c < kChannels; ++c) sums[entry][c] += weight * static_cast<double>(x[c]);
    counts[entry] += weight;
  }
  for (size_t entry = 0; entry < kEntries; ++entry) {
    if (counts[entry] == 0) continue;
    for (size_t c = 0; c < kChannels; ++c) {
      codebook[c * kEntries + entry] = static_cast<float>(sums[entry][c] / counts[entry]);
    }
  }
}

}  // namespace

Codebook TrainCodebook(const Points& points, int32_t iterations, uint64_t seed) {
  Codebook codebook = SpreadPoints(points, seed);
  std::vector<int32_t> entries(points.count());
  for (int32_t i = 0; i < iterations; ++i) {
    NearestEntries(points, codebook, entries);
    MoveToMeans(points, entries, codebook);
  }
  return codebook;
}

void NearestEntries(const Points& points, const Codebook& codebook, std::span<int32_t> entries) {
  // Entry by entry over a block of points, which the compiler turns into vectors of points.
  for (size_t begin = 0; begin < entries.size(); begin += kBlock) {
    const size_t count = std::min(kBlock, entries.size() - begin);
    std::array<std::array<float, kBlock>, kChannels> x = {};
    std::array<float, kBlock> least = {};
    std::array<int32_t, kBlock> nearest = {};
    least.fill(std::numeric_limits<float>::infinity());
    for (size_t c = 0; c < kChannels; ++c) {
      std::copy_n(points.channel[c].data() + begin, count, x[c].begin());
    }
    for (size_t entry = 0; entry < kEntries; ++entry) {
      for (size_t i = 0; i < kBlock; ++i) {
        const float distance =
            Distance({x[0][i], x[1][i], x[2][i], x[3][i]}, codebook.data(), entry);
        // Without a branch, or it would not become vector code.
        const int32_t nearer = -static_cast<int32_t>(distance < least[i]);
        nearest[i] = (nearest[i] & ~nearer) | (static_cast<int32_t>(entry) & nearer);
        least[i] = distance < least[i] ? distance : least[i];
      }
    }
    std::copy_n(nearest.begin(), count, entries.begin() + static_cast<ptrdiff_t>(begin));
  }
}

void SubtractEntries(const Points& points, const Codebook& codebook,
                     std::span<const int32_t> entries) {
  for (size_t c = 0; c < kChannels; ++c) {
    const float* values = codebook.data() + c * kEntries;
    float* x = points.channel[c].data();
    for (size_t i = 0; i < entries.size(); ++i) x[i] -= values[entries[i]];
  }
}

double MeanSquare(const Points& points) {
  double total = 0;
  for (const std::span<float> channel : points.channel) {
    for (size_t begin = 0; begin < channel.size(); begin += kBlock) {
      double sum = 0;
      const size_t end = std::min(begin + kBlock, channel.size());
      for (size_t i = begin; i < end; ++i) {
        const double weight = points.weight.empty() ? 1 : static_cast<double>(points.weight[i]);
        sum += weight * static_cast<double>(channel[i]) * static_cast<double>(channel[i]);
      }
      total += sum;
    }
  }
  return total / static_cast<double>(points.count());
}

}  // namespace asymserve
