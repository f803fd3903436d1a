#include "bench/kernels/bench_support.h"
#include "engine/kv/record_pool.h"

// Attention of one layer of SmolLM2-135M (9 query heads, 3 KV heads of 64) over exact pages.

namespace asymserve {
namespace {

constexpr AttentionShape kShape = {9, 3, 64};
constexpr int64_t kQkvCols = (9 + 2 * 3) * 64;
constexpr int64_t kOutCols = 9 * 64;

/// `sequences` sequences, each running its last `tokens` of `depth` positions.
class AttentionStep {
 public:
  AttentionStep(int threads, int32_t sequences, int32_t tokens, int32_t depth)
      : backend_(MakeBenchBackend(threads)) {
    const int32_t pages = (depth + 63) / 64;
    KvSetup setup;
    setup.shape = {1, kShape.kv_heads, kShape.head_size};
    setup.arena_bytes =
        ArenaBytesFor(KvLayout(setup.shape, setup.scheme), KvRecord::kNear, sequences * pages);
    Require(backend_->KvInit(setup));
    Require(backend_->Reserve(int64_t{sequences} * std::max(tokens, depth), 64));
    // Fill the cache, then describe the measured step.
    Describe(sequences, 0, depth);
    Require(backend_->KvWrite(step(), 0, qkv()));
    Describe(sequences, depth - tokens, depth);
  }

  void Write() { Require(backend_->KvWrite(step(), 0, qkv())); }
  void Attend() {
    const auto rows = static_cast<int64_t>(positions_.size());
    Require(backend_->Attention(step(), 0, kShape, MakeMatrix(out_.data(), rows, kOutCols), qkv()));
  }

 private:
  void Describe(int32_t sequences, int32_t first, int32_t last) {
    positions_.clear();
    pages_.clear();
    token_offset_ = {0};
    page_offset_ = {0};
    int32_t next_page = 0;
    for (int32_t s = 0; s < sequences; ++s) {
      for (int32_t t = first; t < last; ++t) positions_.push_back(t);
      for (int32_t page = 0; page < (last + 63) / 64; ++page) {
        pages_.push_back({.near = PageId{next_page++}});
      }
      token_offset_.push_back(static_cast<int32_t>(positions_.size()));
      page_offset_.push_back(static_cast<int32_t>(pages_.size()));
    }
    const auto rows = static_cast<int64_t>(positions_.size());
    qkv_ = RandomFloats(rows * kQkvCols, 1);
    out_.resize(static_cast<size_t>(rows * kOutCols));
  }
  KvStep step() const { return {positions_, token_offset_, pages_, page_offset_}; }
  TensorView qkv() {
    return MakeMatrix(qkv_.data(), static_cast<int64_t>(positions_.size()), kQkvCols);
  }

  std::unique_ptr<Backend> backend_;
  std::vector<int32_t> positions_, token_offset_, page_offset_;
  std::vector<KvPage> pages_;
  std::vector<float> qkv_;
  std::vector<float> out_;
};

void BM_DecodeAttention(benchmark::State& state) {
  AttentionStep step(static_cast<int>(state.range(2)), static_cast<int32_t>(state.range(0)), 1,
                     static_cast<int32_t>(state.range(1)));
  BestTime best;
  for (auto _ : state) best.Measure([&] { step.Attend(); });
  state.counters["best_us"] = best.seconds() * 1e6;
}
BENCHMARK(BM_DecodeAttention)
    ->ArgNames({"sequences", "depth", "threads"})
    ->ArgsProduct({{1, 16}, {64, 512, 2048}, {1, 2}})
    ->UseRealTime();

void BM_PrefillAttention(benchmark::State& state) {
  AttentionStep step(static_cast<int>(state.range(2)), 1, static_cast<int32_t>(state.range(0)),
                     static_cast<int32_t>(state.range(1)));
  BestTime best;
  for (auto _ : state) best.Measure([&] { step.Attend(); });
  state.counters["best_us"] = best.seconds() * 1e6;
}
BENCHMARK(BM_PrefillAttention)
    ->ArgNames({"tokens", "depth", "threads"})
    ->ArgsProduct({{256}, {256, 512, 2048}, {1, 2}})
    ->UseRealTime();

void BM_KvWrite(benchmark::State& state) {
  AttentionStep step(2, 1, static_cast<int32_t>(state.range(0)), 512);
  BestTime best;
  for (auto _ : state) best.Measure([&] { step.Write(); });
  state.counters["best_us"] = best.seconds() * 1e6;
}
BENCHMARK(BM_KvWrite)->Arg(1)->Arg(16)->Arg(256)->ArgName("tokens")->UseRealTime();

}  // namespace
}  // namespace asymserve
