#include <array>
#include <string>

#include "bench/kernels/bench_support.h"
#include "engine/kv/page_store.h"

// Decode attention of one layer of SmolLM2-135M (9 query heads, 3 KV heads of 64) over sealed
// pages, and what sealing a page costs, by KV scheme. `planes-16` is a learned code of 1.0 bit with
// random tables: the time does not depend on what is in them.

namespace asymserve {
namespace {

constexpr AttentionShape kHeads = {9, 3, 64};
constexpr KvShape kModel = {.layers = 1, .kv_heads = 3, .head_size = 64};
constexpr int64_t kCols = (9 + 2 * 3) * 64;
constexpr std::array kSchemes = {"exact", "int8", "kivi-2", "fit-2/2", "fit-2/1", "planes-16"};

PlaneCode RandomCode(uint32_t seed) {
  constexpr int32_t kPlanes = 16;
  PlaneCode code;
  code.head_size = kModel.head_size;
  for (int32_t p = 0; p < kPlanes; ++p) code.subvector.push_back(static_cast<uint8_t>(p));
  code.codebooks = RandomFloats(int64_t{kPlanes} * 64, seed);
  code.encode = RandomFloats(64 * 64, seed + 1);
  code.decode = RandomFloats(64 * 64, seed + 2);
  code.mean = RandomFloats(64, seed + 3);
  return code;
}

KvScheme SchemeOf(const std::string& name) {
  if (name != "planes-16") {
    auto scheme = NamedKvScheme(name, kModel);
    Require(scheme.status());
    return *scheme;
  }
  KvScheme scheme;
  scheme.name = name;
  scheme.near = KvCodec::kInt8;
  scheme.sink_pages = 1;
  scheme.key_window = scheme.value_window = {.recent_pages = 1, .block_pages = 1};
  scheme.items.assign(6, {.codec = KvCodec::kPlanes, .base_planes = 16, .fresh_planes = 16});
  return scheme;
}

/// One sequence of `depth` tokens whose pages are sealed as for its last token.
class PackedStep {
 public:
  PackedStep(const std::string& scheme, int32_t depth)
      : backend_(MakeBenchBackend(1)), rope_(RandomFloats(int64_t{depth} * 64, 5)) {
    KvSetup setup;
    setup.shape = kModel;
    setup.scheme = SchemeOf(scheme);
    for (uint32_t i = 0; i < 6; ++i) codes_.push_back(RandomCode(i));
    setup.codes = &codes_;
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
    Require(backend_->Attention({positions_, offset_, pages_, page_offset_}, 0, kHeads,
                                MakeMatrix(out_.data(), 1, 9 * 64),
                                MakeMatrix(qkv_.data(), 1, kCols)));
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
    Require(backend_->KvWrite({positions_, offset_, pages_, page_offset_}, 0,
                              MakeMatrix(qkv_.data(), 64, kCols)));
    store.EndPlan();
  }

  std::unique_ptr<Backend> backend_;
  std::vector<float> rope_;
  PlaneCodes codes_;
  std::vector<int32_t> positions_, offset_, page_offset_;
  std::vector<KvPage> pages_;
  std::vector<KvSealOp> seals_;  // the last
  std::vector<float> qkv_;
  std::vector<float> out_ = std::vector<float>(9 * 64);
};

void BM_PackedDecodeAttention(benchmark::State& state) {
  const char* scheme = kSchemes.at(static_cast<size_t>(state.range(0)));
  PackedStep step(scheme, static_cast<int32_t>(state.range(1)));
  BestTime best;
  for (auto _ : state) best.Measure([&] { step.Attend(); });
  state.counters["best_us"] = best.seconds() * 1e6;
  state.SetLabel(scheme);
}
BENCHMARK(BM_PackedDecodeAttention)
    ->ArgNames({"scheme", "depth"})
    ->ArgsProduct({{0, 1, 2, 3, 4, 5}, {1024, 4096}})
    ->UseRealTime();

void BM_KvSeal(benchmark::State& state) {
  const char* scheme = kSchemes.at(static_cast<size_t>(state.range(0)));
  PackedStep step(scheme, 512);
  BestTime best;
  for (auto _ : state) best.Measure([&] { step.Seal(); });
  state.counters["best_us"] = best.seconds() * 1e6;
  state.SetLabel(scheme);
}
BENCHMARK(BM_KvSeal)->ArgName("scheme")->Arg(2)->Arg(3)->Arg(5)->UseRealTime();

}  // namespace
}  // namespace asymserve
