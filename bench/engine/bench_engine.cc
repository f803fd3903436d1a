// Tokens per second of the whole engine on one model, without gRPC: scheduler, model, sampler,
// detokenizer and delivery included. Prints a table and, with --json, one JSON object.
//
//   build/release/bin/bench_engine --model FILE [--threads 2] [--json]
//   V/bin/python bench/engine/compare_llama_cpp.py --model FILE --bench
//   build/release/bin/bench_engine

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "nlohmann/json.hpp"

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/base/kernel_memory.h"
#include "engine/runtime/engine.h"
#include "engine/runtime/model_loader.h"

namespace asymserve {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Counts what arrives for a group of requests.
class Collector : public OutputSink {
 public:
  explicit Collector(int sequences) : open_(sequences) {}
  bool Deliver(Delta delta) override {
    std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    if (!delta.tokens.empty()) {
      tokens_ += static_cast<int64_t>(delta.tokens.size());
      arrivals_.push_back(now);
    }
    if (delta.finish == FinishReason::kError) std::cerr << delta.error << '\n';
    if (delta.finish != FinishReason::kNone && --open_ == 0) done_.notify_all();
    return true;
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return open_ == 0; });
  }
  /// Tokens per second from the moment every sequence had its first token.
  double DecodeRate(int sequences) const {
    const auto begin = arrivals_[static_cast<size_t>(sequences) - 1];
    const double seconds = std::chrono::duration<double>(arrivals_.back() - begin).count();
    return static_cast<double>(arrivals_.size() - static_cast<size_t>(sequences)) / seconds;
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  int open_;
  int64_t tokens_ = 0;
  std::vector<Clock::time_point> arrivals_;
};

GenerateRequest MakeRequest(const SamplingParams& sampling, int prompt_tokens, int new_tokens,
                            int seed, int vocabulary) {
  GenerateRequest request;
  for (int i = 0; i < prompt_tokens; ++i) {
    request.prompt.push_back(100 + (i * 7919 + seed * 104729) % (vocabulary - 200));
  }
  request.sampling = sampling;
  request.stop.max_tokens = new_tokens;
  request.stop.ignore_eos = true;
  return request;
}

struct Options {
  std::string model;
  int threads = 2;
  int repetitions = 3;
  int prefill_tokens = 512;
  int decode_tokens = 128;
  std::vector<int> streams = {1, 4, 16};
  SamplingParams sampling;
  bool json = false;
};

int Run(const Options& options) {
  const auto start = Clock::now();
  CpuOptions cpu;
  cpu.threads = options.threads;
  auto backend = MakeCpuBackend(cpu);
  if (!backend.ok()) return std::cerr << backend.status() << '\n', 1;
  LoadOptions load;
  load.path = options.model;
  load.max_context_tokens = 2048;
  auto loaded = LoadModel(**backend, load);
  if (!loaded.ok()) return std::cerr << loaded.status() << '\n', 1;
  Engine engine(*loaded->model, *loaded->tokenizer, loaded->engine_options);
  const double load_seconds = SecondsSince(start);

  const auto run = [&](int streams, int prompt, int tokens, double* prefill_seconds) {
    auto sink = std::make_shared<Collector>(streams);
    const auto begin = Clock::now();
    for (int i = 0; i < streams; ++i) {
      auto id = engine.Submit(
          MakeRequest(options.sampling, prompt, tokens, i, loaded->config.vocabulary), sink);
      if (!id.ok()) std::cerr << id.status() << '\n', std::abort();
    }
    sink->Wait();
    if (prefill_seconds != nullptr) *prefill_seconds = SecondsSince(begin);
    return tokens > 1 ? sink->DecodeRate(streams) : 0.0;
  };

  nlohmann::json result;
  result["backend"] = (*backend)->name();
  result["threads"] = options.threads;
  result["weights"] = loaded->weight_type;
  result["load_seconds"] = load_seconds;
  result["weight_bytes"] = loaded->weight_bytes;
  run(1, 64, 8, nullptr);  // warm up
  double best_prefill = 0;
  for (int i = 0; i < options.repetitions; ++i) {
    double seconds = 0;
    run(1, options.prefill_tokens, 1, &seconds);
    best_prefill = std::max(best_prefill, options.prefill_tokens / seconds);
  }
  result["prefill_tokens_per_second"] = best_prefill;
  for (const int streams : options.streams) {
    double best = 0;
    for (int i = 0; i < options.repetitions; ++i) {
      best = std::max(best, run(streams, 16, options.decode_tokens, nullptr));
    }
    result["decode_tokens_per_second"][std::to_string(streams)] = best;
  }
  result["resident_bytes"] = ProcessResidentBytes();
  if (options.json) {
    std::cout << result.dump() << '\n';
    return 0;
  }
  std::printf("%s, %d threads, %s: loaded in %.3f s, %.1f MB resident\n",
              std::string((*backend)->name()).c_str(), options.threads, loaded->weight_type.c_str(),
              load_seconds, result["resident_bytes"].get<double>() / 1e6);
  std::printf("prefill of %d tokens: %.0f tokens/s\n", options.prefill_tokens, best_prefill);
  for (const int streams : options.streams) {
    std::printf("decode of %d tokens, %2d streams: %.0f tokens/s\n", options.decode_tokens, streams,
                result["decode_tokens_per_second"][std::to_string(streams)].get<double>());
  }
  return 0;
}

}  // namespace
}  // namespace asymserve

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): CLI11 may throw at set-up
  asymserve::Options options;
  options.sampling.temperature = 0;
  CLI::App app("Tokens per second of the engine on one model");
  app.add_option("--model", options.model, "GGUF file or Hugging Face folder")->required();
  app.add_option("--threads", options.threads, "threads of the CPU backend");
  app.add_option("--repetitions", options.repetitions, "the best of this many runs counts");
  app.add_option("--prefill-tokens", options.prefill_tokens, "prompt length of the prefill run");
  app.add_option("--decode-tokens", options.decode_tokens, "tokens each stream generates");
  app.add_option("--streams", options.streams, "numbers of concurrent streams");
  app.add_option("--temperature", options.sampling.temperature, "0 (default): greedy");
  app.add_option("--top-p", options.sampling.top_p, "1 (default): all tokens");
  app.add_flag("--json", options.json, "print one JSON object");
  CLI11_PARSE(app, argc, argv);
  return asymserve::Run(options);
}
