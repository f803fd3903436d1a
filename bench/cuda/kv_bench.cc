#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "bench/cuda/bench_scheme.h"
#include "bench/cuda/device_bench.h"
#include "engine/backend/cuda/attention_choice.h"
#include "engine/backend/cuda/kv_cache.h"
#include "engine/backend/cuda/kv_write.h"
#include "engine/backend/cuda/packed_attention_mma.h"
#include "engine/backend/cuda/paged_attention.h"
#include "engine/backend/cuda/seal.h"
#include "engine/kv/page_tier.h"

namespace asymserve::bench {
namespace {

constexpr int32_t kHeads = 32;  // a layer of Llama-3-8B
constexpr KvShape kShape = {.layers = 1, .kv_heads = 8, .head_size = 128};
constexpr int32_t kTokens = 4096;
constexpr int32_t kPages = kTokens / kKvPageTokens;
constexpr int32_t kSequences = 32;
constexpr int64_t kRowElements = (kHeads + int64_t{2} * kShape.kv_heads) * kShape.head_size;

std::unique_ptr<cuda::Staging> NewStaging(cuda::Device& device) {
  auto staging = cuda::Staging::Create(device, int64_t{4} << 20);
  NeedOk(staging.status());
  return *std::move(staging);
}

/// The pages of kSequences sequences of kTokens tokens in one scheme, as a decode step sees them.
class KvBench {
 public:
  KvBench(cuda::Device& device, Meter& meter, const std::string& name)
      : meter_(meter),
        bench_(name, kShape),
        layout_(kShape, bench_.scheme),
        staging_(NewStaging(device)),
        memory_(&device),
        cache_(&device, memory_, staging_.get()),
        rope_(Random(int64_t{kTokens} * kShape.head_size, 6, 0.5f)),
        qkv_(Random(int64_t{kTokens} * kRowElements, 5, 1)) {
    const bool seals = bench_.scheme.seals();
    KvSetup setup;
    setup.shape = kShape;
    setup.scheme = bench_.scheme;
    setup.codes = &bench_.codes;
    setup.rope =
        MakeMatrix(rope_.As<void>(), kTokens, kShape.head_size, DType::kF32, Place::kDevice);
    for (const KvRecord record : {KvRecord::kNear, KvRecord::kBase, KvRecord::kRefinement}) {
      if (record != KvRecord::kNear && !seals) continue;
      if (layout_.record_bytes(record) == 0) continue;
      setup.arena_bytes += ArenaBytesFor(layout_, record, kSequences * kPages);
    }
    NeedOk(cache_.Init(setup));
    MakePages(ArenaCut(layout_, setup.arena_bytes));
  }

  void Run() {
    Write();
    if (!seals_.empty()) Seal();
    Attend(kSequences);
    Attend(1);
  }

 private:
  void MakePages(const ArenaCut& cut) {
    RecordPool pool(cut);
    const KvScheme& scheme = bench_.scheme;
    for (int32_t i = 0; i < kSequences * kPages; ++i) {
      const int32_t index = i % kPages;
      KvPage page;
      page.near = pool.Allocate(KvRecord::kNear);
      page.key_tier = TierOf(scheme, KvTensor::kKey, index, kPages - 1);
      page.value_tier = TierOf(scheme, KvTensor::kValue, index, kPages - 1);
      if (scheme.seals()) page.base = pool.Allocate(KvRecord::kBase);
      if (scheme.seals() && layout_.record_bytes(KvRecord::kRefinement) > 0) {
        page.refinement = pool.Allocate(KvRecord::kRefinement);
      }
      if (page.key_tier != KvTier::kNear || page.value_tier != KvTier::kNear) {
        seals_.push_back(
            {.near = page.near, .base = page.base, .refinement = page.refinement, .page = index});
      }
      pages_.push_back(page);
    }
  }
  std::string Name(const char* operation) const {
    return absl::StrCat(operation, " ", bench_.scheme.name);
  }

  /// All tokens of each sequence; the last launches are what is measured.
  void Write() {
    std::vector<int32_t> positions(kTokens);
    for (int32_t t = 0; t < kTokens; ++t) positions[static_cast<size_t>(t)] = t;
    AttentionPlan plan;
    PlanAttention(positions, std::vector<int32_t>{0, kTokens}, std::vector<int32_t>{0, kPages},
                  &plan);
    const DeviceValues<AttentionRow> rows(plan.rows);
    const DeviceValues<KvPage> pages(pages_);
    const auto write = [&](int32_t sequence) {
      return cuda::KvWrite(cache_.view(), 0, qkv_.As<float>(), kRowElements, rows.data(),
                           pages.data() + int64_t{sequence} * kPages, kTokens, meter_.stream());
    };
    for (int32_t sequence = 0; sequence < kSequences; ++sequence) {
      Need(write(sequence), "writing pages");
    }
    const double read = 4.0 * kTokens * 2 * kShape.kv_heads * kShape.head_size;
    const double written = static_cast<double>(layout_.record_bytes(KvRecord::kNear)) * kPages;
    meter_.Measure(Name("kv_write 4096 tokens"), read + written, 0, [&] { return write(0); });
  }

  void Seal() {
    const DeviceValues<KvSealOp> ops(seals_);
    int32_t planes = 0;
    for (const KvItem& item : bench_.scheme.items)
      planes = std::max<int32_t>(planes, item.fresh_planes);
    const auto count = static_cast<int64_t>(seals_.size());
    const auto per_page = static_cast<double>(layout_.record_bytes(KvRecord::kNear) +
                                              layout_.record_bytes(KvRecord::kBase) +
                                              layout_.record_bytes(KvRecord::kRefinement));
    const auto seal = [&] {
      return cuda::Seal(cache_.view(), ops.data(), count, planes, meter_.stream());
    };
    Need(seal(), "sealing pages");
    meter_.Measure(absl::StrCat(Name("seal"), " ", count, " pages"),
                   per_page * static_cast<double>(count), 0, seal);
  }

  /// A decode step of `sequences` sequences.
  void Attend(int32_t sequences) {
    std::vector<int32_t> positions;
    std::vector<int32_t> token_offset = {0};
    std::vector<int32_t> page_offset = {0};
    double bytes = 0;
    for (int32_t s = 0; s < sequences; ++s) {
      positions.push_back(kTokens - 1);
      token_offset.push_back(s + 1);
      page_offset.push_back((s + 1) * kPages);
    }
    const auto page_count = static_cast<size_t>(sequences) * kPages;
    for (size_t i = 0; i < page_count; ++i) bytes += PageBytes(layout_, pages_[i]);
    AttentionPlan plan;
    PlanAttention(positions, token_offset, page_offset, &plan);
    const DeviceValues<AttentionRow> rows(plan.rows);
    const DeviceValues<AttentionWork> work(plan.work);
    const DeviceValues<SplitTile> tiles(plan.tiles);
    const DeviceValues<KvPage> pages(std::span<const KvPage>(pages_).first(page_count));
    const auto splits = static_cast<int32_t>(plan.work.size());
    const DeviceArray states(cuda::AttentionStateFloats(splits, kHeads, kShape.head_size) *
                             int64_t{sizeof(float)});
    const DeviceArray out(int64_t{sequences} * kHeads * kShape.head_size * int64_t{sizeof(float)});
    const cuda::AttentionArgs args = {.kv = cache_.view(),
                                      .layer = 0,
                                      .heads = kHeads,
                                      .qkv = qkv_.As<float>(),
                                      .row_elements = kRowElements,
                                      .out = out.As<float>(),
                                      .pages = pages.data(),
                                      .rows = rows.data(),
                                      .row_count = sequences,
                                      .work = work.data(),
                                      .work_count = splits,
                                      .tiles = tiles.data(),
                                      .tile_count = static_cast<int32_t>(plan.tiles.size()),
                                      .single_tiles = plan.single_tiles,
                                      .most_rows = plan.most_rows,
                                      .states = states.As<float>()};
    const double operations = 4.0 * sequences * kTokens * kHeads * kShape.head_size;
    const std::string of = absl::StrCat(" ", sequences, " x 4096 ", bench_.scheme.name);
    meter_.Measure("paged_attention" + of, bytes, operations,
                   [&] { return cuda::PagedAttention(args, meter_.stream()); });
    if (!cuda::CanUsePackedAttentionMma(bench_.scheme, kShape)) return;
    meter_.Measure("packed_attention_mma" + of, bytes, operations,
                   [&] { return cuda::PackedAttentionMma(args, meter_.stream()); });
  }

  Meter& meter_;
  const BenchScheme bench_;
  const KvLayout layout_;
  const std::unique_ptr<cuda::Staging> staging_;
  cuda::DeviceMemory memory_;
  cuda::KvCache cache_;
  const DeviceValues<float> rope_, qkv_;
  std::vector<KvPage> pages_;
  std::vector<KvSealOp> seals_;
};

}  // namespace

void MeasureKvCache(cuda::Device& device, Meter& meter) {
  for (const char* name : {"exact", "int8", "kivi-2", "fit-2/2", "balanced", "dense"}) {
    KvBench(device, meter, name).Run();
    Need(device.Synchronize(), name);
  }
}

}  // namespace asymserve::bench
