#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace asymserve {

/// How the next token is chosen. Order: logit_bias, penalties, then temperature, top_k, typical_p,
/// top_p, min_p, each on what the one before left. Defaults: plain sampling at temperature 1.
struct SamplingParams {
  float temperature = 1;         // >= 0; 0: greedy, the most likely token, ties to the lowest id
  int32_t top_k = 0;             // keep the k most likely; 0: all
  float top_p = 1;               // (0, 1]: keep the smallest set with at least this probability
  float min_p = 0;               // [0, 1]: drop tokens under this share of the most likely one's
  float typical_p = 1;           // (0, 1]: locally typical sampling (Meister et al. 2022)
  float repetition_penalty = 1;  // > 0: divides positive, multiplies negative logits of seen tokens
  float frequency_penalty = 0;   // [-2, 2]: subtracted per occurrence in the output
  float presence_penalty = 0;    // [-2, 2]: subtracted once if in the output
  std::vector<std::pair<int32_t, float>> logit_bias;  // added to the logits of these ids
  uint64_t seed = 0;  // the engine draws one where the request gave none
};

/// A token and its log-probability under the model's own distribution (before any of the above).
struct TokenLogProb {
  int32_t token = 0;
  float logprob = 0;
};

}  // namespace asymserve
