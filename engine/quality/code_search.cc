#include "engine/quality/code_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/kv/codec.h"
#include "engine/kv/item_name.h"
#include "engine/kv/profile.h"
#include "engine/quality/plane_trainer.h"

namespace asymserve {
namespace {

constexpr int32_t kLeastPlanes = 2;
constexpr int32_t kFreshPages = 4;  // while codes are trained
// A single measurement is noisy: it counts half, and may differ from what was known by this factor.
constexpr double kMostChange = 8;
constexpr char kCodesEntry[] = "codes";
constexpr char kLossesEntry[] = "losses";

/// What is known of an item's loss with that many planes.
double KnownLoss(const ItemLoss& item, uint8_t planes) {
  const double at = item.distortion[static_cast<size_t>(item.at_planes)];
  return at > 0 ? item.loss * item.distortion[planes] / at : 0;
}

/// Puts together what was known and what was measured with `items`, one number an item.
void UpdateLosses(const std::vector<KvItem>& items, uint8_t KvItem::*planes,
                  std::span<const double> measured, std::vector<ItemLoss>& losses) {
  double known_sum = 0, measured_sum = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].codec != KvCodec::kPlanes) continue;
    known_sum += KnownLoss(losses[i], items[i].*planes);
    measured_sum += measured[i];
  }
  // Their units may differ: curvature leaves out what grows faster than squares.
  const double unit = known_sum > 0 && measured_sum > 0 ? measured_sum / known_sum : 1;
  for (size_t i = 0; i < items.size(); ++i) {
    ItemLoss& item = losses[i];
    if (items[i].codec != KvCodec::kPlanes) {
      item.loss *= unit;
      continue;
    }
    const double known = unit * KnownLoss(item, items[i].*planes);
    item.loss = (known + std::clamp(measured[i], known / kMostChange, known * kMostChange)) / 2;
    item.at_planes = items[i].*planes;
  }
}

/// Adds to sums [items] half of gradient times error of a layer's rows in a tier.
void AddErrors(const KvShape& shape, const KvGradients& layer, KvTier tier, double* sums) {
  const auto t = static_cast<size_t>(tier);
  for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
    const bool key = tensor == KvTensor::kKey;
    const auto& rows = key ? layer.rows.keys : layer.rows.values;
    const auto& gradients = (key ? layer.gradients.keys : layer.gradients.values)[t];
    for (size_t i = 0; i < gradients.size(); ++i) {
      const auto head =
          static_cast<int32_t>(i / static_cast<size_t>(shape.head_size)) % shape.kv_heads;
      sums[KvItemIndex(shape, layer.layer, tensor, head)] +=
          0.5 * static_cast<double>(gradients[i]) * static_cast<double>(rows[t][i] - rows[0][i]);
    }
  }
}

}  // namespace

std::vector<int32_t> Reread(const std::vector<int32_t>& passage) {
  std::vector<int32_t> tokens = passage;
  tokens.insert(tokens.end(), passage.begin(),
                passage.begin() + static_cast<ptrdiff_t>(passage.size() / 3));
  return tokens;
}

std::vector<float> Rereading::Weights(double copy_weight) const {
  std::vector<float> weights(static_cast<size_t>(tokens()));
  // The last token of each reading has no next one.
  const auto natural = static_cast<double>(passage - 1 - natural_from());
  const auto copied = static_cast<double>(tokens() - 1 - copy_from());
  for (int64_t t = natural_from(); t < passage - 1; ++t) {
    weights[static_cast<size_t>(t)] = static_cast<float>(1 / natural);
  }
  for (int64_t t = copy_from(); t < tokens() - 1; ++t) {
    weights[static_cast<size_t>(t)] = static_cast<float>(copy_weight / copied);
  }
  return weights;
}

CodeSearch::CodeSearch(GradientModel& model, const KvShape& shape, const CodeSearchOptions& options,
                       ThreadPool& pool, CalibrationJournal& journal, PassSink passed)
    : model_(model),
      shape_(shape),
      options_(options),
      pool_(pool),
      journal_(journal),
      passed_(std::move(passed)) {}

KvScheme CodeSearch::SchemeOf(const std::vector<KvItem>& items, int32_t fresh_pages) const {
  KvScheme scheme;
  scheme.name = "learned";
  scheme.near = KvCodec::kInt8;
  scheme.sink_pages = 1;
  scheme.key_window = scheme.value_window = {.recent_pages = 1, .block_pages = 1};
  scheme.fresh_pages = fresh_pages;
  scheme.items = items;
  return scheme;
}

// ---- Codes ------------------------------------------------------------------------------------

absl::Status CodeSearch::TrainCodes(std::span<const std::vector<int32_t>> passages) {
  // Items are of no matter, but without any all pages would be near.
  const KvScheme scheme =
      SchemeOf(std::vector<KvItem>(KvItemCount(shape_), {.codec = KvCodec::kInt8}), kFreshPages);
  KvCurvature curvature(shape_);
  for (size_t i = 0; i < passages.size(); ++i) {
    const Rereading reading = {static_cast<int64_t>(passages[i].size())};
    ASYMSERVE_RETURN_IF_ERROR(model_.Forward(Reread(passages[i]), scheme, nullptr));
    model_.SampleCurvature(reading.Weights(options_.copy_weight), options_.seed + i);
    // Pages that some token reads as aged.
    const int64_t end = reading.tokens() - int64_t{kKvPageTokens} * (kFreshPages + 2);
    const auto turn = [&](int64_t position, float* head) {
      model_.TurnBack(head, position / scheme.frame_tokens * scheme.frame_tokens);
    };
    ASYMSERVE_RETURN_IF_ERROR(model_.Backward(
        [&](const KvGradients& layer) { curvature.Observe(layer, kKvPageTokens, end, turn); }));
    passed_();
  }
  PlaneTraining training;
  training.max_planes = std::min(shape_.head_size / 4 * training.stages, 254);
  training.seed = options_.seed;
  ASYMSERVE_ASSIGN_OR_RETURN(std::vector<TrainedPlanes> trained,
                             TrainAllPlanes(curvature, training, pool_));
  // Distortion is curvature: half of it, over the rows of a passage, is the loss in nats.
  const auto rows = static_cast<double>(Reread(passages.front()).size());
  for (size_t i = 0; i < trained.size(); ++i) {
    codes_.push_back(std::move(trained[i].code));
    ItemLoss item = {.distortion = std::move(trained[i].distortion)};
    item.at_planes = static_cast<int32_t>(item.distortion.size()) / 4;
    item.loss = rows / 2 * item.distortion[static_cast<size_t>(item.at_planes)];
    aged_.push_back(item);
    item.loss *= curvature.FreshShare(i);
    fresh_.push_back(std::move(item));
  }
  return absl::OkStatus();
}

absl::Status CodeSearch::KeepCodes() {
  KvProfile profile;
  profile.shape = shape_;
  profile.codes = codes_;
  KvProfileTier tier;
  tier.name = kCodesEntry;
  tier.items.assign(codes_.size(), {.codec = KvCodec::kInt8});
  profile.tiers = {tier};
  std::vector<double> numbers;
  for (size_t i = 0; i < codes_.size(); ++i) {
    numbers.insert(numbers.end(), aged_[i].distortion.begin(), aged_[i].distortion.end());
    numbers.push_back(aged_[i].loss);
    numbers.push_back(fresh_[i].loss);
  }
  ASYMSERVE_ASSIGN_OR_RETURN(std::string bytes, SerializeProfile(profile));
  ASYMSERVE_RETURN_IF_ERROR(journal_.Put(kLossesEntry, numbers));
  return journal_.Put(kCodesEntry, std::move(bytes));
}

bool CodeSearch::FindCodes() {
  const std::string* bytes = journal_.Find(kCodesEntry);
  if (bytes == nullptr) return false;
  absl::StatusOr<KvProfile> profile = ParseProfile(std::as_bytes(std::span(*bytes)));
  if (!profile.ok() || profile->codes.size() != KvItemCount(shape_)) return false;
  size_t count = 0;
  for (const PlaneCode& code : profile->codes) count += static_cast<size_t>(code.planes()) + 3;
  const std::vector<double> numbers = journal_.Numbers(kLossesEntry, count);
  if (numbers.size() != count) return false;
  codes_ = std::move(profile->codes);
  auto next = numbers.begin();
  for (const PlaneCode& code : codes_) {
    ItemLoss item = {.distortion = {next, next + code.planes() + 1}};
    item.at_planes = code.planes() / 4;
    next += code.planes() + 1;
    item.loss = *next++;
    aged_.push_back(item);
    item.loss = *next++;
    fresh_.push_back(std::move(item));
  }
  return true;
}

absl::Status CodeSearch::Train(std::span<const std::vector<int32_t>> passages) {
  if (FindCodes()) {
    for (size_t i = 0; i < passages.size(); ++i) passed_();
  } else {
    ASYMSERVE_RETURN_IF_ERROR(TrainCodes(passages));
    ASYMSERVE_RETURN_IF_ERROR(KeepCodes());
  }
  return absl::OkStatus();
}

// ---- Search -----------------------------------------------------------------------------------

std::vector<KvItem> CodeSearch::Allocate(const TierRequest& tier) const {
  std::vector<KvItem> items = AllocatePlanes(aged_, shape_.head_size, tier.bits, kLeastPlanes);
  AllocateFreshPlanes(fresh_, shape_.head_size, tier.fresh_bits, items);
  return items;
}

/// For every item half the sum of gradient times error of its aged rows, which is what it loses
/// where errors are small and independent; the same of its fresh rows; then the losses on new text
/// and on the second reading.
absl::StatusOr<std::vector<double>> CodeSearch::MeasureAt(const KvScheme& scheme,
                                                          const std::vector<int32_t>& passage) {
  const std::vector<int32_t> tokens = Reread(passage);
  const Rereading reading = {static_cast<int64_t>(passage.size())};
  std::vector<float>& exact = exact_[passage];
  if (exact.empty()) {
    ASYMSERVE_RETURN_IF_ERROR(model_.Forward(tokens, scheme, nullptr));
    exact = model_.hidden();
  }
  ASYMSERVE_RETURN_IF_ERROR(model_.Forward(tokens, scheme, &codes_));
  const GradientLosses losses = model_.Judge(exact, reading.Weights(options_.copy_weight));
  const size_t items = KvItemCount(shape_);
  std::vector<double> result(2 * items + 2);
  ASYMSERVE_RETURN_IF_ERROR(model_.Backward([&](const KvGradients& layer) {
    AddErrors(shape_, layer, KvTier::kAged, result.data());
    AddErrors(shape_, layer, KvTier::kFresh, result.data() + items);
  }));
  const auto mean = [&](int64_t from, int64_t end) {
    double sum = 0;
    for (int64_t t = from; t < end; ++t) sum += losses.kl[static_cast<size_t>(t)];
    return sum / static_cast<double>(end - from);
  };
  result[2 * items] = mean(reading.natural_from(), reading.passage - 1);
  result[2 * items + 1] = mean(reading.copy_from(), reading.tokens() - 1);
  if (!std::all_of(result.begin(), result.end(), [](double x) { return std::isfinite(x); })) {
    return absl::InternalError("calibration: losses or gradients are not finite");
  }
  return result;
}

/// Means over the passages.
absl::StatusOr<std::vector<double>> CodeSearch::MeasureAll(
    const TierRequest& tier, const std::vector<KvItem>& items, int32_t round,
    std::span<const std::vector<int32_t>> passages) {
  const KvScheme scheme = SchemeOf(items, tier.fresh_pages);
  std::vector<double> measured(2 * items.size() + 2);
  for (size_t i = 0; i < passages.size(); ++i) {
    const std::string name = absl::StrCat("at ", tier.bits, " ", tier.fresh_pages, " ",
                                          tier.fresh_bits, ", round ", round, ", passage ", i);
    std::vector<double> one = journal_.Numbers(name, measured.size());
    if (one.empty()) {
      ASYMSERVE_ASSIGN_OR_RETURN(one, MeasureAt(scheme, passages[i]));
      ASYMSERVE_RETURN_IF_ERROR(journal_.Put(name, one));
    }
    for (size_t j = 0; j < one.size(); ++j) {
      measured[j] += one[j] / static_cast<double>(passages.size());
    }
    passed_();
  }
  return measured;
}

absl::Status CodeSearch::Refine(const TierRequest& tier,
                                std::span<const std::vector<int32_t>> passages) {
  for (int32_t round = 1; round <= options_.rounds; ++round) {
    const std::vector<KvItem> items = Allocate(tier);
    ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<double> measured,
                               MeasureAll(tier, items, round, passages));
    const std::span<const double> all(measured);
    UpdateLosses(items, &KvItem::base_planes, all.first(items.size()), aged_);
    UpdateLosses(items, &KvItem::fresh_planes, all.subspan(items.size(), items.size()), fresh_);
  }
  return absl::OkStatus();
}

}  // namespace asymserve
