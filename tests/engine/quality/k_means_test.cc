#include "engine/quality/k_means.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "engine/base/philox.h"
#include "engine/kv/plane_code.h"

namespace asymserve {
namespace {

/// Points that own their channels.
struct Cloud {
  explicit Cloud(size_t count) : values(4 * count), points(View(count)) {}
  Points View(size_t count) {
    Points view;
    for (size_t c = 0; c < 4; ++c) view.channel[c] = std::span(values).subspan(c * count, count);
    return view;
  }

  std::vector<float> values;
  Points points;
};

float Uniform(uint64_t seed, uint64_t index) {
  return static_cast<float>(PhiloxUniform(seed, index) - 0.5);
}

/// `count` points about the sixteen corners (+-10, +-10, +-10, +-10).
Cloud Corners(size_t count, float spread) {
  Cloud cloud(count);
  for (size_t i = 0; i < count; ++i) {
    for (size_t c = 0; c < 4; ++c) {
      const float corner = (i % 16 >> c & 1) != 0 ? 10.0f : -10.0f;
      cloud.points.channel[c][i] = corner + spread * Uniform(7, 4 * i + c);
    }
  }
  return cloud;
}

Cloud Random(size_t count) {
  Cloud cloud(count);
  for (size_t i = 0; i < cloud.values.size(); ++i) {
    cloud.values[i] = 100 * Uniform(9, 2 * i) * Uniform(9, 2 * i + 1);
  }
  return cloud;
}

TEST(KMeansTest, FindsPlantedClusters) {
  for (const uint64_t seed : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u}) {
    const Cloud cloud = Corners(1600, 0.5f);
    const Codebook codebook = TrainCodebook(cloud.points, 12, seed);
    std::vector<int32_t> entries(cloud.points.count());
    NearestEntries(cloud.points, codebook, entries);
    for (size_t i = 16; i < entries.size(); ++i) ASSERT_EQ(entries[i], entries[i % 16]) << i;
    SubtractEntries(cloud.points, codebook, entries);
    // A uniform distribution of width 0.5 has the variance 1/48 in each of four channels.
    EXPECT_NEAR(MeanSquare(cloud.points), 4.0 / 48, 0.01);
  }
}

TEST(KMeansTest, MovesEntriesToTheMeansOfTheirPoints) {
  const Cloud cloud = Random(1001);
  const Codebook codebook = TrainCodebook(cloud.points, 300, 1);  // far beyond convergence
  std::vector<int32_t> entries(cloud.points.count());
  NearestEntries(cloud.points, codebook, entries);
  for (size_t entry = 0; entry < 16; ++entry) {
    for (size_t c = 0; c < 4; ++c) {
      double sum = 0;
      int count = 0;
      for (size_t i = 0; i < entries.size(); ++i) {
        if (entries[i] != static_cast<int32_t>(entry)) continue;
        sum += static_cast<double>(cloud.points.channel[c][i]);
        ++count;
      }
      ASSERT_GT(count, 0);
      EXPECT_NEAR(static_cast<double>(codebook[c * 16 + entry]), sum / count, 1e-5);
    }
  }
}

TEST(KMeansTest, IterationsDoNotMakeItWorse) {
  double before = 1e30;
  for (const int iterations : {0, 1, 2, 5, 12, 40}) {
    const Cloud cloud = Random(999);
    const Codebook codebook = TrainCodebook(cloud.points, iterations, 4);
    std::vector<int32_t> entries(cloud.points.count());
    NearestEntries(cloud.points, codebook, entries);
    SubtractEntries(cloud.points, codebook, entries);
    const double left = MeanSquare(cloud.points);
    EXPECT_LE(left, before * (1 + 1e-6)) << iterations;
    before = left;
  }
}

TEST(KMeansTest, ChoosesTheEntriesThatTheCodecChooses) {
  const Cloud cloud = Random(333);  // not a multiple of the block
  PlaneCode code;
  code.head_size = 4;
  code.subvector = {0};
  const Codebook codebook = TrainCodebook(cloud.points, 2, 3);
  code.codebooks.assign(codebook.begin(), codebook.end());
  std::vector<int32_t> entries(cloud.points.count());
  NearestEntries(cloud.points, codebook, entries);
  for (size_t i = 0; i < entries.size(); ++i) {
    float z[4];
    for (size_t c = 0; c < 4; ++c) z[c] = cloud.points.channel[c][i];
    uint8_t chosen = 99;
    EncodePlanes(code, 1, z, &chosen);
    ASSERT_EQ(entries[i], chosen) << i;
  }
}

TEST(KMeansTest, TakesTheLowestOfEqualEntries) {
  Cloud cloud(1);
  const Codebook codebook = {};
  std::vector<int32_t> entries = {99};
  NearestEntries(cloud.points, codebook, entries);
  EXPECT_EQ(entries[0], 0);
}

TEST(KMeansTest, CopesWithFewerDistinctPointsThanEntries) {
  Cloud cloud(40);
  for (size_t i = 0; i < 40; ++i) cloud.points.channel[2][i] = i % 3 == 0 ? 5.0f : -1.0f;
  const Codebook codebook = TrainCodebook(cloud.points, 12, 1);
  std::vector<int32_t> entries(40);
  NearestEntries(cloud.points, codebook, entries);
  SubtractEntries(cloud.points, codebook, entries);
  EXPECT_EQ(MeanSquare(cloud.points), 0);
}

TEST(KMeansTest, IsAFunctionOfItsSeed) {
  const Cloud cloud = Random(500);
  EXPECT_EQ(TrainCodebook(cloud.points, 3, 1), TrainCodebook(cloud.points, 3, 1));
  EXPECT_NE(TrainCodebook(cloud.points, 3, 1), TrainCodebook(cloud.points, 3, 2));
}

}  // namespace
}  // namespace asymserve
