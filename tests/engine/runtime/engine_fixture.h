#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/runtime/engine.h"
#include "tests/engine/runtime/scripted_model.h"

// An engine over the scripted model, and what a client sees of it.

namespace asymserve::testing {

class RecordingSink final : public OutputSink {
 public:
  explicit RecordingSink(int sequences = 1) : sequences_(static_cast<size_t>(sequences)) {}

  bool Deliver(Delta delta) override {
    std::lock_guard lock(mutex_);
    One& one = sequences_[static_cast<size_t>(delta.index)];
    EXPECT_EQ(one.finals, 0) << "a delta behind the final one";
    one.text += delta.text;
    for (const TokenInfo& token : delta.tokens) one.tokens.push_back(token.id);
    if (delta.finish != FinishReason::kNone) {
      ++one.finals;
      one.last = std::move(delta);
    }
    changed_.notify_all();
    return !refuse_;
  }

  void WaitForTokens(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock,
                  [&] { return sequences_[0].tokens.size() >= count || sequences_[0].finals; });
  }
  Delta WaitForFinal(int index = 0) {
    std::unique_lock lock(mutex_);
    One& one = sequences_[static_cast<size_t>(index)];
    changed_.wait(lock, [&] { return one.finals > 0; });
    return one.last;
  }
  std::vector<int32_t> tokens(int index = 0) {
    std::lock_guard lock(mutex_);
    return sequences_[static_cast<size_t>(index)].tokens;
  }
  std::string text(int index = 0) {
    std::lock_guard lock(mutex_);
    return sequences_[static_cast<size_t>(index)].text;
  }
  void Refuse() {
    std::lock_guard lock(mutex_);
    refuse_ = true;
  }

 private:
  struct One {
    std::string text;
    std::vector<int32_t> tokens;
    int finals = 0;
    Delta last;
  };
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<One> sequences_;
  bool refuse_ = false;
};

/// Holds the engine thread before each step until the test lets it go.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
    --waiting_;
  }
  void WaitUntilHeld() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return waiting_ > 0; });
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0;
  bool open_ = false;
};

class EngineTest : public ::testing::Test {
 protected:
  static EngineOptions SmallOptions() {
    EngineOptions options;
    options.arena = ArenaCut::Pages(256);
    options.scheme.page_tokens = kPageTokens;
    options.scheme.chunk_tokens = 8;
    options.max_running = 16;
    options.max_waiting = 64;
    options.step_tokens = 24;
    return options;
  }
  void Start(const EngineOptions& options = SmallOptions()) {
    engine_ = std::make_unique<Engine>(model_, tokenizer_, options);
  }
  static GenerateRequest Greedy(std::vector<int32_t> prompt, int32_t max_tokens) {
    GenerateRequest request;
    request.prompt = std::move(prompt);
    request.sampling.temperature = 0;
    request.stop.max_tokens = max_tokens;
    return request;
  }
  std::shared_ptr<RecordingSink> Submit(GenerateRequest request) {
    auto sink = std::make_shared<RecordingSink>(request.n);
    const auto id = engine_->Submit(std::move(request), sink);
    EXPECT_TRUE(id.ok()) << id.status();
    return sink;
  }
  void ExpectNoPagesUsed() {
    EXPECT_TRUE(engine_->WaitIdle(std::chrono::seconds(20)));
    EXPECT_EQ(engine_->metrics().pages_used.value(), 0);
    EXPECT_EQ(engine_->metrics().running.value(), 0);
    EXPECT_EQ(engine_->metrics().waiting.value(), 0);
    EXPECT_TRUE(engine_->HasRoom(SmallOptions().max_waiting)) << "waiting room leaked";
  }

  ScriptedModel model_;
  LetterTokenizer tokenizer_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace asymserve::testing
