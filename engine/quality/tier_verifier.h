#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/kv/plane_code.h"
#include "engine/model/llama.h"
#include "engine/quality/pseudo_decode.h"
#include "engine/quality/reference_logits.h"

namespace asymserve {

/// A text and its passages.
struct VerifyText {
  std::string name;
  std::vector<std::vector<int32_t>> passages;
};

struct VerifiedLoss {
  double mean_kl = 0;    // KL(exact || scheme) on new text
  double copy_loss = 0;  // negative log-likelihood of what is read again (Rereading)
};

/// Measures schemes as they will be served: on the backend's own packed pages.
class TierVerifier {
 public:
  /// Loads the model onto the backend for sequences of `max_tokens` tokens.
  static absl::StatusOr<std::unique_ptr<TierVerifier>> Create(const WeightFile& file,
                                                              Backend& backend, int32_t max_tokens);

  absl::StatusOr<VerifiedLoss> Measure(const KvScheme& scheme, const PlaneCodes& codes,
                                       const VerifyText& text);

 private:
  TierVerifier(Backend& backend, std::unique_ptr<LlamaModel> model, int32_t max_tokens)
      : backend_(backend), model_(std::move(model)), max_tokens_(max_tokens) {}
  absl::StatusOr<PseudoDecoder> MakeDecoder(const KvScheme& scheme, const PlaneCodes* codes);

  Backend& backend_;
  std::unique_ptr<LlamaModel> model_;
  int32_t max_tokens_;
};

}  // namespace asymserve
