#include "engine/quality/calibration.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/base/thread_pool.h"
#include "engine/kv/profile_limits.h"
#include "engine/model/llama.h"
#include "engine/quality/model_digest.h"
#include "engine/quality/tier_verifier.h"

namespace asymserve {
namespace {

// To be raised when anything changes what a step computes: attention's rounding, the training.
constexpr uint32_t kJournalVersion = 2;
constexpr double kMaxKlStep = 0.125;  // bits per element
constexpr double kLeastBits = 0.25;
constexpr double kMostBits = 4.0;

/// A text's name in a profile, which travels: its file without the folder.
std::string LabelOf(const TextSource& source) {
  const std::string file = std::filesystem::path(source.path).filename().string();
  return source.offset == 0 ? file : absl::StrCat(file, "@", source.offset);
}

/// Of what a tier is, but for its name.
Sha256Digest ItemsDigest(const KvProfileTier& tier) {
  std::vector<int32_t> numbers = {tier.sink_pages, tier.recent_pages, tier.fresh_pages};
  for (const KvItem& item : tier.items) {
    numbers.insert(numbers.end(), {static_cast<int32_t>(item.codec), item.bits, item.base_planes,
                                   item.fresh_planes});
  }
  return Sha256Of(std::as_bytes(std::span(numbers)));
}

class Calibration {
 public:
  Calibration(Backend& backend, const CalibrationOptions& options,
              const CalibrationProgress& progress)
      : backend_(backend), options_(options), progress_(progress), pool_(options.threads) {}

  absl::Status Load();
  absl::StatusOr<KvProfile> Run();

 private:
  using Passages = std::vector<std::vector<int32_t>>;

  absl::Status LoadTexts(const Tokenizer& tokenizer);
  absl::Status LoadBackendModel();
  Sha256Digest JobDigest(const Sha256Digest& model) const;
  absl::StatusOr<KvProfileTier> MakeTier(const TierRequest& request);
  absl::StatusOr<KvProfileTier> MakeCheapestTier();
  /// One step of those that `steps_` counts is done.
  void Step() {
    ++done_;
    if (progress_) progress_(what_, std::min(1.0, done_ / steps_));
  }
  void Begin(const std::string& what) {
    what_ = what;
    if (progress_) progress_(what_, std::min(1.0, done_ / steps_));
  }

  Backend& backend_;
  const CalibrationOptions& options_;
  const CalibrationProgress& progress_;
  ThreadPool pool_;
  std::unique_ptr<WeightFile> file_;
  KvShape shape_;
  Sha256Digest model_digest_ = {};
  Passages train_, search_;
  std::vector<VerifyText> verify_;
  std::unique_ptr<GradientModel> gradients_;
  std::unique_ptr<CalibrationJournal> journal_;
  std::unique_ptr<CodeSearch> searcher_;
  std::unique_ptr<TierVerifier> verifier_;
  std::string what_;
  double done_ = 0;
  double steps_ = 1;
};

absl::Status Calibration::LoadTexts(const Tokenizer& tokenizer) {
  const int32_t length = options_.passage_tokens;
  const int32_t parts =
      options_.train_passages + options_.search_passages + options_.verify_passages;
  for (const TextSource& source : options_.texts) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                               ReadTokens(source, tokenizer, parts * length));
    VerifyText verify;
    verify.name = LabelOf(source);
    for (int32_t part = 0; part < parts; ++part) {
      const auto begin = ids.begin() + static_cast<ptrdiff_t>(part) * length;
      Passages& to = part < options_.train_passages                              ? train_
                     : part < options_.train_passages + options_.search_passages ? search_
                                                                                 : verify.passages;
      to.emplace_back(begin, begin + length);
    }
    verify_.push_back(std::move(verify));
  }
  return absl::OkStatus();
}

/// Of everything that the codes depend on; what tiers depend on is in the names of their entries.
Sha256Digest Calibration::JobDigest(const Sha256Digest& model) const {
  Sha256 hash;
  const auto add = [&hash](const auto& values) { hash.Update(std::as_bytes(std::span(values))); };
  add(model);
  const uint32_t version[] = {kJournalVersion};
  add(version);
  const double numbers[] = {static_cast<double>(options_.search.seed), options_.search.copy_weight,
                            static_cast<double>(options_.train_passages)};
  add(numbers);
  for (const Passages* passages : {&train_, &search_}) {
    for (const std::vector<int32_t>& passage : *passages) add(passage);
  }
  for (const VerifyText& text : verify_) {
    for (const std::vector<int32_t>& passage : text.passages) add(passage);
  }
  return hash.Finish();
}

absl::Status Calibration::Load() {
  Begin("loading the model");
  ASYMSERVE_ASSIGN_OR_RETURN(file_, OpenWeightFile(options_.model_path));
  const ModelConfig& config = file_->config();
  const auto tokens = static_cast<int32_t>(Rereading{options_.passage_tokens}.tokens());
  if (tokens > config.context_length) {
    return absl::InvalidArgumentError(
        absl::StrCat("passage tokens: ", options_.passage_tokens, ", of which a third is read ",
                     "again; the model's context is ", config.context_length));
  }
  const auto tokenizer = Tokenizer::Create(file_->tokenizer_spec());
  if (!tokenizer.ok()) {
    return Annotate(tokenizer.status(), absl::StrCat(options_.model_path, ": tokenizer"));
  }
  ASYMSERVE_RETURN_IF_ERROR(LoadTexts(**tokenizer));
  shape_ = {config.layers, config.attention.kv_heads, config.attention.head_size};
  ASYMSERVE_ASSIGN_OR_RETURN(model_digest_, ModelDigest(*file_));
  ASYMSERVE_ASSIGN_OR_RETURN(gradients_, GradientModel::Create(*file_, pool_));
  journal_ = std::make_unique<CalibrationJournal>(options_.journal_path, JobDigest(model_digest_));
  searcher_ = std::make_unique<CodeSearch>(*gradients_, shape_, options_.search, pool_, *journal_,
                                           [this] { Step(); });
  ASYMSERVE_ASSIGN_OR_RETURN(verifier_, TierVerifier::Create(*file_, backend_, tokens));
  const auto tiers = static_cast<double>(options_.max_kl > 0 ? 6 : options_.tiers.size());
  steps_ = static_cast<double>(train_.size()) +
           options_.search.rounds * static_cast<double>(search_.size()) +
           tiers * static_cast<double>(verify_.size());
  return absl::OkStatus();
}

absl::StatusOr<KvProfileTier> Calibration::MakeTier(const TierRequest& request) {
  KvProfileTier tier;
  tier.name = request.name;
  tier.sink_pages = 1;
  tier.recent_pages = 1;
  tier.fresh_pages = request.fresh_pages;
  tier.items = searcher_->Allocate(request);
  Begin(absl::StrCat("verifying ", request.name));
  const KvScheme scheme = searcher_->SchemeOf(tier.items, tier.fresh_pages);
  for (size_t i = 0; i < verify_.size(); ++i) {
    const VerifyText& text = verify_[i];
    const std::string entry = absl::StrCat("verified ", ToHex(ItemsDigest(tier)), ", text ", i);
    std::vector<double> kept = journal_->Numbers(entry, 2);
    if (kept.empty()) {
      ASYMSERVE_ASSIGN_OR_RETURN(const VerifiedLoss loss,
                                 verifier_->Measure(scheme, searcher_->codes(), text));
      kept = {loss.mean_kl, loss.copy_loss};
      ASYMSERVE_RETURN_IF_ERROR(journal_->Put(entry, kept));
    }
    tier.losses.push_back({.text = text.name,
                           .tokens = int64_t{options_.passage_tokens} * options_.verify_passages,
                           .mean_kl = kept[0],
                           .copy_loss = kept[1]});
    Step();
  }
  return tier;
}

double MeanKl(const KvProfileTier& tier) {
  double sum = 0;
  for (const KvLoss& loss : tier.losses) {
    sum += loss.mean_kl / static_cast<double>(tier.losses.size());
  }
  return sum;
}

/// Bisects the bits in steps of kMaxKlStep.
absl::StatusOr<KvProfileTier> Calibration::MakeCheapestTier() {
  const TierRequest& request = options_.tiers.front();
  const auto tier_at = [&](int32_t step) {
    TierRequest trial = request;
    trial.bits = step * kMaxKlStep;
    return MakeTier(trial);
  };
  auto least = static_cast<int32_t>(kLeastBits / kMaxKlStep);
  auto most = static_cast<int32_t>(kMostBits / kMaxKlStep);
  ASYMSERVE_ASSIGN_OR_RETURN(KvProfileTier best, tier_at(most));
  if (MeanKl(best) > options_.max_kl) {
    return absl::NotFoundError(absl::StrCat("max-kl: ", options_.max_kl,
                                            " is a budget no scheme meets; ", kMostBits,
                                            " bits per element lose ", MeanKl(best)));
  }
  while (least < most) {
    const int32_t middle = (least + most) / 2;
    ASYMSERVE_ASSIGN_OR_RETURN(KvProfileTier tier, tier_at(middle));
    if (MeanKl(tier) <= options_.max_kl) {
      best = std::move(tier);
      most = middle;
    } else {
      least = middle + 1;
    }
  }
  return best;
}

/// Drops the planes that no tier uses.
void TrimCodes(KvProfile& profile) {
  for (size_t i = 0; i < profile.codes.size(); ++i) {
    PlaneCode& code = profile.codes[i];
    size_t used = 0;
    for (const KvProfileTier& tier : profile.tiers) {
      used = std::max<size_t>(used, tier.items[i].fresh_planes);
    }
    if (used == 0) {
      code = PlaneCode();
    } else {
      code.subvector.resize(used);
      code.codebooks.resize(64 * used);
    }
  }
}

absl::StatusOr<KvProfile> Calibration::Run() {
  Begin("training codes");
  ASYMSERVE_RETURN_IF_ERROR(searcher_->Train(train_));
  Begin("measuring what heads lose");
  ASYMSERVE_RETURN_IF_ERROR(searcher_->Refine(options_.tiers[options_.tiers.size() / 2], search_));
  KvProfile profile;
  profile.shape = shape_;
  profile.model_digest = model_digest_;
  profile.codes = searcher_->codes();
  if (options_.max_kl > 0) {
    ASYMSERVE_ASSIGN_OR_RETURN(KvProfileTier tier, MakeCheapestTier());
    profile.tiers = {std::move(tier)};
    TrimCodes(profile);
    return profile;
  }
  for (const TierRequest& request : options_.tiers) {
    ASYMSERVE_ASSIGN_OR_RETURN(KvProfileTier tier, MakeTier(request));
    profile.tiers.push_back(std::move(tier));
  }
  TrimCodes(profile);
  return profile;
}

}  // namespace

absl::Status CheckCalibrationOptions(const CalibrationOptions& options) {
  const auto bad = [](const std::string& what) { return absl::InvalidArgumentError(what); };
  if (options.texts.empty()) return bad("text: none given");
  if (options.texts.size() > kMaxLosses) {
    return bad(absl::StrCat("text: ", options.texts.size(), " given; a profile names ", kMaxLosses,
                            " at most"));
  }
  std::vector<std::string> labels;
  for (const TextSource& source : options.texts) {
    std::string label = LabelOf(source);
    if (label.size() > kMaxLossTextBytes) {
      return bad(
          absl::StrCat("text: the name ", label, " is longer than ", kMaxLossTextBytes, " bytes"));
    }
    if (std::find(labels.begin(), labels.end(), label) != labels.end()) {
      return bad(absl::StrCat("text: two are named ", label,
                              ", and a profile could not tell their losses apart"));
    }
    labels.push_back(std::move(label));
  }
  if (options.passage_tokens < 384 || options.passage_tokens % (3 * kKvPageTokens) != 0) {
    return bad(absl::StrCat("passage tokens: ", options.passage_tokens, "; must be a multiple of ",
                            3 * kKvPageTokens, ", at least 384"));
  }
  if (options.train_passages < 1 || options.search_passages < 1 || options.verify_passages < 1) {
    return bad("passages: at least 1 each to train, search and verify");
  }
  if (options.search.rounds < 0 || options.search.rounds > 100) {
    return bad(absl::StrCat("rounds: ", options.search.rounds, "; must be 0 to 100"));
  }
  if (!(options.search.copy_weight >= 0) || !(options.search.copy_weight <= 100)) {
    return bad(absl::StrCat("copy weight: ", options.search.copy_weight, "; must be 0 to 100"));
  }
  if (!(options.max_kl >= 0) || !std::isfinite(options.max_kl)) {
    return bad(absl::StrCat("max-kl: ", options.max_kl, "; must be positive"));
  }
  if (options.tiers.empty()) return bad("tiers: none given");
  for (const TierRequest& tier : options.tiers) {
    if (!(tier.bits >= kLeastBits) || !(tier.bits <= 8)) {
      return bad(absl::StrCat("tier ", tier.name, ": ", tier.bits, " bits; must be 0.25 to 8"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<KvProfile> Calibrate(Backend& backend, const CalibrationOptions& options,
                                    const CalibrationProgress& progress) {
  ASYMSERVE_RETURN_IF_ERROR(CheckCalibrationOptions(options));
  Calibration calibration(backend, options, progress);
  ASYMSERVE_RETURN_IF_ERROR(calibration.Load());
  return calibration.Run();
}

}  // namespace asymserve
