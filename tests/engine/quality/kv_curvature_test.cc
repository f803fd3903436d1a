#include "engine/quality/kv_curvature.h"

#include <gtest/gtest.h>

#include <vector>

#include "engine/base/philox.h"

namespace asymserve {
namespace {

constexpr KvShape kShape = {1, 2, 8};
constexpr int64_t kTokens = 128;

std::vector<float> Random(uint64_t seed) {
  std::vector<float> values;
  for (uint64_t i = 0; i < kTokens * 16; ++i) {
    values.push_back(static_cast<float>(PhiloxUniform(seed, i) - 0.5));
  }
  return values;
}

class KvCurvatureTest : public ::testing::Test {
 protected:
  KvCurvatureTest() {
    rows_.keys[0] = Random(1);
    rows_.values[0] = Random(2);
    for (const size_t tier : {1u, 2u}) {
      gradients_.keys[tier] = Random(3);
      gradients_.values[tier] = Random(4);
    }
  }
  void Observe(const KvCurvature::TurnToFrame& turn = [](int64_t, float*) {}) {
    curvature_.Observe({.layer = 0, .tokens = kTokens, .rows = rows_, .gradients = gradients_}, 64,
                       kTokens, turn);
  }

  TieredRows rows_, gradients_;
  KvCurvature curvature_{kShape};
};

TEST_F(KvCurvatureTest, KeepsTheRowsOfItsPositionsOnly) {
  Observe();
  const std::vector<float> rows = curvature_.Rows(3);  // values of head 1
  ASSERT_EQ(rows.size(), 64u * 8);
  for (size_t t = 0; t < 64; ++t) {
    for (size_t d = 0; d < 8; ++d) {
      EXPECT_NEAR(rows[t * 8 + d], rows_.values[0][((64 + t) * 2 + 1) * 8 + d], 1e-3);
    }
  }
}

TEST_F(KvCurvatureTest, TheMetricIsTheMeanOuterProductOfGradients) {
  Observe();
  const SquareMatrix metric = curvature_.Metric(0);
  double expected = 0;
  for (size_t t = 64; t < 128; ++t) {
    expected +=
        static_cast<double>(gradients_.keys[2][t * 16 + 5] * gradients_.keys[2][t * 16 + 1]);
  }
  EXPECT_NEAR(metric.at(5, 1), expected / 64, 1e-6);
  EXPECT_EQ(metric.at(1, 5), metric.at(5, 1));
}

TEST_F(KvCurvatureTest, KeysAndTheirGradientsAreTurnedValuesAreNot) {
  Observe([](int64_t position, float* head) {
    EXPECT_GE(position, 64);
    head[0] = 7;
  });
  EXPECT_EQ(curvature_.Rows(1)[0], 7);
  EXPECT_NEAR(curvature_.Metric(1).at(0, 0), 49, 1e-6);
  EXPECT_NE(curvature_.Rows(2)[0], 7);
}

TEST_F(KvCurvatureTest, RowsThatMatterMoreWeighMore) {
  for (size_t t = 64; t < 96; ++t) {
    for (size_t i = 0; i < 16; ++i) gradients_.keys[2][t * 16 + i] *= 3;
  }
  Observe();
  const std::vector<float> weights = curvature_.Weights(0);
  ASSERT_EQ(weights.size(), 64u);
  double heavy = 0, light = 0;
  for (size_t t = 0; t < 32; ++t) heavy += static_cast<double>(weights[t]);
  for (size_t t = 32; t < 64; ++t) light += static_cast<double>(weights[t]);
  EXPECT_NEAR(heavy + light, 64, 1e-3);
  EXPECT_GT(heavy, 4 * light);
}

TEST_F(KvCurvatureTest, FreshShareComparesSquaredGradients) {
  for (float& value : gradients_.values[1]) value *= 2;
  Observe();
  EXPECT_NEAR(curvature_.FreshShare(0), 1, 1e-6);
  EXPECT_NEAR(curvature_.FreshShare(2), 4, 1e-5);
}

}  // namespace
}  // namespace asymserve
