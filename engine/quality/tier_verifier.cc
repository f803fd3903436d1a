#include "engine/quality/tier_verifier.h"

#include <cmath>
#include <utility>

#include "engine/base/status.h"
#include "engine/quality/code_search.h"
#include "engine/quality/quality_metrics.h"

namespace asymserve {

absl::StatusOr<std::unique_ptr<TierVerifier>> TierVerifier::Create(const WeightFile& file,
                                                                   Backend& backend,
                                                                   int32_t max_tokens) {
  auto model = LlamaModel::Load(file, backend,
                                {.max_step_tokens = kKvPageTokens,
                                 .max_logit_rows = kKvPageTokens,
                                 .max_positions = max_tokens});
  if (!model.ok()) return Annotate(model.status(), "loading the model");
  return std::unique_ptr<TierVerifier>(new TierVerifier(backend, *std::move(model), max_tokens));
}

absl::StatusOr<PseudoDecoder> TierVerifier::MakeDecoder(const KvScheme& scheme,
                                                        const PlaneCodes* codes) {
  const ModelConfig& config = model_->config();
  KvSetup setup;
  setup.shape = {config.layers, config.attention.kv_heads, config.attention.head_size};
  setup.rope = model_->rope();
  setup.rope_style = config.rope_style;
  setup.scheme = scheme;
  setup.codes = codes;
  return PseudoDecoder::Create(*model_, backend_, std::move(setup), max_tokens_);
}

absl::StatusOr<VerifiedLoss> TierVerifier::Measure(const KvScheme& scheme, const PlaneCodes& codes,
                                                   const VerifyText& text) {
  VerifiedLoss loss;
  int32_t natural = 0, copied = 0;
  for (const std::vector<int32_t>& passage : text.passages) {
    const Rereading reading = {static_cast<int64_t>(passage.size())};
    const auto from = static_cast<int32_t>(reading.natural_from());
    ReferenceLogits reference;
    reference.from = from;
    reference.vocabulary = static_cast<size_t>(model_->vocabulary());
    ASYMSERVE_ASSIGN_OR_RETURN(PseudoDecoder exact, MakeDecoder(KvScheme(), nullptr));
    ASYMSERVE_RETURN_IF_ERROR(exact.Run(passage, from, [&](int32_t, std::span<const float> logits) {
      reference.values.insert(reference.values.end(), logits.begin(), logits.end());
    }));
    const std::vector<int32_t> tokens = Reread(passage);
    ASYMSERVE_ASSIGN_OR_RETURN(PseudoDecoder decoder, MakeDecoder(scheme, &codes));
    ASYMSERVE_RETURN_IF_ERROR(
        decoder.Run(tokens, from, [&](int32_t position, std::span<const float> logits) {
          const int32_t next = tokens[static_cast<size_t>(position) + 1];
          if (position < reading.passage - 1) {
            loss.mean_kl += Compare(reference.At(position), logits, next).kl;
            ++natural;
          } else if (position >= reading.copy_from()) {
            loss.copy_loss += NegativeLogLikelihood(logits, next);
            ++copied;
          }
        }));
  }
  loss.mean_kl /= natural;
  loss.copy_loss /= copied;
  if (!std::isfinite(loss.mean_kl) || !std::isfinite(loss.copy_loss)) {
    return absl::InternalError("calibration: logits are not finite");
  }
  return loss;
}

}  // namespace asymserve
