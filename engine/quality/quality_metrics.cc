#include "engine/quality/quality_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/quality/fast_exp.h"

namespace asymserve {
namespace {

float LargestOf(std::span<const float> logits) {
  return *std::max_element(logits.begin(), logits.end());
}

/// Sums term(i) for i in [0, count): floats in sixteen lanes for a stretch, stretches in double.
template <typename Term>
double Sum(size_t count, Term term) {
  constexpr size_t kLanes = 16;
  constexpr size_t kStretch = 1024;
  double sum = 0;
  for (size_t begin = 0; begin < count; begin += kStretch) {
    const size_t end = std::min(count, begin + kStretch);
    std::array<float, kLanes> lanes = {};
    size_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
    }
    for (; i < end; ++i) lanes[0] += term(i);
    for (const float lane : lanes) sum += lane;
  }
  return sum;
}

/// The logarithm of the sum of exp(logit).
double LogSum(std::span<const float> logits) {
  const float top = LargestOf(logits);
  return top + std::log(Sum(logits.size(), [&](size_t i) { return FastExp(logits[i] - top); }));
}

}  // namespace

PositionLoss Compare(std::span<const float> exact, std::span<const float> tested, int32_t next) {
  const double exact_log = LogSum(exact);
  const double tested_log = LogSum(tested);
  const auto log = static_cast<float>(exact_log);
  const double weight = Sum(exact.size(), [&](size_t i) { return FastExp(exact[i] - log); });
  const double weighted =
      Sum(exact.size(), [&](size_t i) { return FastExp(exact[i] - log) * (exact[i] - tested[i]); });
  const auto at = static_cast<size_t>(next);
  PositionLoss loss;
  loss.kl = weighted / weight + tested_log - exact_log;
  loss.nll = tested_log - tested[at];
  loss.nll_exact = exact_log - exact[at];
  loss.same_top = std::max_element(exact.begin(), exact.end()) - exact.begin() ==
                  std::max_element(tested.begin(), tested.end()) - tested.begin();
  return loss;
}

double NegativeLogLikelihood(std::span<const float> logits, int32_t next) {
  return LogSum(logits) - logits[static_cast<size_t>(next)];
}

QualityFigures Summarize(std::span<const PositionLoss> losses) {
  const auto count = static_cast<double>(losses.size());
  QualityFigures figures;
  std::vector<double> divergences;
  double nll = 0, nll_exact = 0;
  for (const PositionLoss& loss : losses) {
    divergences.push_back(loss.kl);
    figures.kl_mean += loss.kl / count;
    figures.same_top += loss.same_top ? 1 : 0;
    nll += loss.nll / count;
    nll_exact += loss.nll_exact / count;
  }
  figures.same_top /= count;
  figures.kl_p99 = Quantile(divergences, 0.99);
  figures.kl_p999 = Quantile(divergences, 0.999);
  figures.ppl = std::exp(nll);
  figures.ppl_ratio = std::exp(nll - nll_exact);
  return figures;
}

double Quantile(std::span<const double> values, double q) {
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - static_cast<double>(below));
}

}  // namespace asymserve
