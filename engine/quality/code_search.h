#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/base/thread_pool.h"
#include "engine/kv/plane_code.h"
#include "engine/kv/scheme.h"
#include "engine/model/weight_file.h"
#include "engine/quality/allocation.h"
#include "engine/quality/calibration_journal.h"
#include "engine/quality/gradient_model.h"
#include "engine/quality/kv_curvature.h"

namespace asymserve {

/// A tier to be searched.
struct TierRequest {
  std::string name;
  double bits = 1.0;  // of aged pages, per element
  int32_t fresh_pages = 4;
  double fresh_bits = 3.2;  // of fresh pages, per element; int8 items do not count
};

/// A passage whose first third is read again behind it, and how much of it counts: new text from a
/// sixth of the passage on, copying on the second reading behind its first page.
struct Rereading {
  int64_t passage = 0;  // tokens, a multiple of 192

  int64_t tokens() const { return passage + passage / 3; }
  int64_t natural_from() const { return passage / 6; }
  int64_t copy_from() const { return passage + 64; }
  /// [tokens()]: the weighted sum is mean loss on new text + copy_weight * mean loss on the second
  /// reading.
  std::vector<float> Weights(double copy_weight) const;
};

/// The passage, then its first third.
std::vector<int32_t> Reread(const std::vector<int32_t>& passage);

struct CodeSearchOptions {
  double copy_weight = 0.1;  // of the loss on the second reading against that on new text
  int32_t rounds = 1;        // of measuring by gradients at the newest allocation
  uint64_t seed = 1;
};

/// Trains the codes of every item and gives out bits, by gradients of the loss (GradientModel).
class CodeSearch {
 public:
  /// After each pass of the model: Train takes one a passage, Refine `rounds` a passage.
  using PassSink = std::function<void()>;

  /// `model`, `pool` and `journal` outlive it.
  CodeSearch(GradientModel& model, const KvShape& shape, const CodeSearchOptions& options,
             ThreadPool& pool, CalibrationJournal& journal, PassSink passed);

  /// Passages are of one length, a multiple of 192, at least 384 tokens.
  absl::Status Train(std::span<const std::vector<int32_t>> passages);
  /// After Train: measures what items lose at the allocation of a tier, in rounds.
  absl::Status Refine(const TierRequest& tier, std::span<const std::vector<int32_t>> passages);
  /// What a tier's items become, as far as is known.
  std::vector<KvItem> Allocate(const TierRequest& tier) const;

  const PlaneCodes& codes() const { return codes_; }
  KvScheme SchemeOf(const std::vector<KvItem>& items, int32_t fresh_pages) const;

 private:
  absl::Status TrainCodes(std::span<const std::vector<int32_t>> passages);
  absl::Status KeepCodes();
  bool FindCodes();
  absl::StatusOr<std::vector<double>> MeasureAt(const KvScheme& scheme,
                                                const std::vector<int32_t>& passage);
  absl::StatusOr<std::vector<double>> MeasureAll(const TierRequest& tier,
                                                 const std::vector<KvItem>& items, int32_t round,
                                                 std::span<const std::vector<int32_t>> passages);

  GradientModel& model_;
  KvShape shape_;
  CodeSearchOptions options_;
  ThreadPool& pool_;
  CalibrationJournal& journal_;
  PassSink passed_;
  PlaneCodes codes_;
  std::vector<ItemLoss> aged_, fresh_;  // what items lose by either kind of page
  std::map<std::vector<int32_t>, std::vector<float>> exact_;  // hidden states by passage
};

}  // namespace asymserve
