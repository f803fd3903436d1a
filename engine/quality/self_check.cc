#include "engine/quality/self_check.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/kv/codec.h"
#include "engine/quality/pseudo_decode.h"
#include "engine/quality/quality_metrics.h"
#include "engine/quality/reference_logits.h"

namespace asymserve {
namespace {

static_assert(kSelfCheckRows == kKvPageTokens);

absl::Status TooFew(const std::string& what) {
  return absl::FailedPreconditionError(
      absl::StrCat("kv.quality.self_check: needs ", kSelfCheckTokens, " tokens, ", what));
}

absl::StatusOr<std::vector<int32_t>> TokensOf(const Model& model, const Tokenizer& tokenizer) {
  if (model.context_length() < kSelfCheckTokens) {
    return TooFew(absl::StrCat("the context has ", model.context_length()));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                             tokenizer.Encode(std::string(SelfCheckText()), EncodeOptions()));
  if (tokens.size() < static_cast<size_t>(kSelfCheckTokens)) {
    return TooFew(absl::StrCat("its text has ", tokens.size(), " with this model's tokenizer"));
  }
  tokens.resize(static_cast<size_t>(kSelfCheckTokens));
  if (const int32_t most = *std::max_element(tokens.begin(), tokens.end());
      most >= model.vocabulary()) {
    return absl::FailedPreconditionError(absl::StrCat("kv.quality.self_check: token ", most,
                                                      " of its text; the model knows ",
                                                      model.vocabulary(), " tokens"));
  }
  return tokens;
}

}  // namespace

absl::StatusOr<double> SelfCheckKl(Model& model, Backend& backend, const KvSetup& setup,
                                   const Tokenizer& tokenizer) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, TokensOf(model, tokenizer));
  const auto run = [&](const KvScheme& scheme, const PseudoDecoder::LogitSink& sink) {
    KvSetup with = setup;
    with.scheme = scheme;
    auto decoder = PseudoDecoder::Create(model, backend, with, kSelfCheckTokens);
    return decoder.ok() ? decoder->Run(tokens, kSelfCheckFrom, sink) : decoder.status();
  };
  constexpr size_t kRows = kSelfCheckTokens - 1 - kSelfCheckFrom;
  ReferenceLogits reference;
  reference.from = kSelfCheckFrom;
  reference.vocabulary = static_cast<size_t>(model.vocabulary());
  reference.values.reserve(kRows * reference.vocabulary);
  ASYMSERVE_RETURN_IF_ERROR(run(KvScheme(), [&](int32_t, std::span<const float> logits) {
    reference.values.insert(reference.values.end(), logits.begin(), logits.end());
  }));
  double sum = 0;
  ASYMSERVE_RETURN_IF_ERROR(run(setup.scheme, [&](int32_t position, std::span<const float> logits) {
    sum += Compare(reference.At(position), logits, tokens[static_cast<size_t>(position) + 1]).kl;
  }));
  if (!std::isfinite(sum)) {
    return absl::InternalError("kv.quality.self_check: logits are not finite");
  }
  return sum / static_cast<double>(kRows);
}

}  // namespace asymserve
