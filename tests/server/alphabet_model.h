#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "engine/model/model.h"
#include "tests/support/toy_tokenizer.h"

namespace asymserve::testing {

/// Behind a letter comes the next of the alphabet, behind z comes a; behind any other byte comes a.
/// With the toy tokenizer, whose first 256 tokens are the bytes. Steps can be held back.
class AlphabetModel final : public Model {
 public:
  static constexpr int32_t kVocabulary = kToyLeastVocabulary;

  int32_t vocabulary() const override { return kVocabulary; }
  int32_t context_length() const override { return 4096; }

  absl::StatusOr<TensorView> Forward(const Batch& batch) override {
    std::unique_lock lock(mutex_);
    in_step_ = true;
    if (slow_) changed_.wait_for(lock, std::chrono::milliseconds(2), [] { return false; });
    changed_.wait(lock, [this] { return !held_; });
    in_step_ = false;
    if (broken_) return absl::InternalError("the device is gone");
    logits_.assign(batch.logit_rows.size() * kVocabulary, 0.0f);
    for (size_t row = 0; row < batch.logit_rows.size(); ++row) {
      const int32_t token = batch.tokens[static_cast<size_t>(batch.logit_rows[row])];
      logits_[row * kVocabulary + static_cast<size_t>(Next(token))] = 20;
    }
    return MakeMatrix(logits_.data(), static_cast<int64_t>(batch.logit_rows.size()), kVocabulary);
  }

  static int32_t Next(int32_t token) { return token >= 'a' && token < 'z' ? token + 1 : 'a'; }

  /// Steps wait from now on until Release.
  void Hold() { Set(held_, true); }
  void Release() { Set(held_, false); }
  /// A step takes 2 ms from now on: a long text lasts for seconds.
  void SlowDown() { Set(slow_, true); }
  /// Whether the engine thread is in a step, held back.
  bool in_step() {
    std::lock_guard lock(mutex_);
    return in_step_;
  }
  /// Every further step fails.
  void Break() { Set(broken_, true); }

 private:
  void Set(bool& flag, bool value) {
    {
      std::lock_guard lock(mutex_);
      flag = value;
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false, broken_ = false, in_step_ = false, slow_ = false;
  std::vector<float> logits_;
};

/// Holds the steps of a model during its life. Declare it behind the futures that wait for them.
class HoldSteps {
 public:
  explicit HoldSteps(AlphabetModel& model) : model_(model) { model_.Hold(); }
  HoldSteps(const HoldSteps&) = delete;
  HoldSteps& operator=(const HoldSteps&) = delete;
  ~HoldSteps() { model_.Release(); }

 private:
  AlphabetModel& model_;
};

}  // namespace asymserve::testing
