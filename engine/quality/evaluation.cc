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
#include "engine/quality/copy_loss.h"
#include "engine/quality/model_profile.h"
#include "engine/quality/pseudo_decode.h"
#include "engine/quality/reference_logits.h"

namespace asymserve {
namespace {

constexpr int32_t kMaxTokens = 1 << 20;
constexpr int64_t kEffectiveTokens[] = {1024, 4096, 8192};

class Evaluation {
 public:
  Evaluation(Backend& backend, const QualityOptions& options, const QualityProgressSink& progress)
      : backend_(backend), options_(options), progress_(progress) {}

  absl::Status Load();
  absl::StatusOr<std::vector<QualityRow>> Run();

 private:
  absl::Status LoadTexts(const ModelConfig& config);
  absl::Status RunText(size_t index, std::vector<QualityRow>& rows);
  absl::StatusOr<PseudoDecoder> MakeDecoder(const KvScheme& scheme);
  /// Reports `done` of the run at hand, in tokens.
  void Report(int64_t done);
  absl::StatusOr<double> CopyTest(PseudoDecoder& decoder, std::span<const int32_t> text);
  absl::StatusOr<QualityFigures> Measure(PseudoDecoder& decoder, std::span<const int32_t> text,
                                         const ReferenceLogits& reference);
  absl::StatusOr<QualityRow> RunScheme(size_t index, const KvScheme& scheme,
                                       const ReferenceLogits& reference,
                                       std::optional<double> copy_exact);

  Backend& backend_;
  const QualityOptions& options_;
  const QualityProgressSink& progress_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<LlamaModel> model_;
  KvSetup setup_;  // but for the scheme
  std::optional<KvProfile> profile_;
  std::vector<KvScheme> schemes_;
  std::vector<std::vector<int32_t>> texts_;
  std::vector<FreeRunner> free_runners_;  // by text; empty: not asked for
  int32_t longest_ = 0;                   // tokens of a sequence
  QualityProgress at_;
  int64_t work_ = 0, work_done_ = 0;  // in tokens read
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
  auto tokenizer = Tokenizer::Create(file->tokenizer_spec());
  if (!tokenizer.ok()) {
    return Annotate(tokenizer.status(), absl::StrCat(options_.model_path, ": tokenizer"));
  }
  tokenizer_ = *std::move(tokenizer);
  ASYMSERVE_RETURN_IF_ERROR(LoadTexts(config));
  auto model = LlamaModel::Load(*file, backend_,
                                {.max_step_tokens = kKvPageTokens,
                                 .max_logit_rows = kKvPageTokens,
                                 .max_positions = longest_});
  if (!model.ok()) return Annotate(model.status(), options_.model_path);
  model_ = *std::move(model);
  ASYMSERVE_ASSIGN_OR_RETURN(setup_.rope, backend_.Upload(RopeTable(config, longest_), longest_));
  setup_.rope_style = config.rope_style;
  return absl::OkStatus();
}

absl::Status Evaluation::LoadTexts(const ModelConfig& config) {
  longest_ = options_.tokens;
  for (const TextSource& source : options_.texts) {
    ASYMSERVE_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                               ReadTokens(source, *tokenizer_, options_.tokens));
    if (const int32_t most = *std::max_element(ids.begin(), ids.end()); most >= config.vocabulary) {
      return absl::InvalidArgumentError(absl::StrCat(
          source.name, ": token ", most, "; the model knows ", config.vocabulary, " tokens"));
    }
    texts_.push_back(std::move(ids));
  }
  int64_t work =
      int64_t{options_.tokens} * (options_.copy ? 2 : 1) * static_cast<int64_t>(texts_.size());
  for (size_t i = 0; options_.free_running && i < texts_.size(); ++i) {
    const FreeRunningOptions& free = *options_.free_running;
    ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<Problem> problems,
                               ReadProblems(options_.texts[i], free.shots + free.problems));
    ASYMSERVE_ASSIGN_OR_RETURN(
        FreeRunner runner,
        FreeRunner::Create(free, *tokenizer_, texts_[i], problems, i == 0, config.context_length));
    longest_ = std::max(longest_, runner.longest());
    work += runner.work();
    free_runners_.push_back(std::move(runner));
  }
  work_ = work * static_cast<int64_t>(schemes_.size() + 1);
  return absl::OkStatus();
}

absl::StatusOr<PseudoDecoder> Evaluation::MakeDecoder(const KvScheme& scheme) {
  KvSetup setup = setup_;
  setup.scheme = scheme;
  if (profile_.has_value()) setup.codes = &profile_->codes;
  return PseudoDecoder::Create(*model_, backend_, std::move(setup), longest_);
}

void Evaluation::Report(int64_t done) {
  at_.fraction = static_cast<double>(work_done_ + done) / static_cast<double>(work_);
  if (progress_) progress_(at_);
}

absl::StatusOr<double> Evaluation::CopyTest(PseudoDecoder& decoder, std::span<const int32_t> text) {
  auto loss =
      CopyLoss(decoder, text.first(text.size() / 2), [this](int32_t done) { Report(done); });
  work_done_ += options_.tokens;
  return loss;
}

absl::StatusOr<QualityFigures> Evaluation::Measure(PseudoDecoder& decoder,
                                                   std::span<const int32_t> text,
                                                   const ReferenceLogits& reference) {
  std::vector<PositionLoss> losses;
  const auto compare = [&](int32_t position, std::span<const float> logits) {
    losses.push_back(
        Compare(reference.At(position), logits, text[static_cast<size_t>(position) + 1]));
  };
  ASYMSERVE_RETURN_IF_ERROR(
      decoder.Run(text, options_.from, compare, [this](int32_t done) { Report(done); }));
  work_done_ += options_.tokens;
  for (size_t i = 0; i < losses.size(); ++i) {
    if (std::isfinite(losses[i].kl) && std::isfinite(losses[i].nll)) continue;
    return absl::InternalError(absl::StrCat(
        "the logits of position ", static_cast<size_t>(options_.from) + i, " are not finite"));
  }
  return Summarize(losses);
}

absl::StatusOr<QualityRow> Evaluation::RunScheme(size_t index, const KvScheme& scheme,
                                                 const ReferenceLogits& reference,
                                                 std::optional<double> copy_exact) {
  const std::vector<int32_t>& text = texts_[index];
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
    ASYMSERVE_ASSIGN_OR_RETURN(row.copy_nll, CopyTest(decoder, text));
  }
  if (options_.free_running) {
    const FreeRunner& runner = free_runners_[index];
    ASYMSERVE_ASSIGN_OR_RETURN(row.free_running,
                               runner.Run(decoder, [this](int64_t done) { Report(done); }));
    work_done_ += runner.work();
  }
  return row;
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
  const auto keep = [&](int32_t, std::span<const float> logits) {
    reference.values.insert(reference.values.end(), logits.begin(), logits.end());
  };
  ASYMSERVE_RETURN_IF_ERROR(
      exact.Run(text, options_.from, keep, [this](int32_t done) { Report(done); }));
  work_done_ += options_.tokens;
  std::optional<double> copy_exact;
  if (options_.copy) {
    ASYMSERVE_ASSIGN_OR_RETURN(copy_exact, CopyTest(exact, text));
  }
  if (options_.free_running) {
    FreeRunner& runner = free_runners_[index];
    ASYMSERVE_RETURN_IF_ERROR(runner.RunExact(exact, [this](int64_t done) { Report(done); }));
    work_done_ += runner.work();
  }
  for (const KvScheme& scheme : schemes_) {
    at_.name = scheme.name;
    ++at_.scheme;
    ASYMSERVE_ASSIGN_OR_RETURN(QualityRow row, RunScheme(index, scheme, reference, copy_exact));
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
