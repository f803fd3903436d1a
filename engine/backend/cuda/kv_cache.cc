#include "engine/backend/cuda/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "engine/backend/attention_plan.h"
#include "engine/backend/cuda/device_error.h"
#include "engine/backend/cuda/kv_tables.h"
#include "engine/base/status.h"

namespace asymserve::cuda {
namespace {

constexpr int32_t kSplitTokens = kSplitPages * kKvPageTokens;

/// Lays arrays one behind the other, each at 16 bytes. Without bytes to write to it only counts.
class TableWriter {
 public:
  /// `device`: where the bytes will be.
  TableWriter(std::vector<std::byte>* bytes, std::byte* device) : bytes_(bytes), device_(device) {}

  /// Where the array will be; null when counting.
  template <typename T>
  const T* Add(std::span<const T> values) {
    const int64_t begin = Begin(static_cast<int64_t>(values.size_bytes()));
    if (bytes_ == nullptr) return nullptr;
    std::memcpy(bytes_->data() + begin, values.data(), values.size_bytes());
    return reinterpret_cast<const T*>(device_ + begin);
  }
  /// The same of `count` elements whose values come later or do not matter.
  template <typename T>
  int64_t Skip(int64_t count) {
    return Begin(count * static_cast<int64_t>(sizeof(T)));
  }
  int64_t used() const { return used_; }

 private:
  int64_t Begin(int64_t bytes) {
    const int64_t begin = used_;
    used_ += (bytes + 15) / 16 * 16;
    return begin;
  }

  std::vector<std::byte>* bytes_;
  std::byte* device_;
  int64_t used_ = 0;
};

int64_t TableBytes(const KvShape& shape, const KvScheme& scheme) {
  const int64_t blocks = int64_t{2} * shape.layers * shape.kv_heads;
  TableWriter counter(nullptr, nullptr);
  counter.Skip<int64_t>(3 * blocks);
  if (scheme.seals()) counter.Skip<KvItem>(blocks);
  if (!HasPlanes(scheme)) return counter.used();
  counter.Skip<PlaneCodeView>(blocks);
  const int64_t size = shape.head_size;
  for (const KvItem& item : scheme.items) {
    if (item.codec != KvCodec::kPlanes) continue;
    counter.Skip<uint8_t>(item.fresh_planes);
    counter.Skip<float>(int64_t{item.fresh_planes} * 64);
    counter.Skip<uint16_t>(int64_t{item.fresh_planes} * 64);
    counter.Skip<uint8_t>(item.fresh_planes);
    counter.Skip<uint8_t>(size / 4 + 1);
    counter.Skip<float>(size * size);
    counter.Skip<float>(size * size);
    counter.Skip<float>(size * size);
    counter.Skip<float>(size);
  }
  return counter.used();
}

/// What of a code the scheme uses.
PlaneCodeView AddCode(const PlaneCode& code, int32_t planes, TableWriter& writer) {
  const auto count = static_cast<size_t>(planes);
  PlaneCodeView view;
  view.planes = planes;
  view.subvector = writer.Add(std::span(code.subvector).first(count));
  view.codebooks = writer.Add(std::span(code.codebooks).first(count * 64));
  const PlaneIndex index = IndexPlanes(code, planes);
  view.entries = writer.Add(std::span(index.entries));
  view.by_subvector = writer.Add(std::span(index.by_subvector));
  view.starts = writer.Add(std::span(index.starts));
  view.encode = writer.Add(std::span(code.encode));
  view.decode = writer.Add(std::span(code.decode));
  view.decode_columns = writer.Add(std::span(index.decode_columns));
  view.mean = writer.Add(std::span(code.mean));
  return view;
}

absl::Status CheckShape(const KvSetup& setup) {
  ASYMSERVE_RETURN_IF_ERROR(CheckKvScheme(setup.scheme, setup.shape));
  if (HasPlanes(setup.scheme) && setup.scheme.frame_tokens % kSplitTokens != 0) {
    return absl::InvalidArgumentError(absl::StrCat("cuda: KV frames of ", setup.scheme.frame_tokens,
                                                   " tokens are not a multiple of ", kSplitTokens));
  }
  constexpr int64_t kMaxHeads = int64_t{1} << 24;
  if (int64_t{setup.shape.layers} * setup.shape.kv_heads > kMaxHeads) {
    return absl::InvalidArgumentError(absl::StrCat("cuda: KV cache of ", setup.shape.layers,
                                                   " layers, ", setup.shape.kv_heads, " heads"));
  }
  return absl::OkStatus();
}

}  // namespace

KvArenaShape KvCache::arena_shape() const {
  if (!initialized_) return {};
  return {&shape_, &scheme_, &cut_};
}

absl::Status KvCache::Init(const KvSetup& setup) {
  ASYMSERVE_RETURN_IF_ERROR(CheckShape(setup));
  KvLayout layout(setup.shape, setup.scheme);
  const ArenaCut cut(layout, setup.arena_bytes);
  const bool counts = device_ == nullptr;
  if (!counts) {
    const bool has_rope =
        setup.rope.data != nullptr && setup.rope.row_elements() == setup.shape.head_size;
    if (HasPlanes(setup.scheme) && !has_rope) {
      return absl::InternalError("KvInit: a learned scheme needs the rotary table");
    }
    if (setup.rope.data != nullptr && setup.rope.place != Place::kDevice) {
      return absl::InternalError("KvInit: the rotary table is not on the device");
    }
    if (cut.slabs < 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "KV arena of ", setup.arena_bytes, " bytes; one slab of pages takes ", cut.slab_bytes));
    }
    ASYMSERVE_RETURN_IF_ERROR(CheckPlaneCodes(setup));
  }
  initialized_ = false;
  layout_ = std::move(layout);
  cut_ = cut;
  absl::Status status = Allocate(setup);
  if (status.ok() && !counts) status = Fill(setup);
  if (!status.ok()) {
    tables_.Reset();
    arena_.Reset();
    return status;
  }
  initialized_ = !counts;
  return absl::OkStatus();
}

absl::Status KvCache::Allocate(const KvSetup& setup) {
  // The old tables go first, so that the device never holds both.
  tables_.Reset();
  const int64_t bytes = cut_.slab_bytes * cut_.slabs;
  if (bytes != arena_.bytes()) arena_.Reset();
  ASYMSERVE_ASSIGN_OR_RETURN(
      tables_,
      memory_.Allocate(MemoryClass::kTables, TableBytes(setup.shape, setup.scheme), "KV tables"));
  if (arena_) return absl::OkStatus();
  ASYMSERVE_ASSIGN_OR_RETURN(arena_, memory_.Allocate(MemoryClass::kKv, bytes, "KV arena"));
  return absl::OkStatus();
}

absl::Status KvCache::Fill(const KvSetup& setup) {
  shape_ = setup.shape;
  scheme_ = setup.scheme;
  positions_ = setup.rope.data == nullptr ? 0 : setup.rope.rows();
  ASYMSERVE_RETURN_IF_ERROR(CheckCuda(*device_, device_->Fill(arena_.As<void>(), 0, arena_.bytes()),
                                      "clearing the KV arena"));
  std::vector<std::byte> bytes(static_cast<size_t>(tables_.bytes()));
  auto* device = tables_.As<std::byte>();
  TableWriter writer(&bytes, device);
  const std::vector<int64_t> offsets = BlockOffsets(shape_, layout_);
  const int64_t* offsets_there = writer.Add(std::span(offsets));
  const KvItem* items = nullptr;
  if (scheme_.seals()) items = writer.Add(std::span<const KvItem>(scheme_.items));
  view_ = MakeKvView(setup, layout_, cut_, arena_.As<uint8_t>(), offsets_there, items);
  max_planes_ = 0;
  if (HasPlanes(scheme_)) {
    std::vector<PlaneCodeView> codes(scheme_.items.size());
    const int64_t place = writer.Skip<PlaneCodeView>(static_cast<int64_t>(codes.size()));
    for (size_t i = 0; i < codes.size(); ++i) {
      const KvItem& item = scheme_.items[i];
      if (item.codec != KvCodec::kPlanes) continue;
      codes[i] = AddCode((*setup.codes)[i], item.fresh_planes, writer);
      max_planes_ = std::max(max_planes_, int32_t{item.fresh_planes});
    }
    std::memcpy(bytes.data() + place, codes.data(), codes.size() * sizeof(PlaneCodeView));
    view_.codes = reinterpret_cast<const PlaneCodeView*>(device + place);
  }
  return staging_->Copy(device, bytes.data(), tables_.bytes(), "KV tables");
}

}  // namespace asymserve::cuda
