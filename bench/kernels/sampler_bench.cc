#include <cmath>
#include <numeric>

#include "bench/kernels/bench_support.h"
#include "engine/model/sampler.h"

// One token drawn on the host, from logits whose probabilities fall like those of words do (Zipf,
// exponent 1.5), by vocabulary: SmolLM2's and Llama 3's.

namespace asymserve {
namespace {

std::vector<float> ZipfLogits(size_t vocabulary) {
  std::vector<int32_t> rank(vocabulary);
  std::iota(rank.begin(), rank.end(), 1);
  std::shuffle(rank.begin(), rank.end(), std::mt19937(1));
  std::vector<float> logits(vocabulary);
  for (size_t i = 0; i < vocabulary; ++i) logits[i] = -1.5f * std::log(static_cast<float>(rank[i]));
  return logits;
}

void Draw(benchmark::State& state, const SamplingParams& params, int32_t logprobs = -1) {
  const std::vector<float> logits = ZipfLogits(static_cast<size_t>(state.range(0)));
  Sampler sampler(static_cast<int32_t>(logits.size()));
  SampleRequest request;
  request.logits = logits;
  request.params = &params;
  request.logprobs = logprobs;
  BestTime best;
  for (auto _ : state) {
    best.Measure([&] {
      benchmark::DoNotOptimize(sampler.Sample(request));
      ++request.position;
    });
  }
  state.counters["best_us"] = best.seconds() * 1e6;
}

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

void SamplerGreedy(benchmark::State& state) {
  Draw(state, Greedy());
}

void SamplerGreedyLogprobs(benchmark::State& state) {
  Draw(state, Greedy(), 5);
}

void SamplerPlain(benchmark::State& state) {
  Draw(state, {});
}

void SamplerTopP(benchmark::State& state) {
  SamplingParams params;
  params.top_p = 0.95f;
  Draw(state, params);
}

void SamplerTopK(benchmark::State& state) {
  SamplingParams params;
  params.top_k = 40;
  Draw(state, params);
}

void SamplerTypicalP(benchmark::State& state) {
  SamplingParams params;
  params.typical_p = 0.9f;
  Draw(state, params);
}

/// All tokens are about as likely.
void SamplerFlatTopP(benchmark::State& state) {
  SamplingParams params;
  params.temperature = 100;
  params.top_p = 0.95f;
  Draw(state, params);
}

BENCHMARK(SamplerGreedy)->Arg(49152)->Arg(128256);
BENCHMARK(SamplerPlain)->Arg(49152)->Arg(128256);
BENCHMARK(SamplerTopP)->Arg(49152)->Arg(128256);
BENCHMARK(SamplerTopK)->Arg(49152)->Arg(128256);
BENCHMARK(SamplerFlatTopP)->Arg(49152)->Arg(128256);
BENCHMARK(SamplerTypicalP)->Arg(49152)->Arg(128256);
BENCHMARK(SamplerGreedyLogprobs)->Arg(49152)->Arg(128256);

}  // namespace
}  // namespace asymserve
