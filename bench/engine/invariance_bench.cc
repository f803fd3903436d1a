// Sixteen mixed requests, each alone and then all in one batch: the tokens must be the same, and
// the batch at least three times as fast. Then again with other threads, step budgets and so little
// memory that sequences are preempted: the tokens must be the same still.
//
//   build/release/bin/bench_invariance --model FILE
//
// Exit status 1 if a token differs or the batch is slower than that.

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/runtime/engine.h"
#include "engine/runtime/model_loader.h"

namespace asymserve {
namespace {

constexpr int kRequests = 16;
constexpr double kLeastRatio = 3;

/// The tokens of one request.
class Tokens : public OutputSink {
 public:
  bool Deliver(Delta delta) override {
    std::lock_guard lock(mutex_);
    for (const TokenInfo& token : delta.tokens) ids_.push_back(token.id);
    if (!delta.error.ok()) std::cerr << delta.error << '\n';
    if (delta.finish != FinishReason::kNone) done_ = true;
    changed_.notify_all();
    return true;
  }
  std::vector<int32_t> Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    return ids_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::vector<int32_t> ids_;
};

/// Prompts of 8 to 64 tokens, greedy and sampled in turn, 96 to 128 tokens of output.
std::vector<GenerateRequest> MixedRequests(int vocabulary) {
  std::mt19937 random(11);
  std::vector<GenerateRequest> requests(kRequests);
  for (size_t i = 0; i < requests.size(); ++i) {
    GenerateRequest& request = requests[i];
    request.prompt.resize(8 + random() % 57);
    for (int32_t& token : request.prompt) {
      token = static_cast<int32_t>(random() % static_cast<uint32_t>(vocabulary));
    }
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
    request.sampling.top_p = 0.95f;
    request.has_seed = true;
    request.sampling.seed = i;
    request.stop.max_tokens = 96 + static_cast<int32_t>(random() % 33);
    request.stop.ignore_eos = true;
  }
  return requests;
}

struct Setup {
  int threads = 2;
  int32_t step_tokens = 512;
  int64_t kv_memory_bytes = 0;
};

struct Result {
  std::vector<std::vector<int32_t>> tokens;
  double tokens_per_second = 0;
  uint64_t preemptions = 0;
};

void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << '\n';
  std::exit(1);
}

/// So many requests at a time.
Result Run(const std::string& model, const Setup& setup, size_t at_a_time) {
  auto backend = MakeCpuBackend({.threads = setup.threads});
  Require(backend.status());
  LoadOptions load;
  load.path = model;
  load.max_context_tokens = 512;
  load.max_running = kRequests;
  load.step_tokens = setup.step_tokens;
  load.kv_memory_bytes = setup.kv_memory_bytes;
  load.kv_prefix_cache = false;
  load.threads = setup.threads;
  auto loaded = LoadModel(**backend, load);
  Require(loaded.status());
  const std::vector<GenerateRequest> requests = MixedRequests(loaded->config.vocabulary);
  Engine engine(*loaded->model, *loaded->tokenizer, loaded->engine_options);
  Result result;
  size_t tokens = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (size_t first = 0; first < requests.size(); first += at_a_time) {
    std::vector<std::shared_ptr<Tokens>> sinks;
    for (size_t i = first; i < first + at_a_time; ++i) {
      sinks.push_back(std::make_shared<Tokens>());
      Require(engine.Submit(requests[i], sinks.back()).status());
    }
    for (const auto& sink : sinks) {
      result.tokens.push_back(sink->Wait());
      tokens += result.tokens.back().size();
    }
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  result.tokens_per_second = static_cast<double>(tokens) / seconds.count();
  result.preemptions = engine.metrics().preemptions.value();
  return result;
}

int Compare(const std::string& model) {
  const Result alone = Run(model, {}, 1);
  std::printf("one at a time: %.0f tokens/s\n", alone.tokens_per_second);
  bool same = true;
  double ratio = 0;
  std::mt19937 random(17);
  for (int round = 0; round < 4; ++round) {
    Setup setup;
    if (round > 0) {
      setup.threads = 1 + static_cast<int>(random() % 3);
      setup.step_tokens = 16 + static_cast<int32_t>(random() % 300);
      setup.kv_memory_bytes = (16 + static_cast<int64_t>(random() % 16)) << 20;
    }
    const Result together = Run(model, setup, kRequests);
    const bool equal = together.tokens == alone.tokens;
    same = same && equal;
    if (round == 0) ratio = together.tokens_per_second / alone.tokens_per_second;
    std::printf(
        "all at once, %d threads, steps of %d tokens, %llu preemptions: %.0f tokens/s, %.1f times, "
        "tokens %s\n",
        setup.threads, setup.step_tokens, static_cast<unsigned long long>(together.preemptions),
        together.tokens_per_second, together.tokens_per_second / alone.tokens_per_second,
        equal ? "the same" : "DIFFER");
  }
  if (ratio < kLeastRatio) std::printf("less than %.0f times as fast\n", kLeastRatio);
  return same && ratio >= kLeastRatio ? 0 : 1;
}

}  // namespace
}  // namespace asymserve

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): CLI11 may throw at set-up
  std::string model;
  CLI::App app("Tokens of requests alone and in a batch, and how much faster the batch is");
  app.add_option("--model", model, "GGUF file or Hugging Face folder")->required();
  CLI11_PARSE(app, argc, argv);
  return asymserve::Compare(model);
}
