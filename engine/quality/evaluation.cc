#include "engine/quality/evaluation.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/kv/scheme.h"
#include "engine/model/llama.h"
#include "engine/quality/model_profile.h"
#include "engine/quality/pseudo_decode.h"
#include "engine/quality/reference_logits.h"

namespace asymserve {
namespace {

constexpr int32_t kCopySkip = kKvPageTokens;  // of the second reading: it has not caught on yet
constexpr int32_t kMaxTokens = 1 << 20;
constexpr int64_t kEffectiveTokens[] = {1024, 4096, 8192};

class Evaluation {
 public:
  Evaluation(Backend& backend, const QualityOptions& options, const QualityProgressSink& progress)
      : backend_(backend), options_(options), progress_(progress) {}

  absl::Status Load();
  absl::StatusOr<std::vector<QualityRow>> Run();

 private:
  absl::Status LoadTexts(const Tokenizer& tokenizer, int32_t vocabulary);
  absl::Status RunText(size_t index, std::vector<QualityRow>& rows);
  absl::StatusOr<PseudoDecoder> MakeDecoder(const KvScheme& scheme);
  absl::Status Decode(PseudoDecoder& decoder, std::span<const int32_t> tokens, int32_t from,
                      const PseudoDecoder::LogitSink& sink);
  absl::StatusOr<double> CopyLoss(PseudoDecoder& decoder, std::span<const int32_t> text);
  absl::StatusOr<QualityFigures> Measure(PseudoDecoder& decoder, std::span<const int32_t> text,
                                         const ReferenceLogits& reference);

  Backend& backend_;
  const QualityOptions& options_;
  const QualityProgressSink& progress_;
  std::unique_ptr<LlamaModel> model_;
  KvSetup setup_;  // but for the scheme
  std::optional<KvProfile> profile_;
  std::vector<KvScheme> schemes_;
  std::vector<std::vector<int32_t>> texts_;
  QualityProgress at_;
  int32_t runs_done_ = 0;
};

absl::Status Evaluation::Load() {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto file, OpenWeightFile(options_.model_path));
  const ModelConfig& config = file->config();
  if (options_.tokens > config.context_length) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokens: ", options_.tokens, "; the model's context is ", config.context_length));
  }
  const AttentionShape& attention = config.attention;
  setup_.shape = {config.layers, attention.kv_heads, attention.head_size};
  if (!options_.profile_path.empty()) {
    ASYMSERVE_ASSIGN_OR_RETURN(profile_, ReadModelProfile(options_.profile_path, *file));
  }
  for (const std::string& name : options_.schemes) {
    ASYMSERVE_ASSIGN_OR_RETURN(
        KvScheme scheme,
        ResolveKvScheme(name, setup_.shape, profile_.has_value() ? &*profile_ : nullptr));
    ASYMSERVE_RETURN_IF_ERROR(CheckKvScheme(scheme, setup_.shape));
    schemes_.push_back(std::move(scheme));
  }
  const auto tokenizer = Tokenizer::Create(file->tokenizer_spec());
  if (!tokenizer.ok()) {
    return Annotate(tokenizer.status(), absl::StrCat(options_.model_path, ": tokenizer"));
  }
  ASYMSERVE_RETURN_IF_ERROR(LoadTexts(**tokenizer, config.vocabulary));
  auto model = LlamaModel::Load(*file, backend_,
                                {.max_step_tokens = kKvPageTokens,
                                 .max_logit_rows = kKvPageTokens,
                                 .max_positions = options_.tokens});
  if (!model.ok()) return Annotate(model.status(), options_.model_path);
  model_ = *std::move(model);
  ASYMSERVE_ASSIGN_OR_RETURN(setup_.rope,
                             backend_.Upload(RopeTable(config, options_.tokens), options_.tokens));
  setup_.rope_style = config.rope_style;
  return absl::OkStatus();
}

absl::Status Evaluation::LoadTexts(const Tokenizer& tokenizer, int32_t vocabulary) {
  for (const TextSource& source : options_.texts) {
    ASYMSERVE_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                               ReadTokens(source, tokenizer, options_.tokens));
    if (const int32_t most = *std::max_element(ids.begin(), ids.end()); most >= vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat(source.name, ": token ", most, "; the model knows ", vocabulary, " tokens"));
    }
    texts_.push_back(std::move(ids));
  }
  return absl::OkStatus();
}

absl::StatusOr<PseudoDecoder> Evaluation::MakeDecoder(const KvScheme& scheme) {
  KvSetup setup = setup_;
  setup.scheme = scheme;
  if (profile_.has_value()) setup.codes = &profile_->codes;
  return PseudoDecoder::Create(*model_, backend_, std::move(setup), options_.tokens);
}

absl::Status Evaluation::Decode(PseudoDecoder& decoder, std::span<const int32_t> tokens,
                                int32_t from, const PseudoDecoder::LogitSink& sink) {
  const auto per_text = static_cast<double>((schemes_.size() + 1) * (options_.copy ? 2 : 1));
  const double runs = per_text * static_cast<double>(texts_.size());
  const auto report = [&](int32_t done) {
    at_.fraction =
        (runs_done_ + static_cast<double>(done) / static_cast<double>(tokens.size())) / runs;
    if (progress_) progress_(at_);
  };
  report(0);
  ASYMSERVE_RETURN_IF_ERROR(decoder.Run(tokens, from, sink, report));
  ++runs_done_;
  return absl::OkStatus();
}

absl::StatusOr<double> Evaluation::CopyLoss(PseudoDecoder& decoder, std::span<const int32_t> text) {
  const std::span<const int32_t> passage = text.first(text.size() / 2);
  std::vector<int32_t> twice(passage.begin(), passage.end());
  twice.insert(twice.end(), passage.begin(), passage.end());
  const auto from = static_cast<int32_t>(passage.size()) + kCopySkip;
  double sum = 0;
  ASYMSERVE_RETURN_IF_ERROR(
      Decode(decoder, twice, from, [&](int32_t position, std::span<const float> logits) {
        sum += NegativeLogLikelihood(logits, twice[static_cast<size_t>(position) + 1]);
      }));
  if (!std::isfinite(sum)) return absl::InternalError("copy test: logits are not finite");
  return sum / static_cast<double>(twice.size() - 1 - static_cast<size_t>(from));
}

absl::StatusOr<QualityFigures> Evaluation::Measure(PseudoDecoder& decoder,
                                                   std::span<const int32_t> text,
                                                   const ReferenceLogits& reference) {
  std::vector<PositionLoss> losses;
  ASYMSERVE_RETURN_IF_ERROR(
      Decode(decoder, text, options_.from, [&](int32_t position, std::span<const float> logits) {
        losses.push_back(
            Compare(reference.At(position), logits, text[static_cast<size_t>(position) + 1]));
      }));
  for (size_t i = 0; i < losses.size(); ++i) {
    if (std::isfinite(losses[i].kl) && std::isfinite(losses[i].nll)) continue;
    return absl::InternalError(absl::StrCat(
        "the logits of position ", static_cast<size_t>(options_.from) + i, " are not finite"));
  }
  return Summarize(losses);
}

absl::Status Evaluation::RunText(size_t index, std::vector<QualityRow>& rows) {
  const std::vector<int32_t>& text = texts_[index];
  at_ = {.schemes = static_cast<int32_t>(schemes_.size()),
         .name = "exact reference",
         .text = options_.texts[index].name};
  ASYMSERVE_ASSIGN_OR_RETURN(PseudoDecoder exact, MakeDecoder(KvScheme()));
  ReferenceLogits reference;
  reference.from = options_.from;
  reference.vocabulary = static_cast<size_t>(model_->vocabulary());
  reference.values.reserve((text.size() - 1 - static_cast<size_t>(options_.from)) *
                           reference.vocabulary);
  ASYMSERVE_RETURN_IF_ERROR(
      Decode(exact, text, options_.from, [&](int32_t, std::span<const float> logits) {
        reference.values.insert(reference.values.end(), logits.begin(), logits.end());
      }));
  std::optional<double> copy_exact;
  if (options_.copy) {
    ASYMSERVE_ASSIGN_OR_RETURN(copy_exact, CopyLoss(exact, text));
  }
  for (const KvScheme& scheme : schemes_) {
    at_.name = scheme.name;
    ++at_.scheme;
    ASYMSERVE_ASSIGN_OR_RETURN(PseudoDecoder decoder, MakeDecoder(scheme));
    QualityRow row;
    row.scheme = scheme.name;
    row.text = at_.text;
    row.tokens = options_.tokens;
    row.from = options_.from;
    row.bits_sealed = decoder.layout().sealed_bits();
    row.copy_nll_exact = copy_exact;
    for (const int64_t tokens : kEffectiveTokens) {
      row.bits_effective[tokens] = decoder.layout().EffectiveBits(tokens);
    }
    ASYMSERVE_ASSIGN_OR_RETURN(row.figures, Measure(decoder, text, reference));
    if (options_.copy) {
      ASYMSERVE_ASSIGN_OR_RETURN(row.copy_nll, CopyLoss(decoder, text));
    }
    rows.push_back(std::move(row));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<QualityRow>> Evaluation::Run() {
  std::vector<QualityRow> rows;
  for (size_t i = 0; i < texts_.size(); ++i) {
    const absl::Status status = RunText(i, rows);
    if (!status.ok()) return Annotate(status, absl::StrCat(at_.name, " on ", at_.text));
  }
  return rows;
}

}  // namespace

absl::Status CheckQualityOptions(const QualityOptions& options) {
  if (options.schemes.empty()) return absl::InvalidArgumentError("schemes: none given");
  if (options.texts.empty()) return absl::InvalidArgumentError("text: none given");
  const int32_t least = options.copy ? 2 * (kCopySkip + 2) : 2;
  if (options.tokens < least || options.tokens > kMaxTokens) {
    return absl::InvalidArgumentError(absl::StrCat("tokens: ", options.tokens, "; must be ", least,
                                                   " to ", kMaxTokens,
                                                   options.copy ? " for the copy test" : ""));
  }
  if (options.from < 0 || options.from > options.tokens - 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("from: ", options.from, "; must be 0 to tokens - 2 = ", options.tokens - 2));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<QualityRow>> EvaluateQuality(Backend& backend,
                                                        const QualityOptions& options,
                                                        const QualityProgressSink& progress) {
  ASYMSERVE_RETURN_IF_ERROR(CheckQualityOptions(options));
  Evaluation evaluation(backend, options, progress);
  ASYMSERVE_RETURN_IF_ERROR(evaluation.Load());
  return evaluation.Run();
}

}  // namespace asymserve
