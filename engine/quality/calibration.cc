#include "engine/quality/calibration.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/base/thread_pool.h"
#include "engine/model/llama.h"
#include "engine/quality/allocation.h"
#include "engine/quality/kv_statistics.h"
#include "engine/quality/model_digest.h"
#include "engine/quality/plane_trainer.h"
#include "engine/quality/pseudo_decode.h"
#include "engine/quality/quality_metrics.h"
#include "engine/quality/reference_logits.h"

namespace asymserve {
namespace {

constexpr int32_t kUniformPlanesPerChannel4 = 1;  // 1.0 bit: one plane per four channels
constexpr int32_t kPlanesToMove = 2;              // the least that an item gets
constexpr double kFreshBits = 3.0;
constexpr int32_t kSkip = kKvPageTokens;

/// A passage read twice, with what the exact model says from `from` on.
struct Probe {
  std::vector<int32_t> tokens;
  int32_t passage = 0;
  ReferenceLogits reference;

  /// New text is judged on the second half of the first reading, copying on the second reading
  /// behind its first tokens.
  int32_t natural_from() const { return passage / 2; }
  int32_t copy_from() const { return passage + kSkip; }
};

struct ProbeLoss {
  double natural = 0;  // mean KL
  double copy = 0;     // mean KL on the second reading
  double copy_nll = 0;
};

/// A text's name in a profile, which travels: its file without the folder.
std::string LabelOf(const TextSource& source) {
  const std::string file = std::filesystem::path(source.path).filename().string();
  return source.offset == 0 ? file : absl::StrCat(file, "@", source.offset);
}

class Calibration {
 public:
  Calibration(Backend& backend, const CalibrationOptions& options,
              const CalibrationProgress& progress)
      : backend_(backend), options_(options), progress_(progress) {}

  absl::Status Load();
  absl::Status Train();
  absl::StatusOr<KvProfile> Search();

 private:
  struct Text {
    std::vector<int32_t> train, search, verify;
  };

  absl::Status LoadTexts(const Tokenizer& tokenizer);
  absl::StatusOr<PseudoDecoder> MakeDecoder(const KvScheme& scheme, int32_t tokens);
  absl::StatusOr<Probe> MakeProbe(const std::vector<int32_t>& passage);
  absl::StatusOr<ProbeLoss> Measure(const KvScheme& scheme, const Probe& probe);
  absl::StatusOr<double> Objective(const KvScheme& scheme);
  absl::Status MeasureItems(const std::vector<KvItem>& base, int32_t round);
  absl::StatusOr<KvProfileTier> MakeTier(const TierRequest& request);
  KvScheme SchemeOf(const std::vector<KvItem>& items, int32_t fresh_pages) const;
  int32_t PlanesFor(double bits) const {
    return static_cast<int32_t>(std::lround(bits * setup_.shape.head_size / 4.0)) / 2 * 2;
  }
  void Report(const std::string& what, double fraction) const {
    if (progress_) progress_(what, fraction);
  }

  Backend& backend_;
  const CalibrationOptions& options_;
  const CalibrationProgress& progress_;
  std::unique_ptr<WeightFile> file_;
  std::unique_ptr<LlamaModel> model_;
  KvSetup setup_;  // but for the scheme
  std::vector<Text> texts_;
  PlaneCodes codes_;
  std::vector<ItemLoss> losses_;
  std::vector<Probe> probes_;
};

absl::Status Calibration::Load() {
  Report("loading the model", 0);
  ASYMSERVE_ASSIGN_OR_RETURN(file_, OpenWeightFile(options_.model_path));
  const ModelConfig& config = file_->config();
  const int32_t longest =
      std::max({options_.train_tokens, 2 * options_.search_tokens, 2 * options_.verify_tokens});
  if (longest > config.context_length) {
    return absl::InvalidArgumentError(absl::StrCat("calibration reads ", longest,
                                                   " tokens at a time; the model's context is ",
                                                   config.context_length));
  }
  const auto tokenizer = Tokenizer::Create(file_->tokenizer_spec());
  if (!tokenizer.ok()) {
    return Annotate(tokenizer.status(), absl::StrCat(options_.model_path, ": tokenizer"));
  }
  ASYMSERVE_RETURN_IF_ERROR(LoadTexts(**tokenizer));
  auto model = LlamaModel::Load(*file_, backend_,
                                {.max_step_tokens = kKvPageTokens,
                                 .max_logit_rows = kKvPageTokens,
                                 .max_positions = longest});
  if (!model.ok()) return Annotate(model.status(), options_.model_path);
  model_ = *std::move(model);
  const AttentionShape& attention = config.attention;
  setup_.shape = {config.layers, attention.kv_heads, attention.head_size};
  setup_.rope = model_->rope();
  setup_.rope_style = config.rope_style;
  return absl::OkStatus();
}

absl::Status Calibration::LoadTexts(const Tokenizer& tokenizer) {
  for (size_t i = 0; i < options_.texts.size(); ++i) {
    const bool searched = i < static_cast<size_t>(options_.search_texts);
    const int32_t search = searched ? options_.search_tokens : 0;
    const int32_t verify = searched ? options_.verify_tokens : 0;
    ASYMSERVE_ASSIGN_OR_RETURN(
        const std::vector<int32_t> ids,
        ReadTokens(options_.texts[i], tokenizer, options_.train_tokens + search + verify));
    const auto part = ids.begin() + options_.train_tokens;
    texts_.push_back({{ids.begin(), part}, {part, part + search}, {part + search, ids.end()}});
  }
  return absl::OkStatus();
}

absl::Status Calibration::Train() {
  Report("collecting keys, values and queries", 0);
  std::vector<std::vector<int32_t>> sequences;
  for (const Text& text : texts_) sequences.push_back(text.train);
  KvStatisticsOptions collect;
  collect.seed = options_.seed;
  ASYMSERVE_ASSIGN_OR_RETURN(const KvStatistics statistics,
                             CollectKvStatistics(*model_, backend_, *file_, sequences, collect));
  Report("training the codes", 0);
  PlaneTraining training;
  training.max_planes = PlanesFor(kFreshBits);
  training.seed = options_.seed;
  ThreadPool pool(options_.threads);
  ASYMSERVE_ASSIGN_OR_RETURN(std::vector<TrainedPlanes> trained,
                             TrainAllPlanes(statistics, training, pool));
  for (TrainedPlanes& planes : trained) {
    codes_.push_back(std::move(planes.code));
    losses_.push_back({.distortion = std::move(planes.distortion)});
  }
  return absl::OkStatus();
}

KvScheme Calibration::SchemeOf(const std::vector<KvItem>& items, int32_t fresh_pages) const {
  KvScheme scheme;
  scheme.name = "learned";
  scheme.near = KvCodec::kInt8;
  scheme.sink_pages = 1;
  scheme.key_window = scheme.value_window = {.recent_pages = 1, .block_pages = 1};
  scheme.fresh_pages = fresh_pages;
  scheme.items = items;
  return scheme;
}

absl::StatusOr<PseudoDecoder> Calibration::MakeDecoder(const KvScheme& scheme, int32_t tokens) {
  KvSetup setup = setup_;
  setup.scheme = scheme;
  setup.codes = &codes_;
  return PseudoDecoder::Create(*model_, backend_, std::move(setup), tokens);
}

absl::StatusOr<Probe> Calibration::MakeProbe(const std::vector<int32_t>& passage) {
  Probe probe;
  probe.passage = static_cast<int32_t>(passage.size());
  probe.tokens = passage;
  probe.tokens.insert(probe.tokens.end(), passage.begin(), passage.end());
  probe.reference.from = probe.natural_from();
  probe.reference.vocabulary = static_cast<size_t>(model_->vocabulary());
  ASYMSERVE_ASSIGN_OR_RETURN(PseudoDecoder decoder,
                             MakeDecoder(KvScheme(), static_cast<int32_t>(probe.tokens.size())));
  ASYMSERVE_RETURN_IF_ERROR(
      decoder.Run(probe.tokens, probe.natural_from(), [&](int32_t, std::span<const float> logits) {
        probe.reference.values.insert(probe.reference.values.end(), logits.begin(), logits.end());
      }));
  return probe;
}

absl::StatusOr<ProbeLoss> Calibration::Measure(const KvScheme& scheme, const Probe& probe) {
  ASYMSERVE_ASSIGN_OR_RETURN(PseudoDecoder decoder,
                             MakeDecoder(scheme, static_cast<int32_t>(probe.tokens.size())));
  ProbeLoss loss;
  int32_t natural = 0;
  int32_t copied = 0;
  ASYMSERVE_RETURN_IF_ERROR(decoder.Run(
      probe.tokens, probe.natural_from(), [&](int32_t position, std::span<const float> logits) {
        if (position >= probe.passage - 1 && position < probe.copy_from()) return;
        const PositionLoss at = Compare(probe.reference.At(position), logits,
                                        probe.tokens[static_cast<size_t>(position) + 1]);
        if (position < probe.passage) {
          loss.natural += at.kl;
          ++natural;
        } else {
          loss.copy += at.kl;
          loss.copy_nll += at.nll;
          ++copied;
        }
      }));
  loss.natural /= natural;
  loss.copy /= copied;
  loss.copy_nll /= copied;
  if (!std::isfinite(loss.natural) || !std::isfinite(loss.copy)) {
    return absl::InternalError("calibration: logits are not finite");
  }
  return loss;
}

absl::StatusOr<double> Calibration::Objective(const KvScheme& scheme) {
  double sum = 0;
  for (const Probe& probe : probes_) {
    ASYMSERVE_ASSIGN_OR_RETURN(const ProbeLoss loss, Measure(scheme, probe));
    sum += loss.natural + options_.copy_weight * loss.copy;
  }
  return sum / static_cast<double>(probes_.size());
}

/// Fills losses_: for every item, by how much the objective falls when it alone is stored in 8
/// bits.
absl::Status Calibration::MeasureItems(const std::vector<KvItem>& base, int32_t round) {
  constexpr double kLeast = 2e-5;  // noise must not look like nothing at all
  ASYMSERVE_ASSIGN_OR_RETURN(const double all, Objective(SchemeOf(base, 0)));
  for (size_t i = 0; i < base.size(); ++i) {
    const double done = static_cast<double>(i) / static_cast<double>(base.size());
    Report(absl::StrCat("measuring items, round ", round, " of ", options_.rounds), done);
    if (base[i].codec != KvCodec::kPlanes) continue;  // its loss of the round before stands
    std::vector<KvItem> items = base;
    items[i] = {.codec = KvCodec::kInt8};
    ASYMSERVE_ASSIGN_OR_RETURN(const double without, Objective(SchemeOf(items, 0)));
    losses_[i].loss = std::max(all - without, kLeast);
    losses_[i].at_planes = base[i].base_planes;
  }
  return absl::OkStatus();
}

absl::StatusOr<KvProfileTier> Calibration::MakeTier(const TierRequest& request) {
  KvProfileTier tier;
  tier.name = request.name;
  tier.sink_pages = 1;
  tier.recent_pages = 1;
  tier.fresh_pages = request.fresh_pages;
  tier.items = AllocatePlanes(losses_, setup_.shape.head_size, request.bits, kPlanesToMove,
                              PlanesFor(kFreshBits));
  for (int32_t i = 0; i < options_.search_texts; ++i) {
    const auto t = static_cast<size_t>(i);
    ASYMSERVE_ASSIGN_OR_RETURN(const Probe probe, MakeProbe(texts_[t].verify));
    ASYMSERVE_ASSIGN_OR_RETURN(const ProbeLoss loss,
                               Measure(SchemeOf(tier.items, tier.fresh_pages), probe));
    tier.losses.push_back({.text = LabelOf(options_.texts[t]),
                           .tokens = options_.verify_tokens,
                           .mean_kl = loss.natural,
                           .copy_loss = loss.copy_nll});
  }
  return tier;
}

absl::StatusOr<KvProfile> Calibration::Search() {
  for (int32_t i = 0; i < options_.search_texts; ++i) {
    ASYMSERVE_ASSIGN_OR_RETURN(Probe probe, MakeProbe(texts_[static_cast<size_t>(i)].search));
    probes_.push_back(std::move(probe));
  }
  const auto uniform = static_cast<uint8_t>(
      std::max(kPlanesToMove, setup_.shape.head_size / 4 * kUniformPlanesPerChannel4));
  std::vector<KvItem> base(
      codes_.size(), {.codec = KvCodec::kPlanes, .base_planes = uniform, .fresh_planes = uniform});
  for (int32_t round = 1; round <= options_.rounds; ++round) {
    ASYMSERVE_RETURN_IF_ERROR(MeasureItems(base, round));
    base = AllocatePlanes(losses_, setup_.shape.head_size, 1.0, kPlanesToMove, 0);
  }
  KvProfile profile;
  profile.shape = setup_.shape;
  ASYMSERVE_ASSIGN_OR_RETURN(profile.model_digest, ModelDigest(*file_));
  profile.codes = codes_;
  for (const TierRequest& request : options_.tiers) {
    Report(absl::StrCat("tier ", request.name), 0);
    ASYMSERVE_ASSIGN_OR_RETURN(KvProfileTier tier, MakeTier(request));
    profile.tiers.push_back(std::move(tier));
  }
  return profile;
}

}  // namespace

absl::Status CheckCalibrationOptions(const CalibrationOptions& options) {
  const auto bad = [](const std::string& what) { return absl::InvalidArgumentError(what); };
  if (options.texts.empty()) return bad("text: none given");
  if (options.train_tokens < 256) return bad("train tokens: at least 256");
  if (options.search_tokens < 4 * kSkip) return bad("search tokens: at least 256");
  if (options.verify_tokens < 4 * kSkip) return bad("verify tokens: at least 256");
  if (options.search_texts < 1 ||
      options.search_texts > static_cast<int32_t>(options.texts.size())) {
    return bad(absl::StrCat("search texts: 1 to the number of texts, ", options.texts.size()));
  }
  if (options.rounds < 1) return bad("rounds: at least 1");
  if (options.tiers.empty()) return bad("tiers: none given");
  for (const TierRequest& tier : options.tiers) {
    if (!(tier.bits >= 0.25) || !(tier.bits <= 8)) {
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
  ASYMSERVE_RETURN_IF_ERROR(calibration.Train());
  return calibration.Search();
}

}  // namespace asymserve
