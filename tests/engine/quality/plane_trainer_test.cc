#include "engine/quality/plane_trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "engine/base/float16.h"
#include "engine/base/philox.h"
#include "engine/kv/codec.h"
#include "engine/kv/plane_inverse.h"
#include "engine/quality/kv_curvature.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::IsOk;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

/// Roughly normal, standard deviation 1.
float Noise(uint64_t seed, uint64_t index) {
  double sum = -6;
  for (uint32_t i = 0; i < 12; ++i) sum += PhiloxUniform(seed, index, i);
  return static_cast<float>(sum);
}

/// Correlated rows of unequal spread about a mean.
std::vector<float> Rows(int32_t n, int32_t count, uint64_t seed = 1) {
  std::vector<float> rows;
  for (int32_t i = 0; i < count; ++i) {
    const auto row = static_cast<uint64_t>(i * n);
    for (int32_t d = 0; d < n; ++d) {
      const float own = Noise(seed, row + static_cast<uint64_t>(d));
      const float shared = Noise(seed, row + static_cast<uint64_t>(d / 3));
      rows.push_back(2.0f * static_cast<float>(d % 5) - 3 + own / static_cast<float>(1 + d % 7) +
                     shared);
    }
  }
  return rows;
}

SquareMatrix Metric(int32_t n, uint64_t seed = 2) {
  SquareMatrix a(n);
  for (size_t i = 0; i < a.values.size(); ++i) a.values[i] = PhiloxUniform(seed, i) - 0.3;
  return Product(a, Transpose(a));
}

TrainedPlanes Train(const std::vector<float>& rows, const SquareMatrix& metric,
                    const PlaneTraining& training = {}) {
  auto trained = TrainPlanes(rows, {}, metric, training);
  EXPECT_THAT(trained, IsOk());
  return trained.ok() ? *std::move(trained) : TrainedPlanes();
}

void ExpectEqual(const TrainedPlanes& a, const TrainedPlanes& b) {
  EXPECT_EQ(a.code.subvector, b.code.subvector);
  EXPECT_EQ(a.code.codebooks, b.code.codebooks);
  EXPECT_EQ(a.code.encode, b.code.encode);
  EXPECT_EQ(a.code.decode, b.code.decode);
  EXPECT_EQ(a.code.mean, b.code.mean);
  EXPECT_EQ(a.distortion, b.distortion);
}

/// Mean of (x - x')^T (metric + ridge) (x - x') after the codec has stored the rows in `planes`
/// planes, half of them as refinement.
double RoundTripDistortion(const PlaneCode& code, const std::vector<float>& rows,
                           SquareMatrix metric, double ridge, int32_t planes) {
  const int32_t n = metric.n;
  double diagonal = 0;
  for (int32_t d = 0; d < n; ++d) diagonal += metric.at(d, d) / n;
  for (int32_t d = 0; d < n; ++d) metric.at(d, d) += ridge * diagonal;
  const auto base = static_cast<uint8_t>(std::max(2, planes / 4 * 2));
  const KvItem item = {
      .codec = KvCodec::kPlanes, .base_planes = base, .fresh_planes = static_cast<uint8_t>(planes)};
  const size_t block = static_cast<size_t>(kKvPageTokens * n);
  std::vector<uint8_t> base_bytes(
      static_cast<size_t>(PadKvBlock(KvBlockBytes(item, KvTensor::kKey, n, base))));
  std::vector<uint8_t> refinement(static_cast<size_t>(
      PadKvBlock(KvBlockBytes(item, KvTensor::kKey, n, std::max(planes - base, 2)))));
  std::vector<float> back(block);
  double sum = 0;
  for (size_t begin = 0; begin < rows.size(); begin += block) {
    const float* x = rows.data() + begin;
    EncodeBlock(item, KvTensor::kKey, n, &code, x, base_bytes.data(), refinement.data());
    DecodeBlock(item, KvTensor::kKey, n, &code, base_bytes.data(),
                planes > base ? refinement.data() : nullptr, back.data());
    for (size_t row = 0; row < block; row += static_cast<size_t>(n)) {
      for (int32_t i = 0; i < n; ++i) {
        for (int32_t j = 0; j < n; ++j) {
          const size_t a = row + static_cast<size_t>(i);
          const size_t b = row + static_cast<size_t>(j);
          sum += static_cast<double>(x[a] - back[a]) * metric.at(i, j) *
                 static_cast<double>(x[b] - back[b]);
        }
      }
    }
  }
  return sum * n / static_cast<double>(rows.size());
}

TEST(PlaneTrainerTest, EachPlaneRemovesDistortionAndLaterOnesLess) {
  const TrainedPlanes trained = Train(Rows(32, 2000), Metric(32), {.max_planes = 32});
  ASSERT_EQ(trained.code.planes(), 32);
  ASSERT_EQ(trained.distortion.size(), 33u);
  for (size_t p = 1; p < 33; ++p) EXPECT_LT(trained.distortion[p], trained.distortion[p - 1]);
  EXPECT_LT(trained.distortion[8], 0.2 * trained.distortion[0]);
  EXPECT_LT(trained.distortion[32], 0.01 * trained.distortion[0]);
}

TEST(PlaneTrainerTest, PrefixesAreTheCodesOfFewerPlanes) {
  const std::vector<float> rows = Rows(16, 700);
  const TrainedPlanes all = Train(rows, Metric(16), {.max_planes = 16});
  for (const int32_t planes : {2, 6, 10}) {
    const TrainedPlanes few = Train(rows, Metric(16), {.max_planes = planes});
    ASSERT_EQ(few.code.planes(), planes);
    const auto count = static_cast<size_t>(planes);
    EXPECT_TRUE(std::equal(few.code.subvector.begin(), few.code.subvector.end(),
                           all.code.subvector.begin()));
    EXPECT_TRUE(std::equal(few.code.codebooks.begin(), few.code.codebooks.end(),
                           all.code.codebooks.begin()));
    EXPECT_EQ(few.code.encode, all.code.encode);
    EXPECT_EQ(few.distortion[count], all.distortion[count]);
  }
}

TEST(PlaneTrainerTest, ReportsTheDistortionThatTheCodecHas) {
  for (const int32_t n : {8, 24, 64}) {
    const std::vector<float> rows = Rows(n, 320);
    const TrainedPlanes trained = Train(rows, Metric(n), {.max_planes = 24});
    for (int32_t planes = 2; planes <= trained.code.planes(); planes += 6) {
      const double actual = RoundTripDistortion(trained.code, rows, Metric(n), 0.03, planes);
      const double reported = trained.distortion[static_cast<size_t>(planes)];
      EXPECT_NEAR(actual, reported, 3e-3 * reported) << n << ", " << planes << " planes";
    }
  }
}

TEST(PlaneTrainerTest, FindsAPlantedCode) {
  // Every pair of entries of two planted codebooks once, so that their channels are uncorrelated.
  std::vector<float> rows;
  SquareMatrix mix(8);
  for (size_t i = 0; i < 64; ++i) {
    mix.values[i] = (i % 9 == 0 ? 1 : 0) + 0.1 * static_cast<double>(Noise(5, i));
  }
  for (uint64_t first = 0; first < 16; ++first) {
    for (uint64_t second = 0; second < 16; ++second) {
      for (int32_t d = 0; d < 8; ++d) {
        double x = 1;
        for (int32_t c = 0; c < 4; ++c) {
          const auto channel = static_cast<uint64_t>(c);
          x += mix.at(d, c) * 10 * static_cast<double>(Noise(3, 4 * first + channel));
          x += mix.at(d, 4 + c) * static_cast<double>(Noise(4, 4 * second + channel));
        }
        rows.push_back(static_cast<float>(x));
      }
    }
  }
  // The metric in which the planted channels are orthonormal.
  SquareMatrix inverse(8);
  const std::vector<float> mix_floats(mix.values.begin(), mix.values.end());
  const auto inverted = InverseOf(mix_floats, 8);
  ASSERT_THAT(inverted, IsOk());
  inverse.values.assign(inverted->begin(), inverted->end());
  const SquareMatrix metric = Product(Transpose(inverse), inverse);
  const TrainedPlanes trained = Train(rows, metric, {.max_planes = 4, .ridge = 0});
  EXPECT_EQ(trained.code.subvector[0], 0);
  EXPECT_EQ(trained.code.subvector[1], 1);
  EXPECT_LT(trained.distortion[2], 1e-5 * trained.distortion[0]);
}

TEST(PlaneTrainerTest, TablesAreFp16ValuesAndDecodeIsTheirInverse) {
  const TrainedPlanes trained = Train(Rows(16, 300), Metric(16), {.max_planes = 8});
  const PlaneCode& code = trained.code;
  for (const std::vector<float>* table : {&code.encode, &code.mean, &code.codebooks}) {
    for (const float value : *table) ASSERT_EQ(HalfToFloat(FloatToHalf(value)), value);
  }
  const auto inverse = InverseOf(code.encode, 16);
  ASSERT_THAT(inverse, IsOk());
  EXPECT_EQ(*inverse, code.decode);
}

TEST(PlaneTrainerTest, KeepsToFp16WhateverTheUnits) {
  const std::vector<float> rows = Rows(16, 400);
  const TrainedPlanes plain = Train(rows, Metric(16), {.max_planes = 8});
  for (const float unit : {1e-3f, 16.0f, 1e3f}) {
    for (const double scale : {1e-8, 1.0, 1e8}) {
      std::vector<float> scaled = rows;
      for (float& value : scaled) value *= unit;
      SquareMatrix metric = Metric(16);
      for (double& value : metric.values) value *= scale;
      const TrainedPlanes trained = Train(scaled, metric, {.max_planes = 8});
      const double factor = static_cast<double>(unit) * static_cast<double>(unit) * scale;
      EXPECT_NEAR(trained.distortion[0] / factor, plain.distortion[0], 0.01 * plain.distortion[0]);
      EXPECT_NEAR(trained.distortion[8] / factor, plain.distortion[8], 0.1 * plain.distortion[8]);
      float largest = 0;
      for (const float value : trained.code.codebooks) largest = std::max(largest, value);
      EXPECT_GT(largest, 4) << unit << ", " << scale;
      EXPECT_LT(largest, 4096) << unit << ", " << scale;
    }
  }
}

TEST(PlaneTrainerTest, CodesRowsThatAreAllEqual) {
  const std::vector<float> rows(8 * 20, 1.5f);
  const TrainedPlanes trained = Train(rows, Metric(8), {.max_planes = 4});
  EXPECT_EQ(trained.code.planes(), 4);
  for (const double distortion : trained.distortion) EXPECT_EQ(distortion, 0);
}

TEST(PlaneTrainerTest, RowsOfNoWeightDoNotCount) {
  std::vector<float> rows = Rows(8, 200);
  const std::vector<float> others = Rows(8, 100, 99);
  std::vector<float> weights(200, 1.0f);
  weights.resize(300, 0.0f);
  std::vector<float> more = rows;
  more.insert(more.end(), others.begin(), others.end());
  for (float& weight : weights) weight *= 1.5f;  // a mean of 1
  const auto with = TrainPlanes(more, weights, Metric(8), {.max_planes = 6});
  ASSERT_THAT(with, IsOk());
  const TrainedPlanes without = Train(rows, Metric(8), {.max_planes = 6});
  EXPECT_EQ(with->code.mean, without.code.mean);
  for (size_t p = 0; p <= 6; ++p) {
    EXPECT_NEAR(with->distortion[p], without.distortion[p], 0.2 * without.distortion[p]) << p;
  }
}

TEST(PlaneTrainerTest, RefusesWhatItCannotTrain) {
  const std::vector<float> rows = Rows(8, 64);
  EXPECT_THAT(TrainPlanes(rows, std::vector<float>(63, 1.0f), Metric(8), {}),
              FailsWith(kInvalid, "63 weights of 64 rows"));
  EXPECT_THAT(TrainPlanes(Rows(8, 15), {}, Metric(8), {}),
              FailsWith(kInvalid, "are not 16 or more"));
  EXPECT_THAT(TrainPlanes(rows, {}, Metric(12), {}), FailsWith(kInvalid, "head size 12"));
  EXPECT_THAT(TrainPlanes(rows, {}, Metric(8), {.max_planes = 3}), FailsWith(kInvalid, "3 planes"));
  EXPECT_THAT(TrainPlanes(rows, {}, Metric(8), {.stages = 0}), FailsWith(kInvalid, "0 stages"));
  EXPECT_THAT(TrainPlanes(rows, {}, SquareMatrix(8), {}), FailsWith(kInvalid, "metric: "));
  std::vector<float> bad = rows;
  bad[77] = std::nanf("");
  EXPECT_THAT(TrainPlanes(bad, {}, Metric(8), {}), FailsWith(kInvalid, "a row has NaN"));
  bad.assign(bad.size(), 1e5f);
  EXPECT_THAT(TrainPlanes(bad, {}, Metric(8), {}),
              FailsWith(kInvalid, "mean has 100000, which fp16 cannot hold"));
}

constexpr KvShape kShape = {2, 2, 8};

/// Random rows of two layers with two KV heads of size 8, and random gradients.
KvCurvature RandomCurvature() {
  KvCurvature curvature(kShape);
  for (int32_t layer = 0; layer < 2; ++layer) {
    const auto seed = 10 * static_cast<uint64_t>(layer);
    TieredRows rows, gradients;
    rows.keys[0] = Rows(16, 256, seed + 1);
    rows.values[0] = Rows(16, 256, seed + 2);
    gradients.keys[2] = Rows(16, 256, seed + 3);
    gradients.values[2] = Rows(16, 256, seed + 4);
    curvature.Observe({.layer = layer, .tokens = 256, .rows = rows, .gradients = gradients}, 64,
                      256, [](int64_t, float*) {});
  }
  return curvature;
}

TEST(PlaneTrainerTest, TrainsAllItemsAlikeOnAnyNumberOfThreads) {
  const KvCurvature statistics = RandomCurvature();
  ThreadPool one(1);
  ThreadPool three(3);
  const auto alone = TrainAllPlanes(statistics, {.max_planes = 6}, one);
  const auto shared = TrainAllPlanes(statistics, {.max_planes = 6}, three);
  ASSERT_THAT(alone, IsOk());
  ASSERT_THAT(shared, IsOk());
  ASSERT_EQ(alone->size(), 8u);
  ASSERT_EQ(shared->size(), 8u);
  for (size_t i = 0; i < 8; ++i) {
    ExpectEqual((*alone)[i], (*shared)[i]);
    EXPECT_EQ((*alone)[i].code.planes(), 6);
  }
  const auto other = TrainAllPlanes(statistics, {.max_planes = 6, .seed = 2}, three);
  ASSERT_THAT(other, IsOk());
  EXPECT_NE((*other)[0].code.codebooks, (*alone)[0].code.codebooks);
}

TEST(PlaneTrainerTest, NamesTheItemThatCannotBeTrained) {
  const KvCurvature empty(kShape);
  ThreadPool pool(2);
  EXPECT_THAT(TrainAllPlanes(empty, {}, pool),
              FailsWith(kInvalid, "item 0 (keys of layer 0, head 0): 0 values are not"));
}

}  // namespace
}  // namespace asymserve
