#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "engine/backend/backend.h"
#include "engine/backend/cpu/aligned_buffer.h"
#include "engine/backend/cpu/cpu_memory.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kv_tables.h"
#include "engine/backend/kv_checks.h"
#include "engine/base/thread_pool.h"
#include "engine/kv/layout.h"
#include "engine/kv/record_pool.h"

namespace asymserve {

/// The bytes of the page records: writing and sealing them. Attention reads them through Blocks.
class KvArena {
 public:
  /// `memory` outlives the arena.
  KvArena(const Kernels& kernels, ThreadPool& pool, const CpuMemory& memory)
      : kernels_(kernels), pool_(pool), memory_(memory) {}

  /// May be called again. InvalidArgument for schemes and shapes that the kernels cannot do,
  /// ResourceExhausted for memory.
  absl::Status Init(const KvSetup& setup);
  /// What Init checks: also for setups whose codes and rotary table are not there yet.
  static absl::Status CheckShape(const KvShape& shape, const KvScheme& scheme);

  /// InternalError unless the arena can hold every page of the step and `tokens` rows fit it.
  absl::Status CheckStep(const KvStep& step, int32_t layer, int64_t tokens) const {
    return CheckKvStep(step, layer, tokens, arena_shape());
  }
  absl::Status Write(const KvStep& step, int32_t layer, TensorView qkv);
  absl::Status Seal(std::span<const KvSealOp> pages);

  /// What calls are held against (kv_checks.h).
  KvArenaShape arena_shape() const;
  const KvShape& shape() const { return setup_.shape; }
  const KvScheme& scheme() const { return setup_.scheme; }
  const KvTables& tables() const { return tables_; }
  TensorView rope() const { return setup_.rope; }
  bool interleaved() const { return setup_.rope_style == RopeStyle::kInterleaved; }
  /// Whether some values are summed in a space of their own.
  bool rotates_values() const { return rotates_values_; }

  /// The bytes of a page for one (layer, KV head).
  KvPageBlocks Blocks(const KvPage& page, int32_t layer, int32_t head) const {
    return {Block(page, page.key_tier, layer, KvTensor::kKey, head),
            Block(page, page.value_tier, layer, KvTensor::kValue, head)};
  }

 private:
  uint8_t* Record(KvRecord kind, PageId id) const {
    const int32_t per_slab = cut_.per_slab[static_cast<size_t>(kind)];
    return arena_.As<uint8_t>() + Index(id) / per_slab * cut_.slab_bytes +
           Index(id) % per_slab * layout_.record_bytes(kind);
  }
  uint8_t* BlockIn(KvRecord kind, PageId id, int32_t layer, KvTensor tensor, int32_t head) const {
    return Record(kind, id) + layout_.Offset(kind, layer, tensor, head);
  }
  /// Where an unsealed block is, and its codec.
  uint8_t* NearBlock(const KvPage& page, int32_t layer, KvTensor tensor, int32_t head) const;
  KvCodec NearCodec(const KvPage& page) const {
    return page.exact ? KvCodec::kHalf : scheme().near;
  }
  KvBlock Block(const KvPage& page, KvTier tier, int32_t layer, KvTensor tensor,
                int32_t head) const;
  void WriteToken(const KvStep& step, int32_t layer, int32_t sequence, int64_t token,
                  const float* keys) const;
  void SealBlock(const KvSealOp& op, int32_t layer, KvTensor tensor, int32_t head) const;

  const Kernels& kernels_;
  ThreadPool& pool_;
  const CpuMemory& memory_;
  KvSetup setup_;  // without the codes: the tables have them
  KvLayout layout_;
  ArenaCut cut_;
  KvTables tables_;
  AlignedBuffer arena_;
  bool rotates_values_ = false;
};

}  // namespace asymserve
