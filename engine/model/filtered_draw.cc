#include "engine/model/filtered_draw.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "engine/backend/token_draw.h"
#include "engine/base/exp_non_positive.h"

namespace asymserve {
namespace {

// Weights in bins of 1/32 of an octave: those from exp(kNegligibleNats) to 1, the largest one's,
// and bin 0 for less. A larger weight is never in a lower bin.
constexpr uint32_t TopBits(float weight) {
  return std::bit_cast<uint32_t>(weight) >> 18;
}
constexpr uint32_t kFirstBits = TopBits(ExpNonPositive(kNegligibleNats));
constexpr size_t kBins = TopBits(1.0f) - kFirstBits + 2;

size_t BinOf(float weight) {
  const uint32_t bits = TopBits(weight);
  return bits < kFirstBits ? 0 : bits - kFirstBits + 1;
}

}  // namespace

bool FilteredDraw::MoreLikely(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

bool FilteredDraw::MoreTypical(const Candidate& a, const Candidate& b) {
  return a.distance != b.distance ? a.distance < b.distance : MoreLikely(a, b);
}

int32_t FilteredDraw::Draw(std::span<const float> logits, float top, const SamplingParams& params,
                           double uniform) {
  Weigh(logits, top, 1 / params.temperature);
  const bool typical = params.typical_p < 1;
  Collect(typical && params.top_k == 0 ? 1 : LowestBin(params));
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + params.top_k, candidates_.end(),
                     MoreLikely);
    candidates_.resize(static_cast<size_t>(params.top_k));
  }
  if (typical) KeepTypical(static_cast<double>(params.typical_p));
  if (params.top_p < 1) {
    double all = 0;
    if (typical || params.top_k > 0) {
      all = Mass();
    } else {
      for (size_t bin = kBins; --bin > 0;) all += bins_[bin].mass;
    }
    const double wanted = static_cast<double>(params.top_p) * all;
    const size_t last = Place([wanted](double mass) { return mass >= wanted; }, MoreLikely);
    candidates_.resize(last + 1);
  }
  if (params.min_p > 0) {
    double largest = 0;
    for (const Candidate& candidate : candidates_) largest = std::max(largest, candidate.weight);
    const double floor = static_cast<double>(params.min_p) * largest;
    std::erase_if(candidates_, [floor](const Candidate& c) { return c.weight < floor; });
  }
  const double target = uniform * Mass();
  return candidates_[Place([target](double mass) { return mass > target; }, MoreLikely)].id;
}

void FilteredDraw::Weigh(std::span<const float> logits, float top, float inverse_temperature) {
  for (size_t i = 0; i < weights_.size(); ++i) {
    const float scaled = (logits[i] - top) * inverse_temperature;
    weights_[i] = scaled < kNegligibleNats ? 0 : ExpNonPositive(scaled);
  }
  bins_.assign(kBins, {});
  for (const float weight : weights_) {
    Bin& bin = bins_[BinOf(weight)];
    bin.mass += static_cast<double>(weight);
    ++bin.count;
  }
}

size_t FilteredDraw::LowestBin(const SamplingParams& params) const {
  size_t bin = kBins - 1;
  if (params.top_k > 0) {
    int64_t count = 0;
    while ((count += bins_[bin].count) < params.top_k && bin > 1) --bin;
    return bin;
  }
  if (params.top_p == 1) return std::max<size_t>(BinOf(params.min_p), 1);
  double all = 0;
  for (size_t i = kBins; --i > 0;) all += bins_[i].mass;
  double mass = 0;
  while ((mass += bins_[bin].mass) < static_cast<double>(params.top_p) * all && bin > 1) --bin;
  return bin;
}

void FilteredDraw::Collect(size_t lowest_bin) {
  candidates_.clear();
  size_t count = 0;  // of a flat distribution all; growing would take twice the memory
  for (size_t bin = lowest_bin; bin < bins_.size(); ++bin) {
    count += static_cast<size_t>(bins_[bin].count);
  }
  candidates_.reserve(count);
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (BinOf(weights_[i]) < lowest_bin) continue;
    candidates_.push_back(
        {.weight = static_cast<double>(weights_[i]), .id = static_cast<int32_t>(i)});
  }
}

// Meister et al. 2022: the tokens whose surprise is closest to the distribution's entropy, until
// their probability reaches typical_p.
void FilteredDraw::KeepTypical(double typical_p) {
  const double all = Mass();
  double entropy = 0;
  for (Candidate& candidate : candidates_) {
    const double p = candidate.weight / all;
    candidate.distance = -std::log(p);  // its surprise, for now
    entropy += p * candidate.distance;
  }
  for (Candidate& candidate : candidates_) {
    candidate.distance = std::abs(candidate.distance - entropy);
  }
  const double wanted = typical_p * all;
  const size_t last = Place([wanted](double mass) { return mass >= wanted; }, MoreTypical);
  candidates_.resize(last + 1);
}

double FilteredDraw::Mass() const {
  double mass = 0;
  for (const Candidate& candidate : candidates_) mass += candidate.weight;
  return mass;
}

// Where, in the order of `less`, the mass up to and with a candidate is first one that `reached`
// accepts, or the last place. Puts those that come before it before it.
template <typename Reached, typename Less>
size_t FilteredDraw::Place(const Reached& reached, const Less& less) {
  const auto at = [this](size_t i) { return candidates_.begin() + static_cast<ptrdiff_t>(i); };
  size_t begin = 0, end = candidates_.size();
  double before = 0;
  while (end - begin > 1) {
    const size_t middle = begin + (end - begin) / 2;
    std::nth_element(at(begin), at(middle), at(end), less);
    double mass = before;
    for (size_t i = begin; i < middle; ++i) mass += candidates_[i].weight;
    if (reached(mass)) {
      end = middle;
    } else {
      before = mass;
      begin = middle;
    }
  }
  return begin;
}

}  // namespace asymserve
