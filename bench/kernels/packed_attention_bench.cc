#include <array>
#include <numeric>
#include <string>

#include "bench/kernels/bench_support.h"
#include "engine/kv/page_store.h"
#include "engine/kv/profile.h"

// What attention of one decoded token costs in all layers of SmolLM2-135M, by KV scheme, depth and
// threads, beside the time that one core takes to read the exact cache of that depth from memory
// (16 bits an element, L3 too small for it at 4,096 tokens). That read also clears the caches, as
// the weights do between two tokens. Keys and values are random: the time does not depend on them.
// `light`, `balanced`, `dense`: the default model's profile; run from the source tree.

namespace asymserve {
namespace {

constexpr char kProfile[] = "config/profiles/SmolLM2-135M-Instruct.Q4_1.asymkv";
constexpr AttentionShape kHeads = {9, 3, 64};
constexpr KvShape kModel = {.layers = 30, .kv_heads = 3, .head_size = 64};
constexpr int64_t kCols = (9 + 2 * 3) * 64;
constexpr std::array kSchemes = {"exact",   "int8",  "kivi-2",   "fit-2/2",
                                 "fit-2/1", "light", "balanced", "dense"};

/// One sequence of `depth` tokens whose pages are sealed as for its last token.
class PackedStep {
 public:
  PackedStep(const std::string& scheme, int32_t depth, int threads)
      : backend_(MakeBenchBackend(threads)), rope_(RandomFloats(int64_t{depth} * 64, 5)) {
    const absl::StatusOr<KvProfile> profile = ReadProfile(kProfile);
    Require(profile.status());
    const absl::StatusOr<KvScheme> resolved = ResolveKvScheme(scheme, kModel, &*profile);
    Require(resolved.status());
    KvSetup setup;
    setup.shape = kModel;
    setup.scheme = *resolved;
    setup.codes = &profile->codes;
    setup.rope = MakeMatrix(rope_.data(), depth, 64);
    const KvLayout layout(kModel, setup.scheme);
    setup.arena_bytes = 4 * ArenaBytesFor(layout, KvRecord::kNear, depth / 64 + 4);
    Require(backend_->KvInit(setup));
    Require(backend_->Reserve(256, 64));
    PageStore store(setup.scheme, ArenaCut(layout, setup.arena_bytes));
    for (int32_t first = 0; first < depth; first += 64) Fill(store, first);
    positions_ = {depth - 1};
    offset_ = {0, 1};
  }

  void Attend() {
    for (int32_t layer = 0; layer < kModel.layers; ++layer) {
      Require(backend_->Attention({positions_, offset_, pages_, page_offset_}, layer, kHeads,
                                  MakeMatrix(out_.data(), 1, 9 * 64),
                                  MakeMatrix(qkv_.data(), 1, kCols)));
    }
  }
  void Seal() { Require(backend_->KvSeal(std::span(seals_).first(1))); }

 private:
  /// Stores tokens [first, first + 64) and seals what they push out of the window.
  void Fill(PageStore& store, int32_t first) {
    std::vector<KvSealOp> seals;
    if (!store.Prepare(pages_, first + 64, first / 64, seals)) std::abort();
    if (!seals.empty()) Require(backend_->KvSeal(seals));
    if (!seals.empty()) seals_ = seals;
    positions_.clear();
    for (int32_t t = first; t < first + 64; ++t) positions_.push_back(t);
    offset_ = {0, 64};
    page_offset_ = {0, static_cast<int32_t>(pages_.size())};
    qkv_ = RandomFloats(64 * kCols, static_cast<uint32_t>(first));
    for (int32_t layer = 0; layer < kModel.layers; ++layer) {
      Require(backend_->KvWrite({positions_, offset_, pages_, page_offset_}, layer,
                                MakeMatrix(qkv_.data(), 64, kCols)));
    }
    store.EndPlan();
  }

  std::unique_ptr<Backend> backend_;
  std::vector<float> rope_;
  std::vector<int32_t> positions_, offset_, page_offset_;
  std::vector<KvPage> pages_;
  std::vector<KvSealOp> seals_;  // the last
  std::vector<float> qkv_;
  std::vector<float> out_ = std::vector<float>(9 * 64);
};

/// Reads memory as fast as one core can.
uint64_t ReadAll(const std::vector<uint64_t>& words) {
  std::array<uint64_t, 32> sums = {};
  for (size_t i = 0; i + sums.size() <= words.size(); i += sums.size()) {
    for (size_t j = 0; j < sums.size(); ++j) sums[j] += words[i + j];
  }
  return std::accumulate(sums.begin(), sums.end(), uint64_t{0});
}

void BM_PackedDecodeAttention(benchmark::State& state) {
  const char* scheme = kSchemes.at(static_cast<size_t>(state.range(0)));
  const auto depth = static_cast<int32_t>(state.range(1));
  PackedStep step(scheme, depth, static_cast<int>(state.range(2)));
  const int64_t exact_bytes = int64_t{2} * 2 * kModel.layers * kModel.kv_heads * 64 * depth;
  const std::vector<uint64_t> exact(static_cast<size_t>(exact_bytes) / sizeof(uint64_t), 1);
  BestTime read;
  BestTime attend;
  for (auto _ : state) {
    read.Measure([&] { benchmark::DoNotOptimize(ReadAll(exact)); });
    attend.Measure([&] { step.Attend(); });
  }
  state.counters["best_ms"] = attend.seconds() * 1e3;
  state.counters["tokens_per_s"] = 1 / attend.seconds();
  state.counters["read_exact_ms"] = read.seconds() * 1e3;
  state.counters["of_read"] = attend.seconds() / read.seconds();
  state.SetLabel(scheme);
}
BENCHMARK(BM_PackedDecodeAttention)
    ->ArgNames({"scheme", "depth", "threads"})
    ->ArgsProduct({{0, 1, 2, 3, 4, 5, 6, 7}, {1024, 4096}, {1, 2}})
    ->UseRealTime();

void BM_KvSeal(benchmark::State& state) {
  const char* scheme = kSchemes.at(static_cast<size_t>(state.range(0)));
  PackedStep step(scheme, 512, 1);
  BestTime best;
  for (auto _ : state) best.Measure([&] { step.Seal(); });
  state.counters["best_ms"] = best.seconds() * 1e3;
  state.SetLabel(scheme);
}
BENCHMARK(BM_KvSeal)->ArgName("scheme")->Arg(2)->Arg(3)->Arg(5)->Arg(6)->UseRealTime();

}  // namespace
}  // namespace asymserve
