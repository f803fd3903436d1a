#include "engine/quality/quality_metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace asymserve {
namespace {

// Logits whose softmax is `p`, shifted by a constant that must not matter.
std::vector<float> LogitsOf(const std::vector<double>& p, double shift) {
  std::vector<float> logits;
  for (const double x : p) logits.push_back(static_cast<float>(std::log(x) + shift));
  return logits;
}

TEST(QualityMetricsTest, TheLossesOfTwoDistributionsAreThoseOfTheirFormulas) {
  const std::vector<double> p = {0.5, 0.25, 0.125, 0.125};
  const std::vector<double> q = {0.125, 0.5, 0.25, 0.125};
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) kl += p[i] * std::log(p[i] / q[i]);
  const PositionLoss loss = Compare(LogitsOf(p, 30), LogitsOf(q, -100), 2);
  EXPECT_NEAR(loss.kl, kl, 1e-5);
  EXPECT_NEAR(loss.nll, std::log(4), 1e-5);
  EXPECT_NEAR(loss.nll_exact, std::log(8), 1e-5);
  EXPECT_FALSE(loss.same_top);
  EXPECT_NEAR(NegativeLogLikelihood(LogitsOf(q, 7), 2), std::log(4), 1e-5);
}

TEST(QualityMetricsTest, EqualLogitsLoseExactlyNothing) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 8);
  std::vector<float> logits(1237);
  for (float& logit : logits) logit = normal(random);
  const PositionLoss loss = Compare(logits, logits, 11);
  EXPECT_EQ(loss.kl, 0);
  EXPECT_EQ(loss.nll, loss.nll_exact);
  EXPECT_EQ(loss.nll, NegativeLogLikelihood(logits, 11));
  EXPECT_TRUE(loss.same_top);
}

TEST(QualityMetricsTest, LargeLogitsNeitherOverflowNorVanish) {
  const std::vector<float> exact = {3e4f, 0, -3e4f}, tested = {0, 3e4f, -3e4f};
  const PositionLoss loss = Compare(exact, tested, 0);
  EXPECT_NEAR(loss.kl, 3e4, 1);
  EXPECT_NEAR(loss.nll, 3e4, 1);
  EXPECT_EQ(loss.nll_exact, 0);
}

TEST(QualityMetricsTest, ATieIsWonByTheLowestId) {
  const std::vector<float> exact = {1, 2, 2}, tested = {1, 3, 2}, other = {1, 2, 3};
  EXPECT_TRUE(Compare(exact, tested, 0).same_top);
  EXPECT_FALSE(Compare(exact, other, 0).same_top);
}

TEST(QualityMetricsTest, ALogitThatIsNoNumberShows) {
  const std::vector<float> exact = {1, 2, 3};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY}) {
    for (size_t at = 0; at < exact.size(); ++at) {
      std::vector<float> tested = exact;
      tested[at] = bad;
      const PositionLoss loss = Compare(exact, tested, 0);
      EXPECT_FALSE(std::isfinite(loss.kl) && std::isfinite(loss.nll)) << bad << " at " << at;
      EXPECT_FALSE(std::isfinite(NegativeLogLikelihood(tested, 0))) << bad << " at " << at;
    }
  }
}

TEST(QualityMetricsTest, QuantilesLieBetweenTheirNeighbours) {
  std::vector<double> values;
  for (int i = 100; i >= 0; --i) values.push_back(i);
  EXPECT_DOUBLE_EQ(Quantile(values, 0), 0);
  EXPECT_DOUBLE_EQ(Quantile(values, 0.99), 99);
  EXPECT_DOUBLE_EQ(Quantile(values, 0.999), 99.9);
  EXPECT_DOUBLE_EQ(Quantile(values, 1), 100);
  EXPECT_DOUBLE_EQ(Quantile(std::vector<double>{5}, 0.99), 5);
}

TEST(QualityMetricsTest, ASummaryAveragesInTheLogarithm) {
  const std::vector<PositionLoss> losses = {{.kl = 1, .nll = 3, .nll_exact = 1, .same_top = true},
                                            {.kl = 0, .nll = 1, .nll_exact = 1, .same_top = true},
                                            {.kl = 2, .nll = 2, .nll_exact = 1, .same_top = false},
                                            {.kl = 1, .nll = 2, .nll_exact = 1, .same_top = true}};
  const QualityFigures figures = Summarize(losses);
  EXPECT_DOUBLE_EQ(figures.kl_mean, 1);
  EXPECT_NEAR(figures.kl_p99, 1.97, 1e-12);
  EXPECT_DOUBLE_EQ(figures.same_top, 0.75);
  EXPECT_DOUBLE_EQ(figures.ppl, std::exp(2));
  EXPECT_DOUBLE_EQ(figures.ppl_ratio, std::exp(1));
}

}  // namespace
}  // namespace asymserve
