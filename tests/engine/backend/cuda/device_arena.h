#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "engine/backend/attention_plan.h"
#include "engine/backend/cuda/kv_tables.h"
#include "engine/backend/cuda/kv_write.h"
#include "engine/backend/cuda/seal.h"
#include "engine/kv/codec.h"
#include "tests/engine/backend/backend_fixture.h"

namespace asymserve::testing {

/// A code of random tables.
inline PlaneCode RandomPlaneCode(int32_t head_size, int32_t planes, uint32_t seed) {
  const float norm = 1.0f / std::sqrt(static_cast<float>(head_size));
  const auto numbers = [&](int64_t count, uint32_t salt, float sigma) {
    return Matrix::Random(1, count, 16 * seed + salt, sigma).values;
  };
  PlaneCode code;
  code.head_size = head_size;
  for (int32_t p = 0; p < planes; ++p) {
    code.subvector.push_back(static_cast<uint8_t>(p * 5 % (head_size / 4)));
  }
  code.codebooks = numbers(int64_t{planes} * 64, 1, 1);
  code.encode = numbers(int64_t{head_size} * head_size, 2, norm);
  code.decode = numbers(int64_t{head_size} * head_size, 3, norm);
  code.mean = numbers(head_size, 4, 1);
  return code;
}

/// [positions][D]: D/2 cosines, then D/2 sines.
inline Matrix RotaryTable(int32_t positions, int32_t head_size) {
  Matrix rope(positions, head_size);
  for (int32_t p = 0; p < positions; ++p) {
    for (int32_t i = 0; i < head_size / 2; ++i) {
      const double angle = p * std::pow(1e4, -2.0 * i / head_size);
      rope.row(p)[i] = static_cast<float>(std::cos(angle));
      rope.row(p)[head_size / 2 + i] = static_cast<float>(std::sin(angle));
    }
  }
  return rope;
}

/// The message of a launch that failed, for expectations.
inline std::string LaunchFault() {
#ifdef ASYMSERVE_ON_DEVICE
  return cudaGetErrorString(cudaGetLastError());
#else
  return simt::Machine::Instance().TakeFault();
#endif
}

/// A scheme whose items are dealt out over layers, tensors and heads in turn, with everything that
/// a backend wants to know. Without items it never seals. `unequal_windows`: values are sealed
/// later than keys, and no page is fresh.
struct TestScheme {
  TestScheme(const KvShape& shape, KvCodec near, const std::vector<KvItem>& items,
             int32_t positions, bool interleaved, bool unequal_windows = false,
             int32_t frame_tokens = 512)
      : rope(RotaryTable(positions, shape.head_size)) {
    setup.shape = shape;
    setup.scheme.near = near;
    const auto count = static_cast<size_t>(2 * shape.layers * shape.kv_heads);
    for (size_t i = 0; i < count && !items.empty(); ++i) {
      const KvItem& item = items[i % items.size()];
      setup.scheme.items.push_back(item);
      codes.push_back(
          item.codec == KvCodec::kPlanes
              ? RandomPlaneCode(shape.head_size, item.fresh_planes, static_cast<uint32_t>(i) + 1)
              : PlaneCode());
    }
    setup.scheme.frame_tokens = frame_tokens;
    setup.scheme.sink_pages = 1;
    setup.scheme.fresh_pages = unequal_windows ? 0 : 2;
    setup.scheme.key_window = {.recent_pages = 1, .block_pages = 1};
    setup.scheme.value_window = {.recent_pages = unequal_windows ? 3 : 1, .block_pages = 1};
    setup.codes = &codes;
    setup.rope = rope.view();
    setup.rope_style = interleaved ? RopeStyle::kInterleaved : RopeStyle::kHalves;
  }
  TestScheme(const TestScheme&) = delete;
  TestScheme& operator=(const TestScheme&) = delete;
  ~TestScheme() = default;

  Matrix rope;
  PlaneCodes codes;
  KvSetup setup;
};

/// An arena "on the device", that is on tests/simt, its bytes 0xA5 until something is written.
class DeviceArena {
 public:
  DeviceArena(const TestScheme& scheme, int32_t pages)
      : items_(scheme.setup.scheme.items),
        layout_(scheme.setup.shape, scheme.setup.scheme),
        cut_(layout_, ArenaBytes(pages)),
        pool_(cut_),
        bytes_(static_cast<size_t>(cut_.slab_bytes * cut_.slabs + 64), 0xA5),
        offsets_(cuda::BlockOffsets(scheme.setup.shape, layout_)) {
    auto* arena = bytes_.data() + (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64) % 64;
    indices_.reserve(scheme.codes.size());
    for (const PlaneCode& code : scheme.codes) {
      indices_.push_back(cuda::IndexPlanes(code, code.planes()));
      const cuda::PlaneIndex& index = indices_.back();
      codes_.push_back({code.planes(), code.subvector.data(), code.codebooks.data(),
                        index.entries.data(), index.by_subvector.data(), index.starts.data(),
                        code.encode.data(), code.decode.data(), index.decode_columns.data(),
                        code.mean.data()});
    }
    view_ = cuda::MakeKvView(scheme.setup, layout_, cut_, arena, offsets_.data(), items_.data());
    view_.codes = max_planes() > 0 ? codes_.data() : nullptr;
  }

  int64_t ArenaBytes(int32_t pages) const {
    const int64_t near = 3 * ArenaBytesFor(layout_, KvRecord::kNear, pages);
    return items_.empty() ? near : near + ArenaBytesFor(layout_, KvRecord::kBase, pages);
  }
  /// All of its bytes, as they are.
  std::vector<uint8_t> Bytes() const {
    return {view_.arena, view_.arena + cut_.slab_bytes * cut_.slabs};
  }
  /// Where a near block is in Bytes(), by the rules of kv/page.h and not by the view.
  int64_t NearOffset(const KvPage& page, int32_t layer, KvTensor tensor, int32_t head) const {
    const bool apart = page.exact && view_.near == KvCodec::kInt8;
    const bool second = apart && tensor == KvTensor::kValue;
    const int32_t record = Index(second ? page.exact_values : page.near);
    const int32_t per_slab = cut_.per_slab[static_cast<size_t>(KvRecord::kNear)];
    return record / per_slab * cut_.slab_bytes +
           record % per_slab * layout_.record_bytes(KvRecord::kNear) +
           (apart ? layout_.ExactOffset(layer, head)
                  : layout_.Offset(KvRecord::kNear, layer, tensor, head));
  }
  const cuda::KvView& view() const { return view_; }
  RecordPool& pool() { return pool_; }
  int32_t max_planes() const {
    int32_t most = 0;
    for (const KvItem& item : items_) most = std::max(most, int32_t{item.fresh_planes});
    return most;
  }

  /// A page with all records that a sealed one may need, or one of an exact sequence.
  KvPage NewPage(bool exact = false) {
    KvPage page;
    page.near = pool_.Allocate(KvRecord::kNear);
    page.exact = exact;
    if (exact) {
      if (view_.near == KvCodec::kInt8) page.exact_values = pool_.Allocate(KvRecord::kNear);
      return page;
    }
    if (items_.empty()) return page;
    page.base = pool_.Allocate(KvRecord::kBase);
    if (layout_.record_bytes(KvRecord::kRefinement) > 0) {
      page.refinement = pool_.Allocate(KvRecord::kRefinement);
    }
    return page;
  }

 private:
  std::vector<KvItem> items_;
  KvLayout layout_;
  ArenaCut cut_;
  RecordPool pool_;
  std::vector<uint8_t> bytes_;
  std::vector<int64_t> offsets_;
  std::vector<cuda::PlaneIndex> indices_;
  std::vector<cuda::PlaneCodeView> codes_;
  cuda::KvView view_;
};

inline KvSealOp SealOpOf(const KvPage& page, int32_t index) {
  return {.near = page.near, .base = page.base, .refinement = page.refinement, .page = index};
}

}  // namespace asymserve::testing
