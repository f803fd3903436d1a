#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/model/filtered_draw.h"
#include "engine/model/sampling.h"

namespace asymserve {

/// What a sequence has seen, for the penalties. Kept up to date only if `UsesHistory`.
struct TokenHistory {
  std::unordered_map<int32_t, int32_t> output_counts;  // generated tokens
  std::vector<int32_t> seen;                           // prompt and output, each once, any order
};

/// True if the parameters look at earlier tokens.
bool UsesHistory(const SamplingParams& params);

/// Up to this temperature the most likely token is certain, and 1 / temperature might overflow.
inline constexpr float kCertainBelow = 1e-6f;

/// What Sample says of logits from which nothing is drawn.
absl::Status NanLogitsError();
absl::Status NothingToDrawError();

struct SampleRequest {
  std::span<const float> logits;  // [V]
  const SamplingParams* params = nullptr;
  const TokenHistory* history = nullptr;  // may be null unless UsesHistory
  std::span<const int32_t> banned;        // ids that must not be drawn (min_tokens)
  uint64_t position = 0;                  // index of the token in the output: the Philox counter
  int32_t logprobs = -1;                  // -1 none, 0 the chosen token, k > 0: also the top k
};

struct SampledToken {
  int32_t id = 0;
  float logprob = 0;
  std::vector<TokenLogProb> top;  // most likely first, ties to the lower id
};

/// Draws tokens on the host. A draw is a pure function of its request: no state is kept but
/// scratch. One thread per object.
class Sampler {
 public:
  explicit Sampler(int32_t vocabulary);

  /// Internal error if a logit is NaN or all are -infinity or banned: that sequence must end.
  absl::StatusOr<SampledToken> Sample(const SampleRequest& request);

 private:
  void Adjust(const SampleRequest& request);
  int32_t DrawFromAll(const SampleRequest& request, std::span<const float> logits, float top);

  std::vector<float> logits_;   // adjusted copy
  std::vector<float> weights_;  // exp of the scaled logits
  FilteredDraw filtered_;
};

}  // namespace asymserve
