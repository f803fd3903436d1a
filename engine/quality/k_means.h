#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace asymserve {

/// A codebook as in PlaneCode: [4][16], channel, then entry.
using Codebook = std::array<float, 64>;

/// N points of 4 channels, an array [N] for each channel. Borrowed.
struct Points {
  std::array<std::span<float>, 4> channel;
  std::span<const float> weight;  // [N], >= 0, their mean 1: how much a point counts; empty: 1

  size_t count() const { return channel[0].size(); }
};

/// Chooses 16 points by k-means++ (Arthur and Vassilvitskii 2007) and moves them to the means of
/// their points `iterations` times (Lloyd); an entry that no point chose stays. A function of its
/// arguments only. There is at least one point, and all are finite.
Codebook TrainCodebook(const Points& points, int32_t iterations, uint64_t seed);

/// entries[i] = the entry nearest to point i, as EncodePlanes chooses it, bit for bit.
void NearestEntries(const Points& points, const Codebook& codebook, std::span<int32_t> entries);

/// Subtracts from each point its entry.
void SubtractEntries(const Points& points, const Codebook& codebook,
                     std::span<const int32_t> entries);

/// Weighted mean square length of the points.
double MeanSquare(const Points& points);

}  // namespace asymserve
