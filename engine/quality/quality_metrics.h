#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace asymserve {

/// What the logits of one position lose against the exact ones.
struct PositionLoss {
  double kl = 0;          // KL(exact || tested) in nats
  double nll = 0;         // -log p(next token), tested; nats
  double nll_exact = 0;   // the same, exact
  bool same_top = false;  // the likeliest token is the same (ties: the lowest id)
};

/// Logits [V] each, V >= 1; `next` in [0, V) is the token that follows. Sums in double. Logits that
/// are not finite give losses that are not finite.
PositionLoss Compare(std::span<const float> exact, std::span<const float> tested, int32_t next);

/// -log of the softmax of `logits` [V] at `next`, in nats.
double NegativeLogLikelihood(std::span<const float> logits, int32_t next);

/// Means and quantiles over positions.
struct QualityFigures {
  double kl_mean = 0;
  double kl_p99 = 0;
  double kl_p999 = 0;
  double same_top = 0;   // fraction of positions
  double ppl = 0;        // perplexity, tested
  double ppl_ratio = 0;  // tested over exact
};

/// `losses` is not empty.
QualityFigures Summarize(std::span<const PositionLoss> losses);

/// The value below which a fraction `q` in [0, 1] of the values lies, interpolated between the
/// neighbours; `values` is not empty.
double Quantile(std::span<const double> values, double q);

}  // namespace asymserve
