#include "engine/quality/quality_metrics.h"

#include <algorithm>
#include <cmath>

namespace asymserve {
namespace {

double LargestOf(std::span<const float> logits) {
  return *std::max_element(logits.begin(), logits.end());
}

}  // namespace

PositionLoss Compare(std::span<const float> exact, std::span<const float> tested, int32_t next) {
  const double exact_top = LargestOf(exact), tested_top = LargestOf(tested);
  double exact_sum = 0, tested_sum = 0, weighted = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double a = exact[i] - exact_top, b = tested[i] - tested_top;
    const double p = std::exp(a);
    exact_sum += p;
    tested_sum += std::exp(b);
    weighted += p * (a - b);
  }
  const double exact_log = std::log(exact_sum), tested_log = std::log(tested_sum);
  const auto at = static_cast<size_t>(next);
  PositionLoss loss;
  loss.kl = weighted / exact_sum + tested_log - exact_log;
  loss.nll = tested_log + tested_top - tested[at];
  loss.nll_exact = exact_log + exact_top - exact[at];
  loss.same_top = std::max_element(exact.begin(), exact.end()) - exact.begin() ==
                  std::max_element(tested.begin(), tested.end()) - tested.begin();
  return loss;
}

double NegativeLogLikelihood(std::span<const float> logits, int32_t next) {
  const double top = LargestOf(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  return std::log(sum) + top - logits[static_cast<size_t>(next)];
}

QualityFigures Summarize(std::span<const PositionLoss> losses) {
  const auto count = static_cast<double>(losses.size());
  QualityFigures figures;
  std::vector<double> divergences;
  double nll = 0, nll_exact = 0;
  for (const PositionLoss& loss : losses) {
    divergences.push_back(loss.kl);
    figures.kl_mean += loss.kl / count;
    figures.same_top += loss.same_top ? 1 / count : 0;
    nll += loss.nll / count;
    nll_exact += loss.nll_exact / count;
  }
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
