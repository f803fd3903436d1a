#include "engine/model/filtered_draw.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "engine/backend/token_draw.h"
#include "engine/base/exp_non_positive.h"

namespace asymserve {
namespace {

struct Weighed {
  double weight = 0;
  int32_t id = 0;
};

double MassOf(const std::vector<Weighed>& list) {
  double mass = 0;
  for (const Weighed& token : list) mass += token.weight;
  return mass;
}

void Sort(std::vector<Weighed>& list) {
  std::sort(list.begin(), list.end(), [](const Weighed& a, const Weighed& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
  });
}

/// The beginning of the list with at least this mass.
void Cut(std::vector<Weighed>& list, double wanted) {
  double mass = 0;
  size_t count = 0;
  while (count < list.size() && mass < wanted) mass += list[count++].weight;
  list.resize(std::max<size_t>(count, 1));
}

/// What the filters mean, with everything sorted.
std::vector<Weighed> Kept(std::span<const float> logits, float top, const SamplingParams& params) {
  std::vector<Weighed> list;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float scaled = (logits[i] - top) * (1 / params.temperature);
    if (scaled < kNegligibleNats) continue;
    list.push_back({static_cast<double>(ExpNonPositive(scaled)), static_cast<int32_t>(i)});
  }
  Sort(list);
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < list.size()) {
    list.resize(static_cast<size_t>(params.top_k));
  }
  if (params.typical_p < 1) {
    const double all = MassOf(list);
    double entropy = 0;
    for (const Weighed& token : list) {
      entropy -= token.weight / all * std::log(token.weight / all);
    }
    std::stable_sort(list.begin(), list.end(), [&](const Weighed& a, const Weighed& b) {
      return std::abs(-std::log(a.weight / all) - entropy) <
             std::abs(-std::log(b.weight / all) - entropy);
    });
    Cut(list, static_cast<double>(params.typical_p) * all);
    Sort(list);
  }
  if (params.top_p < 1) Cut(list, static_cast<double>(params.top_p) * MassOf(list));
  const double floor = static_cast<double>(params.min_p) * list.front().weight;
  std::erase_if(list, [floor](const Weighed& token) { return token.weight < floor; });
  return list;
}

int32_t PlaceOf(const std::vector<Weighed>& list, double uniform) {
  const double target = uniform * MassOf(list);
  double mass = 0;
  for (const Weighed& token : list) {
    mass += token.weight;
    if (mass > target) return token.id;
  }
  return list.back().id;
}

class FilteredDrawTest : public ::testing::Test {
 protected:
  float Uniform() { return std::uniform_real_distribution<float>()(random_); }
  int32_t Below(int32_t end) { return std::uniform_int_distribution<int32_t>(0, end - 1)(random_); }

  std::vector<float> Logits(size_t vocabulary) {
    std::vector<float> logits(vocabulary);
    const float spread = Below(2) == 0 ? 4.0f : 0.02f;  // peaked, or nearly flat
    std::normal_distribution<float> normal(0, spread);
    for (float& logit : logits) logit = normal(random_);
    for (int i = Below(4); i > 0; --i) logits[Index(logits)] = logits[Index(logits)];  // ties
    for (int i = Below(4); i > 0; --i) logits[Index(logits)] = -HUGE_VALF;             // banned
    return logits;
  }

  SamplingParams Params() {
    SamplingParams params;
    params.temperature = 0.3f + 3 * Uniform();
    if (Below(3) == 0) params.top_k = 1 + Below(Below(2) == 0 ? 50 : 4000);
    if (Below(3) == 0) params.typical_p = 0.05f + 0.94f * Uniform();
    if (Below(2) == 0) params.top_p = 0.01f + 0.98f * Uniform();
    if (Below(3) == 0) params.min_p = Below(2) == 0 ? Uniform() : 0.01f * Uniform();
    return params;
  }

 private:
  size_t Index(const std::vector<float>& logits) {
    return static_cast<size_t>(Below(static_cast<int32_t>(logits.size())));
  }
  std::mt19937 random_{20};
};

TEST_F(FilteredDrawTest, GivesTheTokenOfAListThatIsSortedAndCut) {
  for (int round = 0; round < 300; ++round) {
    const auto vocabulary = static_cast<size_t>(1 + Below(round % 3 == 0 ? 8 : 3000));
    FilteredDraw draw(static_cast<int32_t>(vocabulary));
    std::vector<float> logits = Logits(vocabulary);
    logits[0] = std::max(logits[0], -4.0f);  // something can be drawn
    const float top = *std::max_element(logits.begin(), logits.end());
    const SamplingParams params = Params();
    const std::vector<Weighed> kept = Kept(logits, top, params);
    for (int i = 0; i < 10; ++i) {
      const double uniform = i == 0 ? 0.0 : static_cast<double>(Uniform());
      ASSERT_EQ(draw.Draw(logits, top, params, uniform), PlaceOf(kept, uniform))
          << "round " << round << ", uniform " << uniform << ", " << kept.size() << " kept of "
          << vocabulary << ", top_k " << params.top_k << ", top_p " << params.top_p << ", min_p "
          << params.min_p << ", typical_p " << params.typical_p;
    }
  }
}

TEST_F(FilteredDrawTest, TokensOfOneProbabilityFollowById) {
  const std::vector<float> logits(1000, 2.5f);
  FilteredDraw draw(1000);
  SamplingParams params;
  params.top_p = 0.5f;
  std::set<int32_t> drawn;
  for (int i = 0; i < 2000; ++i) drawn.insert(draw.Draw(logits, 2.5f, params, i / 2000.0));
  EXPECT_EQ(drawn.size(), 500u);
  EXPECT_EQ(*drawn.rbegin(), 499);
}

TEST_F(FilteredDrawTest, TheLastRandomNumberGivesTheLastTokenThatIsLeft) {
  const std::vector<float> logits = {0, -1, -2, -40};
  FilteredDraw draw(4);
  SamplingParams params;
  params.top_k = 2;
  EXPECT_EQ(draw.Draw(logits, 0, params, std::nextafter(1.0, 0.0)), 1);
  params.top_k = 4;
  EXPECT_EQ(draw.Draw(logits, 0, params, std::nextafter(1.0, 0.0)), 2) << "exp(-40) is negligible";
}

}  // namespace
}  // namespace asymserve
