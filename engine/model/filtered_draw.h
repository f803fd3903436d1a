#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/sampling.h"

namespace asymserve {

/// Draws a token from what top_k, typical_p, top_p and min_p leave of a distribution. Of a list by
/// falling probability, ties by id, each leaves a beginning (typical_p: another list first), and
/// the token is a place in it. Nothing is sorted: where a sum over the list first reaches a number
/// is found by selection, among the tokens that can matter. For those, weights are counted in bins
/// first: text has a few likely tokens and a vocabulary of others. The work is linear in the
/// vocabulary, on average, whatever the distribution. One thread per object.
class FilteredDraw {
 public:
  explicit FilteredDraw(int32_t vocabulary) : weights_(static_cast<size_t>(vocabulary)) {}

  /// Of `logits` [V], without NaN, whose largest is `top`, which is finite. `uniform` is the random
  /// number, in [0, 1). Temperatures are over kCertainBelow.
  int32_t Draw(std::span<const float> logits, float top, const SamplingParams& params,
               double uniform);

 private:
  struct Candidate {
    double weight = 0;  // unnormalized probability
    int32_t id = 0;
    double distance = 0;  // of KeepTypical
  };
  struct Bin {  // of tokens whose weights begin with the same bits
    double mass = 0;
    int32_t count = 0;
  };
  static bool MoreLikely(const Candidate& a, const Candidate& b);
  static bool MoreTypical(const Candidate& a, const Candidate& b);

  void Weigh(std::span<const float> logits, float top, float inverse_temperature);
  /// The lowest bin that the filters can leave something of, without typical_p's.
  size_t LowestBin(const SamplingParams& params) const;
  void Collect(size_t lowest_bin);
  void KeepTypical(double typical_p);
  double Mass() const;
  template <typename Reached, typename Less>
  size_t Place(const Reached& reached, const Less& less);

  std::vector<float> weights_;  // of each token; 0: negligible
  std::vector<Bin> bins_;
  std::vector<Candidate> candidates_;
};

}  // namespace asymserve
